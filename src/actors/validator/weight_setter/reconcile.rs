//! What a new block asks for: a look at the chain, a reveal, or the board's weights.

use std::collections::HashMap;
use std::sync::Arc;

use actix::prelude::*;

use super::WeightSetter;
use super::rules::{self, Hold, Sender};
use super::send::{Shipment, prepare};
use crate::actors::exclusive::Conflict;
use crate::chain::weights::intent::MAX_COMMITS;
use crate::chain::{Neuron, PreparedWeights, Weights};
use crate::evidence::record::{WeightsBody, entry};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{Epoch, Hotkey, Uid};
use crate::messages::chain_watcher::ChainView;
use crate::runtime::Ctx;
use crate::scoring::Burn;
use crate::settings::WeightsMode;
use crate::store::records::{WeightEntry, WeightsRecord};
use crate::telemetry::error_chain;

impl WeightSetter {
    /// One step towards what should be on the chain, if none is on its way.
    pub(super) fn reconcile(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        // From an earlier run: nothing that depends on the present block is known.
        if view.is_stored() {
            return;
        }
        self.setup = self.live.get();
        self.compare(&view, ctx);
        self.view = Some(view.clone());
        if self.past.is_none() || self.working {
            return;
        }
        let own = view.metagraph.by_hotkey(&self.setup.hotkey);
        let news = own.is_some_and(|own| self.known.is_news(own));
        if !self.open.is_empty() || news {
            self.look(view, ctx);
        } else {
            self.act(&view, ctx);
        }
    }

    /// What is to be done when the chain was looked at.
    pub(super) fn act(&mut self, view: &Arc<ChainView>, ctx: &mut Ctx<Self>) {
        let shadow = self.setup.mode == WeightsMode::Shadow;
        let own = view.metagraph.by_hotkey(&self.setup.hotkey).cloned();
        if let Some(own) = &own {
            if self.conflicts() {
                return;
            }
            if self.reveal(view, ctx) {
                return;
            }
            // Somebody's update that no finalised block explains yet.
            if !shadow && self.known.is_news(own) {
                return;
            }
        }
        match own {
            Some(own) if !shadow => self.attempt(view, &own, ctx),
            _ if shadow => self.shadow(view, ctx),
            _ => {}
        }
    }

    /// Whether another node is known to act with our hotkey.
    fn conflicts(&mut self) -> bool {
        let Some(problem) = self.setup.exclusive.problem() else { return false };
        if self.board.problem.as_ref() != Some(&problem) {
            Arc::make_mut(&mut self.board).problem = Some(problem);
        }
        true
    }

    /// The chain shows an update of our hotkey that is not ours.
    pub(super) fn somebody_elses(&self, block: u64) {
        self.setup.exclusive.report(Conflict::ForeignWeights { block });
    }

    /// The board's epoch, if it is newer than all that was set, is on its way or was missed.
    fn due(&self) -> Option<Epoch> {
        let done = self.past?.settled.max(self.open.iter().map(|open| open.epoch).max());
        self.board.epoch.filter(|epoch| done.is_none_or(|done| done < *epoch))
    }

    /// Sets the board's weights if they are not on the chain yet and may be set now.
    fn attempt(&mut self, view: &Arc<ChainView>, own: &Neuron, ctx: &mut Ctx<Self>) {
        let head = view.metagraph.head.number;
        let in_flight = self.open.iter().any(|open| open.intent.in_flight());
        let Some(epoch) = self.due().filter(|_| !in_flight && self.open.len() < MAX_COMMITS) else { return };
        if self.attempted_at == Some(head) || !self.pause.over() {
            return;
        }
        let sender = Sender {
            hotkey: self.setup.hotkey,
            version_key: self.setup.version_key,
            interval_blocks: self.setup.interval_blocks,
            require_permit: self.setup.require_permit,
        };
        match rules::hold(view, own, &sender) {
            None => self.make(epoch, view, ctx),
            Some(Hold::TooSoon) => {}
            Some(Hold::Refused(problem)) => self.problem(problem),
        }
    }

    /// Prepares the board's weights and stores them, without sending them: also where the chain would refuse them.
    fn shadow(&mut self, view: &Arc<ChainView>, ctx: &mut Ctx<Self>) {
        let shadowed = self.past.and_then(|past| past.shadowed);
        let Some(epoch) = self.board.epoch.filter(|epoch| shadowed.is_none_or(|done| done < *epoch)) else { return };
        if self.attempted_at != Some(view.metagraph.head.number) && self.pause.over() {
            self.make(epoch, view, ctx);
        }
    }

    /// Makes the board's weights in this view ready, and ships them.
    fn make(&mut self, epoch: Epoch, view: &Arc<ChainView>, ctx: &mut Ctx<Self>) {
        let burn = match self.setup.burn.resolve(view) {
            Ok(burn) => burn,
            Err(problem) => return self.problem(problem),
        };
        let entries = match rules::entries(&self.board.rows, view, burn.as_ref()) {
            Ok(entries) if !entries.is_empty() => entries,
            Ok(_) => return,
            Err(error) => return self.problem(error.to_string()),
        };
        self.attempted_at = Some(view.metagraph.head.number);
        Arc::make_mut(&mut self.board).weights = entries.clone();
        self.working = true;
        let (setup, view) = (self.setup.clone(), view.clone());
        let weights = Weights { entries, version_key: setup.version_key };
        let work = async move { prepare(&setup, weights).await };
        ctx.spawn(work.into_actor(self).map(move |(weights, prepared), act, ctx| {
            match act.intent(epoch, &view, burn, &weights, prepared.as_ref().ok()) {
                Some(shipment) => act.ship(shipment, prepared, ctx),
                None => act.working = false,
            }
        }));
    }

    /// The records of an intent, to be written before anything is sent.
    fn intent(
        &mut self,
        epoch: Epoch,
        view: &ChainView,
        burn: Option<Burn>,
        weights: &Weights,
        prepared: Option<&PreparedWeights>,
    ) -> Option<Shipment> {
        let id = self.past?.next_id;
        let names: HashMap<Uid, Hotkey> = self.board.rows.iter().map(|r| (r.uid, r.hotkey)).collect();
        let entry_of = |(uid, weight): &(Uid, u16)| {
            // A neuron that was not judged has a weight only where the subnet asks for a least number of them, or burns.
            let hotkey = names.get(uid).copied().or_else(|| Some(view.metagraph.by_uid(*uid)?.hotkey))?;
            Some(WeightEntry { uid: *uid, hotkey, weight: *weight })
        };
        let block = view.metagraph.head.number;
        let record = WeightsRecord {
            id,
            epoch,
            block,
            entries: weights.entries.iter().filter_map(entry_of).collect(),
            prepared: prepared.cloned(),
            at_ms: self.setup.clock.now_ms(),
        };
        let body = WeightsBody {
            id,
            epoch,
            block,
            neurons: rules::neurons(view),
            limits: rules::limits(view),
            version_key: weights.version_key,
            burn,
            mechanism: self.setup.mechanism,
            entries: weights.entries.clone(),
        };
        match entry(Kind::Weights, record.at_ms, &body) {
            Ok(entry) => {
                let evidence = EvidenceRecord { entries: vec![entry], state: None, closes: None };
                Some(Shipment { id, epoch, records: self.unlogged.with(record, evidence) })
            }
            Err(error) => {
                tracing::error!(epoch, error = error_chain(&error), "weights that cannot be logged are not set");
                None
            }
        }
    }
}
