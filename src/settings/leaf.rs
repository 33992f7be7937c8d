//! How single values are read, and the checks that sections put on them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::duration;
use super::field::{Leaf, Wrong};
use super::network::Network;
use super::problem::nearest;
use super::value::Kind;
use crate::host::Policy;
use crate::ids::{Coldkey, Hotkey, Netuid};
use crate::lease::engine::docker::images::Reference;
use crate::lease::engine::docker::ports::PortRange;
use crate::lease::engine::docker::subnet::AddressBlock;
use crate::proof::prover::Backend;
use crate::scoring::RateSource;

/// Reads a switch; the words that the original's flags take all work.
pub(crate) fn parse_switch(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

impl Leaf for bool {
    fn parse(kind: &Kind, _: Option<&PathBuf>) -> Result<Self, Wrong> {
        match kind {
            Kind::Bool(b) => Ok(*b),
            Kind::Text(text) => {
                parse_switch(text).ok_or_else(|| format!("expected true or false, found {text:?}").into())
            }
            other => Err(format!("expected true or false, found {}", other.found()).into()),
        }
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

fn whole(kind: &Kind, min: i128, max: i128) -> Result<i128, Wrong> {
    let number = match kind {
        Kind::Int(i) => Some(*i),
        // 10_000_000 and numbers from flags and environment arrive as text.
        Kind::Text(text) => text.trim().replace('_', "").parse().ok(),
        _ => None,
    };
    match number {
        Some(i) if (min..=max).contains(&i) => Ok(i),
        Some(i) => Err(format!("must be between {min} and {max}, is {i}").into()),
        None => Err(format!("expected a whole number, found {}", kind.found()).into()),
    }
}

macro_rules! whole_numbers {
    ($($ty:ty),*) => {$(
        impl Leaf for $ty {
            fn parse(kind: &Kind, _: Option<&PathBuf>) -> Result<Self, Wrong> {
                let (min, max) = (<$ty>::MIN as i128, <$ty>::MAX as i128);
                let number = whole(kind, min, max)?;
                <$ty>::try_from(number).map_err(|_| format!("must be between {min} and {max}, is {number}").into())
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
whole_numbers!(u8, u16, u32, u64, usize);

impl Leaf for f64 {
    fn parse(kind: &Kind, _: Option<&PathBuf>) -> Result<Self, Wrong> {
        let number = match kind {
            Kind::Int(i) => Some(*i as f64),
            Kind::Float(x) => Some(*x),
            Kind::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(x) if x.is_finite() => Ok(x),
            _ => Err(format!("expected a number, found {}", kind.found()).into()),
        }
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Leaf for String {
    fn parse(kind: &Kind, _: Option<&PathBuf>) -> Result<Self, Wrong> {
        match kind {
            Kind::Text(text) => Ok(text.clone()),
            // An unquoted 1.10 in YAML has already become 1.1: guessing the text back would be wrong.
            Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {
                Err(format!("expected text, found {}; put the text in quotes", kind.found()).into())
            }
            other => Err(format!("expected text, found {}", other.found()).into()),
        }
    }
    fn text(&self) -> String {
        self.clone()
    }
}

impl Leaf for PathBuf {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        let text = String::parse(kind, home)?;
        if text.is_empty() {
            return Err("expected a path, found \"\"".to_owned().into());
        }
        match text.strip_prefix('~') {
            None => Ok(PathBuf::from(text)),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = home.ok_or_else(|| {
                    format!("{text:?} needs a home directory, and HOME is not set; write the whole path")
                })?;
                Ok(home.join(rest.trim_start_matches('/')))
            }
            Some(_) => Err(format!("{text:?}: only your own ~ is understood; write the whole path").into()),
        }
    }
    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl Leaf for Duration {
    fn parse(kind: &Kind, _: Option<&PathBuf>) -> Result<Self, Wrong> {
        match kind {
            Kind::Text(text) => duration::parse(text).map_err(Wrong::from),
            Kind::Int(i) => duration::parse(&i.to_string()).map_err(Wrong::from),
            other => Err(format!("expected a duration such as \"90s\", found {}", other.found()).into()),
        }
    }
    fn text(&self) -> String {
        duration::show(*self)
    }
}

impl Leaf for IpAddr {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        let text = String::parse(kind, home)?;
        let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
        bare.parse()
            .map_err(|_| format!("{text:?} is not an IP address; write for example \"0.0.0.0\" or \"[::]\"").into())
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Leaf for Network {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        let text = String::parse(kind, home)?;
        Network::from_str(text.trim()).map_err(|wrong| Wrong { reason: wrong.reason, nearest: wrong.nearest })
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Leaf for Netuid {
    fn parse(kind: &Kind, _: Option<&PathBuf>) -> Result<Self, Wrong> {
        whole(kind, 1, i128::from(u16::MAX)).map(|i| Netuid(i as u16))
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

macro_rules! addresses {
    ($($ty:ty),*) => {$(
        impl Leaf for $ty {
            fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
                let text = String::parse(kind, home)?;
                text.trim().parse().map_err(|wrong| format!("{text:?} is not an address: {wrong}").into())
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
addresses!(Hotkey, Coldkey);

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Leaf for LogFormat {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        match String::parse(kind, home)?.trim() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(Wrong {
                reason: format!("expected text or json, found {other:?}"),
                nearest: nearest(other, ["text", "json"]),
            }),
        }
    }
    fn text(&self) -> String {
        match self {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        }
    }
}

/// What becomes of a validator's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsMode {
    /// They are set on the chain.
    Set,
    /// They are prepared, stored and compared with those of other validators, and never sent.
    Shadow,
}

impl Leaf for WeightsMode {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        match String::parse(kind, home)?.trim() {
            "set" => Ok(WeightsMode::Set),
            "shadow" => Ok(WeightsMode::Shadow),
            other => Err(Wrong {
                reason: format!("expected set or shadow, found {other:?}"),
                nearest: nearest(other, ["set", "shadow"]),
            }),
        }
    }
    fn text(&self) -> String {
        match self {
            WeightsMode::Set => "set".to_owned(),
            WeightsMode::Shadow => "shadow".to_owned(),
        }
    }
}

/// Where a miner's containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Simulated with a ledger, else in Docker.
    Auto,
    /// In a Docker Engine.
    Docker,
    /// Nowhere: they are records in a file.
    Simulated,
}

impl EngineKind {
    /// Whether containers are real: the Docker Engine's, also where nothing is said and the network is no ledger.
    pub fn is_docker(self, network: &super::network::Network) -> bool {
        match self {
            EngineKind::Docker => true,
            EngineKind::Simulated => false,
            EngineKind::Auto => !network.is_ledger(),
        }
    }
}

impl Leaf for EngineKind {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        match String::parse(kind, home)?.trim() {
            "auto" => Ok(EngineKind::Auto),
            "docker" => Ok(EngineKind::Docker),
            "simulated" => Ok(EngineKind::Simulated),
            other => Err(Wrong {
                reason: format!("expected auto, docker or simulated, found {other:?}"),
                nearest: nearest(other, ["auto", "docker", "simulated"]),
            }),
        }
    }
    fn text(&self) -> String {
        match self {
            EngineKind::Auto => "auto".to_owned(),
            EngineKind::Docker => "docker".to_owned(),
            EngineKind::Simulated => "simulated".to_owned(),
        }
    }
}

impl Leaf for Policy {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        // To some readers of YAML the word is a switch.
        if let Kind::Bool(false) = kind {
            return Ok(Policy::Off);
        }
        match String::parse(kind, home)?.trim() {
            "enforce" => Ok(Policy::Enforce),
            "best_effort" => Ok(Policy::BestEffort),
            "off" => Ok(Policy::Off),
            other => Err(Wrong {
                reason: format!("expected enforce, best_effort or off, found {other:?}"),
                nearest: nearest(other, ["enforce", "best_effort", "off"]),
            }),
        }
    }
    fn text(&self) -> String {
        match self {
            Policy::Enforce => "enforce".to_owned(),
            Policy::BestEffort => "best_effort".to_owned(),
            Policy::Off => "off".to_owned(),
        }
    }
}

impl Leaf for PortRange {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        // One port may be written as a number.
        let text = match kind {
            Kind::Int(port) => port.to_string(),
            _ => String::parse(kind, home)?,
        };
        text.parse().map_err(Wrong::from)
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Leaf for AddressBlock {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        String::parse(kind, home)?.parse().map_err(Wrong::from)
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

/// A reference to an image that says which version.
pub(crate) fn image_reference(value: &String) -> Option<String> {
    Reference::parse(value).err().map(|why| format!("{value:?} is {why}"))
}

impl Leaf for Backend {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        let text = String::parse(kind, home)?;
        text.trim().parse().map_err(|wrong| Wrong {
            reason: format!("{wrong}, found {:?}", text.trim()),
            nearest: nearest(text.trim(), ["auto", "cpu", "cuda"]),
        })
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Leaf for RateSource {
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong> {
        let all = [RateSource::Datasheet, RateSource::Measured];
        let text = String::parse(kind, home)?;
        all.into_iter().find(|source| source.label() == text.trim()).ok_or_else(|| Wrong {
            reason: format!("expected datasheet or measured, found {:?}", text.trim()),
            nearest: nearest(text.trim(), all.map(RateSource::label)),
        })
    }
    fn text(&self) -> String {
        self.label().to_owned()
    }
}

/// The value must lie between these two, both included.
pub(crate) fn within<T: Leaf + PartialOrd>(min: T, max: T) -> impl Fn(&T) -> Option<String> {
    move |value| {
        let fits = *value >= min && *value <= max;
        (!fits).then(|| format!("must be between {} and {}, is {}", min.text(), max.text(), value.text()))
    }
}

/// If there is a value, it must lie between these two, both included.
pub(crate) fn if_given<T: Leaf + PartialOrd>(min: T, max: T) -> impl Fn(&Option<T>) -> Option<String> {
    let check = within(min, max);
    move |value| value.as_ref().and_then(&check)
}

/// A port that the chain and the original accept: 1025 to 65534.
pub(crate) fn port(value: &u16) -> Option<String> {
    within(1025, 65534)(value)
}

/// A name in a directory, which it cannot leave.
pub(crate) fn file_name(value: &String) -> Option<String> {
    let fits = !value.is_empty() && value != "." && value != ".." && !value.contains(['/', '\\', '\0']);
    (!fits).then(|| format!("{value:?} is not a file name: use one without slashes, other than . and .."))
}

/// Paths that can stand in a list with colons between them.
pub(crate) fn no_colon(paths: &[PathBuf]) -> Option<String> {
    let wrong = paths.iter().find(|path| path.as_os_str().as_encoded_bytes().contains(&b':'))?;
    Some(format!("{wrong:?} has a colon, which separates paths: write a list"))
}

/// A power of two in this range.
pub(crate) fn power_of_two(min: u32, max: u32) -> impl Fn(&u32) -> Option<String> {
    move |value| {
        let fits = value.is_power_of_two() && (min..=max).contains(value);
        (!fits).then(|| format!("must be a power of two between {min} and {max}, is {value}"))
    }
}

/// If there is a value, a power of two in this range.
pub(crate) fn power_of_two_if_given(min: u32, max: u32) -> impl Fn(&Option<u32>) -> Option<String> {
    let check = power_of_two(min, max);
    move |value| value.as_ref().and_then(&check)
}

/// Milliseconds, for ranges.
pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Seconds, for ranges.
pub(crate) const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A day, in seconds.
pub(crate) const DAY: u64 = 86_400;
