//! The memory proof: verifier, the parts of both sides, the cpu prover.

use std::io::Write;
use std::sync::atomic::AtomicBool;

use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::gemm::Kernel;
use compute_subnet::proof::memory::{self, keys::ScanNonce};
use compute_subnet::proof::{Root, merkle};
use tokio::time::Instant;

use super::{Goal, Line, Result, SAMPLES, seconds};

/// 66 openings, and what one consists of.
pub(crate) fn verifier(out: &mut impl Write) -> Result<Line> {
    let nonce_0 = ScanNonce([9; 32]);
    // 0.92 of a card of 141 GB.
    let challenge = memory_challenge(126_679_684, 256, SAMPLES as u32)?;
    let size = challenge.size;
    let (roots, positions, openings) = synthetic_scans(&challenge, nonce_0);
    writeln!(out, "verifier of memory, {} GB, T 256, path of {}", size.bytes() / 1_000_000_000, size.depth())?;
    let mut best = f64::INFINITY;
    for kernel in Kernel::all() {
        let check = |q: usize| {
            let bytes = &openings[..q * size.opening_len()];
            let positions = &positions[..q];
            let checked = memory::verifier::check_openings_with(kernel, &challenge, &nonce_0, &roots, positions, bytes);
            assert_eq!(checked.map(|c| c.samples as usize), Ok(q));
        };
        let (all, least) = seconds(60, || check(SAMPLES));
        best = best.min(least);
        writeln!(out, "  {:<12} {SAMPLES} samples {:6.2} ms [{:.2}]", kernel.name(), all * 1e3, least * 1e3)?;
    }
    writeln!(out, "its parts, one block")?;
    let key = memory::keys::fill_key(&challenge);
    let keys = nonce_0.keys();
    for kernel in Kernel::all() {
        for iterations in [256, 1024] {
            let fill = || _ = std::hint::black_box(memory::block::fill(kernel, &key, 1, iterations));
            let (median, best) = seconds(400, fill);
            let name = kernel.name();
            writeln!(out, "  fill, T {iterations:<5} {name:<12} {:6.1} us [{:.1}]", median * 1e6, best * 1e6)?;
        }
        let block = memory::block::fill(kernel, &key, 1, 1);
        let digest = || {
            for _ in 0..1000 {
                std::hint::black_box(memory::block::digest(kernel, &keys.coefficients, std::hint::black_box(&block)));
            }
        };
        let (median, _) = seconds(60, digest);
        writeln!(out, "  digest, cached {:<12} {:6.1} ns", kernel.name(), median * 1e6)?;
    }
    let what = format!("{SAMPLES} memory openings, T 256");
    Ok(Line { what, unit: "ms", goal: Goal::AtMost(2.5), reached: best * 1e3 })
}

/// Scans of the cpu backend.
pub(crate) fn prover(out: &mut impl Write) -> Result {
    let never = AtomicBool::new(false);
    let nonce_0 = ScanNonce([9; 32]);
    writeln!(out, "cpu prover of memory, one thread, 256 MiB")?;
    for kernel in Kernel::all() {
        let challenge = memory_challenge(256 << 10, 1, 8)?;
        let ready = memory::cpu::fill_with(&challenge, 1, u64::MAX, kernel, &never)?;
        let start = Instant::now();
        std::hint::black_box(ready.scan(nonce_0, &never)?);
        let elapsed = u64::try_from(start.elapsed().as_nanos())?;
        let rate = memory::figures::bandwidth(&challenge.size, elapsed) as f64 / 1e9;
        writeln!(out, "  8 scans, {:<12} {rate:6.2} GB/s", kernel.name())?;
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
