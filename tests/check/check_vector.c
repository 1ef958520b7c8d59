/* kernels/vector: a·x + b·y and sums of squares. */
#include "check.h"

#include "kernels/vector/vector.h"

#include <float.h>
#include <math.h>

enum { MOST = 300 };

static void run_axpby(check *c)
{
    double want[MOST];
    double allowed[MOST];
    int64_t n = check_size(c, 32, MOST);
    float a = c->index % 3 ? 0.75f : -1.3f;
    float b = c->index % 2 ? 0.0f : 0.4f;
    float *x = check_floats(c, "x", n, 4);
    float *y = check_floats(c, "y", n, 4); /* NaN: with b = 0 it must not matter */
    check_fill(c, x, n, (check_values)(c->index % CHECK_KINDS));
    if (b != 0) {
        check_fill(c, y, n, CHECK_NORMAL);
    }
    if (c->index % 5 == 4) {
        y = x;
    } else {
        check_input(c, x);
    }
    for (int64_t i = 0; i < n; i++) {
        double ax = (double)a * (double)x[i];
        double by = b != 0 ? (double)b * (double)y[i] : 0;
        want[i] = ax + by;
        allowed[i] = 3 * 0x1p-24 * (fabs(ax) + fabs(by)) + 2 * (double)FLT_MIN;
    }
    CHECK_CALL(c, attn_vector_table_for(c->isa)->axpby(a, x, b, n, y));
    if (!c->failed) {
        check_close(c, "y", y, want, allowed, n);
    }
}

static void run_sum_squares(check *c)
{
    int64_t n = check_size(c, 64, MOST);
    float *x = check_floats(c, "x", n, 4);
    double got[1] = {0}; /* memory: survives a fault's jump */
    double want = 0;
    check_fill(c, x, n, (check_values)(c->index % CHECK_KINDS));
    check_input(c, x);
    for (int64_t i = 0; i < n; i++) {
        want += (double)x[i] * (double)x[i];
    }
    CHECK_CALL(c, got[0] = attn_vector_table_for(c->isa)->sum_squares(x, n));
    if (!c->failed && !(got[0] == want || fabs(got[0] - want) <= 1e-13 * want ||
                        (isnan(got[0]) && isnan(want)))) {
        check_fail(c, "sum is %.17g, must be %.17g", got[0], want);
    }
}

enum { BENCH = 4096 };
static float bench_x[BENCH], bench_y[BENCH];

static double bench_axpby(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_vector_table_for(isa)->axpby(0.5f, bench_x, 0.5f, BENCH, bench_y);
    }
    return (double)repeats * BENCH;
}

static double bench_sum_squares(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        bench_y[0] = (float)attn_vector_table_for(isa)->sum_squares(bench_x, BENCH);
    }
    return (double)repeats * BENCH;
}

static const void *table(attn_isa isa)
{
    return attn_vector_table_for(isa);
}

static const check_kernel kernels[] = {
    {"vector/axpby", table, run_axpby, 300, bench_axpby, "elements"},
    {"vector/sum_squares", table, run_sum_squares, 300, bench_sum_squares, "elements"},
};

const check_family check_vector = {kernels, sizeof kernels / sizeof *kernels};
