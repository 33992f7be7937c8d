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
use compute_subnet::store::records::{RoundOutcome, VerdictRecord};
use compute_subnet::verdict::{FailReason, Side, Verdict};
use rusqlite::Connection;

use crate::net::{Down, epoch};

/// Verdicts in short.
#[derive(Default)]
pub(crate) struct Verdicts {
    kinds: BTreeMap<String, usize>,
    epochs: usize,
    gaps: usize,
    rented: usize,
    void: usize,
    unscored: usize,
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdicts { epochs, gaps, rented, void, unscored, kinds } = self;
        write!(
            f,
            "of {epochs} epochs, {rented} rented, {void} rented in void epochs, {unscored} rented in epochs that a kill left without scores, \
             {gaps} missing while the validator was down, {kinds:?}"
        )
    }
}

fn miners(listing: &Listing) -> impl Iterator<Item = &ChildInfo> {
    listing.children.iter().filter(|child| child.role == ChildRole::Miner)
}

fn validator(listing: &Listing) -> &ChildInfo {
    listing.children.iter().find(|child| child.role == ChildRole::Validator).unwrap()
}

/// Misses of a miner in a row, in slots of the validator, that are a `Fail(Unresponsive)`; the default of the settings.
const MISSES: usize = 3;

/// What a slot of the validator showed of a miner; slots in which the validator itself was the reason show nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    Answer,
    Miss,
    /// A miss that was one too many.
    Unresponsive,
}

impl Seen {
    fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Fail { reason: FailReason::Unresponsive, .. } => Some(Seen::Unresponsive),
            Verdict::Pass { .. } | Verdict::Fail { .. } => Some(Seen::Answer),
            Verdict::Unknown { cause, .. } => (cause.side() != Side::Validator).then_some(Seen::Miss),
        }
    }
}

/// The epochs in which a miner failed as unresponsive although it was not away in that slot and in those before it, as
/// many in a row as it takes. The slots are in the order of their epochs.
fn unearned(slots: &[(Epoch, Seen)], away: impl Fn(Epoch) -> bool) -> Vec<Epoch> {
    let fails = slots.iter().enumerate().filter(|(_, (_, seen))| *seen == Seen::Unresponsive);
    let missed = |(epoch, seen): &(Epoch, Seen)| *seen != Seen::Answer && away(*epoch);
    fails
        .filter(|(at, _)| (at + 1).checked_sub(MISSES).is_none_or(|from| !slots[from..=*at].iter().all(missed)))
        .map(|(_, (epoch, _))| *epoch)
        .collect()
}

/// Every miner that failed as unresponsive was down in each of the slots in a row that it takes.
fn unresponsive_is_earned(listing: &Listing, since: Epoch, verdicts: &[VerdictRecord], downs: &[Down]) {
    for miner in miners(listing) {
        let of_it = verdicts.iter().filter(|verdict| verdict.hotkey == miner.hotkey);
        let slots: Vec<_> = of_it.filter_map(|v| Some((v.epoch, Seen::of(&v.verdict)?))).collect();
        let downs: Vec<&Down> = downs.iter().filter(|down| down.name == miner.name).collect();
        // Before the first epoch that is looked at, the devnet was starting.
        let away = |at: Epoch| at < since || downs.iter().any(|d| (epoch(d.from)..=epoch(d.to)).contains(&at));
        let unearned = unearned(&slots, away);
        assert!(unearned.is_empty(), "{} failed in {unearned:?}: {downs:#?} {slots:?}", miner.name);
    }
}

#[test]
fn only_a_miner_that_was_away_in_three_slots_in_a_row_may_have_failed_as_unresponsive() {
    use Seen::{Answer, Miss, Unresponsive};
    let away = |epoch: Epoch| (10..=12).contains(&epoch);
    // An epoch that showed nothing (11, in the second) neither ends a row nor counts in it.
    for (slots, expected) in [
        (&[(9, Answer), (10, Miss), (11, Miss), (12, Unresponsive), (13, Answer)][..], &[][..]),
        (&[(10, Miss), (12, Miss), (13, Unresponsive)], &[13]),
        (&[(9, Miss), (10, Miss), (11, Unresponsive), (12, Unresponsive)], &[11]),
        (&[(10, Miss), (11, Answer), (12, Unresponsive)], &[12]),
        (&[(11, Miss), (12, Unresponsive)], &[12]),
        (&[(20, Miss), (21, Miss), (22, Miss)], &[]),
    ] {
        assert_eq!(unearned(slots, away), expected, "{slots:?}");
    }
}

/// Every proof of memory that failed failed for want of an opening, and its miner was away in that epoch: what is committed
/// does not outlive the miner, and past the roots no answer is a fail. Each with its epoch.
fn memory_fails_are_earned(listing: &Listing, conn: &Connection, downs: &[Down]) -> Vec<(Hotkey, Epoch)> {
    let mut fails = Vec::new();
    for record in queries::memory_history(conn, u32::MAX).unwrap().into_iter().map(|row| row.record) {
        let Verdict::Fail { reason, .. } = &record.verdict else { continue };
        let miner = miners(listing).find(|miner| miner.hotkey == record.hotkey).unwrap();
        let away = downs.iter().any(|d| d.name == miner.name && (epoch(d.from)..=epoch(d.to)).contains(&record.epoch));
        let earned = away && matches!(reason, FailReason::OpeningWithheld | FailReason::OpeningUnanswered);
        assert!(earned, "{} failed its proof of memory in epoch {}: {:?}", miner.name, record.epoch, record.verdict);
        fails.push((record.hotkey, record.epoch));
    }
    fails
}

/// One verdict for each miner and each of these epochs, except where the validator was down or had just started, and
/// where the miner's device was rented: its last pass was scored then, or the whole epoch is on record as void, or the validator was
/// ended between the epoch's verdicts and its scores, and nobody has one of it. No fail
/// but for being away: after being away for [`MISSES`] slots in a row, or after being away in the middle of a proof of memory.
pub(crate) fn verdicts(listing: &Listing, epochs: Range<Epoch>, downs: &[Down]) -> Verdicts {
    let conn = open_read_only(&validator(listing).data_dir).unwrap();
    let mut found = Verdicts { epochs: (epochs.end - epochs.start) as usize, ..Verdicts::default() };
    let mut given: BTreeMap<(Epoch, Hotkey), Vec<String>> = BTreeMap::new();
    let all = queries::verdicts_since(&conn, 0).unwrap();
    unresponsive_is_earned(listing, epochs.start, &all, downs);
    let memory_fails = memory_fails_are_earned(listing, &conn, downs);
    for verdict in all {
        if !epochs.contains(&verdict.epoch) {
            continue;
        }
        let (kind, reason) = (verdict.verdict.kind(), verdict.verdict.reason().to_string());
        let what = format!("{kind}: {reason}");
        *found.kinds.entry(what.clone()).or_default() += 1;
        assert!(
            kind != "fail"
                || reason == "unresponsive"
                || reason == "memory_not_proved"
                    && memory_fails.iter().any(|(miner, epoch)| *miner == verdict.hotkey && *epoch < verdict.epoch),
            "an honest miner failed in epoch {}: {:?}",
            verdict.epoch,
            verdict.verdict
        );
        given.entry((verdict.epoch, verdict.hotkey)).or_default().push(what);
    }
    // Of the epoch before it was ended, what it had not written is gone too: a slot that it missed while the round before went on. It
    // tells so itself when it is back.
    let told = told_as_not_judged(listing);
    let validator_down = |at: Epoch| {
        let overlaps = |down: &&Down| {
            let before = (at + 1 == epoch(down.from)) && told.iter().any(|epochs| epochs.contains(&at));
            before || (epoch(down.from)..=epoch(down.to)).contains(&at)
        };
        downs.iter().filter(|down| down.role == ChildRole::Validator).any(|down| overlaps(&down))
    };
    // It judges an epoch at its end, or when the next has begun.
    let cut = |at: Epoch| {
        let ended = |down: &Down| down.role == ChildRole::Validator && [at, at + 1].contains(&epoch(down.from));
        let judged = queries::round_outcome(&conn, at).unwrap() == Some(RoundOutcome::Judged);
        judged && queries::scores(&conn, at).unwrap().is_empty() && downs.iter().any(ended)
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
                [] if cut(epoch) => found.unscored += 1,
                [] => {
                    panic!("{} has no verdict of epoch {epoch}, in which the validator was up: {downs:#?}", miner.name)
                }
                more => panic!("{} has {} verdicts of epoch {epoch}: {more:?}", miner.name, more.len()),
            }
        }
    }
    found
}

/// The epochs of which the validator's log says that nobody was judged in them while it was out.
fn told_as_not_judged(listing: &Listing) -> Vec<Range<Epoch>> {
    let log = std::fs::read_to_string(&validator(listing).log).unwrap();
    let number = |line: &str, name: &str| line.split_once(name)?.1.split_whitespace().next()?.parse::<Epoch>().ok();
    let lines = log.lines().filter(|line| line.contains("no epoch was judged while this validator was out"));
    lines
        .filter_map(|line| Some((number(line, "first=")?, number(line, "count=")?)))
        .map(|(at, n)| at..at + n)
        .collect()
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
    let (report, problems) = evidence::read::verify(&log, head, None).unwrap();
    assert_eq!(problems, [], "{}", report.to_text());
    let replay = evidence::replay::replay(&log, None).unwrap();
    assert!(replay.holds(), "{}", replay.to_text(1_000));
    format!("{} records, {} epochs; {}", report.records, replay.epochs.len(), replay.verdict())
}
