#define _GNU_SOURCE
/*
 * test_generate.c: the loop: why it ends, what it streams, what it keeps. The tiny random model at
 * a high temperature writes mostly broken UTF-8: good for seeing whether text is cut right.
 *
 * repro: test_generate tests/golden/tiny.gguf [seed] (printed on failure)
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

enum { VOCAB = 300, MOST = 120 };

static uint64_t seed = 1;

/* Collects what is streamed; refuses after `left` pieces, cancels after `asks` questions. */
typedef struct reader {
    char text[8192];
    size_t size;
    int left, asks;
} reader;

static bool valid_utf8(const char *text, size_t size)
{
    const unsigned char *t = (const unsigned char *)text;
    for (size_t i = 0; i < size;) {
        size_t n = t[i] < 0x80   ? 1
                   : t[i] < 0xc2 ? 0
                   : t[i] < 0xe0 ? 2
                   : t[i] < 0xf0 ? 3
                   : t[i] < 0xf5 ? 4
                                 : 0;
        if (n == 0 || n > size - i) {
            return false;
        }
        uint32_t code = n == 1 ? t[i] : t[i] & (0x7fu >> n);
        for (size_t k = 1; k < n; k++) {
            if ((t[i + k] & 0xc0) != 0x80) {
                return false;
            }
            code = code << 6 | (t[i + k] & 0x3fu);
        }
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
            return false;
        }
        i += n;
    }
    return true;
}

static bool on_text(void *user, const char *text, size_t size)
{
    reader *r = user;
    assert_true(size > 0 && r->size + size < sizeof r->text);
    assert_true(valid_utf8(text, size));
    memcpy(r->text + r->size, text, size);
    r->size += size;
    r->text[r->size] = '\0';
    return r->left-- > 0;
}

static bool cancel(void *user)
{
    reader *r = user;
    return r->asks-- <= 0;
}

/* Greedy where temperature is 0. */
static attn_generation generate(const tiny *t, int64_t context, double temperature,
                                attn_generate_options options, reader *r)
{
    static const char prompt[] = "Hello, world!";
    int32_t ids[32];
    size_t count;
    expect_ok(attn_tokenizer_encode(t->tokenizer, prompt, strlen(prompt), true, ids, 32, &count));
    attn_session *session = tiny_session(t, context, 0, 0, ATTN_DTYPE_NONE);
    attn_sampler_options sampling = attn_sampler_options_init();
    sampling.temperature = temperature;
    sampling.seed = seed;
    attn_sampler *sampler;
    expect_ok(attn_sampler_create(&sampling, VOCAB, &sampler));
    options.on_text = on_text;
    options.cancel = cancel;
    options.user = r;
    attn_generation g;
    expect_ok(attn_generate(session, t->tokenizer, sampler, &options, ids, (int64_t)count, &g));
    assert_int_equal(g.prompt_tokens, count);
    assert_true(valid_utf8(g.text, g.text_size));
    if (g.reason != ATTN_STOP_INTERRUPTED) { /* what was streamed is the text */
        assert_int_equal(r->size, g.text_size);
        assert_memory_equal(r->text, g.text, g.text_size);
    }
    /* The last token is not evaluated, unless the prompt was not either. */
    int64_t held = attn_session_position(session);
    assert_true(held == 0 || held == g.prompt_tokens + (g.count > 0 ? g.count - 1 : 0));
    attn_sampler_destroy(sampler);
    attn_session_destroy(session);
    return g;
}

static reader patient(void)
{
    reader r;
    memset(&r, 0, sizeof r);
    r.left = r.asks = 1 << 30;
    return r;
}

/* The text that ids stand for: bytes, with U+FFFD for each maximal ill-formed part (a decoder of
 * its own, byte by byte). */
static size_t text_of(const tiny *t, const int32_t *ids, int64_t count, char *text)
{
    unsigned char bytes[4096];
    size_t size = 0, used = 0;
    for (int64_t i = 0; i < count && !attn_tokenizer_is_end(t->tokenizer, ids[i]); i++) {
        size_t n;
        const char *piece = attn_tokenizer_piece(t->tokenizer, ids[i], false, &n);
        memcpy(bytes + size, piece, n);
        size += n;
    }
    for (size_t i = 0; i < size;) {
        size_t best = 0, prefix = 1;
        for (size_t n = 1; n <= 4 && i + n <= size; n++) {
            char padded[8];
            memcpy(padded, bytes + i, n);
            if (valid_utf8(padded, n)) {
                best = n;
                break;
            }
            /* A beginning of some character? Then some two, one or no further bytes complete it. */
            for (int a = 0x80; a < 0xc0 && n < 4; a++) {
                padded[n] = (char)a;
                padded[n + 1] = padded[n + 2] = (char)0x80;
                if (valid_utf8(padded, n + 1) || (n + 2 <= 4 && valid_utf8(padded, n + 2)) ||
                    (n + 3 <= 4 && valid_utf8(padded, n + 3))) {
                    prefix = n;
                }
            }
        }
        memcpy(text + used, best ? (const char *)bytes + i : "\xef\xbf\xbd", best ? best : 3);
        used += best ? best : 3;
        i += best ? best : prefix;
    }
    text[used] = '\0';
    return used;
}

static void text_is_what_ids_say(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    uint64_t first = seed;
    int replaced = 0;
    for (; seed < first + 60; seed++) {
        char wanted[8192];
        reader r = patient();
        attn_generate_options options = attn_generate_options_init();
        options.max_tokens = MOST;
        attn_generation g = generate(&t, 256, 3, options, &r);
        size_t size = text_of(&t, g.ids, g.count, wanted);
        bool same = size == g.text_size && memcmp(wanted, g.text, size) == 0;
        if (!same) {
            fprintf(stderr, "repro: test_generate %s %llu\n", tiny_path, (unsigned long long)seed);
        }
        assert_true(same);
        replaced += strstr(wanted, "\xef\xbf\xbd") != NULL;
        bool ended = attn_tokenizer_is_end(t.tokenizer, g.ids[g.count - 1]);
        assert_int_equal(g.reason, ended ? ATTN_STOP_EOS : ATTN_STOP_LENGTH);
        assert_true(ended || g.count == MOST);
        attn_generation_free(&g);
    }
    seed = first;
    assert_true(replaced > 10); /* else this has tested nothing */
    tiny_close(&t);
}

/* A stop string taken from the text itself ends it before its first occurrence, wherever tokens and
 * characters are cut. */
static void stop_strings_end_the_text(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    uint64_t first = seed, random = seed * 77 + 1;
    int stopped = 0;
    for (; seed < first + 60; seed++) {
        reader all = patient(), r = patient();
        attn_generate_options options = attn_generate_options_init();
        options.max_tokens = 40;
        attn_generation whole = generate(&t, 256, 2.5, options, &all);
        if (whole.text_size < 8) {
            attn_generation_free(&whole);
            continue;
        }
        char stop[32] = {0}, longer[40];
        size_t size = 1 + (size_t)tiny_random(&random, 6);
        size_t at = (size_t)tiny_random(&random, whole.text_size - size);
        while (at > 0 && ((unsigned char)whole.text[at] & 0xc0) == 0x80) {
            at--; /* stop strings begin with a character; they may end inside one */
        }
        memcpy(stop, whole.text + at, size);
        size = strlen(stop); /* the text may hold NUL characters, stop strings cannot */
        if (size == 0) {
            attn_generation_free(&whole);
            continue;
        }
        snprintf(longer, sizeof longer, "%s\x01never", stop); /* holds back, then does not come */
        const char *stops[2] = {longer, stop};
        options.stop = stops;
        options.stop_count = 2;
        attn_generation g = generate(&t, 256, 2.5, options, &r);
        const char *found = memmem(whole.text, whole.text_size, stop, size);
        size_t before = (size_t)(found - whole.text);
        bool right = g.reason == ATTN_STOP_STRING && g.text_size == before &&
                     memcmp(g.text, whole.text, before) == 0 &&
                     memcmp(g.ids, whole.ids, (size_t)g.count * sizeof *g.ids) == 0;
        if (!right && before + size + 3 <
                          whole.text_size) { /* near the end an incomplete character may differ */
            fprintf(stderr, "repro: test_generate %s %llu\n", tiny_path, (unsigned long long)seed);
            assert_true(right);
        }
        stopped += right;
        attn_generation_free(&whole);
        attn_generation_free(&g);
    }
    seed = first;
    assert_true(stopped > 30);
    tiny_close(&t);
}

/* The end of the text that begins a stop string is text after all when nothing follows. */
static void held_back_text_comes_out_at_the_end(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    reader all = patient(), r = patient();
    attn_generate_options options = attn_generate_options_init();
    options.max_tokens = 12;
    attn_generation whole = generate(&t, 256, 0, options, &all);
    assert_true(whole.text_size > 2);
    char stop[64];
    snprintf(stop, sizeof stop, "%s and more", whole.text + whole.text_size - 1);
    const char *stops[] = {stop};
    options.stop = stops;
    options.stop_count = 1;
    attn_generation g = generate(&t, 256, 0, options, &r);
    assert_int_equal(g.reason, whole.reason);
    assert_int_equal(g.text_size, whole.text_size);
    assert_memory_equal(g.text, whole.text, g.text_size);
    attn_generation_free(&g);
    attn_generation_free(&whole);
    tiny_close(&t);
}

static void limits_end_it(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    attn_generate_options options = attn_generate_options_init();
    reader r = patient();
    options.max_tokens = 0;
    attn_generation g = generate(&t, 64, 0, options, &r);
    assert_int_equal(g.reason, ATTN_STOP_LENGTH);
    assert_int_equal(g.count, 0);
    assert_string_equal(g.text, "");
    int64_t prompt = g.prompt_tokens;
    attn_generation_free(&g);

    /* A full context: the token after the last one that fits is still chosen. Text that ends early
     * would not show it. */
    r = patient();
    options.max_tokens = -1;
    g = generate(&t, prompt + 5, 0, options, &r);
    assert_int_equal(g.reason, ATTN_STOP_CONTEXT);
    assert_int_equal(g.count, 6);
    attn_generation_free(&g);

    attn_session *session = tiny_session(&t, 4, 0, 0, ATTN_F16);
    attn_sampler_options sampling = attn_sampler_options_init();
    attn_sampler *sampler;
    int32_t ids[5] = {5, 6, 7, 8, 9};
    expect_ok(attn_sampler_create(&sampling, VOCAB, &sampler));
    assert_int_equal(attn_generate(session, t.tokenizer, sampler, NULL, ids, 5, &g),
                     ATTN_ERR_CAPACITY);
    assert_non_null(strstr(attn_last_error(), "5 tokens"));
    assert_non_null(strstr(attn_last_error(), "context of 4"));
    assert_int_equal(attn_generate(session, t.tokenizer, sampler, NULL, ids, 0, &g),
                     ATTN_ERR_ARGUMENT);
    const char *empty[] = {"x", ""};
    options.stop = empty;
    options.stop_count = 2;
    assert_int_equal(attn_generate(session, t.tokenizer, sampler, &options, ids, 2, &g),
                     ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_session_position(session), 0);
    attn_sampler_destroy(sampler);
    attn_session_destroy(session);
    tiny_close(&t);
}

static void interruption_keeps_what_there_is(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    reader all = patient();
    attn_generate_options options = attn_generate_options_init();
    options.max_tokens = 10;
    attn_generation whole = generate(&t, 64, 0, options, &all);
    assert_int_equal(whole.reason, ATTN_STOP_LENGTH);
    for (int asks = 0; asks < 12; asks++) {
        reader r = patient();
        r.asks = asks;
        attn_generation g = generate(&t, 64, 0, options, &r);
        assert_int_equal(g.reason, ATTN_STOP_INTERRUPTED);
        assert_true(g.count < whole.count);
        assert_true(asks >= 2 || g.count == 0); /* during prefill */
        assert_memory_equal(g.ids ? g.ids : whole.ids, whole.ids, (size_t)g.count * sizeof *g.ids);
        attn_generation_free(&g);
    }
    for (int left = 0; left < 3; left++) { /* the reader has had enough */
        reader r = patient();
        r.left = left;
        attn_generation g = generate(&t, 64, 0, options, &r);
        assert_int_equal(g.reason, ATTN_STOP_INTERRUPTED);
        attn_generation_free(&g);
    }
    attn_generation_free(&whole);
    tiny_close(&t);
}

static void logprobs_are_of_the_raw_logits(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    attn_generate_options options = attn_generate_options_init();
    options.max_tokens = 70; /* more than the lists begin with */
    options.logprobs = VOCAB;
    reader r = patient();
    attn_generation g = generate(&t, 256, 0, options, &r);
    for (int64_t i = 0; i < g.count; i++) {
        const attn_token_logprob *best = g.logprobs + i * VOCAB;
        double sum = 0;
        assert_int_equal(best[0].id, g.ids[i]); /* greedy takes the best */
        for (int k = 0; k < VOCAB; k++) {
            sum += exp((double)best[k].logprob);
            assert_true(k == 0 || best[k].logprob <= best[k - 1].logprob);
        }
        assert_true(fabs(sum - 1) < 1e-4);
    }
    attn_generation_free(&g);
    tiny_close(&t);
}

static void second_turn_continues_the_first(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    int32_t ids[30];
    tiny_ids(3, ids, 30);
    attn_sampler_options sampling = attn_sampler_options_init();
    attn_sampler *sampler;
    expect_ok(attn_sampler_create(&sampling, VOCAB, &sampler));
    attn_generate_options options = attn_generate_options_init();
    options.max_tokens = 8;
    attn_session *a = tiny_session(&t, 64, 0, 0, ATTN_F32);
    attn_session *b = tiny_session(&t, 64, 0, 0, ATTN_F32);
    attn_generation x, y;
    expect_ok(attn_generate(a, t.tokenizer, sampler, &options, ids, 30, &x));
    expect_ok(attn_session_eval(b, ids, 12, false, NULL));
    expect_ok(attn_generate(b, t.tokenizer, sampler, &options, ids + 12, 18, &y));
    assert_int_equal(x.count, y.count);
    assert_memory_equal(x.ids, y.ids, (size_t)x.count * sizeof *x.ids);
    attn_generation_free(&x);
    attn_generation_free(&y);
    attn_session_destroy(a);
    attn_session_destroy(b);
    attn_sampler_destroy(sampler);
    tiny_close(&t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_what_ids_say),
        cmocka_unit_test(stop_strings_end_the_text),
        cmocka_unit_test(held_back_text_comes_out_at_the_end),
        cmocka_unit_test(limits_end_it),
        cmocka_unit_test(interruption_keeps_what_there_is),
        cmocka_unit_test(logprobs_are_of_the_raw_logits),
        cmocka_unit_test(second_turn_continues_the_first),
    };
    if (argc < 2) {
        fprintf(stderr, "usage: %s tests/golden/tiny.gguf [seed]\n", argv[0]);
        return 2;
    }
    tiny_path = argv[1];
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : seed;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
