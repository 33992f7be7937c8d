//! Reads a subnet as of one block, with as few calls as the chain allows.
//!
//! In the steady state a block costs two calls: one for the values of storage that we follow ([`Facts`]) and one for the
//! neurons. A third comes where a neuron is new.
//!
//! Invariants: everything of one view is of one block, and read with the runtime that the block's state is of
//! ([`super::state`]).

use std::collections::HashMap;
use std::sync::Arc;

use subxt::dynamic::Value;

use super::call::number;
use super::heads::BlockId;
use super::neurons::{self, Prometheus, Source, Told};
use super::runtime::{CodecError, Runtime};
use super::session::Session;
use super::state::{Values, value, values};
use crate::chain::{
    BlockHead, ChainError, EpochClock, EpochState, Hyperparameters, Metagraph, Neuron, PrometheusInfo, Rejection,
    ReplacedBy, Replacement, Standing,
};
use crate::ids::{BlockNumber, Hotkey, Netuid, Uid};

/// Neurons out of immunity that the chain keeps where storage does not say.
const LEAST_FREE: u16 = 10;

/// Which subnet, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    pub netuid: Netuid,
    /// Where the mechanism's weights are in storage, see [`crate::chain::commit::storage_index`].
    pub index: u16,
    /// The subnet's mechanism.
    pub mechanism: u8,
    pub hotkey: Hotkey,
}

/// What is read of storage with each block.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub id: BlockId,
    pub head: BlockHead,
    pub epochs: EpochClock,
    /// What the block is read with.
    runtime: Arc<Runtime>,
    /// Values asked for by key beyond those.
    extra: Values,
}

/// What stays from one block to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// When neurons were registered, by slot and key.
    registered: HashMap<(Uid, Hotkey), BlockNumber>,
    /// Our own slot.
    own: Option<Uid>,
    /// Whose metrics endpoint is followed: validators', and ours.
    announcers: Vec<Hotkey>,
    /// Whose stake is followed: everybody's, where the answer about neurons does not tell it as the chain counts it.
    staked: Vec<Hotkey>,
}

/// What the chain keeps of a subnet's epochs. Runtimes that count epochs by the block's number have only the first.
const EPOCHS: [&str; 5] = ["Tempo", "LastEpochBlock", "PendingEpochAt", "SubnetEpochIndex", "BlocksSinceLastStep"];

/// The keys that [`facts`] asks for, named.
struct Keys {
    now: Vec<u8>,
    /// As many of [`EPOCHS`] as are needed: all, or the first.
    epochs: Vec<Vec<u8>>,
}

fn keys(runtime: &Runtime, netuid: Netuid) -> Result<Keys, CodecError> {
    let stateful = runtime.has_storage("SubnetEpochIndex");
    let items = EPOCHS.iter().take(if stateful { EPOCHS.len() } else { 1 });
    Ok(Keys {
        now: runtime.key_of("Timestamp", "Now", vec![])?,
        epochs: items.map(|item| runtime.key(item, vec![number(netuid.0)])).collect::<Result<_, _>>()?,
    })
}

/// The subnet's epochs by what was read of them, in the order of [`EPOCHS`].
fn epochs(
    runtime: &Runtime,
    netuid: Netuid,
    at: BlockNumber,
    read: &[Option<&[u8]>],
) -> Result<EpochClock, ChainError> {
    let of = |i: usize| read.get(i).copied().flatten();
    let missing = || ChainError::Protocol(format!("block {at} has no tempo of subnet {netuid}"));
    let tempo: u16 = runtime.value("Tempo", of(0))?.ok_or_else(missing)?;
    if read.len() < EPOCHS.len() {
        return Ok(EpochClock::Modulo { netuid, tempo });
    }
    let number = |i: usize| -> Result<u64, CodecError> {
        let Some(item) = EPOCHS.get(i) else { return Ok(0) };
        Ok(runtime.value::<u64>(item, of(i))?.unwrap_or(0))
    };
    let state = EpochState {
        tempo,
        last_epoch_block: number(1)?,
        pending_epoch_at: number(2)?,
        subnet_epoch_index: number(3)?,
        blocks_since_last_step: number(4)?,
    };
    Ok(EpochClock::Stateful { state, at })
}

/// Reads what is followed in storage as of the session's newest block.
pub(super) async fn facts(session: &Session, scope: &Scope, memory: &Memory, id: BlockId) -> Result<Facts, ChainError> {
    let runtime = session.runtime();
    match facts_by(session, runtime.clone(), scope, memory, id).await {
        // The block may have a newer runtime, which the node has not told of yet.
        Err(error @ ChainError::Upgrading(_)) => {
            session.refresh_runtime(id.hash).await?;
            let newer = session.runtime();
            match newer.spec_version() == runtime.spec_version() {
                true => Err(error),
                false => facts_by(session, newer, scope, memory, id).await,
            }
        }
        read => read,
    }
}

async fn facts_by(
    session: &Session,
    runtime: Arc<Runtime>,
    scope: &Scope,
    memory: &Memory,
    id: BlockId,
) -> Result<Facts, ChainError> {
    let Keys { now, epochs: of_epochs } = keys(&runtime, scope.netuid)?;
    let mut asked = vec![now.clone()];
    asked.extend(of_epochs.iter().cloned());
    asked.extend(followed(&runtime, scope, memory)?);
    let extra = values(session, &runtime, &asked, &id).await?;
    let bytes = |key: &Vec<u8>| extra.get(key).and_then(|v| v.as_deref());
    let missing = |what: &str| ChainError::Protocol(format!("block {} has no {what}", id.number));
    let timestamp_ms: u64 = runtime.value_of("Timestamp", "Now", bytes(&now))?.ok_or_else(|| missing("time"))?;
    let read: Vec<Option<&[u8]>> = of_epochs.iter().map(bytes).collect();
    let epochs = epochs(&runtime, scope.netuid, id.number, &read)?;
    let head = BlockHead { number: id.number, hash: id.hash, timestamp_ms };
    Ok(Facts { id, head, epochs, runtime, extra })
}

/// The keys that depend on who is there.
fn followed(runtime: &Runtime, scope: &Scope, memory: &Memory) -> Result<Vec<Vec<u8>>, CodecError> {
    let mut keys = Vec::new();
    if let Some(uid) = memory.own {
        keys.push(weights_key(runtime, scope, uid)?);
    }
    for hotkey in &memory.announcers {
        keys.push(prometheus_key(runtime, scope, hotkey)?);
    }
    for hotkey in &memory.staked {
        keys.push(alpha_key(runtime, hotkey, scope.netuid)?);
    }
    Ok(keys)
}

fn alpha_key(runtime: &Runtime, hotkey: &Hotkey, netuid: Netuid) -> Result<Vec<u8>, CodecError> {
    runtime.key("TotalHotkeyAlpha", vec![Value::from_bytes(hotkey.0), number(netuid.0)])
}

/// A hotkey's stake in the subnet, for runtimes that do not tell the one that counts: what is staked on the root is not in it, nor
/// what it lends to or borrows from other hotkeys.
fn stake_of(runtime: &Runtime, scope: &Scope, extra: &Values, hotkey: &Hotkey) -> Result<u64, CodecError> {
    let key = alpha_key(runtime, hotkey, scope.netuid)?;
    Ok(runtime.value("TotalHotkeyAlpha", extra.get(&key).and_then(|v| v.as_deref()))?.unwrap_or(0))
}

pub(super) fn weights_key(runtime: &Runtime, scope: &Scope, uid: Uid) -> Result<Vec<u8>, CodecError> {
    runtime.key("Weights", vec![number(scope.index), number(uid.0)])
}

fn prometheus_key(runtime: &Runtime, scope: &Scope, hotkey: &Hotkey) -> Result<Vec<u8>, CodecError> {
    runtime.key("Prometheus", vec![number(scope.netuid.0), Value::from_bytes(hotkey.0)])
}

fn registered_key(runtime: &Runtime, scope: &Scope, uid: Uid) -> Result<Vec<u8>, CodecError> {
    runtime.key("BlockAtRegistration", vec![number(scope.netuid.0), number(uid.0)])
}

/// Weights as storage has them.
pub(super) fn weights_of(runtime: &Runtime, bytes: Option<&[u8]>) -> Result<Vec<(Uid, u16)>, CodecError> {
    let row: Option<Vec<(u16, u16)>> = match bytes {
        Some(bytes) => runtime.value("Weights", Some(bytes))?,
        None => None,
    };
    Ok(row.unwrap_or_default().into_iter().map(|(uid, weight)| (Uid(uid), weight)).collect())
}

/// Reads the neurons as of the block of `facts`.
pub(super) async fn metagraph(
    session: &Session,
    scope: &Scope,
    memory: &mut Memory,
    facts: &Facts,
) -> Result<Metagraph, ChainError> {
    let runtime = facts.runtime.clone();
    let source = Source::of(&runtime);
    let netuid = scope.netuid;
    let bytes = match source {
        Source::Selective => {
            let fields = Value::unnamed_composite(neurons::FIELDS.map(number));
            let arguments = vec![number(netuid.0), number(scope.mechanism), fields];
            let arguments = runtime.arguments(neurons::SUBNET_API, neurons::SELECTIVE, arguments)?;
            session.function(neurons::SUBNET_API, neurons::SELECTIVE, &arguments, facts.id.hash).await?
        }
        Source::Lite => {
            let arguments = runtime.arguments(neurons::NEURON_API, neurons::LITE, vec![number(netuid.0)])?;
            session.function(neurons::NEURON_API, neurons::LITE, &arguments, facts.id.hash).await?
        }
    };
    let reading = runtime.clone();
    // A few milliseconds for a full subnet: not on the thread of whoever asked.
    let told = tokio::task::spawn_blocking(move || neurons::read(&reading, source, netuid, &bytes));
    let told = told.await.map_err(|e| ChainError::Protocol(e.to_string()))??;
    if told.is_empty() {
        // Old runtimes answer with no neurons for a subnet that is not there.
        exists(session, &runtime, netuid, &facts.id).await?;
    }
    memory.own = told.iter().find(|n| n.hotkey == scope.hotkey).map(|n| n.uid);
    memory.announcers = match source {
        Source::Lite => Vec::new(),
        Source::Selective => {
            told.iter().filter(|n| n.validator_permit || n.hotkey == scope.hotkey).map(|n| n.hotkey).collect()
        }
    };
    memory.staked = match source {
        Source::Lite if runtime.has_storage("TotalHotkeyAlpha") => told.iter().map(|n| n.hotkey).collect(),
        Source::Lite | Source::Selective => Vec::new(),
    };
    let mut wanted = followed(&runtime, scope, memory)?;
    for n in told.iter().filter(|n| n.registered_at.is_none()) {
        if !memory.registered.contains_key(&(n.uid, n.hotkey)) {
            wanted.push(registered_key(&runtime, scope, n.uid)?);
        }
    }
    wanted.retain(|key| !facts.extra.contains_key(key));
    let mut extra = match wanted.is_empty() {
        true => Values::new(),
        false => values(session, &runtime, &wanted, &facts.id).await?,
    };
    extra.extend(facts.extra.iter().map(|(key, value)| (key.clone(), value.clone())));
    remember_registrations(&runtime, scope, memory, &told, &extra)?;
    let neurons = told.into_iter().map(|n| neuron(&runtime, scope, memory, &extra, n));
    Ok(Metagraph { netuid, head: facts.head, epochs: facts.epochs, neurons: neurons.collect::<Result<_, _>>()? })
}

/// Takes in registrations that were asked for, and forgets those of neurons that are gone.
fn remember_registrations(
    runtime: &Runtime,
    scope: &Scope,
    memory: &mut Memory,
    told: &[Told],
    extra: &Values,
) -> Result<(), CodecError> {
    let mut registered = HashMap::with_capacity(told.len());
    for n in told {
        let who = (n.uid, n.hotkey);
        let known = n.registered_at.or_else(|| memory.registered.get(&who).copied());
        let block = match known {
            Some(block) => block,
            None => {
                let bytes = extra.get(&registered_key(runtime, scope, n.uid)?).and_then(|v| v.as_deref());
                runtime.value("BlockAtRegistration", bytes)?.unwrap_or(0)
            }
        };
        registered.insert(who, block);
    }
    memory.registered = registered;
    Ok(())
}

fn neuron(runtime: &Runtime, scope: &Scope, memory: &Memory, extra: &Values, n: Told) -> Result<Neuron, CodecError> {
    let bytes = |key: &Vec<u8>| extra.get(key).and_then(|v| v.as_deref());
    let own = memory.own == Some(n.uid);
    let prometheus: Option<PrometheusInfo> = match n.prometheus {
        Some(told) => told,
        None if n.validator_permit || own => match bytes(&prometheus_key(runtime, scope, &n.hotkey)?) {
            Some(bytes) => runtime.value::<Prometheus>("Prometheus", Some(bytes))?.and_then(Prometheus::info),
            None => None,
        },
        None => None,
    };
    let weights = match own {
        true => weights_of(runtime, bytes(&weights_key(runtime, scope, n.uid)?))?,
        false => Vec::new(),
    };
    let stake_rao = match memory.staked.is_empty() {
        true => n.stake_rao,
        false => stake_of(runtime, scope, extra, &n.hotkey)?,
    };
    Ok(Neuron {
        uid: n.uid,
        hotkey: n.hotkey,
        coldkey: n.coldkey,
        stake_rao,
        validator_permit: n.validator_permit,
        active: n.active,
        axon: n.axon,
        prometheus,
        registered_at: memory.registered.get(&(n.uid, n.hotkey)).copied().unwrap_or(0),
        last_update: n.last_update,
        incentive: n.incentive,
        dividends: n.dividends,
        standing: Standing {
            emission_rao: n.emission_rao,
            consensus: n.consensus,
            trust: n.trust,
            validator_trust: n.validator_trust,
            pruning_score: n.pruning_score,
        },
        weights,
    })
}

async fn exists(session: &Session, runtime: &Runtime, netuid: Netuid, at: &BlockId) -> Result<(), ChainError> {
    let key = runtime.key("NetworksAdded", vec![number(netuid.0)])?;
    let value = value(session, runtime, key, at).await?;
    match runtime.value::<bool>("NetworksAdded", value.as_deref())? {
        Some(true) => Ok(()),
        _ => Err(Rejection::SubnetNotExists.into()),
    }
}

/// Reads the subnet's rules. What a runtime does not have is as [`Hyperparameters::default`] has it.
pub(super) async fn hyperparameters(
    session: &Session,
    netuid: Netuid,
    at: &BlockId,
) -> Result<Hyperparameters, ChainError> {
    let runtime = session.runtime();
    exists(session, &runtime, netuid, at).await?;
    let of_subnet = || vec![number(netuid.0)];
    // StakeThreshold had another name up to spec 218.
    let threshold = if runtime.has_storage("StakeThreshold") { "StakeThreshold" } else { "WeightsMinStake" };
    let items: Vec<(&str, Vec<Value>)> = vec![
        ("Tempo", of_subnet()),
        ("WeightsSetRateLimit", of_subnet()),
        ("WeightsVersionKey", of_subnet()),
        ("MinAllowedWeights", of_subnet()),
        ("MaxWeightsLimit", of_subnet()),
        ("ServingRateLimit", of_subnet()),
        ("ImmunityPeriod", of_subnet()),
        ("MaxAllowedUids", of_subnet()),
        ("MaxAllowedValidators", of_subnet()),
        ("CommitRevealWeightsEnabled", of_subnet()),
        ("RevealPeriodEpochs", of_subnet()),
        ("CommitRevealWeightsVersion", vec![]),
        ("Burn", of_subnet()),
        (threshold, vec![]),
        ("ActivityCutoff", of_subnet()),
        ("SubnetOwnerHotkey", of_subnet()),
        ("MinNonImmuneUids", of_subnet()),
    ];
    let mut keys = HashMap::new();
    for (item, of) in items {
        if runtime.has_storage(item) {
            keys.insert(item, runtime.key(item, of)?);
        }
    }
    let asked: Vec<Vec<u8>> = keys.values().cloned().collect();
    let found = values(session, &runtime, &asked, at).await?;
    let rules = Rules { runtime: &runtime, keys, found };
    let usual = Hyperparameters::default();
    Ok(Hyperparameters {
        tempo: rules.read("Tempo", usual.tempo)?,
        weights_rate_limit: rules.read("WeightsSetRateLimit", usual.weights_rate_limit)?,
        weights_version_key: rules.read("WeightsVersionKey", usual.weights_version_key)?,
        min_allowed_weights: rules.read("MinAllowedWeights", usual.min_allowed_weights)?,
        max_weights_limit: rules.read("MaxWeightsLimit", usual.max_weights_limit)?,
        serving_rate_limit: rules.read("ServingRateLimit", usual.serving_rate_limit)?,
        immunity_period: rules.read("ImmunityPeriod", usual.immunity_period)?,
        max_allowed_uids: rules.read("MaxAllowedUids", usual.max_allowed_uids)?,
        max_allowed_validators: rules.read("MaxAllowedValidators", usual.max_allowed_validators)?,
        commit_reveal: rules.read("CommitRevealWeightsEnabled", usual.commit_reveal)?,
        reveal_period: rules.read("RevealPeriodEpochs", usual.reveal_period)?,
        commit_reveal_version: rules.read("CommitRevealWeightsVersion", usual.commit_reveal_version)?,
        burn_rao: rules.read("Burn", usual.burn_rao)?,
        stake_threshold_rao: rules.read(threshold, usual.stake_threshold_rao)?,
        activity_cutoff: rules.read("ActivityCutoff", usual.activity_cutoff)?,
        owner_hotkey: rules.read("SubnetOwnerHotkey", None)?.map(Hotkey),
        replacement: match runtime.has_storage("MinNonImmuneUids") {
            true => {
                let least_free = rules.read("MinNonImmuneUids", LEAST_FREE)?;
                Replacement { by: ReplacedBy::Emission, least_free, immune_too: true }
            }
            false => Replacement { by: ReplacedBy::PruningScore, least_free: 0, immune_too: true },
        },
    })
}

struct Rules<'r> {
    runtime: &'r Runtime,
    keys: HashMap<&'r str, Vec<u8>>,
    found: Values,
}

impl Rules<'_> {
    fn read<T: Rule>(&self, item: &str, usual: T) -> Result<T, CodecError> {
        let Some(key) = self.keys.get(item) else { return Ok(usual) };
        let bytes = self.found.get(key).and_then(|v| v.as_deref());
        T::read(self.runtime, item, bytes, usual)
    }
}

/// A rule's value.
trait Rule: Sized {
    fn read(runtime: &Runtime, item: &str, bytes: Option<&[u8]>, usual: Self) -> Result<Self, CodecError>;
}

macro_rules! plain_rules {
    ($($ty:ty),*) => { $(impl Rule for $ty {
        fn read(runtime: &Runtime, item: &str, bytes: Option<&[u8]>, usual: Self) -> Result<Self, CodecError> {
            Ok(runtime.value::<$ty>(item, bytes)?.unwrap_or(usual))
        }
    })* };
}
plain_rules!(u16, u64, bool);

impl Rule for Option<[u8; 32]> {
    // Some versions have a default of zeros for the owner that nobody is.
    fn read(runtime: &Runtime, item: &str, bytes: Option<&[u8]>, _: Self) -> Result<Self, CodecError> {
        Ok(runtime.value::<[u8; 32]>(item, bytes)?.filter(|key| *key != [0; 32]))
    }
}
