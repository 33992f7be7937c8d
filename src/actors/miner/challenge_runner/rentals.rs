//! Whoever rents a device goes before whoever wants it proved: what is done for a device ends as soon as it is held for a
//! tenant, before the tenant's container is made.
//!
//! The allocation manager publishes which devices it holds when it reserves them, so nothing has to be asked.

use actix::prelude::*;
use tokio::sync::watch;

use super::ChallengeRunner;
use crate::ids::DeviceId;
use crate::runtime::Ctx;

/// The devices that are rented, about to be, or set aside.
pub(super) type HeldDevices = watch::Receiver<Vec<DeviceId>>;

/// Resolves when this device is held.
pub(super) async fn taken(mut held: HeldDevices, device: DeviceId) {
    if held.wait_for(|held| held.contains(&device)).await.is_err() {
        // Nobody rents any more.
        std::future::pending::<()>().await;
    }
}

impl ChallengeRunner {
    /// Looks at each change of what is held.
    pub(super) fn follow_rentals(&mut self, mut held: HeldDevices, ctx: &mut Ctx<Self>) {
        let changed = async move { held.changed().await.is_ok().then_some(held) };
        ctx.spawn(changed.into_actor(self).map(|held, act, ctx| {
            let Some(mut held) = held else { return };
            act.vacate(&held.borrow_and_update());
            act.follow_rentals(held, ctx);
        }));
    }

    /// Gives up what these devices hold for proofs. A proof of work that is under way sees it by itself ([`taken`]).
    fn vacate(&mut self, held: &[DeviceId]) {
        self.vacate_memory(held);
        let free = self.readiness.devices().filter(|device| !held.contains(device)).collect::<Vec<_>>();
        self.setup.prover.stand_by(&free, false);
    }
}
