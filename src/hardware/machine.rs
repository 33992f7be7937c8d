//! The sections that the operating system tells. Each is a function that returns a value or a reason.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::Path;

use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, Networks, RefreshKind, System};

use super::peer::MAX_TEXT;
use super::specs::{Cpu, Disk, HardDisk, Network, Os, Processor, Ram};
use crate::telemetry::printable;

/// Entries kept of disks and of networks: container hosts have hundreds of virtual ones.
pub(super) const MAX_ENTRIES: usize = 64;

pub(super) fn cpu() -> Result<Cpu, String> {
    let count = System::physical_core_count().map_err(|e| format!("number of physical cores: {e}"))?;
    let system = cpus(CpuRefreshKind::nothing().with_frequency())?;
    let frequency = system.cpus().first().map_or(0.0, |c| c.frequency() as f64);
    Ok(Cpu { count: count as u32, frequency })
}

pub(super) fn processor() -> Result<Processor, String> {
    let system = cpus(CpuRefreshKind::nothing())?;
    let logical = system.cpus().len() as u32;
    Ok(Processor {
        model: system.cpus().first().map(|c| c.brand().trim().to_owned()).unwrap_or_default(),
        logical_cores: logical,
        usable_cores: std::thread::available_parallelism().map_or(logical, |n: NonZeroUsize| n.get() as u32),
        architecture: System::cpu_arch(),
        memory_limit_bytes: memory_limit(),
    })
}

fn cpus(kind: CpuRefreshKind) -> Result<System, String> {
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(kind)).map_err(|e| e.to_string())?;
    if system.cpus().is_empty() { Err("the system lists no CPU".into()) } else { Ok(system) }
}

fn memory() -> Result<System, String> {
    let kind = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(kind).map_err(|e| e.to_string())?;
    if system.total_memory() == 0 { Err("the system reports no memory".into()) } else { Ok(system) }
}

fn memory_limit() -> Option<u64> {
    let system = memory().ok()?;
    let limit = system.cgroup_limits()?.total_memory;
    (limit > 0 && limit < system.total_memory()).then_some(limit)
}

pub(super) fn ram() -> Result<Ram, String> {
    let system = memory()?;
    let (total, available) = (system.total_memory(), system.available_memory());
    Ok(Ram {
        total,
        available,
        used: total.saturating_sub(available),
        free: system.free_memory(),
        swap_total: system.total_swap(),
        swap_used: system.used_swap(),
        swap_free: system.free_swap(),
    })
}

/// The file system that holds `path`, as `df` counts it.
pub(super) fn hard_disk(path: &Path) -> Result<HardDisk, String> {
    let fs = rustix::fs::statvfs(path).map_err(|e| format!("file system of {}: {e}", path.display()))?;
    Ok(HardDisk {
        total: fs.f_blocks.saturating_mul(fs.f_frsize),
        free: fs.f_bavail.saturating_mul(fs.f_frsize),
        used: fs.f_blocks.saturating_sub(fs.f_bfree).saturating_mul(fs.f_frsize),
    })
}

/// A name of the system's as specs may hold it.
fn text(name: &OsStr) -> String {
    printable(&name.to_string_lossy(), MAX_TEXT)
}

pub(super) fn disks() -> Result<Vec<Disk>, String> {
    let listed = Disks::new_with_refreshed_list().map_err(|e| e.to_string())?;
    let mut disks: Vec<Disk> = listed
        .iter()
        .filter(|d| d.total_space() > 0)
        .map(|d| Disk {
            name: text(d.name()),
            mount: text(d.mount_point().as_os_str()),
            file_system: text(d.file_system()),
            total_bytes: d.total_space(),
            free_bytes: d.available_space(),
        })
        .collect();
    disks.sort_by(|a, b| a.mount.cmp(&b.mount));
    disks.truncate(MAX_ENTRIES);
    Ok(disks)
}

pub(super) fn networks() -> Result<Vec<Network>, String> {
    let listed = Networks::new_with_refreshed_list().map_err(|e| e.to_string())?;
    let mut networks: Vec<Network> = listed
        .iter()
        .filter(|(name, _)| name.as_os_str() != "lo")
        .map(|(name, n)| Network {
            name: text(name),
            mtu: n.mtu(),
            speed_bps: n.transmit_link_speed(),
            received_bytes: n.total_received(),
            sent_bytes: n.total_transmitted(),
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    networks.truncate(MAX_ENTRIES);
    Ok(networks)
}

pub(super) fn os() -> Result<Os, String> {
    let name = System::long_os_version().or_else(|_| System::name()).map_err(|e| format!("name of the system: {e}"))?;
    let kernel = System::kernel_version().map_err(|e| format!("version of the kernel: {e}"))?;
    Ok(Os { name, kernel })
}
