// A CUDA driver that is none: as much of libcuda as the prover calls, with two devices that run the kernels' sources on a CPU.
// A test puts it in the driver's place, so that what is passed through the driver's interface is seen to arrive.
//
// Streams do at once what they are given. At its end it tells stderr what was not given back.
#define main emulator_main
#include "emulator.c"
#undef main

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, INVALID_PTX = 218, NOT_FOUND = 500 };
#define MEMORY ((size_t)1 << 34)

static char context, stream;
static int modules, streams, allocations, landings, contexts;

static void tell(void) {
    fprintf(stderr, "left: %d contexts, %d modules, %d streams, %d allocations, %d landings\n", contexts, modules, streams,
            allocations, landings);
}

int cuDriverGetVersion(int *version) { *version = 12000; return OK; }
int cuInit(unsigned int flags) {
    if (!stacks && !flags) {
        stacks = malloc((size_t)MOST_THREADS * STACK);
        atexit(tell);
    }
    return stacks ? OK : OUT_OF_MEMORY;
}
int cuDeviceGetCount(int *count) { *count = 2; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
// 16 bytes 02 for the first device, 03 for the second.
int cuDeviceGetUuid(char *uuid, int device) { memset(uuid, 2 + device, 16); return OK; }
int cuDeviceGetUuid_v2(char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
int cuDeviceGetName(char *name, int length, int device) { snprintf(name, (size_t)length, "Emulated %d", device); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return device < 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    // The compute capability's two parts; nothing else is there.
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 : 0;
    return device < 0;
}
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; contexts++; return device != 1; }
int cuDevicePrimaryCtxRelease_v2(int device) { contexts--; return device != 1; }
int cuCtxSetCurrent(void *given) { return given != &context && given; }
int cuCtxGetCurrent(void **current_one) { *current_one = &context; return OK; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *all) { *free_bytes = *all = MEMORY; return OK; }
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    void *made;
    if (posix_memalign(&made, 256, bytes)) return OUT_OF_MEMORY;
    allocations++;
    *address = (uint64_t)made;
    return OK;
}
int cuMemFree_v2(uint64_t address) { free((void *)address); allocations--; return OK; }
int cuMemHostAlloc(void **made, size_t bytes, unsigned int flags) { *made = malloc(bytes); landings++; return flags != 0; }
int cuMemFreeHost(void *made) { free(made); landings--; return OK; }
int cuStreamCreate(void **made, unsigned int flags) { *made = &stream; streams++; return flags != 1; }
int cuStreamSynchronize(void *given) { return given != &stream; }
int cuStreamDestroy_v2(void *given) { streams--; return given != &stream; }
int cuModuleLoadData(void **module, const char *image) {
    *module = strdup(image);
    modules++;
    return strstr(image, ".version 8.0") ? OK : INVALID_PTX;
}
int cuModuleUnload(void *module) { free(module); modules--; return OK; }

// The kernels' names, and their arguments: key, number, memory.
static const struct { const char *name, *kinds; } known[] = {
    {"fill_rows", "knnnnm"}, {"hash_tiles", "kmnnnm"}, {"hash_nodes", "kmnm"}, {"multiply_strip", "mmmnnn"},
    {"fill_blocks", "knnnm"}, {"scan_groups", "kmmnnm"},
};

int cuModuleGetFunction(void **function, const char *module, const char *name) {
    char entry[80];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        *function = (void *)(i + 1);
        if (!strcmp(name, known[i].name)) return strstr(module, entry) ? OK : NOT_FOUND;
    }
    return NOT_FOUND;
}

int cuLaunchKernel(void *function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int threads_x,
                   unsigned int threads_y, unsigned int threads_z, unsigned int shared, void *on, void **given, void **extra) {
    static int launches;
    const size_t which = (size_t)function - 1;
    if (grid_z != 1 || threads_y != 1 || threads_z != 1 || shared || extra || on != &stream) return INVALID;
    for (int i = 0; known[which].kinds[i]; i++) {
        switch (known[which].kinds[i]) {
        case 'k': arguments[i].tag = 0; memcpy(arguments[i].key, given[i], sizeof arguments[i].key); break;
        case 'n': arguments[i].tag = 1; memcpy(&arguments[i].number, given[i], sizeof arguments[i].number); break;
        default: arguments[i].tag = 2; memcpy(&arguments[i].memory, given[i], sizeof arguments[i].memory);
        }
    }
    kernel = kernels[which].run;
    blockDim.x = threads_x;
    const int falling = launches++ % 2;
    for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++) {
        for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++) run_block(threads_x, falling);
    }
    return OK;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *on) {
    if (on != &stream) return INVALID;
    memcpy(to, (const void *)from, bytes);
    return OK;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *on) {
    if (on != &stream) return INVALID;
    memcpy((void *)to, (const void *)from, bytes);
    return OK;
}
