//! Messages of [`crate::actors::miner::challenge_runner::ChallengeRunner`].

use actix::Message;

use crate::ids::Hotkey;
use crate::wire::synapse::{
    ChallengeReply, ChallengeRequest, MemoryFillRequest, MemoryOpenRequest, MemoryScanRequest, OpeningsRequest,
};

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

/// Fill the memory of the request's devices.
#[derive(Debug, Message)]
#[rtype(result = "ChallengeReply")]
pub struct FillMemory {
    /// Who asks.
    pub caller: Hotkey,
    /// The challenge.
    pub request: MemoryFillRequest,
}

/// Scan the memory that was filled for the caller.
#[derive(Debug, Message)]
#[rtype(result = "ChallengeReply")]
pub struct ScanMemory {
    /// Who asks; it must be the one for whom it was filled.
    pub caller: Hotkey,
    /// Which memory, and the first scan's nonce.
    pub request: MemoryScanRequest,
}

/// Open blocks of memory that was scanned.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<u8>, OpenError>")]
pub struct OpenMemory {
    /// Who asks; it must be the one for whom it was filled.
    pub caller: Hotkey,
    /// Which blocks.
    pub request: MemoryOpenRequest,
}

/// Why tiles or blocks cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No commitment of this caller under that challenge and device, or it was dropped after its deadline. One that is on
    /// record and still has time is made again.
    #[error("no commitment is kept for this challenge and device")]
    Unknown,
    /// An opening of the same commitment is being made, or the commitment is made again; ask again.
    #[error("the commitment is being opened or made again, ask again")]
    Busy,
    /// The request names positions outside the challenge, or too many.
    #[error("the positions are not valid: {0}")]
    Positions(String),
    /// The prover failed.
    #[error("the prover failed: {0}")]
    Prover(String),
    /// The commitment is gone and cannot be made again now.
    #[error("the commitment cannot be made again: {0}")]
    NotAgain(String),
}
