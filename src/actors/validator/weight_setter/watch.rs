//! Follows the open intents by what finalised blocks show, reveals what is due, and records how each ends.

use std::sync::Arc;

use actix::prelude::*;

use super::WeightSetter;
use super::foreign::Intended;
use crate::chain::weights::intent::{End, Intent, Look, Stage};
use crate::chain::{ChainError, Inclusion, PreparedWeights, Route, Weights, WeightsShown};
use crate::evidence::record::{WeightsStatusBody, entry};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{BlockNumber, Epoch};
use crate::messages::chain_watcher::ChainView;
use crate::messages::journal::Note;
use crate::messages::validator::weight_setter::OpenWeights;
use crate::runtime::Ctx;
use crate::store::Record;
use crate::store::records::{WeightsRow, WeightsStatus, WeightsStatusRecord};
use crate::telemetry::error_chain;
use crate::telemetry::events::WeightsEnded;

/// An intent whose end is not known.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) epoch: Epoch,
    pub(super) intent: Intent,
}

impl Open {
    /// As the journal has it. Intents from before commits were known went in the open.
    pub(super) fn read(row: &WeightsRow) -> Self {
        let plain = || {
            let entries = row.weights.entries.iter().map(|e| (e.uid, e.weight)).collect();
            let weights = Weights { entries, version_key: 0 };
            PreparedWeights { weights, mechanism: 0, route: Route::Plain, at: row.weights.block, reveal: None }
        };
        let mut intent = Intent::written(row.weights.prepared.clone().unwrap_or_else(plain));
        intent.stage = match (row.status, row.included_block) {
            (WeightsStatus::Sent, Some(block)) => Stage::Sent { block },
            (WeightsStatus::Committed, Some(block)) => Stage::Committed { block },
            _ => Stage::Written,
        };
        Open { id: row.weights.id, epoch: row.weights.epoch, intent }
    }

    fn shown(&self) -> OpenWeights {
        let (stage, block) = match self.intent.stage {
            Stage::Written => (WeightsStatus::Pending, None),
            Stage::Sent { block } => (WeightsStatus::Sent, Some(block)),
            Stage::Committed { block } => (WeightsStatus::Committed, Some(block)),
        };
        OpenWeights {
            id: self.id,
            epoch: self.epoch,
            route: self.intent.prepared.route.label(),
            stage: stage.label(),
            block,
            reveal: self.intent.prepared.reveal,
        }
    }
}

/// How an end is recorded, counted and told.
struct Told {
    status: WeightsStatus,
    outcome: &'static str,
    block: Option<BlockNumber>,
    detail: String,
}

fn told(end: End, route: &Route) -> Told {
    let plain = *route == Route::Plain;
    match end {
        End::Shown { block } if plain => Told {
            status: WeightsStatus::Included,
            outcome: "included",
            block: Some(block),
            detail: format!("included in block {block}"),
        },
        End::Shown { block } => Told {
            status: WeightsStatus::Revealed,
            outcome: "revealed",
            block: Some(block),
            detail: format!("revealed by block {block}"),
        },
        End::Missed { gone } => {
            let what = if gone { "is gone" } else { "is still there" };
            let remedy = match route {
                Route::Timelocked { .. } => {
                    "the chain opens it by itself: check this machine's clock and the chain's beacon (Drand)"
                }
                _ => "this node has to be up and reach the chain in the epoch of the reveal",
            };
            let detail =
                format!("the time to reveal the commit is over, it {what} and its weights are not shown; {remedy}");
            Told { status: WeightsStatus::Missed, outcome: "missed", block: None, detail }
        }
        End::Unequal { block } => Told {
            status: WeightsStatus::Unequal,
            outcome: "unequal",
            block: None,
            detail: format!(
                "the chain shows other weights since block {block}: check that no other program sets weights with this \
                 hotkey, and the subnet's limits on weights"
            ),
        },
        End::Lapsed => Told {
            status: WeightsStatus::Failed,
            outcome: "lapsed",
            block: None,
            detail: "not on the chain, and too old to be included any more: set anew".to_owned(),
        },
    }
}

impl WeightSetter {
    /// Looks at what the chain shows of us, then goes on.
    pub(super) fn look(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        self.working = true;
        let (chain, deadline) = (self.setup.chain.clone(), self.setup.deadline);
        let work = async move {
            let shown = tokio::time::timeout(deadline, chain.weights_shown()).await;
            shown.unwrap_or(Err(ChainError::Deadline(deadline)))
        };
        ctx.spawn(work.into_actor(self).map(move |shown, act, ctx| {
            act.working = false;
            match shown {
                Ok(shown) => {
                    act.unseen = None;
                    let registered_at = view.metagraph.by_hotkey(&act.setup.hotkey).map_or(0, |own| own.registered_at);
                    act.looked(&shown, registered_at);
                }
                Err(error) => {
                    act.setup.metrics.weights_error(&error);
                    act.unseen(&error);
                }
            }
            act.act(&view, ctx);
        }));
    }

    /// What the chain shows of our weights cannot be read: told once for each kind of error. The next block brings the next look.
    fn unseen(&mut self, error: &ChainError) {
        if self.unseen.replace(error.name()) != Some(error.name()) {
            self.problem(format!("what the chain shows of our weights is not known: {}", error_chain(error)));
        }
    }

    fn looked(&mut self, shown: &WeightsShown, registered_at: BlockNumber) {
        // Another server of the chain may be behind.
        if shown.at < self.looked_at {
            return;
        }
        self.looked_at = shown.at;
        let lifetime = self.setup.chain.call_lifetime();
        let mut newer_shown = false;
        let mut open = Vec::with_capacity(self.open.len());
        // The newest first: a younger one that is shown has replaced the older ones.
        for mut intent in std::mem::take(&mut self.open).into_iter().rev() {
            match intent.intent.look(shown, lifetime, newer_shown) {
                Look::Same => open.push(intent),
                Look::Moved(stage) => {
                    if let Stage::Sent { block } | Stage::Committed { block } = stage {
                        self.known.updated(block);
                        let detail = format!("the commit is in block {block}");
                        self.settle(intent.id, WeightsStatus::Committed, Some(block), detail);
                    }
                    intent.intent.stage = stage;
                    open.push(intent);
                }
                Look::Ended(end) => {
                    newer_shown |= matches!(end, End::Shown { .. });
                    self.ended(&intent, end, shown);
                }
            }
        }
        open.reverse();
        self.open = open;
        self.show_open();
        let unanswered = self.open.iter().any(|open| open.intent.stage == Stage::Written);
        // While an attempt of ours is unanswered, what the chain shows may be about to become it.
        let open: Vec<Intended> = self.open.iter().map(|open| Intended::from(&open.intent.prepared)).collect();
        if !unanswered && let Some(block) = self.known.judge(shown, &open, registered_at) {
            self.somebody_elses(block);
        }
    }

    fn ended(&mut self, open: &Open, end: End, shown: &WeightsShown) {
        let Told { status, outcome, block, detail } = told(end, &open.intent.prepared.route);
        WeightsEnded { epoch: open.epoch, outcome, detail: &detail }.emit(&self.setup.metrics);
        self.settle(open.id, status, block, detail.clone());
        if end == (End::Missed { gone: false })
            && let Some(digest) = open.intent.prepared.digest()
        {
            self.known.stays(digest);
        }
        if end != End::Lapsed
            && let Some(past) = &mut self.past
        {
            past.settled = past.settled.max(Some(open.epoch));
        }
        let board = Arc::make_mut(&mut self.board);
        if let End::Shown { block } = end {
            board.epoch_on_chain = board.epoch_on_chain.max(Some(open.epoch));
            board.problem = None;
            if board.epoch == Some(open.epoch) {
                board.included_at = Some(block);
            }
            self.known.updated(shown.last_update);
            self.pause.end();
        } else {
            board.problem = Some(detail);
        }
    }

    /// Reveals a commit whose time has come; whether one is on its way now.
    pub(super) fn reveal(&mut self, view: &Arc<ChainView>, ctx: &mut Ctx<Self>) -> bool {
        let (head, finalised) = (view.metagraph.head.number, self.looked_at);
        let due = self.open.iter().find(|open| open.intent.reveal_due(head, finalised));
        let Some(due) = due.filter(|_| self.reveal_pause.over()) else { return false };
        let (id, prepared) = (due.id, due.intent.prepared.clone());
        self.working = true;
        let (chain, deadline) = (self.setup.chain.clone(), self.setup.deadline);
        let work = async move {
            let revealed = tokio::time::timeout(deadline, chain.reveal_weights(&prepared)).await;
            revealed.unwrap_or(Err(ChainError::Deadline(deadline)))
        };
        ctx.spawn(work.into_actor(self).map(move |revealed, act, ctx| {
            act.working = false;
            act.revealed(id, revealed);
            if let Some(view) = act.view.clone() {
                act.look(view, ctx);
            }
        }));
        true
    }

    fn revealed(&mut self, id: u64, revealed: Result<Inclusion, ChainError>) {
        match revealed {
            Ok(Inclusion { block, .. }) => {
                self.reveal_pause.end();
                let open = self.open.iter_mut().find(|open| open.id == id);
                open.into_iter().for_each(|open| open.intent.revealed_in = Some(block));
                tracing::info!(block, "weights revealed");
            }
            Err(error) => {
                // Repeating does no harm: a commit is revealed once.
                self.setup.metrics.weights_error(&error);
                self.reveal_pause.longer(&self.setup.retry);
                let (class, error) = (error.class().label(), error_chain(&error));
                tracing::warn!(class, error, "weights are not revealed, trying again while there is time");
            }
        }
    }

    /// Records what became of an intent.
    pub(super) fn settle(&self, id: u64, status: WeightsStatus, included_block: Option<BlockNumber>, detail: String) {
        let at_ms = self.setup.clock.now_ms();
        let body = WeightsStatusBody { id, status, block: included_block };
        let mut records =
            vec![Record::WeightsStatus(WeightsStatusRecord { id, status, included_block, detail, at_ms })];
        match entry(Kind::WeightsStatus, at_ms, &body) {
            Ok(entry) => {
                records.push(Record::Evidence(EvidenceRecord { entries: vec![entry], state: None, closes: None }));
            }
            Err(error) => tracing::error!(id, error = error_chain(&error), "what became of weights cannot be logged"),
        }
        if let Err(error) = self.setup.journal.tell(Note(Record::Batch(records))) {
            tracing::warn!(id, %error, "the result of setting weights is not recorded");
        }
    }

    /// Publishes the open intents.
    pub(super) fn show_open(&mut self) {
        let open: Vec<OpenWeights> = self.open.iter().map(Open::shown).collect();
        if self.board.open != open {
            Arc::make_mut(&mut self.board).open = open;
        }
    }
}
