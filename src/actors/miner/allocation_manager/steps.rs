//! One thing to do for one lease: call the engine, write what came of it. Plain functions; the actor keeps the books.

use super::AllocationSetup;
use crate::actors::lease_book::{Entry, StepError};
use crate::lease::decide::{after_create, after_destroy};
use crate::lease::{Container, Effect, Endpoint, EngineError, Event};
use crate::store;
use crate::telemetry::events::Recovered;

/// One thing to do for one lease.
pub(super) enum Step {
    Events(Vec<Event>),
    Adopt(Container),
    Effect(Effect),
    /// A start of a container that has ended.
    Revive(Effect),
    Orphan(Effect),
}

impl Step {
    /// Where a recovery counts this step once it is carried out.
    pub(super) fn recovery(&self) -> fn(&mut Recovered) -> &mut u64 {
        match self {
            Step::Adopt(_) => |r| &mut r.adopted,
            Step::Events(_) | Step::Effect(_) | Step::Revive(_) => |r| &mut r.finished,
            Step::Orphan(_) => |r| &mut r.destroyed,
        }
    }
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct StepFailed {
    why: String,
    /// The engine or the machine was not ready, and nothing was changed: that says nothing of the container.
    pub(super) not_tried: bool,
}

impl From<EngineError> for StepFailed {
    fn from(error: EngineError) -> Self {
        StepFailed { why: error.to_string(), not_tried: matches!(error, EngineError::Unavailable { .. }) }
    }
}

pub(super) fn endpoint(setup: &AllocationSetup, container: &Container) -> Option<Endpoint> {
    Some(Endpoint { host: setup.host, ssh_port: container.ssh_port })
}

pub(super) async fn write(setup: &AllocationSetup, entry: &Entry, events: &[Event]) -> Result<Entry, StepError> {
    entry.step(events, store::Role::Miner, &setup.journal, &setup.metrics, setup.clock.now_ms()).await
}

/// Carries out one step. `None` in the result leaves the lease as it was.
pub(super) async fn carry_out(
    setup: &AllocationSetup,
    entry: Option<Entry>,
    step: Step,
) -> Result<Option<Entry>, StepFailed> {
    let (entry, events) = match (entry, step) {
        (_, Step::Orphan(effect)) => {
            apply_effect(setup, None, &effect).await?;
            setup.metrics.orphan_destroyed();
            return Ok(None);
        }
        (None, _) => return Ok(None),
        (Some(entry), Step::Events(events)) => (entry, events),
        (Some(entry), Step::Adopt(container)) => {
            tracing::info!(lease = %entry.lease.id, container = container.id, "container adopted");
            let event =
                after_create(&entry.lease, &Ok(container.clone()), endpoint(setup, &container), setup.clock.now_ms());
            (entry, event.into_iter().collect())
        }
        (Some(entry), Step::Effect(effect) | Step::Revive(effect)) => {
            let event = apply_effect(setup, Some(&entry), &effect).await?;
            (entry, event.into_iter().collect::<Vec<_>>())
        }
    };
    if events.is_empty() {
        return Ok(None);
    }
    let written = write(setup, &entry, &events).await;
    written.map(Some).map_err(|error| StepFailed { why: error.to_string(), not_tried: false })
}

/// Calls the engine; the event says what its answer means for the lease.
async fn apply_effect(
    setup: &AllocationSetup,
    entry: Option<&Entry>,
    effect: &Effect,
) -> Result<Option<Event>, StepFailed> {
    let engine = &setup.engine;
    let done = match effect {
        Effect::Create(spec) => {
            let made = called(setup, effect.label(), engine.create(spec)).await;
            let at = made.as_ref().ok().and_then(|c| endpoint(setup, c));
            return Ok(entry.and_then(|e| after_create(&e.lease, &made, at, setup.clock.now_ms())));
        }
        Effect::Destroy { lease, fencing_epoch } => {
            let gone = called(setup, effect.label(), engine.destroy(*lease, *fencing_epoch)).await;
            let event = entry.and_then(|e| after_destroy(&e.lease, *fencing_epoch, &gone, setup.clock.now_ms()));
            return Ok(gone.map(|_| event)?);
        }
        Effect::Pause { lease, fencing_epoch } => {
            called(setup, effect.label(), engine.pause(*lease, *fencing_epoch)).await
        }
        Effect::Unpause { lease, fencing_epoch } => {
            called(setup, effect.label(), engine.unpause(*lease, *fencing_epoch)).await
        }
        Effect::Restart { lease, fencing_epoch } => {
            called(setup, effect.label(), engine.restart(*lease, *fencing_epoch)).await
        }
        Effect::Grant { lease, fencing_epoch, grant } => {
            let granted = called(setup, effect.label(), engine.grant(*lease, *fencing_epoch, grant)).await;
            return Ok(granted.map(|()| None)?);
        }
    };
    Ok(done.map(|_| None)?)
}

/// A call of the engine, bounded and counted.
pub(super) async fn called<T>(
    setup: &AllocationSetup,
    name: &'static str,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let limit = setup.engine_deadline;
    let outcome = match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(EngineError::Unclear(format!("no answer within {limit:?}"))),
    };
    let label = outcome.as_ref().err().map_or("ok", EngineError::label);
    setup.metrics.engine_call(name, label);
    outcome
}
