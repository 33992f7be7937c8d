//! The promise that every key of `config.yaml` does something: each has a place outside `src/settings` that reads it.
//!
//! [`READERS`] names the place; the test finds every key of the shipped file, and fails for one without a row, for a row
//! without a key, and for a row whose file no longer has the access. Whoever adds a key adds its reader.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use compute_subnet::settings::{Cli, FLAGS, Role, load};

const NODE: &str = "src/actors/node.rs";
const MINER: &str = "src/actors/miner/node.rs";
const ENGINE: &str = "src/actors/miner/engine.rs";
const VALIDATOR: &str = "src/actors/validator/node.rs";
const LAUNCH: &str = "src/launch/mod.rs";
const ADDRESS: &str = "src/launch/address.rs";
const CHAIN: &str = "src/launch/chain.rs";
const DERIVED: &str = "src/settings/derived.rs";
const DEVNET: &str = "src/sim/devnet.rs";

/// Key, file, access. `*` is any row of a table. A key that is read by a method of the settings has two rows: the
/// method's body, and who calls the method.
const READERS: &[(&str, &str, &str)] = &[
    ("netuid", CHAIN, "settings.netuid"),
    ("node.data_dir", LAUNCH, "settings.node.data_dir"),
    ("node.lock_dir", NODE, "settings.node.lock_dir"),
    ("logging.debug", DERIVED, "self.debug"),
    ("logging.debug", LAUNCH, "settings.logging.level()"),
    ("logging.trace", DERIVED, "self.trace"),
    ("logging.trace", LAUNCH, "settings.logging.level()"),
    ("logging.format", LAUNCH, "settings.logging.format"),
    ("logging.record_log", LAUNCH, "settings.logging.record_log"),
    ("logging.logging_dir", DERIVED, "self.logging.logging_dir"),
    ("logging.logging_dir", LAUNCH, "settings.log_dir("),
    ("wallet.name", DERIVED, "self.path.join(&self.name)"),
    ("wallet.name", LAUNCH, "settings.wallet.hotkey_file()"),
    ("wallet.hotkey", DERIVED, ".join(&self.hotkey)"),
    ("wallet.hotkey", LAUNCH, "settings.wallet.hotkey_file()"),
    ("wallet.path", DERIVED, "self.path.join(&self.name)"),
    ("wallet.path", LAUNCH, "settings.wallet.hotkey_file()"),
    ("wallet.password_file", LAUNCH, "settings.wallet.password_file"),
    ("subtensor.network", CHAIN, "&settings.subtensor.network"),
    ("subtensor.chain_endpoint", DERIVED, "self.chain_endpoint"),
    ("subtensor.chain_endpoint", CHAIN, "settings.subtensor.endpoints()"),
    ("subtensor.fallback_endpoints", DERIVED, "&self.fallback_endpoints"),
    ("subtensor.fallback_endpoints", CHAIN, "settings.subtensor.endpoints()"),
    ("subtensor.request_timeout", NODE, "settings.subtensor.request_timeout"),
    ("subtensor.poll_interval", NODE, "settings.subtensor.poll_interval"),
    ("axon.ip", LAUNCH, "settings.axon.ip"),
    ("axon.port", LAUNCH, "settings.axon.port"),
    ("axon.external_ip", ADDRESS, "axon.external_ip"),
    ("axon.external_port", ADDRESS, "axon.external_port"),
    ("axon.allow_private", DERIVED, "self.axon.allow_private"),
    ("axon.allow_private", NODE, "settings.address_policy()"),
    ("axon.ip_resolvers", ADDRESS, "axon.ip_resolvers"),
    ("axon.version", NODE, "settings.axon.version"),
    ("axon.version", MINER, "settings.axon.version"),
    ("axon.max_workers", MINER, "settings.axon.max_workers"),
    ("axon.max_body_bytes", MINER, "settings.axon.max_body_bytes"),
    ("axon.read_timeout", MINER, "settings.axon.read_timeout"),
    ("axon.accept_btauth", MINER, "settings.axon.accept_btauth"),
    ("axon.accept_classic", MINER, "settings.axon.accept_classic"),
    ("axon.classic_max_timeout", MINER, "settings.axon.classic_max_timeout"),
    ("axon.max_headers", MINER, "settings.axon.max_headers"),
    ("axon.max_header_bytes", MINER, "settings.axon.max_header_bytes"),
    ("axon.max_connections", MINER, "settings.axon.max_connections"),
    ("axon.max_connections_per_ip", MINER, "settings.axon.max_connections_per_ip"),
    ("axon.rate_per_ip", MINER, "settings.axon.rate_per_ip"),
    ("axon.burst_per_ip", MINER, "settings.axon.burst_per_ip"),
    ("axon.rate_per_hotkey", MINER, "settings.axon.rate_per_hotkey"),
    ("axon.burst_per_hotkey", MINER, "settings.axon.burst_per_hotkey"),
    ("axon.nonces", MINER, "settings.axon.nonces"),
    ("axon.nonces_per_hotkey", MINER, "settings.axon.nonces_per_hotkey"),
    ("metrics.ip", "src/launch/miner.rs", "settings.metrics.ip"),
    ("metrics.ip", "src/launch/validator.rs", "settings.metrics.ip"),
    ("metrics.port", "src/launch/miner.rs", "settings.metrics.port"),
    ("metrics.port", "src/launch/validator.rs", "settings.metrics.port"),
    ("supervision.backoff_first", NODE, "s.backoff_first"),
    ("supervision.backoff_cap", NODE, "s.backoff_cap"),
    ("supervision.max_failures", NODE, "s.max_failures"),
    ("supervision.window", NODE, "s.window"),
    ("supervision.jitter", NODE, "s.jitter"),
    ("supervision.heartbeat", NODE, "s.heartbeat"),
    ("supervision.silence_limit", NODE, "s.silence_limit"),
    ("supervision.probe_timeout", NODE, "s.probe_timeout"),
    ("supervision.drain_timeout", NODE, "settings.supervision.drain_timeout"),
    ("evidence.segment_mib", NODE, "settings.evidence.segment_mib"),
    ("evidence.keep_mib", NODE, "settings.evidence.keep_mib"),
    ("supervision.shutdown_timeout", NODE, "settings.supervision.shutdown_timeout"),
    ("supervision.mailbox", NODE, "settings.supervision.mailbox"),
    ("prover.path", LAUNCH, "settings.prover.path"),
    ("prover.backend", LAUNCH, "settings.prover.backend"),
    ("prover.library_path", LAUNCH, "settings.prover.library_path"),
    ("prover.time_limit", LAUNCH, "settings.prover.time_limit"),
    ("prover.memory_limit_mib", DERIVED, "self.memory_limit_mib"),
    ("prover.memory_limit_mib", LAUNCH, "settings.prover.memory_limit_bytes()"),
    ("prover.output_limit_mib", DERIVED, "self.output_limit_mib"),
    ("prover.output_limit_mib", LAUNCH, "settings.prover.output_limit_bytes()"),
    ("prover.threads", DERIVED, "self.threads"),
    ("prover.threads", LAUNCH, "settings.prover.threads_for("),
    ("budget.window", MINER, "settings.budget.window"),
    ("budget.operations", MINER, "settings.budget.operations"),
    ("budget.time", MINER, "settings.budget.time"),
    ("budget.challenges_per_hotkey", MINER, "settings.budget.challenges_per_hotkey"),
    ("budget.memory_mib", MINER, "settings.budget.memory_mib"),
    ("challenge.samples", VALIDATOR, "settings.challenge.samples"),
    ("challenge.commit_timeout", VALIDATOR, "settings.challenge.commit_timeout"),
    ("challenge.fill_timeout", VALIDATOR, "settings.challenge.fill_timeout"),
    ("challenge.fill_timeout", MINER, "settings.challenge.fill_timeout"),
    ("challenge.opening_deadline", VALIDATOR, "settings.challenge.opening_deadline"),
    ("challenge.pass_lifetime_epochs", VALIDATOR, "settings.challenge.pass_lifetime_epochs"),
    ("challenge.unresponsive_after", VALIDATOR, "settings.challenge.unresponsive_after"),
    ("challenge.penalty_fails", VALIDATOR, "settings.challenge.penalty_fails"),
    ("challenge.penalty_window", VALIDATOR, "settings.challenge.penalty_window"),
    ("challenge.penalty", VALIDATOR, "settings.challenge.penalty)"),
    ("specs.timeout", VALIDATOR, "settings.specs.timeout"),
    ("specs.refresh", MINER, "settings.specs.refresh"),
    ("weights.mode", VALIDATOR, "settings.weights.mode"),
    ("weights.interval_blocks", VALIDATOR, "settings.weights.interval_blocks"),
    ("weights.version_key", VALIDATOR, "settings.weights.version_key"),
    ("weights.mechanism", VALIDATOR, "settings.weights.mechanism"),
    ("weights.burn_share", VALIDATOR, "settings.weights.burn_share"),
    ("weights.burn_uid", VALIDATOR, "settings.weights.burn_uid"),
    ("weights.retry_first", VALIDATOR, "settings.weights.retry_first"),
    ("weights.retry_cap", VALIDATOR, "settings.weights.retry_cap"),
    ("weights.confirm_timeout", VALIDATOR, "settings.weights.confirm_timeout"),
    ("leases.max_duration", VALIDATOR, "settings.leases.max_duration"),
    ("leases.original_max_duration", MINER, "settings.leases.original_max_duration"),
    ("leases.test_duration", MINER, "settings.leases.test_duration"),
    ("leases.original_password", MINER, "settings.leases.original_password"),
    ("leases.original_image", MINER, "settings.leases.original_image"),
    ("leases.request_timeout", VALIDATOR, "settings.leases.request_timeout"),
    ("leases.health_interval", VALIDATOR, "settings.leases.health_interval"),
    ("leases.misses_to_lose", MINER, "settings.leases.misses_to_lose"),
    ("leases.of_checks", MINER, "settings.leases.of_checks"),
    ("leases.grace", MINER, "settings.leases.grace"),
    ("leases.grace", VALIDATOR, "settings.leases.grace"),
    ("docker.engine", ENGINE, "settings.docker.engine"),
    ("docker.socket", ENGINE, "settings.docker.socket"),
    ("docker.sshd", ENGINE, "settings.docker.sshd"),
    ("docker.ssh_ports", ENGINE, "settings.docker.ssh_ports"),
    ("docker.ssh_ready", ENGINE, "settings.docker.ssh_ready"),
    ("docker.runtime", ENGINE, "settings.docker.runtime"),
    ("docker.subnets", ENGINE, "settings.docker.subnets"),
    ("docker.cpu_share", ENGINE, "settings.docker.cpu_share"),
    ("docker.memory_share", ENGINE, "settings.docker.memory_share"),
    ("docker.shm_share", ENGINE, "settings.docker.shm_share"),
    ("docker.pids", ENGINE, "settings.docker.pids"),
    ("docker.disk_gib", ENGINE, "settings.docker.disk_gib"),
    ("docker.disk_quota", ENGINE, "settings.docker.disk_quota"),
    ("docker.egress", ENGINE, "settings.docker.egress"),
    ("docker.images.*.reference", ENGINE, "row.reference"),
    ("docker.default_image", ENGINE, "settings.docker.default_image"),
    ("docker.allow", ENGINE, "settings.docker.allow"),
    ("docker.require_digest", ENGINE, "settings.docker.require_digest"),
    ("docker.max_image_gib", ENGINE, "settings.docker.max_image_gib"),
    ("docker.pull_timeout", ENGINE, "settings.docker.pull_timeout"),
    ("docker.pull_wait", ENGINE, "settings.docker.pull_wait"),
    ("canary.interval", VALIDATOR, "settings.canary.interval"),
    ("canary.retry", VALIDATOR, "settings.canary.retry"),
    ("canary.per_epoch", VALIDATOR, "settings.canary.per_epoch"),
    ("canary.prover", VALIDATOR, "settings.canary.prover"),
    ("canary.images", VALIDATOR, "settings.canary.images"),
    ("canary.original", VALIDATOR, "settings.canary.original"),
    ("canary.login_timeout", VALIDATOR, "settings.canary.login_timeout"),
    ("canary.upload_timeout", VALIDATOR, "settings.canary.upload_timeout"),
    ("canary.run_timeout", VALIDATOR, "settings.canary.run_timeout"),
    ("leases.ssh_probe", VALIDATOR, "settings.leases.ssh_probe"),
    ("leases.candidates", VALIDATOR, "settings.leases.candidates"),
    ("leases.rent_timeout", VALIDATOR, "settings.leases.rent_timeout"),
    ("leases.trouble_half_life", VALIDATOR, "settings.leases.trouble_half_life"),
    ("leases.hardware_confirmations", VALIDATOR, "settings.leases.hardware_confirmations"),
    ("scoring.allocated_bonus", VALIDATOR, "settings.scoring.allocated_bonus"),
    ("scoring.receipt_min_stake", VALIDATOR, "settings.scoring.receipt_min_stake"),
    ("scoring.receipts_per_coldkey", VALIDATOR, "settings.scoring.receipts_per_coldkey"),
    ("scoring.max_devices", VALIDATOR, "settings.scoring.max_devices"),
    ("scoring.gpus.*.base", DERIVED, "self.base"),
    ("scoring.gpus.*.base", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.source", DERIVED, "self.source"),
    ("scoring.gpus.*.source", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.peak_tops", DERIVED, "self.peak_tops"),
    ("scoring.gpus.*.peak_tops", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.nominal_tops", DERIVED, "self.nominal_tops"),
    ("scoring.gpus.*.nominal_tops", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.floor_tops", DERIVED, "self.floor_tops"),
    ("scoring.gpus.*.floor_tops", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.memory_gib", DERIVED, "self.memory_gib"),
    ("scoring.gpus.*.memory_gib", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.floor_memory_gib", DERIVED, "self.floor_memory_gib"),
    ("scoring.gpus.*.floor_memory_gib", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.bandwidth_gbs", DERIVED, "self.bandwidth_gbs"),
    ("scoring.gpus.*.bandwidth_gbs", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.floor_bandwidth_gbs", DERIVED, "self.floor_bandwidth_gbs"),
    ("scoring.gpus.*.floor_bandwidth_gbs", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.memory_iterations", DERIVED, "self.memory_iterations?"),
    ("scoring.gpus.*.memory_iterations", VALIDATOR, "row.memory_size()"),
    ("scoring.gpus.*.aliases", DERIVED, "self.aliases"),
    ("scoring.gpus.*.aliases", VALIDATOR, "row.model(name)"),
    ("scoring.gpus.*.twins", DERIVED, "self.twins"),
    ("scoring.gpus.*.twins", VALIDATOR, "row.model(name)"),
    ("devnet.block_time", DEVNET, "settings.devnet.block_time"),
    ("devnet.tempo", DEVNET, "settings.devnet.tempo"),
    ("devnet.commit_reveal", DEVNET, "settings.devnet.commit_reveal"),
    ("devnet.gpu_scores.*.base", VALIDATOR, "class.base"),
    ("devnet.gpu_scores.*.n", VALIDATOR, "class.n"),
    ("devnet.gpu_scores.*.k", VALIDATOR, "class.k"),
    ("devnet.gpu_scores.*.rounds", VALIDATOR, "class.rounds"),
    ("devnet.gpu_scores.*.memory_blocks", DERIVED, "self.memory_blocks"),
    ("devnet.gpu_scores.*.memory_blocks", VALIDATOR, "class.memory_size()"),
    ("devnet.gpu_scores.*.memory_iterations", DERIVED, "self.memory_iterations"),
    ("devnet.gpu_scores.*.memory_iterations", VALIDATOR, "class.memory_size()"),
    ("devnet.gpu_scores.*.memory_scans", DERIVED, "self.memory_scans"),
    ("devnet.gpu_scores.*.memory_scans", VALIDATOR, "class.memory_size()"),
    ("blacklist.exploiters", NODE, "settings.blacklist.exploiters"),
    ("blacklist.exploiter_hotkeys", NODE, "settings.blacklist.exploiter_hotkeys"),
    ("blacklist.exploiter_coldkeys", NODE, "settings.blacklist.exploiter_coldkeys"),
    ("blacklist.hotkeys", NODE, "settings.blacklist.hotkeys"),
    ("blacklist.coldkeys", NODE, "settings.blacklist.coldkeys"),
    ("blacklist.anomaly_window", MINER, "settings.blacklist.anomaly_window"),
    ("blacklist.max_bad_signatures", MINER, "settings.blacklist.max_bad_signatures"),
    ("blacklist.max_replays", MINER, "settings.blacklist.max_replays"),
    ("blacklist.max_malformed", MINER, "settings.blacklist.max_malformed"),
    ("blacklist.anomaly_penalty", MINER, "settings.blacklist.anomaly_penalty"),
    ("whitelist.hotkeys", NODE, "settings.whitelist.hotkeys"),
    ("whitelist.coldkeys", NODE, "settings.whitelist.coldkeys"),
    ("whitelist.trusted_hotkeys", NODE, "settings.whitelist.trusted_hotkeys"),
    ("miner.whitelist_not_enough_stake", NODE, "settings.miner.whitelist_not_enough_stake"),
    ("miner.min_stake", DERIVED, "self.min_stake"),
    ("miner.min_stake", NODE, "settings.miner.min_stake_rao()"),
    ("miner.require_permit", NODE, "settings.miner.require_permit"),
    ("miner.ssh_port", MINER, "settings.miner.ssh_port"),
    ("validator.perform_hardware_query", VALIDATOR, "settings.validator.perform_hardware_query"),
    ("validator.challenge_batch_size", VALIDATOR, "settings.validator.challenge_batch_size"),
    ("validator.specs_batch_size", VALIDATOR, "settings.validator.specs_batch_size"),
    ("validator.force_update_prometheus", NODE, "settings.validator.force_update_prometheus"),
    ("validator.require_permit", VALIDATOR, "settings.validator.require_permit"),
    ("validator.one_ip_per_uid", NODE, "settings.validator.one_ip_per_uid"),
    ("validator.whitelist_unrecognized", NODE, "settings.validator.whitelist_unrecognized"),
    ("validator.whitelist_updated_threshold", NODE, "settings.validator.whitelist_updated_threshold"),
    ("miner.whitelist_not_updated", NODE, "settings.miner.whitelist_not_updated"),
    ("miner.whitelist_updated_threshold", NODE, "settings.miner.whitelist_updated_threshold"),
    ("update.minimal_miner_version", NODE, "settings.update.minimal_miner_version"),
    ("update.minimal_validator_version", NODE, "settings.update.minimal_validator_version"),
    ("update.auto_update", NODE, "settings.update.auto_update"),
    ("update.interval", NODE, "settings.update.interval"),
    ("store.busy_timeout", NODE, "settings.store.busy_timeout"),
    ("store.queue", NODE, "settings.store.queue"),
    ("store.group_commit", NODE, "settings.store.group_commit"),
    ("evidence.segment_mib", NODE, "settings.evidence.segment_mib"),
    ("evidence.keep_mib", NODE, "settings.evidence.keep_mib"),
];

/// Every leaf key of the shipped file, rows of tables as `*`.
fn keys() -> BTreeSet<String> {
    let home = [("HOME".to_owned(), "/home/op".to_owned())];
    let loaded = load(Role::Devnet, &Cli::default(), home).unwrap();
    let any_row = |key: &String| {
        let table =
            ["scoring.gpus.", "devnet.gpu_scores.", "docker.images."].into_iter().find(|table| key.starts_with(table));
        let Some((table, row)) = table.map(|table| (table, &key[table.len()..])) else { return key.clone() };
        let (_, field) = match row.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\".").unwrap(),
            None => row.split_once('.').unwrap(),
        };
        format!("{table}*.{field}")
    };
    loaded.sources.keys().map(any_row).collect()
}

/// Names of files in a node's directory, and of others' packages and services, that look like keys, or begin so.
const FILES: &[&str] = &["devnet.previous", "devnet.seed", "docker.io", "docker.service", "node.db", "node.lock"];

/// What a text for people calls a key: `SECTION.KEY` within backticks, where there is such a section; `*` is any key.
fn named_keys<'a>(text: &'a str, sections: &BTreeSet<&str>) -> Vec<&'a str> {
    let mut fenced = false;
    let spans = text.lines().flat_map(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        // A block of code is a span as a whole; a line has its spans between every other pair of backticks.
        let (first, step) = if fenced { (0, 1) } else { (1, 2) };
        line.split('`').skip(first).step_by(step).collect::<Vec<_>>()
    });
    let part = |c: char| is_word(c) || ".*-/".contains(c);
    let words = spans.flat_map(|span| span.split(move |c| !part(c)));
    let words = words.map(|word| word.trim_start_matches('-').trim_end_matches('.'));
    let key = |word: &&str| word.split_once('.').is_some_and(|(section, _)| sections.contains(section));
    let file = |word: &str| {
        let of = |name| word.strip_prefix(name).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('.'));
        FILES.iter().any(of)
    };
    words.filter(key).filter(|word| !file(word)).collect()
}

#[test]
fn every_key_or_flag_that_readme_and_docs_name_exists() {
    let keys = keys();
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let exists = |named: &str| {
        let below = named.strip_suffix(".*").unwrap_or(named);
        // A few flags have a key's form and a name of their own.
        FLAGS.iter().any(|flag| flag.name == named || flag.alias == Some(named))
            || keys.iter().any(|key| key == below || key.strip_prefix(below).is_some_and(|rest| rest.starts_with('.')))
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let texts = docs.filter(|path| path.extension().is_some_and(|e| e == "md")).chain([root.join("README.md")]);
    let (mut seen, mut unknown) = (0, Vec::new());
    for path in texts {
        let text = std::fs::read_to_string(&path).unwrap();
        for named in named_keys(&text, &sections) {
            seen += 1;
            if !exists(named) {
                unknown.push(format!("{}: {named}: neither a key of config.yaml nor a flag", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    assert!(seen >= 10, "only {seen} keys were found in all texts");
}

#[test]
fn a_named_key_is_told_from_what_only_looks_like_one() {
    let sections = BTreeSet::from(["axon", "scoring"]);
    let text = "`axon.port`, `--set axon.ip=0.0.0.0` and `--axon.port 1`; `subnet.json`, axon.nothing, `a.axon.b`,\n\
                `scoring.*`, `src/axon/mod.rs`, `devnet.seed`.\n```sh\nrun --axon.prot 5 # axon.\n```\n`axon.max_workers`.";
    let named = named_keys(text, &sections);
    assert_eq!(named, ["axon.port", "axon.ip", "axon.port", "scoring.*", "axon.prot", "axon.max_workers"]);
}

/// A file's code without comments, unit tests, and the white space that only lays it out.
fn code(file: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    tight(&lines.collect::<Vec<_>>().join(" "))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with white space only between two words, where it separates them.
fn tight(text: &str) -> String {
    text.split_whitespace().fold(String::new(), |mut out, part| {
        if out.ends_with(is_word) && part.starts_with(is_word) {
            out.push(' ');
        }
        out.push_str(part);
        out
    })
}

/// Whether the code has the access, and not merely a longer name that begins or ends with it.
fn has(code: &str, access: &str) -> bool {
    code.match_indices(access).any(|(at, _)| {
        let before = code[..at].ends_with(is_word) && access.starts_with(is_word);
        let after = code[at + access.len()..].starts_with(is_word) && access.ends_with(is_word);
        !before && !after
    })
}

#[test]
fn every_key_of_the_shipped_file_is_read_by_something_that_runs() {
    let mut unread = Vec::new();
    let mut sources: BTreeMap<&str, String> = BTreeMap::new();
    for key in keys() {
        // What only the settings' own code reads has no effect.
        let read = READERS.iter().any(|(k, file, _)| *k == key && !file.starts_with("src/settings/"));
        if !read {
            unread
                .push(format!("{key}: no reader is known; read it, and name the place in READERS, or remove the key"));
        }
    }
    let keys = keys();
    for (key, file, access) in READERS {
        if !keys.contains(*key) {
            unread.push(format!("{key}: in READERS, but config.yaml has no such key"));
        }
        if !has(sources.entry(file).or_insert_with(|| code(file)), access) {
            unread.push(format!("{key}: {file} has no {access:?} any more"));
        }
    }
    assert!(unread.is_empty(), "{}", unread.join("\n"));
}

#[test]
fn an_access_is_told_from_a_longer_name_and_from_a_comment() {
    let found = |text: &str, access: &str| has(&tight(text), access);
    assert!(found("match settings\n    .axon\n    .port {}", "settings.axon.port"));
    assert!(!found("let a = settings.axon.port_of;", "settings.axon.port"));
    assert!(!found("let a = class.name;", "s.name"));
    assert!(found("let a = s.name as u16;", "s.name"));
    let node = code(NODE);
    assert!(!node.contains("//") && !has(&node, "settings.axon.no_such_key"));
}
