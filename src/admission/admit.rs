//! The rules, in their order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::{Hotkey, Uid};

use super::policy::Policy;
use super::refusal::Refusal;
use super::snapshot::{Peer, Snapshot};
use super::subject::Address;

/// What a call demands of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// It acts as a validator: stake or permit are asked for. Several validators may share an address.
    Validator,
    /// It acts as any neuron: the one-IP rule holds.
    Any,
}

/// By which rule a caller got in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// The operator's allow-list, by hotkey or coldkey.
    AllowList,
    /// The list that ships with the program.
    Trusted,
    /// A validator permit.
    Permit,
    /// Enough stake.
    Stake,
    /// Too little stake, forgiven by policy.
    Forgiven,
    /// Being registered.
    Registered,
}

impl Via {
    /// Every way in.
    pub const ALL: &'static [Via] =
        &[Via::AllowList, Via::Trusted, Via::Permit, Via::Stake, Via::Forgiven, Via::Registered];
    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            Via::AllowList => "allow_list",
            Via::Trusted => "trusted",
            Via::Permit => "permit",
            Via::Stake => "stake",
            Via::Forgiven => "forgiven",
            Via::Registered => "registered",
        }
    }
}

/// The answer to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may, by this rule.
    Admitted(Via),
    /// It may not.
    Refused(Refusal),
}

impl Decision {
    /// The metric label: of the way in, or of the reason.
    pub fn label(&self) -> &'static str {
        match self {
            Decision::Admitted(via) => via.label(),
            Decision::Refused(refusal) => refusal.label(),
        }
    }
    /// Whether it may.
    pub fn is_admitted(&self) -> bool {
        matches!(self, Decision::Admitted(_))
    }
}

/// Whether anything from this address is listened to at all. The first rule: it is asked before a signature is checked, so
/// it knows no hotkey and holds for those on the allow-list too. Without a snapshot nothing is known against anybody.
///
/// # Errors
/// [`Refusal::PenalisedAddress`].
pub fn admit_address(snapshot: Option<&Snapshot>, now_ms: u64, ip: IpAddr) -> Result<(), Refusal> {
    match snapshot.and_then(|snapshot| snapshot.address_penalty(Address::of(ip), now_ms)) {
        Some(penalty) => Err(Refusal::PenalisedAddress { until_ms: penalty.until_ms }),
        None => Ok(()),
    }
}

/// Whether this caller may do what needs `need`. Without a snapshot, or with one older than `max_age`, nobody may.
///
/// The hotkey is the one whose signature was verified, never one that a body names.
pub fn admit_caller(
    policy: &Policy,
    snapshot: Option<&Snapshot>,
    now_ms: u64,
    max_age: Duration,
    hotkey: &Hotkey,
    need: Need,
) -> Decision {
    match caller(policy, snapshot, now_ms, max_age, hotkey, need) {
        Ok(via) => Decision::Admitted(via),
        Err(refusal) => Decision::Refused(refusal),
    }
}

fn caller(
    policy: &Policy,
    snapshot: Option<&Snapshot>,
    now_ms: u64,
    max_age: Duration,
    hotkey: &Hotkey,
    need: Need,
) -> Result<Via, Refusal> {
    let snapshot = snapshot.ok_or(Refusal::SnapshotMissing)?;
    let age_ms = now_ms.saturating_sub(snapshot.taken_at_ms);
    if u128::from(age_ms) > max_age.as_millis() {
        return Err(Refusal::SnapshotStale { age_ms });
    }
    let peer = snapshot.peers.get(hotkey);
    if policy.allow_hotkeys.contains(hotkey) || peer.is_some_and(|p| policy.allow_coldkeys.contains(&p.coldkey)) {
        return Ok(Via::AllowList);
    }
    if policy.trusted_hotkeys.contains(hotkey) {
        return Ok(Via::Trusted);
    }
    let peer = peer.ok_or(Refusal::NotRegistered)?;
    let via = match need {
        Need::Any => Via::Registered,
        Need::Validator => standing(policy, peer)?,
    };
    refuse_listed(policy, hotkey, peer)?;
    if need == Need::Validator {
        refuse_outdated_validator(policy, snapshot, peer)?;
    }
    if need == Need::Any && policy.one_ip_per_uid {
        refuse_second_at_ip(policy, snapshot, hotkey, peer)?;
    }
    refuse_penalised(snapshot, hotkey, now_ms)?;
    Ok(via)
}

fn standing(policy: &Policy, peer: &Peer) -> Result<Via, Refusal> {
    if policy.require_permit && !peer.permit {
        return Err(Refusal::NoValidatorPermit);
    }
    let enough = peer.stake_rao >= policy.min_stake_rao;
    match (policy.require_permit, peer.permit, enough) {
        (true, _, true) | (false, true, _) => Ok(Via::Permit),
        (false, false, true) => Ok(Via::Stake),
        _ if policy.allow_not_enough_stake => Ok(Via::Forgiven),
        _ => Err(Refusal::NotEnoughStake),
    }
}

fn refuse_listed(policy: &Policy, hotkey: &Hotkey, peer: &Peer) -> Result<(), Refusal> {
    if policy.deny_hotkeys.contains(hotkey) {
        return Err(Refusal::DeniedHotkey);
    }
    if policy.deny_coldkeys.contains(&peer.coldkey) {
        return Err(Refusal::DeniedColdkey);
    }
    let exploits = policy.exploiter_hotkeys.contains(hotkey) || policy.exploiter_coldkeys.contains(&peer.coldkey);
    if policy.exploiters && exploits { Err(Refusal::Exploiter) } else { Ok(()) }
}

/// A validator that announces no version is served: its metrics address may be private, and what we could not learn is
/// held against nobody. It counts among those who are not updated.
fn refuse_outdated_validator(policy: &Policy, snapshot: &Snapshot, peer: &Peer) -> Result<(), Refusal> {
    let version = peer.prometheus_version;
    match snapshot.validators.in_force(policy.validators_updated_threshold) {
        Some(minimal) if !policy.allow_not_updated && version != 0 && version < minimal => {
            Err(Refusal::NotUpdated { version, minimal })
        }
        _ => Ok(()),
    }
}

fn refuse_outdated_miner(policy: &Policy, snapshot: &Snapshot, peer: &Peer) -> Result<(), Refusal> {
    match (snapshot.miners.in_force(policy.miners_updated_threshold), peer.axon_version) {
        (Some(_), 0) if policy.allow_unrecognised => Ok(()),
        (Some(minimal), 0) => Err(Refusal::Unrecognised { minimal }),
        (Some(minimal), version) if version < minimal => Err(Refusal::NotUpdated { version, minimal }),
        _ => Ok(()),
    }
}

fn refuse_penalised(snapshot: &Snapshot, hotkey: &Hotkey, now_ms: u64) -> Result<(), Refusal> {
    match snapshot.penalty(hotkey, now_ms) {
        Some(penalty) => Err(Refusal::Penalised { until_ms: penalty.until_ms }),
        None => Ok(()),
    }
}

/// Who keeps an address: the earliest registration, then the lowest uid. Neurons that the lists or their versions refuse
/// keep none. It looks at every neuron, which is too slow for what validators call: they do not come here.
fn refuse_second_at_ip(policy: &Policy, snapshot: &Snapshot, hotkey: &Hotkey, peer: &Peer) -> Result<(), Refusal> {
    let Some(ip) = peer.axon_ip() else { return Ok(()) };
    let rivals = snapshot.peers.iter().filter(|(_, p)| p.axon_ip() == Some(ip));
    let first = rivals
        .filter(|(rival, p)| {
            refuse_listed(policy, rival, p).is_ok() && refuse_outdated_miner(policy, snapshot, p).is_ok()
        })
        .min_by_key(|(_, p)| (p.registered_at, p.uid));
    match first {
        Some((keeper, first)) if keeper != hotkey => Err(Refusal::DuplicateIp { first: first.uid }),
        _ => Ok(()),
    }
}

/// Which miners a validator asks, by uid in ascending order, and why not the others. The caller leaves itself out.
///
/// The order of the rules is that of callers, without those that only callers meet: denied hotkey, denied coldkey,
/// exploiter, no axon, version, one IP per UID, penalty. A penalised miner still keeps its address, so a second registration at
/// the same machine does not get around the penalty.
pub fn admit_miners(policy: &Policy, snapshot: &Snapshot, now_ms: u64) -> Vec<(Uid, Result<(), Refusal>)> {
    let mut peers: Vec<(&Hotkey, &Peer)> = snapshot.peers.iter().collect();
    peers.sort_by_key(|(_, p)| (p.registered_at, p.uid));
    let mut keepers: HashMap<IpAddr, Uid> = HashMap::new();
    let mut verdicts: Vec<(Uid, Result<(), Refusal>)> = peers
        .into_iter()
        .map(|(hotkey, peer)| (peer.uid, miner(policy, snapshot, now_ms, hotkey, peer, &mut keepers)))
        .collect();
    verdicts.sort_by_key(|(uid, _)| *uid);
    verdicts
}

fn miner(
    policy: &Policy,
    snapshot: &Snapshot,
    now_ms: u64,
    hotkey: &Hotkey,
    peer: &Peer,
    keepers: &mut HashMap<IpAddr, Uid>,
) -> Result<(), Refusal> {
    refuse_listed(policy, hotkey, peer)?;
    let ip = peer.axon_ip().ok_or(Refusal::NoAxon)?;
    refuse_outdated_miner(policy, snapshot, peer)?;
    let keeper = *keepers.entry(ip).or_insert(peer.uid);
    if policy.one_ip_per_uid && keeper != peer.uid {
        return Err(Refusal::DuplicateIp { first: keeper });
    }
    refuse_penalised(snapshot, hotkey, now_ms)
}
