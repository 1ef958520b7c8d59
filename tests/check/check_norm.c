/* kernels/norm: RMSNorm and LayerNorm of a row against sums in double. */
#include "check.h"

#include "kernels/norm/norm.h"

#include <float.h>
#include <math.h>

enum { MOST = 300 };

typedef struct row {
    int64_t n;
    float *x, *weight, *bias, *y;
    double eps;
} row;

static row make(check *c)
{
    row r = {.n = check_size(c, 32, MOST), .eps = c->index % 2 ? 1e-5 : 1e-12};
    check_values kind = (check_values)(c->index % CHECK_FINITE_KINDS);
    r.x = check_floats(c, "x", r.n, 4);
    check_fill(c, r.x, r.n, c->index % 11 == 10 ? CHECK_NAN : kind);
    if (c->index % 3 != 0) {
        r.weight = check_floats(c, "weight", r.n, 4);
        check_fill(c, r.weight, r.n, CHECK_NORMAL);
        check_input(c, r.weight);
    }
    if (c->index % 3 == 2) {
        r.bias = check_floats(c, "bias", r.n, 4);
        check_fill(c, r.bias, r.n, CHECK_NORMAL);
        check_input(c, r.bias);
    }
    if (c->index % 5 == 4) { /* in place */
        r.y = r.x;
    } else {
        r.y = check_floats(c, "y", r.n, 4);
        check_input(c, r.x);
    }
    return r;
}

/* Subnormal inputs may count as zeros, results below the smallest normal float as well. */
static void expect(const row *r, double mean, double factor, double *want, double *allowed)
{
    for (int64_t i = 0; i < r->n; i++) {
        double w = r->weight ? (double)r->weight[i] : 1;
        double b = r->bias ? (double)r->bias[i] : 0;
        want[i] = ((double)r->x[i] - mean) * factor * w + b;
        allowed[i] =
            4 * 0x1p-24 * (fabs(want[i] - b) + fabs(b)) + (double)FLT_MIN * (2 + factor * fabs(w));
    }
}

static void run_rms(check *c)
{
    double want[MOST];
    double allowed[MOST];
    double sum = 0;
    row r = make(c);
    r.bias = NULL;
    for (int64_t i = 0; i < r.n; i++) {
        sum += (double)r.x[i] * (double)r.x[i];
    }
    expect(&r, 0, 1 / sqrt(sum / (double)r.n + r.eps), want, allowed);
    CHECK_CALL(c, attn_norm_table_for(c->isa)->rms(r.x, r.weight, r.eps, r.n, r.y));
    if (!c->failed) {
        check_close(c, "y", r.y, want, allowed, r.n);
    }
}

static void run_layer(check *c)
{
    double want[MOST];
    double allowed[MOST];
    double mean = 0;
    double variance = 0;
    row r = make(c);
    for (int64_t i = 0; i < r.n; i++) {
        mean += (double)r.x[i] / (double)r.n;
    }
    for (int64_t i = 0; i < r.n; i++) {
        variance += ((double)r.x[i] - mean) * ((double)r.x[i] - mean) / (double)r.n;
    }
    double factor = 1 / sqrt(variance + r.eps);
    expect(&r, mean, factor, want, allowed);
    for (int64_t i = 0; i < r.n; i++) { /* the mean itself is good to double precision */
        double w = r.weight ? fabs((double)r.weight[i]) : 1;
        allowed[i] += 0x1p-50 * (double)r.n * fabs(mean) * factor * w;
    }
    CHECK_CALL(c, attn_norm_table_for(c->isa)->layer(r.x, r.weight, r.bias, r.eps, r.n, r.y));
    if (!c->failed) {
        check_close(c, "y", r.y, want, allowed, r.n);
    }
}

enum { BENCH = 1024 };
static float bench_x[BENCH], bench_w[BENCH], bench_y[BENCH];

static double bench_rms(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_norm_table_for(isa)->rms(bench_x, bench_w, 1e-5, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static double bench_layer(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_norm_table_for(isa)->layer(bench_x, bench_w, bench_w, 1e-5, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static const void *table(attn_isa isa)
{
    return attn_norm_table_for(isa);
}

static const check_kernel kernels[] = {
    {"norm/rms", table, run_rms, 300, bench_rms, "elements"},
    {"norm/layer", table, run_layer, 300, bench_layer, "elements"},
};

const check_family check_norm = {kernels, sizeof kernels / sizeof *kernels};
