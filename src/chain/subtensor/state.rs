//! Storage as of one block, read with the runtime that wrote it.
//!
//! Invariant: nothing is read, nor taken to be missing, by the words of another runtime. Which one a block's state is of is
//! asked for in the same call as the values.
//!
//! Design notes: around an upgrade two runtimes lay claim to a block. The block that sets `:code` is executed by the old one:
//! its state, events included, is in the old form, and its `System.LastRuntimeUpgrade` names the old version. But
//! `state_getRuntimeVersion`, the metadata and the runtime's functions as of that block are the new one's, because they run
//! the code that is stored. The new code executes the next block: it migrates storage and writes `LastRuntimeUpgrade`
//! before anything else of that block (`Executive::initialize_block`). So `LastRuntimeUpgrade` says what a state is to be read
//! with, and the version says what the next call is to be signed for.

use std::collections::HashMap;

use subxt::ext::scale_decode::DecodeAsType;

use super::heads::BlockId;
use super::runtime::Runtime;
use super::session::Session;
use crate::chain::ChainError;

/// Keys of one call to the node; nodes refuse calls that are too large.
const KEYS_PER_CALL: usize = 1024;

/// Values of storage by key; `None` where there is no value.
pub(super) type Values = HashMap<Vec<u8>, Option<Vec<u8>>>;

#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct LastUpgrade {
    spec_version: u32,
}

/// Values as of one block, in calls of a bounded size; in one call also where there are no keys.
///
/// # Errors
/// [`ChainError::Upgrading`] if the block's state is not of `runtime`.
pub(super) async fn values(
    session: &Session,
    runtime: &Runtime,
    keys: &[Vec<u8>],
    at: &BlockId,
) -> Result<Values, ChainError> {
    let upgrade = runtime.key_of("System", "LastRuntimeUpgrade", vec![])?;
    let asked: Vec<Vec<u8>> = std::iter::once(&upgrade).chain(keys).cloned().collect();
    let mut all = Values::with_capacity(asked.len());
    for some in asked.chunks(KEYS_PER_CALL) {
        let values = session.storage(some, at.hash).await?;
        all.extend(some.iter().cloned().zip(values));
    }
    is_of(runtime, all.remove(&upgrade).flatten().as_deref(), at)?;
    Ok(all)
}

/// One value as of one block.
///
/// # Errors
/// As for [`values`].
pub(super) async fn value(
    session: &Session,
    runtime: &Runtime,
    key: Vec<u8>,
    at: &BlockId,
) -> Result<Option<Vec<u8>>, ChainError> {
    let mut all = values(session, runtime, std::slice::from_ref(&key), at).await?;
    Ok(all.remove(&key).flatten())
}

/// Whether a block with these bytes of `System.LastRuntimeUpgrade` is to be read with this runtime.
fn is_of(runtime: &Runtime, bytes: Option<&[u8]>, at: &BlockId) -> Result<(), ChainError> {
    // Written at genesis: a chain without it never had another runtime.
    let Some(bytes) = bytes else { return Ok(()) };
    let last: Option<LastUpgrade> = runtime.value_of("System", "LastRuntimeUpgrade", Some(bytes))?;
    let in_use = runtime.spec_version();
    match last {
        Some(LastUpgrade { spec_version }) if spec_version != in_use => {
            Err(ChainError::Upgrading(format!("block {} is of spec {spec_version}, in use is {in_use}", at.number)))
        }
        _ => Ok(()),
    }
}
