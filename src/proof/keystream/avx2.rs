//! ChaCha's double round on eight states at a time, word `w` of all eight in register `w`: what the AVX2 kernels of an
//! entry and of a block of memory share.

use std::arch::x86_64::*;

/// One double round: the columns, then the diagonals. No feed-forward.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::proof) fn double_round(v: &mut [__m256i; 16]) {
    quarter(v, 0, 4, 8, 12);
    quarter(v, 1, 5, 9, 13);
    quarter(v, 2, 6, 10, 14);
    quarter(v, 3, 7, 11, 15);
    quarter(v, 0, 5, 10, 15);
    quarter(v, 1, 6, 11, 12);
    quarter(v, 2, 7, 8, 13);
    quarter(v, 3, 4, 9, 14);
}

#[inline]
#[target_feature(enable = "avx2")]
fn quarter(v: &mut [__m256i; 16], a: usize, b: usize, c: usize, d: usize) {
    let by_16 = _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    let by_8 = _mm256_broadcastsi128_si256(_mm_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14));
    v[a] = _mm256_add_epi32(v[a], v[b]);
    v[d] = _mm256_shuffle_epi8(_mm256_xor_si256(v[d], v[a]), by_16);
    v[c] = _mm256_add_epi32(v[c], v[d]);
    let x = _mm256_xor_si256(v[b], v[c]);
    v[b] = _mm256_or_si256(_mm256_slli_epi32::<12>(x), _mm256_srli_epi32::<20>(x));
    v[a] = _mm256_add_epi32(v[a], v[b]);
    v[d] = _mm256_shuffle_epi8(_mm256_xor_si256(v[d], v[a]), by_8);
    v[c] = _mm256_add_epi32(v[c], v[d]);
    let x = _mm256_xor_si256(v[b], v[c]);
    v[b] = _mm256_or_si256(_mm256_slli_epi32::<7>(x), _mm256_srli_epi32::<25>(x));
}
