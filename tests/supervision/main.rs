//! What supervision promises, through its public interface.
//!
//! `life`, `mailbox`, `tree`, `faults` and `metrics` run on one thread with a paused clock: minutes of backoff take no
//! time, and every delay is exact. `threads` needs real threads and a real clock, because blocked threads are real.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its node, or is answered wrongly, fails there")]

mod faults;
mod life;
mod mailbox;
mod metrics;
mod support;
mod threads;
mod tree;
