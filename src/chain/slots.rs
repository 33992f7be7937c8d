//! Which validator may challenge when: the slots of an epoch, pure.
//!
//! A miner serves one window at a time, or two validators would halve each other's measured rate. So the validators
//! take turns: an epoch has at most [`MAX_SLOTS`] slots, one for each of the permit holders with the highest stake, in an
//! order that nobody knows before the epoch begins.
//!
//! # Definition
//! 1. *Holders*: of the neurons with a validator permit, by stake from the highest, equal stakes by hotkey from the lowest,
//!    the first 12; then those by hotkey from the lowest. Stakes that change places among the twelve change no order.
//! 2. *Beacon*: the hash of the block before the epoch's first block (of block 0, where the epoch began before the chain).
//! 3. *Order*: Fisher–Yates. For `i` from the last index down to 1, swap entries `i` and `j`, `j` uniform in `0..=i`. The
//!    numbers come from the extended output of BLAKE3 `derive_key` with the context `compute-slots/1 shuffle` over
//!    beacon (32 bytes) ‖ netuid (2 bytes, little-endian) ‖ epoch (8 bytes, little-endian), read as little-endian 32-bit
//!    words `w`; a word of `⌊2³² / (i+1)⌋ · (i+1)` or more is left out, else `j = w mod (i+1)`.
//! 4. *Length* `L` in blocks: 2 where an ordinary epoch has `n ≥ 12 · 2` blocks ([`EpochClock::length`]), else
//!    `max(1, ⌊n / holders⌋)`: a devnet's only validator has its whole short epoch, two have half of it each.
//! 5. Slot `i` is the blocks from the epoch's first + `i · L` up to, without, first + `(i + 1) · L`. Holders whose slot
//!    would not lie within an ordinary epoch have none (more holders than blocks).
//!
//! # The memory slot
//! Proofs of memory have a slot of their own, of one owner an epoch: they hold a device's memory for longer than a slot.
//! 1. *Owner*: of the holders that have a slot, in the order of their slots, the one at `w mod h`, `h` being their number. `w`
//!    is the first word below `⌊2³² / h⌋ · h` of the extended output of BLAKE3 `derive_key` with the context
//!    `compute-slots/1 memory` over the same bytes as the shuffle's.
//! 2. *Blocks*: where an ordinary epoch has `12 · 2 + 4` blocks or more, the [`MEMORY_BLOCKS`] after the twelfth slot. In a
//!    shorter one they are the owner's own slot, in which the proofs of memory begin when its proofs of work are done.
//!
//! A table is made when the first block of its epoch is seen, and stays unless its beacon is replaced: until the first
//! block is final the beacon is read again with each head, and a table of another beacon takes the place of the first, so
//! that nodes that saw different branches agree again with the next head. A round that was begun goes on, an epoch that was
//! judged is not judged again, and miners serve by the table of now, one at a time. Where a chain begins the next epoch
//! early, the slots that it cuts off are lost; where it puts it off, nobody has a slot until then.
//!
//! The stakes and permits are those of the first block of the epoch that a node sees. Nodes that first look at different
//! blocks disagree about that epoch only if another twelve had the highest stake in between; a miner still serves one at a
//! time.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::epoch::EpochClock;
use super::types::Metagraph;
use crate::ids::{BlockNumber, Epoch, Hash32, Hotkey, Netuid};

/// Most slots of an epoch.
pub const MAX_SLOTS: usize = 12;
/// Blocks of a slot, where the epoch is long enough for [`MAX_SLOTS`] of them.
pub const SLOT_BLOCKS: u64 = 2;
/// Blocks of the memory slot, where the epoch is long enough for it beside [`MAX_SLOTS`] others.
pub const MEMORY_BLOCKS: u64 = 4;
/// The context of the shuffle's numbers.
const SHUFFLE: &str = "compute-slots/1 shuffle";
/// The context of the number that names the owner of the memory slot.
const MEMORY: &str = "compute-slots/1 memory";

/// The slots of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTable {
    /// The epoch.
    pub epoch: Epoch,
    /// What ordered the holders.
    pub beacon: Hash32,
    epochs: EpochClock,
    blocks: u64,
    holders: Vec<Hotkey>,
    memory_owner: Option<Hotkey>,
}

/// The slot in which memory is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySlot {
    /// Who asks in it.
    pub owner: Hotkey,
    /// Its blocks.
    pub blocks: Range<BlockNumber>,
    /// It is the owner's slot for proofs of work as well, which come first.
    pub shared: bool,
}

/// A place on the line of blocks as a block's number.
fn block(at: i128) -> BlockNumber {
    BlockNumber::try_from(at.max(0)).unwrap_or(BlockNumber::MAX)
}

/// The slots of `epoch` among these validators (hotkey and stake, in any order, without repeats), by the epochs as they
/// are seen now; see the module's definition.
pub fn slots(
    beacon: Hash32,
    validators: &[(Hotkey, u64)],
    netuid: Netuid,
    epochs: EpochClock,
    epoch: Epoch,
) -> SlotTable {
    let mut ranked = validators.to_vec();
    ranked.sort_by(|(a, a_stake), (b, b_stake)| b_stake.cmp(a_stake).then(a.cmp(b)));
    let mut holders: Vec<Hotkey> = ranked.into_iter().take(MAX_SLOTS).map(|(hotkey, _)| hotkey).collect();
    holders.sort_unstable();
    shuffle(&mut holders, words(SHUFFLE, beacon, netuid, epoch));
    let length = epochs.length();
    let blocks = if length >= MAX_SLOTS as u64 * SLOT_BLOCKS {
        SLOT_BLOCKS
    } else {
        (length / (holders.len() as u64).max(1)).max(1)
    };
    holders.truncate(usize::try_from(length / blocks).unwrap_or(MAX_SLOTS));
    let memory_owner = match holders.len() {
        0 => None,
        count => holders.get(below(count, &mut words(MEMORY, beacon, netuid, epoch))).copied(),
    };
    SlotTable { epoch, beacon, epochs, blocks, holders, memory_owner }
}

/// The slots of the epoch that the head of `metagraph` is in.
pub fn slots_of(metagraph: &Metagraph, beacon: Hash32) -> SlotTable {
    let holders: Vec<(Hotkey, u64)> =
        metagraph.neurons.iter().filter(|n| n.validator_permit).map(|n| (n.hotkey, n.stake_rao)).collect();
    slots(beacon, &holders, metagraph.netuid, metagraph.epochs, metagraph.epoch())
}

/// Numbers that nobody knows before the beacon.
fn words(context: &str, beacon: Hash32, netuid: Netuid, epoch: Epoch) -> impl FnMut() -> u32 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&beacon.0);
    hasher.update(&netuid.0.to_le_bytes());
    hasher.update(&epoch.to_le_bytes());
    let mut stream = hasher.finalize_xof();
    move || {
        let mut bytes = [0u8; 4];
        stream.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }
}

/// A number below `choices`, each as likely as another.
fn below(choices: usize, words: &mut impl FnMut() -> u32) -> usize {
    let choices = choices as u64;
    let fair = (1u64 << 32) / choices * choices;
    loop {
        let word = u64::from(words());
        if word < fair {
            return (word % choices) as usize;
        }
    }
}

fn shuffle(holders: &mut [Hotkey], mut words: impl FnMut() -> u32) {
    for i in (1..holders.len()).rev() {
        holders.swap(i, below(i + 1, &mut words));
    }
}

impl SlotTable {
    /// Nobody holds a permit: there are no turns to take.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// The holders in the order of their slots.
    pub fn holders(&self) -> &[Hotkey] {
        &self.holders
    }

    /// Blocks of each slot.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The first block of the epoch.
    pub fn epoch_start(&self) -> BlockNumber {
        self.epochs.first_block(self.epoch)
    }

    /// The block after the epoch's last, as it was foreseen when the table was made.
    pub fn epoch_end(&self) -> BlockNumber {
        self.epochs.first_block(self.epoch.saturating_add(1))
    }

    /// Whose slot this block is in; `None` between or after the slots, and in another epoch.
    pub fn owner_at(&self, block: BlockNumber) -> Option<Hotkey> {
        if self.epochs.epoch_of(block) != self.epoch {
            return None;
        }
        let into = i128::from(block) - self.epochs.start(self.epoch);
        let index = usize::try_from(into / i128::from(self.blocks)).ok()?;
        self.holders.get(index).copied()
    }

    /// The blocks of a holder's slot.
    pub fn slot_of(&self, hotkey: &Hotkey) -> Option<Range<BlockNumber>> {
        let index = self.holders.iter().position(|h| h == hotkey)? as i128;
        let first = self.epochs.start(self.epoch) + index * i128::from(self.blocks);
        Some(block(first)..block(first + i128::from(self.blocks)))
    }

    /// The slot in which memory is proved; `None` where nobody holds a slot.
    pub fn memory_slot(&self) -> Option<MemorySlot> {
        let owner = self.memory_owner?;
        let works = MAX_SLOTS as u64 * SLOT_BLOCKS;
        if self.epochs.length() < works + MEMORY_BLOCKS {
            return Some(MemorySlot { owner, blocks: self.slot_of(&owner)?, shared: true });
        }
        let first = self.epochs.start(self.epoch) + i128::from(works);
        let blocks = block(first)..block(first + i128::from(MEMORY_BLOCKS));
        Some(MemorySlot { owner, blocks, shared: false })
    }

    /// The block at which a caller that waits for these blocks and is not served at `head` should ask again: the first of
    /// them if that is still to come, else the first of the next epoch, in which it may have others.
    pub fn come_at(&self, slot: Option<Range<BlockNumber>>, head: BlockNumber) -> BlockNumber {
        match slot {
            Some(slot) if slot.start > head => slot.start,
            // An epoch that is put off by the chain goes on after its foreseen end.
            _ => self.epoch_end().max(head.saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests;
