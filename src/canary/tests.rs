//! Canaries against a simulated container: every fault ends at its stage, and every course ends with the release.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::simulated::{SimulatedRemote, Trouble};
use super::*;
use crate::actors::validator::verifiers::Verifiers;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::proof::Work;
use crate::verdict::Side;

/// Rents out of nothing, and counts.
#[derive(Default)]
struct House {
    rented: Mutex<BTreeSet<LeaseId>>,
    refuses: Mutex<Option<Fault>>,
    releases: Mutex<u32>,
    /// The release fails so many times.
    stuck: Mutex<u32>,
}

#[async_trait]
impl Landlord for House {
    async fn rent(&self, plan: &Plan) -> Result<Rented, Fault> {
        if let Some(fault) = self.refuses.lock().unwrap().clone() {
            return Err(fault);
        }
        assert!(self.rented.lock().unwrap().insert(plan.id), "rented twice");
        let (login, _) = ssh::fresh_key()?;
        let addr = "127.0.0.1:22".parse().unwrap();
        Ok(Rented { access: Access { addr, user: "root".into(), login, host_key: Some("as told".into()) } })
    }
    async fn release(&self, id: LeaseId) -> Result<(), Fault> {
        *self.releases.lock().unwrap() += 1;
        let mut stuck = self.stuck.lock().unwrap();
        if *stuck > 0 {
            *stuck -= 1;
            return Err(Fault::new(Reason::NoAnswer, "simulated"));
        }
        self.rented.lock().unwrap().remove(&id);
        Ok(())
    }
}

const LIMITS: Limits = Limits {
    allocate: Duration::from_secs(5),
    login: Duration::from_millis(200),
    upload: Duration::from_millis(200),
    run: Duration::from_secs(5),
    verify: Duration::from_secs(5),
    release: Duration::from_secs(5),
    samples: 8,
};

fn plan(number: u8) -> Plan {
    let work = Work::new(64, 128, 2).unwrap();
    let task = |device| Task { device: DeviceId::cpu(device), work, floor_ops: None };
    Plan { id: LeaseId([number; 16]), miner: Hotkey([7; 32]), tasks: vec![task(0), task(1)] }
}

fn set_up() -> (Arc<House>, SimulatedRemote, Tools) {
    let (house, remote) = (Arc::new(House::default()), SimulatedRemote::default());
    let program: Arc<[u8]> = Arc::from(&b"a program"[..]);
    let (landlord, verifiers, models) = (house.clone(), Verifiers::new(2), Arc::default());
    let witness = Arc::new(Others::default());
    let tools = Tools { landlord, remote: Arc::new(remote.clone()), program, verifiers, models, witness };
    (house, remote, tools)
}

fn stages(report: &Report) -> Vec<Stage> {
    report.stages.iter().map(|s| s.stage).collect()
}

#[tokio::test]
async fn an_honest_container_passes_every_stage_and_proves_every_device() {
    let (house, _, tools) = set_up();
    let report = drive(&tools, &LIMITS, &plan(1)).await;
    assert_eq!((report.outcome.clone(), stages(&report)), (Outcome::Pass, Stage::ALL.to_vec()), "{report:?}");
    let devices: Vec<DeviceId> = report.proved.iter().map(|p| p.device).collect();
    assert_eq!(devices, [DeviceId::cpu(0), DeviceId::cpu(1)]);
    assert!(report.proved.iter().all(|p| p.rate > 0 && p.samples == 8) && report.host_key_pinned);
    assert!(house.rented.lock().unwrap().is_empty() && report.unreleased.is_none());
}

#[tokio::test]
async fn every_fault_ends_at_its_stage_with_its_reason_and_the_devices_are_always_given_back() {
    use Reason as R;
    for trouble in Trouble::ALL {
        let (stage, reason, costs) = match trouble {
            Trouble::Closed => (Stage::Login, R::Unreachable, false),
            Trouble::OtherKey => (Stage::Login, R::WrongHostKey, false),
            Trouble::NoLogin => (Stage::Login, R::LoginRefused, false),
            Trouble::LoginHangs => (Stage::Login, R::Deadline, false),
            Trouble::NoRoom => (Stage::Upload, R::NoTransfer, false),
            Trouble::Altered => (Stage::Upload, R::Altered, false),
            Trouble::UploadHangs => (Stage::Upload, R::Deadline, false),
            Trouble::NotRun => (Stage::Run, R::NotStarted, false),
            Trouble::Dies => (Stage::Run, R::EndedEarly, false),
            Trouble::Silent => (Stage::Run, R::Deadline, false),
            Trouble::Babble => (Stage::Run, R::Garbage, false),
            Trouble::WrongOpenings => (Stage::Verify, R::WrongProof, true),
            Trouble::NoOpenings => (Stage::Verify, R::EndedEarly, true),
            Trouble::SilentAtOpenings => (Stage::Verify, R::Deadline, true),
        };
        let (house, remote, tools) = set_up();
        remote.set_trouble(Some(trouble));
        let limits = match trouble {
            Trouble::Silent => Limits { run: Duration::from_millis(200), ..LIMITS },
            Trouble::SilentAtOpenings => Limits { verify: Duration::from_millis(200), ..LIMITS },
            _ => LIMITS,
        };
        let report = drive(&tools, &limits, &plan(1)).await;
        let Outcome::Fail { stage: at, reason: why, .. } = &report.outcome else { panic!("{trouble:?}: {report:?}") };
        assert_eq!((*at, *why), (stage, reason), "{trouble:?}: {report:?}");
        let mut expected: Vec<Stage> = Stage::ALL.into_iter().take_while(|s| *s <= stage).collect();
        expected.push(Stage::Release);
        assert_eq!(stages(&report), expected, "{trouble:?}");
        assert!(house.rented.lock().unwrap().is_empty(), "{trouble:?}");
        let failed = if costs { plan(1).devices() } else { Vec::new() };
        assert_eq!((report.failed.clone(), report.proved.len()), (failed, 0), "{trouble:?}");
    }
}

/// Says that we are cut off.
struct CutOff;

#[async_trait]
impl Witness for CutOff {
    async fn cut_off(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn what_fails_while_we_are_cut_off_is_unknown_and_counts_against_no_device_but_a_wrong_answer_is_one() {
    for trouble in Trouble::ALL {
        let (house, remote, tools) = set_up();
        let tools = Tools { witness: Arc::new(CutOff), ..tools };
        remote.set_trouble(Some(trouble));
        let limits = match trouble {
            Trouble::Silent => Limits { run: Duration::from_millis(200), ..LIMITS },
            Trouble::SilentAtOpenings => Limits { verify: Duration::from_millis(200), ..LIMITS },
            _ => LIMITS,
        };
        let report = drive(&tools, &limits, &plan(1)).await;
        assert!(house.rented.lock().unwrap().is_empty(), "{trouble:?}");
        let answered = matches!(
            trouble,
            Trouble::OtherKey | Trouble::NoLogin | Trouble::Altered | Trouble::Babble | Trouble::WrongOpenings
        );
        if answered {
            assert_eq!(report.outcome.label(), "fail", "{trouble:?}: {report:?}");
            continue;
        }
        assert_eq!((report.outcome.label(), report.outcome.reason()), ("unknown", Some(Reason::OwnFault)));
        assert!(report.failed.is_empty(), "{trouble:?}: {report:?}");
        let row = [(3, &report), (2, &report), (1, &report)];
        assert_eq!(standing::unreached(row.into_iter()), None, "{trouble:?}: none of three in a row");
    }
    let (_, _, tools) = set_up();
    let report = drive(&Tools { witness: Arc::new(CutOff), ..tools }, &LIMITS, &plan(1)).await;
    assert_eq!(report.outcome, Outcome::Pass, "what was proved is proved");
}

#[tokio::test]
async fn a_rental_that_is_not_made_says_nothing_of_the_miner_but_one_without_a_host_key_does() {
    for (reason, label) in [
        (Reason::NoHostKey, "fail"),
        (Reason::NoLogin, "fail"),
        (Reason::Refused, "unknown"),
        (Reason::NotFree, "unknown"),
        (Reason::NoAnswer, "unknown"),
        (Reason::OwnFault, "unknown"),
    ] {
        let (house, _, tools) = set_up();
        *house.refuses.lock().unwrap() = Some(Fault::new(reason, "no\nroom"));
        let report = drive(&tools, &LIMITS, &plan(1)).await;
        assert_eq!((report.outcome.label(), report.outcome.stage()), (label, Stage::Allocate));
        assert_eq!(stages(&report), [Stage::Allocate, Stage::Release], "a release makes sure");
        assert!(standing::says(&report).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_our_own_checking_is_late_costs_the_miner_nothing_and_that_it_does_not_open_does() {
    let (_, remote, tools) = set_up();
    let limits = Limits { verify: Duration::from_millis(300), ..LIMITS };
    // All places are taken until long after the deadline of the openings.
    let busy = |until: std::sync::mpsc::Receiver<()>| {
        let verifiers = tools.verifiers.clone();
        tokio::spawn(async move { verifiers.run(move || until.recv()).await })
    };
    let ((one, first), (other, second)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let places = [busy(first), busy(second)];
    while tools.verifiers.free() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::spawn(async move {
        tokio::time::sleep(5 * limits.verify).await;
        drop((one, other));
    });
    let report = drive(&tools, &limits, &plan(1)).await;
    assert_eq!((report.outcome, report.proved.len(), report.failed.len()), (Outcome::Pass, 2, 0));
    for place in places {
        assert!(place.await.unwrap().unwrap().is_err(), "held until then");
    }
    remote.set_trouble(Some(Trouble::SilentAtOpenings));
    let report = drive(&tools, &limits, &plan(2)).await;
    assert_eq!(
        (report.outcome.stage(), report.outcome.reason()),
        (Stage::Verify, Some(Reason::Deadline)),
        "{report:?}"
    );
    assert_eq!(report.failed, plan(2).devices());
}

/// A container whose program tells these as its GPUs.
struct Surveyed(&'static str, SimulatedRemote);

#[async_trait]
impl Remote for Surveyed {
    async fn login(&self, to: &Access) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(SurveyedSession(self.0, self.1.login(to).await?)))
    }
}

struct SurveyedSession(&'static str, Box<dyn Session>);

#[async_trait]
impl Session for SurveyedSession {
    async fn upload(&self, program: &[u8]) -> Result<(), Fault> {
        self.1.upload(program).await
    }
    async fn start(&self, arguments: &[&str]) -> Result<Process, Fault> {
        if arguments != ["report-cuda"] {
            return self.1.start(arguments).await;
        }
        let (_end, ended) = tokio::sync::watch::channel(Some(remote::Ended::default()));
        let told: &[u8] = self.0.as_bytes();
        Ok(Process { stdout: Box::new(told), stdin: Box::new(tokio::io::sink()), ended })
    }
}

#[tokio::test]
async fn where_the_devices_are_not_known_before_all_that_the_container_shows_are_asked() {
    let (house, remote, tools) = set_up();
    let gpu = |device: u8, name: &str| {
        let device = DeviceId::cpu(device);
        serde_json::json!({"device": device, "name": name, "capability": [9, 0], "memory": 1})
    };
    let told = |gpus: Vec<serde_json::Value>| -> &'static str {
        let report =
            serde_json::json!({"gpus": gpus, "driver": 12_080, "problem": null, "cublaslt": null, "no_cublaslt": null});
        Box::leak(report.to_string().into_boxed_str())
    };
    let models = Arc::new(Models::from([("H".to_owned(), (Work::new(64, 128, 2).unwrap(), None))]));
    let plan = Plan { tasks: Vec::new(), ..plan(1) };
    let run = async |told: &'static str| {
        let remote = Arc::new(Surveyed(told, remote.clone()));
        drive(&Tools { remote, models: models.clone(), ..tools.clone() }, &LIMITS, &plan).await
    };
    let report = run(told(vec![gpu(0, "H"), gpu(3, "H")])).await;
    assert_eq!(report.outcome, Outcome::Pass, "{report:?}");
    assert_eq!(report.devices, [DeviceId::cpu(0), DeviceId::cpu(3)]);
    assert_eq!(report.proved.len(), 2);
    for (told, reason, label) in [
        (told(vec![]), Reason::NoDevice, "fail"),
        (told(vec![gpu(0, "H"), gpu(1, "I")]), Reason::UnknownModel, "unknown"),
        ("bash: warning", Reason::Garbage, "fail"),
        ("", Reason::NotStarted, "fail"),
    ] {
        let report = run(told).await;
        assert_eq!((report.outcome.reason(), report.outcome.label()), (Some(reason), label), "{told}");
        assert_eq!((report.outcome.stage(), report.failed.len()), (Stage::Run, 0));
    }
    assert!(house.rented.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_rate_below_the_floor_fails_the_device_and_spares_the_others() {
    let (_, _, tools) = set_up();
    let mut plan = plan(1);
    plan.tasks[1].floor_ops = Some(u64::MAX);
    let report = drive(&tools, &LIMITS, &plan).await;
    assert_eq!(report.outcome.reason(), Some(Reason::TooSlow), "{report:?}");
    assert_eq!(standing::says(&report), [(DeviceId::cpu(0), true), (DeviceId::cpu(1), false)]);
    let failed = standing::says(&report).into_iter().filter(|(_, passed)| !passed);
    let costs = standing::costs(failed.map(|(device, _)| (plan.miner, device, standing::words(&report.outcome))));
    let verdict = &costs[&(plan.miner, DeviceId::cpu(1))];
    assert_eq!((verdict.kind(), verdict.reason(), costs.len()), ("fail", "canary_failed", 1));
}

#[tokio::test]
async fn a_gpu_that_is_not_in_the_container_fails_the_device() {
    let (house, _, tools) = set_up();
    let mut plan = plan(1);
    // The simulated prover computes on the processor whatever it is asked to run on; one that is named cuda finds no driver.
    plan.tasks.truncate(1);
    plan.tasks[0].device = DeviceId([9; 16]);
    let tools = Tools { remote: Arc::new(NoDriver), ..tools };
    let report = drive(&tools, &LIMITS, &plan).await;
    let Outcome::Fail { stage: Stage::Run, reason: Reason::NoDevice, .. } = report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(report.failed, plan.devices());
    assert!(house.rented.lock().unwrap().is_empty());
}

/// A container whose prover is the real one, as it is started, on a machine without CUDA.
struct NoDriver;

#[async_trait]
impl Remote for NoDriver {
    async fn login(&self, _: &Access) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(NoDriver))
    }
}
#[async_trait]
impl Session for NoDriver {
    async fn upload(&self, _: &[u8]) -> Result<(), Fault> {
        Ok(())
    }
    async fn start(&self, arguments: &[&str]) -> Result<Process, Fault> {
        let backend = arguments.last().unwrap().parse().unwrap();
        let (end, ended) = tokio::sync::watch::channel(None);
        let (out, stdout) = tokio::io::duplex(65_536);
        let (stdin, input) = tokio::io::duplex(65_536);
        tokio::spawn(async move {
            let _ = crate::proof::prover::serve(input, out, backend).await;
            end.send_replace(Some(remote::Ended::default()));
        });
        Ok(Process { stdout: Box::new(stdout), stdin: Box::new(stdin), ended })
    }
}

#[tokio::test]
async fn a_release_that_fails_is_told_beside_what_the_canary_came_to() {
    let (house, _, tools) = set_up();
    *house.stuck.lock().unwrap() = 1;
    let report = drive(&tools, &LIMITS, &plan(1)).await;
    assert_eq!(report.outcome, Outcome::Pass);
    assert_eq!(report.unreleased.map(|f| f.reason), Some(Reason::NoAnswer));
    assert_eq!(house.rented.lock().unwrap().len(), 1, "it is still rented, and the report says so");
}

#[tokio::test]
async fn fifty_canaries_whatever_happens_in_them_leave_nothing_rented() {
    let (house, remote, tools) = set_up();
    let limits = Limits { run: Duration::from_secs(1), login: Duration::from_millis(20), ..LIMITS };
    let limits = Limits { upload: Duration::from_millis(20), ..limits };
    for number in 0..50u8 {
        let trouble = Trouble::ALL.get(usize::from(number) % (Trouble::ALL.len() + 3)).copied();
        remote.set_trouble(trouble.filter(|t| !matches!(t, Trouble::Silent | Trouble::SilentAtOpenings)));
        let report = drive(&tools, &limits, &plan(number)).await;
        assert!(report.unreleased.is_none());
    }
    assert_eq!((house.rented.lock().unwrap().len(), *house.releases.lock().unwrap()), (0, 50));
}

#[test]
fn only_what_the_miner_can_do_something_about_is_a_fail_after_the_rental_began() {
    for reason in Reason::ALL {
        for stage in Stage::ALL {
            let outcome = Outcome::failed(stage, Fault::new(*reason, ""));
            let blames = outcome.label() == "fail";
            assert!(!blames || reason.side() == Side::Miner, "{stage} {reason}");
        }
        assert!(!reason.remedy().is_empty() && !reason.text().is_empty());
    }
    let own = Outcome::failed(Stage::Verify, Fault::new(Reason::OwnFault, ""));
    assert_eq!(own.label(), "unknown");
}

#[test]
fn a_course_is_over_after_the_release_and_takes_nothing_in_after_that() {
    let mut course = Course::default();
    course.ended(Err(Fault::new(Reason::Refused, "")), Duration::ZERO);
    assert_eq!(course.stage(), Some(Stage::Release));
    course.ended(Ok(()), Duration::from_millis(5));
    assert_eq!(course.stage(), None);
    course.ended(Err(Fault::new(Reason::OwnFault, "")), Duration::ZERO);
    let report = course.report(Vec::new(), Vec::new(), Vec::new(), false);
    assert_eq!((report.outcome.reason(), report.stages.len()), (Some(Reason::Refused), 2));
    assert_eq!(report.unreleased, None);
}

#[test]
fn a_report_reads_back_from_its_record_and_no_login_shows_a_secret() {
    let mut course = Course::default();
    course.ended(Err(Fault::new(Reason::NoAnswer, "x")), Duration::from_millis(3));
    course.ended(Ok(()), Duration::ZERO);
    let report = course.report(vec![DeviceId::cpu(0)], Vec::new(), Vec::new(), true);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    assert!(text.contains(r#""result":"unknown","stage":"allocate","reason":"no_answer""#), "{text}");
    let (login, public) = ssh::fresh_key().unwrap();
    assert!(public.starts_with("ssh-ed25519 AAAA") && format!("{login:?}") == "Key(redacted)");
    assert_eq!(format!("{:?}", Login::Password("hunter2".into())), "Password(redacted)");
}
