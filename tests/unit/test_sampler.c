/*
 * test_sampler.c: what each option keeps, how often each token is drawn, and determinism.
 *
 * repro: test_sampler [seed] (printed on failure)
 */
#include "expect.h"

#include <attn/sampler.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DRAWS = 20000 };

static uint64_t seed = 20240617;

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static attn_sampler *create(const attn_sampler_options *options, int64_t vocab)
{
    attn_sampler *s;
    assert_int_equal(attn_sampler_create(options, vocab, &s), ATTN_OK);
    return s;
}

static int32_t sample(attn_sampler *s, const float *logits)
{
    int32_t id = -1;
    assert_int_equal(attn_sampler_sample(s, logits, &id), ATTN_OK);
    return id;
}

/* Draws many times and compares frequencies with `wanted` (which need not sum to 1): 5 standard
 * deviations. */
static void expect_frequencies(attn_sampler_options options, const float *logits,
                               const double *wanted, int vocab)
{
    int64_t counts[16] = {0};
    double total = 0;
    options.repeat_window = 0;
    options.seed = seed;
    attn_sampler *s = create(&options, vocab);
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = sample(s, logits);
        assert_true(id >= 0 && id < vocab);
        counts[id]++;
    }
    attn_sampler_destroy(s);
    for (int i = 0; i < vocab; i++) {
        total += wanted[i];
    }
    for (int i = 0; i < vocab; i++) {
        double p = wanted[i] / total, sigma = sqrt(p * (1 - p) * DRAWS);
        bool near = fabs((double)counts[i] - p * DRAWS) <= 5 * sigma;
        if (!near) {
            fprintf(stderr,
                    "token %d: drawn %lld of %d, wanted %.1f ± %.1f; repro: test_sampler %llu\n", i,
                    (long long)counts[i], DRAWS, p * DRAWS, sigma, (unsigned long long)seed);
        }
        assert_true(near); /* p = 0 means never */
    }
}

/* Probabilities 0.4 0.3 0.2 0.1, out of order. */
static const double p4[] = {0.1, 0.4, 0.2, 0.3};

static void logits_of(const double *p, int count, float *logits)
{
    for (int i = 0; i < count; i++) {
        logits[i] = (float)log(p[i]) + 3.0f;
    }
}

static void test_greedy_takes_the_largest(void **state)
{
    (void)state;
    const float logits[] = {-1, 4, 2, 4, -INFINITY};
    attn_sampler *s = create(NULL, 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(sample(s, logits), 1); /* the smaller id of equals */
    }
    attn_sampler_destroy(s);
    attn_sampler_destroy(NULL);
}

static void test_temperature(void **state)
{
    (void)state;
    float logits[4];
    double squared[4];
    logits_of(p4, 4, logits);
    attn_sampler_options o = attn_sampler_options_init();
    o.temperature = 1;
    expect_frequencies(o, logits, p4, 4);
    o.temperature = 0.5;
    for (int i = 0; i < 4; i++) {
        squared[i] = p4[i] * p4[i];
    }
    expect_frequencies(o, logits, squared, 4);
    o.temperature = 1e-300; /* as good as greedy, and no overflow */
    const double only[] = {0, 1, 0, 0};
    expect_frequencies(o, logits, only, 4);
    const float far[] = {0, 3e38f, -3e38f, -INFINITY};
    o.temperature = 1;
    expect_frequencies(o, far, only, 4);
}

static void test_top_k(void **state)
{
    (void)state;
    float logits[4];
    logits_of(p4, 4, logits);
    attn_sampler_options o = attn_sampler_options_init();
    o.temperature = 1;
    o.top_k = 2;
    const double two[] = {0, 0.4, 0, 0.3};
    expect_frequencies(o, logits, two, 4);
    o.top_k = 1;
    const double one[] = {0, 1, 0, 0};
    expect_frequencies(o, logits, one, 4);
    o.top_k = 100;
    expect_frequencies(o, logits, p4, 4);
    const float equal[] = {1, 1, 1, 1};
    const double first[] = {1, 1, 0, 0}; /* of equals, the smaller ids */
    o.top_k = 2;
    expect_frequencies(o, equal, first, 4);
}

static void test_top_p(void **state)
{
    (void)state;
    float logits[4];
    logits_of(p4, 4, logits);
    attn_sampler_options o = attn_sampler_options_init();
    o.temperature = 1;
    const double one[] = {0, 1, 0, 0}, two[] = {0, 0.4, 0, 0.3}, three[] = {0, 0.4, 0.2, 0.3};
    o.top_p = 0.39;
    expect_frequencies(o, logits, one, 4);
    o.top_p = 0;
    expect_frequencies(o, logits, one, 4);
    o.top_p = 0.41;
    expect_frequencies(o, logits, two, 4);
    o.top_p = 0.71;
    expect_frequencies(o, logits, three, 4);
    o.top_p = 0.91;
    expect_frequencies(o, logits, p4, 4);
    /* After top-k its p is of what top-k left: 0.4/0.7 = 0.571 alone reaches 0.55. */
    o.top_k = 2;
    o.top_p = 0.55;
    expect_frequencies(o, logits, one, 4);
    o.top_p = 0.6;
    expect_frequencies(o, logits, two, 4);
}

static void test_min_p(void **state)
{
    (void)state;
    float logits[4];
    logits_of(p4, 4, logits);
    attn_sampler_options o = attn_sampler_options_init();
    o.temperature = 1;
    o.min_p = 0.3; /* at least 0.12 */
    const double three[] = {0, 0.4, 0.2, 0.3};
    expect_frequencies(o, logits, three, 4);
    o.min_p = 0.6;
    const double two[] = {0, 0.4, 0, 0.3};
    expect_frequencies(o, logits, two, 4);
    o.min_p = 1;
    const double one[] = {0, 1, 0, 0};
    expect_frequencies(o, logits, one, 4);
}

static void test_repeat_penalty(void **state)
{
    (void)state;
    const float logits[] = {2.0f, 1.9f, 1.8f, -1.0f};
    attn_sampler_options o = attn_sampler_options_init();
    o.repeat_penalty = 1.2;
    o.repeat_window = 2;
    attn_sampler *s = create(&o, 4);
    assert_int_equal(sample(s, logits), 0);
    assert_int_equal(sample(s, logits), 1); /* 2/1.2 < 1.9 */
    assert_int_equal(sample(s, logits), 2); /* both are in the window */
    assert_int_equal(sample(s, logits), 0); /* the first has left it */
    attn_sampler_accept(s, 1);
    attn_sampler_accept(s, 1);
    attn_sampler_accept(s, -1); /* no token: ignored */
    attn_sampler_accept(s, 4);
    assert_int_equal(sample(s, logits), 0);
    attn_sampler_destroy(s);
    /* Negative logits are multiplied, and a token counts once however often it was there. */
    const float negative[] = {-1.0f, -1.1f, -1.25f};
    o.repeat_window = 64;
    s = create(&o, 3);
    attn_sampler_accept(s, 0);
    attn_sampler_accept(s, 0);
    attn_sampler_accept(s, 1);
    assert_int_equal(sample(s, negative), 0); /* -1.2 > -1.25 > -1.32 */
    attn_sampler_destroy(s);
    s = create(&o, 3);
    attn_sampler_accept(s, 0);
    assert_int_equal(sample(s, negative), 1); /* -1.1 > -1.2 */
    attn_sampler_destroy(s);
}

static void test_same_seed_same_tokens(void **state)
{
    (void)state;
    enum { VOCAB = 1000, LENGTH = 50 };
    float logits[VOCAB];
    uint64_t random = seed;
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)(next(&random) % 1000) / 200.0f;
    }
    attn_sampler_options o = attn_sampler_options_init();
    o.temperature = 0.9;
    o.top_p = 0.9;
    o.repeat_penalty = 1.1;
    int32_t runs[3][LENGTH];
    for (int run = 0; run < 3; run++) {
        o.seed = run < 2 ? 5 : 6;
        attn_sampler *s = create(&o, VOCAB);
        for (int i = 0; i < LENGTH; i++) {
            runs[run][i] = sample(s, logits);
        }
        attn_sampler_destroy(s);
    }
    assert_memory_equal(runs[0], runs[1], sizeof runs[0]);
    assert_memory_not_equal(runs[0], runs[2], sizeof runs[0]);
}

static int by_logprob(const void *a, const void *b)
{
    const attn_token_logprob *x = a, *y = b;
    if (x->logprob != y->logprob) {
        return x->logprob > y->logprob ? -1 : 1;
    }
    return (x->id > y->id) - (x->id < y->id);
}

static void test_logprobs(void **state)
{
    (void)state;
    enum { VOCAB = 257 };
    for (uint64_t round = 0; round < 200; round++) {
        uint64_t random = seed + round;
        float logits[VOCAB];
        attn_token_logprob all[VOCAB], best[VOCAB];
        int64_t vocab = 1 + next(&random) % VOCAB, k = 1 + next(&random) % (uint32_t)vocab;
        double sum = 0;
        for (int64_t i = 0; i < vocab; i++) {
            logits[i] = i > 0 && next(&random) % 9 == 0 ? -INFINITY /* quarters: many are equal */
                                                        : (float)(next(&random) % 160) / 4 - 20;
            sum += exp((double)logits[i]);
        }
        for (int64_t i = 0; i < vocab; i++) {
            all[i].id = (int32_t)i;
            all[i].logprob = (float)(logits[i] - log(sum));
        }
        qsort(all, (size_t)vocab, sizeof *all, by_logprob);
        assert_int_equal(attn_logprobs_top(logits, vocab, k, best), ATTN_OK);
        for (int64_t i = 0; i < k; i++) {
            bool same =
                best[i].id == all[i].id && (best[i].logprob == all[i].logprob ||
                                            fabsf(best[i].logprob - all[i].logprob) < 1e-5f);
            if (!same) {
                fprintf(stderr, "place %lld: %d %g, wanted %d %g; repro: test_sampler %llu\n",
                        (long long)i, best[i].id, best[i].logprob, all[i].id, all[i].logprob,
                        (unsigned long long)(seed + round));
            }
            assert_true(same);
        }
    }
    /* Far from 0, where e^x overflows. */
    const float far[] = {1e38f, 1e38f, -1e38f};
    attn_token_logprob best[3];
    assert_int_equal(attn_logprobs_top(far, 3, 2, best), ATTN_OK);
    assert_true(best[0].id == 0 && best[1].id == 1);
}

static void test_bad_logits(void **state)
{
    (void)state;
    attn_sampler_options o = attn_sampler_options_init();
    for (int sampling = 0; sampling < 2; sampling++) {
        o.temperature = sampling;
        attn_sampler *s = create(&o, 3);
        int32_t id;
        const float nan[] = {0, 1, NAN}, inf[] = {INFINITY, 0, 0};
        const float nothing[] = {-INFINITY, -INFINITY, -INFINITY};
        assert_int_equal(attn_sampler_sample(s, nan, &id), ATTN_ERR_ARGUMENT);
        assert_true(error_has("logits[2] is NaN"));
        assert_int_equal(attn_sampler_sample(s, inf, &id), ATTN_ERR_ARGUMENT);
        assert_true(error_has("logits[0] is +inf"));
        assert_int_equal(attn_sampler_sample(s, nothing, &id), ATTN_ERR_ARGUMENT);
        assert_true(error_has("all -inf"));
        assert_int_equal(attn_sampler_sample(s, NULL, &id), ATTN_ERR_ARGUMENT);
        attn_sampler_destroy(s);
        attn_token_logprob best[3];
        assert_int_equal(attn_logprobs_top(nan, 3, 1, best), ATTN_ERR_ARGUMENT);
        assert_true(error_has("logits[2] is NaN"));
        assert_int_equal(attn_logprobs_top(nothing, 3, 1, best), ATTN_ERR_ARGUMENT);
        assert_int_equal(attn_logprobs_top(inf, 3, 4, best), ATTN_ERR_ARGUMENT);
        assert_true(error_has("k: 4"));
        assert_int_equal(attn_logprobs_top(inf, 3, 0, best), ATTN_ERR_ARGUMENT);
    }
}

static void test_bad_options(void **state)
{
    (void)state;
    static const struct {
        double temperature, top_p, min_p, repeat_penalty;
        int64_t top_k, repeat_window;
        const char *part;
    } cases[] = {
        {-1, 1, 0, 1, 0, 64, "temperature: -1"},
        {NAN, 1, 0, 1, 0, 64, "temperature: "},
        {INFINITY, 1, 0, 1, 0, 64, "temperature: inf"},
        {1, 1.5, 0, 1, 0, 64, "top_p: 1.5"},
        {1, NAN, 0, 1, 0, 64, "top_p: "},
        {1, 1, -0.1, 1, 0, 64, "min_p: -0.1"},
        {1, 1, 0, 0, 0, 64, "repeat_penalty: 0"},
        {1, 1, 0, 1, -1, 64, "top_k: -1"},
        {1, 1, 0, 1, 0, -1, "repeat_window: -1"},
        {1, 1, 0, 1, 0, (int64_t)1 << 60, "repeat_window: "},
    };
    attn_sampler *s;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_sampler_options o = attn_sampler_options_init();
        o.temperature = cases[i].temperature;
        o.top_p = cases[i].top_p;
        o.min_p = cases[i].min_p;
        o.repeat_penalty = cases[i].repeat_penalty;
        o.top_k = cases[i].top_k;
        o.repeat_window = cases[i].repeat_window;
        s = (attn_sampler *)8;
        assert_int_equal(attn_sampler_create(&o, 4, &s), ATTN_ERR_ARGUMENT);
        assert_null(s);
        assert_true(error_has(cases[i].part));
    }
    attn_sampler_options o = attn_sampler_options_init();
    o.struct_size = 7;
    assert_int_equal(attn_sampler_create(&o, 4, &s), ATTN_ERR_ARGUMENT);
    assert_true(error_has("attn_sampler_options_init()"));
    o.struct_size = 0;
    assert_int_equal(attn_sampler_create(&o, 4, &s), ATTN_ERR_ARGUMENT);
    o = attn_sampler_options_init();
    assert_int_equal(attn_sampler_create(&o, 0, &s), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_sampler_create(&o, 4, NULL), ATTN_ERR_ARGUMENT);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 0);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_takes_the_largest),
        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_min_p),
        cmocka_unit_test(test_repeat_penalty),
        cmocka_unit_test(test_same_seed_same_tokens),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_bad_logits),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
