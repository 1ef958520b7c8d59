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

/* Gradients; each may take the place of an input. */
static void run_backward(check *c)
{
    double want[2][MOST];
    double allowed[2][MOST];
    int64_t n = check_size(c, 32, MOST);
    float *in[3];
    static const char *const names[] = {"gate", "up", "dy"};
    for (int k = 0; k < 3; k++) {
        in[k] = check_floats(c, names[k], n, 4);
        check_fill(c, in[k], n, k == c->index % 11 ? CHECK_NAN : CHECK_NORMAL);
    }
    check_fill(c, in[0], n, (check_values)(c->index % CHECK_KINDS));
    if (c->index % 4 == 1) {
        for (int64_t i = 0; i < n; i++) {
            in[0][i] = (float)(60 * check_normal(c));
        }
    }
    for (int64_t i = 0; i < n; i++) {
        double z = (double)in[0][i];
        double u = (double)in[1][i];
        double d = (double)in[2][i];
        double sigma = 1 / (1 + exp(-z));
        want[0][i] = d * u * sigma * (1 + z * (1 - sigma));
        want[1][i] = d * z * sigma;
        /* 1 − σ is rounded before it meets the gate; beyond 88 as in run */
        double slope = fmin(fabs(z) * 0x1p-24, 0x1p-19) + 8 * 0x1p-24 * (1 + fabs(z) * (1 - sigma));
        allowed[0][i] = fabs(d * u) * (sigma * slope + 0x1p-119) + 2 * FLT_MIN;
        allowed[1][i] = 8 * 0x1p-24 * fabs(want[1][i]) + 0x1p-119 * fabs(d) + 2 * FLT_MIN;
        if (isnan(d * u) || isnan(z) || isinf(z)) {
            want[0][i] = NAN;
        }
        if (isnan(d) || isnan(z) || z == -INFINITY) {
            want[1][i] = NAN;
        }
    }
    int place = (int)(c->index % 6);
    float *dgate = place < 3 ? check_floats(c, "dgate", n, 4) : in[place - 3];
    float *dup = place < 5 ? check_floats(c, "dup", n, 4) : in[1];
    for (int k = 0; k < 3; k++) {
        if (in[k] != dgate && in[k] != dup) {
            check_input(c, in[k]);
        }
    }
    CHECK_CALL(c, attn_swiglu_backward_for(c->isa)(in[0], in[1], in[2], n, dgate, dup));
    if (!c->failed && check_close(c, "dgate", dgate, want[0], allowed[0], n)) {
        check_close(c, "dup", dup, want[1], allowed[1], n);
    }
}

enum { BENCH = 1536 };
static float bench_g[BENCH], bench_u[BENCH], bench_y[BENCH], bench_z[BENCH];

static double bench(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_swiglu_for(isa)(bench_g, bench_u, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static double bench_backward(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_swiglu_backward_for(isa)(bench_g, bench_u, bench_u, BENCH, bench_y, bench_z);
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
    {"swiglu/backward", table, run_backward, 600, bench_backward, "elements"},
};

const check_family check_swiglu = {kernels, sizeof kernels / sizeof *kernels};
