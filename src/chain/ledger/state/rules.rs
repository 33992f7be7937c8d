//! What is refused, and why: each rule where the real chain has it, in the real chain's order. Nothing here changes
//! anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Slot, State};
use crate::chain::Rejection;
use crate::chain::ledger::call::{Call, SignedCall};
use crate::chain::ledger::consensus;
use crate::ids::{BlockNumber, Coldkey, Hotkey, Netuid};

impl State {
    /// Whether the envelope belongs here and its nonce is the account's next but `ahead` (calls of that account that wait
    /// already). Does not look at the signature.
    ///
    /// # Errors
    /// `WrongGenesis`, `StaleTransaction` or `FutureTransaction`.
    pub fn check_envelope(&self, signed: &SignedCall, ahead: u64) -> Result<(), Rejection> {
        if signed.genesis != self.genesis.hash {
            return Err(Rejection::WrongGenesis);
        }
        let next = self.nonce(&signed.signer).saturating_add(ahead);
        match signed.nonce.cmp(&next) {
            std::cmp::Ordering::Less => Err(Rejection::StaleTransaction(next)),
            std::cmp::Ordering::Greater => Err(Rejection::FutureTransaction(next)),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    /// Whether `call` by `signer` would be done in the next block. Changes nothing.
    ///
    /// # Errors
    /// The first rule that it breaks, in the real chain's order.
    pub fn check(&self, netuid: Netuid, call: &Call, signer: &Hotkey) -> Result<(), Rejection> {
        if netuid.0 == 0 && call.is_of_weights() {
            return Err(Rejection::CanNotSetRootNetworkWeights);
        }
        if netuid != self.netuid {
            return Err(Rejection::SubnetNotExists);
        }
        match call {
            Call::BurnedRegister { hotkey } => self.check_register(hotkey, &Coldkey(signer.0)),
            Call::ServeAxon { ip, port, ip_type, .. } => {
                let last = self.uid_of(signer).map(|uid| self.slots[uid].axon.map(|a| a.block));
                self.check_serve(last, *ip, *ip_type, *port, true)
            }
            Call::ServePrometheus { ip, port, ip_type, .. } => {
                let last = self.uid_of(signer).map(|uid| self.slots[uid].prometheus.map(|p| p.block));
                self.check_serve(last, *ip, *ip_type, *port, false)
            }
            Call::SetWeights { uids, values, version_key } => self.check_weights(signer, uids, values, *version_key),
            Call::CommitWeights { .. } => self.check_commit(signer),
            Call::RevealWeights { uids, values, salt, version_key } => {
                self.check_reveal(signer, uids, values, salt, *version_key).map(|_| ())
            }
            Call::AddStake { hotkey, amount_rao } => {
                if *amount_rao == 0 {
                    return Err(Rejection::AmountTooLow);
                }
                if self.balance(&Coldkey(signer.0)) < *amount_rao {
                    return Err(Rejection::NotEnoughBalanceToStake);
                }
                if !self.owners.contains_key(hotkey) && !self.stakes.contains_key(hotkey) {
                    return Err(Rejection::HotKeyAccountNotExists);
                }
                Ok(())
            }
        }
    }

    fn check_register(&self, hotkey: &Hotkey, coldkey: &Coldkey) -> Result<(), Rejection> {
        if self.registrations >= self.max_registrations_per_block {
            return Err(Rejection::TooManyRegistrationsThisBlock);
        }
        if self.uid_of(hotkey).is_some() {
            return Err(Rejection::HotKeyAlreadyRegisteredInSubNet);
        }
        if self.balance(coldkey) < self.hyperparameters.burn_rao {
            return Err(Rejection::NotEnoughBalanceToStake);
        }
        if self.owners.get(hotkey).is_some_and(|owner| owner != coldkey) {
            return Err(Rejection::NonAssociatedColdKey);
        }
        self.free_slot().map(|_| ()).ok_or(Rejection::NoNeuronIdAvailable)
    }

    /// The slot that a new neuron gets: the next free one, or that of the lowest pruning score out of immunity (of
    /// equals the one registered first).
    pub(super) fn free_slot(&self) -> Option<usize> {
        if self.slots.len() < usize::from(self.hyperparameters.max_allowed_uids) {
            return Some(self.slots.len());
        }
        let age = |s: &Slot| self.next_number().saturating_sub(s.registered_at);
        let out_of_immunity =
            self.slots.iter().enumerate().filter(|(_, s)| age(s) >= self.hyperparameters.immunity_period);
        out_of_immunity.min_by_key(|(uid, s)| (s.pruning_score(), s.registered_at, *uid)).map(|(uid, _)| uid)
    }

    /// `last`: `None` if the hotkey has no uid, otherwise the block of the last serving of this kind, if any.
    fn check_serve(
        &self,
        last: Option<Option<BlockNumber>>,
        ip: u128,
        ip_type: u8,
        port: u16,
        zero_allowed: bool,
    ) -> Result<(), Rejection> {
        let last = last.ok_or(Rejection::HotKeyNotRegisteredInNetwork)?;
        let ip = served_ip(ip, ip_type)?;
        if ip.is_unspecified() && !zero_allowed {
            return Err(Rejection::InvalidIpAddress);
        }
        let limit = self.hyperparameters.serving_rate_limit;
        if last.is_some_and(|block| self.next_number().saturating_sub(block) < limit) {
            return Err(Rejection::ServingRateLimitExceeded);
        }
        if port == 0 {
            return Err(Rejection::InvalidPort);
        }
        Ok(())
    }

    fn check_weights(&self, hotkey: &Hotkey, uids: &[u16], values: &[u16], version_key: u64) -> Result<(), Rejection> {
        if self.hyperparameters.commit_reveal {
            return Err(Rejection::CommitRevealEnabled);
        }
        self.check_vector(hotkey, uids, values, version_key, true)
    }

    fn is_owner(&self, hotkey: &Hotkey) -> bool {
        self.hyperparameters.owner_hotkey == Some(*hotkey)
    }

    /// The hotkey of the subnet's owner needs no stake.
    pub(super) fn check_stake(&self, hotkey: &Hotkey) -> Result<(), Rejection> {
        let enough = self.is_owner(hotkey) || self.stake(hotkey) >= self.hyperparameters.stake_threshold_rao;
        if enough { Ok(()) } else { Err(Rejection::NotEnoughStakeToSetWeights) }
    }

    /// What holds for weights by whatever way. Those that are revealed kept the rate limit with their commit.
    pub(super) fn check_vector(
        &self,
        hotkey: &Hotkey,
        uids: &[u16],
        values: &[u16],
        version_key: u64,
        limited: bool,
    ) -> Result<(), Rejection> {
        let rules = &self.hyperparameters;
        if uids.len() != values.len() {
            return Err(Rejection::WeightVecNotEqualSize);
        }
        if uids.len() > self.slots.len() {
            return Err(Rejection::UidsLengthExceedUidsInSubNet);
        }
        let uid = self.uid_of(hotkey).ok_or(Rejection::HotKeyNotRegisteredInSubNet)?;
        let slot = &self.slots[uid];
        self.check_stake(hotkey)?;
        if rules.weights_version_key != 0 && version_key < rules.weights_version_key {
            return Err(Rejection::IncorrectWeightVersionKey);
        }
        let since = self.next_number().saturating_sub(slot.last_update);
        if limited && slot.last_update != 0 && since < rules.weights_rate_limit {
            return Err(Rejection::SettingWeightsTooFast);
        }
        let on_self_only = matches!(uids, [only] if usize::from(*only) == uid);
        if !on_self_only && !slot.validator_permit && !self.is_owner(hotkey) {
            return Err(Rejection::NeuronNoValidatorPermit);
        }
        let mut sorted = uids.to_vec();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Rejection::DuplicateUids);
        }
        if uids.iter().any(|u| usize::from(*u) >= self.slots.len()) {
            return Err(Rejection::UidVecContainInvalidOne);
        }
        let least = usize::from(rules.min_allowed_weights).min(self.slots.len());
        if !on_self_only && uids.len() < least {
            return Err(Rejection::WeightVecLengthIsLow);
        }
        if !on_self_only && !consensus::within_max_limit(values, rules.max_weights_limit) {
            return Err(Rejection::MaxWeightExceeded);
        }
        Ok(())
    }
}

/// The address behind the chain's number and type.
///
/// # Errors
/// `InvalidIpType` unless the type is 4 or 6; `InvalidIpAddress` for 127.0.0.1, ::1, all ones, or a number too large for
/// IPv4. Other loopback and private addresses are accepted, as on chain.
pub(super) fn served_ip(ip: u128, ip_type: u8) -> Result<IpAddr, Rejection> {
    let address = match ip_type {
        4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(ip).map_err(|_| Rejection::InvalidIpAddress)?)),
        6 => IpAddr::V6(Ipv6Addr::from(ip)),
        _ => return Err(Rejection::InvalidIpType),
    };
    let refused = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    ];
    if refused.contains(&address) { Err(Rejection::InvalidIpAddress) } else { Ok(address) }
}
