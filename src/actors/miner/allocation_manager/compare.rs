//! What is done without being asked: journal and engine are compared, and what was interrupted is finished.

use futures_util::future::join_all;

use super::*;
use crate::lease::Labels;
use crate::lease::reconcile::{Action, QuarantineReason, reconcile};

impl AllocationManager {
    /// Compares journal and engine, and carries out what follows.
    pub(super) fn compare(&mut self, ctx: &mut Ctx<Self>) {
        if !*self.loaded.borrow() || self.comparing {
            self.compare_again = self.comparing;
            return;
        }
        self.comparing = true;
        self.compare_again = false;
        // The journal's side first, then the engine's list: a lease that appears in between is only seen next time.
        let leases: Vec<Lease> = self.book.open().filter(|l| !self.book.is_busy(l.id)).cloned().collect();
        let expected: Vec<LeaseId> = self.book.open().filter(|l| l.state.holds_devices()).map(|l| l.id).collect();
        self.setup.engine.expects(&expected);
        let setup = self.setup.clone();
        let work = async move {
            let listed = called(&setup, "list", setup.engine.list()).await;
            // A driver may come up, or a card drop out, long after this actor started.
            let specs = setup.specs.ask(GetSpecs, ASK).await;
            (leases, listed, specs)
        };
        ctx.spawn(work.into_actor(self).map(|(leases, listed, specs), act, ctx| {
            if let Ok(machine) = specs {
                act.ledger.set_devices(machine.specs.devices.iter().map(|d| d.device));
                act.setup.engine.offers(act.ledger.devices().count());
                act.publish();
            }
            match listed {
                Ok(containers) => act.carry_out(&leases, &containers, ctx),
                Err(error) => {
                    act.comparing = false;
                    act.last_problem = Some(error.to_string());
                    tracing::warn!(%error, "the container engine does not list its containers");
                }
            }
        }));
    }

    fn carry_out(&mut self, leases: &[Lease], containers: &[Container], ctx: &mut Ctx<Self>) {
        let now = self.setup.clock.now_ms();
        let still_there: BTreeSet<String> = containers.iter().map(|c| c.id.clone()).collect();
        self.ledger.end_quarantine(&still_there);
        let (leases, containers) = self.unchanged(leases, containers);
        // K of N are periods: an engine that tells of many changes must not use them up.
        let round = std::mem::take(&mut self.round_due);
        let mut rules = self.setup.rules;
        if !self.compared {
            // Whoever waited for an answer of the actor or the process before this one does not get it any more.
            rules.unheard_grace = Duration::ZERO;
        }
        let mut steps = Vec::new();
        let mut recovered = Recovered::default();
        let mut set_aside = Vec::new();
        for action in reconcile(&leases, &containers, now, &rules, &self.sightings) {
            match action {
                Action::Observe { lease, seen } => {
                    match seen {
                        EngineView::Gone | EngineView::NotSeen | EngineView::Unreachable => recovered.open += 1,
                        EngineView::Running | EngineView::Paused | EngineView::Exited => recovered.kept += 1,
                    }
                    if round {
                        self.observe(lease, seen, now, &mut steps);
                    }
                }
                Action::Revive { lease, effect } => {
                    recovered.kept += 1;
                    match self.revivals.entry(lease).or_default().ended(&self.setup.revival, now) {
                        Revive::Now => {
                            tracing::warn!(%lease, "the container of a running lease has ended, it is started again");
                            steps.push((lease, Step::Revive(effect)));
                        }
                        Revive::Later => {}
                        Revive::No if round => self.observe(lease, EngineView::Exited, now, &mut steps),
                        Revive::No => {}
                    }
                }
                Action::Adopt { lease, container } => steps.push((lease, Step::Adopt(container))),
                Action::FinishCreate { lease, effect }
                | Action::FinishDestroy { lease, effect }
                | Action::SetPaused { lease, effect } => steps.push((lease, Step::Effect(effect))),
                Action::Record { lease, event } => steps.push((lease, Step::Events(vec![event]))),
                Action::Quarantine { container, why, until_ms } => {
                    recovered.set_aside += 1;
                    self.ledger.quarantine(container.labels.lease, &container.id, &container.devices);
                    set_aside.push(self.aside(container, why, until_ms));
                }
                Action::DestroyOrphan { container, effect } => {
                    tracing::warn!(container = container.id, lease = %container.labels.lease, "destroying a container that nobody owns");
                    steps.push((container.labels.lease, Step::Orphan(effect)));
                }
            }
        }
        self.set_aside = set_aside;
        let aside = self.set_aside.iter().map(|aside| aside.container.as_str());
        if self.sightings.note(aside, &still_there, now) {
            self.keep_sightings();
        }
        self.setup.metrics.containers_set_aside(self.set_aside.len());
        self.publish();
        let work: Vec<_> = steps
            .into_iter()
            .filter_map(|(id, step)| {
                let entry = self.book.take(id);
                let taken = entry.is_some();
                // Somebody else has the lease in hand: it is his to put back.
                if !taken && !matches!(step, Step::Orphan(_)) {
                    return None;
                }
                let (setup, kind) = (self.setup.clone(), step.recovery());
                let revival = matches!(step, Step::Revive(_));
                Some(async move { (id, taken, revival, kind, carry_out(&setup, entry, step).await) })
            })
            .collect();
        ctx.spawn(join_all(work).into_actor(self).map(move |done, act, ctx| {
            let mut progress = false;
            for (id, taken, revival, kind, result) in done {
                if revival
                    && result.as_ref().is_err_and(|failed| failed.not_tried)
                    && let Some(known) = act.revivals.get_mut(&id)
                {
                    known.not_tried();
                }
                let result = result.map_err(|failed| failed.to_string());
                // What was started again may have to be paused.
                progress |= matches!(result, Ok(Some(_))) || revival && result.is_ok();
                *if result.is_ok() { kind(&mut recovered) } else { &mut recovered.open } += 1;
                match result {
                    result if taken => act.settle(id, result),
                    Ok(_) => {}
                    Err(problem) => {
                        tracing::warn!(lease = %id, problem, "the container stays, it will be tried again");
                        act.last_problem = Some(problem);
                    }
                }
            }
            act.comparing = false;
            if !act.compared {
                act.compared = true;
                recovered.emit(&act.setup.metrics);
                act.publish();
            }
            act.end_abandoned(ctx);
            // A step that failed waits for the next period; it would fail again now.
            if progress || act.compare_again {
                ctx.run_later(Duration::from_millis(200), |act, ctx| act.compare(ctx));
            }
        }));
    }

    /// Takes a round into a lease's health; a lease that was missed too often is lost.
    fn observe(&mut self, lease: LeaseId, seen: EngineView, now: u64, steps: &mut Vec<(LeaseId, Step)>) {
        let health = self.health.entry(lease).or_default();
        if health.observe(self.setup.health, Observation::local(seen)) == LeaseHealth::Gone {
            let note = match seen {
                EngineView::Exited => "the container ends whenever it is started".to_owned(),
                _ => "the container is gone without our doing".to_owned(),
            };
            steps.push((lease, Step::Events(vec![Event::Lost { note, at_ms: now }])));
        }
    }

    /// A container that is set aside; the log hears of it the first time.
    fn aside(&self, container: Container, why: QuarantineReason, until_ms: u64) -> SetAside {
        let Container { id: container, labels, devices, state, .. } = container;
        let Labels { lease, fencing_epoch, renter, expires_at_ms } = labels;
        let is_new = !self.set_aside.iter().any(|other| other.container == container && other.why == why);
        let aside = SetAside { container, lease, fencing_epoch, renter, devices, state, expires_at_ms, why, until_ms };
        if is_new {
            tracing::warn!(container = aside.container, %lease, fencing_epoch, ?why, until_ms, "container set aside");
        }
        aside
    }

    /// What a list of containers can be compared with: leases that are as they were when it was asked for, ended ones
    /// of which a container is listed, and containers of no lease that changed since.
    fn unchanged(&self, leases: &[Lease], containers: &[Container]) -> (Vec<Lease>, Vec<Container>) {
        let same = |l: &&Lease| !self.book.is_busy(l.id) && self.book.get(l.id).is_some_and(|e| e.lease == **l);
        let mut leases: Vec<Lease> = leases.iter().filter(same).cloned().collect();
        let mut kept = Vec::with_capacity(containers.len());
        for container in containers {
            let id = container.labels.lease;
            if self.book.is_busy(id) {
                continue;
            }
            match self.book.get(id) {
                Some(entry) if leases.iter().any(|l| l.id == entry.lease.id) => {}
                Some(entry) if entry.lease.state.is_final() => leases.push(entry.lease.clone()),
                Some(_) => continue,
                None => {}
            }
            kept.push(container.clone());
        }
        (leases, kept)
    }

    /// Puts a lease back after a step and frees what it no longer holds.
    pub(super) fn settle(&mut self, id: LeaseId, result: Result<Option<Entry>, String>) {
        match result {
            Ok(entry) => {
                if let Some(entry) = &entry {
                    self.last_problem = None;
                    if entry.lease.state.is_final() {
                        self.ledger.release(id);
                        self.health.remove(&id);
                        self.revivals.remove(&id);
                    }
                }
                self.book.put(id, entry);
            }
            Err(problem) => {
                tracing::warn!(lease = %id, problem, "the step was not taken, it will be tried again");
                self.last_problem = Some(problem);
                self.book.put(id, None);
            }
        }
        self.book.show(&self.setup.metrics);
        self.publish();
    }
}
