//! What a registration costs and leaves, what speaks against it, and what is said at the end. Pure.

use serde::Serialize;

use super::super::text::{columns, row};
use super::{Place, money};
use crate::chain::{Hyperparameters, Inclusion, Metagraph};
use crate::ids::{BlockNumber, Coldkey, Hash32, Hotkey, Netuid, Uid};

/// What is printed at the end. The JSON form is stable.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    network: Place,
    netuid: Netuid,
    hotkey: Hotkey,
    coldkey: Coldkey,
    /// `already_registered`, `registered`, or `unknown`: the call went out and there was no answer.
    outcome: &'static str,
    /// `null` where the chain does not show it yet.
    uid: Option<Uid>,
    /// The block of the registration.
    block: Option<BlockNumber>,
    extrinsic: Option<Hash32>,
    /// The price when it was looked at last, in rao.
    cost_rao: u64,
    /// The coldkey's balance before, in rao.
    balance_rao: u64,
}

/// What the chain says before anything is asked.
pub(super) struct Offer {
    pub(super) hotkey: Hotkey,
    pub(super) coldkey: Coldkey,
    pub(super) netuid: Netuid,
    block: BlockNumber,
    taken: usize,
    slots: u16,
    pub(super) cost_rao: u64,
    balance_rao: u64,
    registered: Option<(Uid, Coldkey, BlockNumber)>,
}

/// Why a registration is not tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum No {
    /// Netuid 0.
    Root,
    /// Above `--max-cost`.
    TooDear { cost_rao: u64, limit_rao: u64 },
    /// The balance is less than the price.
    TooPoor { balance_rao: u64, missing_rao: u64 },
    /// The price rose while the person thought.
    Dearer { cost_rao: u64, agreed_rao: u64 },
}

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            No::Root => {
                f.write_str("the root network (netuid 0) has another way to register; name a subnet: --netuid N")
            }
            No::TooDear { cost_rao, limit_rao } => write!(
                f,
                "a registration costs {} now, more than --max-cost {}; wait until it falls, or raise the limit",
                money::amount(*cost_rao),
                money::tao(*limit_rao)
            ),
            No::TooPoor { balance_rao, missing_rao } => write!(
                f,
                "the coldkey has {}: {} are missing, and the fee",
                money::amount(*balance_rao),
                money::amount(*missing_rao)
            ),
            No::Dearer { cost_rao, agreed_rao } => write!(
                f,
                "the price rose to {}, above {}; nothing was sent, try again",
                money::amount(*cost_rao),
                money::amount(*agreed_rao)
            ),
        }
    }
}

impl Offer {
    /// From one look at the chain. `who`: the hotkey to register, and the coldkey that pays.
    pub(super) fn new(who: (Hotkey, Coldkey), graph: &Metagraph, rules: &Hyperparameters, balance_rao: u64) -> Self {
        let (hotkey, coldkey) = who;
        Offer {
            hotkey,
            coldkey,
            netuid: graph.netuid,
            block: graph.head.number,
            taken: graph.neurons.len(),
            slots: rules.max_allowed_uids,
            cost_rao: rules.burn_rao,
            balance_rao,
            registered: graph.by_hotkey(&hotkey).map(|n| (n.uid, n.coldkey, n.registered_at)),
        }
    }

    /// What speaks against it. `agreed_rao`: the price that was agreed to, if one was.
    pub(super) fn check(&self, max_cost: Option<u64>, agreed_rao: Option<u64>) -> Result<(), No> {
        let Offer { cost_rao, balance_rao, .. } = *self;
        if self.netuid.0 == 0 {
            return Err(No::Root);
        }
        if let Some(limit_rao) = max_cost.filter(|limit| cost_rao > *limit) {
            return Err(No::TooDear { cost_rao, limit_rao });
        }
        // Whoever names a limit agrees to every price below it.
        if let Some(agreed_rao) = agreed_rao.filter(|agreed| max_cost.is_none() && cost_rao > *agreed) {
            return Err(No::Dearer { cost_rao, agreed_rao });
        }
        match cost_rao.checked_sub(balance_rao) {
            Some(missing_rao) if missing_rao > 0 => Err(No::TooPoor { balance_rao, missing_rao }),
            _ => Ok(()),
        }
    }

    /// The most that it may cost: whoever names no limit agrees to what is shown.
    pub(super) fn limit(&self, max_cost: Option<u64>) -> u64 {
        max_cost.unwrap_or(self.cost_rao)
    }

    /// What a person is asked.
    pub(super) fn question(&self, limit_rao: u64) -> String {
        let cost = money::amount(self.cost_rao);
        let most = match limit_rao > self.cost_rao {
            true => format!(", at most {},", money::amount(limit_rao)),
            false => String::new(),
        };
        format!("Burn {cost}{most} to register this hotkey in subnet {}?", self.netuid)
    }

    /// For people, before they are asked.
    pub(super) fn text(&self, network: &Place) -> String {
        let left = self.balance_rao.saturating_sub(self.cost_rao);
        let mut out = columns(&[
            row(["network", &network.to_string()]),
            row([
                "subnet",
                &format!("{}, {} of {} uids taken at block {}", self.netuid, self.taken, self.slots, self.block),
            ]),
            row(["hotkey", &self.hotkey.to_string()]),
            row(["coldkey", &self.coldkey.to_string()]),
            row(["balance", &money::amount(self.balance_rao)]),
            row(["cost", &format!("{}, burned", money::amount(self.cost_rao))]),
            row(["leaves", &format!("{}, less the fee", money::amount(left))]),
        ]);
        if self.taken >= usize::from(self.slots) {
            out.push_str(
                "every uid is taken: the lowest neuron out of its immunity period is replaced, or the chain refuses\n",
            );
        }
        out
    }

    /// What there is to say where nothing is to be done.
    pub(super) fn already(&self, network: Place) -> Option<Report> {
        let (uid, coldkey, block) = self.registered?;
        let report = self.report(network, "already_registered");
        Some(Report { uid: Some(uid), block: Some(block), coldkey, ..report })
    }

    /// What there is to say once it is in a block. `uid`: where the chain shows it already.
    pub(super) fn registered(&self, network: Place, at: Inclusion, uid: Option<Uid>) -> Report {
        let report = self.report(network, "registered");
        Report { uid, block: Some(at.block), extrinsic: Some(at.extrinsic), ..report }
    }

    /// What there is to say if the call went out and there was no answer.
    pub(super) fn unknown(&self, network: Place) -> Report {
        self.report(network, "unknown")
    }

    fn report(&self, network: Place, outcome: &'static str) -> Report {
        let Offer { hotkey, coldkey, netuid, cost_rao, balance_rao, .. } = *self;
        let (uid, block, extrinsic) = (None, None, None);
        Report { network, netuid, hotkey, coldkey, outcome, uid, block, extrinsic, cost_rao, balance_rao }
    }
}

/// The end, for people.
pub(super) fn text(report: &Report) -> String {
    let uid = report.uid.map_or_else(
        || format!("a uid that is not shown yet: compute-register metagraph --hotkey {}", report.hotkey),
        |uid| format!("uid {uid}"),
    );
    let block = report.block.map(|block| format!(", block {block}")).unwrap_or_default();
    let call = report.extrinsic.map(|hash| format!(", call 0x{hash}")).unwrap_or_default();
    match report.outcome {
        "already_registered" => format!(
            "already registered: hotkey {} has {uid} in subnet {}{block}\nits owner is coldkey {}; nothing was paid",
            report.hotkey, report.netuid, report.coldkey
        ),
        "registered" => format!("registered: {uid}{block}{call}"),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(netuid: u16, cost_rao: u64, balance_rao: u64) -> Offer {
        Offer {
            hotkey: Hotkey([1; 32]),
            coldkey: Coldkey([2; 32]),
            netuid: Netuid(netuid),
            block: 17,
            taken: 3,
            slots: 256,
            cost_rao,
            balance_rao,
            registered: None,
        }
    }

    #[test]
    fn what_speaks_against_a_registration_is_found_without_a_key() {
        let check = |cost, balance, limit, agreed| offer(27, cost, balance).check(limit, agreed);
        assert_eq!(offer(0, 1, 9).check(None, None), Err(No::Root));
        assert_eq!(check(5, 5, None, None), Ok(()));
        assert_eq!(check(5, 3, None, None), Err(No::TooPoor { balance_rao: 3, missing_rao: 2 }));
        assert_eq!(check(5, 9, Some(4), None), Err(No::TooDear { cost_rao: 5, limit_rao: 4 }));
        assert_eq!(check(5, 9, Some(5), None), Ok(()));
        // The price moved between the question and the call.
        assert_eq!(check(6, 9, None, Some(5)), Err(No::Dearer { cost_rao: 6, agreed_rao: 5 }));
        assert_eq!(check(6, 9, Some(7), Some(5)), Ok(()));
        assert_eq!(check(8, 9, Some(7), Some(5)), Err(No::TooDear { cost_rao: 8, limit_rao: 7 }));
        assert_eq!(check(4, 9, None, Some(5)), Ok(()));
    }

    #[test]
    fn whoever_names_no_limit_agrees_to_the_price_that_is_shown() {
        let offer = offer(27, 1_500_000_000, 9);
        assert_eq!((offer.limit(None), offer.limit(Some(2_000_000_000))), (1_500_000_000, 2_000_000_000));
        let plain = "Burn 1.5 TAO (1500000000 rao) to register this hotkey in subnet 27?";
        assert_eq!(offer.question(offer.limit(None)), plain);
        let limited =
            "Burn 1.5 TAO (1500000000 rao), at most 2 TAO (2000000000 rao), to register this hotkey in subnet 27?";
        assert_eq!(offer.question(2_000_000_000), limited);
    }

    #[test]
    fn an_offer_says_what_it_costs_and_what_it_leaves() {
        insta::assert_snapshot!(
            offer(27, 1_500_000_000, 10_000_000_001).text(&Place::new("ledger", "http://127.0.0.1:9950/"))
        );
        let full = Offer { slots: 3, ..offer(27, 1, 1) };
        let text = full.text(&Place::new("finney", "wss://entrypoint-finney.opentensor.ai:443"));
        assert!(text.contains("every uid is taken"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn the_json_of_a_registration_keeps_its_fields() {
        let at = Inclusion { block: 18, extrinsic: Hash32([7; 32]) };
        let place = Place::new("ledger", "http://127.0.0.1:9950/");
        let report = offer(27, 5, 9).registered(place, at, Some(Uid(3)));
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
        insta::assert_snapshot!(text(&report), @"registered: uid 3, block 18, call 0x0707070707070707070707070707070707070707070707070707070707070707");
    }
}
