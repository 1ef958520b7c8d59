/*
 * test_tensor_edges.c: shapes that hold nothing, layouts with sizes of 1 in odd places, and what checkpoints may read.
 */
#include "tensor_support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static attn_tensor *zeros(int ndim, int64_t s0, int64_t s1, int64_t s2)
{
    attn_tensor *t = NULL;
    assert_int_equal(attn_tensor_create(ATTN_F32, ndim, (int64_t[]){s0, s1, s2}, &t), ATTN_OK);
    attn_tensor_require_grad(t, true);
    return t;
}

static void expect_shape(const attn_tensor *t, int ndim, int64_t s0, int64_t s1)
{
    assert_non_null(t);
    assert_int_equal(attn_tensor_ndim(t), ndim);
    assert_int_equal(attn_tensor_size(t, 0), s0);
    assert_int_equal(attn_tensor_size(t, 1), s1);
}

/* Without anything to add up, a product is 0 (plus the bias), of the shape that it has otherwise. */
static void test_products_of_nothing(void **state)
{
    (void)state;
    attn_tensor *a = zeros(2, 3, 0, 0), *b = zeros(2, 0, 4, 0), *w = zeros(2, 4, 0, 0);
    attn_tensor *bias = leaf(1, 4, 0, 0, 1), *batch = zeros(3, 2, 3, 0);
    attn_tensor *y = attn_tensor_matmul(tape, a, b);
    expect_shape(y, 2, 3, 4);
    for (int64_t i = 0; i < 12; i++) {
        assert_float_equal(at(y, i), 0, 0);
    }
    y = attn_tensor_linear(tape, a, w, bias);
    expect_shape(y, 2, 3, 4);
    assert_float_equal(at(y, 9), at(bias, 1), 0);
    expect_shape(attn_tensor_matmul(tape, batch, b), 3, 2, 3);
    attn_tensor *none = attn_tensor_linear(tape, bias, b, NULL);
    assert_non_null(none);
    assert_int_equal(attn_tensor_count(none), 0);
    attn_tensor *loss =
        attn_tensor_add(tape, attn_tensor_sum_all(tape, y), attn_tensor_sum_all(tape, none));
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_float_equal(at(attn_tensor_grad(bias), 2), 3, 0);
    assert_int_equal(attn_tensor_count(attn_tensor_grad(w)), 0);
    attn_tensor_release(a);
    attn_tensor_release(b);
    attn_tensor_release(w);
    attn_tensor_release(bias);
    attn_tensor_release(batch);
}

/* A sum of nothing is 0, a mean of nothing is none, a maximum of nothing is an error. */
static void test_reductions_of_nothing(void **state)
{
    (void)state;
    attn_tensor *x = zeros(2, 3, 0, 0);
    attn_tensor *sum = attn_tensor_sum(tape, x, 1, false),
                *mean = attn_tensor_mean(tape, x, 1, true);
    expect_shape(mean, 2, 3, 1);
    for (int64_t i = 0; i < 3; i++) {
        assert_float_equal(at(sum, i), 0, 0);
        assert_true(isnan(at(mean, i)));
    }
    assert_true(isnan(attn_tensor_item(attn_tensor_mean_all(tape, x))));
    assert_float_equal(attn_tensor_item(attn_tensor_sum_all(tape, x)), 0, 0);
    EXPECT_FAILED(attn_tensor_max(tape, x, 1, false), ATTN_ERR_SHAPE, "max", "dimension 1");
    assert_int_equal(attn_tape_backward(tape, attn_tensor_sum_all(tape, x), NULL), ATTN_OK);
    attn_tensor_release(x);
}

/* A constant that is marked gathers a gradient of its own, in its own order; a recorded result takes no mark. */
static void test_constants_become_leaves(void **state)
{
    (void)state;
    attn_tensor *x = leaf(2, 2, 3, 0, 1);
    attn_tensor *y = attn_tensor_retain(attn_tensor_transpose(tape, x, 0, 1));
    attn_tensor_require_grad(y, false);
    assert_true(attn_tensor_requires_grad(y));
    attn_tape_clear(tape);
    attn_tensor_require_grad(y, true);
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_mul(tape, y, y));
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_null(attn_tensor_grad(x));
    expect_shape(attn_tensor_grad(y), 2, 3, 2);
    assert_float_equal(at(attn_tensor_grad(y), 1), 2 * at(x, 3), 0);
    attn_tensor_release(x);
    attn_tape_clear(tape);
    attn_tensor_release(y);
}

static void test_masks_without_data(void **state)
{
    (void)state;
    attn_tensor *x = leaf(2, 2, 3, 0, 1);
    const attn_view none = attn_view_dense(NULL, ATTN_BOOL, 1, (int64_t[]){3});
    EXPECT_FAILED(attn_tensor_masked_fill(tape, x, &none, 0), ATTN_ERR_ARGUMENT, "mask", "NULL");
    EXPECT_FAILED(attn_tensor_where(tape, &none, x, x), ATTN_ERR_ARGUMENT, "mask", "NULL");
    attn_tensor_release(x);
}

/* 17 times 2^59 columns of no row. */
static void test_sizes_that_overflow(void **state)
{
    (void)state;
    attn_tensor *x = zeros(2, 0, 1, 0), *many[17];
    attn_tensor *wide = attn_tensor_reshape(tape, x, 2, (int64_t[]){0, (int64_t)1 << 59});
    for (int i = 0; i < 17; i++) {
        many[i] = wide;
    }
    EXPECT_FAILED(attn_tensor_concat(tape, 17, many, 1), ATTN_ERR_SHAPE, "concat", "63 bits");
    attn_tensor_release(x);
}

/* softmax along the first dimension gives a view whose size-1 dimension lies anywhere: results in its order must have its order. */
static void test_layouts_with_ones(void **state)
{
    (void)state;
    const int64_t shape[4] = {3, 1, 9, 2};
    attn_tensor *flat = leaf(1, 54, 0, 0, 3);
    attn_tensor *x = attn_tensor_softmax(tape, attn_tensor_reshape(tape, flat, 4, shape), 0);
    attn_tensor *y = attn_tensor_exp(tape, x);
    assert_non_null(y);
    attn_view from = attn_tensor_view(x), to = attn_tensor_view(y);
    for (int64_t i = 0; i < 54; i++) {
        int64_t a = i / 18, c = i / 2 % 9, d = i % 2;
        float value = ((const float *)
                           from.data)[a * from.stride[0] + c * from.stride[2] + d * from.stride[3]];
        float got =
            ((const float *)to.data)[a * to.stride[0] + c * to.stride[2] + d * to.stride[3]];
        assert_float_equal(got, expf(value), 1e-5F);
    }
    assert_int_equal(attn_tape_backward(tape, attn_tensor_mean_all(tape, y), NULL), ATTN_OK);
    attn_tensor_release(flat);
}

/* ---- checkpoints ---- */

static attn_tensor *same(void *user, attn_tape *on, attn_tensor *const *in, int count)
{
    (void)user;
    (void)on;
    return in[count - 1];
}

static attn_tensor *times(void *user, attn_tape *on, attn_tensor *const *in, int count)
{
    (void)count;
    return attn_tensor_mul(on, in[0], user);
}

static attn_tensor *nested(void *user, attn_tape *on, attn_tensor *const *in, int count)
{
    return attn_tensor_exp(on, attn_tensor_checkpoint(on, times, user, in, count));
}

/* A function that only hands on what it was given, a parameter or a result, hands on its gradient. */
static void test_checkpoint_passes_through(void **state)
{
    (void)state;
    attn_tensor *x = leaf(1, 4, 0, 0, 1);
    attn_tensor *y = attn_tensor_checkpoint(tape, same, NULL, &x, 1);
    attn_tensor *twice = attn_tensor_scale(tape, x, 2.0);
    attn_tensor *z = attn_tensor_checkpoint(tape, same, NULL, &twice, 1);
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_add(tape, y, z));
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    for (int64_t i = 0; i < 4; i++) {
        assert_float_equal(at(attn_tensor_grad(x), i), 3, 0);
    }
    attn_tensor_release(x);
}

/* What backward computes again must be what forward computed: also from parameters that are no inputs. */
static void test_checkpoint_in_place(void **state)
{
    (void)state;
    attn_tensor *x = leaf(1, 4, 0, 0, 1), *w = leaf(1, 4, 0, 0, 2);
    attn_tensor_function *functions[] = {times, nested};
    for (int n = 0; n < 2; n++) {
        attn_tensor *y = attn_tensor_checkpoint(tape, functions[n], w, &x, 1);
        attn_tensor *loss = attn_tensor_sum_all(tape, y);
        assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
        assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
        attn_tensor_write(w);
        EXPECT_STATUS(attn_tape_backward(tape, loss, NULL), ATTN_ERR_ARGUMENT, "checkpoint",
                      "in place");
        attn_tape_clear(tape);
    }
    attn_tensor *y = attn_tensor_checkpoint(tape, times, w, &x, 1);
    attn_tensor_write(x);
    EXPECT_STATUS(attn_tape_backward(tape, attn_tensor_sum_all(tape, y), NULL), ATTN_ERR_ARGUMENT,
                  "checkpoint", "input 0");
    attn_tensor_release(x);
    attn_tensor_release(w);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, tape_setup, tape_teardown)
    const struct CMUnitTest tests[] = {
        TEST(products_of_nothing),       TEST(reductions_of_nothing), TEST(sizes_that_overflow),
        TEST(constants_become_leaves),   TEST(masks_without_data),    TEST(layouts_with_ones),
        TEST(checkpoint_passes_through), TEST(checkpoint_in_place),
    };
    return cmocka_run_group_tests_name("tensor edges", tests, NULL, NULL);
}
