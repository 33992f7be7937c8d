//! How large a proof is asked of a GPU: pure functions of its model's nominal rate, memory and bandwidth.

use super::memory;
use super::memory::size::{BLOCK_BYTES, GROUP, SCANS_RANGE};
use super::tile::{TILE, TILE_BYTES};
use super::work::{K_RANGE, ROUNDS_RANGE, Work};

/// Shortest and longest time that a proof takes at the nominal rate, in seconds: long against the round trip, which is not
/// subtracted, and short against a slot.
pub const SECONDS: (u64, u64) = (3, 4);
/// The most of a card's memory that a proof needs, in tenths.
pub const MEMORY_TENTHS: u64 = 9;
/// Smallest and largest `n` that a GPU is asked for. Twice the largest would save half of the key stream, which is a few
/// hundredths of the time, and need four times the digests.
pub const GPU_N_RANGE: (u32, u32) = (8_192, 65_536);
/// Smallest `k` that a GPU is asked for: what a proof costs beside its product falls with 1/k.
pub const GPU_K_MIN: u32 = 16_384;
/// Cards with less memory, in bytes, are asked for half the largest `n` at most.
const SMALL_CARD: u64 = 12_000_000_000;
/// Rows of one strip of the product; two are in memory at a time.
const STRIP_ROWS: u64 = 2_048;
/// What context, libraries and workspace take, in bytes.
const FIXED_BYTES: u64 = 1 << 30;

/// Bytes of device memory that a GPU prover needs for this work: both matrices, two strips of the product, the hash of
/// each tile of each round with one round's tree, and what is taken whatever the size.
pub fn gpu_memory_bytes(work: &Work) -> u64 {
    let (n, k, rounds) = (u64::from(work.n), u64::from(work.k), u64::from(work.rounds));
    let entry = (TILE_BYTES / (TILE * TILE)) as u64;
    2 * n * k + 2 * STRIP_ROWS * n * entry + 32 * work.tiles() * (rounds + 2) + FIXED_BYTES
}

/// The work that a card of this nominal rate, in operations a second, does in 3 to 4 s, with this much memory, in bytes:
/// the largest `k`, then the largest `n` that fits both, then the fewest rounds. `None` where no size fits.
pub fn size(nominal_ops: u64, memory_bytes: u64) -> Option<Work> {
    let halves = |from: u32, to: u32| std::iter::successors(Some(from), |n| Some(n / 2)).take_while(move |n| *n >= to);
    let largest = if memory_bytes < SMALL_CARD { GPU_N_RANGE.1 / 2 } else { GPU_N_RANGE.1 };
    let room = u128::from(memory_bytes) * u128::from(MEMORY_TENTHS);
    let fits = |n: u32, k: u32| {
        let round = 2 * u128::from(n) * u128::from(n) * u128::from(k);
        let (least, most) = SECONDS;
        let rounds = (u128::from(nominal_ops) * u128::from(least)).div_ceil(round);
        let in_time = round * rounds <= u128::from(nominal_ops) * u128::from(most);
        let rounds = u32::try_from(rounds).ok().filter(|r| in_time && *r <= ROUNDS_RANGE.1)?;
        let work = Work::new(n, k, rounds).ok()?;
        (u128::from(gpu_memory_bytes(&work)) * 10 <= room).then_some(work)
    };
    halves(K_RANGE.1, GPU_K_MIN)
        .flat_map(|k| halves(largest, GPU_N_RANGE.0).map(move |n| (n, k)))
        .find_map(|(n, k)| fits(n, k))
}

/// Seconds that the scans of a memory proof last at the data sheet's bandwidth, at least.
pub const SCAN_SECONDS: u64 = 2;
/// Share of a card's memory that is filled, in percent: above 7/8, so that seven cards do not hold eight fills …
pub const FILLED_PERCENT: u64 = 92;
/// … and of a card of at most [`SMALL_MEMORY`], where the driver and the prover's own need weigh more.
pub const FILLED_PERCENT_SMALL: u64 = 90;
/// Where cards begin to be small, in bytes.
pub const SMALL_MEMORY: u64 = 16 << 30;
/// A floor below this share of the memory, in percent, is that of a model whose ECC may take a sixteenth of it.
const ECC_FLOOR_PERCENT: u64 = 86;

/// The memory proof of a card with this memory, of which a claim needs `floor`, and this bandwidth, in bytes and bytes a
/// second: the share of the memory that every honest card of the model can fill, and the fewest scans that last
/// [`SCAN_SECONDS`]. `None` where there is no such size.
pub fn memory_size(memory: u64, floor: u64, bandwidth: u64, iterations: u32) -> Option<memory::Size> {
    let wide = u128::from;
    let share = if memory <= SMALL_MEMORY { FILLED_PERCENT_SMALL } else { FILLED_PERCENT };
    let ecc = wide(floor) * 100 < wide(memory) * wide(ECC_FLOOR_PERCENT);
    let usable = if ecc { wide(memory) / 16 * 15 } else { wide(memory) };
    let group = BLOCK_BYTES * GROUP as u64;
    let groups = usable * wide(share) / 100 / wide(group);
    let blocks = u64::try_from(groups).ok()?.checked_mul(GROUP as u64)?;
    let scans = (wide(bandwidth) * wide(SCAN_SECONDS)).div_ceil(wide(blocks).max(1) * wide(BLOCK_BYTES));
    let scans = u32::try_from(scans).ok()?.max(SCANS_RANGE.0);
    memory::Size::new(blocks, iterations, scans).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: u64 = 1_000_000_000_000;
    const GIB: u64 = 1 << 30;

    #[test]
    fn sizes_are_the_largest_that_fit_time_and_memory() {
        let of = |tops, gib| size(tops * T, gib * GIB).map(|w| (w.n, w.k, w.rounds));
        assert_eq!(of(1_187, 141), Some((65_536, 65_536, 7)));
        assert_eq!(of(150, 24), Some((65_536, 65_536, 1)));
        // One round of the largest would take 2.3 s, two 4.6 s.
        assert_eq!(of(240, 24), Some((32_768, 65_536, 6)));
        assert_eq!(of(1_187, 11), Some((32_768, 65_536, 26)), "under 12 GB");
        assert_eq!(of(1_187, 6), Some((16_384, 65_536, 102)));
        assert_eq!(of(1_187, 2), None, "what lasts 3 s within 256 rounds does not fit");
        assert_eq!(of(0, 80), None);
        assert_eq!(size(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn nine_tenths_of_the_memory_are_filled_and_read_for_two_seconds() {
        let of = |gib, floor_gib, gbs: u64, iterations| {
            let size = memory_size(gib * GIB, floor_gib * GIB / 10, gbs * 1_000_000_000, iterations).unwrap();
            let share = size.bytes() as f64 / (gib * GIB) as f64;
            ((share * 10_000.0).round() as u64, size.iterations(), size.scans())
        };
        assert_eq!(of(141, 1269, 4_800, 256), (9_200, 256, 69));
        assert_eq!(of(16, 141, 960, 2048), (9_000, 2048, 125), "up to 16 GB");
        assert_eq!(of(24, 204, 600, 1024), (8_625, 1024, 54), "ECC may take a sixteenth");
        assert_eq!(of(16, 132, 320, 1024), (8_438, 1024, 45), "both");
        assert_eq!(memory_size(GIB, GIB, 1, 256).map(|size| size.scans()), Some(1), "a slow card is read once");
        assert_eq!(memory_size(0, 0, 1, 256), None);
        assert_eq!(memory_size(GIB, GIB, 1, 3), None);
        assert_eq!(memory_size(GIB, GIB, u64::MAX, 256), None);
        assert_eq!(memory_size(u64::MAX, 0, 1, 256), None);
    }

    proptest! {
        #[test]
        fn a_memory_proof_fills_more_than_the_floor_and_lasts_two_seconds(
            memory in GIB..(500 * GIB), floor in 82u64..=90, gbs in 100u64..20_000,
        ) {
            let (share, bandwidth) = (if memory <= SMALL_MEMORY { 90 } else { 92 }, gbs * 1_000_000_000);
            // 0.88 up to 16 GiB, else 0.90; 0.82 and 0.85 with ECC: the rules of the table.
            let floor = memory / 100 * floor.min(share - 2);
            if let Some(size) = memory_size(memory, floor, bandwidth, 256) {
                let read = u128::from(size.bytes()) * u128::from(size.scans());
                prop_assert!(read >= u128::from(2 * bandwidth) && read < u128::from(2 * bandwidth) + u128::from(size.bytes()));
                prop_assert!(size.bytes() <= memory / 100 * 92 + 4096);
                prop_assert!(size.bytes() * 100 >= memory / 100 * 84 * 100 - 409_600);
            } else {
                prop_assert!(u128::from(bandwidth) * 2 > u128::from(memory) * 3_000, "more than 4,096 scans");
            }
        }

        #[test]
        fn a_size_lasts_three_to_four_seconds_and_leaves_a_tenth_of_the_memory(
            gops in 600u64..30_000_000, memory in (1u64 << 30)..(300u64 << 30),
        ) {
            let nominal = gops * 1_000_000_000;
            let Some(work) = size(nominal, memory) else {
                let small = memory < 8 * GIB || memory < 40 * GIB && gops > 2_000_000;
                prop_assert!(small || gops < 2_200, "{gops} {memory}");
                return Ok(());
            };
            prop_assert!(work.check().is_ok() && work.k >= GPU_K_MIN);
            prop_assert!(work.operations() >= 3 * nominal && work.operations() <= 4 * nominal, "{work:?}");
            prop_assert!(gpu_memory_bytes(&work) * 10 <= memory * 9);
            prop_assert!(memory >= SMALL_CARD || work.n <= 32_768);
        }
    }
}
