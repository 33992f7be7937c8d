//! Every metric's name, kind, help and labels, in one place. Nothing else may spell a metric's name.

/// What kind of series a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

macro_rules! metrics {
    ($($variant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        /// A metric that a node exports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Metric { $(#[doc = $help] $variant,)* }
        impl Metric {
            /// Every metric.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),*];
            /// The exported name.
            pub fn name(self) -> &'static str { match self { $(Metric::$variant => $name),* } }
            /// The help text.
            pub fn help(self) -> &'static str { match self { $(Metric::$variant => $help),* } }
            /// The kind of series.
            pub fn kind(self) -> Kind { match self { $(Metric::$variant => Kind::$kind),* } }
            /// The label names, in order.
            pub fn labels(self) -> &'static [&'static str] { match self { $(Metric::$variant => &[$($label),*]),* } }
        }
    };
}

metrics! {
    ActorState = "compute_actor_state", Gauge, ["actor", "state"], "1 for the state the actor is in, 0 for the others.";
    ActorRestarts = "compute_actor_restarts_total", Counter, ["actor", "cause"], "Restarts of the actor by cause.";
    ActorMessages = "compute_actor_messages_total", Counter, ["actor", "message", "outcome"], "Messages by type and outcome.";
    ActorHandling = "compute_actor_handling_seconds", Histogram, ["actor", "message"], "Time from taking a message off the mailbox to its reply.";
    ActorQueueWait = "compute_actor_queue_wait_seconds", Histogram, ["actor"], "Time a message waited in the mailbox.";
    ActorMailboxDepth = "compute_actor_mailbox_depth", Gauge, ["actor"], "Messages admitted and not yet answered.";
    ActorMailboxCapacity = "compute_actor_mailbox_capacity", Gauge, ["actor"], "Messages the actor admits at once.";
    ActorHeartbeatAge = "compute_actor_heartbeat_age_seconds", Gauge, ["actor"], "Time since the actor's last heartbeat.";

    BuildInfo = "compute_build_info", Gauge, ["version", "commit", "role"], "Always 1; what is running is in the labels.";
    UpdateState = "compute_update_state", Gauge, ["state"], "1 for the state the updater is in, 0 for the others.";
    HotkeyConflict = "compute_hotkey_conflict", Gauge, [], "1 since another node was found to act with this hotkey, else 0.";

    ChainBlock = "compute_chain_block", Gauge, [], "Newest block seen, 0 before the first.";
    ChainBlockAge = "compute_chain_block_age_seconds", Gauge, [], "Time since the newest block was seen, since start before the first.";
    ChainFinalizedBlock = "compute_chain_finalized_block", Gauge, [], "Newest finalised block, 0 before the first.";
    ChainReorgs = "compute_chain_reorgs_total", Counter, [], "Times that blocks which were followed had been replaced by others.";
    ChainViewAge = "compute_chain_view_age_seconds", Gauge, [], "Age of what is known of the subnet, since start before anything is; in a view from the database since it was read from the chain.";
    ChainViewStored = "compute_chain_view_stored", Gauge, [], "1 while the subnet is known from the database alone, because the chain was not read since the start, else 0.";
    ChainRpcCalls = "compute_chain_rpc_calls_total", Counter, ["method", "outcome"], "Calls to nodes of the chain by method and outcome.";
    ChainConnections = "compute_chain_connections_total", Counter, ["result"], "Attempts to connect to an endpoint of the chain; ok: it was found to be in order.";
    ChainConnectionsEnded = "compute_chain_connections_ended_total", Counter, ["cause"], "Connections to the chain that were given up, by cause.";
    ChainEndpoint = "compute_chain_endpoint", Gauge, [], "Which endpoint of the chain is in use, counted from 1 in the order of the settings, 0 while none is.";
    ChainHeadAge = "compute_chain_head_age_seconds", Gauge, [], "Time since the endpoint in use told of its newest head, 0 while none is in use.";
    MetagraphNeurons = "compute_metagraph_neurons", Gauge, [], "Neurons in the newest metagraph.";

    NeuronRegistered = "compute_neuron_registered", Gauge, [], "1 while the newest block shows a uid of this hotkey, else 0; 0 before the first block.";
    NeuronUid = "compute_neuron_uid", Gauge, [], "Own uid, -1 without one.";
    NeuronImmuneBlocks = "compute_neuron_immune_blocks", Gauge, [], "Blocks to come in which the own neuron is immune, 0 without one.";
    NeuronReplacedNext = "compute_neuron_replaced_next", Gauge, [], "1 while the next registration would replace the own neuron, else 0.";
    NeuronReplacedBefore = "compute_neuron_replaced_before", Gauge, [], "Neurons that would be replaced before the own one, -1 without one.";
    NeuronOverCut = "compute_neuron_over_cut", Gauge, [], "Own score less that of the other neuron that would be replaced first, in what the chain compares; NaN where there is none.";
    NeuronStake = "compute_neuron_stake", Gauge, [], "Own stake in whole units, 0 without a neuron.";
    NeuronStakeThreshold = "compute_neuron_stake_threshold", Gauge, [], "Least stake for a validator permit and for weights in whole units, 0 where there is none.";
    NeuronValidatorPermit = "compute_neuron_validator_permit", Gauge, [], "1 while this hotkey holds a validator permit, else 0.";
    NeuronShare = "compute_neuron_share_ratio", Gauge, ["of"], "What the last epoch gave the own neuron, 0 to 1; NaN where the chain does not tell.";
    NeuronEmission = "compute_neuron_emission", Gauge, [], "What the own neuron earned in the last epoch, in whole units of the subnet's token; 0 on the ledger.";
    NeuronUpdateAge = "compute_neuron_update_age_blocks", Gauge, [], "Blocks since the own neuron set weights or was registered.";
    NeuronEvents = "compute_neuron_events_total", Counter, ["event"], "What was told of the own neuron, by event.";

    Challenges = "compute_challenge_total", Counter, ["verdict", "reason"], "Judged devices by verdict and reason.";
    ChallengeDuration = "compute_challenge_duration_seconds", Histogram, ["stage"], "Time of a challenge by stage.";
    ChallengeVerifyCpu = "compute_challenge_verify_cpu_seconds", Histogram, [], "CPU time spent to verify one answer.";
    ChallengesInFlight = "compute_challenge_inflight", Gauge, [], "Challenges sent and not yet judged.";
    ChallengeSlot = "compute_challenge_slot", Gauge, ["state"], "1 for where the head is to this validator's own slot, 0 for the others.";
    Memory = "compute_memory_total", Counter, ["verdict", "reason"], "Devices whose memory was judged, by verdict and reason.";
    MemoryDuration = "compute_memory_duration_seconds", Histogram, ["stage"], "Time of a memory proof by stage.";
    MemoryBandwidth = "compute_memory_bandwidth_bytes_per_second", Gauge, ["model"], "Bandwidth of the last memory proof of each model, by the table's name of it.";
    MemorySlot = "compute_memory_slot", Gauge, ["state"], "1 for where the head is to this validator's memory slot, 0 for the others.";
    MemoryRounds = "compute_memory_rounds_total", Counter, ["outcome"], "Rounds of memory proofs that this validator closed, by outcome.";
    MemoryUnproved = "compute_memory_unproved", Gauge, [], "Devices of the last round of memory proofs whose memory was never proved, 0 before the first since the start.";
    Epochs = "compute_epochs_total", Counter, ["outcome"], "Epochs that this validator closed, by outcome.";
    EpochJudged = "compute_epoch_judged", Gauge, [], "Newest epoch that was judged since the start, 0 before the first.";
    Score = "compute_score_points", Gauge, ["uid"], "Score of the miner, 0 to 200.";
    Weight = "compute_weight_ratio", Gauge, ["uid"], "Share of the weights last set, 0 to 1.";
    WeightsSet = "compute_weights_set_total", Counter, ["result"], "Attempts to set weights by result.";
    WeightsEnded = "compute_weights_ended_total", Counter, ["outcome"], "Weights of which the chain showed what became of them, by outcome.";
    WeightsErrors = "compute_weights_errors_total", Counter, ["class", "name"], "Failed calls to the chain for weights, by what they ask for and the error's name.";
    WeightsDivergence = "compute_weights_divergence", Gauge, ["validator_uid"], "1 less the cosine of our weights and those of a validator on the chain, 0 to 1.";
    WeightsWorstDifference = "compute_weights_worst_difference_ratio", Gauge, ["validator_uid"], "Largest difference of one neuron's share between our weights and those of a validator on the chain, 0 to 1.";
    WeightsLastSet = "compute_weights_last_set_timestamp_seconds", Gauge, [], "When weights were last set, in Unix time, 0 if never.";

    Leases = "compute_leases", Gauge, ["state"], "Leases by state.";
    LeaseTransitions = "compute_lease_transitions_total", Counter, ["from", "to"], "State changes of leases.";
    LeaseRecovery = "compute_lease_recovery_total", Counter, ["action"], "What the first comparison after a start did with leases and containers.";
    LeaseProbes = "compute_lease_probes_total", Counter, ["result"], "Own looks at the SSH ports of leases, by result.";
    LeaseHardware = "compute_lease_hardware_total", Counter, ["result"], "Proofs of rented devices, by what they say of the hardware.";
    Rentals = "compute_rentals_total", Counter, ["result"], "Requests for a rental by what came of them.";
    RentalDuration = "compute_rental_duration_seconds", Histogram, [], "Time from a request for a rental until its container runs.";
    RentalCandidates = "compute_rental_candidates_total", Counter, ["outcome"], "Miners asked for a rental by what came of it.";

    EngineStage = "compute_engine_stage_seconds", Histogram, ["stage"], "Time of one stage of making a rented container.";
    ProtectionMissing = "compute_protection_missing", Gauge, ["protection"], "1 while `docker.egress` or `docker.disk_quota` wants a protection of tenants and the machine does not give it, else 0.";
    ImagePulls = "compute_image_pulls_total", Counter, ["outcome"], "Pulls of images that ended.";
    ImagePullsWaiting = "compute_image_pulls_waiting", Gauge, [], "Pulls of images that are under way or wait for their turn.";
    ImagesRemoved = "compute_images_removed_total", Counter, [], "Images removed that a renter's wish had brought and that nobody used any more.";
    Receipts = "compute_receipts_total", Counter, ["outcome"], "Lease receipts: issued, kept or not by the rented miner, and what became of those that miners presented.";

    Canaries = "compute_canary_total", Counter, ["result", "stage"], "Canary rentals by result and by the stage they ended at.";
    CanaryDuration = "compute_canary_duration_seconds", Histogram, ["stage"], "Time of a canary rental by stage.";
    CanaryHeld = "compute_canary_held", Gauge, [], "Canary rentals that have ended and whose devices are perhaps not given back.";
    CanaryRunning = "compute_canary_running", Gauge, [], "1 while a canary rental is under way, else 0.";

    LeaseEnds = "compute_lease_ends_total", Counter, ["reason"], "Leases that ended, by why.";
    LeaseStage = "compute_lease_stage_seconds", Histogram, ["stage"], "Time of a stage of a rental on its miner.";
    EngineCalls = "compute_engine_calls_total", Counter, ["call", "outcome"], "Calls of the container engine, by call and outcome.";
    ContainersSetAside = "compute_containers_set_aside", Gauge, [], "Containers that no record explains and that are kept for whom they may belong to.";
    OrphansDestroyed = "compute_orphans_destroyed_total", Counter, [], "Containers that nobody owned any more and that were destroyed.";

    Maintenance = "compute_maintenance", Gauge, [], "1 while the operator keeps new leases away, else 0.";

    Admissions = "compute_admissions_total", Counter, ["decision", "reason"], "Callers by decision and reason.";
    Penalties = "compute_penalties_in_force", Gauge, ["kind"], "Hotkeys and addresses that are refused by a penalty.";
    PenaltiesGiven = "compute_penalties_total", Counter, ["kind"], "Penalties given since the start, to hotkeys and to addresses.";
    AxonConnections = "compute_axon_connections", Gauge, [], "Open connections to the axon.";
    AxonConnectionsRefused = "compute_axon_connections_refused_total", Counter, [], "Connections to the axon that were closed at once, beyond a limit.";
    AxonLastRequest = "compute_axon_last_request_timestamp_seconds", Gauge, [], "When the last request at the axon from another machine was answered, in Unix time, 0 before the first.";
    AxonAnnounced = "compute_axon_announced", Gauge, ["state"], "1 for what dialling the announced address found last, 0 for the others.";
    AxonRequests = "compute_axon_requests_total", Counter, ["path", "outcome"], "Requests at the axon by path and outcome.";

    JournalQueueDepth = "compute_journal_queue_depth", Gauge, [], "Records waiting for the writer.";
    JournalQueueCapacity = "compute_journal_queue_capacity", Gauge, [], "Records that may wait for the writer.";
    JournalCommit = "compute_journal_commit_seconds", Histogram, [], "Time of one durable commit.";
    JournalDegraded = "compute_journal_degraded", Gauge, [], "1 while nothing can be stored: no new leases, no weights.";

    EvidenceRecords = "compute_evidence_records_total", Counter, [], "Records written to the evidence log.";
    EvidenceBytes = "compute_evidence_bytes", Gauge, [], "Size of the evidence log.";
    EvidenceSegments = "compute_evidence_segments", Gauge, [], "Files of the evidence log.";

    ProverRuns = "compute_prover_runs_total", Counter, ["outcome"], "Runs of a prover by outcome.";
    ProverDuration = "compute_prover_duration_seconds", Histogram, [], "Time of one run of a prover.";

    SpecsAge = "compute_specs_age_seconds", Gauge, [], "Time since this machine was last measured, since start before the first time.";
    Gpus = "compute_gpus", Gauge, [], "NVIDIA GPUs that could be read.";
    GpusFailed = "compute_gpus_failed", Gauge, [], "NVIDIA GPUs that are there and could not be read.";
    DevicesOffered = "compute_devices_offered", Gauge, [], "Devices that this machine offers to prove.";
}
