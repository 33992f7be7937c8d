// What CUDA C++ has and C has not, for the kernels' sources on a CPU: see emulator.c.
#ifndef SHIM_H
#define SHIM_H

#include <stddef.h>

#define EMULATED
#define KERNEL static
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)
#define __syncthreads() wait_for_block()
#define __syncwarp() wait_for_warp()
#define __shfl_xor_sync(threads, value, mask) exchange(value, mask)

typedef struct { unsigned int x, y, z, w; } uint4;
typedef struct { int x, y; } int2;
typedef struct { unsigned int x, y; } Index;

// Of the thread that runs.
static Index threadIdx, blockIdx, blockDim;

static void wait_for_block(void);
static void wait_for_warp(void);
static unsigned int exchange(unsigned int value, int mask);
#if __CUDA_ARCH__ < 800
static void mma_8x8x16(int *c, unsigned int a, unsigned int b);
#else
static void mma_16x8x32(int *c, const unsigned int *a, const unsigned int *b);
static void copy_later(void *to, const void *from, int there);
static void copies_end(void);
static void copies_wait_but_one(void);
#endif

#endif
