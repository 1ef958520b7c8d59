/* kernels/softmax: softmax and its logarithm, their gradients, and cross-entropy of a row, against sums in double. */
#include "check.h"

#include "kernels/softmax/softmax.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 300 };

/* ln Σ e^(x − most) and most; NaN where the row has none */
static double log_sum(const float *x, int64_t n, double *most)
{
    double sum = 0;
    *most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        *most = fmax(*most, (double)x[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        sum += exp((double)x[i] - *most);
    }
    return log(sum);
}

/* The relative error of one weight: that of exp and the sum, and the rounding of x − most. */
static double relative(double distance)
{
    return 6e-7 + 0x1p-24 * (isfinite(distance) ? fabs(distance) : 0);
}

static void run_forward(check *c)
{
    double want[MOST];
    double allowed[MOST];
    double most;
    int64_t n = check_size(c, 64, MOST);
    bool log_form = c->index % 2 == 1;
    float *x = check_floats(c, "x", n, 4);
    check_fill(c, x, n, (check_values)(c->index % CHECK_KINDS));
    double rest = log_sum(x, n, &most);
    for (int64_t i = 0; i < n; i++) {
        double distance = (double)x[i] - most;
        want[i] = log_form ? distance - rest : exp(distance - rest);
        allowed[i] = log_form ? 0x1p-23 * (fabs(distance) + fabs(rest)) + 4e-7
                              : relative(distance) * want[i] + 2 * (double)FLT_MIN;
    }
    float *const y = c->index % 3 != 0 ? check_floats(c, "y", n, 4) : x;
    if (y != x) {
        check_input(c, x);
    }
    CHECK_CALL(c, attn_softmax_table_for(c->isa)->forward(x, log_form, n, y));
    if (!c->failed) {
        check_close(c, "y", y, want, allowed, n);
    }
}

static void run_backward(check *c)
{
    double want[MOST];
    double allowed[MOST];
    double sum = 0;
    double size = 0;
    int64_t n = check_size(c, 64, MOST);
    bool log_form = c->index % 2 == 1;
    bool accumulate = c->index % 3 == 0;
    float *y = check_floats(c, "y", n, 4);
    float *dy = check_floats(c, "dy", n, 4);
    for (int64_t i = 0; i < n; i++) {
        double weight = check_uniform(c) / (double)n;
        y[i] = log_form ? (float)log(weight) : (float)weight;
        y[i] = i % 17 == 3 ? (log_form ? -INFINITY : 0) : y[i];
    }
    check_fill(c, dy, n, c->index % 5 == 4 ? CHECK_HIGH : CHECK_NORMAL);
    float *dx = c->index % 3 == 1 ? dy : check_floats(c, "dx", n, 4);
    if (accumulate) {
        check_fill(c, dx, n, CHECK_NORMAL);
    }
    for (int64_t i = 0; i < n; i++) {
        double product = (double)dy[i] * (log_form ? 1 : (double)y[i]);
        sum += product;
        size += fabs(product);
    }
    for (int64_t i = 0; i < n; i++) {
        double w = log_form ? exp((double)y[i]) : (double)y[i];
        double old = accumulate ? (double)dx[i] : 0;
        double d = (double)dy[i];
        want[i] = (log_form ? d - w * sum : w * (d - sum)) + old;
        allowed[i] = 4e-7 * w * size + 0x1p-22 * (log_form ? fabs(d) : w * fabs(d));
        allowed[i] += 0x1p-23 * fabs(old) + 2 * (double)FLT_MIN;
    }
    check_input(c, y);
    if (dx != dy) {
        check_input(c, dy);
    }
    CHECK_CALL(c, attn_softmax_table_for(c->isa)->backward(y, dy, log_form, accumulate, n, dx));
    if (!c->failed) {
        check_close(c, "dx", dx, want, allowed, n);
    }
}

static void run_cross_entropy(check *c)
{
    double want[MOST];
    double allowed[MOST];
    double most;
    double loss[1] = {0}; /* memory: survives a fault's jump */
    int64_t n = check_size(c, 64, MOST);
    int64_t target = check_range(c, 0, n - 1);
    double scale = c->index % 2 ? 1.0 / 4096 : -3.0;
    float *x = check_floats(c, "x", n, 4);
    check_fill(c, x, n, (check_values)(c->index % CHECK_KINDS));
    double rest = log_sum(x, n, &most);
    double exact = rest - ((double)x[target] - most);
    for (int64_t i = 0; i < n; i++) {
        double distance = (double)x[i] - most;
        double p = exp(distance - rest);
        double miss = i == target ? -expm1(distance - rest) : 0;
        want[i] = scale * (i == target ? -miss : p);
        allowed[i] = fabs(scale) * (p * relative(distance) + 1e-7 * miss) + 2 * (double)FLT_MIN;
    }
    float *const dx = c->index % 3 == 0   ? x
                      : c->index % 3 == 1 ? check_floats(c, "dx", n, 4)
                                          : NULL;
    if (dx != x) {
        check_input(c, x);
    }
    CHECK_CALL(c, loss[0] = attn_softmax_table_for(c->isa)->cross_entropy(x, target, scale, n, dx));
    if (c->failed) {
        return;
    }
    bool same = isnan(exact)
                    ? isnan(loss[0])
                    : loss[0] == exact || fabs(loss[0] - exact) <= 1e-6 + 1e-15 * fabs(exact);
    if (!same) {
        check_fail(c, "loss is %.9g, must be %.9g", loss[0], exact);
    } else if (dx) {
        check_close(c, "dx", dx, want, allowed, n);
    }
}

enum { BENCH = 4096 };
static float bench_x[BENCH], bench_dy[BENCH], bench_y[BENCH];

static double bench_forward(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_softmax_table_for(isa)->forward(bench_x, false, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static double bench_backward(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_softmax_table_for(isa)->backward(bench_x, bench_dy, false, false, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static double bench_cross_entropy(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_softmax_table_for(isa)->cross_entropy(bench_x, n % BENCH, 1, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static const void *table(attn_isa isa)
{
    return attn_softmax_table_for(isa);
}

static const check_kernel kernels[] = {
    {"softmax/forward", table, run_forward, 400, bench_forward, "elements"},
    {"softmax/backward", table, run_backward, 400, bench_backward, "elements"},
    {"softmax/cross_entropy", table, run_cross_entropy, 400, bench_cross_entropy, "elements"},
};

const check_family check_softmax = {kernels, sizeof kernels / sizeof *kernels};
