//! What this machine is: CPU, memory, disks, network, container engine and NVIDIA GPUs, as one [`Specs`] value.
//!
//! [`collect`] is what an actor calls; it asks the container engine ([`docker_presence`]) and runs the blocking
//! [`measure`] on a blocking thread, both under one deadline. GPUs are behind [`GpuProbe`] so that everything here runs
//! without a driver; [`NvmlProbe`] is the real one.
//!
//! Invariants:
//! - Nothing here panics or changes the machine. A section that cannot be measured is absent and its reason is in
//!   [`Specs::problems`]; the other sections are unaffected.
//! - The JSON of [`Specs`] has the original subnet's keys (`cpu`, `gpu`, `hard_disk`, `ram`, `has_docker`) with the
//!   original's units, an absent section being `{}` as there; everything else is under keys of our own.
//! - Specs are claims. Only proofs decide what a device is worth; specs of a peer are read with
//!   [`Specs::from_peer`], which bounds them.

mod collect;
mod docker;
mod gpu;
mod machine;
mod nvml;
mod peer;
mod section;
mod specs;
mod summary;

pub use collect::{CollectError, Probe, collect, measure};
pub use docker::{DockerPresence, docker_presence};
pub use gpu::{Gpu, GpuProbe, GpuReport, NoDriver, SimulatedGpus};
pub use nvml::NvmlProbe;
pub use peer::{MAX_SPECS_BYTES, SpecsError};
pub use specs::{
    Cpu, Disk, GpuDetail, GpuSummary, HardDisk, Network, Nvidia, OfferedDevice, Os, Processor, Ram, Specs, devices,
};
