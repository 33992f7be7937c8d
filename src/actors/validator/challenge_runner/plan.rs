//! Who is asked for what in one epoch. Pure: everything it needs is handed in.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::admission::Refusal;
use crate::chain::Metagraph;
use crate::ids::{Coldkey, DeviceId, Hotkey, Uid};
use crate::messages::validator::specs_collector::SpecsResult;
use crate::proof::Work;
use crate::scoring::ScoreTable;
use crate::store::records::PlannedVerdict;
use crate::telemetry::printable;
use crate::verdict::{UnknownCause, Verdict};
use crate::wire::synapse::{DeviceOffer, SpecsReply};

/// Most devices of one miner that are looked at; eight are paid.
pub const MAX_DEVICES: usize = 16;

/// Longest model name kept of a peer, in bytes.
const MAX_MODEL: usize = 64;

/// The work asked of each model, by the table's name of it.
pub type WorkTable = HashMap<String, Work>;

/// What proofs of memory cost in the round: these devices get this verdict without being asked.
pub type MemoryCosts = HashMap<(Hotkey, DeviceId), Verdict>;

/// What happens to one device in the round.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// It is challenged with this work.
    Challenge(Work),
    /// It is left alone: a lease of ours runs on it.
    Leased,
    /// It gets this verdict without being asked.
    Settled(Verdict),
}

/// One device in the round.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedDevice {
    /// The device.
    pub device: DeviceId,
    /// The model the miner names.
    pub model: String,
    /// What happens to it.
    pub task: Task,
}

/// One neuron in the round.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMiner {
    /// Its uid.
    pub uid: Uid,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// Its axon, if it may be asked.
    pub address: Option<SocketAddr>,
    /// Why it may not be asked.
    pub refused: Option<Refusal>,
    /// The verdict on the miner as a whole, where its devices are not known.
    pub whole: Option<Verdict>,
    /// Its devices.
    pub devices: Vec<PlannedDevice>,
}

impl PlannedMiner {
    /// Whether anything is asked of it.
    pub fn is_challenged(&self) -> bool {
        self.address.is_some() && self.devices.iter().any(|d| matches!(d.task, Task::Challenge(_)))
    }

    /// The verdicts that the round will have on it.
    pub fn verdicts(&self) -> impl Iterator<Item = PlannedVerdict> {
        let of = |device, model: &str| PlannedVerdict {
            uid: self.uid,
            hotkey: self.hotkey,
            coldkey: self.coldkey,
            device,
            model: model.to_owned(),
        };
        let whole = self.whole.as_ref().map(|_| of(None, ""));
        let judged = self.devices.iter().filter(|d| d.task != Task::Leased);
        whole.into_iter().chain(judged.map(move |d| of(Some(d.device), &d.model)))
    }
}

/// The round's plan, in the order of `admitted`.
pub fn plan(
    metagraph: &Metagraph,
    admitted: &[(Uid, Hotkey, Result<(), Refusal>)],
    specs: &HashMap<Hotkey, SpecsResult>,
    leased: &HashMap<Hotkey, Vec<DeviceId>>,
    table: &ScoreTable,
    works: &WorkTable,
    costs: &MemoryCosts,
) -> Vec<PlannedMiner> {
    admitted
        .iter()
        .filter_map(|(uid, hotkey, admitted)| {
            let neuron = metagraph.by_hotkey(hotkey)?;
            let mut miner = PlannedMiner {
                uid: *uid,
                hotkey: *hotkey,
                coldkey: neuron.coldkey,
                address: metagraph.axon_address(hotkey),
                refused: None,
                whole: None,
                devices: Vec::new(),
            };
            match admitted {
                Ok(()) => match devices(hotkey, specs.get(hotkey), leased.get(hotkey), table, works, costs) {
                    Ok(devices) => miner.devices = devices,
                    Err(whole) => miner.whole = Some(whole),
                },
                Err(refusal) => miner.refused = Some(refusal.clone()),
            }
            Some(miner)
        })
        .collect()
}

/// The devices that a miner offers, each once, as many as are looked at.
pub fn offers(reply: &SpecsReply) -> impl Iterator<Item = &DeviceOffer> {
    let mut seen = std::collections::HashSet::new();
    reply.devices.iter().filter(move |offer| seen.insert(offer.device)).take(MAX_DEVICES)
}

/// A model's name as it is kept of a peer.
pub fn model_name(offer: &DeviceOffer) -> String {
    printable(&offer.model, MAX_MODEL)
}

fn devices(
    hotkey: &Hotkey,
    specs: Option<&SpecsResult>,
    leased: Option<&Vec<DeviceId>>,
    table: &ScoreTable,
    works: &WorkTable,
    costs: &MemoryCosts,
) -> Result<Vec<PlannedDevice>, Verdict> {
    let reply = match specs {
        None => return Err(Verdict::unknown(UnknownCause::NoSpecs, "the miner was not asked for its specs")),
        Some(Err((cause, detail))) => return Err(Verdict::unknown(*cause, detail.clone())),
        Some(Ok(reply)) if reply.devices.is_empty() => {
            return Err(Verdict::unknown(UnknownCause::NoDevice, "the miner's specs list no device"));
        }
        Some(Ok(reply)) => reply,
    };
    let planned = offers(reply)
        .map(|offer| {
            let is_leased = leased.is_some_and(|l| l.contains(&offer.device));
            let work = table.find(&offer.model).and_then(|row| works.get(&row.name));
            let task = match work {
                _ if is_leased => Task::Leased,
                Some(work) => match costs.get(&(*hotkey, offer.device)) {
                    Some(verdict) => Task::Settled(verdict.clone()),
                    None => Task::Challenge(*work),
                },
                None => Task::Settled(Verdict::unknown(
                    UnknownCause::UncalibratedModel,
                    format!("no calibrated row for model '{}'", model_name(offer)),
                )),
            };
            PlannedDevice { device: offer.device, model: model_name(offer), task }
        })
        .collect();
    Ok(planned)
}
