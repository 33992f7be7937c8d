//! Proofs that survive this node: what was accepted is on record before its roots are sent, so that a node which was
//! killed between the roots and their openings makes the same commitment again and opens it.
//!
//! A commitment is a function of the challenge alone (nonce, epoch, hotkey, device, work), so recomputing it gives the
//! roots that the validator holds. Only the last challenge of a validator can be resumed, like only the last one's
//! commitments are kept while the node runs.

use std::time::Duration;

use super::Proved;
use crate::actors::journal::Journal;
use crate::clock::millis;
use crate::ids::{ChallengeId, Hash32, Hotkey};
use crate::messages::journal::{LastProof, Note, Write};
use crate::proof::{Challenge, Work};
use crate::runtime::Handle;
use crate::store::Record;
use crate::store::records::ProverRunRecord;
use crate::telemetry::{error_chain, printable};

/// How long recording an intent may take. It runs beside the proof, and so costs nothing while it is the faster one.
const RECORD: Duration = Duration::from_secs(2);
/// How long looking one up may take.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Longest words kept of a prover, in bytes.
const MAX_DETAIL: usize = 300;

/// An accepted challenge, as it is recorded.
pub(super) struct Intent {
    pub(super) validator: Hotkey,
    pub(super) challenge: ChallengeId,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
}

impl Intent {
    fn run(&self, job: &Challenge) -> ProverRunRecord {
        ProverRunRecord {
            challenge: self.challenge,
            validator: self.validator,
            device: job.device,
            epoch: job.epoch,
            nonce: Hash32(job.nonce),
            n: job.work.n,
            k: job.work.k,
            rounds: job.work.rounds,
            at_ms: self.at_ms,
            elapsed_ns: None,
            outcome: None,
            detail: String::new(),
        }
    }

    /// Writes the intent to disk. A journal that cannot is no reason to withhold the proof: it only makes a crash cost it.
    pub(super) async fn record(&self, journal: &Handle<Journal>, jobs: &[Challenge]) {
        let runs = jobs.iter().map(|job| Record::ProverRun(self.run(job))).collect();
        let problem = match journal.ask(Write(runs), RECORD).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error_chain(&error),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "a challenge is not on record; if this node ends before its openings it has failed it");
    }

    /// Records how the provers ended, when there is time.
    pub(super) fn ended(&self, journal: &Handle<Journal>, jobs: &[Challenge], proved: &Proved, elapsed: Duration) {
        let runs = jobs.iter().zip(proved).map(|(job, (_, _, made))| {
            Record::ProverRun(ProverRunRecord {
                elapsed_ns: Some(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)),
                outcome: Some(made.as_ref().err().map_or("ok", |e| e.cause().label()).to_owned()),
                detail: made.as_ref().err().map(|e| printable(&e.to_string(), MAX_DETAIL)).unwrap_or_default(),
                ..self.run(job)
            })
        });
        if let Err(error) = journal.tell(Note(Record::Batch(runs.collect()))) {
            tracing::debug!(%error, "the end of a proof is not recorded");
        }
    }
}

/// The runs of the validator's last challenge.
pub(super) async fn last(journal: &Handle<Journal>, validator: Hotkey) -> Result<Vec<ProverRunRecord>, String> {
    let runs = journal.ask(LastProof(validator), LOOK_UP).await.map_err(|e| e.to_string())?;
    runs.map_err(|e| error_chain(&e))
}

/// The jobs of this challenge, to be done again, and how long their commitments are of use: `None` when the challenge is
/// not the one on record, one of its provers failed (so that no roots were sent), or its time is over.
pub(super) fn resumable(
    runs: &[ProverRunRecord],
    challenge: ChallengeId,
    hotkey: Hotkey,
    now_ms: u64,
    keep: Duration,
) -> Option<(Vec<Challenge>, Duration)> {
    let mut jobs = Vec::with_capacity(runs.len());
    let mut until_ms = 0;
    for run in runs {
        if run.challenge != challenge || run.outcome.as_deref().is_some_and(|o| o != "ok") {
            return None;
        }
        // Roots are sent when the last prover is done; without a record of that, the intent's own time counts.
        let proved_ms = run.at_ms.saturating_add(run.elapsed_ns.unwrap_or(0) / 1_000_000);
        until_ms = until_ms.max(proved_ms.saturating_add(millis(keep)));
        let work = Work::new(run.n, run.k, run.rounds).ok()?;
        jobs.push(Challenge { nonce: run.nonce.0, epoch: run.epoch, hotkey, device: run.device, work });
    }
    let left = Duration::from_millis(until_ms.saturating_sub(now_ms));
    (!jobs.is_empty() && !left.is_zero()).then_some((jobs, left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeviceId;

    const US: Hotkey = Hotkey([9; 32]);
    const KEEP: Duration = Duration::from_secs(60);
    const C: ChallengeId = ChallengeId([1; 16]);

    fn runs() -> Vec<ProverRunRecord> {
        let intent = Intent { validator: Hotkey([1; 32]), challenge: C, at_ms: 1_000 };
        let job = |n| Challenge {
            nonce: [7; 32],
            epoch: 3,
            hotkey: US,
            device: DeviceId::cpu(n),
            work: Work::new(32, 64, 1).unwrap(),
        };
        [0, 1].map(|n| intent.run(&job(n))).to_vec()
    }

    #[test]
    fn the_recorded_jobs_are_the_challenge_that_was_accepted() {
        let (jobs, left) = resumable(&runs(), C, US, 1_500, KEEP).unwrap();
        assert_eq!(left, Duration::from_millis(59_500));
        assert_eq!(jobs.iter().map(|j| j.device).collect::<Vec<_>>(), [DeviceId::cpu(0), DeviceId::cpu(1)]);
        assert!(jobs.iter().all(|j| (j.nonce, j.epoch, j.hotkey) == ([7; 32], 3, US)));
        assert!(jobs.iter().all(|j| j.work == Work::new(32, 64, 1).unwrap()));
    }

    #[test]
    fn nothing_is_resumed_of_another_challenge_a_failed_one_or_one_whose_time_is_over() {
        assert!(resumable(&[], C, US, 0, KEEP).is_none());
        assert!(resumable(&runs(), ChallengeId([2; 16]), US, 1_500, KEEP).is_none());
        let mut failed = runs();
        failed[1].outcome = Some("prover_crashed".into());
        assert!(resumable(&failed, C, US, 1_500, KEEP).is_none());
        assert!(resumable(&runs(), C, US, 60_999, KEEP).is_some());
        assert!(resumable(&runs(), C, US, 61_000, KEEP).is_none());
        // The time counts from the roots where that is on record.
        let mut slow = runs();
        slow[0].elapsed_ns = Some(5_000_000_000);
        slow[0].outcome = Some("ok".into());
        assert!(resumable(&slow, C, US, 65_999, KEEP).is_some());
    }
}
