//! Cheats of the memory proof: provers that do not hold, or do not read, all that was asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::{Cheat, Draw, Outcome, Predicted, Q, percent};
use crate::actors::validator::challenge_runner::round::Attempts;
use crate::ids::{DeviceId, Hotkey};
use crate::proof::memory::forging::{Forged, ForgedMemory, Forgery};
use crate::proof::memory::keys::ScanNonce;
use crate::proof::memory::verifier::{check_openings, check_roots};
use crate::proof::memory::{Challenge, Position, Size, sample_positions};
use crate::verdict::{FailReason, UnknownCause, Verdict};

static GO: AtomicBool = AtomicBool::new(false);

/// A prover of memory that has answered.
struct Answer {
    forgery: Forgery,
    challenge: Challenge,
    nonce_0: ScanNonce,
    forged: Forged,
    /// What was found at the positions that were looked at.
    known: RefCell<HashMap<Position, Option<FailReason>>>,
}

impl Answer {
    fn of(forgery: Forgery, run: &[u8; 32], blocks: u64, iterations: u32, scans: u32) -> Self {
        let size = Size::new(blocks, iterations, scans).unwrap();
        let nonce = blake3::derive_key("compute-subnet cheats, nonce of the memory", run);
        let nonce_0 = ScanNonce(blake3::derive_key("compute-subnet cheats, nonce of the scans", run));
        let challenge = Challenge { nonce, epoch: 2, hotkey: Hotkey([3; 32]), device: DeviceId::cpu(0), size };
        let forged = ForgedMemory::fill(forgery, &challenge, &GO).unwrap().scan(&nonce_0, &GO).unwrap();
        Answer { forgery, challenge, nonce_0, forged, known: RefCell::default() }
    }

    /// What the validator makes of one draw of `q` positions.
    fn judge(&self, q: usize, draw: &mut Draw) -> Outcome {
        let (challenge, roots) = (&self.challenge, self.forged.roots());
        if let Err(rejection) = check_roots(challenge, roots) {
            return Outcome::Caught(rejection.reason);
        }
        if self.forgery == Forgery::WithholdOpenings {
            let mut attempts = Attempts::default();
            attempts.failed(UnknownCause::Refused, "no openings today".to_owned());
            let verdict: Verdict = attempts.verdict();
            return match verdict {
                Verdict::Fail { reason, .. } => Outcome::Caught(reason),
                other => Outcome::Beyond(format!("{other:?}")),
            };
        }
        if matches!(self.forgery, Forgery::ReversedOpenings | Forgery::ShortOpenings | Forgery::Garbage) {
            return self.judge_whole(q, draw);
        }
        // Whether a position shows it depends on nothing but the position, so each is checked once, and all together
        // are caught by the first that is.
        let positions = sample_positions(&challenge.size, q, &draw.seed());
        positions.iter().find_map(|position| self.shown(position)).map_or(Outcome::Passed, Outcome::Caught)
    }

    /// What the validator makes of one opening among all of an answer, which has the others' length and order.
    fn shown(&self, position: &Position) -> Option<FailReason> {
        if let Some(known) = self.known.borrow().get(position) {
            return *known;
        }
        let (challenge, roots) = (&self.challenge, self.forged.roots());
        let openings = self.forged.open(std::slice::from_ref(position));
        let checked = check_openings(challenge, &self.nonce_0, roots, std::slice::from_ref(position), &openings);
        let shown = checked.err().map(|rejection| rejection.reason);
        self.known.borrow_mut().insert(*position, shown);
        shown
    }

    /// The same where the order of the openings, or their length together, is what is wrong.
    fn judge_whole(&self, q: usize, draw: &mut Draw) -> Outcome {
        let (challenge, roots) = (&self.challenge, self.forged.roots());
        let positions = sample_positions(&challenge.size, q, &draw.seed());
        let openings = self.forged.open(&positions);
        match check_openings(challenge, &self.nonce_0, roots, &positions, &openings) {
            Ok(_) => Outcome::Passed,
            Err(rejection) => Outcome::Caught(rejection.reason),
        }
    }
}

fn of(name: &str, does: &str, predicted: (Predicted, String), gains: &str, q: usize, answer: Answer) -> Cheat {
    let (predicted, formula) = predicted;
    Cheat {
        name: format!("memory: {name}"),
        does: does.to_owned(),
        predicted,
        formula,
        reason: answer.forgery.expected(),
        gains: gains.to_owned(),
        attempt: Box::new(move |draw| answer.judge(q, draw)),
    }
}

pub(super) fn cheats(run: &[u8; 32]) -> Vec<Cheat> {
    let mut all = certain(run);
    all.extend(by_share(run));
    all
}

fn certain(run: &[u8; 32]) -> Vec<Cheat> {
    const NOTHING: &str = "nothing: all of it is held and read";
    [
        (
            "another seed",
            "fills for another challenge, epoch, miner or device",
            Forgery::WrongSeed,
            "a fill that is used again",
        ),
        ("another first nonce", "scans before it has the nonce", Forgery::WrongNonce, "the time of the scans"),
        ("fewer iterations", "leaves the last iteration of each block out", Forgery::FewerIterations, "a cheaper fill"),
        ("a root too few", "leaves the last scan out", Forgery::MissingScan, "one scan of S"),
        ("forged paths", "changes one bit of each path", Forgery::ForgedPath, NOTHING),
        ("another scan", "opens each block in the scan after", Forgery::OpenedOtherScan, "all scans but one"),
        (
            "one block for all",
            "opens the first block for every position",
            Forgery::OneBlockForAll,
            "all blocks but one",
        ),
        ("reordered openings", "sends the openings in the reverse order", Forgery::ReversedOpenings, NOTHING),
        ("short openings", "sends one byte less", Forgery::ShortOpenings, NOTHING),
        ("noise", "sends openings of the right length, full of noise", Forgery::Garbage, "all of it"),
        ("withheld openings", "sends the roots, and no openings", Forgery::WithholdOpenings, "a second draw"),
    ]
    .into_iter()
    .map(|(name, does, forgery, gains)| {
        let answer = Answer::of(forgery, run, 36, 2, 8);
        of(name, does, (Predicted::Certain, "certain".to_owned()), gains, Q, answer)
    })
    .collect()
}

fn by_share(run: &[u8; 32]) -> Vec<Cheat> {
    let guessed = |percent: u32| Forgery::GuessedDigests { ratio: f64::from(percent) / 100.0 };
    let held = "as much of the memory";
    [
        ("1 % guessed", "makes up the digests of blocks that it does not hold", guessed(1), Q, held),
        ("5 % guessed", "the same", guessed(5), Q, held),
        ("10 % guessed", "the same", guessed(10), Q, held),
        ("a quarter guessed, 4 positions", "the same", guessed(25), 4, held),
        (
            "half of it, 2 positions",
            "holds the first half, and makes up the digests of the other",
            Forgery::HalfTheMemory,
            2,
            held,
        ),
        (
            "a made-up scan, 4 positions",
            "sends a random root for the last of 4 scans",
            Forgery::MadeUpScan,
            4,
            "one scan of S",
        ),
        ("four blocks of 200 less", "leaves the last four out", Forgery::FewerBlocks, Q, "four blocks"),
        (
            "one scan for all, 1 position",
            "answers 4 scans with the first",
            Forgery::OneScanForAll,
            1,
            "all scans but one",
        ),
    ]
    .into_iter()
    .map(|(name, does, forgery, q, gains)| {
        let answer = Answer::of(forgery, run, 200, 1, 4);
        let caught = forgery.catch_probability(&answer.challenge.size, q as u32);
        let formula = match forgery {
            Forgery::GuessedDigests { ratio } => format!("1 − (1 − {ratio})^{q}: {}", percent(caught)),
            Forgery::HalfTheMemory => format!("1 − (1/2)^{q}: {}", percent(caught)),
            Forgery::FewerBlocks => format!("1 − (1 − 4/200)^{q}: {}", percent(caught)),
            Forgery::MadeUpScan => format!("1 − (3/4)^{q}: {}", percent(caught)),
            Forgery::OneScanForAll => format!("1 − (1/4)^{q}: {}", percent(caught)),
            _ => format!("{forgery:?}: {}", percent(caught)),
        };
        of(name, does, (Predicted::Rate(caught), formula), gains, q, answer)
    })
    .chain([dropped_bits()])
    .collect()
}

/// Whether a digest is right without the dropped bits is settled with the content, so each trial has a memory of its own.
fn dropped_bits() -> Cheat {
    let forgery = Forgery::ThirtyOneBits;
    let caught = 15.0 / 16.0;
    Cheat {
        name: "memory: 31 bits of each word, 1 position".to_owned(),
        does: "drops the highest bit of each word; a digest is right if all four sums of dropped bits are even"
            .to_owned(),
        predicted: Predicted::Rate(caught),
        formula: format!("1 − (1/16)^1: {}", percent(caught)),
        reason: forgery.expected(),
        gains: "a thirty-second of the memory".to_owned(),
        attempt: Box::new(move |draw| Answer::of(forgery, &draw.seed(), 4, 1, 1).judge(1, draw)),
    }
}

/// What the shortcut of [`Answer::judge`] rests on.
#[test]
fn positions_are_caught_together_as_they_are_one_by_one() {
    let run = [5; 32];
    for forgery in [Forgery::GuessedDigests { ratio: 0.05 }, Forgery::MadeUpScan, Forgery::OneBlockForAll] {
        let answer = Answer::of(forgery, &run, 200, 1, 4);
        for trial in 0..40 {
            let draw = || Draw::new(&run, "together", trial);
            let (whole, each) = (answer.judge_whole(12, &mut draw()), answer.judge(12, &mut draw()));
            let reason = |outcome: Outcome| match outcome {
                Outcome::Caught(reason) => Some(reason),
                _ => None,
            };
            assert_eq!(reason(whole), reason(each), "{forgery:?}");
        }
    }
}
