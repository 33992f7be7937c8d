//! Getting images: found, or pulled in the background within bounds.
//!
//! A pull is nobody's: it goes on when the renter that caused it is gone, and everybody who wants the same image waits for
//! the same one. What failed is not tried again at once, whoever asks.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions};
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::fault::{Fault, one_line};
use super::images::Reference;
use super::pulled::Pulled;
use super::session::{CHANGE, LOOK, Session, within};
use crate::clock::{Clock as _, SystemClock};

/// Pulls at once; more wait.
const AT_ONCE: usize = 2;
/// Pulls under way or waiting for their turn; more are refused.
const QUEUE: usize = 8;
/// Pulls that failed and are remembered.
const REMEMBERED: usize = 256;
/// How long a failure is the answer for everybody.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// Without any progress for so long a pull has failed.
const STALLED: Duration = Duration::from_secs(120);
/// Time between two lines of the log about a pull.
const TELL: Duration = Duration::from_secs(10);
/// Time between two looks at the room on the engine's disk while something is pulled.
const ROOM: Duration = Duration::from_secs(1);
/// What stays free of it, bytes.
const RESERVE: u64 = 1 << 30;

/// Bounds of an image and its pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullLimits {
    /// The longest pull.
    pub time: Duration,
    /// The largest image, bytes, unpacked.
    pub size: u64,
    /// How long a renter's request waits for a pull.
    pub wait: Duration,
}

/// Where a pull stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// So many bytes of so many, as far as the layers are known.
    Pulling { have: u64, of: u64 },
    /// The image is there.
    Done,
    /// Why it is not, since when.
    Failed { why: String, at: Instant },
}

/// The pulls of an engine.
pub(super) struct Pulls {
    limits: PullLimits,
    pulled: Arc<Pulled>,
    known: Arc<Mutex<HashMap<String, watch::Receiver<Progress>>>>,
    under_way: Arc<AtomicUsize>,
    slots: Arc<Semaphore>,
}

/// What hears of pulls: how many are under way or wait, and how each ended.
pub(super) trait Tally: Send + Sync {
    /// So many are under way or wait.
    fn waiting(&self, count: usize);
    /// One ended, `ok` or `failed`.
    fn ended(&self, outcome: &'static str);
}

/// A pull that is under way or waits, until it is dropped.
struct Turn {
    count: Arc<AtomicUsize>,
    tally: Arc<dyn Tally>,
}

impl Turn {
    /// `None` where too many wait.
    fn take(count: &Arc<AtomicUsize>, tally: &Arc<dyn Tally>) -> Option<Self> {
        let one_more = |count: usize| (count < QUEUE).then_some(count + 1);
        let before = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        tally.waiting(before + 1);
        Some(Turn { count: count.clone(), tally: tally.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        self.tally.waiting(before.saturating_sub(1));
    }
}

impl Pulls {
    /// `named` are the operator's own images, `file` is where it is kept which others were brought.
    pub(super) fn new(limits: PullLimits, named: &[Reference], file: PathBuf) -> Self {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let pulled = Arc::new(Pulled::new(file, named));
        Pulls { limits, pulled, known: Arc::default(), under_way: Arc::default(), slots }
    }

    /// Removes images that wishes brought and that nobody wants any more; how many.
    pub(super) async fn tidy(&self, session: &Session) -> usize {
        self.pulled.tidy(session, SystemClock.now_ms()).await
    }

    /// The identity of an image's content, once it is there and may run.
    ///
    /// # Errors
    /// Why not, for the renter.
    pub(super) async fn image(
        &self,
        session: &Arc<Session>,
        reference: &Reference,
        tally: Arc<dyn Tally>,
    ) -> Result<Result<String, String>, Fault> {
        if let Some(found) = look(session, reference).await? {
            self.pulled.wanted(reference, SystemClock.now_ms()).await;
            return Ok(self.fit(session, &found));
        }
        let mut progress = match self.pull(session, reference, tally) {
            Ok(progress) => progress,
            Err(why) => return Ok(Err(why)),
        };
        let waiting = async {
            let ended = progress.wait_for(|progress| !matches!(progress, Progress::Pulling { .. })).await;
            ended.is_ok()
        };
        // Whether it ended, or its task did, or the time is over: where it stands now is the answer.
        let _ = tokio::time::timeout(self.limits.wait, waiting).await;
        let stands = progress.borrow().clone();
        match stands {
            Progress::Failed { why, .. } => Ok(Err(why)),
            Progress::Pulling { have, of } => Ok(Err(format!(
                "is being pulled, {} of {} MiB so far; ask again in some minutes",
                have >> 20,
                of >> 20
            ))),
            Progress::Done => match look(session, reference).await? {
                Some(found) => Ok(self.fit(session, &found)),
                None => Ok(Err("was pulled and is gone again; ask again".to_owned())),
            },
        }
    }

    /// The identity of an image that is there, or why it may not run; `None` where it is not there. Nothing is pulled.
    pub(super) async fn there(
        &self,
        session: &Session,
        reference: &Reference,
    ) -> Result<Option<Result<String, String>>, Fault> {
        Ok(look(session, reference).await?.map(|found| self.fit(session, &found)))
    }

    /// Whether an image that is there may run here; its identity.
    fn fit(&self, session: &Session, image: &ImageInspect) -> Result<String, String> {
        fit(image, &session.host.architecture, self.limits.size)
    }

    /// Begins a pull, or joins the one that is under way.
    fn pull(
        &self,
        session: &Arc<Session>,
        reference: &Reference,
        tally: Arc<dyn Tally>,
    ) -> Result<watch::Receiver<Progress>, String> {
        let name = reference.to_string();
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, progress| match &*progress.borrow() {
            Progress::Pulling { .. } => progress.has_changed().is_ok(),
            Progress::Done => false,
            Progress::Failed { at, .. } => now.duration_since(*at) < FAILED_FOR,
        });
        if let Some(progress) = known.get(&name) {
            return Ok(progress.clone());
        }
        let turn = Turn::take(&self.under_way, &tally).filter(|_| known.len() < REMEMBERED);
        let turn = turn.ok_or_else(|| "too many images are being pulled; ask again later".to_owned())?;
        let (tell, progress) = watch::channel(Progress::Pulling { have: 0, of: 0 });
        known.insert(name.clone(), progress.clone());
        let (session, reference, slots, limits) = (session.clone(), reference.clone(), self.slots.clone(), self.limits);
        let pulled = self.pulled.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let work = async {
                let _slot = slots.acquire().await.map_err(|_| "the engine is being put away".to_owned())?;
                tracing::info!(image = name, "pulling");
                let pulling = pull(&session, &reference, &name, limits.size, &tell);
                tokio::time::timeout(limits.time, pulling).await.unwrap_or_else(|_| {
                    Err(format!("was not pulled within {:?} (docker.pull_timeout)", limits.time))
                })?;
                keep_or_remove(&session, &reference, limits.size).await?;
                pulled.brought(&reference, SystemClock.now_ms()).await;
                Ok(())
            };
            let ended = match work.await as Result<(), String> {
                Ok(()) => {
                    tracing::info!(image = name, "pulled");
                    tally.ended("ok");
                    Progress::Done
                }
                Err(why) => {
                    tracing::warn!(image = name, why, "not pulled");
                    tally.ended("failed");
                    Progress::Failed { why, at: Instant::now() }
                }
            };
            tell.send_replace(ended);
        });
        Ok(progress)
    }
}

/// The image, if it is there.
async fn look(session: &Session, reference: &Reference) -> Result<Option<ImageInspect>, Fault> {
    match within(LOOK, session.docker.inspect_image(&reference.to_string())).await {
        Ok(found) => Ok(Some(found)),
        Err(Fault::Missing(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The identity of an image that may run here. Pure.
fn fit(image: &ImageInspect, architecture: &str, size_limit: u64) -> Result<String, String> {
    let size = image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
    if size > size_limit {
        return Err(format!(
            "has {} MiB, more than the {} that are allowed (docker.max_image_gib)",
            size >> 20,
            size_limit >> 20
        ));
    }
    if let Some(os) = image.os.as_deref().filter(|os| !os.is_empty() && *os != "linux") {
        return Err(format!("is made for {os}, this machine runs linux"));
    }
    if let Some(made_for) =
        image.architecture.as_deref().filter(|made_for| !made_for.is_empty() && *made_for != architecture)
    {
        return Err(format!("is made for {made_for}, this machine is {architecture}"));
    }
    let volumes = image.config.as_ref().and_then(|config| config.volumes.as_deref()).unwrap_or_default();
    if let Some(volume) = volumes.first() {
        return Err(format!("declares the volume {}, which no disk limit would hold", one_line(volume)));
    }
    image.id.clone().ok_or_else(|| "has no identity; pull it again".to_owned())
}

/// Removes an image that is larger than it may be: it would only fill the disk.
async fn keep_or_remove(session: &Session, reference: &Reference, size_limit: u64) -> Result<(), String> {
    let found = look(session, reference).await.map_err(|fault| fault.text().to_owned())?;
    let found = found.ok_or_else(|| "was pulled and is not there".to_owned())?;
    let Err(why) = fit(&found, &session.host.architecture, size_limit) else { return Ok(()) };
    let options = RemoveImageOptions { force: false, noprune: false, platforms: None };
    let removed = within(CHANGE, session.docker.remove_image(&reference.to_string(), Some(options), None)).await;
    match removed {
        Ok(_) => Err(why),
        Err(fault) => Err(format!("{why}; it could not be removed: {}", fault.text())),
    }
}

async fn pull(
    session: &Session,
    reference: &Reference,
    name: &str,
    size_limit: u64,
    tell: &watch::Sender<Progress>,
) -> Result<(), String> {
    // With a digest the tag says nothing more, and the engine takes one of the two.
    let version = reference.digest.clone().or_else(|| reference.tag.clone());
    let options = CreateImageOptions {
        from_image: Some(reference.repository.clone()),
        tag: version,
        ..CreateImageOptions::default()
    };
    let mut steps = session.docker.create_image(Some(options), None, None);
    let mut layers = Layers::default();
    let (mut told, mut looked) = (Instant::now(), Instant::now());
    // Whoever gives up drops the stream, and the engine ends the pull and takes back what it has of it.
    loop {
        let step = match tokio::time::timeout(STALLED, steps.next()).await {
            Err(_) => return Err(format!("its pull stood still for {STALLED:?}")),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(Fault::of(error).text().to_owned()),
            Ok(Some(Ok(step))) => step,
        };
        layers.take(&step);
        let (have, of) = layers.sum();
        tell.send_replace(Progress::Pulling { have, of });
        too_large(of, size_limit)?;
        if looked.elapsed() >= ROOM {
            looked = Instant::now();
            let root = session.host.storage.root.clone();
            // A directory that cannot be seen from here says nothing.
            let free = tokio::task::spawn_blocking(move || crate::host::free(&root)).await.ok().flatten();
            no_room(free)?;
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            tracing::info!(image = name, have_mib = have >> 20, of_mib = of >> 20, "pulling");
        }
    }
}

/// Whether an image's layers, as they come over the wire, are more than it may have unpacked. Pure.
fn too_large(bytes: u64, size_limit: u64) -> Result<(), String> {
    if bytes <= size_limit {
        return Ok(());
    }
    Err(format!(
        "has {} MiB before it is unpacked, more than the {} that are allowed (docker.max_image_gib); its pull was ended",
        bytes >> 20,
        size_limit >> 20
    ))
}

/// Whether the engine's disk is about to be full. Pure.
fn no_room(free: Option<u64>) -> Result<(), String> {
    match free {
        Some(free) if free < RESERVE => {
            Err(format!("its pull was ended: {} MiB are left on this machine's disk of images", free >> 20))
        }
        _ => Ok(()),
    }
}

/// How far each layer is, bytes.
#[derive(Default)]
struct Layers(BTreeMap<String, (u64, u64)>);

impl Layers {
    /// Layers of one image that are counted; an image has at most 127.
    const MOST: usize = 512;

    fn take(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(detail)) = (step.id.as_ref(), step.progress_detail.as_ref()) else { return };
        let bytes = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok());
        let (Some(have), Some(of)) = (bytes(detail.current), bytes(detail.total)) else { return };
        if self.0.len() < Self::MOST || self.0.contains_key(id) {
            self.0.insert(id.clone(), (have, of));
        }
    }

    fn sum(&self) -> (u64, u64) {
        self.0
            .values()
            .fold((0u64, 0u64), |(have, of), layer| (have.saturating_add(layer.0), of.saturating_add(layer.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ImageConfig, ProgressDetail};

    fn image() -> ImageInspect {
        ImageInspect {
            id: Some("sha256:1".into()),
            size: Some(1 << 30),
            os: Some("linux".into()),
            architecture: Some("amd64".into()),
            ..ImageInspect::default()
        }
    }

    #[test]
    fn an_image_runs_only_where_it_fits() {
        assert_eq!(fit(&image(), "amd64", 2 << 30).unwrap(), "sha256:1");
        assert!(fit(&image(), "amd64", 1 << 29).unwrap_err().contains("docker.max_image_gib"));
        assert!(fit(&image(), "arm64", 2 << 30).unwrap_err().contains("made for amd64"));
        let windows = ImageInspect { os: Some("windows".into()), ..image() };
        assert!(fit(&windows, "amd64", 2 << 30).unwrap_err().contains("made for windows"));
        let config = ImageConfig { volumes: Some(vec!["/var/lib/db".into()]), ..ImageConfig::default() };
        let with_volume = ImageInspect { config: Some(config), ..image() };
        assert!(fit(&with_volume, "amd64", 2 << 30).unwrap_err().contains("/var/lib/db"));
    }

    #[test]
    fn a_pull_ends_as_soon_as_it_is_too_large_or_the_disk_is_nearly_full() {
        assert_eq!(too_large(1 << 30, 1 << 30), Ok(()));
        assert!(too_large((1 << 30) + 1, 1 << 30).unwrap_err().contains("docker.max_image_gib"));
        assert_eq!((no_room(None), no_room(Some(RESERVE))), (Ok(()), Ok(())));
        assert!(no_room(Some(5 << 20)).unwrap_err().contains("5 MiB are left"));
    }

    #[derive(Default)]
    struct Last(AtomicUsize);
    impl Tally for Last {
        fn waiting(&self, count: usize) {
            self.0.store(count, Ordering::SeqCst);
        }
        fn ended(&self, _: &'static str) {}
    }

    #[test]
    fn only_so_many_pulls_wait_and_each_that_ends_makes_room_for_one() {
        let (count, last) = (Arc::default(), Arc::new(Last::default()));
        let tally: Arc<dyn Tally> = last.clone();
        let mut turns: Vec<Turn> = (0..QUEUE).map(|_| Turn::take(&count, &tally).unwrap()).collect();
        assert!(Turn::take(&count, &tally).is_none());
        assert_eq!(last.0.load(Ordering::SeqCst), QUEUE);
        turns.pop();
        assert_eq!(last.0.load(Ordering::SeqCst), QUEUE - 1);
        assert!(Turn::take(&count, &tally).is_some());
        drop(turns);
        assert_eq!(last.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn progress_is_the_sum_of_the_layers_as_last_heard() {
        let step = |id: &str, current: i64, total: i64| CreateImageInfo {
            id: Some(id.into()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        for said in [step("a", 10, 100), step("b", 5, 50), step("a", 60, 100), step("c", -1, 7)] {
            layers.take(&said);
        }
        layers.take(&CreateImageInfo::default());
        assert_eq!(layers.sum(), (65, 150));
        (0..2_000).for_each(|i| layers.take(&step(&i.to_string(), 0, 0)));
        assert!(layers.0.len() <= Layers::MOST);
    }
}
