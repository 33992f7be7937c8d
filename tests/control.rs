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
use compute_subnet::rental::Requirements;
use compute_subnet::rental::select::Objection;
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
        miner: None,
        requirements: Requirements::any(1),
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
        let too_many = RentWish { requirements: Requirements::any(64), ..wish(status.hotkey) };
        assert_eq!(code(&validator.rent(&too_many, LONG).await.unwrap_err()), Code::NoneFree);
        let nothing = RentWish { requirements: Requirements::any(0), ..wish(status.hotkey) };
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
fn a_rental_goes_to_the_next_candidate_within_one_request_and_the_refusal_is_remembered() {
    on_devnet(async |dir| {
        let validator = ControlClient::new(dir.join("validator"));
        let hotkey = until("a validator", async || validator.status().await.ok()).await.hotkey;
        let candidates = async |wish: &RentWish| validator.candidates(wish).await.map(|told| told.candidates);
        let both = until("both miners are proved", async || {
            let told = candidates(&wish(hotkey)).await.ok()?;
            (told.iter().filter(|c| c.fits()).count() == 2).then_some(told)
        })
        .await;
        let [first, second] = &both[..] else { panic!("{both:?}") };
        assert!(first.grounds[0] == "trouble 0.000" && first.grounds[1].contains("(proved)"), "{first:?}");

        // What is asked for besides is held against the specs, and told so.
        let host = Requirements { cpus: 1, ram_bytes: 1, disk_bytes: 1, ..Requirements::any(1) };
        let told = candidates(&RentWish { requirements: host, ..wish(hotkey) }).await.unwrap();
        assert!(
            told.iter().all(|c| c.fits() && c.grounds.iter().filter(|g| g.ends_with("(told)")).count() == 3),
            "{told:?}"
        );
        let huge = Requirements { cpus: u32::MAX, ..Requirements::any(1) };
        let told = candidates(&RentWish { requirements: huge, ..wish(hotkey) }).await.unwrap();
        assert!(told.iter().all(|c| matches!(c.objections[..], [Objection::Cpus { told: Some(_) }])), "{told:?}");
        let none = Requirements { model: Some("NVIDIA H200".into()), ..Requirements::any(1) };
        let error = validator.rent(&RentWish { requirements: none, ..wish(hotkey) }, LONG).await.unwrap_err();
        assert!(
            code(&error) == Code::NoneFree
                && error.to_string().contains("of 2 miners: 1 × has proved cpu-1; 1 × has proved cpu-2"),
            "{error}"
        );
        let only = RentWish { miner: Some(second.hotkey), ..wish(hotkey) };
        assert_eq!(candidates(&only).await.unwrap()[0].hotkey, second.hotkey);

        // The first in the order refuses; the same request goes on to the second.
        let on = MaintenanceWish { on: true, note: "new disk".into() };
        for name in ["miner-0", "miner-1"] {
            let miner = ControlClient::new(dir.join(name));
            if miner.status().await.unwrap().hotkey == first.hotkey {
                miner.maintenance(&on).await.unwrap();
            }
        }
        let lease = validator.rent(&wish(hotkey), LONG).await.unwrap();
        assert_eq!((lease.miner, lease.state), (second.hotkey, LeaseState::Running));
        assert_eq!(lease.proved.iter().filter(|p| lease.devices.contains(&p.device)).count(), 1, "{lease:?}");
        let steps: Vec<String> = validator
            .lease(lease.id)
            .await
            .unwrap()
            .history
            .into_iter()
            .map(|step| step.event["event"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(steps, ["opened", "reserved", "proved", "moved", "proved", "started"]);
        let told = candidates(&wish(hotkey)).await.unwrap();
        let free: Vec<_> = told.iter().filter(|c| c.fits()).collect();
        assert_eq!((free.len(), free[0].hotkey), (1, first.hotkey), "the other device is held: {told:?}");
        assert!(free[0].grounds[0].starts_with("trouble 0.9") || free[0].grounds[0] == "trouble 1.000", "{free:?}");
        let held = told.iter().find(|c| c.hotkey == second.hotkey).unwrap();
        assert_eq!(held.objections, [Objection::Leased { free: 0, fit: 1 }]);
        // Nobody is left: what the last one said is told, and on record under the id.
        let id = LeaseId([5; 16]);
        let error = validator.rent(&RentWish { id: Some(id), ..wish(hotkey) }, LONG).await.unwrap_err();
        assert!(code(&error) == Code::PeerRefused && error.to_string().contains("new disk"), "{error}");
        let refused = validator.lease(id).await.unwrap().lease;
        assert_eq!((refused.state, refused.end), (LeaseState::Refused, Some(EndReason::PeerRefused)));
        let ended = validator.release(lease.id, LONG).await.unwrap();
        let listed = validator.leases().await.unwrap();
        assert_eq!(listed.ended.iter().map(|l| l.id).collect::<Vec<_>>(), [ended.id, id]);
    });
}

/// Runs `compute-register` against this validator, with a `ssh` of ours first on the path that prints its words.
async fn register(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let ssh = bin.join("ssh");
    std::fs::write(&ssh, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_compute-register"));
    command.arg("--data-dir").arg(dir.join("validator")).args(args);
    let path = std::env::var("PATH").unwrap();
    command.env("HOME", dir).env("PATH", format!("{}:{path}", bin.display())).current_dir(dir);
    let ended = tokio::time::timeout(LONG, command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (ended.status.code().unwrap(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn a_renter_allocates_lists_logs_in_and_releases_by_the_program() {
    on_devnet(async |dir| {
        std::fs::write(dir.join("id.pub"), "ssh-ed25519 AAAA me\n").unwrap();
        std::fs::write(dir.join("id"), "a private key, of which only the path is told\n").unwrap();
        let wish = ["allocate", "--ssh-key", "id.pub", "--duration", "10m", "--requirements"];
        let ask = async |more: &[&str]| register(&dir, &[&wish, more].concat()).await;
        let any = "{'gpu': {'count': 1, 'type': ''}, 'cpu': {'count': 1.0}, 'ram': {'capacity': 1}, 'hard_disk': None}";
        let (code, out, err) = ask(&["{'gpus': {}}"]).await;
        assert!(code == 64 && out.is_empty() && err.contains("did you mean gpu?"), "{code} {out} {err}");
        let told = until("who would be asked", async || {
            let (code, out, _) = ask(&[any, "--dry-run", "--explain"]).await;
            (code == 0).then_some(out)
        })
        .await;
        assert!(told.contains("1.  ") && told.contains("(proved)") && told.contains("(told)"), "{told}");
        let huge = "{'ram': {'capacity': 1152921504606846976}}";
        let (code, out, _) = ask(&[huge, "--dry-run", "--explain"]).await;
        assert!(code == 65 && out.contains("memory: ") && !out.contains("1.  "), "{code} {out}");

        let (code, out, err) = ask(&[any, "--json"]).await;
        assert_eq!(code, 0, "{out} {err}");
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        let id = told["lease"]["id"].as_str().unwrap().to_owned();
        let port = told["lease"]["endpoint"]["ssh_port"].as_u64().unwrap().to_string();
        let words: Vec<&str> = told["ssh"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert!(
            words.starts_with(&["ssh", "-i", "id", "-p", &port]) && words.last().unwrap().starts_with("root@127."),
            "{words:?}"
        );
        let pinned = dir.join("validator/known_hosts").join(&id);
        let is_pinned = !told["lease"]["host_key"].is_null();
        assert_eq!((pinned.exists(), err.contains("no host key")), (is_pinned, !is_pinned), "{err}");

        let (code, out, _) = register(&dir, &["list"]).await;
        assert!(code == 0 && out.contains(&id) && out.contains("1 × cpu-"), "{out}");
        let (code, out, _) = register(&dir, &["list", &id]).await;
        assert!(code == 0 && out.contains("running") && out.contains("started"), "{out}");
        for (verb, state) in [("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("restart", "running")] {
            let (code, out, err) = register(&dir, &[verb, &id]).await;
            assert!(code == 0 && out.contains(state), "{verb}: {code} {out} {err}");
        }
        // A paused one that is started again runs; and that it is paused is no reason to lose it.
        register(&dir, &["pause", &id]).await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let (_, out, _) = register(&dir, &["list", &id]).await;
        assert!(out.contains("paused"), "{out}");
        let (code, out, _) = register(&dir, &["restart", &id]).await;
        assert!(code == 0 && out.contains("running"), "{out}");
        for key in [&["--ssh-key", "id.pub"][..], &["--ssh-key", "id.pub", "--terminal"], &["--no-terminal"]] {
            let (code, out, err) = register(&dir, &[&["key", id.as_str()], key].concat()).await;
            assert!(code == 0 && out.contains("running"), "{key:?}: {code} {out} {err}");
        }
        let (code, _, err) = register(&dir, &["key", &id, "--no-terminal", "--terminal"]).await;
        assert_eq!(code, 64, "{err}");
        let (code, out, err) = register(&dir, &["renew", &id, "--duration", "1h"]).await;
        assert!(code == 0 && (out.contains("in 59m") || out.contains("in 1h")), "{code} {out} {err}");
        let (code, _, err) = register(&dir, &["renew", &id, "--duration", "1m"]).await;
        assert!(code == 65 && err.contains("never made shorter"), "{code} {err}");
        let (_, out, _) = register(&dir, &["list", &id]).await;
        assert!(["paused", "unpaused", "extended"].iter().all(|step| out.contains(step)), "{out}");

        if !is_pinned {
            let (code, out, err) = register(&dir, &["ssh", &id]).await;
            assert!(code == 65 && out.is_empty() && err.contains("--unpinned"), "{code} {out} {err}");
        }
        let (code, out, err) = register(&dir, &["ssh", "--unpinned", "-i", "my key", &id, "nvidia-smi", "-L"]).await;
        let words: Vec<&str> = out.lines().collect();
        assert!(code == 0 && words.starts_with(&["-i", "my key", "-p", &port]), "{code} {out} {err}");
        assert!(words.ends_with(&["nvidia-smi", "-L"]) && out.contains("root@127."), "{out}");
        assert_eq!(words.contains(&"StrictHostKeyChecking=yes"), is_pinned, "{out}");

        let (code, out, _) = register(&dir, &["release", &id]).await;
        assert!(code == 0 && out.contains("released (returned)"), "{out}");
        assert!(!pinned.exists());
        for words in [&["pause", id.as_str()][..], &["renew", &id, "--duration", "2h"]] {
            let (code, _, err) = register(&dir, words).await;
            assert!(code == 65 && err.contains("the lease is released"), "{code} {err}");
        }
        let (code, out, err) = register(&dir, &["ssh", "--unpinned", &id]).await;
        assert!(code == 65 && out.is_empty() && err.contains("it is released"), "{code} {out} {err}");
        let (_, out, _) = register(&dir, &["list", "--ended"]).await;
        assert!(out.starts_with("no leases") && out.contains("returned"), "{out}");
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
            image: String::new(),
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
