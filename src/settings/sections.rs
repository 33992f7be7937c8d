//! Every setting, by section. `config.yaml` explains each to operators; here are types and limits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::field::section;
use super::leaf::{
    DAY, EngineKind, LogFormat, WeightsMode, file_name, if_given, image_reference, ms, no_colon, port, power_of_two,
    power_of_two_if_given, s, within,
};
use super::network::Network;
use crate::host::Policy;
use crate::ids::{Coldkey, Hotkey, Netuid};
use crate::lease::engine::docker::ports::PortRange;
use crate::lease::engine::docker::subnet::AddressBlock;
use crate::proof::memory::size::{ITERATIONS_RANGE, SCANS_RANGE};
use crate::proof::prover::Backend;
use crate::scoring::RateSource;

section! {
    /// All settings of a node, complete and checked.
    pub struct Settings {
        /// The subnet's number; by network where the configuration has none (finney 27, test 15).
        pub netuid: Netuid,
        /// Where the node keeps what it knows.
        pub node: Node,
        /// What is logged, how and where.
        pub logging: Logging,
        /// Which hotkey the node acts with.
        pub wallet: Wallet,
        /// Which chain, and how it is asked.
        pub subtensor: Subtensor,
        /// Where peers reach the node.
        pub axon: Axon,
        /// Where `/metrics` and the health pages are served.
        pub metrics: Metrics,
        /// How actors are restarted and watched.
        pub supervision: Supervision,
        /// Limits of the miner's prover children.
        pub prover: Prover,
        /// What a miner is willing to compute for challenges.
        pub budget: Budget,
        /// How a validator challenges.
        pub challenge: Challenge,
        /// How specs are measured and collected.
        pub specs: Specs,
        /// How weights are set.
        pub weights: Weights,
        /// How machines are rented.
        pub leases: Leases,
        /// Where rented containers run.
        pub docker: Docker,
        /// Rentals that a validator makes to look at what tenants get.
        pub canary: Canary,
        /// What proved devices are worth.
        pub scoring: Scoring,
        /// Classes of the devnet's CPU devices; empty on every chain but the ledger.
        pub devnet: Devnet,
        /// Who is never admitted.
        pub blacklist: Blacklist,
        /// Who is always admitted.
        pub whitelist: Whitelist,
        /// Rules of the miner.
        pub miner: Miner,
        /// Rules of the validator.
        pub validator: Validator,
        /// Automatic updates.
        pub update: Update,
        /// The node's database.
        pub store: Store,
        /// A validator's evidence log.
        pub evidence: Evidence,
    }
}

section! {
    /// Where the node keeps what it knows.
    pub struct Node {
        /// Directory of the database and the node's other files. `{role}` in it is replaced.
        pub data_dir: PathBuf,
        /// Directory of the locks that keep a hotkey to one node on this machine.
        pub lock_dir: PathBuf,
    }
}

section! {
    /// What is logged, how and where.
    pub struct Logging {
        /// Log at level debug.
        pub debug: bool,
        /// Log at level trace.
        pub trace: bool,
        /// Text or JSON.
        pub format: LogFormat,
        /// Also write the log to a file below `logging_dir`.
        pub record_log: bool,
        /// Directory of log files.
        pub logging_dir: PathBuf,
    }
}

section! {
    /// Which hotkey the node acts with.
    pub struct Wallet {
        /// Name of the wallet: a file name.
        pub name: String [file_name],
        /// Name of the hotkey in it: a file name.
        pub hotkey: String [file_name],
        /// Directory of all wallets.
        pub path: PathBuf,
        /// File with the password of an encrypted hotkey.
        pub password_file: Option<PathBuf>,
    }
}

section! {
    secret
    /// Which chain, and how it is asked.
    pub struct Subtensor {
        /// The network.
        pub network: Network,
        /// Address to dial instead of the network's own.
        pub chain_endpoint: Option<String>,
        /// Further addresses of the same chain, tried in turn when the first fails.
        pub fallback_endpoints: Vec<String>,
        /// Longest wait for one answer of the chain.
        pub request_timeout: Duration [within(ms(100), s(300))],
        /// Time between two looks at the chain's head.
        pub poll_interval: Duration [within(ms(10), s(60))],
    }
}

section! {
    /// Where peers reach a miner.
    pub struct Axon {
        /// Address to listen on.
        pub ip: IpAddr,
        /// Port to listen on.
        pub port: u16 [port],
        /// Address to announce on chain, where it differs.
        pub external_ip: Option<IpAddr>,
        /// Port to announce on chain, where it differs.
        pub external_port: Option<u16> [if_given(1025, 65534)],
        /// Whether addresses that only reach this machine or site may be announced; none = on a ledger and on local chains.
        pub allow_private: Option<bool>,
        /// Services that tell the address this machine is seen at; without any, none is asked.
        pub ip_resolvers: Vec<String>,
        /// The version announced with axon and metrics.
        pub version: u32,
        /// Admitted requests worked on at the same time.
        pub max_workers: usize [within(1, 1024)],
        /// Largest request body, bytes.
        pub max_body_bytes: usize [within(1024, 16 << 20)],
        /// Longest wait for a request's head, and for its body.
        pub read_timeout: Duration [within(ms(100), s(120))],
        /// Accept requests under `btauth/1`.
        pub accept_btauth: bool,
        /// Accept requests under the scheme of SDK 6 to 10, for the original's synapses.
        pub accept_classic: bool,
        /// The part of a classic request's own timeout that counts for its freshness.
        pub classic_max_timeout: Duration [within(s(0), s(600))],
        /// Headers of one request.
        pub max_headers: usize [within(24, 96)],
        /// Names and values of a request's headers together, bytes.
        pub max_header_bytes: usize [within(2048, 65_536)],
        /// Connections at once.
        pub max_connections: usize [within(8, 65_536)],
        /// Connections at once from one address.
        pub max_connections_per_ip: usize [within(1, 65_536)],
        /// Requests a second from one address; 0 = no limit.
        pub rate_per_ip: u32 [within(0, 1_000_000)],
        /// Requests at once from one address after a silence.
        pub burst_per_ip: u32 [within(1, 1_000_000)],
        /// Requests a second that one hotkey signed; 0 = no limit.
        pub rate_per_hotkey: u32 [within(0, 1_000_000)],
        /// Requests at once of one hotkey after a silence.
        pub burst_per_hotkey: u32 [within(1, 1_000_000)],
        /// Nonces remembered, for each of the two schemes.
        pub nonces: usize [within(1024, 16 << 20)],
        /// Nonces of one hotkey remembered, for each of the two schemes.
        pub nonces_per_hotkey: usize [within(16, 16 << 20)],
    }
}

section! {
    /// Where `/metrics` and the health pages are served.
    pub struct Metrics {
        /// Address to listen on.
        pub ip: IpAddr,
        /// Port to listen on.
        pub port: u16 [port],
    }
}

section! {
    /// How actors are restarted and watched.
    pub struct Supervision {
        /// Wait before the first restart; doubles with each further one.
        pub backoff_first: Duration [within(ms(1), s(60))],
        /// Longest wait before a restart.
        pub backoff_cap: Duration [within(ms(1), s(3600))],
        /// Failures of one actor within `window` after which the node gives up.
        pub max_failures: u32 [within(1, 1000)],
        /// See `max_failures`.
        pub window: Duration [within(s(1), s(DAY))],
        /// Share of a wait that is random, 0 to 1.
        pub jitter: f64 [within(0.0, 1.0)],
        /// Time between two heartbeats of an actor.
        pub heartbeat: Duration [within(ms(10), s(60))],
        /// Silence after which an actor is probed.
        pub silence_limit: Duration [within(ms(50), s(600))],
        /// Longest wait for the probe's answer; none means that the actor's thread is blocked.
        pub probe_timeout: Duration [within(ms(10), s(60))],
        /// Longest time an actor may take to finish its work at shutdown.
        pub drain_timeout: Duration [within(ms(10), s(600))],
        /// Longest time that all actors together may take to finish requests and work at shutdown.
        pub shutdown_timeout: Duration [within(ms(10), s(3600))],
        /// Messages an actor admits at once.
        pub mailbox: usize [within(1, 65_536)],
    }
}

section! {
    /// Limits of the miner's prover children.
    pub struct Prover {
        /// The prover's executable; none = `compute-prover` beside the node's own.
        pub path: Option<PathBuf>,
        /// What computes: for each device what it needs, or the processor or CUDA for all.
        pub backend: Backend,
        /// Directories where CUDA's libraries are looked for first; none = the node's own `LD_LIBRARY_PATH`.
        pub library_path: Vec<PathBuf> [|paths: &Vec<PathBuf>| no_colon(paths)],
        /// Longest run of one child.
        pub time_limit: Duration [within(s(1), s(3600))],
        /// Memory of one child on this machine, MiB: address space, or for GPUs private writable mappings.
        pub memory_limit_mib: u64 [within(64, 4 << 20)],
        /// What one child may write, MiB.
        pub output_limit_mib: u64 [within(1, 4096)],
        /// Threads of one child; 0 = cores ÷ miners of this process.
        pub threads: usize [within(0, 1024)],
    }
}

section! {
    /// What a miner is willing to compute for challenges.
    pub struct Budget {
        /// The time that `time` and `challenges_per_hotkey` are counted over.
        pub window: Duration [within(s(1), s(DAY))],
        /// Operations (2n²k·rounds, all devices) of one challenge.
        pub operations: u64 [within(1_000_000, u64::MAX)],
        /// Memory of one challenge, MiB.
        pub memory_mib: u64 [within(16, 4 << 20)],
        /// Proving time per window.
        pub time: Duration [within(ms(100), s(DAY))],
        /// Challenges of one hotkey per window.
        pub challenges_per_hotkey: u32 [within(1, 10_000)],
    }
}

section! {
    /// How a validator challenges.
    pub struct Challenge {
        /// Openings drawn per device.
        pub samples: u32 [within(1, 1024)],
        /// Longest wait for the roots.
        pub commit_timeout: Duration [within(s(1), s(600))],
        /// Longest wait until all memory of a challenge is filled, and longest that filled memory waits for its scans.
        pub fill_timeout: Duration [within(s(1), s(600))],
        /// Time after the roots within which the openings must be there.
        pub opening_deadline: Duration [within(s(1), s(600))],
        /// Epochs that a pass lasts.
        pub pass_lifetime_epochs: u64 [within(1, 100)],
        /// Misses in a row that are a fail.
        pub unresponsive_after: u32 [within(1, 100)],
        /// K: fails among the last N judgements of a device that bring a penalty.
        pub penalty_fails: u32 [within(1, 64)],
        /// N: judgements looked at.
        pub penalty_window: u32 [within(1, 64)],
        /// How long a penalty lasts; none at 0.
        pub penalty: Duration [within(s(0), s(30 * DAY))],
    }
}

section! {
    /// How specs are measured and collected.
    pub struct Specs {
        /// Longest wait for one miner's specs, or for its word on a running lease.
        pub timeout: Duration [within(ms(100), s(120))],
        /// Miner: time between two measurements of this machine.
        pub refresh: Duration [within(s(1), s(DAY))],
    }
}

section! {
    /// How weights are set.
    pub struct Weights {
        /// Whether they are sent.
        pub mode: WeightsMode,
        /// Blocks between two settings.
        pub interval_blocks: u64 [within(1, 100_000)],
        /// Version key sent with the weights.
        pub version_key: u64,
        /// The subnet's mechanism that they are for.
        pub mechanism: u8 [within(0, 15)],
        /// Share that goes to one neuron before the rest is divided.
        pub burn_share: f64 [within(0.0, 1.0)],
        /// That neuron; `None`: the subnet owner's hotkey.
        pub burn_uid: Option<u16>,
        /// Wait after the first failed attempt; doubles.
        pub retry_first: Duration [within(ms(10), s(3600))],
        /// Longest wait between attempts.
        pub retry_cap: Duration [within(ms(10), s(DAY))],
        /// Longest wait until the chain shows the weights.
        pub confirm_timeout: Duration [within(s(1), s(3600))],
    }
}

section! {
    /// How machines are rented.
    pub struct Leases {
        /// Longest lease.
        pub max_duration: Duration [within(s(60), s(3650 * DAY))],
        /// Longest lease of a caller of the original's protocol; zero: none.
        pub original_max_duration: Duration [within(s(0), s(3650 * DAY))],
        /// Longest lease of such a caller that only tests the machine.
        pub test_duration: Duration [within(s(60), s(DAY))],
        /// Whether callers of the original's protocol may log in with a password.
        pub original_password: bool,
        /// The image for those of them who ask for none; empty: the engine's default.
        pub original_image: String,
        /// Longest wait for a miner to start or release a container.
        pub request_timeout: Duration [within(s(1), s(600))],
        /// Time between two checks of a running lease.
        pub health_interval: Duration [within(ms(100), s(3600))],
        /// K: misses among the last N checks that lose a lease.
        pub misses_to_lose: u8 [within(1, 255)],
        /// N: checks looked at.
        pub of_checks: u8 [within(1, 255)],
        /// Time after the end before a container without a record is removed, and before an unconfirmed release is given up.
        pub grace: Duration [within(s(0), s(DAY))],
        /// Whether the validator dials the SSH ports of its leases; none: yes, but not on a local chain.
        pub ssh_probe: Option<bool>,
        /// Most miners asked for one rental.
        pub candidates: u32 [within(1, 16)],
        /// Time after which no further miner is asked for a rental.
        pub rent_timeout: Duration [within(s(1), s(600))],
        /// Time in which a miner's trouble halves.
        pub trouble_half_life: Duration [within(s(60), s(30 * DAY))],
        /// Epochs whose proofs must show that rented hardware was changed.
        pub hardware_confirmations: u8 [within(1, 255)],
    }
}

section! {
    /// Rentals that a validator makes to look at what tenants get.
    pub struct Canary {
        /// Time between two canaries of a miner; zero for none at all.
        pub interval: Duration [within(s(0), s(365 * DAY))],
        /// Time until a miner whose canary did not pass has another.
        pub retry: Duration [within(s(10), s(30 * DAY))],
        /// The most canaries that are begun in one epoch.
        pub per_epoch: u32 [within(1, 256)],
        /// The prover that is uploaded; none = `compute-prover` beside the program.
        pub prover: Option<PathBuf>,
        /// Images that canaries ask for, one of them drawn for each; an empty one is the miner's own.
        pub images: Vec<String>,
        /// Whether miners that speak only the original's protocol are rented too.
        pub original: bool,
        /// Longest login.
        pub login_timeout: Duration [within(s(1), s(600))],
        /// Longest upload.
        pub upload_timeout: Duration [within(s(1), s(3600))],
        /// Longest run, from the program's start to the last root.
        pub run_timeout: Duration [within(s(1), s(3600))],
    }
}

section! {
    /// Where rented containers run, what they may use, and which images.
    pub struct Docker {
        /// Which engine.
        pub engine: EngineKind,
        /// Its Unix socket; none = `DOCKER_HOST`'s, else the usual one.
        pub socket: Option<PathBuf>,
        /// The SSH server that is put into containers; none = beside this program.
        pub sshd: Option<PathBuf>,
        /// Ports at which SSH servers are published; none = `miner.ssh_port`.
        pub ssh_ports: Option<PortRange>,
        /// Longest wait for an SSH server after its container's start.
        pub ssh_ready: Duration [within(s(1), s(300))],
        /// The engine's runtime; none = its own choice.
        pub runtime: Option<String>,
        /// Addresses of containers' networks.
        pub subnets: AddressBlock,
        /// Part of the processor time that leases may use.
        pub cpu_share: f64 [within(0.01, 1.0)],
        /// Part of the memory that leases may use.
        pub memory_share: f64 [within(0.01, 1.0)],
        /// Part of a lease's memory that may be shared memory.
        pub shm_share: f64 [within(0.01, 1.0)],
        /// Processes and threads of one lease.
        pub pids: u32 [within(64, 4_194_304)],
        /// What a lease may write for each of its devices, GiB.
        pub disk_gib: u64 [within(1, 65_536)],
        /// What becomes of rentals where nothing limits what they write.
        pub disk_quota: Policy,
        /// What becomes of rentals where no rules hold what they reach.
        pub egress: Policy,
        /// Images by name.
        pub images: BTreeMap<String, ImageRow>,
        /// The image of renters that ask for none.
        pub default_image: Option<String>,
        /// Repositories of which renters may name any image.
        pub allow: Vec<String>,
        /// Whether such a renter must say the digest.
        pub require_digest: bool,
        /// Largest image, GiB.
        pub max_image_gib: u64 [within(1, 1024)],
        /// Longest pull.
        pub pull_timeout: Duration [within(s(10), s(DAY))],
        /// How long a renter's request waits for one.
        pub pull_wait: Duration [within(s(0), s(300))],
    }
}

section! {
    /// An image.
    pub struct ImageRow {
        /// Where it is: registry, path, and tag or digest.
        pub reference: String [image_reference],
    }
}

section! {
    /// What proved devices are worth.
    pub struct Scoring {
        /// Points added while this validator rents one of the miner's devices.
        pub allocated_bonus: f64 [within(0.0, 1000.0)],
        /// Stake that a validator needs so that its lease receipts count, in whole units of the subnet's stake.
        pub receipt_min_stake: f64 [within(0.0, 21e6)],
        /// Receipts of one validator for the miners of one coldkey that count.
        pub receipts_per_coldkey: u32 [within(0, 256)],
        /// Devices of one machine that count.
        pub max_devices: u32 [within(1, 64)],
        /// The GPU table, by NVML's name.
        pub gpus: BTreeMap<String, GpuRow>,
    }
}

section! {
    /// One GPU model.
    pub struct GpuRow {
        /// Base score of one card at its full rate.
        pub base: f64 [within(0.0, 1000.0)],
        /// Where the rates come from; none where there are none.
        pub source: Option<RateSource>,
        /// The highest rate of a card, 10¹² operations a second: the data sheet's dense peak; none = nominal.
        pub peak_tops: Option<f64> [if_given(0.001, 1e6)],
        /// Rate of an honest card, 10¹² operations a second; none = unknown, the model is uncalibrated.
        pub nominal_tops: Option<f64> [if_given(0.001, 1e6)],
        /// Rate below which a claim of this model fails, 10¹² operations a second.
        pub floor_tops: Option<f64> [if_given(0.001, 1e6)],
        /// Memory, GiB.
        pub memory_gib: Option<f64> [if_given(0.1, 1e5)],
        /// Memory that a claim of this model needs, GiB.
        pub floor_memory_gib: Option<f64> [if_given(0.1, 1e5)],
        /// Memory bandwidth, 10⁹ bytes a second.
        pub bandwidth_gbs: Option<f64> [if_given(0.1, 1e6)],
        /// Memory bandwidth that a claim of this model needs, 10⁹ bytes a second.
        pub floor_bandwidth_gbs: Option<f64> [if_given(0.1, 1e6)],
        /// Iterations of each block of a memory proof; none: no memory is proved.
        pub memory_iterations: Option<u32> [power_of_two_if_given(ITERATIONS_RANGE.0, ITERATIONS_RANGE.1)],
        /// Other names of the same model.
        pub aliases: Vec<String>,
        /// The models that no floor separates from this one.
        pub twins: Vec<String>,
    }
}

section! {
    /// Classes of the devnet's CPU devices.
    pub struct Devnet {
        /// Time between two blocks of the ledger.
        pub block_time: Duration [within(ms(10), s(600))],
        /// Blocks of one epoch, less one.
        pub tempo: u16 [within(1, 10_000)],
        /// Whether weights are committed first and revealed an epoch later.
        pub commit_reveal: bool,
        /// Classes by name.
        pub gpu_scores: BTreeMap<String, DeviceClass>,
    }
}

section! {
    /// A class of CPU devices on a devnet. It has no rates: floors are off, credit is the base.
    pub struct DeviceClass {
        /// Base score.
        pub base: f64 [within(0.0, 1000.0)],
        /// Rows and columns of the product.
        pub n: u32 [power_of_two(32, 131_072)],
        /// Inner dimension.
        pub k: u32 [power_of_two(64, 65_536)],
        /// Rounds.
        pub rounds: u32 [within(1, 256)],
        /// Blocks of 1 KiB of a memory proof; none: no memory is proved.
        pub memory_blocks: Option<u32>,
        /// Iterations of each of them.
        pub memory_iterations: Option<u32> [power_of_two_if_given(ITERATIONS_RANGE.0, ITERATIONS_RANGE.1)],
        /// Scans of a memory proof.
        pub memory_scans: Option<u32> [if_given(SCANS_RANGE.0, SCANS_RANGE.1)],
    }
}

section! {
    /// Who is never admitted.
    pub struct Blacklist {
        /// Whether the lists of exploiters apply.
        pub exploiters: bool,
        /// Known exploiters.
        pub exploiter_hotkeys: Vec<Hotkey>,
        /// Owners of known exploiters.
        pub exploiter_coldkeys: Vec<Coldkey>,
        /// The operator's own list.
        pub hotkeys: Vec<Hotkey>,
        /// The operator's own list of owners.
        pub coldkeys: Vec<Coldkey>,
        /// The time that the limits below are counted over.
        pub anomaly_window: Duration [within(s(1), s(3600))],
        /// Bad signatures of one address per window; 0 = no limit.
        pub max_bad_signatures: u64,
        /// Replays of one address per window; 0 = no limit.
        pub max_replays: u64,
        /// Signed requests of one hotkey per window whose body cannot be read; 0 = no limit.
        pub max_malformed: u64,
        /// How long going beyond a limit is punished; none at 0.
        pub anomaly_penalty: Duration [within(s(0), s(30 * DAY))],
    }
}

section! {
    /// Who is always admitted.
    pub struct Whitelist {
        /// The operator's own list.
        pub hotkeys: Vec<Hotkey>,
        /// The operator's own list of owners.
        pub coldkeys: Vec<Coldkey>,
        /// Validators that the subnet trusts.
        pub trusted_hotkeys: Vec<Hotkey>,
    }
}

section! {
    /// Rules of the miner.
    pub struct Miner {
        /// Serve callers below `min_stake` too.
        pub whitelist_not_enough_stake: bool,
        /// Stake a caller needs, in whole units of the subnet's stake.
        pub min_stake: f64 [within(0.0, 21e6)],
        /// Whether a caller needs a validator permit beside the stake.
        pub require_permit: bool,
        /// Serve callers below `update.minimal_validator_version` too.
        pub whitelist_not_updated: bool,
        /// Share of validators, in percent, above which those below the least version are refused.
        pub whitelist_updated_threshold: u8 [within(0, 100)],
        /// Port of the containers' SSH server, as callers of the original's protocol are told.
        pub ssh_port: u16 [port],
    }
}

section! {
    /// Rules of the validator.
    pub struct Validator {
        /// Ask miners for their specs.
        pub perform_hardware_query: bool,
        /// Miners challenged at the same time.
        pub challenge_batch_size: usize [within(1, 4096)],
        /// Miners asked for specs at the same time.
        pub specs_batch_size: usize [within(1, 4096)],
        /// Announce the metrics address once after the start even if the chain has it.
        pub force_update_prometheus: bool,
        /// Challenge and set weights only while the hotkey holds a validator permit.
        pub require_permit: bool,
        /// Query only the first uid of each address.
        pub one_ip_per_uid: bool,
        /// Query miners that announce no version too.
        pub whitelist_unrecognized: bool,
        /// Share of miners, in percent, above which those below the least version are not queried.
        pub whitelist_updated_threshold: u8 [within(0, 100)],
    }
}

section! {
    /// Automatic updates.
    pub struct Update {
        /// Whether to update.
        pub auto_update: bool,
        /// Time between two looks for a new version.
        pub interval: Duration [within(s(60), s(30 * DAY))],
        /// Least version of miners, in the original's whole-number form; 0 asks for none.
        pub minimal_miner_version: u32,
        /// Least version of validators; 0 asks for none.
        pub minimal_validator_version: u32,
    }
}

section! {
    /// A validator's evidence log.
    pub struct Evidence {
        /// Size of a segment, in MiB; the next one begins with the epoch after.
        pub segment_mib: u64 [within(1, 1024)],
        /// Size of all segments together, in MiB, beyond which the oldest are deleted.
        pub keep_mib: u64 [within(2, 1 << 20)],
    }
}

section! {
    /// The node's database.
    pub struct Store {
        /// Longest wait for another process that holds the database.
        pub busy_timeout: Duration [within(ms(10), s(60))],
        /// Records waiting to be written, at most.
        pub queue: usize [within(16, 1 << 20)],
        /// Records written in one transaction, at most.
        pub group_commit: usize [within(1, 65_536)],
    }
}
