/* kernels/adamw: a step against the formula in double, in units of what goes into each sum. */
#include "check.h"

#include "kernels/adamw/adamw.h"

#include <float.h>
#include <math.h>

enum { MOST = 200 };

static void run(check *c)
{
    double want[3][MOST];
    double allowed[3][MOST];
    int64_t n = check_size(c, 32, MOST);
    float *g = check_floats(c, "g", n, 4);
    float *p = check_floats(c, "p", n, 4);
    float *m = check_floats(c, "m", n, 4);
    float *v = check_floats(c, "v", n, 4);
    double step = (double)check_range(c, 1, 2000);
    attn_adamw_factors f = {.grad_scale = c->index % 2 ? 1 : 0.37, .beta1 = 0.9, .beta2 = 0.999};
    f.rest1 = 1 - f.beta1;
    f.rest2 = 1 - f.beta2;
    f.decay = c->index % 5 == 4 ? 0 : 1e-5;
    f.rate = 1e-3 / (1 - pow(f.beta1, step));
    f.correct2 = 1 / (1 - pow(f.beta2, step));
    f.eps = 1e-8;
    check_fill(c, g, n,
               c->index % 4 == 3   ? CHECK_NAN
               : c->index % 4 == 2 ? CHECK_ZEROS
                                   : CHECK_NORMAL);
    check_fill(c, p, n, CHECK_NORMAL);
    check_fill(c, m, n, c->index % 7 == 6 ? CHECK_ZEROS : CHECK_NORMAL);
    check_fill(c, v, n, c->index % 7 == 6 ? CHECK_ZEROS : CHECK_NORMAL);
    for (int64_t i = 0; i < n; i++) {
        v[i] = fabsf(v[i]);
        double slope = f.grad_scale * (double)g[i];
        double p0 = (double)p[i];
        double m0 = f.beta1 * (double)m[i];
        double v0 = f.beta2 * (double)v[i];
        double m1 = m0 + f.rest1 * slope;
        double v1 = v0 + f.rest2 * slope * slope;
        double size = sqrt(v1 * f.correct2) + f.eps;
        double m_error = 4 * 0x1p-24 * (fabs(m0) + fabs(f.rest1 * slope)) + (double)FLT_MIN;
        want[0][i] = p0 - f.decay * p0 - f.rate * m1 / size;
        want[1][i] = m1;
        want[2][i] = v1;
        allowed[0][i] =
            0x1p-23 * fabs(p0) + f.rate * (m_error + 1e-6 * fabs(m1)) / size + 3 * (double)FLT_MIN;
        allowed[1][i] = m_error;
        allowed[2][i] = 5 * 0x1p-24 * v1 + (double)FLT_MIN;
    }
    check_input(c, g);
    CHECK_CALL(c, attn_adamw_table_for(c->isa)->step(&f, g, n, p, m, v));
    if (!c->failed && check_close(c, "p", p, want[0], allowed[0], n) &&
        check_close(c, "m", m, want[1], allowed[1], n)) {
        check_close(c, "v", v, want[2], allowed[2], n);
    }
}

enum { BENCH = 4096 };
static float bench_g[BENCH], bench_p[BENCH], bench_m[BENCH], bench_v[BENCH];

static double bench(attn_isa isa, int64_t repeats)
{
    const attn_adamw_factors f = {1, 0.9, 0.1, 0.999, 0.001, 1e-5, 1e-3, 1, 1e-8};
    for (int64_t n = 0; n < repeats; n++) {
        attn_adamw_table_for(isa)->step(&f, bench_g, BENCH, bench_p, bench_m, bench_v);
    }
    return (double)repeats * BENCH;
}

static const void *table(attn_isa isa)
{
    return attn_adamw_table_for(isa);
}

static const check_kernel kernels[] = {
    {"adamw/step", table, run, 300, bench, "elements"},
};

const check_family check_adamw = {kernels, sizeof kernels / sizeof *kernels};
