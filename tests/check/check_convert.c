/* kernels/convert: every half there is, and floats rounded to halves by arithmetic in double. */
#include "check.h"

#include "kernels/convert/convert.h"

#include <math.h>
#include <string.h>

/* ---- the oracle: numbers, not bit tricks -------------------------------------------------------- */

/* The value of a half with `digits` significant bits whose least power of two is 2^least. */
static double value_of(uint16_t bits, int digits, int least, int exponents)
{
    int fraction = bits & ((1 << (digits - 1)) - 1);
    int exponent = (bits & 0x7fff) >> (digits - 1);
    double magnitude;
    if (exponent == exponents) {
        magnitude = fraction ? NAN : INFINITY;
    } else if (exponent == 0) {
        magnitude = ldexp(fraction, least);
    } else {
        magnitude = ldexp((1 << (digits - 1)) + fraction, least + exponent - 1);
    }
    return bits & 0x8000 ? -magnitude : magnitude;
}

static double bf16_value(uint16_t bits)
{
    return value_of(bits, 8, -133, 255);
}

static double f16_value(uint16_t bits)
{
    return value_of(bits, 11, -24, 31);
}

/* x to `digits` significant bits, half to even, on a grid no finer than 2^least; ±inf from `limit`. */
static double rounded(double x, int digits, int least, double limit)
{
    int exponent = 0;
    if (x == 0 || !isfinite(x)) {
        return x;
    }
    frexp(x, &exponent);
    int grid = exponent - digits > least ? exponent - digits : least;
    double y = ldexp(nearbyint(ldexp(x, -grid)), grid);
    return fabs(y) >= limit ? copysign(INFINITY, x) : y;
}

/* ---- up ---------------------------------------------------------------------------------------- */

static void up(check *c, attn_convert_up kernel, double (*value)(uint16_t))
{
    enum { MOST = 1024 };
    double want[MOST];
    int64_t n = check_size(c, 32, MOST);
    uint16_t *src = check_take(c, "src", (size_t)n * 2, 2);
    float *dst = check_floats(c, "dst", n, 4);
    for (int64_t i = 0; i < n; i++) { /* after 64 cases of 1024, every half has been here */
        src[i] = (uint16_t)(c->index < 100 ? check_next(c) : (uint64_t)(c->index * MOST + i));
        want[i] = value(src[i]);
    }
    check_input(c, src);
    CHECK_CALL(c, kernel(src, dst, n));
    if (!c->failed) {
        check_close(c, "dst", dst, want, NULL, n);
    }
}

static void run_bf16_up(check *c)
{
    up(c, attn_convert_table(c->isa)->bf16_to_f32, bf16_value);
}

static void run_f16_up(check *c)
{
    up(c, attn_convert_table(c->isa)->f16_to_f32, f16_value);
}

/* ---- down -------------------------------------------------------------------------------------- */

static float random_float(check *c)
{
    uint32_t bits = (uint32_t)check_next(c);
    float x;
    switch (check_range(c, 0, 5)) {
    case 0: /* any float at all */ memcpy(&x, &bits, sizeof x); return x;
    case 1: /* exactly between two halves, or a little beside it */
        x = (float)bf16_value((uint16_t)bits);
        memcpy(&bits, &x, sizeof bits);
        bits += 0x8000u + (uint32_t)check_range(c, -1, 1);
        memcpy(&x, &bits, sizeof x);
        return x;
    case 2:
        x = (float)f16_value((uint16_t)bits);
        memcpy(&bits, &x, sizeof bits);
        bits += 0x1000u + (uint32_t)check_range(c, -1, 1);
        memcpy(&x, &bits, sizeof x);
        return x;
    case 3: /* around the smallest halves */
        return (float)ldexp(check_normal(c), -24 + (int)check_range(c, -3, 12));
    case 4: /* around the largest */ return (float)(65504 + 64 * check_normal(c));
    default: return (float)check_normal(c);
    }
}

static void down(check *c, attn_convert_down kernel, double (*value)(uint16_t), int digits,
                 int least, double limit, bool flushes)
{
    enum { MOST = 700 };
    int64_t n = check_size(c, 32, MOST);
    float *src = check_floats(c, "src", n, 4);
    uint16_t *dst = check_take(c, "dst", (size_t)n * 2, 2);
    for (int64_t i = 0; i < n; i++) {
        src[i] = random_float(c);
    }
    check_input(c, src);
    CHECK_CALL(c, kernel(src, dst, n));
    for (int64_t i = 0; i < n && !c->failed; i++) {
        bool zero = flushes && fpclassify(src[i]) == FP_SUBNORMAL;
        double want = rounded(zero ? 0 : (double)src[i], digits, least, limit);
        double got = value(dst[i]);
        bool same = isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(src[i]);
        if (!same) {
            check_fail(c, "dst[%lld of %lld] is %.9g (%04x), must be %.9g, from %.9g", (long long)i,
                       (long long)n, got, dst[i], want, (double)src[i]);
        }
    }
}

static void run_bf16_down(check *c)
{
    down(c, attn_convert_table(c->isa)->f32_to_bf16, bf16_value, 8, -133, 0x1p128, false);
}

static void run_f16_down(check *c)
{
    down(c, attn_convert_table(c->isa)->f32_to_f16, f16_value, 11, -24, 0x1p16, true);
}

/* ---- bench ------------------------------------------------------------------------------------- */

enum { BENCH = 8192 };
static uint16_t halves[BENCH];
static float floats[BENCH];

static double bench_up(attn_convert_up kernel, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        kernel(halves, floats, BENCH);
    }
    return (double)repeats * BENCH;
}

static double bench_down(attn_convert_down kernel, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        kernel(floats, halves, BENCH);
    }
    return (double)repeats * BENCH;
}

static double bench_bf16_up(attn_isa isa, int64_t repeats)
{
    return bench_up(attn_convert_table(isa)->bf16_to_f32, repeats);
}

static double bench_f16_up(attn_isa isa, int64_t repeats)
{
    return bench_up(attn_convert_table(isa)->f16_to_f32, repeats);
}

static double bench_bf16_down(attn_isa isa, int64_t repeats)
{
    return bench_down(attn_convert_table(isa)->f32_to_bf16, repeats);
}

static double bench_f16_down(attn_isa isa, int64_t repeats)
{
    return bench_down(attn_convert_table(isa)->f32_to_f16, repeats);
}

static const void *table(attn_isa isa)
{
    return attn_convert_table(isa);
}

static const check_kernel kernels[] = {
    {"convert/bf16_to_f32", table, run_bf16_up, 200, bench_bf16_up, "elements"},
    {"convert/f16_to_f32", table, run_f16_up, 200, bench_f16_up, "elements"},
    {"convert/f32_to_bf16", table, run_bf16_down, 400, bench_bf16_down, "elements"},
    {"convert/f32_to_f16", table, run_f16_down, 400, bench_f16_down, "elements"},
};

const check_family check_convert = {kernels, sizeof kernels / sizeof *kernels};
