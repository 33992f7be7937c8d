//! AVX2 kernels. Bit-identical to their portable twins in the parent module, whose tests hold them to it.
//!
//! Row `r` of a block is the registers `2r` (columns 0 … 7) and `2r + 1` (columns 8 … 15). Eight columns are sixteen
//! registers, a lane for each column: what the keystream's double round works on.
#![expect(unsafe_code, reason = "SIMD loads and stores, and calls of functions that need AVX2")]

use std::arch::x86_64::*;

use super::{SIDE, Words};
use crate::proof::keystream::avx2::double_round;

/// Registers of a block.
const REGISTERS: usize = 2 * SIDE;

/// The twin of `stir_scalar`.
pub(super) fn stir(words: &mut Words, iterations: u32) {
    assert!(std::arch::is_x86_feature_detected!("avx2"), "the AVX2 kernel needs AVX2");
    // SAFETY: AVX2 is there.
    unsafe { stir_avx2(words, iterations) }
}

/// The twin of `sums_scalar`.
pub(super) fn sums(q: &Words, x: &Words) -> [u32; 4] {
    assert!(std::arch::is_x86_feature_detected!("avx2"), "the AVX2 kernel needs AVX2");
    // SAFETY: AVX2 is there.
    unsafe { sums_avx2(q, x) }
}

#[target_feature(enable = "avx2")]
fn stir_avx2(words: &mut Words, iterations: u32) {
    let mut from = [_mm256_setzero_si256(); REGISTERS];
    let mut to = from;
    for (register, eight) in from.iter_mut().zip(words.0.chunks_exact(8)) {
        // SAFETY: `eight` is 32 bytes; unaligned load.
        *register = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
    }
    let (mut here, mut there) = (&mut from, &mut to);
    for iteration in 0..iterations {
        iterate(here, there, iteration);
        std::mem::swap(&mut here, &mut there);
    }
    for (eight, register) in words.0.chunks_exact_mut(8).zip(here.iter()) {
        // SAFETY: `eight` is 32 bytes; unaligned store.
        unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), *register) };
    }
}

/// One iteration: of eight columns each, a double round; they become eight rows.
#[inline]
#[target_feature(enable = "avx2")]
fn iterate(from: &[__m256i; REGISTERS], to: &mut [__m256i; REGISTERS], iteration: u32) {
    for half in 0..2 {
        let mut columns = [_mm256_setzero_si256(); SIDE];
        for (row, columns) in columns.iter_mut().enumerate() {
            *columns = from[2 * row + half];
        }
        if half == 0 {
            columns[0] = _mm256_xor_si256(columns[0], _mm256_setr_epi32(iteration as i32, 0, 0, 0, 0, 0, 0, 0));
        }
        double_round(&mut columns);
        let rows = &mut to[SIDE * half..SIDE * (half + 1)];
        let (upper, lower) = columns.split_at(8);
        for (side, square) in [upper, lower].into_iter().enumerate() {
            for (row, register) in transposed(square).into_iter().enumerate() {
                rows[2 * row + side] = register;
            }
        }
    }
}

/// Eight registers with their rows and lanes exchanged.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: &[__m256i]) -> [__m256i; 8] {
    // Lanes of 0 … 3 and 4 … 7 go side by side: pairs of words, then of pairs, then halves of registers.
    let mut pairs = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut quads = [_mm256_setzero_si256(); 8];
    for i in 0..2 {
        for j in 0..2 {
            quads[4 * i + 2 * j] = _mm256_unpacklo_epi64(pairs[4 * i + j], pairs[4 * i + 2 + j]);
            quads[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(pairs[4 * i + j], pairs[4 * i + 2 + j]);
        }
    }
    let mut out = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        out[i] = _mm256_permute2x128_si256::<0x20>(quads[i], quads[4 + i]);
        out[4 + i] = _mm256_permute2x128_si256::<0x31>(quads[i], quads[4 + i]);
    }
    out
}

#[target_feature(enable = "avx2")]
fn sums_avx2(q: &Words, x: &Words) -> [u32; 4] {
    let mut sums = [_mm256_setzero_si256(); 4];
    for (q, x) in q.0.chunks_exact(32).zip(x.0.chunks_exact(32)) {
        for (sum, (q, x)) in sums.iter_mut().zip(q.chunks_exact(8).zip(x.chunks_exact(8))) {
            // SAFETY: both are 32 bytes; unaligned loads.
            let (q, x) = unsafe { (_mm256_loadu_si256(q.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().cast())) };
            *sum = _mm256_add_epi32(*sum, _mm256_mullo_epi32(q, x));
        }
    }
    let sum = _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
    let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let mut words = [0u32; 4];
    // SAFETY: `words` is 16 bytes; unaligned store.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), sum) };
    words
}
