//! What is known of miners when a machine is chosen. The choice itself is [`crate::rental::select`]'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{ASK, AllocationManager, AllocationSetup};
use crate::actors::validator::challenge_runner::memory_standings;
use crate::actors::validator::challenge_runner::plan::offers;
use crate::hardware::Specs;
use crate::ids::{DeviceId, Hotkey};
use crate::lease::ProvedDevice;
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::allocation_manager::{RentError, RentRequest};
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::messages::validator::specs_collector::KnownSpecs;
use crate::rental::select::{Candidate, Device, Machine, candidates};
use crate::scoring::{DeviceJudgement, MemoryStandings, MinerJudgement};
use crate::verdict::Verdict;
use crate::wire::synapse::SpecsReply;

/// Kinds of objections that an error names at most.
const MAX_OBJECTIONS: usize = 3;

/// What others know of the miners, asked for once for each request. Empty where nobody asked for it.
#[derive(Default)]
pub(super) struct Facts {
    specs: HashMap<Hotkey, Arc<SpecsReply>>,
    memory: MemoryStandings,
}

/// Asks for what this request needs to be judged. Specs are a miner's own words; nothing is asked of a miner here.
pub(super) async fn facts(setup: &AllocationSetup, needed: bool) -> Result<Facts, RentError> {
    if !needed {
        return Ok(Facts::default());
    }
    let specs = setup.specs.ask(KnownSpecs, ASK);
    let (specs, memory) = tokio::join!(specs, memory_standings(&setup.journal));
    let specs = specs.map_err(|e| RentError::Unavailable(format!("the specs collector: {e}")))?;
    let memory = memory.map_err(|e| RentError::Unavailable(format!("the proofs of memory: {e}")))?;
    Ok(Facts { specs, memory })
}

/// The devices of a miner that were proved in a judged epoch.
pub(super) fn proved(miner: &MinerJudgement) -> impl Iterator<Item = &DeviceJudgement> {
    miner.devices.iter().filter(|d| matches!(d.verdict, Verdict::Pass { .. }) || d.kept_rate.is_some())
}

impl AllocationManager {
    /// Every neuron that was judged, as a candidate for the request.
    pub(super) fn candidates(&self, request: &RentRequest, facts: &Facts) -> Result<Vec<Candidate>, RentError> {
        let view = self.setup.view.borrow().clone();
        let view = view.ok_or_else(|| RentError::NoneFree("the subnet is not known yet".into()))?;
        if view.is_stored() {
            return Err(RentError::NoneFree("the chain was not read since the start".into()));
        }
        let Some(judged) = &self.judged else {
            return Err(RentError::NoneFree("no epoch was judged since the start".into()));
        };
        let now = self.setup.clock.now_ms();
        let mut held = self.devices(|l| l.state.holds_devices());
        for (miner, devices) in self.wanted.values() {
            held.entry(*miner).or_default().extend(devices);
        }
        let mut leases: HashMap<Hotkey, usize> = HashMap::new();
        for lease in self.book.open().filter(|l| l.state.holds_devices()) {
            *leases.entry(lease.miner).or_default() += 1;
        }
        let machines: Vec<Machine> = judged
            .miners
            .iter()
            .map(|miner| {
                let held = held.get(&miner.hotkey).map(Vec::as_slice).unwrap_or_default();
                let mut machine = machine(miner, judged, &view, facts, held);
                machine.leases = leases.get(&miner.hotkey).copied().unwrap_or(0);
                machine.trouble = self.record.trouble(&miner.hotkey, now, self.setup.half_life);
                machine
            })
            .collect();
        Ok(candidates(&machines, &request.requirements, request.miner.as_ref()))
    }

    /// All that this miner had proved in the last judged epoch.
    pub(super) fn proved_of(&self, miner: &Hotkey) -> Vec<ProvedDevice> {
        let judged = self.judged.as_ref().and_then(|judged| judged.miners.iter().find(|m| m.hotkey == *miner));
        let of = |d: &DeviceJudgement| ProvedDevice { device: d.device, model: d.model.clone() };
        judged.map(|miner| proved(miner).map(of).collect()).unwrap_or_default()
    }
}

/// A miner as it was judged, with what its specs tell. `leases` and `trouble` are left at nothing.
fn machine(
    miner: &MinerJudgement,
    judged: &EpochJudged,
    view: &ChainView,
    facts: &Facts,
    held: &[DeviceId],
) -> Machine {
    let told = facts.specs.get(&miner.hotkey);
    let memory: HashMap<DeviceId, u64> =
        told.iter().flat_map(|reply| offers(reply)).map(|offer| (offer.device, offer.memory_bytes)).collect();
    let specs = told.and_then(|reply| Specs::from_peer(reply.specs.to_string().as_bytes()).ok());
    let device = |d: &DeviceJudgement| {
        let row = judged.table.find(&d.model);
        let best = row.and_then(|row| row.memory).map(|limit| limit.best);
        let told = memory.get(&d.device).copied().filter(|bytes| *bytes > 0);
        let names = row.map(|row| row.aliases.iter().chain([&row.name]).cloned().collect());
        Device {
            device: d.device,
            model: d.model.clone(),
            aliases: names.unwrap_or_default(),
            // Nobody has more than the model that he proved.
            memory_bytes: told.map(|told| best.map_or(told, |best| told.min(best))),
            memory_proved: facts.memory.get(miner.hotkey, d.device).is_some_and(|standing| standing.is_proved()),
            held: held.contains(&d.device),
        }
    };
    let neuron = view.metagraph.by_hotkey(&miner.hotkey);
    let processor = specs.as_ref().and_then(|s| s.processor.as_ref());
    let cores = specs.as_ref().and_then(|s| s.cpu.as_ref()).map(|cpu| cpu.count);
    Machine {
        uid: neuron.map_or(miner.uid, |n| n.uid),
        hotkey: miner.hotkey,
        reachable: view.metagraph.axon_address(&miner.hotkey).is_some(),
        devices: proved(miner).map(device).collect(),
        cpus: cores.or(processor.map(|p| p.usable_cores)),
        ram_bytes: specs.as_ref().and_then(|s| s.ram.as_ref()).map(|ram| ram.available),
        disk_bytes: specs.as_ref().and_then(|s| s.hard_disk.as_ref()).map(|disk| disk.free),
        leases: 0,
        trouble: 0,
        incentive: neuron.map_or(0, |n| n.incentive),
    }
}

/// Why nobody is left to ask: what stands in the way of most.
pub(super) fn none_free(request: &RentRequest, candidates: &[Candidate], tried: &HashSet<Hotkey>) -> String {
    let mut reasons: HashMap<String, usize> = HashMap::new();
    for candidate in candidates.iter().filter(|c| !tried.contains(&c.hotkey)) {
        if let Some(first) = candidate.objections.first() {
            *reasons.entry(first.to_string()).or_default() += 1;
        }
    }
    let mut reasons: Vec<(String, usize)> = reasons.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let told: Vec<String> =
        reasons.iter().take(MAX_OBJECTIONS).map(|(why, count)| format!("{count} × {why}")).collect();
    let miners = candidates.len();
    match told.is_empty() {
        true => format!("{}; {miners} miners were judged", request.requirements),
        false => format!("{}; of {miners} miners: {}", request.requirements, told.join("; ")),
    }
}
