/*
 * The contract's table of scores: order of operations, types, accumulation, scale, softcap, ALiBi,
 * sinks, groups of heads, dim_v ≠ dim_qk. Expected numbers are worked out here by hand where that is
 * possible, and taken from the oracle elsewhere.
 */
#include "fixture.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* softmax of up to four numbers, and its normaliser's logarithm, sink included. */
static double softmax(const double *s, int count, double sink, double *weights)
{
    double sum = exp(sink);
    for (int n = 0; n < count; n++) {
        sum += exp(s[n]);
    }
    for (int n = 0; n < count; n++) {
        weights[n] = exp(s[n]) / sum;
    }
    return log(sum);
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 3e-6 * (1 + fabs(want)))) {
        fail_msg("got %.9g, must be %.9g", got, want);
    }
}

static attn_view vector(const float *values, int64_t count)
{
    return attn_view_dense(values, ATTN_F32, 1, &count);
}

static void plain_attention_is_softmax_of_scaled_dot_products(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_check(&f);
    }
}

static void default_scale_is_one_over_root_dim_qk(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_run(&f);
        uint64_t before = array_hash(&f.out);
        f.o.has_scale = true;
        f.o.scale = 1 / sqrt((double)f.size.dim_qk);
        fixture_run(&f);
        assert_true(array_hash(&f.out) == before);
    }
}

static void scale_without_its_flag_is_ignored(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_run(&f);
        uint64_t before = array_hash(&f.out);
        f.o.scale = 17;
        fixture_run(&f);
        assert_true(array_hash(&f.out) == before);
    }
}

static void scale_zero_gives_uniform_weights(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        f.o.has_scale = true;
        f.o.scale = 0;
        fixture_check(&f);
        near(view_get(&f.weights.view, 0, 0, 0, 0), 1.0 / (double)f.size.len_k);
    }
}

static void negative_scale_prefers_the_smallest_dot_product(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        f.o.has_scale = true;
        f.o.scale = -2;
        fixture_check(&f);
    }
    float w[3];
    float lse;
    attn_sdpa_options o = attn_sdpa_options_init();
    o.has_scale = true;
    o.scale = -30;
    weights_of_scores((const float[]){5, -5, 9}, 3, &o, w, &lse);
    assert_true(w[0] == 0 && w[1] == 1 && w[2] == 0);
}

static void scale_that_is_not_finite_is_an_error(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[0]);
    f.o.has_scale = true;
    f.o.scale = NAN;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "scale");
    f.o.scale = INFINITY;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "scale");
    fixture_free(&f);
}

static void softcap_comes_after_scale_and_before_bias(void **state)
{
    (void)state;
    float w[3];
    float lse;
    const float scores[3] = {4, -6, 1};
    const float bias[3] = {0.5F, 2, -1};
    double want[3];
    double s[3];
    attn_sdpa_options o = attn_sdpa_options_init();
    attn_view b = attn_view_dense(bias, ATTN_F32, 2, (const int64_t[]){1, 3});
    o.has_scale = true;
    o.scale = 0.5;
    o.softcap = 1.5;
    o.bias = &b;
    weights_of_scores(scores, 3, &o, w, &lse);
    for (int n = 0; n < 3; n++) {
        s[n] = 1.5 * tanh(0.5 * (double)scores[n] / 1.5) + (double)bias[n];
    }
    near((double)lse, softmax(s, 3, -INFINITY, want));
    for (int n = 0; n < 3; n++) {
        near((double)w[n], want[n]);
    }
}

static void softcap_agrees_with_the_oracle_on_every_path(void **state)
{
    (void)state;
    const double caps[] = {50, 3, 0.01};
    for (int n = 0; n < 3; n++) {
        FOR_EACH_SIZE(f)
        {
            f.o.has_scale = true;
            f.o.scale = 1;
            f.o.softcap = caps[n];
            fixture_check(&f);
        }
    }
}

static void softcap_below_zero_is_an_error(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[0]);
    f.o.softcap = -1;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "softcap");
    f.o.softcap = NAN;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "softcap");
    fixture_free(&f);
}

static void alibi_is_minus_slope_times_distance_back(void **state)
{
    (void)state;
    float w[3];
    float lse;
    double want[3];
    const float slope = 0.75F;
    attn_view slopes = vector(&slope, 1);
    attn_sdpa_options o = attn_sdpa_options_init();
    o.alibi = &slopes;
    o.causal = ATTN_CAUSAL_BOTTOM_RIGHT; /* p(0) = 2 */
    weights_of_scores((const float[]){1, 2, 3}, 3, &o, w, &lse);
    near((double)lse, softmax((const double[]){1 - 1.5, 2 - 0.75, 3}, 3, -INFINITY, want));
    near((double)w[0], want[0]);
}

static void alibi_without_causal_takes_the_absolute_distance(void **state)
{
    (void)state;
    float w[3];
    float lse;
    double want[3];
    const float slope = 0.75F;
    const int64_t offset = 1;
    attn_view slopes = vector(&slope, 1);
    attn_sdpa_options o = attn_sdpa_options_init();
    o.alibi = &slopes;
    o.q_offset = &offset;
    o.q_offset_count = 1;
    weights_of_scores((const float[]){1, 2, 3}, 3, &o, w, &lse);
    near((double)lse, softmax((const double[]){1 - 0.75, 2, 3 - 0.75}, 3, -INFINITY, want));
    near((double)w[2], want[2]);
}

static void alibi_has_a_slope_per_query_head(void **state)
{
    (void)state;
    for (int causal = 0; causal < 3; causal++) {
        FOR_EACH_SIZE(f)
        {
            attn_dtype type = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
            array slopes = array_dense(type, 1, &f.size.heads_q);
            for (int64_t h = 0; h < f.size.heads_q; h++) {
                view_set(&slopes.view, h, 0, 0, 0, ldexp(1, -(int)h));
            }
            f.o.alibi = &slopes.view;
            f.o.causal = (attn_causal)causal;
            fixture_check(&f);
            array_free(&slopes);
        }
    }
}

static void sinks_join_the_denominator_only(void **state)
{
    (void)state;
    float w[2];
    float lse;
    double want[2];
    const float sink = 1.25F;
    attn_view sinks = vector(&sink, 1);
    attn_sdpa_options o = attn_sdpa_options_init();
    o.sinks = &sinks;
    weights_of_scores((const float[]){0.5F, -1}, 2, &o, w, &lse);
    near((double)lse, softmax((const double[]){0.5, -1}, 2, 1.25, want));
    near((double)w[0], want[0]);
    near((double)w[1], want[1]);
}

static void sinks_are_neither_scaled_nor_capped(void **state)
{
    (void)state;
    float w[2];
    float lse;
    double want[2];
    const float sink = 6;
    attn_view sinks = vector(&sink, 1);
    attn_sdpa_options o = attn_sdpa_options_init();
    o.sinks = &sinks;
    o.has_scale = true;
    o.scale = 0.25;
    o.softcap = 2;
    weights_of_scores((const float[]){4, -8}, 2, &o, w, &lse);
    double s[2] = {2 * tanh(1.0 / 2), 2 * tanh(-2.0 / 2)};
    near((double)lse, softmax(s, 2, 6, want));
    near((double)w[0], want[0]);
}

static void sinks_have_a_logit_per_query_head_even_far_above_the_scores(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        attn_dtype type = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        array sinks = array_dense(type, 1, &f.size.heads_q);
        for (int64_t h = 0; h < f.size.heads_q; h++) {
            const double values[4] = {0, 40, -40, 150};
            view_set(&sinks.view, h, 0, 0, 0, values[h % 4]);
        }
        f.o.sinks = &sinks.view;
        fixture_check(&f);
        array_free(&sinks);
    }
}

static void query_head_h_uses_kv_head_h_over_group(void **state)
{
    (void)state;
    /* kv head g holds v = g + 1 everywhere, so every query head tells which one it read */
    const fixture_size sizes[] = {{ATTN_F32, 1, 6, 3, 2, 5, 8, 8},
                                  {ATTN_F32, 1, 6, 2, 40, 70, 16, 8}};
    for (int n = 0; n < 2; n++) {
        fixture f = fixture_make(&sizes[n]);
        int64_t group = sizes[n].heads_q / sizes[n].heads_kv;
        for (int64_t e = 0; e < f.v.elements; e++) {
            oracle_store(&f.v.view, e, 1 + (double)(e / (sizes[n].len_k * sizes[n].dim_v)));
        }
        fixture_run(&f);
        for (int64_t h = 0; h < sizes[n].heads_q; h++) {
            near(view_get(&f.out.view, 0, h, 0, 0), 1 + (double)(h / group));
        }
        fixture_free(&f);
    }
}

static void one_kv_head_serves_all_query_heads(void **state)
{
    (void)state;
    const fixture_size sizes[] = {{ATTN_F32, 2, 7, 1, 1, 50, 32, 32},
                                  {ATTN_F32, 1, 5, 1, 37, 50, 32, 16}};
    for (int n = 0; n < 2; n++) {
        fixture f = fixture_make(&sizes[n]);
        fixture_check(&f);
        fixture_free(&f);
    }
}

static void heads_q_must_be_a_multiple_of_heads_kv(void **state)
{
    (void)state;
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 1, 3, 2, 2, 4, 8, 8});
    fixture_fails(&f, ATTN_ERR_SHAPE, "multiple");
    fixture_free(&f);
}

static void dim_v_may_differ_from_dim_qk(void **state)
{
    (void)state;
    const int64_t dims[][2] = {{1, 1},    {1, 64},    {64, 1},   {24, 200},
                               {200, 24}, {192, 128}, {576, 512}};
    for (int n = 0; n < 7; n++) {
        for (int64_t len_q = 1; len_q < 60; len_q += 40) {
            fixture f =
                fixture_make(&(fixture_size){ATTN_F32, 1, 2, 1, len_q, 50, dims[n][0], dims[n][1]});
            fixture_check(&f);
            fixture_free(&f);
        }
    }
}

static void sums_are_float32_for_16_bit_types(void **state)
{
    (void)state;
    /* 1024 + 1 is not a bf16 or f16 partial sum, but the float32 sum of 512 halves is exact */
    for (int type = ATTN_BF16; type <= ATTN_F16; type++) {
        fixture f = fixture_make(&(fixture_size){(attn_dtype)type, 1, 1, 1, 2, 4096, 8, 8});
        f.o.has_scale = true;
        f.o.scale = 0;
        for (int64_t e = 0; e < f.v.elements; e++) {
            oracle_store(&f.v.view, e, 1);
        }
        fixture_run(&f);
        assert_true(view_get(&f.out.view, 0, 0, 1, 3) == 1);
        near(view_get(&f.lse.view, 0, 0, 1, 0), log(4096));
        fixture_free(&f);
    }
}

static void lse_and_weights_are_float32_and_float64_for_float64(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[7]);
    array narrow = array_dense(ATTN_F32, 3, f.lse.view.shape);
    f.o.lse = &narrow.view;
    fixture_fails(&f, ATTN_ERR_DTYPE, "lse");
    array_free(&narrow);
    fixture_free(&f);
    f = fixture_make(&fixture_sizes[5]);
    narrow = array_dense(ATTN_BF16, 4, f.weights.view.shape);
    f.o.weights = &narrow.view;
    fixture_fails(&f, ATTN_ERR_DTYPE, "weights");
    array_free(&narrow);
    fixture_free(&f);
}

static void q_out_and_kv_types_mix_freely_below_float64(void **state)
{
    (void)state;
    const attn_dtype types[3] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    for (int n = 0; n < 27 * 2; n++) {
        fixture_size size = {types[n % 3], 1, 4, 2, n < 27 ? 2 : 40, 50, 24, 24};
        fixture f = fixture_make(&size);
        attn_dtype kv = types[n / 3 % 3];
        array k = array_dense(kv, 4, f.k.view.shape);
        array v = array_dense(kv, 4, f.v.view.shape);
        array out = array_dense(types[n / 9 % 3], 4, f.out.view.shape);
        array_normal(&k, &f.random, 1);
        array_normal(&v, &f.random, 1);
        array old[3] = {f.k, f.v, f.out};
        f.k = k;
        f.v = v;
        f.out = out;
        fixture_check(&f);
        fixture_free(&f);
        for (int a = 0; a < 3; a++) {
            array_free(&old[a]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_attention_is_softmax_of_scaled_dot_products),
        cmocka_unit_test(default_scale_is_one_over_root_dim_qk),
        cmocka_unit_test(scale_without_its_flag_is_ignored),
        cmocka_unit_test(scale_zero_gives_uniform_weights),
        cmocka_unit_test(negative_scale_prefers_the_smallest_dot_product),
        cmocka_unit_test(scale_that_is_not_finite_is_an_error),
        cmocka_unit_test(softcap_comes_after_scale_and_before_bias),
        cmocka_unit_test(softcap_agrees_with_the_oracle_on_every_path),
        cmocka_unit_test(softcap_below_zero_is_an_error),
        cmocka_unit_test(alibi_is_minus_slope_times_distance_back),
        cmocka_unit_test(alibi_without_causal_takes_the_absolute_distance),
        cmocka_unit_test(alibi_has_a_slope_per_query_head),
        cmocka_unit_test(sinks_join_the_denominator_only),
        cmocka_unit_test(sinks_are_neither_scaled_nor_capped),
        cmocka_unit_test(sinks_have_a_logit_per_query_head_even_far_above_the_scores),
        cmocka_unit_test(query_head_h_uses_kv_head_h_over_group),
        cmocka_unit_test(one_kv_head_serves_all_query_heads),
        cmocka_unit_test(heads_q_must_be_a_multiple_of_heads_kv),
        cmocka_unit_test(dim_v_may_differ_from_dim_qk),
        cmocka_unit_test(sums_are_float32_for_16_bit_types),
        cmocka_unit_test(lse_and_weights_are_float32_and_float64_for_float64),
        cmocka_unit_test(q_out_and_kv_types_mix_freely_below_float64),
    };
    return cmocka_run_group_tests_name("sdpa scores", tests, NULL, NULL);
}
