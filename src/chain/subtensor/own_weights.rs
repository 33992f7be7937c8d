//! Weights on their way: which way the subnet takes them, the call for it, and what the chain shows of them.

use std::time::Duration;

use subxt::dynamic::Value;
use subxt::ext::jsonrpsee::rpc_params;

use super::call::{Call, Mechanism, number};
use super::reader::{Scope, weights_key, weights_of};
use super::runtime::{CodecError, Runtime};
use super::session::{Session, hex0x, unhex};
use super::state::{value, values};
use crate::chain::commit::{
    COMMIT_REVEAL_VERSION, TimelockSecrets, WeightsPayload, commit_hash, encrypt, round_for, storage_index,
};
use crate::chain::weights::digest_of;
use crate::chain::{
    ChainError, Hyperparameters, Metagraph, PreparedWeights, Rejection, Route, ShownCommit, Weights, WeightsShown,
};
use crate::ids::{BlockNumber, Hash32, Hotkey, Uid};

/// Words of salt in a hashed commit, as the SDK has them.
const SALT: usize = 8;
/// Blocks after the first in which a timelocked commit is opened that its round is chosen for, as the SDK does: the chain
/// tries again with each block of the epoch, but the beacon must not be later than the first tries.
const REVEAL_DELAY: u64 = 3;
/// Keys of one page, and pages, of a map that is walked: a subnet has at most 256 validators, the rest is room.
const PAGE: u32 = 1000;
const PAGES: usize = 8;

/// What time it is, and how fast blocks come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub now_ms: u64,
    pub block_time: Duration,
}

/// Makes weights ready by the rules as of the head of `graph`.
pub(super) fn prepare(
    runtime: &Runtime,
    mechanism: Mechanism,
    hotkey: Hotkey,
    weights: &Weights,
    graph: &Metagraph,
    rules: &Hyperparameters,
    time: Timing,
) -> Result<PreparedWeights, ChainError> {
    let at = graph.head.number;
    let prepared =
        |route, reveal| PreparedWeights { weights: weights.clone(), mechanism: mechanism.id, route, at, reveal };
    if !rules.commit_reveal {
        return Ok(prepared(Route::Plain, None));
    }
    let first = graph.epochs.first_reveal_block(at, rules.reveal_period);
    let first = first.ok_or_else(|| ChainError::Protocol("the subnet's epochs never reveal a commit".to_owned()))?;
    let reveal = Some((first, graph.epochs.next_epoch_block(first)));
    if takes_timelocked(runtime, mechanism) {
        if rules.commit_reveal_version != COMMIT_REVEAL_VERSION {
            return Err(Rejection::IncorrectCommitRevealVersion.into());
        }
        let blocks = first.saturating_sub(at).saturating_add(REVEAL_DELAY);
        let round = round_for(time.now_ms, blocks, time.block_time).map_err(|e| broken(&e))?;
        let payload = WeightsPayload { hotkey, weights: weights.clone() };
        let secrets = TimelockSecrets::random().map_err(|e| broken(&e))?;
        let commit = encrypt(&payload.encode(), round, secrets).map_err(|e| broken(&e))?;
        return Ok(prepared(Route::Timelocked { commit, round, version: COMMIT_REVEAL_VERSION }, reveal));
    }
    let mut salt = [0u8; SALT * 2];
    getrandom::fill(&mut salt).map_err(|e| ChainError::Protocol(format!("no randomness for a salt: {e}")))?;
    let salt: Vec<u16> =
        salt.chunks_exact(2).map(|two| two.iter().fold(0, |word, b| (word << 8) | u16::from(*b))).collect();
    let index = storage_index(mechanism.netuid, mechanism.id).map_err(|e| broken(&e))?;
    let hash = commit_hash(&hotkey, index, weights, &salt);
    Ok(prepared(Route::Hashed { salt, hash }, reveal))
}

/// Whether this runtime takes sealed commits.
fn takes_timelocked(runtime: &Runtime, mechanism: Mechanism) -> bool {
    let call = Call::CommitTimelockedWeights { mechanism, commit: vec![], round: 0, version: 0 };
    runtime.has_call(call.name())
}

fn broken(error: &(dyn std::error::Error + 'static)) -> ChainError {
    ChainError::Protocol(crate::telemetry::error_chain(error))
}

/// The call that sends prepared weights.
pub(super) fn call(mechanism: Mechanism, prepared: &PreparedWeights) -> Call {
    match &prepared.route {
        Route::Plain => Call::SetWeights {
            mechanism,
            entries: prepared.weights.entries.clone(),
            version_key: prepared.weights.version_key,
        },
        Route::Hashed { hash, .. } => Call::CommitWeights { mechanism, hash: *hash },
        Route::Timelocked { commit, round, version } => {
            Call::CommitTimelockedWeights { mechanism, commit: commit.clone(), round: *round, version: *version }
        }
    }
}

/// The call that reveals them; `None` unless their hash was committed to.
pub(super) fn reveal(mechanism: Mechanism, prepared: &PreparedWeights) -> Option<Call> {
    let Route::Hashed { salt, .. } = &prepared.route else { return None };
    Some(Call::RevealWeights {
        mechanism,
        entries: prepared.weights.entries.clone(),
        salt: salt.clone(),
        version_key: prepared.weights.version_key,
    })
}

/// What the newest finalised block shows of our weights.
pub(super) async fn shown(session: &Session, scope: &Scope) -> Result<WeightsShown, ChainError> {
    let runtime = session.runtime();
    let at = session.heads().finalized;
    let hotkey = || Value::from_bytes(scope.hotkey.0);
    let uid_key = runtime.key("Uids", vec![number(scope.netuid.0), hotkey()])?;
    let updates_key = runtime.key("LastUpdate", vec![number(scope.index)])?;
    let hashed_key = runtime.key("WeightCommits", vec![number(scope.index), hotkey()])?;
    let mut asked = vec![uid_key.clone(), updates_key.clone(), hashed_key.clone()];
    let mechanism = Mechanism { netuid: scope.netuid, id: scope.mechanism };
    // A runtime that takes sealed commits and keeps them elsewhere has no such item: that is an error, not no commits.
    if runtime.has_storage("TimelockedWeightCommits") || takes_timelocked(&runtime, mechanism) {
        let prefix = runtime.prefix("TimelockedWeightCommits", vec![number(scope.index)])?;
        asked.extend(map_keys(session, &prefix, at.hash).await?);
    }
    let found = values(session, &runtime, &asked, &at).await?;
    let bytes = |key: &Vec<u8>| found.get(key).and_then(|v| v.as_deref());
    let uid: Option<u16> = match bytes(&uid_key) {
        Some(bytes) => runtime.value("Uids", Some(bytes))?,
        None => None,
    };
    let uid = Uid(uid.ok_or(Rejection::HotKeyNotRegisteredInSubNet)?);
    let updates: Vec<u64> = runtime.value("LastUpdate", bytes(&updates_key))?.unwrap_or_default();
    let weights_key = weights_key(&runtime, scope, uid)?;
    let row = value(session, &runtime, weights_key, &at).await?;
    let entries = weights_of(&runtime, row.as_deref())?;
    let mut commits = hashed_commits(&runtime, bytes(&hashed_key))?;
    for key in asked.iter().skip(3) {
        commits.extend(timelocked_commits(&runtime, bytes(key), &scope.hotkey)?);
    }
    let last_update = updates.get(usize::from(uid.0)).copied().unwrap_or(0);
    Ok(WeightsShown { at: at.number, last_update, entries, commits })
}

/// The hashes that wait to be revealed: of each commit a hash, and block numbers whose meaning changed over the versions.
fn hashed_commits(runtime: &Runtime, bytes: Option<&[u8]>) -> Result<Vec<ShownCommit>, CodecError> {
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    type Committed = ([u8; 32], u64, u64, u64);
    let commits: Option<Vec<Committed>> = runtime.value("WeightCommits", Some(bytes))?;
    let shown = |(hash, ..): Committed| ShownCommit { digest: Hash32(hash), block: None };
    Ok(commits.unwrap_or_default().into_iter().map(shown).collect())
}

/// Our sealed commits of one epoch.
fn timelocked_commits(
    runtime: &Runtime,
    bytes: Option<&[u8]>,
    hotkey: &Hotkey,
) -> Result<Vec<ShownCommit>, CodecError> {
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    type Sealed = ([u8; 32], BlockNumber, Vec<u8>, u64);
    let commits: Option<Vec<Sealed>> = runtime.value("TimelockedWeightCommits", Some(bytes))?;
    let ours = commits.unwrap_or_default().into_iter().filter(|(who, ..)| *who == hotkey.0);
    Ok(ours.map(|(_, block, sealed, _)| ShownCommit { digest: digest_of(&sealed), block: Some(block) }).collect())
}

/// The weights of all validators, as of the newest finalised block.
pub(super) async fn of_all(session: &Session, scope: &Scope) -> Result<Vec<(Uid, Vec<(Uid, u16)>)>, ChainError> {
    let runtime = session.runtime();
    let at = session.heads().finalized;
    let prefix = runtime.prefix("Weights", vec![number(scope.index)])?;
    let keys = map_keys(session, &prefix, at.hash).await?;
    // Asked also where there are no keys: that nobody has weights must be this runtime's word.
    let found = values(session, &runtime, &keys, &at).await?;
    let mut all = Vec::with_capacity(keys.len());
    for key in &keys {
        // The last key of the map is hashed by identity: its two bytes are the uid.
        let uid = key.last_chunk::<2>().map(|two| Uid(u16::from_le_bytes(*two)));
        let uid = uid.ok_or_else(|| ChainError::Protocol("a key of Weights is too short".to_owned()))?;
        let row = weights_of(&runtime, found.get(key).and_then(|v| v.as_deref()))?;
        if !row.is_empty() {
            all.push((uid, row));
        }
    }
    all.sort_unstable_by_key(|(uid, _)| *uid);
    Ok(all)
}

/// The keys of a map below a prefix, a bounded number of pages of them.
async fn map_keys(session: &Session, prefix: &[u8], at: Hash32) -> Result<Vec<Vec<u8>>, ChainError> {
    const METHOD: &str = "state_getKeysPaged";
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..PAGES {
        let after = keys.last().map(|key| hex0x(key));
        let page: Vec<String> = session.call(METHOD, rpc_params![hex0x(prefix), PAGE, after, hex0x(&at.0)]).await?;
        let last = page.len() < PAGE as usize;
        for key in page {
            let key = unhex(&key).filter(|key| key.starts_with(prefix));
            keys.push(key.ok_or_else(|| ChainError::Protocol(format!("{METHOD}: a key of another map")))?);
        }
        if last {
            return Ok(keys);
        }
    }
    Err(ChainError::Protocol(format!("{METHOD}: more than {PAGES} pages")))
}
