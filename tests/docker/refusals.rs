//! What is refused, with what is left of it: nothing.

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hotkey, LeaseId};
use compute_subnet::lease::engine::docker::DockerEngine;
use compute_subnet::lease::{ContainerEngine as _, ContainerSpec, EngineError};

use crate::bed::Bed;

pub(crate) async fn a_device_is_never_given_twice(bed: &mut Bed) {
    // Eight leases on eight handles, all for one device.
    let engines: Vec<Arc<DockerEngine>> = (0..8).map(|_| bed.engine(1)).collect();
    let calls = engines.iter().zip(1u8..).map(|(engine, lease)| {
        let spec = bed.spec(lease, 0);
        async move { engine.create(&spec).await }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    let made: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().ok()).collect();
    assert_eq!(made.len(), 1);
    for outcome in &outcomes {
        match outcome {
            Ok(_) => {}
            Err(EngineError::DeviceInUse { lease, .. }) => assert_eq!(*lease, made[0].labels.lease),
            Err(other) => panic!("{other}"),
        }
    }
    let lease = made[0].labels.lease;
    // A container that has ended still has its device.
    bed.docker(&["kill", &made[0].id]);
    let again = engines[0].create(&bed.spec(99, 0)).await;
    assert!(matches!(again, Err(EngineError::DeviceInUse { .. })));
    assert!(engines[0].destroy(lease, 1).await.unwrap());
}

pub(crate) async fn another_epochs_container_is_left_alone(bed: &mut Bed) {
    let engine = bed.engine(1);
    let spec = bed.spec(1, 0);
    let newer = ContainerSpec { fencing_epoch: 2, ..spec.clone() };
    let made = engine.create(&newer).await.unwrap();
    let is_other = |error: EngineError| matches!(error, EngineError::OtherEpoch { present: 2, asked: 1, .. });
    assert!(is_other(engine.create(&spec).await.unwrap_err()));
    assert!(is_other(engine.destroy(spec.lease, 1).await.unwrap_err()));
    assert!(is_other(engine.pause(spec.lease, 1).await.unwrap_err()));
    assert!(is_other(engine.restart(spec.lease, 1).await.unwrap_err()));
    assert_eq!(engine.list().await.unwrap(), [made]);
    assert!(engine.destroy(spec.lease, 2).await.unwrap());
}

pub(crate) async fn a_card_that_another_miner_of_this_machine_rents_out_is_in_use(bed: &mut Bed) {
    let card = DeviceId([7; 16]);
    let others = bed.spec(2, 0).lease;
    // The machine of the test has no card, so the other miner's container is never started.
    let labels = [
        ("miner", Hotkey([2; 32]).to_string()),
        ("lease", others.to_string()),
        ("epoch", "1".to_owned()),
        ("expires_at_ms", "1".to_owned()),
        ("renter", Hotkey([9; 32]).to_string()),
        ("devices", card.to_string()),
        ("host_key", String::new()),
        ("ssh_port", "46099".to_owned()),
    ]
    .map(|(key, value)| format!("--label=compute-subnet.{key}={value}"));
    let mut command = vec!["create", "--name", "of-another-miner"];
    command.extend(labels.iter().map(String::as_str));
    command.extend(["compute-test:bookworm", "true"]);
    bed.docker(&command);
    let wish = ContainerSpec { devices: vec![card], ..bed.spec(1, 0) };
    match bed.engine(1).create(&wish).await {
        Err(EngineError::DeviceInUse { device, lease }) => assert_eq!((device, lease), (card, others)),
        other => panic!("{other:?}"),
    }
    bed.docker(&["rm", "of-another-miner"]);
}

pub(crate) async fn nothing_is_rented_before_it_is_known_what_this_machine_offers(bed: &mut Bed) {
    let engine = DockerEngine::new(bed.options(1));
    let early = engine.create(&bed.spec(1, 0)).await.unwrap_err();
    assert!(early.nothing_happened() && early.to_string().contains("how many devices"), "{early}");
    engine.offers(32);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    assert!(engine.destroy(made.labels.lease, 1).await.unwrap());
}

pub(crate) async fn images_that_may_not_run_are_refused_with_the_reason(bed: &mut Bed) {
    let why = async |engine: &DockerEngine, image: &str| {
        let spec = ContainerSpec { image: image.into(), ..bed.spec(1, 0) };
        match engine.create(&spec).await {
            Err(EngineError::Image { why, .. }) => why,
            other => panic!("{image}: {other:?}"),
        }
    };
    let engine = bed.engine(1);
    assert!(why(&engine, "evil/miner:1").await.contains("does not allow"));
    assert!(why(&engine, "FROM debian\nRUN rm -rf / $(id)").await.contains("a Dockerfile is not taken"));
    assert!(why(&engine, "compute-test:volume").await.contains("declares the volume /data"));
    assert!(why(&engine, "compute-test").await.contains("which version"));
    let small = bed.with(1, |options| options.pulls.size = 1 << 20);
    assert!(why(&small, "bookworm").await.contains("docker.max_image_gib"));
    // Allowed, not there, and no registry has it: the reason of the pull, and no second pull at once.
    let missing = why(&engine, "compute-test:no-such-tag").await;
    assert!(!missing.is_empty());
    assert_eq!(engine.list().await.unwrap(), []);
}

pub(crate) async fn what_the_engine_cannot_give_is_refused_and_leaves_nothing(bed: &mut Bed) {
    let spec = bed.spec(1, 0);
    let refused = async |engine: Arc<DockerEngine>| {
        let error = engine.create(&spec).await.unwrap_err();
        assert!(error.nothing_happened(), "{error}");
        assert!(engine.list().await.unwrap().is_empty());
        error.to_string()
    };
    let runtime = refused(bed.with(1, |o| o.runtime = Some("sysbox-runc".into()))).await;
    assert!(runtime.contains("asks for sysbox-runc") && runtime.contains("runc"), "{runtime}");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let taken = refused(bed.with(1, |o| o.ports = port.into())).await;
    assert!(taken.contains(&port.to_string()) && taken.contains("docker.ssh_ports"), "{taken}");
    // A GPU that this engine has no driver for: it fails at the start, and what was made is taken back.
    let gpu = ContainerSpec { devices: vec![compute_subnet::ids::DeviceId([7; 16])], ..spec.clone() };
    let error = bed.engine(1).create(&gpu).await.unwrap_err();
    assert!(error.nothing_happened() && error.to_string().contains("device driver"), "{error}");
    // A program that does not answer as an SSH server does.
    let dumb = bed.with(1, |o| (o.sshd, o.ssh_ready) = ("/bin/true".into(), Duration::from_secs(2)));
    let dumb = refused(dumb).await;
    assert!(dumb.contains("docker.ssh_ready"), "{dumb}");
    let missing = refused(bed.with(1, |o| o.sshd = "/no/such/sshd".into())).await;
    assert!(missing.contains("docker.sshd"), "{missing}");
}

pub(crate) async fn an_engine_that_is_not_there_is_named(bed: &mut Bed) {
    let engine = bed.with(1, |options| options.socket = "/no/such/docker.sock".into());
    let errors = [
        engine.available().await.unwrap_err(),
        engine.list().await.unwrap_err(),
        engine.create(&bed.spec(1, 0)).await.unwrap_err(),
        engine.destroy(LeaseId([1; 16]), 1).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, EngineError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("/no/such/docker.sock; is Docker installed and running?"), "{error}");
    }
}
