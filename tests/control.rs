//! The control socket of running nodes: every path, right and wrong, by the client that the programs use.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with other tests")]
mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{LONG, PROVER, inside, settings, until};
use compute_subnet::clock::{Clock as _, SystemClock};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{DeviceId, Hotkey, LeaseId};
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::lease::{ContainerEngine as _, ContainerSpec, EndReason, LeaseState};
use compute_subnet::scoring::Points;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::store::Role;
use compute_subnet::web::control::api::{DrainWish, MaintenanceWish, PenaltyWish, RentWish};
use compute_subnet::web::control::{ClientError, Code, ControlClient, socket};

fn options(dir: &Path) -> DevnetOptions {
    DevnetOptions { miners: 2, ..DevnetOptions::new(dir, PROVER) }
}

/// Runs `look` on a devnet of two miners, whose nodes are in directories below the one given.
fn on_devnet<F: Future<Output = ()>>(look: impl FnOnce(PathBuf) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    inside(|runtime| async move {
        let web = "127.0.0.1:0".parse().unwrap();
        let settings = Arc::new(settings(&path));
        let devnet = Devnet::start(&options(&path), settings, web, runtime).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let ended = tokio::task::spawn_local(devnet.run(0, async {
            let _ = stopped.await;
        }));
        look(path).await;
        let _ = stop.send(());
        assert_eq!(ended.await.unwrap(), Exit::Ok);
    });
}

fn code(error: &ClientError) -> Code {
    match error {
        ClientError::Node(error) => error.code,
        other => panic!("{other:?}"),
    }
}

fn wish(renter: compute_subnet::ids::Hotkey) -> RentWish {
    RentWish {
        id: None,
        renter,
        model: None,
        devices: 1,
        duration_s: 600,
        image: "ubuntu".into(),
        ssh_key: "ssh-ed25519 AAAA test".into(),
    }
}

#[test]
fn an_operator_sees_rents_and_releases_through_the_socket() {
    on_devnet(async |dir| {
        let validator = ControlClient::new(dir.join("validator"));
        let miner = ControlClient::new(dir.join("miner-0"));
        let status = until("a ready validator", async || {
            validator.status().await.ok().filter(|s| s.readiness.ready && s.uid.is_some())
        })
        .await;
        assert_eq!((status.role, status.pid), (Role::Validator, std::process::id()));
        assert!(status.epoch.is_some() && status.block.is_some());
        let of_miner = miner.status().await.unwrap();
        assert_eq!(of_miner.role, Role::Miner);
        assert_ne!(of_miner.instance, status.instance);
        assert!(validator.actors().await.unwrap().contains_key("weight_setter"));

        // How it stands: the ledger has free slots, so nobody is next.
        let standing = validator.standing().await.unwrap();
        let own = standing.neuron.as_ref().unwrap();
        assert_eq!((standing.hotkey, Some(own.uid), standing.lost), (status.hotkey, status.uid, None));
        assert!(own.immune_blocks > 0 && !own.place.next && own.stake_rao > 0, "{standing:?}");

        // Wrong questions.
        let none = LeaseId([7; 16]);
        assert_eq!(code(&validator.lease(none).await.unwrap_err()), Code::UnknownLease);
        assert_eq!(code(&validator.release(none, LONG).await.unwrap_err()), Code::UnknownLease);
        assert_eq!(code(&miner.table().await.unwrap_err()), Code::WrongRole);
        assert_eq!(code(&miner.rent(&wish(status.hotkey), LONG).await.unwrap_err()), Code::WrongRole);
        let too_many = RentWish { devices: 99, ..wish(status.hotkey) };
        assert_eq!(code(&validator.rent(&too_many, LONG).await.unwrap_err()), Code::NoneFree);
        let nothing = RentWish { devices: 0, ..wish(status.hotkey) };
        assert_eq!(code(&validator.rent(&nothing, LONG).await.unwrap_err()), Code::Invalid);
        let large = RentWish { image: "x".repeat(100_000), ..wish(status.hotkey) };
        assert_eq!(code(&validator.rent(&large, LONG).await.unwrap_err()), Code::TooLarge);

        // A rental, from wish to release.
        let lease = until("a rental", async || validator.rent(&wish(status.hotkey), LONG).await.ok()).await;
        assert_eq!(lease.state, LeaseState::Running);
        assert_eq!(validator.leases().await.unwrap().leases, vec![lease.clone()]);
        let table = validator.table().await.unwrap();
        let rented: Vec<_> = table.rows.iter().flat_map(|r| &r.leases).collect();
        assert_eq!((table.rows.len(), rented.len(), rented[0].id), (2, 1, lease.id), "{table:?}");
        let ended = validator.release(lease.id, LONG).await.unwrap();
        assert_eq!(ended.state, LeaseState::Released);
        assert!(validator.leases().await.unwrap().leases.is_empty());
        let told = validator.lease(lease.id).await.unwrap();
        assert_eq!(told.lease, ended);
        assert!(told.history.len() >= 4, "{told:?}");

        // Scores reach the table.
        until("weights", async || {
            let table = validator.table().await.unwrap();
            table.rows.iter().all(|r| r.score > Some(Points(0)) && r.weight > Some(0)).then_some(())
        })
        .await;

        let mode = std::fs::metadata(socket::path(&dir.join("miner-0"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn penalties_are_given_shown_and_lifted_and_count_in_the_table() {
    on_devnet(async |dir| {
        let validator = ControlClient::new(dir.join("validator"));
        let judged = until("a judged miner", async || {
            validator.table().await.ok()?.rows.into_iter().find(|r| r.verdict == "pass")
        })
        .await;
        let wish = PenaltyWish { subject: judged.hotkey.into(), reason: "spam\nspam".into(), duration_s: 600 };
        let given = validator.penalise(&wish).await.unwrap().penalties;
        assert_eq!((given.len(), given[0].reason.as_str(), given[0].detail.as_str()), (1, "operator", "spam?spam"));
        until("the penalty counts", async || {
            let row = validator.table().await.unwrap().rows.into_iter().find(|r| r.hotkey == judged.hotkey)?;
            (row.verdict == "refused: penalised").then_some(())
        })
        .await;
        let told = validator.explain(judged.hotkey).await.unwrap();
        assert_eq!(told.penalties, given);
        for wrong in [PenaltyWish { duration_s: 0, ..wish.clone() }, PenaltyWish { reason: " ".into(), ..wish.clone() }]
        {
            assert_eq!(code(&validator.penalise(&wrong).await.unwrap_err()), Code::Invalid);
        }
        assert!(validator.lift(judged.hotkey.into()).await.unwrap().lifted);
        assert!(!validator.lift(judged.hotkey.into()).await.unwrap().lifted);
        assert!(validator.penalties().await.unwrap().penalties.is_empty());

        // An address is named in any spelling, and is not the business of whoever judges miners.
        let address = |text: &str| text.parse::<compute_subnet::admission::Subject>().unwrap();
        let of_address = PenaltyWish { subject: address("2001:db8::1"), ..wish.clone() };
        let given = validator.penalise(&of_address).await.unwrap().penalties;
        assert_eq!((given.len(), given[0].subject.to_string().as_str()), (1, "2001:db8::/64"));
        assert!(validator.lift(address("2001:db8::2")).await.unwrap().lifted);
        assert!(!validator.lift(address("203.0.113.9")).await.unwrap().lifted);
        assert!(validator.penalties().await.unwrap().penalties.is_empty());
        until("it is judged again", async || {
            let row = validator.table().await.unwrap().rows.into_iter().find(|r| r.hotkey == judged.hotkey)?;
            (row.verdict == "pass").then_some(())
        })
        .await;
        let miner = ControlClient::new(dir.join("miner-0"));
        assert_eq!(code(&miner.explain(judged.hotkey).await.unwrap_err()), Code::WrongRole);
        // The nodes of one process have no layers of their own.
        let error = validator.reload().await.unwrap_err();
        assert_eq!(code(&error), Code::Refused);
        assert!(validator.config().await.unwrap().settings.iter().any(|line| line.key == "challenge.samples"));
    });
}

#[test]
fn maintenance_keeps_leases_away_and_a_drain_waits_for_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    inside(|runtime| async move {
        let web = "127.0.0.1:0".parse().unwrap();
        let devnet = Devnet::start(&options(&path), Arc::new(settings(&path)), web, runtime).await.unwrap();
        let ended = tokio::task::spawn_local(devnet.run(0, std::future::pending()));
        let validator = ControlClient::new(path.join("validator"));
        let hotkey = until("a validator", async || validator.status().await.ok()).await.hotkey;
        let lease = until("a rental", async || validator.rent(&wish(hotkey), LONG).await.ok()).await;

        let refused = async || match validator.rent(&wish(hotkey), LONG).await.unwrap_err() {
            ClientError::Node(error) if error.code == Code::Refused => error.message,
            other => panic!("{other:?}"),
        };
        let on = MaintenanceWish { on: true, note: "new disk".into() };
        assert!(validator.maintenance(&on).await.unwrap().maintenance.is_some());
        assert!(refused().await.contains("new disk"));
        let status = validator.status().await.unwrap();
        assert!(status.readiness.maintenance && status.duty.maintenance.is_some());
        // A miner in maintenance refuses as well, and says so through the validator.
        validator.maintenance(&MaintenanceWish::default()).await.unwrap();
        for miner in ["miner-0", "miner-1"] {
            ControlClient::new(path.join(miner)).maintenance(&on).await.unwrap();
        }
        let error = until("the free miner is asked", async || match validator.rent(&wish(hotkey), LONG).await {
            Err(ClientError::Node(error)) if error.code == Code::PeerRefused => Some(error.message),
            Err(ClientError::Node(error)) if error.code == Code::NoneFree => None,
            other => panic!("{other:?}"),
        })
        .await;
        assert!(error.contains("new disk"), "{error}");

        // The operator of a miner may end a lease, by force only.
        let rented = ["miner-0", "miner-1"].map(|miner| ControlClient::new(path.join(miner)));
        let [first, second] = &rented;
        let holder = if first.leases().await.unwrap().leases.is_empty() { second } else { first };
        assert_eq!(code(&holder.release(lease.id, LONG).await.unwrap_err()), Code::Refused);
        let unknown = holder.force_release(LeaseId([9; 16]), "broken fan", LONG).await.unwrap_err();
        assert_eq!(code(&unknown), Code::UnknownLease);

        let drained = validator.drain(DrainWish { wait_for_leases: true }).await.unwrap();
        assert!(drained.drain.is_some_and(|drain| drain.wait_for_leases));
        assert!(refused().await.contains("draining"));
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        assert!(!ended.is_finished(), "a lease has not ended");
        assert_eq!(validator.status().await.unwrap().open_leases, Some(1));
        // The miner's operator ends it; the validator notices by itself, and its drain with it.
        let forced = holder.force_release(lease.id, "a broken fan & smoke", LONG).await.unwrap();
        assert_eq!((forced.state, forced.end), (LeaseState::Released, Some(EndReason::Operator)));
        assert!(holder.leases().await.unwrap().leases.is_empty());
        assert_eq!(tokio::time::timeout(LONG, ended).await.unwrap().unwrap(), Exit::Ok);
        assert!(validator.status().await.unwrap_err().is_not_running());
        assert!(!socket::path(&path.join("validator")).exists());
    });
}

#[test]
fn a_miner_lists_the_containers_that_no_lease_of_its_explains() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    inside(|runtime| async move {
        let spec = ContainerSpec {
            lease: LeaseId([8; 16]),
            fencing_epoch: 3,
            expires_at_ms: SystemClock.now_ms() + 3_600_000,
            renter: Hotkey([2; 32]),
            devices: vec![DeviceId::cpu(1)],
            ssh_public_key: None,
        };
        SimulatedEngine::new(path.join("engine/miner-0.json")).create(&spec).await.unwrap();
        let web = "127.0.0.1:0".parse().unwrap();
        let devnet = Devnet::start(&options(&path), Arc::new(settings(&path)), web, runtime).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let ended = tokio::task::spawn_local(devnet.run(0, async {
            let _ = stopped.await;
        }));
        let miner = ControlClient::new(path.join("miner-0"));
        let listed = until("the engine was looked at", async || {
            miner.leases().await.ok().filter(|listed| !listed.set_aside.is_empty())
        })
        .await;
        let [aside] = &listed.set_aside[..] else { panic!("{listed:?}") };
        assert_eq!((aside.lease, aside.renter, &aside.devices), (spec.lease, spec.renter, &spec.devices));
        assert!(aside.until_ms > spec.expires_at_ms, "its time and a grace: {aside:?}");
        let others = [ControlClient::new(path.join("miner-1")), ControlClient::new(path.join("validator"))];
        for other in others {
            let listed = until("its leases", async || other.leases().await.ok()).await;
            assert!(listed.set_aside.is_empty());
        }
        let _ = stop.send(());
        assert_eq!(ended.await.unwrap(), Exit::Ok);
    });
}

#[test]
fn a_socket_is_gone_with_its_node_and_the_client_says_so() {
    let dir = tempfile::tempdir().unwrap();
    inside(|_| async move {
        let client = ControlClient::new(dir.path());
        let error = client.status().await.unwrap_err();
        assert!(error.is_not_running() && error.to_string().contains("there is no control.sock"), "{error}");
        // What a killed node leaves behind.
        drop(socket::bind(dir.path()).unwrap());
        let error = client.status().await.unwrap_err();
        assert!(error.is_not_running() && error.to_string().contains("nobody listens"), "{error}");
    });
}
