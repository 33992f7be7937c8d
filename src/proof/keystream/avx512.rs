//! ChaCha8 on sixteen blocks at a time with AVX-512, word `w` of all sixteen in register `w`. The twin of the `chacha20` crate's stream;
//! the parent's tests hold it to that.
#![expect(unsafe_code, reason = "SIMD stores, and calls of functions that need AVX-512")]

use std::arch::x86_64::*;

/// Bytes of sixteen blocks: what is generated at a time.
pub(in crate::proof) const STEP: usize = 1024;

/// Whether this machine has what is needed.
pub(in crate::proof) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

/// Writes the stream from its beginning on; `state` is that of the first block.
///
/// # Panics
/// If `out` is not whole steps.
pub(super) fn fill(state: &[u32; 16], out: &mut [u8]) {
    assert!(is_there() && out.len().is_multiple_of(STEP), "AVX-512, and whole steps");
    for (step, out) in out.chunks_exact_mut(STEP).enumerate() {
        // SAFETY: AVX-512 is there; `out` is one step.
        unsafe { store(blocks(state, 16 * step as u32), out) };
    }
}

/// The sixteen blocks from `counter` on, word by word.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::proof) fn blocks(state: &[u32; 16], counter: u32) -> [__m512i; 16] {
    let mut first = [_mm512_setzero_si512(); 16];
    for (wide, word) in first.iter_mut().zip(state) {
        *wide = _mm512_set1_epi32(*word as i32);
    }
    let numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    first[12] = _mm512_add_epi32(_mm512_set1_epi32(counter as i32), numbers);
    let mut v = first;
    for _ in 0..4 {
        // In registers only if the places are constants.
        quarter(&mut v, 0, 4, 8, 12);
        quarter(&mut v, 1, 5, 9, 13);
        quarter(&mut v, 2, 6, 10, 14);
        quarter(&mut v, 3, 7, 11, 15);
        quarter(&mut v, 0, 5, 10, 15);
        quarter(&mut v, 1, 6, 11, 12);
        quarter(&mut v, 2, 7, 8, 13);
        quarter(&mut v, 3, 4, 9, 14);
    }
    for (word, first) in v.iter_mut().zip(first) {
        *word = _mm512_add_epi32(*word, first);
    }
    v
}

#[inline]
#[target_feature(enable = "avx512f")]
fn quarter(v: &mut [__m512i; 16], a: usize, b: usize, c: usize, d: usize) {
    v[a] = _mm512_add_epi32(v[a], v[b]);
    v[d] = _mm512_rol_epi32::<16>(_mm512_xor_si512(v[d], v[a]));
    v[c] = _mm512_add_epi32(v[c], v[d]);
    v[b] = _mm512_rol_epi32::<12>(_mm512_xor_si512(v[b], v[c]));
    v[a] = _mm512_add_epi32(v[a], v[b]);
    v[d] = _mm512_rol_epi32::<8>(_mm512_xor_si512(v[d], v[a]));
    v[c] = _mm512_add_epi32(v[c], v[d]);
    v[b] = _mm512_rol_epi32::<7>(_mm512_xor_si512(v[b], v[c]));
}

/// Writes the blocks one after the other: the words as a matrix, transposed.
///
/// # Safety
/// `out` is one step.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(words: [__m512i; 16], out: &mut [u8]) {
    // Within each four words: `fours[4g + i]` has words 4g to 4g + 3 of blocks i, i + 4, i + 8, i + 12.
    let mut fours = words;
    for four in fours.chunks_exact_mut(4) {
        let (low, high) = (_mm512_unpacklo_epi32(four[0], four[1]), _mm512_unpackhi_epi32(four[0], four[1]));
        let (low2, high2) = (_mm512_unpacklo_epi32(four[2], four[3]), _mm512_unpackhi_epi32(four[2], four[3]));
        four[0] = _mm512_unpacklo_epi64(low, low2);
        four[1] = _mm512_unpackhi_epi64(low, low2);
        four[2] = _mm512_unpacklo_epi64(high, high2);
        four[3] = _mm512_unpackhi_epi64(high, high2);
    }
    for i in 0..4 {
        // Quarters of a register are numbered from its low end; each has four words of one block.
        let (a, b, c, d) = (fours[i], fours[4 + i], fours[8 + i], fours[12 + i]);
        let (ab, ab2) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b));
        let (cd, cd2) = (_mm512_shuffle_i32x4::<0b01_00_01_00>(c, d), _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d));
        let blocks = [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(ab2, cd2),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(ab2, cd2),
        ];
        for (j, block) in blocks.into_iter().enumerate() {
            // SAFETY: `out` is sixteen blocks of 64 bytes, and `4j + i < 16`; unaligned store.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(64 * (4 * j + i)).cast(), block) };
        }
    }
}
