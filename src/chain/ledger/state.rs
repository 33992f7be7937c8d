//! The ledger's rules, pure: no clock, no I/O. The same genesis, times and calls give the same states and hashes.
//!
//! A call is looked at by [`State::check`] (`state/rules.rs`), which changes nothing and is also what the pool asks, and
//! then done. Checks come in the real chain's order, so that a call that is wrong in two ways is refused for the same
//! reason here.
//! In a block the epoch step comes first, then the calls, as on chain.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use self::commits::Commit;
use self::rules::served_ip;
use super::blake2b_256;
use super::call::{Call, SignedCall};
use super::consensus::{self, Participant};
use super::genesis::{GenesisConfig, GenesisError};
use crate::chain::{
    AxonInfo, BlockHead, EpochClock, Hyperparameters, Metagraph, Neuron, PrometheusInfo, Rejection, is_epoch_block,
};
use crate::ids::{BlockNumber, Coldkey, Epoch, Hash32, Hotkey, Netuid, Uid};

/// Block hashes that are kept, as many as the real chain keeps (`BlockHashCount`).
pub const HASHES_KEPT: usize = 2400;

/// Something that a block did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A hotkey got a uid.
    NeuronRegistered(Uid, Hotkey),
    /// A hotkey lost its uid to another.
    NeuronReplaced(Uid, Hotkey),
    /// An axon was published.
    AxonServed(Hotkey),
    /// A metrics address was published.
    PrometheusServed(Hotkey),
    /// Weights were set.
    WeightsSet(Uid),
    /// A hash of weights was committed.
    WeightsCommitted(Uid),
    /// Weights were revealed, and set.
    WeightsRevealed(Uid),
    /// Stake was added, in rao.
    StakeAdded(Hotkey, u64),
    /// The epoch step ran; this epoch begins.
    EpochRan(Epoch),
}

/// A call as a block holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Included {
    /// The call.
    pub call: SignedCall,
    /// Why it had no effect, if it had none. Its nonce is used up all the same.
    pub refused: Option<Rejection>,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Number, hash and time.
    pub head: BlockHead,
    /// The hash of the block before.
    pub parent: Hash32,
    /// The calls, in order.
    pub calls: Vec<Included>,
    /// What it did; not kept on disk, replaying gives it again.
    #[serde(skip)]
    pub events: Vec<Event>,
}

/// A neuron's slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    hotkey: Hotkey,
    registered_at: BlockNumber,
    last_update: BlockNumber,
    axon: Option<AxonInfo>,
    prometheus: Option<PrometheusInfo>,
    weights: Vec<(u16, u16)>,
    incentive: u16,
    dividends: u16,
    validator_permit: bool,
}

impl Slot {
    fn new(hotkey: Hotkey, block: BlockNumber) -> Self {
        Slot {
            hotkey,
            registered_at: block,
            // As on chain: a fresh neuron waits out the weights rate limit once.
            last_update: block,
            axon: None,
            prometheus: None,
            weights: Vec::new(),
            incentive: 0,
            dividends: 0,
            validator_permit: false,
        }
    }

    /// What decides who is replaced: on chain the emission, which is the sum of both shares.
    fn pruning_score(&self) -> u32 {
        u32::from(self.incentive) + u32::from(self.dividends)
    }
}

/// The ledger after some block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    netuid: Netuid,
    hyperparameters: Hyperparameters,
    max_registrations_per_block: u16,
    genesis: BlockHead,
    head: BlockHead,
    /// The newest hashes, the head's last.
    hashes: VecDeque<Hash32>,
    /// By uid.
    slots: Vec<Slot>,
    /// Registrations in the block that is being made.
    registrations: u16,
    nonces: BTreeMap<Hotkey, u64>,
    balances: BTreeMap<Coldkey, u64>,
    stakes: BTreeMap<Hotkey, u64>,
    owners: BTreeMap<Hotkey, Coldkey>,
    burned_rao: u64,
    /// Commits that are not revealed, by account, oldest first.
    #[serde(default)]
    commits: BTreeMap<Hotkey, VecDeque<Commit>>,
}

// === reading ===

impl State {
    /// Block 0, made at `timestamp_ms`.
    ///
    /// # Errors
    /// If the configuration is impossible.
    pub fn genesis(config: &GenesisConfig, timestamp_ms: u64) -> Result<Self, GenesisError> {
        config.validate()?;
        let genesis = BlockHead { number: 0, hash: config.hash(timestamp_ms), timestamp_ms };
        let mut balances = BTreeMap::new();
        let mut stakes = BTreeMap::new();
        // No overflow: the sum over everybody was checked.
        for (who, rao) in &config.endowed {
            *balances.entry(*who).or_insert(0) += rao;
        }
        for (who, rao) in &config.stakes {
            *stakes.entry(*who).or_insert(0) += rao;
        }
        Ok(State {
            netuid: config.netuid,
            hyperparameters: config.hyperparameters.clone(),
            max_registrations_per_block: config.max_registrations_per_block,
            genesis,
            head: genesis,
            hashes: VecDeque::from([genesis.hash]),
            slots: Vec::new(),
            registrations: 0,
            nonces: BTreeMap::new(),
            balances,
            stakes,
            owners: BTreeMap::new(),
            burned_rao: 0,
            commits: BTreeMap::new(),
        })
    }

    /// Block 0.
    pub fn genesis_head(&self) -> BlockHead {
        self.genesis
    }

    /// The newest block.
    pub fn head(&self) -> BlockHead {
        self.head
    }

    /// The hash of block `n`, if it exists and is among the newest [`HASHES_KEPT`].
    pub fn block_hash(&self, n: BlockNumber) -> Option<Hash32> {
        let back = usize::try_from(self.head.number.checked_sub(n)?).ok()?;
        let at = self.hashes.len().checked_sub(1)?.checked_sub(back)?;
        self.hashes.get(at).copied()
    }

    /// The subnet.
    pub fn netuid(&self) -> Netuid {
        self.netuid
    }

    /// The subnet's rules.
    pub fn hyperparameters(&self) -> &Hyperparameters {
        &self.hyperparameters
    }

    /// The nonce that the account's next call must carry.
    pub fn nonce(&self, account: &Hotkey) -> u64 {
        self.nonces.get(account).copied().unwrap_or(0)
    }

    /// The account's free balance, in rao.
    pub fn balance(&self, coldkey: &Coldkey) -> u64 {
        self.balances.get(coldkey).copied().unwrap_or(0)
    }

    /// The stake behind a hotkey, in rao.
    pub fn stake(&self, hotkey: &Hotkey) -> u64 {
        self.stakes.get(hotkey).copied().unwrap_or(0)
    }

    /// All money there is or was: balances, stakes and what was burned, in rao. Never changes.
    pub fn total_rao(&self) -> u128 {
        let held = self.balances.values().chain(self.stakes.values()).map(|v| u128::from(*v)).sum::<u128>();
        held + u128::from(self.burned_rao)
    }

    /// The subnet's neurons.
    pub fn metagraph(&self) -> Metagraph {
        let neurons = self.slots.iter().enumerate().map(|(uid, s)| Neuron {
            uid: Uid(uid as u16),
            hotkey: s.hotkey,
            // Every registered hotkey has an owner; zeros would be the chain's answer for none.
            coldkey: self.owners.get(&s.hotkey).copied().unwrap_or(Coldkey([0; 32])),
            stake_rao: self.stake(&s.hotkey),
            validator_permit: s.validator_permit,
            active: self.is_active(s, self.head.number),
            axon: s.axon.filter(|a| !a.ip.is_unspecified()),
            prometheus: s.prometheus,
            registered_at: s.registered_at,
            last_update: s.last_update,
            incentive: s.incentive,
            dividends: s.dividends,
            standing: crate::chain::Standing::default(),
            weights: s.weights.iter().map(|(uid, w)| (Uid(*uid), *w)).collect(),
        });
        Metagraph {
            netuid: self.netuid,
            head: self.head,
            epochs: EpochClock::Modulo { netuid: self.netuid, tempo: self.hyperparameters.tempo },
            neurons: neurons.collect(),
        }
    }

    fn uid_of(&self, hotkey: &Hotkey) -> Option<usize> {
        self.slots.iter().position(|s| s.hotkey == *hotkey)
    }

    fn is_active(&self, slot: &Slot, at: BlockNumber) -> bool {
        at.saturating_sub(slot.last_update) < self.hyperparameters.activity_cutoff
    }

    /// The block that a call would be included in now.
    fn next_number(&self) -> BlockNumber {
        self.head.number.saturating_add(1)
    }
}

// === changing ===

impl State {
    /// Does one call as part of the block that is being made.
    ///
    /// # Errors
    /// What [`check`](State::check) says; the state is then unchanged.
    pub fn apply(&mut self, netuid: Netuid, call: &Call, signer: &Hotkey) -> Result<Vec<Event>, Rejection> {
        self.check(netuid, call, signer)?;
        let block = self.next_number();
        match call {
            Call::BurnedRegister { hotkey } => self.register(*hotkey, Coldkey(signer.0)),
            Call::ServeAxon { version, ip, port, ip_type, protocol } => {
                let ip = served_ip(*ip, *ip_type)?;
                let uid = self.uid_of(signer).ok_or(Rejection::HotKeyNotRegisteredInNetwork)?;
                let info = AxonInfo { block, version: *version, ip, port: *port, protocol: *protocol };
                self.slots[uid].axon = Some(info);
                Ok(vec![Event::AxonServed(*signer)])
            }
            Call::ServePrometheus { version, ip, port, ip_type } => {
                let ip = served_ip(*ip, *ip_type)?;
                let uid = self.uid_of(signer).ok_or(Rejection::HotKeyNotRegisteredInNetwork)?;
                self.slots[uid].prometheus = Some(PrometheusInfo { block, version: *version, ip, port: *port });
                Ok(vec![Event::PrometheusServed(*signer)])
            }
            Call::SetWeights { uids, values, .. } => {
                let uid = self.uid_of(signer).ok_or(Rejection::HotKeyNotRegisteredInSubNet)?;
                let slot = &mut self.slots[uid];
                slot.weights = uids.iter().copied().zip(consensus::max_upscale(values)).collect();
                slot.last_update = block;
                Ok(vec![Event::WeightsSet(Uid(uid as u16))])
            }
            Call::CommitWeights { hash } => {
                let uid = self.uid_of(signer).ok_or(Rejection::HotKeyNotRegisteredInSubNet)?;
                self.commit(signer, *hash);
                self.slots[uid].last_update = block;
                Ok(vec![Event::WeightsCommitted(Uid(uid as u16))])
            }
            Call::RevealWeights { uids, values, salt, version_key } => {
                let at = self.check_reveal(signer, uids, values, salt, *version_key)?;
                let uid = self.uid_of(signer).ok_or(Rejection::HotKeyNotRegisteredInSubNet)?;
                self.take_commits(signer, at);
                self.slots[uid].weights = uids.iter().copied().zip(consensus::max_upscale(values)).collect();
                Ok(vec![Event::WeightsRevealed(Uid(uid as u16))])
            }
            Call::AddStake { hotkey, amount_rao } => {
                self.withdraw(&Coldkey(signer.0), *amount_rao)?;
                // No overflow: all money together fits, and it was just taken from a balance.
                *self.stakes.entry(*hotkey).or_insert(0) += amount_rao;
                Ok(vec![Event::StakeAdded(*hotkey, *amount_rao)])
            }
        }
    }

    fn withdraw(&mut self, coldkey: &Coldkey, rao: u64) -> Result<(), Rejection> {
        let left = self.balance(coldkey).checked_sub(rao).ok_or(Rejection::NotEnoughBalanceToStake)?;
        self.balances.insert(*coldkey, left);
        Ok(())
    }

    fn register(&mut self, hotkey: Hotkey, coldkey: Coldkey) -> Result<Vec<Event>, Rejection> {
        let uid = self.free_slot().ok_or(Rejection::NoNeuronIdAvailable)?;
        self.withdraw(&coldkey, self.hyperparameters.burn_rao)?;
        self.burned_rao += self.hyperparameters.burn_rao;
        self.owners.insert(hotkey, coldkey);
        self.registrations += 1;
        let slot = Slot::new(hotkey, self.next_number());
        let mut events = Vec::new();
        match self.slots.get_mut(uid) {
            Some(taken) => {
                events.push(Event::NeuronReplaced(Uid(uid as u16), taken.hotkey));
                *taken = slot;
            }
            None => self.slots.push(slot),
        }
        events.push(Event::NeuronRegistered(Uid(uid as u16), hotkey));
        Ok(events)
    }

    fn run_epoch(&mut self, block: BlockNumber) {
        let participants: Vec<Participant<'_>> = self
            .slots
            .iter()
            .map(|s| Participant {
                stake_rao: self.stake(&s.hotkey),
                registered_at: s.registered_at,
                last_update: s.last_update,
                active: self.is_active(s, block),
                weights: &s.weights,
            })
            .collect();
        let rules = &self.hyperparameters;
        let permits = usize::from(rules.max_allowed_validators);
        let outcomes = consensus::epoch_step(&participants, permits, rules.stake_threshold_rao);
        for (slot, outcome) in self.slots.iter_mut().zip(outcomes) {
            slot.incentive = outcome.incentive;
            slot.dividends = outcome.dividends;
            slot.validator_permit = outcome.validator_permit;
        }
    }

    /// Makes the next block: the epoch step if it is due, then `calls` in order. A call whose envelope does not fit is
    /// left out; one that breaks a rule is included as refused, and its nonce is used up.
    ///
    /// Times never go back: a `timestamp_ms` not after the parent's becomes the parent's plus 1. The hash is
    /// blake2b-256(parent ‖ number ‖ time ‖ root), numbers as 8 bytes little-endian; the root is blake2b-256 over
    /// the hashes of the calls, one after the other.
    pub fn produce_block(&mut self, timestamp_ms: u64, calls: Vec<SignedCall>) -> Block {
        let number = self.next_number();
        let timestamp_ms = timestamp_ms.max(self.head.timestamp_ms.saturating_add(1));
        self.registrations = 0;
        let mut events = Vec::new();
        if is_epoch_block(number, self.netuid, self.hyperparameters.tempo) {
            self.run_epoch(number);
            events.push(Event::EpochRan(crate::chain::epoch_of(number, self.netuid, self.hyperparameters.tempo)));
        }

        let mut included = Vec::with_capacity(calls.len());
        let mut hashes = Vec::with_capacity(32 * calls.len());
        for call in calls {
            if self.check_envelope(&call, 0).is_err() {
                continue;
            }
            self.nonces.insert(call.signer, call.nonce.saturating_add(1));
            hashes.extend_from_slice(&call.hash().0);
            let refused = match self.apply(call.netuid, &call.call, &call.signer) {
                Ok(done) => {
                    events.extend(done);
                    None
                }
                Err(rejection) => Some(rejection),
            };
            included.push(Included { call, refused });
        }

        let parent = self.head.hash;
        let root = blake2b_256(&[&hashes]);
        let hash = blake2b_256(&[&parent.0, &number.to_le_bytes(), &timestamp_ms.to_le_bytes(), &root.0]);
        self.registrations = 0;
        self.head = BlockHead { number, hash, timestamp_ms };
        self.hashes.push_back(hash);
        if self.hashes.len() > HASHES_KEPT {
            self.hashes.pop_front();
        }
        Block { head: self.head, parent, calls: included, events }
    }
}

mod commits;
mod rules;
#[cfg(test)]
mod tests;
