/*
 * test_train_ops.c: how attn/train_ops.h is called: strides, places, dimensions, accumulation, the same bits for any number of
 * threads, nothing to do, errors.
 */
#include "train_calls.h"

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
        expect_ok(call(context, number, &va, &vb, &vw));
        expect_ok(call(context, number, &wa, &vb, &wo));
        for (int64_t r = 0; r < rows; r++) {
            assert_memory_equal(wide + r * ld, want + r * n, (size_t)n * sizeof *want);
            assert_memory_equal(wide + r * ld + n, before + r * ld + n, 3 * sizeof *want);
        }
        bool gradient = (number >= BACKWARD && number < SOFTMAX) ||
                        (number >= SOFTMAX_BACKWARD && number < CROSS_ENTROPY);
        expect_ok(call(context, number, &va, &vb, gradient ? &vb : &va));
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
        expect_ok(soft ? attn_softmax(context, false, &vx, &vy)
                       : attn_activate(context, ATTN_ACT_GELU, &vx, &vy));
        expect_ok(soft ? attn_softmax(context, false, &flat, &vw)
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
        expect_ok(call(context, number, &vx, &vdy, &vo));
        expect_ok(soft ? attn_softmax_backward(context, log, &vx, &vdy, true, &vs)
                       : attn_activate_backward(context, (attn_activation)(number - BACKWARD), &vx,
                                                &vdy, true, &vs));
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
    enum { GAP = 5 };
    const int64_t shapes[][2] = {{700, 131}, {1, 50001}, {3, 40000}};
    attn_context *one = context_of(ATTN_ISA_AUTO, 1), *three = context_of(ATTN_ISA_AUTO, 3);
    for (int s = 0; s < 3; s++) {
        int64_t rows = shapes[s][0], n = shapes[s][1], count = rows * n, ld = n + GAP;
        float *a = floats(count, 3.0), *b = floats(count, 0.0);
        float *x = floats(count, 0.0), *y = floats(rows * ld, 0.0);
        attn_view va = f32(a, rows, n), vb = f32(b, rows, n);
        attn_view vx = f32(x, rows, n), vy = attn_view_matrix(y, ATTN_F32, rows, n, ld);
        for (int number = 0; number < CALLS; number++) {
            expect_ok(call(one, number, &va, &vb, &vx));
            expect_ok(call(three, number, &va, &vb, &vy)); /* pieces that begin amid a row, too */
            for (int64_t r = 0; r < rows; r++) {
                assert_memory_equal(x + r * n, y + r * ld, (size_t)n * sizeof *x);
            }
        }
        free(a);
        free(b);
        free(x);
        free(y);
    }
    attn_context_destroy(one);
    attn_context_destroy(three);
}

static void threads_do_not_change_a_sum_of_squares(void **unused)
{
    (void)unused;
    enum { MOST = 5000001 }; /* so many that the pieces grow */
    attn_context *one = context_of(ATTN_ISA_AUTO, 1), *three = context_of(ATTN_ISA_AUTO, 3);
    float *x = bytes(MOST * sizeof *x);
    for (int64_t i = 0; i < MOST; i++) {
        x[i] = (float)next() * 0x1p-31f;
    }
    for (int64_t n = MOST; n > 0; n /= 100) {
        attn_view v = f32(x, 1, n);
        double sum = 0.0, again = 1.0, plain = 0.0;
        expect_ok(attn_sum_squares(one, &v, &sum));
        expect_ok(attn_sum_squares(three, &v, &again));
        assert_memory_equal(&sum, &again, sizeof sum);
        for (int64_t i = 0; i < n; i++) {
            plain += (double)x[i] * x[i];
        }
        close_to(sum, plain, 1e-12 * plain, "sum of squares");
    }
    free(x);
    attn_context_destroy(one);
    attn_context_destroy(three);
}

/* ---------- nothing, and errors ---------- */

static void nothing_to_do_succeeds(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 2);
    double sum = 7.0;
    for (int empty = 0; empty < 2; empty++) {
        attn_view v = f32(NULL, empty ? 4 : 0, empty ? 0 : 4);
        expect_ok(attn_activate(context, ATTN_ACT_EXP, &v, &v));
        expect_ok(attn_softmax(context, false, &v, &v));
        expect_ok(attn_axpby(context, 1, &v, 1, &v));
        expect_ok(attn_sum_squares(context, &v, &sum));
        assert_true(sum == 0.0);
    }
    float losses[2] = {1, 1};
    int64_t targets[2] = {-1, -1}, shape[1] = {2};
    attn_view logits = f32(NULL, 2, 0), vl = attn_view_dense(losses, ATTN_F32, 1, shape);
    expect_ok(attn_cross_entropy(context, &logits, targets, 1, &vl, NULL));
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
    expect_error(attn_activate(NULL, ATTN_ACT_EXP, &x, &x), ATTN_ERR_ARGUMENT, "context");
    expect_error(attn_activate(context, (attn_activation)8, &x, &x), ATTN_ERR_ARGUMENT, "kind: 8");
    expect_error(attn_activate(context, ATTN_ACT_EXP, NULL, &x), ATTN_ERR_ARGUMENT, "x");
    expect_error(attn_activate(context, ATTN_ACT_EXP, &x, &y), ATTN_ERR_SHAPE, "y: [6, 4]");
    expect_error(attn_activate(context, ATTN_ACT_EXP, &x, &d), ATTN_ERR_DTYPE, "y: is f64");
    expect_error(attn_activate(context, ATTN_ACT_EXP, &half, &x), ATTN_ERR_DTYPE, "x: is bf16");
    expect_error(attn_activate(context, ATTN_ACT_EXP, &x, &rows), ATTN_ERR_SHAPE, "overlap");
    expect_error(attn_activate(context, ATTN_ACT_EXP, &gap, &x), ATTN_ERR_SHAPE,
                 "stride of the last");
    expect_error(attn_activate_backward(context, ATTN_ACT_EXP, &x, NULL, false, &x),
                 ATTN_ERR_ARGUMENT, "dy");
    expect_error(attn_softmax(context, false, &x, NULL), ATTN_ERR_ARGUMENT, "y");
    expect_error(attn_softmax_backward(context, false, &x, &x, false, &y), ATTN_ERR_SHAPE, "dx");
    expect_error(attn_axpby(context, 1, &x, 1, &rows), ATTN_ERR_SHAPE, "y: stride 3");
    expect_error(attn_dropout(context, 1.0, 1, &x, &x), ATTN_ERR_ARGUMENT, "p: 1");
    expect_error(attn_dropout(context, NAN, 1, &x, &x), ATTN_ERR_ARGUMENT, "p: ");
    expect_error(attn_dropout(context, 0.5, 1, &x, &y), ATTN_ERR_SHAPE, "y");
    expect_error(attn_sum_squares(context, &x, NULL), ATTN_ERR_ARGUMENT, "sum");
    expect_error(attn_sum_squares(context, &half, &sum), ATTN_ERR_DTYPE, "x");

    int64_t targets[4] = {0, 5, 6, 0}, one[1] = {3};
    attn_view losses = attn_view_dense(data, ATTN_F32, 1, one);
    attn_view cube = attn_view_bhld(data, ATTN_F32, 1, 1, 4, 6);
    expect_error(attn_cross_entropy(context, &x, targets, 1, NULL, &x), ATTN_ERR_ARGUMENT,
                 "targets: 6 in row 2");
    targets[2] = -2;
    expect_error(attn_cross_entropy(context, &x, targets, 1, NULL, &x), ATTN_ERR_ARGUMENT,
                 "-2 in row 2");
    expect_error(attn_cross_entropy(context, &x, NULL, 1, NULL, &x), ATTN_ERR_ARGUMENT, "targets");
    expect_error(attn_cross_entropy(context, &x, targets, 1, NULL, NULL), ATTN_ERR_ARGUMENT,
                 "losses");
    expect_error(attn_cross_entropy(context, &x, targets, 1, &losses, NULL), ATTN_ERR_SHAPE,
                 "losses");
    expect_error(attn_cross_entropy(context, &cube, targets, 1, NULL, &cube), ATTN_ERR_SHAPE,
                 "logits");

    attn_adamw_options o = attn_adamw_options_init();
    expect_error(attn_adamw(context, NULL, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "options");
    expect_error(attn_adamw(context, &o, &x, &x, &x, &y), ATTN_ERR_SHAPE, "v");
    o.step = 0;
    expect_error(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "step: 0");
    o = attn_adamw_options_init();
    o.beta2 = 1.0;
    expect_error(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "beta2");
    o = attn_adamw_options_init();
    o.eps = 0.0;
    expect_error(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "eps");
    o = attn_adamw_options_init();
    o.lr = NAN;
    expect_error(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "lr");
    o.struct_size = 0;
    expect_error(attn_adamw(context, &o, &x, &x, &x, &x), ATTN_ERR_ARGUMENT, "struct_size");
    attn_context_destroy(context);
}

int main(int argc, char **argv)
{
    train_arguments(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(strides_and_places_do_not_change_bits, train_start),
        cmocka_unit_test_setup(four_dimensions_are_rows, train_start),
        cmocka_unit_test_setup(accumulating_adds_the_gradient, train_start),
        cmocka_unit_test_setup(threads_do_not_change_bits, train_start),
        cmocka_unit_test_setup(threads_do_not_change_a_sum_of_squares, train_start),
        cmocka_unit_test_setup(nothing_to_do_succeeds, train_start),
        cmocka_unit_test_setup(errors_name_the_argument, train_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
