//! Devices that are ready before a validator's turn begins, and what is known of how they are proved.
//!
//! While a turn is on or near, each offered GPU that nobody rents has a prover that waits for its challenge. It is let go
//! with a rental (`rentals`), and nothing is begun while a proof is under way, which it would slow down.

use std::time::Duration;

use actix::prelude::*;

use super::{ASK, ChallengeRunner, ChallengeRunnerSetup};
use crate::actors::miner::turn::turn_is_near;
use crate::ids::DeviceId;
use crate::messages::miner::allocation_manager::RentedDevices;
use crate::messages::miner::specs_collector::GetSpecs;
use crate::proof::prover::{Backend, Computes};
use crate::runtime::Ctx;

/// How often it is looked whether devices are wanted.
pub(super) const PERIOD: Duration = Duration::from_millis(250);
/// How long the first measurement of the machine is waited for at a time.
const MEASURED: Duration = Duration::from_secs(30);

/// What the runner knows.
#[derive(Default)]
pub(super) struct Readiness {
    /// What computes for each offered device, once that was found out.
    computes: Option<Vec<Computes>>,
    /// Something is being asked.
    asking: bool,
}

impl Readiness {
    /// A challenge names these devices: if one of them was not offered when this was found out, it is found out again.
    pub(super) fn asked(&mut self, mut devices: impl Iterator<Item = DeviceId>) {
        let known = |known: &[Computes], device| known.is_empty() || known.iter().any(|one| one.device == device);
        if self.computes.as_ref().is_some_and(|computes| devices.any(|device| !known(computes, device))) {
            self.computes = None;
        }
    }

    /// What is shown of it.
    pub(super) fn shown(&self) -> Vec<String> {
        self.computes.iter().flatten().map(Computes::to_string).collect()
    }

    /// The devices that are known.
    pub(super) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.computes.iter().flatten().map(|computes| computes.device)
    }

    fn has_gpus(&self) -> bool {
        self.computes.iter().flatten().any(|computes| computes.by == Backend::Cuda)
    }
}

impl ChallengeRunner {
    /// Called every [`PERIOD`].
    pub(super) fn see_to_readiness(&mut self, ctx: &mut Ctx<Self>) {
        if self.readiness.asking {
            return;
        }
        let setup = self.setup.clone();
        if self.readiness.computes.is_none() {
            self.readiness.asking = true;
            let explained = async move {
                let specs = setup.specs.ask(GetSpecs, MEASURED).await.ok()?;
                let devices: Vec<DeviceId> = specs.specs.devices.iter().map(|device| device.device).collect();
                Some(setup.prover.explain(&devices).await)
            };
            ctx.spawn(explained.into_actor(self).map(|computes, act, _| {
                act.readiness.asking = false;
                computes.iter().flatten().for_each(tell);
                act.readiness.computes = computes;
            }));
            return;
        }
        if !self.readiness.has_gpus() {
            return;
        }
        if !setup.view.borrow().as_deref().is_some_and(turn_is_near) {
            setup.prover.stand_by(&[], false);
            return;
        }
        self.readiness.asking = true;
        ctx.spawn(async move { free_devices(&setup).await }.into_actor(self).map(|free, act, _| {
            act.readiness.asking = false;
            let proving = act.budget.busy_until_ms(act.setup.clock.now_ms()).is_some();
            act.setup.prover.stand_by(&free, !proving);
        }));
    }
}

/// The offered devices that nobody rents; none where that is not known.
async fn free_devices(setup: &ChallengeRunnerSetup) -> Vec<DeviceId> {
    let specs = setup.specs.ask(GetSpecs, ASK).await;
    let rented = setup.allocations.ask(RentedDevices, ASK).await;
    let (Ok(specs), Ok(rented)) = (specs, rented) else { return Vec::new() };
    let devices = specs.specs.devices.iter().map(|offered| offered.device);
    devices.filter(|device| !rented.iter().any(|(taken, _)| taken == device)).collect()
}

fn tell(computes: &Computes) {
    let Computes { device, by, why, remedy } = computes;
    match remedy {
        Some(remedy) => tracing::warn!(%device, %by, why, remedy, "what proves the device"),
        None => tracing::info!(%device, %by, why, "what proves the device"),
    }
}
