//! Commands about leases.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::text::{away, columns, now_ms, or_dash, row, time};
use super::{Context, complain, failed, parse};
use crate::exit::Exit;
use crate::lease::Lease;
use crate::lease::reconcile::QuarantineReason;
use crate::messages::miner::allocation_manager::SetAside;
use crate::settings::duration;
use crate::store::records::LeaseEventRecord;
use crate::web::control::api::{LeaseHistory, Leases, RentWish};

/// Largest file that is read as a public key, in bytes.
const MAX_KEY: u64 = 16 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The leases that have not ended; also without a word.
    List,
    /// One lease, ended or not, with its history.
    Show {
        /// The lease.
        id: String,
    },
    /// End a lease, and wait until its container is gone.
    Release {
        /// The lease.
        id: String,
        /// On a miner: against its renter's will. The renting validator sees it with its next check.
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why it is forced.
        #[arg(long, value_name = "TEXT", requires = "force")]
        reason: Option<String>,
        /// Longest wait.
        #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration::parse)]
        timeout: Duration,
    },
}

/// What is rented.
#[derive(Debug, clap::Args)]
pub(super) struct RentArgs {
    /// The file of your public SSH key, for example ~/.ssh/id_ed25519.pub.
    #[arg(long, value_name = "FILE")]
    ssh_key: PathBuf,
    /// Only this model, as `table` shows it.
    #[arg(long)]
    model: Option<String>,
    /// How many devices, all of one miner.
    #[arg(long, default_value_t = 1, value_name = "N")]
    devices: usize,
    /// How long, unless released before.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = duration::parse)]
    duration: Duration,
    /// The container image.
    #[arg(long, default_value = "ubuntu")]
    image: String,
    /// The lease's id, 32 hex digits of your choice: asked again with the same id, the wish is the same one.
    #[arg(long)]
    id: Option<String>,
    /// On whose behalf; by default the validator's own.
    #[arg(long, value_name = "HOTKEY")]
    renter: Option<String>,
    /// Longest wait for the container.
    #[arg(long, default_value = "3m", value_name = "TIME", value_parser = duration::parse)]
    timeout: Duration,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let client = &context.client;
    match args.command.unwrap_or(Command::List) {
        Command::List => {
            let leases = client.leases().await.map_err(|e| failed(&e))?;
            context.answer(&leases, |leases| list_text(leases, now_ms()))
        }
        Command::Show { id } => {
            let history = client.lease(parse(&id, "lease")?).await.map_err(|e| failed(&e))?;
            context.answer(&history, |history| history_text(history, now_ms()))
        }
        Command::Release { id, reason, timeout, .. } => {
            let id = parse(&id, "lease")?;
            let released = match reason {
                Some(reason) => client.force_release(id, &reason, timeout).await,
                None => client.release(id, timeout).await,
            };
            let lease = released.map_err(|e| failed(&e))?;
            context.answer(&lease, |lease| lease_text(lease, now_ms()))
        }
    }
}

pub(super) async fn rent(context: &Context, args: RentArgs) -> Result<(), Exit> {
    let ssh_key = public_key(&args.ssh_key)?;
    let id = args.id.map(|id| parse(&id, "lease id")).transpose()?;
    let renter = match args.renter {
        Some(renter) => parse(&renter, "hotkey")?,
        None => context.client.status().await.map_err(|e| failed(&e))?.hotkey,
    };
    let wish = RentWish {
        id,
        renter,
        model: args.model,
        devices: args.devices,
        duration_s: args.duration.as_secs(),
        image: args.image,
        ssh_key,
    };
    let lease = context.client.rent(&wish, args.timeout).await.map_err(|e| failed(&e))?;
    context.answer(&lease, |lease| lease_text(lease, now_ms()))
}

/// Reads a public key's file. A private key never goes further than this.
fn public_key(path: &std::path::Path) -> Result<String, Exit> {
    use std::io::Read as _;
    let unusable = |why: String| {
        complain(&format!("{} cannot be used as a public SSH key: {why}", path.display()));
        Exit::Usage
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| unusable(e.to_string()))?;
    file.take(MAX_KEY).read_to_string(&mut text).map_err(|e| unusable(e.to_string()))?;
    if text.contains("PRIVATE KEY") {
        return Err(unusable("it is the private key; the public one ends with .pub".to_owned()));
    }
    let key = text.trim();
    if key.is_empty() || key.contains('\n') {
        return Err(unusable("one line in OpenSSH's format is needed".to_owned()));
    }
    Ok(key.to_owned())
}

fn list_text(Leases { leases, set_aside }: &Leases, now_ms: u64) -> String {
    let leases = if leases.is_empty() { "no leases".to_owned() } else { leases_text(leases, now_ms) };
    if set_aside.is_empty() {
        return leases;
    }
    format!("{leases}\n\ncontainers that no lease explains\n{}", set_aside_text(set_aside, now_ms))
}

fn leases_text(leases: &[Lease], now_ms: u64) -> String {
    let mut rows = vec![row(["lease", "state", "devices", "ends", "login", "miner"])];
    for lease in leases {
        let devices: Vec<String> = lease.devices.iter().map(ToString::to_string).collect();
        let login = lease.endpoint.map(|at| format!("{} port {}", at.host, at.ssh_port));
        rows.push(vec![
            lease.id.to_string(),
            lease.state.to_string(),
            devices.join(","),
            away(lease.expires_at_ms, now_ms),
            or_dash(login),
            lease.miner.to_string(),
        ]);
    }
    columns(&rows)
}

fn set_aside_text(set_aside: &[SetAside], now_ms: u64) -> String {
    let mut rows = vec![row(["container", "lease", "devices", "destroyed", "why", "renter"])];
    for container in set_aside {
        let devices: Vec<String> = container.devices.iter().map(ToString::to_string).collect();
        let why = match container.why {
            QuarantineReason::UnknownLease => "unknown lease",
            QuarantineReason::NewerEpoch => "newer than on record",
        };
        rows.push(vec![
            container.container.clone(),
            container.lease.to_string(),
            devices.join(","),
            away(container.until_ms, now_ms),
            why.to_owned(),
            container.renter.to_string(),
        ]);
    }
    columns(&rows)
}

fn lease_text(lease: &Lease, now_ms: u64) -> String {
    let devices: Vec<String> = lease.devices.iter().map(ToString::to_string).collect();
    let end = lease.end.map(|end| format!(" ({})", end.label())).unwrap_or_default();
    let mut rows = vec![
        row(["lease", &lease.id.to_string()]),
        row(["state", &format!("{}{end}", lease.state)]),
        row(["miner", &lease.miner.to_string()]),
        row(["renter", &lease.renter.to_string()]),
        row(["devices", &devices.join(", ")]),
        row(["asked for", &time(lease.requested_at_ms)]),
        row(["ends", &format!("{} ({})", time(lease.expires_at_ms), away(lease.expires_at_ms, now_ms))]),
    ];
    if let Some(ended) = lease.ended_at_ms {
        rows.push(row(["ended", &time(ended)]));
    }
    if let Some(at) = lease.endpoint {
        rows.push(row(["login", &format!("ssh -p {} root@{}", at.ssh_port, at.host)]));
    }
    if let Some(note) = &lease.note {
        rows.push(row(["note", note]));
    }
    columns(&rows)
}

fn history_text(LeaseHistory { lease, history }: &LeaseHistory, now_ms: u64) -> String {
    let mut rows = vec![row(["", "time", "step"])];
    for LeaseEventRecord { seq, event, at_ms, .. } in history {
        let name = event["event"].as_str().map_or_else(|| event.to_string(), str::to_owned);
        let why = event["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
        rows.push(row([&seq.to_string(), &time(*at_ms), &format!("{name}{why}")]));
    }
    format!("{}\n{}", lease_text(lease, now_ms), columns(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hotkey, LeaseId};

    #[test]
    fn containers_that_are_set_aside_are_listed_with_the_time_that_is_left() {
        let none = Leases { leases: Vec::new(), set_aside: Vec::new() };
        assert_eq!(list_text(&none, 0), "no leases");
        let container = SetAside {
            container: "compute-08".to_owned(),
            lease: LeaseId([8; 16]),
            fencing_epoch: 3,
            renter: Hotkey([2; 32]),
            devices: vec![DeviceId::cpu(1)],
            why: QuarantineReason::UnknownLease,
            until_ms: 90_000,
        };
        let text = list_text(&Leases { set_aside: vec![container], ..none }, 30_000);
        for part in ["no leases", "compute-08", &"08".repeat(16), "in 1m", "unknown lease"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_private_key_is_never_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        assert_eq!(public_key(&file("a.pub", "ssh-ed25519 AAAA me\n")).unwrap(), "ssh-ed25519 AAAA me");
        for (name, text) in [("a", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"), ("empty", "\n"), ("two", "a\nb")] {
            assert_eq!(public_key(&file(name, text)).unwrap_err(), Exit::Usage, "{name}");
        }
    }
}
