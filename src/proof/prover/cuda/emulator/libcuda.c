// A CUDA driver that is none: as much of libcuda as the prover calls, with two devices that run the kernels' sources on a CPU.
// A test puts it in the driver's place, so that what is passed through the driver's interface is seen to arrive.
//
// Streams do at once what they are given. At its end it tells stderr what was not given back.
//
// Files beside the library steer it. "faults": lines of `CALL NUMBER WHAT`, from the call of this number on (from 1) it returns
// the code WHAT, or `hang`s or `kill`s the process; and `version CODE`, `memory BYTES`. "calls", if it is there: the name of every
// call is appended to it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#define main emulator_main
#include "emulator.c"
#undef main

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_PTX = 218, NOT_FOUND = 500 };

static char context, stream;
static int modules, streams, allocations, landings, contexts;

static void tell(void) {
    fprintf(stderr, "left: %d contexts, %d modules, %d streams, %d allocations, %d landings\n", contexts, modules, streams,
            allocations, landings);
}

// A file beside this library, open, or -1.
static int beside(const char *name, int flags) {
    Dl_info info;
    char path[4096];
    if (!dladdr((void *)tell, &info)) return -1;
    const char *end = strrchr(info.dli_fname, '/');
    if (!end) return -1;
    snprintf(path, sizeof path, "%.*s/%s", (int)(end - info.dli_fname), info.dli_fname, name);
    return open(path, flags);
}

// The third word of the line of "faults" that begins with `call` and a number that is not above `number`, if there is one.
static int told(const char *call, long number, char what[32]) {
    char text[4096];
    const int file = beside("faults", O_RDONLY);
    if (file < 0) return 0;
    const ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length < 0 ? 0 : length] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char name[80];
        long from;
        if (sscanf(line, "%79s %ld %31s", name, &from, what) == 3 && !strcmp(name, call) && number >= from) return 1;
    }
    return 0;
}

static long long told_number(const char *what, long long otherwise) {
    char word[32];
    return told(what, 0, word) ? atoll(word) : otherwise;
}

static int fault(const char *call, long number) {
    char what[32];
    const int log = beside("calls", O_WRONLY | O_APPEND);
    if (log >= 0) {
        dprintf(log, "%s\n", call);
        close(log);
    }
    if (!told(call, number, what)) return OK;
    if (!strcmp(what, "hang")) for (;;) pause();
    if (!strcmp(what, "kill")) raise(SIGKILL);
    return atoi(what);
}

#define MAY_FAIL \
    do { \
        static long calls; \
        const int code = fault(__func__, ++calls); \
        if (code) return code; \
    } while (0)

// Which of the two devices are visible, as the environment has it: all, or one by its UUID.
static int visible(int device) {
    const char *only = getenv("CUDA_VISIBLE_DEVICES");
    char name[48];
    const int b = 2 + device;
    snprintf(name, sizeof name, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b, b, b, b, b, b, b, b, b, b,
             b, b, b, b, b, b);
    return !only || !strcmp(only, name);
}

static size_t device_memory(void) { return (size_t)told_number("memory", 1LL << 34); }

int cuDriverGetVersion(int *version) { MAY_FAIL; *version = (int)told_number("version", 12000); return OK; }
int cuInit(unsigned int flags) {
    MAY_FAIL;
    if (!visible(0) && !visible(1)) return NO_DEVICE;
    // As the real one: far more addresses than it uses.
    const int flags_of_it = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (mmap(NULL, (size_t)1 << 40, PROT_NONE, flags_of_it, -1, 0) == MAP_FAILED) return OUT_OF_MEMORY;
    if (!stacks && !flags) {
        stacks = malloc((size_t)MOST_THREADS * STACK);
        atexit(tell);
    }
    return stacks ? OK : OUT_OF_MEMORY;
}
int cuDeviceGetCount(int *count) { MAY_FAIL; *count = visible(0) + visible(1); return OK; }
int cuDeviceGet(int *device, int ordinal) { MAY_FAIL; *device = visible(0) ? ordinal : ordinal + 1; return OK; }
// 16 bytes 02 for the first device, 03 for the second.
int cuDeviceGetUuid(char *uuid, int device) { MAY_FAIL; memset(uuid, 2 + device, 16); return OK; }
int cuDeviceGetUuid_v2(char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }
int cuDeviceGetName(char *name, int length, int device) { MAY_FAIL; snprintf(name, (size_t)length, "Emulated %d", device); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { MAY_FAIL; *bytes = device_memory(); return device < 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    MAY_FAIL;
    // The compute capability's two parts; nothing else is there.
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 : 0;
    return device < 0;
}
int cuDevicePrimaryCtxRetain(void **made, int device) { MAY_FAIL; *made = &context; contexts++; return device != 1; }
int cuDevicePrimaryCtxRelease_v2(int device) { MAY_FAIL; contexts--; return device != 1; }
int cuCtxSetCurrent(void *given) { MAY_FAIL; return given != &context && given; }
int cuCtxGetCurrent(void **current_one) { MAY_FAIL; *current_one = &context; return OK; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *all) { MAY_FAIL; *free_bytes = *all = device_memory(); return OK; }
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    MAY_FAIL;
    void *made;
    if (posix_memalign(&made, 256, bytes)) return OUT_OF_MEMORY;
    allocations++;
    *address = (uint64_t)made;
    return OK;
}
int cuMemFree_v2(uint64_t address) { MAY_FAIL; free((void *)address); allocations--; return OK; }
int cuMemHostAlloc(void **made, size_t bytes, unsigned int flags) { MAY_FAIL; *made = malloc(bytes); landings++; return flags != 0; }
int cuMemFreeHost(void *made) { MAY_FAIL; free(made); landings--; return OK; }
int cuStreamCreate(void **made, unsigned int flags) { MAY_FAIL; *made = &stream; streams++; return flags != 1; }
int cuStreamSynchronize(void *given) { MAY_FAIL; return given != &stream; }
int cuStreamDestroy_v2(void *given) { MAY_FAIL; streams--; return given != &stream; }
int cuModuleLoadData(void **module, const char *image) {
    MAY_FAIL;
    *module = strdup(image);
    modules++;
    return strstr(image, ".version 8.0") ? OK : INVALID_PTX;
}
int cuModuleUnload(void *module) { MAY_FAIL; free(module); modules--; return OK; }

// The kernels' names, and their arguments: key, number, memory.
static const struct { const char *name, *kinds; } known[] = {
    {"fill_rows", "knnnnm"}, {"hash_tiles", "kmnnnm"}, {"hash_nodes", "kmnm"}, {"multiply_strip", "mmmnnn"},
    {"fill_blocks", "knnnm"}, {"scan_groups", "kmmnnm"},
};

int cuModuleGetFunction(void **function, const char *module, const char *name) {
    MAY_FAIL;
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
    MAY_FAIL;
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
    MAY_FAIL;
    if (on != &stream) return INVALID;
    memcpy(to, (const void *)from, bytes);
    return OK;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *on) {
    MAY_FAIL;
    if (on != &stream) return INVALID;
    memcpy((void *)to, (const void *)from, bytes);
    return OK;
}
