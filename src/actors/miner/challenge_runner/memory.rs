//! Proofs of memory: filled when the slot's owner asks, scanned under the nonce that it sends then, opened, given back.
//!
//! Invariants: one memory is held at a time, and while it is, nothing else is proved (its ticket of the budget says so);
//! nothing is allocated before the budget admits it and the device was found to be offered and free. The memory is given
//! back when its last opening is made, when the time of its stage is over, when its slot passes before it is scanned, when
//! a rental takes one of its devices, or when its own validator goes on without it: to work before it was scanned, or, after a
//! restart that made it forget the proof, to a later epoch before anything of it was opened. Once its roots were sent a rental waits
//! [`LAST_OPENINGS`] for them to be opened: what is committed to and not opened is a Fail. What was opened is kept until its time is
//! over: the same positions are answered again, others never.
//!
//! Whatever computes sits in the memory itself or in a future that ends with it ([`Held::ended`]). A restart of this actor
//! or of the node drops it: memory is not made again, unlike a commitment, and its validator is told that it is gone.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{ChallengeRunner, ChallengeRunnerSetup, MAX_POSITIONS, failure, refused, unaffordable};
use crate::actors::miner::turn::{Asked, may_challenge};
use crate::ids::{ChallengeId, DeviceId, Epoch, Hotkey};
use crate::messages::miner::challenge_runner::{FillMemory, OpenError, OpenMemory, ScanMemory};
use crate::proof::budget::{Demand, Ticket};
use crate::proof::memory::keys::ScanNonce;
use crate::proof::memory::{Challenge, Position, Size};
use crate::proof::prover::{Filled, ProverError};
use crate::runtime::Ctx;
use crate::telemetry::error_chain;
use crate::wire::synapse::{ChallengeRefusal, ChallengeReply, DeviceRoots, MemoryFillRequest};

/// Between two looks whether held memory is to be given back.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// How long memory whose roots were sent is kept for its openings beside a rental: the validator draws them at once, and a
/// container takes as long to start.
const LAST_OPENINGS: Duration = Duration::from_secs(5);

/// How long after its roots were sent a validator takes at most to ask for its first opening. It asks at once; one that
/// begins with a later epoch instead was restarted meanwhile, and does not know of this proof any more.
const FIRST_OPENING: Duration = Duration::from_secs(1);

/// How far a proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The provers fill.
    Filling,
    /// All is filled, and the validator was told.
    Ready,
    /// The provers scan.
    Scanning,
    /// The roots were sent.
    Scanned,
}

/// What a request to open is answered.
type Answer = Result<Vec<u8>, OpenError>;

/// One device's memory.
struct Device {
    device: DeviceId,
    size: Size,
    /// Out of its place while its prover is at work, and once it was opened.
    memory: Option<Box<dyn Filled>>,
    /// What was opened, and where; or what the prover failed with, which is answered again.
    opened: Option<(Vec<Position>, Answer)>,
}

/// The memory of one challenge.
pub(super) struct Held {
    caller: Hotkey,
    challenge: ChallengeId,
    epoch: Epoch,
    stage: Stage,
    /// When the time of the stage is over.
    until: Instant,
    /// When its roots were sent, until somebody asks to open them.
    unopened_since: Option<Instant>,
    devices: Vec<Device>,
    /// Bytes of this process's children.
    bytes: u64,
    /// `None` once the memory was given back.
    ticket: Option<Ticket>,
    /// Dropped with this; whatever computes for it ends then.
    alive: watch::Sender<()>,
}

impl Held {
    fn is(&self, caller: Hotkey, challenge: ChallengeId) -> bool {
        (self.caller, self.challenge) == (caller, challenge)
    }

    /// Memory is still allocated.
    fn holds(&self) -> bool {
        self.ticket.is_some()
    }

    /// Its validator begins with this epoch and never asked to open what was scanned: it was restarted.
    fn is_forgotten(&self, caller: Hotkey, epoch: Epoch) -> bool {
        let unopened = self.unopened_since.is_some_and(|since| since.elapsed() >= FIRST_OPENING);
        self.caller == caller && self.epoch < epoch && unopened
    }

    /// Resolves when this is dropped.
    fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut alive = self.alive.subscribe();
        async move { while alive.changed().await.is_ok() {} }
    }

    fn device(&mut self, device: DeviceId) -> Option<&mut Device> {
        self.devices.iter_mut().find(|d| d.device == device)
    }

    /// Takes the memory of all devices out, to be worked with.
    fn take(&mut self) -> Vec<(DeviceId, Box<dyn Filled>)> {
        self.devices.iter_mut().filter_map(|d| Some((d.device, d.memory.take()?))).collect()
    }
}

fn gone(why: &str) -> ChallengeReply {
    refused(ChallengeRefusal::Gone, why)
}

/// The challenge of each device, or why the request is not valid.
fn challenges(hotkey: Hotkey, request: &MemoryFillRequest) -> Result<Vec<Challenge>, String> {
    let mut seen = std::collections::HashSet::new();
    if request.devices.is_empty() {
        return Err("no device asked".into());
    }
    let challenge = |d: &crate::wire::synapse::DeviceMemory| {
        if !seen.insert(d.device) {
            return Err(format!("{} asked twice", d.device));
        }
        let size = Size::new(d.blocks, d.iterations, d.scans).map_err(|e| format!("{}: {e}", d.device))?;
        Ok(Challenge { nonce: request.nonce.0, epoch: request.epoch, hotkey, device: d.device, size })
    };
    request.devices.iter().map(challenge).collect()
}

/// What each of the jobs needs.
fn needed(setup: &ChallengeRunnerSetup, jobs: &[Challenge]) -> impl Iterator<Item = (DeviceId, Demand)> {
    jobs.iter().map(|job| (job.device, setup.prover.needs_for_memory(job.device, &job.size)))
}

type Memories = Vec<(DeviceId, Box<dyn Filled>)>;
type Failed = (DeviceId, ProverError);
/// What was asked to be opened, and what came of it.
type Opened = (Vec<Position>, Result<Vec<u8>, ProverError>);

/// Fills the memory of every device at once.
async fn fill(setup: &ChallengeRunnerSetup, jobs: &[Challenge]) -> Result<Memories, Failed> {
    let begun = Instant::now();
    let filled = join_all(jobs.iter().map(async |job| {
        let filled = setup.prover.fill(job).await;
        let outcome = filled.as_ref().err().map_or("ok", |e| e.cause().label());
        setup.metrics.prover_run(outcome, begun.elapsed());
        filled.map(|memory| (job.device, memory)).map_err(|error| (job.device, error))
    }));
    filled.await.into_iter().collect()
}

/// Scans the memory of every device at once.
async fn scan(memories: Memories, nonce: &ScanNonce) -> Result<(Memories, Vec<DeviceRoots>), Failed> {
    let scanned = join_all(memories.into_iter().map(async |(device, mut memory)| match memory.scan(nonce).await {
        Ok(roots) => Ok(((device, memory), DeviceRoots { device, roots })),
        Err(error) => Err((device, error)),
    }));
    scanned.await.into_iter().collect()
}

fn failed((device, error): &Failed) -> ChallengeReply {
    tracing::warn!(%device, error = error_chain(error), "the prover failed at a proof of memory");
    ChallengeReply::ProverFailed { device: *device, kind: failure(error), detail: error.to_string() }
}

impl ChallengeRunner {
    /// Bytes that a proof of memory takes now.
    pub(super) fn memory_held(&self) -> u64 {
        self.memory.as_ref().filter(|held| held.holds()).map_or(0, |held| held.bytes)
    }

    /// Gives the memory back, and ends what computes for it.
    fn give_back(&mut self, why: &str) {
        let Some(held) = self.memory.take() else { return };
        if let Some(ticket) = held.ticket {
            tracing::info!(challenge = %held.challenge, why, "the memory of a proof is given back");
            self.budget.finish(ticket, self.setup.clock.now_ms());
        }
    }

    /// The memory of this challenge, if it is the one that is held and has come so far.
    fn held(&mut self, caller: Hotkey, challenge: ChallengeId, stage: Stage) -> Option<&mut Held> {
        self.memory.as_mut().filter(|held| held.is(caller, challenge) && held.stage == stage)
    }

    /// A validator that begins with work has given up what it had filled and not scanned, or has forgotten it.
    pub(super) fn goes_on(&mut self, caller: Hotkey, epoch: Epoch) {
        let waits = |held: &Held| held.caller == caller && matches!(held.stage, Stage::Filling | Stage::Ready);
        if self.memory.as_ref().is_some_and(waits) {
            self.give_back("its validator went on to work");
        }
        self.give_back_forgotten(caller, epoch);
    }

    fn give_back_forgotten(&mut self, caller: Hotkey, epoch: Epoch) {
        if self.memory.as_ref().is_some_and(|held| held.is_forgotten(caller, epoch)) {
            self.give_back("its validator asked for no opening and went on to a later epoch");
        }
    }

    /// Gives back what is not to be held any longer.
    pub(super) fn look_after_memory(&mut self) {
        let now_ms = self.setup.clock.now_ms();
        let Some(held) = &mut self.memory else { return };
        if held.until <= Instant::now() || held.ticket.as_ref().is_some_and(|ticket| ticket.until_ms() <= now_ms) {
            return self.give_back("its time is over");
        }
        if matches!(held.stage, Stage::Filling | Stage::Ready) {
            let view = self.setup.view.borrow().clone();
            if may_challenge(view.as_deref(), &held.caller, held.epoch, Asked::Memory).is_err() {
                self.give_back("its slot is over, and it was not scanned");
            }
        }
    }

    /// A rental goes before a proof of memory, but for the openings that are owed.
    pub(super) fn vacate_memory(&mut self, rented: &[DeviceId]) {
        let Some(held) = self.memory.as_mut().filter(|held| held.holds()) else { return };
        let Some(device) = held.devices.iter().map(|d| d.device).find(|device| rented.contains(device)) else { return };
        if held.stage == Stage::Scanned {
            held.until = held.until.min(Instant::now() + LAST_OPENINGS);
            return;
        }
        self.ousted = Some((held.caller, held.challenge, device));
        self.give_back("a rental needs the device");
    }

    /// The answer to whoever asks for memory that is not held any more: rented, if that is why.
    fn lost(&self, caller: Hotkey, challenge: ChallengeId, why: &str) -> ChallengeReply {
        match self.ousted {
            Some((of, id, device)) if (of, id) == (caller, challenge) => super::taken(device),
            _ => gone(why),
        }
    }

    /// Books the memory of a challenge, or says why not.
    fn begin(&mut self, caller: Hotkey, request: &MemoryFillRequest) -> Result<Vec<Challenge>, ChallengeReply> {
        let again = "the memory of this validator's challenge of the epoch was filled";
        let again = || refused(ChallengeRefusal::AlreadyChallenged, again);
        if let Some(held) = self.memory.as_ref().filter(|held| held.is(caller, request.challenge)) {
            return Err(match (held.stage, &held.ticket) {
                (Stage::Ready, _) => ChallengeReply::Ready,
                (Stage::Filling, Some(ticket)) => ChallengeReply::Busy { until_ms: ticket.until_ms() },
                _ => again(),
            });
        }
        may_challenge(self.setup.view.borrow().as_deref(), &caller, request.epoch, Asked::Memory)?;
        self.filled.retain(|_, filled| *filled >= request.epoch);
        if self.filled.get(&caller) == Some(&request.epoch) {
            return Err(again());
        }
        let jobs = challenges(self.setup.hotkey, request).map_err(|why| refused(ChallengeRefusal::Invalid, why))?;
        self.give_back_forgotten(caller, request.epoch);
        let demands: Vec<Demand> = needed(&self.setup, &jobs).map(|(_, demand)| demand).collect();
        let bytes = super::host_bytes(&demands);
        let ticket =
            self.budget.admit(self.setup.clock.now_ms(), caller, &demands).map_err(|refusal| unaffordable(&refusal))?;
        if let Err(busy) = self.make_room(caller, bytes) {
            self.budget.withdraw(ticket);
            return Err(busy);
        }
        let device = |job: &Challenge| Device { device: job.device, size: job.size, memory: None, opened: None };
        self.memory = Some(Held {
            caller,
            challenge: request.challenge,
            epoch: request.epoch,
            stage: Stage::Filling,
            until: Instant::now() + self.setup.fill_timeout,
            unopened_since: None,
            devices: jobs.iter().map(device).collect(),
            bytes,
            ticket: Some(ticket),
            alive: watch::Sender::new(()),
        });
        Ok(jobs)
    }

    /// The memory was filled, or was not.
    fn filled(
        &mut self,
        caller: Hotkey,
        challenge: ChallengeId,
        filled: Result<Result<Memories, Failed>, ChallengeReply>,
    ) -> ChallengeReply {
        let ready = self.setup.keep_ready;
        let Some(held) = self.held(caller, challenge, Stage::Filling) else {
            return self.lost(caller, challenge, "the memory was given back before it was filled");
        };
        let reply = match filled {
            Ok(Ok(memories)) => {
                for (device, memory) in memories {
                    if let Some(of) = held.device(device) {
                        of.memory = Some(memory);
                    }
                }
                let epoch = held.epoch;
                held.stage = Stage::Ready;
                held.until = Instant::now() + ready;
                self.filled.insert(caller, epoch);
                return ChallengeReply::Ready;
            }
            Ok(Err(error)) => failed(&error),
            Err(refusal) => refusal,
        };
        self.give_back("it was not filled");
        reply
    }

    /// The memory was scanned, or was not.
    fn scanned(
        &mut self,
        caller: Hotkey,
        challenge: ChallengeId,
        scanned: Option<Result<(Memories, Vec<DeviceRoots>), Failed>>,
    ) -> ChallengeReply {
        let keep = self.setup.keep_memory;
        const UNSCANNED: &str = "the memory was given back before it was scanned";
        let Some(held) = self.held(caller, challenge, Stage::Scanning) else {
            return self.lost(caller, challenge, UNSCANNED);
        };
        match scanned {
            Some(Ok((memories, roots))) => {
                for (device, memory) in memories {
                    if let Some(of) = held.device(device) {
                        of.memory = Some(memory);
                    }
                }
                let now = Instant::now();
                (held.stage, held.until, held.unopened_since) = (Stage::Scanned, now + keep, Some(now));
                ChallengeReply::Roots { devices: roots }
            }
            Some(Err(error)) => {
                self.give_back("it was not scanned");
                failed(&error)
            }
            None => self.lost(caller, challenge, UNSCANNED),
        }
    }

    /// A device's blocks were opened, or were not. Its memory is given back; with that of the last device the window ends.
    fn opened(
        &mut self,
        caller: Hotkey,
        challenge: ChallengeId,
        device: DeviceId,
        opened: Option<Opened>,
    ) -> Result<Vec<u8>, OpenError> {
        let held = self.held(caller, challenge, Stage::Scanned).ok_or(OpenError::Unknown)?;
        let (positions, opened) = opened.ok_or(OpenError::Unknown)?;
        let answer = opened.map_err(|error| OpenError::Prover(error.to_string()));
        held.device(device).ok_or(OpenError::Unknown)?.opened = Some((positions, answer.clone()));
        if held.devices.iter().all(|d| d.opened.is_some())
            && let Some(ticket) = held.ticket.take()
        {
            self.budget.finish(ticket, self.setup.clock.now_ms());
        }
        answer
    }
}

/// The positions that a request names, if they are all in the memory.
fn positions(size: &Size, asked: &[[u32; 2]]) -> Result<Vec<Position>, OpenError> {
    if asked.is_empty() || asked.len() > MAX_POSITIONS {
        return Err(OpenError::Positions(format!("{} positions, from 1 to {MAX_POSITIONS} are served", asked.len())));
    }
    let position = |&[scan, block]: &[u32; 2]| {
        let position = Position { scan, block };
        let outside = || OpenError::Positions(format!("({scan}, {block}) is outside the challenge"));
        if position.is_within(size) { Ok(position) } else { Err(outside()) }
    };
    asked.iter().map(position).collect()
}

impl Handler<FillMemory> for ChallengeRunner {
    type Result = ResponseActFuture<Self, ChallengeReply>;
    fn handle(&mut self, FillMemory { caller, request }: FillMemory, _: &mut Ctx<Self>) -> Self::Result {
        self.setup = self.live.get();
        self.budget.set_limits(self.setup.limits);
        self.look_after_memory();
        let jobs = match self.begin(caller, &request) {
            Ok(jobs) => jobs,
            Err(reply) => {
                self.refusals += u64::from(reply != ChallengeReply::Ready);
                return Box::pin(async move { reply }.into_actor(self));
            }
        };
        let ended = self.memory.as_ref().map(Held::ended);
        let setup: Arc<ChallengeRunnerSetup> = self.setup.clone();
        let work = async move {
            let fill = async {
                super::check(&setup, needed(&setup, &jobs)).await?;
                Ok(fill(&setup, &jobs).await)
            };
            tokio::select! {
                filled = fill => filled,
                () = async { match ended { Some(ended) => ended.await, None => std::future::pending().await } } => {
                    Err(gone("the memory was given back before it was filled"))
                }
            }
        };
        let challenge = request.challenge;
        Box::pin(work.into_actor(self).map(move |filled, act, _| act.filled(caller, challenge, filled)))
    }
}

impl Handler<ScanMemory> for ChallengeRunner {
    type Result = ResponseActFuture<Self, ChallengeReply>;
    fn handle(&mut self, ScanMemory { caller, request }: ScanMemory, _: &mut Ctx<Self>) -> Self::Result {
        let (challenge, nonce) = (request.challenge, ScanNonce(request.nonce.0));
        let until = Instant::now() + self.setup.fill_timeout;
        let Some(held) = self.held(caller, challenge, Stage::Ready) else {
            let reply = match self.memory.as_ref().filter(|held| held.is(caller, challenge)) {
                Some(_) => {
                    refused(ChallengeRefusal::AlreadyChallenged, "the memory is not ready, or its scans are done")
                }
                None => {
                    let why = "no memory is held for this challenge: it was given back, or the miner was restarted";
                    self.lost(caller, challenge, why)
                }
            };
            return Box::pin(async move { reply }.into_actor(self));
        };
        (held.stage, held.until) = (Stage::Scanning, until);
        let (memories, ended) = (held.take(), held.ended());
        let work = async move {
            tokio::select! {
                scanned = scan(memories, &nonce) => Some(scanned),
                () = ended => None,
            }
        };
        Box::pin(work.into_actor(self).map(move |scanned, act, _| act.scanned(caller, challenge, scanned)))
    }
}

impl Handler<OpenMemory> for ChallengeRunner {
    type Result = ResponseActFuture<Self, Result<Vec<u8>, OpenError>>;
    fn handle(&mut self, OpenMemory { caller, request }: OpenMemory, _: &mut Ctx<Self>) -> Self::Result {
        let (challenge, device) = (request.challenge, request.device);
        let taken = self.held(caller, challenge, Stage::Scanned).ok_or(OpenError::Unknown).and_then(|held| {
            held.unopened_since = None;
            let ended = held.ended();
            let of = held.device(device).ok_or(OpenError::Unknown)?;
            let positions = positions(&of.size, &request.positions)?;
            match &of.opened {
                Some((asked, answer)) if *asked == positions => return Ok(Err(answer.clone())),
                Some(_) => return Err(OpenError::Positions("other blocks of this memory were opened".into())),
                None => {}
            }
            let memory = of.memory.take().ok_or(OpenError::Busy)?;
            Ok(Ok((memory, positions, ended)))
        });
        let (mut memory, positions, ended) = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(answer)) => return Box::pin(async move { answer }.into_actor(self)),
            Err(error) => return Box::pin(async move { Err(error) }.into_actor(self)),
        };
        let work = async move {
            tokio::select! {
                opened = memory.open(&positions) => Some((positions, opened)),
                () = ended => None,
            }
        };
        Box::pin(work.into_actor(self).map(move |opened, act, _| act.opened(caller, challenge, device, opened)))
    }
}
