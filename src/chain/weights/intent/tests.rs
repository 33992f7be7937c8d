//! The life of an intent, each turn by what the chain shows.

use super::*;
use crate::chain::weights::SENDING;
use crate::chain::{ShownCommit, Weights};
use crate::ids::Hash32;

const LIFETIME: u64 = 64;
/// The window of a commit that was prepared at block 100.
const WINDOW: (u64, u64) = (200, 300);
const HASH: Hash32 = Hash32([7; 32]);

fn entries() -> Vec<(Uid, u16)> {
    vec![(Uid(1), 65_535), (Uid(2), 32_768)]
}

fn plain() -> Intent {
    let weights = Weights { entries: entries(), version_key: 183 };
    Intent::written(PreparedWeights { weights, mechanism: 0, route: Route::Plain, at: 100, reveal: None })
}

fn hashed() -> Intent {
    let mut intent = plain();
    intent.prepared.route = Route::Hashed { salt: vec![1, 2, 3], hash: HASH };
    intent.prepared.reveal = Some(WINDOW);
    intent
}

fn timelocked() -> Intent {
    let mut intent = hashed();
    intent.prepared.route = Route::Timelocked { commit: vec![1; 300], round: 5, version: 4 };
    intent
}

fn at_stage(intent: Intent, stage: Stage) -> Intent {
    Intent { stage, ..intent }
}

fn shown(at: u64, last_update: u64, entries: &[(Uid, u16)]) -> WeightsShown {
    WeightsShown { at, last_update, entries: entries.to_vec(), commits: vec![] }
}

fn with_commit(intent: &Intent, at: u64, block: u64) -> WeightsShown {
    let commit = ShownCommit { digest: intent.prepared.digest().unwrap(), block: Some(block) };
    WeightsShown { commits: vec![commit], ..shown(at, block, &[]) }
}

fn look(intent: &Intent, shown: &WeightsShown) -> Look {
    intent.look(shown, LIFETIME, false)
}

const OTHERS: [(Uid, u16); 1] = [(Uid(9), 65_535)];

// === in the open ===

#[test]
fn plain_weights_are_done_when_a_finalised_block_at_or_after_their_own_shows_exactly_them() {
    let sent = at_stage(plain(), Stage::Sent { block: 103 });
    let before = shown(102, 50, &entries());
    assert_eq!(look(&sent, &before), Look::Same, "equal ones from before prove nothing");
    assert_eq!(look(&sent, &shown(103, 103, &entries())), Look::Ended(End::Shown { block: 103 }));
    let turned: Vec<(Uid, u16)> = entries().into_iter().rev().chain([(Uid(5), 0)]).collect();
    assert_eq!(look(&sent, &shown(110, 103, &turned)), Look::Ended(End::Shown { block: 103 }));
}

#[test]
fn the_chains_scaling_is_no_difference() {
    let mut sent = at_stage(plain(), Stage::Sent { block: 103 });
    sent.prepared.weights.entries = vec![(Uid(1), 2), (Uid(2), 1)];
    assert_eq!(look(&sent, &shown(103, 103, &entries())), Look::Ended(End::Shown { block: 103 }));
}

#[test]
fn other_weights_in_their_place_are_an_end_of_their_own() {
    let sent = at_stage(plain(), Stage::Sent { block: 103 });
    assert_eq!(look(&sent, &shown(105, 104, &OTHERS)), Look::Ended(End::Unequal { block: 104 }));
    assert_eq!(look(&sent, &shown(105, 103, &[])), Look::Ended(End::Unequal { block: 103 }));
}

#[test]
fn weights_without_an_answer_are_found_by_looking_and_given_up_only_when_no_call_can_come_any_more() {
    let written = plain();
    assert_eq!(look(&written, &shown(101, 101, &entries())), Look::Ended(End::Shown { block: 101 }));
    assert_eq!(look(&written, &shown(101, 100, &entries())), Look::Same, "those were there before");
    let last = 100 + SENDING + LIFETIME;
    assert_eq!(look(&written, &shown(last, 50, &OTHERS)), Look::Same);
    assert_eq!(look(&written, &shown(last + 1, 50, &OTHERS)), Look::Ended(End::Lapsed));
    // Others came; ours may still, until then.
    assert_eq!(look(&written, &shown(last, 120, &OTHERS)), Look::Same);
    assert_eq!(look(&written, &shown(last + 1, 120, &OTHERS)), Look::Ended(End::Unequal { block: 120 }));
}

#[test]
fn what_is_sent_late_is_not_sent_so_that_its_end_is_known() {
    let prepared = plain().prepared;
    assert!((100..=100 + SENDING).all(|head| prepared.in_time(head).is_ok()));
    let late = prepared.in_time(101 + SENDING).unwrap_err();
    assert!(!late.is_unclear() && late.to_string().contains("the chain is at 117"), "{late}");
}

#[test]
fn whoever_tried_longer_waits_longer() {
    let mut written = plain();
    written.unanswered(400);
    assert_eq!(look(&written, &shown(400 + LIFETIME, 50, &[])), Look::Same);
    assert_eq!(look(&written, &shown(401 + LIFETIME, 50, &[])), Look::Ended(End::Lapsed));
}

#[test]
fn a_block_that_was_undone_takes_its_weights_along_and_they_may_be_sent_anew_after_the_era() {
    let sent = at_stage(plain(), Stage::Sent { block: 103 });
    assert_eq!(look(&sent, &shown(120, 50, &OTHERS)), Look::Same);
    assert_eq!(look(&sent, &shown(101 + SENDING + LIFETIME, 50, &OTHERS)), Look::Ended(End::Lapsed));
}

#[test]
fn a_fork_that_has_the_call_in_a_lower_block_is_no_reason_to_send_it_again() {
    let sent = at_stage(plain(), Stage::Sent { block: 103 });
    assert_eq!(look(&sent, &shown(104, 102, &entries())), Look::Ended(End::Shown { block: 102 }));
    let lapsed = 101 + SENDING + LIFETIME;
    assert_eq!(look(&sent, &shown(104, 102, &OTHERS)), Look::Same, "another's update; ours may still come");
    assert_eq!(look(&sent, &shown(lapsed, 102, &OTHERS)), Look::Ended(End::Unequal { block: 102 }));
    for intent in [hashed(), timelocked()] {
        let sent = at_stage(intent, Stage::Sent { block: 103 });
        let lower = Stage::Committed { block: 102 };
        assert_eq!(look(&sent, &with_commit(&sent, 104, 102)), Look::Moved(lower));
        // Slept through: committed in a lower block, revealed, gone.
        assert_eq!(look(&sent, &shown(260, 102, &entries())), Look::Ended(End::Shown { block: 260 }));
        assert_eq!(look(&sent, &shown(260, 102, &OTHERS)), Look::Ended(End::Missed { gone: true }));
    }
}

// === commits ===

#[test]
fn a_commit_is_seen_waits_for_its_window_and_is_done_when_it_is_gone_and_its_entries_are_shown() {
    for intent in [hashed(), timelocked()] {
        for stage in [Stage::Written, Stage::Sent { block: 101 }] {
            let intent = at_stage(intent.clone(), stage);
            assert!(intent.in_flight());
            let committed = Stage::Committed { block: 101 };
            assert_eq!(look(&intent, &with_commit(&intent, 105, 101)), Look::Moved(committed));
            let intent = at_stage(intent, committed);
            assert!(!intent.in_flight());
            assert_eq!(look(&intent, &with_commit(&intent, 250, 101)), Look::Same);
            assert_eq!(look(&intent, &shown(250, 101, &entries())), Look::Ended(End::Shown { block: 250 }));
        }
    }
}

#[test]
fn equal_weights_from_before_do_not_make_a_waiting_commit_revealed() {
    let committed = at_stage(timelocked(), Stage::Committed { block: 101 });
    let same_as_before = WeightsShown { entries: entries(), ..with_commit(&committed, 250, 101) };
    assert_eq!(look(&committed, &same_as_before), Look::Same);
    let sent = at_stage(timelocked(), Stage::Sent { block: 103 });
    assert_eq!(look(&sent, &shown(150, 103, &entries())), Look::Same);
}

#[test]
fn a_commit_whose_window_is_over_is_missed_whether_it_is_still_there_or_gone() {
    let committed = at_stage(timelocked(), Stage::Committed { block: 101 });
    assert_eq!(look(&committed, &with_commit(&committed, 298, 101)), Look::Same);
    assert_eq!(look(&committed, &with_commit(&committed, 299, 101)), Look::Ended(End::Missed { gone: false }));
    assert_eq!(look(&committed, &shown(205, 101, &OTHERS)), Look::Ended(End::Missed { gone: true }));
}

#[test]
fn a_commit_that_was_included_later_than_planned_has_one_window_more() {
    let committed = at_stage(hashed(), Stage::Committed { block: 104 });
    assert_eq!(look(&committed, &with_commit(&committed, 350, 104)), Look::Same);
    assert!(committed.reveal_due(350, 350));
    assert_eq!(look(&committed, &with_commit(&committed, 399, 104)), Look::Ended(End::Missed { gone: false }));
}

#[test]
fn a_node_that_slept_through_the_reveal_sees_it_by_what_is_shown() {
    for stage in [Stage::Written, Stage::Sent { block: 101 }] {
        let intent = at_stage(timelocked(), stage);
        assert_eq!(look(&intent, &shown(260, 101, &entries())), Look::Ended(End::Shown { block: 260 }), "{stage:?}");
        assert_eq!(look(&intent, &shown(260, 101, &OTHERS)), Look::Ended(End::Missed { gone: true }), "{stage:?}");
    }
    let committed = at_stage(timelocked(), Stage::Committed { block: 101 });
    let replaced = committed.look(&shown(450, 301, &OTHERS), LIFETIME, true);
    assert_eq!(replaced, Look::Ended(End::Shown { block: 450 }), "a younger one of ours is shown");
}

#[test]
fn a_commit_that_never_arrived_lapses_and_one_of_somebody_else_is_told_apart() {
    let after = 101 + SENDING + LIFETIME;
    assert!(after < WINDOW.0);
    for intent in [hashed(), timelocked()] {
        assert_eq!(look(&intent, &shown(after, 50, &entries())), Look::Ended(End::Lapsed));
        assert_eq!(look(&intent, &shown(after, 120, &entries())), Look::Ended(End::Unequal { block: 120 }));
        let undone = at_stage(intent, Stage::Sent { block: 103 });
        assert_eq!(look(&undone, &shown(after, 50, &[])), Look::Ended(End::Lapsed));
    }
}

#[test]
fn an_older_view_of_another_server_changes_nothing() {
    let committed = at_stage(hashed(), Stage::Committed { block: 104 });
    assert_eq!(look(&committed, &shown(103, 50, &[])), Look::Same);
}

// === the reveal ===

#[test]
fn the_reveal_of_a_hash_is_due_within_the_window_only_and_once() {
    let mut committed = at_stage(hashed(), Stage::Committed { block: 101 });
    let due = |intent: &Intent| [198, 199, 298, 299].map(|head| intent.reveal_due(head, head));
    assert_eq!(due(&committed), [false, true, true, false]);
    assert!(!at_stage(hashed(), Stage::Sent { block: 101 }).reveal_due(250, 250), "not before the commit is final");
    assert!(!at_stage(timelocked(), Stage::Committed { block: 101 }).reveal_due(250, 250), "the chain does it");
    committed.revealed_in = Some(205);
    assert!(!committed.reveal_due(206, 204));
    // The finalised block of the reveal is there, and so is the commit: the reveal was undone.
    assert!(committed.reveal_due(210, 205));
}

#[test]
fn a_commit_that_came_in_the_epoch_of_its_own_reveal_is_revealed_an_epoch_later() {
    let due = |block, head| at_stage(hashed(), Stage::Committed { block }).reveal_due(head, head);
    // Of a commit in block 199 it is not known; 200 is in the next epoch, 300 in the one after.
    for (block, first, end) in [(150, 200, 400), (199, 200, 400), (200, 300, 400), (299, 300, 400), (300, 400, 500)] {
        let wanted: Vec<u64> = (first..end).collect();
        let seen: Vec<u64> = (block + 1..600).filter(|next| due(block, next - 1)).collect();
        assert_eq!(seen, wanted, "{block}");
    }
    let missed = |block, at| {
        let intent = at_stage(hashed(), Stage::Committed { block });
        look(&intent, &with_commit(&intent, at, block)) == Look::Ended(End::Missed { gone: false })
    };
    assert_eq!((missed(200, 398), missed(200, 399), missed(300, 498), missed(300, 499)), (false, true, false, true));
}

#[test]
fn a_reveal_that_the_chain_turned_into_other_weights_is_told() {
    let committed = at_stage(hashed(), Stage::Committed { block: 101 });
    let revealed = Intent { revealed_in: Some(205), ..committed };
    assert_eq!(look(&revealed, &shown(206, 101, &OTHERS)), Look::Ended(End::Unequal { block: 101 }));
    assert_eq!(look(&revealed, &shown(206, 101, &entries())), Look::Ended(End::Shown { block: 205 }));
}

#[test]
fn the_salt_and_the_sealed_bytes_are_in_no_debug_text() {
    let text = format!("{:?} {:?}", at_stage(hashed(), Stage::Written), timelocked());
    assert!(text.contains("Hashed") && text.contains("Timelocked"), "{text}");
    assert!(!text.contains("salt") && !text.contains("commit:") && !text.contains("1, 2, 3"), "{text}");
}
