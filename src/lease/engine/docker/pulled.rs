//! Images that renters' wishes brought here, beside those that the operator named: kept for a while after they were last wanted, then
//! removed where no container is made of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::query_parameters::RemoveImageOptions;
use tokio::sync::Mutex;

use super::fault::Fault;
use super::images::Reference;
use super::session::{CHANGE, Session, within};
use crate::clock::millis;

/// How long an image stays that nobody wants.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// The images, by name, and when each was last wanted, in milliseconds since the Unix epoch.
type Wanted = BTreeMap<String, u64>;

/// The record of such images, in a file of its own.
pub(super) struct Pulled {
    file: PathBuf,
    /// Those that the operator named: never removed.
    named: Vec<String>,
    /// What is on record, once it was read.
    known: Mutex<Option<Wanted>>,
}

impl Pulled {
    pub(super) fn new(file: PathBuf, named: &[Reference]) -> Self {
        Pulled { file, named: named.iter().map(ToString::to_string).collect(), known: Mutex::new(None) }
    }

    /// An image was pulled, for whoever wanted it.
    pub(super) async fn brought(&self, reference: &Reference, now_ms: u64) {
        let name = reference.to_string();
        if self.named.contains(&name) {
            return;
        }
        let mut known = self.known.lock().await;
        let mut wanted = self.read(&mut known).await;
        wanted.insert(name, now_ms);
        self.keep(&mut known, wanted).await;
    }

    /// An image that is here is wanted. One that somebody else brought is his.
    pub(super) async fn wanted(&self, reference: &Reference, now_ms: u64) {
        let name = reference.to_string();
        let mut known = self.known.lock().await;
        let mut wanted = self.read(&mut known).await;
        if let Some(at) = wanted.get_mut(&name) {
            *at = now_ms;
            self.keep(&mut known, wanted).await;
        }
    }

    /// Removes those that nobody wanted for [`UNUSED`] and that no container is made of; how many.
    pub(super) async fn tidy(&self, session: &Session, now_ms: u64) -> usize {
        let mut known = self.known.lock().await;
        let mut wanted = self.read(&mut known).await;
        let (before, mut removed) = (wanted.clone(), 0);
        for name in over(&before, &self.named, now_ms) {
            let options = RemoveImageOptions { force: false, noprune: false, platforms: None };
            match within(CHANGE, session.docker.remove_image(&name, Some(options), None)).await {
                Ok(_) => {
                    tracing::info!(image = name, "removed: nobody wanted it any more");
                    removed += 1;
                    wanted.remove(&name);
                }
                // Somebody removed it, or the operator named it since.
                Err(Fault::Missing(_)) => drop(wanted.remove(&name)),
                // A container is made of it.
                Err(Fault::Conflict(_)) => drop(wanted.insert(name, now_ms)),
                Err(fault) => tracing::warn!(image = name, why = fault.text(), "an image that nobody wants stays"),
            }
        }
        if wanted != before {
            self.keep(&mut known, wanted).await;
        }
        removed
    }

    /// What is on record. Without a record, or with one that is none, nothing was brought by a wish.
    async fn read(&self, known: &mut Option<Wanted>) -> Wanted {
        if let Some(known) = known {
            return known.clone();
        }
        match tokio::fs::read(&self.file).await {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(file = %self.file.display(), %error, "is no record of images; those in it stay");
                Wanted::new()
            }),
            Err(_) => Wanted::new(),
        }
    }

    async fn keep(&self, known: &mut Option<Wanted>, wanted: Wanted) {
        let written = match serde_json::to_vec_pretty(&wanted) {
            Ok(text) => super::state::replace(&self.file, text).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            tracing::warn!(file = %self.file.display(), %error, "cannot be written; images may stay after a restart");
        }
        *known = Some(wanted);
    }
}

/// Those that nobody wanted for long and that the operator has not named. Pure.
fn over(wanted: &Wanted, named: &[String], now_ms: u64) -> Vec<String> {
    let old = wanted.iter().filter(|(name, at)| !named.contains(name) && now_ms.saturating_sub(**at) >= millis(UNUSED));
    old.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Reference {
        Reference::parse(text).unwrap()
    }

    #[tokio::test]
    async fn what_a_wish_brought_is_over_a_day_after_it_was_last_wanted_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data/pulled.json");
        let (debian, mine, other) = (image("debian:11"), image("ghcr.io/me/tool:1"), image("ghcr.io/me/other:1"));
        let pulled = Pulled::new(file.clone(), std::slice::from_ref(&debian));
        let day = millis(UNUSED);
        pulled.brought(&debian, 0).await;
        pulled.brought(&mine, 0).await;
        pulled.wanted(&other, 0).await;
        pulled.wanted(&mine, 100).await;
        let again = Pulled::new(file, std::slice::from_ref(&debian));
        let known = again.read(&mut None).await;
        assert_eq!(known, Wanted::from([(mine.to_string(), 100)]), "neither the operator's nor one that was here");
        assert!(over(&known, &again.named, day + 99).is_empty());
        assert_eq!(over(&known, &again.named, day + 100), [mine.to_string()]);
        assert!(over(&known, &[mine.to_string()], day + 100).is_empty(), "the operator named it since");
    }
}
