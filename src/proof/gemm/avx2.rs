//! AVX2 kernels. Bit-identical to their portable twins in the parent module, whose tests hold them to it.
#![expect(unsafe_code, reason = "SIMD loads and stores, and calls of functions that need AVX2")]

use std::arch::x86_64::*;

use super::{HALF, QUAD, TILE};
use crate::proof::tile::Tile;

/// Rows of the register tile: 4 rows × 16 columns are 8 accumulators of 8 `i32`.
const ROWS: usize = 4;

/// The twin of `dot_scalar`.
pub(super) fn dot(a: &[u8], b: &[u8]) -> i32 {
    assert!(std::arch::is_x86_feature_detected!("avx2"), "the AVX2 kernel needs AVX2");
    // SAFETY: AVX2 is there.
    unsafe { dot_avx2(a, b) }
}

/// Adds the product of a block of a strip, widened, and of one of a panel to the tile: the twin of `in_pairs` and `half_block`, of
/// both halves.
///
/// # Panics
/// If the lengths of `a`, `b` and `pairs` are not those of one block.
pub(super) fn block(a: &[i16], b: &[u8], pairs: &mut [i16], c: &mut Tile) {
    assert!(std::arch::is_x86_feature_detected!("avx2"), "the AVX2 kernel needs AVX2");
    let length = a.len() / TILE;
    assert!(length.is_multiple_of(QUAD) && a.len() == TILE * length && b.len() == a.len(), "lengths of one block");
    assert!(pairs.len() >= HALF * length, "room for half a block");
    for column in [0, HALF] {
        // SAFETY: AVX2 is there; the lengths are as both need them.
        unsafe {
            in_pairs(b, length, pairs, column);
            half_block(a, length, pairs, c, column);
        }
    }
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

/// The twin of the parent's, which widens.
///
/// # Safety
/// `b` is 32 columns of `length`, a multiple of 4; `pairs` is 16·`length` at least; `column` is 0 or 16.
#[target_feature(enable = "avx2")]
unsafe fn in_pairs(b: &[u8], length: usize, pairs: &mut [i16], column: usize) {
    // The first and the last two bytes of each quad, to the upper halves of two 16-bit lanes.
    let first = _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13));
    let last = _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15));
    let sign = _mm256_set1_epi8(-128);
    for quad in 0..length / QUAD {
        for half in 0..2 {
            // SAFETY: 64 bytes of sixteen columns begin at `128·quad + 4·column` of `b`; both pairs of a quad take 64 elements of
            // `pairs`, from `64·quad` on; unaligned load and stores.
            unsafe {
                let bytes = _mm256_loadu_si256(b.as_ptr().add(QUAD * TILE * quad + QUAD * column + 32 * half).cast());
                let bytes = _mm256_xor_si256(bytes, sign);
                let out = pairs.as_mut_ptr().add(QUAD * HALF * quad + HALF * half);
                let pair = |which| _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(bytes, which));
                _mm256_storeu_si256(out.cast(), pair(first));
                _mm256_storeu_si256(out.add(2 * HALF).cast(), pair(last));
            }
        }
    }
}

/// The twin of the parent's.
///
/// # Safety
/// `a` is 32 rows of `length` (even), `b` 16 columns of it, widened; `column + 16 <= 32`.
#[target_feature(enable = "avx2")]
unsafe fn half_block(a: &[i16], length: usize, b: &[i16], c: &mut Tile, column: usize) {
    let b = b.as_ptr();
    for row in (0..TILE).step_by(ROWS) {
        // SAFETY: `row + ROWS <= 32`, so rows `row…` of `a` and of the tile exist; `2·pair + 1 < length`; the pair's
        // 32 elements of all 16 columns begin at `32·pair` of `b`; all accesses are unaligned ones.
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
