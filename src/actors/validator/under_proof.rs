//! What this validator's own proofs and rentals tell each other, so that neither costs a miner the other.
//!
//! A rental ends a proof at its miner. Before the miner has sent its roots that costs it nothing; after them it is answerable
//! for what it does not open. So a rental waits while its miner opens ([`UnderProof::rent`]), and where one was on its way
//! when the roots arrived, a device that it got and that was not opened is rented, not failed ([`Opening::judge`]).
//!
//! Nothing that a miner says counts here, nor a rental that it refused in the end: to withhold openings would be free for
//! whoever knows a renter. One that began before the roots and became a lease gains nothing by it: it could have called
//! the device rented in place of the roots.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::ids::{DeviceId, Hotkey};
use crate::verdict::{FailReason, UnknownCause, Verdict};

/// How long a verdict waits for a rental under way: two calls of the miner, by the longest settings that make sense.
const RENTAL: Duration = Duration::from_secs(150);

/// What goes on at one miner.
#[derive(Debug, Default)]
struct Miner {
    /// Proofs between their roots and their openings.
    opening: usize,
    /// Rentals that it is asked for.
    renting: usize,
    /// When each device was rented last, in rentals of this process.
    rented: HashMap<DeviceId, u64>,
}

#[derive(Debug, Default)]
struct Books {
    rentals: u64,
    miners: HashMap<Hotkey, Miner>,
}

/// The books of one validator; clones share them.
#[derive(Debug, Clone)]
pub struct UnderProof(Arc<watch::Sender<Books>>);

impl Default for UnderProof {
    fn default() -> Self {
        UnderProof(Arc::new(watch::Sender::new(Books::default())))
    }
}

impl UnderProof {
    fn of(&self, miner: Hotkey, change: impl FnOnce(&mut Miner)) {
        self.0.send_modify(|books| change(books.miners.entry(miner).or_default()));
    }

    /// A miner is about to be asked for roots.
    pub fn asking(&self, miner: Hotkey) -> Asking {
        Asking { books: self.clone(), miner, since: self.0.borrow().rentals }
    }

    /// Waits until the miner has opened what it committed to, and notes that it is asked for a rental. `None` if it has
    /// not in this time: it is not to be asked.
    pub async fn rent(&self, miner: Hotkey, devices: &[DeviceId], within: Duration) -> Option<Renting> {
        let mut books = self.0.subscribe();
        let free = async {
            loop {
                let begun = self.0.send_if_modified(|books| {
                    let miner = books.miners.entry(miner).or_default();
                    miner.renting += usize::from(miner.opening == 0);
                    miner.opening == 0
                });
                // Its sender is this one: it cannot be gone.
                if begun || books.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(within, free).await.ok()?;
        Some(Renting { books: self.clone(), miner, devices: devices.to_vec() })
    }
}

/// A miner is asked for a rental, for as long as this lives.
#[derive(Debug)]
pub struct Renting {
    books: UnderProof,
    miner: Hotkey,
    devices: Vec<DeviceId>,
}

impl Renting {
    /// The lease runs.
    pub fn made(&self) {
        self.books.0.send_modify(|books| {
            books.rentals += 1;
            let (at, miner) = (books.rentals, books.miners.entry(self.miner).or_default());
            miner.rented.extend(self.devices.iter().map(|device| (*device, at)));
        });
    }
}

impl Drop for Renting {
    fn drop(&mut self) {
        self.books.of(self.miner, |miner| miner.renting = miner.renting.saturating_sub(1));
    }
}

/// A miner is asked for roots.
#[derive(Debug)]
pub struct Asking {
    books: UnderProof,
    miner: Hotkey,
    since: u64,
}

impl Asking {
    /// The roots are here: from now on no rental is begun until the openings are too.
    pub fn roots(self) -> Opening {
        let mut overlapped = false;
        self.books.of(self.miner, |miner| {
            miner.opening += 1;
            overlapped = miner.renting > 0 || miner.rented.values().any(|at| *at > self.since);
        });
        Opening { asking: self, overlapped }
    }
}

/// A miner is to open what it committed to, for as long as this lives.
#[derive(Debug)]
pub struct Opening {
    asking: Asking,
    overlapped: bool,
}

impl Opening {
    /// The verdict on the openings of a device, as far as a rental of ours does not change it.
    pub async fn judge<E>(&self, device: DeviceId, verdict: Verdict<E>) -> Verdict<E> {
        let Verdict::Fail { reason: FailReason::OpeningWithheld | FailReason::OpeningUnanswered, detail } = &verdict
        else {
            return verdict;
        };
        let Asking { books, miner, since } = &self.asking;
        if !self.overlapped {
            return verdict;
        }
        let mut seen = books.0.subscribe();
        let over = seen.wait_for(|books| books.miners.get(miner).is_none_or(|miner| miner.renting == 0));
        // One that takes longer is no lease yet, and excuses nothing.
        let _ = timeout(RENTAL, over).await;
        let rented = books.0.borrow().miners.get(miner).and_then(|miner| miner.rented.get(&device).copied());
        match rented.is_some_and(|at| at > *since) {
            true => Verdict::unknown(UnknownCause::Rented, format!("this validator rented it meanwhile: {detail}")),
            false => verdict,
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Asking { books, miner, .. } = &self.asking;
        books.of(*miner, |miner| miner.opening = miner.opening.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::PassEvidence;

    const MINER: Hotkey = Hotkey([1; 32]);
    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    fn device(n: u8) -> DeviceId {
        DeviceId::cpu(n)
    }

    async fn reason(opening: &Opening, n: u8, reason: FailReason) -> &'static str {
        opening.judge::<PassEvidence>(device(n), Verdict::fail(reason, "seen")).await.reason()
    }

    #[tokio::test]
    async fn a_rental_waits_while_its_miner_opens_and_no_longer_than_it_is_told() {
        let books = UnderProof::default();
        let opening = books.asking(MINER).roots();
        assert!(books.rent(MINER, &[device(0)], SOON).await.is_none());
        assert!(books.rent(Hotkey([2; 32]), &[device(0)], SOON).await.is_some(), "another miner's proof");
        let waiting = tokio::spawn({
            let books = books.clone();
            async move { books.rent(MINER, &[device(0)], LONG).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(opening);
        assert!(waiting.await.unwrap());
        assert!(books.rent(MINER, &[device(0)], SOON).await.is_some(), "what gave up waiting is not counted");
    }

    #[tokio::test]
    async fn a_device_that_was_rented_before_its_roots_arrived_and_is_not_opened_is_rented() {
        use FailReason::{EntryMismatch, OpeningUnanswered, OpeningWithheld};
        let books = UnderProof::default();
        let asking = books.asking(MINER);
        let renting = books.rent(MINER, &[device(0)], SOON).await.unwrap();
        let opening = asking.roots();
        let made = tokio::spawn(async move {
            tokio::time::sleep(SOON).await;
            renting.made();
        });
        assert_eq!(reason(&opening, 0, OpeningWithheld).await, "rented", "it waits for the rental's end");
        made.await.unwrap();
        assert_eq!(reason(&opening, 0, OpeningUnanswered).await, "rented");
        assert_eq!(reason(&opening, 0, EntryMismatch).await, "entry_mismatch", "a wrong opening is one all the same");
        assert_eq!(reason(&opening, 1, OpeningWithheld).await, "opening_withheld", "another device");
        drop(opening);
        let next = books.asking(MINER).roots();
        assert_eq!(reason(&next, 0, OpeningWithheld).await, "opening_withheld", "it was rented before");
    }

    #[tokio::test]
    async fn a_rental_that_the_miner_refused_excuses_nothing() {
        let books = UnderProof::default();
        let asking = books.asking(MINER);
        let renting = books.rent(MINER, &[device(0)], SOON).await.unwrap();
        let opening = asking.roots();
        drop(renting);
        assert_eq!(reason(&opening, 0, FailReason::OpeningWithheld).await, "opening_withheld");
    }
}
