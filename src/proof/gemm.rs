//! The exact product of `i8` matrices, a tile at a time, and the dot product of two rows.
//!
//! On AVX2 both operands are widened to `i16` and multiplied in pairs into `i32` (`pmaddwd`): exact, because a pair is
//! at most 2·2¹⁴ and a whole entry at most 2³⁰. On AVX-512 VNNI four products of an unsigned and a signed byte are added to an
//! `i32` at once (`vpdpbusd`): `b` is taken as the unsigned `b + 128`, and `128·Σa` of the row is taken off. Saturating instructions
//! (`pmaddubsw`, `vpdpbusds`) are never used. Every kernel has a portable twin; [`Kernel`] picks one when the program runs, and
//! the tests hold the twins to the same bits.
//!
//! Layout: the inner dimension is cut into blocks of `BLOCK`. A *strip* is 32 rows of `A`, `[block][row][x]`, as the kernel
//! wants them. A *panel* is 32 rows of `Bᵀ` as bytes `b + 128`, `[block][quad][column][4]`: what a broadcast quad of `A`
//! is multiplied with lies side by side.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::keystream::{self, Matrix};
use super::tile::{TILE, Tile};
use super::workers::{OutOfMemory, filled};

/// Longest block of the inner dimension: a block of a panel (16 KiB) stays in the first-level cache.
const BLOCK: usize = 512;
/// Neighbours in a row that lie side by side in a panel.
const QUAD: usize = 4;
/// Columns of half a tile: what the kernels that widen do at a time.
const HALF: usize = TILE / 2;

/// Which instructions do the work. Only a kernel this machine can run can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Isa);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
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

    /// The kernels on AVX-512 VNNI, where this machine has that, and AVX2's for what has none of them.
    pub fn vnni() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if vnni::is_there() && Self::avx2().is_some() {
            return Some(Kernel(Isa::Vnni));
        }
        None
    }

    /// Every kernel this machine can run, slowest first.
    pub fn all() -> Vec<Self> {
        [Some(Self::scalar()), Self::avx2(), Self::vnni()].into_iter().flatten().collect()
    }

    /// The fastest this machine has.
    pub fn best() -> Self {
        Self::vnni().or(Self::avx2()).unwrap_or(Self::scalar())
    }

    /// `scalar`, `avx2` or `avx512-vnni`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni => "avx512-vnni",
        }
    }

    /// Whether it may use AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_vnni(self) -> bool {
        self.0 == Isa::Vnni
    }

    /// Whether it may use AVX2.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_avx2(self) -> bool {
        self.0 != Isa::Scalar
    }

    /// `Σ a[x]·b[x]` over the shorter of both, bytes read as two's complement `i8`. Exact for up to 131,071 bytes.
    pub fn dot(self, a: &[u8], b: &[u8]) -> i32 {
        match self.0 {
            Isa::Scalar => dot_scalar(a, b),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Vnni => avx2::dot(a, b),
        }
    }
}

fn dot_scalar(a: &[u8], b: &[u8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x as i8) * i32::from(y as i8)).sum()
}

/// Length of a block for this inner dimension (a power of two, so blocks divide it).
fn block_len(k: usize) -> usize {
    k.min(BLOCK)
}

/// 32 rows of `A`.
pub(super) struct Strip {
    k: usize,
    rows: Rows,
}

/// The rows as the kernel wants them, `[block][row][x]`.
enum Rows {
    /// Widened; with room for half a panel's block, in pairs.
    Scalar(Vec<i16>, Vec<i8>),
    /// Widened; with room for half a panel's block, in pairs and widened too.
    #[cfg(target_arch = "x86_64")]
    Avx2(Vec<i16>, Vec<i16>),
    /// With the sum of each row.
    #[cfg(target_arch = "x86_64")]
    Vnni(Vec<i8>, [i32; TILE]),
}

impl Strip {
    /// A strip of zeros for rows of `k` bytes, a power of two from 64 to 65,536.
    pub(super) fn new(kernel: Kernel, k: usize) -> Result<Self, OutOfMemory> {
        let rows = match kernel.0 {
            Isa::Scalar => Rows::Scalar(filled(TILE * k, 0)?, filled(HALF * block_len(k), 0)?),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Rows::Avx2(filled(TILE * k, 0)?, filled(HALF * block_len(k), 0)?),
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni => Rows::Vnni(filled(TILE * k, 0)?, [0; TILE]),
        };
        Ok(Strip { k, rows })
    }

    /// Fills it with rows `32·index…` of `A`. `row` is a buffer of `k` bytes at least.
    pub(super) fn fill(&mut self, key: &[u8; 32], index: u32, row: &mut [u8]) {
        let row = &mut row[..self.k];
        for r in 0..TILE {
            keystream::fill(key, index * TILE as u32 + r as u32, Matrix::A, row);
            self.lay(r, row);
        }
    }

    /// Puts row `r` in its place.
    fn lay(&mut self, r: usize, row: &[u8]) {
        match &mut self.rows {
            Rows::Scalar(rows, _) => lay(rows, r, row, |byte| i16::from(byte as i8)),
            #[cfg(target_arch = "x86_64")]
            Rows::Avx2(rows, _) => lay(rows, r, row, |byte| i16::from(byte as i8)),
            #[cfg(target_arch = "x86_64")]
            Rows::Vnni(rows, sums) => {
                lay(rows, r, row, |byte| byte as i8);
                sums[r] = row.iter().map(|byte| i32::from(*byte as i8)).sum();
            }
        }
    }

    /// The tile that this strip and a panel of as long rows give.
    pub(super) fn multiply(&mut self, panel: &[u8], tile: &mut Tile) {
        let size = TILE * block_len(self.k);
        let panel = panel.chunks_exact(size);
        tile.0.fill(0);
        match &mut self.rows {
            Rows::Scalar(rows, pairs) => {
                for (a, b) in rows.chunks_exact(size).zip(panel) {
                    for column in [0, HALF] {
                        in_pairs(&b[QUAD * column..], pairs);
                        half_block(a, pairs, tile, column);
                    }
                }
            }
            #[cfg(target_arch = "x86_64")]
            Rows::Avx2(rows, pairs) => {
                rows.chunks_exact(size).zip(panel).for_each(|(a, b)| avx2::block(a, b, pairs, tile));
            }
            #[cfg(target_arch = "x86_64")]
            Rows::Vnni(rows, sums) => {
                for (row, sum) in tile.0.chunks_exact_mut(TILE).zip(sums) {
                    row.fill(-128 * *sum); // at most 2³⁰
                }
                rows.chunks_exact(size).zip(panel).for_each(|(a, b)| vnni::block(a, b, tile));
            }
        }
    }
}

fn lay<T>(rows: &mut [T], r: usize, row: &[u8], entry: impl Fn(u8) -> T) {
    let block = block_len(row.len());
    for (piece, out) in row.chunks_exact(block).zip(rows.chunks_exact_mut(TILE * block)) {
        for (out, byte) in out[r * block..(r + 1) * block].iter_mut().zip(piece) {
            *out = entry(*byte);
        }
    }
}

/// Bytes of a panel of `Bᵀ`.
pub(super) fn panel_len(k: usize) -> usize {
    TILE * k
}

/// Fills panel `index` of `Bᵀ`: rows `32·index…`. `row` is a buffer of `k` bytes at least, `panel` of [`panel_len`].
pub(super) fn fill_panel(key: &[u8; 32], index: u32, k: usize, row: &mut [u8], panel: &mut [u8]) {
    for column in 0..TILE {
        keystream::fill(key, index * TILE as u32 + column as u32, Matrix::B, &mut row[..k]);
        lay_column(column, &row[..k], panel);
    }
}

/// Puts a column of `B` in its place. Blocks follow each other, so a quad's place does not depend on their length.
fn lay_column(column: usize, row: &[u8], panel: &mut [u8]) {
    for (quad, columns) in row.chunks_exact(QUAD).zip(panel.chunks_exact_mut(QUAD * TILE)) {
        for (out, byte) in columns[QUAD * column..QUAD * (column + 1)].iter_mut().zip(quad) {
            *out = byte ^ 0x80;
        }
    }
}

/// Sixteen columns of `b`, signed, as `[pair][column][2]`. `b` begins with the first of them in a block.
fn in_pairs(b: &[u8], pairs: &mut [i8]) {
    for (columns, out) in b.chunks(QUAD * TILE).zip(pairs.chunks_exact_mut(QUAD * HALF)) {
        let (first, last) = out.split_at_mut(2 * HALF);
        let out = first.chunks_exact_mut(2).zip(last.chunks_exact_mut(2));
        for (quad, (first, last)) in columns.chunks_exact(QUAD).zip(out) {
            let signed = |x: usize| (quad[x] ^ 0x80) as i8;
            first.copy_from_slice(&[signed(0), signed(1)]);
            last.copy_from_slice(&[signed(2), signed(3)]);
        }
    }
}

/// `c[r][column + s] += Σ_x a[r][x]·b[x][s]` for 32 rows `r` of one block and 16 columns `s`, in pairs.
fn half_block(a: &[i16], b: &[i8], c: &mut Tile, column: usize) {
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

#[cfg(test)]
mod tests;
