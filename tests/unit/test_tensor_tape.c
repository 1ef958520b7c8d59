/*
 * test_tensor_tape.c: tensors and the tape: ownership, graphs, recording, in-place changes, failures.
 */
#include "tensor_support.h"

#include <attn/tensor.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* ---- tensors ---- */

static void test_tensors(void **state)
{
    (void)state;
    const float numbers[6] = {1, 2, 3, 4, 5, 6};
    const int64_t shape[2] = {2, 3}, bad[2] = {2, -3}, large[2] = {INT64_MAX / 4, 8};
    attn_view v = attn_view_dense(numbers, ATTN_F32, 2, shape);
    attn_view flipped = v;
    flipped.shape[0] = 3;
    flipped.shape[1] = 2;
    flipped.stride[0] = 1;
    flipped.stride[1] = 3;
    attn_tensor *t = NULL, *u = NULL;
    assert_int_equal(attn_tensor_from(&flipped, &t), ATTN_OK);
    assert_int_equal(attn_tensor_ndim(t), 2);
    assert_int_equal(attn_tensor_size(t, 0), 3);
    assert_int_equal(attn_tensor_size(t, -1), 2);
    assert_int_equal(attn_tensor_size(t, 2), 0);
    assert_int_equal(attn_tensor_count(t), 6);
    assert_int_equal(attn_tensor_dtype(t), ATTN_F32);
    assert_float_equal(at(t, 1), 4.0, 0);
    assert_true(isnan(attn_tensor_item(t)));
    assert_ptr_equal(attn_tensor_retain(t), t);
    attn_tensor_release(t);
    assert_float_equal(at(t, 5), 6.0, 0);
    attn_tensor_release(t);

    EXPECT_STATUS(attn_tensor_create(ATTN_BF16, 2, shape, &u), ATTN_ERR_DTYPE, "bf16");
    assert_null(u);
    EXPECT_STATUS(attn_tensor_create(ATTN_F32, 2, bad, &u), ATTN_ERR_SHAPE, "[2, -3]");
    EXPECT_STATUS(attn_tensor_create(ATTN_F32, 2, large, &u), ATTN_ERR_SHAPE, "shape");
    EXPECT_STATUS(attn_tensor_create(ATTN_F32, 5, shape, &u), ATTN_ERR_ARGUMENT, "1 to 4");
    EXPECT_STATUS(attn_tensor_from(NULL, &u), ATTN_ERR_ARGUMENT, "values");
    assert_int_equal(attn_tensor_ndim(NULL), 0);
    assert_int_equal(attn_tensor_view(NULL).dtype, ATTN_DTYPE_NONE);
    assert_null(attn_tensor_retain(NULL));
    attn_tensor_release(NULL);
    attn_tensor_clear_grad(NULL);
    attn_tape_clear(NULL);
    attn_tape_destroy(NULL);

    /* nothing of size 0 stops the rest */
    const int64_t none[2] = {0, 3};
    assert_int_equal(attn_tensor_create(ATTN_F32, 2, none, &t), ATTN_OK);
    attn_tensor_require_grad(t, true);
    attn_tensor *sum = attn_tensor_sum_all(tape, attn_tensor_scale(tape, t, 2.0));
    assert_float_equal(attn_tensor_item(sum), 0.0, 0);
    assert_int_equal(attn_tape_backward(tape, sum, NULL), ATTN_OK);
    attn_tensor_release(t);
}

static void test_views_share(void **state)
{
    (void)state;
    attn_tensor *a = leaf(3, 2, 3, 4, 1);
    const int64_t flat[1] = {-1}, heads[4] = {2, 3, 2, 2};
    const void *memory = attn_tensor_view(a).data;
    attn_tensor *t = attn_tensor_transpose(tape, a, 1, 2);
    assert_ptr_equal(attn_tensor_view(t).data, memory);
    assert_ptr_equal(attn_tensor_view(attn_tensor_reshape(tape, a, 1, flat)).data, memory);
    attn_tensor *h = attn_tensor_transpose(tape, attn_tensor_reshape(tape, a, 4, heads), 1, 2);
    assert_ptr_equal(attn_tensor_view(h).data, memory);
    h = attn_tensor_reshape(tape, attn_tensor_transpose(tape, h, 1, 2), 3,
                            attn_tensor_view(a).shape);
    assert_ptr_equal(attn_tensor_view(h).data, memory);
    assert_ptr_equal(attn_tensor_view(attn_tensor_slice(tape, a, 0, 0, 1)).data, memory);
    attn_tensor *copy = attn_tensor_reshape(tape, t, 1, flat); /* not in memory order */
    assert_ptr_not_equal(attn_tensor_view(copy).data, memory);
    assert_float_equal(at(copy, 1), at(a, 4), 0);
    attn_tensor_release(a);
}

/* The result of sdpa lies as q does, so that joining the heads needs no copy. */
static void test_sdpa_layout(void **state)
{
    (void)state;
    attn_tensor *x = leaf(3, 2, 5, 12, 1);
    const int64_t split[4] = {2, 5, 3, 4}, joined[3] = {2, 5, 12};
    attn_tensor *h = attn_tensor_transpose(tape, attn_tensor_reshape(tape, x, 4, split), 1, 2);
    attn_tensor *out = attn_tensor_sdpa(tape, NULL, h, h, h, NULL);
    const void *memory = attn_tensor_view(out).data;
    out = attn_tensor_reshape(tape, attn_tensor_transpose(tape, out, 1, 2), 3, joined);
    assert_ptr_equal(attn_tensor_view(out).data, memory);
    attn_tensor_release(x);
}

/* ---- graphs ---- */

static double seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double chain(int64_t length)
{
    attn_tensor *x = leaf(1, 1, 0, 0, 1), *y = x;
    double start = seconds();
    for (int64_t i = 0; i < length; i++) {
        y = attn_tensor_add_scalar(tape, y, 1e-3);
    }
    assert_int_equal(attn_tape_length(tape), length);
    assert_int_equal(attn_tape_backward(tape, y, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 0), 1.0, 0);
    attn_tape_clear(tape);
    attn_tensor_release(x);
    return seconds() - start;
}

static void test_long_chain(void **state)
{
    (void)state;
    chain(10000); /* memory for it */
    double once = chain(10000), five = chain(50000);
    for (int i = 0; i < 3; i++) {
        double again = chain(10000);
        once = again > once ? again : once; /* the slowest small one: no false alarm */
    }
    if (five > 25 * once + 0.05) {
        fail_msg("10000 operations take %g s, 50000 take %g s: not linear", once, five);
    }
}

/* Thirty doublings: 2^30 paths, 30 operations. */
static void test_diamonds(void **state)
{
    (void)state;
    attn_tensor *x = leaf(1, 3, 0, 0, 1), *y = x;
    for (int i = 0; i < 30; i++) {
        y = attn_tensor_add(tape, y, y);
    }
    assert_int_equal(attn_tape_length(tape), 30);
    assert_int_equal(attn_tape_backward(tape, attn_tensor_sum_all(tape, y), NULL), ATTN_OK);
    for (int64_t i = 0; i < 3; i++) {
        assert_float_equal(at(attn_tensor_grad(x), i), 0x1p30, 0);
    }
    attn_tensor_release(x);
}

static void test_gradients_add_up(void **state)
{
    (void)state;
    attn_tensor *x = leaf(1, 4, 0, 0, 1), *other = leaf(1, 4, 0, 0, 2);
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_scale(tape, x, 3.0));
    attn_tensor *second = attn_tensor_sum_all(tape, attn_tensor_mul(tape, x, other));
    assert_null(attn_tensor_grad(x));
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 0), 3.0, 0);
    assert_null(attn_tensor_grad(other)); /* this loss does not depend on it */
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 0), 6.0, 0);
    assert_int_equal(attn_tape_backward(tape, second, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 1), 6.0f + at(other, 1), 0);
    assert_float_equal(at(attn_tensor_grad(other), 1), at(x, 1), 0);
    attn_tensor_clear_grad(x);
    assert_null(attn_tensor_grad(x));
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 0), 3.0, 0);

    attn_tensor *seed = leaf(1, 4, 0, 0, 3), *y = attn_tensor_scale(tape, x, 2.0);
    attn_tensor_clear_grad(x);
    assert_int_equal(attn_tape_backward(tape, y, seed), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 2), 2.0f * at(seed, 2), 0);
    attn_tensor_release(x);
    attn_tensor_release(other);
    attn_tensor_release(seed);
}

static void test_no_recording(void **state)
{
    (void)state;
    attn_tensor *x = leaf(1, 4, 0, 0, 1);
    assert_true(attn_tape_set_recording(tape, false));
    attn_tensor *y = attn_tensor_sum_all(tape, attn_tensor_exp(tape, x));
    assert_false(attn_tensor_requires_grad(y));
    assert_false(attn_tape_set_recording(tape, true));
    assert_int_equal(attn_tape_length(tape), 0);
    EXPECT_STATUS(attn_tape_backward(tape, y, NULL), ATTN_ERR_ARGUMENT, "recording");
    attn_tensor *z = attn_tensor_mul(tape, x, y); /* y is a number like any other */
    assert_true(attn_tensor_requires_grad(z));
    attn_tensor *loss = attn_tensor_sum_all(tape, z);
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 0), (float)attn_tensor_item(y), 0);
    attn_tensor_require_grad(x, false);
    assert_false(attn_tensor_requires_grad(attn_tensor_exp(tape, x)));
    attn_tensor_release(x);
}

static void test_kept_results(void **state)
{
    (void)state;
    attn_tensor *x = leaf(1, 4, 0, 0, 1);
    attn_tensor *y = attn_tensor_retain(attn_tensor_scale(tape, x, 2.0));
    attn_tape_clear(tape);
    assert_false(attn_tensor_requires_grad(y)); /* a constant now */
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_mul(tape, y, x));
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(x), 3), 2.0f * at(x, 3), 0);

    /* a result outlives its tape */
    attn_tape *second = NULL;
    assert_int_equal(attn_tape_create(context, &second), ATTN_OK);
    attn_tensor *z = attn_tensor_retain(attn_tensor_scale(second, x, 3.0));
    EXPECT_FAILED(attn_tensor_add(tape, x, z), ATTN_ERR_ARGUMENT, "add", "another tape");
    attn_tape_destroy(second);
    assert_float_equal(at(z, 1), 3.0f * at(x, 1), 0);
    assert_non_null(attn_tensor_add(tape, x, z));
    attn_tensor_release(x);
    attn_tape_clear(tape);
    attn_tensor_release(y);
    attn_tensor_release(z);
}

/* ---- in place ---- */

static void test_in_place(void **state)
{
    (void)state;
    attn_tensor *a = leaf(2, 3, 4, 0, 1), *b = leaf(2, 3, 4, 0, 2);
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_mul(tape, a, b));
    attn_tensor_write(b);
    EXPECT_STATUS(attn_tape_backward(tape, loss, NULL), ATTN_ERR_ARGUMENT, "backward of mul",
                  "input 1", "[3, 4]", "in place");
    attn_tape_clear(tape);
    attn_tensor_clear_grad(a);

    loss = attn_tensor_sum_all(tape, attn_tensor_add(tape, a, b));
    attn_tensor_write(b); /* add needs no values */
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);

    /* through a view of the same memory */
    loss = attn_tensor_sum_all(tape, attn_tensor_exp(tape, attn_tensor_transpose(tape, a, 0, 1)));
    attn_tensor_write(a);
    EXPECT_STATUS(attn_tape_backward(tape, loss, NULL), ATTN_ERR_ARGUMENT, "exp", "[4, 3]");
    attn_tape_clear(tape);

    attn_tensor *y = attn_tensor_softmax(tape, a, -1); /* reads its result */
    loss = attn_tensor_sum_all(tape, attn_tensor_scale(tape, y, 2.0));
    attn_tensor_write(y);
    EXPECT_STATUS(attn_tape_backward(tape, loss, NULL), ATTN_ERR_ARGUMENT, "softmax", "result");
    attn_tape_clear(tape);

    loss = attn_tensor_sum_all(tape, attn_tensor_softmax(tape, a, -1));
    attn_tensor_write(a); /* but not its input */
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    attn_tensor_release(a);
    attn_tensor_release(b);
}

/* ---- failures ---- */

static void test_shape_errors(void **state)
{
    (void)state;
    attn_tensor *a = leaf(2, 4, 8, 0, 1), *b = leaf(2, 6, 8, 0, 2), *c = leaf(1, 8, 0, 0, 3);
    const int64_t shape[2] = {5, -1}, ids[2] = {0, 9}, two[1] = {2}, targets[4] = {0, 1, 8, 2};
    attn_tensor *pair[2] = {a, c};
    attn_view mask = attn_view_dense(ids, ATTN_BOOL, 1, two);
    EXPECT_FAILED(attn_tensor_matmul(tape, a, b), ATTN_ERR_SHAPE, "a is [4, 8] and b is [6, 8]",
                  "inner sizes 8 and 6", "transpose b");
    EXPECT_FAILED(attn_tensor_matmul(tape, a, c), ATTN_ERR_SHAPE, "[8]", "reshape");
    EXPECT_FAILED(attn_tensor_add(tape, a, b), ATTN_ERR_SHAPE, "add", "[4, 8]", "[6, 8]");
    EXPECT_FAILED(attn_tensor_linear(tape, a, b, a), ATTN_ERR_SHAPE, "linear: bias", "[6]");
    EXPECT_FAILED(attn_tensor_linear(tape, a, c, NULL), ATTN_ERR_SHAPE, "[out, in]");
    EXPECT_FAILED(attn_tensor_reshape(tape, a, 2, shape), ATTN_ERR_SHAPE, "[4, 8]", "32",
                  "[5, -1]");
    EXPECT_FAILED(attn_tensor_slice(tape, a, 1, 3, 9), ATTN_ERR_ARGUMENT, "3 to 9", "size is 8");
    EXPECT_FAILED(attn_tensor_concat(tape, 2, pair, 0), ATTN_ERR_SHAPE, "tensor 1 is [8]");
    EXPECT_FAILED(attn_tensor_softmax(tape, a, 2), ATTN_ERR_ARGUMENT, "dim 2", "-2 to 1");
    EXPECT_FAILED(attn_tensor_transpose(tape, a, 0, -3), ATTN_ERR_ARGUMENT, "dim -3");
    EXPECT_FAILED(attn_tensor_layer_norm(tape, a, c, b, 1e-5), ATTN_ERR_SHAPE, "bias is [6, 8]");
    EXPECT_FAILED(attn_tensor_sdpa(tape, NULL, a, a, a, NULL), ATTN_ERR_SHAPE, "q is [4, 8]");
    EXPECT_FAILED(attn_tensor_rope(tape, a, NULL, 1e4, 0, ATTN_ROPE_HALVES), ATTN_ERR_SHAPE,
                  "rope: x is [4, 8]");
    EXPECT_FAILED(attn_tensor_embedding(tape, a, ids, 1, two), ATTN_ERR_ARGUMENT, "id 9", "place 1",
                  "0 to 3");
    EXPECT_FAILED(attn_tensor_cross_entropy(tape, a, targets), ATTN_ERR_ARGUMENT, "8");
    EXPECT_FAILED(attn_tensor_masked_fill(tape, a, &mask, 0), ATTN_ERR_SHAPE, "mask [2]", "[4, 8]");
    EXPECT_FAILED(attn_tensor_dropout(tape, a, 1.0, 1), ATTN_ERR_ARGUMENT, "p = 1");
    EXPECT_FAILED(attn_tensor_swiglu(tape, a, b), ATTN_ERR_SHAPE, "gate is [4, 8]");
    EXPECT_FAILED(attn_tensor_activate(tape, (attn_activation)99, a), ATTN_ERR_ARGUMENT, "99");
    EXPECT_FAILED(attn_tensor_exp(tape, NULL), ATTN_ERR_ARGUMENT, "exp: input 0");
    assert_null(attn_tensor_exp(NULL, a));

    attn_tensor *wide = NULL;
    assert_int_equal(attn_tensor_create(ATTN_F64, 2, attn_tensor_view(a).shape, &wide), ATTN_OK);
    EXPECT_FAILED(attn_tensor_add(tape, a, wide), ATTN_ERR_DTYPE, "f64", "f32");
    attn_tensor_release(wide);
    attn_tensor_release(a);
    attn_tensor_release(b);
    attn_tensor_release(c);
}

static void test_failures_pass_through(void **state)
{
    (void)state;
    attn_tensor *a = leaf(2, 4, 8, 0, 1);
    attn_tensor *bad = attn_tensor_softmax(tape, attn_tensor_matmul(tape, a, a), -1);
    attn_tensor *loss = attn_tensor_mean_all(tape, attn_tensor_add(tape, bad, a));
    EXPECT_STATUS(attn_tape_backward(tape, loss, NULL), ATTN_ERR_SHAPE, "matmul: a is [4, 8]");
    EXPECT_FAILED(loss, ATTN_ERR_SHAPE, "matmul");

    EXPECT_STATUS(attn_tape_backward(tape, attn_tensor_exp(tape, a), NULL), ATTN_ERR_SHAPE,
                  "[4, 8]", "mean_all");
    EXPECT_STATUS(attn_tape_backward(tape, a, NULL), ATTN_ERR_ARGUMENT, "loss");
    EXPECT_STATUS(attn_tape_backward(NULL, a, NULL), ATTN_ERR_ARGUMENT, "tape");
    EXPECT_STATUS(attn_tape_create(NULL, &(attn_tape *){NULL}), ATTN_ERR_ARGUMENT, "context");
    assert_null(attn_tape_fail(tape, attn_fail(ATTN_ERR_UNSUPPORTED, "mine: no")));
    assert_null(attn_tensor_exp(tape, NULL));
    EXPECT_FAILED(NULL, ATTN_ERR_UNSUPPORTED, "mine: no");
    attn_tensor_release(a);
}

/* Sums over any dimension against plain loops, large enough to be cut into pieces. */
static void test_large_sums(void **state)
{
    (void)state;
    const int64_t s[3] = {37, 130, 70};
    attn_tensor *x = leaf(3, s[0], s[1], s[2], 5);
    for (int dim = -1; dim < 3; dim++) {
        attn_tensor *y =
            dim < 0 ? attn_tensor_sum_all(tape, x) : attn_tensor_sum(tape, x, dim, true);
        attn_view v = attn_tensor_view(y);
        for (int64_t i = 0; i < attn_tensor_count(y); i++) {
            int64_t c = i % s[2], b = i / s[2];
            double sum = 0;
            if (dim == 0) {
                for (int64_t k = 0; k < s[0]; k++) {
                    sum += (double)at(x, (k * s[1] + b) * s[2] + c);
                }
            } else if (dim == 1) {
                for (int64_t k = 0; k < s[1]; k++) {
                    sum += (double)at(x, (b * s[1] + k) * s[2] + c);
                }
            } else {
                int64_t n = dim < 0 ? attn_tensor_count(x) : s[2];
                for (int64_t k = 0; k < n; k++) {
                    sum += (double)at(x, i * s[2] + k);
                }
            }
            assert_float_equal(((float *)v.data)[i], (float)sum, 1e-3F);
        }
    }
    attn_tensor_release(x);
}

/* Steps of ever new shapes: the memory of the last few stays, not that of all. */
static void test_many_shapes(void **state)
{
    (void)state;
    enum { SHAPES = 40, UNIT = 3000 };
    for (int64_t i = 1; i <= SHAPES; i++) {
        attn_tensor *x = leaf(1, i * UNIT, 1, 1, 1);
        assert_non_null(attn_tensor_scale(tape, x, 2.0));
        size_t largest = (size_t)(i * UNIT) * sizeof(float) * 9 / 8; /* the pool's classes */
        assert_in_range(attn_tape_bytes(tape), (size_t)(i * UNIT) * sizeof(float), 4 * largest);
        attn_tape_clear(tape);
        attn_tensor_release(x);
    }
}

/* The second step of a shape takes what the first one gave back. */
static void test_same_memory(void **state)
{
    (void)state;
    attn_tensor *x = leaf(2, 100, 100, 1, 1);
    size_t bytes = 0;
    for (int step = 0; step < 6; step++) {
        attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_tanh(tape, x));
        assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
        bytes = step == 0 ? attn_tape_bytes(tape) : bytes;
        assert_int_equal(attn_tape_bytes(tape), bytes);
        attn_tape_clear(tape);
        attn_tensor_clear_grad(x);
    }
    attn_tensor_release(x);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, tape_setup, tape_teardown)
    const struct CMUnitTest tests[] = {
        TEST(tensors),     TEST(views_share),      TEST(sdpa_layout),           TEST(long_chain),
        TEST(diamonds),    TEST(gradients_add_up), TEST(no_recording),          TEST(kept_results),
        TEST(in_place),    TEST(shape_errors),     TEST(failures_pass_through), TEST(large_sums),
        TEST(many_shapes), TEST(same_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
