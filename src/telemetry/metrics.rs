//! Typed handles of a node's metrics, apart from the actors' vitals.
//!
//! One per node, registered into the node's own registry; nothing is global. Every series of a closed label set exists
//! from [`NodeMetrics::register`] on. Labels are `&'static str` or closed enums, so outside text cannot make a series;
//! values outside the registered set are counted as `other`.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::age::AgeGauge;
use super::build::BuildInfo;
use super::events::Recovered;
use super::labels::{Labels, OTHER};
use super::names::Metric;
use super::neuron::NeuronGauges;
use super::rentals::RentalMetrics;
use super::uids::UidGauge;
use crate::admission::Subject;
use crate::canary::{Report, Stage};
use crate::chain::ChainError;
use crate::chain::standing::{Change, OwnStanding};
use crate::chain::weights::divergence::Divergence;
use crate::clock::SharedClock;
use crate::hardware::Specs;
use crate::host::guard::PROTECTIONS;
use crate::ids::{BlockNumber, Epoch, Uid};
use crate::lease::engine::{CALLS, STAGES};
use crate::lease::{EndReason, EngineError, LeaseState};
use crate::verdict::{FailReason, MemoryVerdict, UnknownCause, Verdict};

/// CPU time of a verification: 0.5 ms to 4 s.
const VERIFY_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0];
/// A challenge's stages and a prover's run: 10 ms to 60 s.
const WORK_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// A stage of making a container: 5 ms to 60 s.
const STAGE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
/// A commit with its sync to disk: 0.1 ms to 2.5 s.
const COMMIT_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// A counter whose label values are a closed set.
pub(super) struct Counts {
    vec: IntCounterVec,
    known: Vec<Vec<&'static str>>,
    other: Vec<&'static str>,
}

impl Counts {
    pub(super) fn new(r: &Registry, metric: Metric, known: Vec<Vec<&'static str>>) -> Result<Self, prometheus::Error> {
        let vec = IntCounterVec::new(Opts::new(metric.name(), metric.help()), metric.labels())?;
        r.register(Box::new(vec.clone()))?;
        for values in &known {
            vec.get_metric_with_label_values(values)?;
        }
        Ok(Counts { vec, known, other: vec![OTHER; metric.labels().len()] })
    }
    pub(super) fn add(&self, values: &[&str]) {
        let known = self.known.iter().find(|k| k.as_slice() == values).unwrap_or(&self.other);
        self.vec.with_label_values(known).inc();
    }
    fn count(&self, values: &[&str]) -> u64 {
        self.vec.with_label_values(values).get()
    }
}

/// A gauge that is 1 for one of its states.
struct State {
    vec: GaugeVec,
    known: Vec<&'static str>,
}

impl State {
    fn new(r: &Registry, metric: Metric, known: &[&'static str]) -> Result<Self, prometheus::Error> {
        let vec = GaugeVec::new(Opts::new(metric.name(), metric.help()), metric.labels())?;
        r.register(Box::new(vec.clone()))?;
        known.iter().for_each(|state| vec.with_label_values(&[*state]).set(0.0));
        Ok(State { vec, known: known.to_vec() })
    }
    fn is(&self, state: &str) {
        for known in &self.known {
            self.vec.with_label_values(&[*known]).set(f64::from(u8::from(*known == state)));
        }
    }
    fn each(&self, count: impl Fn(&str) -> f64) {
        for known in &self.known {
            self.vec.with_label_values(&[*known]).set(count(known));
        }
    }
}

pub(super) fn registered<C: Collector + Clone + 'static>(r: &Registry, c: C) -> Result<C, prometheus::Error> {
    r.register(Box::new(c.clone()))?;
    Ok(c)
}

fn counter(r: &Registry, metric: Metric) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(metric.name(), metric.help())?;
    r.register(Box::new(counter.clone()))?;
    Ok(counter)
}

pub(super) fn gauge(r: &Registry, metric: Metric) -> Result<Gauge, prometheus::Error> {
    registered(r, Gauge::with_opts(Opts::new(metric.name(), metric.help()))?)
}

fn histogram_opts(metric: Metric, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(metric.name(), metric.help()).buckets(buckets.to_vec())
}

pub(super) fn histogram(r: &Registry, metric: Metric, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    registered(r, Histogram::with_opts(histogram_opts(metric, buckets))?)
}

/// A histogram of which every series exists from the start.
fn histograms(r: &Registry, metric: Metric, values: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    let vec = registered(r, HistogramVec::new(histogram_opts(metric, WORK_BUCKETS), metric.labels())?)?;
    values.iter().for_each(|value| _ = vec.with_label_values(&[*value]));
    Ok(vec)
}

/// Why a lease can end; a lost one has no reason of its own.
fn lease_ends() -> Vec<&'static str> {
    EndReason::ALL.iter().map(|reason| reason.label()).chain([LeaseState::Lost.label()]).collect()
}

fn engine_calls() -> Vec<Vec<&'static str>> {
    let outcomes = || std::iter::once("ok").chain(EngineError::LABELS.iter().copied());
    CALLS.iter().flat_map(|call| outcomes().map(move |outcome| vec![*call, outcome])).collect()
}

/// The stages of a rental on its miner: until the intent is on record; until the container runs or the rental is
/// refused, from the request on; until a release is done.
const LEASE_STAGES: &[&str] = &["reserve", "total", "release"];

/// A node's metrics.
pub struct NodeMetrics {
    chain_block: Gauge,
    chain_block_age: AgeGauge,
    chain_finalized: Gauge,
    chain_reorgs: IntCounter,
    chain_view_age: AgeGauge,
    chain_view_stored: Gauge,
    neurons: Gauge,
    own: NeuronGauges,
    own_events: Counts,
    challenges: Counts,
    challenge_duration: HistogramVec,
    challenge_stages: Vec<&'static str>,
    verify_cpu: Histogram,
    in_flight: Gauge,
    slot: State,
    memory: Counts,
    memory_duration: HistogramVec,
    memory_stages: Vec<&'static str>,
    memory_bandwidth: GaugeVec,
    memory_slot: State,
    memory_rounds: Counts,
    memory_unproved: Gauge,
    epochs: Counts,
    epoch_judged: Gauge,
    score: UidGauge,
    weight: UidGauge,
    weights_set: Counts,
    weights_ended: Counts,
    weights_errors: Counts,
    weights_divergence: UidGauge,
    weights_worst: UidGauge,
    weights_last_set: Gauge,
    leases: State,
    lease_transitions: Counts,
    lease_recovery: Counts,
    engine_stage: HistogramVec,
    image_pulls: Counts,
    image_pulls_waiting: Gauge,
    images_removed: IntCounter,
    protection_missing: State,
    receipts: Counts,
    canaries: Counts,
    canary_duration: HistogramVec,
    canary_held: Gauge,
    canary_running: Gauge,
    rentals: RentalMetrics,
    lease_ends: Counts,
    lease_stage: HistogramVec,
    engine_calls: Counts,
    set_aside: Gauge,
    orphans: IntCounter,
    admissions: Counts,
    penalties: State,
    penalties_given: Counts,
    axon_requests: Counts,
    axon_connections: Gauge,
    axon_connections_refused: IntCounter,
    axon_last_request: Gauge,
    axon_announced: State,
    axon_paths: Vec<&'static str>,
    journal_depth: Gauge,
    evidence_records: IntCounter,
    evidence_bytes: Gauge,
    evidence_segments: Gauge,
    journal_capacity: Gauge,
    journal_commit: Histogram,
    journal_degraded: Gauge,
    maintenance: Gauge,
    hotkey_conflict: Gauge,
    prover_runs: Counts,
    prover_duration: Histogram,
    specs_age: AgeGauge,
    gpus: Gauge,
    gpus_failed: Gauge,
    devices_offered: Gauge,
    update: State,
    clock: SharedClock,
}

impl std::fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeMetrics").finish_non_exhaustive()
    }
}

fn pairs(values: &[(&'static str, &'static str)]) -> Vec<Vec<&'static str>> {
    values.iter().map(|(a, b)| vec![*a, *b]).collect()
}

fn singles(values: &[&'static str]) -> Vec<Vec<&'static str>> {
    values.iter().map(|v| vec![*v]).collect()
}

/// A pass ends at the release, nothing else does.
fn canaries() -> Vec<Vec<&'static str>> {
    let stages = || Stage::ALL.iter().filter(|stage| **stage != Stage::Release);
    let of = |result: &'static str| stages().map(move |stage| vec![result, stage.label()]);
    [vec!["pass", Stage::Release.label()]].into_iter().chain(of("fail")).chain(of("unknown")).collect()
}

fn verdicts() -> Vec<Vec<&'static str>> {
    let mut all = vec![vec!["pass", "none"]];
    all.extend(FailReason::ALL.iter().map(|r| vec!["fail", r.label()]));
    all.extend(UnknownCause::ALL.iter().map(|c| vec!["unknown", c.label()]));
    all
}

impl NodeMetrics {
    /// Makes all series and registers them. `clock` is what ages are measured by.
    ///
    /// # Errors
    /// If the registry already has a metric of the same name: one registry holds one node.
    pub fn register(
        r: &Registry,
        build: &BuildInfo,
        labels: &Labels,
        clock: SharedClock,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let info =
            GaugeVec::new(Opts::new(Metric::BuildInfo.name(), Metric::BuildInfo.help()), Metric::BuildInfo.labels())?;
        registered(r, info)?.with_label_values(&[&build.version, &build.commit, &build.role]).set(1.0);

        let challenge_duration = registered(
            r,
            HistogramVec::new(
                histogram_opts(Metric::ChallengeDuration, WORK_BUCKETS),
                Metric::ChallengeDuration.labels(),
            )?,
        )?;
        for stage in &labels.challenge_stages {
            challenge_duration.get_metric_with_label_values(&[*stage])?;
        }
        let memory_opts = histogram_opts(Metric::MemoryDuration, WORK_BUCKETS);
        let memory_duration = registered(r, HistogramVec::new(memory_opts, Metric::MemoryDuration.labels())?)?;
        for stage in &labels.memory_stages {
            memory_duration.get_metric_with_label_values(&[*stage])?;
        }
        let canary_opts = histogram_opts(Metric::CanaryDuration, WORK_BUCKETS);
        let canary_duration = registered(r, HistogramVec::new(canary_opts, Metric::CanaryDuration.labels())?)?;
        for stage in Stage::ALL {
            canary_duration.get_metric_with_label_values(&[stage.label()])?;
        }
        let memory_bandwidth = Opts::new(Metric::MemoryBandwidth.name(), Metric::MemoryBandwidth.help());
        let memory_bandwidth = registered(r, GaugeVec::new(memory_bandwidth, Metric::MemoryBandwidth.labels())?)?;
        let mut requests = Vec::new();
        for path in labels.axon_paths.iter().chain([&OTHER]) {
            requests.extend(labels.axon_outcomes.iter().map(|outcome| vec![*path, *outcome]));
        }
        let engine_stage = histogram_opts(Metric::EngineStage, STAGE_BUCKETS);
        let engine_stage = registered(r, HistogramVec::new(engine_stage, Metric::EngineStage.labels())?)?;
        for stage in STAGES {
            engine_stage.get_metric_with_label_values(&[*stage])?;
        }
        let weights_errors = ChainError::classes().into_iter().map(|(class, name)| vec![class.label(), name]).collect();
        let metrics = NodeMetrics {
            chain_block: gauge(r, Metric::ChainBlock)?,
            chain_block_age: registered(r, AgeGauge::new(Metric::ChainBlockAge, clock.clone())?)?,
            chain_finalized: gauge(r, Metric::ChainFinalizedBlock)?,
            chain_reorgs: counter(r, Metric::ChainReorgs)?,
            chain_view_age: registered(r, AgeGauge::new(Metric::ChainViewAge, clock.clone())?)?,
            chain_view_stored: gauge(r, Metric::ChainViewStored)?,
            neurons: gauge(r, Metric::MetagraphNeurons)?,
            own: NeuronGauges::register(r)?,
            own_events: Counts::new(r, Metric::NeuronEvents, singles(&Change::LABELS))?,
            challenges: Counts::new(r, Metric::Challenges, verdicts())?,
            challenge_duration,
            challenge_stages: labels.challenge_stages.clone(),
            verify_cpu: histogram(r, Metric::ChallengeVerifyCpu, VERIFY_BUCKETS)?,
            in_flight: gauge(r, Metric::ChallengesInFlight)?,
            slot: State::new(r, Metric::ChallengeSlot, &labels.challenge_slots)?,
            memory: Counts::new(r, Metric::Memory, verdicts())?,
            memory_duration,
            memory_stages: labels.memory_stages.clone(),
            memory_bandwidth,
            memory_slot: State::new(r, Metric::MemorySlot, &labels.challenge_slots)?,
            memory_rounds: Counts::new(r, Metric::MemoryRounds, singles(&["judged", "void"]))?,
            memory_unproved: gauge(r, Metric::MemoryUnproved)?,
            epochs: Counts::new(r, Metric::Epochs, singles(&labels.epoch_outcomes))?,
            epoch_judged: gauge(r, Metric::EpochJudged)?,
            score: UidGauge::register(Metric::Score, r)?,
            weight: UidGauge::register(Metric::Weight, r)?,
            weights_set: Counts::new(r, Metric::WeightsSet, singles(&labels.weights_results))?,
            weights_ended: Counts::new(r, Metric::WeightsEnded, singles(&labels.weights_outcomes))?,
            weights_errors: Counts::new(r, Metric::WeightsErrors, weights_errors)?,
            weights_divergence: UidGauge::register(Metric::WeightsDivergence, r)?,
            weights_worst: UidGauge::register(Metric::WeightsWorstDifference, r)?,
            weights_last_set: gauge(r, Metric::WeightsLastSet)?,
            leases: State::new(r, Metric::Leases, &labels.lease_states)?,
            lease_transitions: Counts::new(r, Metric::LeaseTransitions, pairs(&labels.lease_transitions))?,
            lease_recovery: Counts::new(r, Metric::LeaseRecovery, singles(&Recovered::LABELS))?,
            engine_stage,
            protection_missing: State::new(r, Metric::ProtectionMissing, PROTECTIONS)?,
            image_pulls: Counts::new(r, Metric::ImagePulls, singles(&["ok", "failed"]))?,
            image_pulls_waiting: gauge(r, Metric::ImagePullsWaiting)?,
            images_removed: counter(r, Metric::ImagesRemoved)?,
            canaries: Counts::new(r, Metric::Canaries, canaries())?,
            canary_duration,
            canary_held: gauge(r, Metric::CanaryHeld)?,
            canary_running: gauge(r, Metric::CanaryRunning)?,
            receipts: Counts::new(r, Metric::Receipts, singles(&labels.receipt_outcomes))?,
            rentals: RentalMetrics::register(r)?,
            lease_ends: Counts::new(r, Metric::LeaseEnds, singles(&lease_ends()))?,
            lease_stage: histograms(r, Metric::LeaseStage, LEASE_STAGES)?,
            engine_calls: Counts::new(r, Metric::EngineCalls, engine_calls())?,
            set_aside: gauge(r, Metric::ContainersSetAside)?,
            orphans: counter(r, Metric::OrphansDestroyed)?,
            admissions: Counts::new(r, Metric::Admissions, pairs(&labels.admissions))?,
            penalties: State::new(r, Metric::Penalties, Subject::KINDS)?,
            penalties_given: Counts::new(r, Metric::PenaltiesGiven, singles(Subject::KINDS))?,
            axon_requests: Counts::new(r, Metric::AxonRequests, requests)?,
            axon_connections: gauge(r, Metric::AxonConnections)?,
            axon_connections_refused: counter(r, Metric::AxonConnectionsRefused)?,
            axon_last_request: gauge(r, Metric::AxonLastRequest)?,
            axon_announced: State::new(r, Metric::AxonAnnounced, &["not_tried", "reached", "not_from_here"])?,
            axon_paths: labels.axon_paths.clone(),
            journal_depth: gauge(r, Metric::JournalQueueDepth)?,
            evidence_records: counter(r, Metric::EvidenceRecords)?,
            evidence_bytes: gauge(r, Metric::EvidenceBytes)?,
            evidence_segments: gauge(r, Metric::EvidenceSegments)?,
            journal_capacity: gauge(r, Metric::JournalQueueCapacity)?,
            journal_commit: histogram(r, Metric::JournalCommit, COMMIT_BUCKETS)?,
            journal_degraded: gauge(r, Metric::JournalDegraded)?,
            maintenance: gauge(r, Metric::Maintenance)?,
            hotkey_conflict: gauge(r, Metric::HotkeyConflict)?,
            prover_runs: Counts::new(r, Metric::ProverRuns, singles(&labels.prover_outcomes))?,
            prover_duration: histogram(r, Metric::ProverDuration, WORK_BUCKETS)?,
            specs_age: registered(r, AgeGauge::new(Metric::SpecsAge, clock.clone())?)?,
            gpus: gauge(r, Metric::Gpus)?,
            gpus_failed: gauge(r, Metric::GpusFailed)?,
            devices_offered: gauge(r, Metric::DevicesOffered)?,
            update: State::new(r, Metric::UpdateState, &labels.update_states)?,
            clock,
        };
        Ok(Arc::new(metrics))
    }

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
    /// Something of our own neuron was told, by its [`Change::label`].
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
    /// How many penalties are in force against each kind of [`Subject`].
    pub fn penalties(&self, count: impl Fn(&str) -> usize) {
        self.penalties.each(|kind| count(kind) as f64);
    }
    /// A penalty was given to a [`Subject`] of this kind.
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

/// Adds the figures of this process (CPU, memory, file descriptors, threads, start time).
///
/// Once per process and registry: where one process holds several nodes, each node's registry shows the same figures,
/// so sum them over processes, not over nodes.
///
/// # Errors
/// If the registry already has them.
pub fn register_process(registry: &Registry) -> Result<(), prometheus::Error> {
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::telemetry::encode;

    fn node(registry: &Registry) -> (Arc<NodeMetrics>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at_ns(1_000_000_000_000));
        let build = BuildInfo { version: "1.2.3".into(), commit: "abc".into(), role: "validator".into() };
        (NodeMetrics::register(registry, &build, &Labels::default(), clock.clone()).unwrap(), clock)
    }

    #[test]
    fn every_combination_of_a_closed_set_is_there_from_the_start_at_zero() {
        let registry = Registry::new();
        let _node = node(&registry);
        let text = encode(&registry).unwrap();
        for values in verdicts() {
            let line = format!("compute_challenge_total{{reason=\"{}\",verdict=\"{}\"}} 0\n", values[1], values[0]);
            assert!(text.contains(&line), "{line}");
        }
        for state in Labels::default().lease_states {
            assert!(text.contains(&format!("compute_leases{{state=\"{state}\"}} 0\n")), "{state}");
        }
        assert!(text.contains(r#"compute_build_info{commit="abc",role="validator",version="1.2.3"} 1"#));
        assert!(text.contains(r#"compute_axon_requests_total{outcome="ok",path="/Challenge"} 0"#));
    }

    #[test]
    fn a_second_node_needs_its_own_registry() {
        let registry = Registry::new();
        let (_first, clock) = node(&registry);
        assert!(NodeMetrics::register(&registry, &BuildInfo::of("miner"), &Labels::default(), clock).is_err());
    }

    #[test]
    fn ages_grow_without_anybody_updating_them() {
        let registry = Registry::new();
        let (metrics, clock) = node(&registry);
        metrics.block(7);
        clock.advance(Duration::from_secs(90));
        let text = encode(&registry).unwrap();
        assert!(text.contains("compute_chain_block_age_seconds 90\n"), "{text}");
        assert!(text.contains("compute_chain_block 7\n"));
        metrics.chain_view(Duration::from_secs(30), true);
        clock.advance(Duration::from_secs(5));
        let text = encode(&registry).unwrap();
        assert!(text.contains("compute_chain_view_age_seconds 35\n") && text.contains("compute_chain_view_stored 1\n"));
        clock.set_ns(0);
        assert!(encode(&registry).unwrap().contains("compute_chain_block_age_seconds 0\n"), "a clock that went back");
    }

    #[test]
    fn neurons_that_are_gone_lose_their_series() {
        let registry = Registry::new();
        let (metrics, _) = node(&registry);
        metrics.scores(&[(Uid(1), 3.5), (Uid(2), 100.0)]);
        metrics.scores(&[(Uid(2), 50.0)]);
        let text = encode(&registry).unwrap();
        assert!(!text.contains(r#"compute_score_points{uid="1"}"#));
        assert!(text.contains("compute_score_points{uid=\"2\"} 50\n"));
        metrics.forget(Uid(2));
        assert!(!encode(&registry).unwrap().contains("compute_score_points{"));
    }

    #[test]
    fn a_chain_that_misreports_cannot_grow_the_series_without_bound() {
        let registry = Registry::new();
        let (metrics, _) = node(&registry);
        let many: Vec<(Uid, f64)> = (0..=u16::MAX).map(|uid| (Uid(uid), 0.1)).collect();
        metrics.weights(&many);
        let text = encode(&registry).unwrap();
        assert_eq!(text.matches("compute_weight_ratio{").count(), crate::telemetry::MAX_UID_SERIES);
    }

    #[test]
    fn a_path_that_a_caller_made_up_is_counted_as_other() {
        let registry = Registry::new();
        let (metrics, _) = node(&registry);
        metrics.axon_request("/../../etc/passwd", "malformed");
        let text = encode(&registry).unwrap();
        assert!(text.contains("compute_axon_requests_total{outcome=\"malformed\",path=\"other\"} 1\n"));
        assert!(!text.contains("passwd"));
    }

    #[test]
    fn the_figures_of_the_process_are_there_once() {
        let registry = Registry::new();
        register_process(&registry).unwrap();
        assert!(encode(&registry).unwrap().contains("process_resident_memory_bytes "));
        assert!(register_process(&registry).is_err());
    }

    #[test]
    fn the_text_of_a_full_subnet_stays_small() {
        let registry = Registry::new();
        let (metrics, _) = node(&registry);
        let all: Vec<(Uid, f64)> = (0..256).map(|uid| (Uid(uid), 1.0 / 256.0)).collect();
        metrics.scores(&all);
        metrics.weights(&all);
        let text = encode(&registry).unwrap();
        assert!(text.len() < 96 * 1024, "{} bytes", text.len());
    }
}
