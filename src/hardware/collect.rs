//! One measurement of the whole machine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::docker::{DockerPresence, docker_presence};
use super::gpu::{self, GpuProbe};
use super::machine;
use super::nvml::NvmlProbe;
use super::peer::MAX_TEXT;
use super::specs::{Nvidia, Specs};
use crate::telemetry::printable;

/// Where to look.
#[derive(Clone)]
pub struct Probe {
    /// Socket of the container engine.
    pub docker_socket: PathBuf,
    /// How long the container engine may take to answer.
    pub docker_deadline: Duration,
    /// A path on the file system that `hard_disk` reports.
    pub disk_path: PathBuf,
    /// Lists the GPUs.
    pub gpus: Arc<dyn GpuProbe>,
    /// Held while a measurement runs, shared by clones: one that hangs must not be joined by a second.
    pub running: Arc<tokio::sync::Mutex<()>>,
}

impl Default for Probe {
    /// This machine: Docker's usual socket with 2 s to answer, `/`, and NVML.
    fn default() -> Self {
        Probe {
            docker_socket: "/var/run/docker.sock".into(),
            docker_deadline: Duration::from_secs(2),
            disk_path: "/".into(),
            gpus: Arc::new(NvmlProbe::new()),
            running: Arc::default(),
        }
    }
}

/// Why a machine could not be measured at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    /// A driver or a file system did not answer; the thread that asks stays behind until it does.
    #[error("measuring the machine took longer than {0:?}; a driver or a file system does not answer")]
    Deadline(Duration),
    /// The last measurement has not ended yet, see [`Deadline`](CollectError::Deadline).
    #[error("the last measurement of the machine still waits for a driver or a file system")]
    StillRunning,
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

/// Measures this machine: container engine first, then [`measure`] on a blocking thread, within `deadline` in all.
///
/// At most one measurement runs at a time: after [`Deadline`](CollectError::Deadline) its thread still waits, and until
/// it ends every call is refused, so that a dead driver holds one thread and not one more each period.
///
/// # Errors
/// [`CollectError`] if the measurement does not end in time. Sections that fail on their own are no error, see
/// [`Specs::problems`].
pub async fn collect(probe: &Probe, deadline: Duration) -> Result<Specs, CollectError> {
    let running = Arc::clone(&probe.running).try_lock_owned().map_err(|_| CollectError::StillRunning)?;
    let work = async {
        let docker = docker_presence(&probe.docker_socket, probe.docker_deadline).await;
        let probe = probe.clone();
        let measuring = tokio::task::spawn_blocking(move || {
            let specs = measure(&probe, docker);
            drop(running);
            specs
        });
        measuring.await.map_err(|_| CollectError::ShuttingDown)
    };
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(CollectError::Deadline(deadline)))
}

/// Measures this machine. Blocking (some milliseconds; seconds if a driver is in trouble): call it from
/// `spawn_blocking`, or use [`collect`]. Never panics; a section that fails leaves its reason in [`Specs::problems`].
pub fn measure(probe: &Probe, docker: DockerPresence) -> Specs {
    let mut specs = Specs { has_docker: docker.is_present(), docker, ..Specs::default() };
    let problems = &mut specs.problems;
    let mut failed = |section: &str, reason: String| {
        problems.insert(section.to_owned(), printable(&reason, MAX_TEXT));
    };
    specs.cpu = guarded(machine::cpu).map_err(|e| failed("cpu", e)).ok();
    specs.processor = guarded(machine::processor).map_err(|e| failed("processor", e)).ok();
    specs.ram = guarded(machine::ram).map_err(|e| failed("ram", e)).ok();
    specs.hard_disk = guarded(|| machine::hard_disk(&probe.disk_path)).map_err(|e| failed("hard_disk", e)).ok();
    specs.disks = guarded(machine::disks).map_err(|e| failed("disks", e)).unwrap_or_default();
    specs.networks = guarded(machine::networks).map_err(|e| failed("networks", e)).unwrap_or_default();
    specs.os = guarded(machine::os).map_err(|e| failed("os", e)).ok();
    match guarded(|| probe.gpus.gpus().map_err(|e| e.to_string())) {
        Ok(report) => {
            specs.nvidia = Nvidia {
                status: "ok".into(),
                driver_version: Some(report.driver_version),
                cuda_version: report.cuda_version,
                unreadable_gpus: report.failed.len() as u32,
            };
            specs.gpu = Some(gpu::summary(&report.gpus));
            specs.devices = gpu::offered(&report.gpus);
            let mut notes: Vec<String> =
                report.failed.iter().map(|(index, reason)| format!("GPU {index}: {reason}")).collect();
            let split = report.gpus.iter().filter(|g| g.mig_enabled == Some(true));
            notes.extend(split.map(|g| format!("GPU {}: split by MIG, not offered; nvidia-smi -mig 0", g.index)));
            if !notes.is_empty() {
                failed("gpu", notes.join("; "));
            }
            specs.gpus = report.gpus;
        }
        Err(reason) => {
            failed("gpu", reason.clone());
            specs.nvidia = Nvidia { status: printable(&reason, MAX_TEXT), ..Nvidia::default() };
        }
    }
    specs
}

/// A panic in a library below is that section's failure, not the caller's.
fn guarded<T>(section: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(section)).unwrap_or_else(|_| Err("the measurement panicked, see the log".into()))
}

#[cfg(test)]
mod tests {
    use super::super::gpu::{Gpu, GpuReport, NoDriver, SimulatedGpus, example};
    use super::*;
    use crate::hardware::Specs;

    fn probe(gpus: impl GpuProbe + 'static) -> Probe {
        Probe { gpus: Arc::new(gpus), ..Probe::default() }
    }
    fn measured(gpus: impl GpuProbe + 'static) -> Specs {
        measure(&probe(gpus), DockerPresence::default())
    }

    #[test]
    fn the_figures_are_those_of_the_machine() {
        let specs = measured(SimulatedGpus::none());
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let kib: u64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        let ram = specs.ram.unwrap();
        assert_eq!(ram.total, kib * 1024);
        assert!(ram.used <= ram.total && ram.available <= ram.total);
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let logical = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
        let processor = specs.processor.unwrap();
        assert_eq!(processor.logical_cores as usize, logical);
        assert!(specs.cpu.unwrap().count as usize <= logical);
        let disk = specs.hard_disk.unwrap();
        assert!(disk.total > 0 && disk.used + disk.free <= disk.total, "{disk:?}");
        assert!(!specs.os.unwrap().kernel.is_empty());
        assert!(specs.networks.iter().all(|n| n.name != "lo"));
        assert_eq!(specs.problems.keys().collect::<Vec<_>>(), ["gpu"]);
    }

    #[test]
    fn without_driver_the_gpu_section_is_empty_and_the_reason_is_kept() {
        let specs = measured(SimulatedGpus::new(Err(NoDriver { reason: "not installed".into() })));
        assert_eq!(specs.nvidia.status, "no NVIDIA driver: not installed");
        let json = serde_json::to_value(&specs).unwrap();
        assert_eq!(json["gpu"], serde_json::json!({}));
        assert_eq!(json["problems"]["gpu"], "no NVIDIA driver: not installed");
        assert_eq!(specs.devices, vec![]);
    }

    #[test]
    fn every_readable_gpu_is_offered_and_the_others_are_named() {
        let split = Gpu { mig_enabled: Some(true), ..example(1, "NVIDIA A100-SXM4-80GB") };
        let specs = measured(SimulatedGpus::new(Ok(GpuReport {
            driver_version: "570.133.20".into(),
            cuda_version: Some("12.8".into()),
            gpus: vec![example(0, "NVIDIA H100 80GB HBM3"), split],
            failed: vec![(2, "memory: device fell off the bus".into())],
        })));
        assert_eq!(specs.nvidia.status, "ok");
        assert_eq!(specs.gpu.as_ref().unwrap().count, 2);
        assert_eq!(specs.devices.len(), 1);
        let problem = &specs.problems["gpu"];
        assert!(problem.contains("GPU 2: memory") && problem.contains("GPU 1: split by MIG"), "{problem}");
        let text = serde_json::to_vec(&specs).unwrap();
        assert_eq!(Specs::from_peer(&text).unwrap(), specs, "what we send is what a validator reads");
    }

    #[test]
    fn a_probe_that_panics_costs_only_its_section() {
        struct Broken;
        impl GpuProbe for Broken {
            fn gpus(&self) -> Result<GpuReport, NoDriver> {
                panic!("driver bug")
            }
        }
        let specs = measured(Broken);
        assert!(specs.ram.is_some() && specs.cpu.is_some());
        assert_eq!(specs.problems["gpu"], "the measurement panicked, see the log");
    }

    #[test]
    fn a_path_that_is_not_there_costs_only_the_disk() {
        let probe = Probe { disk_path: "/no/such/path".into(), ..probe(SimulatedGpus::none()) };
        let specs = measure(&probe, DockerPresence::default());
        assert_eq!(specs.hard_disk, None);
        assert!(specs.problems["hard_disk"].contains("/no/such/path"));
    }

    #[tokio::test]
    async fn a_driver_that_never_answers_is_given_up_at_the_deadline_and_holds_one_thread() {
        struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
        impl GpuProbe for Stuck {
            fn gpus(&self) -> Result<GpuReport, NoDriver> {
                let _ = self.0.lock().unwrap().recv();
                Err(NoDriver { reason: "released".into() })
            }
        }
        let (release, wait) = std::sync::mpsc::channel();
        let probe = probe(Stuck(wait.into()));
        let limit = Duration::from_millis(50);
        assert_eq!(collect(&probe, limit).await, Err(CollectError::Deadline(limit)));
        assert_eq!(collect(&probe, limit).await, Err(CollectError::StillRunning));
        drop(release);
        let ended = tokio::time::timeout(Duration::from_secs(30), probe.running.lock()).await;
        drop(ended.expect("the thread ends when the driver answers"));
        let again = collect(&probe, Duration::from_secs(30)).await.unwrap();
        assert_eq!(again.nvidia.status, "no NVIDIA driver: released");
    }

    #[tokio::test]
    async fn an_absent_engine_is_in_the_specs() {
        let dir = tempfile::tempdir().unwrap();
        let probe = Probe { docker_socket: dir.path().join("none"), ..probe(SimulatedGpus::none()) };
        let specs = collect(&probe, Duration::from_secs(30)).await.unwrap();
        assert!(!specs.has_docker);
        assert!(specs.docker.to_string().starts_with("no Docker: no socket at"), "{}", specs.docker);
    }
}
