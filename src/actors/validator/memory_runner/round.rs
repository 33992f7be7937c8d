//! One round of memory proofs as a plain async function: fill, wait, scan, open, verify.
//!
//! All memory is filled first, and only then scanned, everywhere at once: one card's memory cannot answer for two devices one
//! after the other. Who is not ready in time is not waited for. From the receipt of the roots on the miner is answerable;
//! before it, whatever goes wrong is `Unknown`. Nothing is asked twice but what could not be begun (a miner that is busy) and
//! openings at the same positions.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::plan::{PlannedDevice, PlannedMiner};
use super::trace::Tracer;
use super::turn::Slot;
use crate::actors::validator::challenge_runner::round::{REPLY_SLACK, openings, random, unproved};
use crate::actors::validator::challenge_runner::trace::nanos;
use crate::actors::validator::under_proof::{Opening, UnderProof};
use crate::actors::validator::verifiers::Verifiers;
use crate::clock::SharedClock;
use crate::evidence::record::MemoryTrace;
use crate::ids::{BlockNumber, ChallengeId, DeviceId, Epoch, Hash32};
use crate::messages::chain_watcher::ChainView;
use crate::proof::Root;
use crate::proof::memory::keys::ScanNonce;
use crate::proof::memory::verifier::{check_openings, check_roots};
use crate::proof::memory::{Challenge, Evidence, sample_positions};
use crate::telemetry::NodeMetrics;
use crate::verdict::{FailReason, MemoryVerdict, UnknownCause, Verdict};
use crate::wire::dendrite::{CallError, Dendrite, FanOut, Peer, Reply, Unanswered, fan_out};
use crate::wire::synapse::{ChallengeReply, DeviceMemory, MemoryFillRequest, MemoryOpenRequest, MemoryScanRequest};

/// First and longest wait before a miner that is busy is asked again.
const BUSY_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Miners asked from which on the silence of all of them is our own outage.
const MIN_SUSPECTED: usize = 3;

/// How a round is run.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Miners asked at the same time.
    pub batch: usize,
    /// Positions opened for each device.
    pub samples: usize,
    /// How long filling may take, in the slot.
    pub fill_timeout: Duration,
    /// How long the scans' roots may take.
    pub scan_timeout: Duration,
    /// How long the openings may take after the roots were read.
    pub opening_deadline: Duration,
    /// Verifications at once, on blocking threads.
    pub verifiers: Verifiers,
}

/// What a round works with.
pub struct RoundSetup {
    /// Signs and sends the requests.
    pub dendrite: Dendrite,
    /// What this validator's own proofs and rentals tell each other.
    pub under_proof: UnderProof,
    /// How it is run.
    pub rules: Rules,
    /// The chain as it is seen now.
    pub view: watch::Receiver<Option<Arc<ChainView>>>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// What a round found of one miner.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The plan it answers.
    pub plan: PlannedMiner,
    /// A verdict for each planned device, in the plan's order.
    pub verdicts: Vec<MemoryVerdict>,
    /// What was exchanged with it.
    pub trace: Option<MemoryTrace>,
}

impl Finding {
    fn all(plan: PlannedMiner, verdict: &MemoryVerdict, trace: Option<MemoryTrace>) -> Self {
        Finding { verdicts: vec![verdict.clone(); plan.devices.len()], plan, trace }
    }
}

/// The slot that a round runs in, as it goes by.
struct Window {
    blocks: Range<BlockNumber>,
    view: watch::Receiver<Option<Arc<ChainView>>>,
    /// The validator came late into the slot, or its proofs of work went before.
    late: bool,
}

impl Window {
    fn new(slot: &Slot, view: watch::Receiver<Option<Arc<ChainView>>>) -> Self {
        let mut window = Window { blocks: slot.blocks.clone(), view, late: false };
        let half = (window.blocks.end - window.blocks.start).div_ceil(2);
        window.late = slot.shared || window.head().is_none_or(|head| head >= window.blocks.start + half);
        window
    }

    fn head(&self) -> Option<BlockNumber> {
        self.view.borrow().as_ref().map(|view| view.metagraph.head.number)
    }

    fn is_over(&self) -> bool {
        self.head().is_none_or(|head| head >= self.blocks.end)
    }

    /// Waits for the end of the slot.
    async fn closed(&self) {
        let (mut view, end) = (self.view.clone(), self.blocks.end);
        if view.wait_for(|view| view.as_ref().is_some_and(|v| v.metagraph.head.number >= end)).await.is_err() {
            // Nobody publishes any more: the node is ending, and the deadlines of the calls hold.
            std::future::pending::<()>().await;
        }
    }

    /// A verdict on a miner that did not come so far as to send roots: none of its fault where the slot was over before it
    /// had the whole of it.
    fn blame(&self, verdict: MemoryVerdict) -> MemoryVerdict {
        let excused = self.late && self.is_over();
        match verdict {
            Verdict::Unknown { cause: UnknownCause::Busy | UnknownCause::Refused, detail } if excused => {
                Verdict::unknown(UnknownCause::OwnFault, format!("the slot was over before the scans: {detail}"))
            }
            other => other,
        }
    }
}

/// Memory that is filled.
#[derive(Clone)]
struct Filled {
    plan: PlannedMiner,
    id: ChallengeId,
    nonce: Hash32,
    tracer: Arc<Tracer>,
}

/// Asks every planned miner and judges every device. In the order of the plans.
pub async fn judge_all(setup: &Arc<RoundSetup>, epoch: Epoch, slot: &Slot, plans: Vec<PlannedMiner>) -> Vec<Finding> {
    let window = Arc::new(Window::new(slot, setup.view.clone()));
    let how = FanOut { at_once: setup.rules.batch, ..FanOut::default() };
    let until = Instant::now() + setup.rules.fill_timeout;
    let fill_one = |plan: PlannedMiner| {
        let (setup, window) = (setup.clone(), window.clone());
        async move { fill(&setup, epoch, &window, plan, until).await }
    };
    // Each fill has its own deadline; every miner is asked in the same moments, however many there are.
    let begun = fan_out(plans, fill_one, Duration::MAX, FanOut { at_once: usize::MAX, ..how }).await;
    let mut ready = Vec::new();
    let mut findings: Vec<Option<Finding>> = Vec::with_capacity(begun.len());
    for (plan, filled) in begun {
        match filled {
            Ok(Ok(filled)) => {
                ready.push((findings.len(), filled));
                findings.push(None);
            }
            Ok(Err(finding)) => findings.push(Some(*finding)),
            Err(why) => findings.push(Some(Finding::all(plan, &failed(why), None))),
        }
    }
    let verifiers = setup.rules.verifiers.clone();
    let scan_one = |(place, filled): (usize, Filled)| {
        let (setup, window, verifiers) = (setup.clone(), window.clone(), verifiers.clone());
        async move { (place, scan(&setup, epoch, &window, filled, &verifiers).await) }
    };
    for ((place, filled), finding) in fan_out(ready, scan_one, Duration::MAX, how).await {
        let finding = finding.map(|(_, finding)| finding).unwrap_or_else(|why| {
            let trace = filled.tracer.trace();
            Finding::all(filled.plan, &failed(why), trace)
        });
        if let Some(slot) = findings.get_mut(place) {
            *slot = Some(finding);
        }
    }
    let mut findings: Vec<Finding> = findings.into_iter().flatten().collect();
    excuse_own_outage(&mut findings);
    if slot.shared {
        excuse_short_time(&mut findings);
    }
    findings
}

/// In a slot that proofs of work have used up but for the rest, nobody knows why a miner did not come to an end: what is unknown
/// there is nobody's miss. A Fail is one in any slot.
fn excuse_short_time(findings: &mut [Finding]) {
    for verdict in findings.iter_mut().flat_map(|f| &mut f.verdicts) {
        if let Verdict::Unknown { cause, detail } = verdict
            && *cause != UnknownCause::OwnFault
        {
            let why = format!("in a slot that is shared with work: {cause}: {detail}");
            *verdict = Verdict::unknown(UnknownCause::OwnFault, why);
        }
    }
}

fn failed(why: Unanswered) -> MemoryVerdict {
    tracing::error!(?why, "judging a miner's memory failed");
    Verdict::unknown(UnknownCause::OwnFault, "the validator failed while it judged")
}

/// Where more than 80 % of several miners are silent, it is our own network, as with work.
fn excuse_own_outage(findings: &mut [Finding]) {
    use UnknownCause::{OwnFault, Timeout, Unreachable};
    let silent = |verdict: &MemoryVerdict| {
        matches!(verdict, Verdict::Unknown { cause: Unreachable | Timeout | OwnFault, .. })
            || matches!(verdict, Verdict::Fail { reason: FailReason::OpeningUnanswered, .. })
    };
    let lost = findings.iter().filter(|f| f.verdicts.iter().all(silent)).count();
    if findings.len() < MIN_SUSPECTED || lost * 5 <= findings.len() * 4 {
        return;
    }
    let why = format!("{lost} of {} miners silent at once: suspected own outage", findings.len());
    for verdict in findings.iter_mut().flat_map(|f| &mut f.verdicts).filter(|verdict| silent(verdict)) {
        *verdict = Verdict::unknown(UnknownCause::OwnFault, why.clone());
    }
}

/// Has one miner fill its memory: the same nonce for all its devices.
async fn fill(
    setup: &RoundSetup,
    epoch: Epoch,
    window: &Window,
    plan: PlannedMiner,
    until: Instant,
) -> Result<Filled, Box<Finding>> {
    let (nonce, id) = match (random::<32, Evidence>(), random::<16, Evidence>()) {
        (Ok(nonce), Ok(id)) => (Hash32(nonce), ChallengeId(id)),
        (Err(verdict), _) | (_, Err(verdict)) => return Err(Box::new(Finding::all(plan, &verdict, None))),
    };
    let memory = |d: &PlannedDevice| {
        let size = d.work.size;
        DeviceMemory { device: d.device, blocks: size.blocks(), iterations: size.iterations(), scans: size.scans() }
    };
    let devices = plan.devices.iter().map(memory).collect();
    let request = MemoryFillRequest { challenge: id, nonce, epoch, devices };
    let peer = Peer { hotkey: plan.hotkey, addr: plan.address };
    let tracer = Tracer::new(id, nonce, setup.clock.now_ms(), &plan.devices);
    let begun = Instant::now();
    match ready(setup, window, &peer, &request, until).await {
        Ok(()) => {
            setup.metrics.memory_stage("fill", begun.elapsed());
            Ok(Filled { plan, id, nonce, tracer: Arc::new(tracer) })
        }
        Err(verdict) => Err(Box::new(Finding::all(plan, &window.blame(verdict), tracer.trace()))),
    }
}

/// Asks until the memory is filled, it is refused, or the time or the slot is over.
async fn ready(
    setup: &RoundSetup,
    window: &Window,
    peer: &Peer,
    request: &MemoryFillRequest,
    until: Instant,
) -> Result<(), MemoryVerdict> {
    let mut pause = BUSY_RETRY.0;
    let mut last = Verdict::unknown(UnknownCause::OwnFault, "the slot was over before the miner was asked");
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || window.is_over() {
            return Err(last);
        }
        let reply = tokio::select! {
            reply = setup.dendrite.call(peer, request, left, REPLY_SLACK) => reply,
            () = window.closed() => {
                let cause = if window.late { UnknownCause::OwnFault } else { UnknownCause::Timeout };
                return Err(Verdict::unknown(cause, "the memory was not filled when the slot was over"));
            }
        };
        last = match reply {
            Ok(Reply { body: ChallengeReply::Ready, .. }) => return Ok(()),
            Ok(Reply { body: busy @ ChallengeReply::Busy { .. }, .. }) => unproved(&busy),
            Ok(Reply { body: ChallengeReply::Roots { .. }, .. }) => {
                return Err(Verdict::unknown(UnknownCause::MalformedReply, "roots for memory that is not scanned"));
            }
            Ok(Reply { body, .. }) => return Err(unproved(&body)),
            Err(error @ CallError::Status { code: 503, .. }) => Verdict::unknown(error.cause(), error.to_string()),
            Err(error) => return Err(Verdict::unknown(error.cause(), error.to_string())),
        };
        // If it ends with the slot, that is said above; a longer wait ends with `until`.
        let _ = timeout(pause.min(left), window.closed()).await;
        pause = (pause * 2).min(BUSY_RETRY.1);
    }
}

/// Has one miner scan what it filled, and judges it.
async fn scan(setup: &RoundSetup, epoch: Epoch, window: &Window, filled: Filled, verifiers: &Verifiers) -> Finding {
    let Filled { plan, id, nonce, tracer } = filled;
    let asking = setup.under_proof.asking(plan.hotkey);
    let judged = roots(setup, window, &plan, id, &tracer).await;
    let (scan_nonce, mut by_device, elapsed) = match judged {
        Ok(read) => read,
        Err(verdict) => return Finding::all(plan, &verdict, tracer.trace()),
    };
    let until = Instant::now() + setup.rules.opening_deadline;
    let peer = Peer { hotkey: plan.hotkey, addr: plan.address };
    let opening = Arc::new(asking.roots());
    let verdicts = plan.devices.iter().map(|planned| {
        let (device, size) = (planned.device, planned.work.size);
        let challenge = Challenge { nonce: nonce.0, epoch, hotkey: plan.hotkey, device, size };
        let roots = by_device.remove(&device).unwrap_or_default();
        let scanned = Scanned { peer, id, challenge, scan_nonce, roots, elapsed, until, opening: opening.clone() };
        let tracer = &tracer;
        async move { open_and_verify(setup, planned, scanned, verifiers, tracer).await }
    });
    let verdicts: Vec<_> = verdicts.collect();
    // Over with the last device's openings.
    drop(opening);
    let verdicts = join_all(verdicts).await;
    Finding { plan, verdicts, trace: tracer.trace() }
}

type Roots = (ScanNonce, HashMap<DeviceId, Vec<Root>>, Duration);

/// The roots of every device, under a nonce that is drawn now, with the time they took.
async fn roots(
    setup: &RoundSetup,
    window: &Window,
    plan: &PlannedMiner,
    id: ChallengeId,
    tracer: &Tracer,
) -> Result<Roots, MemoryVerdict> {
    let nonce = Hash32(random::<32, Evidence>()?);
    let request = MemoryScanRequest { challenge: id, nonce };
    let peer = Peer { hotkey: plan.hotkey, addr: plan.address };
    let size: usize = plan.devices.iter().map(|d| d.work.size.scans() as usize * 80 + 256).sum();
    tracer.scan(nonce);
    let call = setup.dendrite.call(&peer, &request, setup.rules.scan_timeout, size + REPLY_SLACK).await;
    let reply = call.map_err(|error| window.blame(Verdict::unknown(error.cause(), error.to_string())))?;
    // Both times are ours: before the first byte went out, after the last byte of the roots was read.
    let elapsed = reply.elapsed();
    let devices = match reply.body {
        ChallengeReply::Roots { devices } => devices,
        // The same wherever the slot ends: who gave its memory back for a rental has its own reason.
        other => return Err(window.blame(unproved(&other))),
    };
    setup.metrics.memory_stage("scan", elapsed);
    let answered = devices.len();
    let by_device: HashMap<DeviceId, Vec<Root>> = devices.into_iter().map(|d| (d.device, d.roots)).collect();
    tracer.roots(reply.proof, elapsed, &by_device);
    if answered != plan.devices.len() || plan.devices.iter().any(|d| !by_device.contains_key(&d.device)) {
        let asked = plan.devices.len();
        let detail = format!("{answered} answers for {asked} devices, or not for the devices asked");
        return Err(Verdict::fail(FailReason::WrongDevices, detail));
    }
    Ok((ScanNonce(nonce.0), by_device, elapsed))
}

/// A device whose roots were read.
struct Scanned {
    peer: Peer,
    id: ChallengeId,
    challenge: Challenge,
    scan_nonce: ScanNonce,
    roots: Vec<Root>,
    /// From the first byte of the scan's nonce to the roots' last.
    elapsed: Duration,
    /// Until when openings are asked for.
    until: Instant,
    /// Keeps rentals of ours away meanwhile.
    opening: Arc<Opening>,
}

async fn open_and_verify(
    setup: &RoundSetup,
    planned: &PlannedDevice,
    scanned: Scanned,
    verifiers: &Verifiers,
    tracer: &Tracer,
) -> MemoryVerdict {
    let Scanned { peer, id, challenge, scan_nonce, roots, elapsed, until, opening } = scanned;
    if let Err(rejection) = check_roots(&challenge, &roots) {
        return Verdict::fail(rejection.reason, rejection.detail);
    }
    // Only now, after the roots were received, are the positions drawn.
    let seed = match random::<32, Evidence>() {
        Ok(seed) => Hash32(seed),
        Err(verdict) => return verdict,
    };
    let (device, size) = (challenge.device, challenge.size);
    let positions = sample_positions(&size, setup.rules.samples, &seed.0);
    tracer.drawn(device, seed, positions.len());
    let asked = positions.iter().map(|p| [p.scan, p.block]).collect();
    let request = MemoryOpenRequest { challenge: id, device, positions: asked };
    let begun = Instant::now();
    let expected = size.opening_len() * positions.len();
    let openings = match openings(&setup.dendrite, &peer, &request, expected, until).await {
        Ok(openings) => openings,
        Err(verdict) => return opening.judge(device, verdict).await,
    };
    drop(opening);
    setup.metrics.memory_stage("open", begun.elapsed());
    let metrics = setup.metrics.clone();
    let check = move || {
        let begun = Instant::now();
        let checked = check_openings(&challenge, &scan_nonce, &roots, &positions, &openings);
        metrics.verify_cpu(begun.elapsed());
        (checked, openings)
    };
    let (checked, openings) = match verifiers.run(check).await {
        Ok(checked) => checked,
        Err(error) => return Verdict::unknown(UnknownCause::OwnFault, format!("the verifier ended: {error}")),
    };
    tracer.opened(device, &seed, &openings, &checked);
    match checked {
        Ok(checked) => {
            let evidence = Evidence { size, elapsed_ns: nanos(elapsed), samples: checked.samples };
            setup.metrics.memory_bandwidth(&planned.row, evidence.bandwidth());
            above_floor(planned, evidence)
        }
        Err(rejection) => Verdict::fail(rejection.reason, rejection.detail),
    }
}

/// A proof that holds, against the floor of the claimed model.
pub(crate) fn above_floor(planned: &PlannedDevice, evidence: Evidence) -> MemoryVerdict {
    let bandwidth = evidence.bandwidth();
    match planned.work.floor {
        Some(floor) if bandwidth < floor => {
            let (device, bytes, row) = (planned.device, evidence.size.bytes(), &planned.row);
            let detail =
                format!("{device}: {bytes} bytes read at {bandwidth} bytes a second, the floor of {row} is {floor}");
            Verdict::fail(FailReason::BelowFloor, detail)
        }
        _ => Verdict::Pass { evidence },
    }
}

#[cfg(test)]
mod tests;
