//! `hyperparameters`: the subnet's rules under the chain's names, each with what it means for an operator.

use serde::Serialize;
use serde_json::{Value, json};

use super::super::Context;
use super::super::text::{columns, row};
use super::{Asked, Place, money};
use crate::chain::Hyperparameters;
use crate::exit::Exit;
use crate::ids::{BlockNumber, Netuid};

/// What is printed. The JSON form is stable: rules may be added, none is renamed.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    network: Place,
    netuid: Netuid,
    /// The block whose neurons were read; the rules are at most a block newer.
    block: BlockNumber,
    /// Slots that are taken.
    neurons: usize,
    hyperparameters: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Serialize)]
struct Rule {
    /// The chain's name of it, as in its storage.
    name: &'static str,
    value: Value,
    /// The value for people, where it differs.
    #[serde(skip)]
    shown: String,
    meaning: &'static str,
}

pub(in crate::register) async fn run(context: &Context) -> Result<(), Exit> {
    let asked = Asked::new(context)?;
    let failed = |e| asked.failed("the subnet's rules cannot be read", &e);
    // The metagraph says whether the subnet is there.
    let graph = asked.chain.metagraph().await.map_err(failed)?;
    let hyperparameters = asked.chain.hyperparameters().await.map_err(failed)?;
    let report = Report {
        network: asked.place(),
        netuid: graph.netuid,
        block: graph.head.number,
        neurons: graph.neurons.len(),
        hyperparameters: rules(&hyperparameters),
    };
    context.answer(&report, text)
}

/// Every rule. Written so that a new field of [`Hyperparameters`] cannot be forgotten here.
fn rules(rules: &Hyperparameters) -> Vec<Rule> {
    let Hyperparameters {
        tempo,
        weights_rate_limit,
        weights_version_key,
        min_allowed_weights,
        max_weights_limit,
        serving_rate_limit,
        immunity_period,
        max_allowed_uids,
        max_allowed_validators,
        commit_reveal,
        reveal_period,
        commit_reveal_version,
        owner_hotkey,
        burn_rao,
        stake_threshold_rao,
        activity_cutoff,
        replacement,
    } = rules;
    let rule = |name, value: Value, meaning| Rule { name, shown: value.to_string(), value, meaning };
    let money =
        |name, rao: u64, meaning| Rule { shown: format!("{} TAO", money::tao(rao)), ..rule(name, json!(rao), meaning) };
    let owner = Rule {
        shown: owner_hotkey.map_or_else(|| "unknown".to_owned(), |key| super::metagraph::short(&key.to_string())),
        ..rule("SubnetOwnerHotkey", json!(owner_hotkey), "stake and permit do not bind it")
    };
    vec![
        rule("Tempo", json!(tempo), "an epoch has one block more than this"),
        rule("WeightsSetRateLimit", json!(weights_rate_limit), "blocks between two settings of weights"),
        rule("WeightsVersionKey", json!(weights_version_key), "weights of a lower version are refused; 0: none are"),
        rule("MinAllowedWeights", json!(min_allowed_weights), "fewer weights are refused"),
        rule("MaxWeightsLimit", json!(max_weights_limit), "largest share of one weight; 65535: no limit"),
        rule("ServingRateLimit", json!(serving_rate_limit), "blocks between two announcements of an axon"),
        rule("ImmunityPeriod", json!(immunity_period), "blocks in which a new neuron is not replaced"),
        rule("MaxAllowedUids", json!(max_allowed_uids), "slots; beyond them the lowest neuron is replaced"),
        rule("MaxAllowedValidators", json!(max_allowed_validators), "permits, given by stake at each epoch"),
        rule("CommitRevealWeightsEnabled", json!(commit_reveal), "weights are committed first, seen later"),
        rule("RevealPeriodEpochs", json!(reveal_period), "epochs from a commit to its reveal"),
        rule("CommitRevealWeightsVersion", json!(commit_reveal_version), "of sealed commits; 0: not taken"),
        owner,
        money("Burn", *burn_rao, "what a registration costs now"),
        money("StakeThreshold", *stake_threshold_rao, "least stake for a permit and for weights"),
        rule("ActivityCutoff", json!(activity_cutoff), "blocks without weights until inactive"),
        rule("MinNonImmuneUids", json!(replacement.least_free), "so many mature neurons are never replaced"),
    ]
}

fn text(report: &Report) -> String {
    let Report { network, netuid, block, neurons, hyperparameters } = report;
    let mut rows = vec![row(["name", "value", "meaning"])];
    rows.extend(hyperparameters.iter().map(|rule| row([rule.name, &rule.shown, rule.meaning])));
    format!("subnet {netuid} of {network}, block {block}, {neurons} neurons\n{}", columns(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_name_value_and_meaning_within_100_columns() {
        let widest = Hyperparameters {
            weights_version_key: 1_000_000_000,
            owner_hotkey: Some(crate::ids::Hotkey([1; 32])),
            burn_rao: 12_345_678_901,
            stake_threshold_rao: 1_000_000_000_000,
            ..Hyperparameters::default()
        };
        let report = Report {
            network: Place::new("ledger", "http://127.0.0.1:9950/"),
            netuid: Netuid(27),
            block: 17,
            neurons: 3,
            hyperparameters: rules(&widest),
        };
        let text = text(&report);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(text);
        let json = serde_json::to_value(&report).unwrap();
        let fields: Vec<&String> = json["hyperparameters"][0].as_object().unwrap().keys().collect();
        assert_eq!(fields, ["meaning", "name", "value"]);
        assert_eq!(json["hyperparameters"][13]["value"], 12_345_678_901u64);
    }
}
