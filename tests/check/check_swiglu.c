/* kernels/swiglu: silu(gate)·up against double, infinities and NaN included. */
#include "check.h"

#include "kernels/swiglu/swiglu.h"

#include <float.h>
#include <math.h>

enum { MOST = 300 };

static void run(check *c)
{
    double want[MOST];
    double allowed[MOST];
    int64_t n = check_size(c, 32, MOST);
    float *gate = check_floats(c, "gate", n, 4);
    float *up = check_floats(c, "up", n, 4);
    float *y = gate;
    check_fill(c, gate, n, (check_values)(c->index % CHECK_KINDS));
    check_fill(c, up, n, c->index % 7 == 3 ? CHECK_NAN : CHECK_NORMAL);
    if (c->index % 4 == 1) { /* slopes, far out on both sides */
        for (int64_t i = 0; i < n; i++) {
            gate[i] = (float)(60 * check_normal(c));
        }
    }
    for (int64_t i = 0; i < n; i++) {
        double z = (double)gate[i];
        want[i] = z / (1 + exp(-z)) * (double)up[i];
        /* e^-z is not a float beyond 88: what remains of the result there is below 2^-120 */
        allowed[i] = 8 * 0x1p-24 * fabs(want[i]) + 0x1p-119 * fabs((double)up[i]) + 2 * FLT_MIN;
        want[i] = z == -INFINITY || isnan(z) ? NAN : want[i];
    }
    switch (c->index % 5) {
    case 3:
        y = gate;
        check_input(c, up);
        break;
    case 4:
        y = up;
        check_input(c, gate);
        break;
    default:
        y = check_floats(c, "y", n, 4);
        check_input(c, gate);
        check_input(c, up);
    }
    CHECK_CALL(c, attn_swiglu_for(c->isa)(gate, up, n, y));
    if (!c->failed) {
        check_close(c, "y", y, want, allowed, n);
    }
}

enum { BENCH = 1536 };
static float bench_g[BENCH], bench_u[BENCH], bench_y[BENCH];

static double bench(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_swiglu_for(isa)(bench_g, bench_u, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

/* A function pointer is no object pointer: levels are told apart by number. */
static const void *table(attn_isa isa)
{
    static const char own[64];
    attn_isa level = ATTN_ISA_C;
    level = attn_swiglu_for(isa) == attn_swiglu_for(ATTN_ISA_AVX2) ? ATTN_ISA_AVX2 : level;
    level = attn_swiglu_for(isa) == attn_swiglu_for(ATTN_ISA_AVX512) ? ATTN_ISA_AVX512 : level;
    level = attn_swiglu_for(isa) == attn_swiglu_for(ATTN_ISA_C) ? ATTN_ISA_C : level;
    return &own[(int)level];
}

static const check_kernel kernels[] = {
    {"swiglu/f32", table, run, 300, bench, "elements"},
};

const check_family check_swiglu = {kernels, sizeof kernels / sizeof *kernels};
