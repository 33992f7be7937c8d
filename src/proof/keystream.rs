//! The entries of `A` and `B`: ChaCha8 keystream, one stream for each row.
//!
//! `KS(key, index, matrix)` is RFC 8439's layout with 8 rounds: a 32-bit block counter from 0 and the 96-bit nonce
//! `index ‖ matrix ‖ 0`, little-endian. `A[i][x]` is byte `x` of `KS(E_t, i, 0)` and `Bᵀ[j][x]` byte `x` of
//! `KS(E_t, j, 1)`, both as two's complement `i8`. No entry is a simple function of its indices: a shortcut through
//! structure would need one. The memory proof takes its blocks and the coefficients of its scans from streams 2 and 3.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;

use chacha20::ChaCha8;
use chacha20::cipher::{KeyIvInit, StreamCipher};

/// Which matrix a stream fills, or what of the memory proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Matrix {
    /// Rows of `A`.
    A = 0,
    /// Rows of `Bᵀ`, that is columns of `B`.
    B = 1,
    /// A block of the memory proof, before it is stirred.
    Blocks = 2,
    /// The coefficients of one scan of the memory proof.
    Scan = 3,
}

/// One row's stream, to be read from its beginning.
pub struct Row(ChaCha8);

impl Row {
    /// The stream of row `index` of `matrix` under the round's entries key.
    pub fn new(key: &[u8; 32], index: u32, matrix: Matrix) -> Self {
        let mut nonce = [0u8; 12];
        nonce[..4].copy_from_slice(&index.to_le_bytes());
        nonce[4..8].copy_from_slice(&(matrix as u32).to_le_bytes());
        Row(ChaCha8::new(key.into(), (&nonce).into()))
    }

    /// Writes the next bytes of the stream. A row is at most 65,536 bytes, far below the counter's end at 256 GiB.
    pub fn read(&mut self, out: &mut [u8]) {
        self.0.write_keystream(out);
    }
}

/// Writes the first `out.len()` bytes of a row.
pub fn fill(key: &[u8; 32], index: u32, matrix: Matrix, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if out.len().is_multiple_of(avx512::STEP) && avx512::is_there() {
        return avx512::fill(&first_state(key, index, matrix), out);
    }
    Row::new(key, index, matrix).read(out);
}

/// The state that a row's first block is made from: constants, key, counter 0, `index ‖ matrix ‖ 0`.
#[cfg(target_arch = "x86_64")]
pub(super) fn first_state(key: &[u8; 32], index: u32, matrix: Matrix) -> [u32; 16] {
    let mut words = [0u32; 16];
    words[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    for (word, bytes) in words[4..12].iter_mut().zip(key.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    words[13] = index;
    words[14] = matrix as u32;
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_holds() {
        let mut out = [0u8; 16];
        fill(&[7; 32], 5, Matrix::A, &mut out);
        assert_eq!(hex::encode(out), "c7d090748cb7f5f6f636c0e5c5902c52");
    }

    #[test]
    fn reading_in_pieces_gives_the_same_stream() {
        let mut whole = [0u8; 1024];
        fill(&[3; 32], 9, Matrix::B, &mut whole);
        let mut row = Row::new(&[3; 32], 9, Matrix::B);
        let mut pieces = [0u8; 1024];
        let (head, tail) = pieces.split_at_mut(100);
        row.read(head);
        row.read(tail);
        assert_eq!(whole, pieces);
    }

    /// Whole steps may go another way than the rest.
    #[test]
    fn a_filled_row_is_the_stream_at_every_length() {
        for (index, length) in [(0, 64), (1, 512), (2, 1024), (3, 1088), (4, 2048), (5, 65_536), (u32::MAX, 16_384)] {
            let (mut filled, mut read) = (vec![0u8; length], vec![0u8; length]);
            let key = std::array::from_fn(|byte| (byte as u8).wrapping_mul(37) ^ index as u8);
            fill(&key, index, Matrix::Blocks, &mut filled);
            Row::new(&key, index, Matrix::Blocks).read(&mut read);
            assert!(filled == read, "{length} bytes");
        }
    }

    #[test]
    fn rows_and_matrices_have_streams_of_their_own() {
        let read = |index, matrix| {
            let mut out = [0u8; 64];
            fill(&[1; 32], index, matrix, &mut out);
            out
        };
        assert_ne!(read(0, Matrix::A), read(0, Matrix::B));
        assert_ne!(read(0, Matrix::A), read(1, Matrix::A));
    }
}
