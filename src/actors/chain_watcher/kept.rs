//! The view that outlives a restart: what of it is kept, when, and when it is good for nothing any more. Pure.
//!
//! Kept are neurons, rules and the finalised block. Not kept are the weights that neurons have set, which are most of a
//! metagraph and only told apart from those that we intend, and the turns of an epoch, which will be over.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chain::{Hyperparameters, Metagraph, Neuron};
use crate::clock::millis;
use crate::ids::{BlockNumber, Netuid};
use crate::messages::chain_watcher::{ChainView, Source};
use crate::store::records::SubnetViewRecord;

/// A view that was read longer ago is not used: registrations and permits change within days.
pub(super) const LONGEST: Duration = crate::actors::node::MAX_KNOWN_AGE;

#[derive(Serialize, Deserialize)]
struct Kept {
    network: String,
    metagraph: Metagraph,
    hyperparameters: Hyperparameters,
    finalized: BlockNumber,
}

/// Whether `now` is to be kept in place of `last`: it is of another epoch, or another subnet lives in it. Stakes, which
/// change with almost every block, are no reason.
pub(super) fn is_due(last: Option<&Metagraph>, now: &Metagraph) -> bool {
    let key = |n: &Neuron| {
        let axon = n.axon.map(|a| (a.ip, a.port, a.version));
        let prometheus = n.prometheus.map(|p| p.version);
        (n.uid, n.hotkey, n.coldkey, n.validator_permit, n.registered_at, axon, prometheus)
    };
    last.is_none_or(|last| last.epoch() != now.epoch() || last.neurons.iter().map(key).ne(now.neurons.iter().map(key)))
}

/// What is written of a view, at `now_ms` (milliseconds since the Unix epoch).
///
/// # Errors
/// If it cannot be written as JSON.
pub(super) fn record(view: &ChainView, network: &str, now_ms: u64) -> Result<SubnetViewRecord, serde_json::Error> {
    let mut metagraph = Metagraph::clone(&view.metagraph);
    metagraph.neurons.iter_mut().for_each(|neuron| neuron.weights = Vec::new());
    let block = metagraph.head.number;
    let kept = Kept {
        network: network.to_owned(),
        metagraph,
        hyperparameters: Hyperparameters::clone(&view.hyperparameters),
        finalized: view.finalized,
    };
    let at_ms = now_ms.saturating_sub(millis(view.age()));
    Ok(SubnetViewRecord { block, json: Arc::new(serde_json::to_value(kept)?), at_ms })
}

/// The view that was kept, as old as it is.
///
/// # Errors
/// Why it is not to be used: it is of another network or subnet, too old, from after `now_ms`, or of another form.
pub(super) fn view(record: &SubnetViewRecord, network: &str, netuid: Netuid, now_ms: u64) -> Result<ChainView, String> {
    let kept = Kept::deserialize(&*record.json).map_err(|e| format!("it was written by another version: {e}"))?;
    if kept.network != network || kept.metagraph.netuid != netuid {
        return Err(format!("it is of subnet {} on {:?}", kept.metagraph.netuid, kept.network));
    }
    let Some(age_ms) = now_ms.checked_sub(record.at_ms) else {
        return Err("it is from the future; check this machine's clock".to_owned());
    };
    let age = Duration::from_millis(age_ms);
    if age > LONGEST {
        return Err(format!("it is {} hours old", age.as_secs() / 3600));
    }
    let view = ChainView::new(Arc::new(kept.metagraph), Arc::new(kept.hyperparameters), kept.finalized);
    Ok(ChainView { source: Source::Store { age }, ..view })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{AxonInfo, BlockHead, EpochClock, PrometheusInfo};
    use crate::ids::{Hash32, Hotkey, Uid};

    const NOW: u64 = 1_700_000_000_000;

    fn neuron(uid: u16) -> Neuron {
        let weights = vec![(Uid(1), 65_535)];
        Neuron { stake_rao: 5, validator_permit: true, incentive: 7, weights, ..Neuron::idle(uid) }
    }

    fn seen(head: u64, neurons: Vec<Neuron>) -> ChainView {
        let (netuid, head) = (Netuid(27), BlockHead { number: head, hash: Hash32([3; 32]), timestamp_ms: 9 });
        let metagraph = Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 5 }, neurons };
        ChainView::new(Arc::new(metagraph), Arc::new(Hyperparameters::default()), head.number - 2)
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_comes_back_as_it_was_but_for_weights_and_as_old_as_it_is() {
        let live = seen(20, vec![neuron(0), neuron(1)]);
        tokio::time::advance(Duration::from_secs(7)).await;
        let record = record(&live, "finney", NOW).unwrap();
        assert_eq!((record.block, record.at_ms), (20, NOW - 7_000), "when it was read, not when it was kept");
        let back = view(&record, "finney", Netuid(27), NOW + 60_000).unwrap();
        assert!(back.is_stored() && !live.is_stored());
        assert_eq!((back.age(), back.finalized, back.slots.is_none()), (Duration::from_secs(67), 18, true));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(back.age(), Duration::from_secs(70), "it goes on to age");
        let mut expected = Metagraph::clone(&live.metagraph);
        expected.neurons.iter_mut().for_each(|n| n.weights.clear());
        assert_eq!((&*back.metagraph, &back.hyperparameters), (&expected, &live.hyperparameters));
    }

    #[test]
    fn a_view_of_elsewhere_of_long_ago_or_of_tomorrow_is_not_used() {
        let record = record(&seen(20, vec![neuron(0)]), "finney", NOW).unwrap();
        let why = |network, netuid, now| view(&record, network, Netuid(netuid), now).map(|_| ()).unwrap_err();
        assert!(why("test", 27, NOW).contains("finney"));
        assert!(why("finney", 15, NOW).contains("27"));
        assert!(why("finney", 27, NOW - 60_000).contains("clock"));
        assert!(why("finney", 27, NOW + 25 * 3_600_000).contains("25 hours"));
        let other = SubnetViewRecord { json: Arc::new(serde_json::json!({ "neurons": [] })), ..record };
        assert!(view(&other, "finney", Netuid(27), NOW).unwrap_err().contains("another version"));
    }

    #[test]
    fn a_view_is_kept_once_an_epoch_and_when_its_members_change_but_not_for_stakes() {
        let last = seen(10, vec![neuron(0)]).metagraph;
        let due = |head, n: Neuron| is_due(Some(&last), &seen(head, vec![n]).metagraph);
        assert!(is_due(None, &last));
        assert_eq!((due(11, neuron(0)), due(13, neuron(0)), due(14, neuron(0))), (false, false, true));
        assert!(!due(11, Neuron { stake_rao: 6, incentive: 8, weights: vec![], ..neuron(0) }));
        assert!(due(11, Neuron { validator_permit: false, ..neuron(0) }));
        assert!(due(11, Neuron { hotkey: Hotkey([8; 32]), ..neuron(0) }));
        assert!(is_due(Some(&last), &seen(11, vec![neuron(0), neuron(1)]).metagraph));
    }

    #[test]
    fn the_largest_subnet_fits_into_its_column() {
        let (block, version, ip, port) = (1 << 40, u32::MAX, std::net::Ipv6Addr::from([0xfe; 16]).into(), 65_535);
        let full = |uid| Neuron {
            stake_rao: u64::MAX,
            axon: Some(AxonInfo { block, version, ip, port, protocol: 4 }),
            prometheus: Some(PrometheusInfo { block, version, ip, port }),
            weights: vec![(Uid(0), 1); 4_096],
            ..neuron(uid)
        };
        let neurons = (0..4_096).map(full).collect();
        let json = record(&seen(20, neurons), "finney", NOW).unwrap().json.to_string();
        assert!(json.len() < crate::store::records::MAX_VIEW / 2, "{}", json.len());
    }
}
