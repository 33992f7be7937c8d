//! What a checked memory proof shows, in numbers. Both are formulas of `docs/proof.md`, "Memory".

use serde::{Deserialize, Serialize};

use super::size::Size;

/// What a passed proof of memory shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// What was filled and read, and how often.
    pub size: Size,
    /// From before the first scan's nonce went out until the last byte of the roots was read, in nanoseconds.
    pub elapsed_ns: u64,
    /// Openings checked.
    pub samples: u32,
}

impl Evidence {
    /// The proved [`bandwidth`], in bytes a second.
    pub fn bandwidth(&self) -> u64 {
        bandwidth(&self.size, self.elapsed_ns)
    }
}

/// Bytes a second at which the memory was read: `N·1 KiB·S / (t₁ − t₀)`, rounded down; 0 without a time.
///
/// `elapsed_ns` is from before the first scan's nonce went out until the last byte of the roots was read, in nanoseconds
/// of the verifier's clock. A prover cannot gain: each scan's nonce hangs on the root of the scan before, so `S` reads of
/// everything lie between the two times.
pub fn bandwidth(size: &Size, elapsed_ns: u64) -> u64 {
    let read = u128::from(size.bytes()) * u128::from(size.scans());
    let rate = (read * 1_000_000_000).checked_div(elapsed_ns.into()).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Bytes that were held at least, if the bandwidth was at least the floor: `N·1 KiB·(1 − 1/(f·c))`, rounded down.
///
/// `floor` is `f`, the floor of the bandwidth as a share of what the device can do, above 0 and at most 1. `cost` is `c`,
/// the time to make a block anew as a multiple of the time to read it on the device, at least 1.
///
/// Why: a device that lacks a share ε of the blocks makes them anew in each scan, at best while it reads the others. A
/// scan that takes 1 with all of the memory then takes at least ε·c, and is below the floor if that is above 1/f. Out of
/// range, or not a number, shows nothing: 0.
pub fn capacity(size: &Size, floor: f64, cost: f64) -> u64 {
    if !(floor > 0.0 && floor <= 1.0 && cost >= 1.0) {
        return 0;
    }
    let held = 1.0 - 1.0 / (floor * cost);
    // A size is at most 2⁴², which a float holds exactly; a negative one becomes 0.
    (size.bytes() as f64 * held) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_all_scans_by_the_time() {
        let size = Size::new(1 << 20, 256, 64).unwrap();
        assert_eq!(bandwidth(&size, 1_000_000_000), 64 << 30);
        assert_eq!(bandwidth(&size, 2_000_000_000), 32 << 30);
        assert_eq!(bandwidth(&size, 0), 0);
        let largest = Size::new(1 << 32, 1, 4096).unwrap();
        assert_eq!(bandwidth(&largest, 1_000_000_000), 1 << 54);
        assert_eq!(bandwidth(&largest, 1), u64::MAX);
    }

    #[test]
    fn capacity_leaves_out_what_could_have_been_made_anew() {
        let size = Size::new(1 << 20, 256, 64).unwrap();
        assert_eq!(capacity(&size, 1.0, 64.0), (1 << 30) / 64 * 63);
        let share = capacity(&size, 0.7, 64.0) as f64 / (1u64 << 30) as f64;
        assert!((share - 0.97768).abs() < 1e-5, "{share}");
        assert_eq!(capacity(&size, 0.5, 1.0), 0);
        for (floor, cost) in [(0.0, 64.0), (-1.0, 64.0), (1.1, 64.0), (0.7, 0.5), (f64::NAN, 64.0), (0.7, f64::NAN)] {
            assert_eq!(capacity(&size, floor, cost), 0, "{floor} {cost}");
        }
        assert_eq!(capacity(&size, 1.0, f64::INFINITY), 1 << 30);
    }
}
