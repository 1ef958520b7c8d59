/*
 * test_ops_backward.c: gradients of norms, SwiGLU and rotary embedding: f64 against finite differences of the functions
 * themselves, f32 at every level against f64.
 *
 * repro: test_ops_backward <seed>
 */
#include "draws.h"
#include "expect.h"

#include <attn/attn.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 20261123;

/* ---------- arrays of doubles, and their f32 twins ---------- */

/* `rows` × `n` normal numbers, every one a float. */
static double *numbers(int64_t count)
{
    double *x = malloc((size_t)(count + 1) * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < count; i++) {
        x[i] = (double)(float)normal();
    }
    return x;
}

static double *copy_of(const double *x, int64_t count)
{
    double *y = malloc((size_t)(count + 1) * sizeof *y);
    assert_non_null(y);
    memcpy(y, x, (size_t)count * sizeof *y);
    return y;
}

static float *floats_of(const double *x, int64_t count)
{
    float *y = malloc((size_t)(count + 1) * sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < count; i++) {
        y[i] = (float)x[i];
    }
    return y;
}

static attn_view matrix(const double *x, int64_t rows, int64_t n)
{
    return attn_view_matrix(x, ATTN_F64, rows, n, n);
}

static attn_view vector(const double *x, int64_t n)
{
    return attn_view_dense(x, ATTN_F64, 1, &n);
}

static void compare(const char *what, const double *got, const double *want, int64_t count,
                    double tolerance)
{
    double most = 1e-3;
    for (int64_t i = 0; i < count; i++) {
        most = fmax(most, fabs(want[i]));
    }
    for (int64_t i = 0; i < count; i++) {
        if (!(fabs(got[i] - want[i]) <= tolerance * most)) {
            print_error("%s[%d]: %.12g, not %.12g (seed %llu)\n", what, (int)i, got[i], want[i],
                        (unsigned long long)seed);
            fail();
        }
    }
}

static void compare_f32(const char *what, const float *got, const double *want, int64_t count,
                        double tolerance)
{
    double *wide = malloc((size_t)(count + 1) * sizeof *wide);
    assert_non_null(wide);
    for (int64_t i = 0; i < count; i++) {
        wide[i] = (double)got[i];
    }
    compare(what, wide, want, count, tolerance);
    free(wide);
}

/* Central differences of `loss` in every element of x, to fourth order in the step. */
static double *differences(double (*loss)(const void *), const void *argument, double *x,
                           int64_t count)
{
    static const double at[] = {1.0, -1.0, 2.0, -2.0}, times[] = {8.0, -8.0, -1.0, 1.0};
    const double step = 1e-4;
    double *d = malloc((size_t)(count + 1) * sizeof *d);
    assert_non_null(d);
    for (int64_t i = 0; i < count; i++) {
        double given = x[i];
        d[i] = 0.0;
        for (int k = 0; k < 4; k++) {
            x[i] = given + at[k] * step;
            d[i] += times[k] * loss(argument) / (12.0 * step);
        }
        x[i] = given;
    }
    return d;
}

/* ---------- norms ---------- */

typedef struct norm {
    int64_t rows, n;
    bool layer;
    double eps;
    double *x, *weight, *dy; /* weight may be NULL */
} norm;

/* Σ dy·y, y as the definition says; the bias adds Σ dy and needs no test of its own. */
static double norm_loss(const void *argument)
{
    const norm *o = argument;
    double loss = 0.0;
    for (int64_t r = 0; r < o->rows; r++) {
        const double *x = o->x + r * o->n;
        double mean = 0.0, variance = 0.0;
        for (int64_t i = 0; o->layer && i < o->n; i++) {
            mean += x[i] / (double)o->n;
        }
        for (int64_t i = 0; i < o->n; i++) {
            variance += (x[i] - mean) * (x[i] - mean) / (double)o->n;
        }
        for (int64_t i = 0; i < o->n; i++) {
            double y = (x[i] - mean) / sqrt(variance + o->eps) * (o->weight ? o->weight[i] : 1.0);
            loss += o->dy[r * o->n + i] * y;
        }
    }
    return loss;
}

static norm norm_make(int64_t rows, int64_t n)
{
    norm o = {.rows = rows, .n = n, .layer = next() % 2, .eps = next() % 2 ? 1e-5 : 0.1};
    o.x = numbers(rows * n);
    o.dy = numbers(rows * n);
    o.weight = next() % 3 ? numbers(n) : NULL;
    return o;
}

static void norm_free(norm *o)
{
    free(o->x);
    free(o->dy);
    free(o->weight);
}

static attn_status norm_run(attn_context *context, const norm *o, const attn_view *x,
                            const attn_view *weight, const attn_view *dy, bool accumulate,
                            const attn_view *dx, const attn_view *dweight, const attn_view *dbias)
{
    return o->layer
               ? attn_layer_norm_backward(context, x, weight, o->eps, dy, accumulate, dx, dweight,
                                          dbias)
               : attn_rms_norm_backward(context, x, weight, o->eps, dy, accumulate, dx, dweight);
}

static void add(double *x, const double *y, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        x[i] += y[i];
    }
}

/* f64 against differences, then f32 against f64: all outputs, adding and not. */
static void check_norm(attn_context *context, bool accumulate)
{
    norm o = norm_make(between(1, 70), between(6, 40));
    int64_t count = o.rows * o.n;
    double *dx = numbers(count), *dweight = numbers(o.n), *dbias = numbers(o.n);
    float *fx = floats_of(o.x, count), *fdy = floats_of(o.dy, count), *fdx = floats_of(dx, count);
    float *fw = o.weight ? floats_of(o.weight, o.n) : NULL;
    float *fdw = floats_of(dweight, o.n), *fdb = floats_of(dbias, o.n);
    double *want_x = differences(norm_loss, &o, o.x, count), *want_w = NULL;
    double *want_b = calloc((size_t)o.n, sizeof *want_b);
    assert_non_null(want_b);
    if (o.weight) {
        want_w = differences(norm_loss, &o, o.weight, o.n);
    }
    for (int64_t i = 0; i < count; i++) {
        want_b[i % o.n] += o.dy[i];
    }
    if (accumulate) {
        add(want_x, dx, count);
        add(want_b, dbias, o.n);
        if (want_w) {
            add(want_w, dweight, o.n);
        }
    }
    attn_view x = matrix(o.x, o.rows, o.n), dy = matrix(o.dy, o.rows, o.n);
    attn_view vdx = matrix(dx, o.rows, o.n), w = vector(o.weight, o.n);
    attn_view vdw = vector(dweight, o.n), vdb = vector(dbias, o.n), none = {0};
    assert_int_equal(
        norm_run(context, &o, &x, o.weight ? &w : &none, &dy, accumulate, &vdx, &vdw, &vdb),
        ATTN_OK);
    compare("dx", dx, want_x, count, 1e-7);
    if (want_w) {
        compare("dweight", dweight, want_w, o.n, 1e-7);
    }
    if (o.layer) {
        compare("dbias", dbias, want_b, o.n, 1e-12);
    }
    x.dtype = dy.dtype = vdx.dtype = w.dtype = vdw.dtype = vdb.dtype = ATTN_F32;
    x.data = fx;
    dy.data = fdy;
    vdx.data = fdx;
    w.data = fw;
    vdw.data = fdw;
    vdb.data = fdb;
    assert_int_equal(norm_run(context, &o, &x, fw ? &w : NULL, &dy, accumulate, &vdx, &vdw, &vdb),
                     ATTN_OK);
    compare_f32("f32 dx", fdx, dx, count, 1e-6);
    compare_f32("f32 dweight", fdw, dweight, o.n, 4e-6);
    if (o.layer) {
        compare_f32("f32 dbias", fdb, dbias, o.n, 4e-6);
    }
    norm_free(&o);
    void *all[] = {dx, dweight, dbias, fx, fdy, fdx, fw, fdw, fdb, want_x, want_w, want_b};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

static void test_norms(void **unused)
{
    (void)unused;
    FOR_EACH_LEVEL(context, 2)
    {
        draw_state = seed;
        for (int64_t round = fraction(60); round > 0; round--) {
            check_norm(context, round % 2);
        }
    }
}

/* What is not wanted is not needed: each gradient alone, and dx in dy's place, have the bits they have together. */
static void test_norm_parts(void **unused)
{
    (void)unused;
    enum { ROWS = 100, N = 50 };
    FOR_EACH_LEVEL(context, 2)
    {
        draw_state = seed;
        double *x = numbers(ROWS * N), *dy = numbers(ROWS * N);
        float *fx = floats_of(x, ROWS * N), *fdy = floats_of(dy, ROWS * N);
        static float dx[ROWS * N];
        float dw[N], db[N], alone[N];
        attn_view vx = attn_view_matrix(fx, ATTN_F32, ROWS, N, N), vdy = vx, vdx = vx;
        vdy.data = fdy;
        vdx.data = dx;
        attn_view vdw = attn_view_dense(dw, ATTN_F32, 1, (int64_t[]){N}), vdb = vdw, one = vdw;
        vdb.data = db;
        one.data = alone;
        assert_int_equal(
            attn_layer_norm_backward(context, &vx, NULL, 1e-5, &vdy, false, &vdx, &vdw, &vdb),
            ATTN_OK);
        assert_int_equal(
            attn_layer_norm_backward(context, &vx, NULL, 1e-5, &vdy, false, NULL, &one, NULL),
            ATTN_OK);
        assert_memory_equal(alone, dw, sizeof dw);
        assert_int_equal(
            attn_layer_norm_backward(context, &vx, NULL, 1e-5, &vdy, false, NULL, NULL, &one),
            ATTN_OK);
        assert_memory_equal(alone, db, sizeof db);
        assert_int_equal(
            attn_layer_norm_backward(context, &vx, NULL, 1e-5, &vdy, false, &vdy, NULL, NULL),
            ATTN_OK);
        assert_memory_equal(fdy, dx, sizeof dx);
        free(x);
        free(dy);
        free(fx);
        free(fdy);
    }
}

/* ---------- SwiGLU ---------- */

typedef struct glu {
    int64_t count;
    double *gate, *up, *dy;
} glu;

static double glu_loss(const void *argument)
{
    const glu *o = argument;
    double loss = 0.0;
    for (int64_t i = 0; i < o->count; i++) {
        loss += o->dy[i] * o->gate[i] / (1.0 + exp(-o->gate[i])) * o->up[i];
    }
    return loss;
}

static void test_swiglu(void **unused)
{
    (void)unused;
    FOR_EACH_LEVEL(context, 2)
    {
        draw_state = seed;
        for (int64_t round = fraction(40); round > 0; round--) {
            int64_t rows = between(1, 4), n = between(1, 40), count = rows * n;
            glu o = {count, numbers(count), numbers(count), numbers(count)};
            for (int64_t i = 0; i < count; i++) {
                o.gate[i] = (double)(float)(4.0 * o.gate[i]);
            }
            float *fg = floats_of(o.gate, count), *fu = floats_of(o.up, count);
            float *fd = floats_of(o.dy, count);
            double *want_gate = differences(glu_loss, &o, o.gate, count);
            double *want_up = differences(glu_loss, &o, o.up, count);
            attn_view g = matrix(o.gate, rows, n), u = matrix(o.up, rows, n);
            attn_view d = matrix(o.dy, rows, n);
            assert_int_equal(attn_swiglu_backward(context, &g, &u, &d, &g, &u), ATTN_OK);
            compare("dgate", o.gate, want_gate, count, 1e-7);
            compare("dup", o.up, want_up, count, 1e-7);
            attn_view vg = attn_view_matrix(fg, ATTN_F32, rows, n, n), vu = vg, vd = vg;
            vu.data = fu;
            vd.data = fd;
            assert_int_equal(attn_swiglu_backward(context, &vg, &vu, &vd, &vd, &vg), ATTN_OK);
            compare_f32("f32 dgate", fd, o.gate, count, 1e-6);
            compare_f32("f32 dup", fg, o.up, count, 1e-6);
            void *all[] = {o.gate, o.up, o.dy, fg, fu, fd, want_gate, want_up};
            for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
                free(all[i]);
            }
        }
    }
}

/* ---------- rotary embedding ---------- */

/* The inverse undoes the rotation, and is its transpose: Σ dy·rope(x) = Σ rope⁻¹(dy)·x. f64 and f32 agree. */
static void test_rope(void **unused)
{
    (void)unused;
    FOR_EACH_LEVEL(context, 2)
    {
        draw_state = seed;
        for (int64_t round = fraction(60); round > 0; round--) {
            int64_t batch = between(1, 2), heads = between(1, 3), len = between(1, 5);
            int64_t dim = 2 * between(1, 40), dims = next() % 2 ? 0 : 2 * between(1, dim / 2);
            int64_t count = batch * heads * len * dim, positions[10];
            attn_rope_pairing pairing = next() % 2 ? ATTN_ROPE_HALVES : ATTN_ROPE_INTERLEAVED;
            for (int i = 0; i < 10; i++) {
                positions[i] = between(-50, 5000);
            }
            double *x = numbers(count), *dy = numbers(count);
            double *y = copy_of(x, count), *dx = copy_of(dy, count);
            float *f = floats_of(x, count);
            attn_view vy = attn_view_bhld(y, ATTN_F64, batch, heads, len, dim), vdx = vy;
            attn_view vf = attn_view_bhld(f, ATTN_F32, batch, heads, len, dim);
            vdx.data = dx;
            assert_int_equal(attn_rope(context, &vy, positions, 1e4, dims, pairing), ATTN_OK);
            assert_int_equal(attn_rope_inverse(context, &vdx, positions, 1e4, dims, pairing),
                             ATTN_OK);
            double left = 0.0, right = 0.0, size = 0.0;
            for (int64_t i = 0; i < count; i++) {
                left += dy[i] * y[i];
                right += dx[i] * x[i];
                size += fabs(dy[i] * y[i]);
            }
            assert_true(fabs(left - right) <= 1e-12 * size);
            assert_int_equal(attn_rope(context, &vf, positions, 1e4, dims, pairing), ATTN_OK);
            compare_f32("rope", f, y, count, 1e-6);
            assert_int_equal(attn_rope_inverse(context, &vf, positions, 1e4, dims, pairing),
                             ATTN_OK);
            compare_f32("f32 there and back", f, x, count, 1e-6);
            assert_int_equal(attn_rope_inverse(context, &vy, positions, 1e4, dims, pairing),
                             ATTN_OK);
            compare("there and back", y, x, count, 1e-13);
            void *all[] = {x, dy, y, dx, f};
            for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
                free(all[i]);
            }
        }
    }
}

/* ---------- threads, special values, errors ---------- */

static void test_threads(void **unused)
{
    (void)unused;
    enum { ROWS = 300, N = 200, COUNT = ROWS * N };
    static const int threads[] = {1, 2, 3, 7};
    static float first[3][COUNT], now[3][COUNT];
    for (int t = 0; t < 4; t++) {
        attn_context *context = context_of(ATTN_ISA_AUTO, threads[t]);
        draw_state = seed;
        double *x = numbers(COUNT), *dy = numbers(COUNT);
        float *fx = floats_of(x, COUNT), *fdy = floats_of(dy, COUNT);
        attn_view vx = attn_view_matrix(fx, ATTN_F32, ROWS, N, N), vdy = vx, vdx = vx;
        vdy.data = fdy;
        vdx.data = now[0];
        attn_view dw = attn_view_dense(now[1], ATTN_F32, 1, (int64_t[]){N}), db = dw;
        db.data = now[2];
        assert_int_equal(
            attn_layer_norm_backward(context, &vx, NULL, 1e-5, &vdy, false, &vdx, &dw, &db),
            ATTN_OK);
        if (t == 0) {
            memcpy(first, now, sizeof first);
        }
        assert_memory_equal(first, now, sizeof first);
        free(x);
        free(dy);
        free(fx);
        free(fdy);
        attn_context_destroy(context);
    }
}

static void test_nan(void **unused)
{
    (void)unused;
    FOR_EACH_LEVEL(context, 1)
    {
        draw_state = seed;
        double *x = numbers(60);
        float *fx = floats_of(x, 60), dx[60], dw[20];
        attn_view vx = attn_view_matrix(fx, ATTN_F32, 3, 20, 20), vdx = vx;
        attn_view vdw = attn_view_dense(dw, ATTN_F32, 1, (int64_t[]){20});
        vdx.data = dx;
        float ones[60];
        attn_view dy = vx;
        dy.data = ones;
        for (int i = 0; i < 60; i++) {
            ones[i] = 1.0f;
        }
        ones[27] = NAN;
        assert_int_equal(attn_rms_norm_backward(context, &vx, NULL, 1e-5, &dy, false, &vdx, &vdw),
                         ATTN_OK);
        for (int i = 0; i < 60; i++) {
            assert_true((isnan(dx[i]) != 0) == (i / 20 == 1));
            assert_true((isnan(dw[i % 20]) != 0) == (i % 20 == 7));
        }
        free(x);
        free(fx);
    }
}

static void test_errors(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    static float x[24], y[24];
    const attn_view vx = attn_view_matrix(x, ATTN_F32, 4, 6, 6);
    const attn_view vy = attn_view_matrix(y, ATTN_F32, 4, 6, 6);
    const attn_view w = attn_view_dense(x, ATTN_F32, 1, (int64_t[]){6});
    attn_view v = vy;
    expect_error(attn_rms_norm_backward(NULL, &vx, NULL, 1e-5, &vx, false, &vy, NULL),
                 ATTN_ERR_ARGUMENT, "context");
    expect_error(attn_rms_norm_backward(context, NULL, NULL, 1e-5, &vx, false, &vy, NULL),
                 ATTN_ERR_ARGUMENT, "x:");
    expect_error(attn_rms_norm_backward(context, &vx, NULL, -1.0, &vx, false, &vy, NULL),
                 ATTN_ERR_ARGUMENT, "eps");
    v.shape[0] = 3;
    expect_error(attn_rms_norm_backward(context, &vx, NULL, 1e-5, &v, false, &vy, NULL),
                 ATTN_ERR_SHAPE, "dy");
    v = vy;
    v.stride[0] = 5;
    expect_error(attn_rms_norm_backward(context, &vx, NULL, 1e-5, &vx, false, &v, NULL),
                 ATTN_ERR_SHAPE, "overlap");
    v = attn_view_dense(x, ATTN_F32, 1, (int64_t[]){5});
    expect_error(attn_layer_norm_backward(context, &vx, &v, 1e-5, &vx, false, &vy, NULL, NULL),
                 ATTN_ERR_SHAPE, "weight");
    expect_error(attn_layer_norm_backward(context, &vx, &w, 1e-5, &vx, false, &vy, NULL, &v),
                 ATTN_ERR_SHAPE, "dbias");
    v = w;
    v.dtype = ATTN_F64;
    expect_error(attn_layer_norm_backward(context, &vx, &v, 1e-5, &vx, false, &vy, NULL, NULL),
                 ATTN_ERR_DTYPE, "one type");
    v = vy;
    v.dtype = ATTN_F16;
    expect_error(attn_swiglu_backward(context, &v, &vx, &vx, &vy, &vy), ATTN_ERR_DTYPE, "f16");
    expect_error(attn_swiglu_backward(context, &vx, &vx, &vx, NULL, &vy), ATTN_ERR_ARGUMENT,
                 "dgate");
    v = vy;
    v.shape[1] = 4;
    expect_error(attn_swiglu_backward(context, &vx, &vx, &vx, &vy, &v), ATTN_ERR_SHAPE, "dup");
    expect_error(attn_rope_inverse(context, &vx, NULL, 1e4, 0, ATTN_ROPE_HALVES), ATTN_ERR_SHAPE,
                 "batch");
    attn_view none = vx, none_y = vy, dw = attn_view_dense(y, ATTN_F32, 1, (int64_t[]){6});
    none.shape[0] = none_y.shape[0] = 0;
    y[3] = 5.0f;
    expect_error(attn_rms_norm_backward(context, &none, NULL, 1e-5, &none, false, &none_y, &dw),
                 ATTN_OK, "");
    assert_true(y[3] == 0.0f);
    attn_context_destroy(context);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),   cmocka_unit_test(test_norm_parts),
        cmocka_unit_test(test_swiglu),  cmocka_unit_test(test_rope),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_nan),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
