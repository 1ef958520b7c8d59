/* kernels/rope: angles against the C library's double sine and cosine, rotations in double. */
#include "check.h"

#include "kernels/rope/rope.h"

#include <float.h>
#include <math.h>

enum { MOST = 150 };

static void run_angles(check *c)
{
    double want_cosine[MOST];
    double want_sine[MOST];
    double allowed[MOST];
    int64_t n = check_size(c, 16, MOST);
    double *frequency = check_take(c, "frequency", (size_t)n * sizeof(double), sizeof(double));
    float *cosine = check_floats(c, "cosine", n, 4);
    float *sine = check_floats(c, "sine", n, 4);
    const double positions[] = {0, 1, 511, 8191, 131071, 1e6, 0x1p30, 12345};
    double position = positions[c->index % 8];
    for (int64_t i = 0; i < n; i++) {
        frequency[i] = pow(c->index % 2 ? 10000 : 1e6, -2 * (double)i / (double)(2 * n));
        want_cosine[i] = cos(position * frequency[i]);
        want_sine[i] = sin(position * frequency[i]);
        /* half a unit of f32 near 1, and what the product loses in double far out */
        allowed[i] = 0x1p-24 + 0x1p-52 * position * frequency[i];
    }
    check_input(c, frequency);
    CHECK_CALL(c, attn_rope_table_for(c->isa)->angles(frequency, position, n, cosine, sine));
    if (!c->failed && check_close(c, "cosine", cosine, want_cosine, allowed, n)) {
        check_close(c, "sine", sine, want_sine, allowed, n);
    }
}

/* Pair i is (first[i·step], second[i·step]). */
static void expect(const float *first, const float *second, int64_t step, const float *cosine,
                   const float *sine, int64_t pairs, double *a, double *b, double *allowed_a,
                   double *allowed_b)
{
    for (int64_t i = 0; i < pairs; i++) {
        double x = (double)first[i * step];
        double y = (double)second[i * step];
        double cs = (double)cosine[i];
        double sn = (double)sine[i];
        a[i * step] = x * cs - y * sn;
        b[i * step] = y * cs + x * sn;
        allowed_a[i * step] = 2 * 0x1p-24 * (fabs(x * cs) + fabs(y * sn)) + 3 * (double)FLT_MIN;
        allowed_b[i * step] = 2 * 0x1p-24 * (fabs(y * cs) + fabs(x * sn)) + 3 * (double)FLT_MIN;
    }
}

static void fill_angles(check *c, float *cosine, float *sine, int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i++) {
        double angle = 100 * check_normal(c);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    check_input(c, cosine);
    check_input(c, sine);
}

static check_values kind_of(const check *c)
{
    return c->index % 9 == 8 ? CHECK_NAN : (check_values)(c->index % CHECK_FINITE_KINDS);
}

static void run_interleaved(check *c)
{
    double want[2 * MOST];
    double allowed[2 * MOST];
    int64_t n = check_size(c, 16, MOST);
    float *x = check_floats(c, "x", 2 * n, 4);
    float *cosine = check_floats(c, "cosine", n, 4);
    float *sine = check_floats(c, "sine", n, 4);
    check_fill(c, x, 2 * n, kind_of(c));
    fill_angles(c, cosine, sine, n);
    expect(x, x + 1, 2, cosine, sine, n, want, want + 1, allowed, allowed + 1);
    CHECK_CALL(c, attn_rope_table_for(c->isa)->interleaved(x, cosine, sine, n));
    if (!c->failed) {
        check_close(c, "x", x, want, allowed, 2 * n);
    }
}

static void run_halves(check *c)
{
    double want[2][MOST];
    double allowed[2][MOST];
    int64_t n = check_size(c, 16, MOST);
    float *low = check_floats(c, "low", n, 4);
    float *high = check_floats(c, "high", n, 4);
    float *cosine = check_floats(c, "cosine", n, 4);
    float *sine = check_floats(c, "sine", n, 4);
    check_fill(c, low, n, kind_of(c));
    check_fill(c, high, n, CHECK_NORMAL);
    fill_angles(c, cosine, sine, n);
    expect(low, high, 1, cosine, sine, n, want[0], want[1], allowed[0], allowed[1]);
    CHECK_CALL(c, attn_rope_table_for(c->isa)->halves(low, high, cosine, sine, n));
    if (!c->failed && check_close(c, "low", low, want[0], allowed[0], n)) {
        check_close(c, "high", high, want[1], allowed[1], n);
    }
}

enum { BENCH = 64 };
static float bench_x[2 * BENCH], bench_c[BENCH], bench_s[BENCH];
static double bench_f[BENCH];

static double bench_angles(attn_isa isa, int64_t repeats)
{
    for (int i = 0; i < BENCH; i++) {
        bench_f[i] = pow(10000, -(double)i / BENCH);
    }
    for (int64_t n = 0; n < repeats; n++) {
        attn_rope_table_for(isa)->angles(bench_f, (double)(n % 8192), BENCH, bench_c, bench_s);
    }
    return (double)repeats * BENCH;
}

static double bench_interleaved(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_rope_table_for(isa)->interleaved(bench_x, bench_c, bench_s, BENCH);
    }
    return (double)repeats * 2 * BENCH;
}

static double bench_halves(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_rope_table_for(isa)->halves(bench_x, bench_x + BENCH, bench_c, bench_s, BENCH);
    }
    return (double)repeats * 2 * BENCH;
}

static const void *table(attn_isa isa)
{
    return attn_rope_table_for(isa);
}

static const check_kernel kernels[] = {
    {"rope/angles", table, run_angles, 200, bench_angles, "angles"},
    {"rope/interleaved", table, run_interleaved, 200, bench_interleaved, "elements"},
    {"rope/halves", table, run_halves, 200, bench_halves, "elements"},
};

const check_family check_rope = {kernels, sizeof kernels / sizeof *kernels};
