//! Asking many peers at once: begun in batches, bounded in flight, over at one common deadline.
//!
//! Invariants:
//! - it returns at the deadline at the latest, with every answer that was there by then;
//! - a peer that is silent, refuses or cannot be reached delays nobody else's request and nobody else's answer;
//! - each request is a task of its own: a panic over one peer's bytes is that peer's [`Unanswered::Panicked`], and when the
//!   fan-out is dropped, all of it ends.
//!
//! Design notes: a batch keeps 256 connections from being opened in one burst, which a small machine or a router may answer
//! with losses. The next one begins [`APART`] later, or at once when nobody is left to wait for: it waits for no answers.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument as _;

/// Between the starts of two batches.
pub const APART: Duration = Duration::from_millis(5);

/// How many at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanOut {
    /// Requests begun at the same time, at least 1.
    pub batch: usize,
    /// Requests under way at the same time, at least 1.
    pub at_once: usize,
}

impl Default for FanOut {
    /// Batches of 64; 256 at once, as many as a subnet has neurons.
    fn default() -> Self {
        FanOut { batch: 64, at_once: 256 }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// None before the deadline.
    Late,
    /// The deadline came before its turn.
    NotAsked,
    /// Handling it panicked.
    Panicked,
}

/// Asks every peer with `ask` and gives the answers there are after `within`, or earlier when there are all, in the order
/// of the peers. Must be called within a tokio runtime.
pub async fn fan_out<P, T, F>(
    peers: Vec<P>,
    ask: impl Fn(P) -> F,
    within: Duration,
    how: FanOut,
) -> Vec<(P, Result<T, Unanswered>)>
where
    P: Clone,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (batch, at_once) = (how.batch.max(1), how.at_once.max(1));
    let mut answers: Vec<Result<T, Unanswered>> = peers.iter().map(|_| Err(Unanswered::NotAsked)).collect();
    let mut round = Round { under_way: JoinSet::new(), index: HashMap::new() };
    let mut over = pin!(sleep(within));
    let mut next_batch = Instant::now();
    let mut begun = 0;
    loop {
        if round.under_way.is_empty() || Instant::now() >= next_batch {
            let room = batch.min(at_once - round.under_way.len()).min(peers.len() - begun);
            for peer in begun..begun + room {
                answers[peer] = Err(Unanswered::Late);
                let task = round.under_way.spawn(ask(peers[peer].clone()).in_current_span());
                round.index.insert(task.id(), peer);
            }
            begun += room;
            next_batch = Instant::now() + APART;
        }
        if round.under_way.is_empty() {
            break;
        }
        let more = begun < peers.len() && round.under_way.len() < at_once;
        tokio::select! {
            // What has arrived counts, also at the deadline.
            biased;
            Some(done) = round.under_way.join_next_with_id() => round.keep(done, &mut answers),
            () = &mut over => break,
            () = sleep_until(next_batch), if more => {}
        }
    }
    while let Some(done) = round.under_way.try_join_next_with_id() {
        round.keep(done, &mut answers);
    }
    peers.into_iter().zip(answers).collect()
}

/// The requests under way.
struct Round<T> {
    under_way: JoinSet<T>,
    index: HashMap<Id, usize>,
}

impl<T: 'static> Round<T> {
    fn keep(&mut self, done: Result<(Id, T), JoinError>, answers: &mut [Result<T, Unanswered>]) {
        let (id, answer) = match done {
            Ok((id, answer)) => (id, Ok(answer)),
            Err(error) => {
                tracing::error!(%error, "asking a peer failed");
                (error.id(), Err(Unanswered::Panicked))
            }
        };
        if let Some(slot) = self.index.remove(&id).and_then(|peer| answers.get_mut(peer)) {
            *slot = answer;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn numbers(n: usize) -> Vec<usize> {
        (0..n).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_asked_batch_by_batch_and_it_ends_with_the_last_answer() {
        let start = Instant::now();
        let ask = move |_| async move {
            let begun = start.elapsed();
            sleep(50 * MS).await;
            begun
        };
        let answers = fan_out(numbers(256), ask, SECOND, FanOut::default()).await;
        // The timer's resolution is a millisecond.
        assert!(start.elapsed() <= 50 * MS + 3 * APART + 4 * MS, "{:?}", start.elapsed());
        for (peer, answer) in answers {
            let begun = answer.unwrap();
            let batch = u32::try_from(peer / 64).unwrap();
            assert!(begun >= batch * APART && begun <= batch * (APART + MS), "{peer} at {begun:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_delay_nobody_and_it_ends_at_the_deadline() {
        let start = Instant::now();
        let ask = move |n: usize| async move {
            if n < 64 {
                pending::<()>().await;
            }
            sleep(50 * MS).await;
            start.elapsed()
        };
        let answers = fan_out(numbers(256), ask, SECOND, FanOut::default()).await;
        assert_eq!(start.elapsed(), SECOND);
        for (peer, answer) in answers {
            match answer {
                Ok(at) => assert!(peer >= 64 && at <= 70 * MS, "{peer}: {at:?}"),
                Err(why) => assert!(peer < 64 && why == Unanswered::Late, "{peer}: {why:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_under_way_than_allowed_and_who_had_no_turn_is_told_apart() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ask = |_| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(100 * MS).await;
                now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let how = FanOut { batch: 4, at_once: 10 };
        let answers = fan_out(numbers(40), ask, 150 * MS, how).await;
        let count = |of: Result<(), Unanswered>| answers.iter().filter(|(_, a)| *a == of).count();
        assert_eq!(most.load(Ordering::SeqCst), 10);
        assert_eq!((count(Ok(())), count(Err(Unanswered::Late)), count(Err(Unanswered::NotAsked))), (10, 10, 20));
        // Each answer makes room for the next.
        assert!(fan_out(numbers(40), ask, SECOND, how).await.iter().all(|(_, a)| a.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_was_answered_is_followed_at_once() {
        let start = Instant::now();
        let answers = fan_out(numbers(100), |n| async move { n }, SECOND, FanOut { batch: 1, at_once: 8 }).await;
        assert!(answers.iter().all(|(n, a)| *a == Ok(*n)));
        assert!(start.elapsed() < APART, "{:?}", start.elapsed());
        assert!(fan_out(Vec::<u8>::new(), |n| async move { n }, SECOND, FanOut::default()).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_over_one_is_that_ones() {
        let ask = |n: usize| async move { if n == 3 { panic!("over its bytes") } else { n } };
        let answers = fan_out(numbers(5), ask, SECOND, FanOut { batch: 0, at_once: 0 }).await;
        let expected = |n| if n == 3 { Err(Unanswered::Panicked) } else { Ok(n) };
        assert!(answers.iter().all(|(n, a)| *a == expected(*n)), "{answers:?}");
    }
}
