//! Children that were started before their challenge came, one for each device at most.
//!
//! To open a GPU, load the kernels and choose algorithms takes seconds, which would count as the proof's. [`Pool`] is the pure
//! part: what is kept, for how long, and what is missing. [`WarmChildren`] starts and ends them. A child that cannot be made
//! ready is no failure of a proof: the proof then starts one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::ProverError;
use super::child::{ChildProver, WarmChild};
use crate::ids::DeviceId;
use crate::proof::work::Work;

/// How long a child may take to make its device ready, and how long a challenge waits for one that is at it.
const READY: Duration = Duration::from_secs(20);
/// How long a child waits for a challenge before another takes its place.
const LIFETIME: Duration = Duration::from_secs(600);
/// Between two looks whether all are ready.
const LOOK: Duration = Duration::from_millis(20);
/// How long after a failure another one is started.
const RETRY: Duration = Duration::from_secs(60);

/// Something that may turn out to have failed.
trait MayFail {
    fn has_failed(&self) -> bool;
}

/// What is kept ready, one for each device at most.
struct Pool<T> {
    kept: HashMap<DeviceId, (Instant, T)>,
}

impl<T: MayFail> Pool<T> {
    /// Lets go of those of other devices and of those whose time is over.
    fn keep_only(&mut self, wanted: &[DeviceId], now: Instant) {
        self.kept.retain(|device, (born, it)| {
            let lifetime = if it.has_failed() { RETRY } else { LIFETIME };
            wanted.contains(device) && now.saturating_duration_since(*born) < lifetime
        });
    }

    /// The wanted devices that nothing is kept for.
    fn missing(&self, wanted: &[DeviceId]) -> Vec<DeviceId> {
        wanted.iter().copied().filter(|device| !self.kept.contains_key(device)).collect()
    }

    fn put(&mut self, device: DeviceId, now: Instant, it: T) {
        self.kept.insert(device, (now, it));
    }

    /// Hands over what is kept for this device, unless it has failed: that stays, so that the next one waits for its time.
    fn take(&mut self, device: DeviceId) -> Option<T> {
        if self.kept.get(&device)?.1.has_failed() {
            return None;
        }
        self.kept.remove(&device).map(|(_, it)| it)
    }
}

/// A child that is being made ready, or is.
struct Warming {
    task: JoinHandle<Result<WarmChild, ProverError>>,
    failed: Arc<AtomicBool>,
}

impl MayFail for Warming {
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Warming {
    /// Ends the child, at whatever it is.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The children.
pub(super) struct WarmChildren {
    pool: Mutex<Pool<Warming>>,
    /// The work that each device did last: what it is made ready for.
    last: Mutex<HashMap<DeviceId, Work>>,
    /// The devices that are to have none, once for each [`Without`].
    without: Arc<Mutex<Vec<DeviceId>>>,
}

/// See [`WarmChildren::without`].
pub(super) struct Without {
    device: DeviceId,
    all: Arc<Mutex<Vec<DeviceId>>>,
}

impl Drop for Without {
    fn drop(&mut self) {
        let mut all = locked(&self.all);
        if let Some(at) = all.iter().position(|device| *device == self.device) {
            all.swap_remove(at);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WarmChildren {
    pub(super) fn new() -> Self {
        WarmChildren {
            pool: Mutex::new(Pool { kept: HashMap::new() }),
            last: Mutex::default(),
            without: Arc::default(),
        }
    }

    /// Ends the children of other devices and, where `begin` says so, starts those that are missing.
    pub(super) fn keep(&self, by: &ChildProver, wanted: &[DeviceId], begin: bool) {
        let (mut pool, now) = (locked(&self.pool), Instant::now());
        let mut wanted = wanted.to_vec();
        wanted.retain(|device| !locked(&self.without).contains(device));
        pool.keep_only(&wanted, now);
        for device in if begin { pool.missing(&wanted) } else { Vec::new() } {
            let (by, work) = (by.clone(), locked(&self.last).get(&device).copied());
            let failed = Arc::new(AtomicBool::new(false));
            let flag = failed.clone();
            let task = tokio::spawn(async move {
                let made = by.prepare(device, work, READY).await;
                if let Err(error) = &made {
                    flag.store(true, Ordering::Relaxed);
                    let error = crate::error::error_chain(error);
                    tracing::warn!(%device, error, "the device could not be made ready for its challenge");
                }
                made
            });
            pool.put(device, now, Warming { task, failed });
        }
    }

    /// Ends the child of this device, if it has one, and starts none while this is held: something else needs its memory, which
    /// the child has given back when this returns.
    pub(super) async fn without(&self, device: DeviceId) -> Without {
        let (without, taken) = self.apart(device);
        if let Some(mut warming) = taken
            && let Ok(Ok(Ok(child))) = timeout(READY, &mut warming.task).await
        {
            child.end().await;
        }
        without
    }

    /// From now on no child is started for this device; and the one that it has.
    fn apart(&self, device: DeviceId) -> (Without, Option<Warming>) {
        let mut pool = locked(&self.pool);
        locked(&self.without).push(device);
        (Without { device, all: self.without.clone() }, pool.take(device))
    }

    /// Starts a child for each of these works and waits until all are ready, or have failed.
    pub(super) async fn ready(&self, by: &ChildProver, works: &[(DeviceId, Work)]) {
        locked(&self.last).extend(works.iter().copied());
        // What waits for other work is of no use.
        locked(&self.pool).kept.clear();
        let devices: Vec<DeviceId> = works.iter().map(|(device, _)| *device).collect();
        self.keep(by, &devices, true);
        while locked(&self.pool).kept.values().any(|(_, warming)| !warming.task.is_finished()) {
            sleep(LOOK).await;
        }
    }

    /// The child of the device that this work is for, once it is ready; `None` if there is none.
    pub(super) async fn take(&self, device: DeviceId, work: Work) -> Option<WarmChild> {
        locked(&self.last).insert(device, work);
        let mut warming = locked(&self.pool).take(device)?;
        timeout(READY, &mut warming.task).await.ok()?.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        failed: bool,
    }
    impl MayFail for Fake {
        fn has_failed(&self) -> bool {
            self.failed
        }
    }

    const A: DeviceId = DeviceId([1; 16]);
    const B: DeviceId = DeviceId([2; 16]);

    fn pool(now: Instant) -> Pool<Fake> {
        let mut pool = Pool { kept: HashMap::new() };
        pool.put(A, now, Fake { failed: false });
        pool.put(B, now, Fake { failed: true });
        pool
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_wanted_is_let_go_and_what_is_missing_is_named() {
        let now = Instant::now();
        let mut pool = pool(now);
        assert!(pool.missing(&[A, B]).is_empty());
        pool.keep_only(&[B], now);
        assert_eq!(pool.missing(&[A, B]), [A], "a device that was rented, for example");
        pool.keep_only(&[], now);
        assert_eq!(pool.missing(&[A, B]), [A, B]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_handed_over_once_and_lives_for_a_bounded_time() {
        let now = Instant::now();
        let mut pool = pool(now);
        assert!(pool.take(A).is_some() && pool.take(A).is_none());
        pool.put(A, now, Fake { failed: false });
        pool.keep_only(&[A, B], now + LIFETIME - Duration::from_nanos(1));
        assert_eq!(pool.missing(&[A, B]), [B]);
        pool.keep_only(&[A, B], now + LIFETIME);
        assert_eq!(pool.missing(&[A, B]), [A, B]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failed_is_not_handed_over_and_not_tried_again_at_once() {
        let now = Instant::now();
        let mut pool = pool(now);
        assert!(pool.take(B).is_none());
        pool.keep_only(&[A, B], now + RETRY - Duration::from_nanos(1));
        assert!(pool.missing(&[A, B]).is_empty());
        pool.keep_only(&[A, B], now + RETRY);
        assert_eq!(pool.missing(&[A, B]), [B]);
    }
}
