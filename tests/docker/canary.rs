//! Canary rentals in real containers: the engine makes them, the SSH server in them is ours, the prover that is uploaded is
//! the real one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use compute_subnet::actors::validator::verifiers::Verifiers;
use compute_subnet::canary::ssh::{Ssh, fresh_key};
use compute_subnet::canary::{
    Access, Fault, Landlord, Limits, Others, Outcome, Plan, Reason, Rented, Report, Stage, Task, Tools, drive,
};
use compute_subnet::ids::{DeviceId, Hotkey, LeaseId};
use compute_subnet::lease::engine::docker::DockerEngine;
use compute_subnet::lease::{ContainerEngine as _, ContainerSpec};
use compute_subnet::proof::Work;

use crate::bed::{Bed, run};

/// Rents straight from the engine.
struct House {
    engine: Arc<DockerEngine>,
    spec: ContainerSpec,
    /// What the miner tells instead of the container's own host key.
    told: Option<String>,
}

#[async_trait]
impl Landlord for House {
    async fn rent(&self, plan: &Plan) -> Result<Rented, Fault> {
        let (login, public) = fresh_key()?;
        let (lease, devices) = (plan.id, plan.devices());
        let spec = ContainerSpec { lease, devices, ssh_public_key: Some(public), ..self.spec.clone() };
        let made = self.engine.create(&spec).await.map_err(|e| Fault::new(Reason::Refused, e.to_string()))?;
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], made.ssh_port));
        let host_key = self.told.clone().or(made.host_key);
        Ok(Rented { access: Access { addr, user: "root".into(), login, host_key } })
    }
    async fn release(&self, id: LeaseId) -> Result<(), Fault> {
        let released = self.engine.destroy(id, 1).await;
        released.map(|_| ()).map_err(|e| Fault::new(Reason::OwnFault, e.to_string()))
    }
}

const LIMITS: Limits = Limits {
    allocate: Duration::from_secs(60),
    login: Duration::from_secs(30),
    upload: Duration::from_secs(60),
    run: Duration::from_secs(60),
    verify: Duration::from_secs(30),
    release: Duration::from_secs(60),
    samples: 66,
};

/// The prover without what is for debugging alone: that would be most of the upload's time.
pub(crate) fn stripped(bed: &Bed) -> PathBuf {
    let program = bed.key.with_file_name("compute-prover");
    if !program.is_file() {
        run("strip", &["-o", program.to_str().unwrap(), env!("CARGO_BIN_EXE_compute-prover")]);
    }
    program
}

async fn canary(bed: &Bed, number: u8, image: &str, told: Option<String>) -> Report {
    let spec = ContainerSpec { image: image.to_owned(), ..bed.spec(number, 0) };
    let landlord = Arc::new(House { engine: bed.engine(1), spec, told });
    let program = Arc::from(std::fs::read(stripped(bed)).unwrap());
    let (verifiers, models) = (Verifiers::new(2), Arc::default());
    let witness = Arc::new(Others::default());
    let tools = Tools { landlord, remote: Arc::new(Ssh), program, verifiers, models, witness };
    let task = Task { device: DeviceId::cpu(0), work: Work::new(256, 256, 2).unwrap(), floor_ops: None };
    let plan = Plan { id: LeaseId([number; 16]), miner: Hotkey([1; 32]), tasks: vec![task] };
    drive(&tools, &LIMITS, &plan).await
}

pub(crate) async fn a_canary_passes_in_every_image_that_can_run_the_prover(bed: &mut Bed) {
    for (number, image) in [(1, "bookworm"), (2, "legacy")] {
        let report = canary(bed, number, image, None).await;
        assert_eq!(report.outcome, Outcome::Pass, "{image}: {report:?}");
        assert!(report.host_key_pinned);
        let times: Vec<String> = report.stages.iter().map(|s| format!("{} {} ms", s.stage, s.took_ms)).collect();
        println!("       {image}: {}", times.join(", "));
    }
}

pub(crate) async fn a_canary_names_what_is_wrong_with_a_container(bed: &mut Bed) {
    let (_, other) = fresh_key().unwrap();
    let report = canary(bed, 1, "bookworm", Some(other)).await;
    assert_eq!((report.outcome.stage(), report.outcome.reason()), (Stage::Login, Some(Reason::WrongHostKey)));
    // Nothing is in this image: no /tmp, no libc.
    let report = canary(bed, 2, "scratch", None).await;
    let Outcome::Fail { stage: Stage::Upload | Stage::Run, .. } = report.outcome else { panic!("{report:?}") };
    let report = canary(bed, 3, "not-there", None).await;
    assert_eq!((report.outcome.label(), report.outcome.stage()), ("unknown", Stage::Allocate));
}

/// Five of them, fifty in the long form.
pub(crate) async fn many_canaries_leave_no_container(bed: &mut Bed) {
    let canaries = if std::env::var_os("COMPUTE_TEST_LONG").is_some() { 50 } else { 5 };
    let mut took = Vec::new();
    for number in 1..=canaries {
        let report = canary(bed, number, "bookworm", None).await;
        assert_eq!((&report.outcome, &report.unreleased), (&Outcome::Pass, &None), "{number}");
        took.push(report.stages.iter().map(|s| s.took_ms).sum::<u64>());
    }
    took.sort_unstable();
    let of = |share: usize| took[(took.len() - 1) * share / 100];
    println!("       {canaries} canaries: p50 {} ms, p95 {} ms", of(50), of(95));
    assert_eq!(bed.docker(&["ps", "-aq"]).trim(), "");
}
