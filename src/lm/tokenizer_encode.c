/* Text to tokens: special tokens → valid UTF-8 and stray bytes → words → byte tokens → merges. */
#include <stdlib.h>
#include <string.h>

#include "lm/tokenizer_impl.h"
#include "lm/utf8.h"

/* One call's state. */
typedef struct encoding {
    const attn_tokenizer *tokenizer;
    split_run *run;
    bpe_work work;
    int32_t *ids; /* room for one per byte of text, and a BOS */
    size_t count;
} encoding;

/* A byte without a token of its own is left out: there is nothing the model could be told. */
static void put_byte(encoding *e, char byte)
{
    int32_t id = e->tokenizer->vocab.byte[(unsigned char)byte];
    if (id >= 0) {
        e->ids[e->count++] = id;
    }
}

static attn_status encode_word(void *user, const char *word, size_t size)
{
    encoding *e = user;
    if (splitter_whole_words(e->tokenizer->splitter)) {
        int32_t id = vocab_find(&e->tokenizer->vocab, word, size);
        if (id >= 0) {
            e->ids[e->count++] = id;
            return ATTN_OK;
        }
    }
    size_t start = e->count;
    for (size_t i = 0; i < size; i++) {
        put_byte(e, word[i]);
    }
    size_t count = e->count - start;
    attn_status status = bpe_merge_word(&e->tokenizer->bpe, &e->work, e->ids + start, &count);
    e->count = start + count;
    return status;
}

/* Text without special tokens. Bytes that are no UTF-8 stay single and end the word before them. */
static attn_status encode_ordinary(encoding *e, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t valid = utf8_valid_prefix(text + at, size - at);
        attn_status status = split_text(e->run, text + at, valid, encode_word, e);
        if (status != ATTN_OK) {
            return status;
        }
        at += valid;
        if (at < size) {
            put_byte(e, text[at++]);
        }
    }
    return ATTN_OK;
}

/* The first special token at or after text[at]: its place (size where there is none) and id. */
static size_t next_special(const vocab *v, const char *text, size_t size, size_t at, int32_t *id)
{
    *id = -1;
    for (; at < size && v->special_count > 0; at++) {
        *id = vocab_match_special(v, text + at, size - at);
        if (*id >= 0) {
            return at;
        }
    }
    return size;
}

static attn_status encode_all(encoding *e, const char *text, size_t size, bool special)
{
    const attn_tokenizer *t = e->tokenizer;
    if (!special) {
        return encode_ordinary(e, text, size);
    }
    /* A text that already starts with the BOS, as rendered chats may, gets no second one. */
    if (t->add_bos && t->bos >= 0 && vocab_match_special(&t->vocab, text, size) != t->bos) {
        e->ids[e->count++] = t->bos;
    }
    for (size_t at = 0; at < size;) {
        int32_t id;
        size_t found = next_special(&t->vocab, text, size, at, &id);
        attn_status status = encode_ordinary(e, text + at, found - at);
        if (status != ATTN_OK) {
            return status;
        }
        at = found;
        if (id >= 0) {
            size_t bytes;
            vocab_bytes(&t->vocab, id, &bytes);
            e->ids[e->count++] = id;
            at += bytes;
        }
    }
    return ATTN_OK;
}

static attn_status deliver(const encoding *e, int32_t *ids, size_t capacity, size_t *count)
{
    *count = e->count;
    if (e->count > capacity) {
        return attn_fail(ATTN_ERR_CAPACITY, "ids: room for %zu tokens, but the text has %zu",
                         capacity, e->count);
    }
    if (e->count > 0) {
        memcpy(ids, e->ids, e->count * sizeof *ids);
    }
    return ATTN_OK;
}

attn_status attn_tokenizer_encode(const attn_tokenizer *tokenizer, const char *text, size_t size,
                                  bool special, int32_t *ids, size_t capacity, size_t *count)
{
    if (count) {
        *count = 0;
    }
    if (!tokenizer || !count || (!text && size > 0) || (!ids && capacity > 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL",
                         !tokenizer ? "tokenizer"
                         : !count   ? "count"
                         : !ids     ? "ids"
                                    : "text");
    }
    if (size >= INT32_MAX) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "size: %zu bytes of text; at most 2^31 − 2 at a time, give it in parts",
                         size);
    }
    encoding e = {.tokenizer = tokenizer, .ids = malloc((size + 1) * sizeof *e.ids)};
    attn_status status;
    if (!e.ids) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory to tokenize %zu bytes", size);
    } else {
        status = split_run_create(tokenizer->splitter, &e.run);
    }
    if (status == ATTN_OK) {
        status = encode_all(&e, text ? text : "", size, special);
    }
    if (status == ATTN_OK) {
        status = deliver(&e, ids, capacity, count);
    }
    split_run_destroy(e.run);
    bpe_work_free(&e.work);
    free(e.ids);
    return status;
}
