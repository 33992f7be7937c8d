//! Every rule, each by the refusal that it gives, and what holds whatever is called.

use proptest::prelude::*;

use super::*;
use crate::wallet::Keypair;

const NETUID: Netuid = Netuid(27);
const OWNER: Coldkey = Coldkey([100; 32]);
const IP: u128 = 0x0a00_0001; // 10.0.0.1

fn hot(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

fn config(change: impl FnOnce(&mut GenesisConfig)) -> GenesisConfig {
    let mut c = GenesisConfig::new(NETUID);
    c.hyperparameters =
        Hyperparameters { tempo: 5, weights_rate_limit: 10, serving_rate_limit: 5, burn_rao: 10, ..c.hyperparameters };
    c.endowed = vec![(OWNER, 1_000)];
    c.stakes = vec![(hot(0), 300), (hot(1), 100)];
    change(&mut c);
    c
}

fn empty(change: impl FnOnce(&mut GenesisConfig)) -> State {
    State::genesis(&config(change), 1_000).unwrap()
}

/// Neurons 0 to 3 with uids of the same number; 0 and 1 have stake and permits; the rate limits have passed.
fn subnet(change: impl FnOnce(&mut GenesisConfig)) -> State {
    let mut s = empty(change);
    for n in 0..4 {
        register(&mut s, n).unwrap();
    }
    blocks(&mut s, 20);
    s
}

fn blocks(s: &mut State, n: usize) {
    for _ in 0..n {
        s.produce_block(0, vec![]);
    }
}

fn register(s: &mut State, n: u8) -> Result<Vec<Event>, Rejection> {
    s.apply(NETUID, &Call::BurnedRegister { hotkey: hot(n) }, &Hotkey(OWNER.0))
}

fn axon(ip: u128, port: u16, ip_type: u8) -> Call {
    Call::ServeAxon { version: 183, ip, port, ip_type, protocol: 4 }
}

fn metrics(ip: u128, port: u16) -> Call {
    Call::ServePrometheus { version: 183, ip, port, ip_type: 4 }
}

fn weights(uids: &[u16], values: &[u16]) -> Call {
    Call::SetWeights { uids: uids.to_vec(), values: values.to_vec(), version_key: 0 }
}

fn refused(s: &State, call: &Call, signer: Hotkey) -> Rejection {
    s.check(NETUID, call, &signer).unwrap_err()
}

// === registration and stake ===

#[test]
fn a_registration_burns_its_price_and_takes_the_next_uid() {
    let mut s = empty(|_| {});
    assert_eq!(register(&mut s, 7).unwrap(), [Event::NeuronRegistered(Uid(0), hot(7))]);
    blocks(&mut s, 1);
    let graph = s.metagraph();
    let n = graph.by_hotkey(&hot(7)).unwrap();
    assert_eq!((n.uid, n.coldkey, n.registered_at, n.last_update), (Uid(0), OWNER, 1, 1));
    assert_eq!((s.balance(&OWNER), s.burned_rao), (990, 10));
}

#[test]
fn registrations_that_break_a_rule_are_refused_by_name() {
    let call = Call::BurnedRegister { hotkey: hot(9) };
    let owner = Hotkey(OWNER.0);
    let mut s = subnet(|_| {});
    assert_eq!(s.check(Netuid(1), &call, &owner), Err(Rejection::SubnetNotExists));
    assert_eq!(register(&mut s, 2), Err(Rejection::HotKeyAlreadyRegisteredInSubNet));
    assert_eq!(refused(&s, &call, hot(50)), Rejection::NotEnoughBalanceToStake);

    let mut one = empty(|c| c.max_registrations_per_block = 1);
    register(&mut one, 0).unwrap();
    assert_eq!(register(&mut one, 1), Err(Rejection::TooManyRegistrationsThisBlock));
    blocks(&mut one, 1);
    register(&mut one, 1).unwrap();
}

#[test]
fn a_replaced_hotkey_still_belongs_to_its_coldkey() {
    let mut s = empty(|c| {
        c.hyperparameters.max_allowed_uids = 1;
        c.hyperparameters.immunity_period = 3;
        c.endowed.push((Coldkey([101; 32]), 100));
    });
    register(&mut s, 0).unwrap();
    blocks(&mut s, 1);
    assert_eq!(register(&mut s, 1), Err(Rejection::NoNeuronIdAvailable));
    blocks(&mut s, 2);
    let replaced = [Event::NeuronReplaced(Uid(0), hot(0)), Event::NeuronRegistered(Uid(0), hot(1))];
    assert_eq!(register(&mut s, 1).unwrap(), replaced);
    blocks(&mut s, 3);
    let again = Call::BurnedRegister { hotkey: hot(0) };
    assert_eq!(refused(&s, &again, Hotkey([101; 32])), Rejection::NonAssociatedColdKey);
}

#[test]
fn a_full_subnet_replaces_the_lowest_incentive_out_of_immunity() {
    let mut s = subnet(|c| {
        c.hyperparameters.max_allowed_uids = 4;
        c.hyperparameters.immunity_period = 10;
    });
    s.apply(NETUID, &weights(&[2, 3], &[1, 9]), &hot(0)).unwrap();
    s.apply(NETUID, &weights(&[2, 3], &[1, 9]), &hot(1)).unwrap();
    blocks(&mut s, 6);
    let next = |s: &State, n| {
        crate::chain::standing::standing(&s.metagraph(), s.hyperparameters(), &hot(n)).neuron.unwrap().place.next
    };
    assert_eq!([0, 1, 2, 3].map(|n| next(&s, n)), [false, false, true, false], "it is known before it happens");
    // uid 2 earns least; the validators earn dividends.
    assert_eq!(register(&mut s, 8).unwrap()[0], Event::NeuronReplaced(Uid(2), hot(2)));
    let n = s.metagraph().neurons[2].clone();
    assert_eq!((n.hotkey, n.axon, n.incentive, n.weights), (hot(8), None, 0, vec![]));
}

#[test]
fn stake_moves_from_the_balance_to_the_hotkey() {
    let mut s = subnet(|_| {});
    let owner = Hotkey(OWNER.0);
    let add = |hotkey, amount_rao| Call::AddStake { hotkey, amount_rao };
    assert_eq!(refused(&s, &add(hot(2), 0), owner), Rejection::AmountTooLow);
    assert_eq!(refused(&s, &add(hot(2), 10_000), owner), Rejection::NotEnoughBalanceToStake);
    assert_eq!(refused(&s, &add(hot(77), 1), owner), Rejection::HotKeyAccountNotExists);
    s.apply(NETUID, &add(hot(2), 60), &owner).unwrap();
    assert_eq!((s.balance(&OWNER), s.stake(&hot(2))), (900, 60));
}

// === serving ===

#[test]
fn an_axon_that_was_served_is_in_the_metagraph_with_its_block() {
    let mut s = subnet(|_| {});
    s.apply(NETUID, &axon(IP, 8091, 4), &hot(2)).unwrap();
    s.apply(NETUID, &metrics(IP, 9100), &hot(2)).unwrap();
    let n = s.metagraph().neurons[2].clone();
    let ip = "10.0.0.1".parse().unwrap();
    assert_eq!(n.axon, Some(AxonInfo { block: 21, version: 183, ip, port: 8091, protocol: 4 }));
    assert_eq!(n.prometheus, Some(PrometheusInfo { block: 21, version: 183, ip, port: 9100 }));
    assert!(n.serves_axon(ip, 8091, 183));
}

#[test]
fn servings_that_break_a_rule_are_refused_by_name() {
    let s = subnet(|_| {});
    let localhost = 0x7f00_0001;
    let cases = [
        (axon(IP, 8091, 4), hot(9), Rejection::HotKeyNotRegisteredInNetwork),
        (axon(IP, 8091, 5), hot(2), Rejection::InvalidIpType),
        (axon(localhost, 8091, 4), hot(2), Rejection::InvalidIpAddress),
        (axon(u128::from(u32::MAX), 8091, 4), hot(2), Rejection::InvalidIpAddress),
        (axon(1 << 32, 8091, 4), hot(2), Rejection::InvalidIpAddress),
        (axon(1, 8091, 6), hot(2), Rejection::InvalidIpAddress),
        (axon(u128::MAX, 8091, 6), hot(2), Rejection::InvalidIpAddress),
        (axon(IP, 0, 4), hot(2), Rejection::InvalidPort),
        (metrics(0, 9100), hot(2), Rejection::InvalidIpAddress),
        (metrics(IP, 0), hot(2), Rejection::InvalidPort),
    ];
    for (call, signer, expected) in cases {
        assert_eq!(refused(&s, &call, signer), expected, "{call:?}");
    }
}

#[test]
fn addresses_come_back_from_the_sdks_numbers() {
    let file = include_str!("../../../../tests/vectors/chain/weights_and_ip.json");
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let cases = file["ip"].as_array().unwrap();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let number = case["int"].as_str().unwrap().parse().unwrap();
        let ip_type = u8::try_from(case["version"].as_u64().unwrap()).unwrap();
        let back: std::net::IpAddr = case["back"].as_str().unwrap().parse().unwrap();
        assert_eq!(rules::served_ip(number, ip_type), Ok(back), "{case}");
    }
}

#[test]
fn other_loopback_addresses_are_accepted_and_an_axon_at_zero_means_not_serving() {
    let mut s = subnet(|_| {});
    s.apply(NETUID, &axon(0x7f00_0105, 8091, 4), &hot(2)).unwrap();
    assert_eq!(s.metagraph().neurons[2].axon.unwrap().ip.to_string(), "127.0.1.5");
    s.apply(NETUID, &axon(0, 8091, 4), &hot(3)).unwrap();
    assert_eq!(s.metagraph().neurons[3].axon, None);
}

#[test]
fn serving_again_waits_for_the_rate_limit_counted_apart_for_axon_and_metrics() {
    let mut s = subnet(|_| {});
    s.apply(NETUID, &axon(IP, 8091, 4), &hot(2)).unwrap();
    blocks(&mut s, 4);
    assert_eq!(refused(&s, &axon(IP, 8092, 4), hot(2)), Rejection::ServingRateLimitExceeded);
    assert_eq!(s.check(NETUID, &metrics(IP, 9100), &hot(2)), Ok(()));
    blocks(&mut s, 1);
    // Served in block 21, limit 5: block 26 is the first that takes it.
    assert_eq!(s.head().number, 25);
    assert_eq!(s.check(NETUID, &axon(IP, 8092, 4), &hot(2)), Ok(()));
}

// === weights ===

#[test]
fn weights_that_break_a_rule_are_refused_by_name() {
    let s = subnet(|c| {
        c.hyperparameters.min_allowed_weights = 2;
        c.hyperparameters.max_weights_limit = 40_000;
        c.hyperparameters.weights_version_key = 183;
        c.hyperparameters.stake_threshold_rao = 50;
    });
    let with_key = |uids: &[u16], values: &[u16], version_key| Call::SetWeights {
        uids: uids.to_vec(),
        values: values.to_vec(),
        version_key,
    };
    let good = with_key(&[2, 3], &[1, 1], 183);
    assert_eq!(s.check(NETUID, &good, &hot(0)), Ok(()));
    assert_eq!(s.check(Netuid(0), &good, &hot(0)), Err(Rejection::CanNotSetRootNetworkWeights));
    assert_eq!(s.check(Netuid(3), &good, &hot(0)), Err(Rejection::SubnetNotExists));
    let cases = [
        (with_key(&[2, 3], &[1], 183), hot(0), Rejection::WeightVecNotEqualSize),
        (with_key(&[0, 1, 2, 3, 4], &[1; 5], 183), hot(0), Rejection::UidsLengthExceedUidsInSubNet),
        (good.clone(), hot(9), Rejection::HotKeyNotRegisteredInSubNet),
        (good.clone(), hot(2), Rejection::NotEnoughStakeToSetWeights),
        (with_key(&[2, 3], &[1, 1], 182), hot(0), Rejection::IncorrectWeightVersionKey),
        (with_key(&[2, 2], &[1, 1], 183), hot(0), Rejection::DuplicateUids),
        (with_key(&[2, 4], &[1, 1], 183), hot(0), Rejection::UidVecContainInvalidOne),
        (with_key(&[2], &[1], 183), hot(0), Rejection::WeightVecLengthIsLow),
        (with_key(&[2, 3], &[2, 1], 183), hot(0), Rejection::MaxWeightExceeded),
    ];
    for (call, signer, expected) in cases {
        assert_eq!(refused(&s, &call, signer), expected, "{call:?}");
    }
}

#[test]
fn a_call_wrong_in_two_ways_is_refused_for_what_the_chain_checks_first() {
    let s = subnet(|_| {});
    // Unequal lengths, unregistered, duplicate: lengths come first, registration second.
    assert_eq!(refused(&s, &weights(&[2, 2], &[1]), hot(9)), Rejection::WeightVecNotEqualSize);
    assert_eq!(refused(&s, &weights(&[2, 2], &[1, 1]), hot(9)), Rejection::HotKeyNotRegisteredInSubNet);
    // Bad address and bad port: the address comes first.
    assert_eq!(refused(&s, &axon(1, 0, 6), hot(2)), Rejection::InvalidIpAddress);
}

#[test]
fn without_a_permit_only_a_single_weight_on_oneself_is_taken() {
    let s = subnet(|c| c.hyperparameters.min_allowed_weights = 2);
    assert_eq!(refused(&s, &weights(&[0, 1], &[1, 1]), hot(2)), Rejection::NeuronNoValidatorPermit);
    assert_eq!(s.check(NETUID, &weights(&[2], &[1]), &hot(2)), Ok(()));
}

#[test]
fn commit_reveal_refuses_plain_weights() {
    let s = subnet(|c| c.hyperparameters.commit_reveal = true);
    assert_eq!(refused(&s, &weights(&[2], &[1]), hot(0)), Rejection::CommitRevealEnabled);
}

#[test]
fn the_weights_rate_limit_lets_the_block_at_exactly_the_limit_pass() {
    let mut s = subnet(|_| {});
    s.apply(NETUID, &weights(&[2], &[1]), &hot(0)).unwrap(); // in block 21, limit 10
    blocks(&mut s, 9);
    assert_eq!(s.head().number, 29);
    assert_eq!(refused(&s, &weights(&[3], &[1]), hot(0)), Rejection::SettingWeightsTooFast); // block 30
    blocks(&mut s, 1);
    assert_eq!(s.check(NETUID, &weights(&[3], &[1]), &hot(0)), Ok(())); // block 31
}

#[test]
fn a_fresh_neuron_waits_out_the_rate_limit_from_its_registration() {
    let mut s = empty(|_| {});
    register(&mut s, 0).unwrap(); // in block 1, limit 10
    blocks(&mut s, 9);
    assert_eq!(refused(&s, &weights(&[0], &[1]), hot(0)), Rejection::SettingWeightsTooFast);
    blocks(&mut s, 1);
    assert_eq!(s.check(NETUID, &weights(&[0], &[1]), &hot(0)), Ok(()));
}

#[test]
fn weights_become_incentive_at_the_next_epoch() {
    let mut s = subnet(|_| {});
    s.apply(NETUID, &weights(&[2, 3], &[50, 50]), &hot(0)).unwrap();
    s.apply(NETUID, &weights(&[3], &[7]), &hot(1)).unwrap();
    assert_eq!(s.metagraph().neurons[0].weights, [(Uid(2), 65535), (Uid(3), 65535)]);
    let epoch = s.metagraph().epoch();
    while s.metagraph().epoch() == epoch {
        assert!(s.metagraph().neurons.iter().all(|n| n.incentive == 0));
        blocks(&mut s, 1);
    }
    // Stakes 300 and 100: 3/8 and 5/8, rounded down.
    let incentives: Vec<u16> = s.metagraph().neurons.iter().map(|n| n.incentive).collect();
    assert_eq!(incentives, [0, 0, 24575, 40959]);
}

// === blocks ===

#[test]
fn epochs_run_where_the_formula_says_and_the_block_says_so() {
    let mut s = empty(|_| {});
    // (block + 28) % 6 == 0: 2, 8, 14
    let ran: Vec<u64> = (0..15)
        .filter_map(|_| {
            let block = s.produce_block(0, vec![]);
            block.events.iter().any(|e| matches!(e, Event::EpochRan(_))).then_some(block.head.number)
        })
        .collect();
    assert_eq!(ran, [2, 8, 14]);
}

#[test]
fn a_blocks_hash_is_over_parent_number_time_and_calls() {
    let mut s = empty(|_| {});
    let parent = s.head().hash;
    let block = s.produce_block(5_000, vec![]);
    let root = blake2b_256(&[]);
    let by_hand = blake2b_256(&[&parent.0, &1u64.to_le_bytes(), &5_000u64.to_le_bytes(), &root.0]);
    assert_eq!((block.head.hash, block.parent), (by_hand, parent));
    assert_eq!(s.block_hash(1), Some(by_hand));
    assert_eq!(s.block_hash(0), Some(parent));
    assert_eq!(s.block_hash(2), None);
}

#[test]
fn time_never_goes_back() {
    let mut s = empty(|_| {});
    assert_eq!(s.produce_block(900, vec![]).head.timestamp_ms, 1_001);
    assert_eq!(s.produce_block(0, vec![]).head.timestamp_ms, 1_002);
    assert_eq!(s.produce_block(9_000, vec![]).head.timestamp_ms, 9_000);
}

#[test]
fn only_the_newest_hashes_are_kept() {
    let mut s = empty(|_| {});
    blocks(&mut s, HASHES_KEPT + 10);
    let head = s.head().number;
    assert_eq!(s.block_hash(head), Some(s.head().hash));
    assert!(s.block_hash(head - HASHES_KEPT as u64 + 1).is_some());
    assert_eq!(s.block_hash(head - HASHES_KEPT as u64), None);
}

#[test]
fn a_refused_call_in_a_block_uses_up_its_nonce_and_a_replayed_one_is_left_out() {
    let key = Keypair::from_seed(&[1; 32]);
    let mut s = empty(|c| c.endowed = vec![(Coldkey(key.hotkey().0), 15)]);
    let genesis = s.genesis_head().hash;
    let call = |n, nonce| SignedCall::sign(Call::BurnedRegister { hotkey: hot(n) }, NETUID, nonce, genesis, &key);
    let block = s.produce_block(0, vec![call(0, 0), call(1, 1), call(2, 1)]);
    let refused: Vec<_> = block.calls.iter().map(|c| c.refused).collect();
    assert_eq!(refused, [None, Some(Rejection::NotEnoughBalanceToStake)]);
    assert_eq!(s.nonce(&key.hotkey()), 2);
    assert_eq!(s.check_envelope(&call(0, 0), 0), Err(Rejection::StaleTransaction(2)));
    assert_eq!(s.check_envelope(&call(0, 4), 1), Err(Rejection::FutureTransaction(3)));
    let foreign = SignedCall { genesis: Hash32([0; 32]), ..call(0, 2) };
    assert_eq!(s.check_envelope(&foreign, 0), Err(Rejection::WrongGenesis));
}

// === whatever is called ===

// === commit and reveal ===

const SALT: [u16; 3] = [7, 0, 65_535];

fn reveal(uids: &[u16], values: &[u16]) -> Call {
    Call::RevealWeights { uids: uids.to_vec(), values: values.to_vec(), salt: SALT.to_vec(), version_key: 0 }
}

/// The commit to what `reveal` reveals, by the function that a client uses.
fn commit(signer: Hotkey, uids: &[u16], values: &[u16]) -> Call {
    let index = crate::chain::commit::storage_index(NETUID, 0).unwrap();
    let entries = uids.iter().copied().map(Uid).zip(values.iter().copied()).collect();
    let weights = crate::chain::Weights { entries, version_key: 0 };
    Call::CommitWeights { hash: crate::chain::commit::commit_hash(&signer, index, &weights, &SALT) }
}

/// As `subnet`, with commits that are revealed an epoch later; the head is the last block of an epoch.
fn committing(change: impl FnOnce(&mut GenesisConfig)) -> State {
    let mut s = subnet(|c| {
        c.hyperparameters.commit_reveal = true;
        change(c);
    });
    while !is_epoch_block(s.head().number + 1, NETUID, 5) {
        blocks(&mut s, 1);
    }
    s
}

#[test]
fn a_commit_counts_as_an_update_and_its_reveal_an_epoch_later_sets_the_weights() {
    let mut s = committing(|_| {});
    let (at, weights) = (s.head().number + 1, [(Uid(2), 32_768), (Uid(3), 65_535)]);
    assert_eq!(s.apply(NETUID, &commit(hot(0), &[2, 3], &[1, 2]), &hot(0)), Ok(vec![Event::WeightsCommitted(Uid(0))]));
    blocks(&mut s, 1);
    let shown = s.weights_shown(&hot(0)).unwrap();
    assert_eq!((shown.at, shown.last_update, shown.entries.len(), shown.commits.len()), (at, at, 0, 1));
    // The commit was in the first of an epoch's six blocks: five are left, then six in which it may be revealed.
    for _ in 0..5 {
        assert_eq!(refused(&s, &reveal(&[2, 3], &[1, 2]), hot(0)), Rejection::RevealTooEarly);
        blocks(&mut s, 1);
    }
    let done = s.apply(NETUID, &reveal(&[2, 3], &[1, 2]), &hot(0));
    assert_eq!(done, Ok(vec![Event::WeightsRevealed(Uid(0))]));
    let shown = s.weights_shown(&hot(0)).unwrap();
    assert_eq!((shown.last_update, shown.entries, shown.commits), (at, weights.to_vec(), vec![]));
    assert_eq!(refused(&s, &reveal(&[2, 3], &[1, 2]), hot(0)), Rejection::NoWeightsCommitFound, "once");
}

#[test]
fn a_reveal_after_its_epoch_has_expired_and_longer_periods_wait_longer() {
    for period in [1, 3] {
        let mut s = committing(|c| c.hyperparameters.reveal_period = period);
        s.apply(NETUID, &commit(hot(0), &[2], &[1]), &hot(0)).unwrap();
        blocks(&mut s, 1);
        blocks(&mut s, 6 * period as usize - 2);
        assert_eq!(refused(&s, &reveal(&[2], &[1]), hot(0)), Rejection::RevealTooEarly);
        blocks(&mut s, 1);
        assert_eq!(s.check(NETUID, &reveal(&[2], &[1]), &hot(0)), Ok(()));
        blocks(&mut s, 5);
        assert_eq!(s.check(NETUID, &reveal(&[2], &[1]), &hot(0)), Ok(()));
        blocks(&mut s, 1);
        assert_eq!(refused(&s, &reveal(&[2], &[1]), hot(0)), Rejection::ExpiredWeightCommit);
        // The next commit removes it.
        s.apply(NETUID, &commit(hot(0), &[3], &[1]), &hot(0)).unwrap();
        assert_eq!(s.weights_shown(&hot(0)).unwrap().commits.len(), 1);
    }
}

#[test]
fn commits_and_reveals_that_break_a_rule_are_refused_by_name() {
    let plain = subnet(|_| {});
    assert_eq!(refused(&plain, &commit(hot(0), &[2], &[1]), hot(0)), Rejection::CommitRevealDisabled);
    assert_eq!(refused(&plain, &reveal(&[2], &[1]), hot(0)), Rejection::CommitRevealDisabled);

    let mut s = committing(|c| c.hyperparameters.stake_threshold_rao = 50);
    assert_eq!(refused(&s, &weights(&[2], &[1]), hot(0)), Rejection::CommitRevealEnabled);
    assert_eq!(s.check(Netuid(0), &commit(hot(0), &[2], &[1]), &hot(0)), Err(Rejection::CanNotSetRootNetworkWeights));
    assert_eq!(refused(&s, &commit(hot(9), &[2], &[1]), hot(9)), Rejection::HotKeyNotRegisteredInSubNet);
    assert_eq!(refused(&s, &commit(hot(2), &[3], &[1]), hot(2)), Rejection::NotEnoughStakeToSetWeights);
    assert_eq!(refused(&s, &reveal(&[2], &[1]), hot(0)), Rejection::NoWeightsCommitFound);
    s.apply(NETUID, &commit(hot(0), &[2], &[1]), &hot(0)).unwrap();
    blocks(&mut s, 1);
    assert_eq!(refused(&s, &commit(hot(0), &[2], &[1]), hot(0)), Rejection::CommittingWeightsTooFast);
    // Other weights, another version key, somebody else's commit: none of them is what was committed to.
    blocks(&mut s, 5);
    assert_eq!(refused(&s, &reveal(&[2], &[2]), hot(0)), Rejection::InvalidRevealCommitHashNotMatch);
    assert_eq!(refused(&s, &reveal(&[2], &[1, 1]), hot(0)), Rejection::InvalidRevealCommitHashNotMatch);
    assert_eq!(refused(&s, &reveal(&[2], &[1]), hot(1)), Rejection::NoWeightsCommitFound);
    assert_eq!(s.check(NETUID, &reveal(&[2], &[1]), &hot(0)), Ok(()));
}

#[test]
fn what_a_commit_hides_is_checked_when_it_is_revealed_and_stays_committed_if_it_is_refused() {
    let mut s = committing(|_| {});
    s.apply(NETUID, &commit(hot(0), &[2, 2], &[1, 1]), &hot(0)).unwrap();
    blocks(&mut s, 6);
    assert_eq!(s.apply(NETUID, &reveal(&[2, 2], &[1, 1]), &hot(0)), Err(Rejection::DuplicateUids));
    assert_eq!(s.weights_shown(&hot(0)).unwrap().commits.len(), 1);
}

#[test]
fn ten_commits_may_wait_and_a_reveal_takes_those_before_it_along() {
    let mut s = committing(|c| {
        c.hyperparameters.weights_rate_limit = 0;
        c.hyperparameters.reveal_period = 4;
    });
    for n in 1..=10 {
        s.apply(NETUID, &commit(hot(0), &[2], &[n]), &hot(0)).unwrap();
    }
    assert_eq!(refused(&s, &commit(hot(0), &[2], &[11]), hot(0)), Rejection::TooManyUnrevealedCommits);
    blocks(&mut s, 24);
    s.apply(NETUID, &reveal(&[2], &[4]), &hot(0)).unwrap();
    assert_eq!(s.weights_shown(&hot(0)).unwrap().commits.len(), 6);
}

#[test]
fn the_subnets_owner_needs_neither_stake_nor_permit() {
    let s = subnet(|c| {
        c.hyperparameters.stake_threshold_rao = 50;
        c.hyperparameters.owner_hotkey = Some(hot(2));
    });
    assert_eq!(s.check(NETUID, &weights(&[3], &[1]), &hot(2)), Ok(()));
    assert_eq!(refused(&s, &weights(&[2], &[1]), hot(3)), Rejection::NotEnoughStakeToSetWeights);
}

fn any_call() -> impl Strategy<Value = Call> {
    let key = || (0u8..6).prop_map(hot);
    prop_oneof![
        key().prop_map(|hotkey| Call::BurnedRegister { hotkey }),
        (key(), 0u64..400).prop_map(|(hotkey, amount_rao)| Call::AddStake { hotkey, amount_rao }),
        (any::<u128>(), any::<u16>(), 3u8..8, any::<bool>()).prop_map(|(ip, port, ip_type, small)| axon(
            if small { ip >> 96 } else { ip },
            port,
            ip_type
        )),
        (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| metrics(u128::from(ip), port)),
        (proptest::collection::vec(0u16..6, 0..5), proptest::collection::vec(any::<u16>(), 0..5), 0u64..3)
            .prop_map(|(uids, values, version_key)| Call::SetWeights { uids, values, version_key }),
        any::<u8>().prop_map(|n| Call::CommitWeights { hash: Hash32([n; 32]) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_sequence_of_calls_makes_money_or_breaks_the_metagraph(
        steps in proptest::collection::vec((any_call(), 0u8..7, any::<bool>()), 1..80)
    ) {
        let mut s = empty(|c| {
            c.hyperparameters.max_allowed_uids = 3;
            c.hyperparameters.immunity_period = 2;
            c.hyperparameters.weights_rate_limit = 1;
            c.hyperparameters.serving_rate_limit = 1;
            c.endowed.extend((0..6).map(|n| (Coldkey([n; 32]), 100)));
        });
        let total = s.total_rao();
        for (call, signer, new_block) in steps {
            let signer = if signer == 6 { Hotkey(OWNER.0) } else { hot(signer) };
            let before = s.clone();
            let checked = s.check(NETUID, &call, &signer);
            let applied = s.apply(NETUID, &call, &signer);
            prop_assert_eq!(checked.is_ok(), applied.is_ok());
            if applied.is_err() {
                prop_assert_eq!(&s, &before);
            }
            if new_block {
                s.produce_block(0, vec![]);
            }
            prop_assert_eq!(s.total_rao(), total);
            let graph = s.metagraph();
            prop_assert!(graph.neurons.len() <= 3);
            for (at, n) in graph.neurons.iter().enumerate() {
                prop_assert_eq!(usize::from(n.uid.0), at);
                prop_assert!(graph.neurons[..at].iter().all(|other| other.hotkey != n.hotkey));
            }
        }
        // And it survives being written down.
        let json = serde_json::to_string(&s).unwrap();
        prop_assert_eq!(serde_json::from_str::<State>(&json).unwrap(), s);
    }
}
