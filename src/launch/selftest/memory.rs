//! The memory of the devices: what is told against the row, and the memory proof that a validator would ask of the model, by
//! its own steps and judged by its own function. Nothing goes over a network.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::prove::{Rules, random, run_blocking};
use super::report::{Line, Memory, Report, Status, gib, seconds};
use crate::actors::validator::memory_runner::plan::{MemoryTable, MemoryWork, PlannedDevice};
use crate::actors::validator::memory_runner::round::above_floor;
use crate::hardware::OfferedDevice;
use crate::proof::budget::{Budget, BudgetLimits, Demand};
use crate::proof::memory::keys::ScanNonce;
use crate::proof::memory::verifier::{check_openings, check_roots};
use crate::proof::memory::{Challenge, Evidence, Size, sample_positions};
use crate::proof::prover::{Filled, Prover, ProverError};
use crate::proof::work::Root;
use crate::scoring::{ModelRow, ScoreTable, decimal};
use crate::telemetry::error_chain;
use crate::verdict::{FailReason, MemoryVerdict, UnknownCause, Verdict};

/// Scans of a proof that leaves most of them out.
const QUICK_SCANS: u32 = 4;

/// What became of one device's memory.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    /// The device, and what was asked of it.
    pub(super) planned: PlannedDevice,
    /// What a validator would say.
    pub(super) verdict: MemoryVerdict,
    /// How long the fills of all devices took.
    pub(super) fill: Option<Duration>,
    /// How long their scans took.
    pub(super) scan: Option<Duration>,
}

/// What a validator would ask of each device whose model has memory figures; of `quick` proofs few scans.
pub(super) fn asked(
    table: &ScoreTable,
    memories: &MemoryTable,
    offered: &[OfferedDevice],
    quick: bool,
) -> Vec<PlannedDevice> {
    let one = |offer: &OfferedDevice| {
        let row = table.find(&offer.model)?.name.clone();
        let MemoryWork { size, floor } = *memories.get(&row)?;
        let scans = if quick { size.scans().min(QUICK_SCANS) } else { size.scans() };
        let size = Size::new(size.blocks(), size.iterations(), scans).ok()?;
        Some(PlannedDevice { device: offer.device, model: offer.model.clone(), row, work: MemoryWork { size, floor } })
    };
    offered.iter().filter_map(one).collect()
}

/// The line about the budget for these proofs; none where nothing is asked.
pub(super) fn budget(limits: BudgetLimits, demands: &[Demand]) -> Option<Line> {
    if demands.is_empty() {
        return None;
    }
    let refusal = Budget::new(limits).admit(0, crate::ids::Hotkey([0; 32]), demands).err();
    Some(super::judge::admitted("memory budget", "the memory proof is admitted".to_owned(), refusal))
}

/// Fills the memory of all devices at once, then scans all of it, and judges each. In the order of `asked`.
///
/// As with work, a miner answers for all its devices or for none.
pub(super) async fn prove(
    prover: &dyn Prover,
    asked: &[PlannedDevice],
    rules: &Rules,
    fill_timeout: Duration,
) -> Vec<Proof> {
    let all = |verdict: &MemoryVerdict| asked.iter().map(|planned| unproved(planned, verdict.clone())).collect();
    let (nonce, nonce_0) = match (random(), random()) {
        (Ok(nonce), Ok(nonce_0)) => (nonce, ScanNonce(nonce_0)),
        (Err(what), _) | (_, Err(what)) => return all(&Verdict::unknown(UnknownCause::OwnFault, what)),
    };
    let challenges: Vec<Challenge> = asked
        .iter()
        .map(|planned| {
            let (hotkey, device, size) = (rules.hotkey, planned.device, planned.work.size);
            Challenge { nonce, epoch: 0, hotkey, device, size }
        })
        .collect();
    let begun = Instant::now();
    let filled = join_all(challenges.iter().map(|challenge| timeout(fill_timeout, prover.fill(challenge)))).await;
    let fill = begun.elapsed();
    let mut filled: Vec<Box<dyn Filled>> = match every(asked, filled, "the memory was not filled", fill_timeout) {
        Ok(filled) => filled,
        Err(proofs) => return proofs,
    };
    let begun = Instant::now();
    let scans = filled.iter_mut().map(|filled| timeout(rules.commit_timeout, filled.scan(&nonce_0)));
    let roots = join_all(scans).await;
    let scan = begun.elapsed();
    let roots: Vec<Vec<Root>> = match every(asked, roots, "no roots", rules.commit_timeout) {
        Ok(roots) => roots,
        Err(proofs) => return proofs,
    };
    let opened = asked.iter().zip(challenges).zip(filled.into_iter().zip(roots));
    join_all(opened.map(async |((planned, challenge), (filled, roots))| {
        let verdict = open(planned, challenge, nonce_0, filled, roots, scan, rules).await;
        Proof { planned: planned.clone(), verdict, fill: Some(fill), scan: Some(scan) }
    }))
    .await
}

fn unproved(planned: &PlannedDevice, verdict: MemoryVerdict) -> Proof {
    Proof { planned: planned.clone(), verdict, fill: None, scan: None }
}

type Timed<T> = Result<Result<T, ProverError>, tokio::time::error::Elapsed>;

/// The answers of all devices, or the proofs that became of none.
fn every<T>(
    asked: &[PlannedDevice],
    answers: Vec<Timed<T>>,
    late: &str,
    limit: Duration,
) -> Result<Vec<T>, Vec<Proof>> {
    let verdict = |answer: Timed<T>| match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Verdict::unknown(error.cause(), error_chain(&error))),
        Err(_) => Err(Verdict::unknown(UnknownCause::Timeout, format!("{late} within {limit:?}"))),
    };
    let answers: Vec<Result<T, MemoryVerdict>> = answers.into_iter().map(verdict).collect();
    let culprit =
        answers.iter().zip(asked).find_map(|(answer, planned)| Some((planned.device, answer.as_ref().err()?.reason())));
    let Some((culprit, why)) = culprit else { return Ok(answers.into_iter().flatten().collect()) };
    let others = || Verdict::unknown(UnknownCause::ProverCrashed, format!("the prover of {culprit} failed: {why}"));
    let proofs = answers.into_iter().zip(asked);
    Err(proofs.map(|(answer, planned)| unproved(planned, answer.err().unwrap_or_else(others))).collect())
}

async fn open(
    planned: &PlannedDevice,
    challenge: Challenge,
    nonce_0: ScanNonce,
    mut filled: Box<dyn Filled>,
    roots: Vec<Root>,
    scan: Duration,
    rules: &Rules,
) -> MemoryVerdict {
    if let Err(rejection) = check_roots(&challenge, &roots) {
        return Verdict::fail(rejection.reason, rejection.detail);
    }
    let seed = match random() {
        Ok(seed) => seed,
        Err(what) => return Verdict::unknown(UnknownCause::OwnFault, what),
    };
    let size = challenge.size;
    let positions = Arc::new(sample_positions(&size, rules.samples, &seed));
    let openings = match timeout(rules.opening_deadline, filled.open(&positions)).await {
        Ok(Ok(openings)) => openings,
        Ok(Err(error)) => return Verdict::fail(FailReason::OpeningWithheld, error_chain(&error)),
        Err(_) => {
            let detail = format!("no openings within {:?}", rules.opening_deadline);
            return Verdict::fail(FailReason::OpeningUnanswered, detail);
        }
    };
    drop(filled);
    let checked = run_blocking(move || check_openings(&challenge, &nonce_0, &roots, &positions, &openings));
    match checked.await {
        Ok(Ok(checked)) => {
            let elapsed_ns = u64::try_from(scan.as_nanos()).unwrap_or(u64::MAX);
            above_floor(planned, Evidence { size, elapsed_ns, samples: checked.samples })
        }
        Ok(Err(rejection)) => Verdict::fail(rejection.reason, rejection.detail),
        Err(what) => Verdict::unknown(UnknownCause::OwnFault, what),
    }
}

/// Adds to the report what became of the memory: a line for each proof, and its figures to its device.
pub(super) fn conclude(report: &mut Report, proofs: &[Proof]) {
    for proof in proofs {
        report.lines.push(line(proof));
        if let Some(device) = report.devices.iter_mut().find(|device| device.device == proof.planned.device) {
            device.memory = Some(figures(proof));
        }
    }
}

fn figures(proof: &Proof) -> Memory {
    let ns = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let MemoryWork { size, floor } = proof.planned.work;
    Memory {
        blocks: size.blocks(),
        iterations: size.iterations(),
        scans: size.scans(),
        verdict: proof.verdict.kind(),
        reason: proof.verdict.reason(),
        fill_ns: ns(proof.fill),
        scan_ns: ns(proof.scan),
        bandwidth: match &proof.verdict {
            Verdict::Pass { evidence } => Some(evidence.bandwidth()),
            _ => None,
        },
        floor_bandwidth: floor,
    }
}

fn line(proof: &Proof) -> Line {
    let Proof { planned, verdict, fill, scan } = proof;
    let MemoryWork { size, floor } = planned.work;
    let time = |time: &Option<Duration>| seconds(time.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)));
    let per_second = |bytes: u64| format!("{} GB/s", decimal(bytes.into(), 9, 1));
    let check = format!("{} memory proof", planned.device);
    let asked = format!("{} in {} scans", gib(size.bytes()), size.scans());
    let against = match floor {
        Some(floor) => format!("{asked}, floor {}", per_second(floor)),
        None => format!("{asked}, no floor"),
    };
    let line = |found: String| Line::ok(check, found).against(against);
    match verdict {
        Verdict::Pass { evidence } => {
            let rate = per_second(evidence.bandwidth());
            line(format!("{} openings hold, filled in {}, read at {rate}", evidence.samples, time(fill)))
        }
        Verdict::Fail { reason: reason @ FailReason::BelowFloor, detail } => {
            let remedy = "is the device's memory in use, its clock lowered, or is it another model? One fail costs the next epoch, \
                          two every epoch until a proof passes";
            line(format!("{reason}: {detail}, scans took {}", time(scan))).needs(Status::Fail, remedy)
        }
        Verdict::Fail { reason, detail } => line(format!("{reason}: {detail}")).needs(Status::Fail, reason.remedy()),
        Verdict::Unknown { cause, detail } => {
            line(format!("{cause}: {detail}")).needs(Status::Fail, super::judge::remedy_of(*cause))
        }
    }
}

/// The line about a device's memory as it is told; none where its row says nothing of it.
pub(super) fn figure(check: String, offer: &OfferedDevice, row: &ModelRow) -> Option<Line> {
    let floor = row.memory?.floor;
    let line = Line::ok(check, format!("{} told", gib(offer.memory_bytes))).against(format!("floor {}", gib(floor)));
    Some(match offer.memory_bytes < floor {
        true => line.needs(
            Status::Fail,
            "a memory proof of this model does not fit: is it the model it says, is ECC or a MIG split on?",
        ),
        false => line,
    })
}
