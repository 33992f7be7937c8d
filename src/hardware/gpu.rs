//! NVIDIA GPUs behind a seam, so that listing them can be tested without a driver.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::specs::{GpuDetail, GpuSummary, OfferedDevice};
use crate::ids::DeviceId;

const MIB: f64 = 1_048_576.0;

/// One NVIDIA GPU. Figures that the driver does not tell are absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// NVML's index; changes with the set of GPUs, the UUID does not.
    pub index: u32,
    /// NVML's UUID.
    pub uuid: DeviceId,
    /// NVML's name, for example `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Memory in bytes.
    pub memory_total_bytes: u64,
    /// Memory in use, in bytes.
    pub memory_used_bytes: u64,
    /// PCI address, for example `00000000:1B:00.0`.
    #[serde(default)]
    pub pci_bus_id: Option<String>,
    /// PCIe generation of the link as it is now (idle GPUs lower it).
    #[serde(default)]
    pub pcie_generation: Option<u32>,
    /// Highest PCIe generation that GPU and slot share.
    #[serde(default)]
    pub pcie_generation_max: Option<u32>,
    /// Lanes of the link as it is now.
    #[serde(default)]
    pub pcie_width: Option<u32>,
    /// Most lanes that GPU and slot share.
    #[serde(default)]
    pub pcie_width_max: Option<u32>,
    /// Graphics clock now, in MHz.
    #[serde(default)]
    pub graphics_clock_mhz: Option<u32>,
    /// Highest graphics clock, in MHz.
    #[serde(default)]
    pub graphics_clock_max_mhz: Option<u32>,
    /// Memory clock now, in MHz.
    #[serde(default)]
    pub memory_clock_mhz: Option<u32>,
    /// Highest memory clock, in MHz.
    #[serde(default)]
    pub memory_clock_max_mhz: Option<u32>,
    /// Power limit in force, in watts.
    #[serde(default)]
    pub power_limit_watts: Option<f64>,
    /// CUDA compute capability, for example `9.0`.
    #[serde(default)]
    pub compute_capability: Option<String>,
    /// Whether the GPU is split into MIG instances; absent where the model cannot be split.
    #[serde(default)]
    pub mig_enabled: Option<bool>,
}

/// What a driver reports.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GpuReport {
    /// Driver version.
    pub driver_version: String,
    /// Highest CUDA version that the driver serves, for example `12.8`.
    pub cuda_version: Option<String>,
    /// The GPUs that could be read, by index.
    pub gpus: Vec<Gpu>,
    /// GPUs that are there but could not be read: index and reason.
    pub failed: Vec<(u32, String)>,
}

/// Why no GPU can be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no NVIDIA driver: {reason}")]
pub struct NoDriver {
    /// What the driver's library said.
    pub reason: String,
}

/// Lists the NVIDIA GPUs of a machine. Blocking: a driver in trouble can take seconds.
pub trait GpuProbe: Send + Sync {
    /// Asks the driver.
    ///
    /// # Errors
    /// [`NoDriver`] if there is no driver or it does not answer. Ask again later: a driver can be installed or
    /// reloaded while the node runs.
    fn gpus(&self) -> Result<GpuReport, NoDriver>;
}

/// A probe that reports what it was told.
#[derive(Debug)]
pub struct SimulatedGpus(Mutex<Result<GpuReport, NoDriver>>);

impl SimulatedGpus {
    /// A machine with these GPUs, or without a driver.
    pub fn new(report: Result<GpuReport, NoDriver>) -> Self {
        SimulatedGpus(Mutex::new(report))
    }
    /// A machine without a driver.
    pub fn none() -> Self {
        Self::new(Err(NoDriver { reason: "simulated machine without GPU".into() }))
    }
    /// Changes what the machine has from now on.
    pub fn set(&self, report: Result<GpuReport, NoDriver>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = report;
    }
}

impl GpuProbe for SimulatedGpus {
    fn gpus(&self) -> Result<GpuReport, NoDriver> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// The original's `gpu` section.
pub(super) fn summary(gpus: &[Gpu]) -> GpuSummary {
    let details: Vec<GpuDetail> =
        gpus.iter().map(|g| GpuDetail { name: g.name.clone(), capacity: g.memory_total_bytes as f64 / MIB }).collect();
    GpuSummary {
        count: gpus.len() as u32,
        capacity: details.iter().map(|d| d.capacity).sum(),
        details,
        graphics_speed: gpus.first().and_then(|g| g.graphics_clock_mhz),
        memory_speed: gpus.first().and_then(|g| g.memory_clock_mhz),
    }
}

/// The GPUs that can be proved and rented whole: those that are not split into MIG instances.
pub(super) fn offered(gpus: &[Gpu]) -> Vec<OfferedDevice> {
    gpus.iter()
        .filter(|g| g.mig_enabled != Some(true))
        .map(|g| OfferedDevice { device: g.uuid, model: g.name.clone(), memory_bytes: g.memory_total_bytes })
        .collect()
}

#[cfg(test)]
pub(super) fn example(index: u32, name: &str) -> Gpu {
    Gpu {
        index,
        uuid: DeviceId([index as u8 + 1; 16]),
        name: name.into(),
        memory_total_bytes: 80 << 30,
        memory_used_bytes: 1 << 30,
        pci_bus_id: Some("00000000:1B:00.0".into()),
        pcie_generation: Some(1),
        pcie_generation_max: Some(5),
        pcie_width: Some(16),
        pcie_width_max: Some(16),
        graphics_clock_mhz: Some(345),
        graphics_clock_max_mhz: Some(1980),
        memory_clock_mhz: Some(2619),
        memory_clock_max_mhz: Some(2619),
        power_limit_watts: Some(700.0),
        compute_capability: Some("9.0".into()),
        mig_enabled: Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_adds_up_memory_in_mib_and_takes_the_clocks_of_the_first() {
        let gpus = [example(0, "NVIDIA H100 80GB HBM3"), example(1, "NVIDIA H100 80GB HBM3")];
        let s = summary(&gpus);
        assert_eq!((s.count, s.capacity), (2, 2.0 * 81920.0));
        assert_eq!((s.graphics_speed, s.memory_speed), (Some(345), Some(2619)));
    }

    #[test]
    fn a_driver_without_gpus_counts_zero_and_has_no_clocks() {
        let text = serde_json::to_value(summary(&[])).unwrap();
        assert_eq!(text, serde_json::json!({"count": 0, "capacity": 0.0, "details": []}));
    }

    #[test]
    fn a_gpu_split_by_mig_is_not_offered() {
        let split = Gpu { mig_enabled: Some(true), ..example(0, "NVIDIA A100-SXM4-80GB") };
        let cannot_split = Gpu { mig_enabled: None, ..example(1, "NVIDIA GeForce RTX 4090") };
        let offered = offered(&[split, cannot_split.clone()]);
        assert_eq!(offered.len(), 1);
        assert_eq!(offered[0].device, cannot_split.uuid);
    }
}
