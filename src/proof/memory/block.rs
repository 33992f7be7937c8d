//! One block of memory: how it is made, slowly, and what a scan makes of it.
//!
//! A block is a 16 × 16 matrix of words, row-major. It begins as keystream and is stirred `T` times: the number of the
//! iteration goes into its first word, one ChaCha double round into each column, and rows and columns change places. After
//! two iterations every word depends on every word; nothing is shared between blocks.
//!
//! Making a block takes `T` × 16 double rounds, reading it one pass over 1 KiB: that ratio is what the proof rests on. The
//! AVX2 kernel has eight columns in 16 registers; the tests hold it to the bits of its portable twin.

#[cfg(target_arch = "x86_64")]
mod avx2;

use crate::proof::gemm::Kernel;
use crate::proof::keystream::{self, Matrix};

/// Rows and columns of a block, and words of a ChaCha state.
const SIDE: usize = 16;
/// Words of a block.
pub const WORDS: usize = SIDE * SIDE;
/// Bytes of a digest: four words.
pub const DIGEST_BYTES: usize = 16;

/// What a scan makes of a block: four sums modulo 2³², little-endian.
pub type Digest = [u8; DIGEST_BYTES];

/// A block's words, or a scan's coefficients for them. Aligned to cache lines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Words(pub [u32; WORDS]);

impl Words {
    /// All zeros.
    pub fn zero() -> Self {
        Words([0; WORDS])
    }

    /// The first 256 little-endian words of `KS(key, index, matrix)`.
    pub fn stream(key: &[u8; 32], index: u32, matrix: Matrix) -> Self {
        let mut bytes = [0u8; 4 * WORDS];
        keystream::fill(key, index, matrix, &mut bytes);
        let mut words = Words::zero();
        for (word, bytes) in words.0.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        words
    }
}

/// Makes block `index` in `iterations`: `KS(key, index, 2)`, stirred. Any number of iterations is defined.
pub fn fill(kernel: Kernel, key: &[u8; 32], index: u32, iterations: u32) -> Words {
    let mut words = Words::stream(key, index, Matrix::Blocks);
    stir(kernel, &mut words, iterations);
    words
}

/// `Σ_{m<64} q[4m+w]·x[4m+w]` modulo 2³² for `w` from 0 to 3.
pub fn digest(kernel: Kernel, q: &Words, x: &Words) -> Digest {
    let sums = sums(kernel, q, x);
    let mut out = [0u8; DIGEST_BYTES];
    for (bytes, sum) in out.chunks_exact_mut(4).zip(sums) {
        bytes.copy_from_slice(&sum.to_le_bytes());
    }
    out
}

#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is no other kernel"))]
fn stir(kernel: Kernel, words: &mut Words, iterations: u32) {
    #[cfg(target_arch = "x86_64")]
    if kernel.has_avx2() {
        return avx2::stir(words, iterations);
    }
    stir_scalar(words, iterations);
}

#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is no other kernel"))]
fn sums(kernel: Kernel, q: &Words, x: &Words) -> [u32; 4] {
    #[cfg(target_arch = "x86_64")]
    if kernel.has_avx2() {
        return avx2::sums(q, x);
    }
    sums_scalar(q, x)
}

/// The definition of the iterations.
fn stir_scalar(words: &mut Words, iterations: u32) {
    for iteration in 0..iterations {
        words.0[0] ^= iteration;
        let mut transposed = [0u32; WORDS];
        for (c, row) in transposed.chunks_exact_mut(SIDE).enumerate() {
            let mut column = [0u32; SIDE];
            for (word, from) in column.iter_mut().zip(words.0.chunks_exact(SIDE)) {
                *word = from[c];
            }
            double_round(&mut column);
            row.copy_from_slice(&column);
        }
        words.0 = transposed;
    }
}

/// ChaCha's double round on one state, without feed-forward.
fn double_round(state: &mut [u32; 16]) {
    for [a, b, c, d] in [
        [0, 4, 8, 12],
        [1, 5, 9, 13],
        [2, 6, 10, 14],
        [3, 7, 11, 15],
        [0, 5, 10, 15],
        [1, 6, 11, 12],
        [2, 7, 8, 13],
        [3, 4, 9, 14],
    ] {
        state[a] = state[a].wrapping_add(state[b]);
        state[d] = (state[d] ^ state[a]).rotate_left(16);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_left(12);
        state[a] = state[a].wrapping_add(state[b]);
        state[d] = (state[d] ^ state[a]).rotate_left(8);
        state[c] = state[c].wrapping_add(state[d]);
        state[b] = (state[b] ^ state[c]).rotate_left(7);
    }
}

/// The definition of a digest's words.
fn sums_scalar(q: &Words, x: &Words) -> [u32; 4] {
    let mut sums = [0u32; 4];
    for (q, x) in q.0.chunks_exact(4).zip(x.0.chunks_exact(4)) {
        for (sum, (q, x)) in sums.iter_mut().zip(q.iter().zip(x)) {
            *sum = sum.wrapping_add(q.wrapping_mul(*x));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_without_iterations_is_keystream() {
        let mut bytes = [0u8; 1024];
        keystream::fill(&[3; 32], 9, Matrix::Blocks, &mut bytes);
        for kernel in Kernel::all() {
            let block = fill(kernel, &[3; 32], 9, 0);
            assert_eq!(block.0[0].to_le_bytes(), bytes[..4]);
            assert_eq!(block.0[255].to_le_bytes(), bytes[1020..]);
        }
    }

    #[test]
    fn the_double_round_is_the_keystreams_own() {
        // Constants, key, counter and nonce; four of them; the feed-forward.
        let mut state = [0u32; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        state[4..12].fill(0x0505_0505);
        (state[13], state[14]) = (6, 2);
        let first = state;
        for _ in 0..4 {
            double_round(&mut state);
        }
        let expected = Words::stream(&[5; 32], 6, Matrix::Blocks);
        for (word, (made, first)) in state.iter().zip(first).enumerate() {
            assert_eq!(made.wrapping_add(first), expected.0[word], "word {word}");
        }
    }

    #[test]
    fn an_iteration_stirs_columns_and_makes_them_rows() {
        for kernel in Kernel::all() {
            let before = Words::stream(&[1; 32], 2, Matrix::Blocks);
            let mut after = before.clone();
            stir(kernel, &mut after, 1);
            for c in 0..16 {
                let mut column: [u32; 16] = std::array::from_fn(|r| before.0[16 * r + c]);
                double_round(&mut column);
                assert_eq!(after.0[16 * c..16 * c + 16], column, "{} column {c}", kernel.name());
            }
        }
    }

    #[test]
    fn every_word_depends_on_every_word_after_four_iterations() {
        let base = fill(Kernel::best(), &[1; 32], 0, 4);
        for word in 0..WORDS {
            let mut other = Words::stream(&[1; 32], 0, Matrix::Blocks);
            other.0[word] ^= 1;
            stir(Kernel::best(), &mut other, 4);
            assert!(base.0.iter().zip(other.0).all(|(a, b)| *a != b), "word {word}");
        }
    }

    #[test]
    fn a_digest_sums_modulo_two_to_the_32() {
        for kernel in Kernel::all() {
            let most = Words([u32::MAX; WORDS]);
            assert_eq!(digest(kernel, &most, &most), [64, 0, 0, 0].repeat(4)[..]);
            let mut one = Words::zero();
            one.0[4 * 63 + 2] = 3;
            assert_eq!(sums(kernel, &one, &Words([7; WORDS])), [0, 0, 21, 0]);
        }
    }

    proptest! {
        #[test]
        fn blocks_are_bit_identical_in_every_kernel(key in any::<[u8; 32]>(), index in any::<u32>(), t in 0u32..70) {
            let expected = fill(Kernel::scalar(), &key, index, t);
            for kernel in Kernel::all() {
                prop_assert_eq!(&fill(kernel, &key, index, t), &expected);
            }
        }

        #[test]
        fn digests_are_bit_identical_in_every_kernel(q in any::<[u8; 32]>(), x in any::<[u8; 32]>()) {
            let (q, x) = (Words::stream(&q, 0, Matrix::Scan), Words::stream(&x, 1, Matrix::Blocks));
            for kernel in Kernel::all() {
                prop_assert_eq!(digest(kernel, &q, &x), digest(Kernel::scalar(), &q, &x));
            }
        }
    }
}
