//! `list` and `release`: leases of a validator or a miner. `pause`, `resume`, `restart`, `key` and `renew`: what a renter has done with
//! its running lease.

use std::path::PathBuf;
use std::time::Duration;

use super::text::{away, columns, now_ms, or_dash, row, time};
use super::{Context, failed, parse};
use super::{allocate, login};
use crate::exit::Exit;
use crate::lease::reconcile::QuarantineReason;
use crate::lease::{EndReason, Lease, LeaseState};
use crate::messages::miner::allocation_manager::SetAside;
use crate::settings::duration;
use crate::store::records::LeaseEventRecord;
use crate::web::control::api::{LeaseHistory, Leases, RenewWish};
use crate::wire::synapse::LeaseChange;

/// For so long an end that its renter did not want is shown without being asked for.
const TOLD: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// One lease, ended or not, with its history.
    id: Option<String>,
    /// Also those that ended, the latest first.
    #[arg(long, conflicts_with = "id")]
    ended: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArgs {
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
}

#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    /// The lease.
    id: String,
    /// Longest wait.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration::parse)]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    lease: ChangeArgs,
    /// The file of the public SSH key that logs in from now on; the former one does not.
    #[arg(long, value_name = "FILE", required_unless_present = "no_terminal")]
    ssh_key: Option<PathBuf>,
    /// It is a second key, which logs in beside the renter's own.
    #[arg(long)]
    terminal: bool,
    /// No second key logs in any more.
    #[arg(long, conflicts_with_all = ["ssh_key", "terminal"])]
    no_terminal: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    lease: ChangeArgs,
    /// How long it lasts from now on, longer than it would.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Duration,
}

pub(super) async fn change(context: &Context, args: ChangeArgs, change: LeaseChange) -> Result<(), Exit> {
    let id = parse(&args.id, "lease")?;
    let lease = context.client.change(id, &change, args.timeout).await.map_err(|e| failed(&e))?;
    context.answer(&lease, |lease| lease_text(lease, now_ms()))
}

pub(super) async fn key(context: &Context, args: KeyArgs) -> Result<(), Exit> {
    let ssh_key = args.ssh_key.as_deref().map(allocate::public_key).transpose()?;
    let wish = match ssh_key {
        Some(ssh_key) if !args.terminal => LeaseChange::UserKey { ssh_key },
        ssh_key => LeaseChange::TerminalKey { ssh_key },
    };
    change(context, args.lease, wish).await
}

pub(super) async fn renew(context: &Context, args: RenewArgs) -> Result<(), Exit> {
    let id = parse(&args.lease.id, "lease")?;
    let wish = RenewWish { duration_s: args.duration.as_secs() };
    let lease = context.client.renew(id, &wish, args.lease.timeout).await.map_err(|e| failed(&e))?;
    context.answer(&lease, |lease| lease_text(lease, now_ms()))
}

pub(super) async fn list(context: &Context, args: ListArgs) -> Result<(), Exit> {
    if let Some(id) = args.id {
        let history = context.client.lease(parse(&id, "lease")?).await.map_err(|e| failed(&e))?;
        return context.answer(&history, |history| history_text(history, now_ms()));
    }
    let leases = context.client.leases().await.map_err(|e| failed(&e))?;
    context.answer(&leases, |leases| list_text(leases, args.ended, now_ms()))
}

pub(super) async fn release(context: &Context, args: ReleaseArgs) -> Result<(), Exit> {
    let id = parse(&args.id, "lease")?;
    let released = match args.reason {
        Some(reason) => context.client.force_release(id, &reason, args.timeout).await,
        None => context.client.release(id, args.timeout).await,
    };
    let lease = released.map_err(|e| failed(&e))?;
    login::forget(&context.dir, id);
    context.answer(&lease, |lease| lease_text(lease, now_ms()))
}

fn list_text(Leases { leases, ended, set_aside }: &Leases, all: bool, now_ms: u64) -> String {
    let mut parts = vec![if leases.is_empty() { "no leases".to_owned() } else { leases_text(leases, now_ms) }];
    let told = |lease: &&Lease| {
        let since = Duration::from_millis(now_ms.saturating_sub(lease.ended_at_ms.unwrap_or(0)));
        all || (is_unwanted(lease) && since <= TOLD)
    };
    let ended: Vec<&Lease> = ended.iter().filter(told).collect();
    if !ended.is_empty() {
        let heading = if all { "ended" } else { "ended in the last 24 hours, not by their renters" };
        parts.push(format!("{heading}\n{}", ended_text(&ended, now_ms)));
    }
    if !set_aside.is_empty() {
        parts.push(format!("containers that no lease explains\n{}", set_aside_text(set_aside, now_ms)));
    }
    let parts: Vec<&str> = parts.iter().map(|part| part.trim_end()).collect();
    parts.join("\n\n")
}

/// Whether a lease that had begun ended otherwise than its renter knew.
fn is_unwanted(lease: &Lease) -> bool {
    let wanted = matches!(lease.end, Some(EndReason::Returned | EndReason::Expired));
    lease.began_at_ms.is_some() && (lease.state == LeaseState::Lost || !wanted)
}

/// `2 × NVIDIA H200`, where that is on record; else the devices.
fn hardware(lease: &Lease) -> String {
    let models: Vec<&str> =
        lease.proved.iter().filter(|p| lease.devices.contains(&p.device)).map(|p| p.model.as_str()).collect();
    match models.as_slice() {
        [first, rest @ ..] if rest.iter().all(|model| model == first) && models.len() == lease.devices.len() => {
            format!("{} × {first}", models.len())
        }
        _ => lease.devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

fn leases_text(leases: &[Lease], now_ms: u64) -> String {
    let mut rows = vec![row(["lease", "state", "devices", "ends", "login", "miner"])];
    for lease in leases {
        let login = lease.endpoint.map(|at| format!("{} port {}", at.host, at.ssh_port));
        rows.push(vec![
            lease.id.to_string(),
            lease.state.to_string(),
            hardware(lease),
            away(lease.expires_at_ms, now_ms),
            or_dash(login),
            lease.miner.to_string(),
        ]);
    }
    columns(&rows)
}

fn ended_text(leases: &[&Lease], now_ms: u64) -> String {
    let mut rows = vec![row(["lease", "state", "why", "ended", "note"])];
    for lease in leases {
        rows.push(vec![
            lease.id.to_string(),
            lease.state.to_string(),
            or_dash(lease.end.map(EndReason::label)),
            lease.ended_at_ms.map_or_else(|| "-".to_owned(), |at| away(at, now_ms)),
            or_dash(lease.note.as_deref()),
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
            QuarantineReason::LostLease => "lost, and back",
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

/// One lease, a line for each thing there is to say.
pub(super) fn lease_text(lease: &Lease, now_ms: u64) -> String {
    let devices: Vec<String> = lease.devices.iter().map(ToString::to_string).collect();
    let end = lease.end.map(|end| format!(" ({})", end.label())).unwrap_or_default();
    let mut rows = vec![
        row(["lease", &lease.id.to_string()]),
        row(["state", &format!("{}{end}", lease.state)]),
        row(["miner", &lease.miner.to_string()]),
        row(["renter", &lease.renter.to_string()]),
        row(["devices", &devices.join(", ")]),
        row(["hardware", &hardware(lease)]),
    ];
    rows.truncate(if lease.proved.is_empty() { 5 } else { 6 });
    if !lease.image.is_empty() {
        rows.push(row(["image", &lease.image]));
    }
    rows.push(row(["asked for", &time(lease.requested_at_ms)]));
    rows.push(row(["ends", &format!("{} ({})", time(lease.expires_at_ms), away(lease.expires_at_ms, now_ms))]));
    if let Some(ended) = lease.ended_at_ms {
        rows.push(row(["ended", &time(ended)]));
    }
    if let Some(at) = lease.endpoint {
        rows.push(row(["login", &format!("{} port {}", at.host, at.ssh_port)]));
    }
    if let Some(key) = &lease.host_key {
        rows.push(row(["host key", key]));
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
        let miner = event["miner"].as_str().map(|miner| format!(" to {miner}")).unwrap_or_default();
        rows.push(row([&seq.to_string(), &time(*at_ms), &format!("{name}{why}{miner}")]));
    }
    format!("{}\n{}", lease_text(lease, now_ms), columns(&rows))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};
    use crate::lease::{ContainerState, Endpoint, Event, LeaseTerms, ProvedDevice, Role, apply};

    /// A lease of two cards that runs since minute 1.
    pub(in crate::register) fn running() -> Lease {
        let terms = LeaseTerms {
            id: LeaseId([7; 16]),
            role: Role::Renter,
            fencing_epoch: 1,
            renter: Hotkey([1; 32]),
            miner: Hotkey([2; 32]),
            devices: vec![DeviceId([1; 16]), DeviceId([2; 16])],
            expires_at_ms: 3_660_000,
            owner_token_digest: Hash32([0; 32]),
            ssh_public_key: None,
            image: "ubuntu:24.04".into(),
            wish: None,
            unheard: false,
        };
        let proved = |n| ProvedDevice { device: DeviceId([n; 16]), model: "NVIDIA H200".into() };
        let endpoint = Some(Endpoint { host: "203.0.113.7".parse().unwrap(), ssh_port: 40_022 });
        let host_key = Some("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA".to_owned());
        let events = [
            Event::Proved { devices: (1..4).map(proved).collect() },
            Event::Reserved,
            Event::Started { container: "c".into(), endpoint, host_key, at_ms: 60_000 },
        ];
        events.iter().fold(Lease::open(&terms, 0), |lease, event| apply(&lease, event).unwrap())
    }

    fn ended(n: u8, events: &[Event]) -> Lease {
        let lease = Lease { id: LeaseId([n; 16]), ..running() };
        events.iter().fold(lease, |lease, event| apply(&lease, event).unwrap())
    }

    #[test]
    fn an_end_that_its_renter_did_not_want_is_shown_for_a_day_with_what_was_seen() {
        let over = Event::Destroyed { at_ms: 120_000 };
        let note = "GPU-01010101-0101-0101-0101-010101010101, rented as NVIDIA H200: it was proved as NVIDIA L40";
        let changed = ended(
            8,
            &[
                Event::Noted { note: note.into() },
                Event::ReleaseWanted { why: EndReason::HardwareChanged },
                over.clone(),
            ],
        );
        let returned = ended(9, &[Event::ReleaseWanted { why: EndReason::Returned }, over]);
        let leases = Leases { leases: vec![running()], ended: vec![changed, returned], set_aside: vec![] };
        insta::assert_snapshot!("list", list_text(&leases, false, 180_000));
        insta::assert_snapshot!("list_ended", list_text(&leases, true, 180_000));
        let later = list_text(&leases, false, 120_001 + 24 * 3_600_000);
        assert!(!later.contains("hardware_changed"), "{later}");
        let none = Leases::default();
        assert_eq!(list_text(&none, true, 0), "no leases");
    }

    #[test]
    fn a_lease_is_told_line_by_line() {
        insta::assert_snapshot!("lease", lease_text(&running(), 60_000));
    }

    #[test]
    fn containers_that_are_set_aside_are_listed_with_the_time_that_is_left() {
        let container = SetAside {
            container: "compute-08".to_owned(),
            lease: LeaseId([8; 16]),
            fencing_epoch: 3,
            renter: Hotkey([2; 32]),
            devices: vec![DeviceId::cpu(1)],
            state: ContainerState::Running,
            expires_at_ms: 60_000,
            why: QuarantineReason::UnknownLease,
            until_ms: 90_000,
        };
        let text = list_text(&Leases { set_aside: vec![container], ..Leases::default() }, false, 30_000);
        for part in ["no leases", "compute-08", &"08".repeat(16), "in 1m", "unknown lease"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
