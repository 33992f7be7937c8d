//! The proof of one rented device over a login: the frames of [`crate::proof::frames`] on the uploaded prover's standard input
//! and output, as a miner talks to its own.
//!
//! The rate counts from before the challenge's first byte until the roots' last, the way to the container included; the device
//! is made ready before. Positions are drawn after the roots of every device were read.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout};

use super::reason::{Fault, Reason};
use super::remote::{Process, Session};
use crate::actors::validator::verifiers::Verifiers;
use crate::clock::millis;
use crate::ids::{DeviceId, Hotkey};
use crate::lease::machine::MAX_DEVICES;
use crate::proof::frames::{self, ErrorKind, Frame, FrameError};
use crate::proof::prover::cuda::{Gpu, Report};
use crate::proof::verifier::{check_openings, check_roots};
use crate::proof::{Challenge, Position, Root, Work, sample_positions};
use crate::scoring::decimal;
use crate::verdict::PassEvidence;

/// Threads of a proof on the processor; a GPU's host side uses fewer.
const THREADS: u32 = 4;
/// Bytes that are read of what a container says of its GPUs.
const MAX_SURVEY: u64 = 256 * 1024;
/// How long a program that closed its output may take to say how it ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What one device is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The device.
    pub device: DeviceId,
    /// The work.
    pub work: Work,
    /// The least rate that its model may have, in operations a second, if its rate counts.
    pub floor_ops: Option<u64>,
}

/// The work of each model, and the least rate that it may have, in operations a second, if its rate counts.
pub type Models = HashMap<String, (Work, Option<u64>)>;

/// What a device proved in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proved {
    /// The device.
    pub device: DeviceId,
    /// The rate, in operations a second.
    pub rate: u64,
    /// From the challenge's first byte to the roots' last, in milliseconds.
    pub elapsed_ms: u64,
    /// Openings that were checked.
    pub samples: u32,
}

/// A device whose roots are here.
pub struct Committed {
    task: Task,
    challenge: Challenge,
    roots: Vec<Root>,
    elapsed: Duration,
    process: Process,
}

impl Committed {
    /// The device.
    pub fn device(&self) -> DeviceId {
        self.task.device
    }
}

/// Has the uploaded program tell the container's GPUs, and says what each is asked.
///
/// # Errors
/// A [`Fault`]: [`Reason::NoDevice`] where there is none, [`Reason::UnknownModel`] for one that nothing is known to ask of.
pub async fn survey(session: &dyn Session, models: &Models) -> Result<Vec<Task>, Fault> {
    let mut process = session.start(&["report-cuda"]).await?;
    let mut told = Vec::new();
    let mut text = (&mut process.stdout).take(MAX_SURVEY);
    if text.read_to_end(&mut told).await.is_err() || told.is_empty() {
        return Err(Fault::new(Reason::NotStarted, last_words(&mut process).await));
    }
    let told: Report = serde_json::from_slice(&told).map_err(|error| Fault::new(Reason::Garbage, error.to_string()))?;
    if told.gpus.is_empty() {
        let why = told.problem.unwrap_or_else(|| "the driver offers no GPU".to_owned());
        return Err(Fault::new(Reason::NoDevice, why));
    }
    if told.gpus.len() > MAX_DEVICES {
        return Err(Fault::new(Reason::Garbage, format!("{} GPUs, at most {MAX_DEVICES} are asked", told.gpus.len())));
    }
    let task = |gpu: Gpu| match models.get(&gpu.name) {
        Some((work, floor_ops)) => Ok(Task { device: gpu.device, work: *work, floor_ops: *floor_ops }),
        None => Err(Fault::new(Reason::UnknownModel, gpu.name)),
    };
    told.gpus.into_iter().map(task).collect()
}

/// Starts the uploaded prover for this device, has the device made ready, and reads the roots of a fresh challenge.
///
/// # Errors
/// A [`Fault`] that says what kept it.
pub async fn commit(session: &dyn Session, miner: Hotkey, task: &Task) -> Result<Committed, Fault> {
    let mut nonce = [0u8; 32];
    random(&mut nonce)?;
    // Epoch 0 is no epoch of a round: the nonce, drawn here, is all that makes the challenge fresh.
    let challenge = Challenge { nonce, epoch: 0, hotkey: miner, device: task.device, work: task.work };
    let backend = if task.device.cpu_index().is_some() { "cpu" } else { "cuda" };
    let mut process = session.start(&["--backend", backend]).await?;
    let hello = async {
        use tokio::io::AsyncWriteExt as _;
        process.stdin.write_all(&frames::HOST_HELLO).await.map_err(FrameError::Io)?;
        process.stdin.flush().await.map_err(FrameError::Io)?;
        frames::read_hello(&mut process.stdout, frames::PROVER_HELLO).await
    };
    if let Err(error) = hello.await {
        return Err(not_started(&mut process, error).await);
    }
    match ask(&mut process, &Frame::Prepare { device: task.device, work: Some(task.work) }, 0).await? {
        Frame::Prepared => {}
        other => return Err(unexpected(other)),
    }
    let begun = Instant::now();
    let most = task.work.rounds as usize * 32;
    let answer = ask(&mut process, &Frame::Commit { challenge: challenge.clone(), threads: THREADS }, most).await?;
    let elapsed = begun.elapsed();
    let Frame::Roots { roots } = answer else { return Err(unexpected(answer)) };
    check_roots(&challenge, &roots).map_err(|wrong| Fault::new(Reason::WrongProof, wrong.to_string()))?;
    Ok(Committed { task: task.clone(), challenge, roots, elapsed, process })
}

/// A device whose openings are here. From now on nothing is waited for that the miner does.
pub struct Opened {
    task: Task,
    challenge: Challenge,
    roots: Vec<Root>,
    elapsed: Duration,
    positions: Vec<Position>,
    bytes: Vec<u8>,
}

/// Draws positions and reads their openings.
///
/// # Errors
/// A [`Fault`] that says what kept it.
pub async fn open(committed: Committed, samples: usize) -> Result<Opened, Fault> {
    let Committed { task, challenge, roots, elapsed, mut process } = committed;
    let mut seed = [0u8; 32];
    random(&mut seed)?;
    let positions = sample_positions(&task.work, samples, &seed);
    let most = positions.len() * task.work.opening_len();
    let answer = ask(&mut process, &Frame::Open { positions: positions.clone() }, most).await?;
    let Frame::Openings { bytes } = answer else { return Err(unexpected(answer)) };
    // With its input the process ends; nobody waits for it.
    Ok(Opened { task, challenge, roots, elapsed, positions, bytes })
}

/// Checks the openings, and the rate. The time that it takes is ours.
///
/// # Errors
/// A [`Fault`]: [`Reason::WrongProof`] and [`Reason::TooSlow`] for the proof itself.
pub async fn check(opened: Opened, verifiers: &Verifiers) -> Result<Proved, Fault> {
    let Opened { task, challenge, roots, elapsed, positions, bytes } = opened;
    let checked = verifiers.run(move || check_openings(&challenge, &roots, &positions, &bytes)).await;
    let checked = checked.map_err(|error| Fault::new(Reason::OwnFault, format!("verifying failed: {error}")))?;
    let checked = checked.map_err(|wrong| Fault::new(Reason::WrongProof, wrong.to_string()))?;
    let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    let evidence = PassEvidence { operations: task.work.operations(), elapsed_ns, samples: checked.samples };
    let rate = evidence.rate();
    if let Some(floor) = task.floor_ops.filter(|floor| rate < *floor) {
        let shown = |rate: u64| decimal(rate.into(), 12, 3);
        let detail =
            format!("{}: {}, the floor is {} (10^12 operations a second)", task.device, shown(rate), shown(floor));
        return Err(Fault::new(Reason::TooSlow, detail));
    }
    Ok(Proved { device: task.device, rate, elapsed_ms: millis(elapsed), samples: checked.samples })
}

fn random(bytes: &mut [u8; 32]) -> Result<(), Fault> {
    getrandom::fill(bytes).map_err(|e| Fault::new(Reason::OwnFault, format!("no randomness from the system: {e}")))
}

/// Sends a frame and reads the answer, of which at most so many bytes, or an error's text, are read.
async fn ask(process: &mut Process, frame: &Frame, most: usize) -> Result<Frame, Fault> {
    let most = most.max(frames::MAX_ERROR_TEXT + 1);
    let talk = async {
        frames::write_frame(&mut process.stdin, frame).await?;
        frames::read_frame(&mut process.stdout, most).await?.ok_or(FrameError::Ended)
    };
    match talk.await {
        Ok(answer) => Ok(answer),
        Err(FrameError::Ended | FrameError::Io(_)) => Err(Fault::new(Reason::EndedEarly, last_words(process).await)),
        Err(error) => Err(Fault::new(Reason::Garbage, error.to_string())),
    }
}

/// Why the program did not say hello. A shell that cannot run it ends with 126 or 127; words instead of a hello are a shell's,
/// or a banner's.
async fn not_started(process: &mut Process, error: FrameError) -> Fault {
    match error {
        FrameError::Ended | FrameError::Io(_) => Fault::new(Reason::NotStarted, last_words(process).await),
        other => Fault::new(Reason::NotStarted, other.to_string()),
    }
}

async fn last_words(process: &mut Process) -> String {
    match timeout(LAST_WORDS, process.ended.wait_for(Option::is_some)).await {
        Ok(Ok(ended)) => ended.as_ref().map(ToString::to_string).unwrap_or_default(),
        Ok(Err(_)) => "the connection ended".to_owned(),
        Err(_) => "it closed its output and goes on".to_owned(),
    }
}

/// An answer that is none, or an error.
fn unexpected(answer: Frame) -> Fault {
    match answer {
        Frame::Error { kind: ErrorKind::Device, text } => Fault::new(Reason::NoDevice, text),
        Frame::Error { kind: ErrorKind::OutOfMemory | ErrorKind::Internal, text } => {
            Fault::new(Reason::EndedEarly, text)
        }
        Frame::Error { kind: ErrorKind::Request, text } => Fault::new(Reason::Garbage, text),
        other => Fault::new(Reason::Garbage, format!("a {} frame is no answer to what was asked", other.name())),
    }
}
