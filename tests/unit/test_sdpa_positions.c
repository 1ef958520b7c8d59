/*
 * Who sees whom by position: causal and its two alignments, q_offset, windows, lengths, and the
 * absolute positions of caches. The expected picture of each is drawn by its own rule.
 */
#include "fixture.h"

#include <math.h>

/* Whether the weights are positive exactly where `sees` says, by (row, column). */
typedef bool (*picture)(int64_t i, int64_t j, int64_t len_q, int64_t len_k);

static void assert_picture(const fixture *f, picture sees)
{
    for (int64_t b = 0; b < f->size.batch; b++) {
        for (int64_t i = 0; i < f->size.len_q; i++) {
            for (int64_t j = 0; j < f->size.len_k; j++) {
                bool seen = view_get(&f->weights.view, b, f->size.heads_q - 1, i, j) > 0;
                if (seen != sees(i, j, f->size.len_q, f->size.len_k)) {
                    fail_msg("len %lld,%lld: row %lld %s key %lld", (long long)f->size.len_q,
                             (long long)f->size.len_k, (long long)i, seen ? "attends to" : "misses",
                             (long long)j);
                }
            }
        }
    }
}

static bool everything(int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)len_q;
    (void)len_k;
    return i >= 0 && j >= 0;
}

static bool top_left(int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)len_q;
    (void)len_k;
    return j <= i;
}

static bool bottom_right(int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    return j <= i + len_k - len_q;
}

static void causal_none_sees_everything(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_check(&f);
        assert_picture(&f, everything);
    }
}

static void causal_top_left_sees_keys_up_to_i(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        f.o.causal = ATTN_CAUSAL_TOP_LEFT;
        fixture_check(&f);
        assert_picture(&f, top_left);
    }
}

static void causal_bottom_right_lets_the_last_query_see_the_last_key(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        fixture_check(&f);
        assert_picture(&f, bottom_right);
    }
}

static void causal_with_more_queries_than_keys(void **state)
{
    (void)state;
    const int64_t lens[][2] = {{5, 2}, {90, 40}, {7, 1}, {200, 129}};
    for (int n = 0; n < 8; n++) {
        fixture f = fixture_make(
            &(fixture_size){ATTN_F32, 1, 1, 1, lens[n / 2][0], lens[n / 2][1], 16, 16});
        f.o.causal = n % 2 ? ATTN_CAUSAL_TOP_LEFT : ATTN_CAUSAL_BOTTOM_RIGHT;
        fixture_check(&f); /* bottom-right: the first rows see nothing */
        assert_picture(&f, n % 2 ? top_left : bottom_right);
        fixture_free(&f);
    }
}

static void q_offset_moves_every_row(void **state)
{
    (void)state;
    const int64_t offsets[] = {0, 1, 5, 1000, -1, -7, INT64_C(1) << 40, -(INT64_C(1) << 40)};
    for (int n = 0; n < 8; n++) {
        for (int causal = 0; causal < 3; causal++) {
            FOR_EACH_SIZE(f)
            {
                f.o.causal = (attn_causal)causal;
                f.o.q_offset = &offsets[n];
                f.o.q_offset_count = 1;
                fixture_check(&f);
            }
        }
    }
}

static void q_offset_replaces_bottom_right_alignment(void **state)
{
    (void)state;
    const int64_t zero = 0;
    FOR_EACH_SIZE(f)
    {
        f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        f.o.q_offset = &zero;
        f.o.q_offset_count = 1;
        fixture_run(&f);
        assert_picture(&f, top_left);
    }
}

static void q_offset_may_be_one_per_sequence(void **state)
{
    (void)state;
    const int64_t offsets[3] = {0, 4, 30};
    for (int64_t len_q = 2; len_q < 60; len_q += 50) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 3, 2, 1, len_q, 64, 16, 16});
        f.o.causal = ATTN_CAUSAL_TOP_LEFT;
        f.o.q_offset = offsets;
        f.o.q_offset_count = 3;
        fixture_check(&f);
        assert_true(view_get(&f.weights.view, 1, 0, 0, 4) > 0);
        assert_true(view_get(&f.weights.view, 1, 0, 0, 5) == 0);
        assert_true(view_get(&f.weights.view, 2, 0, 0, 30) > 0);
        fixture_free(&f);
    }
}

static void q_offset_count_must_be_0_1_or_batch(void **state)
{
    (void)state;
    const int64_t offsets[4] = {0};
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 3, 2, 1, 2, 8, 16, 16});
    f.o.q_offset = offsets;
    f.o.q_offset_count = 2;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "q_offset");
    f.o.q_offset = NULL;
    f.o.q_offset_count = 1;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "q_offset");
    fixture_free(&f);
}

static void window_counts_do_not_include_self(void **state)
{
    (void)state;
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 1, 1, 1, 9, 9, 8, 8});
    f.o.has_window = true;
    f.o.window_left = 2;
    f.o.window_right = 1;
    fixture_check(&f);
    for (int64_t i = 0; i < 9; i++) {
        for (int64_t j = 0; j < 9; j++) {
            assert_true((view_get(&f.weights.view, 0, 0, i, j) > 0) == (j >= i - 2 && j <= i + 1));
        }
    }
    fixture_free(&f);
}

static void window_zero_zero_is_the_diagonal(void **state)
{
    (void)state;
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 1, 1, 1, 70, 70, 8, 8});
    f.o.has_window = true;
    fixture_check(&f);
    for (int64_t i = 0; i < 70; i++) {
        assert_true(view_get(&f.weights.view, 0, 0, i, i) == 1);
    }
    fixture_free(&f);
}

static void window_minus_one_is_unlimited(void **state)
{
    (void)state;
    const int64_t sides[][2] = {{-1, -1}, {-1, 0},   {3, -1},
                                {-1, 6},  {100, -1}, {INT64_MAX, INT64_MAX}};
    for (int n = 0; n < 6; n++) {
        FOR_EACH_SIZE(f)
        {
            f.o.has_window = true;
            f.o.window_left = sides[n][0];
            f.o.window_right = sides[n][1];
            fixture_check(&f);
        }
    }
}

static void window_below_minus_one_is_an_error(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[0]);
    f.o.has_window = true;
    f.o.window_left = -2;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "window");
    f.o.window_left = 0;
    f.o.window_right = INT64_MIN;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "window");
    fixture_free(&f);
}

static void window_without_its_flag_is_ignored(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[2]);
    f.o.window_left = 1;
    f.o.window_right = 1;
    fixture_check(&f);
    assert_picture(&f, everything);
    fixture_free(&f);
}

static void window_and_causal_hold_together(void **state)
{
    (void)state;
    for (int causal = 0; causal < 3; causal++) {
        for (int64_t left = 0; left < 130; left += 43) {
            FOR_EACH_SIZE(f)
            {
                f.o.causal = (attn_causal)causal;
                f.o.has_window = true;
                f.o.window_left = left;
                f.o.window_right = 20;
                fixture_check(&f);
            }
        }
    }
}

static void lengths_shorten_each_sequence(void **state)
{
    (void)state;
    const int64_t q_lens[3] = {0, 2, 40};
    const int64_t k_lens[3] = {50, 0, 13};
    for (int causal = 0; causal < 3; causal++) {
        for (int which = 1; which < 4; which++) {
            fixture f = fixture_make(&(fixture_size){ATTN_F32, 3, 2, 1, 40, 50, 16, 16});
            f.o.causal = (attn_causal)causal;
            f.o.lengths_q = which & 1 ? q_lens : NULL;
            f.o.lengths_k = which & 2 ? k_lens : NULL;
            fixture_check(&f);
            fixture_free(&f);
        }
    }
}

static void bottom_right_aligns_to_each_sequences_own_lengths(void **state)
{
    (void)state;
    const int64_t q_lens[2] = {3, 2};
    const int64_t k_lens[2] = {7, 4};
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 1, 1, 4, 9, 8, 8});
    f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    f.o.lengths_q = q_lens;
    f.o.lengths_k = k_lens;
    fixture_check(&f);
    for (int64_t b = 0; b < 2; b++) {
        for (int64_t i = 0; i < q_lens[b]; i++) {
            for (int64_t j = 0; j < 9; j++) {
                bool sees = j < k_lens[b] && j <= i + k_lens[b] - q_lens[b];
                assert_true((view_get(&f.weights.view, b, 0, i, j) > 0) == sees);
            }
        }
    }
    fixture_free(&f);
}

static void rows_beyond_their_length_are_zero_and_not_read(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) {
        int64_t len_q = n ? 60 : 4;
        const int64_t lens[2] = {1, len_q - 1};
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 2, 2, len_q, 30, 16, 16});
        f.o.lengths_q = lens;
        for (int64_t b = 0; b < 2; b++) {
            for (int64_t i = lens[b]; i < len_q; i++) {
                view_set(&f.q.view, b, 0, i, 3, NAN);
                view_set(&f.q.view, b, 1, i, 0, INFINITY);
            }
        }
        fixture_check(&f);
        assert_true(view_get(&f.out.view, 0, 0, 1, 0) == 0);
        assert_true(view_get(&f.lse.view, 0, 0, 1, 0) == -INFINITY);
        assert_true(view_get(&f.weights.view, 0, 1, 1, 0) == 0);
        fixture_free(&f);
    }
}

static void keys_beyond_their_length_are_not_read(void **state)
{
    (void)state;
    for (int64_t len_q = 1; len_q < 60; len_q += 50) {
        const int64_t lens[2] = {5, 29};
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 2, 1, len_q, 30, 16, 16});
        f.o.lengths_k = lens;
        for (int64_t b = 0; b < 2; b++) {
            for (int64_t j = lens[b]; j < 30; j++) {
                view_set(&f.k.view, b, 0, j, 3, NAN);
                view_set(&f.v.view, b, 0, j, 0, -INFINITY);
            }
        }
        fixture_check(&f);
        fixture_free(&f);
    }
}

static void lengths_outside_their_range_are_errors(void **state)
{
    (void)state;
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 1, 1, 4, 9, 8, 8});
    const int64_t long_q[2] = {1, 5};
    const int64_t long_k[2] = {10, 9};
    const int64_t negative[2] = {1, -1};
    f.o.lengths_q = long_q;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "lengths_q");
    f.o.lengths_q = negative;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "lengths_q");
    f.o.lengths_q = NULL;
    f.o.lengths_k = long_k;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "lengths_k");
    f.o.lengths_k = negative;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "lengths_k");
    fixture_free(&f);
}

/* ---- caches ------------------------------------------------------------------------------------ */

static void check_cached(fixture *f, const attn_kv_view *kv)
{
    char text[400];
    f->o.lse = &f->lse.view;
    array_wipe(&f->out);
    array_wipe(&f->lse);
    if (attn_sdpa_kv(f->context, &f->o, &f->q.view, kv, &f->out.view) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    oracle_result want = oracle_sdpa(&f->o, &f->q.view, kv, true);
    bool ok = oracle_compare(&want, &f->out.view, f->o.lse, NULL, 1, text, sizeof text);
    oracle_free(&want);
    if (!ok) {
        fail_msg("%s", text);
    }
}

static void a_cache_aligns_bottom_right_for_every_causal_value(void **state)
{
    (void)state;
    const int64_t length[2] = {33, 20};
    const int64_t first[2] = {0, 100};
    for (int64_t len_q = 2; len_q < 30; len_q += 17) {
        for (int windowed = 0; windowed < 2; windowed++) {
            fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 2, 1, len_q, 40, 16, 16});
            attn_kv_view kv = attn_kv_view_init(f.k.view, f.v.view);
            kv.length = length;
            kv.first = first;
            f.o.has_window = windowed;
            f.o.window_left = 6;
            f.o.window_right = 2;
            check_cached(&f, &kv); /* NONE */
            f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
            check_cached(&f, &kv);
            fixture_free(&f);
        }
    }
}

static void a_cache_refuses_top_left(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[0]);
    attn_kv_view kv = attn_kv_view_init(f.k.view, f.v.view);
    f.o.causal = ATTN_CAUSAL_TOP_LEFT;
    assert_int_equal(attn_sdpa_kv(f.context, &f.o, &f.q.view, &kv, &f.out.view), ATTN_ERR_ARGUMENT);
    assert_true(error_has("causal") || error_has("TOP_LEFT"));
    f.o.causal = ATTN_CAUSAL_NONE;
    const int64_t lens[2] = {1, 1};
    f.o.lengths_k = lens;
    assert_int_equal(attn_sdpa_kv(f.context, &f.o, &f.q.view, &kv, &f.out.view), ATTN_ERR_ARGUMENT);
    assert_true(error_has("lengths_k"));
    fixture_free(&f);
}

static void a_caches_q_offset_is_absolute(void **state)
{
    (void)state;
    const int64_t first[1] = {1000};
    const int64_t offset = 1005;
    for (int64_t len_q = 1; len_q < 60; len_q += 40) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 1, 2, 1, len_q, 50, 16, 16});
        attn_kv_view kv = attn_kv_view_init(f.k.view, f.v.view);
        kv.first = first;
        f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        f.o.q_offset = &offset;
        f.o.q_offset_count = 1;
        f.o.weights = &f.weights.view;
        check_cached(&f, &kv);
        assert_true(view_get(&f.weights.view, 0, 0, 0, 5) > 0);
        assert_true(view_get(&f.weights.view, 0, 0, 0, 6) == 0);
        fixture_free(&f);
    }
}

static void a_rings_columns_count_from_the_oldest_key(void **state)
{
    (void)state;
    /* 10 slots, 7 keys held from position 16: they lie in slots 6 7 8 9 0 1 2 */
    const int64_t length[1] = {7};
    const int64_t first[1] = {16};
    for (int64_t len_q = 1; len_q < 40; len_q += 30) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 1, 1, 1, len_q, 10, 8, 8});
        attn_kv_view kv = attn_kv_view_init(f.k.view, f.v.view);
        const int64_t shape[2] = {1, 7};
        array bias = array_from(ATTN_F32, 2, shape, (const double[]){30, 0, 0, 0, 0, 0, 0});
        kv.length = length;
        kv.first = first;
        kv.ring = 10;
        for (int64_t s = 3; s < 6; s++) {
            view_set(&f.k.view, 0, 0, s, 0, NAN); /* not held */
            view_set(&f.v.view, 0, 0, s, 0, NAN);
        }
        f.o.bias = &bias.view; /* points at the oldest key: slot 6 */
        check_cached(&f, &kv);
        double want = view_get(&f.v.view, 0, 0, 6, 0);
        double got = view_get(&f.out.view, 0, 0, 0, 0);
        assert_true(fabs(got - want) < 1e-4);
        array_free(&bias);
        fixture_free(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(causal_none_sees_everything),
        cmocka_unit_test(causal_top_left_sees_keys_up_to_i),
        cmocka_unit_test(causal_bottom_right_lets_the_last_query_see_the_last_key),
        cmocka_unit_test(causal_with_more_queries_than_keys),
        cmocka_unit_test(q_offset_moves_every_row),
        cmocka_unit_test(q_offset_replaces_bottom_right_alignment),
        cmocka_unit_test(q_offset_may_be_one_per_sequence),
        cmocka_unit_test(q_offset_count_must_be_0_1_or_batch),
        cmocka_unit_test(window_counts_do_not_include_self),
        cmocka_unit_test(window_zero_zero_is_the_diagonal),
        cmocka_unit_test(window_minus_one_is_unlimited),
        cmocka_unit_test(window_below_minus_one_is_an_error),
        cmocka_unit_test(window_without_its_flag_is_ignored),
        cmocka_unit_test(window_and_causal_hold_together),
        cmocka_unit_test(lengths_shorten_each_sequence),
        cmocka_unit_test(bottom_right_aligns_to_each_sequences_own_lengths),
        cmocka_unit_test(rows_beyond_their_length_are_zero_and_not_read),
        cmocka_unit_test(keys_beyond_their_length_are_not_read),
        cmocka_unit_test(lengths_outside_their_range_are_errors),
        cmocka_unit_test(a_cache_aligns_bottom_right_for_every_causal_value),
        cmocka_unit_test(a_cache_refuses_top_left),
        cmocka_unit_test(a_caches_q_offset_is_absolute),
        cmocka_unit_test(a_rings_columns_count_from_the_oldest_key),
    };
    return cmocka_run_group_tests_name("sdpa positions", tests, NULL, NULL);
}
