/*
 * The contract's table of results: rows with nothing to attend to, masked slots whatever they hold,
 * NaN and infinity in what is attended, overflow, the log-sum-exp, empty shapes.
 */
#include "fixture.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void assert_empty_row(const fixture *f, int64_t b, int64_t h, int64_t i)
{
    for (int64_t d = 0; d < f->size.dim_v; d++) {
        assert_true(view_get(&f->out.view, b, h, i, d) == 0);
    }
    for (int64_t j = 0; j < f->size.len_k; j++) {
        assert_true(view_get(&f->weights.view, b, h, i, j) == 0);
    }
    assert_true(view_get(&f->lse.view, b, h, i, 0) == -INFINITY);
}

static bool row_is_nan(const fixture *f, int64_t b, int64_t h, int64_t i)
{
    bool all = isnan(view_get(&f->lse.view, b, h, i, 0));
    for (int64_t d = 0; d < f->size.dim_v; d++) {
        all = all && isnan(view_get(&f->out.view, b, h, i, d));
    }
    return all;
}

/* ---- nothing to attend to ---------------------------------------------------------------------- */

static array alternating_rows(const fixture *f, attn_dtype type, double hidden, double shown)
{
    const int64_t shape[2] = {f->size.len_q, f->size.len_k};
    array a = array_dense(type, 2, shape);
    for (int64_t i = 0; i < shape[0]; i++) {
        for (int64_t j = 0; j < shape[1]; j++) {
            view_set(&a.view, i, j, 0, 0, i % 2 ? shown : hidden);
        }
    }
    return a;
}

static void a_row_hidden_by_the_mask_is_zero_with_lse_minus_infinity(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        array mask = alternating_rows(&f, ATTN_BOOL, 0, 1);
        f.o.mask = &mask.view;
        fixture_check(&f);
        assert_empty_row(&f, 0, 0, 0);
        array_free(&mask);
    }
}

static void a_row_of_minus_infinite_bias_counts_as_hidden(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        attn_dtype exact = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        array bias = alternating_rows(&f, exact, -INFINITY, 0.25);
        f.o.bias = &bias.view;
        fixture_check(&f);
        assert_empty_row(&f, 0, 0, 0);
        array_free(&bias);
    }
}

static void an_empty_row_ignores_the_sink(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        attn_dtype exact = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        array mask = alternating_rows(&f, ATTN_BOOL, 0, 1);
        array sinks = array_dense(exact, 1, &f.size.heads_q);
        array_normal(&sinks, &f.random, 2);
        f.o.mask = &mask.view;
        f.o.sinks = &sinks.view;
        fixture_check(&f);
        assert_empty_row(&f, 0, 0, 0);
        array_free(&mask);
        array_free(&sinks);
    }
}

static void causal_window_and_lengths_empty_rows_too(void **state)
{
    (void)state;
    const int64_t zeros[2] = {0, 0};
    const int64_t far = 100000;
    FOR_EACH_SIZE(f)
    {
        f.o.lengths_k = zeros;
        fixture_check(&f);
        assert_empty_row(&f, 0, f.size.heads_q - 1, f.size.len_q - 1);
        f.o.lengths_k = NULL;
        f.o.has_window = true; /* far beyond the keys */
        f.o.window_left = 1;
        f.o.q_offset = &far;
        f.o.q_offset_count = 1;
        fixture_check(&f);
        assert_empty_row(&f, 0, 0, 0);
    }
}

static void an_empty_row_is_zero_even_where_q_k_and_v_are_nan(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        array mask = alternating_rows(&f, ATTN_BOOL, 0, 1);
        f.o.mask = &mask.view;
        for (int64_t d = 0; d < f.size.dim_qk; d++) {
            view_set(&f.q.view, 0, 0, 0, d, NAN);
        }
        view_set(&f.v.view, 0, 0, 1, 0, NAN);
        fixture_check(&f);
        assert_empty_row(&f, 0, 0, 0);
        array_free(&mask);
    }
}

static void no_keys_at_all_is_an_empty_row_everywhere(void **state)
{
    (void)state;
    for (int64_t len_q = 1; len_q < 50; len_q += 40) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 2, 1, len_q, 0, 16, 8});
        fixture_check(&f);
        assert_empty_row(&f, 1, 1, len_q - 1);
        fixture_free(&f);
    }
}

static void no_queries_or_no_batch_succeeds_and_does_nothing(void **state)
{
    (void)state;
    const fixture_size sizes[] = {{ATTN_F32, 2, 2, 1, 0, 9, 16, 8},
                                  {ATTN_F32, 0, 2, 1, 3, 9, 16, 8},
                                  {ATTN_F64, 0, 2, 1, 0, 0, 16, 8}};
    for (int n = 0; n < 3; n++) {
        fixture f = fixture_make(&sizes[n]);
        fixture_run(&f);
        fixture_free(&f);
    }
}

/* ---- what is masked never reaches the result --------------------------------------------------- */

static const double poisons[] = {NAN, INFINITY, -INFINITY};

/* Keys and values that nobody may see, because of the mask, hold poison: bits stay the same. */
static void poison_in_hidden_keys(bool keys, bool values)
{
    for (int p = 0; p < 3; p++) {
        FOR_EACH_SIZE(f)
        {
            const int64_t shape[2] = {1, f.size.len_k};
            array mask = array_dense(ATTN_BOOL, 2, shape);
            for (int64_t j = 0; j < f.size.len_k; j++) {
                oracle_store(&mask.view, j, j % 3 != 1);
            }
            f.o.mask = &mask.view;
            fixture_check(&f);
            uint64_t before = array_hash(&f.out) ^ array_hash(&f.lse) ^ array_hash(&f.weights);
            for (int64_t b = 0; b < f.size.batch; b++) {
                for (int64_t h = 0; h < f.size.heads_kv; h++) {
                    for (int64_t j = 1; j < f.size.len_k; j += 3) {
                        view_set(&f.k.view, b, h, j, j % f.size.dim_qk, keys ? poisons[p] : 0);
                        view_set(&f.v.view, b, h, j, j % f.size.dim_v, values ? poisons[p] : 0);
                    }
                }
            }
            fixture_check(&f);
            uint64_t after = array_hash(&f.out) ^ array_hash(&f.lse) ^ array_hash(&f.weights);
            assert_true(after == before);
            array_free(&mask);
        }
    }
}

static void masked_keys_may_hold_anything(void **state)
{
    (void)state;
    poison_in_hidden_keys(true, false);
}

static void masked_values_may_hold_anything(void **state)
{
    (void)state;
    poison_in_hidden_keys(false, true);
}

static void keys_hidden_by_causal_may_hold_anything(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        /* everything after the last row's diagonal is hidden from all rows */
        int64_t from = f.size.len_q;
        f.o.causal = ATTN_CAUSAL_TOP_LEFT;
        fixture_check(&f);
        uint64_t before = array_hash(&f.out);
        for (int64_t j = from; j < f.size.len_k; j++) {
            view_set(&f.k.view, 0, 0, j, 0, NAN);
            view_set(&f.v.view, 0, 0, j, f.size.dim_v - 1, INFINITY);
        }
        fixture_check(&f);
        assert_true(array_hash(&f.out) == before);
    }
}

/*
 * One NaN in V at key j, seen by the rows from j on (causal): exactly those rows get it, in that
 * column, and every other row keeps its bits, its neighbours i = j−1 and the other heads included.
 */
static void nan_in_an_attended_value_reaches_its_rows_and_no_other(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        int64_t rows = f.size.batch * f.size.heads_q * f.size.len_q;
        uint64_t *before = calloc((size_t)rows, sizeof *before);
        int64_t group = f.size.heads_q / f.size.heads_kv;
        int64_t at = f.size.len_q / 2;
        int64_t column = f.size.dim_v / 3;
        assert_non_null(before);
        f.o.causal = ATTN_CAUSAL_TOP_LEFT;
        fixture_check(&f);
        for (int64_t r = 0; r < rows; r++) {
            before[r] = fixture_row_bits(&f, r / (f.size.heads_q * f.size.len_q),
                                         r / f.size.len_q % f.size.heads_q, r % f.size.len_q);
        }
        view_set(&f.v.view, 0, 0, at, column, NAN);
        fixture_check(&f);
        for (int64_t r = 0; r < rows; r++) {
            int64_t b = r / (f.size.heads_q * f.size.len_q);
            int64_t h = r / f.size.len_q % f.size.heads_q;
            int64_t i = r % f.size.len_q;
            bool reached = b == 0 && h / group == 0 && i >= at;
            if (reached) {
                assert_true(isnan(view_get(&f.out.view, b, h, i, column)));
                assert_true(!isnan(view_get(&f.lse.view, b, h, i, 0)));
            } else if (fixture_row_bits(&f, b, h, i) != before[r]) {
                fail_msg("%s len %lld,%lld: NaN at key %lld changed row b=%lld h=%lld i=%lld",
                         attn_dtype_name(f.size.type), (long long)f.size.len_q,
                         (long long)f.size.len_k, (long long)at, (long long)b, (long long)h,
                         (long long)i);
            }
        }
        free(before);
    }
}

static void nan_in_an_attended_key_reaches_its_rows_and_no_other(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        int64_t at = f.size.len_q / 2;
        int64_t last = f.size.batch - 1;
        uint64_t neighbour = 0;
        f.o.causal = ATTN_CAUSAL_TOP_LEFT;
        fixture_check(&f);
        uint64_t other = fixture_row_bits(&f, last, f.size.heads_q - 1, 0);
        neighbour = at > 0 ? fixture_row_bits(&f, 0, 0, at - 1) : 0;
        view_set(&f.k.view, 0, 0, at, 0, NAN);
        fixture_check(&f);
        assert_true(row_is_nan(&f, 0, 0, at) && row_is_nan(&f, 0, 0, f.size.len_q - 1));
        if (at > 0) {
            assert_true(fixture_row_bits(&f, 0, 0, at - 1) == neighbour);
            assert_true(fixture_row_bits(&f, last, f.size.heads_q - 1, 0) == other);
        }
    }
}

static void nan_in_a_query_reaches_its_row_and_no_other(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_check(&f);
        uint64_t after = fixture_row_bits(&f, 0, 0, 2);
        uint64_t before = fixture_row_bits(&f, 0, 0, 0);
        bool has = f.size.len_q > 2;
        view_set(&f.q.view, 0, 0, 1, f.size.dim_qk - 1, NAN);
        fixture_check(&f);
        assert_true(row_is_nan(&f, 0, 0, 1));
        assert_true(fixture_row_bits(&f, 0, 0, 0) == before);
        assert_true(!has || fixture_row_bits(&f, 0, 0, 2) == after);
    }
}

static void infinite_values_stay_infinite_or_nan(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        int64_t last = f.size.len_k - 1;
        fixture_check(&f);
        view_set(&f.v.view, 0, 0, last, 0, INFINITY);
        fixture_check(&f);
        assert_true(!isfinite(view_get(&f.out.view, 0, 0, 0, 0)));
    }
}

static void a_non_finite_value_whose_weight_underflows_is_still_seen(void **state)
{
    (void)state;
    for (int p = 0; p < 3; p++) {
        FOR_EACH_SIZE(f)
        {
            int64_t last = f.size.len_k - 1;
            const int64_t shape[2] = {1, f.size.len_k};
            attn_dtype exact = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
            array bias = array_dense(exact, 2, shape);
            for (int64_t j = 0; j < f.size.len_k; j++) {
                oracle_store(&bias.view, j, j == last ? -5000 : 0);
            }
            f.o.bias = &bias.view;
            view_set(&f.v.view, 0, 0, last, 0, poisons[p]);
            fixture_check(&f);
            assert_true(view_get(&f.weights.view, 0, 0, 0, last) == 0);
            assert_true(!isfinite(view_get(&f.out.view, 0, 0, 0, 0)));
            array_free(&bias);
        }
    }
}

/* ---- scores that overflow ---------------------------------------------------------------------- */

static void weights_of(const float *scores, int count, double scale, float *w, float *lse)
{
    attn_sdpa_options o = attn_sdpa_options_init();
    o.has_scale = true;
    o.scale = scale;
    weights_of_scores(scores, count, &o, w, lse);
}

static void attended_scores_that_overflow_to_minus_infinity_weigh_nothing(void **state)
{
    (void)state;
    float w[3];
    float lse;
    weights_of((const float[]){-3e38F, 1e-30F, -3e38F}, 3, 1e30, w, &lse);
    assert_true(w[0] == 0 && w[1] == 1 && w[2] == 0);
    assert_true(fabsf(lse - 1) < 1e-6F);
}

static void a_row_of_only_overflowed_scores_is_nan_not_empty(void **state)
{
    (void)state;
    float w[3];
    float lse;
    weights_of((const float[]){-3e38F, -3e38F, -2e38F}, 3, 1e30, w, &lse);
    assert_true(isnan(lse));
    FOR_EACH_SIZE(f)
    {
        if (f.size.type == ATTN_F16 || f.size.type == ATTN_F64) {
            continue; /* f16 products cannot overflow float32 */
        }
        for (int64_t d = 0; d < f.size.dim_qk; d++) {
            view_set(&f.q.view, 0, 0, 1, d, 1e30);
            for (int64_t j = 0; j < f.size.len_k; j++) {
                view_set(&f.k.view, 0, 0, j, d, -1e30);
            }
        }
        fixture_check(&f);
        assert_true(row_is_nan(&f, 0, 0, 1));
        assert_false(row_is_nan(&f, 0, 0, 0));
    }
}

static void overflowed_rows_that_are_also_masked_in_part_are_nan(void **state)
{
    (void)state;
    float w[3];
    float lse;
    const uint8_t bits[3] = {1, 0, 1};
    attn_view mask = attn_view_dense(bits, ATTN_BOOL, 2, (const int64_t[]){1, 3});
    attn_sdpa_options o = attn_sdpa_options_init();
    o.mask = &mask;
    o.has_scale = true;
    o.scale = 1e30;
    weights_of_scores((const float[]){-3e38F, 1, -2e38F}, 3, &o, w, &lse);
    assert_true(isnan(lse));
    assert_true(w[1] == 0);
}

static void a_plus_infinite_score_gives_nan(void **state)
{
    (void)state;
    float w[3];
    float lse;
    weights_of((const float[]){3e38F, 1, 2}, 3, 1e30, w, &lse);
    assert_true(isnan(lse));
    FOR_EACH_SIZE(f)
    {
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        attn_dtype exact = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        array bias = array_dense(exact, 2, shape);
        for (int64_t n = 0; n < bias.elements; n++) {
            oracle_store(&bias.view, n, 0);
        }
        view_set(&bias.view, 1, f.size.len_k - 1, 0, 0, INFINITY);
        f.o.bias = &bias.view;
        fixture_check(&f);
        assert_true(row_is_nan(&f, 0, 0, 1));
        assert_false(row_is_nan(&f, 0, 0, 0));
        array_free(&bias);
    }
}

static void large_finite_scores_do_not_overflow_the_exponential(void **state)
{
    (void)state;
    const double offsets[] = {90, 100, 1e4, -1e4, 1e30, -1e30};
    for (int n = 0; n < 6; n++) {
        float w[2];
        float lse;
        const float scores[2] = {(float)offsets[n], (float)offsets[n]};
        weights_of(scores, 2, 1, w, &lse);
        assert_true(w[0] == 0.5F && w[1] == 0.5F);
        assert_true(fabs((double)lse - offsets[n] - log(2)) <= 4e-7 * fabs(offsets[n]) + 1e-6);
    }
}

static void lse_is_the_natural_log_after_everything_with_sinks(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        attn_dtype exact = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        array bias = array_dense(exact, 2, shape);
        array sinks = array_dense(exact, 1, &f.size.heads_q);
        array_normal(&bias, &f.random, 1);
        array_normal(&sinks, &f.random, 1);
        f.o.bias = &bias.view;
        f.o.sinks = &sinks.view;
        f.o.softcap = 2;
        f.o.causal = ATTN_CAUSAL_TOP_LEFT;
        fixture_check(&f);
        array_free(&bias);
        array_free(&sinks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_hidden_by_the_mask_is_zero_with_lse_minus_infinity),
        cmocka_unit_test(a_row_of_minus_infinite_bias_counts_as_hidden),
        cmocka_unit_test(an_empty_row_ignores_the_sink),
        cmocka_unit_test(causal_window_and_lengths_empty_rows_too),
        cmocka_unit_test(an_empty_row_is_zero_even_where_q_k_and_v_are_nan),
        cmocka_unit_test(no_keys_at_all_is_an_empty_row_everywhere),
        cmocka_unit_test(no_queries_or_no_batch_succeeds_and_does_nothing),
        cmocka_unit_test(masked_keys_may_hold_anything),
        cmocka_unit_test(masked_values_may_hold_anything),
        cmocka_unit_test(keys_hidden_by_causal_may_hold_anything),
        cmocka_unit_test(nan_in_an_attended_value_reaches_its_rows_and_no_other),
        cmocka_unit_test(nan_in_an_attended_key_reaches_its_rows_and_no_other),
        cmocka_unit_test(nan_in_a_query_reaches_its_row_and_no_other),
        cmocka_unit_test(infinite_values_stay_infinite_or_nan),
        cmocka_unit_test(a_non_finite_value_whose_weight_underflows_is_still_seen),
        cmocka_unit_test(attended_scores_that_overflow_to_minus_infinity_weigh_nothing),
        cmocka_unit_test(a_row_of_only_overflowed_scores_is_nan_not_empty),
        cmocka_unit_test(overflowed_rows_that_are_also_masked_in_part_are_nan),
        cmocka_unit_test(a_plus_infinite_score_gives_nan),
        cmocka_unit_test(large_finite_scores_do_not_overflow_the_exponential),
        cmocka_unit_test(lse_is_the_natural_log_after_everything_with_sinks),
    };
    return cmocka_run_group_tests_name("sdpa rows", tests, NULL, NULL);
}
