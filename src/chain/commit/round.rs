//! Rounds of the beacon [`quicknet`](super::quicknet) and times.
//!
//! Round `n` is published `(n - 1) · 3 s` after the genesis. Bittensor's tools seal to round `⌊(t - genesis) / 3 s⌋` for
//! a reveal at time `t`: the round **before** the newest one at `t`, so that it is out by then, for 3 to 6 s. Their floor
//! is taken of a floating-point number of seconds; here of whole milliseconds, which is the same number for whole
//! milliseconds of block time: the milliseconds' own fraction never reaches the next multiple of 3 s.

use std::time::Duration;

use super::quicknet::{GENESIS_SECONDS, PERIOD_SECONDS};

const GENESIS_MS: u64 = GENESIS_SECONDS * 1000;
const PERIOD_MS: u64 = PERIOD_SECONDS * 1000;
/// The furthest reveal that is a schedule and not a mistake: 50,400 blocks of tempo, a hundred epochs, 12 s a block are
/// 700 days.
const FURTHEST: Duration = Duration::from_hours(2 * 365 * 24);

/// Why there is no round for a reveal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    /// The reveal is years away.
    #[error(
        "a reveal {blocks} blocks of {block_time:?} ahead is more than two years away: the epochs or the block time are wrong"
    )]
    TooFar {
        /// The blocks until the reveal.
        blocks: u64,
        /// A block's time.
        block_time: Duration,
    },
}

/// When `round` is published: milliseconds since the Unix epoch. `None` for round 0, which never is, and where the time
/// does not fit.
pub fn published_ms(round: u64) -> Option<u64> {
    round.checked_sub(1)?.checked_mul(PERIOD_MS)?.checked_add(GENESIS_MS)
}

/// The newest round that is published at this time (milliseconds since the Unix epoch); `None` before the genesis.
pub fn newest(now_ms: u64) -> Option<u64> {
    Some(now_ms.checked_sub(GENESIS_MS)? / PERIOD_MS + 1)
}

/// The round that Bittensor's tools seal to for a reveal at this time (milliseconds since the Unix epoch):
/// `⌊(t - genesis) / 3 s⌋`, at least 1.
pub fn reveal_round(reveal_ms: u64) -> u64 {
    (reveal_ms.saturating_sub(GENESIS_MS) / PERIOD_MS).max(1)
}

/// The round to seal weights to that are committed now (milliseconds since the Unix epoch) and revealed `blocks` blocks
/// of `block_time` later. With `h` the newest block and `R` the first one of the reveal's epoch, Bittensor's tools take
/// `R + 3 - h` blocks: three more, for the chain to have stored the beacon's round by then.
///
/// # Errors
/// [`RoundError::TooFar`] for a reveal more than two years ahead.
pub fn round_for(now_ms: u64, blocks: u64, block_time: Duration) -> Result<u64, RoundError> {
    let too_far = RoundError::TooFar { blocks, block_time };
    let ahead = block_time.as_nanos().checked_mul(u128::from(blocks)).ok_or(too_far)?;
    if ahead > FURTHEST.as_nanos() {
        return Err(too_far);
    }
    let ahead_ms = u64::try_from(ahead / 1_000_000).map_err(|_| too_far)?;
    Ok(reveal_round(now_ms.saturating_add(ahead_ms)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::test_vectors::timelock;
    use super::*;

    const BLOCK: Duration = Duration::from_secs(12);

    #[test]
    fn reveal_rounds_are_those_of_bittensors_tool() {
        let file = timelock();
        let cases = file["reveal_round_v2"].as_array().unwrap();
        // The first block of the reveal's epoch, by the rules of epochs: `last_epoch_block + tempo`, the owner's pending
        // epoch, or one or two tempos later.
        let first_blocks = [460, 460, 820, 95, 110];
        assert_eq!(cases.len(), first_blocks.len());
        for (case, first) in cases.iter().zip(first_blocks) {
            let blocks = first + 3 - case["current_block"].as_u64().unwrap();
            // The tool says how far ahead its round is, less than 3 s short of whole blocks of 12 s.
            let implied = case["implied_blocks_until_ingest"].as_f64().unwrap();
            assert_eq!(blocks, implied.ceil() as u64);
            let block_time = Duration::from_secs_f64(case["block_time"].as_f64().unwrap());
            let now_ms = (case["now_unix"].as_f64().unwrap() * 1000.0) as u64;
            assert_eq!(round_for(now_ms, blocks, block_time), Ok(case["reveal_round"].as_u64().unwrap()), "{case}");
        }
    }

    #[test]
    fn the_round_changes_on_the_millisecond_and_is_never_below_1() {
        assert_eq!(reveal_round(0), 1);
        assert_eq!(reveal_round(GENESIS_MS), 1);
        assert_eq!(reveal_round(GENESIS_MS + 5_999), 1);
        assert_eq!(reveal_round(GENESIS_MS + 6_000), 2);
        assert_eq!(round_for(GENESIS_MS, 1, Duration::from_millis(5_999)), Ok(1));
        assert_eq!(round_for(GENESIS_MS + 1, 1, Duration::from_millis(5_999)), Ok(2));
        assert_eq!(round_for(GENESIS_MS, 24, Duration::from_millis(250)), Ok(2), "quarters of seconds add up");
    }

    #[test]
    fn the_beacon_counts_from_its_genesis() {
        assert_eq!(published_ms(0), None);
        assert_eq!(published_ms(1), Some(1_692_803_367_000));
        assert_eq!(published_ms(1000), Some(1_692_806_364_000));
        assert_eq!(published_ms(u64::MAX), None);
        assert_eq!(newest(GENESIS_MS - 1), None);
        assert_eq!(newest(GENESIS_MS), Some(1));
        assert_eq!(newest(GENESIS_MS + 2_999), Some(1));
        assert_eq!(newest(GENESIS_MS + 3_000), Some(2));
    }

    #[test]
    fn a_reveal_that_is_years_away_is_a_mistake_and_says_so() {
        assert!(round_for(GENESIS_MS, 50_400 * 100, BLOCK).is_ok());
        for (blocks, block_time) in [(5_256_001, BLOCK), (u64::MAX, BLOCK), (u64::MAX, Duration::MAX)] {
            assert_eq!(round_for(GENESIS_MS, blocks, block_time), Err(RoundError::TooFar { blocks, block_time }));
        }
        let text = round_for(0, 5_256_001, BLOCK).unwrap_err().to_string();
        assert_eq!(
            text,
            "a reveal 5256001 blocks of 12s ahead is more than two years away: the epochs or the block time are wrong"
        );
        assert_eq!(round_for(u64::MAX, 1, BLOCK), Ok(reveal_round(u64::MAX)), "no clock overflows");
    }

    proptest! {
        #[test]
        fn a_sealed_round_is_out_at_the_reveal_for_3_to_6_seconds(reveal_ms in GENESIS_MS + PERIOD_MS..1 << 60) {
            let out_for = reveal_ms - published_ms(reveal_round(reveal_ms)).unwrap();
            prop_assert!((PERIOD_MS..2 * PERIOD_MS).contains(&out_for), "{out_for} ms");
            prop_assert_eq!(newest(reveal_ms), Some(reveal_round(reveal_ms) + 1));
        }

        #[test]
        fn the_floor_of_the_tools_floating_point_is_ours(now_ms in GENESIS_MS..1 << 42, blocks in 0u64..1 << 22) {
            let seconds = now_ms as f64 / 1000.0 + blocks as f64 * 12.0 - GENESIS_SECONDS as f64;
            prop_assert_eq!(round_for(now_ms, blocks, BLOCK), Ok(((seconds / 3.0).floor() as u64).max(1)));
        }
    }
}
