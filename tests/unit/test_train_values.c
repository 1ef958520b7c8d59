/*
 * test_train_values.c: what attn/train_ops.h computes: gradients against finite differences, f32 against f64, the documented
 * accuracy, limits, AdamW's formula, dropout's share.
 */
#include "train_calls.h"

/* ---------- gradients against finite differences, in f64 ---------- */

/* Σ dy∘f(x) for the forward call of a number */
static double weighed(attn_context *context, int number, const attn_view *x, const attn_view *dy,
                      const attn_view *y)
{
    expect_ok(call(context, number, x, dy, y));
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
    expect_ok(call(context, forward, &vx, &vdy, &vy));
    bool of_result = forward >= SOFTMAX; /* softmax's gradient is made from its result */
    expect_ok(call(context, backward, of_result ? &vy : &vx, &vdy, &vdx));
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
    expect_ok(attn_softmax(context, true, &vx, &vy));
    for (int i = 0; i < N; i++) { /* an ignored row is not read */
        x[2 * N + i] = NAN;
    }
    expect_ok(attn_cross_entropy(context, &vx, targets, 0.25, &vl, &vdx));
    for (int r = 0; r < ROWS; r++) {
        bool ignored = targets[r] < 0;
        close_to(losses[2 * r], ignored ? 0.0 : -y[r * N + targets[r]], 1e-14, "loss");
        for (int i = 0; i < N; i++) {
            double p = exp(y[r * N + i]) - (i == targets[r] ? 1.0 : 0.0);
            close_to(dx[r * N + i], ignored ? 0.0 : 0.25 * p, 1e-15, "dlogits");
        }
    }
    expect_ok(attn_cross_entropy(context, &vx, targets, 1.0, &vl, NULL));
    expect_ok(attn_cross_entropy(context, &vx, targets, 0.25, &none, &vx));
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
    for (size_t level = 0; level < LEVELS; level++) {
        attn_context *context = context_of(levels[level], 1);
        for (int number = 0; context && number < CALLS; number++) {
            bool positive = number == ATTN_ACT_LOG || number == BACKWARD + ATTN_ACT_LOG;
            for (int i = 0; i < COUNT; i++) {
                a[i] = (float)(positive ? fabs(normal()) + 0.01 : 3.0 * normal());
                b[i] = (float)normal();
                da[i] = a[i];
                db[i] = b[i];
            }
            expect_ok(call(context, number, &va, &vb, &vo));
            expect_ok(call(context, number, &vda, &vdb, &vw));
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

/* Equal terms round the same way every time: a long chain of additions in f32 would show. */
static void long_rows_lose_nothing(void **unused)
{
    (void)unused;
    enum { N = 100003 };
    float *x = bytes(N * sizeof *x), *y = bytes(N * sizeof *y);
    for (int i = 0; i < N; i++) {
        x[i] = i == 77 ? 0.0f : -0.3f;
    }
    double want = exp(-(double)0.3f) / (1 + (N - 1) * exp(-(double)0.3f));
    attn_view vx = f32(x, 1, N), vy = f32(y, 1, N);
    for (size_t level = 0; level < LEVELS; level++) {
        attn_context *context = context_of(levels[level], 1);
        if (context) {
            expect_ok(attn_softmax(context, false, &vx, &vy));
            close_to(y[N - 1], want, 6e-7 * want, "softmax of a long row");
            expect_ok(attn_softmax_backward(context, true, &vx, &vx, false, &vy));
            double sum = -(double)0.3f * (N - 1);
            close_to(y[77], -sum, 4e-7 * fabs(sum), "gradient over a long row");
        }
        attn_context_destroy(context);
    }
    free(x);
    free(y);
}

/* The bounds of train_ops.h, on every 40009th float. */
static void documented_accuracy_on_floats_of_every_size(void **unused)
{
    (void)unused;
    enum { N = 107352 };
    float *x = bytes(N * sizeof *x), *y = bytes(N * sizeof *y), *ones = bytes(N * sizeof *ones);
    double *dx = bytes(N * sizeof *dx), *want = bytes(N * sizeof *want);
    double *dones = bytes(N * sizeof *dones);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t bits = i * 40009u;
        memcpy(&x[i], &bits, sizeof bits);
        x[i] = fabsf(x[i]) < FLT_MIN ? 0.0f : x[i];
        dx[i] = (double)x[i];
        ones[i] = 1.0f;
        dones[i] = 1.0;
    }
    attn_view vx = f32(x, 1, N), vy = f32(y, 1, N), v1 = f32(ones, 1, N);
    attn_view vdx = f64(dx, 1, N), vw = f64(want, 1, N), vd1 = f64(dones, 1, N);
    for (size_t level = 0; level < LEVELS; level++) {
        attn_context *context = context_of(levels[level], 1);
        for (int number = 0; context && number < SOFTMAX; number++) {
            int kind = number % BACKWARD;
            bool slope = number >= BACKWARD;
            bool gelu = kind == ATTN_ACT_GELU || kind == ATTN_ACT_GELU_TANH;
            expect_ok(call(context, number, &vx, &v1, &vy));
            expect_ok(call(context, number, &vdx, &vd1, &vw));
            for (int i = 0; i < N; i++) {
                double w = want[i], size = 4e-7 * fabs(w);
                size = gelu && !slope ? 2e-7 * fabs(dx[i]) : size;
                size = slope && (gelu || kind == ATTN_ACT_SILU) ? 4e-7 * fmax(fabs(w), 1) : size;
                if (isnan(w) || isinf((float)w)) {
                    assert_true(isnan(w) ? isnan(y[i]) : y[i] == (float)w);
                } else {
                    close_to(y[i], w, size + 0x1p-119, slope ? "slope" : "function");
                }
            }
        }
        attn_context_destroy(context);
    }
    free(x);
    free(y);
    free(ones);
    free(dx);
    free(want);
    free(dones);
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
            expect_ok(attn_adamw(k == 1 ? one : three, &o, &views[k][0], &views[k][1], &views[k][2],
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
    expect_ok(attn_adamw(context, &o, &vp, &vg, &vm, &vv));
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
    expect_ok(attn_adamw(context, &o, &v1, &z0, &z1, &z2));
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
    for (size_t level = 0; level < LEVELS; level++) { /* all levels drop the same */
        attn_context *context = context_of(levels[level], 2);
        if (context) {
            expect_ok(attn_dropout(context, 0.3, train_seed, &vx, &vy[level]));
            assert_memory_equal(y[level], y[0], COUNT * sizeof *x);
            expect_ok(attn_dropout(context, 0.3, train_seed + 1, &vx, &vy[3]));
            assert_memory_not_equal(y[3], y[0], COUNT * sizeof *x);
            expect_ok(attn_dropout(context, 0.0, train_seed, &vx, &vy[3]));
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
    for (size_t level = 0; level < LEVELS; level++) {
        attn_context *context = context_of(levels[level], 1);
        for (int kind = 0; context && kind < 7; kind++) {
            float x[6] = {0}, y[6], dx[6];
            memcpy(x, far, sizeof far);
            x[5] = NAN;
            attn_view vx = f32(x, 1, 6), vy = f32(y, 1, 6), vdx = f32(dx, 1, 6);
            attn_view vdy = f32(ones, 1, 6);
            expect_ok(attn_activate(context, (attn_activation)kind, &vx, &vy));
            expect_ok(
                attn_activate_backward(context, (attn_activation)kind, &vx, &vdy, false, &vdx));
            for (int i = 0; i < 5; i++) {
                assert_true(y[i] == values[kind][i]);
                assert_true(dx[i] == slopes[kind][i]);
            }
            assert_true(isnan(y[5]) && isnan(dx[5]));
        }
        if (context) {
            float x[6] = {-INFINITY, -1.0f, 0.0f, 1.0f, INFINITY, NAN}, y[6];
            attn_view vx = f32(x, 1, 6), vy = f32(y, 1, 6);
            expect_ok(attn_activate(context, ATTN_ACT_LOG, &vx, &vy));
            assert_true(isnan(y[0]) && isnan(y[1]) && y[2] == -INFINITY && y[3] == 0.0f);
            assert_true(y[4] == INFINITY && isnan(y[5]));
        }
        attn_context_destroy(context);
    }
}

int main(int argc, char **argv)
{
    train_arguments(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(gradients_are_finite_differences, train_start),
        cmocka_unit_test_setup(cross_entropy_is_minus_log_softmax_and_its_gradient, train_start),
        cmocka_unit_test_setup(f32_is_near_f64, train_start),
        cmocka_unit_test_setup(long_rows_lose_nothing, train_start),
        cmocka_unit_test_setup(documented_accuracy_on_floats_of_every_size, train_start),
        cmocka_unit_test_setup(adamw_follows_the_paper, train_start),
        cmocka_unit_test_setup(adamw_in_f64_and_a_decay_too_small_for_a_factor, train_start),
        cmocka_unit_test_setup(dropout_keeps_its_share, train_start),
        cmocka_unit_test_setup(limits_and_nan, train_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
