//! The devices prove what a validator would ask of them, by the validator's own steps; nothing goes over a network.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::ids::{DeviceId, Hotkey};
use crate::proof::prover::{Commitment, Prover, ProverError};
use crate::proof::verifier::{check_openings, check_roots};
use crate::proof::{Challenge, Work, cpu, sample_positions, selftest};
use crate::telemetry::error_chain;
use crate::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};

/// What a validator's challenge is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The miner's key, which enters the seed.
    pub hotkey: Hotkey,
    /// Positions that are opened for each device.
    pub samples: usize,
    /// How long the roots may take.
    pub commit_timeout: Duration,
    /// How long the openings may take.
    pub opening_deadline: Duration,
}

/// What became of one device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Proof {
    /// The device.
    pub device: DeviceId,
    /// The work asked.
    pub work: Work,
    /// What a validator would say before it looks at rates.
    pub verdict: Verdict,
    /// From before the provers were started until the roots of all devices were there.
    pub elapsed: Option<Duration>,
    /// What the openings took.
    pub opening: Option<Duration>,
    /// What their verification took.
    pub verification: Option<Duration>,
}

impl Proof {
    fn unproved(device: DeviceId, work: Work, verdict: Verdict) -> Self {
        Proof { device, work, verdict, elapsed: None, opening: None, verification: None }
    }
}

/// Whether the prover starts and agrees with this program, which itself agrees with the definitions' test vectors.
///
/// # Errors
/// What does not hold, or why the prover did not answer.
pub(super) async fn agrees(prover: &dyn Prover, device: Option<DeviceId>) -> Result<usize, String> {
    let checks = run_blocking(|| selftest::run().map_err(|error| error_chain(&error))).await??;
    if let Some(wrong) = checks.iter().find(|check| !check.holds()) {
        return Err(format!("test vector {}: expected {}, found {}", wrong.name, wrong.expected, wrong.found));
    }
    let mut challenge = selftest::challenge().map_err(|error| error.to_string())?;
    challenge.device = device.unwrap_or(challenge.device);
    let made = prover.commit(&challenge).await.map_err(|error| error_chain(&error))?;
    let here = run_blocking(move || cpu::commit(&challenge, 1, &std::sync::atomic::AtomicBool::new(false))).await?;
    let here = here.map_err(|error| error_chain(&error))?;
    match made.roots() == here.roots() {
        true => Ok(checks.len()),
        false => Err(format!("the prover's roots are not the definitions': {:?}", made.roots())),
    }
}

pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("the computation ended: {error}"))
}

/// 32 bytes that nobody knows.
pub(super) fn random() -> Result<[u8; 32], String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map(|()| bytes).map_err(|error| format!("no randomness from the system: {error}"))
}

/// Lets all devices prove at once, as a challenge does, and judges each. In the order of `jobs`.
///
/// A miner answers with the roots of all its devices or with none, so where one prover fails no device is proved.
pub(super) async fn prove(prover: &dyn Prover, jobs: &[(DeviceId, Work)], rules: &Rules) -> Vec<Proof> {
    let nonce = match random() {
        Ok(nonce) => nonce,
        Err(what) => {
            let verdict = Verdict::unknown(UnknownCause::OwnFault, what);
            return jobs.iter().map(|(device, work)| Proof::unproved(*device, *work, verdict.clone())).collect();
        }
    };
    let challenges: Vec<Challenge> = jobs
        .iter()
        .map(|(device, work)| Challenge { nonce, epoch: 0, hotkey: rules.hotkey, device: *device, work: *work })
        .collect();
    // As a miner does before a validator's turn.
    prover.make_ready(jobs).await;
    let begun = Instant::now();
    let commits = join_all(challenges.iter().map(|challenge| timeout(rules.commit_timeout, prover.commit(challenge))));
    let commitments = commits.await;
    let elapsed = begun.elapsed();
    let commitments: Vec<Result<Box<dyn Commitment>, Verdict>> = commitments
        .into_iter()
        .map(|commit| match commit {
            Ok(made) => made.map_err(|error| failed(&error)),
            Err(_) => {
                Err(Verdict::unknown(UnknownCause::Timeout, format!("no roots within {:?}", rules.commit_timeout)))
            }
        })
        .collect();
    let first_failed =
        commitments.iter().zip(jobs).find_map(|(made, (device, _))| Some((*device, made.as_ref().err()?.clone())));
    if let Some((culprit, why)) = first_failed {
        let others =
            Verdict::unknown(UnknownCause::ProverCrashed, format!("the prover of {culprit} failed: {}", why.reason()));
        let judged = commitments.into_iter().zip(jobs);
        return judged
            .map(|(made, (device, work))| Proof::unproved(*device, *work, made.err().unwrap_or_else(|| others.clone())))
            .collect();
    }
    let opened = challenges.into_iter().zip(commitments.into_iter().flatten());
    join_all(opened.map(|(challenge, commitment)| open(challenge, commitment, elapsed, rules))).await
}

fn failed(error: &ProverError) -> Verdict {
    Verdict::unknown(error.cause(), error_chain(error))
}

/// Draws positions, now that the roots are there, and checks what the prover opens.
async fn open(challenge: Challenge, mut commitment: Box<dyn Commitment>, elapsed: Duration, rules: &Rules) -> Proof {
    let (device, work) = (challenge.device, challenge.work);
    let mut proof =
        Proof { elapsed: Some(elapsed), ..Proof::unproved(device, work, Verdict::unknown(UnknownCause::OwnFault, "")) };
    let roots = commitment.roots().to_vec();
    if let Err(rejection) = check_roots(&challenge, &roots) {
        proof.verdict = Verdict::fail(rejection.reason, rejection.detail);
        return proof;
    }
    let seed = match random() {
        Ok(seed) => seed,
        Err(what) => {
            proof.verdict = Verdict::unknown(UnknownCause::OwnFault, what);
            return proof;
        }
    };
    let positions = Arc::new(sample_positions(&work, rules.samples, &seed));
    let begun = Instant::now();
    let openings = match timeout(rules.opening_deadline, commitment.open(&positions)).await {
        Ok(Ok(openings)) => openings,
        Ok(Err(error)) => {
            proof.verdict = Verdict::fail(FailReason::OpeningWithheld, error_chain(&error));
            return proof;
        }
        Err(_) => {
            let detail = format!("no openings within {:?}", rules.opening_deadline);
            proof.verdict = Verdict::fail(FailReason::OpeningUnanswered, detail);
            return proof;
        }
    };
    proof.opening = Some(begun.elapsed());
    let checked = run_blocking(move || {
        let begun = Instant::now();
        let checked = check_openings(&challenge, &roots, &positions, &openings);
        (checked, begun.elapsed())
    });
    proof.verdict = match checked.await {
        Ok((Ok(checked), took)) => {
            proof.verification = Some(took);
            let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            let evidence = PassEvidence { operations: work.operations(), elapsed_ns, samples: checked.samples };
            Verdict::Pass { evidence }
        }
        Ok((Err(rejection), _)) => Verdict::fail(rejection.reason, rejection.detail),
        Err(what) => Verdict::unknown(UnknownCause::OwnFault, what),
    };
    proof
}
