//! The paths about canary rentals.

use std::time::Duration;

use actix_web::web::{Json, Path};

use super::api::Canaries;
use super::caller::Caller;
use super::penalties::{hotkey, journal};
use super::{Code, ControlError};
use crate::messages::journal::LastCanaries;
use crate::messages::validator::canary_runner::{CanaryError, RunCanary};
use crate::store::records::CanaryRow;

/// How long the node's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// How long a canary may take: all of its stages with the longest limits that the settings allow.
const RUN: Duration = Duration::from_secs(4 * 60 * 60);
/// Canaries that are listed.
const LISTED: u32 = 100;

impl From<CanaryError> for ControlError {
    fn from(error: CanaryError) -> Self {
        let (code, remedy) = match &error {
            CanaryError::Busy(_) => (Code::Unavailable, "ask again"),
            CanaryError::NoDevice => (Code::Refused, "see compute-register table and leases"),
            CanaryError::NoProgram(_) => (Code::Refused, "build it with scripts/prover and name it in canary.prover"),
            CanaryError::Journal(_) => (Code::Journal, "see the node's log and its disk"),
        };
        ControlError::new(code, error.to_string(), remedy)
    }
}

pub(super) async fn list(node: Caller) -> Result<Json<Canaries>, ControlError> {
    node.validator()?;
    let canaries = node.journal.ask(LastCanaries(None, LISTED), ASK).await?.map_err(|e| journal(&e))?;
    Ok(Json(Canaries { canaries }))
}

pub(super) async fn run(node: Caller, miner: Path<String>) -> Result<Json<CanaryRow>, ControlError> {
    let miner = hotkey(&miner)?;
    Ok(Json(node.validator()?.canaries.ask(RunCanary(miner), RUN).await??))
}
