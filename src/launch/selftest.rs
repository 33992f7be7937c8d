//! `compute-miner selftest`: what would a validator find? Offline, and with nothing of the running node.
//!
//! [`gather`] looks at the machine and lets its devices prove what a validator would ask; `judge` says what becomes of
//! it, by the validator's own functions; `report` lays it out. `docs/selftest.md` describes the output.

mod judge;
mod memory;
mod prove;
mod report;
pub(super) mod surroundings;

use std::path::Path;
use std::time::Duration;

use super::told::{complain, say};
use super::{DevnetKey, ProverProgram, address};
use crate::actors::miner::node::budget;
use crate::actors::validator::memory_runner::plan::PlannedDevice;
use crate::actors::validator::node::{memories, tables};
use crate::chain::slots::{MAX_SLOTS, SLOT_BLOCKS};
use crate::exit::Exit;
use crate::hardware::{self, OfferedDevice, Probe};
use crate::ids::{DeviceId, Hotkey};
use crate::proof::Work;
use crate::proof::budget::Demand;
use crate::proof::prover::Prover;
use crate::settings::{self, Cli, Loaded, Role, Settings, Source};
use crate::sim::devnet::MEMORY_OFFERED;
use crate::store::read_only::{ReadError, open_read_only};
use crate::store::{self, queries};
use crate::telemetry::error_chain;
use judge::Standard;
use report::{Line, Report, Status};

/// How long measuring the machine may take; a driver that hangs longer is a finding.
const MEASURE: Duration = Duration::from_secs(30);
/// Between two blocks of Bittensor's chains.
const BLOCK: Duration = Duration::from_secs(12);

/// What is asked for on the command line, behind `selftest`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Prove with these devices only, as GPU-UUID or CPU-N.
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    devices: Vec<DeviceId>,
    /// One round and few scans for each device instead of whole proofs: faster, and its rates less exact.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    cli: Cli,
}

/// What of the miner's own command line matters here.
pub(super) struct Input {
    /// The settings before the word `selftest`.
    pub(super) cli: Cli,
    pub(super) devnet: Option<DevnetKey>,
    pub(super) class: Option<String>,
    pub(super) program: ProverProgram,
}

/// Runs the selftest, prints its report, and says by the exit code whether the machine would pass.
pub(super) fn main(args: Args, input: Input) -> Exit {
    let Args { json, devices, quick, cli } = args;
    let cli = input.cli.and(cli);
    let loaded = match settings::load(Role::Miner, &cli, settings::process_env()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain(&problems.to_string());
            let line =
                Line::ok("settings", problems.to_string()).needs(Status::Fail, "put the configuration right first");
            say(&Report::of(vec![line], quick), Report::text, json);
            return problems.exit();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return Exit::Unavailable;
        }
    };
    let asked = Asked { devices, quick, devnet: input.devnet, class: input.class, program: input.program };
    let report = runtime.block_on(gather(&loaded, asked));
    // A driver that hangs keeps its thread: the answer is there, nobody waits for it.
    runtime.shutdown_background();
    say(&report, Report::text, json);
    if report.passes { Exit::Ok } else { Exit::WouldNotPass }
}

/// What to look at.
struct Asked {
    devices: Vec<DeviceId>,
    quick: bool,
    devnet: Option<DevnetKey>,
    class: Option<String>,
    program: ProverProgram,
}

/// Looks at everything, and proves.
async fn gather(loaded: &Loaded, asked: Asked) -> Report {
    let settings = &loaded.settings;
    let mut lines = settings_lines(loaded);
    let named = ["wallet.name", "wallet.hotkey", "wallet.path"]
        .iter()
        .any(|key| !matches!(loaded.sources.get(*key), None | Some(Source::Embedded)));
    let (hotkey, line) = surroundings::hotkey(settings, asked.devnet.as_ref(), named);
    lines.push(line);
    lines.extend(surroundings::ports(settings));
    lines.push(surroundings::address(settings, address::own_for(settings.axon.ip)));

    let specs = hardware::collect(&Probe::default(), MEASURE).await;
    let available = specs.as_ref().ok().and_then(|specs| Some(specs.ram.as_ref()?.available));
    let all = match &specs {
        Ok(specs) => {
            lines.extend(surroundings::engine_and_disk(specs));
            offered(settings, asked.class.as_deref(), specs)
        }
        Err(error) => {
            Err(Line::ok("devices", error.to_string()).needs(Status::Fail, "see what the driver or disk waits for"))
        }
    };
    let chosen = all.and_then(|all| choose(all, &asked.devices, &rented(&settings.node.data_dir)));
    let offered = match chosen {
        Ok((line, offered)) => {
            lines.push(line);
            offered
        }
        Err(line) => {
            lines.push(line);
            Vec::new()
        }
    };
    let (table, works) = match tables(settings) {
        Ok(tables) => tables,
        Err(error) => {
            lines.push(Line::ok("models", error_chain(&error)).needs(Status::Fail, "put scoring.gpus right"));
            return Report::of(lines, asked.quick);
        }
    };
    let standard = Standard { table: &table, works: &works, slot_ns: slot_ns(settings) };
    let jobs = jobs(&standard, &offered);
    let cpus: Vec<Work> =
        jobs.iter().filter(|(device, _)| device.cpu_index().is_some()).map(|(_, work)| *work).collect();
    lines.push(judge::ram(available, &cpus));

    let prover = super::find_device_prover(settings, asked.program);
    let prover = prover.map(|prover| (prover.program().display().to_string(), prover));
    let (line, prover) = starts(prover, offered.first().map(|offer| offer.device)).await;
    lines.push(line);
    let mut report = Report::of(lines, asked.quick);
    // In the order of the jobs, or none at all.
    let proofs = match &prover {
        Some(prover) => {
            let proved = if asked.quick { quick(&jobs) } else { jobs.clone() };
            prove::prove(prover, &proved, &rules(settings, hotkey)).await
        }
        None => Vec::new(),
    };
    let works: Vec<Work> = jobs.iter().map(|(_, work)| *work).collect();
    let demand = |(device, work): &(DeviceId, Work)| match &prover {
        Some(prover) => prover.needs(*device, work),
        None => Demand::of_processor(*work),
    };
    let demands: Vec<Demand> = jobs.iter().map(demand).collect();
    if !works.is_empty() {
        report.lines.push(judge::budget(budget(settings), &demands, whole_ns(&proofs, &works), callers(settings)));
    }
    let asked_memory = memory::asked(&table, &memories(settings), &offered, asked.quick);
    let demand = |planned: &PlannedDevice| match &prover {
        Some(prover) => prover.needs_for_memory(planned.device, &planned.work.size),
        None => Demand::of_own_memory(&planned.work.size),
    };
    let demands: Vec<Demand> = asked_memory.iter().map(demand).collect();
    report.lines.extend(memory::budget(budget(settings), &demands));
    let memory_proofs = match &prover {
        Some(prover) => {
            let fill_timeout = settings.challenge.fill_timeout;
            memory::prove(prover, &asked_memory, &rules(settings, hotkey), fill_timeout).await
        }
        None => Vec::new(),
    };
    judge::devices(&mut report, &standard, &offered, &proofs);
    memory::conclude(&mut report, &memory_proofs);
    report.conclude();
    report
}

fn settings_lines(loaded: &Loaded) -> Vec<Line> {
    if loaded.warnings.is_empty() {
        return vec![Line::ok("settings", "valid")];
    }
    let line = |warning: &String| Line::ok("settings", "valid").needs(Status::Warn, warning.as_str());
    loaded.warnings.iter().map(line).collect()
}

fn rules(settings: &Settings, hotkey: Option<Hotkey>) -> prove::Rules {
    prove::Rules {
        hotkey: hotkey.unwrap_or(Hotkey([0; 32])),
        samples: settings.challenge.samples as usize,
        commit_timeout: settings.challenge.commit_timeout,
        opening_deadline: settings.challenge.opening_deadline,
    }
}

/// How long one validator has: two blocks on Bittensor's chains; on a ledger what its only validator has.
fn slot_ns(settings: &Settings) -> u64 {
    let slot = match settings.subtensor.network.is_ledger() {
        true => settings.devnet.block_time * (u32::from(settings.devnet.tempo) + 1),
        false => BLOCK * u32::try_from(SLOT_BLOCKS).unwrap_or(1),
    };
    u64::try_from(slot.as_nanos()).unwrap_or(u64::MAX)
}

/// Validators that may ask within one window of the budget: one on a ledger, else one in each slot.
fn callers(settings: &Settings) -> u64 {
    if settings.subtensor.network.is_ledger() {
        return 1;
    }
    let slots = settings.budget.window.as_nanos() / BLOCK.as_nanos() / u128::from(SLOT_BLOCKS);
    u64::try_from(slots).unwrap_or(u64::MAX).clamp(1, MAX_SLOTS as u64)
}

/// What the miner would offer: its GPUs, or the CPU as a device of a class.
fn offered(settings: &Settings, class: Option<&str>, specs: &hardware::Specs) -> Result<Vec<OfferedDevice>, Line> {
    if let Some(class) = class {
        super::known_class(settings, class)
            .map_err(|what| Line::ok("devices", what).needs(Status::Fail, "name another with --device-class"))?;
        return Ok(vec![OfferedDevice {
            device: DeviceId::cpu(0),
            model: class.to_owned(),
            memory_bytes: MEMORY_OFFERED,
        }]);
    }
    if !specs.devices.is_empty() {
        return Ok(specs.devices.clone());
    }
    let why = specs.problems.get("gpu").cloned().unwrap_or_else(|| specs.nvidia.status.clone());
    Err(Line::ok("devices", format!("none: {why}")).needs(
        Status::Fail,
        "nothing can be proved without a GPU; on a ledger or a local chain --device-class offers the CPU",
    ))
}

/// The devices that were asked for, of all there are.
fn choose(
    all: Vec<OfferedDevice>,
    wanted: &[DeviceId],
    rented: &Result<Vec<DeviceId>, String>,
) -> Result<(Line, Vec<OfferedDevice>), Line> {
    let there: Vec<String> = all.iter().map(|offer| offer.device.to_string()).collect();
    if let Some(missing) = wanted.iter().find(|device| !all.iter().any(|offer| offer.device == **device)) {
        let line = Line::ok("devices", format!("{missing} is not offered here"));
        return Err(line.needs(Status::Fail, format!("choose of {}", there.join(", "))));
    }
    let rented = match rented {
        Ok(rented) => rented.as_slice(),
        Err(_) if !wanted.is_empty() => &[],
        Err(why) => {
            let line = Line::ok("devices", format!("which of them are rented is not known: {why}"));
            return Err(
                line.needs(Status::Fail, format!("name those that are free with --devices, of {}", there.join(", ")))
            );
        }
    };
    let count = all.len();
    // A tenant's device is left alone, unless it is named.
    let is_chosen =
        |device: &DeviceId| if wanted.is_empty() { !rented.contains(device) } else { wanted.contains(device) };
    let chosen: Vec<OfferedDevice> = all.into_iter().filter(|offer| is_chosen(&offer.device)).collect();
    let line = Line::ok("devices", format!("{} of {count}", chosen.len()));
    if wanted.is_empty() && !rented.is_empty() {
        let remedy = "the rented ones are left alone; wait until they are free, or name them with --devices";
        return Ok((line.needs(Status::Warn, remedy), chosen));
    }
    match chosen.len() < count {
        true => Ok((line.needs(Status::Warn, "a validator asks all of them at once, and scores all of them"), chosen)),
        false => Ok((line, chosen)),
    }
}

/// The devices that the miner of this data directory has rented out, by its database; none where there is no miner yet.
fn rented(data_dir: &Path) -> Result<Vec<DeviceId>, String> {
    let connection = match open_read_only(data_dir) {
        Ok(connection) => connection,
        Err(ReadError::Missing { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error_chain(&error)),
    };
    let leases = queries::live_leases(&connection, store::Role::Miner).map_err(|error| error_chain(&error))?;
    Ok(leases.into_iter().flat_map(|lease| lease.devices).collect())
}

/// What a validator would ask of each device whose model is calibrated.
fn jobs(standard: &Standard<'_>, offered: &[OfferedDevice]) -> Vec<(DeviceId, Work)> {
    offered.iter().filter_map(|offer| Some((offer.device, standard.work(&offer.model)?))).collect()
}

/// One round of each.
fn quick(jobs: &[(DeviceId, Work)]) -> Vec<(DeviceId, Work)> {
    jobs.iter().map(|(device, work)| (*device, Work { rounds: 1, ..*work })).collect()
}

/// How long the whole works take, in nanoseconds, by the proofs of a part of each.
fn whole_ns(proofs: &[prove::Proof], whole: &[Work]) -> u64 {
    let one = |(proof, whole): (&prove::Proof, &Work)| {
        let took = proof.elapsed?.as_nanos() * u128::from(whole.rounds) / u128::from(proof.work.rounds.max(1));
        Some(u64::try_from(took).unwrap_or(u64::MAX))
    };
    proofs.iter().zip(whole).filter_map(one).max().unwrap_or(0)
}

/// Whether the prover is there, starts, and agrees with the definitions.
async fn starts<P: Prover>(prover: Result<(String, P), String>, device: Option<DeviceId>) -> (Line, Option<P>) {
    let (path, prover) = match prover {
        Ok(prover) => prover,
        Err(what) => {
            let line = Line::ok("prover", what);
            return (line.needs(Status::Fail, "install compute-prover beside compute-miner, or set prover.path"), None);
        }
    };
    match prove::agrees(&prover, device).await {
        Ok(vectors) => (Line::ok("prover", format!("starts; {vectors} test vectors hold")).against(path), Some(prover)),
        Err(what) => {
            let line = Line::ok("prover", what).against(path);
            (
                line.needs(
                    Status::Fail,
                    "compute-prover selftest says more; reinstall it, with this program, of one version",
                ),
                None,
            )
        }
    }
}

#[cfg(test)]
mod tests;
