//! One entry of the product from nothing but its key: what the verifier recomputes for each sample.
//!
//! `C[i][j]` is the dot product of two keystream rows. The SIMD kernels never write the streams down: they generate
//! eight or sixteen blocks of both side by side and multiply them where they are; a dot product does not mind the order.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::gemm::Kernel;
use super::keystream::{Matrix, Row};

/// Bytes of both rows that the portable twin generates at a time: both pieces stay in the first-level cache.
const PIECE: usize = 8192;

/// `Σ_{x<k} A[row][x]·Bᵀ[col][x]` under the round's entries key. `k` is at most 65,536.
pub fn entry(kernel: Kernel, key: &[u8; 32], row: u32, col: u32, k: usize) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if kernel.has_vnni() && k.is_multiple_of(vnni::STEP) {
        return vnni::entry(key, row, col, k);
    }
    #[cfg(target_arch = "x86_64")]
    if kernel.has_avx2() && k.is_multiple_of(avx2::STEP) {
        return avx2::entry(key, row, col, k);
    }
    entry_in_pieces(kernel, key, row, col, k)
}

/// The portable twin: both rows in pieces, then their dot product.
fn entry_in_pieces(kernel: Kernel, key: &[u8; 32], row: u32, col: u32, k: usize) -> i32 {
    let (mut a, mut b) = (Row::new(key, row, Matrix::A), Row::new(key, col, Matrix::B));
    let (mut bytes_a, mut bytes_b) = ([0u8; PIECE], [0u8; PIECE]);
    let mut sum = 0;
    let mut left = k;
    while left > 0 {
        let piece = left.min(PIECE);
        a.read(&mut bytes_a[..piece]);
        b.read(&mut bytes_b[..piece]);
        sum += kernel.dot(&bytes_a[..piece], &bytes_b[..piece]);
        left -= piece;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::keystream;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_the_dot_product_of_its_rows_in_every_kernel() {
        for k in [64, 128, 512, 1024, 8192, 65_536] {
            let (mut a, mut b) = (vec![0u8; k], vec![0u8; k]);
            keystream::fill(&[4; 32], 1, Matrix::A, &mut a);
            keystream::fill(&[4; 32], 2, Matrix::B, &mut b);
            let expected: i32 = a.iter().zip(&b).map(|(&x, &y)| i32::from(x as i8) * i32::from(y as i8)).sum();
            for kernel in Kernel::all() {
                assert_eq!(entry(kernel, &[4; 32], 1, 2, k), expected, "{} k={k}", kernel.name());
            }
        }
    }

    proptest! {
        #[test]
        fn entries_are_bit_identical_in_every_kernel(
            key in any::<[u8; 32]>(), row in any::<u32>(), col in any::<u32>(), k in 6u32..13
        ) {
            let expected = entry(Kernel::scalar(), &key, row, col, 1 << k);
            for kernel in Kernel::all() {
                prop_assert_eq!(entry(kernel, &key, row, col, 1 << k), expected);
            }
        }
    }
}
