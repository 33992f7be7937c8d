//! Messages of [`crate::actors::miner::challenge_runner::ChallengeRunner`].

use actix::Message;

use crate::ids::Hotkey;
use crate::wire::synapse::{ChallengeReply, ChallengeRequest, OpeningsRequest};

/// Prove the devices of the request; `caller` is the verified hotkey of the request's header.
#[derive(Debug, Message)]
#[rtype(result = "ChallengeReply")]
pub struct Prove {
    /// Who asks.
    pub caller: Hotkey,
    /// The challenge.
    pub request: ChallengeRequest,
}

/// Open tiles of a device that was proved before.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<u8>, OpenError>")]
pub struct Open {
    /// Who asks; it must be the one who asked for the proof.
    pub caller: Hotkey,
    /// Which tiles.
    pub request: OpeningsRequest,
}

/// Why tiles cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No commitment of this caller under that challenge and device, or it was dropped after its deadline.
    #[error("no commitment is kept for this challenge and device")]
    Unknown,
    /// An opening of the same commitment is being made; ask again.
    #[error("the commitment is being opened")]
    Busy,
    /// The request names positions outside the challenge, or too many.
    #[error("the positions are not valid: {0}")]
    Positions(String),
    /// The prover failed.
    #[error("the prover failed: {0}")]
    Prover(String),
}
