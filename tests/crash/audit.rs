//! What was kept, compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use compute_subnet::ids::{Epoch, Hotkey};
use compute_subnet::lease::Container;
use compute_subnet::sim::processes::{ChildInfo, ChildRole, Listing};
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::{self, queries};
use serde_json::Value;

use crate::net::{Down, epoch};

/// Verdicts in short.
#[derive(Default)]
pub(crate) struct Verdicts {
    kinds: BTreeMap<String, usize>,
    epochs: usize,
    gaps: usize,
    rented: usize,
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdicts { epochs, gaps, rented, kinds } = self;
        write!(f, "of {epochs} epochs, {rented} rented, {gaps} missing while the validator was down, {kinds:?}")
    }
}

fn miners(listing: &Listing) -> impl Iterator<Item = &ChildInfo> {
    listing.children.iter().filter(|child| child.role == ChildRole::Miner)
}

fn validator(listing: &Listing) -> &ChildInfo {
    listing.children.iter().find(|child| child.role == ChildRole::Validator).unwrap()
}

/// One verdict for each miner and each of these epochs, except where the validator was down or had just started, and
/// where the miner's device was rented, so that its last pass was scored; no fail but for being away.
pub(crate) fn verdicts(listing: &Listing, epochs: Range<Epoch>, downs: &[Down]) -> Verdicts {
    let conn = open_read_only(&validator(listing).data_dir).unwrap();
    let mut found = Verdicts { epochs: (epochs.end - epochs.start) as usize, ..Verdicts::default() };
    let mut given: BTreeMap<(Epoch, Hotkey), Vec<String>> = BTreeMap::new();
    for verdict in queries::verdicts_since(&conn, epochs.start).unwrap() {
        if !epochs.contains(&verdict.epoch) {
            continue;
        }
        let (kind, reason) = (verdict.verdict.kind(), verdict.verdict.reason().to_string());
        let what = format!("{kind}: {reason}");
        *found.kinds.entry(what.clone()).or_default() += 1;
        assert!(
            kind != "fail" || reason == "unresponsive",
            "an honest miner failed in epoch {}: {:?}",
            verdict.epoch,
            verdict.verdict
        );
        given.entry((verdict.epoch, verdict.hotkey)).or_default().push(what);
    }
    let validator_down = |at: Epoch| {
        let overlaps = |down: &&Down| (epoch(down.from)..=epoch(down.to)).contains(&at);
        downs.iter().filter(|down| down.role == ChildRole::Validator).any(|down| overlaps(&down))
    };
    let scored = |epoch, hotkey| {
        let scores = queries::scores(&conn, epoch).unwrap();
        let row = scores.iter().find(|row| row.hotkey == hotkey);
        row.is_some_and(|row| row.parts.devices.iter().any(|part| part.reason == "rented_pass"))
    };
    for epoch in epochs {
        for miner in miners(listing) {
            match given.get(&(epoch, miner.hotkey)).map_or(&[][..], Vec::as_slice) {
                [_] => {}
                [] if scored(epoch, miner.hotkey) => found.rented += 1,
                [] if validator_down(epoch) => found.gaps += 1,
                [] => {
                    panic!("{} has no verdict of epoch {epoch}, in which the validator was up: {downs:#?}", miner.name)
                }
                more => panic!("{} has {} verdicts of epoch {epoch}: {more:?}", miner.name, more.len()),
            }
        }
    }
    found
}

/// Leases in short.
#[derive(Default)]
pub(crate) struct Leases {
    rented: usize,
    states: BTreeMap<String, usize>,
}

impl fmt::Display for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rented, {:?}", self.rented, self.states)
    }
}

/// Renter, validator, miners and engines know the same leases, each once, with one fencing epoch.
pub(crate) fn leases(dir: &Path, listing: &Listing) -> Leases {
    let net = dir.join("net");
    let log = std::fs::read_to_string(net.join("renter.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|l| l["event"] == event).collect::<Vec<_>>();
    let rented: BTreeMap<&str, &Value> = of("rented").into_iter().map(|l| (l["lease"].as_str().unwrap(), l)).collect();
    assert_eq!(rented.len(), of("rented").len(), "each lease is rented once");
    let validator = open_read_only(&validator(listing).data_dir).unwrap();
    let mut found = Leases { rented: rented.len(), ..Leases::default() };
    let mut known = BTreeSet::new();
    for miner in miners(listing) {
        let store = open_read_only(&miner.data_dir).unwrap();
        let engine: Value =
            serde_json::from_slice(&std::fs::read(net.join("engine").join(format!("{}.json", miner.name))).unwrap())
                .unwrap();
        let containers: Vec<Container> = serde_json::from_value(engine["containers"].clone()).unwrap();
        let containers: BTreeMap<String, Container> =
            containers.into_iter().map(|c| (c.labels.lease.to_string(), c)).collect();
        let mut running = BTreeSet::new();
        for lease in queries::leases_of(&validator, &miner.hotkey, 10_000).unwrap() {
            let id = lease.id.to_string();
            *found.states.entry(lease.state.clone()).or_default() += 1;
            assert!(known.insert(id.clone()), "lease {id} is at two miners");
            if let Some(line) = rented.get(id.as_str()) {
                assert_eq!(line["fencing_epoch"], lease.fencing_epoch, "lease {id}");
                assert_eq!(line["devices"], serde_json::json!(lease.devices), "lease {id}");
                assert_eq!(line["miner"], miner.hotkey.to_string(), "lease {id}");
            } else {
                assert!(!lease.live, "the renter does not know lease {id}, which is {}", lease.state);
            }
            let there = queries::lease(&store, &lease.id).unwrap();
            let Some(there) = there else {
                assert!(!lease.live && !rented.contains_key(id.as_str()), "{} does not know lease {id}", miner.name);
                continue;
            };
            assert_eq!((there.fencing_epoch, &there.devices), (lease.fencing_epoch, &lease.devices), "lease {id}");
            assert_eq!(
                there.live, lease.live,
                "lease {id}: {} at the validator, {} at {}",
                lease.state, there.state, miner.name
            );
            assert_eq!(containers.contains_key(&id), there.live, "lease {id}, {}: the engine", there.state);
            if there.live {
                running.insert(id);
            }
        }
        let theirs: BTreeSet<String> = containers.into_keys().collect();
        assert_eq!(theirs, running, "containers of {}", miner.name);
        let live = queries::live_leases(&store, store::Role::Miner).unwrap();
        assert_eq!(live.len(), running.len(), "{} holds leases that the validator does not know", miner.name);
    }
    for id in rented.keys() {
        assert!(known.contains(*id), "the validator does not know lease {id}");
    }
    for line in of("released") {
        let id = line["lease"].as_str().unwrap();
        let lease = queries::lease(&validator, &id.parse().unwrap()).unwrap().unwrap();
        assert!(!lease.live, "lease {id} was released and is {}", lease.state);
    }
    found
}
