// Runs the kernels' sources on a CPU, for tests where there is no GPU: a small device on stdin and stdout.
//
// Each thread of a block is a coroutine that runs until it ends or waits: for its block (`__syncthreads`) or for
// its warp (`__syncwarp`, exchanges, `mma`). A barrier that not all reach ends the program, since a GPU may do anything then. The threads take turns in
// rising order in one launch and in falling order in the next, so that a missing barrier shows; a copy in the background is
// made at the last moment that the kernel allows; behind every allocation lies a page that must not be touched. Fragments
// are laid out as the PTX manual has them ("Matrix Fragments for mma.m8n8k16", "… mma.m16n8k32").
//
// A request is a u32 that says which, and its fields, little-endian without padding: see `main`.
#define _GNU_SOURCE
#include "shim.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define Key FillKey
#include "../fill.cu"
#undef Key
#define Key HashKey
#include "../hash.cu"
#undef Key
#include "../gemm.cu"

#define MOST_THREADS 256
#define STACK (64 * 1024)
#define WARP 32
#define MOST_MEMORIES 64
#define PAGE 4096
#define MOST_COPIES 64

static void fail(const char *what) {
    fprintf(stderr, "emulator: %s\n", what);
    exit(1);
}

// === Threads ===

enum Waits { FOR_NOTHING, FOR_BLOCK, FOR_WARP, FOR_EXCHANGE, FOR_MMA_8X8X16, FOR_MMA_16X8X32, ENDED };

typedef struct { void *to; const void *from; int there; } Copy;

typedef struct {
    ucontext_t context;
    enum Waits waits;
    // The operands of the mma that it waits in.
    int *c;
    unsigned int a[4], b[2];
    // What it gives in an exchange and to whom; and then what it got.
    unsigned int exchanged;
    int mask;
    // Copies that are under way: those before `closed[i]` belong to group i or an earlier one.
    Copy copies[MOST_COPIES];
    int copy_count, closed[MOST_COPIES], group_count;
} Thread;

static Thread threads[MOST_THREADS];
static unsigned char *stacks;
static ucontext_t scheduler;
static unsigned int current;

static void wait(enum Waits what) {
    threads[current].waits = what;
    swapcontext(&threads[current].context, &scheduler);
}

static void wait_for_block(void) { wait(FOR_BLOCK); }
static void wait_for_warp(void) { wait(FOR_WARP); }

static unsigned int exchange(unsigned int value, int mask) {
    Thread *thread = &threads[current];
    thread->exchanged = value;
    thread->mask = mask;
    wait(FOR_EXCHANGE);
    return thread->exchanged;
}

#if __CUDA_ARCH__ < 800
static void mma_8x8x16(int *c, unsigned int a, unsigned int b) {
    Thread *thread = &threads[current];
    thread->c = c;
    thread->a[0] = a;
    thread->b[0] = b;
    wait(FOR_MMA_8X8X16);
}
#endif

#if __CUDA_ARCH__ >= 800
static void mma_16x8x32(int *c, const unsigned int *a, const unsigned int *b) {
    Thread *thread = &threads[current];
    thread->c = c;
    memcpy(thread->a, a, sizeof thread->a);
    memcpy(thread->b, b, sizeof thread->b);
    wait(FOR_MMA_16X8X32);
}

static void copy_later(void *to, const void *from, int there) {
    Thread *thread = &threads[current];
    if (thread->copy_count == MOST_COPIES) fail("too many copies are under way");
    thread->copies[thread->copy_count++] = (Copy){to, from, there};
}

static void copies_end(void) {
    Thread *thread = &threads[current];
    if (thread->group_count == MOST_COPIES) fail("too many groups of copies");
    thread->closed[thread->group_count++] = thread->copy_count;
}

static void copies_wait_but_one(void) {
    Thread *thread = &threads[current];
    if (thread->group_count < 2) return;
    const int done = thread->closed[thread->group_count - 2];
    for (int i = 0; i < done; i++) {
        const Copy *copy = &thread->copies[i];
        if (copy->there) memcpy(copy->to, copy->from, 16);
        else memset(copy->to, 0, 16);
    }
    memmove(thread->copies, thread->copies + done, (size_t)(thread->copy_count - done) * sizeof(Copy));
    thread->copy_count -= done;
    thread->closed[0] = thread->closed[thread->group_count - 1] - done;
    thread->group_count = 1;
}
#endif

static int byte(unsigned int word, int index) { return (int8_t)(word >> (8 * index)); }

// The mma that all threads of this warp wait in. `deep` is 2 for 16×8×32, 1 for 8×8×16.
static void multiply_warp(Thread *warp, int deep) {
    static int a[16][32], b[32][8];
    for (int lane = 0; lane < WARP; lane++) {
        const int group = lane / 4, in_group = lane % 4;
        if (deep == 2) {
            for (int i = 0; i < 16; i++) {
                const int row = i < 4 || (i >= 8 && i < 12) ? group : group + 8;
                const int column = in_group * 4 + (i & 3) + (i >= 8 ? 16 : 0);
                a[row][column] = byte(warp[lane].a[i / 4], i % 4);
            }
            for (int i = 0; i < 8; i++) {
                b[in_group * 4 + (i & 3) + (i >= 4 ? 16 : 0)][group] = byte(warp[lane].b[i / 4], i % 4);
            }
        } else {
            for (int i = 0; i < 4; i++) {
                a[group][in_group * 4 + i] = byte(warp[lane].a[0], i);
                b[in_group * 4 + i][group] = byte(warp[lane].b[0], i);
            }
        }
    }
    for (int lane = 0; lane < WARP; lane++) {
        const int group = lane / 4, in_group = lane % 4;
        for (int i = 0; i < 2 * deep; i++) {
            const int row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
            for (int x = 0; x < 16 * deep; x++) warp[lane].c[i] += a[row][x] * b[x][column];
        }
    }
}

static void exchange_warp(Thread *warp) {
    unsigned int given[WARP];
    for (int lane = 0; lane < WARP; lane++) given[lane] = warp[lane].exchanged;
    for (int lane = 0; lane < WARP; lane++) warp[lane].exchanged = given[lane ^ warp[lane].mask];
}

// === Launches ===

typedef struct {
    uint32_t tag; // 0 a key, 1 a number, 2 memory
    unsigned char key[32];
    uint32_t number;
    void *memory;
} Argument;

static Argument arguments[8];

static void *memory(int i) {
    if (arguments[i].tag != 2) fail("an argument is no memory");
    return arguments[i].memory;
}
static uint32_t number(int i) {
    if (arguments[i].tag != 1) fail("an argument is no number");
    return arguments[i].number;
}
#define KEY(type, i)                                                   \
    type key;                                                          \
    if (arguments[i].tag != 0) fail("an argument is no key");          \
    memcpy(&key, arguments[i].key, sizeof key)

static void run_fill_rows(void) {
    KEY(FillKey, 0);
    fill_rows(key, number(1), number(2), number(3), number(4), memory(5));
}
static void run_hash_tiles(void) {
    KEY(HashKey, 0);
    hash_tiles(key, memory(1), number(2), number(3), number(4), memory(5));
}
static void run_hash_nodes(void) {
    KEY(HashKey, 0);
    hash_nodes(key, memory(1), number(2), memory(3));
}
static void run_fill_blocks(void) {
    KEY(FillKey, 0);
    fill_blocks(key, number(1), number(2), number(3), memory(4));
}
static void run_scan_groups(void) {
    KEY(HashKey, 0);
    scan_groups(key, memory(1), memory(2), number(3), number(4), memory(5));
}
static void run_multiply_strip(void) {
    multiply_strip(memory(0), memory(1), memory(2), number(3), number(4), number(5));
}

// In the order of `kernels.rs`.
static const struct { void (*run)(void); unsigned int arguments; } kernels[] = {
    {run_fill_rows, 6},
    {run_hash_tiles, 6},
    {run_hash_nodes, 4},
    {run_multiply_strip, 6},
    {run_fill_blocks, 5},
    {run_scan_groups, 6},
};

static void (*kernel)(void);

static void run_thread(void) {
    kernel();
    wait(ENDED);
}

// Lets everybody go on who waits for what has come; whether anybody did.
static int release(unsigned int count) {
    int released = 0;
    unsigned int at_block = 0;
    for (unsigned int i = 0; i < count; i++) at_block += threads[i].waits == FOR_BLOCK;
    if (at_block == count) {
        for (unsigned int i = 0; i < count; i++) threads[i].waits = FOR_NOTHING;
        return 1;
    }
    for (unsigned int first = 0; first + WARP <= count; first += WARP) {
        Thread *warp = &threads[first];
        unsigned int together = 1;
        while (together < WARP && warp[together].waits == warp[0].waits) together++;
        if (together < WARP) continue;
        switch (warp[0].waits) {
        case FOR_WARP: break;
        case FOR_EXCHANGE: exchange_warp(warp); break;
        case FOR_MMA_8X8X16: multiply_warp(warp, 1); break;
        case FOR_MMA_16X8X32: multiply_warp(warp, 2); break;
        default: continue;
        }
        for (int i = 0; i < WARP; i++) warp[i].waits = FOR_NOTHING;
        released = 1;
    }
    return released;
}

static void run_block(unsigned int count, int falling) {
    for (unsigned int i = 0; i < count; i++) {
        Thread *thread = &threads[i];
        if (getcontext(&thread->context)) fail("no context");
        thread->context.uc_stack.ss_sp = stacks + (size_t)i * STACK;
        thread->context.uc_stack.ss_size = STACK;
        thread->context.uc_link = NULL;
        thread->waits = FOR_NOTHING;
        thread->copy_count = thread->group_count = 0;
        makecontext(&thread->context, run_thread, 0);
    }
    for (;;) {
        unsigned int ended = 0;
        for (unsigned int turn = 0; turn < count; turn++) {
            current = falling ? count - 1 - turn : turn;
            if (threads[current].waits == FOR_NOTHING) {
                threadIdx.x = current;
                swapcontext(&scheduler, &threads[current].context);
            }
            ended += threads[current].waits == ENDED;
        }
        if (ended == count) return;
        if (!release(count)) fail("threads wait for each other: a barrier is not reached by all");
    }
}

// === Requests ===

static struct { unsigned char *begin; uint64_t bytes; } memories[MOST_MEMORIES];

static void take(void *into, size_t bytes) {
    if (bytes && fread(into, bytes, 1, stdin) != 1) fail("a request ends early");
}
static uint32_t take_u32(void) { uint32_t value; take(&value, sizeof value); return value; }
static uint64_t take_u64(void) { uint64_t value; take(&value, sizeof value); return value; }
static void give(const void *from, size_t bytes) {
    if ((bytes && fwrite(from, bytes, 1, stdout) != 1) || fflush(stdout)) fail("the answer cannot be written");
}
static void give_u32(uint32_t value) { give(&value, sizeof value); }

// A handle, an offset and a length: where that is.
static void *take_place(uint64_t *bytes) {
    const uint32_t handle = take_u32();
    const uint64_t offset = take_u64();
    *bytes = take_u64();
    if (handle >= MOST_MEMORIES || !memories[handle].begin) fail("no such memory");
    if (offset > memories[handle].bytes || *bytes > memories[handle].bytes - offset) fail("beyond the memory's end");
    return memories[handle].begin + offset;
}

// Memory whose end is the end of its pages; a kernel that goes beyond it is killed.
static void allocate(void) {
    const uint64_t bytes = take_u64(), mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    uint32_t handle = 0;
    while (handle < MOST_MEMORIES && memories[handle].begin) handle++;
    if (handle == MOST_MEMORIES) fail("too many allocations");
    unsigned char *pages = mmap(NULL, mapped + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + mapped, PAGE, PROT_NONE)) fail("out of memory");
    memset(pages, 0xa5, mapped);
    memories[handle].begin = pages + (mapped - bytes);
    memories[handle].bytes = bytes;
    give_u32(handle);
}

static void release_memory(void) {
    const uint32_t handle = take_u32();
    if (handle >= MOST_MEMORIES || !memories[handle].begin) fail("no such memory");
    const uint64_t bytes = memories[handle].bytes, mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    munmap(memories[handle].begin - (mapped - bytes), mapped + PAGE);
    memories[handle].begin = NULL;
}

static void launch(void) {
    static int launches;
    const uint32_t which = take_u32(), grid_x = take_u32(), grid_y = take_u32(), count = take_u32(), given = take_u32();
    if (which >= sizeof kernels / sizeof *kernels || given != kernels[which].arguments) fail("no such kernel");
    if (!count || count > MOST_THREADS) fail("too many threads in a block");
    for (uint32_t i = 0; i < given; i++) {
        Argument *argument = &arguments[i];
        argument->tag = take_u32();
        uint64_t bytes;
        switch (argument->tag) {
        case 0: take(argument->key, sizeof argument->key); break;
        case 1: argument->number = take_u32(); break;
        case 2: argument->memory = take_place(&bytes); break;
        default: fail("no such kind of argument");
        }
    }
    kernel = kernels[which].run;
    blockDim.x = count;
    const int falling = launches++ % 2;
    for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++) {
        for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++) run_block(count, falling);
    }
    give_u32(1);
}

int main(void) {
    stacks = malloc((size_t)MOST_THREADS * STACK);
    if (!stacks) fail("out of memory");
    uint32_t request;
    while (fread(&request, sizeof request, 1, stdin) == 1) {
        uint64_t bytes;
        void *place;
        switch (request) {
        case 0: allocate(); break; // bytes u64; answers a handle, u32
        case 1: release_memory(); break; // handle u32; no answer
        case 2: place = take_place(&bytes); give(place, bytes); break; // handle u32, offset u64, bytes u64; answers those
        case 3: place = take_place(&bytes); take(place, bytes); break; // the same, then those; no answer
        case 4: launch(); break; // kernel, grid's x and y, threads, arguments: u32 each; answers 1, u32
        default: fail("no such request");
        }
    }
    return 0;
}
