// The entries of A and B: rows of ChaCha8 keystream, RFC 8439's layout with 8 rounds (docs/proof.md, "Keystream"); and the
// blocks of a memory proof, which begin as keystream.
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

// One double round of the state `x`.
static __device__ __forceinline__ void double_round(unsigned int *x) {
    QUARTER(x[0], x[4], x[8], x[12]);
    QUARTER(x[1], x[5], x[9], x[13]);
    QUARTER(x[2], x[6], x[10], x[14]);
    QUARTER(x[3], x[7], x[11], x[15]);
    QUARTER(x[0], x[5], x[10], x[15]);
    QUARTER(x[1], x[6], x[11], x[12]);
    QUARTER(x[2], x[7], x[8], x[13]);
    QUARTER(x[3], x[4], x[9], x[14]);
}

// The 16 words of KS(key, index, matrix) from byte 64·counter on.
static __device__ __forceinline__ void keystream(unsigned int *x, const Key *key, unsigned int counter, unsigned int index, unsigned int matrix) {
    const unsigned int initial[16] = {
        0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u,
        key->word[0], key->word[1], key->word[2], key->word[3], key->word[4], key->word[5], key->word[6], key->word[7],
        counter, index, matrix, 0u,
    };
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = initial[i];
#pragma unroll
    for (int twice = 0; twice < 4; twice++) double_round(x);
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] += initial[i];
}

// Rows `first_row`… of `matrix` (0 is A, 1 is the transpose of B), one thread for each block of 64 bytes. `out` holds them
// one after the other; a row has 2^blocks_log2 blocks, and there are `blocks` in all.
KERNEL void __launch_bounds__(256)
fill_rows(Key key, unsigned int first_row, unsigned int matrix, unsigned int blocks_log2, unsigned int blocks, uint4 *out) {
    const unsigned int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= blocks) return;
    unsigned int x[16];
    keystream(x, &key, index & ((1u << blocks_log2) - 1u), first_row + (index >> blocks_log2), matrix);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint4 words;
        words.x = x[4 * i]; words.y = x[4 * i + 1]; words.z = x[4 * i + 2]; words.w = x[4 * i + 3];
        out[4 * (size_t)index + i] = words;
    }
}

// Threads of one block of a memory proof, and words of its row in shared memory: one more, so that neither rows nor columns
// meet a bank twice.
#define LINE 16
#define PADDED 17

// Blocks `first`… of a memory proof, 1 KiB each: 16 × 16 words v of KS(key, block, 2), and then, `iterations` times, v[0][0] ^= the
// iteration's number, a double round of every column, and the transpose. Thread c of 16 has column c. `blocks` is a multiple of 4.
KERNEL void __launch_bounds__(128)
fill_blocks(Key key, unsigned int iterations, unsigned int first, unsigned int blocks, unsigned int *out) {
    // Two squares for each block, by turns: who is ahead writes into the one that nobody reads any more.
    __shared__ unsigned int squares[128 / LINE][2][LINE * PADDED];
    const int own = (int)(threadIdx.x / LINE), column = (int)(threadIdx.x % LINE);
    const unsigned int block = blockIdx.x * (128 / LINE) + (unsigned int)own;
    unsigned int v[LINE];
    // Row `column`, to begin with. A block too many is computed and not kept: all threads of a warp meet.
    keystream(v, &key, (unsigned int)column, first + block, 2u);
    for (unsigned int iteration = 0; ; iteration++) {
        unsigned int *square = squares[own][iteration % 2];
#pragma unroll
        for (int r = 0; r < LINE; r++) square[r * PADDED + column] = v[r];
        __syncwarp();
#pragma unroll
        for (int r = 0; r < LINE; r++) v[r] = square[column * PADDED + r];
        if (iteration == iterations) break;
        if (column == 0) v[0] ^= iteration;
        double_round(v);
    }
    if (block >= blocks) return;
#pragma unroll
    for (int r = 0; r < LINE; r++) out[256 * (size_t)block + LINE * r + column] = v[r];
}
