/*
 * A runner that catches nothing proves nothing: these kernels are wrong on purpose, each in one way
 * that kernels go wrong, and every one must be caught. The right one must pass.
 *
 * The operation: y[i] = 2·x[i], *maximum = max x, NaN if any x is NaN.
 */
#include "check.h"

#include "cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef void double_fn(const float *x, int64_t n, float *y, float *maximum);

static void right(const float *x, int64_t n, float *y, float *maximum)
{
    float m = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        y[i] = 2 * x[i];
        m = isnan(m) || x[i] <= m ? m : x[i];
    }
    *maximum = m;
}

static void reads_one_too_many(const float *x, int64_t n, float *y, float *maximum)
{
    volatile float beyond = x[n];
    (void)beyond;
    right(x, n, y, maximum);
}

static void reads_one_before(const float *x, int64_t n, float *y, float *maximum)
{
    volatile float ahead = x[-1];
    (void)ahead;
    right(x, n, y, maximum);
}

static void writes_a_whole_vector(const float *x, int64_t n, float *y, float *maximum)
{
    for (int64_t i = n; i < (n + 3) / 4 * 4; i++) {
        ((volatile float *)y)[i] = 0;
    }
    right(x, n, y, maximum);
}

static void misses_the_tail(const float *x, int64_t n, float *y, float *maximum)
{
    right(x, n, y, maximum);
    for (int64_t i = n / 8 * 8; i < n && n > 8; i++) {
        y[i] = NAN;
    }
}

static void starts_its_maximum_at_zero(const float *x, int64_t n, float *y, float *maximum)
{
    right(x, n, y, maximum);
    *maximum = *maximum < 0 ? 0 : *maximum;
}

static void loses_nan(const float *x, int64_t n, float *y, float *maximum)
{
    float m = -INFINITY;
    right(x, n, y, maximum);
    for (int64_t i = 0; i < n; i++) {
        m = x[i] > m ? x[i] : m;
    }
    *maximum = m;
}

static void writes_to_its_input(const float *x, int64_t n, float *y, float *maximum)
{
    right(x, n, y, maximum);
    ((volatile float *)(uintptr_t)x)[0] = 0;
}

static void needs_alignment(const float *x, int64_t n, float *y, float *maximum)
{
#if defined(__x86_64__)
    __asm__ volatile("movaps (%0), %%xmm0" ::"r"((uintptr_t)x & ~(uintptr_t)3) : "xmm0");
    right(x, n, y, maximum);
#else
    (void)x;
    (void)n;
    (void)y;
    (void)maximum;
#endif
}

static void is_off_by_a_little(const float *x, int64_t n, float *y, float *maximum)
{
    right(x, n, y, maximum);
    y[n / 2] = nextafterf(nextafterf(y[n / 2], INFINITY), INFINITY);
}

static void takes_the_largest_float_for_infinity(const float *x, int64_t n, float *y,
                                                 float *maximum)
{
    right(x, n, y, maximum);
    for (int64_t i = 0; i < n; i++) {
        y[i] = isinf(y[i]) ? copysignf(3.40282347e38F, y[i]) : y[i];
    }
}

#if defined(__x86_64__)
static void leaves_upper_halves_dirty(const float *x, int64_t n, float *y, float *maximum)
{
    right(x, n, y, maximum);
    __asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0" ::: "xmm0");
}

static void leaves_mxcsr_changed(const float *x, int64_t n, float *y, float *maximum)
{
    unsigned state;
    right(x, n, y, maximum);
    __asm__ volatile("stmxcsr %0" : "=m"(state));
    state |= 0x8040;
    __asm__ volatile("ldmxcsr %0" ::"m"(state));
}
#endif

static const struct {
    const char *name;
    double_fn *kernel;
    bool needs_avx2;
} broken[] = {
    {"reads one element too many", reads_one_too_many, false},
    {"reads one element before the first", reads_one_before, false},
    {"writes a whole vector at the end", writes_a_whole_vector, false},
    {"misses the tail", misses_the_tail, false},
    {"starts its maximum at zero", starts_its_maximum_at_zero, false},
    {"loses NaN", loses_nan, false},
    {"writes to its input", writes_to_its_input, false},
    {"is off by two units in the last place", is_off_by_a_little, false},
    {"takes the largest float for infinity", takes_the_largest_float_for_infinity, false},
#if defined(__x86_64__)
    {"needs alignment", needs_alignment, false},
    {"leaves upper halves dirty", leaves_upper_halves_dirty, true},
    {"leaves MXCSR changed", leaves_mxcsr_changed, false},
#endif
};

static double_fn *under_test;

static void run(check *c)
{
    int64_t n = check_size(c, 8, 100);
    double want[101];
    double allowed[101];
    double maximum = -INFINITY;
    float *x = check_floats(c, "x", n, 4);
    float *y = check_floats(c, "y", n, 4);
    float *m = check_floats(c, "maximum", 1, 4);
    check_fill(c, x, n, (check_values)(c->index % CHECK_KINDS));
    for (int64_t i = 0; i < n; i++) {
        want[i] = 2 * (double)x[i];
        allowed[i] = 0x1p-24 * fabs(want[i]) + 0x1p-125; /* subnormals may be flushed */
        maximum = isnan(x[i]) || isnan(maximum) ? NAN : fmax(maximum, (double)x[i]);
    }
    check_input(c, x);
    CHECK_CALL(c, under_test(x, n, y, m));
    if (!c->failed && check_close(c, "y", y, want, allowed, n)) {
        check_close(c, "maximum", m, &maximum, NULL, 1);
    }
}

int check_self_test(check *c)
{
    const check_kernel kernel = {.name = "self-test", .run = run, .cases = 60};
    int failures = 0;
    for (size_t n = 0; n <= sizeof broken / sizeof *broken; n++) {
        bool good = n == sizeof broken / sizeof *broken;
        int64_t caught = -1;
        if (!good && broken[n].needs_avx2 && (CHECK_SANITIZED || !attn_cpu_has(ATTN_ISA_AVX2))) {
            continue;
        }
        under_test = good ? right : broken[n].kernel;
        c->quiet = true;
        for (int64_t index = 0; index < kernel.cases && caught < 0; index++) {
            caught = check_case(c, &kernel, ATTN_ISA_C, 1, index) ? -1 : index;
        }
        c->quiet = false;
        bool ok = good ? caught < 0 : caught >= 0;
        failures += !ok;
        printf("self-test: a kernel that %s: %s\n", good ? "is right" : broken[n].name,
               ok ? (good ? "passed" : "caught") : (good ? "FAILED" : "NOT CAUGHT"));
    }
    return failures;
}
