/*
 * attn_mask_*: every element is what the rule says, in any number of dimensions and with strides, and
 * a constructed mask gives the bits that the option of the same name gives.
 */
#include "fixture.h"

#include <attn/mask.h>

#include <string.h>

enum { MAX = 12 };

/* Whether the rule under test lets row i of sequence b see column j. */
typedef bool (*rule)(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k);

static bool get(const attn_view *m, const int64_t *index)
{
    int64_t at = 0;
    for (int n = 0; n < m->ndim; n++) {
        at += index[n] * m->stride[n];
    }
    uint8_t value = ((const uint8_t *)m->data)[at];
    assert_in_range(value, 0, 1);
    return value == 1;
}

static void check(const attn_view *m, rule sees)
{
    int64_t len_q = m->shape[m->ndim - 2];
    int64_t len_k = m->shape[m->ndim - 1];
    int64_t b_count = m->ndim == 4 ? m->shape[0] : 1;
    int64_t h_count = m->ndim >= 3 ? m->shape[m->ndim - 3] : 1;
    for (int64_t b = 0; b < b_count; b++) {
        for (int64_t h = 0; h < h_count; h++) {
            for (int64_t i = 0; i < len_q; i++) {
                for (int64_t j = 0; j < len_k; j++) {
                    const int64_t index[4] = {b, h, i, j};
                    if (get(m, index + 4 - m->ndim) != sees(b, i, j, len_q, len_k)) {
                        fail_msg("[%d, %d, %d, %d] of %d x %d", (int)b, (int)h, (int)i, (int)j,
                                 (int)len_q, (int)len_k);
                    }
                }
            }
        }
    }
}

static bool top_left(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)b, (void)len_q, (void)len_k;
    return j <= i;
}

static bool bottom_right(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)b;
    return j <= i + len_k - len_q;
}

static bool all(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)b, (void)i, (void)j, (void)len_q, (void)len_k;
    return true;
}

static void causal_masks_follow_their_rule(void **state)
{
    (void)state;
    static uint8_t memory[2 * 3 * MAX * MAX];
    for (int64_t len_q = 0; len_q <= MAX; len_q++) {
        for (int64_t len_k = 0; len_k <= MAX; len_k++) {
            for (int ndim = 2; ndim <= 4; ndim++) {
                const int64_t shape[4] = {2, 3, len_q, len_k};
                attn_view m = attn_view_dense(memory, ATTN_BOOL, ndim, shape + 4 - ndim);
                memset(memory, 7, sizeof memory);
                assert_int_equal(attn_mask_causal(&m, ATTN_CAUSAL_TOP_LEFT), ATTN_OK);
                check(&m, top_left);
                assert_int_equal(attn_mask_causal(&m, ATTN_CAUSAL_BOTTOM_RIGHT), ATTN_OK);
                check(&m, bottom_right);
                assert_int_equal(attn_mask_causal(&m, ATTN_CAUSAL_NONE), ATTN_OK);
                check(&m, all);
            }
        }
    }
}

static int64_t left;
static int64_t right;

static bool near(int64_t p, int64_t j)
{
    return (left < 0 || j >= p - left) && (right < 0 || j <= p + right);
}

static bool sliding_none(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)b, (void)len_q, (void)len_k;
    return near(i, j);
}

static bool sliding_bottom_right(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    return bottom_right(b, i, j, len_q, len_k) && near(i + len_k - len_q, j);
}

static void sliding_masks_count_without_self(void **state)
{
    (void)state;
    static uint8_t memory[MAX * MAX];
    const int64_t sizes[][2] = {{1, 1}, {4, 9}, {9, 4}, {MAX, MAX}};
    for (int n = 0; n < 4; n++) {
        attn_view m = attn_view_dense(memory, ATTN_BOOL, 2, sizes[n]);
        for (left = -1; left < MAX; left++) {
            for (right = -1; right < MAX; right++) {
                assert_int_equal(attn_mask_sliding(&m, ATTN_CAUSAL_NONE, left, right), ATTN_OK);
                check(&m, sliding_none);
                assert_int_equal(attn_mask_sliding(&m, ATTN_CAUSAL_BOTTOM_RIGHT, left, right),
                                 ATTN_OK);
                check(&m, sliding_bottom_right);
            }
        }
        assert_int_equal(attn_mask_sliding(&m, ATTN_CAUSAL_NONE, INT64_MAX, INT64_MAX), ATTN_OK);
        check(&m, all);
    }
}

static const int64_t lengths[3] = {5, 0, 2};

static bool padded(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)i, (void)len_q, (void)len_k;
    return j < lengths[b];
}

static void padding_masks_are_per_sequence(void **state)
{
    (void)state;
    static uint8_t memory[3 * 2 * 4 * 5];
    attn_view m = attn_view_bhld(memory, ATTN_BOOL, 3, 2, 4, 5);
    assert_int_equal(attn_mask_padding(&m, lengths, 3), ATTN_OK);
    check(&m, padded);
    assert_int_equal(attn_mask_padding(&m, lengths, 2), ATTN_ERR_SHAPE);
    assert_true(error_has("batch=2"));
    assert_int_equal(attn_mask_padding(&m, NULL, 3), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_mask_padding(&m, (const int64_t[]){1, 6, 0}, 3), ATTN_ERR_ARGUMENT);
    assert_true(error_has("lengths[1]"));
    m.ndim = 3;
    assert_int_equal(attn_mask_padding(&m, lengths, 3), ATTN_ERR_SHAPE);
}

static const int64_t ids_q[6] = {7, 7, 1, 1, 1, -3};
static const int64_t ids_k[4] = {1, -3, 7, 9};

static bool same_document(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    (void)b, (void)len_q;
    return ids_q[i] == (len_k == 4 ? ids_k[j] : ids_q[j]);
}

static void block_diagonal_masks_keep_documents_apart(void **state)
{
    (void)state;
    static uint8_t memory[36];
    attn_view square = attn_view_dense(memory, ATTN_BOOL, 2, (const int64_t[]){6, 6});
    attn_view wide = attn_view_dense(memory, ATTN_BOOL, 2, (const int64_t[]){6, 4});
    assert_int_equal(attn_mask_block_diagonal(&square, ids_q, NULL), ATTN_OK);
    check(&square, same_document);
    assert_int_equal(attn_mask_block_diagonal(&wide, ids_q, ids_k), ATTN_OK);
    check(&wide, same_document);
    assert_int_equal(attn_mask_block_diagonal(&wide, ids_q, NULL), ATTN_ERR_SHAPE);
    assert_int_equal(attn_mask_block_diagonal(&wide, NULL, ids_k), ATTN_ERR_ARGUMENT);
}

static int64_t prefix;

static bool prefix_lm(int64_t b, int64_t i, int64_t j, int64_t len_q, int64_t len_k)
{
    return j < prefix || bottom_right(b, i, j, len_q, len_k);
}

static void prefix_lm_masks_show_the_prefix_to_all(void **state)
{
    (void)state;
    static uint8_t memory[MAX * MAX];
    const int64_t sizes[][2] = {{1, 5}, {7, 7}, {9, 4}, {3, MAX}};
    for (int n = 0; n < 4; n++) {
        attn_view m = attn_view_dense(memory, ATTN_BOOL, 2, sizes[n]);
        for (prefix = 0; prefix <= sizes[n][1]; prefix++) {
            assert_int_equal(attn_mask_prefix_lm(&m, prefix), ATTN_OK);
            check(&m, prefix_lm);
        }
        assert_int_equal(attn_mask_prefix_lm(&m, sizes[n][1] + 1), ATTN_ERR_ARGUMENT);
        assert_int_equal(attn_mask_prefix_lm(&m, -1), ATTN_ERR_ARGUMENT);
    }
}

static void strides_are_kept_and_gaps_left_alone(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 1);
    for (int n = 0; n < 50; n++) {
        const int64_t shape[4] = {2, 3, 5, 6};
        array a = array_random(&random, ATTN_BOOL, 4, shape, false);
        assert_int_equal(attn_mask_causal(&a.view, ATTN_CAUSAL_BOTTOM_RIGHT), ATTN_OK);
        check(&a.view, bottom_right);
        assert_true(array_gaps_intact(&a));
        array_free(&a);
    }
}

static void bad_masks_are_refused(void **state)
{
    (void)state;
    static uint8_t memory[16];
    attn_view m = attn_view_dense(memory, ATTN_BOOL, 2, (const int64_t[]){4, 4});
    assert_int_equal(attn_mask_causal(NULL, ATTN_CAUSAL_NONE), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_mask_causal(&m, (attn_causal)3), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_mask_sliding(&m, ATTN_CAUSAL_NONE, -2, 0), ATTN_ERR_ARGUMENT);
    assert_true(error_has("left"));
    m.stride[0] = 0; /* rows would share memory */
    assert_int_equal(attn_mask_causal(&m, ATTN_CAUSAL_NONE), ATTN_ERR_SHAPE);
    m.stride[0] = 4;
    m.dtype = ATTN_F32;
    assert_int_equal(attn_mask_causal(&m, ATTN_CAUSAL_NONE), ATTN_ERR_DTYPE);
    m.dtype = ATTN_BOOL;
    m.ndim = 1;
    assert_int_equal(attn_mask_causal(&m, ATTN_CAUSAL_NONE), ATTN_ERR_SHAPE);
}

/* The same call twice, by mask and by option: the same rows within a few roundings. */
static void a_mask_means_what_the_option_means(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        static uint8_t memory[1 << 20];
        const int64_t shape[2] = {f.size.len_q, f.size.len_k};
        attn_view mask = attn_view_dense(memory, ATTN_BOOL, 2, shape);
        assert_true(shape[0] * shape[1] <= (int64_t)sizeof memory);
        assert_int_equal(attn_mask_sliding(&mask, ATTN_CAUSAL_BOTTOM_RIGHT, 5, -1), ATTN_OK);
        f.o.mask = &mask;
        fixture_check(&f);
        array_wipe(&f.out);
        double with_mask[64];
        fixture_run(&f);
        for (int64_t n = 0; n < 64; n++) {
            with_mask[n] = view_get(&f.out.view, 0, 0, f.size.len_q - 1, n % f.size.dim_v);
        }
        f.o.mask = NULL;
        f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        f.o.has_window = true;
        f.o.window_left = 5;
        f.o.window_right = -1;
        fixture_check(&f);
        for (int64_t n = 0; n < 64; n++) {
            double v = view_get(&f.out.view, 0, 0, f.size.len_q - 1, n % f.size.dim_v);
            double most = f.size.type == ATTN_BF16 ? 4e-2 : f.size.type == ATTN_F16 ? 5e-3 : 1e-5;
            assert_true(v - with_mask[n] <= most && with_mask[n] - v <= most);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(causal_masks_follow_their_rule),
        cmocka_unit_test(sliding_masks_count_without_self),
        cmocka_unit_test(padding_masks_are_per_sequence),
        cmocka_unit_test(block_diagonal_masks_keep_documents_apart),
        cmocka_unit_test(prefix_lm_masks_show_the_prefix_to_all),
        cmocka_unit_test(strides_are_kept_and_gaps_left_alone),
        cmocka_unit_test(bad_masks_are_refused),
        cmocka_unit_test(a_mask_means_what_the_option_means),
    };
    return cmocka_run_group_tests_name("masks", tests, NULL, NULL);
}
