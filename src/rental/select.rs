//! Who is asked for a machine, in which order, and why.
//!
//! A miner fits if enough of its devices were proved in the last judged epoch as what is asked for and are free, and if
//! its specs tell of the cores, memory and disk that are asked for. What is proved is marked so, and what the miner only
//! tells as well: nobody has proved a core or a byte of disk.
//!
//! Those who fit are asked in this order, which follows from the facts alone: least trouble lately, fewest proved devices
//! (large machines stay whole for large requests), fewest leases, highest incentive on the chain, hotkey.

use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::requirements::{Requirements, size};
use crate::ids::{DeviceId, Hotkey, Uid};

/// A proved device of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Which.
    pub device: DeviceId,
    /// The model it was proved as.
    pub model: String,
    /// Other names of that model, from the table.
    pub aliases: Vec<String>,
    /// Its memory in bytes, never more than the model has; `None` if nobody told.
    pub memory_bytes: Option<u64>,
    /// Whether a proof of its memory stands.
    pub memory_proved: bool,
    /// Whether a lease holds it, or a rental in progress wants it.
    pub held: bool,
}

/// A miner as a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its uid.
    pub uid: Uid,
    /// Its key.
    pub hotkey: Hotkey,
    /// Whether it announces an axon.
    pub reachable: bool,
    /// Its devices that were proved in the last judged epoch.
    pub devices: Vec<Device>,
    /// Cores, as its specs tell.
    pub cpus: Option<u32>,
    /// Memory in bytes that programs can have, as its specs tell.
    pub ram_bytes: Option<u64>,
    /// Free disk in bytes, as its specs tell.
    pub disk_bytes: Option<u64>,
    /// Leases that hold devices of it.
    pub leases: usize,
    /// Trouble lately, in thousandths of a point, see [`super::record`].
    pub trouble: u64,
    /// Its incentive on the chain, 0 to 65,535.
    pub incentive: u16,
}

/// Why a miner is not asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "objection")]
pub enum Objection {
    /// Another miner was asked for by name.
    OtherMiner,
    /// It announces no axon.
    NoAxon,
    /// None of its devices was proved in the last judged epoch.
    NothingProved,
    /// It has none, or too few, of the model.
    Model {
        /// The models that it has proved, each once.
        has: Vec<String>,
    },
    /// Too few of its devices have the memory.
    GpuMemory {
        /// The most that one of the fitting model has, in bytes.
        most: u64,
    },
    /// Enough devices fit, but leases hold them.
    Leased {
        /// Devices that fit and are free.
        free: usize,
        /// Devices that fit.
        fit: usize,
    },
    /// Too few devices fit, leased or not.
    TooFew {
        /// Devices that fit.
        fit: usize,
    },
    /// Too few cores.
    Cpus {
        /// What its specs tell; none if they do not.
        told: Option<u32>,
    },
    /// Too little memory.
    Ram {
        /// What its specs tell, in bytes; none if they do not.
        told: Option<u64>,
    },
    /// Too little free disk.
    Disk {
        /// What its specs tell, in bytes; none if they do not.
        told: Option<u64>,
    },
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |f: &mut fmt::Formatter<'_>, what: &str, told: Option<String>| match told {
            Some(told) => write!(f, "{what}: {told} (told)"),
            None => write!(f, "{what}: its specs do not tell"),
        };
        match self {
            Objection::OtherMiner => f.write_str("another miner is asked for"),
            Objection::NoAxon => f.write_str("announces no axon"),
            Objection::NothingProved => f.write_str("nothing proved in the last judged epoch"),
            Objection::Model { has } => write!(f, "has proved {}", has.join(", ")),
            Objection::GpuMemory { most } => write!(f, "devices of at most {}", size(*most)),
            Objection::Leased { free, fit } => write!(f, "{free} of {fit} fitting devices free"),
            Objection::TooFew { fit } => write!(f, "{fit} fitting devices"),
            Objection::Cpus { told: has } => told(f, "cores", has.map(|n| n.to_string())),
            Objection::Ram { told: has } => told(f, "memory", has.map(size)),
            Objection::Disk { told: has } => told(f, "disk", has.map(size)),
        }
    }
}

/// What became of one miner in a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its uid.
    pub uid: Uid,
    /// Its key.
    pub hotkey: Hotkey,
    /// The devices that would be rented; empty if it does not fit.
    pub devices: Vec<DeviceId>,
    /// Why it does not fit, the first reason of each kind; empty if it does.
    pub objections: Vec<Objection>,
    /// What its place rests on, for people.
    pub grounds: Vec<String>,
}

impl Candidate {
    /// Whether it fits.
    pub fn fits(&self) -> bool {
        self.objections.is_empty()
    }
}

/// Every machine as a candidate: first those that fit, in the order in which they are asked, then the others by uid.
/// `only`: the miner that was asked for by name, if one was.
pub fn candidates(machines: &[Machine], wanted: &Requirements, only: Option<&Hotkey>) -> Vec<Candidate> {
    let mut judged: Vec<(&Machine, Candidate)> = machines.iter().map(|m| (m, judge(m, wanted, only))).collect();
    judged.sort_by_key(|(m, candidate)| {
        let fits = candidate.fits();
        let place = (m.trouble, m.devices.len(), m.leases, Reverse(m.incentive));
        (!fits, fits.then_some(place), (!fits).then_some(m.uid), m.hotkey)
    });
    judged.into_iter().map(|(_, candidate)| candidate).collect()
}

fn judge(machine: &Machine, wanted: &Requirements, only: Option<&Hotkey>) -> Candidate {
    let mut objections = Vec::new();
    if only.is_some_and(|only| *only != machine.hotkey) {
        objections.push(Objection::OtherMiner);
    }
    if !machine.reachable {
        objections.push(Objection::NoAxon);
    }
    let of_model: Vec<&Device> = machine.devices.iter().filter(|d| d.is(wanted.model.as_deref())).collect();
    let large: Vec<&Device> = of_model.iter().copied().filter(|d| d.has(wanted.gpu_memory_bytes)).collect();
    let free: Vec<&Device> = large.iter().copied().filter(|d| !d.held).collect();
    let asked = wanted.devices;
    if machine.devices.is_empty() {
        objections.push(Objection::NothingProved);
    } else if of_model.is_empty() {
        let mut has: Vec<String> = machine.devices.iter().map(|d| d.model.clone()).collect();
        has.sort();
        has.dedup();
        objections.push(Objection::Model { has });
    } else if of_model.len() >= asked && large.len() < asked {
        let most = of_model.iter().filter_map(|d| d.memory_bytes).max().unwrap_or(0);
        objections.push(Objection::GpuMemory { most });
    } else if large.len() < asked {
        objections.push(Objection::TooFew { fit: large.len() });
    } else if free.len() < asked {
        objections.push(Objection::Leased { free: free.len(), fit: large.len() });
    }
    if wanted.cpus > 0 && machine.cpus.is_none_or(|has| has < wanted.cpus) {
        objections.push(Objection::Cpus { told: machine.cpus });
    }
    if wanted.ram_bytes > 0 && machine.ram_bytes.is_none_or(|has| has < wanted.ram_bytes) {
        objections.push(Objection::Ram { told: machine.ram_bytes });
    }
    if wanted.disk_bytes > 0 && machine.disk_bytes.is_none_or(|has| has < wanted.disk_bytes) {
        objections.push(Objection::Disk { told: machine.disk_bytes });
    }
    let rented: Vec<&Device> = match objections.is_empty() {
        true => free.iter().copied().take(asked).collect(),
        false => Vec::new(),
    };
    Candidate {
        uid: machine.uid,
        hotkey: machine.hotkey,
        devices: rented.iter().map(|d| d.device).collect(),
        grounds: grounds(machine, wanted, &rented, free.len()),
        objections,
    }
}

impl Device {
    fn is(&self, model: Option<&str>) -> bool {
        let names = || std::iter::once(&self.model).chain(&self.aliases);
        model.is_none_or(|wanted| names().any(|name| name.eq_ignore_ascii_case(wanted)))
    }
    fn has(&self, bytes: u64) -> bool {
        bytes == 0 || self.memory_bytes.is_some_and(|has| has >= bytes)
    }
}

/// What there is to say of a machine that fits, in the order in which it counts, then what was asked for besides.
fn grounds(machine: &Machine, wanted: &Requirements, rented: &[&Device], free: usize) -> Vec<String> {
    let Some(first) = rented.first() else { return Vec::new() };
    let mut grounds = vec![
        format!("trouble {}.{:03}", machine.trouble / 1_000, machine.trouble % 1_000),
        format!(
            "{} × {} (proved), {free} of {} proved devices free and fitting",
            rented.len(),
            first.model,
            machine.devices.len()
        ),
        format!("leases {}", machine.leases),
        format!("incentive {}", machine.incentive),
    ];
    let least = rented.iter().min_by_key(|d| d.memory_bytes).filter(|_| wanted.gpu_memory_bytes > 0);
    if let Some((bytes, proved)) = least.and_then(|d| Some((d.memory_bytes?, d.memory_proved))) {
        grounds.push(format!("device memory {} ({})", size(bytes), if proved { "proved" } else { "told" }));
    }
    if let Some(cpus) = machine.cpus.filter(|_| wanted.cpus > 0) {
        grounds.push(format!("cores {cpus} (told)"));
    }
    if let Some(bytes) = machine.ram_bytes.filter(|_| wanted.ram_bytes > 0) {
        grounds.push(format!("memory {} (told)", size(bytes)));
    }
    if let Some(bytes) = machine.disk_bytes.filter(|_| wanted.disk_bytes > 0) {
        grounds.push(format!("disk {} (told)", size(bytes)));
    }
    grounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn device(n: u8, model: &str) -> Device {
        let (device, model) = (DeviceId([n; 16]), model.to_owned());
        Device { device, model, aliases: vec![], memory_bytes: Some(80 * GIB), memory_proved: false, held: false }
    }

    /// A machine with so many devices of a model.
    fn machine(uid: u16, devices: u8, model: &str) -> Machine {
        Machine {
            uid: Uid(uid),
            hotkey: Hotkey([uid as u8; 32]),
            reachable: true,
            devices: (0..devices).map(|n| device(n + 1, model)).collect(),
            cpus: Some(16),
            ram_bytes: Some(64 * GIB),
            disk_bytes: Some(500 * GIB),
            leases: 0,
            trouble: 0,
            incentive: 0,
        }
    }

    fn order(machines: &[Machine], wanted: &Requirements) -> Vec<u16> {
        candidates(machines, wanted, None).iter().filter(|c| c.fits()).map(|c| c.uid.0).collect()
    }

    fn objections(machine: Machine, wanted: &Requirements) -> String {
        let told: Vec<String> =
            candidates(&[machine], wanted, None)[0].objections.iter().map(ToString::to_string).collect();
        told.join("; ")
    }

    #[test]
    fn those_who_fit_are_asked_in_an_order_that_follows_from_the_facts_alone() {
        let wanted = Requirements::any(1);
        let small = machine(3, 1, "A");
        let large = machine(1, 8, "A");
        assert_eq!(order(&[large.clone(), small.clone()], &wanted), [3, 1], "the large one stays whole");
        let troubled = Machine { trouble: 1, ..small.clone() };
        assert_eq!(order(&[troubled, large.clone()], &wanted), [1, 3], "trouble counts before that");
        let busy = Machine { leases: 1, ..machine(4, 8, "A") };
        let dear = Machine { incentive: 9, ..machine(5, 8, "A") };
        assert_eq!(order(&[busy, large.clone(), dear], &wanted), [5, 1, 4]);
        assert_eq!(order(&[machine(7, 1, "A"), machine(6, 1, "A")], &wanted), [6, 7], "nothing else: the key");
    }

    #[test]
    fn who_does_not_fit_is_told_why() {
        let wanted = Requirements { model: Some("NVIDIA H200".into()), ..Requirements::any(2) };
        let h200 = |n| machine(1, n, "NVIDIA H200");
        assert_eq!(objections(h200(2), &wanted), "");
        assert_eq!(objections(h200(1), &wanted), "1 fitting devices");
        assert_eq!(objections(h200(0), &wanted), "nothing proved in the last judged epoch");
        assert_eq!(objections(machine(1, 8, "NVIDIA L40"), &wanted), "has proved NVIDIA L40");
        let mut leased = h200(3);
        leased.devices[0].held = true;
        leased.devices[2].held = true;
        assert_eq!(objections(leased, &wanted), "1 of 3 fitting devices free");
        let large = Requirements { gpu_memory_bytes: 141 * GIB, ..wanted.clone() };
        assert_eq!(objections(h200(2), &large), "devices of at most 80 GiB");
        assert_eq!(objections(Machine { reachable: false, ..h200(2) }, &wanted), "announces no axon");
        let host = Requirements { cpus: 32, ram_bytes: 65 * GIB, disk_bytes: 501 * GIB, ..wanted.clone() };
        assert_eq!(objections(h200(2), &host), "cores: 16 (told); memory: 64 GiB (told); disk: 500 GiB (told)");
        let silent = Machine { cpus: None, ram_bytes: None, disk_bytes: None, ..h200(2) };
        assert_eq!(objections(silent.clone(), &wanted), "", "what is not asked for need not be told");
        let told = objections(silent, &host);
        assert_eq!(told.matches("its specs do not tell").count(), 3, "{told}");
        let other = &candidates(&[h200(2)], &wanted, Some(&Hotkey([9; 32])))[0];
        assert_eq!(other.objections, [Objection::OtherMiner]);
        assert!(candidates(&[h200(2)], &wanted, Some(&Hotkey([1; 32])))[0].fits());
    }

    #[test]
    fn a_model_goes_by_its_names_in_any_letter_case_and_by_no_part_of_them() {
        let mut machine = machine(1, 1, "NVIDIA L40S");
        machine.devices[0].aliases = vec!["L40S".to_owned()];
        let fits = |name: &str| {
            let wanted = Requirements { model: Some(name.to_owned()), ..Requirements::any(1) };
            candidates(std::slice::from_ref(&machine), &wanted, None)[0].fits()
        };
        assert!(fits("NVIDIA L40S") && fits("nvidia l40s") && fits("l40s"));
        assert!(!fits("NVIDIA L40") && !fits("L40") && !fits("NVIDIA"));
    }

    #[test]
    fn a_candidate_says_what_is_proved_and_what_is_only_told() {
        let mut machine = Machine { trouble: 1_500, leases: 1, incentive: 7, ..machine(1, 2, "NVIDIA H100 PCIe") };
        machine.devices[0].memory_proved = true;
        let wanted = Requirements {
            gpu_memory_bytes: 79 * GIB,
            cpus: 4,
            ram_bytes: GIB,
            disk_bytes: GIB,
            ..Requirements::any(1)
        };
        let chosen = &candidates(&[machine], &wanted, None)[0];
        assert_eq!(chosen.devices, [DeviceId([1; 16])]);
        assert_eq!(
            chosen.grounds,
            [
                "trouble 1.500",
                "1 × NVIDIA H100 PCIe (proved), 2 of 2 proved devices free and fitting",
                "leases 1",
                "incentive 7",
                "device memory 80 GiB (proved)",
                "cores 16 (told)",
                "memory 64 GiB (told)",
                "disk 500 GiB (told)",
            ]
        );
    }

    proptest! {
        #[test]
        fn whoever_is_chosen_has_what_is_asked_for_and_nothing_that_is_held(
            machines in prop::collection::vec((0_u8..4, 0_u8..9, any::<u8>(), 0_u64..3, 0_u16..3), 0..8),
            asked in 1_usize..5, shuffle in any::<u64>(),
        ) {
            let made: Vec<Machine> = machines.iter().enumerate().map(|(uid, (model, devices, held, trouble, incentive))| {
                let mut machine = machine(uid as u16, *devices, &format!("M{model}"));
                for (n, device) in machine.devices.iter_mut().enumerate() {
                    device.held = held >> (n % 8) & 1 == 1;
                }
                Machine { trouble: *trouble, incentive: *incentive, ..machine }
            }).collect();
            let wanted = Requirements { model: Some("m1".into()), ..Requirements::any(asked) };
            let chosen = candidates(&made, &wanted, None);
            prop_assert_eq!(chosen.len(), made.len());
            for candidate in &chosen {
                let machine = &made[usize::from(candidate.uid.0)];
                prop_assert_eq!(candidate.devices.len(), if candidate.fits() { asked } else { 0 });
                for device in &candidate.devices {
                    let device = machine.devices.iter().find(|d| d.device == *device).unwrap();
                    prop_assert!(!device.held && device.model == "M1");
                }
            }
            // The order of the machines does not matter.
            let mut turned = made.clone();
            if !turned.is_empty() {
                let by = (shuffle % turned.len() as u64) as usize;
                turned.rotate_left(by);
            }
            prop_assert_eq!(candidates(&turned, &wanted, None), chosen);
        }
    }
}
