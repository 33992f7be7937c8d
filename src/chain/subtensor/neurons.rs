//! The neurons of a subnet as the runtime tells them, made into [`Neuron`](crate::chain::Neuron)s. Pure.
//!
//! There are three ways to ask, by what the runtime has, the best one first:
//! 1. `get_selective_mechagraph` (about spec 343 on): one call for the fields we name. Its stake is the one that the chain
//!    compares with the threshold for weights: the hotkey's alpha and the weighted TAO on the root.
//! 2. `get_neurons_lite` with its type in the metadata.
//! 3. `get_neurons_lite` of old runtimes (218), whose metadata says only "bytes": they hold the same fields in an order
//!    that never changed. Its stake is not the one that counts; that is put together from storage (`reader`).
//!
//! What an answer lacks is `None` in [`Told`] and comes from storage (`reader`). A column that is shorter than the
//! list of hotkeys is an error: half an answer is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use subxt::ext::codec::{Compact, Decode};
use subxt::ext::scale_decode::DecodeAsType;

use super::runtime::{CodecError, Runtime};
use crate::chain::{AxonInfo, PrometheusInfo};
use crate::ids::{BlockNumber, Coldkey, Hotkey, Netuid, Uid};

/// The trait of the runtime that knows whole subnets.
pub(super) const SUBNET_API: &str = "SubnetInfoRuntimeApi";
/// The function with the fields that one asks for, and the mechanism.
pub(super) const SELECTIVE: &str = "get_selective_mechagraph";
/// The trait of the runtime that knows neurons.
pub(super) const NEURON_API: &str = "NeuronInfoRuntimeApi";
/// All neurons without their weights.
pub(super) const LITE: &str = "get_neurons_lite";
/// The fields we ask for: netuid, hotkeys, coldkeys, axons, active, validator_permit, pruning_score, last_update, emission,
/// dividends, incentives, consensus, trust, block_at_registration, total_stake.
pub(super) const FIELDS: [u16; 15] = [0, 52, 53, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 66, 69];

/// The most neurons that an answer may hold: what a uid can number.
const MOST: usize = 1 << 16;

/// How a runtime is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `get_selective_mechagraph`.
    Selective,
    /// `get_neurons_lite`.
    Lite,
}

impl Source {
    /// The best that this runtime has.
    pub fn of(runtime: &Runtime) -> Self {
        match runtime.has_api(SUBNET_API, SELECTIVE) {
            true => Source::Selective,
            false => Source::Lite,
        }
    }
}

/// A neuron as an answer tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The slot.
    pub uid: Uid,
    /// The key it acts with.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// The stake, in rao; see the module's text for which.
    pub stake_rao: u64,
    /// Whether it may weigh others.
    pub validator_permit: bool,
    /// Whether it is active.
    pub active: bool,
    /// Its axon; `None` if it serves none.
    pub axon: Option<AxonInfo>,
    /// Its metrics endpoint: the outer `None` if the answer does not say.
    pub prometheus: Option<Option<PrometheusInfo>>,
    /// The block of its registration, if the answer says.
    pub registered_at: Option<BlockNumber>,
    /// The block of its last weights.
    pub last_update: BlockNumber,
    /// See [`crate::chain::Neuron`].
    pub incentive: u16,
    /// See [`crate::chain::Neuron`].
    pub dividends: u16,
    /// What it earned in the last epoch, in rao of the subnet's token.
    pub emission_rao: u64,
    /// See [`crate::chain::Neuron`].
    pub consensus: u16,
    /// See [`crate::chain::Neuron`].
    pub trust: u16,
    /// Validators' trust, where the answer has it.
    pub validator_trust: Option<u16>,
    /// What decides who is replaced: the lowest goes first.
    pub pruning_score: u16,
}

/// Reads an answer of `source`.
///
/// # Errors
/// [`CodecError`] if the bytes are not what the metadata says, or the answer contradicts itself.
pub fn read(runtime: &Runtime, source: Source, netuid: Netuid, bytes: &[u8]) -> Result<Vec<Told>, CodecError> {
    let told = match source {
        Source::Selective => {
            let answer: Option<Selective> = runtime.answer(SUBNET_API, SELECTIVE, bytes)?;
            let answer = answer.ok_or_else(|| no_subnet(runtime, netuid))?;
            if answer.netuid != netuid.0 {
                return Err(wrong(runtime, format!("subnet {} answers for {netuid}", answer.netuid)));
            }
            answer.told().map_err(|why| wrong(runtime, why))?
        }
        Source::Lite => lite(runtime, bytes)?,
    };
    if told.len() > MOST {
        return Err(wrong(runtime, format!("{} neurons", told.len())));
    }
    Ok(told)
}

fn no_subnet(runtime: &Runtime, netuid: Netuid) -> CodecError {
    wrong(runtime, format!("there is no subnet {netuid}; check netuid and subtensor.network"))
}

fn wrong(runtime: &Runtime, why: String) -> CodecError {
    CodecError::Shape { spec: runtime.spec_version(), what: "the metagraph".to_owned(), why }
}

/// The fields of the chain's `SelectiveMetagraph` that we ask for, by name.
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Selective {
    netuid: u16,
    hotkeys: Option<Vec<[u8; 32]>>,
    coldkeys: Option<Vec<[u8; 32]>>,
    axons: Option<Vec<Axon>>,
    active: Option<Vec<bool>>,
    validator_permit: Option<Vec<bool>>,
    pruning_score: Option<Vec<u16>>,
    last_update: Option<Vec<u64>>,
    emission: Option<Vec<u64>>,
    dividends: Option<Vec<u16>>,
    incentives: Option<Vec<u16>>,
    consensus: Option<Vec<u16>>,
    trust: Option<Vec<u16>>,
    block_at_registration: Option<Vec<u64>>,
    total_stake: Option<Vec<u64>>,
}

impl Selective {
    fn told(self) -> Result<Vec<Told>, String> {
        let hotkeys = self.hotkeys.ok_or("it has no hotkeys")?;
        let count = hotkeys.len();
        fn column<T>(name: &str, column: Option<Vec<T>>, count: usize) -> Result<std::vec::IntoIter<T>, String> {
            let column = column.ok_or_else(|| format!("it has no {name}"))?;
            match column.len() == count {
                true => Ok(column.into_iter()),
                false => Err(format!("it has {count} hotkeys and {} of {name}", column.len())),
            }
        }
        let mut coldkeys = column("coldkeys", self.coldkeys, count)?;
        let mut axons = column("axons", self.axons, count)?;
        let mut active = column("active", self.active, count)?;
        let mut permits = column("validator_permit", self.validator_permit, count)?;
        let mut pruning = column("pruning_score", self.pruning_score, count)?;
        let mut updates = column("last_update", self.last_update, count)?;
        let mut emissions = column("emission", self.emission, count)?;
        let mut dividends = column("dividends", self.dividends, count)?;
        let mut incentives = column("incentives", self.incentives, count)?;
        let mut consensus = column("consensus", self.consensus, count)?;
        let mut trust = column("trust", self.trust, count)?;
        let mut registered = column("block_at_registration", self.block_at_registration, count)?;
        let mut stakes = column("total_stake", self.total_stake, count)?;
        let mut told = Vec::with_capacity(count);
        for (uid, hotkey) in (0u16..=u16::MAX).zip(hotkeys) {
            // Every column has as many entries as there are hotkeys, see above.
            let next = (|| {
                Some(Told {
                    uid: Uid(uid),
                    hotkey: Hotkey(hotkey),
                    coldkey: Coldkey(coldkeys.next()?),
                    stake_rao: stakes.next()?,
                    validator_permit: permits.next()?,
                    active: active.next()?,
                    axon: axons.next()?.info(),
                    prometheus: None,
                    registered_at: Some(registered.next()?),
                    last_update: updates.next()?,
                    incentive: incentives.next()?,
                    dividends: dividends.next()?,
                    emission_rao: emissions.next()?,
                    consensus: consensus.next()?,
                    trust: trust.next()?,
                    validator_trust: None,
                    pruning_score: pruning.next()?,
                })
            })();
            told.extend(next);
        }
        Ok(told)
    }
}

/// The chain's `AxonInfo`.
#[derive(Debug, Clone, Copy, DecodeAsType, Decode)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
#[codec(crate = subxt::ext::codec)]
pub(super) struct Axon {
    block: u64,
    version: u32,
    ip: u128,
    port: u16,
    ip_type: u8,
    protocol: u8,
    placeholder1: u8,
    placeholder2: u8,
}

impl Axon {
    /// The axon, if there is one: address 0 says that the neuron serves none.
    pub(super) fn info(self) -> Option<AxonInfo> {
        // Two bytes that the chain keeps and nobody reads.
        let _ = (self.placeholder1, self.placeholder2);
        let Axon { block, version, ip, port, ip_type, protocol, .. } = self;
        let ip = address(ip, ip_type)?;
        (port > 0).then_some(AxonInfo { block, version, ip, port, protocol })
    }
}

/// The chain's `PrometheusInfo`.
#[derive(Debug, Clone, Copy, DecodeAsType, Decode)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
#[codec(crate = subxt::ext::codec)]
pub(super) struct Prometheus {
    block: u64,
    version: u32,
    ip: u128,
    port: u16,
    ip_type: u8,
}

impl Prometheus {
    /// The endpoint, if there is one.
    pub(super) fn info(self) -> Option<PrometheusInfo> {
        let Prometheus { block, version, ip, port, ip_type } = self;
        let ip = address(ip, ip_type)?;
        (port > 0).then_some(PrometheusInfo { block, version, ip, port })
    }
}

/// An address as the chain has it; `None` for 0, and for a number that is no address of that type.
fn address(ip: u128, ip_type: u8) -> Option<IpAddr> {
    match ip_type {
        _ if ip == 0 => None,
        4 => Some(IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(ip).ok()?))),
        6 => Some(IpAddr::V6(Ipv6Addr::from_bits(ip))),
        _ => None,
    }
}

/// The chain's `NeuronInfoLite`, with the compact numbers taken out.
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Lite {
    hotkey: [u8; 32],
    coldkey: [u8; 32],
    uid: u16,
    active: bool,
    axon_info: Axon,
    prometheus_info: Prometheus,
    stake: Vec<([u8; 32], u64)>,
    emission: u64,
    incentive: u16,
    consensus: u16,
    trust: u16,
    validator_trust: u16,
    dividends: u16,
    last_update: u64,
    validator_permit: bool,
    pruning_score: u16,
}

/// The same in the order of its bytes, for runtimes that do not describe it.
#[derive(Decode)]
#[codec(crate = subxt::ext::codec)]
struct RawLite {
    hotkey: [u8; 32],
    coldkey: [u8; 32],
    uid: Compact<u16>,
    _netuid: Compact<u16>,
    active: bool,
    axon_info: Axon,
    prometheus_info: Prometheus,
    stake: Vec<([u8; 32], Compact<u64>)>,
    _rank: Compact<u16>,
    emission: Compact<u64>,
    incentive: Compact<u16>,
    consensus: Compact<u16>,
    trust: Compact<u16>,
    validator_trust: Compact<u16>,
    dividends: Compact<u16>,
    last_update: Compact<u64>,
    validator_permit: bool,
    pruning_score: Compact<u16>,
}

impl From<RawLite> for Lite {
    fn from(raw: RawLite) -> Self {
        Lite {
            hotkey: raw.hotkey,
            coldkey: raw.coldkey,
            uid: raw.uid.0,
            active: raw.active,
            axon_info: raw.axon_info,
            prometheus_info: raw.prometheus_info,
            stake: raw.stake.into_iter().map(|(who, stake)| (who, stake.0)).collect(),
            emission: raw.emission.0,
            incentive: raw.incentive.0,
            consensus: raw.consensus.0,
            trust: raw.trust.0,
            validator_trust: raw.validator_trust.0,
            dividends: raw.dividends.0,
            last_update: raw.last_update.0,
            validator_permit: raw.validator_permit,
            pruning_score: raw.pruning_score.0,
        }
    }
}

fn lite(runtime: &Runtime, bytes: &[u8]) -> Result<Vec<Told>, CodecError> {
    let neurons: Vec<Lite> = match runtime.answers_bytes(NEURON_API, LITE) {
        false => runtime.answer(NEURON_API, LITE, bytes)?,
        true => {
            let opaque: Vec<u8> = runtime.answer(NEURON_API, LITE, bytes)?;
            let mut rest = opaque.as_slice();
            let raw = Vec::<RawLite>::decode(&mut rest).map_err(|e| wrong(runtime, e.to_string()))?;
            if !rest.is_empty() {
                return Err(wrong(runtime, format!("{} bytes are left over", rest.len())));
            }
            raw.into_iter().map(Lite::from).collect()
        }
    };
    Ok(neurons.into_iter().map(Lite::told).collect())
}

impl Lite {
    fn told(self) -> Told {
        Told {
            uid: Uid(self.uid),
            hotkey: Hotkey(self.hotkey),
            coldkey: Coldkey(self.coldkey),
            stake_rao: self.stake.iter().fold(0, |sum, (_, stake)| sum.saturating_add(*stake)),
            validator_permit: self.validator_permit,
            active: self.active,
            axon: self.axon_info.info(),
            prometheus: Some(self.prometheus_info.info()),
            registered_at: None,
            last_update: self.last_update,
            incentive: self.incentive,
            dividends: self.dividends,
            emission_rao: self.emission,
            consensus: self.consensus,
            trust: self.trust,
            validator_trust: Some(self.validator_trust),
            pruning_score: self.pruning_score,
        }
    }
}
