//! How much of the machine a lease gets. Pure.

/// What of the machine may be rented at all, and how it is divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharePolicy {
    /// The part of the processor time that all leases together may use, 0 to 1.
    pub cpu: f64,
    /// The part of the memory that all leases together may use, 0 to 1.
    pub memory: f64,
    /// The part of a lease's memory that may be shared memory (`/dev/shm`), 0 to 1.
    pub shm: f64,
    /// Processes and threads of one lease.
    pub pids: u32,
}

/// The machine, as the engine tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory: u64,
}

/// What one lease may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Processor time, 10⁻⁹ of one processor.
    pub nano_cpus: u64,
    /// Memory, bytes. Swap is not added to it.
    pub memory: u64,
    /// Shared memory, bytes; counts as memory too.
    pub shm: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// Below this much memory a container is of no use, bytes.
pub const LEAST_MEMORY: u64 = 64 << 20;
/// Below this much processor time a container is of no use, 10⁻⁹ of one processor.
pub const LEAST_NANO_CPUS: u64 = 50_000_000;

/// The share of a lease with `leased` of the `offered` devices: that part of what may be rented. Leases with all devices
/// together never get more than the policy's part of the machine.
///
/// # Errors
/// What is too small, and what to do.
pub fn share(policy: &SharePolicy, machine: Machine, leased: usize, offered: usize) -> Result<Share, String> {
    let part = leased.max(1) as f64 / offered.max(leased).max(1) as f64;
    // Rounded down: shares that add up to more than there is would be a promise nobody can keep.
    let nano_cpus = (f64::from(machine.cpus) * 1e9 * policy.cpu * part) as u64;
    let memory = (machine.memory as f64 * policy.memory * part) as u64 / 4096 * 4096;
    if memory < LEAST_MEMORY {
        return Err(format!(
            "a lease would get {} MiB of memory, it needs {}; raise docker.memory_share or offer fewer devices",
            memory >> 20,
            LEAST_MEMORY >> 20
        ));
    }
    if nano_cpus < LEAST_NANO_CPUS {
        return Err(format!(
            "a lease would get {nano_cpus} · 10⁻⁹ of a processor, it needs {LEAST_NANO_CPUS}; raise docker.cpu_share"
        ));
    }
    Ok(Share { nano_cpus, memory, shm: (memory as f64 * policy.shm) as u64, pids: policy.pids })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: SharePolicy = SharePolicy { cpu: 0.9, memory: 0.9, shm: 0.5, pids: 4096 };
    const BIG: Machine = Machine { cpus: 64, memory: 512 << 30 };

    #[test]
    fn a_lease_of_two_of_eight_devices_gets_a_quarter_of_what_may_be_rented() {
        let got = share(&POLICY, BIG, 2, 8).unwrap();
        assert_eq!(got.nano_cpus, 14_400_000_000);
        assert_eq!(got.memory, ((512u64 << 30) as f64 * 0.9 / 4.0) as u64 / 4096 * 4096);
        assert_eq!((got.shm, got.pids), (got.memory / 2, 4096));
    }

    #[test]
    fn the_leases_of_all_devices_together_stay_below_the_policys_part() {
        for offered in 1..=64usize {
            let one = share(&POLICY, BIG, 1, offered).unwrap();
            assert!(one.memory * offered as u64 <= ((512u64 << 30) as f64 * 0.9) as u64, "{offered}");
            assert!(one.nano_cpus * offered as u64 <= 57_600_000_000, "{offered}");
        }
    }

    #[test]
    fn what_is_offered_is_never_less_than_what_is_leased() {
        assert_eq!(share(&POLICY, BIG, 8, 0), share(&POLICY, BIG, 8, 8));
        assert_eq!(share(&POLICY, BIG, 0, 0), share(&POLICY, BIG, 1, 1));
    }

    #[test]
    fn a_machine_too_small_to_be_divided_is_refused_with_what_to_do() {
        let small = Machine { cpus: 2, memory: 1 << 30 };
        let said = share(&POLICY, small, 1, 64).unwrap_err();
        assert!(said.contains("14 MiB") && said.contains("docker.memory_share"), "{said}");
        let slow = Machine { cpus: 1, memory: 64 << 30 };
        assert!(share(&POLICY, slow, 1, 64).unwrap_err().contains("docker.cpu_share"));
    }
}
