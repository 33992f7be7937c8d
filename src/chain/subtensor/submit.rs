//! A call on its way: checked, signed, submitted, included, and what became of it.
//!
//! Invariants: what the runtime would refuse is not submitted; **a call is submitted once**, on one connection, whatever
//! happens to it afterwards; it is signed for [`ERA_BLOCKS`] blocks and no longer, so that an answer that never came is
//! settled by waiting; the result is read from the events of the block that holds the call, since the block holds it
//! whether it succeeded or not. A success counts with any block that holds it; **a failure counts once its block is final**,
//! since the call may succeed in the block that takes the place of one that is not.
//!
//! Design notes: the block that a call is signed at is a finalised one: a call that names a block which is taken back would be
//! void. Only where finality stands still it is a newer one, or every call would be too old before it is sent. Calls of one
//! client are submitted one after the other, or two of them would take the same nonce.
//!
//! A connection that breaks after a call was submitted, and a node that never says what became of it, leave open whether the
//! call was taken. It is then looked for in the blocks themselves, on whatever connection there is, until the caller's
//! deadline: most of the time it is found.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use subxt::events::Phase;
use subxt::ext::jsonrpsee::core::client::Subscription;
use subxt::ext::jsonrpsee::rpc_params;

use super::call::Call;
use super::heads::{BlockId, Header, Heads};
use super::link::Link;
use super::refusal;
use super::rpc::RpcError;
use super::runtime::{Era, Extrinsic, Runtime};
use super::session::{Condemnation, Session, hash, hex0x};
use super::state;
use crate::chain::{ChainError, Inclusion, PreparedWeights, Signer};
use crate::ids::{BlockNumber, Hash32, Hotkey};

/// Blocks in which a signed call may be included.
pub(super) const ERA_BLOCKS: u64 = 64;
/// Where the runtime is told that a call comes from: a client of the node.
const EXTERNAL: u8 = 2;
/// Blocks without a word about a call after which it is looked for in them.
const QUIET_BLOCKS: u64 = 3;
const WATCH: &str = "author_submitAndWatchExtrinsic";

/// A call's way through the pool, as a node tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Future,
    Ready,
    Broadcast(Vec<String>),
    InBlock(String),
    Retracted(String),
    FinalityTimeout(String),
    Finalized(String),
    Usurped(String),
    Dropped,
    Invalid,
}

/// A signed call, and the blocks from which on it can be in one.
struct Signed {
    extrinsic: Extrinsic,
    birth: BlockNumber,
}

/// Signs a call and asks the runtime whether it would be taken. Nothing is submitted.
pub(super) async fn check(session: &Session, call: &Call, signer: &dyn Signer) -> Result<(), ChainError> {
    checked(session, call, signer, None).await.map(drop)
}

/// The block to sign at, see the module's text.
fn birth(heads: &Heads) -> BlockId {
    let late = heads.best.number.saturating_sub(heads.finalized.number) > ERA_BLOCKS / 2;
    if late { heads.best } else { heads.finalized }
}

/// Signs a call for which there is time, and asks the runtime about it.
async fn checked(
    session: &Session,
    call: &Call,
    signer: &dyn Signer,
    carried: Option<&PreparedWeights>,
) -> Result<Signed, ChainError> {
    let runtime = session.runtime();
    let heads = session.heads();
    carried.map_or(Ok(()), |weights| weights.in_time(heads.best.number))?;
    let account = signer.hotkey().to_string();
    let nonce: u64 = session.call("system_accountNextIndex", rpc_params![account]).await?;
    let birth = birth(&heads);
    let era = Era::Mortal { number: birth.number, hash: birth.hash, blocks: ERA_BLOCKS };
    let extrinsic = runtime.sign(call, signer, nonce, era)?;
    let mut arguments = vec![EXTERNAL];
    arguments.extend_from_slice(&extrinsic.bytes);
    arguments.extend_from_slice(&heads.best.hash.0);
    let answer =
        session.function("TaggedTransactionQueue", "validate_transaction", &arguments, heads.best.hash).await?;
    refusal::validity(&answer)?;
    Ok(Signed { extrinsic, birth: birth.number })
}

/// A signed call that the runtime would take, and the connection that it is to go out on.
pub(super) struct Ready {
    session: Arc<Session>,
    signed: Signed,
    name: &'static str,
}

/// Makes a call ready to be submitted, if it is in time for the weights that it carries; the caller holds the deadline. Nothing is
/// submitted.
///
/// # Errors
/// The refusal, and whatever reading and checking can fail with.
pub(super) async fn ready(
    link: &Link,
    call: &Call,
    signer: &dyn Signer,
    carried: Option<&PreparedWeights>,
) -> Result<Ready, ChainError> {
    let name = call.name();
    let session = link.session().await?;
    match checked(&session, call, signer, carried).await {
        // Nothing is submitted yet: once more on another connection.
        Err(_) if session.condemnation().is_some() => {
            let session = link.session().await?;
            let signed = checked(&session, call, signer, carried).await?;
            Ok(Ready { session, signed, name })
        }
        checked => checked.map(|signed| Ready { session, signed, name }),
    }
}

/// Submits a call and waits until a block holds it; the caller holds the deadline.
///
/// # Errors
/// The refusal; [`ChainError::Unsent`] if the connection has ended since the call was made ready.
pub(super) async fn submit(link: &Link, ready: Ready) -> Result<Inclusion, ChainError> {
    let Ready { session, signed, name } = ready;
    if let Some(Condemnation { why, .. }) = session.condemnation() {
        return Err(ChainError::Unreachable(why).unsent());
    }
    let mut blocks = Blocks { signed: &signed, seen: HashSet::new() };
    let why = match watched(&session, &mut blocks).await {
        Ok(included) => return included,
        Err(Lost(why)) => why,
    };
    tracing::warn!(call = name, why, "whether a submitted call was taken is not known: looking for it in blocks");
    drop(session);
    blocks.find(link).await
}

/// The way of a call is not told any longer.
struct Lost(String);

impl From<RpcError> for Lost {
    fn from(error: RpcError) -> Self {
        Lost(error.to_string())
    }
}

/// Submits and follows what the node tells, or the blocks where it tells nothing.
async fn watched(session: &Session, blocks: &mut Blocks<'_>) -> Result<Result<Inclusion, ChainError>, Lost> {
    let params = rpc_params![hex0x(&blocks.signed.extrinsic.bytes)];
    let mut told: Subscription<Status> = match session.subscribe(WATCH, params, "author_unwatchExtrinsic").await {
        Ok(told) => told,
        Err(known @ RpcError::Call { code: refusal::ALREADY_IMPORTED, .. }) => return Err(known.into()),
        Err(refused @ RpcError::Call { .. }) => return Ok(Err(refusal::pool(refused))),
        Err(lost) => return Err(lost.into()),
    };
    let first = session.heads().best;
    let mut looked = first;
    loop {
        let status = tokio::select! {
            status = session.while_good(told.next()) => status?,
            () = session.head_after(looked.hash) => {
                if let Some(why) = session.condemnation() {
                    return Err(Lost(why.why));
                }
                looked = session.heads().best;
                if looked.number >= first.number + QUIET_BLOCKS
                    && let Search::Found(found) = blocks.look(session).await
                {
                    return Ok(found);
                }
                continue;
            }
        };
        match status {
            // One that failed there goes on until its block is final: the block may still be replaced.
            Some(Ok(Status::InBlock(at))) => {
                if let Ok(included) = told_outcome(session, &blocks.signed.extrinsic, at).await? {
                    return Ok(Ok(included));
                }
            }
            Some(Ok(Status::Finalized(at))) => return told_outcome(session, &blocks.signed.extrinsic, at).await,
            // A call that waits for an earlier nonce will be taken when that came, one that was taken back will come again.
            Some(Ok(Status::Future | Status::Ready | Status::Broadcast(_) | Status::Retracted(_))) => {}
            Some(Ok(Status::FinalityTimeout(_))) => return Err(Lost("the chain finalises no blocks".to_owned())),
            Some(Ok(Status::Usurped(_) | Status::Invalid)) => return Ok(Err(refusal::named("Outdated"))),
            Some(Ok(Status::Dropped)) => return Ok(Err(refusal::named("PoolFull"))),
            Some(Err(why)) => return Err(Lost(session.garbage(WATCH, &why.to_string()).to_string())),
            None => return Err(Lost(format!("{WATCH}: the subscription ended"))),
        }
    }
}

/// What became of a call that a block holds, which the node named.
async fn told_outcome(
    session: &Session,
    signed: &Extrinsic,
    at: String,
) -> Result<Result<Inclusion, ChainError>, Lost> {
    let at = hash(at).map_err(|e| Lost(e.to_string()))?;
    match outcome(session, signed, at).await {
        Err(error) if open(&error) => Err(Lost(error.to_string())),
        known => Ok(known),
    }
}

/// Whether an error leaves open what became of a call that was submitted.
fn open(error: &ChainError) -> bool {
    !matches!(error, ChainError::Rejected(_) | ChainError::Refused(_))
}

/// Where a call is looked for.
struct Blocks<'s> {
    signed: &'s Signed,
    /// Blocks that do not hold it, nor does any before them.
    seen: HashSet<Hash32>,
}

impl Blocks<'_> {
    /// Looks on until the caller's deadline, with each new head and on each new connection.
    async fn find(&mut self, link: &Link) -> Result<Inclusion, ChainError> {
        let pause = link.deadline();
        loop {
            match link.session().await {
                Ok(session) => {
                    let (best, settled) = (session.heads().best, session.heads().finalized.number);
                    match self.look(&session).await {
                        Search::Found(found) => return found,
                        // No block that can still come may hold it.
                        Search::Absent if settled > self.signed.birth + ERA_BLOCKS => {
                            return Err(refusal::named("AncientBirthBlock"));
                        }
                        Search::Absent | Search::Unsure => {}
                    }
                    // Bounded, also where a head that does not move keeps the session.
                    drop(tokio::time::timeout(pause, session.head_after(best.hash)).await);
                }
                // In the pause after a failure the link answers at once.
                Err(_) => tokio::time::sleep(pause.min(std::time::Duration::from_secs(1))).await,
            }
        }
    }

    /// Walks from the best head down to blocks that were looked at, or that are too old to hold the call.
    async fn look(&mut self, session: &Session) -> Search {
        let Heads { best, finalized, .. } = session.heads();
        let mut at = best.hash;
        let mut is_final = false;
        let mut walked = Vec::new();
        // Twice as many as can hold it: finality may be that far behind.
        while walked.len() < 2 * ERA_BLOCKS as usize {
            // So are all blocks below it.
            is_final |= at == finalized.hash;
            if self.seen.contains(&at) {
                self.seen.extend(walked);
                return Search::Absent;
            }
            let Ok(body) = body(session, at).await else { return Search::Unsure };
            if body.place_of(&self.signed.extrinsic).is_some() {
                return match outcome(session, &self.signed.extrinsic, at).await {
                    // Read again later, or on a connection that can.
                    Err(error) if open(&error) || !is_final => Search::Unsure,
                    known => Search::Found(known),
                };
            }
            walked.push(at);
            let id = body.header.id();
            if id.number <= self.signed.birth + 1 {
                self.seen.extend(walked);
                return Search::Absent;
            }
            at = id.parent;
        }
        Search::Unsure
    }
}

/// What a look into the blocks came to.
enum Search {
    /// A block holds the call: what became of it there. A failure is final.
    Found(Result<Inclusion, ChainError>),
    /// No block from the one that it was signed at up to the best head holds it.
    Absent,
    /// Not all of them could be read, or one holds the call, which failed there, and may still be replaced.
    Unsure,
}

#[derive(Debug, Deserialize)]
struct Body {
    header: Header,
    extrinsics: Vec<String>,
}

impl Body {
    fn place_of(&self, extrinsic: &Extrinsic) -> Option<u32> {
        let ours = hex0x(&extrinsic.bytes);
        self.extrinsics.iter().position(|e| e.eq_ignore_ascii_case(&ours)).and_then(|i| u32::try_from(i).ok())
    }
}

/// The block with this hash.
async fn body(session: &Session, at: Hash32) -> Result<Body, ChainError> {
    const METHOD: &str = "chain_getBlock";
    #[derive(Deserialize)]
    struct Block {
        block: Body,
    }
    let block: Option<Block> = session.call(METHOD, rpc_params![hex0x(&at.0)]).await?;
    let Some(Block { block }) = block else {
        return Err(ChainError::Protocol(format!("the node does not know block {at}")));
    };
    match block.header.id().hash == at {
        true => Ok(block),
        false => Err(session.garbage(METHOD, "another block than the one that was asked for").into()),
    }
}

/// What became of a call that a block holds.
async fn outcome(session: &Session, signed: &Extrinsic, at: Hash32) -> Result<Inclusion, ChainError> {
    let body = body(session, at).await?;
    let index = body.place_of(signed);
    let index = index.ok_or_else(|| ChainError::Protocol(format!("block {at} does not hold the call")))?;
    let (runtime, id) = (session.runtime(), body.header.id());
    let key = runtime.key_of("System", "Events", vec![])?;
    let events = state::value(session, &runtime, key, &id).await?.unwrap_or_default();
    fate(&runtime, events, index)?;
    Ok(Inclusion { block: id.number, extrinsic: signed.hash })
}

/// What the events of a block tell of its `index`th call.
fn fate(runtime: &Runtime, events: Vec<u8>, index: u32) -> Result<(), ChainError> {
    let events = runtime.events(events);
    for event in events.iter() {
        let event = event.map_err(|e| ChainError::Protocol(format!("the events of a block cannot be read: {e}")))?;
        if event.phase() != Phase::ApplyExtrinsic(index) || event.pallet_name() != "System" {
            continue;
        }
        match event.event_name() {
            "ExtrinsicSuccess" => return Ok(()),
            "ExtrinsicFailed" => return Err(refusal::named(&runtime.dispatch_error(event.field_bytes())?)),
            _ => {}
        }
    }
    Err(ChainError::Protocol("the block does not tell what became of the call".to_owned()))
}

/// Balances and other facts of accounts.
pub(super) async fn free_balance(session: &Session, account: &Hotkey) -> Result<u64, ChainError> {
    use subxt::dynamic::Value;
    use subxt::ext::scale_decode::DecodeAsType;
    #[derive(DecodeAsType)]
    #[decode_as_type(crate_path = "subxt::ext::scale_decode")]
    struct Account {
        data: Data,
    }
    #[derive(DecodeAsType)]
    #[decode_as_type(crate_path = "subxt::ext::scale_decode")]
    struct Data {
        free: u64,
    }
    let runtime = session.runtime();
    let key = runtime.key_of("System", "Account", vec![Value::from_bytes(account.0)])?;
    let value = state::value(session, &runtime, key, &session.heads().best).await?;
    // An account that nobody ever paid to has no value: its default has a balance of 0.
    let account: Option<Account> = runtime.value_of("System", "Account", value.as_deref())?;
    Ok(account.map_or(0, |account| account.data.free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_signed_at_a_final_block_unless_finality_stands_still() {
        let at = |number: u64, byte| BlockId { number, hash: Hash32([byte; 32]), parent: Hash32([0; 32]) };
        let heads =
            |best, last| Heads { best: at(best, 1), finalized: at(last, 2), since: tokio::time::Instant::now() };
        assert_eq!(birth(&heads(103, 100)).number, 100);
        assert_eq!(birth(&heads(132, 100)).number, 100, "half of the time is left");
        assert_eq!(birth(&heads(133, 100)).number, 133);
        assert_eq!(birth(&heads(99, 100)).number, 100, "a head that is told late");
    }
}
