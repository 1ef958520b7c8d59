/*
 * test_linear_weights.c: weights as they are stored: bytes, values; and what creating and running a layer refuse.
 *
 * repro: test_linear_weights <seed> (printed on failure)
 */
#include "draws.h"
#include "expect.h"
#include "linear_weights.h"
#include "support.h"

#include <attn/attn.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 20240607;

static void test_dequantize(void **unused)
{
    (void)unused;
    draw_state = seed;
    for (size_t t = 0; t < LINEAR_TYPES; t++) {
        uint8_t *w = random_weights(linear_types[t], 7, 320);
        float values[7 * 320];
        assert_int_equal(attn_weight_dequantize(linear_types[t], w, 7 * 320, values), ATTN_OK);
        for (int i = 0; i < 7 * 320; i++) {
            /* The double is exact; d·q + m rounds once. */
            assert_true(values[i] == (float)weight_at(linear_types[t], w, i));
        }
        free(w);
    }
    /* Every f16 and bf16 there is. */
    for (unsigned bits = 0; bits < 65536; bits++) {
        uint8_t bytes[2] = {(uint8_t)bits, (uint8_t)(bits >> 8)};
        float f16, bf16;
        attn_weight_dequantize(ATTN_WEIGHT_F16, bytes, 1, &f16);
        attn_weight_dequantize(ATTN_WEIGHT_BF16, bytes, 1, &bf16);
        if ((bits & 0x7c00) != 0x7c00) {
            assert_true(f16 == (float)half_value(bytes) && !signbit(f16) == !(bits >> 15));
        } else {
            assert_true((bits & 1023 ? isnan(f16) : isinf(f16)) != 0);
        }
        uint32_t word;
        memcpy(&word, &bf16, 4);
        assert_true(word >> 16 == bits && (word & 0xffff) == 0);
    }
    assert_int_equal(attn_weight_dequantize(ATTN_WEIGHT_Q4_1, linear_types, 33, NULL),
                     ATTN_ERR_SHAPE);
}

static void test_bytes(void **unused)
{
    (void)unused;
    assert_int_equal(attn_weight_bytes(ATTN_WEIGHT_Q4_1, 576, 1536), 576 * 48 * 20);
    assert_int_equal(attn_weight_bytes(ATTN_WEIGHT_Q4_0, 3, 64), 3 * 2 * 18);
    assert_int_equal(attn_weight_bytes(ATTN_WEIGHT_Q8_0, 49152, 576), 49152 * 18 * 34);
    assert_int_equal(attn_weight_bytes(ATTN_WEIGHT_F16, 5, 7), 70);
    assert_int_equal(attn_weight_bytes(ATTN_WEIGHT_Q8_0, 4, 33), 0);
    assert_int_equal(attn_weight_bytes(ATTN_WEIGHT_F32, INT64_MAX, INT64_MAX), 0);
    assert_int_equal(attn_weight_bytes(ATTN_WEIGHT_F32, -1, 4), 0);
    assert_int_equal(attn_weight_bytes((attn_weight_type)77, 4, 4), 0);
}

/* ---------- errors ---------- */

static void test_create_errors(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    static const uint8_t zeros[64 * 34];
    attn_linear_part q8 = {ATTN_WEIGHT_Q8_0, zeros, 2};
    attn_linear_part f32 = {ATTN_WEIGHT_F32, zeros, 2};
    attn_linear *l = (attn_linear *)context;
    expect_error(attn_linear_create(context, NULL, 32, 1, &q8, NULL, NULL), ATTN_ERR_ARGUMENT,
                 "linear");
    expect_error(attn_linear_create(NULL, NULL, 32, 1, &q8, NULL, &l), ATTN_ERR_ARGUMENT,
                 "context");
    assert_null(l);
    expect_error(attn_linear_create(context, NULL, 33, 1, &q8, NULL, &l), ATTN_ERR_SHAPE, "32");
    expect_error(attn_linear_create(context, NULL, 0, 1, &f32, NULL, &l), ATTN_ERR_SHAPE,
                 "in_features");
    expect_error(attn_linear_create(context, NULL, 32, 0, &q8, NULL, &l), ATTN_ERR_ARGUMENT,
                 "part");
    expect_error(attn_linear_create(context, NULL, 32, 1, NULL, NULL, &l), ATTN_ERR_ARGUMENT,
                 "part");
    expect_error(attn_linear_create(context, NULL, 32, 2, (attn_linear_part[]){q8, f32}, NULL, &l),
                 ATTN_ERR_ARGUMENT, "part 1");
    attn_linear_part bad = {(attn_weight_type)99, zeros, 2};
    expect_error(attn_linear_create(context, NULL, 32, 1, &bad, NULL, &l), ATTN_ERR_ARGUMENT, "99");
    bad = (attn_linear_part){ATTN_WEIGHT_Q8_0, NULL, 2};
    expect_error(attn_linear_create(context, NULL, 32, 1, &bad, NULL, &l), ATTN_ERR_ARGUMENT,
                 "weights");
    bad = (attn_linear_part){ATTN_WEIGHT_Q8_0, zeros, 0};
    expect_error(attn_linear_create(context, NULL, 32, 1, &bad, NULL, &l), ATTN_ERR_SHAPE,
                 "out_features");
    bad = (attn_linear_part){ATTN_WEIGHT_Q8_0, zeros, INT64_MAX};
    expect_error(attn_linear_create(context, NULL, 32, 1, &bad, NULL, &l), ATTN_ERR_SHAPE,
                 "exceed");
    attn_linear_options options = attn_linear_options_init();
    options.activations = ATTN_ACTIVATIONS_INT8;
    expect_error(attn_linear_create(context, &options, 32, 1, &f32, NULL, &l), ATTN_ERR_ARGUMENT,
                 "int8");
    options.activations = (attn_activations)9;
    expect_error(attn_linear_create(context, &options, 32, 1, &f32, NULL, &l), ATTN_ERR_ARGUMENT,
                 "9");
    options.struct_size = 3;
    expect_error(attn_linear_create(context, &options, 32, 1, &f32, NULL, &l), ATTN_ERR_ARGUMENT,
                 "struct_size");
    assert_null(l);
    attn_linear_destroy(NULL);
    attn_context_destroy(context);
}

static void test_forward_errors(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    static const float w[8 * 4];
    float x[3 * 4] = {0}, y[3 * 8];
    attn_linear_part part = {ATTN_WEIGHT_F32, w, 8};
    attn_linear *l;
    assert_int_equal(attn_linear_create(context, NULL, 4, 1, &part, NULL, &l), ATTN_OK);
    attn_view vx = attn_view_matrix(x, ATTN_F32, 3, 4, 4),
              vy = attn_view_matrix(y, ATTN_F32, 3, 8, 8);
    assert_int_equal(attn_linear_forward(context, l, &vx, &vy), ATTN_OK);
    expect_error(attn_linear_forward(NULL, l, &vx, &vy), ATTN_ERR_ARGUMENT, "context");
    expect_error(attn_linear_forward(context, NULL, &vx, &vy), ATTN_ERR_ARGUMENT, "linear");
    expect_error(attn_linear_forward(context, l, NULL, &vy), ATTN_ERR_ARGUMENT, "x");
    expect_error(attn_linear_forward(context, l, &vx, NULL), ATTN_ERR_ARGUMENT, "y");
    attn_view bad = attn_view_matrix(x, ATTN_F32, 4, 3, 3);
    expect_error(attn_linear_forward(context, l, &bad, &vy), ATTN_ERR_SHAPE, "in_features");
    bad = vx;
    bad.dtype = ATTN_F16;
    expect_error(attn_linear_forward(context, l, &bad, &vy), ATTN_ERR_DTYPE, "f16");
    bad = vx;
    bad.stride[1] = 2;
    expect_error(attn_linear_forward(context, l, &bad, &vy), ATTN_ERR_SHAPE, "stride");
    bad = vx;
    bad.ndim = 3;
    expect_error(attn_linear_forward(context, l, &bad, &vy), ATTN_ERR_SHAPE, "dimensions");
    bad = vx;
    bad.data = NULL;
    expect_error(attn_linear_forward(context, l, &bad, &vy), ATTN_ERR_ARGUMENT, "NULL");
    bad = vy;
    bad.stride[0] = 7;
    expect_error(attn_linear_forward(context, l, &vx, &bad), ATTN_ERR_SHAPE, "overlap");
    bad = vy;
    bad.shape[0] = 2;
    expect_error(attn_linear_forward(context, l, &vx, &bad), ATTN_ERR_SHAPE, "rows");
    bad = vy;
    bad.data = x;
    expect_error(attn_linear_forward(context, l, &vx, &bad), ATTN_ERR_ARGUMENT, "in place");
    vx.shape[0] = vy.shape[0] = 0;
    assert_int_equal(attn_linear_forward(context, l, &vx, &vy), ATTN_OK);
    attn_context *plain = context_of(ATTN_ISA_C, 1);
    if (attn_context_isa(context) != ATTN_ISA_C) {
        expect_error(attn_linear_forward(plain, l, &vx, &vy), ATTN_ERR_ARGUMENT, "level");
    }
    attn_context_destroy(plain);
    attn_linear_destroy(l);
    attn_context_destroy(context);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantize),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_create_errors),
        cmocka_unit_test(test_forward_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
