//! How the node's own neuron stands.

use super::text::{columns, or_dash, row};
use super::{Context, failed};
use crate::chain::ReplacedBy;
use crate::chain::standing::{Change, OwnNeuron, OwnStanding, units};
use crate::exit::Exit;
use crate::scoring::decimal;

pub(super) async fn run(context: &Context) -> Result<(), Exit> {
    let standing = context.client.standing().await.map_err(|e| failed(&e))?;
    context.answer(&standing, |standing| text(standing, context.role == super::NodeRole::Validator))
}

/// A share of 65,535 in percent.
fn percent(share: u16) -> String {
    // At most 65,535 · 10⁵: hundredths of a percent, in whole numbers.
    let hundredths = u64::from(share) * 10_000 / u64::from(u16::MAX);
    format!("{} %", decimal(hundredths.into(), 2, 2))
}

fn text(standing: &OwnStanding, validator: bool) -> String {
    let mut rows = vec![
        row(["hotkey", &standing.hotkey.to_string()]),
        row(["subnet", &format!("{}, {} of {} slots taken", standing.netuid, standing.neurons, standing.slots)]),
        row(["block", &standing.block.to_string()]),
    ];
    match &standing.neuron {
        Some(neuron) => rows.extend(neuron_rows(neuron)),
        None => rows.push(row(["uid", "none: this hotkey is not registered"])),
    }
    let mut out = columns(&rows);
    // What would be told to somebody who looks for the first time, and what became of the slot.
    let mut told = standing.changes(None, validator);
    if let Some(lost) = standing.lost {
        told = vec![Change::Deregistered(lost)];
    }
    for change in told {
        out.push_str(&format!("\n{change}\n  {}\n", change.remedy()));
    }
    out
}

fn neuron_rows(neuron: &OwnNeuron) -> Vec<Vec<String>> {
    let place = &neuron.place;
    let by = match place.by {
        ReplacedBy::Shares => "incentive and dividends",
        ReplacedBy::PruningScore => "pruning score",
        ReplacedBy::Emission => "emission",
    };
    let going = match (place.exempt, place.next) {
        (true, _) => "never, it is the subnet owner's".to_owned(),
        (false, true) => "by the next registration".to_owned(),
        (false, false) => format!("after {} others", place.before),
    };
    let yes = |is: bool| if is { "yes" } else { "no" };
    let stake = format!("{}, threshold {}", units(neuron.stake_rao), units(neuron.stake_threshold_rao));
    let update = format!("block {}, {} blocks ago", neuron.last_update, neuron.blocks_since_update);
    vec![
        row(["uid", &format!("{}, registered in block {}", neuron.uid, neuron.registered_at)]),
        row(["immune", &format!("for {} blocks", neuron.immune_blocks)]),
        row(["replaced", &going]),
        row([by, &format!("{}, of the other that goes first {}", place.score, or_dash(place.cut))]),
        row(["stake", &stake]),
        row(["permit", yes(neuron.validator_permit)]),
        row(["active", yes(neuron.active)]),
        row(["incentive", &percent(neuron.incentive)]),
        row(["dividends", &percent(neuron.dividends)]),
        row(["consensus", &percent(neuron.standing.consensus)]),
        row(["trust", &percent(neuron.standing.trust)]),
        row(["vtrust", &or_dash(neuron.standing.validator_trust.map(percent))]),
        row(["emission", &format!("{} in the last epoch", units(neuron.standing.emission_rao))]),
        row(["last update", &update]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Standing;
    use crate::chain::standing::{Lost, Place};
    use crate::ids::{Hotkey, Netuid, Uid};

    fn standing(neuron: Option<OwnNeuron>) -> OwnStanding {
        OwnStanding {
            netuid: Netuid(27),
            hotkey: Hotkey([1; 32]),
            block: 1_000,
            neurons: 256,
            slots: 256,
            neuron,
            lost: None,
        }
    }

    #[test]
    fn a_neuron_that_goes_next_is_told_with_what_to_do() {
        let place = Place { by: ReplacedBy::Emission, score: 5, cut: Some(7), before: 0, next: true, exempt: false };
        let neuron = OwnNeuron {
            uid: Uid(3),
            registered_at: 10,
            immune_blocks: 0,
            place,
            stake_rao: 1_500_000_000,
            stake_threshold_rao: 0,
            validator_permit: false,
            active: true,
            incentive: 6_553,
            dividends: 0,
            standing: Standing::default(),
            last_update: 900,
            blocks_since_update: 100,
        };
        let text = text(&standing(Some(neuron)), false);
        for part in [
            "replaced     by the next registration",
            "emission     5, of the other that goes first 7",
            "incentive    9.99 %",
            "vtrust       -",
            "last update  block 900, 100 blocks ago",
            "the next registration replaces this neuron",
            "raise the score",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("no validator permit"), "a miner needs none: {text}");
    }

    #[test]
    fn a_lost_uid_is_told_with_who_has_it() {
        let lost = Some(Lost { uid: Uid(3), to: Some(Hotkey([2; 32])), block: Some(990) });
        let text = text(&OwnStanding { lost, ..standing(None) }, false);
        assert!(text.contains("not registered") && text.contains("uid 3 went to"), "{text}");
        assert!(text.contains("register the hotkey again"), "{text}");
    }
}
