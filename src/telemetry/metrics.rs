//! Typed handles of a node's metrics, apart from the actors' vitals.
//!
//! One per node, registered into the node's own registry; nothing is global. Every series of a closed label set exists
//! from [`NodeMetrics::register`] on. Labels are `&'static str` or closed enums, so outside text cannot make a series;
//! values outside the registered set are counted as `other`. Here is what there is; `tell` has a method for each thing that happens.

mod tell;

use std::sync::Arc;

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, Opts, Registry};

use super::age::AgeGauge;
use super::build::BuildInfo;
use super::events::Recovered;
use super::labels::{Labels, OTHER};
use super::names::Metric;
use super::neuron::NeuronGauges;
use super::rentals::RentalMetrics;
use super::series::{Counts, State, counter, gauge, histogram, histograms, registered};
use super::uids::UidGauge;
use crate::admission::Subject;
use crate::canary::Stage;
use crate::chain::ChainError;
use crate::chain::standing::Change;
use crate::clock::SharedClock;
use crate::host::guard::PROTECTIONS;
use crate::lease::engine::{CALLS, STAGES};
use crate::lease::{EndReason, EngineError, LeaseState};
use crate::verdict::{FailReason, UnknownCause};

/// CPU time of a verification: 0.5 ms to 4 s.
const VERIFY_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0];
/// A challenge's stages and a prover's run: 10 ms to 60 s.
const WORK_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// A stage of making a container: 5 ms to 60 s.
const STAGE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
/// A commit with its sync to disk: 0.1 ms to 2.5 s.
const COMMIT_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

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

        let challenge_stages = labels.challenge_stages.iter().copied();
        let memory_stages = labels.memory_stages.iter().copied();
        let canary_stages = Stage::ALL.iter().map(|stage| stage.label());
        let memory_bandwidth = Opts::new(Metric::MemoryBandwidth.name(), Metric::MemoryBandwidth.help());
        let memory_bandwidth = registered(r, GaugeVec::new(memory_bandwidth, Metric::MemoryBandwidth.labels())?)?;
        let mut requests = Vec::new();
        for path in labels.axon_paths.iter().chain([&OTHER]) {
            requests.extend(labels.axon_outcomes.iter().map(|outcome| vec![*path, *outcome]));
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
            challenge_duration: histograms(r, Metric::ChallengeDuration, WORK_BUCKETS, challenge_stages)?,
            challenge_stages: labels.challenge_stages.clone(),
            verify_cpu: histogram(r, Metric::ChallengeVerifyCpu, VERIFY_BUCKETS)?,
            in_flight: gauge(r, Metric::ChallengesInFlight)?,
            slot: State::new(r, Metric::ChallengeSlot, &labels.challenge_slots)?,
            memory: Counts::new(r, Metric::Memory, verdicts())?,
            memory_duration: histograms(r, Metric::MemoryDuration, WORK_BUCKETS, memory_stages)?,
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
            engine_stage: histograms(r, Metric::EngineStage, STAGE_BUCKETS, STAGES.iter().copied())?,
            protection_missing: State::new(r, Metric::ProtectionMissing, PROTECTIONS)?,
            image_pulls: Counts::new(r, Metric::ImagePulls, singles(&["ok", "failed"]))?,
            image_pulls_waiting: gauge(r, Metric::ImagePullsWaiting)?,
            images_removed: counter(r, Metric::ImagesRemoved)?,
            canaries: Counts::new(r, Metric::Canaries, canaries())?,
            canary_duration: histograms(r, Metric::CanaryDuration, WORK_BUCKETS, canary_stages)?,
            canary_held: gauge(r, Metric::CanaryHeld)?,
            canary_running: gauge(r, Metric::CanaryRunning)?,
            receipts: Counts::new(r, Metric::Receipts, singles(&labels.receipt_outcomes))?,
            rentals: RentalMetrics::register(r)?,
            lease_ends: Counts::new(r, Metric::LeaseEnds, singles(&lease_ends()))?,
            lease_stage: histograms(r, Metric::LeaseStage, WORK_BUCKETS, LEASE_STAGES.iter().copied())?,
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
mod tests;
