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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::validator::challenge_runner::plan::{self as works, Task};
    use crate::chain::{AxonInfo, BlockHead, EpochClock, Neuron};
    use crate::ids::{Hash32, Netuid};
    use crate::proof::Work;
    use crate::scoring::ModelRow;
    use crate::verdict::{FailReason, Verdict};
    use crate::wire::synapse::DeviceOffer;

    const MINER: Hotkey = Hotkey([1; 32]);

    fn metagraph() -> Metagraph {
        let head = BlockHead { number: 1, hash: Hash32([0; 32]), timestamp_ms: 0 };
        let axon = Some(AxonInfo { block: 0, version: 183, ip: "127.0.0.1".parse().unwrap(), port: 8091, protocol: 4 });
        let neurons = vec![Neuron { hotkey: MINER, axon, ..Neuron::idle(1) }];
        Metagraph { netuid: Netuid(1), head, epochs: EpochClock::Modulo { netuid: Netuid(1), tempo: 5 }, neurons }
    }

    fn table() -> ScoreTable {
        let row =
            |name: &str| ModelRow { name: name.into(), base_micro: 1_000_000, timed: false, ..ModelRow::default() };
        let known = ModelRow { aliases: vec!["alias".into()], ..row("known") };
        ScoreTable::new(vec![known, row("without")], 8).unwrap()
    }

    fn specs(models: &[&str]) -> Arc<SpecsReply> {
        let offer = |(n, model): (u8, &&str)| DeviceOffer {
            device: DeviceId::cpu(n),
            model: (*model).to_owned(),
            memory_bytes: 0,
        };
        let devices = (0..).zip(models).map(offer).collect();
        Arc::new(SpecsReply {
            version: String::new(),
            specs: serde_json::Value::Null,
            devices,
            leases: Vec::new(),
            receipts: Vec::new(),
        })
    }

    #[test]
    fn devices_that_are_leased_or_whose_row_says_nothing_of_memory_are_not_asked() {
        let work = MemoryWork { size: Size::new(4, 1, 1).unwrap(), floor: Some(5) };
        let memories = HashMap::from([("known".to_owned(), work)]);
        let known = HashMap::from([(MINER, specs(&["known", "without", "nobody's", "alias", "known"]))]);
        let leased = HashMap::from([(MINER, vec![DeviceId::cpu(4)])]);
        let admitted = [(Uid(1), MINER, Ok(()))];
        let plans = plan(&metagraph(), &admitted, &known, &leased, &table(), &memories);
        let asked: Vec<_> = plans[0].devices.iter().map(|d| (d.device, d.row.as_str(), d.work)).collect();
        assert_eq!(asked, [(DeviceId::cpu(0), "known", work), (DeviceId::cpu(3), "known", work)]);
        assert_eq!(plans[0].verdicts().filter_map(|v| v.device).count(), 2);
        assert_eq!(plan(&metagraph(), &admitted, &known, &leased, &table(), &HashMap::new()), []);
        assert_eq!(plan(&metagraph(), &admitted, &HashMap::new(), &leased, &table(), &memories), []);
        assert_eq!(plan(&metagraph(), &[], &known, &leased, &table(), &memories), []);
    }

    #[test]
    fn a_device_whose_memory_failed_is_settled_in_the_round_of_work_unless_it_is_leased() {
        let fail = Verdict::fail(FailReason::MemoryMismatch, "the memory proof of epoch 10: …");
        let cost = |n| ((MINER, DeviceId::cpu(n)), fail.clone());
        let work = Work::new(32, 64, 1).unwrap();
        let works = HashMap::from([("known".to_owned(), work)]);
        let known = HashMap::from([(MINER, Ok(specs(&["known", "known", "known"])))]);
        let leased = HashMap::from([(MINER, vec![DeviceId::cpu(1)])]);
        let costs = HashMap::from([cost(0), cost(1)]);
        let admitted = [(Uid(1), MINER, Ok(()))];
        let plans = works::plan(&metagraph(), &admitted, &known, &leased, &table(), &works, &costs);
        let tasks: Vec<_> = plans[0].devices.iter().map(|d| d.task.clone()).collect();
        assert_eq!(tasks, [Task::Settled(fail.clone()), Task::Leased, Task::Challenge(work)]);
    }
}
