// A strip of the product by int8 tensor cores, for machines without cublasLt: C = A·B, exact in i32.
//
// A block of 128 threads makes 128 × 128 entries, each warp 64 × 64, in steps of 64 along the inner dimension. Operands
// come through shared memory: rows of 64 bytes whose four pieces of 16 lie permuted (`place`), so that neither the copies
// in nor the fragments out meet a bank twice. From sm_80 on three steps are under way (cp.async, mma of 16×8×32); before,
// two (through registers, mma of 8×8×16, of which the larger one is four: the fragments are the same).
//
// Written in what C and CUDA C++ have in common: emulator/ runs the same source on a CPU, with the instructions of the
// next section replaced by what the PTX manual says of them.

#ifndef EMULATED

#if __CUDA_ARCH__ >= 800
static __device__ __forceinline__ void mma_16x8x32(int *c, const unsigned int *a, const unsigned int *b) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Copies 16 bytes to shared memory in the background; zeros if not `there`.
static __device__ __forceinline__ void copy_later(void *to, const void *from, int there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((unsigned int)__cvta_generic_to_shared(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
}
static __device__ __forceinline__ void copies_end(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all groups of copies but the last one.
static __device__ __forceinline__ void copies_wait_but_one(void) { asm volatile("cp.async.wait_group 1;" ::: "memory"); }
#else
static __device__ __forceinline__ void mma_8x8x16(int *c, unsigned int a, unsigned int b) {
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+r"(c[0]), "+r"(c[1]) : "r"(a), "r"(b));
}
#endif

#endif

#define SIZE 128
#define STEP 64
#define THREADS 128
// Pieces of 16 bytes that one thread copies of each operand in one step.
#define PIECES (SIZE * STEP / 16 / THREADS)
// Rows between two of its pieces.
#define APART (SIZE / PIECES)
#if __CUDA_ARCH__ >= 800
#define STAGES 3
#else
#define STAGES 2
#endif

typedef struct { uint4 a[SIZE * STEP / 16], b[SIZE * STEP / 16]; } Stage;

// Where piece `piece` of row `row` lies.
static __device__ __forceinline__ int place(int row, int piece) { return row * 4 + (piece ^ ((row >> 1) & 3)); }

// Where word `word` of piece `piece` of row `row` lies. 8 rows on, that of row `row + 8` does.
static __device__ __forceinline__ const unsigned int *fragment(const uint4 *rows, int row, int piece, int word) {
    return (const unsigned int *)(rows + place(row, piece)) + word;
}
#define ROW_WORDS (STEP / 4)

#if __CUDA_ARCH__ < 800
static __device__ __forceinline__ void mma_16x8x32(int *c, const unsigned int *a, const unsigned int *b) {
    mma_8x8x16(c, a[0], b[0]);
    mma_8x8x16(c, a[2], b[1]);
    mma_8x8x16(c + 2, a[1], b[0]);
    mma_8x8x16(c + 2, a[3], b[1]);
}
#endif

// What one warp adds for half a step, the one that begins with piece `piece` of the operands in `stage`. `row`, `column` and
// `word` are this thread's first ones.
static __device__ __forceinline__ void multiply(int (*c)[8][4], const Stage *stage, int piece, int row, int column, int word) {
    const unsigned int *a0 = fragment(stage->a, row, piece, word), *a1 = fragment(stage->a, row, piece + 1, word);
    const unsigned int *b0 = fragment(stage->b, column, piece, word), *b1 = fragment(stage->b, column, piece + 1, word);
    unsigned int a[4][4], b[2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        a[i][0] = a0[16 * i * ROW_WORDS];
        a[i][1] = a0[(16 * i + 8) * ROW_WORDS];
        a[i][2] = a1[16 * i * ROW_WORDS];
        a[i][3] = a1[(16 * i + 8) * ROW_WORDS];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
        b[0] = b0[8 * j * ROW_WORDS];
        b[1] = b1[8 * j * ROW_WORDS];
#pragma unroll
        for (int i = 0; i < 4; i++) mma_16x8x32(c[i][j], a[i], b);
    }
}

// C[i][j] = Σ_x A[i][x]·B[j][x] for `rows` rows of A and `n` rows of B (the transpose), both multiples of 32, of `k` bytes, a
// multiple of 64.
// C has rows of `n` entries. Blocks of threads next to each other take other rows of A and the same ones of B.
KERNEL void __launch_bounds__(THREADS)
multiply_strip(const signed char *a, const signed char *b, int *c, unsigned int rows, unsigned int n, unsigned int k) {
    __shared__ Stage stages[STAGES];
    const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
    const unsigned int row0 = blockIdx.x * SIZE, column0 = blockIdx.y * SIZE;
    const int steps = (int)(k / STEP);
    int sums[4][8][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) sums[i][j][e] = 0;
        }
    }

    // This thread's pieces lie 32 rows apart. Where there are no such rows, the first one stands in, unread.
    const int own_row = thread / 4, own_piece = thread % 4, to = place(own_row, own_piece);
    const int rows_a = rows - row0 < SIZE ? (int)(rows - row0) : SIZE, rows_b = n - column0 < SIZE ? (int)(n - column0) : SIZE;
    const signed char *from_a = a + (size_t)(row0 + own_row) * k + 16 * own_piece;
    const signed char *from_b = b + (size_t)(column0 + own_row) * k + 16 * own_piece;
    const size_t stride = (size_t)APART * k;

    const int warp_row = 64 * (warp / 2), warp_column = 64 * (warp % 2), group = lane / 4, word = lane % 4;
#if __CUDA_ARCH__ >= 800
// Begins to copy the next step's operands, if there are any.
#define COPY(into, there)                                                                                 \
    do {                                                                                                  \
        if (there) {                                                                                      \
            _Pragma("unroll")                                                                             \
            for (int i = 0; i < PIECES; i++) {                                                            \
                const int there_a = APART * i < rows_a, there_b = APART * i < rows_b;                     \
                copy_later(&(into)->a[to + 4 * APART * i], there_a ? from_a + i * stride : from_a, there_a);\
                copy_later(&(into)->b[to + 4 * APART * i], there_b ? from_b + i * stride : from_b, there_b);\
            }                                                                                             \
            from_a += STEP;                                                                               \
            from_b += STEP;                                                                               \
        }                                                                                                 \
        copies_end();                                                                                     \
    } while (0)
    int here = 0, last = STAGES - 1; // the stages of this step and of the one before, which is that of the next but one
    COPY(&stages[0], 1);
    COPY(&stages[1], steps > 1);
    for (int left = steps; left > 0; left--) {
        copies_wait_but_one();
        __syncthreads(); // all copies of this step are there, and nobody reads the last step's any more
        COPY(&stages[last], left > 2);
        multiply(sums, &stages[here], 0, warp_row + group, warp_column + group, word);
        multiply(sums, &stages[here], 2, warp_row + group, warp_column + group, word);
        last = here;
        here = here + 1 == STAGES ? 0 : here + 1;
    }
#undef COPY
#else
    uint4 next[PIECES], zero;
    zero.x = zero.y = zero.z = zero.w = 0u;
#define FETCH(from, there)                                                                                \
    _Pragma("unroll")                                                                                     \
    for (int i = 0; i < PIECES; i++) next[i] = APART * i < (there) ? *(const uint4 *)((from) + i * stride) : zero
#define STORE(into)                                                                                       \
    _Pragma("unroll")                                                                                     \
    for (int i = 0; i < PIECES; i++) (into)[to + 4 * APART * i] = next[i]
    FETCH(from_a, rows_a);
    STORE(stages[0].a);
    FETCH(from_b, rows_b);
    STORE(stages[0].b);
    for (int step = 0; step < steps; step++) {
        Stage *here = &stages[step % STAGES], *other = &stages[(step + 1) % STAGES];
        const int more = step + 1 < steps;
        from_a += STEP;
        from_b += STEP;
        __syncthreads(); // this step's operands are there, and nobody reads the other stage any more
        if (more) { FETCH(from_a, rows_a); }
        multiply(sums, here, 0, warp_row + group, warp_column + group, word);
        if (more) {
            STORE(other->a);
            FETCH(from_b, rows_b);
        }
        multiply(sums, here, 2, warp_row + group, warp_column + group, word);
        if (more) { STORE(other->b); }
    }
#undef FETCH
#undef STORE
#endif

#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const unsigned int row = row0 + warp_row + 16 * i + group, column = column0 + warp_column + 8 * j + 2 * word;
            int2 pair;
            if (row < rows && column < n) {
                pair.x = sums[i][j][0]; pair.y = sums[i][j][1];
                *(int2 *)(c + (size_t)row * n + column) = pair;
            }
            if (row + 8 < rows && column < n) {
                pair.x = sums[i][j][2]; pair.y = sums[i][j][3];
                *(int2 *)(c + (size_t)(row + 8) * n + column) = pair;
            }
        }
    }
}
