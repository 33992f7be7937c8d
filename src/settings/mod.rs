//! Typed configuration in layers: shipped `config.yaml` < `--config FILE` < environment < flags.
//!
//! - `config.yaml` is embedded, complete and the reference for operators; [`sections`](Settings) has the same keys as
//!   types, and a test holds the two together.
//! - [`load`] reports **all** wrong keys and values at once, each with the place it was written, its path, the reason
//!   and the nearest valid name ([`Problems`]). Settings with a problem are never handed out.
//! - Values from environment and flags stay text until their key gives them a type: `1.10` stays `1.10`.
//! - The original's flags work under their own spellings ([`FLAGS`]); those without an effect say why.
//!
//! Reading order: `value` (the tree), `yaml` and `layers` (text → tree), `field` and `leaf` (tree → types),
//! `sections` (the types), `cross` (checks across keys), `flags` and `cli` (the command line).

mod cli;
mod cross;
mod derived;
pub mod duration;
mod field;
mod flags;
mod layers;
mod leaf;
pub mod live;
mod network;
mod problem;
pub mod reload;
mod sections;
mod value;
mod yaml;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

pub use cli::{Cli, exit_code, parse};
pub use derived::{Level, whole};
pub use flags::{Effect, FLAGS, Flag, FlagKind};
pub use leaf::{EngineKind, LogFormat, WeightsMode};
pub use live::{Live, LiveSettings};
pub use network::{Network, ParseNetworkError};
pub(crate) use problem::nearest;
pub use problem::{Problem, Problems};
pub use sections::{
    Axon, Blacklist, Budget, Challenge, DeviceClass, Devnet, GpuRow, Leases, Logging, Metrics, Miner, Node, Prover,
    Scoring, Settings, Specs, Store, Subtensor, Supervision, Update, Validator, Wallet, Weights, Whitelist,
};
pub use value::Source;

use field::{At, Field, Reader};
use value::{Kind, Value, show_path};

/// The shipped configuration, as text with its comments.
pub const SHIPPED: &str = include_str!("../../config.yaml");

/// Beginning of the environment variables that are settings.
pub const ENV_PREFIX: &str = "COMPUTE__";

/// What a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A miner's node.
    Miner,
    /// A validator's node.
    Validator,
    /// The command line of operators; it shares the validator's data directory unless told otherwise.
    Register,
    /// A whole subnet in one process. Its network is the ledger that it starts itself.
    Devnet,
}

impl Role {
    /// What `{role}` in `node.data_dir` becomes.
    pub fn directory(self) -> &'static str {
        match self {
            Role::Miner => "miner",
            Role::Validator | Role::Register => "validator",
            Role::Devnet => "devnet",
        }
    }
}

/// Settings, and how they came about.
#[derive(Clone, PartialEq)]
pub struct Loaded {
    /// Complete and checked.
    pub settings: Settings,
    /// What an operator should read at start: flags without an effect, unwise values.
    pub warnings: Vec<String>,
    /// Where each value was written, by key path.
    pub sources: BTreeMap<String, Source>,
    /// The layers' values before they became settings.
    tree: Value,
}

/// Without secrets, which the layers' values have.
impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("lines", &self.lines()).field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Every setting as `key = value  # source`, one a line, without secrets.
    pub fn listing(&self) -> String {
        self.lines().iter().fold(String::new(), |mut out, line| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{} = {}  # {}", line.key, line.value, line.source);
            out
        })
    }

    /// Every setting with its value and its source, without secrets.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = self.settings.lines();
        for line in &mut lines {
            line.source = self.sources.get(&line.key).unwrap_or(&Source::Embedded).to_string();
        }
        lines
    }

    /// Every setting as key path and text, secrets included.
    fn pairs(&self, out: &mut Vec<(String, String)>) {
        self.settings.list(&mut Vec::new(), out);
    }
}

impl Settings {
    /// Every setting with its value, without secrets. Where it was written is not known here.
    pub fn lines(&self) -> Vec<Line> {
        let mut pairs = Vec::new();
        self.list(&mut Vec::new(), &mut pairs);
        let line = |(key, value): (String, String)| {
            let value = reload::shown(&key, &value);
            Line { key, value, source: String::new() }
        };
        pairs.into_iter().map(line).collect()
    }
}

/// One setting as people read it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Line {
    /// Its path.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Where that was written; empty where it is not known.
    pub source: String,
}

/// The process's environment, for [`load`]. Text that is not UTF-8 is kept as far as it can be read; variables with
/// passwords are left out, since a node keeps this for as long as it runs.
pub fn process_env() -> Vec<(String, String)> {
    let texts = std::env::vars_os().map(|(k, v)| (k.to_string_lossy().into_owned(), v));
    let texts = texts.filter(|(name, _)| !name.starts_with(crate::wallet::password::VARIABLE_PREFIX));
    texts.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect()
}

/// Reads all layers. Blocking: it reads the file of `--config`.
///
/// `env` is the environment, [`process_env`] in programs; `HOME` in it is what `~` stands for.
///
/// # Errors
/// Everything that is wrong with any layer, and with their sum.
pub fn load(role: Role, cli: &Cli, env: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Problems> {
    read_layers(role, cli, &env.into_iter().collect::<Vec<_>>())
}

/// Reads all layers, as [`load`].
fn read_layers(role: Role, cli: &Cli, env: &[(String, String)]) -> Result<Loaded, Problems> {
    let (mut tree, mut problems) = yaml::parse(SHIPPED, None);
    let mut warnings = Vec::new();
    layers::wallet_variables(env, &mut tree, &mut problems);
    if let Some(path) = &cli.config {
        layers::file(path, &mut tree, &mut problems);
    }
    layers::environment(env, &mut tree, &mut problems);
    layers::flags(cli, &mut tree, &mut problems, &mut warnings);
    resolve(&mut tree, role);
    settle(tree, role, env, problems, warnings)
}

/// Turns the merged layers into settings, with the problems and warnings that came up so far.
fn settle(
    tree: Value,
    role: Role,
    env: &[(String, String)],
    mut problems: Vec<Problem>,
    mut warnings: Vec<String>,
) -> Result<Loaded, Problems> {
    let home = env.iter().find(|(name, value)| name == "HOME" && !value.is_empty());
    let home = home.map(|(_, home)| PathBuf::from(home));
    let (mut defaults, _) = yaml::parse(SHIPPED, None);
    resolve(&mut defaults, role);

    let mut reader = Reader::new(Some(&defaults), home);
    let settings = Settings::read(Some(&tree), &At::top(), &mut reader);
    if let Some(settings) = &settings {
        warnings.extend(cross::check(settings, role, &tree, &mut reader));
    }
    problems.append(&mut reader.problems);
    problems.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
    match settings {
        Some(mut settings) if problems.is_empty() => {
            if !settings.subtensor.network.may_prove_cpus() {
                settings.devnet.gpu_scores.clear();
            }
            let mut sources = BTreeMap::new();
            tree.leaves(&mut Vec::new(), &mut |keys, value| {
                sources.insert(show_path(keys), value.source.clone());
            });
            Ok(Loaded { settings, warnings, sources, tree })
        }
        _ => Err(Problems(problems)),
    }
}

/// Replaces what depends on role and network: the devnet's own network, the subnet's number, `{role}`.
fn resolve(tree: &mut Value, role: Role) {
    let text = |tree: &Value, section: &str, key: &str| match tree.get(section)?.get(key)? {
        Value { kind: Kind::Text(text), source } => Some((text.clone(), source.clone())),
        _ => None,
    };
    let mut network = text(tree, "subtensor", "network");
    if role == Role::Devnet && matches!(network, Some((_, Source::Embedded))) {
        let ledger = Value::text(Network::LEDGER_TO_COME, Source::Embedded);
        tree.put(&["subtensor", "network"], ledger);
        network = None;
    }
    if matches!(tree.get("netuid"), Some(Value { kind: Kind::Null, .. })) {
        let network = network.and_then(|(text, _)| text.trim().parse().ok()).unwrap_or(Network::Finney);
        let netuid = Kind::Int(network.default_netuid().0.into());
        tree.put(&["netuid"], Value { kind: netuid, source: Source::Embedded });
    }
    if let Some((dir, source)) = text(tree, "node", "data_dir") {
        tree.put(&["node", "data_dir"], Value::text(&dir.replace("{role}", role.directory()), source));
    }
}
