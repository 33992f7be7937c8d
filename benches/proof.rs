//! What the verifier costs and what the cpu prover does, on one core.
//!
//! ```text
//! taskset -c 1 cargo bench --bench proof
//! ```
//! The verifier is measured at k = 65,536 on tiles that are true and a tree that is consistent; leaves nobody asks for
//! are arbitrary, so that the set-up takes no GPU. The verifier of memory is measured at the size of a large card, one
//! opening in each of 66 scans, whose paths are arbitrary and end in their roots: no memory is filled. Medians of many runs; the best run in brackets.

use std::io::Write;
use std::sync::atomic::AtomicBool;

use compute_subnet::ids::{DeviceId, Hash32, Hotkey};
use compute_subnet::proof::gemm::{self, Kernel};
use compute_subnet::proof::keystream::{self, Matrix};
use compute_subnet::proof::memory::{self, keys::ScanNonce};
use compute_subnet::proof::merkle::{self, Tree};
use compute_subnet::proof::tile::Tile;
use compute_subnet::proof::{Challenge, Position, Root, Work, cpu, entry, sample_positions, verifier};
use tokio::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let kernels: Vec<Kernel> = [Some(Kernel::scalar()), Kernel::avx2()].into_iter().flatten().collect();

    let challenge = challenge(8192, 65_536)?;
    let work = challenge.work;
    let positions = sample_positions(&work, 66, &[1; 32]);
    let (root, openings) = synthetic(&challenge, &positions);
    writeln!(out, "verifier, n {}, k {}, path of {} (targets: 30 us, 2.2 ms)", work.n, work.k, work.depth())?;
    for &kernel in &kernels {
        let check = |q: usize| {
            let bytes = &openings[..q * work.opening_len()];
            let checked = verifier::check_openings_with(kernel, &challenge, &[root], &positions[..q], bytes);
            assert_eq!(checked.map(|c| c.samples as usize), Ok(q));
        };
        let (one, one_best) = seconds(400, || check(1));
        let (all, all_best) = seconds(60, || check(66));
        writeln!(
            out,
            "  {:<7} one sample {:6.1} us [{:.1}]   66 samples {:6.2} ms [{:.2}]",
            kernel.name(),
            one * 1e6,
            one_best * 1e6,
            all * 1e3,
            all_best * 1e3
        )?;
    }

    writeln!(out, "its parts")?;
    let keys = challenge.seed_0().keys();
    for &kernel in &kernels {
        let (one, _) = seconds(400, || _ = std::hint::black_box(entry::entry(kernel, &keys.entries, 1, 2, 65_536)));
        writeln!(out, "  one entry, {:<18} {:6.1} us", kernel.name(), one * 1e6)?;
    }
    let (mut a, mut b) = (vec![0u8; 65_536], vec![0u8; 65_536]);
    let (fill, _) = seconds(400, || keystream::fill(&keys.entries, 1, Matrix::A, &mut a));
    keystream::fill(&keys.entries, 1, Matrix::B, &mut b);
    writeln!(out, "  keystream of 64 KiB           {:6.1} us", fill * 1e6)?;
    for &kernel in &kernels {
        let (dot, _) = seconds(400, || _ = std::hint::black_box(kernel.dot(&a, &b)));
        writeln!(out, "  dot of 64 KiB, {:<14} {:6.1} us", kernel.name(), dot * 1e6)?;
    }
    let (hash, _) = seconds(400, || _ = std::hint::black_box(merkle::leaf(&keys.leaf, &openings[..4096])));
    writeln!(out, "  hash of a tile                {:6.1} us", hash * 1e6)?;

    writeln!(out, "cpu prover, one thread, all of commit (keystream, product, hashes)")?;
    let never = AtomicBool::new(false);
    for (n, k) in [(512, 4096), (1024, 4096)] {
        let challenge = self::challenge(n, k)?;
        for &kernel in &kernels {
            let (median, best) = seconds(5, || drop(cpu::commit_with(&challenge, 1, kernel, &never)));
            let rate = |s: f64| challenge.work.operations() as f64 / s / 1e9;
            let (median, best) = (rate(median), rate(best));
            writeln!(out, "  n {n:<5} k {k:<6} {:<7} {median:7.1} G operations/s [{best:.1}]", kernel.name())?;
        }
    }
    memory(&mut out, &kernels)
}

/// The memory proof: verifier, the parts of both sides, the cpu prover.
fn memory(out: &mut impl Write, kernels: &[Kernel]) -> Result<(), Box<dyn std::error::Error>> {
    let never = AtomicBool::new(false);
    let nonce_0 = ScanNonce([9; 32]);
    // 0.92 of a card of 141 GB.
    let challenge = memory_challenge(126_679_684, 256, 66)?;
    let size = challenge.size;
    let (roots, positions, openings) = synthetic_scans(&challenge, nonce_0);
    writeln!(
        out,
        "verifier of memory, {} GB, T 256, path of {} (target: 2.5 ms)",
        size.bytes() / 1_000_000_000,
        size.depth()
    )?;
    for &kernel in kernels {
        let check = |q: usize| {
            let bytes = &openings[..q * size.opening_len()];
            let positions = &positions[..q];
            let checked = memory::verifier::check_openings_with(kernel, &challenge, &nonce_0, &roots, positions, bytes);
            assert_eq!(checked.map(|c| c.samples as usize), Ok(q));
        };
        let (all, best) = seconds(60, || check(66));
        writeln!(out, "  {:<7} 66 samples {:6.2} ms [{:.2}]", kernel.name(), all * 1e3, best * 1e3)?;
    }
    writeln!(out, "its parts, one block")?;
    let key = memory::keys::fill_key(&challenge);
    let keys = nonce_0.keys();
    for &kernel in kernels {
        for iterations in [256, 1024] {
            let fill = || _ = std::hint::black_box(memory::block::fill(kernel, &key, 1, iterations));
            let (median, best) = seconds(400, fill);
            let name = kernel.name();
            writeln!(out, "  fill, T {iterations:<5} {name:<7} {:6.1} us [{:.1}]", median * 1e6, best * 1e6)?;
        }
        let block = memory::block::fill(kernel, &key, 1, 1);
        let digest = || {
            for _ in 0..1000 {
                std::hint::black_box(memory::block::digest(kernel, &keys.coefficients, std::hint::black_box(&block)));
            }
        };
        let (median, _) = seconds(60, digest);
        writeln!(out, "  digest, cached {:<7} {:6.1} ns", kernel.name(), median * 1e6)?;
    }
    writeln!(out, "cpu prover of memory, one thread, 256 MiB")?;
    for &kernel in kernels {
        let challenge = memory_challenge(256 << 10, 1, 8)?;
        let ready = memory::cpu::fill_with(&challenge, 1, u64::MAX, kernel, &never)?;
        let start = Instant::now();
        std::hint::black_box(ready.scan(nonce_0, &never)?);
        let elapsed = u64::try_from(start.elapsed().as_nanos())?;
        let rate = memory::figures::bandwidth(&challenge.size, elapsed) as f64 / 1e9;
        writeln!(out, "  8 scans, {:<7} {rate:6.2} GB/s", kernel.name())?;
    }
    Ok(())
}

fn memory_challenge(blocks: u64, iterations: u32, scans: u32) -> Result<memory::Challenge, memory::SizeError> {
    let size = memory::Size::new(blocks, iterations, scans)?;
    Ok(memory::Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId::cpu(0), size })
}

/// One position in each scan, with an opening of arbitrary digests and siblings, and the roots that they lead to.
fn synthetic_scans(challenge: &memory::Challenge, nonce_0: ScanNonce) -> (Vec<Root>, Vec<memory::Position>, Vec<u8>) {
    let size = &challenge.size;
    let key = memory::keys::fill_key(challenge);
    let (mut roots, mut positions, mut openings) = (Vec::new(), Vec::new(), Vec::new());
    let mut nonce = nonce_0;
    let drawn = memory::sample_positions(size, size.scans() as usize, &[1; 32]);
    for (scan, memory::Position { block, .. }) in (0..).zip(drawn) {
        let position = memory::Position { scan, block };
        let keys = nonce.keys();
        let mut opening = vec![0; size.opening_len()];
        blake3::Hasher::new().update(&nonce.0).finalize_xof().fill(&mut opening);
        let (others, path) = opening.split_at(memory::scan::OTHERS_BYTES);
        let words = memory::block::fill(Kernel::best(), &key, block, size.iterations());
        let own = memory::block::digest(Kernel::best(), &keys.coefficients, &words);
        let leaf = memory::scan::Group::with_others(&own, position.within_group(), others).leaf(&keys);
        let root = merkle::walk(&keys.node, leaf, position.leaf(), path);
        nonce = nonce.next(&root);
        roots.push(root);
        positions.push(position);
        openings.extend_from_slice(&opening);
    }
    (roots, positions, openings)
}

fn challenge(n: u32, k: u32) -> Result<Challenge, Box<dyn std::error::Error>> {
    let work = Work::new(n, k, 1)?;
    Ok(Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId::cpu(0), work })
}

/// A root and openings in which the tiles at the positions are true.
fn synthetic(challenge: &Challenge, positions: &[Position]) -> (Root, Vec<u8>) {
    let work = challenge.work;
    let k = work.k as usize;
    let keys = challenge.seed_0().keys();
    let (mut row, mut strip) = (vec![0; k], vec![0; gemm::strip_len(k)]);
    let (mut panel, mut scratch) = (vec![0; gemm::panel_len(k)], vec![0; gemm::scratch_len(k)]);
    let mut tile = Tile::zero();
    let mut leaves = vec![Hash32([0; 32]); work.tiles() as usize];
    let mut tiles = Vec::new();
    for position in positions {
        gemm::fill_strip(&keys.entries, position.row / 32, k, &mut row, &mut strip);
        gemm::fill_panel(&keys.entries, position.col / 32, k, &mut row, &mut panel);
        gemm::multiply(Kernel::best(), k, &strip, &panel, &mut scratch, &mut tile);
        let bytes = tile.to_bytes();
        leaves[position.tile_index(&work) as usize] = merkle::leaf(&keys.leaf, &bytes);
        tiles.push(bytes);
    }
    let tree = Tree::build(&keys.node, &leaves);
    let mut openings = Vec::new();
    for (position, bytes) in positions.iter().zip(tiles) {
        openings.extend_from_slice(&bytes);
        tree.path(position.tile_index(&work)).iter().for_each(|sibling| openings.extend_from_slice(&sibling.0));
    }
    (tree.root(), openings)
}

/// Median and best of `runs` runs, in seconds, after one to warm up.
fn seconds(runs: usize, mut job: impl FnMut()) -> (f64, f64) {
    job();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            job();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[runs / 2], times[0])
}
