//! Notable things, as structs whose `emit` logs and counts together, so that a log line without its counter, or a
//! counter without its line, cannot be written.

use tracing::{error, info, warn};

use super::metrics::NodeMetrics;
use super::redact::printable;
use crate::admission::Subject;
use crate::canary::{Outcome, Report};
use crate::chain::standing::Change;
use crate::ids::{BlockNumber, DeviceId, Epoch, Hotkey, LeaseId, Uid};
use crate::verdict::{MemoryVerdict, Verdict};

/// Longest outside text in a log line, in bytes.
const MAX_DETAIL: usize = 512;

/// A device was judged.
#[derive(Debug, Clone, Copy)]
pub struct ChallengeJudged<'a> {
    /// The epoch of the judgement.
    pub epoch: Epoch,
    /// The miner.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// The device; none when the miner as a whole was judged.
    pub device: Option<DeviceId>,
    /// The judgement.
    pub verdict: &'a Verdict,
}

impl ChallengeJudged<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.challenge(self.verdict);
        let ChallengeJudged { epoch, uid, hotkey, verdict, .. } = self;
        let device = self.device.map_or_else(|| "all".to_owned(), |d| d.to_string());
        match verdict {
            Verdict::Pass { evidence } => {
                info!(%uid, %hotkey, %device, epoch, rate = evidence.rate(), samples = evidence.samples, "device passed");
            }
            Verdict::Fail { reason, detail } => {
                let detail = printable(detail, MAX_DETAIL);
                warn!(%uid, %hotkey, %device, epoch, %reason, detail, remedy = reason.remedy(), "device failed");
            }
            Verdict::Unknown { cause, detail } => {
                let detail = printable(detail, MAX_DETAIL);
                info!(%uid, %hotkey, %device, epoch, %cause, side = ?cause.side(), detail, remedy = cause.remedy(),
                    "device could not be judged");
            }
        }
    }
}

/// A canary rental has ended.
#[derive(Debug)]
pub struct CanaryEnded<'a> {
    /// The miner that was rented.
    pub miner: Hotkey,
    /// What it came to.
    pub report: &'a Report,
}

impl CanaryEnded<'_> {
    /// Logs and counts it.
    pub fn emit(self, metrics: &NodeMetrics) {
        let CanaryEnded { miner, report } = self;
        metrics.canary(report);
        let (proved, failed) = (report.proved.len(), report.failed.len());
        match &report.outcome {
            Outcome::Pass => info!(%miner, proved, "a canary rental passed"),
            Outcome::Fail { stage, reason, detail } => {
                let remedy = reason.remedy();
                warn!(%miner, %stage, %reason, detail, failed, remedy, "a canary rental failed");
            }
            Outcome::Unknown { stage, reason, detail } => {
                info!(%miner, %stage, %reason, detail, "a canary rental says nothing of its miner");
            }
        }
        if let Some(fault) = &report.unreleased {
            warn!(%miner, %fault, "what a canary rented is perhaps not given back; it is asked for again");
        }
    }
}

/// A device's memory was judged.
#[derive(Debug, Clone, Copy)]
pub struct MemoryChecked<'a> {
    /// The epoch of the judgement.
    pub epoch: Epoch,
    /// The miner.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// The device.
    pub device: DeviceId,
    /// The judgement.
    pub verdict: &'a MemoryVerdict,
}

impl MemoryChecked<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.memory(self.verdict);
        let MemoryChecked { epoch, uid, hotkey, device, verdict } = self;
        match verdict {
            Verdict::Pass { evidence } => {
                let (bytes, bandwidth, samples) = (evidence.size.bytes(), evidence.bandwidth(), evidence.samples);
                info!(%uid, %hotkey, %device, epoch, bytes, bandwidth, samples, "memory proved");
            }
            Verdict::Fail { reason, detail } => {
                let detail = printable(detail, MAX_DETAIL);
                warn!(%uid, %hotkey, %device, epoch, %reason, detail, remedy = reason.remedy(), "memory failed");
            }
            Verdict::Unknown { cause, detail } => {
                let detail = printable(detail, MAX_DETAIL);
                info!(%uid, %hotkey, %device, epoch, %cause, side = ?cause.side(), detail, remedy = cause.remedy(),
                    "memory could not be judged");
            }
        }
    }
}

/// An attempt to set weights ended.
#[derive(Debug, Clone, Copy)]
pub struct WeightsSubmitted<'a> {
    /// The block of the attempt.
    pub block: BlockNumber,
    /// Neurons with a weight above 0.
    pub neurons: usize,
    /// A value of [`Labels::weights_results`](super::Labels); `ok` is a success.
    pub result: &'a str,
    /// What the chain said, empty on success.
    pub detail: &'a str,
}

impl WeightsSubmitted<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.weights_set(self.result);
        let WeightsSubmitted { block, neurons, result, detail } = self;
        let detail = printable(detail, MAX_DETAIL);
        if *result == "ok" {
            info!(block, neurons, "weights set");
        } else {
            warn!(block, neurons, result, detail, "weights not set");
        }
    }
}

/// The chain showed what became of weights that were sent.
#[derive(Debug, Clone, Copy)]
pub struct WeightsEnded<'a> {
    /// The epoch whose scores they express.
    pub epoch: Epoch,
    /// A value of [`Labels::weights_outcomes`](super::Labels).
    pub outcome: &'a str,
    /// What was seen, and what to do about it.
    pub detail: &'a str,
}

impl WeightsEnded<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.weights_ended(self.outcome);
        let WeightsEnded { epoch, outcome, detail } = self;
        let detail = printable(detail, MAX_DETAIL);
        match *outcome {
            "included" | "revealed" => info!(epoch, outcome, detail, "weights are on the chain"),
            _ => warn!(epoch, outcome, detail, "weights are not on the chain"),
        }
    }
}

/// A lease changed its state.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTransition<'a> {
    /// The lease.
    pub lease: LeaseId,
    /// The state before.
    pub from: &'a str,
    /// The state now.
    pub to: &'a str,
    /// Why.
    pub cause: &'a str,
}

impl LeaseTransition<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.lease_transition(self.from, self.to);
        let LeaseTransition { lease, from, to, cause } = self;
        let cause = printable(cause, MAX_DETAIL);
        if *to == "lost" {
            warn!(%lease, from, to, cause, "lease lost");
        } else {
            info!(%lease, from, to, cause, "lease changed state");
        }
    }
}

/// Proofs showed that rented hardware is no longer what was rented.
#[derive(Debug, Clone, Copy)]
pub struct HardwareChanged<'a> {
    /// The lease.
    pub lease: LeaseId,
    /// Whose hardware.
    pub miner: Hotkey,
    /// Which device, and what was seen.
    pub note: &'a str,
    /// Seen in the first proof after the lease, which had ended; else the lease ends for it.
    pub at_release: bool,
}

impl HardwareChanged<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        let HardwareChanged { lease, miner, note, at_release } = self;
        let note = printable(note, MAX_DETAIL);
        metrics.rentals().hardware(if *at_release { "changed_at_release" } else { "ended" });
        match at_release {
            true => warn!(%lease, %miner, note, "the first proof after a lease shows other hardware than was rented"),
            false => warn!(%lease, %miner, note, "rented hardware was changed, the lease ends"),
        }
    }
}

/// What the first comparison after a start did: a miner's of its leases with the engine's containers, a validator's of
/// its leases with the miners' words. Counts of leases, or of containers where no lease is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Recovered {
    /// Running leases that were found as they should be.
    pub kept: u64,
    /// Containers that had been made, of which the record did not know yet.
    pub adopted: u64,
    /// Steps that had been begun and were carried out now: creations, destructions, ends that were due.
    pub finished: u64,
    /// Containers that nobody here owns but somebody may.
    pub set_aside: u64,
    /// Containers that nobody owns any more.
    pub destroyed: u64,
    /// Leases or containers of which the step could not be carried out, or the state not be seen: it is tried again.
    pub open: u64,
}

impl Recovered {
    /// The values of the metric's label, in the order of the fields.
    pub const LABELS: [&'static str; 6] = ["kept", "adopted", "finished", "set_aside", "destroyed", "open"];

    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        let Recovered { kept, adopted, finished, set_aside, destroyed, open } = *self;
        let counts = [kept, adopted, finished, set_aside, destroyed, open];
        for (action, count) in Self::LABELS.into_iter().zip(counts) {
            metrics.lease_recovery(action, count);
        }
        if set_aside + open > 0 {
            warn!(kept, adopted, finished, set_aside, destroyed, open, "leases recovered");
        } else {
            info!(kept, adopted, finished, set_aside, destroyed, open, "leases recovered");
        }
    }
}

/// Another node was found to act with this node's hotkey.
#[derive(Debug, Clone, Copy)]
pub struct HotkeyConflict<'a> {
    /// The hotkey.
    pub hotkey: Hotkey,
    /// What was found, and what to do.
    pub problem: &'a str,
}

impl HotkeyConflict<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.hotkey_conflict(true);
        error!(hotkey = %self.hotkey, problem = self.problem, "another node acts with this hotkey");
    }
}

/// A caller was turned away.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionRefused<'a> {
    /// Who, by a signature that held.
    pub hotkey: Hotkey,
    /// A reason of [`Labels::admissions`](super::Labels).
    pub reason: &'a str,
}

impl AdmissionRefused<'_> {
    /// Logs and counts. The line is at debug level: a stranger must not be able to fill the log.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.admission("refused", self.reason);
        tracing::debug!(hotkey = %self.hotkey, reason = self.reason, "caller refused");
    }
}

/// A neuron or an address is refused for a while.
#[derive(Debug, Clone, Copy)]
pub struct PenaltyGiven<'a> {
    /// Whom it is for.
    pub subject: Subject,
    /// Why, in one word.
    pub reason: &'a str,
    /// What led to it.
    pub detail: &'a str,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

impl PenaltyGiven<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.penalty_given(self.subject.kind());
        let PenaltyGiven { subject, until_ms, .. } = self;
        let (reason, detail) = (printable(self.reason, MAX_DETAIL), printable(self.detail, MAX_DETAIL));
        warn!(%subject, reason, detail, until_ms, "penalty given");
    }
}

/// The chain stands still, or we do not see it move.
#[derive(Debug, Clone, Copy)]
pub struct ChainStalled<'a> {
    /// The newest block seen.
    pub block: BlockNumber,
    /// Why no newer one can be had, if known.
    pub cause: &'a str,
}

impl ChainStalled<'_> {
    /// Logs; `compute_chain_block_age_seconds` counts by itself.
    pub fn emit(&self, metrics: &NodeMetrics) {
        let age_seconds = metrics.block_age_seconds();
        let cause = printable(self.cause, MAX_DETAIL);
        error!(block = self.block, age_seconds, cause, "no new block");
    }
}

/// Our own neuron stands otherwise than before.
#[derive(Debug, Clone, Copy)]
pub struct StandingChanged<'a> {
    /// What changed.
    pub change: &'a Change,
    /// The block that shows it.
    pub block: BlockNumber,
    /// Our hotkey.
    pub hotkey: Hotkey,
}

impl StandingChanged<'_> {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        let StandingChanged { change, block, hotkey } = self;
        metrics.standing_changed(change.label());
        let (event, remedy) = (change.label(), change.remedy());
        match change {
            Change::NotRegistered | Change::Deregistered(_) => {
                error!(block, %hotkey, event, %change, remedy, "this hotkey has no neuron");
            }
            change if change.is_bad() => {
                warn!(block, %hotkey, event, %change, remedy, "the own neuron is in danger, or cannot do its work");
            }
            change => info!(block, %hotkey, event, %change, remedy, "the own neuron stands otherwise"),
        }
    }
}

/// Blocks that were followed have been replaced by others.
#[derive(Debug, Clone, Copy)]
pub struct ChainReorganised {
    /// The head before.
    pub from: BlockNumber,
    /// The head now.
    pub to: BlockNumber,
    /// The newest finalised block: what replaced it cannot reach below.
    pub finalized: BlockNumber,
}

impl ChainReorganised {
    /// Logs and counts.
    pub fn emit(&self, metrics: &NodeMetrics) {
        metrics.reorganised();
        let ChainReorganised { from, to, finalized } = self;
        info!(from, to, finalized, "the chain was reorganised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::telemetry::logging::{LogOptions, subscriber};
    use crate::telemetry::{BuildInfo, Labels, encode};
    use crate::verdict::FailReason;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);
    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What emitting logs, and the metrics afterwards.
    fn emitted(act: impl FnOnce(&NodeMetrics)) -> (String, String) {
        let registry = prometheus::Registry::new();
        let clock = Arc::new(ManualClock::at_ns(5_000_000_000));
        let metrics = NodeMetrics::register(&registry, &BuildInfo::of("validator"), &Labels::default(), clock).unwrap();
        let captured = Captured::default();
        let out = captured.clone();
        let (subscriber, _guard) = subscriber(&LogOptions::default(), move || out.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || act(&metrics));
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        (log, encode(&registry).unwrap())
    }

    #[test]
    fn a_judged_device_is_logged_with_its_remedy_and_counted() {
        let verdict = Verdict::fail(FailReason::EntryMismatch, "round 0\ntile 7");
        let (log, metrics) = emitted(|m| {
            let device = DeviceId::cpu(0);
            ChallengeJudged { epoch: 9, uid: Uid(3), hotkey: Hotkey([1; 32]), device: Some(device), verdict: &verdict }
                .emit(m);
        });
        assert!(log.contains("device failed") && log.contains("entry_mismatch") && log.contains("round 0?tile 7"));
        assert_eq!(log.lines().count(), 1, "outside text cannot start a line: {log}");
        assert!(metrics.contains(r#"compute_challenge_total{reason="entry_mismatch",verdict="fail"} 1"#));
    }

    #[test]
    fn only_a_success_moves_the_time_of_the_last_weights() {
        let submit =
            |result| emitted(move |m| WeightsSubmitted { block: 1, neurons: 2, result, detail: "too soon" }.emit(m)).1;
        assert!(submit("too_soon").contains("compute_weights_last_set_timestamp_seconds 0\n"));
        assert!(submit("ok").contains("compute_weights_last_set_timestamp_seconds 5\n"));
    }

    #[test]
    fn a_refused_stranger_is_counted_but_does_not_fill_the_log() {
        let hotkey = Hotkey([1; 32]);
        let (log, metrics) = emitted(|m| AdmissionRefused { hotkey, reason: "made up by a caller" }.emit(m));
        assert_eq!(log, "");
        assert!(!metrics.contains("made up"), "outside text never becomes a label");
        assert!(metrics.contains(r#"compute_admissions_total{decision="other",reason="other"} 1"#));
    }

    #[test]
    fn a_recovery_is_one_line_and_its_counts_and_a_warning_when_something_was_set_aside() {
        let (log, metrics) = emitted(|m| Recovered { kept: 3, adopted: 1, ..Recovered::default() }.emit(m));
        assert!(log.contains("INFO") && log.contains("kept=3") && log.lines().count() == 1, "{log}");
        assert!(metrics.contains(r#"compute_lease_recovery_total{action="kept"} 3"#));
        assert!(metrics.contains(r#"compute_lease_recovery_total{action="set_aside"} 0"#));
        let (log, _) = emitted(|m| Recovered { set_aside: 1, ..Recovered::default() }.emit(m));
        assert!(log.contains("WARN") && log.contains("set_aside=1"), "{log}");
    }

    #[test]
    fn a_lost_uid_is_an_error_with_who_has_it_and_what_to_do() {
        let (uid, to, block) = (Uid(3), Some(Hotkey([2; 32])), Some(90));
        let change = Change::Deregistered(crate::chain::standing::Lost { uid, to, block });
        let (log, metrics) =
            emitted(|m| StandingChanged { change: &change, block: 91, hotkey: Hotkey([1; 32]) }.emit(m));
        let parts = ["ERROR", "uid 3 went to", "registered in block 90", "register the hotkey again", "deregistered"];
        assert!(parts.iter().all(|part| log.contains(part)) && log.lines().count() == 1, "{log}");
        assert!(metrics.contains(r#"compute_neuron_events_total{event="deregistered"} 1"#));
        assert!(metrics.contains(r#"compute_neuron_events_total{event="at_risk"} 0"#));
    }

    #[test]
    fn a_lost_lease_is_a_warning() {
        let (log, metrics) = emitted(|m| {
            LeaseTransition { lease: LeaseId([7; 16]), from: "running", to: "lost", cause: "container gone" }.emit(m);
        });
        assert!(log.contains("WARN") && log.contains("container gone"), "{log}");
        assert!(metrics.contains(r#"compute_lease_transitions_total{from="running",to="lost"} 1"#));
    }
}
