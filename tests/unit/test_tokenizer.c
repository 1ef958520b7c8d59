/*
 * test_tokenizer.c: byte-level BPE against a plain reference on random merges, what must
 * round-trip, special tokens, files that are refused, and long words.
 *
 * repro: test_tokenizer [seed] (printed on failure)
 */
#include "gguf_bytes.h"
#include "vocabulary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t seed = 20240613;

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

static void expect_ids(const attn_tokenizer *t, const char *text, bool special, size_t count,
                       const int32_t *wanted)
{
    int32_t ids[256];
    size_t got;
    assert_int_equal(attn_tokenizer_encode(t, text, strlen(text), special, ids, 256, &got),
                     ATTN_OK);
    bool same = got == count && (count == 0 || memcmp(ids, wanted, count * sizeof *ids) == 0);
    if (!same) {
        fprintf(stderr, "\"%s\" gave %zu tokens:", text, got);
        for (size_t i = 0; i < got; i++) {
            fprintf(stderr, " %d", ids[i]);
        }
        fprintf(stderr, "\n");
    }
    assert_true(same);
}

#define EXPECT_IDS(t, text, special, ...)                                            \
    expect_ids(t, text, special, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t), \
               (int32_t[]){__VA_ARGS__})

/* Encodes, joins the pieces, and compares with the text. */
static void expect_round_trip(const attn_tokenizer *t, const char *text, size_t size, bool special,
                              uint64_t repro)
{
    int32_t *ids = malloc((size + 1) * sizeof *ids);
    char *back = malloc(size + 1);
    size_t count, at = 0;
    assert_true(ids && back);
    assert_int_equal(attn_tokenizer_encode(t, text, size, special, ids, size + 1, &count), ATTN_OK);
    bool same = count <= size;
    for (size_t i = 0; i < count && same; i++) {
        size_t bytes;
        const char *piece = attn_tokenizer_piece(t, ids[i], special, &bytes);
        same = piece && bytes <= size - at;
        if (same) {
            memcpy(back + at, piece, bytes);
            at += bytes;
        }
    }
    same = same && at == size && memcmp(back, text, size) == 0;
    if (!same) {
        fprintf(stderr, "repro: test_tokenizer %llu\n", (unsigned long long)repro);
    }
    assert_true(same);
    free(ids);
    free(back);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static const char *const pres[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};

static void test_any_bytes_round_trip(void **state)
{
    (void)state;
    static const char *const parts[] = {"a",
                                        " ",
                                        "\n",
                                        "\0",
                                        "don't",
                                        "\xff",
                                        "\xe2\x82\xac",
                                        "\xc0",
                                        "\xed\xa0\x80",
                                        "12",
                                        "  ",
                                        "\xf0\x9f\x99\x82",
                                        "<|x|>",
                                        "\xe6\xbc\xa2",
                                        "\x80",
                                        "!?",
                                        "\r\n",
                                        "\t",
                                        "\xf4\x90\x80\x80"};
    enum { PARTS = sizeof parts / sizeof *parts };
    for (int p = 0; p < 4; p++) {
        vocabulary *v = bytes_vocabulary(pres[p]);
        add_merge(v, "a", "a");
        add_merge(v, "\xc4\xa0", "a"); /* a space and an a */
        add_merge(v, "\xc4\x8a", "\xc4\x8a");
        add_token(v, "<|x|>", 3);
        attn_tokenizer *t = tokenizer_of(v);
        for (uint64_t round = 0; round < 500; round++) {
            uint64_t random = seed + round;
            char text[400];
            size_t size = 0;
            for (uint32_t n = next(&random) % 40; n > 0; n--) {
                const char *part = parts[next(&random) % PARTS];
                size_t bytes = *part ? strlen(part) : 1;
                for (size_t i = 0; i < bytes; i++) {
                    text[size++] = part[i];
                }
                if (next(&random) % 4 == 0) {
                    text[size++] = (char)next(&random);
                }
            }
            expect_round_trip(t, text, size, round % 2, seed + round);
        }
        attn_tokenizer_destroy(t);
    }
}

/* Bytes of a character that is cut off stay one token each, and merges do not reach across them. */
static void test_invalid_utf8_becomes_byte_tokens(void **state)
{
    (void)state;
    vocabulary *v = bytes_vocabulary("gpt-2");
    add_merge(v, "\xc3\xa2", "\xc4\xa4"); /* bytes e2 82 */
    add_merge(v, "a", "a");
    add_merge(v, "\xc3\xad", "\xc5\x82"); /* ed a0 */
    add_merge(v, "\xc3\x80", "\xc4\xa2"); /* c0 80 */
    add_merge(v, "\xc3\xb4", "\xc4\xb2"); /* f4 90 */
    attn_tokenizer *t = tokenizer_of(v);
    EXPECT_IDS(t, "\xed\xa0\x80", false, 0xed, 0xa0, 0x80);           /* a surrogate */
    EXPECT_IDS(t, "\xc0\x80", false, 0xc0, 0x80);                     /* overlong */
    EXPECT_IDS(t, "\xf4\x90\x80\x80", false, 0xf4, 0x90, 0x80, 0x80); /* beyond U+10FFFF */
    EXPECT_IDS(t, "\xe2\x82\xac", false, 256, 0xac); /* the whole character: merged */
    EXPECT_IDS(t, "\xe2\x82", false, 0xe2, 0x82);
    EXPECT_IDS(t, "aa\xe2\x82z", false, 257, 0xe2, 0x82, 'z');
    EXPECT_IDS(t,
               "a\xff"
               "aa",
               false, 'a', 0xff, 257);
    attn_tokenizer_destroy(t);
}

/* The definition, literally: the adjacent pair of lowest rank, leftmost first, until there is none.
 */
static size_t reference_merge(const int32_t (*merges)[3], size_t merge_count, int32_t *ids,
                              size_t count)
{
    for (;;) {
        size_t best_rank = merge_count, best_at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            for (size_t rank = 0; rank < best_rank; rank++) {
                if (merges[rank][0] == ids[i] && merges[rank][1] == ids[i + 1]) {
                    best_rank = rank;
                    best_at = i;
                    break;
                }
            }
        }
        if (best_rank == merge_count) {
            return count;
        }
        ids[best_at] = merges[best_rank][2];
        memmove(ids + best_at + 1, ids + best_at + 2, (count - best_at - 2) * sizeof *ids);
        count--;
    }
}

static void test_merges_like_the_definition(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 40; round++) {
        uint64_t random = seed + round;
        vocabulary *v = bytes_vocabulary("gpt-2");
        int32_t merges[60][3], pieces[64] = {'a', 'b', 'c'};
        size_t piece_count = 3, merge_count = 0;
        while (merge_count < 60) {
            int32_t left = pieces[next(&random) % piece_count];
            int32_t right = pieces[next(&random) % piece_count];
            if (strlen(v->tokens[left]) + strlen(v->tokens[right]) > 12) {
                continue;
            }
            size_t before = v->token_count;
            add_merge(v, v->tokens[left], v->tokens[right]);
            int32_t made = (int32_t)before;
            if (v->token_count > before) {
                pieces[piece_count++] = made;
            } else {
                char joined[64];
                snprintf(joined, sizeof joined, "%s%s", v->tokens[left], v->tokens[right]);
                for (made = 0; strcmp(v->tokens[made], joined) != 0; made++) {
                }
            }
            merges[merge_count][0] = left;
            merges[merge_count][1] = right;
            merges[merge_count++][2] = made;
        }
        attn_tokenizer *t = tokenizer_of(v);
        for (int word = 0; word < 40; word++) {
            char text[101];
            int32_t wanted[100];
            size_t size = next(&random) % 100 + 1;
            for (size_t i = 0; i < size; i++) {
                text[i] = (char)('a' + next(&random) % 3);
                wanted[i] = text[i];
            }
            text[size] = 0;
            size_t count = reference_merge((const int32_t(*)[3])merges, merge_count, wanted, size);
            expect_ids(t, text, false, count, wanted);
        }
        attn_tokenizer_destroy(t);
    }
}

/* Merges that would show a boundary in the wrong place. */
static void test_pre_splits(void **state)
{
    (void)state;
    const int32_t aa = 256, ones = 257, spaces = 258, space_a = 259, quote_s = 260, quote_S = 261;
    for (int p = 0; p < 4; p++) {
        vocabulary *v = bytes_vocabulary(pres[p]);
        add_merge(v, "a", "a");
        add_merge(v, "1", "1");
        add_merge(v, "\xc4\xa0", "\xc4\xa0");
        add_merge(v, "\xc4\xa0", "a");
        add_merge(v, "'", "s");
        add_merge(v, "'", "S");
        add_merge(v, "11", "1");
        add_merge(v, "a", "1");
        attn_tokenizer *t = tokenizer_of(v);
        EXPECT_IDS(t, "aa", false, aa);
        EXPECT_IDS(t, "  a", false, ' ', space_a);
        EXPECT_IDS(t, "   ", false, spaces, ' ');
        EXPECT_IDS(t, "a'sa", false, 'a', quote_s, 'a');
        EXPECT_IDS(t, "a1", false, 'a', '1'); /* letters and digits never join */
        if (p == 0 || p == 3) {
            EXPECT_IDS(t, "11", false, '1', '1'); /* digits alone */
        }
        if (p == 1) {
            EXPECT_IDS(t, "1111", false, ones, ones); /* as many as there are */
            EXPECT_IDS(t, "'S", false, '\'', 'S');    /* only lower case is a contraction */
        }
        if (p == 2) {
            EXPECT_IDS(t, "11111", false, 262, ones); /* by threes */
            EXPECT_IDS(t, "'S", false, quote_S);
        }
        attn_tokenizer_destroy(t);
    }
}

static void test_whole_words_of_llama3(void **state)
{
    (void)state;
    vocabulary *v = bytes_vocabulary("llama-bpe");
    add_token(v, "word", 1); /* no merges make it */
    attn_tokenizer *t = tokenizer_of(v);
    EXPECT_IDS(t, "word", false, 256);
    EXPECT_IDS(t, "wor", false, 'w', 'o', 'r');
    attn_tokenizer_destroy(t);
}

static vocabulary *special_vocabulary(void)
{
    vocabulary *v = bytes_vocabulary("smollm");
    add_token(v, "<|endoftext|>", 3); /* 256 */
    add_token(v, "<|im_start|>", 3);  /* 257 */
    add_token(v, "<|im_end|>", 3);    /* 258 */
    add_token(v, "<|im_", 3);         /* 259: a beginning of two others */
    add_token(v, "\t\t", 4);          /* 260: user-defined */
    v->bos = 257;
    v->eos = 258;
    return v;
}

static void test_special_tokens(void **state)
{
    (void)state;
    attn_tokenizer *t = tokenizer_of(special_vocabulary());
    EXPECT_IDS(t, "<|im_end|>", true, 258);
    EXPECT_IDS(t, "<|im_start|>a<|im_b", true, 257, 'a', 259, 'b'); /* the longest that fits */
    EXPECT_IDS(t, "<|im_end|>", false, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    EXPECT_IDS(t, "\t\t", true, 260);
    EXPECT_IDS(t, "<|i", true, '<', '|', 'i');
    size_t size = 9;
    assert_string_equal(attn_tokenizer_piece(t, 258, false, &size), "");
    assert_int_equal(size, 0);
    assert_memory_equal(attn_tokenizer_piece(t, 258, true, &size), "<|im_end|>", 10);
    assert_int_equal(size, 10);
    assert_memory_equal(attn_tokenizer_piece(t, 260, false, &size), "\t\t", 2);
    assert_null(attn_tokenizer_piece(t, 261, true, &size));
    assert_null(attn_tokenizer_piece(t, -1, true, &size));
    assert_int_equal(attn_tokenizer_vocab_size(t), 261);
    assert_int_equal(attn_tokenizer_bos(t), 257);
    assert_int_equal(attn_tokenizer_eos(t), 258);
    assert_true(attn_tokenizer_is_end(t, 258) && attn_tokenizer_is_end(t, 256));
    assert_false(attn_tokenizer_is_end(t, 257) || attn_tokenizer_is_end(t, -1) ||
                 attn_tokenizer_is_end(t, 261));
    assert_int_equal(attn_tokenizer_special(t, "<|im_start|>"), 257);
    assert_int_equal(attn_tokenizer_special(t, "a"), -1);
    attn_tokenizer_destroy(t);
    attn_tokenizer_destroy(NULL);
}

static void test_bos(void **state)
{
    (void)state;
    vocabulary *v = special_vocabulary();
    v->add_bos = 1;
    attn_tokenizer *t = tokenizer_of(v);
    EXPECT_IDS(t, "a", true, 257, 'a');
    EXPECT_IDS(t, "", true, 257);
    EXPECT_IDS(t, "<|im_start|>a", true, 257, 'a'); /* not twice */
    EXPECT_IDS(t, "a", false, 'a');
    attn_tokenizer_destroy(t);
    v = special_vocabulary();
    v->add_bos = 0;
    t = tokenizer_of(v);
    EXPECT_IDS(t, "a", true, 'a');
    attn_tokenizer_destroy(t);
    v = special_vocabulary();
    v->pre = "llama-bpe"; /* whose files mean it where they do not say */
    t = tokenizer_of(v);
    EXPECT_IDS(t, "a", true, 257, 'a');
    attn_tokenizer_destroy(t);
}

static void test_capacity(void **state)
{
    (void)state;
    attn_tokenizer *t = tokenizer_of(bytes_vocabulary("gpt-2"));
    int32_t ids[4] = {-7, -7, -7, -7};
    size_t count;
    assert_int_equal(attn_tokenizer_encode(t, "abcd", 4, false, ids, 3, &count), ATTN_ERR_CAPACITY);
    assert_int_equal(count, 4);
    assert_int_equal(ids[0], -7);
    assert_true(error_has("room for 3 tokens, but the text has 4"));
    assert_int_equal(attn_tokenizer_encode(t, "abcd", 4, false, NULL, 0, &count),
                     ATTN_ERR_CAPACITY);
    assert_int_equal(attn_tokenizer_encode(t, "abcd", 4, false, ids, 4, &count), ATTN_OK);
    assert_int_equal(ids[3], 'd');
    assert_int_equal(attn_tokenizer_encode(t, NULL, 0, false, NULL, 0, &count), ATTN_OK);
    assert_int_equal(count, 0);
    assert_int_equal(attn_tokenizer_encode(NULL, "a", 1, false, ids, 4, &count), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_tokenizer_encode(t, NULL, 1, false, ids, 4, &count), ATTN_ERR_ARGUMENT);
    attn_tokenizer_destroy(t);
}

/* A byte that the vocabulary has no token for cannot be said; what is around it is. */
static void test_missing_byte_is_left_out(void **state)
{
    (void)state;
    vocabulary *v = bytes_vocabulary("gpt-2");
    v->kinds[0xff] = 5; /* unused */
    attn_tokenizer *t = tokenizer_of(v);
    EXPECT_IDS(t, "a\xff", false, 'a');
    attn_tokenizer_destroy(t);
}

static void expect_refused(vocabulary *v, attn_status wanted, const char *part)
{
    attn_tokenizer *t = (attn_tokenizer *)8;
    assert_int_equal(vocabulary_tokenizer(v, &t), wanted);
    assert_null(t);
    assert_true(error_has(part));
    free(v);
}

static void test_refuses_bad_files(void **state)
{
    (void)state;
    vocabulary *v = bytes_vocabulary("klingon");
    expect_refused(v, ATTN_ERR_UNSUPPORTED, "'klingon'");
    expect_refused(bytes_vocabulary(NULL), ATTN_ERR_UNSUPPORTED, "tokenizer.ggml.pre is not there");
    v = bytes_vocabulary("gpt-2");
    v->model = "llama";
    expect_refused(v, ATTN_ERR_UNSUPPORTED, "tokenizer.ggml.model is 'llama'");
    v = bytes_vocabulary("gpt-2");
    strcpy(v->merges[v->merge_count++], "zz z");
    expect_refused(v, ATTN_ERR_FORMAT, "merges[0] 'zz z' joins or makes a piece that is no token");
    v = bytes_vocabulary("gpt-2");
    strcpy(v->merges[v->merge_count++], "zz");
    expect_refused(v, ATTN_ERR_FORMAT, "is not two pieces");
    v = bytes_vocabulary("gpt-2");
    strcpy(v->merges[v->merge_count++], "z \xe6\xbc\xa2");
    expect_refused(v, ATTN_ERR_FORMAT, "outside the byte alphabet");
    v = bytes_vocabulary("gpt-2");
    v->bos = 256;
    expect_refused(v, ATTN_ERR_FORMAT, "bos_token_id is 256, but tokens are 0 … 255");
    v = bytes_vocabulary("gpt-2");
    v->kinds[3] = 7;
    expect_refused(v, ATTN_ERR_FORMAT, "token_type[3]");
    v = bytes_vocabulary("gpt-2");
    v->token_count = 0;
    expect_refused(v, ATTN_ERR_FORMAT, "no tokens");
}

/* A megabyte in one word, and other texts that quadratic work would show on. */
static void test_long_texts_take_no_quadratic_time(void **state)
{
    (void)state;
    const size_t size = 1000000;
    static const char *const units[] = {"a", " ",   "ab",   "\n",    "!",
                                        "1", " \n", "\xff", "<|im_", "\xe6\xbc\xa2"};
    char *text = malloc(size);
    int32_t *ids = malloc((size + 1) * sizeof *ids);
    assert_true(text && ids);
    for (int p = 0; p < 4; p++) {
        vocabulary *v = bytes_vocabulary(pres[p]);
        add_merge(v, "a", "a");
        add_merge(v, "aa", "aa");
        add_merge(v, "a", "b");
        add_merge(v, "ab", "ab");
        add_token(v, "<|im_start|>", 3);
        attn_tokenizer *t = tokenizer_of(v);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t unit = strlen(units[u]), count;
            for (size_t i = 0; i < size; i++) {
                text[i] = units[u][i % unit];
            }
            clock_t start = clock();
            assert_int_equal(attn_tokenizer_encode(t, text, size, true, ids, size + 1, &count),
                             ATTN_OK);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            if (seconds > 20) { /* a second or less where nothing else runs */
                fprintf(stderr, "%s, 1 MB of \"%s\": %.1f s\n", pres[p], units[u], seconds);
            }
            assert_true(seconds <= 20);
        }
        attn_tokenizer_destroy(t);
    }
    free(text);
    free(ids);
}

static void test_default_model(void **state)
{
    (void)state;
    const char *path = default_model();
    if (!path) {
        skip();
    }
    attn_gguf *file;
    attn_tokenizer *t;
    assert_int_equal(attn_gguf_open(path, &file), ATTN_OK);
    assert_int_equal(attn_tokenizer_create(file, &t), ATTN_OK);
    attn_gguf_close(file);
    assert_int_equal(attn_tokenizer_vocab_size(t), 49152);
    /* As Hugging Face tokenizers 0.23 gives them. */
    EXPECT_IDS(t, "The capital of France is Paris.", true, 504, 3575, 282, 4649, 314, 7042, 30);
    EXPECT_IDS(t, "  int main(void) {\n\treturn 0x2A;\n}\n", true, 216, 464, 1085, 24, 32439, 25,
               1662, 198, 197, 5406, 216, 32, 104, 34, 49, 43, 198, 109, 198);
    EXPECT_IDS(t, "na\xc3\xafve \xe6\x9d\xb1\xe4\xba\xac \xf0\x9f\x99\x82 don't 2024", true, 3546,
               46494, 17097, 247, 126, 16736, 122, 47526, 1326, 982, 216, 34, 32, 34, 36);
    EXPECT_IDS(t, "<|im_start|>user\nHi<|im_end|>", true, 1, 4093, 198, 26843, 2);
    EXPECT_IDS(t, "<|im_start|>user\nHi<|im_end|>", false, 44, 108, 306, 79, 3738, 108, 46, 4093,
               198, 26843, 44, 108, 306, 79, 486, 108, 46);
    attn_tokenizer_destroy(t);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 0);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_bytes_round_trip),
        cmocka_unit_test(test_invalid_utf8_becomes_byte_tokens),
        cmocka_unit_test(test_merges_like_the_definition),
        cmocka_unit_test(test_pre_splits),
        cmocka_unit_test(test_whole_words_of_llama3),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_missing_byte_is_left_out),
        cmocka_unit_test(test_refuses_bad_files),
        cmocka_unit_test(test_long_texts_take_no_quadratic_time),
        cmocka_unit_test(test_default_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
