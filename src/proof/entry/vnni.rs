//! The AVX-512 VNNI twin of `entry_in_pieces`, bit-identical to it; the parent's tests hold it to that.
//!
//! As on AVX2, with sixteen blocks at a time; of the bytes of both rows one is taken as unsigned, too large by 128.
#![expect(unsafe_code, reason = "calls of functions that need AVX-512 VNNI")]

use std::arch::x86_64::*;

use crate::proof::keystream::avx512::{self, blocks};
use crate::proof::keystream::{Matrix, first_state};

/// Bytes of a row that one step takes.
pub(super) const STEP: usize = avx512::STEP;

/// The twin of `entry_in_pieces`.
///
/// # Panics
/// If `k` is no multiple of [`STEP`].
pub(super) fn entry(key: &[u8; 32], row: u32, col: u32, k: usize) -> i32 {
    assert!(avx512::is_there() && std::arch::is_x86_feature_detected!("avx512vnni"), "the kernel needs AVX-512 VNNI");
    assert!(k.is_multiple_of(STEP), "whole steps");
    // SAFETY: AVX-512 VNNI is there.
    unsafe { entry_vnni(key, row, col, k) }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn entry_vnni(key: &[u8; 32], row: u32, col: u32, k: usize) -> i32 {
    let (row, col) = (first_state(key, row, Matrix::A), first_state(key, col, Matrix::B));
    let high = _mm512_set1_epi8(-128);
    // Two of each, as one sum would wait for itself.
    let (mut sums, mut surplus) = ([_mm512_setzero_si512(); 2], [_mm512_setzero_si512(); 2]);
    for step in 0..k / STEP {
        let counter = (16 * step) as u32;
        let (a, b) = (blocks(&row, counter), blocks(&col, counter));
        for (word, (a, b)) in a.into_iter().zip(b).enumerate() {
            sums[word % 2] = _mm512_dpbusd_epi32(sums[word % 2], _mm512_xor_si512(b, high), a);
            surplus[word % 2] = _mm512_dpbusd_epi32(surplus[word % 2], high, a);
        }
    }
    let sum = _mm512_sub_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(surplus[0], surplus[1]));
    _mm512_reduce_add_epi32(sum)
}
