//! Cheats of who answers for what, and when: fewer cards than claimed, others than claimed, somebody else's.
//!
//! Nothing is computed here. A card of a model has a rate, a simulated clock says when its roots arrive, and the validator's
//! own functions judge: the rate, the floor, the credit ([`Judge::judge`], [`machine_score`]), with the table as shipped.

use std::sync::Arc;

use super::{Cheat, Draw, Outcome, Predicted};
use crate::actors::validator::challenge_runner::plan::WorkTable;
use crate::actors::validator::challenge_runner::round::answers_fit;
use crate::actors::validator::node::tables;
use crate::ids::{Coldkey, DeviceId, Hotkey, Uid};
use crate::proof::Work;
use crate::proof::memory::{Size, figures};
use crate::scoring::{DeviceFinding, HistoryRules, Judge, Limit, MinerFinding, ModelRow, ScoreTable, machine_score};
use crate::settings::{Cli, Role, load};
use crate::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};

/// The table that is shipped, and its rows that have rates.
struct Shipped {
    table: ScoreTable,
    works: WorkTable,
    rows: Vec<ModelRow>,
}

/// What a row says, where all of it is known.
struct Rates {
    nominal: f64,
    floor: f64,
    best: f64,
}

impl Shipped {
    fn load() -> Self {
        let settings = load(Role::Validator, &Cli::default(), [("HOME".to_owned(), "/home/op".to_owned())]);
        let (table, works) = tables(&settings.unwrap().settings).unwrap();
        let rows = table.rows().iter().filter(|row| row.floor_ops.is_some()).cloned().collect();
        Shipped { table, works, rows }
    }

    fn rates(row: &ModelRow) -> Rates {
        let of = |ops: Option<u64>| ops.unwrap() as f64;
        Rates { nominal: of(row.nominal_ops), floor: of(row.floor_ops), best: of(row.best()) }
    }

    fn operations(&self, row: &ModelRow) -> f64 {
        self.works[&row.name].operations() as f64
    }

    /// The verdict on a claim of this model whose roots came after so many seconds and whose openings are right.
    fn proved(&self, row: &ModelRow, seconds: f64) -> Verdict {
        let operations = self.works[&row.name].operations();
        Verdict::Pass { evidence: PassEvidence { operations, elapsed_ns: (seconds * 1e9).ceil() as u64, samples: 66 } }
    }

    /// The verdicts that count, and what is paid, of miners with these claims of one model.
    fn judge(&self, row: &ModelRow, miners: &[Vec<(DeviceId, Verdict)>]) -> Vec<Judged> {
        let judged = Judge::new(HistoryRules::default()).judge(1, 0, &self.table, &findings(row, miners));
        assert_eq!(judged.void, None);
        judged.miners.iter().map(|miner| Judged::of(&self.table, &miner.devices)).collect()
    }
}

/// A miner as it is judged.
struct Judged {
    verdicts: Vec<Verdict>,
    /// What its counted devices are paid, as a base: before scaling.
    paid: f64,
}

impl Judged {
    fn of(table: &ScoreTable, devices: &[crate::scoring::DeviceJudgement]) -> Self {
        let score = machine_score(table, devices, false);
        let credit: u64 = score.parts.iter().filter(|part| part.counted).map(|part| part.credit).sum();
        Judged { verdicts: devices.iter().map(|d| d.verdict.clone()).collect(), paid: credit as f64 / 1e15 }
    }

    /// The reason that all its devices fail for; what else became of them otherwise.
    fn all_failed(&self) -> Outcome {
        let reason = |verdict: &Verdict| match verdict {
            Verdict::Fail { reason, .. } => Some(*reason),
            _ => None,
        };
        match self.verdicts.first().and_then(reason) {
            Some(first) if self.paid == 0.0 && self.verdicts.iter().all(|v| reason(v) == Some(first)) => {
                Outcome::Caught(first)
            }
            _ => Outcome::Beyond(format!("{:?}, paid {}", self.verdicts, self.paid)),
        }
    }

    /// Within a bound on what is paid.
    fn at_most(&self, bound: f64) -> Outcome {
        if self.paid > bound * (1.0 + 1e-9) {
            return Outcome::Beyond(format!("paid {}, at most {bound}", self.paid));
        }
        match self.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Pass { .. })) {
            true => Outcome::Passed,
            false => self.all_failed(),
        }
    }
}

fn findings(row: &ModelRow, miners: &[Vec<(DeviceId, Verdict)>]) -> Vec<MinerFinding> {
    let finding = |(n, claims): (u8, &Vec<(DeviceId, Verdict)>)| MinerFinding {
        uid: Uid(n.into()),
        hotkey: Hotkey([n; 32]),
        coldkey: Coldkey([n; 32]),
        refused: None,
        whole: None,
        devices: claims
            .iter()
            .map(|(device, verdict)| DeviceFinding {
                device: *device,
                model: row.name.clone(),
                leased: false,
                verdict: Some(verdict.clone()),
            })
            .collect(),
    };
    (1..).zip(miners).map(finding).collect()
}

fn gpu(n: usize) -> DeviceId {
    DeviceId([0xa0 + n as u8; 16])
}

pub(super) fn cheats() -> Vec<Cheat> {
    let shipped = Arc::new(Shipped::load());
    vec![
        wrong_devices(),
        refusing(shipped.clone()),
        in_sequence(shipped.clone()),
        two_identities(shipped.clone()),
        one_device_twice(shipped.clone()),
        slower_model(shipped.clone()),
        fewer_cards(shipped.clone()),
        several_for_one(shipped.clone()),
        relay(shipped.clone()),
        missing_memory(shipped),
    ]
}

fn certain(
    name: &str,
    does: &str,
    formula: &str,
    reason: FailReason,
    gains: &str,
    attempt: impl Fn(&mut Draw) -> Outcome + 'static,
) -> Cheat {
    Cheat {
        name: name.to_owned(),
        does: does.to_owned(),
        predicted: Predicted::Certain,
        formula: formula.to_owned(),
        reason,
        gains: gains.to_owned(),
        attempt: Box::new(attempt),
    }
}

fn bounded(
    name: &str,
    does: &str,
    formula: &str,
    gains: String,
    attempt: impl Fn(&mut Draw) -> Outcome + 'static,
) -> Cheat {
    let cheat = certain(name, does, formula, FailReason::BelowFloor, &gains, attempt);
    Cheat { predicted: Predicted::Bounded, ..cheat }
}

fn wrong_devices() -> Cheat {
    let does = "answers for a device less, for one twice, or for one more than asked";
    certain("other devices than asked", does, "certain", FailReason::WrongDevices, "the missing device", |draw| {
        let count = 1 + draw.below(8);
        let jobs: Vec<(DeviceId, Work)> = (0..count).map(|n| (gpu(n), Work::new(32, 64, 1).unwrap())).collect();
        let mut answers: Vec<DeviceId> = jobs.iter().map(|(device, _)| *device).collect();
        match draw.below(3) {
            0 => drop(answers.remove(draw.below(count))),
            1 => answers.push(gpu(draw.below(count))),
            _ => answers[draw.below(count)] = gpu(count),
        }
        match answers_fit(&jobs, &answers) {
            Err(Verdict::Fail { reason, .. }) => Outcome::Caught(reason),
            other => Outcome::Beyond(format!("{other:?}")),
        }
    })
}

fn refusing(shipped: Arc<Shipped>) -> Cheat {
    let does = "does not answer in the slot, or refuses, or says that it is busy, whenever it would be caught";
    let formula = "certain with the third in a row; nothing is paid before";
    certain("a miner that refuses", does, formula, FailReason::Unresponsive, "nothing", move |draw| {
        use UnknownCause::{
            BudgetRefused, Busy, MalformedReply, ProverCrashed, ProverHung, Refused, Timeout, Unreachable,
        };
        let causes = [Refused, BudgetRefused, Busy, Timeout, Unreachable, ProverCrashed, ProverHung, MalformedReply];
        let row = draw.one(&shipped.rows).clone();
        let mut judge = Judge::new(HistoryRules::default());
        let mut outcome = Outcome::Passed;
        for epoch in 1..=3 {
            let verdict = Verdict::unknown(*draw.one(&causes), "not now");
            let judged =
                judge.judge(epoch, epoch * 4_320_000, &shipped.table, &findings(&row, &[vec![(gpu(0), verdict)]]));
            let miner = Judged::of(&shipped.table, &judged.miners[0].devices);
            if miner.paid > 0.0 {
                return Outcome::Beyond(format!("paid {} in epoch {epoch}", miner.paid));
            }
            if let Verdict::Fail { reason, .. } = &miner.verdicts[0] {
                outcome = if epoch == 3 { Outcome::Caught(*reason) } else { Outcome::Beyond(format!("epoch {epoch}")) };
            }
        }
        outcome
    })
}

/// A miner's devices have one time, that of its last root: one after the other or in turn, each has half of the rate.
fn in_sequence(shipped: Arc<Shipped>) -> Cheat {
    let does = "one card proves for two devices of its miner, one after the other or in turn";
    let formula = "certain while the card is slower than two floors: at least 1.4 × nominal";
    let gains = "above that, its rate by nominal, as any claim; [over-claims](#models-floors-and-over-claims)";
    certain("one card for two", does, formula, FailReason::BelowFloor, gains, move |draw| {
        let row = draw.one(&shipped.rows);
        let Rates { nominal, floor, best } = Shipped::rates(row);
        let rate = draw.between(0.9 * nominal, best.min(2.0 * floor) * 0.999);
        let both = 2.0 * shipped.operations(row) / rate;
        let claims = vec![(gpu(0), shipped.proved(row, both)), (gpu(1), shipped.proved(row, both))];
        shipped.judge(row, &[claims])[0].all_failed()
    })
}

/// Every miner is asked within one second, so the one that is served second waits for all of the first but that.
fn two_identities(shipped: Arc<Shipped>) -> Cheat {
    let does = "one card proves for two hotkeys under two device ids, one after the other; the second is judged here";
    let formula = "certain while 2·t − 1 s is longer than the work may take at the floor";
    certain("one card for two hotkeys", does, formula, FailReason::BelowFloor, "one of the two", move |draw| {
        let row = draw.one(&shipped.rows);
        let Rates { nominal, floor, .. } = Shipped::rates(row);
        let operations = shipped.operations(row);
        let fastest = 2.0 * operations / (operations / floor + 1.0) * 0.999;
        let once = operations / draw.between(0.9 * nominal.min(fastest), fastest);
        let second = 2.0 * once - draw.between(0.0, 1.0);
        let miners = [vec![(gpu(0), shipped.proved(row, once))], vec![(gpu(1), shipped.proved(row, second))]];
        shipped.judge(row, &miners)[1].all_failed()
    })
}

fn one_device_twice(shipped: Arc<Shipped>) -> Cheat {
    let does = "two hotkeys prove the same device id";
    certain(
        "one device id for two hotkeys",
        does,
        "certain, for both",
        FailReason::DuplicateDevice,
        "nothing",
        move |draw| {
            let row = draw.one(&shipped.rows);
            let Rates { floor, best, .. } = Shipped::rates(row);
            let mut claim = || {
                let seconds = shipped.operations(row) / draw.between(floor * 1.001, best);
                vec![(gpu(0), shipped.proved(row, seconds))]
            };
            let miners = shipped.judge(row, &[claim(), claim()]);
            match (miners[0].all_failed(), miners[1].all_failed()) {
                (Outcome::Caught(first), Outcome::Caught(second)) if first == second => Outcome::Caught(first),
                _ => Outcome::Beyond("one of them is paid".to_owned()),
            }
        },
    )
}

fn slower_model(shipped: Arc<Shipped>) -> Cheat {
    let pairs: Vec<(ModelRow, ModelRow)> = shipped
        .rows
        .iter()
        .flat_map(|card| shipped.rows.iter().map(move |claimed| (card.clone(), claimed.clone())))
        .filter(|(card, claimed)| Shipped::rates(card).best < Shipped::rates(claimed).floor)
        .collect();
    let does = "claims a model whose floor is above the most that its own can do";
    certain("a slower model", does, "certain", FailReason::BelowFloor, "nothing", move |draw| {
        let (card, claimed) = draw.one(&pairs);
        let Rates { nominal, best, .. } = Shipped::rates(card);
        let seconds = shipped.operations(claimed) / draw.between(0.9 * nominal, best);
        shipped.judge(claimed, &[vec![(gpu(0), shipped.proved(claimed, seconds))]])[0].all_failed()
    })
}

fn fewer_cards(shipped: Arc<Shipped>) -> Cheat {
    let does = "G − 1 cards answer for G, 2 to 8; tiles are independent, so each does its share of all";
    let formula = "paid at most (G − 1) · rate ÷ nominal of one card's base";
    let gains = "what the cards' rate exceeds nominal by, never a card: 7 of 8 at nominal are paid 7".to_owned();
    bounded("7 cards as 8", does, formula, gains, move |draw| {
        let row = draw.one(&shipped.rows);
        let Rates { nominal, floor, best } = Shipped::rates(row);
        let claimed = 2 + draw.below(7);
        let (rate, cards) = (draw.between(floor, best), (claimed - 1) as f64);
        let seconds = claimed as f64 * shipped.operations(row) / (cards * rate);
        let claims = (0..claimed).map(|n| (gpu(n), shipped.proved(row, seconds))).collect();
        let base = shipped.table.paid_base(row).0 as f64 / 1e6;
        shipped.judge(row, &[claims])[0].at_most(cards * rate / nominal * base)
    })
}

fn several_for_one(shipped: Arc<Shipped>) -> Cheat {
    let does = "several weaker cards answer as one stronger one";
    let formula = "not caught; paid at most one base of the model claimed";
    bounded("several cards as one", does, formula, dearest(&shipped), move |draw| {
        let (card, claimed) = (draw.one(&shipped.rows), draw.one(&shipped.rows));
        let (own, asked) = (Shipped::rates(card), Shipped::rates(claimed));
        let cards = (asked.nominal / own.nominal).ceil();
        let rate = cards * draw.between(own.nominal, own.best);
        let claims = vec![(gpu(0), shipped.proved(claimed, shipped.operations(claimed) / rate))];
        let base = shipped.table.paid_base(claimed).0 as f64 / 1e6;
        match shipped.judge(claimed, &[claims])[0].at_most(base) {
            Outcome::Caught(_) => Outcome::Beyond("fails".to_owned()),
            outcome => outcome,
        }
    })
}

/// How many of these cards have what a claim of this model needs at once, at their nominal rates.
fn needed(claimed: &ModelRow, card: &ModelRow, with_memory: bool) -> f64 {
    let rate = Shipped::rates(claimed).nominal / Shipped::rates(card).nominal;
    let share =
        |limit: fn(&ModelRow) -> Option<Limit>| limit(claimed).unwrap().floor as f64 / limit(card).unwrap().best as f64;
    let held = if with_memory { share(|row| row.memory).max(share(|row| row.bandwidth)) } else { 0.0 };
    rate.max(held).ceil()
}

/// Where several cards of the shipped table gain most as one.
fn dearest(shipped: &Shipped) -> String {
    let price = |row: &ModelRow| shipped.table.paid_base(row).0 as f64 / 1e6;
    let best = |with_memory: bool| {
        let mut best = (0.0, String::new());
        for (claimed, card) in
            shipped.rows.iter().flat_map(|claimed| shipped.rows.iter().map(move |card| (claimed, card)))
        {
            let cards = needed(claimed, card, with_memory);
            let (own, paid) = (cards * price(card), price(claimed));
            if cards >= 2.0 && paid / own > best.0 {
                best = (paid / own, format!("{cards} × {} ({own:.2}) as {} ({paid:.2})", card.name, claimed.name));
            }
        }
        best.1
    };
    format!(
        "the difference of the prices: at most {} by the rate alone, {} where memory and bandwidth have to hold too",
        best(false),
        best(true)
    )
}

fn relay(shipped: Arc<Shipped>) -> Cheat {
    let does = "a card elsewhere computes, and its answer is passed on";
    let formula = "not caught; paid at most the rate that was reached, round trips included";
    let gains = "cards at another address; slots and one second for all miners keep one from serving two".to_owned();
    bounded("a relay", does, formula, gains, move |draw| {
        let row = draw.one(&shipped.rows);
        let Rates { nominal, best, .. } = Shipped::rates(row);
        let rate = draw.between(nominal, best);
        let seconds = shipped.operations(row) / rate + draw.between(0.0, 0.3);
        let base = shipped.table.paid_base(row).0 as f64 / 1e6;
        let bound = (shipped.operations(row) / seconds / nominal).min(1.0) * base;
        shipped.judge(row, &[vec![(gpu(0), shipped.proved(row, seconds))]])[0].at_most(bound)
    })
}

/// A scan takes what reading the rest takes, or making the missing share anew, whichever is longer.
fn missing_memory(shipped: Arc<Shipped>) -> Cheat {
    let does = "holds all but a share ε, and makes it anew in each scan, c times the cost of reading it";
    let formula = "below the floor if and only if ε > 1/(f·c); f is the floor by the card's bandwidth";
    let gains = "1/(f·c) of the memory: 2.1 % at f = 0.75, c = 64".to_owned();
    bounded("memory made anew", does, formula, gains, move |draw| {
        let row = draw.one(&shipped.rows);
        let (memory, bandwidth) = (row.memory.unwrap(), row.bandwidth.unwrap());
        let share = bandwidth.floor as f64 / bandwidth.best as f64;
        let cost = draw.between(64.0, 512.0);
        let most = 1.0 / (share * cost);
        let missing = draw.between(0.0, 2.0 * most);
        let size = Size::new(memory.best / 1024 * 92 / 100 / 4 * 4, 256, 64).unwrap();
        let scan = size.bytes() as f64 / bandwidth.best as f64 * (missing * cost).max(1.0 - missing);
        let proved = figures::bandwidth(&size, (scan * 64.0 * 1e9).ceil() as u64);
        let held = size.bytes() as f64 * (1.0 - missing);
        match (proved < bandwidth.floor, missing > most) {
            // A nanosecond of rounding may decide right at the edge, and nowhere else.
            (below, over) if below != over && (missing / most - 1.0).abs() > 1e-6 => Outcome::Beyond(format!(
                "ε {missing} of at most {most}, {proved} of {} bytes a second",
                bandwidth.floor
            )),
            (true, _) => Outcome::Caught(FailReason::BelowFloor),
            (false, _) if held * (1.0 + 1e-6) < figures::capacity(&size, share, cost) as f64 => {
                Outcome::Beyond(format!("holds {held}, less than the capacity that was shown"))
            }
            (false, _) => Outcome::Passed,
        }
    })
}
