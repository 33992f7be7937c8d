// The entries of A and B: rows of ChaCha8 keystream, RFC 8439's layout with 8 rounds (docs/proof.md, "Keystream").
//
// Written in what C and CUDA C++ have in common: emulator/ runs the same source on a CPU.

typedef struct { unsigned int word[8]; } Key;

static __device__ __forceinline__ unsigned int rotate_left(unsigned int x, int by) { return (x << by) | (x >> (32 - by)); }

#define QUARTER(a, b, c, d)                                  \
    do {                                                     \
        a += b; d = rotate_left(d ^ a, 16);                  \
        c += d; b = rotate_left(b ^ c, 12);                  \
        a += b; d = rotate_left(d ^ a, 8);                   \
        c += d; b = rotate_left(b ^ c, 7);                   \
    } while (0)

// Rows `first_row`… of `matrix` (0 is A, 1 is the transpose of B), one thread for each block of 64 bytes. `out` holds them
// one after the other; a row has 2^blocks_log2 blocks, and there are `blocks` in all.
KERNEL void __launch_bounds__(256)
fill_rows(Key key, unsigned int first_row, unsigned int matrix, unsigned int blocks_log2, unsigned int blocks, uint4 *out) {
    const unsigned int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= blocks) return;
    const unsigned int initial[16] = {
        0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
        key.word[0], key.word[1], key.word[2], key.word[3], key.word[4], key.word[5], key.word[6], key.word[7],
        index & ((1u << blocks_log2) - 1u), first_row + (index >> blocks_log2), matrix, 0u,
    };
    unsigned int x[16];
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = initial[i];
#pragma unroll
    for (int twice = 0; twice < 4; twice++) {
        QUARTER(x[0], x[4], x[8], x[12]);
        QUARTER(x[1], x[5], x[9], x[13]);
        QUARTER(x[2], x[6], x[10], x[14]);
        QUARTER(x[3], x[7], x[11], x[15]);
        QUARTER(x[0], x[5], x[10], x[15]);
        QUARTER(x[1], x[6], x[11], x[12]);
        QUARTER(x[2], x[7], x[8], x[13]);
        QUARTER(x[3], x[4], x[9], x[14]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint4 words;
        words.x = x[4 * i] + initial[4 * i];
        words.y = x[4 * i + 1] + initial[4 * i + 1];
        words.z = x[4 * i + 2] + initial[4 * i + 2];
        words.w = x[4 * i + 3] + initial[4 * i + 3];
        out[4 * (size_t)index + i] = words;
    }
}
