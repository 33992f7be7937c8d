//! Whose memory is asked for in one round. Pure: everything it needs is handed in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::actors::validator::challenge_runner::plan::{model_name, offers};
use crate::admission::Refusal;
use crate::chain::Metagraph;
use crate::ids::{Coldkey, DeviceId, Hotkey, Uid};
use crate::proof::memory::Size;
use crate::scoring::ScoreTable;
use crate::store::records::PlannedVerdict;
use crate::wire::synapse::SpecsReply;

/// What is asked of a model's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryWork {
    /// What is filled and scanned.
    pub size: Size,
    /// The bandwidth that a claim of the model needs, in bytes a second, if it has a floor.
    pub floor: Option<u64>,
}

/// What is asked of each model, by the table's name of it. A model that is missing is not asked.
pub type MemoryTable = HashMap<String, MemoryWork>;

/// One device in the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDevice {
    /// The device.
    pub device: DeviceId,
    /// The model as the miner names it.
    pub model: String,
    /// The table's name of it.
    pub row: String,
    /// What is asked.
    pub work: MemoryWork,
}

/// One miner in the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMiner {
    /// Its uid.
    pub uid: Uid,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// Its axon.
    pub address: SocketAddr,
    /// Its devices, at least one.
    pub devices: Vec<PlannedDevice>,
}

impl PlannedMiner {
    /// The verdicts that the round will have on it.
    pub fn verdicts(&self) -> impl Iterator<Item = PlannedVerdict> {
        self.devices.iter().map(|d| PlannedVerdict {
            uid: self.uid,
            hotkey: self.hotkey,
            coldkey: self.coldkey,
            device: Some(d.device),
            model: d.model.clone(),
        })
    }
}

/// The round's plan, in the order of `admitted`: every device of an admitted miner that is not leased, and whose row says what
/// its memory is.
pub fn plan(
    metagraph: &Metagraph,
    admitted: &[(Uid, Hotkey, Result<(), Refusal>)],
    specs: &HashMap<Hotkey, Arc<SpecsReply>>,
    leased: &HashMap<Hotkey, Vec<DeviceId>>,
    table: &ScoreTable,
    memories: &MemoryTable,
) -> Vec<PlannedMiner> {
    let miner = |(uid, hotkey, admitted): &(Uid, Hotkey, Result<(), Refusal>)| {
        admitted.as_ref().ok()?;
        let (neuron, reply) = (metagraph.by_hotkey(hotkey)?, specs.get(hotkey)?);
        let devices: Vec<PlannedDevice> = offers(reply)
            .filter(|offer| !leased.get(hotkey).is_some_and(|leased| leased.contains(&offer.device)))
            .filter_map(|offer| {
                let row = table.find(&offer.model)?;
                let work = *memories.get(&row.name)?;
                Some(PlannedDevice { device: offer.device, model: model_name(offer), row: row.name.clone(), work })
            })
            .collect();
        let (coldkey, address) = (neuron.coldkey, metagraph.axon_address(hotkey)?);
        let asked = !devices.is_empty();
        asked.then_some(PlannedMiner { uid: *uid, hotkey: *hotkey, coldkey, address, devices })
    };
    admitted.iter().filter_map(miner).collect()
}
