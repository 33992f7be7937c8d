//! Messages of [`crate::actors::validator::challenge_runner::ChallengeRunner`].

use std::sync::Arc;

use actix::Message;
use serde::Serialize;

use crate::admission::Refusal;
use crate::ids::{BlockNumber, Coldkey, Epoch, Hotkey, Uid};
use crate::scoring::DeviceJudgement;
use crate::verdict::Verdict;

/// What became of one neuron in one epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MinerJudgement {
    /// Its uid.
    pub uid: Uid,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// Why it was not asked at all, if so.
    pub refused: Option<Refusal>,
    /// The verdict on the miner as a whole, where its devices are not known: unreachable, no specs, no device.
    pub whole: Option<Verdict>,
    /// Its devices, in the order it offers them, with what each brings to the score.
    pub devices: Vec<DeviceJudgement>,
}

/// An epoch was judged and its verdicts are stored. Told to whoever scores and rents, and again with every block until the
/// next one.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct EpochJudged {
    /// The epoch.
    pub epoch: Epoch,
    /// The block the epoch's run began at.
    pub block: BlockNumber,
    /// Every neuron that announces an axon.
    pub miners: Arc<Vec<MinerJudgement>>,
}

/// The last epoch judged since the start, if any.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<EpochJudged>")]
pub struct LastJudged;
