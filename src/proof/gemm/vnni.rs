//! The kernel for AVX-512 VNNI. Bit-identical to its portable twin in the parent module, whose tests hold it to that.
#![expect(unsafe_code, reason = "SIMD loads and stores, and a call of a function that needs AVX-512 VNNI")]

use std::arch::x86_64::*;

use super::{QUAD, TILE};
use crate::proof::tile::Tile;

/// Rows of the register tile: 8 rows × 32 columns are 16 accumulators of 16 `i32`.
const ROWS: usize = 8;

/// Whether this machine has what the kernel needs.
pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// `c[r][s] += Σ_x a[r][x]·b[x][s]` over one block, `a` signed and `b` unsigned: too much by `128·Σa` of each row.
///
/// # Panics
/// If `a` and `b` are not of one block's length.
pub(super) fn block(a: &[i8], b: &[u8], c: &mut Tile) {
    assert!(is_there(), "the kernel needs AVX-512 VNNI");
    let length = a.len() / TILE;
    assert!(length.is_multiple_of(QUAD) && a.len() == TILE * length && b.len() == a.len(), "lengths of one block");
    // SAFETY: AVX-512 VNNI is there; the lengths are as `block_vnni` needs them.
    unsafe { block_vnni(a, length, b, c) }
}

/// # Safety
/// `a` is 32 rows of `length`, a multiple of 4, and `b` 32 columns of it.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn block_vnni(a: &[i8], length: usize, b: &[u8], c: &mut Tile) {
    for row in (0..TILE).step_by(ROWS) {
        // SAFETY: `row + ROWS <= 32`, so rows `row…` of `a` and of the tile exist; `4·quad + 3 < length`; the quad's
        // 128 bytes of all 32 columns begin at `128·quad` of `b`; all accesses are unaligned ones.
        unsafe {
            let a = a.as_ptr().add(row * length);
            let out = c.0.as_mut_ptr().add(row * TILE);
            let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
            for quad in 0..length / QUAD {
                let b0 = _mm512_loadu_si512(b.as_ptr().add(QUAD * TILE * quad).cast());
                let b1 = _mm512_loadu_si512(b.as_ptr().add(QUAD * TILE * quad + 64).cast());
                for (r, sums) in sums.iter_mut().enumerate() {
                    let four = _mm512_set1_epi32(a.add(r * length + QUAD * quad).cast::<i32>().read_unaligned());
                    sums[0] = _mm512_dpbusd_epi32(sums[0], b0, four);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], b1, four);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (half, sum) in sums.iter().enumerate() {
                    let to = out.add(r * TILE + 16 * half).cast::<__m512i>();
                    _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), *sum));
                }
            }
        }
    }
}
