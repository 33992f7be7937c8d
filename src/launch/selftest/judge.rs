//! What a validator would make of the proofs: verdicts, credit and score by its own functions, as lines with remedies. Pure.

use std::collections::HashMap;

use super::prove::Proof;
use super::report::{Device, Line, Report, Score, Status, gib, seconds};
use crate::actors::validator::challenge_runner::plan::WorkTable;
use crate::hardware::OfferedDevice;
use crate::ids::{Coldkey, DeviceId, Hotkey, Uid};
use crate::proof::Work;
use crate::proof::budget::{Budget, BudgetLimits, BudgetReason, Demand, Refusal};
use crate::scoring::{
    DeviceFinding, DevicePart, HistoryRules, Judge, MinerFinding, ModelRow, PartReason, ScoreTable, decimal,
    machine_score, rate_text,
};
use crate::verdict::{FailReason, UnknownCause, Verdict};

/// What a machine is judged by.
pub(super) struct Standard<'a> {
    /// The models with their rates.
    pub table: &'a ScoreTable,
    /// The work asked of each.
    pub works: &'a WorkTable,
    /// How long a validator's slot is, in nanoseconds.
    pub slot_ns: u64,
}

impl Standard<'_> {
    /// The work that a validator would ask of this model, if its row is calibrated.
    pub(super) fn work(&self, model: &str) -> Option<Work> {
        self.works.get(&self.table.find(model)?.name).copied()
    }
}

/// The line about the budget: whether a challenge of this work would be admitted, and those of all validators after it.
/// `proof_ns` is what one takes; `callers` how many come in a window.
pub(super) fn budget(limits: BudgetLimits, demands: &[Demand], proof_ns: u64, callers: u64) -> Line {
    let line = |found: String| Line::ok("budget", found);
    let asked: u64 = demands.iter().map(|d| d.operations).fold(0, u64::saturating_add);
    let shown = format!("{} operations for {} devices", scientific(asked), demands.len());
    let against = format!("at most {} in one challenge", scientific(limits.ops_per_challenge));
    if let Err(refusal) = Budget::new(limits).admit(0, Hotkey([0; 32]), demands) {
        return admitted("budget", shown, Some(refusal));
    }
    let spent = u128::from(proof_ns) * u128::from(callers);
    if spent > limits.time_per_window.as_nanos() {
        let remedy = format!(
            "{callers} validators may ask within {:?} (budget.window), and the last ones would be refused: raise budget.time",
            limits.window
        );
        return line(format!("{} for each challenge", seconds(proof_ns)))
            .against(format!("{:?} in a window", limits.time_per_window))
            .needs(Status::Warn, remedy);
    }
    line(shown).against(against)
}

/// The line about a challenge that the budget admits, or why it does not, with the key and the value that it takes.
pub(super) fn admitted(check: &str, found: String, refusal: Option<Refusal>) -> Line {
    let Some(refusal) = refusal else { return Line::ok(check, found) };
    let remedy = match &refusal {
        Refusal::Budget(BudgetReason::Operations { asked, .. }) => format!("set budget.operations to {asked} or more"),
        Refusal::Budget(BudgetReason::Memory { asked, .. }) => {
            format!("set budget.memory_mib to {} or more", asked.div_ceil(1 << 20))
        }
        Refusal::Budget(BudgetReason::ProverMemory { asked, .. }) => {
            format!("set prover.memory_limit_mib to {} or more", asked.div_ceil(1 << 20))
        }
        _ => "check the keys of budget".to_owned(),
    };
    Line::ok(check, refusal.to_string()).against(refusal.cause().label()).needs(Status::Fail, remedy)
}

/// `1.03e11`.
fn scientific(number: u64) -> String {
    if number < 1_000_000 { number.to_string() } else { format!("{:.2e}", number as f64) }
}

/// Adds to the report what the devices come to: their lines, their judgements, the score.
pub(super) fn devices(report: &mut Report, standard: &Standard<'_>, offered: &[OfferedDevice], proofs: &[Proof]) {
    let proved: HashMap<DeviceId, &Proof> = proofs.iter().map(|proof| (proof.device, proof)).collect();
    let verdict = |offer: &OfferedDevice| match proved.get(&offer.device) {
        Some(proof) => proof.verdict.clone(),
        None if standard.work(&offer.model).is_none() => {
            Verdict::unknown(UnknownCause::UncalibratedModel, format!("no calibrated row for model '{}'", offer.model))
        }
        None => Verdict::unknown(UnknownCause::OwnFault, "it was not proved"),
    };
    let finding = MinerFinding {
        uid: Uid(0),
        hotkey: Hotkey([0; 32]),
        coldkey: Coldkey([0; 32]),
        refused: None,
        whole: None,
        devices: offered
            .iter()
            .map(|offer| DeviceFinding {
                device: offer.device,
                model: offer.model.clone(),
                leased: false,
                verdict: Some(verdict(offer)),
            })
            .collect(),
    };
    // A judge without a past: what the first epoch brings.
    let judged = Judge::new(HistoryRules::default()).judge(1, 0, standard.table, &[finding]);
    let Some(miner) = judged.miners.into_iter().next().filter(|_| !offered.is_empty()) else { return };
    let score = machine_score(standard.table, &miner.devices, false);
    for (offer, judgement) in offered.iter().zip(&miner.devices) {
        let Some(part) = score.parts.iter().find(|part| part.device == offer.device) else { continue };
        let row = standard.table.find(&offer.model);
        let proof = proved.get(&offer.device).copied();
        report.lines.extend(lines(standard, offer, row, proof, &judgement.verdict, part));
        report.devices.push(device(standard, offer, row, proof, &judgement.verdict, part));
    }
    report.score = Some(Score {
        points: score.gpu,
        bonus_if_rented: standard.table.bonus(),
        counted: score.counted(),
        max_devices: standard.table.max_devices(),
    });
}

fn device(
    standard: &Standard<'_>,
    offer: &OfferedDevice,
    row: Option<&ModelRow>,
    proof: Option<&Proof>,
    verdict: &Verdict,
    part: &DevicePart,
) -> Device {
    let ns = |time: Option<std::time::Duration>| time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let timed = row.filter(|row| row.timed);
    Device {
        device: offer.device,
        model: offer.model.clone(),
        memory_bytes: offer.memory_bytes,
        work: proof.map(|proof| proof.work).or_else(|| standard.work(&offer.model)),
        verdict: verdict.kind(),
        reason: verdict.reason(),
        elapsed_ns: ns(proof.and_then(|proof| proof.elapsed)),
        opening_ns: ns(proof.and_then(|proof| proof.opening)),
        verification_ns: ns(proof.and_then(|proof| proof.verification)),
        rate_ops: proved_rate(proof),
        nominal_ops: timed.and_then(|row| row.nominal_ops),
        floor_ops: timed.and_then(|row| row.floor_ops),
        base_micro: part.base_micro,
        twin: part.twin.clone(),
        factor_ppb: part.factor_ppb,
        counted: part.counted,
        memory: None,
    }
}

/// What was proved, whatever is made of it.
fn proved_rate(proof: Option<&Proof>) -> Option<u64> {
    match &proof?.verdict {
        Verdict::Pass { evidence } => Some(evidence.rate()),
        _ => None,
    }
}

fn lines(
    standard: &Standard<'_>,
    offer: &OfferedDevice,
    row: Option<&ModelRow>,
    proof: Option<&Proof>,
    verdict: &Verdict,
    part: &DevicePart,
) -> Vec<Line> {
    let of = |what: &str| format!("{} {what}", offer.device);
    let Some(row) = row.filter(|_| standard.work(&offer.model).is_some()) else {
        let found = format!("'{}' has no calibrated row: {}", offer.model, UnknownCause::UncalibratedModel.label());
        return vec![Line::ok(of("model"), found).needs(Status::Fail, uncalibrated(row, offer))];
    };
    let mut lines = vec![model(of("model"), offer, row, part)];
    let Some(proof) = proof else { return lines };
    lines.push(proved(of("proof"), proof));
    lines.extend(paid(of("rate"), row, proof, verdict, part));
    lines.extend(in_slot(of("slot"), standard, proof));
    lines.extend(super::memory::figure(of("memory"), offer, row));
    lines
}

fn model(check: String, offer: &OfferedDevice, row: &ModelRow, part: &DevicePart) -> Line {
    let base = |micro: u64| decimal(micro.into(), 6, 2);
    let found = match row.name == offer.model {
        true => offer.model.clone(),
        false => format!("{} (an alias of {})", offer.model, row.name),
    };
    let line = Line::ok(check, found);
    match &part.twin {
        Some(twin) => {
            line.against(format!("base {}, paid {} as its twin {twin}", base(row.base_micro), base(part.base_micro)))
        }
        None => line.against(format!("base {}", base(part.base_micro))),
    }
}

/// The row to add, as far as it is known here.
fn uncalibrated(row: Option<&ModelRow>, offer: &OfferedDevice) -> String {
    let rates = "measure the rate with compute-register benchmark, of several cards if you can";
    if row.is_some() {
        return format!(
            "its row needs nominal_tops and floor_tops (0.70 of it or more): {rates}. Validators pay by their own table"
        );
    }
    let gib = offer.memory_bytes as f64 / f64::from(1u32 << 30);
    let row = format!(
        "scoring:\n  gpus:\n    {:?}: {{ base: BASE, source: measured, nominal_tops: RATE, floor_tops: {:.2} × RATE, \
         memory_gib: {gib:.1}, floor_memory_gib: {:.1}, bandwidth_gbs: BANDWIDTH, floor_bandwidth_gbs: {:.2} × BANDWIDTH, \
         aliases: [], twins: [] }}",
        offer.model,
        0.70,
        gib * 0.9,
        0.75
    );
    format!("validators pay by their own table; this is the row to propose. For RATE, {rates}\n{row}")
}

/// Whether the proof was right, whatever its rate.
fn proved(check: String, proof: &Proof) -> Line {
    let Work { n, k, rounds } = proof.work;
    let work = format!("n {n}, k {k}, {rounds} rounds");
    match &proof.verdict {
        Verdict::Pass { evidence } => {
            let took = proof.elapsed.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            Line::ok(check, format!("{} openings hold, roots after {}", evidence.samples, seconds(took))).against(work)
        }
        Verdict::Fail { reason, detail } => {
            Line::ok(check, format!("{reason}: {detail}")).against(work).needs(Status::Fail, reason.remedy())
        }
        Verdict::Unknown { cause, detail } => {
            Line::ok(check, format!("{cause}: {detail}")).against(work).needs(Status::Fail, remedy_of(*cause))
        }
    }
}

/// Reasons that are met on this machine have remedies here; a validator's words are for somebody far away.
pub(super) fn remedy_of(cause: UnknownCause) -> &'static str {
    match cause {
        UnknownCause::ProverCrashed => {
            "see the prover's last words; where memory is short raise prover.memory_limit_mib"
        }
        UnknownCause::Timeout => {
            "validators wait no longer (challenge.commit_timeout): is the device busy, is it the model it says?"
        }
        other => other.remedy(),
    }
}

/// What the rate comes to; nothing for a proof that has none.
fn paid(check: String, row: &ModelRow, proof: &Proof, verdict: &Verdict, part: &DevicePart) -> Option<Line> {
    let rate_ops = proved_rate(Some(proof))?;
    let line = Line::ok(check, rate_text(rate_ops));
    if !row.timed {
        return Some(line.against("no floor: the rate of a device class does not count"));
    }
    let factor = decimal(part.factor_ppb.into(), 9, 3);
    let (nominal, floor) = (row.nominal_ops.unwrap_or(0), row.floor_ops.unwrap_or(0));
    let line = line.against(format!("nominal {}, floor {}, factor {factor}", rate_text(nominal), rate_text(floor)));
    Some(match (verdict, part.reason) {
        (Verdict::Fail { reason: reason @ FailReason::BelowFloor, .. }, _) => line.needs(
            Status::Fail,
            format!(
                "{reason}: is the device busy, throttled or limited in power, or another model? Free it, or claim the model that \
                 is installed"
            ),
        ),
        (Verdict::Pass { .. }, PartReason::BeyondLimit) => {
            line.needs(Status::Warn, "more devices than are paid on one machine: put it into another")
        }
        (Verdict::Pass { .. }, _) if part.factor_ppb < crate::scoring::WHOLE_PPB => {
            line.needs(Status::Warn, "paid in proportion: keep clocks and power limit up, and the device free for proofs")
        }
        _ => line,
    })
}

/// Time that is left in a validator's slot once roots and openings are there.
fn in_slot(check: String, standard: &Standard<'_>, proof: &Proof) -> Option<Line> {
    let (elapsed, opening) = (proof.elapsed?, proof.opening?);
    let took = u64::try_from((elapsed + opening).as_nanos()).unwrap_or(u64::MAX);
    let left = standard.slot_ns.saturating_sub(took);
    let line = Line::ok(check, format!("{} left, openings took {}", seconds(left), seconds(opening.as_nanos() as u64)))
        .against(format!("a slot of {}", seconds(standard.slot_ns)));
    Some(match left {
        0 => line.needs(
            Status::Fail,
            "the next validator's slot begins before this one has its answer: it counts as a miss",
        ),
        _ if left < standard.slot_ns / 2 => {
            line.needs(Status::Warn, "more than half of the slot is used: a late block may cost it")
        }
        _ => line,
    })
}

/// The line about the memory that proofs take of the machine; `cpus` are the works of CPU devices, which use the host's.
pub(super) fn ram(available: Option<u64>, cpus: &[Work]) -> Line {
    let needed = cpus.iter().map(Work::memory_bytes).fold(0, u64::saturating_add);
    match available {
        None => Line::ok("ram", "not measured").needs(Status::Warn, "the system does not tell its memory"),
        Some(free) if free < needed => Line::ok("ram", format!("{} available", gib(free)))
            .against(format!("{} for proofs", gib(needed)))
            .needs(Status::Warn, "close what uses memory, or the provers fail"),
        Some(free) => {
            Line::ok("ram", format!("{} available", gib(free))).against(format!("{} for proofs", gib(needed)))
        }
    }
}
