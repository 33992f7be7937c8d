//! What the chain would refuse of weights, all of it and not only the first, from what it shows. Pure.
//!
//! The rules are those of `set_weights` and of the commits, in the chain's order; the first objection is the name that the
//! chain would answer with. A chain may have rules that it does not show: no objection is no promise.

use serde::Serialize;

use crate::chain::{Hyperparameters, Metagraph, Rejection, Route, Weights};
use crate::ids::{Hotkey, Uid};

/// One reason why weights would be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Objection {
    /// The chain's name of the error.
    pub(super) name: String,
    /// What is wrong and what helps.
    pub(super) text: String,
    /// The figures.
    pub(super) detail: String,
}

impl Objection {
    /// As the chain would say it.
    pub(super) fn new(rejection: Rejection, detail: String) -> Self {
        Objection { name: rejection.name().to_owned(), text: rejection.text().to_owned(), detail }
    }

    /// In words of the chain's that this program does not know.
    pub(super) fn unknown(detail: String) -> Self {
        let text = "the chain refuses it for a reason that this program does not know; it may be older than the chain";
        Objection { name: "Unknown".to_owned(), text: text.to_owned(), detail }
    }
}

/// Everything that the chain would refuse `weights` of `hotkey` for in the next block, in its order. `route`: how they
/// would go, if that is known.
pub(super) fn objections(
    graph: &Metagraph,
    rules: &Hyperparameters,
    hotkey: &Hotkey,
    weights: &Weights,
    route: Option<&Route>,
) -> Vec<Objection> {
    use Rejection as R;
    let mut found = Vec::new();
    let mut object = |wrong: bool, rejection: R, detail: String| {
        if wrong {
            found.push(Objection::new(rejection, detail));
        }
    };
    let count = graph.neurons.len();
    let entries = &weights.entries;
    let open = matches!(route, Some(Route::Plain));
    object(graph.netuid.0 == 0, R::CanNotSetRootNetworkWeights, "netuid 0".to_owned());
    object(open && rules.commit_reveal, R::CommitRevealEnabled, "they would go in the open".to_owned());
    object(
        route.is_some() && !open && !rules.commit_reveal,
        R::CommitRevealDisabled,
        "they would go as a commit".to_owned(),
    );
    object(
        entries.len() > count,
        R::UidsLengthExceedUidsInSubNet,
        format!("{} weights, {count} neurons", entries.len()),
    );
    let own = graph.by_hotkey(hotkey);
    let owner = rules.owner_hotkey == Some(*hotkey);
    object(own.is_none(), R::HotKeyNotRegisteredInSubNet, hotkey.to_string());
    let on_self_only = matches!(entries.as_slice(), [(only, _)] if own.is_some_and(|own| own.uid == *only));
    if let Some(own) = own {
        let (stake, least) = (own.stake_rao, rules.stake_threshold_rao);
        object(
            stake < least && !owner,
            R::NotEnoughStakeToSetWeights,
            format!("{} of {}", super::money::amount(stake), super::money::amount(least)),
        );
    }
    let (key, least) = (weights.version_key, rules.weights_version_key);
    object(least != 0 && key < least, R::IncorrectWeightVersionKey, format!("{key}, the least is {least}"));
    if let Some(own) = own {
        let since = graph.head.number.saturating_add(1).saturating_sub(own.last_update);
        let limit = rules.weights_rate_limit;
        let rejection = if rules.commit_reveal { R::CommittingWeightsTooFast } else { R::SettingWeightsTooFast };
        object(
            own.last_update != 0 && since < limit,
            rejection,
            format!("last at block {}, again from block {}", own.last_update, own.last_update.saturating_add(limit)),
        );
        object(
            !on_self_only && !own.validator_permit && !owner,
            R::NeuronNoValidatorPermit,
            format!("uid {} has none", own.uid),
        );
    }
    let mut uids: Vec<Uid> = entries.iter().map(|(uid, _)| *uid).collect();
    uids.sort_unstable();
    let twice = list(uids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]));
    object(!twice.is_empty(), R::DuplicateUids, twice);
    let absent = list(uids.iter().copied().filter(|uid| graph.by_uid(*uid).is_none()));
    object(!absent.is_empty(), R::UidVecContainInvalidOne, absent);
    let least = usize::from(rules.min_allowed_weights).min(count);
    object(
        !on_self_only && entries.len() < least,
        R::WeightVecLengthIsLow,
        format!("{} weights, the least is {least}", entries.len()),
    );
    let sum: u64 = entries.iter().map(|(_, w)| u64::from(*w)).sum();
    let highest = entries.iter().map(|(_, w)| u64::from(*w)).max().unwrap_or(0);
    object(
        !on_self_only && highest * u64::from(u16::MAX) > u64::from(rules.max_weights_limit) * sum,
        R::MaxWeightExceeded,
        format!("the largest share is {highest} of {sum}, the limit {} of 65535", rules.max_weights_limit),
    );
    found
}

/// At most five of them, as text.
fn list(uids: impl Iterator<Item = Uid>) -> String {
    const SHOWN: usize = 5;
    let mut uids: Vec<Uid> = uids.collect();
    uids.dedup();
    let more = uids.len().saturating_sub(SHOWN);
    let shown: Vec<String> = uids.iter().take(SHOWN).map(ToString::to_string).collect();
    match (shown.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!("uid {}", shown.join(", ")),
        (false, more) => format!("uid {} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::chain::ledger::{Deadlines, GenesisConfig, LedgerClient, LedgerHandle, LedgerNode};
    use crate::chain::{Chain as _, ChainError};
    use crate::clock::SystemClock;
    use crate::ids::{Coldkey, Netuid};
    use crate::wallet::Keypair;

    /// What becomes of a call, with blocks made as long as it waits for one.
    async fn in_a_block<T>(ledger: &LedgerHandle, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        loop {
            tokio::select! {
                biased;
                done = &mut call => return done,
                () = tokio::time::sleep(Duration::from_millis(1)) => {
                    ledger.produce_block().await.unwrap();
                }
            }
        }
    }

    /// Weights and rules that break one rule each and several at once: the ledger's refusal is the first objection, and
    /// what it takes has none.
    #[tokio::test]
    async fn the_first_objection_is_the_name_that_the_ledger_refuses_with() {
        const TAO: u64 = 1_000_000_000;
        let pair = |uri: &str| Keypair::from_uri(uri).unwrap();
        let (validator, miner, owner) = (pair("//validator"), pair("//miner"), pair("//owner"));
        let stranger = pair("//stranger");
        let mut seen = std::collections::BTreeSet::new();
        type Change = fn(&mut Hyperparameters);
        // Not those of commit and reveal: there the chain looks at the weights only when they are revealed.
        let changes: [Change; 6] = [
            |_| {},
            |rules| rules.stake_threshold_rao = 2_000 * TAO,
            |rules| rules.weights_version_key = 9,
            |rules| rules.weights_rate_limit = 1_000,
            |rules| rules.min_allowed_weights = 2,
            |rules| rules.max_weights_limit = 30_000,
        ];
        for change in changes {
            let mut genesis = GenesisConfig::new(Netuid(27));
            genesis.block_time = Duration::ZERO;
            genesis.hyperparameters.tempo = 1;
            genesis.hyperparameters.weights_rate_limit = 0;
            change(&mut genesis.hyperparameters);
            genesis.endowed = vec![(Coldkey(owner.hotkey().0), 100 * TAO)];
            genesis.stakes = vec![(validator.hotkey(), 1_000 * TAO)];
            let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
            let client = |key: &Keypair| {
                LedgerClient::in_process(ledger.clone(), Netuid(27), Arc::new(key.clone()), Deadlines::default())
            };
            for key in [&validator, &miner] {
                let chain = client(key);
                in_a_block(&ledger, chain.register(key.hotkey(), &owner)).await.unwrap();
            }
            for _ in 0..3 {
                ledger.produce_block().await.unwrap();
            }
            for key in [&validator, &miner, &stranger] {
                let vectors: [&[(u16, u16)]; 6] =
                    [&[(1, 9), (0, 8)], &[(1, 9)], &[(1, 9), (1, 9)], &[(7, 9)], &[(0, 1), (1, 1), (2, 1)], &[]];
                for entries in vectors {
                    let entries = entries.iter().map(|(uid, weight)| (Uid(*uid), *weight)).collect();
                    let weights = Weights { entries, version_key: 5 };
                    let chain = client(key);
                    let graph = chain.metagraph().await.unwrap();
                    let rules = chain.hyperparameters().await.unwrap();
                    let prepared = chain.prepare_weights(&weights).await.unwrap();
                    let ours = objections(&graph, &rules, &key.hotkey(), &weights, Some(&prepared.route));
                    let theirs = match in_a_block(&ledger, chain.submit_weights(&prepared)).await {
                        Ok(_) => None,
                        Err(ChainError::Rejected(rejection)) => Some(rejection.name()),
                        Err(error) => panic!("{error}"),
                    };
                    assert_eq!(ours.first().map(|o| o.name.as_str()), theirs, "{weights:?} {rules:?} {ours:?}");
                    seen.extend(theirs);
                }
            }
        }
        assert_eq!(seen.len(), 10, "these are met: {seen:?}");
    }
}
