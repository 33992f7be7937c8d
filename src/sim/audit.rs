//! Whether everybody in a devnet tells the same of every rental: renters' logs, validators' and miners' databases, and the
//! engines' files.
//!
//! [`read`] takes what lies in a devnet's directory, without writing to it; [`compare`] is pure. An audit is of a devnet
//! that was stopped in order: while one runs, steps are under way, and what is told as a disagreement may be one that is
//! about to end. What a stop may leave is allowed: a wish whose renter has not heard of it yet, a release that the miner
//! has not confirmed, and an end that the other side has not noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::renter::log::{self, Line};
use crate::actors::lease_book::Entry;
use crate::ids::{DeviceId, LeaseId};
use crate::lease::engine::{Contents, Deed, History};
use crate::lease::{Container, EndReason, Event, Lease, LeaseState};
use crate::store::read_only::open_read_only;
use crate::store::{DATABASE_FILE, Role, queries};
use crate::telemetry::error_chain;

/// One side's record of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The lease as it stands.
    pub lease: Lease,
    /// Its events with their times in milliseconds since the Unix epoch, in order.
    pub events: Vec<(Event, u64)>,
}

/// What a node's database holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The name of its directory.
    pub name: String,
    /// Its leases.
    pub leases: BTreeMap<LeaseId, Kept>,
}

/// What an engine's file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engine {
    /// The miner it belongs to.
    pub name: String,
    /// The containers that are there.
    pub containers: Vec<Container>,
    /// How they came to be.
    pub history: History,
}

/// All that a devnet's directory tells of rentals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sides {
    /// The renters' logs.
    pub renters: Vec<Vec<Line>>,
    /// The validators.
    pub validators: Vec<Node>,
    /// The miners.
    pub miners: Vec<Node>,
    /// The miners' engines.
    pub engines: Vec<Engine>,
}

/// Two sides that do not tell the same, or one that tells what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// A side cannot be read, so nothing can be said.
    #[error("{path} cannot be read: {why}", path = .path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A side does not know a lease that another one has or had.
    #[error("lease {lease}: {knows} knows it, {misses} does not")]
    Missing {
        /// The lease.
        lease: LeaseId,
        /// Who knows it.
        knows: String,
        /// Who should.
        misses: String,
    },
    /// Two sides know another value.
    #[error("lease {lease}: its {what} is {left} for {left_side} and {right} for {right_side}")]
    Differs {
        /// The lease.
        lease: LeaseId,
        /// Which property.
        what: &'static str,
        /// One side.
        left_side: String,
        /// Its value.
        left: String,
        /// The other side.
        right_side: String,
        /// Its value.
        right: String,
    },
    /// Something that happens once happened more often.
    #[error("lease {lease}: {side} tells that it was {what} {times} times")]
    Repeated {
        /// The lease.
        lease: LeaseId,
        /// Who tells it.
        side: String,
        /// `rented`, `created` or `destroyed`.
        what: &'static str,
        /// How often.
        times: usize,
    },
    /// A container that no lease of the miner accounts for.
    #[error("{engine}: container {container} of lease {lease} has no owner: {why}")]
    Orphan {
        /// Whose engine.
        engine: String,
        /// The container.
        container: String,
        /// The lease on its labels.
        lease: LeaseId,
        /// What the miner knows of that lease.
        why: String,
    },
    /// A live lease without its container.
    #[error("lease {lease}: it is {state} for {miner}, whose engine has no container of it")]
    NoContainer {
        /// The lease.
        lease: LeaseId,
        /// The miner.
        miner: String,
        /// The lease's state there.
        state: LeaseState,
    },
    /// Two leases held a device at the same time.
    #[error("{side}: {device} was held by lease {first} when lease {second} got it")]
    DeviceTwice {
        /// Who tells it.
        side: String,
        /// The device.
        device: DeviceId,
        /// The lease that had it.
        first: LeaseId,
        /// The lease that got it too.
        second: LeaseId,
    },
    /// A lease that was rented ended for no reason that a renter must accept.
    #[error(
        "lease {lease}: it was rented and is {state} for {side} because of {why}, which is no release, expiry or loss"
    )]
    EndedWithoutReason {
        /// The lease.
        lease: LeaseId,
        /// Who tells it.
        side: String,
        /// Its state.
        state: LeaseState,
        /// The reason on record.
        why: String,
    },
}

/// Compares all sides. Empty when they tell the same.
pub fn compare(sides: &Sides) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for (number, lines) in sides.renters.iter().enumerate() {
        renter(number, lines, sides, &mut found);
    }
    for validator in &sides.validators {
        rented(validator, sides, &mut found);
    }
    for node in sides.validators.iter().chain(&sides.miners) {
        within(node, &mut found);
    }
    for miner in &sides.miners {
        provided(miner, sides, &mut found);
    }
    for engine in &sides.engines {
        contained(engine, sides, &mut found);
    }
    found
}

fn of_validator(sides: &Sides, id: LeaseId) -> Option<(&Node, &Kept)> {
    sides.validators.iter().find_map(|v| v.leases.get(&id).map(|kept| (v, kept)))
}

/// A renter's log against its validator.
fn renter(number: usize, lines: &[Line], sides: &Sides, found: &mut Vec<Disagreement>) {
    let side = format!("renter {number}");
    let mut times: BTreeMap<LeaseId, usize> = BTreeMap::new();
    for line in lines {
        let id = line.lease();
        let known = of_validator(sides, id);
        match line {
            Line::Rented { miner, devices, fencing_epoch, .. } => {
                *times.entry(id).or_default() += 1;
                let Some((validator, kept)) = known else {
                    found.push(missing(id, &side, "a validator"));
                    continue;
                };
                ended_for_a_reason(id, &validator.name, &kept.lease, found);
                let mut differs = differing(id, &side, &validator.name, found);
                differs("miner", miner.to_string(), kept.lease.miner.to_string());
                differs("fencing epoch", fencing_epoch.to_string(), kept.lease.fencing_epoch.to_string());
                differs("list of devices", list(devices), list(&kept.lease.devices));
            }
            Line::Released { state, end, .. } => {
                let Some((validator, kept)) = known else {
                    found.push(missing(id, &side, "a validator"));
                    continue;
                };
                let mut differs = differing(id, &side, &validator.name, found);
                differs("state", state.to_string(), kept.lease.state.to_string());
                differs("end", reason(*end), reason(kept.lease.end));
            }
            Line::Refused { .. } => {
                if let Some((validator, kept)) = known
                    && (kept.lease.began_at_ms.is_some() || kept.lease.state.is_live())
                {
                    let state = kept.lease.state.to_string();
                    differing(id, &side, &validator.name, found)("state", "refused".into(), state);
                }
            }
            Line::Forgotten { .. } => found.push(missing(id, &side, "the validator it asked")),
            Line::Wanted { .. } | Line::NotRented { .. } | Line::NotReleased { .. } => {}
        }
    }
    for (lease, times) in times.into_iter().filter(|(_, times)| *times > 1) {
        found.push(Disagreement::Repeated { lease, side: side.clone(), what: "rented", times });
    }
}

/// A validator's leases against the renters who asked for them and the miners that have them.
fn rented(validator: &Node, sides: &Sides, found: &mut Vec<Disagreement>) {
    let asked: BTreeSet<LeaseId> = sides.renters.iter().flatten().map(Line::lease).collect();
    for (id, Kept { lease, .. }) in &validator.leases {
        if !asked.contains(id) {
            found.push(missing(*id, &validator.name, "every renter"));
        }
        let known = || sides.miners.iter().filter_map(|m| m.leases.get(id).map(|kept| (m, &kept.lease)));
        // Miners that were asked before the one that has it may know of it too, and must hold nothing. What never began
        // may have been meant for a miner that never heard of it.
        let there = known().find(|(_, held)| held.miner == lease.miner);
        let passed = |held: &Lease| there.is_some() && held.miner != lease.miner && held.state.is_live();
        for (miner, held) in known().filter(|(_, held)| passed(held)) {
            differing(*id, &validator.name, &miner.name, found)(
                "miner",
                lease.miner.to_string(),
                held.miner.to_string(),
            );
        }
        let there = there.or_else(|| known().next().filter(|_| lease.began_at_ms.is_some()));
        let Some((miner, there)) = there else {
            // Before it began the miner need not have heard of it.
            if lease.began_at_ms.is_some() {
                found.push(missing(*id, &validator.name, "every miner"));
            }
            continue;
        };
        let mut differs = differing(*id, &validator.name, &miner.name, found);
        differs("miner", lease.miner.to_string(), there.miner.to_string());
        differs("renter", lease.renter.to_string(), there.renter.to_string());
        differs("fencing epoch", lease.fencing_epoch.to_string(), there.fencing_epoch.to_string());
        differs("list of devices", list(&lease.devices), list(&there.devices));
        differs("owner token's digest", lease.owner_token_digest.to_string(), there.owner_token_digest.to_string());
        if !go_together(lease, there) {
            differs("state", lease.state.to_string(), there.state.to_string());
        }
    }
}

/// Whether the two states of one lease can stand beside each other after a stop.
fn go_together(renter: &Lease, provider: &Lease) -> bool {
    use LeaseState as S;
    match (renter.state, provider.state) {
        // Under way: the next round settles it.
        (S::Requested | S::Reserving | S::Releasing, _) => true,
        // Running, or ended by the miner's own clock or eyes, which the validator notices after some checks.
        (S::Running | S::Paused, S::Running | S::Paused | S::Lost) => true,
        (S::Running | S::Paused, S::Releasing | S::Released) => provider.end == Some(EndReason::Expired),
        // A release is reported when it happened.
        (S::Released | S::Refused, S::Released | S::Lost | S::Refused) => true,
        // Given up: the miner may not have been reachable since.
        (S::Lost, _) => true,
        _ => false,
    }
}

/// A miner's leases against the validators that rented them.
fn provided(miner: &Node, sides: &Sides, found: &mut Vec<Disagreement>) {
    for id in miner.leases.keys().filter(|id| of_validator(sides, **id).is_none()) {
        found.push(missing(*id, &miner.name, "every validator"));
    }
    let engine = sides.engines.iter().find(|e| e.name == miner.name);
    for (id, Kept { lease, .. }) in miner.leases.iter().filter(|(_, kept)| kept.lease.state.is_live()) {
        let there = engine.is_some_and(|e| e.containers.iter().any(|c| owns(lease, c)));
        if !there {
            found.push(Disagreement::NoContainer { lease: *id, miner: miner.name.clone(), state: lease.state });
        }
    }
}

/// From when until when a lease held a device, in milliseconds since the Unix epoch.
type Span = (u64, u64, LeaseId);

/// One node's own records: each step once, and no device in two leases at a time.
fn within(node: &Node, found: &mut Vec<Disagreement>) {
    let mut spans: BTreeMap<(String, DeviceId), Vec<Span>> = BTreeMap::new();
    for (id, Kept { lease, events }) in &node.leases {
        let times = |of: fn(&Event) -> bool| events.iter().filter(|(event, _)| of(event)).count();
        let once = [
            ("created", times(|e| matches!(e, Event::Started { .. }))),
            ("destroyed", times(|e| matches!(e, Event::Destroyed { .. }))),
        ];
        for (what, times) in once.into_iter().filter(|(_, times)| *times > 1) {
            found.push(Disagreement::Repeated { lease: *id, side: node.name.clone(), what, times });
        }
        let at = |of: fn(&Event) -> bool| events.iter().find(|(event, _)| of(event)).map(|(_, at_ms)| *at_ms);
        // Where it moved to another miner, it holds that one's devices from then on.
        let moved = events.iter().rfind(|(event, _)| matches!(event, Event::Moved { .. })).map(|(_, at_ms)| *at_ms);
        let Some(from) = moved.or_else(|| at(|e| matches!(e, Event::Reserved))) else { continue };
        let until = at(|e| matches!(e, Event::Destroyed { .. } | Event::Lost { .. } | Event::Refused { .. }))
            .unwrap_or(u64::MAX);
        for device in &lease.devices {
            spans.entry((lease.miner.to_string(), *device)).or_default().push((from, until, *id));
        }
    }
    for ((_, device), mut spans) in spans {
        spans.sort_unstable();
        for pair in spans.windows(2).filter(|pair| pair[1].0 < pair[0].1) {
            let (side, first, second) = (node.name.clone(), pair[0].2, pair[1].2);
            found.push(Disagreement::DeviceTwice { side, device, first, second });
        }
    }
}

/// An engine's containers and its history against the miner's leases.
fn contained(engine: &Engine, sides: &Sides, found: &mut Vec<Disagreement>) {
    let miner = sides.miners.iter().find(|m| m.name == engine.name);
    let lease = |id| miner.and_then(|m| m.leases.get(&id)).map(|kept| &kept.lease);
    for container in &engine.containers {
        let id = container.labels.lease;
        let why = match lease(id) {
            Some(lease) if owns(lease, container) && lease.state.holds_devices() => continue,
            Some(lease) => format!(
                "it is {} for the miner, in fencing epoch {}",
                lease.state,
                lease.container_epoch.map_or_else(|| "none".to_owned(), |e| e.to_string())
            ),
            None => "the miner does not know it".to_owned(),
        };
        let (engine, container) = (engine.name.clone(), container.id.clone());
        found.push(Disagreement::Orphan { engine, container, lease: id, why });
    }

    let side = format!("the engine of {}", engine.name);
    let mut deeds: BTreeMap<(LeaseId, Deed), usize> = BTreeMap::new();
    let mut holders: BTreeMap<DeviceId, LeaseId> = BTreeMap::new();
    for done in &engine.history.done {
        *deeds.entry((done.lease, done.deed)).or_default() += 1;
        for device in &done.devices {
            match done.deed {
                Deed::Created => {
                    if let Some(first) = holders.insert(*device, done.lease) {
                        let (side, second) = (side.clone(), done.lease);
                        found.push(Disagreement::DeviceTwice { side, device: *device, first, second });
                    }
                }
                Deed::Destroyed | Deed::Vanished => {
                    holders.remove(device);
                }
            }
        }
        if done.deed == Deed::Created
            && let Some(epoch) = lease(done.lease).and_then(|l| l.container_epoch)
        {
            let epochs = (done.fencing_epoch.to_string(), epoch.to_string());
            differing(done.lease, &side, &engine.name, found)("container's fencing epoch", epochs.0, epochs.1);
        }
    }
    for ((id, deed), times) in deeds.iter().filter(|(_, times)| **times > 1) {
        let what = if *deed == Deed::Created { "created" } else { "destroyed" };
        found.push(Disagreement::Repeated { lease: *id, side: side.clone(), what, times: *times });
    }
    // What the miner says it made or ended, the engine did; as far back as its history goes.
    if engine.history.forgotten > 0 {
        return;
    }
    for (id, kept) in miner.into_iter().flat_map(|m| &m.leases) {
        if kept.lease.began_at_ms.is_some() && !deeds.contains_key(&(*id, Deed::Created)) {
            found.push(missing(*id, &engine.name, &side));
        }
    }
}

fn owns(lease: &Lease, container: &Container) -> bool {
    let labels = container.labels;
    labels.lease == lease.id && Some(labels.fencing_epoch) == lease.container_epoch && labels.renter == lease.renter
}

fn ended_for_a_reason(id: LeaseId, side: &str, lease: &Lease, found: &mut Vec<Disagreement>) {
    use EndReason as E;
    let acceptable = match lease.state {
        LeaseState::Released | LeaseState::Releasing => {
            matches!(lease.end, Some(E::Returned | E::Expired | E::Unhealthy | E::Operator | E::HardwareChanged))
        }
        LeaseState::Lost => lease.note.as_ref().is_some_and(|note| !note.is_empty()),
        LeaseState::Refused => false,
        LeaseState::Requested | LeaseState::Reserving | LeaseState::Running | LeaseState::Paused => true,
    };
    if !acceptable {
        let (side, state, why) = (side.to_owned(), lease.state, reason(lease.end));
        found.push(Disagreement::EndedWithoutReason { lease: id, side, state, why });
    }
}

fn missing(lease: LeaseId, knows: &str, misses: &str) -> Disagreement {
    Disagreement::Missing { lease, knows: knows.to_owned(), misses: misses.to_owned() }
}

fn differing(
    lease: LeaseId,
    left_side: &str,
    right_side: &str,
    found: &mut Vec<Disagreement>,
) -> impl FnMut(&'static str, String, String) {
    move |what, left, right| {
        if left != right {
            let (left_side, right_side) = (left_side.to_owned(), right_side.to_owned());
            found.push(Disagreement::Differs { lease, what, left_side, left, right_side, right });
        }
    }
}

fn list(devices: &[DeviceId]) -> String {
    devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn reason(end: Option<EndReason>) -> String {
    end.map_or("none", EndReason::label).to_owned()
}

// === reading ===

/// Reads a devnet's directory. What cannot be read is a disagreement.
pub fn read(dir: &Path) -> (Sides, Vec<Disagreement>) {
    let mut sides = Sides::default();
    let mut found = Vec::new();
    let unreadable = |path: &Path, why: String| Disagreement::Unreadable { path: path.to_owned(), why };
    let paths = |dir: &Path| -> std::io::Result<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
        paths.sort();
        Ok(paths)
    };
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let all = paths(dir).unwrap_or_else(|e| {
        found.push(unreadable(dir, e.to_string()));
        Vec::new()
    });
    for path in all {
        if path.join(DATABASE_FILE).is_file() {
            match node(&path, name(&path)) {
                Ok((Role::Validator, node)) => sides.validators.push(node),
                Ok((Role::Miner, node)) => sides.miners.push(node),
                Err(why) => found.push(unreadable(&path, why)),
            }
        } else if path.extension().is_some_and(|e| e == "log") && name(&path).starts_with("renter") {
            match log::read(&path) {
                Ok(lines) => sides.renters.push(lines),
                Err(error) => found.push(unreadable(&path, error.to_string())),
            }
        }
    }
    for path in paths(&dir.join("engine")).unwrap_or_default() {
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        match Contents::read(&path) {
            Ok(Contents { containers, history, .. }) => {
                sides.engines.push(Engine { name: name(&path), containers, history });
            }
            Err(error) => found.push(unreadable(&path, error_chain(&error))),
        }
    }
    (sides, found)
}

fn node(dir: &Path, name: String) -> Result<(Role, Node), String> {
    let conn = open_read_only(dir).map_err(|e| error_chain(&e))?;
    let told = |e: rusqlite::Error| error_chain(&e);
    let role: Role = match queries::meta(&conn, "role").map_err(told)? {
        Some(role) => role.parse().map_err(|_| format!("{role} is no role"))?,
        None => return Err("it has no role".into()),
    };
    let mut records = queries::live_leases(&conn, role).map_err(told)?;
    records.extend(queries::ended_leases(&conn, role, u32::MAX).map_err(told)?);
    let mut leases = BTreeMap::new();
    for record in &records {
        let wrong = |e: serde_json::Error| format!("lease {}: {e}", record.id);
        let lease = Entry::from_record(record).map_err(wrong)?.lease;
        let events = queries::lease_events(&conn, &record.id).map_err(told)?;
        let events = events.into_iter().map(|e| serde_json::from_value(e.event).map(|event| (event, e.at_ms)));
        leases.insert(record.id, Kept { lease, events: events.collect::<Result<_, _>>().map_err(wrong)? });
    }
    Ok((role, Node { name, leases }))
}

/// Reads and compares: all that is not as it should be in this devnet's directory.
pub fn audit(dir: &Path) -> Vec<Disagreement> {
    let (sides, mut found) = read(dir);
    found.extend(compare(&sides));
    found
}

#[cfg(test)]
mod tests;
