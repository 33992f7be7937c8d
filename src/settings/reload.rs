//! Reading the settings again while a node runs: what changes at once, what waits for a restart, what never changes.
//!
//! [`CLASSES`] says it for every key, once. [`reread`] is pure but for reading the file: it compares the settings in
//! force with what the same layers say now, and returns the settings to be in force from now on, in which only live keys
//! are new. A layer with a problem changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::field::NONE;
use super::value::show_path;
use super::{Cli, Loaded, Problems, Role, read_layers, settle};
use crate::telemetry::{redact_endpoint, redact_url};

/// What becomes of a changed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It is read at the time of use.
    Live,
    /// It is read when the node starts.
    Restart,
    /// It says which node this is.
    Identity,
}

/// Every key with its class. `SECTION.*` is every key of a section.
pub const CLASSES: &[(&str, Class)] = &[
    ("netuid", Class::Identity),
    ("node.data_dir", Class::Identity),
    ("node.lock_dir", Class::Restart),
    ("logging.debug", Class::Live),
    ("logging.trace", Class::Live),
    ("logging.format", Class::Restart),
    ("logging.record_log", Class::Restart),
    ("logging.logging_dir", Class::Restart),
    ("wallet.name", Class::Identity),
    ("wallet.hotkey", Class::Identity),
    ("wallet.path", Class::Identity),
    ("wallet.password_file", Class::Restart),
    ("subtensor.network", Class::Identity),
    ("subtensor.chain_endpoint", Class::Restart),
    ("subtensor.fallback_endpoints", Class::Restart),
    ("subtensor.request_timeout", Class::Restart),
    ("subtensor.poll_interval", Class::Restart),
    ("axon.accept_btauth", Class::Live),
    ("axon.accept_classic", Class::Live),
    ("axon.ip", Class::Restart),
    ("axon.port", Class::Restart),
    ("axon.external_ip", Class::Restart),
    ("axon.external_port", Class::Restart),
    ("axon.allow_private", Class::Restart),
    ("axon.ip_resolvers", Class::Restart),
    ("axon.version", Class::Restart),
    ("axon.max_workers", Class::Restart),
    ("axon.max_body_bytes", Class::Restart),
    ("axon.read_timeout", Class::Restart),
    ("axon.classic_max_timeout", Class::Restart),
    ("axon.max_headers", Class::Restart),
    ("axon.max_header_bytes", Class::Restart),
    ("axon.max_connections", Class::Restart),
    ("axon.max_connections_per_ip", Class::Restart),
    ("axon.rate_per_ip", Class::Restart),
    ("axon.burst_per_ip", Class::Restart),
    ("axon.rate_per_hotkey", Class::Restart),
    ("axon.burst_per_hotkey", Class::Restart),
    ("axon.nonces", Class::Restart),
    ("axon.nonces_per_hotkey", Class::Restart),
    ("metrics.*", Class::Restart),
    ("supervision.*", Class::Restart),
    ("prover.*", Class::Restart),
    ("budget.*", Class::Live),
    ("challenge.*", Class::Live),
    ("specs.*", Class::Restart),
    ("weights.mode", Class::Live),
    ("weights.interval_blocks", Class::Live),
    ("weights.version_key", Class::Live),
    ("weights.mechanism", Class::Restart),
    ("weights.burn_share", Class::Live),
    ("weights.burn_uid", Class::Live),
    ("weights.retry_first", Class::Live),
    ("weights.retry_cap", Class::Live),
    ("weights.confirm_timeout", Class::Restart),
    ("leases.max_duration", Class::Live),
    ("leases.original_max_duration", Class::Live),
    ("leases.test_duration", Class::Live),
    ("leases.original_password", Class::Live),
    ("leases.original_image", Class::Live),
    ("leases.request_timeout", Class::Restart),
    ("leases.health_interval", Class::Live),
    ("leases.misses_to_lose", Class::Live),
    ("leases.of_checks", Class::Live),
    ("leases.grace", Class::Live),
    ("docker.*", Class::Restart),
    ("canary.*", Class::Live),
    ("leases.ssh_probe", Class::Live),
    ("leases.candidates", Class::Live),
    ("leases.rent_timeout", Class::Live),
    ("leases.trouble_half_life", Class::Live),
    ("leases.hardware_confirmations", Class::Live),
    ("scoring.*", Class::Live),
    ("devnet.block_time", Class::Restart),
    ("devnet.tempo", Class::Restart),
    ("devnet.commit_reveal", Class::Restart),
    ("devnet.gpu_scores.*", Class::Live),
    ("blacklist.*", Class::Live),
    ("whitelist.*", Class::Live),
    ("miner.*", Class::Live),
    ("validator.perform_hardware_query", Class::Live),
    ("validator.challenge_batch_size", Class::Live),
    ("validator.specs_batch_size", Class::Live),
    ("validator.force_update_prometheus", Class::Restart),
    ("validator.require_permit", Class::Live),
    ("validator.one_ip_per_uid", Class::Live),
    ("validator.whitelist_unrecognized", Class::Live),
    ("validator.whitelist_updated_threshold", Class::Live),
    ("update.auto_update", Class::Restart),
    ("update.interval", Class::Restart),
    ("update.minimal_miner_version", Class::Live),
    ("update.minimal_validator_version", Class::Live),
    ("store.*", Class::Restart),
    ("evidence.*", Class::Restart),
];

fn matches(pattern: &str, key: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(section) => key.starts_with(section),
        None => key == pattern,
    }
}

/// The class of a key, rows of tables included. A key without a line in [`CLASSES`] waits for a restart.
pub fn class(key: &str) -> Class {
    CLASSES.iter().find(|(pattern, _)| matches(pattern, key)).map_or(Class::Restart, |(_, class)| *class)
}

/// What became of a changed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new value is in force.
    Applied,
    /// The old value stays in force until the node is started again.
    NeedsRestart,
    /// The old value stays: with another one this would be another node.
    Refused,
}

impl Outcome {
    /// The outcome as people read it.
    pub fn text(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::NeedsRestart => "needs a restart",
            Outcome::Refused => "refused",
        }
    }
    /// Why, and what to do; empty when nothing.
    pub fn remedy(self) -> &'static str {
        match self {
            Outcome::Applied => "",
            Outcome::NeedsRestart => "start the node again when it suits you",
            Outcome::Refused => "it says which node this is: start another node with it",
        }
    }
}

impl From<Class> for Outcome {
    fn from(class: Class) -> Self {
        match class {
            Class::Live => Outcome::Applied,
            Class::Restart => Outcome::NeedsRestart,
            Class::Identity => Outcome::Refused,
        }
    }
}

/// A key that differs from the settings in force. Values are as listed, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key's path.
    pub key: String,
    /// The value in force before; none for a new row of a table.
    pub old: Option<String>,
    /// What the layers say now; none for a row that is gone.
    pub new: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Everything that differs from the settings in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// By key.
    pub changes: Vec<Change>,
    /// What an operator should read.
    pub warnings: Vec<String>,
}

impl Changes {
    /// The changes as lines for people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if self.changes.is_empty() {
            out.push_str("nothing changed\n");
        }
        for Change { key, old, new, outcome } in &self.changes {
            let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
            // Writing to a String cannot fail.
            let _ = write!(out, "{:<15}  {key}: {} → {}", outcome.text(), or_none(old), or_none(new));
            let remedy = outcome.remedy();
            let _ = if remedy.is_empty() { writeln!(out) } else { writeln!(out, "  ({remedy})") };
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "warning: {warning}");
        }
        out
    }
}

/// A key's value as it may be shown.
pub(crate) fn shown(key: &str, value: &str) -> String {
    match key {
        "subtensor.chain_endpoint" | "subtensor.fallback_endpoints" if value != NONE => {
            value.split(',').map(redact_endpoint).collect::<Vec<_>>().join(",")
        }
        "subtensor.network" => redact_url(value),
        _ => value.to_owned(),
    }
}

fn listed(loaded: &Loaded) -> BTreeMap<String, String> {
    let mut pairs = Vec::new();
    loaded.pairs(&mut pairs);
    pairs.into_iter().collect()
}

/// Compares the settings in force with what the layers say now, and returns what is to be in force. Blocking: it reads
/// the file of `--config`.
///
/// # Errors
/// Everything that is wrong with the layers, or with what would be in force; nothing is to change then.
pub fn reread(
    in_force: &Loaded,
    role: Role,
    cli: &Cli,
    env: &[(String, String)],
) -> Result<(Loaded, Changes), Problems> {
    let wanted = read_layers(role, cli, env)?;
    let mut mixed = wanted.tree.clone();
    in_force.tree.leaves(&mut Vec::new(), &mut |keys, value| {
        if class(&show_path(keys)) != Class::Live {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            mixed.put(&keys, value.clone());
        }
    });
    let next = settle(mixed, role, env, Vec::new(), Vec::new())?;
    let (old, new) = (listed(in_force), listed(&wanted));
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    let changes = changed
        .map(|key| Change {
            key: key.clone(),
            old: old.get(key).map(|value| shown(key, value)),
            new: new.get(key).map(|value| shown(key, value)),
            outcome: class(key).into(),
        })
        .collect();
    Ok((next, Changes { changes, warnings: wanted.warnings }))
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;

    fn env() -> Vec<(String, String)> {
        vec![("HOME".to_owned(), "/home/op".to_owned())]
    }

    fn cli(keys: &[(&str, &str)]) -> Cli {
        keys.iter().fold(Cli::default(), |cli, (key, value)| cli.with_key(key, value))
    }

    fn reread_with(before: &[(&str, &str)], after: &[(&str, &str)]) -> Result<(Loaded, Changes), Problems> {
        let in_force = load(Role::Validator, &cli(before), env()).unwrap();
        reread(&in_force, Role::Validator, &cli(after), &env())
    }

    #[test]
    fn every_key_has_exactly_one_class_and_every_class_a_key() {
        let loaded = load(Role::Devnet, &Cli::default(), env()).unwrap();
        let keys = listed(&loaded);
        for key in keys.keys() {
            let of: Vec<_> = CLASSES.iter().filter(|(pattern, _)| matches(pattern, key)).collect();
            assert_eq!(of.len(), 1, "{key}: {of:?}");
        }
        for (pattern, _) in CLASSES {
            assert!(keys.keys().any(|key| matches(pattern, key)), "{pattern} is no key of config.yaml");
        }
    }

    #[test]
    fn live_keys_apply_and_all_others_keep_the_value_in_force() {
        let after = [
            ("challenge.samples", "5"),
            ("metrics.port", "9999"),
            ("wallet.hotkey", "other"),
            ("subtensor.chain_endpoint", "wss://user:secret@host:9944/secret"),
            ("subtensor.fallback_endpoints", "wss://one/secret,wss://two/v1/secret?secret"),
        ];
        let (next, Changes { changes, .. }) = reread_with(&[], &after).unwrap();
        let seen: Vec<_> = changes.iter().map(|c| (c.key.as_str(), c.outcome)).collect();
        let wanted = [
            ("challenge.samples", Outcome::Applied),
            ("metrics.port", Outcome::NeedsRestart),
            ("subtensor.chain_endpoint", Outcome::NeedsRestart),
            ("subtensor.fallback_endpoints", Outcome::NeedsRestart),
            ("wallet.hotkey", Outcome::Refused),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(next.settings.challenge.samples, 5);
        assert_eq!(next.settings.metrics.port, 9464);
        assert_eq!(next.settings.wallet.hotkey, "default");
        let text = Changes { changes, warnings: vec!["careful".into()] }.to_text();
        assert!(text.contains("applied          challenge.samples: 66 → 5\n"), "{text}");
        assert!(text.contains("(start the node again") && text.contains("warning: careful"), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("subtensor.chain_endpoint: none → wss://host:9944  ("), "{text}");
        assert!(text.contains("subtensor.fallback_endpoints: none → wss://one:443,wss://two:443  ("), "{text}");
    }

    #[test]
    fn settings_can_be_logged_although_an_endpoint_holds_a_key() {
        let keys = [
            ("subtensor.chain_endpoint", "wss://me:secret@host/secret"),
            ("subtensor.fallback_endpoints", "wss://one/secret"),
        ];
        let loaded = load(Role::Validator, &cli(&keys), env()).unwrap();
        for text in [format!("{loaded:?}"), format!("{:?}", loaded.settings), loaded.listing()] {
            assert!(text.contains("wss://host:443") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_waits_for_a_restart_is_told_again_and_what_is_in_force_is_not() {
        let (next, _) = reread_with(&[], &[("challenge.samples", "5"), ("metrics.port", "9999")]).unwrap();
        let again = cli(&[("challenge.samples", "5"), ("metrics.port", "9999")]);
        let (_, Changes { changes, .. }) = reread(&next, Role::Validator, &again, &env()).unwrap();
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!((changes[0].key.as_str(), changes[0].outcome), ("metrics.port", Outcome::NeedsRestart));
        let (_, Changes { changes, .. }) =
            reread_with(&[("metrics.port", "9999")], &[("metrics.port", "9999")]).unwrap();
        assert!(changes.is_empty());
        assert_eq!(Changes::default().to_text(), "nothing changed\n");
    }

    #[test]
    fn any_problem_changes_nothing_and_all_problems_are_told() {
        let after = [("challenge.samples", "0"), ("leases.grace", "soon"), ("miner.min_stake", "5")];
        let problems = reread_with(&[], &after).unwrap_err();
        assert_eq!(problems.0.len(), 2, "{problems}");
    }

    #[test]
    fn a_live_value_that_contradicts_one_that_waits_for_a_restart_is_refused() {
        // The device classes of a ledger are only allowed on one; the network in force is no ledger.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.yaml");
        let text =
            "subtensor: { network: 'ledger=http://127.0.0.1:1' }\ndevnet: { gpu_scores: { cpu-1: { base: 2 } } }\n";
        std::fs::write(&path, text).unwrap();
        let after = Cli::default().with("config", path.to_str().unwrap());
        let in_force = load(Role::Validator, &Cli::default(), env()).unwrap();
        assert!(load(Role::Validator, &after, env()).is_ok());
        let problems = reread(&in_force, Role::Validator, &after, &env()).unwrap_err();
        assert!(problems.to_string().contains("gpu_scores"), "{problems}");
    }

    #[test]
    fn a_row_that_comes_or_goes_is_a_change_of_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.yaml");
        std::fs::write(&path, "scoring: { gpus: { 'NVIDIA L4': null } }\n").unwrap();
        let in_force = load(Role::Validator, &Cli::default(), env()).unwrap();
        let after = Cli::default().with("config", path.to_str().unwrap());
        let (next, Changes { changes, .. }) = reread(&in_force, Role::Validator, &after, &env()).unwrap();
        assert!(!next.settings.scoring.gpus.contains_key("NVIDIA L4"));
        assert!(changes.iter().all(|c| c.key.starts_with("scoring.gpus.\"NVIDIA L4\".") && c.new.is_none()));
        assert!(changes.iter().any(|c| c.key.ends_with(".base") && c.old.as_deref() == Some("0.43")), "{changes:?}");
    }
}
