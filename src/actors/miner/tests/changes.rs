//! Changes of running leases: by their renters, and without anybody's wish.

use super::*;
use crate::lease::engine::Granted;
use crate::messages::miner::allocation_manager::{ChangeLease, Renew};
use crate::wire::synapse::{
    ContainerState as Shown, LeaseChange, LeaseChangeReply, LeaseChangeRequest, LoginError, RenewReply, RenewRequest,
    ReplySecret,
};

fn change(id: u8, key: u8, change: LeaseChange) -> ChangeLease {
    let request =
        LeaseChangeRequest { lease: LeaseId([id; 16]), fencing_epoch: 1, owner_token: token(), key: [key; 16], change };
    ChangeLease { caller: A, request }
}

fn done(state: Shown) -> LeaseChangeReply {
    LeaseChangeReply::Done { state }
}

fn reason(reply: LeaseChangeReply) -> LeaseRefusal {
    match reply {
        LeaseChangeReply::Refused { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

impl Miner {
    async fn rent(&self, id: u8) {
        let made = self.leases.ask(self.allocate(id, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
    }

    async fn change(&self, change: ChangeLease) -> LeaseChangeReply {
        self.leases.ask(change, DEADLINE).await.unwrap()
    }

    /// Asks again while a comparison has the lease in hand, as a renter does.
    async fn until_done(&self, wish: impl Fn() -> ChangeLease) {
        tokio::time::timeout(DEADLINE, async {
            while !matches!(self.change(wish()).await, LeaseChangeReply::Done { .. }) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the change is made in time");
    }

    /// What was granted to the only container that is there.
    fn granted(&self) -> Granted {
        let contents = Contents::read(self.engine.path()).unwrap();
        let [granted] = &contents.granted[..] else { panic!("{contents:?}") };
        granted.clone()
    }

    async fn state(&self) -> Option<ContainerState> {
        self.engine.list().await.unwrap().first().map(|container| container.state)
    }

    /// Until the only container is in this state, and the lease can be changed again.
    async fn until_state(&self, state: ContainerState) {
        tokio::time::timeout(DEADLINE, async {
            while self.state().await != Some(state) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("never {state:?}"));
    }
}

#[test]
fn a_renter_pauses_resumes_restarts_and_exchanges_keys_and_a_repeat_does_nothing_twice() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let unknown = miner.change(change(1, 0, LeaseChange::Pause)).await;
        assert_eq!(unknown, LeaseChangeReply::UnknownLease);
        miner.rent(1).await;
        let made = miner.engine.list().await.unwrap().remove(0);

        for _ in 0..2 {
            assert_eq!(miner.change(change(1, 1, LeaseChange::Pause)).await, done(Shown::Paused));
            assert_eq!(miner.state().await, Some(ContainerState::Paused));
        }
        assert_eq!(miner.change(change(1, 2, LeaseChange::Resume)).await, done(Shown::Running));
        // A pause that comes again, late, is the one that was answered: the container runs on.
        assert_eq!(miner.change(change(1, 1, LeaseChange::Pause)).await, done(Shown::Paused));
        assert_eq!(miner.state().await, Some(ContainerState::Running));
        for _ in 0..2 {
            assert_eq!(miner.change(change(1, 3, LeaseChange::Restart)).await, done(Shown::Running));
            assert_eq!(miner.granted().restarts, 1);
        }
        assert_eq!(miner.change(change(1, 4, LeaseChange::Restart)).await, done(Shown::Running));
        assert_eq!(miner.granted().restarts, 2);
        assert_eq!(reason(miner.change(change(1, 4, LeaseChange::Pause)).await), LeaseRefusal::Reused);

        let user = LeaseChange::UserKey { ssh_key: "ssh-ed25519 BBBB".into() };
        let terminal = LeaseChange::TerminalKey { ssh_key: Some("ssh-ed25519 CCCC".into()) };
        assert_eq!(miner.change(change(1, 5, user)).await, done(Shown::Running));
        assert_eq!(miner.change(change(1, 6, terminal)).await, done(Shown::Running));
        let granted = miner.granted();
        assert_eq!(granted.user_key, Some(Granted::digest("ssh-ed25519 BBBB")));
        assert_eq!(granted.terminal_key, Some(Granted::digest("ssh-ed25519 CCCC")));
        let lines = LeaseChange::UserKey { ssh_key: "ssh-ed25519 D\nssh-ed25519 E".into() };
        assert_eq!(reason(miner.change(change(1, 7, lines)).await), LeaseRefusal::SshKey);
        assert_eq!(miner.engine.list().await.unwrap(), [made], "port, host key and name stay");
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        assert_eq!(reason(miner.change(change(1, 8, LeaseChange::Restart)).await), LeaseRefusal::State);
    });
}

#[test]
fn nobody_but_the_owner_in_the_newest_epoch_changes_a_lease() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.rent(1).await;
        assert_eq!(miner.change(change(1, 1, LeaseChange::Pause)).await, done(Shown::Paused));
        // A stranger with the token, the renter with another, each with a call that was answered before and a new one.
        for key in [1, 2] {
            let stranger = ChangeLease { caller: B, ..change(1, key, LeaseChange::Pause) };
            assert_eq!(reason(miner.change(stranger).await), LeaseRefusal::NotOwner);
            let mut forged = change(1, key, LeaseChange::Pause);
            forged.request.owner_token = OwnerToken::from_bytes([8; 32]);
            assert_eq!(reason(miner.change(forged).await), LeaseRefusal::NotOwner);
        }
        let mut newer = change(1, 3, LeaseChange::Resume);
        newer.request.fencing_epoch = 2;
        assert_eq!(miner.change(newer).await, done(Shown::Running));
        assert_eq!(reason(miner.change(change(1, 4, LeaseChange::Pause)).await), LeaseRefusal::StaleEpoch);
        assert_eq!(miner.state().await, Some(ContainerState::Running));
    });
}

#[test]
fn a_change_that_the_engine_did_not_take_is_not_answered_as_done() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.rent(1).await;
        miner.engine.set_faults(Faults { unavailable: true, ..Faults::default() });
        assert_eq!(reason(miner.change(change(1, 1, LeaseChange::Restart)).await), LeaseRefusal::Engine);
        miner.engine.set_faults(Faults::default());
        assert_eq!(miner.change(change(1, 1, LeaseChange::Restart)).await, done(Shown::Running), "the same call again");
        assert_eq!(miner.granted().restarts, 1);
    });
}

#[test]
fn the_login_is_told_to_who_asked_and_to_nobody_else() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let (ours, others) = (ReplySecret::generate().unwrap(), ReplySecret::generate().unwrap());
        let mut wish = miner.allocate(1, &[0]);
        wish.request.reply_key = Some(ours.public());
        let made = miner.leases.ask(wish, DEADLINE).await.unwrap();
        let AllocateReply::Running { ssh_host, ssh_port, login: Some(sealed), .. } = made else { panic!("{made:?}") };
        assert_eq!((ssh_host.as_str(), ssh_port), ("", 0), "nothing in the open");
        let container = miner.engine.list().await.unwrap().remove(0);
        let login = ours.open(&sealed).unwrap();
        assert_eq!((login.user.as_str(), login.host.as_str()), ("root", "127.0.0.1"));
        assert_eq!((login.port, &login.host_key), (container.ssh_port, &container.host_key));
        assert_eq!(others.open(&sealed), Err(LoginError::NotOurs));

        let asked = LeaseStatusRequest {
            lease: LeaseId([1; 16]),
            fencing_epoch: 1,
            owner_token: token(),
            reply_key: Some(others.public()),
            receipt: None,
            expires_at_ms: None,
        };
        let known = miner.leases.ask(LeaseStatus { caller: A, request: asked }, DEADLINE).await.unwrap();
        let LeaseStatusReply::Known { login: Some(sealed), .. } = known else { panic!("{known:?}") };
        assert_eq!(others.open(&sealed), Ok(login));
        let known = miner.status(1).await;
        assert!(matches!(known, LeaseStatusReply::Known { login: None, .. }), "{known:?}");
        // An old caller is told in the open, as ever.
        let again = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
        let AllocateReply::Running { ssh_port, login: None, .. } = again else { panic!("{again:?}") };
        assert_eq!(ssh_port, container.ssh_port);
    });
}

#[test]
fn an_image_that_the_engine_refuses_is_refused_by_that_name_and_leaves_nothing() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.engine.set_faults(Faults { refuse_image: true, ..Faults::default() });
        let refused = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
        let AllocateReply::Refused { reason: LeaseRefusal::Image, detail } = refused else { panic!("{refused:?}") };
        assert!(detail.contains("image ubuntu"), "{detail}");
        miner.engine.set_faults(Faults::default());
        assert!(miner.leases.ask(RentedDevices, DEADLINE).await.unwrap().is_empty());
        miner.rent(2).await;
    });
}

#[test]
fn a_container_that_ended_is_started_again_and_its_lease_goes_on() {
    run(async {
        let crash = Crash::never();
        let miner = miner_in(tempfile::tempdir().unwrap(), crash.clone());
        miner.ready().await;
        miner.rent(1).await;
        let made = miner.engine.list().await.unwrap();
        assert!(miner.engine.exit(LeaseId([1; 16])).await.unwrap());
        // The next period is an hour away: it is the engine that says so.
        crash.changes.send_modify(|changes| *changes += 1);
        miner.until_state(ContainerState::Running).await;
        assert_eq!(miner.engine.list().await.unwrap(), made);
        assert_eq!(miner.granted().restarts, 1);

        // A lease that is paused on record is paused again.
        miner.until_done(|| change(1, 1, LeaseChange::Pause)).await;
        miner.engine.exit(LeaseId([1; 16])).await.unwrap();
        let miner = miner.restarted().await;
        miner.until_state(ContainerState::Paused).await;
        assert_eq!(miner.granted().restarts, 2);
        let known = miner.status(1).await;
        assert!(matches!(known, LeaseStatusReply::Known { state: Shown::Paused, .. }), "{known:?}");
    });
}

#[test]
fn a_container_that_ends_again_at_once_is_not_started_in_a_loop() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.rent(1).await;
        for _ in 0..6 {
            miner.engine.exit(LeaseId([1; 16])).await.unwrap();
            miner.leases.tell(Reconcile).unwrap();
            // Answered after the comparison's first step was taken.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(miner.granted().restarts, 1, "the second start is 5 s away");
        let known = miner.status(1).await;
        assert!(matches!(known, LeaseStatusReply::Known { state: Shown::Running, .. }), "it is not lost: {known:?}");
    });
}

#[test]
fn a_lease_is_made_longer_by_its_owner_within_the_limit() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.rent(1).await;
        let lease = miner.leases.ask(ListLeases, DEADLINE).await.unwrap().remove(0);
        let renew = async |caller, expires_at_ms| {
            let (lease, owner_token) = (lease.id, token());
            let request = RenewRequest { lease, fencing_epoch: 1, owner_token, expires_at_ms };
            miner.leases.ask(Renew { caller, request }, DEADLINE).await.unwrap()
        };
        let later = lease.expires_at_ms + 1_000;
        assert_eq!(renew(A, later).await, RenewReply::Renewed { expires_at_ms: later });
        assert_eq!(renew(A, later).await, RenewReply::Renewed { expires_at_ms: later }, "a repeat");
        assert_eq!(renew(A, lease.expires_at_ms).await, RenewReply::Renewed { expires_at_ms: later }, "never shorter");
        for (caller, until, reason) in [
            (B, later + 1, LeaseRefusal::NotOwner),
            (A, 1, LeaseRefusal::Expiry),
            (A, miner.clock.now_ms() + 3_601_000, LeaseRefusal::Expiry),
        ] {
            let refused = renew(caller, until).await;
            assert!(matches!(&refused, RenewReply::Refused { reason: r, .. } if *r == reason), "{refused:?}");
        }
        let miner = miner.restarted().await;
        assert_eq!(miner.leases.ask(ListLeases, DEADLINE).await.unwrap()[0].expires_at_ms, later);
    });
}

/// Until the lease is known to be in this state.
async fn until_known(miner: &Miner, id: u8, wanted: Shown) {
    tokio::time::timeout(DEADLINE, async {
        loop {
            if matches!(miner.status(id).await, LeaseStatusReply::Known { state, .. } if state == wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the lease comes to this state in time");
}

#[test]
fn a_lease_is_lost_by_periods_however_often_the_engine_tells_of_changes() {
    run(async {
        let crash = Crash::never();
        let miner = miner_in(tempfile::tempdir().unwrap(), crash.clone());
        miner.ready().await;
        miner.rent(1).await;
        assert!(miner.engine.disappear(LeaseId([1; 16])).await.unwrap());
        for _ in 0..20 {
            miner.leases.tell(Reconcile).unwrap();
            crash.changes.send_modify(|n| *n += 1);
            // Longer than a comparison takes, and than events are held back.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let known = miner.status(1).await;
        assert!(matches!(known, LeaseStatusReply::Known { state: Shown::Running, .. }), "{known:?}");
        // With periods it is lost.
        let Miner { tree, writer, dir, .. } = miner;
        tree.run(async {}).await;
        writer.shutdown(DEADLINE).await.unwrap();
        let miner = miner_with(dir, Crash::never(), Duration::from_millis(20), |_| {});
        miner.ready().await;
        until_known(&miner, 1, Shown::Gone).await;
    });
}

#[test]
fn a_lost_lease_whose_container_is_back_is_released_only_when_its_renter_ends_it() {
    run(async {
        let miner = miner_with(tempfile::tempdir().unwrap(), Crash::never(), Duration::from_millis(20), |_| {});
        miner.ready().await;
        miner.rent(1).await;
        let disk = std::fs::read(miner.engine.path()).unwrap();
        assert!(miner.engine.disappear(LeaseId([1; 16])).await.unwrap());
        until_known(&miner, 1, Shown::Gone).await;
        std::fs::write(miner.engine.path(), disk).unwrap();
        tokio::time::timeout(DEADLINE, async {
            while miner.leases.ask(ListSetAside, DEADLINE).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is set aside");
        assert_eq!(miner.engine.list().await.unwrap().len(), 1, "and not destroyed");
        assert_eq!(miner.leases.ask(RentedDevices, DEADLINE).await.unwrap(), [(DeviceId::cpu(0), LeaseId([1; 16]))]);
        // Another's token ends nothing.
        let owner_token = OwnerToken::from_bytes([8; 32]);
        let request = ReleaseRequest { lease: LeaseId([1; 16]), fencing_epoch: 1, owner_token };
        let refused = miner.leases.ask(Release { caller: A, request }, DEADLINE).await.unwrap();
        assert!(matches!(refused, ReleaseReply::Refused { reason: LeaseRefusal::NotOwner, .. }), "{refused:?}");
        miner.engine.set_faults(Faults { fail_destroy: true, ..Faults::default() });
        let unclear = miner.release(1).await;
        assert!(
            matches!(unclear, ReleaseReply::Refused { .. }),
            "what is not seen to be gone is not released: {unclear:?}"
        );
        miner.engine.set_faults(Faults::default());
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        assert_eq!(miner.engine.list().await.unwrap(), []);
        assert!(miner.leases.ask(RentedDevices, DEADLINE).await.unwrap().is_empty());
    });
}

#[test]
fn a_container_that_the_records_do_not_know_is_neither_unknown_to_its_renter_nor_anybody_elses_to_end() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let labels = crate::lease::ContainerSpec {
            lease: LeaseId([5; 16]),
            fencing_epoch: 2,
            expires_at_ms: miner.clock.now_ms() + 60_000,
            renter: A,
            devices: vec![DeviceId::cpu(1)],
            ssh_public_key: None,
            image: String::new(),
        };
        miner.engine.create(&labels).await.unwrap();
        tokio::time::timeout(DEADLINE, async {
            while miner.leases.ask(ListSetAside, DEADLINE).await.unwrap().is_empty() {
                miner.leases.tell(Reconcile).unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is set aside");
        let known = async |fencing_epoch| {
            let (lease, owner_token) = (LeaseId([5; 16]), token());
            let (receipt, reply_key, expires_at_ms) = (None, None, None);
            let request = LeaseStatusRequest { lease, fencing_epoch, owner_token, receipt, reply_key, expires_at_ms };
            miner.leases.ask(LeaseStatus { caller: A, request }, DEADLINE).await.unwrap()
        };
        for (epoch, because) in [(2, LeaseRefusal::Degraded), (1, LeaseRefusal::StaleEpoch)] {
            match known(epoch).await {
                LeaseStatusReply::Refused { reason, .. } => assert_eq!(reason, because, "epoch {epoch}"),
                other => panic!("epoch {epoch}: {other:?}"),
            }
        }
        let release = async |caller, fencing_epoch| {
            let request = ReleaseRequest { lease: LeaseId([5; 16]), fencing_epoch, owner_token: token() };
            miner.leases.ask(Release { caller, request }, DEADLINE).await.unwrap()
        };
        assert_eq!(release(B, 2).await, ReleaseReply::UnknownLease, "B knows of no such lease");
        let stale = release(A, 1).await;
        assert!(matches!(stale, ReleaseReply::Refused { reason: LeaseRefusal::StaleEpoch, .. }), "{stale:?}");
        assert_eq!(miner.engine.list().await.unwrap().len(), 1);
        assert_eq!(release(A, 2).await, ReleaseReply::Released);
        assert_eq!(miner.engine.list().await.unwrap(), []);
        assert_eq!(miner.status(5).await, LeaseStatusReply::UnknownLease);
    });
}

/// Asks how a lease is, as a renter that has it until then.
async fn shown(miner: &Miner, caller: Hotkey, owner_token: OwnerToken, expires_at_ms: u64) -> LeaseStatusReply {
    let lease = LeaseId([1; 16]);
    let (receipt, reply_key, expires_at_ms) = (None, None, Some(expires_at_ms));
    let request = LeaseStatusRequest { lease, fencing_epoch: 1, owner_token, receipt, reply_key, expires_at_ms };
    miner.leases.ask(LeaseStatus { caller, request }, DEADLINE).await.unwrap()
}

/// Shows that the lease goes on until it is in the books again.
async fn until_taken_back(miner: &Miner, expires_at_ms: u64) {
    tokio::time::timeout(DEADLINE, async {
        loop {
            match shown(miner, A, token(), expires_at_ms).await {
                LeaseStatusReply::Known { state: Shown::Running, expires_at_ms: ends, .. } => {
                    assert_eq!(ends, expires_at_ms);
                    return;
                }
                LeaseStatusReply::Refused { reason: LeaseRefusal::Degraded, .. } => {}
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is taken back");
}

#[test]
fn a_renewed_lease_outlives_a_journal_that_is_lost_and_is_taken_back_by_its_renter() {
    run(async {
        let miner = miner();
        miner.ready().await;
        // The first end, which is on its label, is long over: it was renewed since.
        let now = miner.clock.now_ms();
        let spec = ContainerSpec {
            lease: LeaseId([1; 16]),
            fencing_epoch: 1,
            expires_at_ms: now - 30 * 86_400_000,
            renter: A,
            devices: vec![DeviceId::cpu(0)],
            ssh_public_key: None,
            image: String::new(),
        };
        let container = miner.engine.create(&spec).await.unwrap();
        let miner = miner.restarted().await;
        assert_eq!(miner.engine.list().await.unwrap(), [container], "it is not destroyed");
        let aside = miner.leases.ask(ListSetAside, DEADLINE).await.unwrap();
        let first = aside[0].until_ms;
        assert!(first >= now + 23 * 3_600_000, "{aside:?}");
        // The time does not begin anew with each start.
        let miner = miner.restarted().await;
        assert_eq!(miner.leases.ask(ListSetAside, DEADLINE).await.unwrap()[0].until_ms, first);

        let end = now + 600_000;
        assert_eq!(shown(&miner, B, token(), end).await, LeaseStatusReply::UnknownLease, "no lease of B's");
        // Its renter says that it is over: nothing goes on.
        let over = shown(&miner, A, token(), now).await;
        assert!(matches!(over, LeaseStatusReply::Refused { reason: LeaseRefusal::Degraded, .. }), "{over:?}");
        assert!(miner.leases.ask(ListLeases, DEADLINE).await.unwrap().is_empty());

        until_taken_back(&miner, end).await;
        assert!(miner.leases.ask(ListSetAside, DEADLINE).await.unwrap().is_empty());
        assert_eq!(miner.leases.ask(RentedDevices, DEADLINE).await.unwrap(), [(DeviceId::cpu(0), LeaseId([1; 16]))]);
        let stranger = shown(&miner, A, OwnerToken::from_bytes([8; 32]), end).await;
        assert!(matches!(stranger, LeaseStatusReply::Refused { reason: LeaseRefusal::NotOwner, .. }), "{stranger:?}");
        // It is on record, and ends as any other.
        let miner = miner.restarted().await;
        until_known(&miner, 1, Shown::Running).await;
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        assert_eq!(miner.deeds(), [Deed::Created, Deed::Destroyed]);
    });
}

#[test]
fn a_lost_lease_whose_container_is_back_goes_on_when_its_renter_shows_that_it_has_it() {
    run(async {
        let miner = miner_with(tempfile::tempdir().unwrap(), Crash::never(), Duration::from_millis(20), |_| {});
        miner.ready().await;
        miner.rent(1).await;
        let disk = std::fs::read(miner.engine.path()).unwrap();
        assert!(miner.engine.disappear(LeaseId([1; 16])).await.unwrap());
        until_known(&miner, 1, Shown::Gone).await;
        std::fs::write(miner.engine.path(), disk).unwrap();
        tokio::time::timeout(DEADLINE, async {
            while miner.leases.ask(ListSetAside, DEADLINE).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is set aside");
        let end = miner.clock.now_ms() + 600_000;
        let stranger = shown(&miner, A, OwnerToken::from_bytes([8; 32]), end).await;
        assert!(matches!(stranger, LeaseStatusReply::Refused { reason: LeaseRefusal::NotOwner, .. }), "{stranger:?}");
        until_taken_back(&miner, end).await;
        let miner = miner.restarted().await;
        until_known(&miner, 1, Shown::Running).await;
        assert!(miner.leases.ask(ListSetAside, DEADLINE).await.unwrap().is_empty());
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        assert_eq!(miner.engine.list().await.unwrap(), []);
    });
}

#[test]
fn an_ended_lease_that_cannot_be_read_keeps_no_other_from_going_on() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.rent(1).await;
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        miner.rent(2).await;
        let Miner { tree, writer, dir, .. } = miner;
        tree.run(async {}).await;
        writer.shutdown(DEADLINE).await.unwrap();
        let db = rusqlite::Connection::open(dir.path().join("db").join(store::DATABASE_FILE)).unwrap();
        assert_eq!(db.execute("UPDATE lease SET json = '{}' WHERE live = 0", []).unwrap(), 1);
        drop(db);
        let miner = miner_in(dir, Crash::never());
        miner.ready().await;
        until_known(&miner, 2, Shown::Running).await;
        assert_eq!(miner.release(2).await, ReleaseReply::Released);
    });
}
