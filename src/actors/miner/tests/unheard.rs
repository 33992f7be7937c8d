//! Rentals of the original's callers that their renters do not hear of: ended, whatever comes in between.

use rsa::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};

use super::*;
use crate::actors::miner::original::{LeaseLimits, Original, OriginalPolicy};
use crate::messages::miner::allocation_manager::Abandon;
use crate::runtime::{Cause, Fault};
use crate::wire::synapse::original::{Allocate, Output, PublicKey};

/// The port that is told beside every answer.
const PORT: u16 = 4444;

fn original(miner: &Miner, deadline: Duration) -> Original {
    Original {
        allocations: miner.leases.clone(),
        specs: miner.specs.clone(),
        offer: miner.offer.clone(),
        duty: watch::Sender::new(Default::default()).subscribe(),
        ssh_port: Live::fixed(Arc::new(PORT)),
        policy: Live::fixed(Arc::new(OriginalPolicy { password: true, image: String::new() })),
        tried: None,
        limits: Live::fixed(LeaseLimits { longest: DEADLINE * 100, test: DEADLINE * 10 }),
        deadline,
    }
}

fn request() -> Allocate {
    let private = include_str!("../../../../tests/vectors/rsa_2048_of_tests.pem");
    let public = rsa::RsaPrivateKey::from_pkcs8_pem(private).unwrap().to_public_key();
    Allocate {
        timeline: 1,
        checking: false,
        public_key: PublicKey(public.to_public_key_pem(LineEnding::LF).unwrap()),
        ..Default::default()
    }
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let all = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

impl Miner {
    /// Rents the machine as far as the answer, which nobody hears.
    async fn rent_unheard(&self) -> LeaseId {
        let mut lease = LeaseId([0; 16]);
        getrandom::fill(&mut lease.0).unwrap();
        let owner_token = OwnerToken::of_public_key("key");
        let wish = AllocateMachine {
            caller: A,
            lease,
            owner_token,
            ssh_key: None,
            image: String::new(),
            lasts: DEADLINE * 100,
        };
        let reply = self.leases.ask(wish, DEADLINE).await.unwrap();
        assert!(reply.is_ok(), "{reply:?}");
        lease
    }

    async fn free_again(&self) {
        until("the machine is free again", async || self.offer.borrow().as_ref().is_some_and(|offer| offer.free)).await;
        assert_eq!(self.engine.list().await.unwrap(), []);
    }

    /// Lets the journal refuse every event of a lease, or take them again.
    fn refuse_events(&self, refuse: bool) {
        let db = rusqlite::Connection::open(self.dir.path().join("db").join(store::DATABASE_FILE)).unwrap();
        db.busy_timeout(DEADLINE).unwrap();
        db.execute_batch(match refuse {
            true => "CREATE TRIGGER no BEFORE INSERT ON lease_event BEGIN SELECT RAISE(ABORT, 'no'); END",
            false => "DROP TRIGGER no",
        })
        .unwrap();
    }
}

#[test]
fn a_rental_that_its_renter_does_not_hear_of_is_ended() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let (original, request) = (original(&miner, DEADLINE), request());
        miner.engine.set_faults(Faults { delay: Duration::from_millis(200), ..Faults::default() });
        // Its caller goes away while the container is made.
        let gone = tokio::time::timeout(Duration::from_millis(50), original.allocate(A, &request)).await;
        assert!(gone.is_err(), "{gone:?}");
        assert_eq!(miner.leases.ask(RentedDevices, DEADLINE).await.unwrap().len(), 2, "it is being made");
        miner.free_again().await;
        assert_eq!(miner.deeds(), [Deed::Created, Deed::Destroyed]);

        // One that is heard of stays, also when a repeat of the same request is not waited for.
        miner.engine.set_faults(Faults::default());
        let made = original.allocate(A, &request).await.unwrap();
        assert!(made.status() == Some(true) && made.info().is_some(), "{made:?}");
        tokio::select! {
            biased;
            answer = original.allocate(A, &request) => panic!("an answer before the actor was asked: {answer:?}"),
            () = std::future::ready(()) => {}
        }
        let refused = original.allocate(A, &request).await.unwrap();
        assert_eq!(refused, Output::of(false).with_port(PORT));
        assert_eq!(miner.leases.ask(ListLeases, DEADLINE).await.unwrap()[0].state, LeaseState::Running);
        // And over a restart.
        let miner = miner.restarted().await;
        let leases = miner.leases.ask(ListLeases, DEADLINE).await.unwrap();
        assert_eq!((leases[0].state, leases[0].unheard), (LeaseState::Running, false));
        assert_eq!(miner.return_machine(A, request.public_key.text()).await, ReleaseReply::Released);
    });
}

#[test]
fn a_rental_whose_engine_is_slower_than_its_renter_waits_is_ended() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.engine.set_faults(Faults { delay: Duration::from_millis(200), ..Faults::default() });
        let late = original(&miner, Duration::from_millis(50)).allocate(A, &request()).await;
        assert!(late.is_err(), "{late:?}");
        miner.free_again().await;
        assert_eq!(miner.deeds(), [Deed::Created, Deed::Destroyed]);
    });
}

#[test]
fn an_unheard_rental_is_ended_when_the_actor_or_the_process_starts_again() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let lease = miner.rent_unheard().await;
        assert!(miner.tree.view().inject("allocation_manager", Fault::Panic));
        until("it was started again", async || miner.tree.view().restarts("allocation_manager", Cause::Panic) == 1)
            .await;
        until("it tells nobody of it", async || {
            miner.leases.ask(MachineHeard { caller: A, lease }, DEADLINE).await.unwrap().is_err()
        })
        .await;
        miner.free_again().await;

        miner.rent_unheard().await;
        let miner = miner.restarted().await;
        miner.free_again().await;
        assert_eq!(miner.deeds(), [Deed::Created, Deed::Destroyed, Deed::Created, Deed::Destroyed]);
    });
    // A process that ends at the call of the engine: before the container is made, and after.
    for after in [false, true] {
        run(async {
            let crash = Crash::at(End::Engine { at: 1, after });
            let miner = miner_in(tempfile::tempdir().unwrap(), crash.clone());
            miner.ready().await;
            let mut dead = crash.dead.subscribe();
            tokio::select! {
                _ = miner.rent_unheard() => panic!("the node is gone"),
                _ = dead.wait_for(|dead| *dead) => {}
            }
            let miner = miner.restarted().await;
            miner.free_again().await;
            assert_eq!(miner.deeds().len(), if after { 2 } else { 0 }, "{after}");
        });
    }
}

#[test]
fn a_renter_is_told_nothing_that_the_journal_does_not_take_and_its_rental_is_ended_when_it_does() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let lease = miner.rent_unheard().await;
        assert!(miner.leases.ask(MachineHeard { caller: B, lease }, DEADLINE).await.unwrap().is_err(), "not B's");
        miner.refuse_events(true);
        let told = miner.leases.ask(MachineHeard { caller: A, lease }, DEADLINE).await.unwrap();
        assert!(told.is_err(), "{told:?}");
        let owner_token = OwnerToken::of_public_key("key");
        let release = Release { caller: A, request: ReleaseRequest { lease, fencing_epoch: 1, owner_token } };
        miner.leases.tell(Abandon(release)).unwrap();
        miner.leases.ask(Reconcile, DEADLINE).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let state = miner.leases.ask(ListLeases, DEADLINE).await.unwrap()[0].state;
        assert_eq!(state, LeaseState::Running, "its end is not on record");
        miner.refuse_events(false);
        // A later comparison, not its renter, ends it.
        until("it is ended", async || {
            miner.leases.ask(Reconcile, DEADLINE).await.unwrap();
            miner.leases.ask(ListLeases, DEADLINE).await.unwrap().is_empty()
        })
        .await;
        miner.free_again().await;
    });
}

#[test]
fn what_is_given_up_before_the_first_comparison_is_ended_after_it() {
    run(async {
        let miner = miner();
        miner.ready().await;
        // A lease that is not marked, so that nothing else ends it.
        let made = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        let Miner { tree, writer, dir, .. } = miner;
        tree.run(async {}).await;
        writer.shutdown(DEADLINE).await.unwrap();

        let miner = miner_in(dir, Crash::never());
        let request = ReleaseRequest { lease: LeaseId([1; 16]), fencing_epoch: 1, owner_token: token() };
        miner.leases.tell(Abandon(Release { caller: A, request })).unwrap();
        assert_eq!(*miner.offer.borrow(), None, "nothing is known yet");
        miner.free_again().await;
        assert_eq!(miner.deeds(), [Deed::Created, Deed::Destroyed]);
    });
}
