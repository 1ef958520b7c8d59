/*
 * test_ops.c: norms, rotary embedding, SwiGLU, conversions and attn_parallel_for against plain loops in double, at
 * every level this machine has.
 *
 * repro: test_ops <seed>
 */
#include "draws.h"
#include "expect.h"

#include <attn/attn.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 20240608;

static float *normals(int64_t count)
{
    float *x = malloc((size_t)count * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < count; i++) {
        x[i] = (float)normal();
    }
    return x;
}

static float *copy_of(const float *x, int64_t count)
{
    float *y = malloc((size_t)count * sizeof *y);
    assert_non_null(y);
    memcpy(y, x, (size_t)count * sizeof *y);
    return y;
}

static void close_to(double got, double wanted, double tolerance, const char *what)
{
    if (!(fabs(got - wanted) <= tolerance)) {
        print_error("%s: %.9g, wanted %.9g within %g; repro: test_ops %llu\n", what, got, wanted,
                    tolerance, (unsigned long long)seed);
        fail();
    }
}

/* ---------- norms ---------- */

static void check_norm(attn_context *context, bool layer, bool in_place)
{
    int64_t rows = between(1, 9), n = between(1, 70), ld = n + between(0, 3);
    n = next() % 8 ? n : between(500, 1100);
    ld = ld < n ? n : ld;
    float *x = normals(rows * ld), *w = next() % 2 ? normals(n) : NULL;
    float *bias = layer && next() % 2 ? normals(n) : NULL;
    float scale = next() % 3 ? 1.0f : 1e20f, offset = next() % 2 ? 0.0f : 100.0f * scale;
    for (int64_t i = 0; i < rows * ld; i++) {
        x[i] = x[i] * scale + offset;
    }
    float *given = copy_of(x, rows * ld), *y = in_place ? x : normals(rows * ld);
    double eps = 1e-5;
    attn_view vx = attn_view_matrix(x, ATTN_F32, rows, n, ld);
    attn_view vy = attn_view_matrix(y, ATTN_F32, rows, n, ld);
    assert_int_equal(layer ? attn_layer_norm(context, &vx, w, bias, eps, &vy)
                           : attn_rms_norm(context, &vx, w, eps, &vy),
                     ATTN_OK);
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0.0, squares = 0.0;
        for (int64_t i = 0; layer && i < n; i++) {
            mean += given[r * ld + i] / (double)n;
        }
        for (int64_t i = 0; i < n; i++) {
            squares += pow(given[r * ld + i] - mean, 2.0) / (double)n;
        }
        for (int64_t i = 0; i < n; i++) {
            double wanted = (given[r * ld + i] - mean) / sqrt(squares + eps) * (w ? w[i] : 1.0f);
            wanted += bias ? bias[i] : 0.0f;
            double size = fabs(wanted) + (bias ? fabs((double)bias[i]) : 0.0) + 1e-6;
            /* One element has variance 0 up to rounding: there eps alone decides. */
            close_to(y[r * ld + i], wanted,
                     n == 1 && layer && scale > 1.0f ? INFINITY : 2e-7 * size,
                     layer ? "layer norm" : "rms norm");
        }
    }
    free(x);
    free(w);
    free(bias);
    free(given);
    if (!in_place) {
        free(y);
    }
}

static void test_norms(void **unused)
{
    (void)unused;
    draw_state = seed;
    FOR_EACH_LEVEL(context, 2)
    {
        for (int round = 0; round < 200; round++) {
            check_norm(context, round % 2, round / 2 % 2);
        }
    }
}

static void test_norm_nan(void **unused)
{
    (void)unused;
    FOR_EACH_LEVEL(context, 1)
    {
        draw_state = seed;
        float *x = normals(3 * 20), y[60];
        x[27] = NAN;
        attn_view vx = attn_view_matrix(x, ATTN_F32, 3, 20, 20);
        attn_view vy = attn_view_matrix(y, ATTN_F32, 3, 20, 20);
        assert_int_equal(attn_rms_norm(context, &vx, NULL, 1e-5, &vy), ATTN_OK);
        for (int i = 0; i < 60; i++) {
            assert_true((isnan(y[i]) != 0) == (i / 20 == 1));
        }
        free(x);
    }
}

/* ---------- rope ---------- */

static void check_rope(attn_context *context)
{
    int64_t batch = between(1, 2), heads = between(1, 4), len = between(1, 5);
    int64_t dim = 2 * between(1, 40);
    dim = next() % 10 ? dim : 2 * between(120, 300);
    int64_t dims = next() % 2 ? 0 : 2 * between(1, dim / 2), pairs = (dims ? dims : dim) / 2;
    static const double thetas[] = {10000.0, 1e5, 1e6, 0.5, 1.0};
    double theta = thetas[next() % 5];
    attn_rope_pairing pairing = next() % 2 ? ATTN_ROPE_HALVES : ATTN_ROPE_INTERLEAVED;
    int64_t count = batch * heads * len * dim;
    float *x = normals(count), *given = copy_of(x, count);
    int64_t positions[10];
    for (int i = 0; i < 10; i++) {
        positions[i] = next() % 4 ? between(0, 10000) : between(-200000, 200000);
    }
    attn_view v = next() % 2 ? attn_view_bhld(x, ATTN_F32, batch, heads, len, dim)
                             : attn_view_blhd(x, ATTN_F32, batch, len, heads, dim);
    assert_int_equal(attn_rope(context, &v, positions, theta, dims, pairing), ATTN_OK);
    for (int64_t row = 0; row < batch * heads * len; row++) {
        int64_t b = row / (heads * len), h = row / len % heads, l = row % len;
        int64_t at = b * v.stride[0] + h * v.stride[1] + l * v.stride[2];
        for (int64_t i = 0; i < dim; i++) {
            int64_t pair = pairing == ATTN_ROPE_HALVES ? i % pairs : i / 2;
            int64_t first = pairing == ATTN_ROPE_HALVES ? pair : 2 * pair;
            int64_t second = pairing == ATTN_ROPE_HALVES ? pair + pairs : 2 * pair + 1;
            double wanted = given[at + i];
            if (i < 2 * pairs) {
                double angle = (double)positions[b * len + l] *
                               pow(theta, -2.0 * (double)pair / (2.0 * (double)pairs));
                double a = given[at + first], c = given[at + second];
                wanted =
                    i == first ? a * cos(angle) - c * sin(angle) : c * cos(angle) + a * sin(angle);
            }
            /* Small thetas make huge angles, whose own rounding shows. */
            close_to(x[at + i], wanted, theta < 1.0 ? 3e-6 : 1e-6, "rope");
        }
    }
    free(x);
    free(given);
}

static void test_rope(void **unused)
{
    (void)unused;
    draw_state = seed;
    FOR_EACH_LEVEL(context, 2)
    {
        for (int round = 0; round < 300; round++) {
            check_rope(context);
        }
        /* Beyond what the vector kernels reduce: still rotations. */
        float far[4] = {3.0f, 4.0f, 3.0f, 4.0f};
        int64_t position = INT64_MAX / 3;
        attn_view v = attn_view_bhld(far, ATTN_F32, 1, 1, 1, 4);
        assert_int_equal(attn_rope(context, &v, &position, 10000.0, 0, ATTN_ROPE_INTERLEAVED),
                         ATTN_OK);
        close_to(hypot(far[0], far[1]), 5.0, 1e-5, "length");
    }
}

/* ---------- swiglu ---------- */

static void test_swiglu(void **unused)
{
    (void)unused;
    static const float hostile[] = {0.0f,  -0.0f,  20.0f,    -20.0f,    87.9f, -87.9f,
                                    88.5f, -88.5f, 200.0f,   -200.0f,   1e30f, -1e30f,
                                    NAN,   1e-40f, INFINITY, -INFINITY, 90.0f, -100.0f};
    enum { COUNT = sizeof hostile / sizeof *hostile };
    draw_state = seed;
    FOR_EACH_LEVEL(context, 2)
    {
        for (int round = 0; round < 60; round++) {
            int64_t rows = between(1, 4), n = round ? between(1, 70) : 20000;
            float *gate = normals(rows * n), *up = normals(rows * n);
            for (int64_t i = 0; i < rows * n; i++) {
                gate[i] = next() % 4 ? gate[i] * 8.0f : hostile[next() % COUNT];
            }
            float *given = copy_of(gate, rows * n);
            attn_view vg = attn_view_matrix(gate, ATTN_F32, rows, n, n);
            attn_view vu = attn_view_matrix(up, ATTN_F32, rows, n, n);
            assert_int_equal(attn_swiglu(context, &vg, &vu, &vg), ATTN_OK);
            for (int64_t i = 0; i < rows * n; i++) {
                double z = given[i], wanted = z / (1.0 + exp(-z)) * up[i];
                if (isnan(wanted)) {
                    assert_true(isnan(gate[i]) != 0);
                } else if (isinf(wanted)) {
                    assert_true(isinf(gate[i]) != 0);
                } else {
                    close_to(gate[i], wanted, 4e-7 * fabs(wanted) + 1e-35, "swiglu");
                }
            }
            free(gate);
            free(up);
            free(given);
        }
    }
}

/* ---------- convert ---------- */

static uint16_t half_of(double value, bool bf16)
{
    /* Nearest of all 65536 by bisection over positive bit patterns; ties to even. */
    unsigned low = 0, high = bf16 ? 0x7f80 : 0x7c00;
    double size = fabs(value);
    int bits = bf16 ? 7 : 10, bias = bf16 ? 127 : 15;
    while (low + 1 < high) {
        unsigned middle = (low + high) / 2, e = middle >> bits;
        double fraction = middle & ((1u << bits) - 1u);
        double at = e ? ldexp(fraction + (1 << bits), (int)e - bias - bits)
                      : ldexp(fraction, 1 - bias - bits);
        if (at <= size) {
            low = middle;
        } else {
            high = middle;
        }
    }
    double ends[2];
    for (unsigned i = 0; i < 2; i++) { /* infinity's place is where the next number would be */
        unsigned e = (low + i) >> bits;
        double fraction = (low + i) & ((1u << bits) - 1u);
        ends[i] = e ? ldexp(fraction + (1 << bits), (int)e - bias - bits)
                    : ldexp(fraction, 1 - bias - bits);
    }
    double down = size - ends[0], up = ends[1] - size;
    unsigned bits_of = down < up || (down == up && low % 2 == 0) ? low : low + 1;
    return (uint16_t)(bits_of | (signbit(value) ? 0x8000u : 0u));
}

static void test_convert(void **unused)
{
    (void)unused;
    draw_state = seed;
    FOR_EACH_LEVEL(context, 2)
    {
        enum { N = 2000 };
        static double d[N];
        static float f[N];
        static uint16_t h[N];
        static double back[N];
        for (int bf16 = 0; bf16 < 2; bf16++) {
            attn_dtype type = bf16 ? ATTN_BF16 : ATTN_F16;
            for (int i = 0; i < N; i++) {
                /* Sizes around every limit; every fourth a tie, or just beside one. */
                d[i] =
                    ldexp(1.0 + next() * 0x1p-31, (int)between(bf16 ? -140 : -28, bf16 ? 128 : 17));
                d[i] = next() % 2 ? d[i] : -d[i];
                if (i % 4 == 0) {
                    d[i] = ldexp((double)(between(256, 511) * 2 + 1),
                                 (int)between(-20, 6) - (bf16 ? 0 : -3));
                    d[i] *= i % 8 ? 1.0 : 1.0 + 0x1p-40;
                }
            }
            const int64_t shape[3] = {4, 5, 100};
            attn_view vd = attn_view_dense(d, ATTN_F64, 3, shape);
            attn_view vh = attn_view_dense(h, type, 3, shape);
            attn_view vb = attn_view_dense(back, ATTN_F64, 3, shape);
            assert_int_equal(attn_convert(context, &vd, &vh), ATTN_OK);
            for (int i = 0; i < N; i++) {
                if (h[i] != half_of(d[i], bf16)) {
                    print_error("%a -> %04x, wanted %04x (%s)\n", d[i], h[i], half_of(d[i], bf16),
                                attn_isa_name(attn_context_isa(context)));
                    fail();
                }
            }
            assert_int_equal(attn_convert(context, &vh, &vb), ATTN_OK);
            attn_view vf = attn_view_dense(f, ATTN_F32, 3, shape);
            assert_int_equal(attn_convert(context, &vh, &vf), ATTN_OK);
            for (int i = 0; i < N; i++) {
                assert_true(back[i] == (double)f[i]);
                assert_true(half_of(back[i], bf16) == h[i] || isinf(back[i]));
            }
        }
        /* Strides: a transposed source, a padded destination. */
        float source[6] = {1, 2, 3, 4, 5, 6}, padded[8] = {0};
        attn_view from = attn_view_dense(source, ATTN_F32, 2, (int64_t[]){3, 2});
        from.stride[0] = -2;
        from.data = source + 4;
        double to[3 * 4] = {0};
        attn_view into = attn_view_matrix(to, ATTN_F64, 3, 2, 4);
        assert_int_equal(attn_convert(context, &from, &into), ATTN_OK);
        assert_true(to[0] == 5 && to[1] == 6 && to[4] == 3 && to[8] == 1 && to[9] == 2 &&
                    to[2] == 0);
        into.dtype = ATTN_BOOL;
        expect_error(attn_convert(context, &from, &into), ATTN_ERR_DTYPE, "dst");
        into = attn_view_matrix(padded, ATTN_F32, 2, 2, 4);
        expect_error(attn_convert(context, &from, &into), ATTN_ERR_SHAPE, "match");
        into = attn_view_matrix(padded, ATTN_F32, 3, 2, 0);
        expect_error(attn_convert(context, &from, &into), ATTN_ERR_SHAPE, "overlap");
        expect_error(attn_convert(context, NULL, &into), ATTN_ERR_ARGUMENT, "src");
    }
}

/* ---------- threads ---------- */

typedef struct counts {
    atomic_int calls[1000];
    atomic_int busy[8];
    atomic_int clashes;
} counts;

static void count_task(void *argument, int64_t index, int worker)
{
    counts *c = argument;
    if (atomic_fetch_add(&c->busy[worker], 1) != 0) {
        atomic_fetch_add(&c->clashes, 1);
    }
    atomic_fetch_add(&c->calls[index], 1);
    atomic_fetch_sub(&c->busy[worker], 1);
}

static void test_parallel_for(void **unused)
{
    (void)unused;
    static const int threads[] = {1, 2, 3, 7};
    for (int t = 0; t < 4; t++) {
        attn_context *context = context_of(ATTN_ISA_AUTO, threads[t]);
        counts c = {.clashes = 0};
        assert_int_equal(attn_parallel_for(context, 1000, count_task, &c), ATTN_OK);
        assert_int_equal(attn_parallel_for(context, 0, count_task, &c), ATTN_OK);
        for (int i = 0; i < 1000; i++) {
            assert_int_equal(atomic_load(&c.calls[i]), 1);
        }
        assert_int_equal(atomic_load(&c.clashes), 0);
        attn_context_destroy(context);
    }
}

/* Same bits for 1, 2, 3 and 7 threads, on arrays large enough to be cut. */
static void test_threads(void **unused)
{
    (void)unused;
    enum { ROWS = 90, N = 640, COUNT = ROWS * N };
    static const int threads[] = {1, 2, 3, 7};
    float *first = NULL;
    for (int t = 0; t < 4; t++) {
        attn_context *context = context_of(ATTN_ISA_AUTO, threads[t]);
        draw_state = seed;
        float *x = normals(COUNT), *up = normals(COUNT);
        int64_t positions[ROWS];
        for (int i = 0; i < ROWS; i++) {
            positions[i] = i;
        }
        attn_view v = attn_view_matrix(x, ATTN_F32, ROWS, N, N);
        attn_view u = attn_view_matrix(up, ATTN_F32, ROWS, N, N);
        attn_view heads = attn_view_blhd(x, ATTN_F32, 1, ROWS, 10, 64);
        assert_int_equal(attn_layer_norm(context, &v, NULL, NULL, 1e-5, &v), ATTN_OK);
        assert_int_equal(attn_rope(context, &heads, positions, 1e4, 0, ATTN_ROPE_HALVES), ATTN_OK);
        assert_int_equal(attn_rms_norm(context, &v, NULL, 1e-5, &v), ATTN_OK);
        assert_int_equal(attn_swiglu(context, &v, &u, &v), ATTN_OK);
        if (first) {
            assert_memory_equal(first, x, COUNT * sizeof *x);
            free(x);
        } else {
            first = x;
        }
        free(up);
        attn_context_destroy(context);
    }
    free(first);
}

static void test_errors(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    float x[24] = {0}, y[24];
    int64_t positions[4] = {0};
    attn_view vx = attn_view_matrix(x, ATTN_F32, 4, 6, 6),
              vy = attn_view_matrix(y, ATTN_F32, 4, 6, 6);
    attn_view other = attn_view_matrix(y, ATTN_F32, 3, 6, 6), half = vx;
    half.dtype = ATTN_F16;
    expect_error(attn_rms_norm(NULL, &vx, NULL, 1e-5, &vy), ATTN_ERR_ARGUMENT, "context");
    expect_error(attn_rms_norm(context, NULL, NULL, 1e-5, &vy), ATTN_ERR_ARGUMENT, "x");
    expect_error(attn_rms_norm(context, &vx, NULL, -1.0, &vy), ATTN_ERR_ARGUMENT, "eps");
    expect_error(attn_rms_norm(context, &vx, NULL, NAN, &vy), ATTN_ERR_ARGUMENT, "eps");
    expect_error(attn_rms_norm(context, &half, NULL, 1e-5, &vy), ATTN_ERR_DTYPE, "f16");
    expect_error(attn_layer_norm(context, &vx, NULL, NULL, 1e-5, &other), ATTN_ERR_SHAPE, "[3, 6]");
    expect_error(attn_swiglu(context, &vx, &other, &vy), ATTN_ERR_SHAPE, "up");
    other = vy;
    other.stride[0] = 5;
    expect_error(attn_swiglu(context, &vx, &vx, &other), ATTN_ERR_SHAPE, "overlap");
    attn_view heads = attn_view_bhld(x, ATTN_F32, 1, 2, 4, 3);
    expect_error(attn_rope(context, &vx, positions, 1e4, 0, ATTN_ROPE_HALVES), ATTN_ERR_SHAPE,
                 "batch");
    expect_error(attn_rope(context, &heads, positions, 1e4, 0, ATTN_ROPE_HALVES), ATTN_ERR_SHAPE,
                 "odd");
    expect_error(attn_rope(context, &heads, positions, 1e4, 4, ATTN_ROPE_HALVES), ATTN_ERR_SHAPE,
                 "dims");
    expect_error(attn_rope(context, &heads, NULL, 1e4, 2, ATTN_ROPE_HALVES), ATTN_ERR_ARGUMENT,
                 "positions");
    expect_error(attn_rope(context, &heads, positions, 0.0, 2, ATTN_ROPE_HALVES), ATTN_ERR_ARGUMENT,
                 "theta");
    expect_error(attn_rope(context, &heads, positions, 1e4, 2, (attn_rope_pairing)5),
                 ATTN_ERR_ARGUMENT, "pairing");
    heads.stride[1] = 0;
    expect_error(attn_rope(context, &heads, positions, 1e4, 2, ATTN_ROPE_HALVES), ATTN_ERR_SHAPE,
                 "overlap");
    vx.shape[0] = vy.shape[0] = 0;
    assert_int_equal(attn_rms_norm(context, &vx, NULL, 1e-5, &vy), ATTN_OK);
    attn_context_destroy(context);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),   cmocka_unit_test(test_norm_nan),
        cmocka_unit_test(test_rope),    cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_convert), cmocka_unit_test(test_parallel_for),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
