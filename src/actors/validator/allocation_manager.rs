//! Rents miners' devices for users, and gives them back.
//!
//! Invariants: only devices that were proved in the last judged epoch are rented; the intent is in the journal before
//! the miner is asked; a lease whose miner did not answer is released until the miner confirms or its time is long
//! over; a release is reported only when the miner confirmed it. Expiry is decided here too, on our own clock.
//!
//! Design notes: a reconciler. Calls carry out one step at once; a periodic round asks the miners how leases are,
//! finishes releases, and ends what is over. The owner's token of a lease is derived from one secret of this node and
//! never stored. On restart the journal tells the leases; a lease that was being made is released to be sure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{Semaphore, watch};

use crate::actors::duty::Duty;
use crate::actors::journal::Journal;
use crate::actors::lease_book::{Entry, LeaseBook, StepError};
use crate::clock::{SharedClock, millis};
use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};
use crate::lease::health::{EngineView, Health, HealthPolicy, LeaseHealth, Observation};
use crate::lease::machine::LeaseTerms;
use crate::lease::{EndReason, Endpoint, Event, Lease, LeaseState, OwnerToken, Role};
use crate::messages::chain_watcher::ChainView;
use crate::messages::journal::{GetLease, LiveLeases};
use crate::messages::validator::allocation_manager::{
    AllocatedDevices, LeasedDevices, ListLeases, Release, Rent, RentError, RentRequest, ShowLease,
};
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::settings::Live;
use crate::store;
use crate::telemetry::events::Recovered;
use crate::telemetry::{NodeMetrics, printable};
use crate::verdict::Verdict;
use crate::wire::dendrite::{Dendrite, Peer};
use crate::wire::synapse::{
    AllocateReply, AllocateRequest, ContainerState, LeaseStatusReply, LeaseStatusRequest, ReleaseReply, ReleaseRequest,
};

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// How long, and how often, a call waits for a lease that is being looked after: 5 s in all.
const BUSY_WAIT: Duration = Duration::from_millis(50);
const BUSY_WAITS: u32 = 100;
/// Largest reply about a lease, in bytes.
const MAX_REPLY: usize = 64 * 1024;
/// Longest words kept of a miner, in bytes.
const MAX_DETAIL: usize = 300;
/// Miners asked about their leases at once.
const AT_ONCE: usize = 32;
/// A lease counts as allocated while fewer than so many checks in a row went without the miner confirming it. The lease
/// itself goes on for longer, see [`HealthPolicy`]; but nobody is paid for a machine that does not answer.
const UNCONFIRMED_CHECKS: u32 = 2;
/// The first fencing epoch of a lease; this node never hands one over.
const FIRST_EPOCH: u64 = 1;

/// What the manager works with.
pub struct AllocationSetup {
    /// Our own key.
    pub hotkey: Hotkey,
    /// Signs and sends the calls.
    pub dendrite: Dendrite,
    /// Where the miners are.
    pub view: watch::Receiver<Option<Arc<ChainView>>>,
    /// The secret that owner tokens are derived from.
    pub secret: Arc<secrecy::SecretBox<[u8; 32]>>,
    /// The longest lease that is rented.
    pub longest: Duration,
    /// How long a miner may take to start or release a container.
    pub allocate_deadline: Duration,
    /// How long a miner may take to answer anything else.
    pub call_deadline: Duration,
    /// Time between two rounds.
    pub period: Duration,
    /// When a lease counts as lost.
    pub health: HealthPolicy,
    /// How long after its end an unreachable miner's lease is given up.
    pub give_up: Duration,
    /// The operator's word on new leases.
    pub duty: watch::Receiver<Duty>,
    /// Keeps the leases.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// A device that was proved in the last judged epoch.
#[derive(Debug, Clone)]
struct Proved {
    device: DeviceId,
    model: String,
}

/// What the checks of a lease came to.
#[derive(Default)]
struct Watched {
    health: Health,
    /// Checks in a row in which the miner was asked and did not confirm the lease.
    unconfirmed: u32,
}

impl Watched {
    /// Whether the miner is paid for the lease.
    fn confirmed(&self) -> bool {
        self.unconfirmed < UNCONFIRMED_CHECKS
    }

    fn observe(&mut self, policy: HealthPolicy, seen: EngineView) -> LeaseHealth {
        match seen {
            EngineView::Running | EngineView::Paused => self.unconfirmed = 0,
            EngineView::Exited | EngineView::Gone | EngineView::Unreachable => {
                self.unconfirmed = self.unconfirmed.saturating_add(1);
            }
            // We could not ask, which is not the miner's doing.
            EngineView::NotSeen => {}
        }
        self.health.observe(policy, Observation::local(seen))
    }
}

/// The actor.
pub struct AllocationManager {
    /// What it works with, as the settings have it now.
    live: Live<Arc<AllocationSetup>>,
    setup: Arc<AllocationSetup>,
    book: LeaseBook,
    proved: HashMap<Hotkey, Vec<Proved>>,
    health: HashMap<LeaseId, Watched>,
    /// Devices that a rental in progress wants, before its intent is on record.
    wanted: HashMap<LeaseId, (Hotkey, Vec<DeviceId>)>,
    loaded: bool,
    /// Leases that the round in progress still looks after.
    looking: usize,
    /// What the first round finds, until it is over.
    recovered: Option<Recovered>,
    last_problem: Option<String>,
}

impl AllocationManager {
    /// A manager that knows no lease yet.
    pub fn new(live: Live<Arc<AllocationSetup>>) -> Self {
        let setup = live.get();
        AllocationManager {
            live,
            setup,
            book: LeaseBook::default(),
            proved: HashMap::new(),
            health: HashMap::new(),
            wanted: HashMap::new(),
            loaded: false,
            looking: 0,
            recovered: Some(Recovered::default()),
            last_problem: None,
        }
    }

    fn load(&mut self, ctx: &mut Ctx<Self>) {
        let journal = self.setup.journal.clone();
        let work = async move {
            let leases = journal.ask(LiveLeases, ASK).await.map_err(|e| e.to_string())?;
            let leases = leases.map_err(|e| crate::telemetry::error_chain(&e))?;
            let entry =
                |r: &store::records::LeaseRecord| Entry::from_record(r).map_err(|e| format!("lease {}: {e}", r.id));
            leases.iter().map(entry).collect::<Result<Vec<_>, _>>()
        };
        ctx.spawn(work.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok(entries) => {
                for entry in entries {
                    act.book.put(entry.lease.id, Some(entry));
                }
                act.book.show(&act.setup.metrics);
                act.loaded = true;
                act.round(ctx);
            }
            Err(problem) => {
                tracing::error!(problem, "leases cannot be loaded, nothing is rented until they can");
                act.last_problem = Some(problem);
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.load(ctx));
            }
        }));
    }

    /// The devices of leases that are not over and count here, by miner.
    fn devices(&self, counts: impl Fn(&Lease) -> bool) -> HashMap<Hotkey, Vec<DeviceId>> {
        let mut leased: HashMap<Hotkey, Vec<DeviceId>> = HashMap::new();
        for lease in self.book.open().filter(|l| counts(l)) {
            leased.entry(lease.miner).or_default().extend(&lease.devices);
        }
        leased
    }

    /// A miner with enough proved and free devices that fit; the one with the fewest proved devices, so that large
    /// machines stay whole for large requests.
    fn choose(&self, request: &RentRequest) -> Result<(Peer, Vec<DeviceId>), RentError> {
        let view = self.setup.view.borrow().clone();
        let view = view.ok_or_else(|| RentError::NoneFree("the subnet is not known yet".into()))?;
        if view.is_stored() {
            return Err(RentError::NoneFree("the chain was not read since the start".into()));
        }
        let mut held = self.devices(|l| l.state.holds_devices());
        for (miner, devices) in self.wanted.values() {
            held.entry(*miner).or_default().extend(devices);
        }
        let mut fitting: Vec<(usize, Hotkey, Vec<DeviceId>)> = self
            .proved
            .iter()
            .filter_map(|(miner, proved)| {
                let free: Vec<DeviceId> = proved
                    .iter()
                    .filter(|p| request.model.as_ref().is_none_or(|m| *m == p.model))
                    .map(|p| p.device)
                    .filter(|d| !held.get(miner).is_some_and(|h| h.contains(d)))
                    .take(request.devices)
                    .collect();
                (free.len() == request.devices).then_some((proved.len(), *miner, free))
            })
            .collect();
        fitting.sort();
        for (_, miner, devices) in fitting {
            if let Some(addr) = view.metagraph.axon_address(&miner) {
                return Ok((Peer { hotkey: miner, addr }, devices));
            }
        }
        let wanted = request.model.as_deref().unwrap_or("any model");
        Err(RentError::NoneFree(format!("{} × {wanted}", request.devices)))
    }

    /// One round: asks about running leases, finishes releases, ends what is over.
    fn round(&mut self, ctx: &mut Ctx<Self>) {
        // Before the first block nobody can be asked, and not asking is no answer.
        if !self.loaded || self.looking > 0 || self.setup.view.borrow().is_none() {
            return;
        }
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let ids: Vec<LeaseId> = self.book.open().map(|l| l.id).collect();
        for id in ids {
            let Some(entry) = self.book.take(id) else { continue };
            self.looking += 1;
            let (setup, at_once) = (self.setup.clone(), at_once.clone());
            let work = async move {
                let _permit = at_once.acquire().await;
                look_after(&setup, entry).await
            };
            // Each lease by itself: a miner that does not answer must not hold up the others' releases.
            ctx.spawn(work.into_actor(self).map(move |looked, act, ctx| {
                act.looking -= 1;
                if let Some(recovered) = &mut act.recovered {
                    *found(&looked, recovered) += 1;
                }
                act.looked(id, looked, ctx);
                act.book.show(&act.setup.metrics);
                act.first_round_over();
            }));
        }
        self.first_round_over();
    }

    fn first_round_over(&mut self) {
        if self.looking == 0
            && let Some(recovered) = self.recovered.take()
        {
            recovered.emit(&self.setup.metrics);
        }
    }

    fn looked(&mut self, id: LeaseId, (entry, seen): Looked, ctx: &mut Ctx<Self>) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(problem) => {
                self.last_problem = Some(problem);
                self.book.put(id, None);
                return;
            }
        };
        let ended = entry.lease.state.is_final();
        self.book.put(id, Some(entry));
        if ended {
            self.health.remove(&id);
            return;
        }
        let Some(seen) = seen else { return };
        let health = self.health.entry(id).or_default();
        if health.observe(self.setup.health, seen) != LeaseHealth::Gone {
            return;
        }
        let Some(entry) = self.book.take(id) else { return };
        let setup = self.setup.clone();
        let note = "the miner has not shown the container for several rounds".to_owned();
        let work = async move { write(&setup, &entry, &[Event::Lost { note, at_ms: setup.clock.now_ms() }]).await };
        ctx.spawn(work.into_actor(self).map(move |done, act, _| {
            match done {
                Ok(entry) => {
                    tracing::warn!(lease = %id, "the lease is lost");
                    act.health.remove(&id);
                    act.book.put(id, Some(entry));
                }
                Err(problem) => {
                    act.last_problem = Some(problem);
                    act.book.put(id, None);
                }
            }
            act.book.show(&act.setup.metrics);
        }));
    }
}

/// What the next step of one lease came to, and what was seen of it.
type Looked = (Result<Entry, String>, Option<EngineView>);

/// Where a recovery counts what was found of one lease.
fn found<'a>((entry, seen): &Looked, recovered: &'a mut Recovered) -> &'a mut u64 {
    match (entry, seen) {
        (Ok(_), Some(EngineView::Running | EngineView::Paused)) => &mut recovered.kept,
        (Ok(entry), None) if entry.lease.state.is_final() => &mut recovered.finished,
        _ => &mut recovered.open,
    }
}

fn peer(setup: &AllocationSetup, miner: Hotkey) -> Result<Peer, String> {
    let view = setup.view.borrow().clone();
    let addr = view.as_ref().and_then(|v| v.metagraph.axon_address(&miner));
    addr.map(|addr| Peer { hotkey: miner, addr }).ok_or_else(|| "the miner announces no axon".to_owned())
}

/// Whether the chain was read since the start. If not, a miner may have moved to another address meanwhile: what it says
/// counts, for it is signed, and that it says nothing does not.
fn knows_addresses(setup: &AllocationSetup) -> bool {
    setup.view.borrow().as_ref().is_some_and(|view| !view.is_stored())
}

fn token(setup: &AllocationSetup, id: LeaseId) -> OwnerToken {
    use secrecy::ExposeSecret;
    OwnerToken::derive(setup.secret.expose_secret(), id)
}

async fn step(setup: &AllocationSetup, entry: &Entry, events: &[Event]) -> Result<Entry, StepError> {
    entry.step(events, store::Role::Validator, &setup.journal, &setup.metrics, setup.clock.now_ms()).await
}

async fn write(setup: &AllocationSetup, entry: &Entry, events: &[Event]) -> Result<Entry, String> {
    step(setup, entry, events).await.map_err(|e| e.to_string())
}

/// Asks the miner to release. `Ok(true)` when it confirms that the container is gone.
async fn release_at_miner(setup: &AllocationSetup, lease: &Lease) -> Result<bool, String> {
    let peer = peer(setup, lease.miner)?;
    let request =
        ReleaseRequest { lease: lease.id, fencing_epoch: lease.fencing_epoch, owner_token: token(setup, lease.id) };
    match setup.dendrite.call(&peer, &request, setup.allocate_deadline, MAX_REPLY).await {
        Ok(reply) => match reply.body {
            ReleaseReply::Released | ReleaseReply::UnknownLease => Ok(true),
            ReleaseReply::Refused { detail, .. } => Err(printable(&detail, MAX_DETAIL)),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// Takes the next step of one lease.
async fn look_after(setup: &AllocationSetup, entry: Entry) -> Looked {
    let now = setup.clock.now_ms();
    let lease = &entry.lease;
    match lease.state {
        LeaseState::Running | LeaseState::Paused if lease.is_expired(now) => {
            let ending = [Event::ReleaseWanted { why: EndReason::Expired }];
            match write(setup, &entry, &ending).await {
                Ok(entry) => (finish_release(setup, entry).await, None),
                Err(problem) => (Err(problem), None),
            }
        }
        LeaseState::Running | LeaseState::Paused => {
            let seen = status(setup, lease).await;
            (Ok(entry), Some(seen))
        }
        // This node ended while the miner was asked: whether a container was made is not known.
        LeaseState::Requested | LeaseState::Reserving => {
            let ending = match lease.state {
                LeaseState::Requested => {
                    Event::Refused { why: EndReason::Withdrawn, note: "interrupted".into(), at_ms: now }
                }
                _ => Event::ReleaseWanted { why: EndReason::CreateUnclear },
            };
            match write(setup, &entry, &[ending]).await {
                Ok(entry) if entry.lease.state == LeaseState::Releasing => (finish_release(setup, entry).await, None),
                other => (other, None),
            }
        }
        LeaseState::Releasing => (finish_release(setup, entry).await, None),
        LeaseState::Released | LeaseState::Lost | LeaseState::Refused => (Ok(entry), None),
    }
}

async fn status(setup: &AllocationSetup, lease: &Lease) -> EngineView {
    let silent = if knows_addresses(setup) { EngineView::Unreachable } else { EngineView::NotSeen };
    let Ok(peer) = peer(setup, lease.miner) else { return silent };
    let request =
        LeaseStatusRequest { lease: lease.id, fencing_epoch: lease.fencing_epoch, owner_token: token(setup, lease.id) };
    match setup.dendrite.call(&peer, &request, setup.call_deadline, MAX_REPLY).await {
        Ok(reply) => match reply.body {
            LeaseStatusReply::Known { state: ContainerState::Running, .. } => EngineView::Running,
            LeaseStatusReply::Known { state: ContainerState::Paused, .. } => EngineView::Paused,
            LeaseStatusReply::Known { state: ContainerState::Gone, .. } | LeaseStatusReply::UnknownLease => {
                EngineView::Gone
            }
            LeaseStatusReply::Refused { .. } => EngineView::NotSeen,
        },
        Err(error) if error.cause() == crate::verdict::UnknownCause::OwnFault => EngineView::NotSeen,
        Err(_) => silent,
    }
}

/// Takes a releasing lease to its end if the miner confirms, or if its miner has been unreachable for too long.
async fn finish_release(setup: &AllocationSetup, entry: Entry) -> Result<Entry, String> {
    let now = setup.clock.now_ms();
    let event = match release_at_miner(setup, &entry.lease).await {
        Ok(_) => Event::Destroyed { at_ms: setup.clock.now_ms() },
        Err(problem) => {
            let over = entry.lease.expires_at_ms.saturating_add(millis(setup.give_up));
            if now < over || !knows_addresses(setup) {
                tracing::info!(lease = %entry.lease.id, problem, "the miner has not released yet, asking again");
                return Ok(entry);
            }
            Event::Lost { note: format!("never confirmed by the miner: {problem}"), at_ms: now }
        }
    };
    write(setup, &entry, &[event]).await
}

/// Makes a lease: intent, call, outcome. The entry is what the journal holds in the end.
async fn make(
    setup: Arc<AllocationSetup>,
    request: RentRequest,
    peer: Peer,
    terms: LeaseTerms,
) -> (Option<Entry>, Result<(), RentError>) {
    let id = terms.id;
    let now = setup.clock.now_ms();
    let opened = Entry::opened(Lease::open(&terms, now));
    let events = [Event::Opened { terms: terms.clone(), at_ms: now }, Event::Reserved];
    let entry = match step(&setup, &opened, &events).await {
        Ok(entry) => entry,
        // Perhaps on record, so it is kept as if it were: the next round ends it.
        Err(StepError::Unclear { next, problem }) => return (Some(*next), Err(RentError::Journal(problem))),
        Err(error) => return (None, Err(RentError::Journal(error.to_string()))),
    };
    let call = AllocateRequest {
        lease: id,
        fencing_epoch: terms.fencing_epoch,
        expires_at_ms: terms.expires_at_ms,
        renter: request.renter,
        image: request.image,
        ssh_key: request.ssh_key,
        devices: terms.devices,
        owner_token: token(&setup, id),
    };
    let reply = setup.dendrite.call(&peer, &call, setup.allocate_deadline, MAX_REPLY).await;
    let now = setup.clock.now_ms();
    let (event, result) = match reply.map(|r| r.body) {
        Ok(AllocateReply::Running { ssh_host, ssh_port, container }) => {
            // Renters log in where the miner says, but only on the host it announced on chain.
            let host = ssh_host.parse().ok().filter(|ip| *ip == peer.addr.ip()).unwrap_or(peer.addr.ip());
            let endpoint = Some(Endpoint { host, ssh_port });
            (Event::Started { container: printable(&container, MAX_DETAIL), endpoint, at_ms: now }, Ok(()))
        }
        Ok(AllocateReply::Refused { detail, .. }) => {
            let note = printable(&detail, MAX_DETAIL);
            // A refusal may come after the intent was recorded there; releasing is harmless and makes sure.
            (Event::ReleaseWanted { why: EndReason::PeerRefused }, Err(RentError::Refused(note)))
        }
        Err(error) => {
            (Event::ReleaseWanted { why: EndReason::CreateUnclear }, Err(RentError::NoAnswer(error.to_string())))
        }
    };
    let entry = match write(&setup, &entry, &[event]).await {
        Ok(entry) => entry,
        Err(problem) => return (Some(entry), Err(RentError::Journal(problem))),
    };
    if entry.lease.state == LeaseState::Releasing {
        let finished = finish_release(&setup, entry.clone()).await.unwrap_or(entry);
        return (Some(finished), result);
    }
    (Some(entry), result)
}

impl Actor for AllocationManager {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.load(ctx);
        let mut view = self.setup.view.clone();
        let first_view = async move { view.wait_for(Option::is_some).await.is_ok() };
        ctx.spawn(first_view.into_actor(self).map(|_, act, ctx| act.round(ctx)));
        self.tick(ctx);
    }
}

impl Supervised for AllocationManager {
    const MESSAGES: &'static [&'static str] =
        &["Rent", "Release", "ShowLease", "ListLeases", "LeasedDevices", "AllocatedDevices", "EpochJudged"];
}

type Reply = ResponseActFuture<AllocationManager, Result<Lease, RentError>>;

/// What a repeat of a rental is answered: the lease as it is now, or why it never began.
fn repeated(lease: &Lease, wish: Hash32) -> Result<Lease, RentError> {
    match lease.state {
        _ if lease.wish != Some(wish) => Err(RentError::OtherWish(lease.id)),
        _ if lease.began_at_ms.is_some() => Ok(lease.clone()),
        LeaseState::Requested | LeaseState::Reserving => Err(RentError::Busy),
        _ => Err(RentError::Refused(match (&lease.note, lease.end) {
            (Some(note), _) => note.clone(),
            (None, Some(why)) => why.label().to_owned(),
            (None, None) => lease.state.label().to_owned(),
        })),
    }
}

/// A lease that is not in the book: one that ended before this actor started, or longer ago than the book remembers.
async fn on_record(setup: &AllocationSetup, id: LeaseId) -> Result<Option<Lease>, RentError> {
    let record = setup.journal.ask(GetLease(id), ASK).await.map_err(|e| RentError::Journal(e.to_string()))?;
    let record = record.map_err(|e| RentError::Journal(crate::telemetry::error_chain(&e)))?;
    let entry = record.map(|r| Entry::from_record(&r)).transpose();
    let entry = entry.map_err(|e| RentError::Journal(format!("the record of lease {id} cannot be read: {e}")))?;
    Ok(entry.map(|e| e.lease))
}

impl AllocationManager {
    fn reply(&self, reply: Result<Lease, RentError>) -> Reply {
        Box::pin(async move { reply }.into_actor(self))
    }

    /// Rents under an id that was chosen by whoever asks: perhaps again.
    fn rent_as(&mut self, id: LeaseId, request: RentRequest, patience: u32) -> Reply {
        let known = match self.book.get(id) {
            Some(known) => Some(repeated(&known.lease, request.wish())),
            None => self.book.is_busy(id).then_some(Err(RentError::Busy)),
        };
        match known {
            // It is being made: its own request says what comes of it.
            Some(Err(RentError::Busy)) if patience > 0 => {
                let wait = tokio::time::sleep(BUSY_WAIT).into_actor(self);
                return Box::pin(wait.then(move |(), act, _| act.rent_as(id, request, patience - 1)));
            }
            Some(reply) => return self.reply(reply),
            None => {}
        }
        // Nobody else may open it while the journal is asked.
        self.book.begin(id);
        let setup = self.setup.clone();
        let known = async move { on_record(&setup, id).await };
        Box::pin(known.into_actor(self).then(move |known, act, _| {
            act.book.put(id, None);
            match known {
                Ok(None) => act.open(id, request),
                Ok(Some(lease)) => act.reply(repeated(&lease, request.wish())),
                Err(error) => act.reply(Err(error)),
            }
        }))
    }

    /// Looks after the leases every period, which is a setting.
    fn tick(&mut self, ctx: &mut Ctx<Self>) {
        self.setup = self.live.get();
        ctx.run_later(self.setup.period, |act, ctx| {
            act.tick(ctx);
            act.round(ctx);
        });
    }

    /// Opens a lease under an id that no lease has.
    fn open(&mut self, id: LeaseId, request: RentRequest) -> Reply {
        self.setup = self.live.get();
        if let Some(why) = self.setup.duty.borrow().refuses_leases() {
            return self.reply(Err(RentError::Draining(why)));
        }
        let (peer, devices) = match self.choose(&request) {
            Ok(chosen) => chosen,
            Err(error) => return self.reply(Err(error)),
        };
        let now = self.setup.clock.now_ms();
        let terms = LeaseTerms {
            id,
            role: Role::Renter,
            fencing_epoch: FIRST_EPOCH,
            renter: self.setup.hotkey,
            miner: peer.hotkey,
            devices: devices.clone(),
            expires_at_ms: now.saturating_add(millis(request.duration)),
            owner_token_digest: token(&self.setup, id).digest(),
            ssh_public_key: Some(request.ssh_key.clone()),
            wish: Some(request.wish()),
            unheard: false,
        };
        if let Err(error) = terms.check(now, self.setup.longest) {
            return self.reply(Err(RentError::Invalid(error.to_string())));
        }
        self.wanted.insert(id, (peer.hotkey, devices));
        self.book.begin(id);
        let work = make(self.setup.clone(), request, peer, terms);
        Box::pin(work.into_actor(self).map(move |(entry, result), act, _| {
            act.wanted.remove(&id);
            let lease = entry.as_ref().map(|e| e.lease.clone());
            act.book.put(id, entry);
            act.book.show(&act.setup.metrics);
            match (result, lease) {
                (Ok(()), Some(lease)) => Ok(lease),
                (Ok(()), None) => Err(RentError::Journal("the lease is not on record".into())),
                (Err(error), _) => Err(error),
            }
        }))
    }

    /// The lease as the journal has it; it is not in the book.
    fn look_up(&self, id: LeaseId) -> Reply {
        if self.book.is_busy(id) {
            return self.reply(Err(RentError::Busy));
        }
        let setup = self.setup.clone();
        Box::pin(async move { on_record(&setup, id).await?.ok_or(RentError::UnknownLease) }.into_actor(self))
    }

    /// Ends a lease. While a round looks after it, which takes one call of the miner at most, the release waits.
    fn release(&mut self, id: LeaseId, patience: u32) -> Reply {
        match self.book.get(id) {
            None if self.book.is_busy(id) => {}
            None => {
                let known = self.look_up(id);
                return Box::pin(known.map(|known, _, _| match known {
                    Ok(lease) if !lease.state.is_final() => Err(RentError::Busy),
                    other => other,
                }));
            }
            Some(known) if known.lease.state.is_final() => return self.reply(Ok(known.lease.clone())),
            Some(_) => {}
        }
        let Some(entry) = self.book.take(id) else {
            if patience == 0 {
                return self.reply(Err(RentError::Busy));
            }
            let wait = tokio::time::sleep(BUSY_WAIT).into_actor(self);
            return Box::pin(wait.then(move |(), act, _| act.release(id, patience - 1)));
        };
        let setup = self.setup.clone();
        let work = async move {
            let wanted = match entry.lease.state {
                LeaseState::Releasing => entry,
                _ => write(&setup, &entry, &[Event::ReleaseWanted { why: EndReason::Returned }]).await?,
            };
            finish_release(&setup, wanted).await
        };
        Box::pin(work.into_actor(self).map(move |done, act, _| {
            let reply = match &done {
                Ok(entry) if entry.lease.state.is_final() => Ok(entry.lease.clone()),
                Ok(_) => Err(RentError::NoAnswer("the release is on record and will be finished".into())),
                Err(problem) => Err(RentError::Journal(problem.clone())),
            };
            if reply.is_ok() {
                act.health.remove(&id);
            }
            act.book.put(id, done.ok());
            act.book.show(&act.setup.metrics);
            reply
        }))
    }
}

/// The answer to everybody until the leases are known: an id that is not in the book may be one of them.
fn not_loaded() -> RentError {
    RentError::Journal("leases are not loaded yet".into())
}

impl Handler<Rent> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, Rent(request): Rent, _: &mut Ctx<Self>) -> Self::Result {
        if !self.loaded {
            return self.reply(Err(not_loaded()));
        }
        if request.devices == 0 {
            return self.reply(Err(RentError::Invalid("at least one device must be rented".into())));
        }
        match request.id {
            Some(id) => self.rent_as(id, request, BUSY_WAITS),
            None => match LeaseId::random() {
                Ok(id) => self.open(id, request),
                Err(error) => self.reply(Err(RentError::Journal(format!("no randomness from the system: {error}")))),
            },
        }
    }
}

impl Handler<Release> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, Release(id): Release, _: &mut Ctx<Self>) -> Self::Result {
        if !self.loaded {
            return self.reply(Err(not_loaded()));
        }
        self.release(id, BUSY_WAITS)
    }
}

impl Handler<ShowLease> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, ShowLease(id): ShowLease, _: &mut Ctx<Self>) -> Self::Result {
        match self.book.get(id) {
            _ if !self.loaded => self.reply(Err(not_loaded())),
            Some(known) => self.reply(Ok(known.lease.clone())),
            None => self.look_up(id),
        }
    }
}

impl Handler<ListLeases> for AllocationManager {
    type Result = MessageResult<ListLeases>;
    fn handle(&mut self, _: ListLeases, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.book.open().cloned().collect())
    }
}

impl Handler<LeasedDevices> for AllocationManager {
    type Result = MessageResult<LeasedDevices>;
    fn handle(&mut self, _: LeasedDevices, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.devices(|l| l.state.holds_devices()))
    }
}

impl Handler<AllocatedDevices> for AllocationManager {
    type Result = MessageResult<AllocatedDevices>;
    fn handle(&mut self, _: AllocatedDevices, _: &mut Ctx<Self>) -> Self::Result {
        let confirmed = |id| self.health.get(&id).is_none_or(Watched::confirmed);
        MessageResult(self.devices(|l| l.state.is_live() && confirmed(l.id)))
    }
}

impl Handler<EpochJudged> for AllocationManager {
    type Result = ();
    fn handle(&mut self, judged: EpochJudged, _: &mut Ctx<Self>) {
        if judged.void {
            // We were out: what was proved before is as good as it was.
            return;
        }
        self.proved = judged
            .miners
            .iter()
            .map(|m| {
                let passed = |d: &&crate::scoring::DeviceJudgement| {
                    matches!(d.verdict, Verdict::Pass { .. }) || d.kept_rate.is_some()
                };
                let devices = m.devices.iter().filter(passed);
                (m.hotkey, devices.map(|d| Proved { device: d.device, model: d.model.clone() }).collect())
            })
            .collect();
    }
}

impl Handler<Inspect> for AllocationManager {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "loaded": self.loaded,
            "leases": self.book.open().map(|l| format!("{} {} at {}", l.id, l.state, l.miner)).collect::<Vec<_>>(),
            "proved_devices": self.proved.values().map(Vec::len).sum::<usize>(),
            "last_problem": self.last_problem,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_paid_for_until_two_checks_running_went_without_its_miner_and_again_when_it_is_back() {
        let policy = HealthPolicy::default();
        let mut lease = Watched::default();
        let mut paid = |seen| {
            assert_ne!(lease.observe(policy, seen), LeaseHealth::Gone, "the lease itself goes on");
            lease.confirmed()
        };
        use EngineView as E;
        assert!(paid(E::Running) && paid(E::Unreachable) && paid(E::Running) && paid(E::Unreachable));
        // That we could not ask is not the miner's doing, and does not speak for it either.
        assert!(paid(E::NotSeen));
        assert!(!paid(E::Unreachable) && !paid(E::NotSeen));
        assert!(paid(E::Paused));
    }
}
