//! The gauges of our own neuron.

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use super::names::Metric;
use super::series::{gauge, registered};
use crate::chain::RAO_PER_TAO;
use crate::chain::standing::{OwnNeuron, OwnStanding};

/// What the last epoch gave a neuron.
const SHARES: [&str; 5] = ["incentive", "dividends", "consensus", "trust", "validator_trust"];

/// The gauges of our own neuron, each there from the start.
pub(super) struct NeuronGauges {
    registered: Gauge,
    uid: Gauge,
    immune_blocks: Gauge,
    replaced_next: Gauge,
    replaced_before: Gauge,
    over_cut: Gauge,
    stake: Gauge,
    stake_threshold: Gauge,
    permit: Gauge,
    shares: GaugeVec,
    emission: Gauge,
    update_age: Gauge,
}

fn units(rao: u64) -> f64 {
    rao as f64 / RAO_PER_TAO as f64
}

fn ratio(share: u16) -> f64 {
    f64::from(share) / f64::from(u16::MAX)
}

impl NeuronGauges {
    pub(super) fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let metric = Metric::NeuronShare;
        let shares = GaugeVec::new(Opts::new(metric.name(), metric.help()), metric.labels())?;
        let gauges = NeuronGauges {
            registered: gauge(r, Metric::NeuronRegistered)?,
            uid: gauge(r, Metric::NeuronUid)?,
            immune_blocks: gauge(r, Metric::NeuronImmuneBlocks)?,
            replaced_next: gauge(r, Metric::NeuronReplacedNext)?,
            replaced_before: gauge(r, Metric::NeuronReplacedBefore)?,
            over_cut: gauge(r, Metric::NeuronOverCut)?,
            stake: gauge(r, Metric::NeuronStake)?,
            stake_threshold: gauge(r, Metric::NeuronStakeThreshold)?,
            permit: gauge(r, Metric::NeuronValidatorPermit)?,
            shares: registered(r, shares)?,
            emission: gauge(r, Metric::NeuronEmission)?,
            update_age: gauge(r, Metric::NeuronUpdateAge)?,
        };
        gauges.set(None);
        Ok(gauges)
    }

    /// The standing as of a block; without one, as it is before the first.
    pub(super) fn set(&self, standing: Option<&OwnStanding>) {
        let neuron = standing.and_then(|s| s.neuron.as_ref());
        let of = |value: &dyn Fn(&OwnNeuron) -> f64, none: f64| neuron.map_or(none, value);
        let yes = |is: bool| f64::from(u8::from(is));
        self.registered.set(yes(neuron.is_some()));
        self.uid.set(of(&|n| f64::from(n.uid.0), -1.0));
        self.immune_blocks.set(of(&|n| n.immune_blocks as f64, 0.0));
        self.replaced_next.set(of(&|n| yes(n.place.next), 0.0));
        self.replaced_before.set(of(&|n| n.place.before as f64, -1.0));
        self.over_cut.set(of(&|n| n.place.over_cut().map_or(f64::NAN, |over| over as f64), f64::NAN));
        self.stake.set(of(&|n| units(n.stake_rao), 0.0));
        self.stake_threshold.set(of(&|n| units(n.stake_threshold_rao), 0.0));
        self.permit.set(of(&|n| yes(n.validator_permit), 0.0));
        self.emission.set(of(&|n| units(n.standing.emission_rao), 0.0));
        self.update_age.set(of(&|n| n.blocks_since_update as f64, 0.0));
        let shares = neuron.map(|n| {
            let told = n.standing;
            [Some(n.incentive), Some(n.dividends), Some(told.consensus), Some(told.trust), told.validator_trust]
        });
        for (share, value) in SHARES.into_iter().zip(shares.unwrap_or([Some(0); SHARES.len()])) {
            self.shares.with_label_values(&[share]).set(value.map_or(f64::NAN, ratio));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::standing::Place;
    use crate::chain::{ReplacedBy, Standing};
    use crate::ids::{Hotkey, Netuid, Uid};
    use crate::telemetry::encode;

    #[test]
    fn every_gauge_is_there_from_the_start_and_goes_back_when_the_neuron_is_gone() {
        let registry = Registry::new();
        let gauges = NeuronGauges::register(&registry).unwrap();
        let start = encode(&registry).unwrap();
        assert!(start.contains("compute_neuron_registered 0\n") && start.contains("compute_neuron_uid -1\n"));
        assert_eq!(start.matches("compute_neuron_share_ratio{").count(), SHARES.len());
        let place = Place { by: ReplacedBy::Shares, score: 3, cut: Some(5), before: 0, next: true, exempt: false };
        let neuron = OwnNeuron {
            uid: Uid(7),
            registered_at: 1,
            immune_blocks: 0,
            place,
            stake_rao: 1_500_000_000,
            stake_threshold_rao: 2_000_000_000,
            validator_permit: true,
            active: true,
            incentive: u16::MAX,
            dividends: 0,
            standing: Standing { emission_rao: 250_000_000, ..Standing::default() },
            last_update: 1,
            blocks_since_update: 9,
        };
        let (netuid, hotkey) = (Netuid(27), Hotkey([1; 32]));
        let mut standing =
            OwnStanding { netuid, hotkey, block: 10, neurons: 1, slots: 1, neuron: Some(neuron), lost: None };
        gauges.set(Some(&standing));
        let text = encode(&registry).unwrap();
        for line in [
            "registered 1",
            "uid 7",
            "replaced_next 1",
            "replaced_before 0",
            "over_cut -2",
            "stake 1.5",
            "stake_threshold 2",
            "validator_permit 1",
            "emission 0.25",
            "update_age_blocks 9",
            "share_ratio{of=\"incentive\"} 1",
            "share_ratio{of=\"validator_trust\"} NaN",
        ] {
            assert!(text.contains(&format!("compute_neuron_{line}\n")), "{line}: {text}");
        }
        standing.neuron = None;
        gauges.set(Some(&standing));
        assert_eq!(encode(&registry).unwrap(), start);
    }
}
