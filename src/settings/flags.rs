//! The table of flags: every flag of the original under its own spelling, and the few of ours.
//!
//! Invariant: a flag either sets a key, names the configuration, or says why it does nothing; a test walks the table.

/// How a flag takes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagKind {
    /// `--x VALUE` or `--x=VALUE`.
    Value,
    /// `--x A,B,C`: items with commas between them.
    List,
    /// `--x`, `--x false`, `--x=false`.
    Switch,
    /// `--x KEY=VALUE`, as often as wanted.
    Assignment,
}

/// What a flag does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Sets this key.
    Key(&'static str),
    /// A switch that sets a key to one of two words.
    Choice {
        /// The key.
        key: &'static str,
        /// The word for `true`.
        yes: &'static str,
        /// The word for `false`.
        no: &'static str,
    },
    /// Names the configuration itself.
    Layer,
    /// Accepted, so that start scripts of the original keep working, and told to do nothing for this reason.
    NoEffect(&'static str),
}

/// One flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// The name, without dashes.
    pub name: &'static str,
    /// Another spelling, without dashes.
    pub alias: Option<&'static str>,
    /// How it takes its value.
    pub kind: FlagKind,
    /// The original's default as text; `None` for a flag that the original does not have.
    pub original_default: Option<&'static str>,
    /// What it does.
    pub effect: Effect,
    /// One line for `--help`.
    pub help: &'static str,
}

impl Flag {
    /// The key it sets.
    pub fn key(&self) -> Option<&'static str> {
        match self.effect {
            Effect::Key(key) | Effect::Choice { key, .. } => Some(key),
            Effect::Layer | Effect::NoEffect(_) => None,
        }
    }

    /// The flag of this name or alias.
    pub fn find(name: &str) -> Option<&'static Flag> {
        FLAGS.iter().find(|flag| flag.name == name || flag.alias == Some(name))
    }
}

const fn original(
    name: &'static str,
    kind: FlagKind,
    default: &'static str,
    effect: Effect,
    help: &'static str,
) -> Flag {
    Flag { name, alias: None, kind, original_default: Some(default), effect, help }
}

const fn ours(name: &'static str, kind: FlagKind, effect: Effect, help: &'static str) -> Flag {
    Flag { name, alias: None, kind, original_default: None, effect, help }
}

use Effect::{Key, NoEffect};
use FlagKind::{Assignment, List, Switch, Value};

const NO_HASHCAT: &str = "devices are proved by matrix products, hashcat is not used";

/// Every flag, in the order of `--help`.
pub static FLAGS: &[Flag] = &[
    original("config", Value, "", Effect::Layer, "A YAML file with the settings you change"),
    ours("set", Assignment, Effect::Layer, "Set any key, for example --set leases.grace=5m"),
    original("netuid", Value, "27", Key("netuid"), "The subnet's number; by network if not given"),
    Flag {
        alias: Some("auto-update"),
        ..original("auto_update", Switch, "true", Key("update.auto_update"), "Update automatically")
    },
    ours("node.data_dir", Value, Key("node.data_dir"), "Directory of the node's database and files"),
    original("wallet.name", Value, "default", Key("wallet.name"), "Name of the wallet"),
    original("wallet.hotkey", Value, "default", Key("wallet.hotkey"), "Name of the hotkey"),
    original("wallet.path", Value, "~/.bittensor/wallets/", Key("wallet.path"), "Directory of all wallets"),
    original(
        "subtensor.network",
        Value,
        "finney",
        Key("subtensor.network"),
        "finney, test, local or ledger=http://127.0.0.1:PORT",
    ),
    original(
        "subtensor.chain_endpoint",
        Value,
        "wss://entrypoint-finney.opentensor.ai:443",
        Key("subtensor.chain_endpoint"),
        "Address to dial instead of the network's own",
    ),
    original(
        "subtensor._mock",
        Switch,
        "false",
        NoEffect("there is no mock chain; use compute-devnet, or --subtensor.network ledger=http://127.0.0.1:PORT"),
        "No effect",
    ),
    original("axon.port", Value, "8091", Key("axon.port"), "Port to listen on"),
    original("axon.ip", Value, "[::]", Key("axon.ip"), "Address to listen on"),
    original("axon.external_port", Value, "none", Key("axon.external_port"), "Port to announce on chain"),
    original("axon.external_ip", Value, "none", Key("axon.external_ip"), "Address to announce on chain"),
    original("axon.max_workers", Value, "10", Key("axon.max_workers"), "Admitted requests worked on at the same time"),
    ours("metrics.ip", Value, Key("metrics.ip"), "Address of /metrics"),
    ours("metrics.port", Value, Key("metrics.port"), "Port of /metrics"),
    ours("weights.mode", Value, Key("weights.mode"), "set weights, or only compare them with others' (shadow)"),
    original(
        "ssh.port",
        Value,
        "4444",
        Key("miner.ssh_port"),
        "Port of the containers' SSH server, as callers of the original's protocol are told",
    ),
    original("logging.debug", Switch, "false", Key("logging.debug"), "Log at level debug"),
    original("logging.trace", Switch, "false", Key("logging.trace"), "Log at level trace"),
    original(
        "logging.info",
        Switch,
        "false",
        NoEffect("info is the level without any flag"),
        "No effect: info is the default",
    ),
    ours(
        "logging.json",
        Switch,
        Effect::Choice { key: "logging.format", yes: "json", no: "text" },
        "Log as one JSON object a line",
    ),
    original("logging.record_log", Switch, "false", Key("logging.record_log"), "Also write the log to a file"),
    original("logging.logging_dir", Value, "~/.bittensor/miners", Key("logging.logging_dir"), "Directory of log files"),
    original("blacklist.exploiters", Switch, "true", Key("blacklist.exploiters"), "Refuse the known exploiters"),
    original("blacklist.hotkeys", List, "", Key("blacklist.hotkeys"), "Hotkeys to refuse"),
    original("blacklist.coldkeys", List, "", Key("blacklist.coldkeys"), "Coldkeys to refuse"),
    original("whitelist.hotkeys", List, "", Key("whitelist.hotkeys"), "Hotkeys to admit before all rules"),
    original("whitelist.coldkeys", List, "", Key("whitelist.coldkeys"), "Coldkeys to admit before all rules"),
    original(
        "validator.whitelist.unrecognized",
        Switch,
        "false",
        Key("validator.whitelist_unrecognized"),
        "Ask miners that announce no version too",
    ),
    original(
        "validator.perform.hardware.query",
        Switch,
        "true",
        Key("validator.perform_hardware_query"),
        "Ask miners for their specs",
    ),
    original(
        "validator.challenge.batch.size",
        Value,
        "256",
        Key("validator.challenge_batch_size"),
        "Miners challenged at the same time",
    ),
    original(
        "validator.specs.batch.size",
        Value,
        "64",
        Key("validator.specs_batch_size"),
        "Miners asked for specs at the same time",
    ),
    original(
        "validator.force.update.prometheus",
        Switch,
        "false",
        Key("validator.force_update_prometheus"),
        "Announce the metrics address once after the start",
    ),
    original(
        "validator.whitelist.updated.threshold",
        Value,
        "60",
        Key("validator.whitelist_updated_threshold"),
        "Percent updated above which other miners are left out",
    ),
    original("miner.hashcat.path", Value, "hashcat", NoEffect(NO_HASHCAT), "No effect: hashcat is not used"),
    original("miner.hashcat.workload.profile", Value, "3", NoEffect(NO_HASHCAT), "No effect: hashcat is not used"),
    original("miner.hashcat.extended.options", Value, "", NoEffect(NO_HASHCAT), "No effect: hashcat is not used"),
    original(
        "miner.whitelist.not.enough.stake",
        Switch,
        "false",
        Key("miner.whitelist_not_enough_stake"),
        "Serve callers without enough stake too",
    ),
    original(
        "miner.whitelist.not.updated",
        Switch,
        "false",
        Key("miner.whitelist_not_updated"),
        "Serve validators of earlier versions too",
    ),
    original(
        "miner.whitelist.updated.threshold",
        Value,
        "60",
        Key("miner.whitelist_updated_threshold"),
        "Percent updated above which others are refused",
    ),
    original(
        "strict",
        Switch,
        "false",
        NoEffect("unknown flags and keys are always refused"),
        "No effect: always strict",
    ),
    original(
        "no_version_checking",
        Switch,
        "false",
        NoEffect("there is no Bittensor SDK whose version could be checked"),
        "No effect",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_about_admission_has_an_effect() {
        let about = |flag: &&Flag| {
            ["blacklist.", "whitelist.", "miner.whitelist.", "validator.whitelist."]
                .iter()
                .any(|p| flag.name.starts_with(p))
                || flag.name == "validator.perform.hardware.query"
        };
        let flags: Vec<_> = FLAGS.iter().filter(about).collect();
        assert_eq!(flags.len(), 11, "{flags:?}");
        for flag in flags {
            assert!(matches!(flag.effect, Effect::Key(_)), "{flag:?}");
        }
    }
}
