// Hashes of tiles, straight from a strip of the product, and of inner nodes: BLAKE3 in keyed mode (docs/proof.md, "Tree"); and
// the digests of a memory proof's blocks with their hashes.
//
// A tile is four whole chunks of 16 blocks, a node or a group of digests a single block, so a block always has 64 bytes.
// Written in what C and CUDA C++ have in common: emulator/ runs the same source on a CPU.

typedef struct { unsigned int word[8]; } Key;

#define CHUNK_START 1u
#define CHUNK_END 2u
#define PARENT 4u
#define ROOT 8u
#define KEYED_HASH 16u
#define BLOCK_BYTES 64u
// Tiles of one block of threads; there are four threads for each, one for each chunk.
#define TILES 32

static __device__ __forceinline__ unsigned int rotate_right(unsigned int x, int by) { return (x >> by) | (x << (32 - by)); }

#define G(a, b, c, d, x, y)                                  \
    do {                                                     \
        a += b + (x); d = rotate_right(d ^ a, 16);           \
        c += d;       b = rotate_right(b ^ c, 12);           \
        a += b + (y); d = rotate_right(d ^ a, 8);            \
        c += d;       b = rotate_right(b ^ c, 7);            \
    } while (0)

#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
    do {                                                     \
        G(v0, v4, v8, v12, m[m0], m[m1]);                    \
        G(v1, v5, v9, v13, m[m2], m[m3]);                    \
        G(v2, v6, v10, v14, m[m4], m[m5]);                   \
        G(v3, v7, v11, v15, m[m6], m[m7]);                   \
        G(v0, v5, v10, v15, m[m8], m[m9]);                   \
        G(v1, v6, v11, v12, m[m10], m[m11]);                 \
        G(v2, v7, v8, v13, m[m12], m[m13]);                  \
        G(v3, v4, v9, v14, m[m14], m[m15]);                  \
    } while (0)

// The compression of the block `m` into the chaining value `cv`.
static __device__ __forceinline__ void compress(unsigned int *cv, const unsigned int *m, unsigned int counter, unsigned int flags) {
    unsigned int v0 = cv[0], v1 = cv[1], v2 = cv[2], v3 = cv[3], v4 = cv[4], v5 = cv[5], v6 = cv[6], v7 = cv[7];
    unsigned int v8 = 0x6a09e667u, v9 = 0xbb67ae85u, v10 = 0x3c6ef372u, v11 = 0xa54ff53au;
    unsigned int v12 = counter, v13 = 0u, v14 = BLOCK_BYTES, v15 = flags;
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8);
    ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1);
    ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6);
    ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4);
    ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7);
    ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13);
    cv[0] = v0 ^ v8; cv[1] = v1 ^ v9; cv[2] = v2 ^ v10; cv[3] = v3 ^ v11;
    cv[4] = v4 ^ v12; cv[5] = v5 ^ v13; cv[6] = v6 ^ v14; cv[7] = v7 ^ v15;
}

static __device__ __forceinline__ void load_block(unsigned int *m, const uint4 *from) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint4 words = from[i];
        m[4 * i] = words.x; m[4 * i + 1] = words.y; m[4 * i + 2] = words.z; m[4 * i + 3] = words.w;
    }
}

static __device__ __forceinline__ void load_key(unsigned int *cv, const Key *key) {
#pragma unroll
    for (int i = 0; i < 8; i++) cv[i] = key->word[i];
}

static __device__ __forceinline__ void store_hash(uint4 *to, const unsigned int *cv) {
    uint4 half;
    half.x = cv[0]; half.y = cv[1]; half.z = cv[2]; half.w = cv[3];
    to[0] = half;
    half.x = cv[4]; half.y = cv[5]; half.z = cv[6]; half.w = cv[7];
    to[1] = half;
}

// The chaining value above those of chunks (or pairs) `left` and `right` of this thread's tile.
static __device__ __forceinline__ void merge(unsigned int *cv, const Key *key, const unsigned int *values, int left, int right, int tile, unsigned int flags) {
    unsigned int m[16];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        m[i] = values[(left * 8 + i) * TILES + tile];
        m[8 + i] = values[(right * 8 + i) * TILES + tile];
    }
    load_key(cv, key);
    compress(cv, m, 0u, KEYED_HASH | PARENT | flags);
}

// The hashes of the `tiles` tiles of a strip of the product: rows of `n` entries one after the other, 2^side_log2 tiles
// side by side. A block of threads does 32 tiles, warp `c` their chunks `c`.
KERNEL void __launch_bounds__(128)
hash_tiles(Key key, const int *strip, unsigned int n, unsigned int side_log2, unsigned int tiles, uint4 *leaves) {
    __shared__ unsigned int values[4 * 8 * TILES];
    const int lane = (int)(threadIdx.x % TILES), chunk = (int)(threadIdx.x / TILES);
    const unsigned int tile = blockIdx.x * TILES + (unsigned int)lane;
    unsigned int cv[8];
    if (tile < tiles) {
        const size_t row = (size_t)(tile >> side_log2) * 32 + (size_t)chunk * 8;
        const size_t column = (size_t)(tile & ((1u << side_log2) - 1u)) * 32;
        const int *from = strip + row * n + column;
        load_key(cv, &key);
        for (int i = 0; i < 8; i++) {
            unsigned int m[16];
            load_block(m, (const uint4 *)from);
            compress(cv, m, (unsigned int)chunk, i == 0 ? KEYED_HASH | CHUNK_START : KEYED_HASH);
            load_block(m, (const uint4 *)(from + 16));
            compress(cv, m, (unsigned int)chunk, i == 7 ? KEYED_HASH | CHUNK_END : KEYED_HASH);
            from += n;
        }
#pragma unroll
        for (int i = 0; i < 8; i++) values[(chunk * 8 + i) * TILES + lane] = cv[i];
    }
    __syncthreads();
    if (tile < tiles && chunk < 2) {
        merge(cv, &key, values, 2 * chunk, 2 * chunk + 1, lane, 0u);
#pragma unroll
        for (int i = 0; i < 8; i++) values[(2 * chunk * 8 + i) * TILES + lane] = cv[i];
    }
    __syncthreads();
    if (tile < tiles && chunk == 0) {
        merge(cv, &key, values, 0, 2, lane, ROOT);
        store_hash(leaves + 2 * (size_t)tile, cv);
    }
}

// `count` nodes above twice as many, one thread for each.
KERNEL void __launch_bounds__(128)
hash_nodes(Key key, const uint4 *below, unsigned int count, uint4 *above) {
    const unsigned int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    unsigned int cv[8], m[16];
    load_key(cv, &key);
    load_block(m, below + 4 * (size_t)index);
    compress(cv, m, 0u, KEYED_HASH | CHUNK_START | CHUNK_END | ROOT);
    store_hash(above + 2 * (size_t)index, cv);
}

// Groups that one warp does, one hash for each of its threads.
#define GROUPS 32

// Of 2·`half` sums keeps half, and adds the partner's.
#define HALVE(half)                                                                                       \
    _Pragma("unroll")                                                                                     \
    for (int i = 0; i < half; i++) {                                                                      \
        const int upper = lane & (2 * half);                                                              \
        const unsigned int given = upper ? sums[i] : sums[i + half];                                      \
        sums[i] = (upper ? sums[i + half] : sums[i]) + __shfl_xor_sync(0xffffffffu, given, 2 * half);     \
    }

// The leaves of one scan of a memory proof. The digest of a block of 256 words x is y[w] = Σ_m q[4m + w]·x[4m + w], w = 0…3; the leaf of
// a group is the hash of its four blocks' digests. Behind the `groups` leaves come zeros, up to `padded` of them in all.
KERNEL void __launch_bounds__(128)
scan_groups(Key key, const uint4 *coefficients, const uint4 *blocks, unsigned int groups, unsigned int padded, uint4 *leaves) {
    __shared__ unsigned int digests[128 / 32][16][GROUPS + 1];
    const int warp = (int)(threadIdx.x / 32), lane = (int)(threadIdx.x % 32);
    const unsigned int first = (blockIdx.x * (128 / 32) + (unsigned int)warp) * GROUPS;
    const uint4 q[2] = {coefficients[lane], coefficients[lane + 32]};
    for (unsigned int g = 0; g < GROUPS && first + g < groups; g++) {
        const uint4 *from = blocks + 256 * (size_t)(first + g) + lane;
        unsigned int sums[16];
#pragma unroll
        for (int block = 0; block < 4; block++) {
            const uint4 low = from[64 * block], high = from[64 * block + 32];
            sums[4 * block] = q[0].x * low.x + q[1].x * high.x;
            sums[4 * block + 1] = q[0].y * low.y + q[1].y * high.y;
            sums[4 * block + 2] = q[0].z * low.z + q[1].z * high.z;
            sums[4 * block + 3] = q[0].w * low.w + q[1].w * high.w;
        }
        // Each step halves the sums that a thread has, and adds its partner's to those that it keeps: in the end thread `lane`
        // has sum lane / 2, of half of the threads.
        HALVE(8);
        HALVE(4);
        HALVE(2);
        HALVE(1);
        sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], 1);
        if (lane % 2 == 0) digests[warp][lane / 2][g] = sums[0];
    }
    __syncwarp();
    const unsigned int group = first + (unsigned int)lane;
    if (group >= padded) return;
    unsigned int cv[8], m[16];
#pragma unroll
    for (int i = 0; i < 16; i++) m[i] = digests[warp][i][lane];
    load_key(cv, &key);
    compress(cv, m, 0u, KEYED_HASH | CHUNK_START | CHUNK_END | ROOT);
    if (group >= groups) {
#pragma unroll
        for (int i = 0; i < 8; i++) cv[i] = 0u;
    }
    store_hash(leaves + 2 * (size_t)group, cv);
}
