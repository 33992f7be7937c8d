//! What a caller asks of the machine it is about to rent, against what the machine is.
//!
//! A key that is missing asks for nothing, and what could not be measured refuses nobody: callers choose miners by their
//! specs, this only keeps a machine from being rented by somebody who needs another.

use super::DeviceRequirement;
use crate::hardware::Specs;

/// A word of the original's callers for "any GPU".
const ANY_GPU: &str = "gpu";

/// The first thing that this machine does not have; nothing if it has all. GPUs count by what the machine offers to rent,
/// their memory (all of them together) and names by what the driver tells.
pub fn unmet(asked: &DeviceRequirement, specs: &Specs) -> Option<String> {
    let short = |what: &str, asked: u64, there: Option<u64>| {
        there.filter(|there| *there < asked).map(|there| format!("{asked} {what} are asked for, there are {there}"))
    };
    let cores = specs.cpu.as_ref().map(|cpu| u64::from(cpu.count));
    let threads = specs.processor.as_ref().map(|cpu| u64::from(cpu.logical_cores));
    let memory = specs.ram.as_ref().map(|ram| ram.total);
    let disk = specs.hard_disk.as_ref().map(|disk| disk.free);
    let gpu_memory = specs.gpu.as_ref().map(|gpu| gpu.capacity as u64);
    let devices = u64::try_from(specs.devices.len()).ok();
    short("cores", asked.cpu_count().unwrap_or_default(), threads.max(cores))
        .or_else(|| short("bytes of memory", asked.ram_bytes().unwrap_or_default(), memory))
        .or_else(|| short("bytes of free disk", asked.hard_disk_bytes().unwrap_or_default(), disk))
        .or_else(|| short("GPUs", asked.gpu_count().unwrap_or_default(), devices))
        .or_else(|| short("MiB of GPU memory", asked.gpu_capacity_mib().unwrap_or_default(), gpu_memory))
        .or_else(|| other_gpu(asked.gpu_type().trim(), specs))
}

fn other_gpu(model: &str, specs: &Specs) -> Option<String> {
    let gpu = specs.gpu.as_ref()?;
    let named = |name: &str| name.to_lowercase().contains(&model.to_lowercase());
    let any = model.is_empty() || model.eq_ignore_ascii_case(ANY_GPU);
    let names = || gpu.details.iter().map(|detail| detail.name.as_str());
    if any || names().any(named) {
        return None;
    }
    let there: Vec<&str> = names().collect();
    let model: String = model.chars().filter(|c| !c.is_control()).take(64).collect();
    Some(format!("a GPU {model:?} is asked for, there are: {}", there.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Cpu, GpuDetail, GpuSummary, HardDisk, OfferedDevice, Ram};
    use crate::ids::DeviceId;
    use serde_json::{Value, json};

    fn machine() -> Specs {
        let gib = 1u64 << 30;
        Specs {
            cpu: Some(Cpu { count: 8, frequency: 3_000.0 }),
            ram: Some(Ram {
                total: 64 * gib,
                available: gib,
                used: 63 * gib,
                free: gib,
                swap_total: 0,
                swap_used: 0,
                swap_free: 0,
            }),
            hard_disk: Some(HardDisk { total: 500 * gib, free: 100 * gib, used: 400 * gib }),
            gpu: Some(GpuSummary {
                count: 2,
                capacity: 49_128.0,
                details: vec![GpuDetail { name: "NVIDIA GeForce RTX 4090".into(), capacity: 24_564.0 }; 2],
                graphics_speed: None,
                memory_speed: None,
            }),
            devices: (0..2)
                .map(|n| OfferedDevice { device: DeviceId::cpu(n), model: "x".into(), memory_bytes: 0 })
                .collect(),
            ..Specs::default()
        }
    }

    fn asked(fields: Value) -> Option<String> {
        unmet(&serde_json::from_value(fields).unwrap(), &machine())
    }

    #[test]
    fn what_the_originals_callers_ask_for_is_met_by_a_machine_that_has_it() {
        let validator = json!({
            "cpu": {"count": 1}, "gpu": {"count": 1, "capacity": 0, "type": ""},
            "hard_disk": {"capacity": 1073741824}, "ram": {"capacity": 1073741824}, "testing": true,
        });
        let api = json!({
            "cpu": {"count": 8}, "gpu": {"count": 2, "capacity": 49128.0, "type": "gpu"},
            "hard_disk": {"capacity": 107374182400.0}, "ram": {"capacity": 68719476736.0},
        });
        let one = json!({"gpu": {"count": 1, "capacity": 3072.0, "type": "rtx 4090"}, "cpu": {"count": 1}});
        for fields in [validator, api, one, json!({}), json!({"cpu": "x", "gpu": [], "ram": {"capacity": "much"}})] {
            assert_eq!(asked(fields.clone()), None, "{fields}");
        }
    }

    #[test]
    fn what_the_machine_has_not_is_named() {
        let table = [
            (json!({"cpu": {"count": 9}}), "9 cores"),
            (json!({"ram": {"capacity": 68719476737.0}}), "bytes of memory"),
            (json!({"hard_disk": {"capacity": 107374182401u64}}), "bytes of free disk"),
            (json!({"gpu": {"count": 3}}), "3 GPUs"),
            (json!({"gpu": {"capacity": 49129}}), "49129 MiB"),
            (json!({"gpu": {"type": "H100\n"}}), "\"H100\""),
        ];
        for (fields, what) in table {
            let told = asked(fields.clone()).unwrap_or_else(|| panic!("met: {fields}"));
            assert!(told.contains(what) && !told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn what_is_not_measured_refuses_nobody() {
        let fields = json!({"cpu": {"count": 999}, "ram": {"capacity": 1e15}, "hard_disk": {"capacity": 1e15},
            "gpu": {"capacity": 1e9, "type": "H100"}});
        assert_eq!(unmet(&serde_json::from_value(fields).unwrap(), &Specs::default()), None);
    }
}
