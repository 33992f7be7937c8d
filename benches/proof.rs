//! What the verifier costs and what the cpu prover does, on one core.
//!
//! ```text
//! taskset -c 1 cargo bench --bench proof
//! ```
//! The verifier is measured at k = 65,536 on tiles that are true and a tree that is consistent; leaves nobody asks for
//! are arbitrary, so that the set-up takes no GPU. Medians of many runs; the best run in brackets.

use std::io::Write;
use std::sync::atomic::AtomicBool;

use compute_subnet::ids::{DeviceId, Hash32, Hotkey};
use compute_subnet::proof::gemm::{self, Kernel};
use compute_subnet::proof::keystream::{self, Matrix};
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
    Ok(())
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
