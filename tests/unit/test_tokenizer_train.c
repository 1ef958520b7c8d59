/*
 * test_tokenizer_train.c: tokenizers made from a text: which merges, in which order; characters; JSON there and back; and JSON that
 * is not what it must be.
 *
 * repro: test_tokenizer_train [seed] (printed on failure)
 */
#define _GNU_SOURCE
#include "expect.h"

#include <attn/lm.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 20240611;

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static attn_tokenizer *train(bool bpe, const char *text, size_t size, int64_t vocab, int64_t least)
{
    attn_tokenizer_train_options options = attn_tokenizer_train_options_init();
    attn_tokenizer *t = NULL;
    options.vocab = vocab;
    options.min_count = least;
    attn_status status = bpe ? attn_tokenizer_train_bpe(text, size, &options, &t)
                             : attn_tokenizer_train_chars(text, size, &options, &t);
    if (status != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return t;
}

static void expect_piece(const attn_tokenizer *t, int32_t id, const char *text)
{
    size_t size;
    const char *piece = attn_tokenizer_piece(t, id, true, &size);
    if (!piece || size != strlen(text) || memcmp(piece, text, size) != 0) {
        fail_msg("token %d is '%.*s', not '%s'", id, (int)size, piece, text);
    }
}

/* Text through ids and back. */
static void expect_round_trip(const attn_tokenizer *t, const char *text, size_t size)
{
    static int32_t ids[4096];
    static char back[4096];
    size_t count, used = 0;
    assert_int_equal(attn_tokenizer_encode(t, text, size, false, ids, 4096, &count), ATTN_OK);
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        const char *piece = attn_tokenizer_piece(t, ids[i], false, &bytes);
        memcpy(back + used, piece, bytes);
        used += bytes;
    }
    assert_int_equal(used, size);
    assert_memory_equal(back, text, size);
}

/* Counted by hand: (a, b) 6 times, then (space, ab) 5, then (" ab", c) twice. The bytes have ids 1 … 256. */
static void test_merges(void **state)
{
    (void)state;
    static const char text[] = "ab ab ab ab abc abc";
    attn_tokenizer *t = train(true, text, sizeof text - 1, 300, 2);
    assert_int_equal(attn_tokenizer_vocab_size(t), 1 + 256 + 3);
    expect_piece(t, 0, "<|endoftext|>");
    expect_piece(t, 1, "!");
    expect_piece(t, 257, "ab");
    expect_piece(t, 258, " ab");
    expect_piece(t, 259, " abc");
    assert_int_equal(attn_tokenizer_eos(t), 0);
    assert_true(attn_tokenizer_is_end(t, 0));
    attn_tokenizer_destroy(t);
    t = train(true, text, sizeof text - 1, 258, 2);
    assert_int_equal(attn_tokenizer_vocab_size(t), 258);
    attn_tokenizer_destroy(t);
    t = train(true, text, sizeof text - 1, 300, 3);
    assert_int_equal(attn_tokenizer_vocab_size(t), 259);
    attn_tokenizer_destroy(t);
}

/*
 * (space, d) 3 times; then three pairs twice: (b, a) with left id 66, (space, b) with 221, which " ba" is then made of, and
 * (" d", b) with 257.
 */
static void test_ties(void **state)
{
    (void)state;
    static const char text[] = "dc db ba dc db ba";
    attn_tokenizer *t = train(true, text, sizeof text - 1, 300, 2);
    static const char *const expected[] = {" d", "ba", " ba", " db"};
    assert_int_equal(attn_tokenizer_vocab_size(t), 257 + 4);
    for (int32_t i = 0; i < 4; i++) {
        expect_piece(t, 257 + i, expected[i]);
    }
    attn_tokenizer_destroy(t);
}

static void test_any_bytes(void **state)
{
    (void)state;
    char text[600];
    uint64_t random = seed;
    for (int i = 0; i < 50; i++) {
        for (size_t k = 0; k < sizeof text; k++) {
            text[k] = i % 2 ? (char)next(&random) : "ab \n\xc3\xa9"[next(&random) % 6];
        }
        attn_tokenizer *t = train(true, text, sizeof text, 300, 1);
        expect_round_trip(t, text, sizeof text);
        for (size_t k = 0; k < sizeof text; k++) {
            text[k] = (char)next(&random); /* bytes it has not seen */
        }
        expect_round_trip(t, text, sizeof text);
        attn_tokenizer_destroy(t);
        t = train(false, text, sizeof text, 0, 0);
        expect_round_trip(t, text, sizeof text);
        attn_tokenizer_destroy(t);
    }
}

static void test_characters(void **state)
{
    (void)state;
    static const char text[] = "b\xc3\xa9 \xf0\x9f\x99\x82"
                               "a\nb\xff";
    attn_tokenizer_train_options options = attn_tokenizer_train_options_init();
    attn_tokenizer *t;
    options.end_text = NULL;
    assert_int_equal(attn_tokenizer_train_chars(text, sizeof text - 1, &options, &t), ATTN_OK);
    static const char *const sorted[] = {"\n",  " ", "a", "b", "\xc3\xa9", "\xf0\x9f\x99\x82",
                                         "\xff"};
    assert_int_equal(attn_tokenizer_vocab_size(t), 7);
    for (int32_t i = 0; i < 7; i++) {
        expect_piece(t, i, sorted[i]);
    }
    assert_int_equal(attn_tokenizer_eos(t), -1);
    expect_round_trip(t, text, sizeof text - 1);
    int32_t ids[8];
    size_t count;
    assert_int_equal(attn_tokenizer_encode(t, "axb", 3, false, ids, 8, &count), ATTN_OK);
    assert_true(count == 2 && ids[0] == 2 && ids[1] == 3); /* x is left out */
    attn_tokenizer_destroy(t);
}

static void expect_same(const attn_tokenizer *a, const attn_tokenizer *b)
{
    assert_int_equal(attn_tokenizer_vocab_size(a), attn_tokenizer_vocab_size(b));
    assert_int_equal(attn_tokenizer_eos(a), attn_tokenizer_eos(b));
    for (int32_t i = 0; i < attn_tokenizer_vocab_size(a); i++) {
        size_t x, y;
        const char *p = attn_tokenizer_piece(a, i, true, &x);
        const char *q = attn_tokenizer_piece(b, i, true, &y);
        assert_int_equal(x, y);
        assert_memory_equal(p, q, x);
    }
    static const char text[] = "Hello <|endoftext|> w\xc3\xb6rld  123";
    int32_t ids[2][64];
    size_t counts[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            attn_tokenizer_encode(i ? b : a, text, sizeof text - 1, true, ids[i], 64, &counts[i]),
            ATTN_OK);
    }
    assert_int_equal(counts[0], counts[1]);
    assert_memory_equal(ids[0], ids[1], counts[0] * sizeof **ids);
}

static void test_json_round_trip(void **state)
{
    (void)state;
    static const char text[] = "Hello hello, w\xc3\xb6rld! The w\xc3\xb6rld's 123 hellos.\n\n";
    for (int bpe = 0; bpe < 2; bpe++) {
        attn_tokenizer *t = train(bpe, text, sizeof text - 1, 280, 1), *back;
        char *json, *again;
        assert_int_equal(attn_tokenizer_to_json(t, &json), ATTN_OK);
        assert_int_equal(attn_tokenizer_from_json(json, strlen(json), &back), ATTN_OK);
        expect_same(t, back);
        assert_int_equal(attn_tokenizer_to_json(back, &again), ATTN_OK);
        assert_string_equal(json, again);
        free(json);
        free(again);
        attn_tokenizer_destroy(t);
        attn_tokenizer_destroy(back);
    }
}

static bool stop(void *user)
{
    return --*(int *)user == 0;
}

static void test_refuses(void **state)
{
    (void)state;
    attn_tokenizer_train_options options = attn_tokenizer_train_options_init();
    attn_tokenizer *t;
    assert_int_equal(attn_tokenizer_train_bpe("", 0, &options, &t), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_tokenizer_train_bpe(NULL, 0, &options, &t), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_tokenizer_train_bpe("a", 1, &options, NULL), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_tokenizer_train_bpe("a", (size_t)1 << 40, &options, &t),
                     ATTN_ERR_UNSUPPORTED);
    options.vocab = 200;
    assert_int_equal(attn_tokenizer_train_bpe("a", 1, &options, &t), ATTN_ERR_ARGUMENT);
    assert_true(error_has("vocab: 200"));
    options.vocab = 0;
    options.end_text = "\xff";
    assert_int_equal(attn_tokenizer_train_chars("a", 1, &options, &t), ATTN_ERR_ARGUMENT);
    options.end_text = "";
    assert_int_equal(attn_tokenizer_train_chars("a", 1, &options, &t), ATTN_ERR_ARGUMENT);
    /* Another token's text: of a byte, of a byte in its alphabet (space), of a merge, of a character. */
    static const char *const taken[] = {"a", "\xc4\xa0", "ab"};
    for (int i = 0; i < 3; i++) {
        options.end_text = taken[i];
        assert_int_equal(attn_tokenizer_train_bpe("ab ab ab", 8, &options, &t), ATTN_ERR_ARGUMENT);
        assert_true(error_has("end_text") && t == NULL);
    }
    options.end_text = "b";
    assert_int_equal(attn_tokenizer_train_chars("ab", 2, &options, &t), ATTN_ERR_ARGUMENT);
    options.end_text = "c";
    assert_int_equal(attn_tokenizer_train_chars("ab", 2, &options, &t), ATTN_OK);
    attn_tokenizer_destroy(t);
    int left = 2;
    options = attn_tokenizer_train_options_init();
    options.min_count = 1;
    options.cancel = stop;
    options.cancel_user = &left;
    assert_int_equal(attn_tokenizer_train_bpe("abcdefg", 7, &options, &t), ATTN_ERR_CANCELLED);
    assert_null(t);
}

#define SPLIT "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define MODEL(vocab, merges) \
    "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}"

static const struct {
    const char *json;
    attn_status status;
    const char *part;
} broken[] = {
    {"", ATTN_ERR_FORMAT, "not JSON"},
    {"[]", ATTN_ERR_FORMAT, "no object"},
    {"{}", ATTN_ERR_UNSUPPORTED, "not BPE"},
    {"{\"model\":{\"type\":\"Unigram\"}}", ATTN_ERR_UNSUPPORTED, "not BPE"},
    {"{" MODEL("{\"a\":0}", "[]") "}", ATTN_ERR_UNSUPPORTED, "pre_tokenizer"},
    {"{" SPLIT ",\"normalizer\":{}," MODEL("{\"a\":0}", "[]") "}", ATTN_ERR_UNSUPPORTED,
     "normalizer"},
    {"{" SPLIT ",\"post_processor\":{\"type\":\"T\"}," MODEL("{\"a\":0}", "[]") "}",
     ATTN_ERR_UNSUPPORTED, "post-processor"},
    {"{" SPLIT ",\"model\":{\"type\":\"BPE\",\"dropout\":0.1}}", ATTN_ERR_UNSUPPORTED, "dropout"},
    {"{" SPLIT ",\"model\":{\"type\":\"BPE\",\"byte_fallback\":true}}", ATTN_ERR_UNSUPPORTED,
     "byte_fallback"},
    {"{" SPLIT "," MODEL("[]", "[]") "}", ATTN_ERR_FORMAT, "no vocab"},
    {"{" SPLIT "," MODEL("{}", "[]") "}", ATTN_ERR_FORMAT, "no tokens"},
    {"{" SPLIT "," MODEL("{\"a\":1}", "[]") "}", ATTN_ERR_FORMAT, "'a' has id 1"},
    {"{" SPLIT "," MODEL("{\"a\":-1}", "[]") "}", ATTN_ERR_FORMAT, "'a' has id -1"},
    {"{" SPLIT "," MODEL("{\"a\":0,\"b\":0}", "[]") "}", ATTN_ERR_FORMAT, "given twice"},
    {"{" SPLIT "," MODEL("{\"a\":0.5}", "[]") "}", ATTN_ERR_FORMAT, "whole number"},
    {"{" SPLIT "," MODEL("{\"\":0}", "[]") "}", ATTN_ERR_FORMAT, "empty"},
    {"{" SPLIT "," MODEL("{\"\xe6\xbc\xa2\":0}", "[]") "}", ATTN_ERR_UNSUPPORTED, "byte alphabet"},
    {"{" SPLIT "," MODEL("{\"a\":0}", "[1]") "}", ATTN_ERR_FORMAT, "merge"},
    {"{" SPLIT "," MODEL("{\"a\":0}", "[[\"a\"]]") "}", ATTN_ERR_FORMAT, "merge"},
    {"{" SPLIT "," MODEL("{\"a\":0}", "[[\"a\",\"a\"]]") "}", ATTN_ERR_FORMAT, "no token"},
    {"{" SPLIT "," MODEL("{\"a\":0}", "[\"a a\"]") "}", ATTN_ERR_FORMAT, "no token"},
    {"{" SPLIT ",\"added_tokens\":[{\"id\":0}]," MODEL("{\"a\":0}", "[]") "}", ATTN_ERR_FORMAT,
     "no content"},
    {"{" SPLIT ",\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]," MODEL("{\"a\":0}", "[]") "}",
     ATTN_ERR_FORMAT, "added token's id"},
    {"{" SPLIT
     ",\"added_tokens\":[{\"id\":0,\"content\":\"a\"},{\"id\":0,\"content\":\"a\"}]," MODEL(
         "{\"a\":0}", "[]") "}",
     ATTN_ERR_FORMAT, ""},
};

static void test_refuses_bad_json(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        attn_tokenizer *t = (attn_tokenizer *)&t;
        attn_status status = attn_tokenizer_from_json(broken[i].json, strlen(broken[i].json), &t);
        if (status != broken[i].status || t != NULL || !error_has(broken[i].part)) {
            fail_msg("%s: status %d: %s", broken[i].json, status, attn_last_error());
        }
    }
    attn_tokenizer *t;
    static const char good[] = "{" SPLIT "," MODEL("{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\"]") "}";
    assert_int_equal(attn_tokenizer_from_json(good, sizeof good - 1, &t), ATTN_OK);
    expect_round_trip(t, "abba", 4);
    attn_tokenizer_destroy(t);
    assert_int_equal(attn_tokenizer_from_json(good, (size_t)17 << 20, &t), ATTN_ERR_UNSUPPORTED);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 0);
    }
    printf("repeat with: test_tokenizer_train %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),           cmocka_unit_test(test_ties),
        cmocka_unit_test(test_any_bytes),        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_json_round_trip),  cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_refuses_bad_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
