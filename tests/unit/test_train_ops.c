/**
 * test_train_ops.c: activations, softmax, cross-entropy, AdamW, dropout: gradients against finite differences, f32 against f64, strides,
 * in-place calls, the same bits for any number of threads, errors.
 *   repeat with: test_train_ops <seed>
 */
#include <attn/attn.h>

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 20240611;
static uint64_t state;

static uint32_t next(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static double normal(void)
{
    double sum = -6.0;
    for (int i = 0; i < 12; i++) {
        sum += (double)next() * 0x1p-31;
    }
    return sum;
}

static const attn_isa levels[] = {ATTN_ISA_C, ATTN_ISA_AVX2, ATTN_ISA_AVX512};

static attn_context *context_of(attn_isa isa, int threads)
{
    attn_context_options options = attn_context_options_init();
    options.isa = isa;
    options.threads = threads;
    attn_context *context = NULL;
    assert_int_equal(attn_context_create(&options, &context), ATTN_OK);
    if (isa != ATTN_ISA_AUTO && attn_context_isa(context) != isa) {
        attn_context_destroy(context);
        return NULL;
    }
    return context;
}

static void *bytes(size_t count)
{
    void *p = malloc(count > 0 ? count : 1);
    assert_non_null(p);
    return p;
}

static double *doubles(int64_t n, double offset)
{
    double *x = bytes((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = normal() + offset;
    }
    return x;
}

static float *floats(int64_t n, double offset)
{
    float *x = bytes((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(normal() + offset);
    }
    return x;
}

static attn_view f32(const float *x, int64_t rows, int64_t n)
{
    return attn_view_matrix(x, ATTN_F32, rows, n, n);
}

static attn_view f64(const double *x, int64_t rows, int64_t n)
{
    return attn_view_matrix(x, ATTN_F64, rows, n, n);
}

static void close_to(double got, double wanted, double tolerance, const char *what)
{
    if (!(fabs(got - wanted) <= tolerance)) {
        print_error("%s: %.17g, wanted %.17g within %g; repeat with: test_train_ops %llu\n", what,
                    got, wanted, tolerance, (unsigned long long)seed);
        fail();
    }
}

static void expect(attn_status got, attn_status wanted, const char *word)
{
    if (got != wanted || !strstr(attn_last_error(), word)) {
        print_error("status %s, wanted %s with \"%s\"; text: %s\n", attn_status_string(got),
                    attn_status_string(wanted), word, attn_last_error());
        fail();
    }
}

static void ok(attn_status status)
{
    if (status != ATTN_OK) {
        print_error("%s\n", attn_last_error());
        fail();
    }
}

/* ---------- the calls, numbered, as functions from arrays to an array ---------- */

enum {
    FORWARD = 0, /* 8 activations */
    BACKWARD = 8,
    SOFTMAX = 16, /* and its logarithm */
    SOFTMAX_BACKWARD = 18,
    CROSS_ENTROPY = 20,
    AXPBY = 21,
    DROPOUT = 22,
    CALLS = 23
};

/* out = call(a, b): a is data, b a gradient; out may be a's or b's memory where the call allows it. */
static attn_status call(attn_context *context, int number, const attn_view *a, const attn_view *b,
                        const attn_view *out)
{
    if (number < BACKWARD) {
        return attn_activate(context, (attn_activation)number, a, out);
    }
    if (number < SOFTMAX) {
        return attn_activate_backward(context, (attn_activation)(number - BACKWARD), a, b, false,
                                      out);
    }
    if (number < SOFTMAX_BACKWARD) {
        return attn_softmax(context, number > SOFTMAX, a, out);
    }
    if (number < CROSS_ENTROPY) {
        return attn_softmax_backward(context, number > SOFTMAX_BACKWARD, a, b, false, out);
    }
    if (number == CROSS_ENTROPY) {
        int64_t *targets = bytes((size_t)a->shape[0] * sizeof *targets);
        for (int64_t r = 0; r < a->shape[0]; r++) {
            targets[r] = r % 5 == 4 ? -1 : r * 7 % a->shape[1];
        }
        attn_status status = attn_cross_entropy(context, a, targets, 0.3, NULL, out);
        free(targets);
        return status;
    }
    if (number == AXPBY) {
        return attn_axpby(context, 0.7, a, 0.0, out);
    }
    return attn_dropout(context, 0.4, 99, a, out);
}

/* ---------- gradients against finite differences, in f64 ---------- */

/* Σ dy∘f(x) for the forward call of a number */
static double weighed(attn_context *context, int number, const attn_view *x, const attn_view *dy,
                      const attn_view *y)
{
    ok(call(context, number, x, dy, y));
    double sum = 0.0;
    for (int64_t i = 0; i < x->shape[0] * x->shape[1]; i++) {
        sum += ((double *)y->data)[i] * ((double *)dy->data)[i];
    }
    return sum;
}

static void gradient_of(attn_context *context, int forward, int backward, bool positive)
{
    enum { ROWS = 3, N = 7, COUNT = ROWS * N };
    double *x = doubles(COUNT, 0.0), *dy = doubles(COUNT, 0.0), *y = doubles(COUNT, 0.0);
    double *dx = doubles(COUNT, 0.0);
    for (int i = 0; i < COUNT; i++) {
        x[i] = positive ? fabs(x[i]) + 0.1 : 2.0 * x[i];
    }
    attn_view vx = f64(x, ROWS, N), vdy = f64(dy, ROWS, N), vy = f64(y, ROWS, N);
    attn_view vdx = f64(dx, ROWS, N);
    ok(call(context, forward, &vx, &vdy, &vy));
    bool of_result = forward >= SOFTMAX; /* softmax's gradient is made from its result */
    ok(call(context, backward, of_result ? &vy : &vx, &vdy, &vdx));
    for (int i = 0; i < COUNT; i++) {
        double at = x[i], h = 1e-5;
        x[i] = at + h;
        double above = weighed(context, forward, &vx, &vdy, &vy);
        x[i] = at - h;
        double below = weighed(context, forward, &vx, &vdy, &vy);
        x[i] = at;
        close_to(dx[i], (above - below) / (2 * h), 1e-8 * (1 + fabs(dx[i]) * (positive ? 99 : 1)),
                 "gradient");
    }
    free(x);
    free(dy);
    free(y);
    free(dx);
}

static void gradients_are_finite_differences(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 2);
    for (int kind = 0; kind < 8; kind++) {
        gradient_of(context, FORWARD + kind, BACKWARD + kind, kind == ATTN_ACT_LOG);
    }
    gradient_of(context, SOFTMAX, SOFTMAX_BACKWARD, false);
    gradient_of(context, SOFTMAX + 1, SOFTMAX_BACKWARD + 1, false);
    attn_context_destroy(context);
}

static void cross_entropy_is_minus_log_softmax_and_its_gradient(void **unused)
{
    (void)unused;
    enum { ROWS = 4, N = 9 };
    attn_context *context = context_of(ATTN_ISA_AUTO, 2);
    double *x = doubles(ROWS * N, 0.0), *y = doubles(ROWS * N, 0.0), dx[ROWS * N];
    double losses[2 * ROWS];
    int64_t targets[ROWS] = {3, 0, -1, N - 1}, shape[1] = {ROWS};
    attn_view vx = f64(x, ROWS, N), vy = f64(y, ROWS, N), vdx = f64(dx, ROWS, N);
    attn_view vl = attn_view_dense(losses, ATTN_F64, 1, shape), none = {0};
    vl.stride[0] = 2;
    ok(attn_softmax(context, true, &vx, &vy));
    for (int i = 0; i < N; i++) { /* an ignored row is not read */
        x[2 * N + i] = NAN;
    }
    ok(attn_cross_entropy(context, &vx, targets, 0.25, &vl, &vdx));
    for (int r = 0; r < ROWS; r++) {
        bool ignored = targets[r] < 0;
        close_to(losses[2 * r], ignored ? 0.0 : -y[r * N + targets[r]], 1e-14, "loss");
        for (int i = 0; i < N; i++) {
            double p = exp(y[r * N + i]) - (i == targets[r] ? 1.0 : 0.0);
            close_to(dx[r * N + i], ignored ? 0.0 : 0.25 * p, 1e-15, "dlogits");
        }
    }
    ok(attn_cross_entropy(context, &vx, targets, 1.0, &vl, NULL));
    ok(attn_cross_entropy(context, &vx, targets, 0.25, &none, &vx));
    assert_memory_equal(x, dx, sizeof dx);
    free(x);
    free(y);
    attn_context_destroy(context);
}

/* ---------- f32 at every level against f64 ---------- */

static void f32_is_near_f64(void **unused)
{
    (void)unused;
    enum { ROWS = 5, N = 301, COUNT = ROWS * N };
    float *a = floats(COUNT, 0.0), *b = floats(COUNT, 0.0), *out = floats(COUNT, 0.0);
    double *da = doubles(COUNT, 0.0), *db = doubles(COUNT, 0.0), *want = doubles(COUNT, 0.0);
    attn_view va = f32(a, ROWS, N), vb = f32(b, ROWS, N), vo = f32(out, ROWS, N);
    attn_view vda = f64(da, ROWS, N), vdb = f64(db, ROWS, N), vw = f64(want, ROWS, N);
    for (size_t level = 0; level < sizeof levels / sizeof *levels; level++) {
        attn_context *context = context_of(levels[level], 1);
        for (int number = 0; context && number < CALLS; number++) {
            bool positive = number == ATTN_ACT_LOG || number == BACKWARD + ATTN_ACT_LOG;
            for (int i = 0; i < COUNT; i++) {
                a[i] = (float)(positive ? fabs(normal()) + 0.01 : 3.0 * normal());
                b[i] = (float)normal();
                da[i] = a[i];
                db[i] = b[i];
            }
            ok(call(context, number, &va, &vb, &vo));
            ok(call(context, number, &vda, &vdb, &vw));
            double size = 0.0; /* softmax's gradient cancels: a share of the largest */
            for (int i = 0; i < COUNT; i++) {
                size = fmax(size, fabs(want[i]));
            }
            bool sums = number >= SOFTMAX_BACKWARD && number < CROSS_ENTROPY;
            for (int i = 0; i < COUNT; i++) {
                close_to(out[i], want[i], 2e-6 * (sums ? size : fabs(want[i])) + 1e-6 * 0.3,
                         "f32 against f64");
            }
        }
        attn_context_destroy(context);
    }
    free(a);
    free(b);
    free(out);
    free(da);
    free(db);
    free(want);
}

/* ---------- views ---------- */

static void strides_and_places_do_not_change_bits(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 2);
    for (int number = 0; number < CALLS; number++) {
        int64_t rows = 1 + next() % 6, n = 1 + next() % 70, ld = n + 3, count = rows * n;
        float *a = floats(count, 3.0), *b = floats(count, 0.0), *want = floats(count, 0.0);
        float *wide_a = floats(rows * ld, 0.0), *wide = floats(rows * ld, 0.0);
        float *before = bytes((size_t)(rows * ld) * sizeof *before);
        for (int64_t r = 0; r < rows; r++) { /* the rows of a, last first */
            memcpy(wide_a + (rows - 1 - r) * ld, a + r * n, (size_t)n * sizeof *a);
        }
        memcpy(before, wide, (size_t)(rows * ld) * sizeof *wide);
        attn_view va = f32(a, rows, n), vb = f32(b, rows, n), vw = f32(want, rows, n);
        attn_view wa = attn_view_matrix(wide_a + (rows - 1) * ld, ATTN_F32, rows, n, -ld);
        attn_view wo = attn_view_matrix(wide, ATTN_F32, rows, n, ld);
        ok(call(context, number, &va, &vb, &vw));
        ok(call(context, number, &wa, &vb, &wo));
        for (int64_t r = 0; r < rows; r++) {
            assert_memory_equal(wide + r * ld, want + r * n, (size_t)n * sizeof *want);
            assert_memory_equal(wide + r * ld + n, before + r * ld + n, 3 * sizeof *want);
        }
        bool gradient = (number >= BACKWARD && number < SOFTMAX) ||
                        (number >= SOFTMAX_BACKWARD && number < CROSS_ENTROPY);
        ok(call(context, number, &va, &vb, gradient ? &vb : &va));
        assert_memory_equal(gradient ? b : a, want, (size_t)count * sizeof *want);
        free(a);
        free(b);
        free(want);
        free(wide_a);
        free(wide);
        free(before);
    }
    attn_context_destroy(context);
}

static void four_dimensions_are_rows(void **unused)
{
    (void)unused;
    enum { B = 2, H = 3, L = 4, D = 5, COUNT = B * H * L * D };
    attn_context *context = context_of(ATTN_ISA_AUTO, 2);
    float *x = floats(COUNT, 0.0), y[COUNT], want[COUNT];
    attn_view vx = attn_view_blhd(x, ATTN_F32, B, L, H, D);
    attn_view vy = attn_view_bhld(y, ATTN_F32, B, H, L, D), flat = f32(x, COUNT / D, D);
    attn_view vw = f32(want, COUNT / D, D);
    for (int soft = 0; soft < 2; soft++) {
        ok(soft ? attn_softmax(context, false, &vx, &vy)
                : attn_activate(context, ATTN_ACT_GELU, &vx, &vy));
        ok(soft ? attn_softmax(context, false, &flat, &vw)
                : attn_activate(context, ATTN_ACT_GELU, &flat, &vw));
        for (int b = 0; b < B; b++) {
            for (int h = 0; h < H; h++) {
                for (int l = 0; l < L; l++) {
                    assert_memory_equal(y + ((b * H + h) * L + l) * D,
                                        want + ((b * L + l) * H + h) * D, D * sizeof(float));
                }
            }
        }
    }
    free(x);
    attn_context_destroy(context);
}

static void accumulating_adds_the_gradient(void **unused)
{
    (void)unused;
    enum { ROWS = 4, N = 37, COUNT = ROWS * N };
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    float *x = floats(COUNT, 0.0), *dy = floats(COUNT, 0.0), *sum = floats(COUNT, 0.0);
    float one[COUNT], before[COUNT];
    attn_view vx = f32(x, ROWS, N), vdy = f32(dy, ROWS, N), vs = f32(sum, ROWS, N);
    attn_view vo = f32(one, ROWS, N);
    for (int number = BACKWARD; number < CROSS_ENTROPY; number++) {
        bool soft = number >= SOFTMAX_BACKWARD, log = number == SOFTMAX_BACKWARD + 1;
        if (number == SOFTMAX || number == SOFTMAX + 1) {
            continue;
        }
        memcpy(before, sum, sizeof before);
        ok(call(context, number, &vx, &vdy, &vo));
        ok(soft ? attn_softmax_backward(context, log, &vx, &vdy, true, &vs)
                : attn_activate_backward(context, (attn_activation)(number - BACKWARD), &vx, &vdy,
                                         true, &vs));
        for (int i = 0; i < COUNT; i++) {
            float added = before[i] + one[i];
            close_to(sum[i], added, 1e-6 * (1 + fabs((double)one[i])), "accumulated");
            sum[i] = (float)normal();
        }
    }
    free(x);
    free(dy);
    free(sum);
    attn_context_destroy(context);
}

/* ---------- threads ---------- */

static void threads_do_not_change_bits(void **unused)
{
    (void)unused;
    const int64_t shapes[][2] = {{700, 131}, {1, 50001}, {3, 40000}};
    attn_context *one = context_of(ATTN_ISA_AUTO, 1), *three = context_of(ATTN_ISA_AUTO, 3);
    for (int s = 0; s < 3; s++) {
        int64_t rows = shapes[s][0], n = shapes[s][1], count = rows * n;
        float *a = floats(count, 3.0), *b = floats(count, 0.0);
        float *x = floats(count, 0.0), *y = floats(count, 0.0);
        attn_view va = f32(a, rows, n), vb = f32(b, rows, n);
        attn_view vx = f32(x, rows, n), vy = f32(y, rows, n);
        for (int number = 0; number < CALLS; number++) {
            ok(call(one, number, &va, &vb, &vx));
            ok(call(three, number, &va, &vb, &vy));
            assert_memory_equal(x, y, (size_t)count * sizeof *x);
        }
        double sum = 0.0, again = 1.0, plain = 0.0;
        ok(attn_sum_squares(one, &va, &sum));
        ok(attn_sum_squares(three, &va, &again));
        assert_memory_equal(&sum, &again, sizeof sum);
        for (int64_t i = 0; i < count; i++) {
            plain += (double)a[i] * a[i];
        }
        close_to(sum, plain, 1e-12 * plain, "sum of squares");
        free(a);
        free(b);
        free(x);
        free(y);
    }
    attn_context_destroy(one);
    attn_context_destroy(three);
}

/* ---------- AdamW ---------- */

static void adamw_follows_the_paper(void **unused)
{
    (void)unused;
    enum { N = 20011 };
    attn_context *one = context_of(ATTN_ISA_AUTO, 1), *three = context_of(ATTN_ISA_AUTO, 3);
    attn_adamw_options o = attn_adamw_options_init();
    o.grad_scale = 0.5;
    o.weight_decay = 0.1;
    double *p = doubles(N, 0.0), *m = bytes(N * sizeof *m), *v = bytes(N * sizeof *v);
    float *p1 = floats(N, 0.0), *m1 = floats(N, 0.0), *v1 = floats(N, 0.0), *g = floats(N, 0.0);
    float *p3 = floats(N, 0.0), *m3 = floats(N, 0.0), *v3 = floats(N, 0.0);
    for (int i = 0; i < N; i++) {
        p1[i] = p3[i] = (float)p[i];
        p[i] = p1[i];
        m[i] = v[i] = m1[i] = v1[i] = m3[i] = v3[i] = 0.0f;
    }
    attn_view views[3][4] = {{f64(p, 1, N), {0}, f64(m, 1, N), f64(v, 1, N)},
                             {f32(p1, 1, N), f32(g, 1, N), f32(m1, 1, N), f32(v1, 1, N)},
                             {f32(p3, 1, N), f32(g, 1, N), f32(m3, 1, N), f32(v3, 1, N)}};
    for (o.step = 1; o.step <= 5; o.step++) {
        double t = (double)o.step;
        for (int i = 0; i < N; i++) {
            g[i] = (float)normal();
            double slope = 0.5 * g[i];
            m[i] = 0.9 * m[i] + (1 - 0.9) * slope;
            v[i] = 0.999 * v[i] + (1 - 0.999) * slope * slope;
            double mean = m[i] / (1 - pow(0.9, t)), square = v[i] / (1 - pow(0.999, t));
            p[i] -= 1e-3 * (mean / (sqrt(square) + 1e-8) + 0.1 * p[i]);
        }
        for (int k = 1; k < 3; k++) {
            ok(attn_adamw(k == 1 ? one : three, &o, &views[k][0], &views[k][1], &views[k][2],
                          &views[k][3]));
        }
    }
    assert_memory_equal(p1, p3, N * sizeof *p1);
    assert_memory_equal(m1, m3, N * sizeof *m1);
    assert_memory_equal(v1, v3, N * sizeof *v1);
    for (int i = 0; i < N; i++) {
        close_to(p1[i], p[i], 4e-7 * fabs(p[i]) + 1e-8, "AdamW");
    }
    free(p);
    free(m);
    free(v);
    free(p1);
    free(m1);
    free(v1);
    free(g);
    free(p3);
    free(m3);
    free(v3);
    attn_context_destroy(one);
    attn_context_destroy(three);
}

static void adamw_in_f64_and_a_decay_too_small_for_a_factor(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    attn_adamw_options o = attn_adamw_options_init();
    double p = 2.0, g = -3.0, m = 0.5, v = 0.25;
    attn_view vp = f64(&p, 1, 1), vg = f64(&g, 1, 1), vm = f64(&m, 1, 1), vv = f64(&v, 1, 1);
    o.step = 7;
    ok(attn_adamw(context, &o, &vp, &vg, &vm, &vv));
    double mean = 0.9 * 0.5 - 0.1 * 3.0, square = 0.999 * 0.25 + 0.001 * 9.0;
    double move = mean / (1 - pow(0.9, 7)) / (sqrt(square / (1 - pow(0.999, 7))) + 1e-8);
    close_to(p, 2.0 - 1e-3 * (move + 0.01 * 2.0), 1e-15, "p");
    close_to(m, mean, 1e-15, "m");
    close_to(v, square, 1e-15, "v");

    /* 1 − 4e-8 is 1 in f32; the decay itself, 1e-6 below 32, is not lost where p has bits for it */
    float p1 = 1.0f, zeros[3] = {0};
    attn_view v1 = f32(&p1, 1, 1), z0 = f32(zeros, 1, 1), z1 = f32(zeros + 1, 1, 1);
    attn_view z2 = f32(zeros + 2, 1, 1);
    o.lr = 7e-8;
    o.weight_decay = 1.0;
    ok(attn_adamw(context, &o, &v1, &z0, &z1, &z2));
    assert_true(p1 == 1.0f - 0x1p-24f);
    attn_context_destroy(context);
}

/* ---------- dropout ---------- */

static void dropout_keeps_its_share(void **unused)
{
    (void)unused;
    enum { ROWS = 300, N = 333, COUNT = ROWS * N };
    float *x = bytes(COUNT * sizeof *x), *y[4];
    for (int i = 0; i < COUNT; i++) {
        x[i] = 1.0f;
    }
    attn_view vx = f32(x, ROWS, N), vy[4];
    for (int k = 0; k < 4; k++) {
        y[k] = floats(COUNT, 0.0);
        vy[k] = f32(y[k], ROWS, N);
    }
    for (size_t level = 0; level < 3; level++) { /* all levels drop the same */
        attn_context *context = context_of(levels[level], 2);
        if (context) {
            ok(attn_dropout(context, 0.3, seed, &vx, &vy[level]));
            assert_memory_equal(y[level], y[0], COUNT * sizeof *x);
            ok(attn_dropout(context, 0.3, seed + 1, &vx, &vy[3]));
            assert_memory_not_equal(y[3], y[0], COUNT * sizeof *x);
            ok(attn_dropout(context, 0.0, seed, &vx, &vy[3]));
            assert_memory_equal(y[3], x, COUNT * sizeof *x);
        }
        attn_context_destroy(context);
    }
    int kept = 0;
    for (int i = 0; i < COUNT; i++) {
        assert_true(y[0][i] == 0.0f || y[0][i] == (float)(1 / 0.7));
        kept += y[0][i] != 0.0f;
    }
    close_to(kept, 0.7 * COUNT, 6 * sqrt(0.21 * COUNT), "kept elements");
    for (int k = 0; k < 4; k++) {
        free(y[k]);
    }
    free(x);
}

/* ---------- values at the edge ---------- */

static void limits_and_nan(void **unused)
{
    (void)unused;
    /* at −∞, −200, 0, 200, +∞ */
    const float far[5] = {-INFINITY, -200.0f, 0.0f, 200.0f, INFINITY};
    const float values[7][5] = {
        {0, 0, 0, 200, INFINITY},     {0, 0, 0, 200, INFINITY}, {0, 0, 0, 200, INFINITY},
        {0, 0, 0, 200, INFINITY},     {-1, -1, 0, 1, 1},        {0, 0, 0.5f, 1, 1},
        {0, 0, 1, INFINITY, INFINITY}};
    const float slopes[7][5] = {
        {0, 0, 0, 1, 1}, {0, 0, 0.5f, 1, 1},  {0, 0, 0.5f, 1, 1},           {0, 0, 0.5f, 1, 1},
        {0, 0, 1, 0, 0}, {0, 0, 0.25f, 0, 0}, {0, 0, 1, INFINITY, INFINITY}};
    const float ones[6] = {1, 1, 1, 1, 1, 1};
    for (size_t level = 0; level < sizeof levels / sizeof *levels; level++) {
        attn_context *context = context_of(levels[level], 1);
        for (int kind = 0; context && kind < 7; kind++) {
            float x[6] = {0}, y[6], dx[6];
            memcpy(x, far, sizeof far);
            x[5] = NAN;
            attn_view vx = f32(x, 1, 6), vy = f32(y, 1, 6), vdx = f32(dx, 1, 6);
            attn_view vdy = f32(ones, 1, 6);
            ok(attn_activate(context, (attn_activation)kind, &vx, &vy));
            ok(attn_activate_backward(context, (attn_activation)kind, &vx, &vdy, false, &vdx));
            for (int i = 0; i < 5; i++) {
                assert_true(y[i] == values[kind][i]);
                assert_true(dx[i] == slopes[kind][i]);
            }
            assert_true(isnan(y[5]) && isnan(dx[5]));
        }
        if (context) {
            float x[6] = {-INFINITY, -1.0f, 0.0f, 1.0f, INFINITY, NAN}, y[6];
            attn_view vx = f32(x, 1, 6), vy = f32(y, 1, 6);
            ok(attn_activate(context, ATTN_ACT_LOG, &vx, &vy));
            assert_true(isnan(y[0]) && isnan(y[1]) && y[2] == -INFINITY && y[3] == 0.0f);
            assert_true(y[4] == INFINITY && isnan(y[5]));
        }
        attn_context_destroy(context);
    }
}

static void nothing_to_do_succeeds(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 2);
    double sum = 7.0;
    for (int empty = 0; empty < 2; empty++) {
        attn_view v = f32(NULL, empty ? 4 : 0, empty ? 0 : 4);
        ok(attn_activate(context, ATTN_ACT_EXP, &v, &v));
        ok(attn_softmax(context, false, &v, &v));
        ok(attn_axpby(context, 1, &v, 1, &v));
        ok(attn_sum_squares(context, &v, &sum));
        assert_true(sum == 0.0);
    }
    float losses[2] = {1, 1};
    int64_t targets[2] = {-1, -1}, shape[1] = {2};
    attn_view logits = f32(NULL, 2, 0), vl = attn_view_dense(losses, ATTN_F32, 1, shape);
    ok(attn_cross_entropy(context, &logits, targets, 1, &vl, NULL));
    assert_true(losses[0] == 0.0f && losses[1] == 0.0f);
    attn_context_destroy(context);
}

/* ---------- errors ---------- */

static void errors_name_the_argument(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    float data[24] = {0};
    double wide[24] = {0}, sum;
    attn_view x = f32(data, 4, 6), y = f32(data, 6, 4), d = f64(wide, 4, 6), rows = x, gap = x;
    attn_view half = attn_view_matrix(data, ATTN_BF16, 4, 6, 6);
    rows.stride[0] = 3;
    gap.shape[1] = 3;
    gap.stride[1] = 2;
    expect(attn_activate(NULL, ATTN_ACT_EXP, &x, &x), ATTN_ERR_ARGUMENT, "context");
    expect(attn_activate(context, (attn_activation)8, &x, &x), ATTN_ERR_ARGUMENT, "kind: 8");
    expect(attn_activate(context, ATTN_ACT_EXP, NULL, &x), ATTN_ERR_ARGUMENT, "x");
    expect(attn_activate(context, ATTN_ACT_EXP, &x, &y), ATTN_ERR_SHAPE, "y: [6, 4]");
    expect(attn_activate(context, ATTN_ACT_EXP, &x, &d), ATTN_ERR_DTYPE, "y: is f64");
    expect(attn_activate(context, ATTN_ACT_EXP, &half, &x), ATTN_ERR_DTYPE, "x: is bf16");
    expect(attn_activate(context, ATTN_ACT_EXP, &x, &rows), ATTN_ERR_SHAPE, "overlap");
    expect(attn_activate(context, ATTN_ACT_EXP, &gap, &x), ATTN_ERR_SHAPE, "stride of the last");
    expect(attn_activate_backward(context, ATTN_ACT_EXP, &x, NULL, false, &x), ATTN_ERR_ARGUMENT,
           "dy");
    expect(attn_softmax(context, false, &x, NULL), ATTN_ERR_ARGUMENT, "y");
    expect(attn_softmax_backward(context, false, &x, &x, false, &y), ATTN_ERR_SHAPE, "dx");
    expect(attn_axpby(context, 1, &x, 1, &rows), ATTN_ERR_SHAPE, "y: stride 3");
    expect(attn_dropout(context, 1.0, 1, &x, &x), ATTN_ERR_ARGUMENT, "p: 1");
    expect(attn_dropout(context, NAN, 1, &x, &x), ATTN_ERR_ARGUMENT, "p: ");
    expect(attn_dropout(context, 0.5, 1, &x, &y), ATTN_ERR_SHAPE, "y");
    expect(attn_sum_squares(context, &x, NULL), ATTN_ERR_ARGUMENT, "sum");
    expect(attn_sum_squares(context, &half, &sum), ATTN_ERR_DTYPE, "x");

    int64_t targets[4] = {0, 5, 6, 0}, one[1] = {3};
    attn_view losses = attn_view_dense(data, ATTN_F32, 1, one);
    attn_view cube = attn_view_bhld(data, ATTN_F32, 1, 1, 4, 6);
    expect(attn_cross_entropy(context, &x, targets, 1, NULL, &x), ATTN_ERR_ARGUMENT,
           "targets: 6 in row 2");
    targets[2] = -2;
    expect(attn_cross_entropy(context, &x, targets, 1, NULL, &x), ATTN_ERR_ARGUMENT, "-2 in row 2");
    expect(attn_cross_entropy(context, &x, NULL, 1, NULL, &x), ATTN_ERR_ARGUMENT, "targets");
    expect(attn_cross_entropy(context, &x, targets, 1, NULL, NULL), ATTN_ERR_ARGUMENT, "losses");
    expect(attn_cross_entropy(context, &x, targets, 1, &losses, NULL), ATTN_ERR_SHAPE, "losses");
    expect(attn_cross_entropy(context, &cube, targets, 1, NULL, &cube), ATTN_ERR_SHAPE, "logits");

    attn_adamw_options o = attn_adamw_options_init();
    expect(attn_adamw(context, NULL, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "options");
    expect(attn_adamw(context, &o, &x, &x, &x, &y), ATTN_ERR_SHAPE, "v");
    o.step = 0;
    expect(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "step: 0");
    o = attn_adamw_options_init();
    o.beta2 = 1.0;
    expect(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "beta2");
    o = attn_adamw_options_init();
    o.eps = 0.0;
    expect(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "eps");
    o = attn_adamw_options_init();
    o.lr = NAN;
    expect(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "lr");
    o.struct_size = 0;
    expect(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "struct_size");
    attn_context_destroy(context);
}

static int start(void **unused)
{
    (void)unused;
    state = seed;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(gradients_are_finite_differences, start),
        cmocka_unit_test_setup(cross_entropy_is_minus_log_softmax_and_its_gradient, start),
        cmocka_unit_test_setup(f32_is_near_f64, start),
        cmocka_unit_test_setup(strides_and_places_do_not_change_bits, start),
        cmocka_unit_test_setup(four_dimensions_are_rows, start),
        cmocka_unit_test_setup(accumulating_adds_the_gradient, start),
        cmocka_unit_test_setup(threads_do_not_change_bits, start),
        cmocka_unit_test_setup(adamw_follows_the_paper, start),
        cmocka_unit_test_setup(adamw_in_f64_and_a_decay_too_small_for_a_factor, start),
        cmocka_unit_test_setup(dropout_keeps_its_share, start),
        cmocka_unit_test_setup(limits_and_nan, start),
        cmocka_unit_test_setup(nothing_to_do_succeeds, start),
        cmocka_unit_test_setup(errors_name_the_argument, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
