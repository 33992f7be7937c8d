use proptest::prelude::*;

use super::*;
use crate::chain::{BlockHead, EpochClock, RAO_PER_TAO, Replacement};
use crate::ids::Hash32;

const HEAD: u64 = 1_000;

fn key(n: u16) -> Hotkey {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_le_bytes());
    Hotkey(bytes)
}

fn neuron(uid: u16, registered_at: u64, score: u16) -> Neuron {
    Neuron {
        hotkey: key(uid),
        stake_rao: 5 * RAO_PER_TAO,
        validator_permit: true,
        registered_at,
        last_update: HEAD - 7,
        incentive: score,
        standing: Standing { pruning_score: score, emission_rao: u64::from(score), ..Standing::default() },
        ..Neuron::idle(uid)
    }
}

fn graph(neurons: Vec<Neuron>) -> Metagraph {
    let netuid = Netuid(27);
    let head = BlockHead { number: HEAD, hash: Hash32([1; 32]), timestamp_ms: 0 };
    Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 5 }, neurons }
}

/// A subnet whose every slot is taken.
fn rules(neurons: &[Neuron], replacement: Replacement) -> Hyperparameters {
    Hyperparameters {
        immunity_period: 100,
        max_allowed_uids: neurons.len() as u16,
        stake_threshold_rao: 3 * RAO_PER_TAO,
        replacement,
        ..Hyperparameters::default()
    }
}

const LEDGER: Replacement = Replacement { by: ReplacedBy::Shares, least_free: 0, immune_too: false };
const OLD: Replacement = Replacement { by: ReplacedBy::PruningScore, least_free: 0, immune_too: true };
const NEW: Replacement = Replacement { by: ReplacedBy::Emission, least_free: 2, immune_too: true };

fn of(neurons: Vec<Neuron>, rules: &Hyperparameters, uid: u16) -> OwnStanding {
    standing(&graph(neurons), rules, &key(uid))
}

fn place_of(neurons: &[Neuron], replacement: Replacement, uid: u16) -> Place {
    of(neurons.to_vec(), &rules(neurons, replacement), uid).neuron.unwrap().place
}

#[test]
fn the_lowest_score_out_of_immunity_goes_next_and_ties_go_by_registration_and_uid() {
    let subnet = [neuron(0, 1, 50), neuron(1, 2, 7), neuron(2, 1, 7), neuron(3, 1, 7), neuron(4, 990, 0)];
    for replacement in [LEDGER, OLD, NEW] {
        let at = |uid| place_of(&subnet, replacement, uid);
        assert_eq!([2, 3, 1, 0, 4].map(|uid| at(uid).before), [0, 1, 2, 3, 4], "{replacement:?}");
        assert_eq!([0, 1, 2, 3, 4].map(|uid| at(uid).next), [false, false, true, false, false]);
        assert_eq!((at(0).over_cut(), at(4).over_cut(), at(2).over_cut()), (Some(43), Some(-7), Some(0)));
    }
}

#[test]
fn while_too_few_are_out_of_immunity_an_immune_one_goes_but_never_on_the_ledger() {
    let two_free = [neuron(0, 1, 50), neuron(1, 2, 0), neuron(2, 990, 9), neuron(3, 991, 9)];
    assert!(place_of(&two_free, NEW, 2).next, "the chain keeps two");
    assert!(!place_of(&two_free, NEW, 1).next);
    assert_eq!(place_of(&two_free, NEW, 1).before, 2);
    let all_immune = [neuron(0, 990, 50), neuron(1, 991, 0)];
    assert!(place_of(&all_immune, OLD, 1).next);
    let places = [0, 1].map(|uid| place_of(&all_immune, LEDGER, uid));
    assert!(places.iter().all(|p| !p.next && p.cut.is_none() && p.over_cut().is_none()));
}

#[test]
fn nobody_is_replaced_while_a_slot_is_free_and_the_owner_never() {
    let subnet = [neuron(0, 1, 0), neuron(1, 1, 5)];
    let roomy = Hyperparameters { max_allowed_uids: 3, ..rules(&subnet, OLD) };
    assert!(!of(subnet.to_vec(), &roomy, 0).neuron.unwrap().place.next);
    let owned = Hyperparameters { owner_hotkey: Some(key(0)), ..rules(&subnet, OLD) };
    let owner = of(subnet.to_vec(), &owned, 0).neuron.unwrap();
    assert!(owner.place.exempt && !owner.place.next && !owner.is_below_threshold());
    assert!(of(subnet.to_vec(), &owned, 1).neuron.unwrap().place.next);
}

#[test]
fn immunity_is_counted_to_the_block_in_which_the_chain_no_longer_grants_it() {
    // The chain: block − registered_at < period. The next block is 1001.
    let left = |registered_at| {
        let subnet = [neuron(0, registered_at, 1)];
        of(subnet.to_vec(), &rules(&subnet, OLD), 0).neuron.unwrap().immune_blocks
    };
    assert_eq!([901, 902, HEAD, HEAD + 5].map(left), [0, 1, 99, 100]);
}

#[test]
fn a_slot_that_was_lost_is_told_with_who_has_it_and_remembered() {
    let subnet = [neuron(0, 1, 1), neuron(1, 1, 5)];
    let rules = rules(&subnet, OLD);
    let before = of(subnet.to_vec(), &rules, 0);
    let taken = graph(vec![Neuron { hotkey: key(77), registered_at: HEAD, ..neuron(0, 1, 1) }, neuron(1, 1, 5)]);
    let now = standing(&taken, &rules, &key(0)).after(Some(&before), &taken);
    let lost = Lost { uid: Uid(0), to: Some(key(77)), block: Some(HEAD) };
    assert_eq!((now.lost, now.changes(Some(&before), false)), (Some(lost), vec![Change::Deregistered(lost)]));
    let text = Change::Deregistered(lost).to_string();
    assert!(text.contains(&format!("uid 0 went to {}, registered in block 1000", key(77))), "{text}");
    let later = standing(&taken, &rules, &key(0)).after(Some(&now), &taken);
    assert_eq!((later.lost, later.changes(Some(&now), false)), (Some(lost), vec![]), "told once, kept");
    let again = graph(vec![neuron(0, HEAD, 0), neuron(1, 1, 5)]);
    let again = standing(&again, &rules, &key(0)).after(Some(&later), &again);
    assert_eq!(again.lost, None);
    assert_eq!(again.changes(Some(&later), false), [Change::Registered { uid: Uid(0), immune_blocks: 99 }]);
}

#[test]
fn a_first_look_tells_only_what_is_wrong_and_miners_hear_nothing_of_permits() {
    let poor = Neuron { stake_rao: 1, validator_permit: false, ..neuron(0, 1, 1) };
    let subnet = [poor, neuron(1, 1, 5)];
    let rules = rules(&subnet, OLD);
    assert_eq!(of(subnet.to_vec(), &rules, 1).changes(None, true), []);
    assert_eq!(of(subnet.to_vec(), &rules, 5).changes(None, false), [Change::NotRegistered]);
    let at_risk = Change::AtRisk { score: 1, cut: Some(5) };
    let poor = of(subnet.to_vec(), &rules, 0);
    assert_eq!(poor.changes(None, false), [at_risk]);
    let too_small = Change::StakeTooSmall { stake_rao: 1, threshold_rao: 3 * RAO_PER_TAO };
    assert_eq!(poor.changes(None, true), [at_risk, Change::NoPermit, too_small]);
    assert_eq!(too_small.to_string(), "the stake is 0.000000001 and the threshold 3");
    assert_eq!(poor.changes(Some(&poor), true), [], "told once");
    let better = of(vec![neuron(0, 1, 6), neuron(1, 1, 5)], &rules, 0);
    let good = [Change::OutOfRisk { before: 1 }, Change::PermitGained, Change::StakeEnough];
    assert_eq!(better.changes(Some(&poor), true), good);
    assert!(good.iter().all(|c| !c.is_bad() && c.remedy().is_empty()));
}

#[test]
fn the_end_of_immunity_is_told_once() {
    let subnet = [neuron(0, 902, 1), neuron(1, 1, 0)];
    let rules = rules(&subnet, OLD);
    let before = of(subnet.to_vec(), &rules, 0);
    let mut later = graph(subnet.to_vec());
    later.head.number += 1;
    let now = standing(&later, &rules, &key(0));
    assert_eq!(now.changes(Some(&before), false), [Change::ImmunityEnded { before: 1 }]);
    assert_eq!(now.changes(Some(&now), false), []);
}

#[test]
fn what_an_operator_must_act_on_has_a_remedy_and_every_label_is_listed() {
    let lost = Lost { uid: Uid(1), to: None, block: None };
    let all = [
        Change::NotRegistered,
        Change::Deregistered(lost),
        Change::Registered { uid: Uid(1), immune_blocks: 1 },
        Change::ImmunityEnded { before: 1 },
        Change::AtRisk { score: 1, cut: None },
        Change::OutOfRisk { before: 1 },
        Change::PermitGained,
        Change::NoPermit,
        Change::StakeTooSmall { stake_rao: 1, threshold_rao: 2 },
        Change::StakeEnough,
    ];
    assert_eq!(all.map(|c| c.label()), Change::LABELS);
    assert!(all.iter().all(|c| !c.is_bad() || !c.remedy().is_empty()));
}

/// The chain's own way through the neurons: one pass, a best one of each class (`get_neuron_to_prune`).
fn chains_choice(subnet: &[Neuron], rules: &Hyperparameters) -> Option<Uid> {
    let (mut free, mut best_free, mut best_immune) = (0, None, None);
    for n in subnet.iter().filter(|n| rules.owner_hotkey != Some(n.hotkey)) {
        let immune = (HEAD + 1).saturating_sub(n.registered_at) < rules.immunity_period;
        let candidate = (u64::from(n.standing.pruning_score), n.registered_at, n.uid);
        let best: &mut Option<_> = if immune { &mut best_immune } else { &mut best_free };
        if best.is_none_or(|b| candidate < b) {
            *best = Some(candidate);
        }
        free += u16::from(!immune);
    }
    let chosen = match free > rules.replacement.least_free {
        true => best_free,
        false if rules.replacement.immune_too => best_immune,
        false => None,
    };
    chosen.map(|(_, _, uid)| uid)
}

proptest! {
    #[test]
    fn the_neuron_at_risk_is_the_one_that_the_chain_would_choose_and_the_places_are_an_order(
        slots in prop::collection::vec((880u64..=HEAD, 0u16..6), 1..40),
        which in 0usize..3,
        owner in prop::option::of(0u16..40),
    ) {
        let subnet: Vec<Neuron> =
            slots.iter().enumerate().map(|(uid, (at, score))| neuron(uid as u16, *at, *score)).collect();
        let rules = Hyperparameters { owner_hotkey: owner.map(key), ..rules(&subnet, [LEDGER, OLD, NEW][which]) };
        let graph = graph(subnet.clone());
        let places: Vec<(Uid, Place)> = subnet
            .iter()
            .map(|n| (n.uid, standing(&graph, &rules, &n.hotkey).neuron.unwrap().place))
            .collect();
        let at_risk: Vec<Uid> = places.iter().filter(|(_, p)| p.next).map(|(uid, _)| *uid).collect();
        prop_assert_eq!(at_risk, Vec::from_iter(chains_choice(&subnet, &rules)));
        let mut order: Vec<usize> = places.iter().filter(|(_, p)| !p.exempt).map(|(_, p)| p.before).collect();
        order.sort_unstable();
        prop_assert_eq!(&order, &(0..order.len()).collect::<Vec<_>>());
        prop_assert!(places.iter().all(|(_, p)| !p.next || p.before == 0));
    }
}
