//! No fault of an actor: miners that are gone, or say nothing, while a validator has leases there.

use crate::probe::{LONG, until};
use crate::restarts::Running;
use crate::subnet::{Subnet, quick, secs};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{DeviceId, Hash32, Hotkey, LeaseId};
use compute_subnet::launch;
use compute_subnet::lease::{EndReason, Event, Lease, LeaseState, LeaseTerms, Role, apply};
use compute_subnet::messages::miner::allocation_manager as miner;
use compute_subnet::messages::validator::allocation_manager::{
    AllocatedDevices, LeasedDevices, ListLeases, Release, Rent, RentError, RentRequest, ShowLease,
};
use compute_subnet::runtime::Placement;
use compute_subnet::store::records::LeaseRecord;
use compute_subnet::store::{self, Record, Writer, WriterConfig};
use futures_util::future::join_all;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

/// More than a validator asks about their leases at once.
const MANY: u8 = 40;
const AT_ONCE: usize = 32;

#[test]
fn a_lease_that_is_not_seen_any_more_is_released_at_its_miner_once_that_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        let mut settings = quick();
        // At the ports of simulated containers nobody answers: with its miner away, neither vantage point shows a lease.
        settings.leases.ssh_probe = Some(true);
        (settings.leases.misses_to_lose, settings.leases.of_checks) = (3, 4);
        let mut subnet = Subnet::start(dir.path(), settings, runtime.clone()).await;
        let (first, validator) = (subnet.miner(Placement::PerNode), subnet.validator(Placement::PerNode));
        subnet.axon = first.node.axon_address.unwrap();
        let rentals = validator.allocations.clone();
        let (first, validator) = (Running::new(first.node), Running::new(validator.node));
        let wish = || {
            Rent(RentRequest {
                id: None,
                renter: Hotkey([9; 32]),
                miner: None,
                requirements: compute_subnet::rental::Requirements::any(1),
                duration: secs(36_000),
                image: String::new(),
                ssh_key: "ssh-ed25519 AAAA".into(),
            })
        };
        let lease = until(LONG, async || rentals.ask(wish(), LONG).await.unwrap().ok()).await;
        let id = lease.expect("a device is proved and rented").id;

        assert_eq!(first.stop().await, Exit::Ok);
        let of = async || rentals.ask(ShowLease(id), LONG).await.unwrap().ok();
        let ending = until(LONG, async || of().await.filter(|lease| !lease.state.is_live())).await.unwrap();
        assert_eq!(
            (ending.state, ending.end),
            (LeaseState::Releasing, Some(EndReason::Unhealthy)),
            "nobody confirmed it"
        );
        assert!(ending.note.unwrap().starts_with("neither its miner nor its SSH port"));
        assert!(rentals.ask(LeasedDevices, LONG).await.unwrap().is_empty(), "its devices are challenged again");

        // The container is there still, and the miner knows nothing of its end.
        let again = subnet.miner(Placement::PerNode);
        let held = again.allocations.clone();
        let again = Running::new(again.node);
        let ended = until(LONG, async || of().await.filter(|lease| lease.state.is_final())).await;
        assert_eq!(
            ended.map(|lease| (lease.state, lease.end)),
            Some((LeaseState::Released, Some(EndReason::Unhealthy)))
        );
        assert!(held.ask(miner::ListLeases, LONG).await.unwrap().is_empty());
        assert!(rentals.ask(ListLeases, LONG).await.unwrap().is_empty());
        assert_eq!((validator.stop().await, again.stop().await), (Exit::Ok, Exit::Ok));
        subnet.ledger.stop().await;
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}

#[test]
fn devices_of_a_release_that_their_miner_does_not_confirm_are_proved_again_and_rented_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        let mut subnet = Subnet::start(dir.path(), quick(), runtime.clone()).await;
        let (first, validator) = (subnet.miner(Placement::PerNode), subnet.validator(Placement::PerNode));
        subnet.axon = first.node.axon_address.unwrap();
        let rentals = validator.allocations.clone();
        let (first, validator) = (Running::new(first.node), Running::new(validator.node));
        let wish = || {
            Rent(RentRequest {
                id: None,
                renter: Hotkey([9; 32]),
                miner: None,
                requirements: compute_subnet::rental::Requirements::any(1),
                duration: secs(36_000),
                image: String::new(),
                ssh_key: "ssh-ed25519 AAAA".into(),
            })
        };
        let lease = until(secs(20), async || rentals.ask(wish(), secs(5)).await.unwrap().ok()).await;
        let id = lease.expect("a device is proved and rented").id;
        assert_eq!(first.stop().await, Exit::Ok);
        let released = rentals.ask(Release(id), secs(20)).await.unwrap();
        assert!(matches!(released, Err(RentError::NoAnswer(_) | RentError::Busy)), "{released:?}");
        let proved = async || rentals.ask(LeasedDevices, secs(5)).await.unwrap().is_empty().then_some(());
        until(secs(20), proved).await.expect("its devices are proved again");
        let lease = rentals.ask(ShowLease(id), secs(5)).await.unwrap().unwrap();
        assert_eq!(lease.state, LeaseState::Releasing, "nobody confirmed it");
        assert!(rentals.ask(AllocatedDevices, secs(5)).await.unwrap().is_empty());
        let again = rentals.ask(wish(), secs(5)).await.unwrap();
        assert!(matches!(again, Err(RentError::NoneFree(_))), "{again:?}");

        let again = subnet.miner(Placement::PerNode);
        let again = Running::new(again.node);
        let of = async || rentals.ask(ShowLease(id), secs(5)).await.unwrap().ok();
        let ended = until(secs(30), async || of().await.filter(|lease| lease.state.is_final())).await;
        assert_eq!(ended.map(|lease| lease.state), Some(LeaseState::Released));
        assert_eq!((validator.stop().await, again.stop().await), (Exit::Ok, Exit::Ok));
        subnet.ledger.stop().await;
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}

/// Leases of a validator at this miner, as its database has them.
async fn seed(dir: &Path, validator: Hotkey, miner: Hotkey) {
    let opened = store::open(dir, store::Role::Validator, 1).unwrap();
    let writer = Writer::spawn(opened.db, WriterConfig::default()).unwrap();
    for n in 1..=MANY {
        let terms = LeaseTerms {
            id: LeaseId([n; 16]),
            role: Role::Renter,
            fencing_epoch: 1,
            renter: validator,
            miner,
            devices: vec![DeviceId([n; 16])],
            expires_at_ms: 1 << 42,
            owner_token_digest: Hash32([n; 32]),
            ssh_public_key: None,
            image: String::new(),
            wish: None,
            unheard: false,
        };
        let started = Event::Started { container: "c".into(), endpoint: None, host_key: None, at_ms: 1 };
        let running = [Event::Reserved, started].iter().fold(Lease::open(&terms, 1), |l, e| apply(&l, e).unwrap());
        let record = LeaseRecord {
            id: terms.id,
            fencing_epoch: 1,
            role: store::Role::Validator,
            miner,
            renter: validator,
            devices: terms.devices.clone(),
            state: running.state.label().into(),
            live: true,
            expires_at_ms: terms.expires_at_ms,
            owner_token_digest: terms.owner_token_digest,
            container: running.container.clone(),
            json: serde_json::json!({"lease": running, "seq": 3}),
            updated_ms: 1,
        };
        writer.write(Record::Lease(record)).await.unwrap();
    }
    writer.shutdown(LONG).await.unwrap();
}

#[test]
fn a_lease_that_waits_for_its_look_behind_silent_miners_can_be_released_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        let mut settings = quick();
        // A look at a silent miner takes longer than a release waits for one.
        (settings.specs.timeout, settings.leases.request_timeout) = (secs(12), secs(1));
        let subnet = Subnet::start(dir.path(), settings, runtime.clone()).await;
        subnet.second_permit().await;
        let (silent, asked) = (TcpListener::bind("127.0.1.7:0").await.unwrap(), Arc::new(AtomicUsize::new(0)));
        let miner = subnet.announce_second(silent.local_addr().unwrap()).await;
        let counted = asked.clone();
        tokio::task::spawn_local(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = silent.accept().await {
                kept.push(stream);
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        seed(&dir.path().join("validator"), subnet.validator_hotkey(), miner).await;
        let validator = subnet.validator(Placement::PerNode);
        let rentals = validator.allocations.clone();
        let validator = Running::new(validator.node);
        // Specs are asked of the silent miner as well.
        let all = async || (asked.load(Ordering::SeqCst) >= AT_ONCE).then_some(());
        until(LONG, all).await.expect("a round has begun");

        let releases = (1..=MANY).map(|n| rentals.ask(Release(LeaseId([n; 16])), LONG));
        let answers: Vec<_> = join_all(releases).await.into_iter().map(Result::unwrap).collect();
        let on_record = answers.iter().filter(|a| matches!(a, Err(RentError::NoAnswer(_)))).count();
        let busy = answers.iter().filter(|a| **a == Err(RentError::Busy)).count();
        assert_eq!(on_record + busy, usize::from(MANY), "{answers:?}");
        assert!(on_record >= usize::from(MANY) - AT_ONCE, "only those that are looked at wait: {busy} do");
        assert_eq!(validator.stop().await, Exit::Ok);
        subnet.ledger.stop().await;
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}
