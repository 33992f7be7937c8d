//! The table of cheats, a test: every way of answering a validator without having what is proved, how often it is caught, as
//! predicted and as measured, and what it brings where it is not.
//!
//! One place lists them all: `work` (the product), `memory`, and `claims` (who answers for what, and when: on a simulated
//! clock, judged by the validator's own functions). Each [`Cheat`] has a prediction and a way to try it once. The test tries each
//! [`TRIALS`] times with fixed seeds and compares `docs/proof.md`, "Cheats", with the result; `UPDATE_DOCS=1` writes it. With
//! `COMPUTE_TEST_LONG` it then tries each [`TRIALS_LONG`] times with fresh seeds, which it prints.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::proof::binomial;
use crate::verdict::FailReason;

mod claims;
mod memory;
mod work;

/// Times that each cheat is tried, with fixed seeds and with fresh ones.
const TRIALS: u64 = 1_000;
const TRIALS_LONG: u64 = 5_000;
/// Positions that a validator asks for.
const Q: usize = 66;

/// What is predicted of each attempt.
enum Predicted {
    /// It is caught.
    Certain,
    /// It is caught with this probability.
    Rate(f64),
    /// It is paid at most what a formula says, caught or not.
    Bounded,
}

/// What became of one attempt.
enum Outcome {
    Caught(FailReason),
    Passed,
    /// It brought more than predicted, or was judged otherwise.
    Beyond(String),
}

/// One way to cheat.
struct Cheat {
    /// Its name, which no other has.
    name: String,
    /// What it does.
    does: String,
    predicted: Predicted,
    /// The prediction as people write it.
    formula: String,
    /// What a caught attempt fails for.
    reason: FailReason,
    /// What it gains where it is not caught.
    gains: String,
    /// Tries it once.
    attempt: Box<dyn Fn(&mut Draw) -> Outcome>,
}

/// Numbers that depend on the run, the cheat and the trial alone.
struct Draw(blake3::OutputReader);

impl Draw {
    fn new(run: &[u8; 32], name: &str, trial: u64) -> Self {
        let mut hash = blake3::Hasher::new_keyed(run);
        hash.update(name.as_bytes()).update(&trial.to_le_bytes());
        Draw(hash.finalize_xof())
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill(&mut seed);
        seed
    }

    /// From 0 to `bound`, without it.
    fn below(&mut self, bound: usize) -> usize {
        let mut eight = [0; 8];
        self.0.fill(&mut eight);
        (u64::from_le_bytes(eight) % bound as u64) as usize
    }

    /// From `low` to `high`.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        let mut eight = [0; 8];
        self.0.fill(&mut eight);
        low + (high - low) * (u64::from_le_bytes(eight) as f64 / u64::MAX as f64)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Every cheat, with provers that depend on `run` alone.
fn all(run: &[u8; 32]) -> Vec<Cheat> {
    [work::cheats(run), memory::cheats(run), claims::cheats()].into_iter().flatten().collect()
}

/// Tries a cheat. How often it was caught, or how it did other than predicted.
fn measure(cheat: &Cheat, run: &[u8; 32], trials: u64) -> Result<u64, String> {
    let mut caught = 0;
    for trial in 0..trials {
        match (cheat.attempt)(&mut Draw::new(run, &cheat.name, trial)) {
            Outcome::Caught(reason) if reason == cheat.reason => caught += 1,
            Outcome::Caught(reason) => return Err(format!("trial {trial}: {reason}, not {}", cheat.reason)),
            Outcome::Passed if matches!(cheat.predicted, Predicted::Certain) => {
                return Err(format!("trial {trial} passes"));
            }
            Outcome::Passed => {}
            Outcome::Beyond(what) => return Err(format!("trial {trial}: {what}")),
        }
    }
    match cheat.predicted {
        Predicted::Rate(rate) if !binomial::band(trials, rate).contains(&caught) => {
            Err(format!("caught {caught} of {trials}, predicted {:?}", binomial::band(trials, rate)))
        }
        _ => Ok(caught),
    }
}

/// A row of the document's table.
fn row(cheat: &Cheat, caught: u64, trials: u64) -> String {
    let (trials_text, caught_text) = (thousands(trials), thousands(caught));
    let measured = match cheat.predicted {
        Predicted::Certain => format!("{caught_text} of {trials_text}"),
        Predicted::Rate(rate) => {
            let (low, high) = binomial::band(trials, rate).into_inner();
            format!("{caught_text} of {trials_text} ({} … {})", thousands(low), thousands(high))
        }
        Predicted::Bounded if caught == 0 => format!("passes {trials_text} of {trials_text}, none beyond"),
        Predicted::Bounded => format!("caught {caught_text} of {trials_text}, none beyond"),
    };
    let Cheat { name, does, formula, reason, gains, .. } = cheat;
    format!("| {name} | {does} | {formula} | `{}` | {measured} | {gains} |\n", reason.label())
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A probability in percent, with as many places as tell it from certainty.
fn percent(rate: f64) -> String {
    match rate {
        _ if rate > 0.999_95 => "100 %".to_owned(),
        _ if rate > 0.99 => format!("{:.2} %", rate * 100.0),
        _ => format!("{:.1} %", rate * 100.0),
    }
}

const BEGIN: &str = "<!-- cheats: written by a test, UPDATE_DOCS=1 cargo test cheats -->\n";
const END: &str = "<!-- cheats: end -->\n";

/// The table with fixed seeds, and every row that is not as predicted.
fn table() -> (String, Vec<String>) {
    let run = [0; 32];
    let mut text = String::from(
        "| cheat | what it does | predicted | fails for | measured (of trials; 99.9 % band) | gains otherwise |\n|---|---|---|---|---|---|\n",
    );
    let (cheats, mut wrong) = (all(&run), Vec::new());
    let names: BTreeSet<&String> = cheats.iter().map(|cheat| &cheat.name).collect();
    assert!(names.len() == cheats.len() && names.len() >= 60, "{} names of {}", names.len(), cheats.len());
    for cheat in &cheats {
        match measure(cheat, &run, TRIALS) {
            Ok(caught) => text.push_str(&row(cheat, caught, TRIALS)),
            Err(what) => wrong.push(format!("{}: {what}", cheat.name)),
        }
    }
    (text, wrong)
}

#[test]
fn every_cheat_is_caught_as_often_as_predicted_and_the_document_says_so() {
    let (wanted, wrong) = table();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proof.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("docs/proof.md has the table's beginning");
    let (shown, after) = rest.split_once(END).expect("docs/proof.md has the table's end");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(shown, wanted, "run the test again with UPDATE_DOCS=1, and read what changed");
}

/// Fresh seeds leave the band of one row in 1,000: such a row is tried once more, with other seeds.
#[test]
fn with_fresh_seeds_too_if_asked_for_at_length() {
    if std::env::var_os("COMPUTE_TEST_LONG").is_none() {
        return;
    }
    let mut runs = [[0; 32]; 2];
    runs.iter_mut().for_each(|run| getrandom::fill(run).unwrap());
    let mut seeds = String::new();
    runs.iter().for_each(|run| writeln!(seeds, "run {}", hex::encode(run)).unwrap());
    println!("{seeds}");
    let [first, again] = runs.map(|run| (run, all(&run)));
    for (cheat, other) in first.1.iter().zip(&again.1) {
        match measure(cheat, &first.0, TRIALS_LONG) {
            Ok(caught) => print!("{}", row(cheat, caught, TRIALS_LONG)),
            Err(what) if matches!(cheat.predicted, Predicted::Rate(_)) => {
                println!("{}: {what}, once more", cheat.name);
                measure(other, &again.0, TRIALS_LONG).unwrap_or_else(|what| panic!("{}: {what}\n{seeds}", cheat.name));
            }
            Err(what) => panic!("{}: {what}\n{seeds}", cheat.name),
        }
    }
}

#[test]
fn numbers_are_written_as_people_read_them() {
    assert_eq!((thousands(0), thousands(999), thousands(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
    let texts = [0.4849, 0.966_12, 0.999_04, 0.999_99].map(percent);
    assert_eq!(texts, ["48.5 %", "96.6 %", "99.90 %", "100 %"]);
}
