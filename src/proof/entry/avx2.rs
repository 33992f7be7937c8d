//! The AVX2 twin of `entry_in_pieces`, bit-identical to it; the parent's tests hold it to that.
//!
//! Eight ChaCha8 blocks at a time, word `w` of all eight in one register. Bytes of both rows at the same place lie at
//! the same place of the same register, so their products are summed without bringing the streams into order.
#![expect(unsafe_code, reason = "calls of functions that need AVX2, and one store")]

use std::arch::x86_64::*;

use crate::proof::keystream::avx2::double_round;
use crate::proof::keystream::{Matrix, first_state};

/// Bytes of a row that one step takes: eight blocks of 64.
pub(super) const STEP: usize = 512;

/// The twin of `entry_in_pieces`.
///
/// # Panics
/// If `k` is no multiple of [`STEP`].
pub(super) fn entry(key: &[u8; 32], row: u32, col: u32, k: usize) -> i32 {
    assert!(std::arch::is_x86_feature_detected!("avx2"), "the AVX2 kernel needs AVX2");
    assert!(k.is_multiple_of(STEP), "whole steps");
    // SAFETY: AVX2 is there.
    unsafe { entry_avx2(key, row, col, k) }
}

#[target_feature(enable = "avx2")]
fn entry_avx2(key: &[u8; 32], row: u32, col: u32, k: usize) -> i32 {
    let (row, col) = (first_state(key, row, Matrix::A), first_state(key, col, Matrix::B));
    let mut sums = [_mm256_setzero_si256(); 2];
    for step in 0..k / STEP {
        let counter = (8 * step) as u32;
        let a = blocks(&row, counter);
        let b = blocks(&col, counter);
        for (a, b) in a.iter().zip(&b) {
            // Odd bytes are the upper half of a 16-bit lane; even bytes are moved there first.
            let (odd_a, odd_b) = (_mm256_srai_epi16::<8>(*a), _mm256_srai_epi16::<8>(*b));
            let even_a = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(*a));
            let even_b = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(*b));
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(odd_a, odd_b));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(even_a, even_b));
        }
    }
    let mut lanes = [0i32; 8];
    // SAFETY: `lanes` is 32 bytes; unaligned store.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_add_epi32(sums[0], sums[1])) };
    lanes.iter().sum()
}

/// The eight blocks from `counter` on, word by word.
#[inline]
#[target_feature(enable = "avx2")]
fn blocks(state: &[u32; 16], counter: u32) -> [__m256i; 16] {
    let mut first = [_mm256_setzero_si256(); 16];
    for (wide, word) in first.iter_mut().zip(state) {
        *wide = _mm256_set1_epi32(*word as i32);
    }
    first[12] = _mm256_add_epi32(_mm256_set1_epi32(counter as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    let mut v = first;
    for _ in 0..4 {
        double_round(&mut v);
    }
    for (word, first) in v.iter_mut().zip(first) {
        *word = _mm256_add_epi32(*word, first);
    }
    v
}
