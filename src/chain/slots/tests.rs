use proptest::prelude::*;

use super::*;
use crate::chain::{EpochState, STATEFUL_EPOCHS, epoch_of, next_epoch_block};

fn modulo(netuid: Netuid, tempo: u16) -> EpochClock {
    EpochClock::Modulo { netuid, tempo }
}

/// The slots on a chain of the modulo form.
fn slots(beacon: Hash32, validators: &[(Hotkey, u64)], netuid: Netuid, tempo: u16, epoch: Epoch) -> SlotTable {
    super::slots(beacon, validators, netuid, modulo(netuid, tempo), epoch)
}

fn validators(n: u8) -> Vec<(Hotkey, u64)> {
    (0..n).map(|i| (Hotkey([i; 32]), u64::from(i % 5) * 10)).collect()
}

/// The definition in the module's text, written a second time and slowly.
fn by_hand(mut holders: Vec<Hotkey>, beacon: Hash32, netuid: u16, epoch: u64) -> Vec<Hotkey> {
    let mut material = beacon.0.to_vec();
    material.extend(netuid.to_le_bytes());
    material.extend(epoch.to_le_bytes());
    let mut stream = vec![0u8; 4096];
    let mut hasher = blake3::Hasher::new_derive_key("compute-slots/1 shuffle");
    hasher.update(&material);
    hasher.finalize_xof().fill(&mut stream);
    let mut words = stream.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
    for i in (1..holders.len()).rev() {
        let n = i as u64 + 1;
        let limit = (1u64 << 32) - (1u64 << 32) % n;
        let word = words.by_ref().map(u64::from).find(|w| *w < limit).unwrap();
        holders.swap(i, (word % n) as usize);
    }
    holders
}

#[test]
fn the_order_is_the_one_of_the_definition() {
    let hotkeys: Vec<Hotkey> = (0..12).map(|i| Hotkey([i; 32])).collect();
    let equal: Vec<(Hotkey, u64)> = hotkeys.iter().map(|h| (*h, 1)).collect();
    for epoch in 0..200 {
        let beacon = Hash32([epoch as u8; 32]);
        let table = slots(beacon, &equal, Netuid(27), 360, epoch);
        assert_eq!(table.holders(), by_hand(hotkeys.clone(), beacon, 27, epoch));
    }
}

#[test]
fn a_vector_that_another_implementation_can_be_held_against() {
    // The stakes rise with the hotkeys: an order that began with the highest stake would be another one.
    let four: Vec<(Hotkey, u64)> = (1..=4).map(|i| (Hotkey([i; 32]), 100 + u64::from(i))).collect();
    let order = |beacon: u8, epoch| {
        let table = slots(Hash32([beacon; 32]), &four, Netuid(27), 360, epoch);
        table.holders().iter().map(|h| h.0[0]).collect::<Vec<_>>()
    };
    assert_eq!([order(0, 0), order(7, 1), order(255, 16_620)], VECTOR);
}
const VECTOR: [[u8; 4]; 3] = [[4, 3, 1, 2], [2, 3, 1, 4], [2, 1, 4, 3]];

#[test]
fn the_twelve_with_the_highest_stake_have_slots_and_equal_stakes_go_by_hotkey() {
    let many: Vec<(Hotkey, u64)> =
        (0..20).map(|i| (Hotkey([i; 32]), if i < 10 { 5 } else { u64::from(i) })).rev().collect();
    let table = slots(Hash32([1; 32]), &many, Netuid(27), 360, 9);
    let mut holders: Vec<u8> = table.holders().iter().map(|h| h.0[0]).collect();
    holders.sort_unstable();
    assert_eq!(holders, [0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    assert_eq!(table.slot_of(&Hotkey([2; 32])), None, "out of the first twelve: no slot");
}

#[test]
fn stakes_that_change_places_among_the_twelve_change_no_order_and_a_new_one_among_them_does() {
    let staked =
        |stake: fn(u8) -> u64| -> Vec<(Hotkey, u64)> { (0..20).map(|i| (Hotkey([i; 32]), stake(i))).collect() };
    let (up, down) = (|i: u8| u64::from(i), |i: u8| if i < 8 { 0 } else { 100 - u64::from(i) });
    let other = |i: u8| if i == 7 { 100 } else { u64::from(i) };
    for epoch in 0..50 {
        let order = |stake| slots(Hash32([1; 32]), &staked(stake), Netuid(27), 360, epoch).holders().to_vec();
        assert_eq!(order(up), order(down));
        assert_ne!(order(up), order(other));
    }
}

#[test]
fn a_slot_has_two_blocks_where_the_epoch_has_room_for_twelve_of_them() {
    let length = |tempo, n| slots(Hash32([1; 32]), &validators(n), Netuid(1), tempo, 3).blocks();
    assert_eq!((length(360, 1), length(360, 12), length(23, 3)), (2, 2, 2));
    assert_eq!((length(22, 1), length(22, 3), length(5, 2), length(5, 4)), (23, 7, 3, 1));
}

#[test]
fn with_more_holders_than_blocks_some_have_no_slot() {
    let table = slots(Hash32([1; 32]), &validators(12), Netuid(1), 5, 3);
    assert_eq!((table.blocks(), table.holders().len()), (1, 6));
}

#[test]
fn one_validator_of_a_devnet_has_the_whole_epoch_and_the_first_epoch_may_begin_before_the_chain() {
    let only = Hotkey([1; 32]);
    // Subnet 27, tempo 5: block 0 is in epoch 4, which would have begun at block -4 and ends before block 2.
    let table = slots(Hash32([1; 32]), &[(only, 1)], Netuid(27), 5, 4);
    assert_eq!((table.slot_of(&only), table.epoch_end()), (Some(0..2), 2));
    assert_eq!((table.owner_at(1), table.owner_at(2)), (Some(only), None));
    let epochs = modulo(Netuid(27), 5);
    assert_eq!((epochs.first_block(4), epochs.beacon_block(4)), (0, 0));
    assert_eq!((epochs.first_block(5), epochs.beacon_block(5)), (2, 1));
}

#[test]
fn a_caller_out_of_its_slot_hears_when_to_come_back() {
    let two = [(Hotkey([1; 32]), 2), (Hotkey([2; 32]), 1)];
    // Subnet 1, tempo 5: epoch 1 is the blocks 4 to 9.
    let table = slots(Hash32([1; 32]), &two, Netuid(1), 5, 1);
    let [early, late] = [table.holders()[0], table.holders()[1]];
    assert_eq!((table.slot_of(&early), table.slot_of(&late)), (Some(4..7), Some(7..10)));
    assert_eq!(table.come_at(table.slot_of(&late), 5), 7);
    assert_eq!(table.come_at(table.slot_of(&early), 8), 10, "its slot is over: in the next epoch it may have another");
    assert_eq!(table.come_at(table.slot_of(&Hotkey([9; 32])), 5), 10);
}

#[test]
fn on_a_stateful_chain_slots_begin_where_the_epoch_did_and_one_that_begins_early_cuts_them_off() {
    let state = EpochState {
        tempo: 360,
        last_epoch_block: 1_000,
        pending_epoch_at: 1_003,
        subnet_epoch_index: 7,
        blocks_since_last_step: 1,
    };
    let (epochs, epoch) = (EpochClock::Stateful { state, at: 1_001 }, STATEFUL_EPOCHS + 7);
    let table = super::slots(Hash32([1; 32]), &validators(3), Netuid(27), epochs, epoch);
    assert_eq!((epochs.beacon_block(epoch), table.epoch_start(), table.epoch_end()), (999, 1_000, 1_003));
    let slots: Vec<_> = table.holders().iter().map(|h| table.slot_of(h).unwrap()).collect();
    assert_eq!(slots, [1_000..1_002, 1_002..1_004, 1_004..1_006]);
    assert_eq!([1_002, 1_003, 1_004].map(|b| table.owner_at(b)), [Some(table.holders()[1]), None, None]);
    assert_eq!(table.come_at(table.slot_of(&table.holders()[0]), 1_002), 1_003);
    assert_eq!(table.come_at(table.slot_of(&table.holders()[0]), 1_010), 1_011, "the chain put the next epoch off");
    assert_eq!(table.blocks(), 2, "what an ordinary epoch has room for");
}

#[test]
fn every_holder_comes_in_every_place_about_as_often() {
    let twelve = validators(12);
    let mut counts = [[0u32; 12]; 12];
    for epoch in 0..6_000u64 {
        let beacon = Hash32(*blake3::hash(&epoch.to_le_bytes()).as_bytes());
        for (place, holder) in slots(beacon, &twelve, Netuid(27), 360, epoch).holders().iter().enumerate() {
            counts[usize::from(holder.0[0])][place] += 1;
        }
    }
    // 500 are expected of each, with a standard deviation of 21.4; the draw is fixed, so this cannot flake.
    let (least, most) = (counts.iter().flatten().min().unwrap(), counts.iter().flatten().max().unwrap());
    assert!(*least > 400 && *most < 600, "{counts:?}");
}

#[test]
fn the_memory_slot_is_the_four_blocks_after_the_twelfth_slot_and_its_owner_the_one_of_the_definition() {
    let three = validators(3);
    for epoch in 0..200 {
        let beacon = Hash32([epoch as u8; 32]);
        let table = slots(beacon, &three, Netuid(27), 360, epoch);
        let mut material = beacon.0.to_vec();
        material.extend(27u16.to_le_bytes());
        material.extend(epoch.to_le_bytes());
        let mut stream = [0u8; 256];
        let mut hasher = blake3::Hasher::new_derive_key("compute-slots/1 memory");
        hasher.update(&material).finalize_xof().fill(&mut stream);
        let mut words = stream.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
        let word = words.find(|w| *w != u32::MAX).unwrap(); // 2³² is one more than a multiple of three
        let first = table.epoch_start() + 24;
        // The first epochs begin before the chain does.
        if epoch > 1 {
            let owner = table.holders()[word as usize % 3];
            assert_eq!(table.memory_slot(), Some(MemorySlot { owner, blocks: first..first + 4, shared: false }));
            assert!(table.owner_at(first - 1).is_none(), "three holders: the slots before it are nobody's");
        }
    }
}

#[test]
fn in_an_epoch_too_short_for_it_the_memory_slot_is_its_owners_own_slot() {
    let shared = |tempo| slots(Hash32([1; 32]), &validators(12), Netuid(1), tempo, 3).memory_slot().unwrap().shared;
    assert_eq!((shared(26), shared(27)), (true, false), "27 blocks are one too few");
    for epoch in 1..100 {
        let table = slots(Hash32([epoch as u8; 32]), &validators(9), Netuid(1), 5, epoch);
        let slot = table.memory_slot().unwrap();
        assert_eq!((Some(slot.blocks), slot.shared), (table.slot_of(&slot.owner), true));
    }
    assert_eq!(slots(Hash32([1; 32]), &[], Netuid(1), 360, 3).memory_slot(), None);
}

#[test]
fn every_holder_owns_the_memory_slot_about_as_often() {
    let twelve = validators(12);
    let mut counts = [0u32; 12];
    for epoch in 0..6_000u64 {
        let beacon = Hash32(*blake3::hash(&epoch.to_le_bytes()).as_bytes());
        let owner = slots(beacon, &twelve, Netuid(27), 360, epoch).memory_slot().unwrap().owner;
        counts[usize::from(owner.0[0])] += 1;
    }
    // As above: 500 are expected of each, the draw is fixed.
    assert!(counts.iter().all(|count| (400..600).contains(count)), "{counts:?}");
}

proptest! {
    #[test]
    fn slots_lie_within_their_epoch_and_never_overlap(
        beacon: [u8; 32], n in 0u8..40, netuid: u16, tempo in 1u16..500, epoch in 0u64..1 << 40,
    ) {
        let netuid = Netuid(netuid);
        let table = slots(Hash32(beacon), &validators(n), netuid, tempo, epoch);
        prop_assert!(table.holders().len() <= MAX_SLOTS);
        let mut mixed = validators(n);
        mixed.reverse();
        prop_assert_eq!(&table, &slots(Hash32(beacon), &mixed, netuid, tempo, epoch));
        let mut before = table.epoch_start();
        for holder in table.holders() {
            prop_assert_eq!(table.holders().iter().filter(|h| *h == holder).count(), 1);
            let slot = table.slot_of(holder).unwrap();
            prop_assert!(slot.start >= before && slot.end <= table.epoch_end());
            for block in slot.clone() {
                prop_assert_eq!(table.owner_at(block), Some(*holder));
                prop_assert_eq!(epoch_of(block, netuid, tempo), epoch);
            }
            before = slot.end;
        }
        prop_assert_eq!(table.owner_at(table.epoch_end()), None);
        let memory = table.memory_slot();
        prop_assert_eq!(memory.is_some(), !table.is_empty());
        if let Some(memory) = memory {
            prop_assert!(table.holders().contains(&memory.owner));
            prop_assert!(memory.blocks.start <= memory.blocks.end && memory.blocks.end <= table.epoch_end());
            prop_assert!(memory.shared || memory.blocks.start >= before);
        }
    }

    #[test]
    fn the_first_block_of_an_epoch_is_where_the_last_one_ends(block in 0u64..1 << 50, netuid: u16, tempo in 1u16..) {
        let netuid = Netuid(netuid);
        let epoch = epoch_of(block, netuid, tempo);
        let first = modulo(netuid, tempo).first_block(epoch);
        prop_assert!(first <= block);
        prop_assert_eq!(epoch_of(first, netuid, tempo), epoch);
        prop_assert_eq!(modulo(netuid, tempo).first_block(epoch + 1), next_epoch_block(block, netuid, tempo));
    }
}
