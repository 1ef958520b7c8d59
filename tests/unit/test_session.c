/*
 * test_session.c: evaluation through caches: the same logits however a text is cut into calls,
 * blocks and threads; windows; truncation; capacity.
 *
 * repro: test_session tests/golden/tiny.gguf
 */
#include "expect.h"
#include "tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 300, CONTEXT = 512, LENGTH = 150 };

static float *floats(int64_t count)
{
    float *data = malloc((size_t)count * sizeof *data);
    assert_non_null(data);
    for (int64_t i = 0; i < count; i++) {
        data[i] = NAN;
    }
    return data;
}

/* Logits of every token, evaluated `step` tokens a call. */
static float *evaluate(attn_session *session, const int32_t *ids, int64_t count, int64_t step)
{
    float *logits = floats(count * VOCAB);
    for (int64_t i = 0; i < count; i += step) {
        int64_t n = count - i < step ? count - i : step;
        expect_ok(attn_session_eval(session, ids + i, n, true, logits + i * VOCAB));
    }
    return logits;
}

static double largest_difference(const float *a, const float *b, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        largest = d > largest || isnan(d) ? d : largest;
    }
    return largest;
}

/*
 * Logits are of the order of 10; another order of sums moves them by a few 2^-24 a layer. 2e-4 is
 * far above that and far below what a wrong key, position or mask does (> 0.1).
 */
static const double reorder = 2e-4;

static void compare_cuts(attn_activations activations, attn_dtype kv, int64_t window,
                         int64_t prefill, double bound)
{
    static const int64_t steps[] = {1, 2, 7, 64};
    int32_t ids[LENGTH];
    tiny t = tiny_open(2, activations);
    tiny_ids(5, ids, LENGTH);
    attn_session *whole = tiny_session(&t, CONTEXT, window, 0, kv);
    float *wanted = evaluate(whole, ids, LENGTH, LENGTH);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        attn_session *session = tiny_session(&t, window ? 0 : CONTEXT, window, prefill, kv);
        float *got = evaluate(session, ids, LENGTH, steps[i]);
        double d = largest_difference(got, wanted, LENGTH * VOCAB);
        if (!(d <= bound)) {
            fprintf(stderr, "kv %s, window %lld, %lld tokens a call: off by %g, bound %g\n",
                    attn_dtype_name(kv), (long long)window, (long long)steps[i], d, bound);
        }
        assert_true(d <= bound);
        assert_int_equal(attn_session_position(session), LENGTH);
        free(got);
        attn_session_destroy(session);
    }
    free(wanted);
    attn_session_destroy(whole);
    tiny_close(&t);
}

static void cached_equals_uncached(void **state)
{
    (void)state;
    compare_cuts(ATTN_ACTIVATIONS_F32, ATTN_F32, 0, 0, reorder);
}

/* Both ways attend to keys and values as stored: the type of storage makes no difference between
 * them beyond a rounding that falls the other way. */
static void cached_equals_uncached_in_16_bits(void **state)
{
    (void)state;
    compare_cuts(ATTN_ACTIVATIONS_F32, ATTN_F16, 0, 0, 0.05);
    compare_cuts(ATTN_ACTIVATIONS_F32, ATTN_BF16, 0, 0, 0.4);
}

static void blocks_make_no_difference(void **state)
{
    (void)state;
    compare_cuts(ATTN_ACTIVATIONS_F32, ATTN_F32, 0, 13, reorder);
}

/* The reference has a context so short that its cache is contiguous; the others have rings. */
static void rings_equal_masks(void **state)
{
    (void)state;
    compare_cuts(ATTN_ACTIVATIONS_F32, ATTN_F32, 1, 4, reorder);
    compare_cuts(ATTN_ACTIVATIONS_F32, ATTN_F32, 10, 1, reorder);
    compare_cuts(ATTN_ACTIVATIONS_F32, ATTN_F32, 33, 16, reorder);
}

static void window_counts_self(void **state)
{
    (void)state;
    int32_t ids[40], other[40];
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    tiny_ids(6, ids, 40);
    memcpy(other, ids, sizeof ids);
    other[29] = ids[29] == 50 ? 51 : 50;
    /* Two layers of window 3 see 5 tokens: 29 reaches 33 and not 34. */
    attn_session *a = tiny_session(&t, 0, 3, 8, ATTN_F32);
    attn_session *b = tiny_session(&t, 0, 3, 8, ATTN_F32);
    float *x = evaluate(a, ids, 40, 40), *y = evaluate(b, other, 40, 40);
    for (int i = 0; i < 40; i++) {
        double d = largest_difference(x + i * VOCAB, y + i * VOCAB, VOCAB);
        if (i < 29 || i > 33) {
            assert_true(d <= reorder);
        } else {
            assert_true(d > 10 * reorder);
        }
    }
    free(x);
    free(y);
    attn_session_destroy(a);
    attn_session_destroy(b);
    tiny_close(&t);
}

static void window_is_endless(void **state)
{
    (void)state;
    int32_t ids[2 * CONTEXT];
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    attn_session *session = tiny_session(&t, 0, 16, 32, ATTN_F16);
    tiny_ids(7, ids, 2 * CONTEXT);
    size_t bytes = attn_session_kv_bytes(session);
    assert_int_equal(attn_session_capacity(session), 0);
    float logits[VOCAB];
    expect_ok(attn_session_eval(session, ids, 2 * CONTEXT, false, logits));
    assert_int_equal(attn_session_position(session), 2 * CONTEXT);
    assert_int_equal(attn_session_kv_bytes(session), bytes);
    assert_int_equal(bytes, 2 * 2 * (16 + 31) * 32 * 2);
    attn_session_destroy(session);
    tiny_close(&t);
}

static void last_logits_are_those_of_all(void **state)
{
    (void)state;
    int32_t ids[70];
    float last[VOCAB];
    tiny t = tiny_open(2, ATTN_ACTIVATIONS_F32);
    tiny_ids(8, ids, 70);
    attn_session *a = tiny_session(&t, 100, 0, 32, ATTN_F32);
    attn_session *b = tiny_session(&t, 100, 0, 32, ATTN_F32);
    float *all = evaluate(a, ids, 70, 70);
    expect_ok(attn_session_eval(b, ids, 60, false, NULL)); /* logits nobody wants */
    expect_ok(attn_session_eval(b, ids + 60, 10, false, last));
    assert_true(largest_difference(last, all + 69 * VOCAB, VOCAB) <= reorder);
    free(all);
    attn_session_destroy(a);
    attn_session_destroy(b);
    tiny_close(&t);
}

static void threads_do_not_change_bits(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    static const attn_activations kinds[] = {ATTN_ACTIVATIONS_AUTO, ATTN_ACTIVATIONS_F32};
    int32_t ids[LENGTH];
    tiny_ids(9, ids, LENGTH);
    for (int kind = 0; kind < 2; kind++) {
        float *wanted = NULL;
        for (int i = 0; i < 4; i++) {
            tiny t = tiny_open(threads[i], kinds[kind]);
            attn_session *session = tiny_session(&t, 0, 0, 50, ATTN_DTYPE_NONE);
            float *got = floats(LENGTH * VOCAB);
            expect_ok(attn_session_eval(session, ids, 140, true, got));
            for (int j = 140; j < LENGTH; j++) {
                expect_ok(attn_session_eval(session, ids + j, 1, true, got + j * VOCAB));
            }
            if (wanted) {
                assert_memory_equal(got, wanted, LENGTH * VOCAB * sizeof *got);
                free(got);
            } else {
                wanted = got;
            }
            attn_session_destroy(session);
            tiny_close(&t);
        }
        free(wanted);
    }
}

static void truncation_forgets(void **state)
{
    (void)state;
    int32_t ids[60];
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    tiny_ids(10, ids, 60);
    attn_session *a = tiny_session(&t, 100, 0, 0, ATTN_F16);
    attn_session *b = tiny_session(&t, 100, 0, 0, ATTN_F16);
    float x[VOCAB], y[VOCAB];
    expect_ok(attn_session_eval(a, ids, 60, false, NULL));
    expect_ok(attn_session_truncate(a, 20));
    assert_int_equal(attn_session_position(a), 20);
    expect_ok(attn_session_eval(a, ids + 40, 5, false, x));
    expect_ok(attn_session_eval(b, ids, 60, false, NULL));
    expect_ok(attn_session_truncate(b, 0));
    expect_ok(attn_session_eval(b, ids, 20, false, NULL));
    expect_ok(attn_session_eval(b, ids + 40, 5, false, y));
    assert_true(largest_difference(x, y, VOCAB) <=
                0.5); /* 60 rows at once or 20: 8-bit kernels may differ */
    expect_error(attn_session_truncate(a, 26), ATTN_ERR_ARGUMENT, "26");
    expect_error(attn_session_truncate(a, -1), ATTN_ERR_ARGUMENT, "-1");
    attn_session_destroy(a);
    attn_session_destroy(b);
    tiny_close(&t);
}

static void ring_truncation_refuses_what_is_gone(void **state)
{
    (void)state;
    int32_t ids[100];
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    tiny_ids(11, ids, 100);
    attn_session *session = tiny_session(&t, 0, 8, 16, ATTN_F32);
    expect_ok(attn_session_eval(session, ids, 100, false, NULL));
    assert_int_equal(attn_session_truncate(session, 10), ATTN_ERR_CAPACITY);
    assert_int_equal(attn_session_position(session), 100);
    expect_ok(attn_session_truncate(session, 95));
    assert_int_equal(attn_session_position(session), 95);
    expect_ok(attn_session_truncate(session, 0));
    assert_int_equal(attn_session_position(session), 0);
    attn_session_destroy(session);
    tiny_close(&t);
}

static void capacity_names_both_numbers(void **state)
{
    (void)state;
    int32_t ids[30];
    float x[VOCAB], y[VOCAB];
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    tiny_ids(12, ids, 30);
    attn_session *session = tiny_session(&t, 20, 0, 0, ATTN_F16);
    assert_int_equal(attn_session_capacity(session), 20);
    expect_error(attn_session_eval(session, ids, 21, false, x), ATTN_ERR_CAPACITY, "21");
    assert_non_null(strstr(attn_last_error(), "20"));
    assert_int_equal(attn_session_position(session), 0);
    expect_ok(attn_session_eval(session, ids, 20, false, x));
    assert_int_equal(attn_session_eval(session, ids, 1, false, y), ATTN_ERR_CAPACITY);
    assert_int_equal(attn_session_position(session), 20);
    expect_ok(attn_session_eval(session, ids, 0, false, NULL));
    attn_session_destroy(session);
    tiny_close(&t);
}

static void bad_arguments_are_named(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    attn_session *session = tiny_session(&t, 20, 0, 0, ATTN_F16), *none = session;
    int32_t ids[2] = {3, VOCAB};
    float logits[VOCAB];
    expect_error(attn_session_eval(session, ids, 2, false, logits), ATTN_ERR_ARGUMENT, "300");
    ids[1] = -1;
    expect_error(attn_session_eval(session, ids, 2, false, logits), ATTN_ERR_ARGUMENT, "-1");
    expect_error(attn_session_eval(session, NULL, 2, false, logits), ATTN_ERR_ARGUMENT, "tokens");
    expect_error(attn_session_eval(session, ids, 0, false, logits), ATTN_ERR_ARGUMENT, "count");
    expect_error(attn_session_eval(NULL, ids, 1, false, logits), ATTN_ERR_ARGUMENT, "session");
    assert_int_equal(attn_session_position(session), 0);

    attn_session_options options = attn_session_options_init();
    options.context = CONTEXT + 1;
    expect_error(attn_session_create(t.context, t.model, &options, &none), ATTN_ERR_ARGUMENT,
                 "512");
    assert_null(none);
    options = attn_session_options_init();
    options.kv = ATTN_F64;
    expect_error(attn_session_create(t.context, t.model, &options, &none), ATTN_ERR_DTYPE, "f64");
    options = attn_session_options_init();
    options.window = -1;
    expect_error(attn_session_create(t.context, t.model, &options, &none), ATTN_ERR_ARGUMENT,
                 "window");
    attn_session_destroy(session);
    attn_session_destroy(NULL);
    attn_model_destroy(NULL);
    tiny_close(&t);
}

/* The real model, where it has been fetched: one call of 200 tokens, and 200 calls of one. */
static void smollm2_cached_equals_uncached(void **state)
{
    (void)state;
    enum { TOKENS = 200 };
    char path[4096];
    const char *cache = getenv("ATTN_CACHE"), *home = getenv("HOME");
    bool own = cache && cache[0];
    snprintf(path, sizeof path, "%s%s/SmolLM2-135M-Instruct.Q4_1.gguf",
             own    ? cache
             : home ? home
                    : "",
             own ? "" : "/.cache/attn");
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "needs the model: attn fetch smollm2-135m-instruct\n");
        skip();
        return;
    }
    fclose(file);
    const char *tiny_was = tiny_path;
    tiny_path = path;
    tiny t = tiny_open(0, ATTN_ACTIVATIONS_F32);
    tiny_path = tiny_was;
    int64_t vocab = attn_model_get_config(t.model)->vocab;
    int32_t ids[TOKENS];
    uint64_t random = 9;
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = (int32_t)tiny_random(&random, (uint64_t)vocab);
    }
    attn_session *a = tiny_session(&t, TOKENS, 0, 0, ATTN_F32);
    attn_session *b = tiny_session(&t, TOKENS, 0, 0, ATTN_F32);
    float *whole = floats(TOKENS * vocab), *one = floats(vocab);
    double worst = 0;
    expect_ok(attn_session_eval(a, ids, TOKENS, true, whole));
    for (int i = 0; i < TOKENS; i++) {
        expect_ok(attn_session_eval(b, ids + i, 1, false, one));
        double d = largest_difference(one, whole + i * vocab, vocab);
        worst = d > worst || isnan(d) ? d : worst;
    }
    /*
     * Logits reach 30; 30 layers of sums in another order, through activations of up to several
     * thousand. A key or position that is wrong moves them by more than 1.
     */
    fprintf(stderr, "SmolLM2: cached and uncached logits differ by at most %.2g\n", worst);
    assert_true(worst <= 2e-3); /* 1.3e-4 where this was written */
    free(whole);
    free(one);
    attn_session_destroy(a);
    attn_session_destroy(b);
    tiny_close(&t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cached_equals_uncached),
        cmocka_unit_test(cached_equals_uncached_in_16_bits),
        cmocka_unit_test(blocks_make_no_difference),
        cmocka_unit_test(rings_equal_masks),
        cmocka_unit_test(window_counts_self),
        cmocka_unit_test(window_is_endless),
        cmocka_unit_test(last_logits_are_those_of_all),
        cmocka_unit_test(threads_do_not_change_bits),
        cmocka_unit_test(truncation_forgets),
        cmocka_unit_test(ring_truncation_refuses_what_is_gone),
        cmocka_unit_test(capacity_names_both_numbers),
        cmocka_unit_test(bad_arguments_are_named),
        cmocka_unit_test(smollm2_cached_equals_uncached),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: %s tests/golden/tiny.gguf\n", argv[0]);
        return 2;
    }
    tiny_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
