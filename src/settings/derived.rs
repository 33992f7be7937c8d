//! What follows from settings, so that nobody works it out twice.

use std::path::PathBuf;

use super::sections::{DeviceClass, GpuRow, Logging, Miner, Prover, Settings, Subtensor, Wallet};
use crate::chain::serving::AddressPolicy;
use crate::proof::memory;
use crate::proof::size::memory_size;
use crate::scoring::{Limit, ModelRow};
use crate::telemetry::redact_endpoint;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What an operator needs.
    Info,
    /// And what explains it.
    Debug,
    /// And everything.
    Trace,
}

impl Logging {
    /// The level: trace wins over debug, info is the default.
    pub fn level(&self) -> Level {
        match (self.trace, self.debug) {
            (true, _) => Level::Trace,
            (false, true) => Level::Debug,
            (false, false) => Level::Info,
        }
    }
}

impl From<Level> for crate::telemetry::logging::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

impl Wallet {
    /// The file of the hotkey: `{path}/{name}/hotkeys/{hotkey}`.
    pub fn hotkey_file(&self) -> PathBuf {
        self.path.join(&self.name).join("hotkeys").join(&self.hotkey)
    }

    /// The file of the coldkey's secret: `{path}/{name}/coldkey`. Only a registration opens it.
    pub fn coldkey_file(&self) -> PathBuf {
        self.path.join(&self.name).join("coldkey")
    }

    /// The file of the coldkey's address: `{path}/{name}/coldkeypub.txt`.
    pub fn coldkeypub_file(&self) -> PathBuf {
        self.path.join(&self.name).join("coldkeypub.txt")
    }
}

/// Without what may be secret in the endpoints.
impl std::fmt::Debug for Subtensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Subtensor { network, chain_endpoint, fallback_endpoints, request_timeout, poll_interval } = self;
        let fallbacks: Vec<String> = fallback_endpoints.iter().map(|endpoint| redact_endpoint(endpoint)).collect();
        f.debug_struct("Subtensor")
            .field("network", &network.to_string())
            .field("chain_endpoint", &chain_endpoint.as_deref().map(redact_endpoint))
            .field("fallback_endpoints", &fallbacks)
            .field("request_timeout", request_timeout)
            .field("poll_interval", poll_interval)
            .finish()
    }
}

impl Subtensor {
    /// The addresses to dial, in their order. Those of the network itself are left out where one was given.
    pub fn endpoints(&self) -> Vec<String> {
        let mut all = vec![self.endpoint()];
        if self.chain_endpoint.is_none() {
            all.extend(self.network.fallback_endpoints().iter().map(|at| (*at).to_owned()));
        }
        for more in &self.fallback_endpoints {
            if !all.contains(more) {
                all.push(more.clone());
            }
        }
        all
    }

    /// The address to dial first.
    pub fn endpoint(&self) -> String {
        self.chain_endpoint.clone().unwrap_or_else(|| self.network.default_endpoint())
    }
}

/// A setting in the whole units that scores are computed in: the only place where scoring meets a decimal fraction.
pub fn whole(value: f64, unit: f64) -> u64 {
    // Settings are bounded far below 2⁶⁴ of these units; a conversion with `as` saturates.
    (value * unit).round() as u64
}

impl GpuRow {
    /// The row as scoring takes it: operations, bytes, bytes a second.
    pub fn model(&self, name: &str) -> ModelRow {
        const TERA: f64 = 1e12;
        const GIB: f64 = 1_073_741_824.0;
        const GIGA: f64 = 1e9;
        let limit = |best: Option<f64>, floor: Option<f64>, unit| {
            best.zip(floor).map(|(best, floor)| Limit { best: whole(best, unit), floor: whole(floor, unit) })
        };
        ModelRow {
            name: name.to_owned(),
            base_micro: whole(self.base, 1e6),
            nominal_ops: self.nominal_tops.map(|tops| whole(tops, TERA)),
            floor_ops: self.floor_tops.map(|tops| whole(tops, TERA)),
            best_ops: self.peak_tops.map(|tops| whole(tops, TERA)),
            memory: limit(self.memory_gib, self.floor_memory_gib, GIB),
            bandwidth: limit(self.bandwidth_gbs, self.floor_bandwidth_gbs, GIGA),
            source: self.source.unwrap_or_default(),
            aliases: self.aliases.clone(),
            twins: self.twins.clone(),
            timed: true,
        }
    }
}

impl GpuRow {
    /// The memory proof of this model; none where the row has not all that it takes.
    pub fn memory_size(&self) -> Option<memory::Size> {
        let model = self.model("");
        let (memory, bandwidth) = model.memory.zip(model.bandwidth)?;
        memory_size(memory.best, memory.floor, bandwidth.best, self.memory_iterations?)
    }
}

impl DeviceClass {
    /// The memory proof of this class, if it has one.
    ///
    /// # Errors
    /// What is wrong with the figures, or which is missing.
    pub fn memory_size(&self) -> Result<Option<memory::Size>, String> {
        match (self.memory_blocks, self.memory_iterations, self.memory_scans) {
            (None, None, None) => Ok(None),
            (Some(blocks), Some(iterations), Some(scans)) => {
                memory::Size::new(blocks.into(), iterations, scans).map(Some).map_err(|error| error.to_string())
            }
            _ => Err("memory_blocks, memory_iterations and memory_scans go together: give all or none".to_owned()),
        }
    }
}

impl Prover {
    /// Threads of one prover child on a machine of this many cores with this many miners; at least 1.
    pub fn threads_for(&self, cores: usize, miners: usize) -> usize {
        match self.threads {
            0 => (cores / miners.max(1)).max(1),
            threads => threads,
        }
    }

    /// Address space of one child, bytes.
    pub fn memory_limit_bytes(&self) -> u64 {
        self.memory_limit_mib << 20
    }

    /// What one child may write, bytes.
    pub fn output_limit_bytes(&self) -> u64 {
        self.output_limit_mib << 20
    }
}

impl Miner {
    /// `min_stake` in the chain's smallest unit, 10⁻⁹.
    pub fn min_stake_rao(&self) -> u64 {
        // At most 21e15, exact enough as f64 (below 2⁵³ ≈ 9e15 exact, above rounded to a few rao).
        (self.min_stake * 1e9).round() as u64
    }
}

impl Settings {
    /// Which addresses this node may announce.
    pub fn address_policy(&self) -> AddressPolicy {
        let closed = self.subtensor.network.may_prove_cpus();
        AddressPolicy { allow_private: self.axon.allow_private.unwrap_or(closed) }
    }

    /// Directory of log files of this hotkey: `{logging_dir}/{wallet}/{hotkey}/netuid{N}/{role}`, as the original's.
    pub fn log_dir(&self, role: &str) -> PathBuf {
        let dir = self.logging.logging_dir.join(&self.wallet.name).join(&self.wallet.hotkey);
        dir.join(format!("netuid{}", self.netuid)).join(role)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Role, load};
    use super::*;

    #[test]
    fn derived_values_follow_the_settings() {
        let env = [("HOME".to_owned(), "/home/op".to_owned())];
        let settings = load(Role::Miner, &Cli::default().with("logging.trace", "true"), env).unwrap().settings;
        assert_eq!(settings.logging.level(), Level::Trace);
        assert_eq!(settings.wallet.hotkey_file(), PathBuf::from("/home/op/.bittensor/wallets/default/hotkeys/default"));
        assert_eq!(settings.wallet.coldkey_file(), PathBuf::from("/home/op/.bittensor/wallets/default/coldkey"));
        assert_eq!(
            settings.wallet.coldkeypub_file(),
            PathBuf::from("/home/op/.bittensor/wallets/default/coldkeypub.txt")
        );
        assert_eq!(settings.subtensor.endpoint(), "wss://entrypoint-finney.opentensor.ai:443");
        assert!(!settings.address_policy().allow_private);
        assert_eq!(settings.prover.threads_for(16, 4), 4);
        assert_eq!(settings.prover.threads_for(2, 4), 1);
        assert_eq!(settings.miner.min_stake_rao(), 1_024_000_000_000);
        let dir = settings.log_dir("miner");
        assert_eq!(dir, PathBuf::from("/home/op/.bittensor/miners/default/default/netuid27/miner"));
    }
}
