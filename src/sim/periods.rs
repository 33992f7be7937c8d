//! The periods of a devnet: blocks and epochs are short, and what the configuration leaves at its defaults follows them.

use std::time::Duration;

use crate::settings::{Loaded, Source, duration};

/// The shortest time between two looks at the ledger.
const SHORTEST_POLL: Duration = Duration::from_millis(10);

/// Epochs that a penalty lasts.
const PENALTY_EPOCHS: u32 = 10;

/// The keys, as for `--set`, that a devnet sped up by `speed` sets where nobody else did. Whether its nodes run in one
/// process or in several, they get the same.
pub fn fitting(loaded: &Loaded, speed: f64) -> Vec<(&'static str, String)> {
    let settings = &loaded.settings;
    let block = settings.devnet.block_time.div_f64(speed.max(0.001)).max(SHORTEST_POLL);
    let text = |time: Duration| duration::show(Duration::from_millis(time.as_millis().try_into().unwrap_or(u64::MAX)));
    let fitting = [
        ("subtensor.poll_interval", text((block / 4).max(SHORTEST_POLL))),
        ("weights.interval_blocks", "1".to_owned()),
        ("weights.retry_first", text(block)),
        ("budget.challenges_per_hotkey", "10000".to_owned()),
        ("budget.time", text(settings.budget.window)),
        ("challenge.opening_deadline", "5s".to_owned()),
        ("challenge.penalty", text(block * (u32::from(settings.devnet.tempo) + 1) * PENALTY_EPOCHS)),
        ("leases.health_interval", text(block.max(Duration::from_millis(100)))),
    ];
    let shipped = |key: &str| loaded.sources.get(key).is_none_or(|s| *s == Source::Embedded);
    fitting.into_iter().filter(|(key, _)| shipped(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Cli, Role, load};

    fn load_with(cli: &Cli) -> Loaded {
        load(Role::Devnet, cli, [("HOME".to_owned(), "/home/op".to_owned())]).unwrap()
    }

    #[test]
    fn what_follows_the_blocks_can_be_read_back_and_leaves_what_somebody_set() {
        for speed in [1.0, 20.0, 100_000.0] {
            let cli = Cli::default().with_key("budget.time", "3s");
            let fitted = fitting(&load_with(&cli), speed);
            assert!(fitted.iter().all(|(key, _)| *key != "budget.time"));
            let cli = fitted.iter().fold(cli, |cli, (key, value)| cli.with_key(key, value));
            let loaded = load_with(&cli);
            let poll = Duration::from_millis(250).div_f64(speed).max(SHORTEST_POLL);
            assert!(loaded.settings.subtensor.poll_interval.abs_diff(poll) < Duration::from_millis(1), "{speed}");
            assert_eq!(loaded.settings.budget.time, Duration::from_secs(3));
            assert!(fitting(&loaded, speed).is_empty(), "it is done once");
        }
    }
}
