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

/* A row's gradient: x, dy and weight of hostile values, sums and dx that hold something before. */
static void run_backward(check *c)
{
    double mean = 0;
    double squares = 0;
    double sum_g = 0;
    double product = 0;
    double size = 0;
    row r = {.n = check_size(c, 32, MOST), .eps = 1e-5};
    bool layer = c->index % 2;
    /* Values whose variance does not vanish: there the formula divides by rounding errors. */
    static const check_values kinds[] = {CHECK_NORMAL, CHECK_HUGE, CHECK_ZEROS, CHECK_TINY};
    check_values kind = r.n < 4 ? CHECK_ZEROS : kinds[c->index / 2 % 4];
    r.x = check_floats(c, "x", r.n, 4);
    check_fill(c, r.x, r.n, kind);
    float *dy = check_floats(c, "dy", r.n, 4);
    check_fill(c, dy, r.n, CHECK_NORMAL);
    float *w = NULL;
    if (c->index % 3) {
        w = check_floats(c, "weight", r.n, 4);
        check_fill(c, w, r.n, CHECK_NORMAL);
        check_input(c, w);
    }
    float *dweight = c->index % 5 ? check_floats(c, "dweight", r.n, 4) : NULL;
    float *dbias = c->index % 7 ? check_floats(c, "dbias", r.n, 4) : NULL;
    bool in_place = c->index % 4 == 3;
    float *dx = in_place ? dy : check_floats(c, "dx", r.n, 4);
    check_input(c, r.x);
    double want[3][MOST];
    double allowed[3][MOST];
    for (int64_t i = 0; layer && i < r.n; i++) {
        mean += (double)r.x[i] / (double)r.n;
    }
    for (int64_t i = 0; i < r.n; i++) {
        double v = (double)r.x[i] - mean;
        double g = (double)dy[i] * (w ? (double)w[i] : 1);
        squares += v * v / (double)r.n;
        sum_g += g / (double)r.n;
        product += g * v / (double)r.n;
        size += fabs(g) / (double)r.n;
    }
    double factor = 1 / sqrt(squares + r.eps);
    bool add = c->index % 8 < 4 && !in_place;
    for (int64_t i = 0; i < r.n; i++) {
        double d = (double)dy[i];
        double normal = ((double)r.x[i] - mean) * factor;
        double g = d * (w ? (double)w[i] : 1);
        double before = (double)(float)check_normal(c);
        double gradient = factor * (g - (layer ? sum_g : 0) - normal * product * factor);
        double scale = factor * (fabs(g) + (1 + fabs(normal * sqrt((double)r.n))) * size);
        want[0][i] = gradient + (add ? before : 0);
        allowed[0][i] = 0x1p-23 * fabs(want[0][i]) + 0x1p-40 * scale + FLT_MIN * (1 + factor);
        want[1][i] = before + d * normal;
        want[2][i] = before + d;
        for (int k = 1; k < 3; k++) {
            allowed[k][i] = 0x1p-23 * fabs(want[k][i]) + 0x1p-40 * fabs(d) + FLT_MIN * (1 + factor);
        }
        if (!in_place) {
            dx[i] = (float)before;
        }
        if (dweight) {
            dweight[i] = (float)before;
        }
        if (dbias) {
            dbias[i] = (float)before;
        }
    }
    if (!in_place) {
        check_input(c, dy);
    }
    attn_norm_gradient g = {r.x, w, dy, dx, dweight, dbias, r.eps, r.n, layer, add};
    CHECK_CALL(c, attn_norm_table_for(c->isa)->backward(&g));
    const float *got[] = {dx, dweight, dbias};
    static const char *const names[] = {"dx", "dweight", "dbias"};
    for (int k = 0; k < 3 && !c->failed; k++) {
        if (got[k]) {
            check_close(c, names[k], got[k], want[k], allowed[k], r.n);
        }
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

static double bench_backward(attn_isa isa, int64_t repeats)
{
    static float dy[BENCH];
    static float sums[BENCH];
    attn_norm_gradient g = {bench_x, bench_w, dy, bench_y, sums, sums, 1e-5, BENCH, true, false};
    for (int64_t n = 0; n < repeats; n++) {
        attn_norm_table_for(isa)->backward(&g);
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
    {"norm/backward", table, run_backward, 600, bench_backward, "elements"},
};

const check_family check_norm = {kernels, sizeof kernels / sizeof *kernels};
