//! Messages of [`crate::actors::validator::canary_runner::CanaryRunner`].

use actix::Message;

use crate::ids::Hotkey;
use crate::store::records::CanaryRow;

/// Run a canary at this miner now, on all of its devices that are free. Replies when it has ended; it may take as long as all
/// of its stages together.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<CanaryRow, CanaryError>")]
pub struct RunCanary(pub Hotkey);

/// Why a canary was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanaryError {
    /// The validator has only just started, or another canary is under way.
    #[error("{0}, ask again")]
    Busy(&'static str),
    /// The miner has no device that could be rented now.
    #[error("the miner has no device that is proved, free and of a model whose work is known")]
    NoDevice,
    /// There is no program to upload.
    #[error("the prover that would be uploaded cannot be read: {0}")]
    NoProgram(String),
    /// It cannot be recorded, so nothing was rented; or its end was not recorded.
    #[error("the journal does not record the canary: {0}")]
    Journal(String),
}
