//! Decides who may call and who is asked: combines policy, chain and penalties into an immutable snapshot.
//!
//! Invariants: listeners never ask this actor, they judge by the last snapshot it published, as a pure function; with
//! no snapshot, or one that is too old, nobody is admitted (503). Penalties are on disk before they count as lasting.
//!
//! On restart: penalties come back from the journal, peers with the next block; until then the last published snapshot
//! stays in force and ages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;

use crate::actors::chain_watcher::differs;
use crate::actors::journal::Journal;
use crate::admission::{Address, Peer, Penalty, Policy, Quorum, Snapshot, Subject, admit_miners};
use crate::chain::Metagraph;
use crate::clock::{SharedClock, millis};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::Hotkey;
use crate::messages::blacklist_guard::{AdmitMiners, Lift, Penalise};
use crate::messages::chain_watcher::{ChainView, MetagraphChanged, NewBlock};
use crate::messages::journal::{Note, PenaltiesAt, Write};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::settings::Live;
use crate::store::records::{AdmissionNote, NeuronEntry, NeuronsRecord, PenaltyRecord};
use crate::store::{Record, StoreError};
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::PenaltyGiven;

/// How long the journal may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// What the guard works with.
pub struct BlacklistGuardSetup {
    /// Our own key: we do not ask ourselves.
    pub hotkey: Hotkey,
    /// What the operator wants.
    pub policy: Live<Arc<Policy>>,
    /// Whether to record who is in the subnet and what admission says of each, for `explain`. A validator's task: in a
    /// subnet of miners that all did, what is written would grow with the square of their number.
    pub records_neurons: bool,
    /// Where the snapshot is published.
    pub snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    /// Keeps penalties and neurons.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// The penalties in force.
#[derive(Default)]
struct Penalties {
    hotkeys: HashMap<Hotkey, Penalty>,
    addresses: Arc<HashMap<Address, Penalty>>,
}

impl Penalties {
    fn get(&self, subject: &Subject) -> Option<&Penalty> {
        match subject {
            Subject::Hotkey(hotkey) => self.hotkeys.get(hotkey),
            Subject::Address(address) => self.addresses.get(address),
        }
    }
    fn holds(&self, subject: &Subject, now_ms: u64) -> bool {
        self.get(subject).is_some_and(|p| p.until_ms > now_ms)
    }
    /// A penalty that lasts longer stays in force.
    fn put(&mut self, subject: Subject, reason: String, until_ms: u64) {
        if self.get(&subject).is_some_and(|p| p.until_ms >= until_ms) {
            return;
        }
        let penalty = Penalty { reason, until_ms };
        match subject {
            Subject::Hotkey(hotkey) => self.hotkeys.insert(hotkey, penalty),
            Subject::Address(address) => Arc::make_mut(&mut self.addresses).insert(address, penalty),
        };
    }
    fn remove(&mut self, subject: &Subject) {
        match subject {
            Subject::Hotkey(hotkey) => self.hotkeys.remove(hotkey),
            Subject::Address(address) => Arc::make_mut(&mut self.addresses).remove(address),
        };
    }
    fn forget_ended(&mut self, now_ms: u64) {
        self.hotkeys.retain(|_, p| p.until_ms > now_ms);
        if self.addresses.values().any(|p| p.until_ms <= now_ms) {
            Arc::make_mut(&mut self.addresses).retain(|_, p| p.until_ms > now_ms);
        }
    }
    fn count(&self, kind: &str) -> usize {
        let of = |subject: &str, count| if kind == subject { count } else { 0 };
        of("hotkey", self.hotkeys.len()) + of("address", self.addresses.len())
    }
}

/// The actor.
pub struct BlacklistGuard {
    setup: Arc<BlacklistGuardSetup>,
    penalties: Penalties,
    /// Whether the journal has told of the penalties that were given before this start.
    loaded: bool,
    view: Option<Arc<ChainView>>,
    /// The peers of the view, taken over from block to block while nothing differs.
    peers: Arc<HashMap<Hotkey, Peer>>,
}

impl BlacklistGuard {
    /// A guard that knows nobody.
    pub fn new(setup: Arc<BlacklistGuardSetup>) -> Self {
        BlacklistGuard { setup, penalties: Penalties::default(), loaded: false, view: None, peers: Arc::default() }
    }

    fn load(&mut self, ctx: &mut Ctx<Self>) {
        let (journal, now) = (self.setup.journal.clone(), self.setup.clock.now_ms());
        let work = async move { journal.ask(PenaltiesAt(now), ASK).await };
        ctx.spawn(work.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok(Ok(stored)) => {
                stored.into_iter().for_each(|p| act.penalties.put(p.subject, p.reason, p.until_ms));
                act.loaded = true;
                act.publish();
                // What was recorded before the penalties were known says nothing of admission.
                act.record();
            }
            failed => {
                tracing::warn!(?failed, "penalties cannot be read, nobody is admitted until they can");
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.load(ctx));
            }
        }));
    }

    fn take(&mut self, view: Arc<ChainView>) {
        if self.view.as_ref().is_none_or(|old| differs(&old.metagraph, &view.metagraph)) {
            self.peers = Arc::new(peers(&view.metagraph));
        }
        self.view = Some(view);
    }

    fn publish(&mut self) {
        let now = self.setup.clock.now_ms();
        self.penalties.forget_ended(now);
        self.setup.metrics.penalties(|kind| self.penalties.count(kind));
        let Some(view) = self.view.as_ref().filter(|_| self.loaded) else { return };
        let policy = self.setup.policy.get();
        let age_ms = millis(view.age());
        let snapshot = Snapshot {
            taken_block: view.metagraph.head.number,
            taken_at_ms: now.saturating_sub(age_ms),
            peers: self.peers.clone(),
            validators: Quorum::of_validators(&policy, &self.peers),
            miners: Quorum::of_miners(&policy, &self.peers),
            penalties: self.penalties.hotkeys.clone(),
            address_penalties: self.penalties.addresses.clone(),
        };
        self.setup.snapshot.send_replace(Some(Arc::new(snapshot)));
    }

    /// What admission says of every neuron that could be a miner, in the order of uids.
    fn admitted(&self) -> Vec<(crate::ids::Uid, Hotkey, Result<(), crate::admission::Refusal>)> {
        let snapshot = self.setup.snapshot.borrow().clone();
        let (Some(snapshot), Some(view)) = (snapshot, &self.view) else { return Vec::new() };
        admit_miners(&self.setup.policy.get(), &snapshot, self.setup.clock.now_ms())
            .into_iter()
            .filter_map(|(uid, admitted)| {
                let neuron = view.metagraph.by_uid(uid)?;
                (neuron.hotkey != self.setup.hotkey).then_some((uid, neuron.hotkey, admitted))
            })
            .collect()
    }

    /// Records who is in the subnet and what admission says of each.
    fn record(&self) {
        // What is stored already need not be recorded again, nor what admission would say of it long after.
        let Some(view) = self.view.as_ref().filter(|v| self.setup.records_neurons && !v.is_stored()) else { return };
        let admitted: HashMap<_, _> = self.admitted().into_iter().map(|(uid, _, a)| (uid, a)).collect();
        let neurons = view.metagraph.neurons.iter().map(|n| NeuronEntry {
            uid: n.uid,
            hotkey: n.hotkey,
            coldkey: n.coldkey,
            admission: admitted.get(&n.uid).map(|a| match a {
                Ok(()) => AdmissionNote {
                    admitted: true,
                    reason: "admitted".into(),
                    text: "the miner is asked for proofs".into(),
                    remedy: String::new(),
                },
                Err(refusal) => AdmissionNote {
                    admitted: false,
                    reason: refusal.label().into(),
                    text: refusal.to_string(),
                    remedy: refusal.remedy().into(),
                },
            }),
        });
        let record = NeuronsRecord { block: view.metagraph.head.number, neurons: neurons.collect() };
        if let Err(error) = self.setup.journal.tell(Note(Record::Neurons(record))) {
            tracing::warn!(%error, "neurons not recorded");
        }
    }
}

fn peers(metagraph: &Metagraph) -> HashMap<Hotkey, Peer> {
    let peer = |n: &crate::chain::Neuron| Peer {
        uid: n.uid,
        coldkey: n.coldkey,
        stake_rao: n.stake_rao,
        permit: n.validator_permit,
        ip: n.axon.as_ref().map(|a| a.ip),
        axon_version: n.axon.as_ref().map_or(0, |a| a.version),
        prometheus_version: n.prometheus.as_ref().map_or(0, |p| p.version),
        registered_at: n.registered_at,
    };
    metagraph.neurons.iter().map(|n| (n.hotkey, peer(n))).collect()
}

impl Actor for BlacklistGuard {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.load(ctx);
    }
}

impl Supervised for BlacklistGuard {
    const MESSAGES: &'static [&'static str] = &["NewBlock", "MetagraphChanged", "Penalise", "Lift", "AdmitMiners"];
}

impl Handler<NewBlock> for BlacklistGuard {
    type Result = ();
    fn handle(&mut self, NewBlock(view): NewBlock, _: &mut Ctx<Self>) {
        self.take(view);
        self.publish();
    }
}

impl Handler<MetagraphChanged> for BlacklistGuard {
    type Result = ();
    fn handle(&mut self, MetagraphChanged(view): MetagraphChanged, _: &mut Ctx<Self>) {
        self.setup.metrics.neurons(view.metagraph.neurons.len());
        self.take(view);
        self.publish();
        self.record();
    }
}

impl BlacklistGuard {
    /// What a validator's evidence log says of a penalty: those of the operator follow from nothing else in it. A penalty
    /// of an address changes nothing that is judged, so it is no evidence.
    fn evidence(&self, of: Subject, at_ms: u64, body: impl FnOnce(Hotkey) -> serde_json::Value) -> Option<Record> {
        let hotkey = of.hotkey().filter(|_| self.setup.records_neurons)?;
        Some(Record::Evidence(EvidenceRecord::one(Kind::Penalty, at_ms, body(hotkey))))
    }
}

impl Handler<Penalise> for BlacklistGuard {
    type Result = ();
    fn handle(&mut self, Penalise(record): Penalise, _: &mut Ctx<Self>) {
        let PenaltyRecord { subject, reason, detail, from_ms, until_ms } = record.clone();
        PenaltyGiven { subject, reason: &reason, detail: &detail, until_ms }.emit(&self.setup.metrics);
        let evidence = self.evidence(subject, from_ms, |hotkey| {
            serde_json::json!({
                "hotkey": hotkey, "reason": reason, "detail": detail, "from_ms": from_ms, "until_ms": until_ms,
            })
        });
        let records = std::iter::once(Record::Penalty(record)).chain(evidence).collect();
        if let Err(error) = self.setup.journal.tell(Note(Record::Batch(records))) {
            tracing::warn!(%subject, %error, "penalty not recorded, it lasts until the next restart");
        }
        self.penalties.put(subject, reason, until_ms);
        self.publish();
    }
}

impl Handler<Lift> for BlacklistGuard {
    type Result = ResponseActFuture<Self, Result<bool, StoreError>>;
    fn handle(&mut self, Lift(subject): Lift, _: &mut Ctx<Self>) -> Self::Result {
        let at_ms = self.setup.clock.now_ms();
        let known = self.penalties.holds(&subject, at_ms);
        let journal = self.setup.journal.clone();
        let evidence =
            self.evidence(subject, at_ms, |hotkey| serde_json::json!({ "hotkey": hotkey, "lifted_ms": at_ms }));
        let lifted = Write(std::iter::once(Record::PenaltyLifted { subject, at_ms }).chain(evidence).collect());
        // On disk first: a penalty that is gone only until the next restart is not lifted.
        let work = async move { journal.ask(lifted, ASK).await.unwrap_or(Err(StoreError::Stopped)) };
        Box::pin(work.into_actor(self).map(move |written, act, _| {
            written?;
            act.penalties.remove(&subject);
            tracing::warn!(%subject, "penalty lifted by the operator");
            act.publish();
            Ok(known)
        }))
    }
}

impl Handler<AdmitMiners> for BlacklistGuard {
    type Result = MessageResult<AdmitMiners>;
    fn handle(&mut self, _: AdmitMiners, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.admitted())
    }
}

impl Handler<Inspect> for BlacklistGuard {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "peers": self.view.as_ref().map(|v| v.metagraph.neurons.len()),
            "penalties": self.loaded.then_some(self.penalties.hotkeys.len()),
            "penalties_of_addresses": self.loaded.then_some(self.penalties.addresses.len()),
            "snapshot_block": self.setup.snapshot.borrow().as_ref().map(|s| s.taken_block),
        }))
    }
}
