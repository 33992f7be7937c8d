//! The real GPU probe: NVML, loaded at run time.
//!
//! Needs driver 510 or newer (`nvmlDeviceGetMemoryInfo_v2`); an older one is reported per GPU with that reason.

use std::sync::{Mutex, PoisonError};

use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use super::gpu::{Gpu, GpuProbe, GpuReport, NoDriver};

/// More GPUs than any machine holds: bounds a driver that misreports.
const MAX_GPUS: u32 = 64;

/// Asks NVML. The library is loaded at the first call that finds it and kept; after an error of the library as a whole
/// it is let go, so that a driver which was installed, reloaded or replaced is found by a later call.
#[derive(Default)]
pub struct NvmlProbe {
    library: Mutex<Option<Nvml>>,
}

impl std::fmt::Debug for NvmlProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvmlProbe").finish_non_exhaustive()
    }
}

impl NvmlProbe {
    /// A probe that has not looked yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl GpuProbe for NvmlProbe {
    fn gpus(&self) -> Result<GpuReport, NoDriver> {
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        let nvml = match library.take() {
            Some(nvml) => nvml,
            None => Nvml::init().map_err(no_driver)?,
        };
        let report = read(&nvml).map_err(no_driver)?;
        *library = Some(nvml);
        Ok(report)
    }
}

fn no_driver(error: NvmlError) -> NoDriver {
    let reason = match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
            "libnvidia-ml.so.1 is not installed; install NVIDIA's driver if this machine has its GPUs".into()
        }
        NvmlError::DriverNotLoaded => "the kernel module is not loaded; try nvidia-smi as root".into(),
        NvmlError::LibRmVersionMismatch => {
            "library and kernel module are of different versions; reboot, or reload the module".into()
        }
        other => other.to_string(),
    };
    NoDriver { reason }
}

fn read(nvml: &Nvml) -> Result<GpuReport, NvmlError> {
    let mut report = GpuReport {
        driver_version: nvml.sys_driver_version()?,
        cuda_version: nvml
            .sys_cuda_driver_version()
            .ok()
            .map(|v| format!("{}.{}", cuda_driver_version_major(v), cuda_driver_version_minor(v))),
        ..GpuReport::default()
    };
    for index in 0..nvml.device_count()?.min(MAX_GPUS) {
        match nvml.device_by_index(index).map_err(|e| e.to_string()).and_then(|device| read_gpu(index, &device)) {
            Ok(gpu) => report.gpus.push(gpu),
            Err(reason) => report.failed.push((index, reason)),
        }
    }
    Ok(report)
}

/// A GPU must have name, UUID and memory; anything else may be unknown to the driver or the model.
fn read_gpu(index: u32, device: &Device<'_>) -> Result<Gpu, String> {
    let what = |name: &'static str| move |e: NvmlError| format!("{name}: {e}");
    let uuid = device.uuid().map_err(what("UUID"))?;
    let memory = device.memory_info().map_err(what("memory"))?;
    Ok(Gpu {
        index,
        uuid: uuid.parse().map_err(|e| format!("UUID {uuid:?}: {e}"))?,
        name: device.name().map_err(what("name"))?,
        memory_total_bytes: memory.total,
        memory_used_bytes: memory.used,
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id),
        pcie_generation: device.current_pcie_link_gen().ok(),
        pcie_generation_max: device.max_pcie_link_gen().ok(),
        pcie_width: device.current_pcie_link_width().ok(),
        pcie_width_max: device.max_pcie_link_width().ok(),
        graphics_clock_mhz: device.clock_info(Clock::Graphics).ok(),
        graphics_clock_max_mhz: device.max_clock_info(Clock::Graphics).ok(),
        memory_clock_mhz: device.clock_info(Clock::Memory).ok(),
        memory_clock_max_mhz: device.max_clock_info(Clock::Memory).ok(),
        power_limit_watts: device.enforced_power_limit().ok().map(|mw| f64::from(mw) / 1000.0),
        compute_capability: device.cuda_compute_capability().ok().map(|c| format!("{}.{}", c.major, c.minor)),
        // 1 is NVML_DEVICE_MIG_ENABLE.
        mig_enabled: device.mig_mode().ok().map(|mode| mode.current == 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_driver_says_so_and_one_with_a_driver_lists_its_gpus() {
        let probe = NvmlProbe::new();
        for _ in 0..2 {
            match probe.gpus() {
                Ok(report) => {
                    assert!(!report.driver_version.is_empty());
                    for gpu in &report.gpus {
                        assert!(gpu.memory_total_bytes > 0 && !gpu.name.is_empty(), "{gpu:?}");
                    }
                }
                Err(none) => assert!(none.to_string().starts_with("no NVIDIA driver: "), "{none}"),
            }
        }
    }

    #[test]
    fn a_missing_library_is_told_with_the_remedy() {
        let said = no_driver(NvmlError::LibraryNotFound).to_string();
        assert!(said.contains("libnvidia-ml.so.1 is not installed"), "{said}");
    }
}
