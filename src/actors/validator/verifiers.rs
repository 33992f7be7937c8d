//! Verification off the hot path: on blocking threads, at most so many at once.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// Where proofs are verified. Clones share the bound.
#[derive(Debug, Clone)]
pub struct Verifiers(Arc<Semaphore>);

impl Verifiers {
    /// So many at once, at least one.
    pub fn new(at_once: usize) -> Self {
        Verifiers(Arc::new(Semaphore::new(at_once.max(1))))
    }

    /// One for each core that this process may use.
    pub fn one_per_core() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    /// How many more could begin now.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.0.available_permits()
    }

    /// Runs a check when its turn has come. It holds its place until it is done, also if nobody waits for it any more.
    ///
    /// # Errors
    /// If the check panicked, or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(&self, check: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        // Never closed; if it were, the check would only lose its bound.
        let place = self.0.clone().acquire_owned().await.ok();
        let checking = move || {
            let _place = place;
            check()
        };
        tokio::task::spawn_blocking(checking).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    #[tokio::test]
    async fn no_more_run_at_once_than_allowed_and_as_many_do() {
        let verifiers = Verifiers::new(2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Each waits for another, so two at once are needed for any to end.
        let pair = Arc::new(Barrier::new(2));
        let checks = (0..10).map(|number| {
            let (running, most, pair) = (running.clone(), most.clone(), pair.clone());
            verifiers.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                pair.wait();
                running.fetch_sub(1, Ordering::SeqCst);
                number
            })
        });
        let done: Vec<i32> = join_all(checks).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_check_that_panics_gives_its_place_back() {
        let verifiers = Verifiers::new(0);
        assert!(verifiers.run(|| panic!("on purpose")).await.unwrap_err().is_panic());
        assert_eq!(verifiers.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_check_keeps_its_place_when_nobody_waits_for_it() {
        let verifiers = Verifiers::new(1);
        let (began, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let verifiers = verifiers.clone();
            async move {
                verifiers
                    .run(move || {
                        began.send(()).unwrap();
                        may_end.recv().unwrap();
                    })
                    .await
            }
        });
        tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert_eq!(verifiers.free(), 0);
        end.send(()).unwrap();
        assert_eq!(verifiers.run(|| 7).await.unwrap(), 7);
    }
}
