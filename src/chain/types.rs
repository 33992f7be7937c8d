//! What the chain tells and takes: blocks, neurons, hyperparameters, weights.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::epoch::EpochClock;
use crate::ids::{BlockNumber, Coldkey, Epoch, Hash32, Hotkey, Netuid, Uid};

/// 1 TAO in rao, the chain's smallest unit of money.
pub const RAO_PER_TAO: u64 = 1_000_000_000;

/// A block's number, hash and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHead {
    /// The block's number; genesis is 0.
    pub number: BlockNumber,
    /// The block's hash.
    pub hash: Hash32,
    /// When it was made, by its author's clock: milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
}

/// Where a neuron's axon listens, as it told the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxonInfo {
    /// The block in which this was served.
    pub block: BlockNumber,
    /// The version the neuron claims; free, 183 for the compute subnet.
    pub version: u32,
    /// The address.
    pub ip: IpAddr,
    /// The port, never 0.
    pub port: u16,
    /// The protocol number; 4 from the common clients. Nobody reads it.
    pub protocol: u8,
}

/// Where a neuron's metrics are, as it told the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrometheusInfo {
    /// The block in which this was served.
    pub block: BlockNumber,
    /// The version the neuron claims.
    pub version: u32,
    /// The address.
    pub ip: IpAddr,
    /// The port, never 0.
    pub port: u16,
}

/// A registered neuron.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neuron {
    /// The slot in the subnet.
    pub uid: Uid,
    /// The key it acts with.
    pub hotkey: Hotkey,
    /// The key that owns it.
    pub coldkey: Coldkey,
    /// The stake behind the hotkey, in rao.
    pub stake_rao: u64,
    /// Whether it may set weights on others.
    pub validator_permit: bool,
    /// Whether it set weights (or registered) within the activity cutoff.
    pub active: bool,
    /// Where its axon listens; `None` if it never said, or said that it does not serve (address 0).
    pub axon: Option<AxonInfo>,
    /// Where its metrics are.
    pub prometheus: Option<PrometheusInfo>,
    /// The block of its registration.
    pub registered_at: BlockNumber,
    /// The block in which it last set weights, or registered.
    pub last_update: BlockNumber,
    /// Its share of the miners' incentive in the last epoch: 65,535 is all of it.
    pub incentive: u16,
    /// Its share of the validators' dividends in the last epoch: 65,535 is all of it.
    pub dividends: u16,
    /// How it stands among the others.
    #[serde(default)]
    pub standing: Standing,
    /// The weights it set, by uid, after the chain's scaling (the largest is 65,535). Of a real chain only the weights of
    /// the node's own hotkey are read with each block.
    pub weights: Vec<(Uid, u16)>,
}

/// How a neuron stands among the others of its subnet, by the last epoch's count. The ledger counts none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// What it earned in the last epoch, in the smallest unit of the subnet's token.
    pub emission_rao: u64,
    /// What the validators agree that it deserves: 65,535 is all.
    pub consensus: u16,
    /// The part of the weights on it that were within the consensus: 65,535 is all.
    pub trust: u16,
    /// The part of its own weights that were: 65,535 is all. `None` where the chain does not tell.
    pub validator_trust: Option<u16>,
    /// Who has the lowest is replaced first, once it is out of its immunity period.
    pub pruning_score: u16,
}

impl Neuron {
    /// Whether the chain already has exactly this axon: serving it again would only meet the rate limit.
    pub fn serves_axon(&self, ip: IpAddr, port: u16, version: u32) -> bool {
        self.axon.is_some_and(|a| (a.ip, a.port, a.version) == (ip, port, version))
    }

    /// Whether the chain already has exactly this metrics address.
    pub fn serves_prometheus(&self, ip: IpAddr, port: u16, version: u32) -> bool {
        self.prometheus.is_some_and(|p| (p.ip, p.port, p.version) == (ip, port, version))
    }
}

/// A subnet's neurons as of one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metagraph {
    /// The subnet.
    pub netuid: Netuid,
    /// The block that this is the state of.
    pub head: BlockHead,
    /// Which epoch a block belongs to, as far as that block tells.
    pub epochs: EpochClock,
    /// The neurons, in the order of their uids.
    pub neurons: Vec<Neuron>,
}

impl Metagraph {
    /// The neuron with this hotkey.
    pub fn by_hotkey(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|n| n.hotkey == *hotkey)
    }

    /// Where this neuron's axon is.
    pub fn axon_address(&self, hotkey: &Hotkey) -> Option<SocketAddr> {
        let axon = self.by_hotkey(hotkey)?.axon?;
        Some(SocketAddr::new(axon.ip, axon.port))
    }

    /// The neuron in this slot.
    pub fn by_uid(&self, uid: Uid) -> Option<&Neuron> {
        // Uids are dense on chain; a metagraph that is not in order still answers right.
        let at = self.neurons.get(usize::from(uid.0)).filter(|n| n.uid == uid);
        at.or_else(|| self.neurons.iter().find(|n| n.uid == uid))
    }

    /// The epoch that the head belongs to.
    pub fn epoch(&self) -> Epoch {
        self.epochs.epoch_of(self.head.number)
    }
}

/// A subnet's rules. The defaults follow a newly made subnet of the real chain, except where a field says otherwise; a
/// running subnet's owner may have set any of them differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyperparameters {
    /// The length of an epoch less one, in blocks.
    pub tempo: u16,
    /// The least number of blocks between two settings of weights by one neuron.
    pub weights_rate_limit: u64,
    /// The least version key that weights must carry; 0 lets every one pass.
    pub weights_version_key: u64,
    /// The least number of weights to set (or the number of neurons, if that is smaller).
    pub min_allowed_weights: u16,
    /// The largest share of one weight: 65,535 is no limit.
    pub max_weights_limit: u16,
    /// The least number of blocks between two servings of one kind; 0 is no limit.
    pub serving_rate_limit: u64,
    /// Blocks after its registration in which a neuron is not replaced.
    pub immunity_period: u64,
    /// The number of slots.
    pub max_allowed_uids: u16,
    /// The number of validator permits.
    pub max_allowed_validators: u16,
    /// Whether weights must be committed first and revealed later. The chain's default is true; here false, so that a devnet's
    /// weights count at once.
    pub commit_reveal: bool,
    /// Epochs from a commit to its reveal.
    #[serde(default = "one_epoch")]
    pub reveal_period: u64,
    /// The version of timelocked commits that the chain takes; 0 where it takes none.
    #[serde(default)]
    pub commit_reveal_version: u16,
    /// The hotkey of the subnet's owner, whom some rules do not bind.
    #[serde(default)]
    pub owner_hotkey: Option<Hotkey>,
    /// What a registration costs, in rao.
    pub burn_rao: u64,
    /// The least stake for a permit and for setting weights, in rao.
    pub stake_threshold_rao: u64,
    /// Blocks without new weights after which a neuron counts as inactive and its weights do not count.
    pub activity_cutoff: u64,
    /// Who makes room for a new neuron where every slot is taken. Left out of JSON where it is the ledger's, so that the
    /// genesis hash of a ledger does not depend on it.
    #[serde(default, skip_serializing_if = "Replacement::is_ledger")]
    pub replacement: Replacement,
}

/// What a subnet compares when a new neuron needs the slot of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplacedBy {
    /// The ledger: incentive and dividends together.
    #[default]
    Shares,
    /// Runtimes that have `PruningScores` and no `MinNonImmuneUids` (218): the pruning score.
    PruningScore,
    /// Later runtimes: the emission.
    Emission,
}

/// By what rule a subnet replaces neurons (`get_neuron_to_prune` of the chain): of those out of their immunity period the one
/// with the lowest score, of equals the one registered first, of those the lowest uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// What is compared.
    pub by: ReplacedBy,
    /// So many neurons out of immunity are kept: while there are no more, an immune one goes (`MinNonImmuneUids`).
    pub least_free: u16,
    /// Whether immune neurons can be replaced at all when no other can be. On the ledger they cannot.
    pub immune_too: bool,
}

impl Replacement {
    /// Whether this is the ledger's own rule.
    fn is_ledger(&self) -> bool {
        *self == Replacement::default()
    }
}

fn one_epoch() -> u64 {
    1
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Hyperparameters {
            tempo: 360,
            weights_rate_limit: 100,
            weights_version_key: 0,
            min_allowed_weights: 1,
            max_weights_limit: u16::MAX,
            serving_rate_limit: 50,
            immunity_period: 4096,
            max_allowed_uids: 256,
            max_allowed_validators: 64,
            commit_reveal: false,
            reveal_period: 1,
            commit_reveal_version: 0,
            owner_hotkey: None,
            burn_rao: RAO_PER_TAO,
            stake_threshold_rao: 0,
            activity_cutoff: 5000,
            replacement: Replacement::default(),
        }
    }
}

/// Weights to set, as they go to the chain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Weights {
    /// Uid and weight; only ratios matter.
    pub entries: Vec<(Uid, u16)>,
    /// The version of the rules they were computed by, see [`Hyperparameters::weights_version_key`].
    pub version_key: u64,
}

/// Where a call ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inclusion {
    /// The block that holds the call.
    pub block: BlockNumber,
    /// The hash of the signed call.
    pub extrinsic: Hash32,
}

#[cfg(test)]
impl Neuron {
    /// A neuron that does nothing, for tests: its hotkey is the uid's low byte again and again.
    pub(crate) fn idle(uid: u16) -> Self {
        Neuron {
            uid: Uid(uid),
            hotkey: Hotkey([uid as u8; 32]),
            coldkey: Coldkey([9; 32]),
            stake_rao: 0,
            validator_permit: false,
            active: true,
            axon: None,
            prometheus: None,
            registered_at: 1,
            last_update: 1,
            incentive: 0,
            dividends: 0,
            standing: Standing::default(),
            weights: vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neurons_are_found_by_hotkey_and_by_uid_in_any_order() {
        let head = BlockHead { number: 10, hash: Hash32([0; 32]), timestamp_ms: 0 };
        let (netuid, neurons) = (Netuid(1), vec![Neuron::idle(1), Neuron::idle(0)]);
        let graph = Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 5 }, neurons };
        assert_eq!(graph.by_uid(Uid(0)).unwrap().hotkey, Hotkey([0; 32]));
        assert_eq!(graph.by_hotkey(&Hotkey([1; 32])).unwrap().uid, Uid(1));
        assert!(graph.by_uid(Uid(2)).is_none());
        assert_eq!(graph.epoch(), 2);
    }

    #[test]
    fn an_axon_is_the_same_only_if_address_port_and_version_are() {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        let mut n = Neuron::idle(0);
        assert!(!n.serves_axon(ip, 8091, 183));
        n.axon = Some(AxonInfo { block: 1, version: 183, ip, port: 8091, protocol: 4 });
        assert!(n.serves_axon(ip, 8091, 183));
        assert!(!n.serves_axon(ip, 8091, 184));
        assert!(!n.serves_axon(ip, 8092, 183));
    }
}
