//! Checks across keys, after every key was read by itself.
//!
//! A check whose keys have problems of their own is left out: it would judge the shipped default, not what was meant.

use std::collections::BTreeMap;

use reqwest::Url;

use super::field::{At, Reader};
use super::network::Network;
use super::sections::{GpuRow, Settings};
use super::value::{Source, Value, show_path};
use crate::wire::resolver::Resolver;

/// Smallest floor, as a share of nominal (design of the proof: one card must not pass as two, nor a slow one as healthy).
const FLOOR_SHARE: f64 = 0.70;

/// Judges settings as a whole. Problems go to the reader; what is merely unwise is returned as warnings.
pub(crate) fn check(settings: &Settings, tree: &Value, reader: &mut Reader<'_>) -> Vec<String> {
    let mut cross = Cross { tree, reader, warnings: Vec::new() };
    cross.ports(settings);
    cross.order(settings);
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
            let Some(twin) = &row.twin else { continue };
            let mutual = rows.get(twin).is_some_and(|other| other.twin.as_ref() == Some(name));
            if twin == name || !mutual {
                let reason = format!("{twin:?} is no other row that names {name:?} as its twin; twins name each other");
                self.fault(&[gpu(name, "twin")], reason);
            }
        }
    }

    fn gpu_rates(&mut self, rows: &BTreeMap<String, GpuRow>) {
        for (name, row) in rows {
            let Some(floor) = row.floor_tops else {
                if row.nominal_tops.is_some() {
                    let reason = "nominal_tops needs a floor_tops: without it any slower card could claim this model";
                    self.fault(&[gpu(name, "nominal_tops")], reason.to_owned());
                }
                continue;
            };
            let keys = [gpu(name, "nominal_tops"), gpu(name, "floor_tops")];
            let Some(nominal) = row.nominal_tops else {
                self.fault(
                    &keys[1..],
                    "floor_tops needs a nominal_tops: the model is uncalibrated without it".to_owned(),
                );
                continue;
            };
            if floor > nominal {
                self.fault(
                    &keys,
                    format!("the floor {floor} is above nominal {nominal}: every honest card would fail"),
                );
            } else if floor < FLOOR_SHARE * nominal {
                let reason = format!(
                    "the floor {floor} is below {FLOOR_SHARE:.2} of nominal {nominal}; at least {} is needed",
                    FLOOR_SHARE * nominal
                );
                self.fault(&keys, reason);
            }
            let cheaper = rows.iter().filter(|(_, other)| other.base < row.base);
            let best =
                cheaper.filter_map(|(other, r)| Some((other, r.nominal_tops?))).max_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((other, best)) = best
                && floor <= best / 2.0
            {
                let keys = [gpu(name, "floor_tops"), gpu(other, "nominal_tops")];
                let half = best / 2.0;
                let reason = format!(
                    "{other} is priced lower, and half its rate, {half}, reaches the floor {floor} of {name}: \
                     it could pass as two of them"
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
