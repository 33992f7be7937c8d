//! Each call once: counted in quiet lives, then a life for each in which somebody ends there.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use compute_subnet::actors::lease_book::Entry;
use compute_subnet::lease::{EndReason, Event, LeaseState};
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::{Role, queries};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::journal::Trace;
use crate::life::{Step, Told, World};
use crate::proxy::{Call, Moment, Strike, Victim};

/// Boundaries that are tried by default, of each kind.
const SAMPLE: usize = 5;

/// Who ends, and how it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Miner,
    Engine,
    /// The miner, at a call of its journal.
    Journal,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Miner, Kind::Engine, Kind::Journal];

    /// By what words on the command line choose it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Miner => "boundaries of the miner",
            Kind::Engine => "boundaries of the engine",
            Kind::Journal => "boundaries of the journal",
        }
    }
}

/// Where somebody ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Boundary {
    kind: Kind,
    step: Step,
    call: Call,
    moment: Moment,
}

impl Boundary {
    /// Whether each life comes here: what only looks is done now and then, beside the steps.
    fn must_come(&self) -> bool {
        self.kind != Kind::Journal && !self.call.looks() && self.call.nth == 1
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Boundary { kind, step, call, moment } = self;
        let who = match kind {
            Kind::Miner => "miner",
            Kind::Engine => "engine",
            Kind::Journal => "miner at its journal",
        };
        let when = match moment {
            Moment::Before => "before",
            Moment::During => "during",
            Moment::After => "after",
        };
        f.pad(&format!("{who:<20}  {step:<8}  {when:<6}  {call}"))
    }
}

/// Every boundary of one life of a lease: of the engine's calls before and after each for the miner and for the engine, and
/// where something is changed also with the caller gone in between; of the journal's before each.
async fn enumerate(world: &mut World) -> Vec<Boundary> {
    let mut all = Vec::new();
    for step in Step::ALL {
        // At its start there is no process yet to attach to.
        let attach = |w: &World| (step != Step::Start).then(|| Trace::attach(w.miner_pid(), &w.data(), None));
        let lived = world.live(step, |w| (None, attach(w)), |trace| trace.map(Trace::end)).await;
        for call in lived.calls {
            for (kind, moment) in [
                (Kind::Miner, Moment::Before),
                (Kind::Miner, Moment::During),
                (Kind::Miner, Moment::After),
                (Kind::Engine, Moment::Before),
                (Kind::Engine, Moment::After),
            ] {
                if moment != Moment::During || !call.looks() {
                    all.push(Boundary { kind, step, call: call.clone(), moment });
                }
            }
        }
        let written = lived.kept.map(|traced| traced.calls).unwrap_or_default();
        let count = written.len();
        let journal = |call| Boundary { kind: Kind::Journal, step, call, moment: Moment::Before };
        all.extend(written.into_iter().map(journal));
        let calls = all.iter().filter(|b| b.step == step && (b.kind, b.moment) == (Kind::Miner, Moment::After)).count();
        println!(
            "quiet  {step:<8}  {:>5.2} s, {calls} calls of the engine, {count} of the journal",
            lived.took.as_secs_f64()
        );
    }
    all.sort();
    all
}

/// So many of each kind, evenly, of those that change something.
fn sample(all: Vec<Boundary>) -> Vec<Boundary> {
    let mut kinds: BTreeMap<Kind, Vec<Boundary>> = BTreeMap::new();
    for boundary in all.into_iter().filter(|b| b.kind == Kind::Journal || b.must_come()) {
        kinds.entry(boundary.kind).or_default().push(boundary);
    }
    let some = |of: Vec<Boundary>| {
        let (n, k) = (of.len(), SAMPLE.min(of.len()));
        (0..k).map(move |i| of[(i * n + n / 2) / k].clone()).collect::<Vec<_>>()
    };
    kinds.into_values().flat_map(some).collect()
}

/// One life with an end in it. How long after it the step was done; `None` when it never came so far.
async fn tried(world: &mut World, boundary: &Boundary) -> Option<Duration> {
    let Boundary { kind, step, call, moment } = boundary.clone();
    if kind == Kind::Journal {
        let begin = |w: &World| (None, Trace::attach(w.miner_pid(), &w.data(), Some(&call)));
        let lived = world.live(step, begin, Trace::end).await;
        return lived.kept.struck.map(|at| lived.ended.duration_since(at).unwrap_or_default());
    }
    let victim = if kind == Kind::Miner { Victim::Miner } else { Victim::Engine };
    let strike = Strike { call, moment, victim };
    world.live(step, |_| (Some(strike), ()), |()| ()).await.recovery
}

/// Whether every boundary of these kinds, or every one of the sample, was lived through.
pub(crate) async fn each_once(world: &mut World, kinds: &[Kind], long: bool) -> bool {
    let begun = Instant::now();
    let all = enumerate(world).await;
    let count = |kind| all.iter().filter(|b| b.kind == kind).count();
    let (miner, engine, journal) = (count(Kind::Miner), count(Kind::Engine), count(Kind::Journal));
    println!("boundaries: {miner} of the miner at the engine, {engine} of the engine, {journal} at the journal");
    assert!([miner, engine, journal].iter().all(|count| *count > 0), "calls of one kind were not seen at all");
    let mut chosen = if long { all } else { sample(all) };
    chosen.retain(|boundary| kinds.contains(&boundary.kind));
    // By its line in the table, to try again what failed once.
    if let Ok(text) = std::env::var("COMPUTE_TEST_BOUNDARY") {
        chosen.retain(|boundary| boundary.to_string().contains(&text));
        assert!(!chosen.is_empty(), "COMPUTE_TEST_BOUNDARY={text} is in no line of the table");
    }
    let (mut took, mut never, mut failed, mut broken) = (Vec::new(), 0, 0, 0);
    for boundary in &chosen {
        let left = world.left_by_engine.len();
        world.bed.lost_networks = false;
        let outcome = AssertUnwindSafe(tried(world, boundary)).catch_unwind().await;
        let what = match outcome {
            Ok(Some(recovery)) => {
                took.push(recovery);
                format!("done {:>5.2} s after", recovery.as_secs_f64())
            }
            Ok(None) if boundary.must_come() => {
                failed += 1;
                "FAILED: the call never came".to_owned()
            }
            Ok(None) => {
                never += 1;
                "did not come this time".to_owned()
            }
            Err(_) => {
                println!("{}", world.said());
                world.anew().await;
                if std::mem::take(&mut world.bed.lost_networks) {
                    broken += 1;
                    "LEFT OUT: the engine did not start again by itself".to_owned()
                } else {
                    failed += 1;
                    "FAILED".to_owned()
                }
            }
        };
        let left = world.left_by_engine.get(left..).unwrap_or_default().join(", ");
        let left = if left.is_empty() { left } else { format!("; the engine left {left}") };
        println!("{boundary:<78}  {what}{left}");
    }
    took.sort();
    let at = |part: usize| {
        took.get((took.len() * part / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let (_, looks) = world.watch.told();
    println!(
        "{} ends at boundaries, {never} did not come, {failed} FAILED, {broken} LEFT OUT; done after p50 {:.2} s, p95 {:.2} s, at most {:.2} s; \
         looked at from beside {looks} times; {:.0} s",
        took.len(),
        at(50).as_secs_f64(),
        at(95).as_secs_f64(),
        at(100).as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    failed == 0
}

/// What validators were told of each lease is what the miner's journal says, and each container was made and removed at most once.
pub(crate) fn books_agree(world: &World) {
    let conn = open_read_only(&world.data()).unwrap();
    let live = queries::live_leases(&conn, Role::Miner).unwrap();
    assert!(live.is_empty(), "everything was given back: {live:?}");
    let mut kept = BTreeMap::new();
    for record in queries::ended_leases(&conn, Role::Miner, u32::MAX).unwrap() {
        let lease = Entry::from_record(&record).unwrap().lease;
        let events = queries::lease_events(&conn, &record.id).unwrap();
        let events: Vec<Event> = events.into_iter().map(|e| serde_json::from_value(e.event).unwrap()).collect();
        let times = |of: fn(&Event) -> bool| events.iter().filter(|e| of(e)).count();
        assert!(times(|e| matches!(e, Event::Started { .. })) <= 1, "{events:?}");
        assert!(times(|e| matches!(e, Event::Destroyed { .. })) <= 1, "{events:?}");
        kept.insert(record.id, lease);
    }
    for (id, told) in &world.told {
        let found = kept.remove(id).map(|lease| (lease.state, lease.end));
        let agree = match (told, found) {
            (Told::Released, Some((LeaseState::Released, Some(EndReason::Returned)))) => true,
            (Told::Expires, Some((LeaseState::Released, Some(EndReason::Expired)))) => true,
            (Told::Refused, Some((state, _))) => [LeaseState::Refused, LeaseState::Released].contains(&state),
            _ => false,
        };
        assert!(agree, "lease {id} was told as {told:?}, and is {found:?} in the journal");
    }
    assert!(kept.is_empty(), "leases that nobody asked for: {kept:?}");
    println!("books: {} leases, each in the journal as it was told", world.told.len());
}
