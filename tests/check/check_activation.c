/* kernels/activation: functions and slopes against textbook formulas in double, limits at the infinities included. */
#include "check.h"

#include "kernels/activation/activation.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { MOST = 200 };

/* Where a formula in double has no value at an infinity, its limit. */
static double value(int kind, double x)
{
    double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    bool left = x == -INFINITY;
    switch (kind) {
    case ATTN_ACT_RELU: return x > 0 ? x : x <= 0 ? 0 : x;
    case ATTN_ACT_GELU: return left ? 0 : x / 2 * erfc(-x * 0.7071067811865476);
    case ATTN_ACT_GELU_TANH: return left ? 0 : x / 2 * (1 + tanh(u));
    case ATTN_ACT_SILU: return left ? 0 : x / (1 + exp(-x));
    case ATTN_ACT_TANH: return tanh(x);
    case ATTN_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case ATTN_ACT_EXP: return exp(x);
    default: return log(x);
    }
}

static double slope(int kind, double x)
{
    double z = x > 500 ? 500 : x < -500 ? -500 : x; /* all slopes are at their limits */
    double u = 0.7978845608028654 * (z + 0.044715 * z * z * z);
    double c = cosh(u > 300 ? 300 : u < -300 ? -300 : u);
    double s = 1 / (1 + exp(-z));
    switch (kind) {
    case ATTN_ACT_RELU: return x > 0 ? 1 : x <= 0 ? 0 : x;
    case ATTN_ACT_GELU:
        return erfc(-z * 0.7071067811865476) / 2 + z * 0.3989422804014327 * exp(-z * z / 2);
    case ATTN_ACT_GELU_TANH:
        return (1 + tanh(u)) / 2 +
               z / 2 / (c * c) * 0.7978845608028654 * (1 + 3 * 0.044715 * z * z);
    case ATTN_ACT_SILU: return s + z * s / (1 + exp(z));
    case ATTN_ACT_TANH: return isnan(x) ? x : 1 / (cosh(z) * cosh(z));
    case ATTN_ACT_SIGMOID: return s / (1 + exp(z));
    case ATTN_ACT_EXP: return exp(x);
    default: return 1 / x;
    }
}

static bool is_gelu(int kind)
{
    return kind == ATTN_ACT_GELU || kind == ATTN_ACT_GELU_TANH;
}

static void fill(check *c, float *x, int64_t n)
{
    check_fill(c, x, n, (check_values)(c->index % CHECK_KINDS));
    for (int64_t i = 0; c->index % 4 == 1 && i < n; i++) { /* far out on both sides */
        x[i] = (float)(60 * check_normal(c));
    }
    for (int64_t i = 0; c->index % 4 == 2 && i < n; i++) { /* any size at all, +∞ among them */
        x[i] = check_uniform(c) < 0.1 ? INFINITY : (float)exp(160 * check_uniform(c) - 80);
    }
}

/* Subnormal inputs count as zeros of their sign. */
static double given(float x)
{
    return (double)(fabsf(x) < FLT_MIN ? copysignf(0, x) : x);
}

static void run_forward(check *c)
{
    double want[MOST];
    double allowed[MOST];
    int64_t n = check_size(c, 32, MOST);
    float *x = check_floats(c, "x", n, 4);
    float *y = check_floats(c, "y", n, 4);
    fill(c, x, n);
    check_input(c, x);
    for (int kind = 0; kind < ATTN_ACTIVATIONS && !c->failed; kind++) {
        for (int64_t i = 0; i < n; i++) {
            double exact = value(kind, given(x[i]));
            want[i] = (double)(float)exact;
            allowed[i] = is_gelu(kind) ? 2e-7 * fabs((double)x[i]) : 4e-7 * fabs(exact);
            allowed[i] += 0x1p-119;
        }
        bool in_place = (c->index + kind) % 3 == 0;
        memset(y, 0xff, (size_t)n * sizeof *y);
        if (in_place) {
            memcpy(y, x, (size_t)n * sizeof *y);
        }
        attn_activation_fn *f = attn_activation_table_for(c->isa)->forward[kind];
        CHECK_CALL(c, f(in_place ? y : x, n, y));
        if (!c->failed) {
            char what[16] = {'y', ' ', (char)('0' + kind), 0};
            check_close(c, what, y, want, allowed, n);
        }
    }
}

static void run_backward(check *c)
{
    double want[MOST];
    double allowed[MOST];
    int64_t n = check_size(c, 32, MOST);
    float *x = check_floats(c, "x", n, 4);
    float *dy = check_floats(c, "dy", n, 4);
    float *old = check_floats(c, "old", n, 4);
    float *dx = check_floats(c, "dx", n, 4);
    fill(c, x, n);
    check_fill(c, dy, n, CHECK_NORMAL);
    check_fill(c, old, n, CHECK_NORMAL);
    check_input(c, x);
    check_input(c, dy);
    check_input(c, old);
    for (int kind = 0; kind < ATTN_ACTIVATIONS && !c->failed; kind++) {
        bool accumulate = (c->index + kind) % 3 == 0;
        bool in_place = (c->index + kind) % 3 == 1;
        for (int64_t i = 0; i < n; i++) {
            double d = (double)(float)slope(kind, given(x[i]));
            double size = is_gelu(kind) || kind == ATTN_ACT_SILU ? fmax(fabs(d), 1) : fabs(d);
            double start = accumulate ? (double)old[i] : 0;
            want[i] = (double)(float)(d * (double)dy[i] + start);
            allowed[i] = 4e-7 * size * fabs((double)dy[i]) + 0x1p-119;
            allowed[i] += accumulate ? 0x1p-23 * (fabs(start) + fabs(want[i])) : 0;
        }
        memset(dx, 0xff, (size_t)n * sizeof *dx);
        if (accumulate || in_place) {
            memcpy(dx, accumulate ? old : dy, (size_t)n * sizeof *dx);
        }
        attn_activation_backward_fn *f = attn_activation_table_for(c->isa)->backward[kind];
        CHECK_CALL(c, f(x, in_place ? dx : dy, accumulate, n, dx));
        if (!c->failed) {
            char what[16] = {'d', 'x', ' ', (char)('0' + kind), 0};
            check_close(c, what, dx, want, allowed, n);
        }
    }
}

enum { BENCH = 4096 };
static float bench_x[BENCH], bench_dy[BENCH], bench_y[BENCH];

static double bench_forward(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_activation_table_for(isa)->forward[ATTN_ACT_GELU](bench_x, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static double bench_backward(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_activation_table_for(isa)->backward[ATTN_ACT_GELU](bench_x, bench_dy, false, BENCH,
                                                                bench_y);
    }
    return (double)repeats * BENCH;
}

static const void *table(attn_isa isa)
{
    return attn_activation_table_for(isa);
}

static const check_kernel kernels[] = {
    {"activation/forward", table, run_forward, 300, bench_forward, "elements"},
    {"activation/backward", table, run_backward, 300, bench_backward, "elements"},
};

const check_family check_activation = {kernels, sizeof kernels / sizeof *kernels};
