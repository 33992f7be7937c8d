//! The rounds of a challenge on a device.

use std::sync::atomic::{AtomicBool, Ordering};

use super::CudaError;
use super::device::{Device, LANES, Product, at, hashes, put, settle};
use super::kernels::Launch;
use crate::ids::Hash32;
use crate::proof::cpu::{CpuCommitment, CpuError};
use crate::proof::keystream::Matrix;
use crate::proof::seeds::RoundKeys;
use crate::proof::work::{Challenge, Root, Work};
use crate::proof::workers::filled;

/// Most rows of a strip: enough that a product fills the largest device.
const MOST_ROWS: u32 = 2048;
/// Device memory that is left alone: for kernels, their stacks, and cublasLt's workspaces.
const RESERVE: u64 = 256 << 20;

/// Bytes of the parts of a round's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Rows of a strip.
    rows: u32,
    /// `Bᵀ`.
    b: u64,
    /// The strip of `A` of one lane, and of the product.
    strip: (u64, u64),
    /// The hashes of the tiles, and two levels of the tree above them.
    hashes: [u64; 3],
}

impl Plan {
    fn with_rows(work: &Work, rows: u32) -> Plan {
        let (n, k, tiles) = (u64::from(work.n), u64::from(work.k), work.tiles());
        let hashes = [tiles, tiles / 2, tiles / 4].map(|count| 32 * count.max(1));
        Plan { rows, b: n * k, strip: (u64::from(rows) * k, 4 * u64::from(rows) * n), hashes }
    }

    fn bytes(&self) -> u64 {
        self.b + LANES as u64 * (self.strip.0 + self.strip.1) + self.hashes.iter().sum::<u64>()
    }

    /// The plan with the longest strips that fit.
    fn fitting(work: &Work, free: u64) -> Result<Plan, CudaError> {
        let longest = work.n.min(MOST_ROWS).ilog2();
        let mut plans = (5..=longest).rev().map(|log2| Plan::with_rows(work, 1 << log2));
        let fits = |plan: &Plan| plan.bytes() + RESERVE <= free;
        let needed = Plan::with_rows(work, 32).bytes() + RESERVE;
        plans.find(fits).ok_or(CudaError::OutOfMemory { needed, free })
    }
}

/// What is allocated on the device.
struct Memories<M> {
    b: M,
    strips: [(M, M); LANES],
    hashes: [M; 3],
}

/// Computes all rounds of the challenge.
pub(super) fn commit<D: Device>(
    device: &mut D,
    challenge: &Challenge,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<CpuCommitment, CudaError> {
    let work = challenge.work;
    work.check()?;
    let plan = Plan::fitting(&work, device.free_memory()?)?;
    let mut strip = || Ok::<_, CudaError>((device.allocate(plan.strip.0)?, device.allocate(plan.strip.1)?));
    let strips = [strip()?, strip()?];
    let [leaves, above, higher] = plan.hashes;
    let hashes = [device.allocate(leaves)?, device.allocate(above)?, device.allocate(higher)?];
    let memories = Memories { b: device.allocate(plan.b)?, strips, hashes };

    let mut rounds = Vec::with_capacity(work.rounds as usize);
    let mut seed = challenge.seed_0();
    for _ in 0..work.rounds {
        let keys = seed.keys();
        let mut leaves = filled(work.tiles() as usize, Hash32([0; 32])).map_err(CpuError::from)?;
        let done = round(device, &work, &plan, &memories, &keys, &mut leaves, cancel);
        if done.is_err() {
            settle(device);
        }
        let root = done?;
        seed = seed.next(&root);
        rounds.push((keys, leaves, root));
    }
    Ok(CpuCommitment::of_rounds(work, rounds, threads))
}

/// One round: its root, and all `leaves`.
fn round<D: Device>(
    device: &mut D,
    work: &Work,
    plan: &Plan,
    memories: &Memories<D::Memory>,
    keys: &RoundKeys,
    leaves: &mut [Hash32],
    cancel: &AtomicBool,
) -> Result<Root, CudaError> {
    let Work { n, k, .. } = *work;
    let rows = plan.rows;
    device.launch(0, &Launch::fill_rows(&keys.entries, 0, Matrix::B as u32, n, k, &memories.b))?;
    device.wait(0, &mut |_| {})?;

    // The leaves of one strip, and, for each lane, those that are on their way.
    let mut parts = leaves.chunks_mut((rows / 32 * work.side()) as usize);
    let mut coming: [Option<&mut [Hash32]>; LANES] = [const { None }; LANES];
    for strip in 0..n / rows {
        let lane = strip as usize % LANES;
        receive(device, lane, coming[lane].take())?;
        if cancel.load(Ordering::Relaxed) {
            return Err(CudaError::Cancelled);
        }
        let (a, c) = &memories.strips[lane];
        let hashes = &memories.hashes[0];
        let part = parts.next().unwrap_or_default();
        let bytes = size_of_val(part);
        let offset = u64::from(strip) * bytes as u64;
        device.launch(lane, &Launch::fill_rows(&keys.entries, strip * rows, Matrix::A as u32, rows, k, a))?;
        device.multiply(lane, &Product { a, b: &memories.b, c, rows, n, k })?;
        device.launch(lane, &Launch::hash_tiles(&keys.leaf, c, rows, n, hashes, offset))?;
        device.fetch(lane, hashes, offset, bytes)?;
        coming[lane] = Some(part);
    }
    for (lane, part) in coming.into_iter().enumerate() {
        receive(device, lane, part)?;
    }
    root(device, work, memories, &keys.node)
}

/// Waits for a lane, and puts the hashes that it fetched into place.
fn receive<D: Device>(device: &mut D, lane: usize, part: Option<&mut [Hash32]>) -> Result<(), CudaError> {
    let Some(part) = part else { return Ok(()) };
    device.wait(lane, &mut |bytes| put(bytes, part))
}

/// The root of the tree above the leaves, which are all on the device.
fn root<D: Device>(
    device: &mut D,
    work: &Work,
    memories: &Memories<D::Memory>,
    node_key: &[u8; 32],
) -> Result<Root, CudaError> {
    let [leaves, above, higher] = &memories.hashes;
    let mut below = leaves;
    for level in 1..=work.depth() {
        let into = if level % 2 == 1 { above } else { higher };
        let count = (work.tiles() >> level) as u32; // at most 2²³
        device.launch(0, &Launch::hash_nodes(node_key, at(below, 0), count, at(into, 0)))?;
        below = into;
    }
    Ok(hashes(device, below, 0, 1)?[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_are_as_long_as_memory_allows() {
        let work = Work::new(65_536, 65_536, 1).unwrap();
        let plan = Plan::fitting(&work, 16 << 30).unwrap();
        assert_eq!(plan.rows, 2048);
        assert_eq!(plan.b, 1 << 32);
        assert_eq!(plan.strip, (1 << 27, 1 << 29));
        assert_eq!(plan.hashes, [1 << 27, 1 << 26, 1 << 25]);
        let exact = plan.bytes() + RESERVE;
        assert_eq!(Plan::fitting(&work, exact).unwrap().rows, 2048);
        assert_eq!(Plan::fitting(&work, exact - 1).unwrap().rows, 1024);
        let least = Plan::with_rows(&work, 32).bytes() + RESERVE;
        assert_eq!(Plan::fitting(&work, least).unwrap().rows, 32);
        let refused = Plan::fitting(&work, least - 1).unwrap_err();
        assert_eq!(refused, CudaError::OutOfMemory { needed: least, free: least - 1 });
    }

    #[test]
    fn small_work_is_one_strip() {
        let plan = Plan::fitting(&Work::new(32, 64, 1).unwrap(), 1 << 30).unwrap();
        assert_eq!((plan.rows, plan.hashes), (32, [32; 3]));
    }
}
