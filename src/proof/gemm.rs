//! The exact product of `i8` matrices, a tile at a time, and the dot product of two rows.
//!
//! Both operands are widened to `i16` and multiplied in pairs into `i32` (`pmaddwd` on AVX2): exact, because a pair is
//! at most 2·2¹⁴ and a whole entry at most 2³⁰. Saturating instructions (`pmaddubsw`) are never used. Every kernel has
//! a portable twin; [`Kernel`] picks one when the program runs, and the tests hold the twins to the same bits.
//!
//! Layout: the inner dimension is cut into blocks of [`BLOCK`]. A *strip* is 32 rows of `A` as `i16`,
//! `[block][row][x]`. A *panel* is 32 rows of `Bᵀ` as `i8`, `[block][half][pair][column][2]`: sixteen columns' pairs lie
//! side by side, which is what a broadcast pair of `A` is multiplied with.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::keystream::{self, Matrix};
use super::tile::{TILE, Tile};

/// Longest block of the inner dimension: a block of a panel's half (16 KiB as `i16`) stays in the first-level cache.
pub const BLOCK: usize = 512;
/// Columns of half a tile, the width of the kernels.
const HALF: usize = TILE / 2;

/// Which instructions do the work. Only a kernel this machine can run can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Isa);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kernel {
    /// To compare with; a value is had from [`Kernel::avx2`].
    #[cfg(target_arch = "x86_64")]
    pub(super) const AVX2: Kernel = Kernel(Isa::Avx2);

    /// The portable twin.
    pub fn scalar() -> Self {
        Kernel(Isa::Scalar)
    }

    /// The AVX2 kernel, where this machine has AVX2.
    pub fn avx2() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Some(Kernel(Isa::Avx2));
        }
        None
    }

    /// The fastest this machine has.
    pub fn best() -> Self {
        Self::avx2().unwrap_or(Self::scalar())
    }

    /// `scalar` or `avx2`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
        }
    }

    /// `Σ a[x]·b[x]` over the shorter of both, bytes read as two's complement `i8`. Exact for up to 131,071 bytes.
    pub fn dot(self, a: &[u8], b: &[u8]) -> i32 {
        match self.0 {
            Isa::Scalar => dot_scalar(a, b),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::dot(a, b),
        }
    }

    /// Adds the product of one block to half a tile: see [`block_scalar`] for the definition.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "only SIMD kernels widen `b` first"))]
    fn block(self, a: &[i16], b: &[i8], scratch: &mut [i16], c: &mut Tile, column: usize) {
        match self.0 {
            Isa::Scalar => block_scalar(a, b, c, column),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::block(a, b, scratch, c, column),
        }
    }
}

fn dot_scalar(a: &[u8], b: &[u8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x as i8) * i32::from(y as i8)).sum()
}

/// `c[r][column + s] += Σ_x a[r][x]·b[x][s]` for 32 rows `r` and 16 columns `s`.
///
/// `a` is 32 rows of one block, `b` the same block of half a panel.
fn block_scalar(a: &[i16], b: &[i8], c: &mut Tile, column: usize) {
    let length = a.len() / TILE;
    for (row, out) in a.chunks_exact(length).zip(c.0.chunks_exact_mut(TILE)) {
        let mut sums = [0i32; HALF];
        for (pair, columns) in row.chunks_exact(2).zip(b.chunks_exact(2 * HALF)) {
            let (x, y) = (i32::from(pair[0]), i32::from(pair[1]));
            for (sum, entry) in sums.iter_mut().zip(columns.chunks_exact(2)) {
                *sum += x * i32::from(entry[0]) + y * i32::from(entry[1]);
            }
        }
        for (out, sum) in out[column..column + HALF].iter_mut().zip(sums) {
            *out += sum;
        }
    }
}

/// Length of a block for this inner dimension (a power of two, so blocks divide it).
fn block_len(k: usize) -> usize {
    k.min(BLOCK)
}

/// `i16`s of a strip of `A`.
pub fn strip_len(k: usize) -> usize {
    TILE * k
}

/// Bytes of a panel of `Bᵀ`.
pub fn panel_len(k: usize) -> usize {
    TILE * k
}

/// `i16`s of scratch that [`multiply`] needs.
pub fn scratch_len(k: usize) -> usize {
    HALF * block_len(k)
}

/// Fills strip `index` of `A`: rows `32·index…`, widened. `row` is a buffer of `k` bytes, `strip` of [`strip_len`].
pub fn fill_strip(key: &[u8; 32], index: u32, k: usize, row: &mut [u8], strip: &mut [i16]) {
    let block = block_len(k);
    for r in 0..TILE {
        keystream::fill(key, index * TILE as u32 + r as u32, Matrix::A, &mut row[..k]);
        for (piece, out) in row[..k].chunks_exact(block).zip(strip.chunks_exact_mut(TILE * block)) {
            for (wide, byte) in out[r * block..(r + 1) * block].iter_mut().zip(piece) {
                *wide = i16::from(*byte as i8);
            }
        }
    }
}

/// Fills panel `index` of `Bᵀ`: rows `32·index…`, interleaved. `row` is a buffer of `k` bytes, `panel` of [`panel_len`].
pub fn fill_panel(key: &[u8; 32], index: u32, k: usize, row: &mut [u8], panel: &mut [i8]) {
    let block = block_len(k);
    for r in 0..TILE {
        keystream::fill(key, index * TILE as u32 + r as u32, Matrix::B, &mut row[..k]);
        let (half, s) = (r / HALF, r % HALF);
        for (piece, out) in row[..k].chunks_exact(block).zip(panel.chunks_exact_mut(TILE * block)) {
            let out = &mut out[half * HALF * block..(half + 1) * HALF * block];
            for (pair, slot) in piece.chunks_exact(2).zip(out.chunks_exact_mut(2 * HALF)) {
                slot[2 * s] = pair[0] as i8;
                slot[2 * s + 1] = pair[1] as i8;
            }
        }
    }
}

/// The tile that a strip and a panel give. `scratch` is of [`scratch_len`]; its content does not matter.
pub fn multiply(kernel: Kernel, k: usize, strip: &[i16], panel: &[i8], scratch: &mut [i16], tile: &mut Tile) {
    let block = block_len(k);
    tile.0.fill(0);
    for (a, b) in strip.chunks_exact(TILE * block).zip(panel.chunks_exact(TILE * block)) {
        for (half, b) in b.chunks_exact(HALF * block).enumerate() {
            kernel.block(a, b, scratch, tile, half * HALF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Row-major rows of bytes to strip and panel layout, through the keystream's own path: the layouts are tested
    /// against the plain definition on keystream rows.
    fn tile(kernel: Kernel, key: &[u8; 32], strip_index: u32, panel_index: u32, k: usize) -> Tile {
        let (mut row, mut strip) = (vec![0u8; k], vec![0i16; strip_len(k)]);
        let (mut panel, mut scratch) = (vec![0i8; panel_len(k)], vec![7i16; scratch_len(k)]);
        fill_strip(key, strip_index, k, &mut row, &mut strip);
        fill_panel(key, panel_index, k, &mut row, &mut panel);
        let mut tile = Tile([-1; 1024]);
        multiply(kernel, k, &strip, &panel, &mut scratch, &mut tile);
        tile
    }

    fn kernels() -> Vec<Kernel> {
        [Some(Kernel::scalar()), Kernel::avx2()].into_iter().flatten().collect()
    }

    #[test]
    fn a_tile_is_the_dot_products_of_its_rows() {
        for kernel in kernels() {
            for k in [64, 512, 2048] {
                let tile = tile(kernel, &[5; 32], 1, 2, k);
                for (r, s) in [(0, 0), (0, 31), (31, 0), (13, 17), (31, 31)] {
                    let (mut a, mut b) = (vec![0u8; k], vec![0u8; k]);
                    keystream::fill(&[5; 32], 32 + r as u32, Matrix::A, &mut a);
                    keystream::fill(&[5; 32], 64 + s as u32, Matrix::B, &mut b);
                    assert_eq!(tile.0[r * TILE + s], dot_scalar(&a, &b), "{} k={k} ({r}, {s})", kernel.name());
                }
            }
        }
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        let k = 65_536;
        let lowest = vec![0x80u8; k];
        for kernel in kernels() {
            assert_eq!(kernel.dot(&lowest, &lowest), 1 << 30);
            let (a, b) = (vec![-128i16; TILE * BLOCK], vec![-128i8; HALF * BLOCK]);
            let (mut c, mut scratch) = (Tile::zero(), vec![0i16; HALF * BLOCK]);
            for _ in 0..k / BLOCK {
                kernel.block(&a, &b, &mut scratch, &mut c, HALF);
            }
            assert!(c.0.iter().enumerate().all(|(i, &e)| e == if i % TILE < HALF { 0 } else { 1 << 30 }));
        }
    }

    proptest! {
        #[test]
        fn dot_is_bit_identical_in_every_kernel(
            (a, b) in (0usize..400).prop_flat_map(|n| (
                proptest::collection::vec(any::<u8>(), n),
                proptest::collection::vec(any::<u8>(), n),
            ))
        ) {
            for kernel in kernels() {
                prop_assert_eq!(kernel.dot(&a, &b), dot_scalar(&a, &b));
            }
        }

        #[test]
        fn tiles_are_bit_identical_in_every_kernel(key in any::<[u8; 32]>(), k in 6u32..11, i in 0u32..100, j in 0u32..100) {
            let k = 1usize << k;
            let expected = tile(Kernel::scalar(), &key, i, j, k);
            for kernel in kernels() {
                prop_assert_eq!(&tile(kernel, &key, i, j, k), &expected);
            }
        }
    }

    #[test]
    fn rows_of_different_lengths_count_up_to_the_shorter() {
        for kernel in kernels() {
            assert_eq!(kernel.dot(&[1; 100], &[2; 37]), 74);
            assert_eq!(kernel.dot(&[], &[2; 37]), 0);
        }
    }
}
