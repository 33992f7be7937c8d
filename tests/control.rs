//! The control socket of running nodes: every path, right and wrong, by the client that the programs use.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with other tests")]
mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{LONG, PROVER, inside, settings, until};
use compute_subnet::exit::Exit;
use compute_subnet::ids::LeaseId;
use compute_subnet::lease::LeaseState;
use compute_subnet::scoring::Points;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::store::Role;
use compute_subnet::web::control::api::RentWish;
use compute_subnet::web::control::{ClientError, Code, ControlClient, socket};

fn options(dir: &Path) -> DevnetOptions {
    DevnetOptions {
        miners: 2,
        cheaters: 0,
        duplicates: 0,
        rentals: 0,
        speed: 1.0,
        dir: dir.to_owned(),
        ledger: "127.0.0.1:0".parse().unwrap(),
        validators: 1,
        without_validator: false,
        prover: (PathBuf::from(PROVER), Vec::new()),
    }
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
