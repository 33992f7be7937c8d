//! One canary from its first stage to its last, each with a deadline of its own. Dropping the future leaves the lease as it is:
//! whoever begins a canary has its id on record before, and gives back what it finds on record.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::course::{Course, Report, Stage};
use super::prove::{self, Committed, Models, Proved, Task};
use super::reason::{Fault, Reason};
use super::remote::{Access, Remote, Session};
use super::witness::{Seen, Witness};
use crate::actors::validator::verifiers::Verifiers;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::verdict::Side;

/// How long the checking of openings that are here may take: our own matter, in a queue with the proofs of all miners.
const CHECK: Duration = Duration::from_secs(600);

/// What is to be rented and proved.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The lease.
    pub id: LeaseId,
    /// The miner.
    pub miner: Hotkey,
    /// The devices and what each is asked. None where the devices are not known before the login: then all GPUs that the
    /// container shows are asked what [`Tools::models`] has for them.
    pub tasks: Vec<Task>,
}

impl Plan {
    /// The devices.
    pub fn devices(&self) -> Vec<DeviceId> {
        self.tasks.iter().map(|task| task.device).collect()
    }
}

/// What a rental gives.
#[derive(Debug, Clone)]
pub struct Rented {
    /// Where and how to log in.
    pub access: Access,
}

/// Rents and gives back.
#[async_trait]
pub trait Landlord: Send + Sync {
    /// Rents the plan's devices under its id.
    ///
    /// # Errors
    /// A [`Fault`] that says whose doing it is.
    async fn rent(&self, plan: &Plan) -> Result<Rented, Fault>;

    /// Gives back what was rented under this id, or may have been; `Ok` when it is certain that nothing is rented.
    ///
    /// # Errors
    /// A [`Fault`]; asking again is harmless.
    async fn release(&self, id: LeaseId) -> Result<(), Fault>;
}

/// How long each stage may take, and how much is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until the container runs.
    pub allocate: Duration,
    /// Until the login is done.
    pub login: Duration,
    /// Until the prover is there.
    pub upload: Duration,
    /// Until all roots are here.
    pub run: Duration,
    /// Until all openings are here.
    pub verify: Duration,
    /// Until the release is confirmed.
    pub release: Duration,
    /// Positions opened of each device.
    pub samples: usize,
}

impl Limits {
    fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Allocate => self.allocate,
            Stage::Login => self.login,
            Stage::Upload => self.upload,
            Stage::Run => self.run,
            Stage::Verify => self.verify.saturating_add(CHECK),
            Stage::Release => self.release,
        }
    }
}

/// What a canary works with.
#[derive(Clone)]
pub struct Tools {
    /// Rents and gives back.
    pub landlord: Arc<dyn Landlord>,
    /// Logs in.
    pub remote: Arc<dyn Remote>,
    /// The program that is uploaded.
    pub program: Arc<[u8]>,
    /// Where proofs are checked.
    pub verifiers: Verifiers,
    /// What the GPUs of a container are asked that are not known before.
    pub models: Arc<Models>,
    /// Tells whether it is we who are cut off.
    pub witness: Arc<dyn Witness>,
}

/// What the stages hand on.
#[derive(Default)]
struct Hands {
    tasks: Vec<Task>,
    access: Option<Access>,
    session: Option<Box<dyn Session>>,
    committed: Vec<Committed>,
    proved: Vec<Proved>,
    failed: Vec<DeviceId>,
    pinned: bool,
}

/// Drives a canary through all stages. It takes no longer than its limits together.
pub async fn drive(tools: &Tools, limits: &Limits, plan: &Plan) -> Report {
    let seen = Seen::by(&*tools.witness);
    tokio::select! {
        biased;
        report = walk(tools, limits, plan, &seen) => report,
        never = seen.look() => match never {},
    }
}

async fn walk(tools: &Tools, limits: &Limits, plan: &Plan, seen: &Seen<'_>) -> Report {
    let mut course = Course::default();
    let mut hands = Hands { tasks: plan.tasks.clone(), ..Hands::default() };
    while let Some(stage) = course.stage() {
        let begun = Instant::now();
        let limit = limits.of(stage);
        let result = match timeout(limit, carry_out(stage, tools, limits, plan, seen, &mut hands)).await {
            Ok(result) => result,
            // The openings have a deadline of their own.
            Err(_) if stage == Stage::Verify => {
                Err(Fault::new(Reason::OwnFault, format!("not checked within {CHECK:?}")))
            }
            Err(_) => Err(late(limit)),
        };
        let took = begun.elapsed();
        let result = match result {
            // Each device's was judged by itself. That a release failed says nothing of the miner in any case.
            Err(fault) if !matches!(stage, Stage::Verify | Stage::Release) => Err(seen.judge(fault).await),
            result => result,
        };
        course.ended(result, took);
    }
    let devices = hands.tasks.iter().map(|task| task.device).collect();
    course.report(devices, hands.proved, hands.failed, hands.pinned)
}

fn late(limit: Duration) -> Fault {
    Fault::new(Reason::Deadline, format!("not within {limit:?}"))
}

/// Of two faults the one that says more of the miner; the first, if both say as much.
fn graver(one: Option<Fault>, other: Fault) -> Option<Fault> {
    let miners = |fault: &Fault| fault.reason.side() == Side::Miner;
    match one {
        Some(one) if miners(&one) || !miners(&other) => Some(one),
        _ => Some(other),
    }
}

fn out_of_order() -> Fault {
    Fault::new(Reason::OwnFault, "the stage before left nothing to go on with")
}

async fn carry_out(
    stage: Stage,
    tools: &Tools,
    limits: &Limits,
    plan: &Plan,
    seen: &Seen<'_>,
    hands: &mut Hands,
) -> Result<(), Fault> {
    match stage {
        Stage::Allocate => {
            let Rented { access } = tools.landlord.rent(plan).await?;
            hands.access = Some(access);
        }
        Stage::Login => {
            let access = hands.access.as_ref().ok_or_else(out_of_order)?;
            let session = tools.remote.login(access).await?;
            hands.pinned = access.host_key.is_some();
            hands.session = Some(session);
        }
        Stage::Upload => {
            hands.session.as_ref().ok_or_else(out_of_order)?.upload(&tools.program).await?;
        }
        Stage::Run => {
            let session = hands.session.as_ref().ok_or_else(out_of_order)?;
            if hands.tasks.is_empty() {
                hands.tasks = prove::survey(&**session, &tools.models).await?;
            }
            // All at once: one card after the other would pass for as many as are asked.
            let all = join_all(hands.tasks.iter().map(|task| prove::commit(&**session, plan.miner, task))).await;
            let mut worst = None;
            for (task, made) in hands.tasks.iter().zip(all) {
                match made {
                    Ok(committed) => hands.committed.push(committed),
                    Err(fault) => {
                        if matches!(fault.reason, Reason::NoDevice | Reason::WrongProof) {
                            hands.failed.push(task.device);
                        }
                        worst = graver(worst, fault);
                    }
                }
            }
            worst.map_or(Ok(()), Err)?;
        }
        Stage::Verify => {
            let committed = std::mem::take(&mut hands.committed);
            // Each by itself: that one is waited for takes no time from the others.
            let all = committed.into_iter().map(|one| async {
                let device = one.device();
                let opened = timeout(limits.verify, prove::open(one, limits.samples)).await;
                let made = match opened.unwrap_or_else(|_| Err(late(limits.verify))) {
                    Ok(opened) => prove::check(opened, &tools.verifiers).await,
                    Err(fault) => Err(fault),
                };
                (device, made)
            });
            let mut worst = None;
            for (device, made) in join_all(all).await {
                match made {
                    Ok(proved) => hands.proved.push(proved),
                    Err(fault) => {
                        // The roots were here: that they are not opened, or opened wrong, is the miner's doing. Nothing else is,
                        // nor that, if it is we who were cut off.
                        let fault = seen.judge(fault).await;
                        if fault.reason.side() == Side::Miner {
                            hands.failed.push(device);
                        }
                        worst = graver(worst, fault);
                    }
                }
            }
            worst.map_or(Ok(()), Err)?;
        }
        Stage::Release => {
            hands.committed.clear();
            hands.session = None;
            tools.landlord.release(plan.id).await?;
        }
    }
    Ok(())
}
