//! The device's programs: their PTX, their names, and how each is launched for a piece of work.

use super::device::{Product, at};

const FILL: &str = include_str!("fill.compute_75.ptx");
const HASH: &str = include_str!("hash.compute_75.ptx");
const GEMM_75: &str = include_str!("gemm.compute_75.ptx");
const GEMM_80: &str = include_str!("gemm.compute_80.ptx");

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Rows of keystream.
    FillRows,
    /// Hashes of the tiles of a strip.
    HashTiles,
    /// A level of the tree from the one below.
    HashNodes,
    /// A strip of the product.
    MultiplyStrip,
    /// Blocks of a memory proof.
    FillBlocks,
    /// Leaves of a scan of a memory proof.
    ScanGroups,
}

impl Kernel {
    /// All, each at the place of its number.
    pub(super) const ALL: [Kernel; 6] = [
        Kernel::FillRows,
        Kernel::HashTiles,
        Kernel::HashNodes,
        Kernel::MultiplyStrip,
        Kernel::FillBlocks,
        Kernel::ScanGroups,
    ];

    /// Its name in the PTX.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kernel::FillRows => "fill_rows",
            Kernel::HashTiles => "hash_tiles",
            Kernel::HashNodes => "hash_nodes",
            Kernel::MultiplyStrip => "multiply_strip",
            Kernel::FillBlocks => "fill_blocks",
            Kernel::ScanGroups => "scan_groups",
        }
    }

    /// The PTX that has it, for a device of this compute capability.
    pub(super) fn ptx(self, major: i32) -> &'static str {
        match self {
            Kernel::FillRows | Kernel::FillBlocks => FILL,
            Kernel::HashTiles | Kernel::HashNodes | Kernel::ScanGroups => HASH,
            Kernel::MultiplyStrip if major >= 8 => GEMM_80,
            Kernel::MultiplyStrip => GEMM_75,
        }
    }
}

/// An argument of a kernel.
pub(super) enum Argument<'a, M> {
    /// 32 bytes, passed by value.
    Key([u8; 32]),
    /// A number.
    Number(u32),
    /// The address of a place in memory.
    Memory {
        /// The memory.
        memory: &'a M,
        /// Where in it, in bytes.
        offset: u64,
    },
}

impl<'a, M> Argument<'a, M> {
    /// The place this many bytes behind; of what is no place, itself.
    pub(super) fn after(&self, bytes: u64) -> Self {
        match self {
            Argument::Key(key) => Argument::Key(*key),
            Argument::Number(number) => Argument::Number(*number),
            Argument::Memory { memory, offset } => Argument::Memory { memory, offset: offset + bytes },
        }
    }
}

/// A kernel and all that its launch needs.
pub(super) struct Launch<'a, M> {
    pub(super) kernel: Kernel,
    /// Blocks of threads.
    pub(super) grid: (u32, u32),
    /// Threads of a block.
    pub(super) threads: u32,
    pub(super) arguments: Vec<Argument<'a, M>>,
}

/// Entries along the sides of what a block of threads multiplies.
const PRODUCT_SIDE: u32 = 128;
/// Tiles that a block of threads hashes, four threads each.
const TILES: u32 = 32;

impl<'a, M> Launch<'a, M> {
    /// `rows` rows of keystream of `k` bytes, from row `first` of `matrix` on.
    pub(super) fn fill_rows(key: &[u8; 32], first: u32, matrix: u32, rows: u32, k: u32, into: &'a M) -> Self {
        let threads = 256;
        // At most 2¹⁷ rows of 2¹⁰ blocks.
        let (per_row, blocks) = (k / 64, rows * (k / 64));
        let numbers = [first, matrix, per_row.ilog2(), blocks].map(Argument::Number);
        let arguments = std::iter::once(Argument::Key(*key)).chain(numbers).chain([at(into, 0)]).collect();
        Launch { kernel: Kernel::FillRows, grid: (blocks.div_ceil(threads), 1), threads, arguments }
    }

    /// The hashes of the tiles of a strip of `rows` rows of `n` entries, to byte `offset` of `leaves`.
    pub(super) fn hash_tiles(key: &[u8; 32], strip: &'a M, rows: u32, n: u32, leaves: &'a M, offset: u64) -> Self {
        let side = n / 32;
        let tiles = rows / 32 * side;
        let arguments = vec![
            Argument::Key(*key),
            at(strip, 0),
            Argument::Number(n),
            Argument::Number(side.ilog2()),
            Argument::Number(tiles),
            at(leaves, offset),
        ];
        Launch { kernel: Kernel::HashTiles, grid: (tiles.div_ceil(TILES), 1), threads: 4 * TILES, arguments }
    }

    /// `count` nodes from the twice as many below.
    pub(super) fn hash_nodes(key: &[u8; 32], below: Argument<'a, M>, count: u32, above: Argument<'a, M>) -> Self {
        let threads = 128;
        let arguments = vec![Argument::Key(*key), below, Argument::Number(count), above];
        Launch { kernel: Kernel::HashNodes, grid: (count.div_ceil(threads), 1), threads, arguments }
    }

    /// Blocks `first`… of a memory proof: a multiple of four.
    pub(super) fn fill_blocks(key: &[u8; 32], iterations: u32, first: u32, blocks: u32, into: Argument<'a, M>) -> Self {
        let threads = 128;
        let numbers = [iterations, first, blocks].map(Argument::Number);
        let arguments = std::iter::once(Argument::Key(*key)).chain(numbers).chain([into]).collect();
        Launch { kernel: Kernel::FillBlocks, grid: (blocks.div_ceil(threads / 16), 1), threads, arguments }
    }

    /// Leaves of one scan: of `groups` of four blocks each, and zeros up to `padded` of them in all.
    pub(super) fn scan_groups(
        key: &[u8; 32],
        coefficients: &'a M,
        blocks: Argument<'a, M>,
        groups: u32,
        padded: u32,
        leaves: Argument<'a, M>,
    ) -> Self {
        let threads = 128;
        let arguments = vec![
            Argument::Key(*key),
            at(coefficients, 0),
            blocks,
            Argument::Number(groups),
            Argument::Number(padded),
            leaves,
        ];
        Launch { kernel: Kernel::ScanGroups, grid: (padded.div_ceil(threads), 1), threads, arguments }
    }

    /// A strip of the product.
    pub(super) fn multiply_strip(product: &Product<'a, M>) -> Self {
        let Product { a, b, c, rows, n, k } = *product;
        let grid = (rows.div_ceil(PRODUCT_SIDE), n.div_ceil(PRODUCT_SIDE));
        let numbers = [rows, n, k].map(Argument::Number);
        let arguments = [at(a, 0), at(b, 0), at(c, 0)].into_iter().chain(numbers).collect();
        Launch { kernel: Kernel::MultiplyStrip, grid, threads: PRODUCT_SIDE, arguments }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_ptx_was_made_of_the_source_that_lies_beside_it() {
        let (fill, hash, gemm) = (include_str!("fill.cu"), include_str!("hash.cu"), include_str!("gemm.cu"));
        for (name, source, arch, ptx) in [
            ("fill", fill, 75, FILL),
            ("hash", hash, 75, HASH),
            ("gemm", gemm, 75, GEMM_75),
            ("gemm", gemm, 80, GEMM_80),
        ] {
            let digest = hex::encode(Sha256::digest(source));
            let expected =
                format!("// {name}.cu, SHA-256 {digest}, compute_{arch}, NVRTC 12.0.140; made by scripts/ptx");
            assert_eq!(ptx.lines().next(), Some(expected.as_str()), "run scripts/ptx");
            assert!(ptx.contains(&format!(".target sm_{arch}\n")) && ptx.contains(".version 8.0\n"));
        }
    }

    #[test]
    fn every_kernel_is_in_its_ptx_with_the_arguments_it_is_launched_with() {
        let product = Product { a: &(), b: &(), c: &(), rows: 32, n: 32, k: 64 };
        let launches = [
            Launch::fill_rows(&[0; 32], 0, 0, 32, 64, &()),
            Launch::hash_tiles(&[0; 32], &(), 32, 32, &(), 0),
            Launch::hash_nodes(&[0; 32], at(&(), 0), 1, at(&(), 0)),
            Launch::multiply_strip(&product),
            Launch::fill_blocks(&[0; 32], 1, 0, 4, at(&(), 0)),
            Launch::scan_groups(&[0; 32], &(), at(&(), 0), 1, 1, at(&(), 0)),
        ];
        assert_eq!(Kernel::ALL.len(), launches.len());
        for (number, (kernel, launch)) in Kernel::ALL.into_iter().zip(&launches).enumerate() {
            assert_eq!((launch.kernel, kernel as usize), (kernel, number));
            for major in [7, 9] {
                let name = kernel.name();
                let (_, after) = kernel.ptx(major).split_once(&format!(".visible .entry {name}(")).unwrap();
                let (parameters, after) = after.split_once(')').unwrap();
                let parameters: Vec<&str> = parameters.split(',').collect();
                assert_eq!(parameters.len(), launch.arguments.len(), "{name}");
                for (parameter, argument) in parameters.iter().zip(&launch.arguments) {
                    let expected = match argument {
                        Argument::Key(_) => ".param .align 4 .b8 ",
                        Argument::Number(_) => ".param .u32 ",
                        Argument::Memory { .. } => ".param .u64 ",
                    };
                    assert!(parameter.trim_start().starts_with(expected), "{name}: {parameter}");
                    assert_eq!(parameter.ends_with("[32]"), matches!(argument, Argument::Key(_)));
                }
                let (most, _) = after.split_once(".maxntid ").unwrap().1.split_once(',').unwrap();
                assert_eq!(most.parse(), Ok(launch.threads), "{name}");
            }
        }
    }

    #[test]
    fn the_largest_work_fits_into_32_bits_and_into_a_grid() {
        let fill = Launch::fill_rows(&[0; 32], 0, 1, 131_072, 65_536, &());
        assert_eq!(fill.grid, (1 << 19, 1));
        let product = Product { a: &(), b: &(), c: &(), rows: 2048, n: 131_072, k: 65_536 };
        assert_eq!(Launch::multiply_strip(&product).grid, (16, 1024)); // the second may be 65,535 at most
        assert_eq!(Launch::hash_tiles(&[0; 32], &(), 2048, 131_072, &(), 0).grid, (8192, 1));
        assert_eq!(Launch::hash_nodes(&[0; 32], at(&(), 0), 1 << 23, at(&(), 0)).grid, (1 << 16, 1));
        assert_eq!(Launch::hash_nodes(&[0; 32], at(&(), 0), 1 << 29, at(&(), 0)).grid, (1 << 22, 1));
        assert_eq!(Launch::fill_blocks(&[0; 32], 1, 0, 1 << 26, at(&(), 0)).grid, (1 << 23, 1));
        let scan = Launch::scan_groups(&[0; 32], &(), at(&(), 0), 1 << 30, 1 << 30, at(&(), 0));
        assert_eq!(scan.grid, (1 << 23, 1)); // the first may be 2³¹ - 1 at most
    }
}
