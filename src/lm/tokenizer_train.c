/* Tokenizers from a text. */
#define _GNU_SOURCE
#include <attn/tokenizer_train.h>

#include <stdlib.h>
#include <string.h>

#include "lm/bpe_train.h"
#include "lm/tokenizer_split.h"
#include "lm/tokenizer_vocab.h"
#include "lm/utf8.h"

#define DEFAULT_VOCAB     2304
#define DEFAULT_MIN_COUNT 2
#define CODES             0x110000

attn_tokenizer_train_options attn_tokenizer_train_options_init(void)
{
    attn_tokenizer_train_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.end_text = "<|endoftext|>";
    return options;
}

static attn_status take_arguments(const char *text, size_t size,
                                  const attn_tokenizer_train_options *options,
                                  attn_tokenizer_train_options *taken, attn_tokenizer **tokenizer)
{
    if (!tokenizer) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tokenizer: NULL; give the address of a pointer");
    }
    *tokenizer = NULL;
    if (!text || size == 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "text: %s; a tokenizer is made from a text",
                         text ? "empty" : "NULL");
    }
    if (size >= INT32_MAX) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "size: %zu bytes of text; at most 2^31 − 2 can be trained on, give a part",
                         size);
    }
    attn_status status = attn_take_struct("options", "attn_tokenizer_train_options_init", options,
                                          taken, sizeof *taken);
    if (status != ATTN_OK) {
        return status;
    }
    const char *end = taken->end_text;
    if (end && (end[0] == '\0' || utf8_valid_prefix(end, strlen(end)) != strlen(end))) {
        return attn_fail(ATTN_ERR_ARGUMENT, "end_text: %s; give a text such as <|endoftext|>",
                         end[0] ? "not valid UTF-8" : "empty");
    }
    if (taken->vocab < 0 || taken->vocab > INT32_MAX - 1 || taken->min_count < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: %lld, which is no count of tokens",
                         taken->min_count < 0 ? "min_count" : "vocab",
                         (long long)(taken->min_count < 0 ? taken->min_count : taken->vocab));
    }
    return ATTN_OK;
}

/* tokens[0] = the end of text, where there is one; how many that makes. */
static int32_t put_end(const attn_tokenizer_train_options *options, token_part *tokens)
{
    if (!options->end_text) {
        return 0;
    }
    tokens[0] = (token_part){options->end_text, strlen(options->end_text), TOKEN_CONTROL};
    return 1;
}

/* Whether an ordinary token is written, in the byte alphabet, as the end of text is: no vocabulary could tell them apart. */
static bool written_alike(const token_part *token, const char *end)
{
    size_t at = 0;
    for (size_t i = 0; i < token->size; i++) {
        char text[2];
        size_t size = vocab_encode_byte((unsigned char)token->bytes[i], text);
        if (strncmp(end + at, text, size) != 0) {
            return false;
        }
        at += size;
    }
    return end[at] == '\0';
}

static attn_status make(const tokenizer_parts *parts, const char *end, attn_tokenizer **tokenizer)
{
    for (int32_t i = 1; end && i < parts->count; i++) {
        if (written_alike(&parts->tokens[i], end)) {
            return attn_fail(
                ATTN_ERR_ARGUMENT,
                "end_text: '%.64s' is what a token of the text is written as too; take "
                "one that is not in it, such as <|endoftext|>",
                end);
        }
    }
    return tokenizer_from_parts(parts, tokenizer);
}

/* ---- BPE ---- */

/* The bytes as tokens, in the order of their characters in the alphabet: those that print, then the
 * others. */
static void put_bytes(bpe_learned *l, bpe_training *training)
{
    static char bytes[256];
    for (int others = 0; others < 2; others++) {
        for (int b = 0; b < 256; b++) {
            char text[2];
            bytes[b] = (char)b;
            /* Characters from U+0100 on begin with 0xc4 or 0xc5. */
            bool other =
                vocab_encode_byte((unsigned char)b, text) == 2 && (unsigned char)text[0] >= 0xc4;
            if (other == (others == 1)) {
                training->byte[b] = l->count;
                l->tokens[l->count++] = (token_part){&bytes[b], 1, TOKEN_NORMAL};
            }
        }
    }
}

attn_status attn_tokenizer_train_bpe(const char *text, size_t size,
                                     const attn_tokenizer_train_options *options,
                                     attn_tokenizer **tokenizer)
{
    attn_tokenizer_train_options taken = attn_tokenizer_train_options_init();
    attn_status status = take_arguments(text, size, options, &taken, tokenizer);
    options = &taken;
    if (status != ATTN_OK) {
        return status;
    }
    bpe_training training = {
        .vocab = (int32_t)(options->vocab ? options->vocab : DEFAULT_VOCAB),
        .min_count = options->min_count ? options->min_count : DEFAULT_MIN_COUNT,
        .cancel = options->cancel,
        .cancel_user = options->cancel_user,
    };
    bpe_learned l = {.token_room = 1024};
    l.tokens = malloc((size_t)l.token_room * sizeof *l.tokens);
    if (!l.tokens) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to train a tokenizer");
    }
    l.count = put_end(options, l.tokens);
    put_bytes(&l, &training);
    word_list words = {0};
    if (training.vocab < l.count) {
        status =
            attn_fail(ATTN_ERR_ARGUMENT, "vocab: %d, but bytes and end of text alone are %d tokens",
                      training.vocab, l.count);
    }
    if (status == ATTN_OK) {
        status = word_list_count(&words, text, size);
    }
    if (status == ATTN_OK) {
        status = bpe_learn(&words, &training, &l);
    }
    if (status == ATTN_OK) {
        const tokenizer_parts parts = {.pre = "gpt-2",
                                       .tokens = l.tokens,
                                       .count = l.count,
                                       .merges = l.merges,
                                       .merge_count = l.merge_count,
                                       .end = options->end_text ? 0 : -1};
        status = make(&parts, options->end_text, tokenizer);
    }
    word_list_free(&words);
    bpe_learned_free(&l);
    return status;
}

/* ---- characters ---- */

/* Which code points and stray bytes a text has. */
typedef struct inventory {
    bool code[CODES];
    bool stray[256];
} inventory;

static int32_t take_inventory(inventory *found, const char *text, size_t size)
{
    int32_t count = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code = 0;
        size_t length = utf8_decode(text + at, size - at, &code);
        bool *seen = length ? &found->code[code] : &found->stray[(unsigned char)text[at]];
        count += !*seen;
        *seen = true;
        at += length ? length : 1;
    }
    return count;
}

/* UTF-8 of a code point that was decoded from it. */
static size_t encode(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char leads[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length; i-- > 1;) {
        out[i] = (char)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (char)(leads[length] | code);
    return length;
}

static attn_status from_inventory(const inventory *found, int32_t count,
                                  const attn_tokenizer_train_options *options,
                                  attn_tokenizer **tokenizer)
{
    token_part *tokens = malloc(((size_t)count + 1) * sizeof *tokens);
    char *bytes = malloc(((size_t)count + 1) * 4);
    attn_status status;
    if (tokens && bytes) {
        int32_t n = put_end(options, tokens);
        char *at = bytes;
        for (uint32_t code = 0; code < CODES + 256; code++) {
            bool stray = code >= CODES;
            if (stray ? found->stray[code - CODES] : found->code[code]) {
                size_t length = 1;
                if (stray) {
                    *at = (char)(code - CODES);
                } else {
                    length = encode(code, at);
                }
                tokens[n++] = (token_part){at, length, TOKEN_NORMAL};
                at += length;
            }
        }
        const tokenizer_parts parts = {.pre = SPLIT_CHARACTERS,
                                       .tokens = tokens,
                                       .count = n,
                                       .end = options->end_text ? 0 : -1};
        status = make(&parts, options->end_text, tokenizer);
    } else {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory for %d tokens", count);
    }
    free(tokens);
    free(bytes);
    return status;
}

attn_status attn_tokenizer_train_chars(const char *text, size_t size,
                                       const attn_tokenizer_train_options *options,
                                       attn_tokenizer **tokenizer)
{
    attn_tokenizer_train_options taken = attn_tokenizer_train_options_init();
    attn_status status = take_arguments(text, size, options, &taken, tokenizer);
    options = &taken;
    if (status != ATTN_OK) {
        return status;
    }
    inventory *found = calloc(1, sizeof *found);
    if (!found) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to train a tokenizer");
    }
    int32_t count = take_inventory(found, text, size);
    status = from_inventory(found, count, options, tokenizer);
    free(found);
    return status;
}
