//! Who is asked for what, and the round from there: its plan, its intent on disk, its proofs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{self, PlannedMiner};
use super::round::{self, Finding};
use super::{ASK, ChallengeRunnerSetup, receipts};
use crate::actors::journal::Journal;
use crate::evidence::record::ReceiptsBody;
use crate::ids::{BlockNumber, DeviceId, Epoch, Hotkey};
use crate::messages::blacklist_guard::AdmitMiners;
use crate::messages::chain_watcher::ChainView;
use crate::messages::journal::{CanaryFailures, MemoryHistory, Write};
use crate::messages::validator::allocation_manager::LeasedDevices;
use crate::messages::validator::specs_collector::{CollectSpecs, KnownSpecs, Target};
use crate::runtime::{AskError, Handle};
use crate::scoring::{Judge, MemoryStandings};
use crate::store::records::{MemoryVerdictRow, RoundRecord};
use crate::store::{Record, StoreError};
use crate::telemetry::error_chain;

/// Least time for a round of specs, however short a slot is.
const LEAST_SPECS: Duration = Duration::from_secs(1);

/// A round that is planned and may begin once its intent is on disk.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) intent: RoundRecord,
    slot: Range<BlockNumber>,
    plans: Vec<PlannedMiner>,
    receipts: Option<ReceiptsBody>,
}

/// What a round found.
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    pub(super) receipts: Option<ReceiptsBody>,
    /// What this validator has leased at its end.
    pub(super) leased: HashMap<Hotkey, Vec<DeviceId>>,
}

/// Why a round did not begin.
pub(super) enum NotBegun {
    /// There is nobody to ask yet.
    Nobody,
    /// Somebody whose word is needed did not give it; another attempt may.
    Failed(String),
    /// The intent may be on disk or not: it is written again, unchanged.
    Unsure(Box<Prepared>, String),
    /// The epoch has another round already.
    Taken(String),
}

/// One round: who, what, the intent, the proofs.
pub(super) async fn run(
    setup: Arc<ChallengeRunnerSetup>,
    view: Arc<ChainView>,
    slot: Range<BlockNumber>,
    prepared: Option<Prepared>,
    last: Option<Epoch>,
    judge: Judge,
) -> Result<Found, NotBegun> {
    let prepared = match prepared {
        Some(prepared) => prepared,
        None => prepare(&setup, &view, slot, last, judge).await?,
    };
    // Before the first challenge goes out: whoever comes after us must know that this epoch had its draw.
    let intent = Record::Round(prepared.intent.clone());
    match setup.journal.ask(Write(vec![intent]), ASK).await {
        Ok(Ok(())) => {}
        Ok(Err(error @ StoreError::Conflict(_))) => return Err(NotBegun::Taken(error_chain(&error))),
        Ok(Err(error)) => {
            return Err(NotBegun::Unsure(Box::new(prepared), format!("journal: {}", error_chain(&error))));
        }
        Err(error) => return Err(NotBegun::Unsure(Box::new(prepared), format!("journal: {error}"))),
    }
    let Prepared { intent, slot, plans, receipts } = prepared;
    let findings = round::judge_all(&setup, intent.epoch, slot, plans).await;
    // Where that is not known, a device that was rented meanwhile stays unknown, and is not paid.
    let leased = setup.allocations.ask(LeasedDevices, ASK).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what was rented while the round ran is not known");
        HashMap::new()
    });
    Ok(Found { findings, receipts, leased })
}

/// The standing of every device by the last proofs of memory, as the journal has them.
pub(crate) async fn memory_standings(journal: &Handle<Journal>) -> Result<MemoryStandings, String> {
    let history = journal.ask(MemoryHistory, ASK).await.map_err(|e| e.to_string())?;
    let mut standings = MemoryStandings::default();
    for MemoryVerdictRow { record, after_round } in history.map_err(|e| error_chain(&e))? {
        standings.of(record.hotkey, record.device).take(record.epoch, after_round, &record.verdict);
    }
    Ok(standings)
}

/// Whom the round asks for what. `last`: the newest epoch whose round is closed.
async fn prepare(
    setup: &ChallengeRunnerSetup,
    view: &ChainView,
    slot: Range<BlockNumber>,
    last: Option<Epoch>,
    judge: Judge,
) -> Result<Prepared, NotBegun> {
    let failed = |who: &str, error: AskError| NotBegun::Failed(format!("{who}: {error}"));
    let admitted = setup.guard.ask(AdmitMiners, ASK).await.map_err(|e| failed("blacklist guard", e))?;
    if admitted.iter().all(|(_, _, admitted)| admitted.is_err()) {
        return Err(NotBegun::Nobody);
    }
    let mut leased = setup.allocations.ask(LeasedDevices, ASK).await.map_err(|e| failed("allocation manager", e))?;
    let targets: Vec<Target> = admitted
        .iter()
        .filter(|(_, _, admitted)| admitted.is_ok())
        .filter_map(|(_, hotkey, _)| {
            let address = view.metagraph.axon_address(hotkey)?;
            Some(Target { hotkey: *hotkey, address })
        })
        .collect();
    let specs = if setup.ask_specs {
        let blocks = u32::try_from(slot.end - slot.start).unwrap_or(u32::MAX);
        let quarter = view.block_time.map_or(setup.specs_deadline, |block| block.saturating_mul(blocks) / 4);
        let within = quarter.max(LEAST_SPECS).min(setup.specs_deadline);
        let ask = CollectSpecs { targets, block: view.metagraph.head.number, within };
        setup.specs.ask(ask, within + ASK).await.map_err(|e| failed("specs collector", e))?
    } else {
        HashMap::new()
    };
    let receipts = match receipts::presented(setup, view, &admitted, &specs) {
        Some(presented) => {
            let check = move || {
                let standings = presented.standings(&judge, crate::wallet::verify);
                (presented, standings)
            };
            let checked = setup.rules.verifiers.run(check).await;
            let (presented, standings) = checked.map_err(|error| NotBegun::Failed(format!("receipts: {error}")))?;
            standings.iter().for_each(|standing| setup.metrics.receipt(standing.label()));
            let (presented, standings) = presented.settled(standings);
            Some(ReceiptsBody { presented, standings }).filter(|body| !body.standings.is_empty())
        }
        None => None,
    };
    for (miner, devices) in receipts.iter().flat_map(|r| r.presented.devices(&r.standings)) {
        leased.entry(miner).or_default().extend(devices);
    }
    // Last of all, so that a proof of memory that was judged meanwhile counts.
    let standings = memory_standings(&setup.journal).await;
    let standings = standings.map_err(|problem| NotBegun::Failed(format!("proofs of memory: {problem}")))?;
    let mut costs = standings.costs(last);
    if setup.canaries_count {
        let failures = setup.journal.ask(CanaryFailures, ASK).await.map_err(|e| failed("journal", e))?;
        let failures =
            failures.map_err(|error| NotBegun::Failed(format!("canary rentals: {}", error_chain(&error))))?;
        costs.extend(crate::canary::standing::costs(failures));
    }
    let plans = plan::plan(&view.metagraph, &admitted, &specs, &leased, &setup.table, &setup.works, &costs);
    let intent = RoundRecord {
        epoch: view.epoch(),
        block: view.metagraph.head.number,
        planned: plans.iter().flat_map(PlannedMiner::verdicts).collect(),
        at_ms: setup.clock.now_ms(),
    };
    Ok(Prepared { intent, slot, plans, receipts })
}

/// What a round would judge, by what is known without asking a miner.
pub(super) async fn known(setup: &ChallengeRunnerSetup, view: &ChainView) -> Result<Vec<PlannedMiner>, String> {
    let admitted = setup.guard.ask(AdmitMiners, ASK).await.map_err(|e| format!("blacklist guard: {e}"))?;
    let leased = setup.allocations.ask(LeasedDevices, ASK).await.map_err(|e| format!("allocation manager: {e}"))?;
    let known = setup.specs.ask(KnownSpecs, ASK).await.map_err(|e| format!("specs collector: {e}"))?;
    let specs = known.into_iter().map(|(hotkey, reply)| (hotkey, Ok(reply))).collect();
    Ok(plan::plan(&view.metagraph, &admitted, &specs, &leased, &setup.table, &setup.works, &HashMap::new()))
}
