//! Messages of [`crate::actors::validator::challenge_runner::ChallengeRunner`].

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Message;

use crate::ids::{BlockNumber, DeviceId, Epoch, Hotkey};
pub use crate::scoring::MinerJudgement;
use crate::scoring::ScoreTable;

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
    /// The models and what they are worth, as they held when the epoch's round began.
    pub table: Arc<ScoreTable>,
    /// The devices that other validators rent, by the receipts that count.
    pub receipts: Arc<BTreeMap<Hotkey, Vec<DeviceId>>>,
    /// Nobody was judged, for reasons of our own: what earlier epochs say still holds.
    pub void: bool,
}

/// The last epoch judged since the start, if any.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<EpochJudged>")]
pub struct LastJudged;
