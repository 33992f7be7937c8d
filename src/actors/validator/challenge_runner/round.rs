//! One challenge round as a plain async function: send, collect roots, open, verify, judge.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::ChallengeRunnerSetup;
use super::plan::{PlannedDevice, PlannedMiner, Task};
use super::trace::{Opened, Tracer, nanos};
use super::window::Window;
use crate::actors::validator::under_proof::Opening;
use crate::actors::validator::verifiers::Verifiers;
use crate::evidence::record::Trace;
use crate::ids::{BlockNumber, ChallengeId, DeviceId, Epoch, Hash32, Hotkey};
use crate::proof::verifier::{check_openings, check_roots};
use crate::proof::{Challenge, Root, Work, sample_positions};
use crate::scoring::{DeviceFinding, MinerFinding};
use crate::telemetry::printable;
use crate::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};
use crate::wire::dendrite::{CallError, Dendrite, FanOut, Peer, Reply, Unanswered, fan_out};
use crate::wire::synapse::{
    ChallengeRefusal, ChallengeReply, ChallengeRequest, DeviceWork, OpeningsRequest, RawBytes, Synapse,
};

/// Room for JSON around the openings or roots, in bytes.
pub(crate) const REPLY_SLACK: usize = 64 * 1024;
/// Longest words kept of a peer, in bytes.
const MAX_DETAIL: usize = 300;
/// Time between two requests for the same openings.
const OPENING_RETRY: Duration = Duration::from_millis(500);
/// First and longest wait before a miner that is busy is asked again; a short block makes them shorter.
const BUSY_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How a challenge is run.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Miners challenged at the same time.
    pub batch: usize,
    /// Positions opened for each device.
    pub samples: usize,
    /// How long the roots may take.
    pub commit_timeout: Duration,
    /// How long the openings may take after the roots were read.
    pub opening_deadline: Duration,
    /// Verifications at once, on blocking threads.
    pub verifiers: Verifiers,
}

/// What one round found, before the past is taken into account.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The plan it answers.
    pub plan: PlannedMiner,
    /// A verdict for each planned device, in the plan's order; `None` for a leased one, which was left alone.
    pub verdicts: Vec<Option<Verdict>>,
    /// What was exchanged with it; `None` if it was not asked.
    pub trace: Option<Trace>,
}

impl From<Finding> for MinerFinding {
    fn from(Finding { plan, verdicts, trace: _ }: Finding) -> Self {
        let PlannedMiner { uid, hotkey, coldkey, refused, whole, devices, .. } = plan;
        let device = |(d, verdict): (PlannedDevice, Option<Verdict>)| DeviceFinding {
            device: d.device,
            model: d.model,
            leased: d.task == Task::Leased,
            verdict,
        };
        let devices = devices.into_iter().zip(verdicts).map(device).collect();
        MinerFinding { uid, hotkey, coldkey, refused, whole, devices }
    }
}

/// Challenges every planned miner, at most a batch at the same time, and judges every device. In the order of the plans.
///
/// Each miner has a task of its own: the clock of one is not read late because another's reply is being parsed, and a
/// panic over one's bytes is an `Unknown` of that one, not the end of the round for all. What ends a challenge is its window
/// and its own deadlines, so the round as a whole has none.
pub async fn judge_all(
    setup: &Arc<ChallengeRunnerSetup>,
    epoch: Epoch,
    slot: Range<BlockNumber>,
    plans: Vec<PlannedMiner>,
) -> Vec<Finding> {
    let challenged = plans.iter().filter(|p| p.is_challenged()).count();
    let window = Arc::new(Window::new(epoch, setup.hotkey, slot, setup.view.clone(), challenged));
    let verifiers = setup.rules.verifiers.clone();
    let asked = plans.iter().flat_map(|p| &p.devices).filter(|d| matches!(d.task, Task::Challenge(_))).count();
    setup.metrics.challenges_in_flight(asked);
    let judge = |plan| {
        let (setup, verifiers, window) = (setup.clone(), verifiers.clone(), window.clone());
        async move { judge_one(&setup, epoch, &window, plan, &verifiers).await }
    };
    let how = FanOut { at_once: setup.rules.batch, ..FanOut::default() };
    let found = fan_out(plans, judge, Duration::MAX, how).await;
    setup.metrics.challenges_in_flight(0);
    let finding = |(plan, finding): (PlannedMiner, Result<Finding, Unanswered>)| {
        finding.unwrap_or_else(|why| {
            tracing::error!(hotkey = %plan.hotkey, ?why, "judging a miner failed");
            unjudged(plan)
        })
    };
    found.into_iter().map(finding).collect()
}

/// What is left to say when the judging itself failed.
fn unjudged(plan: PlannedMiner) -> Finding {
    let verdict = |task: &Task| match task {
        Task::Leased => None,
        Task::Settled(verdict) => Some(verdict.clone()),
        Task::Challenge(_) => Some(Verdict::unknown(UnknownCause::OwnFault, "the validator failed while it judged")),
    };
    let verdicts = plan.devices.iter().map(|d| verdict(&d.task)).collect();
    Finding { plan, verdicts, trace: None }
}

async fn judge_one(
    setup: &ChallengeRunnerSetup,
    epoch: Epoch,
    window: &Window,
    plan: PlannedMiner,
    verifiers: &Verifiers,
) -> Finding {
    let jobs: Vec<(DeviceId, Work)> = plan
        .devices
        .iter()
        .filter_map(|d| match d.task {
            Task::Challenge(work) => Some((d.device, work)),
            _ => None,
        })
        .collect();
    let tracer = Tracer::default();
    let mut proved: HashMap<DeviceId, Verdict> = match plan.address {
        Some(addr) if !jobs.is_empty() => {
            challenge(setup, epoch, window, Peer { hotkey: plan.hotkey, addr }, &jobs, verifiers, &tracer).await
        }
        _ => HashMap::new(),
    };
    let verdicts = plan
        .devices
        .iter()
        .map(|d| match &d.task {
            Task::Leased => None,
            Task::Settled(verdict) => Some(verdict.clone()),
            Task::Challenge(_) => {
                let missing = || Verdict::unknown(UnknownCause::OwnFault, "the device was not judged");
                Some(proved.remove(&d.device).unwrap_or_else(missing))
            }
        })
        .collect();
    Finding { plan, verdicts, trace: tracer.into_trace() }
}

/// The verdict on a reply that holds not what was asked for.
pub(crate) fn unproved<E>(reply: &ChallengeReply) -> Verdict<E> {
    let cause = reply.unknown_cause().unwrap_or(UnknownCause::MalformedReply);
    let detail = match reply {
        ChallengeReply::Ready | ChallengeReply::Roots { .. } => String::new(),
        ChallengeReply::Busy { until_ms } => format!("until {until_ms} ms since 1970"),
        ChallengeReply::Refused { detail, .. } => printable(detail, MAX_DETAIL),
        ChallengeReply::ProverFailed { device, detail, .. } => format!("{device}: {}", printable(detail, MAX_DETAIL)),
    };
    Verdict::unknown(cause, detail)
}

pub(crate) fn random<const N: usize, E>() -> Result<[u8; N], Verdict<E>> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Verdict::unknown(UnknownCause::OwnFault, format!("no randomness from the system: {e}")))?;
    Ok(bytes)
}

/// What became of asking for the roots once.
enum Asked {
    /// A reply that is judged, with its challenge.
    Answer(ChallengeRequest, Reply<ChallengeReply>),
    /// Nothing can be said, and asking again would not change that.
    Unknown(Verdict),
    /// Not now: the miner is busy or not ready. Nothing was drawn, so it may be asked again, until when it named.
    NotNow(Verdict, Option<u64>),
}

/// The verdict on a miner that straggles. `whole`: it was asked through the whole of the slot, also if it was busy at
/// first and said so; who comes late to the work by its own doing has missed the slot.
fn straggled(whole: bool, waited: Duration) -> Verdict {
    let cause = if whole { UnknownCause::Timeout } else { UnknownCause::OwnFault };
    Verdict::unknown(cause, format!("no roots within {waited:?}, and the next slot has begun"))
}

/// Asks for the roots once, with a nonce and a challenge id that were never used before. `whole`: whether it was asked
/// for the first time when the slot had only just begun.
async fn ask(
    setup: &ChallengeRunnerSetup,
    epoch: Epoch,
    window: &Window,
    peer: &Peer,
    jobs: &[(DeviceId, Work)],
    tracer: &Tracer,
    whole: bool,
) -> Asked {
    let (nonce, id) = match (random::<32, _>(), random::<16, _>()) {
        (Ok(nonce), Ok(id)) => (nonce, ChallengeId(id)),
        (Err(v), _) | (_, Err(v)) => return Asked::Unknown(v),
    };
    let request = ChallengeRequest {
        challenge: id,
        nonce: Hash32(nonce),
        epoch,
        devices: jobs
            .iter()
            .map(|(device, w)| DeviceWork { device: *device, n: w.n, k: w.k, rounds: w.rounds })
            .collect(),
    };
    let roots_size: usize = jobs.iter().map(|(_, w)| w.rounds as usize * 80 + 256).sum();
    let since = Instant::now();
    tracer.sent(id, request.nonce, setup.clock.now_ms(), jobs);
    let call = setup.dendrite.call(peer, &request, setup.rules.commit_timeout, roots_size + REPLY_SLACK);
    let reply = tokio::select! {
        reply = call => reply,
        () = window.straggler(since) => {
            return Asked::Unknown(straggled(whole, since.elapsed()));
        }
    };
    match reply {
        Ok(Reply { body: ChallengeReply::Busy { until_ms }, .. }) => {
            Asked::NotNow(unproved(&ChallengeReply::Busy { until_ms }), Some(until_ms))
        }
        Ok(Reply { body: ChallengeReply::Refused { reason, detail }, .. })
            if window.is_reckoned() && matches!(reason, ChallengeRefusal::WrongEpoch | ChallengeRefusal::NoSlot) =>
        {
            let why = format!("the slot was begun without a block that says so, and was another one: {detail}");
            Asked::Unknown(Verdict::unknown(UnknownCause::OwnFault, why))
        }
        Ok(reply) => Asked::Answer(request, reply),
        Err(error @ CallError::Status { code: 503, .. }) => {
            Asked::NotNow(Verdict::unknown(error.cause(), error.to_string()), None)
        }
        Err(error) => Asked::Unknown(Verdict::unknown(error.cause(), error.to_string())),
    }
}

/// Asks for the roots until there is an answer, or the slot is over. A miner that was busy or not ready through the whole of
/// the slot has missed it; where the validator came late into its own slot, that is the validator's fault.
async fn ask_in_slot(
    setup: &ChallengeRunnerSetup,
    epoch: Epoch,
    window: &Window,
    peer: &Peer,
    jobs: &[(DeviceId, Work)],
    tracer: &Tracer,
) -> Result<(ChallengeRequest, Reply<ChallengeReply>), Verdict> {
    let whole = window.is_young();
    let block = window.block_time().unwrap_or(Duration::MAX);
    let (first, longest) = (BUSY_RETRY.0.min(block / 8), BUSY_RETRY.1.min(block / 2));
    let mut pause = first;
    let mut last = None;
    while window.is_open() {
        let (verdict, until_ms) = match ask(setup, epoch, window, peer, jobs, tracer, whole).await {
            Asked::Answer(request, reply) => return Ok((request, reply)),
            Asked::Unknown(verdict) => return Err(verdict),
            Asked::NotNow(verdict, until_ms) => (verdict, until_ms),
        };
        last = Some(verdict);
        // What it named is an estimate, and its own: it is honoured up to the longest pause.
        let named =
            until_ms.map_or(Duration::ZERO, |until| Duration::from_millis(until.saturating_sub(setup.clock.now_ms())));
        let wait = pause.max(named.min(longest)).max(Duration::from_millis(1));
        pause = (pause * 2).min(longest);
        tokio::select! {
            () = sleep(wait) => {}
            () = window.closed() => {}
        }
    }
    Err(match last {
        Some(verdict) if whole => verdict,
        Some(verdict) => Verdict::unknown(
            UnknownCause::OwnFault,
            format!("the validator came late into its own slot: {}", verdict.reason()),
        ),
        None => Verdict::unknown(UnknownCause::OwnFault, "the validator missed its own slot"),
    })
}

/// Whether there is exactly one answer for each device asked.
///
/// # Errors
/// The verdict on all of them if not.
pub(crate) fn answers_fit(jobs: &[(DeviceId, Work)], answers: &[DeviceId]) -> Result<(), Verdict> {
    if answers.len() == jobs.len() && jobs.iter().all(|(device, _)| answers.contains(device)) {
        return Ok(());
    }
    let detail = format!("{} answers for {} devices, or not for the devices asked", answers.len(), jobs.len());
    Err(Verdict::fail(FailReason::WrongDevices, detail))
}

/// One challenge of one miner: the same nonce for all its devices, one seed each.
async fn challenge(
    setup: &ChallengeRunnerSetup,
    epoch: Epoch,
    window: &Window,
    peer: Peer,
    jobs: &[(DeviceId, Work)],
    verifiers: &Verifiers,
    tracer: &Tracer,
) -> HashMap<DeviceId, Verdict> {
    let all = |verdict: Verdict| jobs.iter().map(|(d, _)| (*d, verdict.clone())).collect();
    let asking = setup.under_proof.asking(peer.hotkey);
    let asked = ask_in_slot(setup, epoch, window, &peer, jobs, tracer).await;
    window.answered_after(asked.as_ref().ok().map(|(_, reply)| reply.elapsed()));
    let (request, reply) = match asked {
        Ok(asked) => asked,
        Err(verdict) => return all(verdict),
    };
    let (nonce, id) = (request.nonce.0, request.challenge);
    // Both times are ours: before the first byte went out, after the last byte of the roots was read.
    let elapsed = reply.elapsed();
    setup.metrics.challenge_stage("commit", elapsed);
    let roots = match reply.body {
        ChallengeReply::Roots { devices } => devices,
        other => return all(unproved(&other)),
    };
    let mut by_device: HashMap<DeviceId, Vec<Root>> = HashMap::new();
    let answered = answers_fit(jobs, &roots.iter().map(|entry| entry.device).collect::<Vec<_>>());
    for entry in roots {
        by_device.insert(entry.device, entry.roots);
    }
    tracer.roots(reply.proof, elapsed, &by_device);
    if let Err(verdict) = answered {
        return all(verdict);
    }
    // All at once, and all until the same moment: commitments are not kept for long, and a device that withholds its
    // openings must not use up the time of the others.
    let until = Instant::now() + setup.rules.opening_deadline;
    let opening = Arc::new(asking.roots());
    let verdicts = jobs.iter().map(|(device, work)| {
        let challenge = Challenge { nonce, epoch, hotkey: peer.hotkey, device: *device, work: *work };
        let roots = by_device.remove(device).unwrap_or_default();
        let (opening, device) = (opening.clone(), *device);
        let committed = Committed { peer, id, challenge, roots, elapsed, until, opening };
        async move { (device, open_and_verify(setup, committed, verifiers, tracer).await) }
    });
    let verdicts: Vec<_> = verdicts.collect();
    // Over with the last device's openings.
    drop(opening);
    join_all(verdicts).await.into_iter().collect()
}

/// A device whose roots were read.
struct Committed {
    peer: Peer,
    id: ChallengeId,
    challenge: Challenge,
    roots: Vec<Root>,
    /// From the challenge's first byte to the roots' last.
    elapsed: Duration,
    /// Until when openings are asked for.
    until: Instant,
    /// Keeps rentals of ours away meanwhile.
    opening: Arc<Opening>,
}

async fn open_and_verify(
    setup: &ChallengeRunnerSetup,
    committed: Committed,
    verifiers: &Verifiers,
    tracer: &Tracer,
) -> Verdict {
    let Committed { peer, id, challenge, roots, elapsed, until, opening } = committed;
    if let Err(rejection) = check_roots(&challenge, &roots) {
        return Verdict::fail(rejection.reason, rejection.detail);
    }
    // Only now, after the roots were received, are the positions drawn.
    let seed = match random::<32, _>() {
        Ok(seed) => Hash32(seed),
        Err(verdict) => return verdict,
    };
    let positions = sample_positions(&challenge.work, setup.rules.samples, &seed.0);
    let device = challenge.device;
    tracer.drawn(device, seed, positions.len());
    let begun = Instant::now();
    let request = OpeningsRequest {
        challenge: id,
        device,
        positions: positions.iter().map(|p| [p.round, p.row, p.col]).collect(),
    };
    let expected = challenge.work.opening_len() * positions.len();
    let openings = match openings(&setup.dendrite, &peer, &request, expected, until).await {
        Ok(openings) => openings,
        Err(verdict) => return opening.judge(device, verdict).await,
    };
    drop(opening);
    setup.metrics.challenge_stage("open", begun.elapsed());
    let samples = positions.len() as u32;
    let operations = challenge.work.operations();
    let metrics = setup.metrics.clone();
    let check = move || {
        let begun = Instant::now();
        let checked = check_openings(&challenge, &roots, &positions, &openings);
        metrics.verify_cpu(begun.elapsed());
        let opened = Opened::of(&challenge.work, &seed, &openings, &checked);
        (checked, opened)
    };
    let checked = verifiers.run(check).await.map(|(checked, opened)| {
        tracer.opened(device, opened);
        checked
    });
    match checked {
        Ok(Ok(_)) => Verdict::Pass { evidence: PassEvidence { operations, elapsed_ns: nanos(elapsed), samples } },
        Ok(Err(rejection)) => Verdict::fail(rejection.reason, rejection.detail),
        Err(error) => Verdict::unknown(UnknownCause::OwnFault, format!("the verifier ended: {error}")),
    }
}

/// The openings, asked for again with the same request until the deadline: past the receipt of the roots there is no second
/// draw, and no answer is a fail. Unless it was we who could not ask. `expected`: how many bytes they are.
pub(crate) async fn openings<S: Synapse<Reply = RawBytes>, E>(
    dendrite: &Dendrite,
    peer: &Peer,
    request: &S,
    expected: usize,
    until: Instant,
) -> Result<Vec<u8>, Verdict<E>> {
    let mut attempts = Attempts::default();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(attempts.verdict());
        }
        let call = dendrite.call(peer, request, left, expected.saturating_add(REPLY_SLACK));
        match timeout(left, call).await {
            Ok(Ok(reply)) => return Ok(reply.body.0),
            Ok(Err(error)) => attempts.failed(error.cause(), error.to_string()),
            Err(_) => attempts.failed(UnknownCause::Timeout, "no answer before the opening deadline".into()),
        }
        sleep(OPENING_RETRY.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// What asking for openings in vain has come to.
#[derive(Default)]
pub(crate) struct Attempts {
    /// A request was sent, or could have been.
    asked: bool,
    /// Something came back.
    answered: bool,
    last: Option<String>,
}

impl Attempts {
    pub(crate) fn failed(&mut self, cause: UnknownCause, what: String) {
        self.asked |= cause != UnknownCause::OwnFault;
        self.answered |= !matches!(cause, UnknownCause::OwnFault | UnknownCause::Unreachable | UnknownCause::Timeout);
        self.last = Some(what);
    }

    /// The verdict at the deadline. Silence has a reason of its own: where nearly all are silent, it may be our network.
    pub(crate) fn verdict<E>(self) -> Verdict<E> {
        let last = self.last.unwrap_or_else(|| "never asked".to_owned());
        match (self.asked, self.answered) {
            (false, _) => Verdict::unknown(UnknownCause::OwnFault, last),
            (true, false) => Verdict::fail(FailReason::OpeningUnanswered, last),
            (true, true) => Verdict::fail(FailReason::OpeningWithheld, last),
        }
    }
}

/// A device that its miner called rented, and that a lease of ours holds at the end of the round, is paid like one that was
/// leased before it: the miner gave up its proof for us. That the miner says so alone changes nothing.
pub(super) fn rented_meanwhile(findings: &mut [MinerFinding], leased: &HashMap<Hotkey, Vec<DeviceId>>) {
    for MinerFinding { hotkey, devices, .. } in findings {
        let of = leased.get(hotkey).map(Vec::as_slice).unwrap_or_default();
        let rented = |d: &&mut DeviceFinding| {
            matches!(d.verdict, Some(Verdict::Unknown { cause: UnknownCause::Rented, .. })) && of.contains(&d.device)
        };
        devices.iter_mut().filter(rented).for_each(|d| d.leased = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Coldkey, Uid};

    fn finding(n: u8, device: DeviceId, verdict: Option<Verdict>) -> Finding {
        let task = if verdict.is_some() { Task::Challenge(Work::new(32, 64, 1).unwrap()) } else { Task::Leased };
        let device = super::super::plan::PlannedDevice { device, model: "NVIDIA H200".into(), task };
        let plan = PlannedMiner {
            uid: Uid(n.into()),
            hotkey: Hotkey([n; 32]),
            coldkey: Coldkey([n; 32]),
            address: None,
            refused: None,
            whole: None,
            devices: vec![device],
        };
        Finding { plan, verdicts: vec![verdict], trace: None }
    }

    fn pass() -> Option<Verdict> {
        Some(Verdict::Pass { evidence: PassEvidence { operations: 1, elapsed_ns: 1, samples: 66 } })
    }

    fn gpu() -> DeviceId {
        "GPU-2bd1c2f4-0d2e-4b6a-9a53-7f7e1c0d9b11".parse().unwrap()
    }

    #[test]
    fn who_was_asked_through_the_whole_slot_and_straggles_has_missed_it() {
        assert_eq!(straggled(true, Duration::from_secs(9)).reason(), "timeout");
        assert_eq!(straggled(false, Duration::from_secs(9)).reason(), "own_fault", "it was asked late");
    }

    #[test]
    fn openings_that_nobody_answered_differ_from_those_that_were_refused_and_from_our_own_fault() {
        use UnknownCause::{OwnFault, Refused, Timeout, Unreachable};
        let reason = |causes: &[UnknownCause]| {
            let mut attempts = Attempts::default();
            causes.iter().for_each(|cause| attempts.failed(*cause, "seen".into()));
            attempts.verdict::<PassEvidence>().reason()
        };
        assert_eq!(reason(&[]), "own_fault");
        assert_eq!(reason(&[OwnFault]), "own_fault");
        assert_eq!(reason(&[OwnFault, Unreachable, Timeout]), "opening_unanswered");
        assert_eq!(reason(&[Unreachable, Refused, Timeout]), "opening_withheld");
    }

    #[test]
    fn a_device_given_up_for_a_lease_of_ours_counts_as_leased_and_one_that_is_only_called_rented_does_not() {
        let rented = || Some(Verdict::unknown(UnknownCause::Rented, "it is rented"));
        let leased = HashMap::from([(Hotkey([1; 32]), vec![gpu()])]);
        let counts = |miner, device, verdict| {
            let mut findings = [MinerFinding::from(finding(miner, device, verdict))];
            super::rented_meanwhile(&mut findings, &leased);
            findings[0].devices[0].leased
        };
        assert!(counts(1, gpu(), rented()));
        assert!(!counts(1, DeviceId::cpu(0), rented()) && !counts(2, gpu(), rented()), "no lease of ours");
        assert!(!counts(1, gpu(), pass()), "what was proved is paid as proved");
        let withheld = Verdict::fail(FailReason::OpeningWithheld, "seen");
        assert!(!counts(1, gpu(), Some(withheld)));
    }

    #[test]
    fn a_miner_whose_judging_failed_is_our_fault_and_keeps_its_leases() {
        let leased = unjudged(finding(1, gpu(), None).plan);
        assert_eq!(leased.verdicts, [None]);
        let challenged = unjudged(finding(1, gpu(), pass()).plan);
        assert_eq!(challenged.verdicts[0].as_ref().unwrap().reason(), "own_fault");
    }
}
