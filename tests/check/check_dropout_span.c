/* kernels/dropout/dropout_span: the mask against Philox element by element, wherever the array starts, the same bits at every level. */
#include "check.h"

#include "base/rng.h"
#include "kernels/dropout/dropout_span.h"

#include <math.h>

enum { MOST = 400 };

static void run(check *c)
{
    /* around 2³² counters, and around the end of 32-bit lanes below them */
    static const int64_t starts[] = {0, 4096, ((int64_t)1 << 34) - 150, ((int64_t)1 << 40) + 64};
    float want[MOST];
    int64_t n = check_size(c, 64, MOST);
    int64_t at = starts[c->index % 4] + check_range(c, 0, 7);
    uint64_t seed = check_next(c);
    double p = c->index % 9 == 8 ? 0 : c->index % 9 == 7 ? 0.999 : check_uniform(c);
    uint32_t threshold = (uint32_t)(p * 0x1p32);
    float scale = (float)(1 / (1 - p));
    float *x = check_floats(c, "x", n, 4);
    check_fill(c, x, n, CHECK_NORMAL);
    for (int64_t k = 0; k < n; k++) {
        uint64_t block = (uint64_t)(at + k) / 4;
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0, 0};
        bool kept = attn_philox(seed, counter).word[(at + k) % 4] >= threshold;
        x[k] = kept || k % 3 != 0 ? x[k] : NAN; /* a dropped NaN is dropped */
        want[k] = kept ? x[k] * scale : 0;
    }
    float *const y = c->index % 3 == 0 ? x : check_floats(c, "y", n, 4);
    if (y != x) {
        check_input(c, x);
    }
    CHECK_CALL(c, attn_dropout_span_for(c->isa)(seed, threshold, scale, at, x, n, y));
    if (!c->failed) {
        check_same(c, "y", y, want, n);
    }
}

enum { BENCH = 4096 };
static float bench_x[BENCH], bench_y[BENCH];

static double bench(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_dropout_span_for(isa)(7, 1u << 30, 1, n * BENCH, bench_x, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

/* A function pointer is no object pointer: levels are told apart by number. */
static const void *table(attn_isa isa)
{
    static const char own[64];
    attn_isa level = ATTN_ISA_C;
    level =
        attn_dropout_span_for(isa) == attn_dropout_span_for(ATTN_ISA_AVX2) ? ATTN_ISA_AVX2 : level;
    level = attn_dropout_span_for(isa) == attn_dropout_span_for(ATTN_ISA_AVX512) ? ATTN_ISA_AVX512
                                                                                 : level;
    level = attn_dropout_span_for(isa) == attn_dropout_span_for(ATTN_ISA_C) ? ATTN_ISA_C : level;
    return &own[(int)level];
}

static const check_kernel kernels[] = {
    {"dropout/span", table, run, 300, bench, "elements"},
};

const check_family check_dropout_span = {kernels, sizeof kernels / sizeof *kernels};
