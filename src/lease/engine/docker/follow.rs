//! What goes on beside the calls: hearing from the engine when a container ends, and having the images at hand.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::DockerEngine;
use super::session::Session;
use crate::lease::engine::EngineError;

/// The first wait after the engine could not be heard; doubles.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// How often it is seen whether anybody still needs to hear.
const NEEDED: Duration = Duration::from_secs(30);
/// Time between two looks whether all images are there.
const IMAGES: Duration = Duration::from_secs(600);
/// Time between two looks whether what holds tenants is still there: another service may flush rules.
const PROTECTIONS: Duration = Duration::from_secs(60);

/// How often in a row it failed, when it fails again after `lasted`: what went well for longer than the longest wait is no row.
fn again(failures: u32, lasted: Duration) -> u32 {
    if lasted > LONGEST { 0 } else { failures }
}

/// The wait before attempt `n`, from 0: exponential, with a part that differs from machine to machine.
fn backoff(n: u32, random: f64) -> Duration {
    let wait = FIRST.saturating_mul(1u32.checked_shl(n).unwrap_or(u32::MAX)).min(LONGEST);
    wait.mul_f64(0.75 + 0.25 * random.clamp(0.0, 1.0))
}

/// A number from 0 to 1; without the system's randomness its middle.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

/// Follows the engine's events until the engine's last handle is gone. Each time a container of ours ended, and each time
/// events may have been missed, whoever watches [`DockerEngine::changes`](crate::lease::ContainerEngine::changes) is told.
pub(super) async fn follow(engine: Weak<DockerEngine>) {
    let mut failures = 0;
    while let Some(strong) = engine.upgrade() {
        let begun = Instant::now();
        match listen(&engine, strong).await {
            Ok(()) => {}
            Err(error) => {
                failures = again(failures, begun.elapsed());
                if failures == 0 {
                    tracing::warn!(%error, "the container engine's events cannot be heard");
                }
                tokio::time::sleep(backoff(failures, random())).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

/// Listens until the stream ends, which is an error, or until nobody needs to hear.
async fn listen(weak: &Weak<DockerEngine>, engine: Arc<DockerEngine>) -> Result<(), EngineError> {
    engine.connection.ping().await?;
    let session = engine.connection.session().await?;
    // Before containers that ended with the machine are started.
    keep(&engine, &session).await;
    engine.bring_back(&session).await?;
    let mut kept = Instant::now();
    let filter = |key: &str, values: &[&str]| (key.to_owned(), values.iter().map(|v| (*v).to_owned()).collect());
    let filters: HashMap<String, Vec<String>> = HashMap::from([
        filter("type", &["container"]),
        filter("label", &[&engine.mine()]),
        filter("event", &["die", "oom", "destroy"]),
    ]);
    let mut events = session.docker.events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() }));
    // What happened before there was a stream is seen by looking.
    engine.changes.send_modify(|n| *n += 1);
    drop(engine);
    loop {
        let event = tokio::time::timeout(NEEDED, events.next()).await;
        let Some(engine) = weak.upgrade() else { return Ok(()) };
        if kept.elapsed() >= PROTECTIONS {
            keep(&engine, &session).await;
            kept = Instant::now();
        }
        match event {
            Err(_) => {}
            Ok(Some(Ok(_))) => engine.changes.send_modify(|n| *n += 1),
            Ok(Some(Err(error))) => {
                let fault = engine.fault(super::fault::Fault::of(error)).await;
                engine.connection.forget().await;
                return Err(fault.reading("hearing its events"));
            }
            Ok(None) => {
                engine.connection.forget().await;
                return Err(EngineError::Unavailable { why: "its stream of events ended".to_owned(), source: None });
            }
        }
    }
}

/// Sees to it that tenants are held, and that nothing is left of those who are gone. What fails is tried again the next time; a metric
/// shows what is not held.
async fn keep(engine: &DockerEngine, session: &Session) {
    // Another engine has none of our containers, and what is here may be theirs.
    if let Err(error) = engine.at_home(session).await {
        return tracing::warn!(%error, "what is left of containers that are gone is not looked for");
    }
    if let Err(error) = engine.sweep_networks(session).await {
        tracing::warn!(%error, "networks without a container may be left");
    }
    if let Err(error) = engine.keep_protections(session).await {
        tracing::warn!(%error, "what holds tenants may not be as it should");
    }
}

/// Has the images that have names at hand, and tries the one of the original's callers once it is there, until the engine's last handle is gone.
pub(super) async fn keep_images(engine: Weak<DockerEngine>) {
    let mut failures = 0;
    while let Some(strong) = engine.upgrade() {
        // What is here already need not wait for the pulls of others.
        try_original(&strong).await;
        let kept = fetch(&strong).await;
        try_original(&strong).await;
        drop(strong);
        let wait = if kept { IMAGES } else { backoff(failures, random()).max(Duration::from_secs(15)) };
        failures = if kept { 0 } else { failures.saturating_add(1) };
        tokio::time::sleep(wait).await;
    }
}

async fn try_original(engine: &DockerEngine) {
    if let Err(error) = engine.try_original().await {
        tracing::warn!(%error, "the image of the original's callers (leases.original_image) could not be tried");
    }
}

/// Pulls what is missing, one after the other, and removes what nobody wants any more. Whether all are there or on their way.
async fn fetch(engine: &DockerEngine) -> bool {
    let Ok(session) = engine.connection.session().await else { return false };
    let removed = engine.pulls.tidy(&session).await;
    if let Some(metrics) = engine.metrics.get() {
        (0..removed).for_each(|_| metrics.image_removed());
    }
    let mut all = true;
    for reference in &engine.options.at_hand {
        match engine.pulls.image(&session, reference, engine.tally()).await {
            Ok(Ok(_)) => {}
            Ok(Err(why)) => {
                tracing::warn!(image = %reference, why, "an image of docker.images is not at hand yet");
                all = false;
            }
            Err(fault) => {
                engine.fault(fault).await;
                return false;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_close_together_make_the_waits_longer() {
        assert_eq!(again(5, Duration::from_secs(1)), 5);
        assert_eq!(again(5, LONGEST + Duration::from_secs(1)), 0, "it was heard for long");
    }

    #[test]
    fn waits_double_up_to_a_minute_and_differ_by_a_quarter() {
        let waits: Vec<u64> = (0..8).map(|n| backoff(n, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff(40, 0.0), Duration::from_secs(45));
        assert_eq!(backoff(0, 0.0), Duration::from_millis(750));
    }
}
