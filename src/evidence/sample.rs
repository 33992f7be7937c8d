//! What a third party can check of the proofs themselves, from the log alone.
//!
//! Of every pass one sample is logged: its position follows from the seed, its tile from the challenge, and its path must
//! lead from the tile to the root that the miner signed. Of a fail that showed in an opening the opening is logged: whoever
//! doubts the fail can see that it is wrong.

use std::path::Path;

use serde::{Deserialize as _, Serialize};

use super::Kind;
use super::read::LogReader;
use super::record::{DeviceTrace, MemoryBody, MemoryDeviceTrace, MemoryTrace, MinerBody, Sample, Trace};
use crate::ids::{DeviceId, Epoch, Hotkey, Uid};
use crate::proof::memory::keys::ScanNonce;
use crate::proof::verifier::{check_openings, keys_of_rounds};
use crate::proof::{Challenge, Position, Root, cpu, kept_sample, memory, merkle, sample_positions};
use crate::verdict::{FailReason, MemoryVerdict, Verdict};
use crate::wire::reply::{ReplyProof, body_sha256};
use crate::wire::synapse::{ChallengeReply, DeviceRoots};

/// What was checked of one device's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// A pass: the sample's tile or block, computed again, leads to the root.
    Pass,
    /// A fail: the tile leads to the root and is not the product's. Only the miner can have made it.
    Fail,
    /// A fail: the opening does not lead to the root. That the miner sent it is the validator's word.
    FailByWord,
}

/// One device's verdict that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleLine {
    /// The epoch.
    pub epoch: Epoch,
    /// The miner's uid.
    pub uid: Uid,
    /// The device.
    pub device: DeviceId,
    /// What was checked, or what is wrong.
    pub result: Result<Checked, String>,
    /// Whether the roots are the miner's by its signature.
    pub signed: bool,
}

/// What was checked of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SampleReport {
    /// Each device's verdict that can be checked.
    pub lines: Vec<SampleLine>,
    /// Verdicts without anything to check: not challenged, or no roots.
    pub without: u64,
    /// What is wrong with the log itself.
    pub problems: Vec<String>,
}

impl SampleReport {
    /// Whether all that can be checked holds.
    pub fn holds(&self) -> bool {
        self.problems.is_empty() && self.lines.iter().all(|l| l.result.is_ok())
    }

    fn count(&self, checked: Checked) -> usize {
        self.lines.iter().filter(|l| l.result == Ok(checked)).count()
    }

    /// The report as text, its last line a sentence.
    pub fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let count = |n: usize, what: &str| format!("{n:>8}  {what}\n");
        out +=
            &count(self.count(Checked::Pass), "passes: the sample's tile or block, computed again, leads to the root");
        out += &count(self.count(Checked::Fail), "fails: the opened tile leads to the root and is not the product's");
        out += &count(
            self.count(Checked::FailByWord),
            "fails: the opening does not lead to the root; the miner's by the validator's word",
        );
        let signed = self.lines.iter().filter(|l| l.signed).count();
        out += &count(signed, "of these with roots that the miner signed");
        out += &count(
            usize::try_from(self.without).unwrap_or(usize::MAX),
            "verdicts without a sample: not challenged, or no roots",
        );
        for line in &self.lines {
            if let Err(why) = &line.result {
                let _ = writeln!(out, "wrong: epoch {}, uid {}, {}: {why}", line.epoch, line.uid, line.device);
            }
        }
        for problem in &self.problems {
            let _ = writeln!(out, "problem: {problem}");
        }
        out += match (self.holds(), self.lines.is_empty()) {
            (true, true) => "there is no sample to check\n",
            (true, false) => "every sample holds\n",
            (false, _) => "not every sample holds\n",
        };
        out
    }
}

/// Checks every sample in a log, or those of one epoch or one miner.
///
/// # Errors
/// If the directory cannot be listed.
pub fn check(dir: &Path, epoch: Option<Epoch>, uid: Option<Uid>) -> std::io::Result<SampleReport> {
    let mut report = SampleReport::default();
    let mut validator = None;
    for record in LogReader::new(dir)? {
        let record = match record {
            Ok(record) => record,
            Err(problem) => {
                report.problems.push(problem.to_string());
                continue;
            }
        };
        if record.kind == Kind::Segment.label() {
            validator = record.body.get("hotkey").and_then(|h| h.as_str()).and_then(|h| h.parse::<Hotkey>().ok());
        }
        let is_memory = record.kind == Kind::Memory.label();
        if !is_memory && record.kind != Kind::Miner.label() || epoch.is_some_and(|e| record.epoch() != Some(e)) {
            continue;
        }
        if is_memory {
            match MemoryBody::deserialize(&record.body) {
                Ok(body) if uid.is_some_and(|uid| uid != body.uid) => {}
                Ok(body) => validator.iter().for_each(|validator| check_memory(&body, validator, &mut report)),
                Err(error) => report.problems.push(format!("record {} cannot be read: {error}", record.seq)),
            }
            continue;
        }
        let body = match MinerBody::deserialize(&record.body) {
            Ok(body) => body,
            Err(error) => {
                report.problems.push(format!("record {} cannot be read: {error}", record.seq));
                continue;
            }
        };
        if uid.is_some_and(|uid| uid != body.finding.uid) {
            continue;
        }
        if let Some(validator) = validator {
            check_miner(&body, &validator, &mut report);
        }
    }
    Ok(report)
}

/// Checks what one miner's record holds.
fn check_miner(body: &MinerBody, validator: &Hotkey, report: &mut SampleReport) {
    let signed = body.challenge.as_ref().is_some_and(|trace| signed(trace, &body.finding.hotkey, validator));
    for found in &body.finding.devices {
        let trace = body.challenge.as_ref();
        let device = trace.and_then(|t| t.devices.iter().find(|d| d.device == found.device));
        let (Some(trace), Some(device), Some(verdict)) = (trace, device, &found.verdict) else {
            report.without += 1;
            continue;
        };
        match check_device(body, trace, device, verdict) {
            None => report.without += 1,
            Some(result) => report.lines.push(SampleLine {
                epoch: body.epoch,
                uid: body.finding.uid,
                device: found.device,
                result,
                signed,
            }),
        }
    }
}

/// Checks what one miner's record of memory holds.
fn check_memory(body: &MemoryBody, validator: &Hotkey, report: &mut SampleReport) {
    let signed = body.challenge.as_ref().is_some_and(|trace| {
        let roots = trace.devices.iter().map(|d| (d.device, d.roots.as_slice()));
        signed_roots(trace.reply.as_ref(), roots, &body.hotkey, validator)
    });
    for found in &body.devices {
        let trace = body.challenge.as_ref();
        let device = trace.and_then(|t| t.devices.iter().find(|d| d.device == found.device));
        let result = trace.zip(device).and_then(|(trace, device)| check_memory_of(body, trace, device, &found.verdict));
        match result {
            None => report.without += 1,
            Some(result) => {
                let (epoch, uid, device) = (body.epoch, body.uid, found.device);
                report.lines.push(SampleLine { epoch, uid, device, result, signed });
            }
        }
    }
}

/// `None` where there is nothing to check. A block's own digest is made again and never sent, so one opening shows both.
fn check_memory_of(
    body: &MemoryBody,
    trace: &MemoryTrace,
    device: &MemoryDeviceTrace,
    verdict: &MemoryVerdict,
) -> Option<Result<Checked, String>> {
    let wrong = |why: &str| Some(Err(why.to_owned()));
    let (epoch, hotkey, size) = (body.epoch, body.hotkey, device.size);
    let challenge = memory::Challenge { nonce: trace.nonce.0, epoch, hotkey, device: device.device, size };
    let (Some(seed), Some(scan_nonce)) = (device.seed, trace.scan_nonce) else {
        return matches!(verdict, Verdict::Pass { .. }).then(|| Err("a pass without a seed or a scan".to_owned()));
    };
    let positions = memory::sample_positions(&size, device.samples as usize, &seed.0);
    let (index, opening) = match (verdict, &device.sample) {
        (Verdict::Pass { evidence }, Some(Sample::Path { index, path })) => {
            if (evidence.size, evidence.elapsed_ns, evidence.samples) != (size, device.elapsed_ns, device.samples) {
                return wrong("the verdict names another size, time or samples than the challenge");
            }
            if usize::try_from(*index).ok() != Some(kept_sample(positions.len(), &seed.0)) {
                return wrong("another sample is kept than the one that the seed names");
            }
            (index, path)
        }
        (Verdict::Pass { .. }, _) => return wrong("a pass without a sample"),
        (Verdict::Fail { .. }, Some(Sample::Opening { index, opening })) => (index, opening),
        _ => return None,
    };
    let Some(position) = usize::try_from(*index).ok().and_then(|i| positions.get(i)) else {
        return wrong("there is no such sample");
    };
    let Ok(bytes) = hex::decode(opening) else { return wrong("the opening is not in hex") };
    let nonce = ScanNonce(scan_nonce.0);
    let found = memory::verifier::check_openings(&challenge, &nonce, &device.roots, &[*position], &bytes);
    Some(match (verdict, found) {
        (Verdict::Fail { reason, .. }, Err(rejection)) if rejection.reason == *reason => Ok(Checked::FailByWord),
        (Verdict::Fail { .. }, Ok(_)) => Err("the opening is right: it shows no fail".to_owned()),
        (_, Err(rejection)) => Err(format!("the opening shows {}: {}", rejection.reason, rejection.detail)),
        (_, Ok(_)) => Ok(Checked::Pass),
    })
}

/// Whether the miner signed exactly these roots. A reply in another form than ours has them all the same, but shows it to
/// nobody.
fn signed(trace: &Trace, miner: &Hotkey, validator: &Hotkey) -> bool {
    let roots = trace.devices.iter().map(|d| (d.device, d.roots.as_slice()));
    signed_roots(trace.reply.as_ref(), roots, miner, validator)
}

fn signed_roots<'a>(
    reply: Option<&ReplyProof>,
    roots: impl Iterator<Item = (DeviceId, &'a [Root])>,
    miner: &Hotkey,
    validator: &Hotkey,
) -> bool {
    let Some(proof) = reply else { return false };
    let devices = roots.map(|(device, roots)| DeviceRoots { device, roots: roots.to_vec() }).collect();
    let reply = ChallengeReply::Roots { devices };
    let same = serde_json::to_vec(&reply).is_ok_and(|body| body_sha256(&body) == proof.body_sha256);
    same && proof.holds(miner, validator)
}

/// `None` where there is nothing to check.
fn check_device(
    body: &MinerBody,
    trace: &Trace,
    device: &DeviceTrace,
    verdict: &Verdict,
) -> Option<Result<Checked, String>> {
    let work = device.work;
    let challenge =
        Challenge { nonce: trace.nonce.0, epoch: body.epoch, hotkey: body.finding.hotkey, device: device.device, work };
    let wrong = |why: &str| Some(Err(why.to_owned()));
    let drawn = device.seed.map(|seed| (seed, sample_positions(&work, device.samples as usize, &seed.0)));
    match (verdict, &device.sample, drawn) {
        (Verdict::Pass { evidence }, Some(Sample::Path { index, path }), Some((seed, positions))) => {
            let facts = (evidence.operations, evidence.elapsed_ns, evidence.samples);
            if facts != (work.operations(), device.elapsed_ns, device.samples) {
                return wrong("the verdict names other work, time or samples than the challenge");
            }
            if usize::try_from(*index).ok() != Some(kept_sample(positions.len(), &seed.0)) {
                return wrong("another sample is kept than the one that the seed names");
            }
            let Some(position) = positions.get(*index as usize) else { return wrong("there is no such sample") };
            Some(pass_holds(&challenge, device, position, path).map(|()| Checked::Pass))
        }
        (Verdict::Pass { .. }, ..) => wrong("a pass without a seed or a sample"),
        (Verdict::Fail { reason, .. }, Some(Sample::Opening { index, opening }), Some((_, positions))) => {
            let Some(position) = usize::try_from(*index).ok().and_then(|i| positions.get(i)) else {
                return wrong("there is no such sample");
            };
            let Ok(bytes) = hex::decode(opening) else { return wrong("the opening is not in hex") };
            let rejected = check_openings(&challenge, &device.roots, &[*position], &bytes).err().map(|r| r.reason);
            Some(match rejected {
                Some(found) if found != *reason => Err(format!("the opening shows {found}, the verdict says {reason}")),
                Some(FailReason::EntryMismatch) => Ok(Checked::Fail),
                Some(_) => Ok(Checked::FailByWord),
                None => Err("the opening is right: it shows no fail".to_owned()),
            })
        }
        _ => None,
    }
}

/// Whether the tile at the position, computed from nothing but the challenge, leads to the root by the path.
fn pass_holds(challenge: &Challenge, device: &DeviceTrace, position: &Position, path: &str) -> Result<(), String> {
    let work = challenge.work;
    let path = hex::decode(path).map_err(|_| "the path is not in hex".to_owned())?;
    if path.len() != 32 * work.depth() as usize || device.roots.len() != work.rounds as usize {
        return Err("the path or the roots are of another length than the work says".to_owned());
    }
    let keys = keys_of_rounds(challenge, &device.roots);
    let round = position.round as usize;
    let (Some(keys), Some(root)) = (keys.get(round), device.roots.get(round)) else {
        return Err("there is no such round".to_owned());
    };
    let index = position.tile_index(&work);
    let tile = cpu::tile(keys, &work, index).map_err(|error| error.to_string())?;
    let leaf = merkle::leaf(&keys.leaf, &tile.to_bytes());
    if merkle::walk(&keys.node, leaf, index, &path) == *root {
        Ok(())
    } else {
        Err(format!("round {round}, tile {index}: the tile, computed again, does not lead to the root"))
    }
}
