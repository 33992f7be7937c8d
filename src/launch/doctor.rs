//! `compute-miner doctor`: what this machine can do for rentals, what it cannot, and the command that mends it.
//!
//! [`find`] looks at the machine, `judge` says what that means; `docs/doctor.md` describes the output. What can be tried is tried, and
//! taken away again: a volume is made, rules are given to the kernel to check, ports are bound.

mod elf;
mod engine;
mod judge;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::lines::{Line, Status};
use super::selftest::surroundings;
use super::told::{complain, say};
use super::{DevnetKey, address};
use crate::actors::miner::engine::docker_options;
use crate::exit::Exit;
use crate::hardware::{self, DockerPresence, Probe, Specs};
use crate::host::firewall::{Firewall, resolvers};
use crate::host::quota::{EngineStorage, Quota};
use crate::host::{self, command, firewall};
use crate::ids::Hotkey;
use crate::lease::engine::docker::DockerEngine;
use crate::lease::engine::docker::gpus;
use crate::lease::engine::docker::ports::PortRange;
use crate::settings::{self, Cli, Role, Settings, Source};
use crate::telemetry::error_chain;
use judge::{Busy, Facts, Image, Report, Tried};

/// How long measuring the machine may take; a driver that hangs longer is a finding.
const MEASURE: Duration = Duration::from_secs(30);
/// How long a program may take that only tells something.
const ASK: Duration = Duration::from_secs(5);

/// What is asked for on the command line, behind `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cli: Cli,
}

/// Looks, prints, and says by the exit code whether rentals can run here.
pub(super) fn main(args: Args, before: Cli, devnet: Option<&DevnetKey>) -> Exit {
    let Args { json, cli } = args;
    let loaded = match settings::load(Role::Miner, &before.and(cli), settings::process_env()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain(&problems.to_string());
            let line = Line::ok("settings", problems.to_string());
            let report = Report::of(vec![line.needs(Status::Fail, "put the configuration right first")]);
            say(&report, Report::text, json);
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
    let settings = &loaded.settings;
    let named = ["wallet.name", "wallet.hotkey", "wallet.path"]
        .iter()
        .any(|key| !matches!(loaded.sources.get(*key), None | Some(Source::Embedded)));
    let (hotkey, wallet) = surroundings::hotkey(settings, devnet, named);
    let warned = |warning: &String| Line::ok("settings", "valid").needs(Status::Warn, warning.as_str());
    let mut lines: Vec<Line> = loaded.warnings.iter().map(warned).collect();
    lines.push(wallet);
    let facts = runtime.block_on(find(settings, hotkey.unwrap_or(Hotkey([0; 32]))));
    // A driver that hangs keeps its thread: the answer is there, nobody waits for it.
    runtime.shutdown_background();
    lines.extend(judge::lines(&facts));
    lines.push(surroundings::address(settings, address::own_for(settings.axon.ip)));
    let report = Report::of(lines);
    say(&report, Report::text, json);
    if report.works { Exit::Ok } else { Exit::WouldNotPass }
}

/// Looks at everything.
async fn find(settings: &Settings, miner: Hotkey) -> Facts {
    let options = docker_options(settings, miner, settings.axon.ip, &settings.node.data_dir);
    let probe = Probe { docker_socket: options.socket.clone(), ..Probe::default() };
    let socket = probe.docker_socket.clone();
    let specs = hardware::collect(&probe, MEASURE).await;
    let (driver, gpus) = match &specs {
        Ok(specs) => (driver(specs), specs.gpus.iter().map(|gpu| gpu.name.clone()).collect()),
        Err(error) => (Err(error_chain(error)), Vec::new()),
    };
    let docker = match hardware::docker_presence(&socket, ASK).await {
        DockerPresence::Present { version, api_version } => Ok((version, api_version)),
        absent @ DockerPresence::Absent { .. } => Err(absent.to_string()),
    };
    let info = match &docker {
        Ok(_) => engine::info(&socket).await,
        Err(why) => Err(why.clone()),
    };
    let storage = info.as_ref().map(engine::Info::storage).map_err(Clone::clone);
    let cdi = info.as_ref().ok().and_then(|info| info.cdi_spec_dirs.clone()).unwrap_or_default();
    let volumes = existing(&settings.node.data_dir);
    let mut disks = vec![("disk of tenants", volumes.display().to_string(), host::free(&volumes))];
    if let Ok(storage) = &storage {
        disks.insert(0, ("disk of images", storage.root.display().to_string(), host::free(&storage.root)));
    }
    let image = match (&info, &options.original_image) {
        (Ok(_), Some(_)) => image(DockerEngine::new(options.clone())).await,
        _ => None,
    };
    let sshd = options.sshd;
    Facts {
        root: rustix::process::geteuid().is_root(),
        driver,
        gpus,
        docker,
        toolkit: command::run("nvidia-ctk", &["--version"], "", ASK).await.is_ok(),
        cdi: gpus::described(&cdi).await,
        info,
        quota: match &storage {
            Ok(storage) => quota(&volumes, storage).await,
            Err(why) => Err(why.clone()),
        },
        disks,
        firewall: rules(miner).await,
        sshd: (
            sshd.display().to_string(),
            std::fs::read(&sshd).map(|bytes| elf::program(&bytes)).map_err(|e| e.to_string()),
        ),
        image,
        policies: (settings.docker.disk_quota, settings.docker.egress),
        ports: ports(settings, options.ports),
        clock_synchronised: clock().await,
        memory: specs.ok().and_then(|specs| specs.ram).map(|ram| (ram.total, ram.available)),
        files: {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            limit.current.map(|soft| (soft, limit.maximum.unwrap_or(u64::MAX)))
        },
    }
}

fn driver(specs: &Specs) -> Result<(String, String), String> {
    match (&specs.nvidia.driver_version, &specs.nvidia.cuda_version) {
        (Some(driver), Some(cuda)) => Ok((driver.clone(), cuda.clone())),
        _ => Err(specs.nvidia.status.clone()),
    }
}

/// What would hold a tenant's disk: tried in a directory that is gone afterwards.
async fn quota(near: &Path, storage: &EngineStorage) -> Result<(&'static str, bool), String> {
    let dir = near.join(format!(".doctor-{}", std::process::id()));
    let found = Quota::detect(&dir, storage).await;
    let _ = std::fs::remove_dir(&dir); // there is none where it could not be made
    match found {
        Ok(quota) => Ok((quota.holds(), matches!(quota, Quota::Volumes(_)))),
        Err(error) => Err(error_chain(&error)),
    }
}

/// The image of the original's callers, tried in a container that is gone afterwards.
async fn image(engine: Arc<DockerEngine>) -> Option<Image> {
    let wish = engine.original_image()?.to_owned();
    let found = match engine.try_image(&wish).await {
        Ok(None) => Tried::NotThere,
        Ok(Some(tried)) => tried.verdict.map_or_else(Tried::Lacks, Tried::Fits),
        Err(error) => Tried::Unclear(error_chain(&error)),
    };
    Some(Image { wish, found })
}

async fn rules(miner: Hotkey) -> Result<String, String> {
    let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    match Firewall::detect(miner, resolvers(&conf)).await {
        Ok(found) => Ok(found.backend().to_string()),
        Err(error @ firewall::FirewallError::Unavailable { .. }) => Err(error.to_string()),
        Err(error) => Err(error_chain(&error)),
    }
}

/// The directory, or the nearest above it that there is.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn ports(settings: &Settings, ssh: PortRange) -> Vec<(&'static str, String, &'static str, Option<Busy>)> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let wanted = [
        ("axon port", settings.axon.ip, settings.axon.port, "--axon.port"),
        ("metrics port", settings.metrics.ip, settings.metrics.port, "--metrics.port"),
    ];
    let bound = |address: SocketAddr| match TcpListener::bind(address) {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::AddrInUse => Some(Busy::InUse),
        Err(error) => Some(Busy::Other(error.to_string())),
    };
    let mut found: Vec<_> = wanted
        .map(|(what, ip, port, key)| {
            let address = SocketAddr::new(ip, port);
            (what, address.to_string(), key, bound(address))
        })
        .into();
    // One that is free will do for the next tenant.
    let busy: Vec<Option<Busy>> = ssh.ports().map(|port| bound(SocketAddr::new(any, port))).collect();
    let busy = if busy.contains(&None) { None } else { busy.into_iter().flatten().next() };
    let (what, key) = if settings.docker.ssh_ports.is_some() {
        ("ssh ports", "--docker.ssh_ports")
    } else {
        ("ssh port", "--ssh.port")
    };
    found.push((what, format!("{any}:{ssh}"), key, busy));
    found
}

/// What the system's service for the time says.
async fn clock() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let told = command::run("timedatectl", &["show", "-p", "NTPSynchronized", "--value"], "", ASK).await;
    match told.as_deref().map(str::trim) {
        Ok("yes") => Some(true),
        Ok("no") => Some(false),
        _ => None,
    }
}
