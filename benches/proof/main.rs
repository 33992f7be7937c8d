//! What the verifiers cost and what the cpu prover does, beside their goals.
//!
//! ```text
//! cargo bench --bench proof
//! ```
//! Everything is measured on one thread, but for the many proofs, which take two cores. The machine should have nothing else
//! to do. Medians of many runs; the best run in brackets, which is what the goals are held against.
//!
//! The verifier is measured at n = k = 65,536 on tiles that are true and trees that are consistent; hashes beside the paths are
//! arbitrary, so that no product is computed. The verifier of memory is measured at the size of a large card, one opening in each
//! of 66 scans, whose paths are arbitrary and end in their roots: no memory is filled.

mod many;
mod memory;
mod synthetic;

use std::io::Write;
use std::sync::atomic::AtomicBool;

use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::gemm::Kernel;
use compute_subnet::proof::keystream::{self, Matrix};
use compute_subnet::proof::{Challenge, Work, cpu, entry, merkle, sample_positions, verifier};
use tokio::time::Instant;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Positions that are opened of each device.
const SAMPLES: usize = 66;

/// A goal and what was reached at best.
struct Line {
    what: String,
    unit: &'static str,
    goal: Goal,
    reached: f64,
}

enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Line {
    fn text(&self) -> String {
        let (sign, goal, held) = match self.goal {
            Goal::AtMost(goal) => ("at most", goal, self.reached <= goal),
            Goal::AtLeast(goal) => ("at least", goal, self.reached >= goal),
        };
        let held = if held { "held" } else { "MISSED" };
        format!("{:<52} {sign:<8} {goal:6.1} {:<7} {:7.2}  {held}", self.what, self.unit, self.reached)
    }
}

fn main() -> Result {
    let mut out = std::io::stdout().lock();
    let mut lines = vec![samples(&mut out)?, memory::verifier(&mut out)?, many::run(&mut out)?];
    lines.extend(product(&mut out)?);
    memory::prover(&mut out)?;
    writeln!(out, "\n{:<52} {:<23} reached", "the goals, each on one core or as it says", "goal")?;
    for line in lines {
        writeln!(out, "{}", line.text())?;
    }
    Ok(())
}

/// One proof, sample by sample, and what a sample consists of.
fn samples(out: &mut impl Write) -> Result<Line> {
    let challenge = challenge(1, Work::new(65_536, 65_536, 1)?);
    let work = challenge.work;
    let keys = challenge.seed_0().keys();
    let positions = sample_positions(&work, SAMPLES, &[1; 32]);
    let proof = synthetic::proof(&challenge, &positions, |position| {
        Ok(cpu::tile(&keys, &work, position.tile_index(&work))?.to_bytes())
    })?;
    writeln!(out, "verifier, n {}, k {}, path of {}", work.n, work.k, work.depth())?;
    let mut best = f64::INFINITY;
    for kernel in Kernel::all() {
        let check = |q: usize| {
            let bytes = &proof.openings[..q * work.opening_len()];
            let checked = verifier::check_openings_with(kernel, &challenge, &[proof.root], &positions[..q], bytes);
            assert_eq!(checked.map(|c| c.samples as usize), Ok(q));
        };
        let (one, one_best) = seconds(400, || check(1));
        let (all, all_best) = seconds(60, || check(SAMPLES));
        best = best.min(all_best);
        writeln!(
            out,
            "  {:<12} one sample {:6.1} us [{:.1}]   {SAMPLES} samples {:6.2} ms [{:.2}]",
            kernel.name(),
            one * 1e6,
            one_best * 1e6,
            all * 1e3,
            all_best * 1e3
        )?;
    }

    writeln!(out, "its parts")?;
    for kernel in Kernel::all() {
        let (one, _) = seconds(400, || _ = std::hint::black_box(entry::entry(kernel, &keys.entries, 1, 2, 65_536)));
        writeln!(out, "  one entry, {:<18} {:6.1} us", kernel.name(), one * 1e6)?;
    }
    let (mut a, mut b) = (vec![0u8; 65_536], vec![0u8; 65_536]);
    let (fill, _) = seconds(400, || keystream::fill(&keys.entries, 1, Matrix::A, &mut a));
    keystream::fill(&keys.entries, 1, Matrix::B, &mut b);
    writeln!(out, "  keystream of 64 KiB           {:6.1} us", fill * 1e6)?;
    for kernel in Kernel::all() {
        let (dot, _) = seconds(400, || _ = std::hint::black_box(kernel.dot(&a, &b)));
        writeln!(out, "  dot of 64 KiB, {:<14} {:6.1} us", kernel.name(), dot * 1e6)?;
    }
    let (hash, _) = seconds(400, || _ = std::hint::black_box(merkle::leaf(&keys.leaf, &proof.openings[..4096])));
    writeln!(out, "  hash of a tile                {:6.1} us", hash * 1e6)?;
    let what = format!("{SAMPLES} samples, k 65,536");
    Ok(Line { what, unit: "ms", goal: Goal::AtMost(2.2), reached: best * 1e3 })
}

/// The cpu prover's rate, keystream and hashes included.
fn product(out: &mut impl Write) -> Result<Vec<Line>> {
    writeln!(out, "cpu prover, one thread, all of commit (keystream, product, hashes)")?;
    let never = AtomicBool::new(false);
    let mut lines = Vec::new();
    for kernel in Kernel::all() {
        let mut reached: f64 = 0.0;
        for (n, k) in [(512, 4096), (1024, 4096), (1024, 65_536)] {
            if k > 4096 && kernel == Kernel::scalar() {
                continue; // a minute
            }
            let challenge = challenge(1, Work::new(n, k, 1)?);
            let (median, best) = seconds(7, || drop(cpu::commit_with(&challenge, 1, kernel, &never)));
            let rate = |s: f64| challenge.work.operations() as f64 / s / 1e9;
            let (median, best) = (rate(median), rate(best));
            writeln!(out, "  n {n:<5} k {k:<6} {:<12} {median:7.1} G operations/s [{best:.1}]", kernel.name())?;
            reached = reached.max(best);
        }
        let goal = match kernel.name() {
            "avx2" => 120.0,
            "avx512-vnni" => 250.0,
            _ => continue,
        };
        let what = format!("cpu prover, {}", kernel.name());
        lines.push(Line { what, unit: "G op/s", goal: Goal::AtLeast(goal), reached });
    }
    Ok(lines)
}

/// A challenge whose nonce, and so whose seed, is that of this number.
fn challenge(number: u64, work: Work) -> Challenge {
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Challenge { nonce, epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId::cpu(0), work }
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
