//! AVX2 kernels. Bit-identical to their portable twins in the parent module, whose tests hold them to it.
#![expect(unsafe_code, reason = "SIMD loads and stores, and calls of functions that need AVX2")]

use std::arch::x86_64::*;

use super::{HALF, TILE};
use crate::proof::tile::Tile;

/// Rows of the register tile: 4 rows × 16 columns are 8 accumulators of 8 `i32`.
const ROWS: usize = 4;

/// The twin of `dot_scalar`.
pub(super) fn dot(a: &[u8], b: &[u8]) -> i32 {
    assert!(std::arch::is_x86_feature_detected!("avx2"), "the AVX2 kernel needs AVX2");
    // SAFETY: AVX2 is there.
    unsafe { dot_avx2(a, b) }
}

/// The twin of `block_scalar`; `scratch` holds the widened `b`.
///
/// # Panics
/// If the lengths of `a`, `b` and `scratch` are not those of one block, or `column` is not 0 or 16.
pub(super) fn block(a: &[i16], b: &[i8], scratch: &mut [i16], c: &mut Tile, column: usize) {
    assert!(std::arch::is_x86_feature_detected!("avx2"), "the AVX2 kernel needs AVX2");
    let length = a.len() / TILE;
    assert!(length.is_multiple_of(2) && a.len() == TILE * length && b.len() == HALF * length, "lengths of one block");
    assert!(scratch.len() >= b.len() && column + HALF <= TILE, "scratch of one block, half a tile");
    // SAFETY: AVX2 is there; the lengths are as `block_avx2` needs them.
    unsafe { block_avx2(a, length, b, scratch, c, column) }
}

#[target_feature(enable = "avx2")]
fn dot_avx2(a: &[u8], b: &[u8]) -> i32 {
    let length = a.len().min(b.len());
    let whole = length / 32 * 32;
    let mut sums = [_mm256_setzero_si256(); 2];
    for x in (0..whole).step_by(32) {
        for (half, sum) in sums.iter_mut().enumerate() {
            let at = x + 16 * half;
            // SAFETY: `at + 16 <= whole`, which is within both slices; unaligned loads.
            let (pa, pb) =
                unsafe { (_mm_loadu_si128(a.as_ptr().add(at).cast()), _mm_loadu_si128(b.as_ptr().add(at).cast())) };
            let product = _mm256_madd_epi16(_mm256_cvtepi8_epi16(pa), _mm256_cvtepi8_epi16(pb));
            *sum = _mm256_add_epi32(*sum, product);
        }
    }
    let mut lanes = [0i32; 8];
    // SAFETY: `lanes` is 32 bytes; unaligned store.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_add_epi32(sums[0], sums[1])) };
    lanes.iter().sum::<i32>() + super::dot_scalar(&a[whole..length], &b[whole..length])
}

/// # Safety
/// `a` is 32 rows of `length` (even), `b` 16 columns of `length` and `scratch` at least as long; `column + 16 <= 32`.
#[target_feature(enable = "avx2")]
unsafe fn block_avx2(a: &[i16], length: usize, b: &[i8], scratch: &mut [i16], c: &mut Tile, column: usize) {
    for (bytes, wide) in b.chunks_exact(16).zip(scratch.chunks_exact_mut(16)) {
        // SAFETY: both chunks are 16 elements; unaligned load and store.
        unsafe {
            let widened = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes.as_ptr().cast()));
            _mm256_storeu_si256(wide.as_mut_ptr().cast(), widened);
        }
    }
    let b = scratch.as_ptr();
    for row in (0..TILE).step_by(ROWS) {
        // SAFETY: `row + ROWS <= 32`, so rows `row…` of `a` and of the tile exist; `2·pair + 1 < length`; the pair's
        // 32 widened bytes of all 16 columns begin at `32·pair` of `scratch`; all accesses are unaligned ones.
        unsafe {
            let a = a.as_ptr().add(row * length);
            let out = c.0.as_mut_ptr().add(row * TILE + column);
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for pair in 0..length / 2 {
                let b0 = _mm256_loadu_si256(b.add(32 * pair).cast());
                let b1 = _mm256_loadu_si256(b.add(32 * pair + 16).cast());
                for (r, sums) in sums.iter_mut().enumerate() {
                    let both = _mm256_set1_epi32(a.add(r * length + 2 * pair).cast::<i32>().read_unaligned());
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(both, b0));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(both, b1));
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (half, sum) in sums.iter().enumerate() {
                    let to = out.add(r * TILE + 8 * half).cast::<__m256i>();
                    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), *sum));
                }
            }
        }
    }
}
