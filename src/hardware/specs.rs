//! The shape of a machine's specs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::docker::DockerPresence;
use super::gpu::Gpu;
use super::section;
use crate::ids::DeviceId;

/// What a machine says it is.
///
/// The first five fields are the original subnet's, with its keys and units. The original also reports
/// `read_speed` and `write_speed` of disk and memory, which it measures by writing 100 MiB each time it is asked; we
/// leave these keys out, because a refresh must not load the disk of a machine that a renter uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Specs {
    /// Cores and clock, `{}` if not measured.
    #[serde(with = "section")]
    pub cpu: Option<Cpu>,
    /// All NVIDIA GPUs together, `{}` without a driver.
    #[serde(with = "section")]
    pub gpu: Option<GpuSummary>,
    /// The file system of the probe's path, `/` by default; `{}` if not measured.
    #[serde(with = "section")]
    pub hard_disk: Option<HardDisk>,
    /// Memory and swap, `{}` if not measured.
    #[serde(with = "section")]
    pub ram: Option<Ram>,
    /// Whether a container engine answers.
    pub has_docker: bool,

    /// Model and topology of the CPU, beyond the original's keys.
    #[serde(with = "section")]
    pub processor: Option<Processor>,
    /// Whether a container engine answers, which one, or why not.
    pub docker: DockerPresence,
    /// The NVIDIA driver, or why there is none.
    pub nvidia: Nvidia,
    /// Each NVIDIA GPU.
    pub gpus: Vec<Gpu>,
    /// Each mounted disk file system; network file systems are left out, because asking a dead one blocks.
    pub disks: Vec<Disk>,
    /// Each network interface but loopback.
    pub networks: Vec<Network>,
    /// Operating system.
    #[serde(with = "section")]
    pub os: Option<Os>,
    /// What this machine offers to prove. [`measure`](super::measure) lists the GPUs that can be proved whole; a
    /// development miner replaces this with its CPU device.
    pub devices: Vec<OfferedDevice>,
    /// Why a section is absent or incomplete, by section.
    pub problems: BTreeMap<String, String>,
}

/// The original's `cpu` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Physical cores.
    pub count: u32,
    /// Current clock in MHz, 0 if the system does not tell.
    pub frequency: f64,
}

/// The original's `gpu` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuSummary {
    /// GPUs.
    pub count: u32,
    /// Memory of all GPUs in MiB.
    pub capacity: f64,
    /// Name and memory of each.
    #[serde(default)]
    pub details: Vec<GpuDetail>,
    /// Current graphics clock of the first GPU in MHz; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graphics_speed: Option<u32>,
    /// Current memory clock of the first GPU in MHz; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_speed: Option<u32>,
}

/// One GPU in the original's `gpu` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuDetail {
    /// NVML's name, for example `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Memory in MiB.
    pub capacity: f64,
}

/// The original's `hard_disk` section, without its speeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardDisk {
    /// Size in bytes.
    pub total: u64,
    /// Bytes that an unprivileged user can still write.
    pub free: u64,
    /// Bytes in use.
    pub used: u64,
}

/// The original's `ram` section, without its speeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ram {
    /// Memory in bytes.
    pub total: u64,
    /// Bytes that programs can have without swapping.
    pub available: u64,
    /// Bytes in use: total less available.
    pub used: u64,
    /// Bytes that nothing uses, not even a cache.
    pub free: u64,
    /// Swap in bytes.
    pub swap_total: u64,
    /// Swap in use, in bytes.
    pub swap_used: u64,
    /// Swap not in use, in bytes.
    pub swap_free: u64,
}

/// Model and topology of the CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// The vendor's model name.
    pub model: String,
    /// Logical cores of the machine.
    pub logical_cores: u32,
    /// Logical cores that this process may use, after affinity and control-group quota.
    pub usable_cores: u32,
    /// Instruction set, for example `x86_64`.
    pub architecture: String,
    /// Memory limit of this process's control group in bytes, where it is below the machine's memory.
    #[serde(default)]
    pub memory_limit_bytes: Option<u64>,
}

/// The NVIDIA driver of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nvidia {
    /// `ok`, or `no NVIDIA driver: …` with the reason.
    pub status: String,
    /// Driver version, for example `570.133.20`.
    pub driver_version: Option<String>,
    /// Highest CUDA version that the driver serves, for example `12.8`.
    pub cuda_version: Option<String>,
    /// GPUs that are there but could not be read; the reasons are in [`Specs::problems`] under `gpu`.
    pub unreadable_gpus: u32,
}

impl Default for Nvidia {
    fn default() -> Self {
        Nvidia { status: "not reported".into(), driver_version: None, cuda_version: None, unreadable_gpus: 0 }
    }
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Block device or pool.
    pub name: String,
    /// Where it is mounted.
    pub mount: String,
    /// Kind of file system.
    pub file_system: String,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes that an unprivileged user can still write.
    pub free_bytes: u64,
}

/// One network interface. Addresses are left out: specs may be published, and the chain has the axon's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name of the interface.
    pub name: String,
    /// Largest frame in bytes.
    pub mtu: u64,
    /// Link speed in bits a second, where the driver tells.
    #[serde(default)]
    pub speed_bps: Option<u64>,
    /// Bytes received since boot.
    pub received_bytes: u64,
    /// Bytes sent since boot.
    pub sent_bytes: u64,
}

/// The operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// Distribution and version.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
}

/// A device that a miner offers to prove and to rent out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedDevice {
    /// Its identity, which enters the proof.
    pub device: DeviceId,
    /// NVML's name of a GPU, or the class of a CPU device (`cpu-1`).
    pub model: String,
    /// Its memory in bytes.
    pub memory_bytes: u64,
}

impl Specs {
    /// What is different hardware or software in `self` compared with `before`, one line each, for people.
    ///
    /// Figures that change by themselves (free memory, clocks, traffic) do not count; an empty list means the same
    /// machine in the same set-up.
    pub fn changes_since(&self, before: &Specs) -> Vec<String> {
        let mut changes = Vec::new();
        let mut differ = |what: &str, old: String, new: String| {
            if old != new {
                changes.push(format!("{what}: {old} -> {new}"));
            }
        };
        let cores = |s: &Specs| s.cpu.as_ref().map_or("unknown".into(), |c| c.count.to_string());
        differ("physical cores", cores(before), cores(self));
        let model = |s: &Specs| s.processor.as_ref().map_or("unknown".into(), |p| p.model.clone());
        differ("CPU model", model(before), model(self));
        let memory = |s: &Specs| s.ram.as_ref().map_or("unknown".into(), |r| format!("{} bytes", r.total));
        differ("memory", memory(before), memory(self));
        let disk = |s: &Specs| s.hard_disk.as_ref().map_or("unknown".into(), |d| format!("{} bytes", d.total));
        differ("disk", disk(before), disk(self));
        differ("container engine", before.docker.to_string(), self.docker.to_string());
        let driver = |s: &Specs| s.nvidia.driver_version.clone().unwrap_or_else(|| s.nvidia.status.clone());
        differ("NVIDIA driver", driver(before), driver(self));
        let offered = |s: &Specs| {
            let mut names: Vec<String> = s.devices.iter().map(|d| format!("{} ({})", d.device, d.model)).collect();
            names.sort();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        differ("devices", offered(before), offered(self));
        changes
    }
}

/// The devices that a machine offers: identity, model name, memory in bytes.
pub fn devices(specs: &Specs) -> Vec<(DeviceId, String, u64)> {
    specs.devices.iter().map(|d| (d.device, d.model.clone(), d.memory_bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_section_is_an_empty_object_and_reads_back_as_absent() {
        let text = serde_json::to_value(Specs::default()).unwrap();
        for section in ["cpu", "gpu", "hard_disk", "ram"] {
            assert_eq!(text[section], serde_json::json!({}), "{section}");
        }
        assert_eq!(text["has_docker"], false);
        assert_eq!(serde_json::from_value::<Specs>(text).unwrap(), Specs::default());
    }

    #[test]
    fn the_originals_own_specs_are_understood() {
        let original = serde_json::json!({
            "cpu": {"count": 16, "frequency": 2445.412},
            "gpu": {"count": 1, "capacity": 24564.0, "details": [{"name": "NVIDIA GeForce RTX 4090", "capacity": 24564.0}],
                    "graphics_speed": 2520, "memory_speed": 10501},
            "hard_disk": {"total": 100, "free": 60, "used": 40, "write_speed": 812.5, "read_speed": 3021.1},
            "ram": {"total": 10, "available": 8, "used": 2, "free": 7, "swap_total": 0, "swap_used": 0, "swap_free": 0,
                    "read_speed": 5120.0, "write_speed": 1411.2},
            "has_docker": true
        });
        let specs: Specs = serde_json::from_value(original).unwrap();
        assert_eq!(specs.cpu, Some(Cpu { count: 16, frequency: 2445.412 }));
        assert_eq!(specs.gpu.unwrap().details[0].name, "NVIDIA GeForce RTX 4090");
        assert_eq!(specs.hard_disk.unwrap().free, 60);
        assert!(specs.has_docker);
        assert_eq!(specs.devices, vec![], "a peer that does not name its devices offers none");
    }

    #[test]
    fn only_lasting_differences_are_changes() {
        let ram = Ram { total: 64, available: 60, used: 4, free: 50, swap_total: 0, swap_used: 0, swap_free: 0 };
        let before = Specs { ram: Some(ram.clone()), ..Specs::default() };
        let busier = Specs { ram: Some(Ram { available: 10, used: 54, free: 1, ..ram.clone() }), ..Specs::default() };
        assert_eq!(busier.changes_since(&before), Vec::<String>::new());
        let device = OfferedDevice { device: DeviceId::cpu(0), model: "cpu-1".into(), memory_bytes: 0 };
        let after = Specs { ram: Some(Ram { total: 32, ..ram }), devices: vec![device], ..Specs::default() };
        assert_eq!(after.changes_since(&before), ["memory: 64 bytes -> 32 bytes", "devices: none -> CPU-0 (cpu-1)"]);
    }
}
