//! Checks across keys, after every key was read by itself.
//!
//! A check whose keys have problems of their own is left out: it would judge the shipped default, not what was meant.

use std::collections::BTreeMap;

use reqwest::Url;

use super::Role;
use super::field::{At, Reader};
use super::network::Network;
use super::sections::{GpuRow, Settings};
use super::value::{Source, Value, show_path};
use crate::lease::engine::docker::WORK;
use crate::proof::size::size;
use crate::wire::resolver::Resolver;

/// Smallest floor, as a share of nominal (design of the proof: one card must not pass as two, nor a slow one as healthy).
const FLOOR_SHARE: f64 = 0.70;

/// Judges settings as a whole. Problems go to the reader; what is merely unwise is returned as warnings.
pub(crate) fn check(settings: &Settings, role: Role, tree: &Value, reader: &mut Reader<'_>) -> Vec<String> {
    let mut cross = Cross { tree, reader, warnings: Vec::new() };
    cross.ports(settings);
    cross.order(settings);
    cross.rentals(settings, role);
    cross.chain(settings);
    cross.devnet(settings);
    cross.gpu_names(&settings.scoring.gpus);
    cross.gpu_rates(&settings.scoring.gpus);
    cross.admission(settings);
    cross.unwise(settings);
    cross.warnings
}

struct Cross<'a, 'd> {
    tree: &'a Value,
    reader: &'a mut Reader<'d>,
    warnings: Vec<String>,
}

fn path(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

fn gpu(name: &str, field: &str) -> Vec<String> {
    vec!["scoring".to_owned(), "gpus".to_owned(), name.to_owned(), field.to_owned()]
}

impl Cross<'_, '_> {
    /// Notes a problem with the keys unless one of them is known to be wrong. It is laid at the key that was set last.
    fn fault(&mut self, keys: &[Vec<String>], reason: String) {
        if keys.iter().any(|key| (1..=key.len()).any(|n| self.reader.bad.contains(&key[..n]))) {
            return;
        }
        let source = |key: &Vec<String>| self.tree.at(key).map_or(Source::Embedded, |value| value.source.clone());
        let Some(blamed) = keys.iter().rev().max_by_key(|key| source(key)) else { return };
        let at = At { keys: blamed.clone(), source: source(blamed) };
        self.reader.report(&at, reason);
    }

    fn ports(&mut self, settings: &Settings) {
        let (axon, metrics) = (settings.axon.port, settings.metrics.port);
        if axon == metrics {
            let keys = [path("axon.port"), path("metrics.port")];
            self.fault(&keys, format!("port {axon} is taken twice, by axon.port and metrics.port"));
        }
    }

    fn order(&mut self, settings: &Settings) {
        let at_most = [
            (
                "supervision.backoff_first",
                settings.supervision.backoff_first,
                "supervision.backoff_cap",
                settings.supervision.backoff_cap,
            ),
            ("weights.retry_first", settings.weights.retry_first, "weights.retry_cap", settings.weights.retry_cap),
            ("budget.time", settings.budget.time, "budget.window", settings.budget.window),
            (
                "supervision.heartbeat",
                settings.supervision.heartbeat * 2,
                "supervision.silence_limit",
                settings.supervision.silence_limit,
            ),
        ];
        for (small, low, large, high) in at_most {
            if low > high {
                let times = if small.ends_with("heartbeat") { "twice " } else { "" };
                self.fault(&[path(small), path(large)], format!("{times}{small} must not be above {large}"));
            }
        }
        if !settings.axon.accept_btauth && !settings.axon.accept_classic {
            let reason = "no scheme is accepted, so nobody could call: accept_btauth or accept_classic must be true";
            self.fault(&[path("axon.accept_btauth"), path("axon.accept_classic")], reason.to_owned());
        }
        if settings.axon.max_connections_per_ip > settings.axon.max_connections {
            let reason = "axon.max_connections_per_ip must not be above axon.max_connections".to_owned();
            self.fault(&[path("axon.max_connections_per_ip"), path("axon.max_connections")], reason);
        }
        if settings.axon.nonces_per_hotkey > settings.axon.nonces {
            let reason = "axon.nonces_per_hotkey must not be above axon.nonces".to_owned();
            self.fault(&[path("axon.nonces_per_hotkey"), path("axon.nonces")], reason);
        }
        if settings.challenge.penalty_fails > settings.challenge.penalty_window {
            let reason = format!(
                "{} fails can never be among the last {} judgements: penalty_fails must not be above penalty_window",
                settings.challenge.penalty_fails, settings.challenge.penalty_window
            );
            self.fault(&[path("challenge.penalty_fails"), path("challenge.penalty_window")], reason);
        }
        if settings.leases.misses_to_lose > settings.leases.of_checks {
            let reason = format!(
                "{} misses can never be among the last {} checks: misses_to_lose must not be above of_checks",
                settings.leases.misses_to_lose, settings.leases.of_checks
            );
            self.fault(&[path("leases.misses_to_lose"), path("leases.of_checks")], reason);
        }
    }

    /// Whoever asks for a rental waits `leases.request_timeout` for the answer: what a miner does for it must end before.
    fn rentals(&mut self, settings: &Settings, role: Role) {
        if !matches!(role, Role::Miner | Role::Devnet) || !settings.docker.engine.is_docker(&settings.subtensor.network)
        {
            return;
        }
        let (pull, ready, answer) =
            (settings.docker.pull_wait, settings.docker.ssh_ready, settings.leases.request_timeout);
        if pull + ready + WORK > answer {
            let reason = format!(
                "a renter waits {answer:?} for its container (leases.request_timeout), and it may take {:?}: {pull:?} for its image \
                 (docker.pull_wait), {ready:?} until one can log in (docker.ssh_ready), and {WORK:?} for the rest",
                pull + ready + WORK
            );
            let keys = ["leases.request_timeout", "docker.ssh_ready", "docker.pull_wait"];
            self.fault(&keys.map(path), reason);
        }
    }

    fn chain(&mut self, settings: &Settings) {
        for (key, endpoint) in settings
            .subtensor
            .chain_endpoint
            .iter()
            .map(|endpoint| ("subtensor.chain_endpoint", endpoint))
            .chain(settings.subtensor.fallback_endpoints.iter().map(|at| ("subtensor.fallback_endpoints", at)))
        {
            match endpoint.parse::<Url>() {
                Ok(url) if matches!(url.scheme(), "ws" | "wss") => {}
                Ok(url) => {
                    let reason = format!("{:?} is no way to reach a chain; write ws:// or wss://", url.scheme());
                    self.fault(&[path(key)], reason);
                }
                // The text itself may hold a key, and what is no address cannot be shown in part.
                Err(wrong) => self.fault(&[path(key)], format!("it is not an address ({wrong})")),
            }
        }
        self.resolvers(settings);
        let Some(endpoint) = &settings.subtensor.chain_endpoint else { return };
        let keys = [path("subtensor.chain_endpoint"), path("subtensor.network")];
        let host = |text: &str| text.parse::<Url>().ok().and_then(|url| url.host_str().map(str::to_owned));
        if settings.subtensor.network.is_ledger() {
            return self.fault(
                &keys,
                "the ledger's address is part of subtensor.network; leave chain_endpoint out".to_owned(),
            );
        }
        for other in [Network::Finney, Network::Test] {
            if other != settings.subtensor.network && host(endpoint) == host(&other.default_endpoint()) {
                let reason =
                    format!("this is the address of network {other}, but network is {}", settings.subtensor.network);
                self.fault(&keys, reason);
            }
        }
    }

    fn resolvers(&mut self, settings: &Settings) {
        let resolvers = &settings.axon.ip_resolvers;
        let key = [path("axon.ip_resolvers")];
        if resolvers.len() == 1 {
            let reason = "one service alone is not believed: name at least two, or none and set axon.external_ip";
            self.fault(&key, reason.to_owned());
        }
        for (index, resolver) in resolvers.iter().enumerate() {
            if let Err(error) = resolver.parse::<Resolver>() {
                self.fault(&key, error);
            } else if resolvers[..index].contains(resolver) {
                self.fault(&key, format!("{resolver} is named twice, and would agree with itself"));
            }
        }
    }

    /// A devnet's classes on a real chain would pay for CPUs.
    fn devnet(&mut self, settings: &Settings) {
        for (name, class) in &settings.devnet.gpu_scores {
            if let Err(reason) = class.memory_size() {
                let keys = ["memory_blocks", "memory_iterations", "memory_scans"];
                self.fault(&keys.map(|key| path(&format!("devnet.gpu_scores.{name}.{key}"))), reason);
            }
        }
        let unknown =
            [vec!["subtensor".to_owned()], path("subtensor.network")].iter().any(|key| self.reader.bad.contains(key));
        if settings.subtensor.network.may_prove_cpus() || unknown {
            return;
        }
        let Some(devnet) = self.tree.get("devnet") else { return };
        let mut changed = Vec::new();
        devnet.leaves(&mut vec!["devnet".to_owned()], &mut |keys, value| {
            if value.source != Source::Embedded {
                changed.push((keys.to_vec(), value.source.clone()));
            }
        });
        for (keys, source) in changed {
            let network = &settings.subtensor.network;
            let reason = format!(
                "devnet keys are for the ledger and local chains only, but network is {network}; take them out"
            );
            self.reader.wrong(&At { keys, source }, reason);
        }
    }

    fn gpu_names(&mut self, rows: &BTreeMap<String, GpuRow>) {
        if !rows.values().any(|row| row.base > 0.0) {
            self.fault(&[path("scoring.gpus")], "no row has a base above 0: nothing could ever be scored".to_owned());
        }
        let mut owners: BTreeMap<&str, &str> = rows.keys().map(|name| (name.as_str(), name.as_str())).collect();
        for (name, row) in rows {
            for alias in &row.aliases {
                if let Some(owner) = owners.insert(alias, name) {
                    let reason = format!("{alias:?} already means {owner:?}; a name can only mean one model");
                    self.fault(&[gpu(name, "aliases")], reason);
                }
            }
            for twin in &row.twins {
                let mutual = rows.get(twin).is_some_and(|other| other.twins.contains(name));
                if twin == name || !mutual {
                    let reason =
                        format!("{twin:?} is no other row that names {name:?} as its twin; twins name each other");
                    self.fault(&[gpu(name, "twins")], reason);
                }
            }
        }
    }

    fn gpu_rates(&mut self, rows: &BTreeMap<String, GpuRow>) {
        for (name, row) in rows {
            let complete = self.gpu_is_complete(name, row);
            let fits = self.gpu_floors(name, row);
            if complete && fits {
                self.gpu_imposters(name, rows);
            }
        }
    }

    /// A rate needs all that it is judged with. Returns whether the model is calibrated.
    fn gpu_is_complete(&mut self, name: &str, row: &GpuRow) -> bool {
        let Some(nominal) = row.nominal_tops else {
            if row.floor_tops.is_some() {
                let reason = "floor_tops needs a nominal_tops: the model is uncalibrated without it";
                self.fault(&[gpu(name, "floor_tops")], reason.to_owned());
            }
            return false;
        };
        let given = [
            ("floor_tops", row.floor_tops.is_some(), "without it any slower card could claim this model"),
            ("source", row.source.is_some(), "say datasheet or measured"),
            ("memory_gib", row.memory_gib.is_some(), "the size of a proof follows from it"),
            ("floor_memory_gib", row.floor_memory_gib.is_some(), "without it one card could claim this model twice"),
            ("bandwidth_gbs", row.bandwidth_gbs.is_some(), "a claim shares it"),
            (
                "floor_bandwidth_gbs",
                row.floor_bandwidth_gbs.is_some(),
                "without it a narrower card could claim this model",
            ),
        ];
        let missing: Vec<_> = given.into_iter().filter(|(_, is_given, _)| !is_given).collect();
        for (field, _, why) in &missing {
            self.fault(&[gpu(name, field), gpu(name, "nominal_tops")], format!("nominal_tops needs a {field}: {why}"));
        }
        let model = row.model(name);
        let size = model.nominal_ops.zip(model.memory).map(|(nominal, memory)| size(nominal, memory.best));
        if size == Some(None) {
            let reason = format!("no proof lasts 3 to 4 s at {nominal} and fits into the memory");
            self.fault(&[gpu(name, "memory_gib"), gpu(name, "nominal_tops")], reason);
        }
        if row.memory_iterations.is_some() && missing.is_empty() && row.memory_size().is_none() {
            let reason = "no memory proof fits this memory and bandwidth: it takes 1 to 4096 scans of at most 4 TiB";
            self.fault(&[gpu(name, "memory_iterations"), gpu(name, "memory_gib")], reason.to_owned());
        }
        missing.is_empty() && size != Some(None)
    }

    /// Each floor is a share of what an honest card has. Returns whether they are.
    fn gpu_floors(&mut self, name: &str, row: &GpuRow) -> bool {
        let pairs = [
            ("nominal_tops", row.nominal_tops, "floor_tops", row.floor_tops, "nominal"),
            ("memory_gib", row.memory_gib, "floor_memory_gib", row.floor_memory_gib, "memory_gib"),
            ("bandwidth_gbs", row.bandwidth_gbs, "floor_bandwidth_gbs", row.floor_bandwidth_gbs, "bandwidth_gbs"),
        ];
        let mut fits = true;
        for (whole_key, whole, floor_key, floor, called) in pairs {
            let Some((whole, floor)) = whole.zip(floor) else { continue };
            let keys = [gpu(name, whole_key), gpu(name, floor_key)];
            if floor > whole {
                fits = false;
                self.fault(&keys, format!("the floor {floor} is above {called} {whole}: every honest card would fail"));
            } else if floor < FLOOR_SHARE * whole {
                fits = false;
                let reason = format!(
                    "the floor {floor} is below {FLOOR_SHARE:.2} of {called} {whole}; at least {} is needed",
                    FLOOR_SHARE * whole
                );
                self.fault(&keys, reason);
            }
        }
        if let Some((peak, nominal)) = row.peak_tops.zip(row.nominal_tops).filter(|(peak, nominal)| nominal > peak) {
            fits = false;
            let keys = [gpu(name, "peak_tops"), gpu(name, "nominal_tops")];
            self.fault(&keys, format!("nominal {nominal} is above the peak {peak}: no card reaches it"));
        }
        fits
    }

    /// No cheaper card may pass as two of this model, and one that may pass as it must be its twin.
    fn gpu_imposters(&mut self, name: &str, rows: &BTreeMap<String, GpuRow>) {
        let row = &rows[name];
        let claimed = row.model(name);
        for (other, cheaper) in rows.iter().filter(|(_, other)| other.base < row.base) {
            let card = cheaper.model(other);
            let Some(best) = cheaper.peak_tops.or(cheaper.nominal_tops).filter(|_| card.passes_as(&claimed, 1)) else {
                continue;
            };
            let keys = [gpu(name, "floor_tops"), gpu(other, "nominal_tops")];
            if card.passes_as(&claimed, 2) {
                let floor = row.floor_tops.unwrap_or_default();
                let reason = format!(
                    "{other} is priced lower, and half its rate, {}, reaches the floor {floor} of {name}, as half its \
                     memory and bandwidth do: it could pass as two of them",
                    best / 2.0
                );
                self.fault(&keys, reason);
            } else if !row.twins.contains(other) {
                let reason = format!(
                    "{other} is priced lower and reaches every floor of {name}: it could pass as one; raise a floor, or \
                     let both name each other in twins"
                );
                self.fault(&keys, reason);
            }
        }
    }

    fn admission(&mut self, settings: &Settings) {
        for key in settings.whitelist.hotkeys.iter().filter(|key| settings.blacklist.hotkeys.contains(key)) {
            self.warnings.push(format!("hotkey {key} is on the whitelist and on the blacklist; the whitelist wins"));
        }
        for key in settings.whitelist.coldkeys.iter().filter(|key| settings.blacklist.coldkeys.contains(key)) {
            self.warnings.push(format!("coldkey {key} is on the whitelist and on the blacklist; the whitelist wins"));
        }
    }

    fn unwise(&mut self, settings: &Settings) {
        let public = !settings.metrics.ip.is_loopback();
        if public {
            let at = show_path(&path("metrics.ip"));
            self.warnings.push(format!(
                "{at} is {}: /metrics is open to everybody who reaches that address",
                settings.metrics.ip
            ));
        }
        if settings.validator.force_update_prometheus && !public {
            self.warnings.push(format!(
                "validator.force_update_prometheus does nothing: metrics.ip is {}, and loopback is never announced",
                settings.metrics.ip
            ));
        }
        if !settings.validator.perform_hardware_query {
            let why = "without miners' specs no device is known, so a validator challenges and scores nobody";
            self.warnings.push(format!("validator.perform_hardware_query is false: {why}"));
        }
    }
}
