/* Dropout: which weights are kept, seen through values that are the unit vectors. */
#include "fixture.h"

#include <math.h>
#include <string.h>

enum { LEN_K = 101, DIM = 8 };

/* With v the identity, out is the weights after dropout. */
static fixture transparent(attn_dtype type, int64_t heads_q, int64_t heads_kv, int64_t len_q)
{
    fixture f = fixture_make(&(fixture_size){type, 2, heads_q, heads_kv, len_q, LEN_K, DIM, LEN_K});
    for (int64_t n = 0; n < f.v.elements; n++) {
        attn_view flat = f.v.view;
        oracle_store(&flat, n, n / LEN_K % LEN_K == n % LEN_K ? 1 : 0);
    }
    return f;
}

static bool kept(const fixture *f, int64_t b, int64_t h, int64_t i, int64_t j)
{
    return view_get(&f->out.view, b, h, i, j) != 0;
}

/* Kept or not is what Philox says of (column, row, query head, sequence), and weights grow by 1/(1−p). */
static void kept_weights_are_those_of_the_generator(void **state)
{
    (void)state;
    static const attn_dtype types[] = {ATTN_F32, ATTN_F64, ATTN_BF16};
    for (int n = 0; n < 6; n++) {
        fixture f = transparent(types[n % 3], 4, n < 3 ? 2 : 4, n < 3 ? 3 : 70);
        f.o.dropout = 0.35;
        f.o.dropout_seed = 0x123456789abcdefULL;
        fixture_run(&f);
        for (int64_t at = 0; at < 2 * 4 * f.size.len_q * LEN_K; at++) {
            int64_t j = at % LEN_K, i = at / LEN_K % f.size.len_q;
            int64_t h = at / LEN_K / f.size.len_q % 4, b = at / LEN_K / f.size.len_q / 4;
            double keep = oracle_keep(&f.o, b, h, i, j);
            double weight = view_get(&f.weights.view, b, h, i, j);
            assert_true(kept(&f, b, h, i, j) == (keep != 0));
            assert_true(fabs(view_get(&f.out.view, b, h, i, j) - keep * weight) <
                        0x1p-7 * keep * weight + 1e-30);
        }
        fixture_free(&f);
    }
}

static uint64_t kept_hash(const fixture *f)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int64_t at = 0; at < 2 * f->size.heads_q * f->size.len_q * LEN_K; at++) {
        int64_t row = at / LEN_K;
        bool k = kept(f, row / f->size.len_q / f->size.heads_q,
                      row / f->size.len_q % f->size.heads_q, row % f->size.len_q, at % LEN_K);
        hash = (hash ^ k) * 0x100000001b3u;
    }
    return hash;
}

/* Neither levels, threads, types nor groups (which tile rows differently) change the mask. */
static void levels_threads_and_tilings_do_not_change_the_mask(void **state)
{
    (void)state;
    static const attn_isa levels[] = {ATTN_ISA_C, ATTN_ISA_AVX2, ATTN_ISA_AVX512, ATTN_ISA_AUTO};
    uint64_t first = 0;
    for (int n = 0; n < 4 * 3 * 3; n++) {
        fixture f = transparent(n % 3 == 2 ? ATTN_F64 : ATTN_F32, 4, 1 << n / 3 % 3, 70);
        attn_context_options options = attn_context_options_init();
        options.threads = 1 + n % 4;
        options.isa = levels[n / 9];
        if (options.isa != ATTN_ISA_AUTO && options.isa > attn_isa_detected()) {
            fixture_free(&f);
            continue;
        }
        attn_context_destroy(f.context);
        assert_int_equal(attn_context_create(&options, &f.context), ATTN_OK);
        f.o.dropout = 0.5;
        f.o.dropout_seed = 99;
        fixture_run(&f);
        uint64_t hash = kept_hash(&f);
        assert_true(n == 0 || hash == first);
        first = hash;
        fixture_free(&f);
    }
}

/* Windows start tiles at any column: a slot's fate is the same. */
static void where_a_tile_starts_does_not_matter(void **state)
{
    (void)state;
    fixture all = transparent(ATTN_F32, 2, 1, 70);
    all.o.dropout = 0.5;
    fixture_run(&all);
    for (int64_t left = 0; left < 20; left += 3) {
        fixture f = transparent(ATTN_F32, 2, 1, 70);
        f.o.dropout = 0.5;
        f.o.has_window = true;
        f.o.window_left = left;
        f.o.window_right = 3;
        fixture_run(&f);
        for (int64_t i = 0; i < 70; i++) {
            for (int64_t j = i > left ? i - left : 0; j <= i + 3; j++) {
                assert_true(kept(&f, 1, 1, i, j) == kept(&all, 1, 1, i, j));
            }
        }
        fixture_free(&f);
    }
    fixture_free(&all);
}

static void lse_and_weights_are_without_dropout(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        f.o.dropout = 0;
        fixture_run(&f);
        uint64_t lse = array_hash(&f.lse), weights = array_hash(&f.weights);
        f.o.dropout = 0.4;
        fixture_run(&f);
        assert_true(array_hash(&f.lse) == lse);
        assert_true(array_hash(&f.weights) == weights);
        fixture_check(&f);
    }
}

static void the_share_of_kept_weights_is_one_minus_p(void **state)
{
    (void)state;
    for (int n = 1; n < 10; n++) {
        fixture f = transparent(ATTN_F32, 2, 1, 300);
        double p = 0.1 * n, count = 2 * 2 * 300 * LEN_K, kept_count = 0;
        f.o.dropout = p;
        f.o.dropout_seed = (uint64_t)n;
        fixture_run(&f);
        for (int64_t at = 0; at < 2 * 2 * 300 * LEN_K; at++) {
            int64_t row = at / LEN_K;
            kept_count += kept(&f, row / 600, row / 300 % 2, row % 300, at % LEN_K);
        }
        assert_true(fabs(kept_count - (1 - p) * count) < 5 * sqrt(p * (1 - p) * count));
        fixture_free(&f);
    }
}

static void explain_tells_of_dropout(void **state)
{
    (void)state;
    char text[2048];
    fixture f = transparent(ATTN_F32, 2, 1, 1);
    attn_kv_view kv = oracle_kv(&f.k.view, &f.v.view);
    f.o.dropout = 0.25;
    assert_int_equal(
        attn_sdpa_explain(f.context, &f.o, &f.q.view, &kv, &f.out.view, text, sizeof text),
        ATTN_OK);
    assert_non_null(strstr(text, "the decode path has no dropout"));
    assert_non_null(strstr(text, "Dropout: 0.25 of the weights"));
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_weights_are_those_of_the_generator),
        cmocka_unit_test(levels_threads_and_tilings_do_not_change_the_mask),
        cmocka_unit_test(where_a_tile_starts_does_not_matter),
        cmocka_unit_test(lse_and_weights_are_without_dropout),
        cmocka_unit_test(the_share_of_kept_weights_is_one_minus_p),
        cmocka_unit_test(explain_tells_of_dropout),
    };
    return cmocka_run_group_tests_name("sdpa dropout", tests, NULL, NULL);
}
