//! What a node tells, each with a method of its own.

use std::time::Duration;

use super::NodeMetrics;
use crate::canary::Report;
use crate::chain::ChainError;
use crate::chain::standing::OwnStanding;
use crate::chain::weights::divergence::Divergence;
use crate::hardware::Specs;
use crate::ids::{BlockNumber, Epoch, Uid};
use crate::telemetry::labels::OTHER;
use crate::telemetry::rentals::RentalMetrics;
use crate::verdict::{MemoryVerdict, Verdict};

impl NodeMetrics {
    /// A new block was seen.
    pub fn block(&self, number: BlockNumber) {
        self.chain_block.set(number as f64);
        self.chain_block_age.touch();
    }
    /// Seconds since the last [`block`](Self::block), for `/readyz` and alerts to agree.
    pub fn block_age_seconds(&self) -> f64 {
        self.chain_block_age.seconds()
    }
    /// The newest finalised block.
    pub fn finalized(&self, number: BlockNumber) {
        self.chain_finalized.set(number as f64);
    }
    /// Blocks that were followed had been replaced.
    pub fn reorganised(&self) {
        self.chain_reorgs.inc();
    }
    /// What is known of the subnet is this old; whether from the database.
    pub fn chain_view(&self, age: Duration, stored: bool) {
        self.chain_view_age.touch_ago(age);
        self.chain_view_stored.set(f64::from(u8::from(stored)));
    }
    /// A new metagraph with so many neurons.
    pub fn neurons(&self, count: usize) {
        self.neurons.set(count as f64);
    }
    /// How our own neuron stands as of the newest block.
    pub fn standing(&self, standing: &OwnStanding) {
        self.own.set(Some(standing));
    }
    /// Something of our own neuron was told, by its [`Change::label`](crate::chain::standing::Change::label).
    pub fn standing_changed(&self, label: &str) {
        self.own_events.add(&[label]);
    }
    /// A device was judged.
    pub fn challenge(&self, verdict: &Verdict) {
        self.challenges.add(&[verdict.kind(), verdict.reason()]);
    }
    /// How many devices were judged so.
    pub fn challenges(&self, verdict: &Verdict) -> u64 {
        self.challenges.count(&[verdict.kind(), verdict.reason()])
    }
    /// A stage of a challenge took this long.
    pub fn challenge_stage(&self, stage: &str, took: Duration) {
        let stage = self.challenge_stages.iter().find(|s| **s == stage).copied().unwrap_or(OTHER);
        self.challenge_duration.with_label_values(&[stage]).observe(took.as_secs_f64());
    }
    /// Verifying one answer took this much CPU time.
    pub fn verify_cpu(&self, time: Duration) {
        self.verify_cpu.observe(time.as_secs_f64());
    }
    /// Challenges that are out now.
    pub fn challenges_in_flight(&self, count: usize) {
        self.in_flight.set(count as f64);
    }
    /// Where the head is to this validator's slot.
    pub fn challenge_slot(&self, state: &str) {
        self.slot.is(state);
    }
    /// A device's memory was judged.
    pub fn memory(&self, verdict: &MemoryVerdict) {
        self.memory.add(&[verdict.kind(), verdict.reason()]);
    }
    /// A stage of a memory proof took this long.
    pub fn memory_stage(&self, stage: &str, took: Duration) {
        let stage = self.memory_stages.iter().find(|s| **s == stage).copied().unwrap_or(OTHER);
        self.memory_duration.with_label_values(&[stage]).observe(took.as_secs_f64());
    }
    /// A memory proof of this model held, at so many bytes a second. `model` is a name of our own table, never a peer's word.
    pub fn memory_bandwidth(&self, model: &str, bytes_per_second: u64) {
        self.memory_bandwidth.with_label_values(&[model]).set(bytes_per_second as f64);
    }
    /// Where the head is to this validator's memory slot.
    pub fn memory_slot(&self, state: &str) {
        self.memory_slot.is(state);
    }
    /// A round of memory proofs was closed.
    pub fn memory_round(&self, outcome: &str) {
        self.memory_rounds.add(&[outcome]);
    }
    /// How many devices of the last round never proved their memory.
    pub fn memory_unproved(&self, count: usize) {
        self.memory_unproved.set(count as f64);
    }
    /// An epoch was closed.
    pub fn epoch_closed(&self, epoch: Epoch, outcome: &str) {
        self.epochs.add(&[outcome]);
        if outcome == "judged" {
            self.epoch_judged.set(epoch as f64);
        }
    }
    /// A miner's score.
    pub fn score(&self, uid: Uid, points: f64) {
        self.score.set(uid, points);
    }
    /// All scores; uids that are not named lose their series.
    pub fn scores(&self, scores: &[(Uid, f64)]) {
        self.score.replace(scores);
    }
    /// All weights as shares of 1; uids that are not named lose their series.
    pub fn weights(&self, weights: &[(Uid, f64)]) {
        self.weight.replace(weights);
    }
    /// A uid was given to another hotkey or is gone.
    pub fn forget(&self, uid: Uid) {
        self.score.remove(uid);
        self.weight.remove(uid);
    }
    /// The chain showed what became of weights.
    pub fn weights_ended(&self, outcome: &str) {
        self.weights_ended.add(&[outcome]);
    }
    /// A call to the chain for weights failed.
    pub fn weights_error(&self, error: &ChainError) {
        self.weights_errors.add(&[error.class().label(), error.name()]);
    }
    /// How far our weights are from those of each validator on the chain; validators that are not named lose their series.
    pub fn weights_compared(&self, all: &[Divergence]) {
        let by = |value: fn(&Divergence) -> f64| all.iter().map(|d| (d.validator, value(d))).collect::<Vec<_>>();
        self.weights_divergence.replace(&by(Divergence::distance));
        self.weights_worst.replace(&by(|d| d.worst().map_or(0.0, |(_, share)| share.unsigned_abs() as f64 / 1e9)));
    }
    /// An attempt to set weights ended; `ok` also sets the time of the last success.
    pub fn weights_set(&self, result: &str) {
        self.weights_set.add(&[result]);
        if result == "ok" {
            self.weights_last_set.set(self.clock.now_ms() as f64 / 1000.0);
        }
    }
    /// Weights were last set at this Unix time in seconds, as read from the store at start.
    pub fn weights_last_set_at(&self, unix_seconds: f64) {
        self.weights_last_set.set(unix_seconds);
    }
    /// How many leases are in each state.
    pub fn leases(&self, count: impl Fn(&str) -> usize) {
        self.leases.each(|state| count(state) as f64);
    }
    /// A lease changed its state.
    pub fn lease_transition(&self, from: &str, to: &str) {
        self.lease_transitions.add(&[from, to]);
    }
    /// The first comparison after a start did this with so many leases or containers.
    pub fn lease_recovery(&self, action: &str, count: u64) {
        for _ in 0..count {
            self.lease_recovery.add(&[action]);
        }
    }
    /// How many canary rentals are perhaps not given back.
    pub fn canaries_held(&self, count: usize) {
        self.canary_held.set(count as f64);
    }
    /// A canary rental has begun, or ended.
    pub fn canary_running(&self, running: bool) {
        self.canary_running.set(if running { 1.0 } else { 0.0 });
    }
    /// A canary rental has ended.
    pub fn canary(&self, report: &Report) {
        self.canaries.add(&[report.outcome.label(), report.outcome.stage().label()]);
        for time in &report.stages {
            let took = Duration::from_millis(time.took_ms).as_secs_f64();
            self.canary_duration.with_label_values(&[time.stage.label()]).observe(took);
        }
    }
    /// A lease receipt was issued, kept, or judged.
    pub fn receipt(&self, outcome: &str) {
        self.receipts.add(&[outcome]);
    }
    /// What a validator counts of its rentals.
    pub fn rentals(&self) -> &RentalMetrics {
        &self.rentals
    }
    /// A lease ended for this reason.
    pub fn lease_ended(&self, reason: &str) {
        self.lease_ends.add(&[reason]);
    }
    /// A stage of a rental took so long; one of `LEASE_STAGES`.
    pub fn lease_stage(&self, stage: &'static str, took: Duration) {
        self.lease_stage.with_label_values(&[stage]).observe(took.as_secs_f64());
    }
    /// A call of the engine ended like this.
    pub fn engine_call(&self, call: &str, outcome: &str) {
        self.engine_calls.add(&[call, outcome]);
    }
    /// So many containers are set aside.
    pub fn containers_set_aside(&self, count: usize) {
        self.set_aside.set(count as f64);
    }
    /// A container that nobody owned was destroyed.
    pub fn orphan_destroyed(&self) {
        self.orphans.inc();
    }
    /// A caller was admitted or refused.
    pub fn admission(&self, decision: &str, reason: &str) {
        self.admissions.add(&[decision, reason]);
    }
    /// How many penalties are in force against each kind of [`Subject`](crate::admission::Subject).
    pub fn penalties(&self, count: impl Fn(&str) -> usize) {
        self.penalties.each(|kind| count(kind) as f64);
    }
    /// A penalty was given to a [`Subject`](crate::admission::Subject) of this kind.
    pub fn penalty_given(&self, kind: &str) {
        self.penalties_given.add(&[kind]);
    }
    /// Connections to the axon: how many are open, and how many were closed at once since the start.
    pub fn axon_connections(&self, open: usize, refused: u64) {
        self.axon_connections.set(open as f64);
        self.axon_connections_refused.inc_by(refused.saturating_sub(self.axon_connections_refused.get()));
    }
    /// When the last request at the axon was answered, in milliseconds since the Unix epoch.
    pub fn axon_last_request(&self, at_ms: u64) {
        self.axon_last_request.set(at_ms as f64 / 1000.0);
    }
    /// The announced address was dialled.
    pub fn axon_dialled(&self, reached: bool) {
        self.axon_announced.is(if reached { "reached" } else { "not_from_here" });
    }
    /// A request at the axon ended. Unknown paths are counted as `other`.
    pub fn axon_request(&self, path: &str, outcome: &str) {
        let path = self.axon_paths.iter().find(|p| **p == path).copied().unwrap_or(OTHER);
        self.axon_requests.add(&[path, outcome]);
    }
    /// The evidence log as it is: records since the start, bytes and segments as of now.
    pub fn evidence(&self, records: u64, bytes: u64, segments: u64) {
        // The writer counts; this only follows.
        self.evidence_records.inc_by(records.saturating_sub(self.evidence_records.get()));
        self.evidence_bytes.set(bytes as f64);
        self.evidence_segments.set(segments as f64);
    }
    /// The journal's queue as it is.
    pub fn journal_queue(&self, depth: usize, capacity: usize) {
        self.journal_depth.set(depth as f64);
        self.journal_capacity.set(capacity as f64);
    }
    /// One durable commit took this long.
    pub fn journal_commit(&self, took: Duration) {
        self.journal_commit.observe(took.as_secs_f64());
    }
    /// Whether the journal can store.
    pub fn journal_degraded(&self, degraded: bool) {
        self.journal_degraded.set(f64::from(u8::from(degraded)));
    }
    /// Whether the operator keeps new leases away.
    pub fn maintenance(&self, on: bool) {
        self.maintenance.set(f64::from(u8::from(on)));
    }
    /// Whether another node acts with this hotkey.
    pub fn hotkey_conflict(&self, found: bool) {
        self.hotkey_conflict.set(f64::from(u8::from(found)));
    }
    /// A stage of making a container ended. Stages are the engine's own constants.
    pub fn engine_stage(&self, stage: &'static str, took: Duration) {
        self.engine_stage.with_label_values(&[stage]).observe(took.as_secs_f64());
    }
    /// Which protections of tenants are wanted and missing.
    pub fn protections_missing(&self, is_missing: impl Fn(&str) -> bool) {
        self.protection_missing.each(|name| f64::from(u8::from(is_missing(name))));
    }
    /// The pull of an image ended.
    pub fn image_pull(&self, outcome: &str) {
        self.image_pulls.add(&[outcome]);
    }
    /// So many pulls are under way or wait.
    pub fn image_pulls_waiting(&self, count: usize) {
        self.image_pulls_waiting.set(count as f64);
    }
    /// An image that nobody used any more was removed.
    pub fn image_removed(&self) {
        self.images_removed.inc();
    }
    /// A prover's run ended.
    pub fn prover_run(&self, outcome: &str, took: Duration) {
        self.prover_runs.add(&[outcome]);
        self.prover_duration.observe(took.as_secs_f64());
    }
    /// This machine was measured.
    pub fn specs(&self, specs: &Specs) {
        self.specs_age.touch();
        self.gpus.set(specs.gpus.len() as f64);
        self.gpus_failed.set(f64::from(specs.nvidia.unreadable_gpus));
        self.devices_offered.set(specs.devices.len() as f64);
    }
    /// The state of the updater.
    pub fn update_state(&self, state: &str) {
        self.update.is(state);
    }
}
