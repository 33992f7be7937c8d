//! How our own neuron stands in its subnet: registered or not, immune or next to be replaced, with stake and permit or
//! without. Pure.
//!
//! Who is replaced is decided by the chain when a neuron registers and every slot is taken
//! ([`Replacement`](super::Replacement)). This works it out for the next block, from one metagraph:
//! - A neuron that was registered fewer than the immunity period's blocks ago is immune.
//! - Of those that are not, the one with the lowest score goes, of equals the one registered first, of those the lowest uid.
//! - While no more than `least_free` neurons are out of immunity, an immune one goes by the same order.
//! - The hotkey of the subnet's owner is never replaced. Runtimes may keep a few more keys of the same owner; those are
//!   not told apart here, so an owner's other neurons can be shown at risk although they are not.
//!
//! Scores are those of the last epoch: the chain counts them anew at each one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::types::{Hyperparameters, Metagraph, Neuron, ReplacedBy, Standing};
use crate::ids::{BlockNumber, Hotkey, Netuid, Uid};

/// How a hotkey stands, as of one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnStanding {
    /// The subnet.
    pub netuid: Netuid,
    /// The hotkey.
    pub hotkey: Hotkey,
    /// The block.
    pub block: BlockNumber,
    /// Slots that are taken.
    pub neurons: usize,
    /// Slots that there are.
    pub slots: u16,
    /// Its neuron; `None` if it has none.
    pub neuron: Option<OwnNeuron>,
    /// The slot it had and lost, as far as this node saw it; `None` while it has one.
    pub lost: Option<Lost>,
}

/// A slot that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The slot.
    pub uid: Uid,
    /// Who has it now, if anybody.
    pub to: Option<Hotkey>,
    /// The block in which that one was registered.
    pub block: Option<BlockNumber>,
}

/// A registered neuron of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnNeuron {
    /// Its slot.
    pub uid: Uid,
    /// The block of its registration.
    pub registered_at: BlockNumber,
    /// Blocks to come in which it is immune, the next one included.
    pub immune_blocks: u64,
    /// Its place among those that can be replaced.
    pub place: Place,
    /// Its stake, in rao, as the chain compares it with the threshold.
    pub stake_rao: u64,
    /// The least stake for a permit and for setting weights, in rao; 0 for the subnet's owner, whom it does not bind.
    pub stake_threshold_rao: u64,
    /// Whether it may weigh others.
    pub validator_permit: bool,
    /// Whether its weights count.
    pub active: bool,
    /// Its share of the incentive: 65,535 is all of it.
    pub incentive: u16,
    /// Its share of the dividends: 65,535 is all of it.
    pub dividends: u16,
    /// Emission, consensus, trust.
    pub standing: Standing,
    /// The block in which it last set weights, or registered.
    pub last_update: BlockNumber,
    /// Blocks since then.
    pub blocks_since_update: u64,
}

/// A place in the order of replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What [`Place::score`] is.
    pub by: ReplacedBy,
    /// What is compared.
    pub score: u64,
    /// The same of the other neuron that goes first; `None` if no other can be replaced.
    pub cut: Option<u64>,
    /// Neurons that go before this one.
    pub before: usize,
    /// Whether the next registration replaces this one: every slot is taken and nobody goes before it.
    pub next: bool,
    /// Whether it is the subnet owner's, which is never replaced.
    pub exempt: bool,
}

impl Place {
    /// How far the score is above that of the other neuron that goes first; below 0 if it is lower. `None` without another.
    pub fn over_cut(&self) -> Option<i64> {
        let difference = i128::from(self.score) - i128::from(self.cut?);
        Some(i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX }))
    }
}

impl OwnNeuron {
    /// Whether its stake is too small for a permit and for setting weights.
    pub fn is_below_threshold(&self) -> bool {
        self.stake_rao < self.stake_threshold_rao
    }
}

/// How `hotkey` stands in the subnet.
pub fn standing(metagraph: &Metagraph, rules: &Hyperparameters, hotkey: &Hotkey) -> OwnStanding {
    OwnStanding {
        netuid: metagraph.netuid,
        hotkey: *hotkey,
        block: metagraph.head.number,
        neurons: metagraph.neurons.len(),
        slots: rules.max_allowed_uids,
        neuron: metagraph.by_hotkey(hotkey).map(|own| neuron(metagraph, rules, own)),
        lost: None,
    }
}

fn neuron(metagraph: &Metagraph, rules: &Hyperparameters, own: &Neuron) -> OwnNeuron {
    let owner = rules.owner_hotkey == Some(own.hotkey);
    OwnNeuron {
        uid: own.uid,
        registered_at: own.registered_at,
        immune_blocks: immune_blocks(metagraph, rules, own),
        place: place(metagraph, rules, own),
        stake_rao: own.stake_rao,
        stake_threshold_rao: if owner { 0 } else { rules.stake_threshold_rao },
        validator_permit: own.validator_permit,
        active: own.active,
        incentive: own.incentive,
        dividends: own.dividends,
        standing: own.standing,
        last_update: own.last_update,
        blocks_since_update: metagraph.head.number.saturating_sub(own.last_update),
    }
}

/// Blocks from the next one on in which a neuron is immune.
fn immune_blocks(metagraph: &Metagraph, rules: &Hyperparameters, neuron: &Neuron) -> u64 {
    let age = metagraph.head.number.saturating_add(1).saturating_sub(neuron.registered_at);
    rules.immunity_period.saturating_sub(age)
}

fn score(rules: &Hyperparameters, neuron: &Neuron) -> u64 {
    match rules.replacement.by {
        ReplacedBy::Shares => u64::from(neuron.incentive) + u64::from(neuron.dividends),
        ReplacedBy::PruningScore => u64::from(neuron.standing.pruning_score),
        ReplacedBy::Emission => neuron.standing.emission_rao,
    }
}

fn place(metagraph: &Metagraph, rules: &Hyperparameters, own: &Neuron) -> Place {
    let exempt = |n: &Neuron| rules.owner_hotkey == Some(n.hotkey);
    let immune = |n: &Neuron| immune_blocks(metagraph, rules, n) > 0;
    let can_go = || metagraph.neurons.iter().filter(|n| !exempt(n));
    let immune_first = can_go().filter(|n| !immune(n)).count() <= usize::from(rules.replacement.least_free);
    // Those who go now come first, then the others.
    let order = |n: &Neuron| (immune(n) != immune_first, score(rules, n), n.registered_at, n.uid);
    let goes = |n: &Neuron| immune(n) == immune_first && (!immune(n) || rules.replacement.immune_too);
    let first = can_go().filter(|n| goes(n)).min_by_key(|n| order(n));
    let other = can_go().filter(|n| goes(n) && n.uid != own.uid).min_by_key(|n| order(n));
    let full = metagraph.neurons.len() >= usize::from(rules.max_allowed_uids);
    Place {
        by: rules.replacement.by,
        score: score(rules, own),
        cut: other.map(|n| score(rules, n)),
        before: can_go().filter(|n| order(n) < order(own)).count(),
        next: full && first.is_some_and(|n| n.uid == own.uid),
        exempt: exempt(own),
    }
}

impl OwnStanding {
    /// The same with what became of a slot that it had `before` and has no more in `metagraph`, the one this was made of.
    #[must_use]
    pub fn after(mut self, before: Option<&OwnStanding>, metagraph: &Metagraph) -> Self {
        self.lost = match (before, &self.neuron) {
            (Some(OwnStanding { neuron: Some(had), .. }), None) => {
                let now = metagraph.by_uid(had.uid).filter(|n| n.hotkey != self.hotkey);
                Some(Lost { uid: had.uid, to: now.map(|n| n.hotkey), block: now.map(|n| n.registered_at) })
            }
            (Some(OwnStanding { lost, .. }), None) => *lost,
            _ => None,
        };
        self
    }

    /// What an operator should hear, compared with `before`; without it, what is not as it should be. Stake and permit are
    /// told to validators only: a miner needs neither.
    pub fn changes(&self, before: Option<&OwnStanding>, validator: bool) -> Vec<Change> {
        let had = before.and_then(|b| b.neuron.as_ref());
        let Some(now) = &self.neuron else {
            return match (had, before) {
                (Some(had), _) => {
                    let lost = self.lost.unwrap_or(Lost { uid: had.uid, to: None, block: None });
                    vec![Change::Deregistered(lost)]
                }
                (None, None) => vec![Change::NotRegistered],
                (None, Some(_)) => Vec::new(),
            };
        };
        let mut changes = Vec::new();
        // A slot that was lost and taken again between two looks is another registration.
        let same = had.filter(|had| (had.uid, had.registered_at) == (now.uid, now.registered_at));
        if same.is_none() && before.is_some() {
            changes.push(Change::Registered { uid: now.uid, immune_blocks: now.immune_blocks });
        }
        if same.is_some_and(|had| had.immune_blocks > 0) && now.immune_blocks == 0 {
            changes.push(Change::ImmunityEnded { before: now.place.before });
        }
        let was_next = same.is_some_and(|had| had.place.next);
        match (was_next, now.place.next) {
            (false, true) => changes.push(Change::AtRisk { score: now.place.score, cut: now.place.cut }),
            (true, false) => changes.push(Change::OutOfRisk { before: now.place.before }),
            _ => {}
        }
        if !validator {
            return changes;
        }
        let had_permit = same.map(|had| had.validator_permit);
        match (had_permit, now.validator_permit) {
            (Some(false), true) => changes.push(Change::PermitGained),
            (Some(true) | None, false) => changes.push(Change::NoPermit),
            _ => {}
        }
        let was_below = same.is_some_and(OwnNeuron::is_below_threshold);
        match (was_below, now.is_below_threshold()) {
            (false, true) => {
                let (stake_rao, threshold_rao) = (now.stake_rao, now.stake_threshold_rao);
                changes.push(Change::StakeTooSmall { stake_rao, threshold_rao });
            }
            (true, false) => changes.push(Change::StakeEnough),
            _ => {}
        }
        changes
    }
}

/// Something about our standing that an operator should hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The first look showed no neuron of ours.
    NotRegistered,
    /// Our neuron is gone.
    Deregistered(Lost),
    /// We have a neuron that we did not have.
    Registered {
        /// Its slot.
        uid: Uid,
        /// Blocks of immunity.
        immune_blocks: u64,
    },
    /// The immunity is over.
    ImmunityEnded {
        /// Neurons that go before it.
        before: usize,
    },
    /// The next registration replaces our neuron.
    AtRisk {
        /// See [`Place::score`].
        score: u64,
        /// See [`Place::cut`].
        cut: Option<u64>,
    },
    /// It no longer does.
    OutOfRisk {
        /// Neurons that go before it.
        before: usize,
    },
    /// We may weigh others now.
    PermitGained,
    /// We may not, or no more.
    NoPermit,
    /// The stake is below the threshold.
    StakeTooSmall {
        /// The stake, in rao.
        stake_rao: u64,
        /// The threshold, in rao.
        threshold_rao: u64,
    },
    /// It no longer is.
    StakeEnough,
}

impl Change {
    /// Every label.
    pub const LABELS: [&'static str; 10] = [
        "not_registered",
        "deregistered",
        "registered",
        "immunity_ended",
        "at_risk",
        "out_of_risk",
        "permit_gained",
        "no_permit",
        "stake_too_small",
        "stake_enough",
    ];

    /// The change in one word, of [`Change::LABELS`].
    pub fn label(&self) -> &'static str {
        match self {
            Change::NotRegistered => "not_registered",
            Change::Deregistered(_) => "deregistered",
            Change::Registered { .. } => "registered",
            Change::ImmunityEnded { .. } => "immunity_ended",
            Change::AtRisk { .. } => "at_risk",
            Change::OutOfRisk { .. } => "out_of_risk",
            Change::PermitGained => "permit_gained",
            Change::NoPermit => "no_permit",
            Change::StakeTooSmall { .. } => "stake_too_small",
            Change::StakeEnough => "stake_enough",
        }
    }

    /// What an operator can do; empty where nothing is to be done.
    pub fn remedy(&self) -> &'static str {
        match self {
            Change::NotRegistered => {
                "register the hotkey in this subnet, or check netuid, subtensor.network and wallet.hotkey"
            }
            Change::Deregistered(_) => "register the hotkey again; leases that run go on until their end",
            Change::AtRisk { .. } => {
                "raise the score before somebody registers: a miner by proved devices, a validator by stake and weights \
                 in the consensus"
            }
            Change::NoPermit => "permits go to the highest stakes at each epoch: add stake to this hotkey",
            Change::StakeTooSmall { .. } => {
                "add stake to this hotkey: below the threshold the chain refuses its weights"
            }
            Change::ImmunityEnded { before: 0 } => "nobody goes before this neuron: see that it earns",
            Change::Registered { .. }
            | Change::ImmunityEnded { .. }
            | Change::OutOfRisk { .. }
            | Change::PermitGained
            | Change::StakeEnough => "",
        }
    }

    /// Whether an operator must act, or else loses the neuron or what it earns.
    pub fn is_bad(&self) -> bool {
        matches!(
            self,
            Change::NotRegistered
                | Change::Deregistered(_)
                | Change::AtRisk { .. }
                | Change::NoPermit
                | Change::StakeTooSmall { .. }
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::NotRegistered => f.write_str("the hotkey has no uid in this subnet"),
            Change::Deregistered(Lost { uid, to: Some(to), block: Some(block) }) => {
                write!(f, "deregistered: uid {uid} went to {to}, registered in block {block}")
            }
            Change::Deregistered(Lost { uid, .. }) => write!(f, "deregistered: uid {uid} is gone"),
            Change::Registered { uid, immune_blocks } => {
                write!(f, "registered as uid {uid}, immune for {immune_blocks} blocks")
            }
            Change::ImmunityEnded { before } => write!(f, "the immunity is over; {before} neurons go before this one"),
            Change::AtRisk { score, cut: Some(cut) } => {
                write!(f, "the next registration replaces this neuron: its score is {score}, the next one's {cut}")
            }
            Change::AtRisk { score, cut: None } => {
                write!(f, "the next registration replaces this neuron: its score is {score}, and no other can go")
            }
            Change::OutOfRisk { before } => {
                write!(f, "the next registration no longer replaces this neuron; {before} go before it")
            }
            Change::PermitGained => f.write_str("this hotkey has a validator permit now"),
            Change::NoPermit => f.write_str("this hotkey has no validator permit"),
            Change::StakeTooSmall { stake_rao, threshold_rao } => {
                write!(f, "the stake is {} and the threshold {}", units(*stake_rao), units(*threshold_rao))
            }
            Change::StakeEnough => f.write_str("the stake has reached the threshold"),
        }
    }
}

/// An amount in whole units, exactly.
pub fn units(rao: u64) -> String {
    let (whole, rest) = (rao / super::RAO_PER_TAO, rao % super::RAO_PER_TAO);
    let text = format!("{whole}.{rest:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
