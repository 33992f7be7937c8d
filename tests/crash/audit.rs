//! What was kept, compared.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use compute_subnet::evidence;
use compute_subnet::ids::{Epoch, Hotkey};
use compute_subnet::sim::audit;
use compute_subnet::sim::processes::{ChildInfo, ChildRole, Listing};
use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::records::RoundOutcome;

use crate::net::{Down, epoch};

/// Verdicts in short.
#[derive(Default)]
pub(crate) struct Verdicts {
    kinds: BTreeMap<String, usize>,
    epochs: usize,
    gaps: usize,
    rented: usize,
    void: usize,
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdicts { epochs, gaps, rented, void, kinds } = self;
        write!(
            f,
            "of {epochs} epochs, {rented} rented, {void} rented in void epochs, {gaps} missing while the validator was down, {kinds:?}"
        )
    }
}

fn miners(listing: &Listing) -> impl Iterator<Item = &ChildInfo> {
    listing.children.iter().filter(|child| child.role == ChildRole::Miner)
}

fn validator(listing: &Listing) -> &ChildInfo {
    listing.children.iter().find(|child| child.role == ChildRole::Validator).unwrap()
}

/// One verdict for each miner and each of these epochs, except where the validator was down or had just started, and
/// where the miner's device was rented: its last pass was scored then, or the whole epoch is on record as void. No fail
/// but for being away.
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
                [] if queries::round_outcome(&conn, epoch).unwrap() == Some(RoundOutcome::Void) => found.void += 1,
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

/// Renters, validator, miners and engines tell the same of every lease. How many leases there were, by state.
pub(crate) fn leases(net: &Path) -> String {
    let (sides, mut wrong) = audit::read(net);
    wrong.extend(audit::compare(&sides));
    assert!(wrong.is_empty(), "{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let leases = sides.validators.iter().flat_map(|node| node.leases.values());
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    leases.for_each(|kept| *states.entry(kept.lease.state.label()).or_default() += 1);
    assert!(states.values().sum::<usize>() > 2, "the renters rented: {states:?}");
    format!("{states:?}, all four sides agree on each")
}

/// The validator's evidence log is whole, and every verdict, score and weight in it follows from it alone.
pub(crate) fn evidence(listing: &Listing) -> String {
    let data = &validator(listing).data_dir;
    let head = queries::evidence_head(&open_read_only(data).unwrap()).unwrap();
    assert!(head.is_some());
    let log = data.join(evidence::DIRECTORY);
    let (report, problems) = evidence::read::verify(&log, head).unwrap();
    assert_eq!(problems, [], "{}", report.to_text());
    let replay = evidence::replay::replay(&log).unwrap();
    assert!(replay.holds(), "{}", replay.to_text(1_000));
    format!("{} records, {} epochs; {}", report.records, replay.epochs.len(), replay.verdict())
}
