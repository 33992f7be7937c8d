//! A call on its way: checked, signed, submitted, included, and what became of it.
//!
//! Invariants: what the runtime would refuse is not submitted; a call is signed for [`ERA_BLOCKS`] blocks and no longer, so
//! that an answer that never came is settled by waiting; the result is read from the events of the block that holds the
//! call, since the block holds it whether it succeeded or not.
//!
//! Design notes: the block that a call is signed at is a finalised one: a call that names a block which is taken back would be
//! void. Calls of one client are submitted one after the other, or two of them would take the same nonce.

use serde::Deserialize;
use subxt::events::Phase;
use subxt::ext::jsonrpsee::rpc_params;

use super::call::Call;
use super::refusal;
use super::runtime::{Era, Extrinsic, Runtime};
use super::session::{Session, hex0x, unhex};
use crate::chain::{ChainError, Inclusion, Signer};
use crate::ids::{Hash32, Hotkey};

/// Blocks in which a signed call may be included.
pub(super) const ERA_BLOCKS: u64 = 64;
/// Where the runtime is told that a call comes from: a client of the node.
const EXTERNAL: u8 = 2;

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

/// Signs a call and asks the runtime whether it would be taken. Nothing is submitted.
pub(super) async fn check(session: &Session, call: &Call, signer: &dyn Signer) -> Result<Extrinsic, ChainError> {
    let runtime = session.runtime();
    let heads = session.heads();
    let account = signer.hotkey().to_string();
    let nonce: u64 = session.call("system_accountNextIndex", rpc_params![account]).await?;
    let era = Era::Mortal { number: heads.finalized.number, hash: heads.finalized.hash, blocks: ERA_BLOCKS };
    let signed = runtime.sign(call, signer, nonce, era)?;
    let mut arguments = vec![EXTERNAL];
    arguments.extend_from_slice(&signed.bytes);
    arguments.extend_from_slice(&heads.best.hash.0);
    let answer =
        session.function("TaggedTransactionQueue", "validate_transaction", &arguments, heads.best.hash).await?;
    refusal::validity(&answer)?;
    Ok(signed)
}

/// Submits a call and waits until a block holds it; the caller holds the deadline.
///
/// # Errors
/// The refusal. [`ChainError::Unreachable`] and [`ChainError::Protocol`] leave open whether the call was taken.
pub(super) async fn submit(session: &Session, call: &Call, signer: &dyn Signer) -> Result<Inclusion, ChainError> {
    let signed = check(session, call, signer).await?;
    const METHOD: &str = "author_submitAndWatchExtrinsic";
    let mut told = session
        .subscribe::<Status>(METHOD, rpc_params![hex0x(&signed.bytes)], "author_unwatchExtrinsic")
        .await
        .map_err(refusal::pool)?;
    loop {
        let status = match told.next().await {
            Some(Ok(status)) => status,
            Some(Err(why)) => return Err(ChainError::Protocol(format!("{METHOD}: {why}"))),
            None => {
                let why = session.condemnation().unwrap_or_else(|| "the subscription ended".to_owned());
                return Err(ChainError::Unreachable(format!("{why}; whether the call was taken is not known")));
            }
        };
        match status {
            Status::InBlock(hash) | Status::Finalized(hash) => {
                let hash = unhex(&hash).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).map(Hash32);
                let hash = hash.ok_or_else(|| ChainError::Protocol(format!("{METHOD}: the block's hash is none")))?;
                return outcome(session, &signed, hash).await;
            }
            // A call that waits for an earlier nonce will be taken when that came, one that was taken back will come again.
            Status::Future | Status::Ready | Status::Broadcast(_) | Status::Retracted(_) => {}
            Status::FinalityTimeout(_) => {
                return Err(ChainError::Unreachable("the chain finalises no blocks".to_owned()));
            }
            Status::Usurped(_) => return Err(refusal::named("Outdated")),
            Status::Dropped => return Err(refusal::named("PoolFull")),
            Status::Invalid => return Err(refusal::named("Outdated")),
        }
    }
}

/// What became of a call that a block holds.
async fn outcome(session: &Session, signed: &Extrinsic, block: Hash32) -> Result<Inclusion, ChainError> {
    #[derive(Deserialize)]
    struct Signed {
        block: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        header: super::heads::Header,
        extrinsics: Vec<String>,
    }
    let Signed { block: Body { header, extrinsics } } =
        session.call("chain_getBlock", rpc_params![hex0x(&block.0)]).await?;
    let ours = hex0x(&signed.bytes);
    let index = extrinsics.iter().position(|e| e.eq_ignore_ascii_case(&ours)).and_then(|i| u32::try_from(i).ok());
    let index = index.ok_or_else(|| ChainError::Protocol(format!("block {block} does not hold the call")))?;
    let runtime = session.runtime();
    let key = runtime.key_of("System", "Events", vec![])?;
    let events = session.storage(&[key], block).await?.into_iter().next().flatten().unwrap_or_default();
    fate(&runtime, events, index)?;
    Ok(Inclusion { block: header.id().number, extrinsic: signed.hash })
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
    let value = session.storage(&[key], session.heads().best.hash).await?.into_iter().next().flatten();
    // An account that nobody ever paid to has no value: its default has a balance of 0.
    let account: Option<Account> = runtime.value_of("System", "Account", value.as_deref())?;
    Ok(account.map_or(0, |account| account.data.free))
}
