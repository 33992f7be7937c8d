//! Every reason there is for a refusal, with a label, a text and a remedy, safe to publish.

use serde::{Deserialize, Serialize};

use crate::ids::Uid;

/// The first millisecond of the year 10000 since the Unix epoch.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// Whose turn it is after a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalClass {
    /// The caller may not: HTTP 403.
    Forbidden,
    /// We cannot tell at the moment, the caller may try again: HTTP 503.
    Unavailable,
}

/// Why a caller is refused or a miner is not asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "refusal")]
pub enum Refusal {
    /// The hotkey has no slot in the subnet.
    NotRegistered,
    /// Its stake is too small.
    NotEnoughStake,
    /// It has no validator permit.
    NoValidatorPermit,
    /// Its hotkey is on the operator's deny-list.
    DeniedHotkey,
    /// Its owner is on the operator's deny-list.
    DeniedColdkey,
    /// It is on the list of exploiters.
    Exploiter,
    /// It serves no axon.
    NoAxon,
    /// It runs an earlier version than most of its kind.
    NotUpdated {
        /// The version it announced, in the original's whole-number form.
        version: u32,
        /// The least one.
        minimal: u32,
    },
    /// It announces no version, and most of its kind run the least one.
    Unrecognised {
        /// The least version.
        minimal: u32,
    },
    /// Another neuron came first at its IP address.
    DuplicateIp {
        /// The neuron that keeps the address.
        first: Uid,
    },
    /// A penalty is in force.
    Penalised {
        /// Until when, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// A penalty is in force against the address that it calls from.
    PenalisedAddress {
        /// Until when, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// There is no snapshot of the subnet yet.
    SnapshotMissing,
    /// The snapshot of the subnet is too old.
    SnapshotStale {
        /// Its age in milliseconds.
        age_ms: u64,
    },
}

impl Refusal {
    /// The metric labels of all reasons, in the order of the rules.
    pub const LABELS: &'static [&'static str] = &[
        "not_registered",
        "not_enough_stake",
        "no_validator_permit",
        "denied_hotkey",
        "denied_coldkey",
        "exploiter",
        "no_axon",
        "not_updated",
        "unrecognised",
        "duplicate_ip",
        "penalised",
        "penalised_address",
        "snapshot_missing",
        "snapshot_stale",
    ];

    fn words(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Refusal::NotRegistered => (
                "not_registered",
                "the hotkey is not registered in the subnet",
                "register it, or sign with the registered one",
            ),
            Refusal::NotEnoughStake => (
                "not_enough_stake",
                "the hotkey's stake is below the limit",
                "add stake, or ask the operator to lower miner.min_stake",
            ),
            Refusal::NoValidatorPermit => (
                "no_validator_permit",
                "the hotkey has no validator permit",
                "earn a permit by stake; it is given at the end of an epoch",
            ),
            Refusal::DeniedHotkey => {
                ("denied_hotkey", "the hotkey is on the operator's deny-list", "ask the operator of this node")
            }
            Refusal::DeniedColdkey => {
                ("denied_coldkey", "the coldkey is on the operator's deny-list", "ask the operator of this node")
            }
            Refusal::Exploiter => {
                ("exploiter", "the key is on the list of exploiters", "ask the subnet's owner to review the listing")
            }
            Refusal::NoAxon => {
                ("no_axon", "the neuron serves no axon", "start the miner, it announces its axon on the chain")
            }
            Refusal::NotUpdated { .. } => (
                "not_updated",
                "the version it announced is below the least one",
                "update to the newest release, it announces its version on the chain",
            ),
            Refusal::Unrecognised { .. } => (
                "unrecognised",
                "no version was announced with the axon",
                "update to the newest release, it announces its version on the chain",
            ),
            Refusal::DuplicateIp { .. } => (
                "duplicate_ip",
                "another neuron came first at this IP address",
                "give each neuron an address of its own",
            ),
            Refusal::Penalised { .. } => ("penalised", "a penalty is in force", "wait until it runs out"),
            Refusal::PenalisedAddress { .. } => (
                "penalised_address",
                "a penalty is in force against this address",
                "find what sends such requests from it, and wait until the penalty runs out",
            ),
            Refusal::SnapshotMissing => {
                ("snapshot_missing", "the subnet's neurons are not known yet", "try again in a minute")
            }
            Refusal::SnapshotStale { .. } => (
                "snapshot_stale",
                "the subnet's neurons were last read too long ago",
                "try again in a minute; the operator should check the chain connection",
            ),
        }
    }

    /// The metric label: snake case, stable.
    pub fn label(&self) -> &'static str {
        self.words().0
    }
    /// What is wrong, as a lower-case fragment.
    pub fn text(&self) -> &'static str {
        self.words().1
    }
    /// What the side that can act should do.
    pub fn remedy(&self) -> &'static str {
        self.words().2
    }
    /// Whose turn it is.
    pub fn class(&self) -> RefusalClass {
        match self {
            Refusal::SnapshotMissing | Refusal::SnapshotStale { .. } => RefusalClass::Unavailable,
            _ => RefusalClass::Forbidden,
        }
    }
    /// The HTTP status of the reply: 403 or 503.
    pub fn http_status(&self) -> u16 {
        match self.class() {
            RefusalClass::Forbidden => 403,
            RefusalClass::Unavailable => 503,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())?;
        match self {
            Refusal::DuplicateIp { first } => write!(f, " (uid {first})"),
            Refusal::NotUpdated { version, minimal } => write!(f, " (it is {version}, at least {minimal} is needed)"),
            Refusal::Unrecognised { minimal } => write!(f, " (at least {minimal} is needed)"),
            Refusal::Penalised { until_ms } | Refusal::PenalisedAddress { until_ms } => {
                // humantime cannot write years above 9999; such a penalty has no end worth naming.
                if *until_ms >= YEAR_10000_MS {
                    return Ok(());
                }
                let until = std::time::UNIX_EPOCH + std::time::Duration::from_millis(*until_ms);
                write!(f, " until {}", humantime::format_rfc3339_seconds(until))
            }
            Refusal::SnapshotStale { age_ms } => write!(f, " ({} s)", age_ms / 1_000),
            _ => Ok(()),
        }
    }
}
impl std::error::Error for Refusal {}
