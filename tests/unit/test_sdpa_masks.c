/*
 * Boolean and additive masks: what they mean, how they broadcast, how several hold at once, and
 * what is refused with which words.
 */
#include "fixture.h"

#include <float.h>
#include <math.h>
#include <string.h>

static void boolean_mask_one_attends_zero_hides(void **state)
{
    (void)state;
    float w[4];
    float lse;
    const uint8_t bits[4] = {1, 0, 0, 1};
    attn_view mask = attn_view_dense(bits, ATTN_BOOL, 2, (const int64_t[]){1, 4});
    attn_sdpa_options o = attn_sdpa_options_init();
    o.mask = &mask;
    weights_of_scores((const float[]){0, 50, 50, 0}, 4, &o, w, &lse);
    assert_true(w[0] == 0.5F && w[1] == 0 && w[2] == 0 && w[3] == 0.5F);
}

static void any_nonzero_byte_of_a_mask_attends(void **state)
{
    (void)state;
    float w[4];
    float lse;
    const uint8_t bits[4] = {2, 0, 255, 128};
    attn_view mask = attn_view_dense(bits, ATTN_BOOL, 2, (const int64_t[]){1, 4});
    attn_sdpa_options o = attn_sdpa_options_init();
    o.mask = &mask;
    weights_of_scores((const float[]){0, 0, 0, 0}, 4, &o, w, &lse);
    assert_true(w[0] > 0.33F && w[1] == 0 && w[2] > 0.33F && w[3] > 0.33F);
}

static void additive_mask_minus_infinity_hides_as_zero_in_a_mask_does(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        array mask = array_dense(ATTN_BOOL, 2, shape);
        array bias = array_dense(f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32, 2, shape);
        for (int64_t n = 0; n < mask.elements; n++) {
            bool attends = rng_chance(&f.random, 70);
            oracle_store(&mask.view, n, attends);
            oracle_store(&bias.view, n, attends ? 0 : -INFINITY);
        }
        f.o.mask = &mask.view;
        fixture_check(&f);
        uint64_t by_mask = array_hash(&f.out);
        f.o.mask = NULL;
        f.o.bias = &bias.view;
        fixture_check(&f);
        assert_true(array_hash(&f.out) == by_mask);
        array_free(&mask);
        array_free(&bias);
    }
}

static void finite_bias_is_an_ordinary_score_even_minus_flt_max(void **state)
{
    (void)state;
    float w[3];
    float lse;
    const float low[3] = {-FLT_MAX, -FLT_MAX, -FLT_MAX};
    attn_view bias = attn_view_dense(low, ATTN_F32, 2, (const int64_t[]){1, 3});
    attn_sdpa_options o = attn_sdpa_options_init();
    o.bias = &bias;
    weights_of_scores((const float[]){1, 2, -3}, 3, &o, w, &lse);
    for (int n = 0; n < 3; n++) { /* −FLT_MAX + s rounds to −FLT_MAX */
        assert_true(fabsf(w[n] - 1.0F / 3) < 1e-6F);
    }
    assert_true(lse == -FLT_MAX);
    const float mixed[3] = {-FLT_MAX, 0, -1e30F};
    bias.data = (void *)(uintptr_t)mixed;
    weights_of_scores((const float[]){1, 2, -3}, 3, &o, w, &lse);
    assert_true(w[0] == 0 && w[1] == 1 && w[2] == 0);
}

static void rows_of_minus_flt_max_are_uniform_on_every_path(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        bool f64 = f.size.type == ATTN_F64;
        array bias = array_dense(f64 ? ATTN_F64 : ATTN_F32, 2, shape);
        for (int64_t n = 0; n < bias.elements; n++) {
            oracle_store(&bias.view, n, f64 ? -DBL_MAX : (double)-FLT_MAX);
        }
        f.o.bias = &bias.view;
        fixture_run(&f);
        for (int64_t i = 0; i < f.size.len_q; i++) {
            for (int64_t j = 0; j < f.size.len_k; j++) {
                double w = view_get(&f.weights.view, 0, 0, i, j) * (double)f.size.len_k;
                assert_true(fabs(w - 1) < 1e-5);
            }
        }
        array_free(&bias);
    }
}

static void bias_is_added_after_the_dot_product_on_every_path(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        const int64_t shape[4] = {f.size.batch, f.size.heads_q, f.size.len_q, f.size.len_k};
        array bias = array_dense(f.size.type, 4, shape); /* q's own type */
        array_normal(&bias, &f.random, 3);
        f.o.bias = &bias.view;
        fixture_check(&f);
        array_free(&bias);
    }
}

static void bias_may_be_float32_beside_16_bit_queries(void **state)
{
    (void)state;
    for (int n = 5; n < 7; n++) {
        fixture f = fixture_make(&fixture_sizes[n]);
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        array bias = array_dense(ATTN_F32, 2, shape);
        array_normal(&bias, &f.random, 3);
        f.o.bias = &bias.view;
        fixture_check(&f);
        array_free(&bias);
        fixture_free(&f);
    }
}

static void masks_and_biases_broadcast_from_the_right(void **state)
{
    (void)state;
    for (int s = 0; s < FIXTURE_SIZES; s++) {
        for (int broadcast = 0; broadcast < 3 + 7 + 15; broadcast++) {
            /* 2-D, 3-D, 4-D, with every subset of the dimensions of size 1 but the full one */
            int ndim = broadcast < 3 ? 2 : broadcast < 10 ? 3 : 4;
            int ones = ndim == 2 ? broadcast : ndim == 3 ? broadcast - 3 : broadcast - 10;
            fixture f = fixture_make(&fixture_sizes[s]);
            const int64_t full[4] = {f.size.batch, f.size.heads_q, f.size.len_q, f.size.len_k};
            int64_t shape[4];
            for (int d = 0; d < ndim; d++) {
                shape[d] = ones & 1 << d ? 1 : full[4 - ndim + d];
            }
            array bias = array_dense(f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32, ndim, shape);
            array mask = array_dense(ATTN_BOOL, ndim, shape);
            array_normal(&bias, &f.random, 1);
            for (int64_t n = 0; n < mask.elements; n++) {
                oracle_store(&mask.view, n, rng_chance(&f.random, 80));
            }
            f.o.bias = &bias.view;
            f.o.mask = &mask.view;
            fixture_check(&f);
            array_free(&bias);
            array_free(&mask);
            fixture_free(&f);
        }
    }
}

static void two_dimensions_are_len_q_len_k_and_three_are_heads_first(void **state)
{
    (void)state;
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 3, 3, 2, 4, 8, 8});
    array mask = array_dense(ATTN_BOOL, 3, (const int64_t[]){3, 2, 4});
    for (int64_t n = 0; n < mask.elements; n++) {
        oracle_store(&mask.view, n, 1);
    }
    view_set(&mask.view, 1, 0, 2, 0, 0); /* head 1, row 0, key 2 */
    f.o.mask = &mask.view;
    fixture_check(&f);
    for (int64_t b = 0; b < 2; b++) {
        for (int64_t h = 0; h < 3; h++) {
            assert_true((view_get(&f.weights.view, b, h, 0, 2) > 0) == (h != 1));
        }
    }
    array_free(&mask);
    fixture_free(&f);
}

static void a_3d_mask_of_batch_size_names_the_trap_and_the_fix(void **state)
{
    (void)state;
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 4, 4, 8, 8, 8, 8});
    array mask = array_dense(ATTN_BOOL, 3, (const int64_t[]){2, 8, 8});
    f.o.mask = &mask.view;
    fixture_fails(&f, ATTN_ERR_SHAPE, "[2,8,8]");
    assert_true(error_has("[2,1,8,8]"));
    assert_true(error_has("batch"));
    array bias = array_dense(ATTN_F32, 3, (const int64_t[]){2, 8, 8});
    f.o.mask = NULL;
    f.o.bias = &bias.view;
    fixture_fails(&f, ATTN_ERR_SHAPE, "bias");
    assert_true(error_has("[2,1,8,8]"));
    array_free(&bias);
    array_free(&mask);
    fixture_free(&f);
}

static void masks_that_do_not_broadcast_are_errors(void **state)
{
    (void)state;
    const int64_t shapes[][4] = {{8, 7},       {7, 8},       {3, 8, 8},
                                 {2, 3, 8, 8}, {3, 4, 8, 8}, {2, 4, 8, 9}};
    const int ndims[] = {2, 2, 3, 4, 4, 4};
    for (int n = 0; n < 6; n++) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 4, 4, 8, 8, 8, 8});
        array mask = array_dense(ATTN_BOOL, ndims[n], shapes[n]);
        f.o.mask = &mask.view;
        fixture_fails(&f, ATTN_ERR_SHAPE, "mask");
        array_free(&mask);
        fixture_free(&f);
    }
}

static void a_mask_of_one_dimension_is_an_error(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[0]);
    array mask = array_dense(ATTN_BOOL, 1, &f.size.len_k);
    f.o.mask = &mask.view;
    fixture_fails(&f, ATTN_ERR_SHAPE, "mask");
    array_free(&mask);
    fixture_free(&f);
}

static void masks_of_other_types_are_dtype_errors(void **state)
{
    (void)state;
    for (int type = ATTN_F32; type <= ATTN_F16; type++) {
        fixture f = fixture_make(&fixture_sizes[0]);
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        array mask = array_dense((attn_dtype)type, 2, shape);
        f.o.mask = &mask.view;
        fixture_fails(&f, ATTN_ERR_DTYPE, "mask");
        array_free(&mask);
        fixture_free(&f);
    }
    const attn_dtype wrong[][2] = {{ATTN_F32, ATTN_F16},
                                   {ATTN_F32, ATTN_F64},
                                   {ATTN_F64, ATTN_F32},
                                   {ATTN_F32, ATTN_BOOL},
                                   {ATTN_BF16, ATTN_F16}};
    for (int n = 0; n < 5; n++) {
        fixture f = fixture_make(&(fixture_size){wrong[n][0], 1, 1, 1, 2, 3, 8, 8});
        array bias = array_dense(wrong[n][1], 2, (const int64_t[]){2, 3});
        f.o.bias = &bias.view;
        fixture_fails(&f, ATTN_ERR_DTYPE, "bias");
        array_free(&bias);
        fixture_free(&f);
    }
}

static void several_masks_all_hold_and_bias_is_added_to_what_remains(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        array mask = array_dense(ATTN_BOOL, 2, shape);
        array bias = array_dense(f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32, 2, shape);
        for (int64_t n = 0; n < mask.elements; n++) {
            oracle_store(&mask.view, n, rng_chance(&f.random, 80));
            oracle_store(&bias.view, n,
                         rng_chance(&f.random, 80) ? rng_normal(&f.random) : -INFINITY);
        }
        int64_t lens[2] = {f.size.len_k, f.size.len_k - 1};
        f.o.mask = &mask.view;
        f.o.bias = &bias.view;
        f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        f.o.has_window = true;
        f.o.window_left = 90;
        f.o.window_right = 3;
        f.o.lengths_k = lens;
        fixture_check(&f);
        array_free(&mask);
        array_free(&bias);
    }
}

static void bias_in_a_hidden_slot_may_be_nan(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        array mask = array_dense(ATTN_BOOL, 2, shape);
        array bias = array_dense(f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32, 2, shape);
        for (int64_t n = 0; n < mask.elements; n++) {
            bool attends = rng_chance(&f.random, 60);
            oracle_store(&mask.view, n, attends);
            oracle_store(&bias.view, n, attends ? 0.5 : n % 2 ? NAN : INFINITY);
        }
        f.o.mask = &mask.view;
        f.o.bias = &bias.view;
        fixture_check(&f);
        array_free(&mask);
        array_free(&bias);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boolean_mask_one_attends_zero_hides),
        cmocka_unit_test(any_nonzero_byte_of_a_mask_attends),
        cmocka_unit_test(additive_mask_minus_infinity_hides_as_zero_in_a_mask_does),
        cmocka_unit_test(finite_bias_is_an_ordinary_score_even_minus_flt_max),
        cmocka_unit_test(rows_of_minus_flt_max_are_uniform_on_every_path),
        cmocka_unit_test(bias_is_added_after_the_dot_product_on_every_path),
        cmocka_unit_test(bias_may_be_float32_beside_16_bit_queries),
        cmocka_unit_test(masks_and_biases_broadcast_from_the_right),
        cmocka_unit_test(two_dimensions_are_len_q_len_k_and_three_are_heads_first),
        cmocka_unit_test(a_3d_mask_of_batch_size_names_the_trap_and_the_fix),
        cmocka_unit_test(masks_that_do_not_broadcast_are_errors),
        cmocka_unit_test(a_mask_of_one_dimension_is_an_error),
        cmocka_unit_test(masks_of_other_types_are_dtype_errors),
        cmocka_unit_test(several_masks_all_hold_and_bias_is_added_to_what_remains),
        cmocka_unit_test(bias_in_a_hidden_slot_may_be_nan),
    };
    return cmocka_run_group_tests_name("sdpa masks", tests, NULL, NULL);
}
