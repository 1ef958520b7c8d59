/*
 * attn_multihead: against the layer written out in float64 loops, alone and through a cache; masks of
 * every form.
 */
#include "multihead_case.h"

#include <attn/multihead.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what it computes --------------------------------------------------------------------------- */

static bool sees_all(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    (void)rule, (void)b, (void)h, (void)i, (void)j;
    return true;
}

static void self_attention_equals_the_loops(void **state)
{
    (void)state;
    const int64_t heads[] = {1, 2, 4, 8};
    rng random = rng_seed(test_seed(), 1);
    for (int n = 0; n < 8; n++) {
        attn_multihead_options o = layer_sized(64, heads[n % 4]);
        o.no_bias = n >= 4;
        layer l = layer_make(o, 1 + n % 2);
        array x = layer_input(&random, 2, 5 + 9 * (n % 3), 64);
        array out = array_random(&random, ATTN_F32, 3, x.view.shape, false);
        layer_forward(&l, NULL, &x.view, NULL, NULL, &out.view);
        expected e = layer_in_loops(&l, &x.view, &x.view, &x.view, sees_all, NULL);
        layer_close_to(&out.view, e.out, 5e-6);
        assert_true(array_gaps_intact(&out));
        expected_free(&e);
        array_free(&x);
        array_free(&out);
        layer_free(&l);
    }
}

static void cross_attention_with_its_own_widths_equals_the_loops(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 2);
    for (int n = 0; n < 4; n++) {
        attn_multihead_options o = layer_sized(48, 6);
        o.num_kv_heads = n % 2 ? 2 : 0;
        o.kdim = 40;
        o.vdim = 24;
        layer l = layer_make(o, 2);
        int64_t len_q = 4 + 7 * n;
        array query = layer_input(&random, 2, len_q, 48);
        array key = layer_input(&random, 2, len_q + 8, 40);
        array value = layer_input(&random, 2, len_q + 8, 24);
        array out = array_dense(ATTN_F32, 3, query.view.shape);
        layer_forward(&l, NULL, &query.view, &key.view, &value.view, &out.view);
        expected e = layer_in_loops(&l, &query.view, &key.view, &value.view, sees_all, NULL);
        layer_close_to(&out.view, e.out, 5e-6);
        expected_free(&e);
        array_free(&query);
        array_free(&key);
        array_free(&value);
        array_free(&out);
        layer_free(&l);
    }
}

static bool sees_past(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    (void)rule, (void)b, (void)h;
    return j <= i;
}

static void weights_sum_to_one_and_the_future_is_exactly_zero(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 3);
    layer l = layer_make(layer_sized(64, 8), 2);
    const int64_t len = 19;
    array x = layer_input(&random, 2, len, 64);
    array out = array_dense(ATTN_F32, 3, x.view.shape);
    array each = array_dense(ATTN_F32, 4, (const int64_t[]){2, 8, len, len});
    array mean = array_dense(ATTN_F32, 3, (const int64_t[]){2, len, len});
    expected e = layer_in_loops(&l, &x.view, &x.view, &x.view, sees_past, NULL);
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    o.causal = ATTN_CAUSAL_TOP_LEFT;
    o.need_weights = ATTN_WEIGHTS_PER_HEAD;
    o.weights = &each.view;
    layer_forward(&l, &o, &x.view, NULL, NULL, &out.view);
    layer_close_to(&out.view, e.out, 5e-6);
    o.need_weights = ATTN_WEIGHTS_AVERAGED;
    o.weights = &mean.view;
    layer_forward(&l, &o, &x.view, NULL, NULL, &out.view);
    layer_close_to(&out.view, e.out, 5e-6);
    for (int64_t row = 0; row < 2 * len; row++) {
        int64_t b = row / len, i = row % len;
        double sum = 0;
        for (int64_t j = 0; j < len; j++) {
            double average = 0;
            for (int64_t h = 0; h < 8; h++) {
                double w = view_get(&each.view, b, h, i, j);
                assert_true(fabs(w - e.weights[((b * 8 + h) * len + i) * len + j]) <= 2e-6);
                assert_true(j <= i || w == 0);
                average += w / 8;
            }
            double got = view_get(&mean.view, b, i, j, 0);
            assert_true(fabs(got - average) <= 1e-7 && (j <= i || got == 0));
            sum += got;
        }
        assert_true(fabs(sum - 1) <= 1e-6);
    }
    expected_free(&e);
    array_free(&x);
    array_free(&out);
    array_free(&each);
    array_free(&mean);
    layer_free(&l);
}

/* ---- masks -------------------------------------------------------------------------------------- */

typedef struct masks {
    const attn_view *mask; /* 4-D with sizes of 1 where repeated, or NULL */
    const attn_view *padding;
} masks;

static bool sees_masks(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const masks *m = rule;
    if (m->padding && view_get(m->padding, b, j, 0, 0) != 0) {
        return false;
    }
    if (!m->mask) {
        return true;
    }
    const int64_t *shape = m->mask->shape;
    return view_get(m->mask, shape[0] > 1 ? b : 0, shape[1] > 1 ? h : 0, shape[2] > 1 ? i : 0,
                    shape[3] > 1 ? j : 0) != 0;
}

static void fill_bits(array *a, rng *random)
{
    for (int64_t n = 0; n < (int64_t)a->memory.bytes; n++) {
        a->memory.data[n] = rng_chance(random, 70);
    }
}

static void masks_of_every_form_join_with_padding(void **state)
{
    (void)state;
    enum { B = 3, H = 4, Q = 6, K = 14 };
    /* as given, and as four dimensions */
    const struct {
        int ndim;
        int64_t shape[4], four[4];
    } forms[] = {
        {2, {Q, K}, {1, 1, Q, K}},       {2, {1, K}, {1, 1, 1, K}},
        {3, {B, Q, K}, {B, 1, Q, K}},    {3, {1, Q, K}, {1, 1, Q, K}},
        {3, {B, 1, K}, {B, 1, 1, K}},    {4, {B, H, Q, K}, {B, H, Q, K}},
        {4, {1, H, Q, 1}, {1, H, Q, 1}}, {4, {B, 1, Q, K}, {B, 1, Q, K}},
    };
    rng random = rng_seed(test_seed(), 4);
    layer l = layer_make(layer_sized(32, H), 2);
    array query = layer_input(&random, B, Q, 32);
    array key = layer_input(&random, B, K, 32);
    array out = array_dense(ATTN_F32, 3, query.view.shape);
    array padding = array_dense(ATTN_BOOL, 2, (const int64_t[]){B, K});
    fill_bits(&padding, &random);
    for (int n = 0; n < 3 * 8; n++) {
        array mask = array_dense(ATTN_BOOL, forms[n / 3].ndim, forms[n / 3].shape);
        fill_bits(&mask, &random);
        attn_view four = attn_view_dense(mask.view.data, ATTN_BOOL, 4, forms[n / 3].four);
        masks m = {n % 3 != 0 ? &four : NULL, n % 3 != 1 ? &padding.view : NULL};
        attn_multihead_forward_options o = attn_multihead_forward_options_init();
        o.mask = m.mask ? &mask.view : NULL;
        o.key_padding_mask = m.padding;
        layer_forward(&l, &o, &query.view, &key.view, NULL, &out.view);
        expected e = layer_in_loops(&l, &query.view, &key.view, &key.view, sees_masks, &m);
        layer_close_to(&out.view, e.out, 5e-6);
        expected_free(&e);
        array_free(&mask);
    }
    array_free(&query);
    array_free(&key);
    array_free(&out);
    array_free(&padding);
    layer_free(&l);
}

static bool sees_length(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    (void)h, (void)i;
    return j < ((const int64_t *)rule)[b];
}

static void lengths_hide_keys_and_clear_rows(void **state)
{
    (void)state;
    const int64_t lengths_q[3] = {5, 0, 2};
    const int64_t lengths_k[3] = {4, 7, 0};
    rng random = rng_seed(test_seed(), 5);
    layer l = layer_make(layer_sized(32, 4), 1);
    array query = array_dense(ATTN_F32, 3, (const int64_t[]){3, 5, 32});
    array key = array_dense(ATTN_F32, 3, (const int64_t[]){3, 7, 32});
    array out = array_dense(ATTN_F32, 3, query.view.shape);
    array_normal(&query, &random, 1);
    array_normal(&key, &random, 1);
    expected e = layer_in_loops(&l, &query.view, &key.view, &key.view, sees_length, lengths_k);
    for (int64_t n = 0; n < 3 * 5 * 32; n++) { /* rows past a length hold nothing worth reading */
        int64_t b = n / 160, i = n / 32 % 5;
        if (i >= lengths_q[b]) {
            e.out[n] = 0;
            view_set(&query.view, b, i, n % 32, 0, NAN);
        }
    }
    for (int64_t n = 0; n < 3 * 7 * 32; n++) {
        int64_t b = n / 224, j = n / 32 % 7;
        if (j >= lengths_k[b]) {
            view_set(&key.view, b, j, n % 32, 0, NAN);
        }
    }
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    o.lengths_q = lengths_q;
    o.lengths_k = lengths_k;
    layer_forward(&l, &o, &query.view, &key.view, NULL, &out.view);
    layer_close_to(&out.view, e.out, 5e-6);
    expected_free(&e);
    array_free(&query);
    array_free(&key);
    array_free(&out);
    layer_free(&l);
}

/* ---- through a cache ---------------------------------------------------------------------------- */

static attn_view rows(const attn_view *view, int64_t from, int64_t n)
{
    attn_view part = *view;
    part.data = (float *)part.data + from * part.stride[1];
    part.shape[1] = n;
    return part;
}

static void chunks_through_a_cache_equal_the_whole(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 6);
    for (int n = 0; n < 12; n++) {
        attn_multihead_options options = layer_sized(48, 6);
        options.num_kv_heads = n % 3 ? 3 : 6;
        layer l = layer_make(options, 1 + n % 3);
        const int64_t len = 23, window = 5, most = 4;
        bool ring = n % 2;
        array x = layer_input(&random, 2, len, 48);
        array whole = array_dense(ATTN_F32, 3, x.view.shape);
        array chunk = array_dense(ATTN_F32, 3, x.view.shape);
        attn_multihead_forward_options o = attn_multihead_forward_options_init();
        o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        o.has_window = ring;
        o.window_left = window - 1;
        o.window_right = 0;
        layer_forward(&l, &o, &x.view, NULL, NULL, &whole.view);
        o.cache = layer_cache(&l, 2, ring ? 0 : len, ring ? window : 0, ring ? most : 0, ATTN_F32);
        for (int64_t at = 0, count; at < len; at += count) {
            count = rng_range(&random, 1, len - at < most ? len - at : most);
            attn_view part = rows(&x.view, at, count);
            attn_view out = rows(&chunk.view, at, count);
            layer_forward(&l, &o, &part, NULL, NULL, &out);
        }
        assert_int_equal(attn_kv_cache_position(o.cache, 1), len);
        for (int64_t k = 0; k < whole.elements; k++) {
            double a = oracle_load(&whole.view, k), b = oracle_load(&chunk.view, k);
            assert_true(fabs(a - b) <= 5e-6);
        }
        attn_kv_cache_destroy(o.cache);
        array_free(&x);
        array_free(&whole);
        array_free(&chunk);
        layer_free(&l);
    }
}

static void a_call_that_fails_leaves_the_cache_alone(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 7);
    layer l = layer_make(layer_sized(32, 4), 1);
    array x = layer_input(&random, 2, 4, 32);
    array out = array_dense(ATTN_F32, 3, x.view.shape);
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    o.cache = layer_cache(&l, 2, 6, 0, 0, ATTN_F16);
    layer_forward(&l, &o, &x.view, NULL, NULL, &out.view);
    array_wipe(&out);
    uint64_t nan = array_hash(&out);
    assert_int_equal(attn_multihead_forward(l.context, l.layer, &o, &x.view, NULL, NULL, &out.view),
                     ATTN_ERR_CAPACITY);
    assert_true(error_has("4 of 6"));
    o.has_window = true;
    o.window_left = -7; /* found only by attention, after the append */
    attn_view one = rows(&x.view, 0, 1);
    attn_view out_one = rows(&out.view, 0, 1);
    assert_int_equal(attn_multihead_forward(l.context, l.layer, &o, &one, NULL, NULL, &out_one),
                     ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_kv_cache_position(o.cache, 0), 4);
    assert_int_equal(attn_kv_cache_position(o.cache, 1), 4);
    o.has_window = false;
    o.causal = ATTN_CAUSAL_TOP_LEFT;
    assert_int_equal(attn_multihead_forward(l.context, l.layer, &o, &one, NULL, NULL, &out_one),
                     ATTN_ERR_ARGUMENT);
    assert_true(error_has("top-left"));
    assert_true(array_hash(&out) == nan);
    attn_kv_cache_destroy(o.cache);
    array_free(&x);
    array_free(&out);
    layer_free(&l);
}

static void threads_do_not_change_bits(void **state)
{
    (void)state;
    uint64_t first = 0;
    const int threads[] = {1, 2, 3, 7};
    for (int n = 0; n < 4; n++) {
        rng random = rng_seed(test_seed(), 9);
        layer l = layer_make(layer_sized(64, 8), threads[n]);
        array x = layer_input(&random, 3, 40, 64);
        array out = array_dense(ATTN_F32, 3, x.view.shape);
        layer_forward(&l, NULL, &x.view, NULL, NULL, &out.view);
        first = n == 0 ? array_hash(&out) : first;
        assert_true(array_hash(&out) == first);
        array_free(&x);
        array_free(&out);
        layer_free(&l);
    }
}

static void nothing_to_do_succeeds(void **state)
{
    (void)state;
    layer l = layer_make(layer_sized(32, 4), 1);
    float x[64] = {0};
    const int64_t shapes[][3] = {{0, 5, 32}, {2, 0, 32}};
    for (int n = 0; n < 2; n++) {
        attn_view v = attn_view_dense(x, ATTN_F32, 3, shapes[n]);
        layer_forward(&l, NULL, &v, NULL, NULL, &v);
    }
    layer_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(self_attention_equals_the_loops),
        cmocka_unit_test(cross_attention_with_its_own_widths_equals_the_loops),
        cmocka_unit_test(weights_sum_to_one_and_the_future_is_exactly_zero),
        cmocka_unit_test(masks_of_every_form_join_with_padding),
        cmocka_unit_test(lengths_hide_keys_and_clear_rows),
        cmocka_unit_test(chunks_through_a_cache_equal_the_whole),
        cmocka_unit_test(a_call_that_fails_leaves_the_cache_alone),
        cmocka_unit_test(threads_do_not_change_bits),
        cmocka_unit_test(nothing_to_do_succeeds),
    };
    return cmocka_run_group_tests_name("multi-head attention", tests, NULL, NULL);
}
