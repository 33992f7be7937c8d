//! A machine in a few lines, for people.

use super::Specs;

const GIB: f64 = (1u64 << 30) as f64;

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

impl Specs {
    /// CPU, memory, disk, GPUs and container engine, one line each; what could not be measured says why.
    pub fn summary(&self) -> String {
        let unknown = |section: &str| {
            let reason = self.problems.get(section).map_or("not measured", String::as_str);
            format!("unknown: {reason}")
        };
        let cpu = match (&self.processor, &self.cpu) {
            (Some(p), Some(cpu)) => {
                format!("{}, {} cores ({} usable threads), {}", p.model, cpu.count, p.usable_cores, p.architecture)
            }
            _ => unknown("cpu"),
        };
        let ram = self.ram.as_ref().map_or_else(
            || unknown("ram"),
            |r| {
                let swap =
                    if r.swap_total == 0 { "no swap".into() } else { format!("{:.1} GiB swap", gib(r.swap_total)) };
                format!("{:.1} GiB, {:.1} GiB available, {swap}", gib(r.total), gib(r.available))
            },
        );
        let disk = self
            .hard_disk
            .as_ref()
            .map_or_else(|| unknown("hard_disk"), |d| format!("{:.1} GiB, {:.1} GiB free", gib(d.total), gib(d.free)));
        let gpus = if self.gpus.is_empty() {
            self.nvidia.status.clone()
        } else {
            let names: Vec<&str> = self.gpus.iter().map(|g| g.name.as_str()).collect();
            format!("{} × NVIDIA: {}", self.gpus.len(), names.join(", "))
        };
        format!("CPU     {cpu}\nRAM     {ram}\ndisk    {disk}\nGPU     {gpus}\nDocker  {}", self.docker)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HardDisk, Ram};
    use super::*;

    #[test]
    fn what_was_measured_is_shown_and_what_was_not_says_why() {
        let mut specs = Specs {
            ram: Some(Ram {
                total: 24 << 30,
                available: 20 << 30,
                used: 4 << 30,
                free: 1 << 30,
                swap_total: 0,
                swap_used: 0,
                swap_free: 0,
            }),
            hard_disk: Some(HardDisk { total: 100 << 30, free: 60 << 30, used: 40 << 30 }),
            ..Specs::default()
        };
        specs.problems.insert("cpu".into(), "no /proc".into());
        let text = specs.summary();
        assert!(text.contains("CPU     unknown: no /proc"), "{text}");
        assert!(text.contains("RAM     24.0 GiB, 20.0 GiB available, no swap"), "{text}");
        assert!(text.contains("disk    100.0 GiB, 60.0 GiB free"), "{text}");
    }
}
