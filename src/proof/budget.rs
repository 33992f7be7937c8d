//! What a miner lets others make it do: a pure account of operations, memory and time, checked before anything is
//! allocated.
//!
//! One challenge is served at a time, since two at once would halve each other's measured rate; the second caller
//! hears until when the first may take. Windows are stretches of wall-clock time of fixed length. A ticket that is
//! never finished ends by itself when its time is over, and counts in full.

use std::collections::HashMap;
use std::time::Duration;

use super::memory::{self, cpu};
use super::work::Work;
use crate::clock::millis;
use crate::ids::{DeviceId, Hotkey};
use crate::verdict::UnknownCause;

/// Most callers counted in one window; later ones are refused.
const MAX_CALLERS: usize = 1024;

/// A miner's own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Most operations of one challenge, all devices together.
    pub ops_per_challenge: u64,
    /// Most memory of one challenge's provers together, in bytes.
    pub memory_bytes: u64,
    /// Most memory of one device's prover, in bytes: with less than it needs it would only be started to fail.
    pub prover_memory_bytes: u64,
    /// Longest time spent on challenges in one window; also the longest a single one holds the others off.
    pub time_per_window: Duration,
    /// Most challenges for one hotkey in one window.
    pub challenges_per_hotkey_per_window: u32,
    /// Length of a window.
    pub window: Duration,
}

/// What one device's proof costs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Operations.
    pub operations: u64,
    /// Memory of its prover's process, in bytes.
    pub memory_bytes: u64,
}

impl Cost {
    /// The cost of this work; its size has been checked.
    pub fn of_work(work: &Work) -> Self {
        Cost { operations: work.operations(), memory_bytes: work.memory_bytes() }
    }

    /// The cost of a proof of the memory of this device. That of a GPU is not the prover's.
    pub fn of_memory(device: DeviceId, size: &memory::Size) -> Self {
        let whole = cpu::memory_bytes(size);
        let own = if device.cpu_index().is_some() { 0 } else { size.bytes() };
        Cost { operations: size.operations(), memory_bytes: whole.saturating_sub(own) }
    }
}

/// Permission to do one challenge's work; hand it back with [`Budget::finish`], or [`Budget::withdraw`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    until_ms: u64,
}

impl Ticket {
    /// When the permission ends by itself, in milliseconds of the clock that [`Budget::admit`] was given.
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }
}

/// Which limit a challenge exceeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetReason {
    /// A device's work is out of range, or there is no device.
    #[error("no valid work: {0}")]
    Work(String),
    /// Too many operations.
    #[error("{asked} operations, at most {limit} in one challenge")]
    Operations {
        /// Asked for.
        asked: u64,
        /// Allowed.
        limit: u64,
    },
    /// Too much memory.
    #[error("{asked} bytes of memory, at most {limit} in one challenge")]
    Memory {
        /// Asked for.
        asked: u64,
        /// Allowed.
        limit: u64,
    },
    /// Too much memory for one prover.
    #[error("{asked} bytes of memory for one device, at most {limit} for one prover")]
    ProverMemory {
        /// Asked for.
        asked: u64,
        /// Allowed.
        limit: u64,
    },
    /// The window's time is spent.
    #[error("the time for challenges in this window is spent")]
    Time,
    /// This caller had its share.
    #[error("{limit} challenges for one hotkey in one window")]
    PerHotkey {
        /// Allowed.
        limit: u32,
    },
    /// Too many callers in one window.
    #[error("too many callers in this window")]
    Callers,
}

/// Why a challenge is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another one is being served, at most until then.
    #[error("busy until {until_ms} ms")]
    Busy {
        /// Milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// It exceeds the budget.
    #[error("over budget: {0}")]
    Budget(BudgetReason),
}

impl Refusal {
    /// What the validator can say about the devices.
    pub fn cause(&self) -> UnknownCause {
        match self {
            Refusal::Busy { .. } => UnknownCause::Busy,
            Refusal::Budget(_) => UnknownCause::BudgetRefused,
        }
    }
}

#[derive(Debug)]
struct Serving {
    number: u64,
    hotkey: Hotkey,
    started_ms: u64,
    until_ms: u64,
}

/// The account.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    serving: Option<Serving>,
    window: u64,
    used_ms: u64,
    callers: HashMap<Hotkey, u32>,
    tickets: u64,
}

impl Budget {
    /// An account in which nothing is spent.
    pub fn new(limits: BudgetLimits) -> Self {
        Budget { limits, serving: None, window: 0, used_ms: 0, callers: HashMap::new(), tickets: 0 }
    }

    /// Asks for permission to do `work` (one entry for each device, all at once) for `hotkey`.
    ///
    /// # Errors
    /// [`Refusal::Busy`] while another challenge is served, else [`Refusal::Budget`] with the limit exceeded. A refusal
    /// costs the caller nothing.
    pub fn admit(&mut self, now_ms: u64, hotkey: Hotkey, work: &[Work]) -> Result<Ticket, Refusal> {
        let of = |one: &Work| match one.check() {
            Ok(()) => Ok(Cost::of_work(one)),
            Err(error) => Err(Refusal::Budget(BudgetReason::Work(error.to_string()))),
        };
        let costs = work.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        self.admit_costs(now_ms, hotkey, &costs)
    }

    /// [`admit`](Self::admit) for proofs of which the costs are known.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn admit_costs(&mut self, now_ms: u64, hotkey: Hotkey, costs: &[Cost]) -> Result<Ticket, Refusal> {
        self.advance(now_ms);
        let limits = self.limits;
        self.size(costs).map_err(Refusal::Budget)?;
        if let Some(serving) = &self.serving {
            return Err(Refusal::Busy { until_ms: serving.until_ms });
        }
        let most = millis(limits.time_per_window);
        if self.used_ms >= most {
            return Err(Refusal::Budget(BudgetReason::Time));
        }
        let had = self.callers.get(&hotkey).copied();
        if had.unwrap_or(0) >= limits.challenges_per_hotkey_per_window {
            let limit = limits.challenges_per_hotkey_per_window;
            return Err(Refusal::Budget(BudgetReason::PerHotkey { limit }));
        }
        if had.is_none() && self.callers.len() >= MAX_CALLERS {
            return Err(Refusal::Budget(BudgetReason::Callers));
        }
        *self.callers.entry(hotkey).or_insert(0) += 1;
        self.tickets += 1;
        let until_ms = now_ms.saturating_add(most - self.used_ms);
        self.serving = Some(Serving { number: self.tickets, hotkey, started_ms: now_ms, until_ms });
        Ok(Ticket { number: self.tickets, until_ms })
    }

    /// Other limits from now on. What is spent stays spent; a window of another length begins anew.
    pub fn set_limits(&mut self, limits: BudgetLimits) {
        if limits.window != self.limits.window {
            self.window = 0;
        }
        self.limits = limits;
    }

    /// The work is done, or given up. A ticket that has ended by itself changes nothing.
    pub fn finish(&mut self, ticket: Ticket, now_ms: u64) {
        self.advance(now_ms);
        if let Some(serving) = self.serving.take_if(|serving| serving.number == ticket.number) {
            self.used_ms = self.used_ms.saturating_add(now_ms.saturating_sub(serving.started_ms));
        }
    }

    /// The work was not begun: it costs the caller neither time nor a challenge. A ticket that has ended by itself changes
    /// nothing.
    pub fn withdraw(&mut self, ticket: Ticket) {
        if let Some(serving) = self.serving.take_if(|serving| serving.number == ticket.number) {
            // A caller that is counted no more was so in a window that has passed.
            let counted = self.callers.get_mut(&serving.hotkey);
            if counted.is_some_and(|count| {
                *count = count.saturating_sub(1);
                *count == 0
            }) {
                self.callers.remove(&serving.hotkey);
            }
        }
    }

    /// Until when the current challenge may take, if there is one.
    pub fn busy_until_ms(&mut self, now_ms: u64) -> Option<u64> {
        self.advance(now_ms);
        self.serving.as_ref().map(|serving| serving.until_ms)
    }

    /// Ends a ticket whose time is over, and begins a new window where one is due.
    fn advance(&mut self, now_ms: u64) {
        if let Some(over) = self.serving.take_if(|serving| now_ms >= serving.until_ms) {
            self.used_ms = self.used_ms.saturating_add(over.until_ms - over.started_ms);
        }
        let window = now_ms / millis(self.limits.window).max(1);
        // A clock that was set back stays in its window: it must not make the budget new.
        if window > self.window {
            self.window = window;
            self.used_ms = 0;
            self.callers.clear();
        }
    }

    fn size(&self, costs: &[Cost]) -> Result<(), BudgetReason> {
        if costs.is_empty() {
            return Err(BudgetReason::Work("no device is named".into()));
        }
        let (mut operations, mut memory, mut largest) = (0u64, 0u64, 0u64);
        for cost in costs {
            operations = operations.saturating_add(cost.operations);
            memory = memory.saturating_add(cost.memory_bytes);
            largest = largest.max(cost.memory_bytes);
        }
        if operations > self.limits.ops_per_challenge {
            return Err(BudgetReason::Operations { asked: operations, limit: self.limits.ops_per_challenge });
        }
        if memory > self.limits.memory_bytes {
            return Err(BudgetReason::Memory { asked: memory, limit: self.limits.memory_bytes });
        }
        if largest > self.limits.prover_memory_bytes {
            return Err(BudgetReason::ProverMemory { asked: largest, limit: self.limits.prover_memory_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Hotkey = Hotkey([1; 32]);
    const B: Hotkey = Hotkey([2; 32]);

    fn work() -> Work {
        Work::new(32, 64, 1).unwrap()
    }

    /// 10 s of challenges in 60 s, 2 for one hotkey.
    fn budget() -> Budget {
        Budget::new(BudgetLimits {
            ops_per_challenge: 2 * work().operations(),
            memory_bytes: 2 * work().memory_bytes(),
            prover_memory_bytes: work().memory_bytes(),
            time_per_window: Duration::from_secs(10),
            challenges_per_hotkey_per_window: 2,
            window: Duration::from_secs(60),
        })
    }

    #[test]
    fn one_challenge_is_served_at_a_time_and_the_next_hears_until_when() {
        let mut budget = budget();
        let ticket = budget.admit(1_000, A, &[work()]).unwrap();
        assert_eq!(ticket.until_ms(), 11_000);
        assert_eq!(budget.admit(2_000, B, &[work()]), Err(Refusal::Busy { until_ms: 11_000 }));
        budget.finish(ticket, 3_000);
        assert!(budget.admit(3_000, B, &[work()]).is_ok());
    }

    #[test]
    fn operations_and_memory_of_all_devices_together_are_bounded() {
        let mut budget = budget();
        let refused = budget.admit(0, A, &[work(); 3]).unwrap_err();
        let (asked, limit) = (3 * work().operations(), 2 * work().operations());
        assert_eq!(refused, Refusal::Budget(BudgetReason::Operations { asked, limit }));
        budget.limits.ops_per_challenge = u64::MAX;
        assert!(matches!(budget.admit(0, A, &[work(); 3]), Err(Refusal::Budget(BudgetReason::Memory { .. }))));
        assert!(budget.admit(0, A, &[work(); 2]).is_ok());
    }

    #[test]
    fn one_device_gets_no_more_memory_than_its_prover_may_have() {
        let mut budget = budget();
        let larger = Work::new(32, 128, 1).unwrap();
        assert!(larger.memory_bytes() < budget.limits.memory_bytes);
        let (asked, limit) = (larger.memory_bytes(), work().memory_bytes());
        let refused = budget.admit(0, A, &[larger]).unwrap_err();
        assert_eq!(refused, Refusal::Budget(BudgetReason::ProverMemory { asked, limit }));
    }

    #[test]
    fn the_largest_work_many_times_over_does_not_wrap_around() {
        let largest = Work::new(131_072, 65_536, 256).unwrap();
        let refused = budget().admit(0, A, &[largest; 64]).unwrap_err();
        assert!(matches!(refused, Refusal::Budget(BudgetReason::Operations { asked: u64::MAX, .. })));
    }

    #[test]
    fn a_proof_of_memory_is_bounded_like_work_and_a_gpus_own_memory_is_not_the_provers() {
        let size = memory::Size::new(1 << 20, 8, 2).unwrap();
        let on_cpu = Cost::of_memory(DeviceId::cpu(0), &size);
        assert_eq!(on_cpu, Cost { operations: size.operations(), memory_bytes: cpu::memory_bytes(&size) });
        let on_gpu = Cost::of_memory(DeviceId([7; 16]), &size);
        assert_eq!(on_gpu.memory_bytes, on_cpu.memory_bytes - (1 << 30));
        let mut budget = budget();
        let (asked, limit) = (on_cpu.operations, 2 * work().operations());
        let refused = budget.admit_costs(0, A, &[on_cpu]).unwrap_err();
        assert_eq!(refused, Refusal::Budget(BudgetReason::Operations { asked, limit }));
        budget.limits.ops_per_challenge = u64::MAX;
        let (asked, limit) = (on_cpu.memory_bytes, 2 * work().memory_bytes());
        let refused = budget.admit_costs(0, A, &[on_cpu]).unwrap_err();
        assert_eq!(refused, Refusal::Budget(BudgetReason::Memory { asked, limit }));
        budget.limits.memory_bytes = u64::MAX;
        let refused = budget.admit_costs(0, A, &[on_cpu]).unwrap_err();
        assert!(matches!(refused, Refusal::Budget(BudgetReason::ProverMemory { .. })), "{refused:?}");
        budget.limits.prover_memory_bytes = on_cpu.memory_bytes;
        let ticket = budget.admit_costs(0, A, &[on_cpu]).unwrap();
        assert_eq!(budget.admit(0, B, &[work()]), Err(Refusal::Busy { until_ms: ticket.until_ms() }), "one at a time");
    }

    #[test]
    fn work_out_of_range_or_no_work_is_refused() {
        let bad = Work { n: 33, k: 64, rounds: 1 };
        assert!(matches!(budget().admit(0, A, &[bad]), Err(Refusal::Budget(BudgetReason::Work(_)))));
        assert!(matches!(budget().admit(0, A, &[]), Err(Refusal::Budget(BudgetReason::Work(_)))));
    }

    #[test]
    fn time_is_bounded_in_a_window_and_new_in_the_next() {
        let mut budget = budget();
        let ticket = budget.admit(0, A, &[work()]).unwrap();
        budget.finish(ticket, 9_000);
        let ticket = budget.admit(9_000, B, &[work()]).unwrap();
        assert_eq!(ticket.until_ms(), 10_000, "one second is left");
        budget.finish(ticket, 10_000);
        assert_eq!(budget.admit(11_000, A, &[work()]), Err(Refusal::Budget(BudgetReason::Time)));
        assert!(budget.admit(60_000, A, &[work()]).is_ok());
    }

    #[test]
    fn a_hotkey_has_its_share_of_a_window_and_refusals_cost_nothing() {
        let mut budget = budget();
        for at in [0, 100] {
            let ticket = budget.admit(at, A, &[work()]).unwrap();
            assert!(budget.admit(at, A, &[work()]).is_err(), "busy");
            budget.finish(ticket, at + 50);
        }
        assert_eq!(budget.admit(200, A, &[work()]), Err(Refusal::Budget(BudgetReason::PerHotkey { limit: 2 })));
        let ticket = budget.admit(200, B, &[work()]).unwrap();
        budget.finish(ticket, 250);
        assert!(budget.admit(60_000, A, &[work()]).is_ok());
    }

    #[test]
    fn work_that_was_not_begun_costs_neither_time_nor_a_challenge() {
        let mut budget = budget();
        for at in 0..10_000 {
            let ticket = budget.admit(at, A, &[work()]).unwrap();
            budget.withdraw(ticket);
        }
        assert!(budget.callers.is_empty(), "nor a place in the table of callers");
        let done = budget.admit(10_000, A, &[work()]).unwrap();
        budget.finish(done, 10_001);
        let ticket = budget.admit(10_001, A, &[work()]).unwrap();
        assert_eq!(ticket.until_ms(), 20_000, "one millisecond is spent");
        budget.withdraw(ticket);
        assert!(budget.admit(10_002, A, &[work()]).is_ok(), "one of two challenges is spent");
    }

    #[test]
    fn a_ticket_that_is_lost_ends_by_itself_and_counts_in_full() {
        let mut budget = budget();
        let lost = budget.admit(0, A, &[work()]).unwrap();
        assert_eq!(budget.busy_until_ms(9_999), Some(10_000));
        assert_eq!(budget.busy_until_ms(10_000), None);
        assert_eq!(budget.admit(10_000, B, &[work()]), Err(Refusal::Budget(BudgetReason::Time)));
        let next = budget.admit(60_000, B, &[work()]).unwrap();
        budget.finish(lost, 60_001);
        assert!(budget.busy_until_ms(60_002).is_some(), "an old ticket must not end another's work");
        budget.finish(next, 60_003);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_new_budget() {
        let mut budget = budget();
        let ticket = budget.admit(600_000, A, &[work()]).unwrap();
        budget.finish(ticket, 610_000);
        assert_eq!(budget.admit(0, A, &[work()]), Err(Refusal::Budget(BudgetReason::Time)));
    }

    #[test]
    fn the_table_of_callers_is_bounded() {
        let mut budget = budget();
        for i in 0..MAX_CALLERS as u32 {
            let mut key = [0u8; 32];
            key[..4].copy_from_slice(&i.to_le_bytes());
            let ticket = budget.admit(5, Hotkey(key), &[work()]).unwrap();
            budget.finish(ticket, 5);
        }
        assert_eq!(budget.admit(6, Hotkey([255; 32]), &[work()]), Err(Refusal::Budget(BudgetReason::Callers)));
    }
}
