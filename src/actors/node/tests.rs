//! What each flag about admission does: from the command line through the settings to a verdict.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;

use super::*;
use crate::admission::{Decision, Need, Peer, Quorum, admit_caller, admit_miners};
use crate::ids::{Coldkey, Hotkey, Uid};
use crate::settings::{Cli, Role as SettingsRole, load, parse};

#[derive(Debug, clap::Parser)]
struct Program {
    #[command(flatten)]
    cli: Cli,
}

fn policy_of(flags: &[&str]) -> Policy {
    let args = std::iter::once("compute-miner").chain(flags.iter().copied()).map(OsString::from);
    let cli = parse::<Program>(args).expect("a valid command line").cli;
    policy(&load(SettingsRole::Miner, &cli, [("HOME".to_owned(), "/home/op".to_owned())]).unwrap().settings)
}

/// The first of the exploiters that the original listed.
const EXPLOITER: &str = "5HZ1ATsziEMDm1iUqNWQatfEDb1JSNf37AiG8s3X4pZzoP3A";
const CALLER: Hotkey = Hotkey([1; 32]);
const OWNER: Coldkey = Coldkey([2; 32]);

fn peer() -> Peer {
    Peer {
        uid: Uid(0),
        coldkey: OWNER,
        stake_rao: 2_000_000_000_000,
        permit: true,
        ip: Some(IpAddr::from([203, 0, 113, 1])),
        axon_version: 183,
        prometheus_version: 183,
        registered_at: 1,
    }
}

/// This caller among nine others that are up to date.
fn snapshot(policy: &Policy, hotkey: Hotkey, caller: Peer) -> Snapshot {
    let other = |n: u8| {
        let ip = Some(IpAddr::from([203, 0, 113, 100 + n]));
        (Hotkey([100 + n; 32]), Peer { uid: Uid(100 + u16::from(n)), coldkey: Coldkey([100 + n; 32]), ip, ..peer() })
    };
    let peers: HashMap<_, _> = (0..9).map(other).chain([(hotkey, caller)]).collect();
    Snapshot {
        taken_at_ms: 5,
        validators: Quorum::of_validators(policy, &peers),
        miners: Quorum::of_miners(policy, &peers),
        peers: Arc::new(peers),
        ..Snapshot::default()
    }
}

/// What the miner tells a caller, by the label of the rule.
fn called(flags: &[&str], hotkey: Hotkey, caller: Peer) -> &'static str {
    let policy = policy_of(flags);
    let snapshot = snapshot(&policy, hotkey, caller);
    match admit_caller(&policy, Some(&snapshot), 5, MAX_CHAIN_AGE, &hotkey, Need::Validator) {
        Decision::Admitted(via) => via.label(),
        Decision::Refused(refusal) => refusal.label(),
    }
}

/// Why the validator does not ask a miner; `asked` if it does.
fn asked(flags: &[&str], miner: Peer) -> &'static str {
    let policy = policy_of(flags);
    let verdicts = admit_miners(&policy, &snapshot(&policy, CALLER, miner), 5);
    verdicts[0].1.as_ref().map_or_else(Refusal::label, |()| "asked")
}

#[test]
fn the_lists_of_the_flags_decide() {
    let (hotkey, coldkey) = (CALLER.to_string(), OWNER.to_string());
    let exploiter: Hotkey = EXPLOITER.parse().unwrap();
    let stranger = Peer { stake_rao: 0, permit: false, ..peer() };
    let table: &[(&[&str], Hotkey, Peer, &str)] = &[
        (&[], CALLER, peer(), "permit"),
        (&["--blacklist.hotkeys", &hotkey], CALLER, peer(), "denied_hotkey"),
        (&["--blacklist.coldkeys", &coldkey], CALLER, peer(), "denied_coldkey"),
        (&["--whitelist.hotkeys", &hotkey], CALLER, stranger, "allow_list"),
        (&["--whitelist.coldkeys", &coldkey], CALLER, stranger, "allow_list"),
        (&["--whitelist.hotkeys", &hotkey, "--blacklist.hotkeys", &hotkey], CALLER, peer(), "allow_list"),
        (&[], exploiter, peer(), "exploiter"),
        (&["--blacklist.exploiters"], exploiter, peer(), "exploiter"),
        (&["--blacklist.exploiters", "false"], exploiter, peer(), "permit"),
        (&["--blacklist.exploiters=false"], exploiter, peer(), "permit"),
    ];
    for (flags, caller, peer, expected) in table {
        assert_eq!(called(flags, *caller, *peer), *expected, "{flags:?}");
    }
    let trusted = policy_of(&[]).trusted_hotkeys;
    assert_eq!(trusted.len(), 11);
    assert_eq!(called(&[], *trusted.first().unwrap(), stranger), "trusted");
    assert_eq!(policy_of(&[]).exploiter_hotkeys.len(), 16);
}

#[test]
fn too_little_stake_is_forgiven_by_flag_only() {
    let poor = Peer { stake_rao: 1_023_999_999_999, ..peer() };
    assert_eq!(called(&[], CALLER, poor), "not_enough_stake");
    assert_eq!(called(&["--miner.whitelist.not.enough.stake"], CALLER, poor), "forgiven");
    assert_eq!(called(&["--miner.whitelist.not.enough.stake", "false"], CALLER, poor), "not_enough_stake");
}

#[test]
fn validators_of_an_earlier_version_are_served_by_flag_and_below_the_threshold() {
    let old = Peer { prometheus_version: 182, ..peer() };
    let silent = Peer { prometheus_version: 0, ..peer() };
    let table: &[(&[&str], Peer, &str)] = &[
        (&[], old, "not_updated"),
        (&[], silent, "permit"),
        (&["--miner.whitelist.not.updated"], old, "permit"),
        (&["--miner.whitelist.updated.threshold", "89"], old, "not_updated"),
        (&["--miner.whitelist.updated.threshold", "90"], old, "permit"), // nine of ten are updated
        (&["--set", "update.minimal_validator_version=182"], old, "permit"),
        (&["--set", "update.minimal_validator_version=0"], old, "permit"),
        (&["--validator.whitelist.updated.threshold", "100"], old, "not_updated"), // not the miner's
    ];
    for (flags, caller, expected) in table {
        assert_eq!(called(flags, CALLER, *caller), *expected, "{flags:?}");
    }
}

#[test]
fn miners_of_an_earlier_or_no_version_are_asked_by_flag_and_below_the_threshold() {
    let old = Peer { axon_version: 182, ..peer() };
    let silent = Peer { axon_version: 0, ..peer() };
    let table: &[(&[&str], Peer, &str)] = &[
        (&[], peer(), "asked"),
        (&[], old, "not_updated"),
        (&[], silent, "unrecognised"),
        (&["--validator.whitelist.unrecognized"], silent, "asked"),
        (&["--validator.whitelist.unrecognized"], old, "not_updated"),
        (&["--validator.whitelist.updated.threshold", "89"], old, "not_updated"),
        (&["--validator.whitelist.updated.threshold", "90"], old, "asked"),
        (&["--set", "update.minimal_miner_version=182"], old, "asked"),
        (&["--set", "update.minimal_miner_version=0"], silent, "asked"),
        (&["--miner.whitelist.updated.threshold", "100"], old, "not_updated"), // not the validator's
    ];
    for (flags, miner, expected) in table {
        assert_eq!(asked(flags, *miner), *expected, "{flags:?}");
    }
}

#[test]
fn a_threshold_is_a_share_in_percent() {
    for flag in ["--miner.whitelist.updated.threshold", "--validator.whitelist.updated.threshold"] {
        for wrong in ["101", "-1", "sixty"] {
            let args = ["compute-miner".to_owned(), format!("{flag}={wrong}")].map(OsString::from);
            let cli = parse::<Program>(args).expect("a valid command line").cli;
            let home = [("HOME".to_owned(), "/home/op".to_owned())];
            assert!(load(SettingsRole::Miner, &cli, home).is_err(), "{flag} {wrong}");
        }
    }
}
