//! The test vectors of the proof's definitions, as a check that any build can run on any machine.

use std::sync::atomic::AtomicBool;

use super::gemm::Kernel;
use super::keystream::{self, Matrix};
use super::work::{Challenge, Position, Work, WorkError};
use super::{cpu, entry, memory, merkle, tile, verifier};
use crate::ids::{DeviceId, Hotkey};

/// One vector and what this build makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// The published value.
    pub expected: &'static str,
    /// This build's value.
    pub found: String,
}

impl Check {
    /// Whether they agree.
    pub fn holds(&self) -> bool {
        self.found == self.expected
    }
}

/// The challenge of the vectors: nonce 32×01, epoch 7, hotkey 32×02, uuid 16×03, n 64, k 128, 2 rounds.
///
/// # Errors
/// Never in a sound build: the size is in range.
pub fn challenge() -> Result<Challenge, WorkError> {
    let work = Work::new(64, 128, 2)?;
    Ok(Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId([3; 16]), work })
}

/// The memory challenge of the vectors: the same fields, 16 blocks, 8 iterations, 2 scans.
///
/// # Errors
/// Never in a sound build: the size is in range.
pub fn memory_challenge() -> Result<memory::Challenge, memory::SizeError> {
    let size = memory::Size::new(16, 8, 2)?;
    Ok(memory::Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId([3; 16]), size })
}

/// Why the vectors could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// The small product, for lack of memory for example.
    #[error("the product of the vectors")]
    Product(#[from] cpu::CpuError),
    /// The small memory, for lack of memory for example.
    #[error("the memory of the vectors")]
    Memory(#[from] memory::cpu::MemoryError),
    /// Never in a sound build.
    #[error("the size of the vectors' product")]
    Work(#[from] WorkError),
    /// Never in a sound build.
    #[error("the size of the vectors' memory")]
    Size(#[from] memory::SizeError),
}

/// Runs every vector on this machine's best kernels.
///
/// # Errors
/// If the cpu backends cannot compute the vectors' small product or memory.
pub fn run() -> Result<Vec<Check>, SelftestError> {
    let mut checks = run_product()?;
    checks.extend(run_memory()?);
    Ok(checks)
}

fn run_product() -> Result<Vec<Check>, SelftestError> {
    let challenge = challenge()?;
    let never = AtomicBool::new(false);
    let made = cpu::commit_with(&challenge, 1, Kernel::best(), &never)?;
    let keys = challenge.seed_0().keys();
    let mut checks = Vec::new();
    let mut check = |name: &str, expected, found| checks.push(Check { name: name.into(), expected, found });

    let stream = |key: &[u8; 32], index, matrix, length: usize| {
        let mut out = vec![0u8; length];
        keystream::fill(key, index, matrix, &mut out);
        hex::encode(out)
    };
    check("KS(32x07, 5, 0)[0..16]", "c7d090748cb7f5f6f636c0e5c5902c52", stream(&[7; 32], 5, Matrix::A, 16));
    // Long rows go another way through the kernels than the short ones of the small product.
    let long = stream(&[7; 32], 5, Matrix::A, 65_536);
    check("the last 16 of its 65536", "cc349a7deac7cf359bf32a8c67ebe83c", long[2 * 65_520..].to_owned());
    let entry = entry::entry(Kernel::best(), &[7; 32], 5, 5, 65_536);
    check("C[5][5], k 65536, E 32x07", "-1975028", entry.to_string());
    let seed = hex::encode(challenge.seed_0().0);
    check("seed_0", "9112d48f7cadb4ea24d4291673ab5d850ae03c245f09dbcfed6aed3af820039d", seed);
    check("A[0][0..8]", "275ab474c923a0b6", stream(&keys.entries, 0, Matrix::A, 8));
    check("Bt[0][0..8]", "b6396f770901c941", stream(&keys.entries, 0, Matrix::B, 8));
    for (row, col, expected) in [(0, 0, "11328"), (1, 0, "-11691"), (63, 62, "-63546")] {
        let position = Position { round: 0, row, col };
        let recomputed = verifier::entry(&keys, &position, challenge.work.k);
        check(&format!("C[{row}][{col}] of the verifier"), expected, recomputed.to_string());
        let opening = made.open(&[position], &never)?;
        let opened = tile::entry(&opening, position.within_tile()).unwrap_or_default();
        check(&format!("C[{row}][{col}] of the prover"), expected, opened.to_string());
    }
    let opening = made.open(&[Position { round: 0, row: 0, col: 0 }], &never)?;
    let leaf = merkle::leaf(&keys.leaf, opening.get(..tile::TILE_BYTES).unwrap_or_default());
    check("leaf 0", "8d5eaa9b5d1491028bde0235a12ee8314f114503d1a1943ef1097960e68c6d5b", leaf.to_string());
    let roots = [
        "020c4f4b9fffb35f8c8c4065c699102c6700d1931e932e76ef5c15cc78ceaa27",
        "5275de8ef9ca6aee5feb91f0df9eb8873554c6bd16ae3903c9d317113fac69fc",
    ];
    for (round, (expected, root)) in roots.into_iter().zip(made.roots()).enumerate() {
        check(&format!("root_{round}"), expected, root.to_string());
    }
    Ok(checks)
}

fn run_memory() -> Result<Vec<Check>, SelftestError> {
    let challenge = memory_challenge()?;
    let size = challenge.size;
    let mut checks = Vec::new();
    let mut check = |name: &str, expected, found| checks.push(Check { name: name.into(), expected, found });

    let key = memory::keys::fill_key(&challenge);
    let block = |index| memory::block::fill(Kernel::best(), &key, index, size.iterations());
    let first = block(0);
    let hex_words = |words: &[u32]| words.iter().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(" ");
    check("block 0, words 0 to 3", "9ee4be3a 9f64cb09 52c911fa 35dec424", hex_words(&first.0[..4]));
    check("block 15, word 255", "c48a3700", hex_words(&block(15).0[255..]));
    let nonce_0 = memory::keys::ScanNonce([9; 32]);
    let digest = memory::block::digest(Kernel::best(), &nonce_0.keys().coefficients, &first);
    let sums: Vec<u32> = digest.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    check("y of block 0 in scan 0", "f756346d 051fb795 17d6afbb 7b92642a", hex_words(&sums));

    let never = AtomicBool::new(false);
    let limit = memory::cpu::memory_bytes(&size);
    let made = memory::cpu::fill(&challenge, 1, limit, &never)?.scan(nonce_0, &never)?;
    let roots = [
        "81901788ab1bcf8e4bc1469935d75fd2c6b7a17978590a1f5d84d9e68b467667",
        "cc40ed98f84e24db3047892f59331109531066e26d5c01d0b2a623310765c2c3",
    ];
    for (scan, (expected, root)) in roots.into_iter().zip(made.roots()).enumerate() {
        check(&format!("memory root_{scan}"), expected, root.to_string());
    }
    let positions = memory::sample_positions(&size, 66, &[1; 32]);
    let openings = made.open(&positions, &never)?;
    let checked = memory::verifier::check_openings(&challenge, &nonce_0, made.roots(), &positions, &openings);
    let found = checked.map_or_else(|rejection| rejection.to_string(), |checked| checked.samples.to_string());
    check("memory openings that hold", "66", found);
    Ok(checks)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_vector_holds() {
        let checks = super::run().unwrap();
        assert_eq!(checks.len(), 21);
        for check in checks {
            assert!(check.holds(), "{check:?}");
        }
    }
}
