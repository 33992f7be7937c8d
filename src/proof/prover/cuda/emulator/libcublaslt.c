// A cublasLt that is none: as much of it as the prover calls, for the driver that is none, whose memory is this machine's. It
// multiplies as the library's manual says, column by column. What it was told that it does not expect is an error.
#include <stdint.h>
#include <stdlib.h>

enum { OK = 0, INVALID = 7, NOT_SUPPORTED = 15 };

struct description { int compute, scale, transpose_a; };
struct layout { int kind; uint64_t rows, columns; int64_t lead; };
struct result { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };

static int make(void **made, size_t bytes) { return (*made = calloc(1, bytes)) ? OK : 3; }
static int destroy(void *made) { free(made); return made ? OK : INVALID; }

size_t cublasLtGetVersion(void) { return 130000; }
int cublasLtCreate(void **handle) { return make(handle, 1); }
int cublasLtDestroy(void *handle) { return destroy(handle); }
int cublasLtMatmulDescCreate(void **made, int compute, int scale) {
    if (make(made, sizeof(struct description))) return 3;
    *(struct description *)*made = (struct description){compute, scale, 0};
    return OK;
}
int cublasLtMatmulDescDestroy(void *made) { return destroy(made); }
int cublasLtMatmulDescSetAttribute(struct description *it, int attribute, const int *value, size_t bytes) {
    if (attribute != 3 || bytes != 4) return INVALID;
    it->transpose_a = *value == 1;
    return OK;
}
int cublasLtMatrixLayoutCreate(void **made, int kind, uint64_t rows, uint64_t columns, int64_t lead) {
    if (make(made, sizeof(struct layout))) return 3;
    *(struct layout *)*made = (struct layout){kind, rows, columns, lead};
    return OK;
}
int cublasLtMatrixLayoutDestroy(void *made) { return destroy(made); }
int cublasLtMatmulPreferenceCreate(void **made) { return make(made, 1); }
int cublasLtMatmulPreferenceDestroy(void *made) { return destroy(made); }
int cublasLtMatmulPreferenceSetAttribute(void *it, int attribute, const uint64_t *value, size_t bytes) {
    return it && attribute == 1 && bytes == 8 && *value == 32 << 20 ? OK : INVALID;
}

// Whether these fit together: both factors int8, the first transposed, sums and product int32, columns one behind the other.
static int fits(const struct description *it, const struct layout *a, const struct layout *b, const struct layout *c) {
    return it->compute == 72 && it->scale == 10 && it->transpose_a && a->kind == 3 && b->kind == 3 && c->kind == 10 &&
           a->rows == b->rows && a->columns == c->rows && b->columns == c->columns && a->lead == (int64_t)a->rows &&
           b->lead == (int64_t)b->rows && c->lead == (int64_t)c->rows;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, const struct description *it, const struct layout *a, const struct layout *b,
                                   const struct layout *c, const struct layout *d, void *preference, int wanted,
                                   struct result *results, int *count) {
    *count = 0;
    if (!handle || !preference || wanted != 1 || c != d || !fits(it, a, b, c)) return INVALID;
    // Nothing for small ones: the prover has a kernel of its own for these.
    if (b->columns < 64) return NOT_SUPPORTED;
    *results = (struct result){.algorithm = {0x5eed}, .state = OK};
    *count = 1;
    return OK;
}

int cublasLtMatmul(void *handle, const struct description *it, const int *alpha, const int8_t *a, const struct layout *a_is,
                   const int8_t *b, const struct layout *b_is, const int *beta, const int *c, const struct layout *c_is, int *d,
                   const struct layout *d_is, const uint64_t *algorithm, void *workspace, size_t workspace_bytes, void *stream) {
    if (!handle || !stream || !workspace || workspace_bytes != 32 << 20 || *algorithm != 0x5eed || *alpha != 1 || *beta ||
        c != d || c_is != d_is || !fits(it, a_is, b_is, c_is)) {
        return INVALID;
    }
    for (uint64_t column = 0; column < d_is->columns; column++) {
        for (uint64_t row = 0; row < d_is->rows; row++) {
            int sum = 0;
            for (uint64_t x = 0; x < a_is->rows; x++) sum += a[row * a_is->lead + x] * b[column * b_is->lead + x];
            d[column * d_is->lead + row] = sum;
        }
    }
    return OK;
}
