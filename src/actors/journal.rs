//! The only way to the database. The database itself lives on the writer's own thread; this actor never touches it.
//!
//! Invariants: a [`Write`] is answered after the writer has acknowledged it, so the caller may act on it; reads run
//! beside writes, on their own connection, with a deadline; a degraded database refuses writes and says so on
//! `/readyz`, and leases that run are not touched by that.
//!
//! On restart: the writer, its queue and its thread are not part of the incarnation; nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use rusqlite::Connection;

use crate::clock::SharedClock;
use crate::ids::{DeviceId, Hotkey};
use crate::messages::journal::{
    CanaryFailures, CanaryTimes, EndedLeases, Explain, GetLastWeights, GetLease, GetMemoryRounds, HeldCanaries,
    LastCanaries, LastProof, LastView, LastWeights, LeaseWithEvents, LiveLeases, MemoryHistory, MemoryRounds, Note,
    OpenRounds, PenaltiesAt, ReadMeta, RecentVerdicts, Rounds, Write,
};
use crate::runtime::{Ctx, Inspect, Supervised};
use crate::store::explain::{Explanation, gather};
use crate::store::records::{
    CanaryRow, HeldCanary, LeaseEventRecord, LeaseRecord, MemoryVerdictRow, PenaltyRecord, ProverRunRecord, Retention,
    SubnetViewRecord, VerdictRecord,
};
use crate::store::{Health, Record, Role, StoreError, Writer, canaries, queries};
use crate::telemetry::{NodeMetrics, error_chain};

/// How long a read may take.
const READ: Duration = Duration::from_secs(5);
/// Rounds of memory proofs that a standing is made of: a validator has one in twelve epochs or so.
const MEMORY_ROUNDS: u32 = 32;
/// Intents to set weights that are told.
const RECENT_WEIGHTS: u32 = 16;
/// How often what is too old is removed.
const PRUNE: Duration = Duration::from_secs(60 * 60);
/// Epochs of verdicts and scores that are kept: 100 days of 72 minutes.
const KEEP_EPOCHS: u64 = 2_000;
/// How long everything else is kept.
const KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often the writer's figures are shown.
const SHOW: Duration = Duration::from_secs(1);

/// The actor.
pub struct Journal {
    writer: Writer,
    role: Role,
    clock: SharedClock,
    metrics: Arc<NodeMetrics>,
}

impl Journal {
    /// A journal of a node in this role, on its writer.
    pub fn new(writer: Writer, role: Role, clock: SharedClock, metrics: Arc<NodeMetrics>) -> Self {
        Journal { writer, role, clock, metrics }
    }

    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> ResponseActFuture<Self, Result<T, StoreError>> {
        let writer = self.writer.clone();
        Box::pin(async move { writer.query(READ, query).await }.into_actor(self))
    }

    /// Removes what nobody asks for any more: what peers can make this node write must not fill its disk.
    fn prune(&self, ctx: &mut Ctx<Self>) {
        let (writer, clock) = (self.writer.clone(), self.clock.clone());
        let work = async move {
            let since = writer.query(READ, |conn| queries::since_epochs(conn, KEEP_EPOCHS)).await?;
            let before_epoch = since.unwrap_or(0);
            let before_ms = clock.now_ms().saturating_sub(KEEP.as_millis() as u64);
            writer.write(Record::Prune(Retention { before_epoch, before_ms })).await
        };
        ctx.spawn(work.into_actor(self).map(|done: Result<(), StoreError>, _, _| {
            if let Err(error) = done {
                tracing::warn!(error = error_chain(&error), "old records are not removed, trying again later");
            }
        }));
    }

    fn show(&self) {
        let stats = self.writer.stats();
        self.metrics.journal_queue(stats.depth, stats.capacity);
        if let Some(log) = stats.evidence {
            self.metrics.evidence(log.records, log.bytes, log.segments);
        }
        self.metrics.journal_degraded(matches!(&*self.writer.health().borrow(), Health::Degraded { .. }));
    }
}

impl Actor for Journal {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.show();
        ctx.run_interval(SHOW, |act, _| act.show());
        ctx.run_interval(PRUNE, |act, ctx| act.prune(ctx));
    }
}

impl Supervised for Journal {
    const MESSAGES: &'static [&'static str] = &[
        "Write",
        "Note",
        "RecentVerdicts",
        "OpenRounds",
        "GetMemoryRounds",
        "MemoryHistory",
        "LiveLeases",
        "EndedLeases",
        "GetLease",
        "LeaseWithEvents",
        "HeldCanaries",
        "LastCanaries",
        "CanaryTimes",
        "CanaryFailures",
        "Explain",
        "LastProof",
        "PenaltiesAt",
        "GetLastWeights",
        "LastView",
        "ReadMeta",
    ];
}

impl Handler<Write> for Journal {
    type Result = ResponseActFuture<Self, Result<(), StoreError>>;
    fn handle(&mut self, Write(mut records): Write, _: &mut Ctx<Self>) -> Self::Result {
        let writer = self.writer.clone();
        let record = if records.len() == 1 { records.pop() } else { None }.unwrap_or(Record::Batch(records));
        Box::pin(async move { writer.write(record).await }.into_actor(self))
    }
}

impl Handler<Note> for Journal {
    type Result = ();
    fn handle(&mut self, Note(record): Note, ctx: &mut Ctx<Self>) {
        let (writer, kind) = (self.writer.clone(), record.kind());
        ctx.spawn(async move { writer.write(record).await }.into_actor(self).map(move |written, _, _| {
            if let Err(error) = written {
                tracing::warn!(kind, error = error_chain(&error), "not recorded");
            }
        }));
    }
}

impl Handler<RecentVerdicts> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<VerdictRecord>, StoreError>>;
    fn handle(&mut self, RecentVerdicts(epochs): RecentVerdicts, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| match queries::since_epochs(conn, epochs)? {
            Some(first) => queries::verdicts_since(conn, first),
            None => Ok(Vec::new()),
        })
    }
}

impl Handler<OpenRounds> for Journal {
    type Result = ResponseActFuture<Self, Result<Rounds, StoreError>>;
    fn handle(&mut self, _: OpenRounds, _: &mut Ctx<Self>) -> Self::Result {
        self.read(|conn| {
            let (open, last_closed) = (queries::open_rounds(conn)?, queries::last_judged_epoch(conn)?);
            Ok(Rounds { open, last_closed, judge: queries::judge(conn)? })
        })
    }
}

impl Handler<GetMemoryRounds> for Journal {
    type Result = ResponseActFuture<Self, Result<MemoryRounds, StoreError>>;
    fn handle(&mut self, _: GetMemoryRounds, _: &mut Ctx<Self>) -> Self::Result {
        self.read(|conn| {
            let (open, last) = (queries::open_memory_rounds(conn)?, queries::last_memory_epoch(conn)?);
            Ok(MemoryRounds { open, last })
        })
    }
}

impl Handler<MemoryHistory> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<MemoryVerdictRow>, StoreError>>;
    fn handle(&mut self, _: MemoryHistory, _: &mut Ctx<Self>) -> Self::Result {
        self.read(|conn| queries::memory_history(conn, MEMORY_ROUNDS))
    }
}

impl Handler<LiveLeases> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<LeaseRecord>, StoreError>>;
    fn handle(&mut self, _: LiveLeases, _: &mut Ctx<Self>) -> Self::Result {
        let role = self.role;
        self.read(move |conn| queries::live_leases(conn, role))
    }
}

impl Handler<LeaseWithEvents> for Journal {
    type Result = ResponseActFuture<Self, Result<Option<(LeaseRecord, Vec<LeaseEventRecord>)>, StoreError>>;
    fn handle(&mut self, LeaseWithEvents(id): LeaseWithEvents, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| match queries::lease(conn, &id)? {
            Some(lease) => Ok(Some((lease, queries::lease_events(conn, &id)?))),
            None => Ok(None),
        })
    }
}

impl Handler<EndedLeases> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<LeaseRecord>, StoreError>>;
    fn handle(&mut self, EndedLeases(n): EndedLeases, _: &mut Ctx<Self>) -> Self::Result {
        let role = self.role;
        self.read(move |conn| queries::ended_leases(conn, role, n))
    }
}

impl Handler<GetLease> for Journal {
    type Result = ResponseActFuture<Self, Result<Option<LeaseRecord>, StoreError>>;
    fn handle(&mut self, GetLease(id): GetLease, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| queries::lease(conn, &id))
    }
}

impl Handler<HeldCanaries> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<HeldCanary>, StoreError>>;
    fn handle(&mut self, _: HeldCanaries, _: &mut Ctx<Self>) -> Self::Result {
        self.read(canaries::held)
    }
}

impl Handler<LastCanaries> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<CanaryRow>, StoreError>>;
    fn handle(&mut self, LastCanaries(miner, most): LastCanaries, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| canaries::last(conn, miner.as_ref(), most))
    }
}

impl Handler<CanaryTimes> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<(Hotkey, u64, bool)>, StoreError>>;
    fn handle(&mut self, _: CanaryTimes, _: &mut Ctx<Self>) -> Self::Result {
        self.read(canaries::times)
    }
}

impl Handler<CanaryFailures> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<(Hotkey, DeviceId, String)>, StoreError>>;
    fn handle(&mut self, _: CanaryFailures, _: &mut Ctx<Self>) -> Self::Result {
        self.read(canaries::failures)
    }
}

impl Handler<LastProof> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<ProverRunRecord>, StoreError>>;
    fn handle(&mut self, LastProof(validator): LastProof, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| queries::last_proof(conn, &validator))
    }
}

impl Handler<Explain> for Journal {
    type Result = ResponseActFuture<Self, Result<Explanation, StoreError>>;
    fn handle(&mut self, Explain(hotkey, now_ms): Explain, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| gather(conn, &hotkey, now_ms))
    }
}

impl Handler<PenaltiesAt> for Journal {
    type Result = ResponseActFuture<Self, Result<Vec<PenaltyRecord>, StoreError>>;
    fn handle(&mut self, PenaltiesAt(now_ms): PenaltiesAt, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| queries::penalties(conn, now_ms))
    }
}

impl Handler<GetLastWeights> for Journal {
    type Result = ResponseActFuture<Self, Result<LastWeights, StoreError>>;
    fn handle(&mut self, _: GetLastWeights, _: &mut Ctx<Self>) -> Self::Result {
        self.read(|conn| {
            Ok(LastWeights {
                recent: queries::recent_weights(conn, RECENT_WEIGHTS)?,
                open: queries::open_weights(conn)?,
                settled: queries::settled_weights_epoch(conn)?,
                included: queries::last_included_weights(conn)?,
                next_id: queries::next_weights_id(conn)?,
            })
        })
    }
}

impl Handler<LastView> for Journal {
    type Result = ResponseActFuture<Self, Result<Option<SubnetViewRecord>, StoreError>>;
    fn handle(&mut self, _: LastView, _: &mut Ctx<Self>) -> Self::Result {
        self.read(queries::subnet_view)
    }
}

impl Handler<ReadMeta> for Journal {
    type Result = ResponseActFuture<Self, Result<Option<String>, StoreError>>;
    fn handle(&mut self, ReadMeta(key): ReadMeta, _: &mut Ctx<Self>) -> Self::Result {
        self.read(move |conn| queries::meta(conn, key))
    }
}

impl Handler<Inspect> for Journal {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        let stats = self.writer.stats();
        MessageResult(serde_json::json!({
            "role": self.role,
            "queue_depth": stats.depth,
            "queue_capacity": stats.capacity,
            "degraded": self.writer.health().borrow().degradation().map(|d| d.to_string()),
        }))
    }
}
