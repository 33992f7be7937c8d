//! Canary rentals on a devnet: the containers are simulated, the prover in them is real.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{LONG, PROVER, inside, settings, until};
use compute_subnet::actors::validator::verifiers::Verifiers;
use compute_subnet::canary::original::Original;
use compute_subnet::canary::simulated::{SimulatedRemote, Trouble};
use compute_subnet::canary::{Landlord as _, Limits, Others, Outcome, Plan, Reason, Stage, Task, Tools, drive};
use compute_subnet::clock::{Clock as _, SystemClock};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{DeviceId, Hash32, Hotkey, LeaseId};
use compute_subnet::lease::{self, Event, Lease, LeaseTerms, apply};
use compute_subnet::messages::miner::allocation_manager as miner;
use compute_subnet::messages::validator::allocation_manager::{AllocatedDevices, ListLeases};
use compute_subnet::messages::validator::canary_runner::{CanaryError, RunCanary};
use compute_subnet::proof::Work;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::records::{CanaryRecord, CanaryRow, LeaseRecord};
use compute_subnet::store::{self, Record, Role, Writer, WriterConfig, canaries, queries};
use compute_subnet::verdict::{FailReason, Verdict};
use compute_subnet::wire::dendrite::{Dendrite, Peer};
use compute_subnet::wire::synapse::original::RenterKey;
use tokio::sync::oneshot;

fn options(dir: &std::path::Path, miners: usize, remote: &SimulatedRemote) -> DevnetOptions {
    DevnetOptions { miners, remote: remote.clone(), ..DevnetOptions::new(dir, PROVER) }
}

#[test]
fn a_canary_that_fails_its_proof_costs_the_device_until_one_passes_and_leaves_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let remote = SimulatedRemote::default();
    inside(async |runtime| {
        let mut settings = settings(dir.path());
        // Never by itself in this test; that it is not off makes failures count.
        settings.canary.interval = Duration::from_secs(86_400);
        settings.canary.retry = Duration::from_secs(86_400);
        settings.canary.per_epoch = 1;
        // What is uploaded into a simulated container is not what runs there.
        let program = dir.path().join("program");
        std::fs::write(&program, "a program").unwrap();
        settings.canary.prover = Some(program);
        let options = options(dir.path(), 1, &remote);
        let web = "127.0.0.1:0".parse().unwrap();
        // The first canary comes as soon as the miner is proved, and it is this one.
        remote.set_trouble(Some(Trouble::WrongOpenings));
        let devnet = Devnet::start(&options, Arc::new(settings), web, runtime).await.unwrap();
        let validator = devnet.validator.as_ref().unwrap();
        let (canaries_of, allocations) = (validator.canaries.clone(), validator.allocations.clone());
        let miner = devnet.miners[0].node.hotkey;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            let _ = stopped.await;
        }));
        let home = dir.path().join("validator");
        let first = until("a canary has ended", async || {
            let db = open_read_only(&home).ok()?;
            canaries::last(&db, Some(&miner), 1).unwrap().pop().filter(|row| row.report.is_some())
        })
        .await;
        let report = first.report.unwrap();
        let Outcome::Fail { stage: Stage::Verify, reason: Reason::WrongProof, .. } = &report.outcome else {
            panic!("{report:?}")
        };
        assert_eq!(report.failed, [DeviceId::cpu(0)]);
        let db = open_read_only(&home).unwrap();
        let verdict = || queries::latest_verdicts(&db, &miner).unwrap().into_iter().find(|v| v.device.is_some());
        let costs = until("the device fails for it", async || verdict().filter(|v| v.verdict.kind() == "fail")).await;
        let Verdict::Fail { reason: FailReason::CanaryFailed, detail } = costs.verdict else { panic!("{costs:?}") };
        assert!(detail.starts_with("at verify: wrong_proof: "), "{detail}");

        // Nothing but a canary can clear it, and its devices can still be rented for one.
        remote.set_trouble(None);
        let passed = until("a canary at the miner", async || match canaries_of.ask(RunCanary(miner), LONG).await {
            Ok(Ok(row)) => Some(row),
            Ok(Err(CanaryError::Busy(_) | CanaryError::NoDevice)) => None,
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(passed.report.unwrap().outcome, Outcome::Pass);
        until("the device passes again", async || verdict().filter(|v| v.verdict.kind() == "pass")).await;
        assert!(allocations.ask(ListLeases, LONG).await.unwrap().is_empty());
        assert!(allocations.ask(AllocatedDevices, LONG).await.unwrap().is_empty());
        let paid = queries::latest_scores(&db).unwrap().iter().any(|s| s.parts.bonus.0 > 0);
        assert!(!paid, "a canary is no rental");
        let unknown = canaries_of.ask(RunCanary(Hotkey([9; 32])), LONG).await.unwrap();
        assert_eq!(unknown, Err(CanaryError::NoDevice));
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends").unwrap(), Exit::Ok);
    });
}

#[test]
fn a_canary_that_an_earlier_life_left_open_is_given_back_and_closed_as_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("validator");
    let id = LeaseId([5; 16]);
    inside(async |runtime| {
        let record =
            CanaryRecord { id, miner: Hotkey([7; 32]), devices: vec![DeviceId::cpu(0)], begun_ms: 5, original: false };
        let opened = store::open(&home, Role::Validator, 1).unwrap();
        let writer = Writer::spawn(opened.db, WriterConfig::default()).unwrap();
        writer.write(Record::Canary(record.clone(), None)).await.unwrap();
        writer.shutdown(LONG).await.unwrap();

        let options = options(dir.path(), 1, &SimulatedRemote::default());
        let settings = Arc::new(settings(dir.path()));
        let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            let _ = stopped.await;
        }));
        let db = open_read_only(&home).unwrap();
        let row =
            until("it is closed", async || canaries::of(&db, &id).unwrap().filter(|row| row.ended_ms.is_some())).await;
        let CanaryRow { record: of, report: Some(report), .. } = row else { panic!("it has no report") };
        assert_eq!(
            (of, report.outcome.label(), report.outcome.reason()),
            (record, "unknown", Some(Reason::Interrupted))
        );
        assert!(canaries::failures(&db).unwrap().is_empty());
        until("it is given back", async || canaries::held(&db).unwrap().is_empty().then_some(())).await;
        let row = canaries::of(&db, &id).unwrap().unwrap();
        assert_eq!(row.report.unwrap().unreleased, None);
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends").unwrap(), Exit::Ok);
    });
}

#[test]
fn what_a_miner_that_is_gone_does_not_give_back_stays_open_and_keeps_no_other_from_its_canary() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("validator");
    let (id, gone) = (LeaseId([5; 16]), Hotkey([7; 32]));
    inside(async |runtime| {
        let terms = LeaseTerms {
            id,
            role: lease::Role::Renter,
            fencing_epoch: 1,
            renter: Hotkey([1; 32]),
            miner: gone,
            devices: vec![DeviceId([9; 16])],
            expires_at_ms: 1 << 42,
            owner_token_digest: Hash32([1; 32]),
            ssh_public_key: None,
            image: String::new(),
            wish: None,
            unheard: false,
        };
        let started = Event::Started { container: "c".into(), endpoint: None, host_key: None, at_ms: 6 };
        let running = [Event::Reserved, started].iter().fold(Lease::open(&terms, 5), |l, e| apply(&l, e).unwrap());
        let leased = LeaseRecord {
            id,
            fencing_epoch: 1,
            role: Role::Validator,
            miner: gone,
            renter: terms.renter,
            devices: terms.devices.clone(),
            state: running.state.label().into(),
            live: true,
            expires_at_ms: terms.expires_at_ms,
            owner_token_digest: terms.owner_token_digest,
            container: None,
            json: serde_json::json!({"lease": running, "seq": 3}),
            updated_ms: 6,
        };
        let begun_ms = SystemClock.now_ms();
        let record = CanaryRecord { id, miner: gone, devices: terms.devices.clone(), begun_ms, original: false };
        let opened = store::open(&home, Role::Validator, 1).unwrap();
        let writer = Writer::spawn(opened.db, WriterConfig::default()).unwrap();
        writer.write(Record::Canary(record.clone(), None)).await.unwrap();
        writer.write(Record::Lease(leased)).await.unwrap();
        writer.shutdown(LONG).await.unwrap();

        let mut settings = settings(dir.path());
        settings.canary.interval = Duration::from_secs(86_400);
        let program = dir.path().join("program");
        std::fs::write(&program, "a program").unwrap();
        settings.canary.prover = Some(program);
        let options = options(dir.path(), 1, &SimulatedRemote::default());
        let web = "127.0.0.1:0".parse().unwrap();
        let devnet = Devnet::start(&options, Arc::new(settings), web, runtime).await.unwrap();
        let there = devnet.miners[0].node.hotkey;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            let _ = stopped.await;
        }));
        let db = open_read_only(&home).unwrap();
        let other = until("a canary at the other miner", async || {
            canaries::last(&db, Some(&there), 1).unwrap().pop().filter(|row| row.report.is_some())
        })
        .await;
        assert_eq!(other.report.unwrap().outcome, Outcome::Pass);
        let [held] = &canaries::held(&db).unwrap()[..] else { panic!("it is closed though nobody gave it back") };
        let report = held.row.report.as_ref().expect("it is over, and is told as that");
        assert_eq!((held.row.record.id, report.outcome.reason()), (id, Some(Reason::Interrupted)));
        assert!(report.unreleased.is_some());
        until("it is being given back", async || {
            let live = queries::live_leases(&db, Role::Validator).unwrap();
            (live.into_iter().find(|l| l.id == id).expect("nobody gave it back").state == "releasing").then_some(())
        })
        .await;
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends").unwrap(), Exit::Ok);
    });
}

#[test]
fn a_miner_of_ours_is_rented_by_the_originals_protocol_too_and_holds_nothing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let remote = SimulatedRemote::default();
    inside(async |runtime| {
        let options = options(dir.path(), 1, &remote);
        let settings = Arc::new(settings(dir.path()));
        let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime).await.unwrap();
        let node = &devnet.miners[0].node;
        let peer = Peer { hotkey: node.hotkey, addr: node.node.axon_address.unwrap() };
        let leases = node.allocations.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            let _ = stopped.await;
        }));
        let caller = DevnetKeys::load(dir.path()).unwrap().validator(0);
        let dendrite = Dendrite::new(caller, Arc::new(SystemClock), None).unwrap();
        let key = Arc::new(tokio::task::spawn_blocking(RenterKey::generate).await.unwrap().unwrap());
        let tools = Tools {
            landlord: Arc::new(Original::renting(dendrite.clone(), peer, key.clone(), LONG)),
            remote: Arc::new(remote.clone()),
            program: Arc::from(&b"a program"[..]),
            verifiers: Verifiers::new(1),
            models: Arc::default(),
            witness: Arc::new(Others::default()),
        };
        let limits =
            Limits { allocate: LONG, login: LONG, upload: LONG, run: LONG, verify: LONG, release: LONG, samples: 8 };
        let task_of = Task { device: DeviceId::cpu(0), work: Work::new(64, 128, 2).unwrap(), floor_ops: None };
        let plan = Plan { id: LeaseId([1; 16]), miner: peer.hotkey, tasks: vec![task_of] };
        // Before the miner knows its validators it refuses them.
        let passed = until("a canary that is let in", async || {
            let report = drive(&tools, &limits, &plan).await;
            (report.outcome.stage() != Stage::Allocate).then_some(report)
        })
        .await;
        assert_eq!((&passed.outcome, passed.unreleased, passed.host_key_pinned), (&Outcome::Pass, None, false));
        assert!(leases.ask(miner::ListLeases, LONG).await.unwrap().is_empty());

        // Whoever was ended before it could return the machine has the key on record, and returns it with that.
        tools.landlord.rent(&plan).await.unwrap();
        assert_eq!(leases.ask(miner::ListLeases, LONG).await.unwrap().len(), 1);
        let other = RenterKey::generate().unwrap();
        let returning = |key: &RenterKey| Original::returning(dendrite.clone(), peer, key.public().clone());
        returning(&other).release(plan.id).await.expect("nothing belongs to this key");
        assert_eq!(leases.ask(miner::ListLeases, LONG).await.unwrap().len(), 1, "another's key ends nothing");
        returning(&key).release(plan.id).await.unwrap();
        assert!(leases.ask(miner::ListLeases, LONG).await.unwrap().is_empty());
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends").unwrap(), Exit::Ok);
    });
}
