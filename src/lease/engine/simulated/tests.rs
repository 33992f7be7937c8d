//! What a simulated engine refuses, keeps and survives.

use std::fs;

use russh::keys::PublicKey;

use super::contents::MAX_HISTORY;
use super::*;
use crate::ids::{DeviceId, Hotkey};

fn spec(lease: u8, epoch: u64, device: u8) -> ContainerSpec {
    ContainerSpec {
        lease: LeaseId([lease; 16]),
        fencing_epoch: epoch,
        expires_at_ms: 1,
        renter: Hotkey([1; 32]),
        devices: vec![DeviceId::cpu(device)],
        ssh_public_key: None,
        image: String::new(),
    }
}

fn engine() -> (tempfile::TempDir, SimulatedEngine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = SimulatedEngine::new(dir.path().join("host/containers.json"));
    (dir, engine)
}

#[tokio::test]
async fn containers_outlive_the_handle_that_made_them() {
    let (_dir, first) = engine();
    let made = first.create(&spec(1, 1, 0)).await.unwrap();
    let path = first.path().to_owned();
    drop(first);
    assert_eq!(SimulatedEngine::new(path).list().await.unwrap(), [made]);
}

#[tokio::test]
async fn the_file_tells_what_was_done_in_order_and_counts_what_it_no_longer_keeps() {
    let (_dir, engine) = engine();
    engine.create(&spec(1, 1, 0)).await.unwrap();
    engine.create(&spec(1, 1, 0)).await.unwrap();
    engine.destroy(LeaseId([1; 16]), 1).await.unwrap();
    engine.destroy(LeaseId([1; 16]), 1).await.unwrap();
    engine.create(&spec(2, 3, 0)).await.unwrap();
    engine.disappear(LeaseId([2; 16])).await.unwrap();
    let history = Contents::read(engine.path()).unwrap().history;
    let told: Vec<_> = history.done.iter().map(|d| (d.deed, d.lease.0[0], d.fencing_epoch)).collect();
    assert_eq!(told, [(Deed::Created, 1, 1), (Deed::Destroyed, 1, 1), (Deed::Created, 2, 3), (Deed::Vanished, 2, 3)]);
    assert_eq!(history.forgotten, 0);

    let mut contents = Contents::empty();
    contents.created = 7;
    let made = contents.create(&spec(1, 1, 0)).unwrap();
    assert_eq!(contents.history.forgotten, 7, "what was created before there was a history");
    (0..MAX_HISTORY).for_each(|_| contents.did(Deed::Destroyed, &made));
    assert_eq!((contents.history.done.len(), contents.history.forgotten), (MAX_HISTORY, 8));
}

#[tokio::test]
async fn handles_at_work_at_once_lose_nothing_and_share_no_device_or_port() {
    let (_dir, first) = engine();
    let second = SimulatedEngine::new(first.path());
    let calls = (0..16u8).map(|i| {
        let engine = if i % 2 == 0 { first.clone() } else { second.clone() };
        // Each device is asked for twice, by different leases and handles.
        async move { engine.create(&spec(i, 1, i / 2)).await }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    let refused = outcomes.iter().filter(|o| matches!(o, Err(EngineError::DeviceInUse { .. }))).count();
    assert_eq!((outcomes.iter().filter(|o| o.is_ok()).count(), refused), (8, 8));
    let all = second.list().await.unwrap();
    let ports: std::collections::BTreeSet<u16> = all.iter().map(|c| c.ssh_port).collect();
    assert_eq!((all.len(), ports.len()), (8, 8));
}

#[tokio::test]
async fn creation_is_idempotent_by_lease_and_epoch() {
    let (_dir, engine) = engine();
    let made = engine.create(&spec(1, 1, 0)).await.unwrap();
    assert_eq!(engine.create(&spec(1, 1, 0)).await.unwrap(), made);
    let other_devices = engine.create(&spec(1, 1, 3)).await;
    assert!(matches!(other_devices, Err(EngineError::Refused(_))));
    let other_renter = ContainerSpec { renter: Hotkey([2; 32]), ..spec(1, 1, 0) };
    assert!(matches!(engine.create(&other_renter).await, Err(EngineError::Refused(_))));
    let newer = engine.create(&spec(1, 2, 1)).await;
    assert!(matches!(newer, Err(EngineError::OtherEpoch { present: 1, asked: 2, .. })));
}

#[tokio::test]
async fn another_epochs_container_is_neither_destroyed_nor_paused() {
    let (_dir, engine) = engine();
    let lease = LeaseId([1; 16]);
    engine.create(&spec(1, 2, 0)).await.unwrap();
    assert!(matches!(engine.destroy(lease, 1).await, Err(EngineError::OtherEpoch { .. })));
    assert!(matches!(engine.pause(lease, 1).await, Err(EngineError::OtherEpoch { .. })));
    assert!(engine.destroy(lease, 2).await.unwrap());
    assert!(!engine.destroy(lease, 2).await.unwrap(), "a repeat says that there was none");
}

#[tokio::test]
async fn a_container_pauses_and_goes_on() {
    let (_dir, engine) = engine();
    let lease = LeaseId([1; 16]);
    assert!(matches!(engine.pause(lease, 1).await, Err(EngineError::NoContainer(_))));
    engine.create(&spec(1, 1, 0)).await.unwrap();
    assert_eq!(engine.pause(lease, 1).await.unwrap().state, ContainerState::Paused);
    assert_eq!(engine.unpause(lease, 1).await.unwrap().state, ContainerState::Running);
    assert!(engine.exit(lease).await.unwrap());
    assert!(matches!(engine.unpause(lease, 1).await, Err(EngineError::Refused(_))));
    assert_eq!(engine.list().await.unwrap()[0].state, ContainerState::Exited);
}

#[tokio::test]
async fn a_restart_runs_an_ended_container_again_with_its_port_key_and_grants() {
    let (_dir, engine) = engine();
    let lease = LeaseId([1; 16]);
    assert!(matches!(engine.restart(lease, 1).await, Err(EngineError::NoContainer(_))));
    let made = engine.create(&ContainerSpec { ssh_public_key: Some("old".into()), ..spec(1, 1, 0) }).await.unwrap();
    let key = PublicKey::from_openssh(made.host_key.as_deref().unwrap()).unwrap();
    assert_eq!(key.algorithm(), russh::keys::Algorithm::Ed25519);
    engine.grant(lease, 1, &Grant::UserKey("new".into())).await.unwrap();
    engine.exit(lease).await.unwrap();
    assert!(matches!(engine.restart(lease, 2).await, Err(EngineError::OtherEpoch { .. })));
    assert_eq!(engine.restart(lease, 1).await.unwrap(), made);
    let kept = Contents::read(engine.path()).unwrap().granted;
    let user_key = Some(Granted::digest("new"));
    assert_eq!(kept, [Granted { container: made.id, user_key, restarts: 1, ..Granted::default() }]);
}

#[tokio::test]
async fn a_grant_replaces_the_one_of_its_name_and_goes_with_the_container() {
    let (_dir, engine) = engine();
    let lease = LeaseId([1; 16]);
    engine.create(&spec(1, 1, 0)).await.unwrap();
    let granted = async || Contents::read(engine.path()).unwrap().granted.first().cloned().unwrap_or_default();
    for (grant, again) in [(Grant::TerminalKey(Some("a".into())), false), (Grant::TerminalKey(None), true)] {
        engine.grant(lease, 1, &grant).await.unwrap();
        engine.grant(lease, 1, &grant).await.unwrap();
        assert_eq!(granted().await.terminal_key.is_none(), again);
    }
    engine.grant(lease, 1, &Grant::PasswordHash("$argon2id$x".into())).await.unwrap();
    assert_eq!(granted().await.password_hash, Some(Granted::digest("$argon2id$x")));
    let text = fs::read_to_string(engine.path()).unwrap();
    assert!(!text.contains("argon2id"), "{text}");
    assert!(matches!(engine.grant(lease, 2, &Grant::TerminalKey(None)).await, Err(EngineError::OtherEpoch { .. })));
    engine.destroy(lease, 1).await.unwrap();
    assert!(Contents::read(engine.path()).unwrap().granted.is_empty());
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let (_dir, engine) = engine();
    let lease = LeaseId([1; 16]);
    engine.set_faults(Faults { fail_create: true, ..Faults::default() });
    assert!(engine.create(&spec(1, 1, 0)).await.unwrap_err().nothing_happened());
    assert_eq!(engine.list().await.unwrap(), []);
    engine.set_faults(Faults { refuse_image: true, ..Faults::default() });
    assert!(matches!(engine.create(&spec(1, 1, 0)).await, Err(EngineError::Image { .. })));
    assert_eq!(engine.list().await.unwrap(), []);
    engine.set_faults(Faults { lose_create_reply: true, ..Faults::default() });
    assert!(!engine.create(&spec(1, 1, 0)).await.unwrap_err().nothing_happened());
    assert_eq!(engine.list().await.unwrap().len(), 1, "it is there all the same");
    engine.set_faults(Faults { fail_destroy: true, ..Faults::default() });
    assert!(!engine.destroy(lease, 1).await.unwrap_err().nothing_happened());
    assert!(engine.disappear(lease).await.unwrap());
    assert_eq!(engine.list().await.unwrap(), []);
    engine.set_faults(Faults { unavailable: true, ..Faults::default() });
    assert!(matches!(engine.available().await, Err(EngineError::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_slow_engine_takes_its_time_on_the_tokio_clock() {
    let (_dir, engine) = engine();
    engine.set_faults(Faults { delay: Duration::from_secs(3), ..Faults::default() });
    let before = tokio::time::Instant::now();
    engine.available().await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_held_elsewhere_ends_in_an_error_by_the_deadline() {
    let (_dir, engine) = engine();
    engine.available().await.unwrap();
    let held = lock(&beside(engine.path(), ".lock")).unwrap();
    let (one, two) = (spec(1, 1, 0), spec(2, 1, 1));
    let calls = async { tokio::join!(engine.create(&one), engine.create(&two)) };
    let (waits, queues) = {
        tokio::pin!(calls);
        // A blocked worker thread keeps the paused clock from moving by itself.
        loop {
            tokio::select! {
                biased;
                outcome = &mut calls => break outcome,
                () = tokio::task::yield_now() => tokio::time::advance(Duration::from_millis(100)).await,
            }
        }
    };
    assert!(matches!(waits, Err(EngineError::Unclear(_))), "it may still be carried out");
    assert!(queues.unwrap_err().nothing_happened());
    drop(held);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_reported_and_left_as_it_is() {
    let (_dir, engine) = engine();
    fs::create_dir_all(engine.path().parent().unwrap()).unwrap();
    for text in ["{\"format\":1", "{\"format\":2,\"created\":0,\"containers\":[]}"] {
        fs::write(engine.path(), text).unwrap();
        assert!(matches!(engine.list().await, Err(EngineError::Unavailable { .. })));
        assert!(matches!(engine.create(&spec(1, 1, 0)).await, Err(EngineError::Unavailable { .. })));
        assert_eq!(fs::read_to_string(engine.path()).unwrap(), text);
    }
}
