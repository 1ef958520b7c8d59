/*
 * Tokenizers as JSON, in the form of tokenizer.json (Hugging Face's `tokenizers` 0.15 … 0.23): writing one, and reading one back
 * into parts. The three pre-splits are told by what that library needs to do the same.
 */
#define _GNU_SOURCE
#include <attn/tokenizer_train.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "lm/tokenizer_build.h"
#include "lm/tokenizer_impl.h"

/* A tree takes about thirty times its text. */
#define JSON_BYTES_MAX ((size_t)16 << 20)
/* Any character, for expressions that have no flag for it in common. */
#define ANY_CHARACTER "[\\s\\S]"

/* ---- writing ---- */

/* The token's text as a vocabulary has it: in the byte alphabet, special ones as they are. NULL without memory. */
static json_t *token_text(const vocab *v, int32_t id)
{
    size_t size, used = 0;
    const char *bytes = vocab_bytes(v, id, &size);
    if (v->kind[id] != TOKEN_NORMAL) {
        return json_stringn(bytes, size);
    }
    char *text = malloc(2 * size + 1);
    if (!text) {
        return NULL;
    }
    for (size_t i = 0; i < size; i++) {
        used += vocab_encode_byte((unsigned char)bytes[i], text + used);
    }
    json_t *string = json_stringn_nocheck(text, used);
    free(text);
    return string;
}

static json_t *write_vocab(const vocab *v)
{
    json_t *object = json_object();
    for (int32_t id = 0; object && id < v->count; id++) {
        json_t *text = token_text(v, id);
        if (!text || json_object_set_new(object, json_string_value(text), json_integer(id)) != 0) {
            json_decref(object);
            object = NULL;
        }
        json_decref(text);
    }
    return object;
}

static json_t *write_merges(const attn_tokenizer *t)
{
    json_t *array = json_array();
    for (int32_t i = 0; array && i < t->bpe.count; i++) {
        json_t *both = json_pack("[o, o]", token_text(&t->vocab, t->bpe.merges[i].left),
                                 token_text(&t->vocab, t->bpe.merges[i].right));
        if (json_array_append_new(array, both) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

static json_t *write_added(const vocab *v)
{
    json_t *array = json_array();
    for (int32_t id = 0; array && id < v->count; id++) {
        if (v->kind[id] == TOKEN_NORMAL) {
            continue;
        }
        json_t *token = json_pack("{s:i, s:o, s:b, s:b, s:b, s:b, s:b}", "id", id, "content",
                                  token_text(v, id), "single_word", 0, "lstrip", 0, "rstrip", 0,
                                  "normalized", 0, "special", v->kind[id] == TOKEN_CONTROL);
        if (json_array_append_new(array, token) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

static json_t *byte_level(bool split)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", split);
}

/* The pre-tokenizer of a pre-split; NULL for one that is not written (or without memory). */
static json_t *write_split(const char *pre)
{
    json_t *first = NULL;
    if (strcmp(pre, "gpt-2") == 0) {
        return byte_level(true);
    }
    if (strcmp(pre, "smollm") == 0) {
        first = json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1);
    } else if (strcmp(pre, SPLIT_CHARACTERS) == 0) {
        first = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                          ANY_CHARACTER, "behavior", "Isolated", "invert", 0);
    }
    return first ? json_pack("{s:s, s:[o, o]}", "type", "Sequence", "pretokenizers", first,
                             byte_level(strcmp(pre, SPLIT_CHARACTERS) != 0))
                 : NULL;
}

static attn_status can_write(const attn_tokenizer *t)
{
    const char *pre = splitter_name(t->splitter);
    if (strcmp(pre, "gpt-2") != 0 && strcmp(pre, "smollm") != 0 &&
        strcmp(pre, SPLIT_CHARACTERS) != 0) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "tokenizer: its pre-split '%s' is not written as JSON; gpt-2, smollm and "
                         "characters are",
                         pre);
    }
    for (int32_t id = 0; id < t->vocab.count; id++) {
        uint8_t kind = t->vocab.kind[id];
        if (kind != TOKEN_NORMAL && kind != TOKEN_CONTROL && kind != TOKEN_USER) {
            return attn_fail(ATTN_ERR_UNSUPPORTED,
                             "tokenizer: token %d is of kind %d, which tokenizer.json has no word "
                             "for",
                             id, kind);
        }
    }
    return ATTN_OK;
}

attn_status attn_tokenizer_to_json(const attn_tokenizer *tokenizer, char **json)
{
    if (!json || !tokenizer) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", json ? "tokenizer" : "json");
    }
    *json = NULL;
    attn_status status = can_write(tokenizer);
    if (status != ATTN_OK) {
        return status;
    }
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", splitter_whole_words(tokenizer->splitter),
                  "vocab", write_vocab(&tokenizer->vocab), "merges", write_merges(tokenizer));
    json_t *all = model ? json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:o, s:o}", "version",
                                    "1.0", "truncation", "padding", "added_tokens",
                                    write_added(&tokenizer->vocab), "normalizer", "pre_tokenizer",
                                    write_split(splitter_name(tokenizer->splitter)),
                                    "post_processor", "decoder", byte_level(true), "model", model)
                        : NULL;
    size_t written = all ? json_object_size(json_object_get(model, "vocab")) : 0;
    if (all && written != (size_t)tokenizer->vocab.count) {
        json_decref(all);
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "tokenizer: of its %d tokens some are written alike, which tokenizer.json "
                         "cannot tell apart",
                         tokenizer->vocab.count);
    }
    *json = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return *json ? ATTN_OK
                 : attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a tokenizer of %d tokens as JSON",
                             tokenizer->vocab.count);
}

/* ---- reading ---- */

static attn_status bad(const char *what)
{
    return attn_fail(ATTN_ERR_FORMAT, "tokenizer: %s", what);
}

static attn_status unknown(const char *what)
{
    return attn_fail(ATTN_ERR_UNSUPPORTED,
                     "tokenizer: %s; byte-level BPE behind GPT-2's or SmolLM's split, or a split "
                     "into characters, can be read",
                     what);
}

static bool is_text(const json_t *object, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value && strcmp(value, text) == 0;
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* Whether a key is not there, null, false, "" or 0. */
static bool is_off(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_number(value) && json_number_value(value) == 0);
}

static bool is_byte_level(const json_t *split, bool regex)
{
    const json_t *use = json_object_get(split, "use_regex"); /* missing means true */
    return is_text(split, "type", "ByteLevel") && is_off(split, "add_prefix_space") &&
           (use ? json_is_true(use) : true) == regex;
}

/* The pre-split that a pre_tokenizer is; NULL for another. */
static const char *read_split(const json_t *split, bool whole_words)
{
    if (is_byte_level(split, true) && !whole_words) {
        return "gpt-2";
    }
    const json_t *list = json_object_get(split, "pretokenizers");
    const json_t *first = json_array_get(list, 0), *second = json_array_get(list, 1);
    if (!is_text(split, "type", "Sequence") || json_array_size(list) != 2) {
        return NULL;
    }
    if (is_text(first, "type", "Digits") && is_true(first, "individual_digits") &&
        is_byte_level(second, true) && !whole_words) {
        return "smollm";
    }
    bool characters = is_text(first, "type", "Split") && is_text(first, "behavior", "Isolated") &&
                      is_off(first, "invert") &&
                      is_text(json_object_get(first, "pattern"), "Regex", ANY_CHARACTER);
    return characters && is_byte_level(second, false) && whole_words ? SPLIT_CHARACTERS : NULL;
}

/* The parts while they are read: bytes of ordinary tokens are decoded into `bytes`. */
typedef struct reading {
    token_part *tokens;
    char *bytes;
    size_t used;
    int32_t count;
} reading;

static attn_status put_token(reading *r, const char *text, json_int_t id, uint8_t kind)
{
    if (id < 0 || id >= r->count) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "tokenizer: '%.64s' has id %lld, but with %d tokens ids are 0 … %d", text,
                         (long long)id, r->count, r->count - 1);
    }
    token_part *token = &r->tokens[id];
    size_t size = strlen(text);
    if (token->bytes) {
        /* An added token is usually in the vocabulary as well. */
        return attn_fail(ATTN_ERR_FORMAT, "tokenizer: id %lld is given twice", (long long)id);
    }
    if (size == 0) {
        return attn_fail(ATTN_ERR_FORMAT, "tokenizer: token %lld is empty", (long long)id);
    }
    char *bytes = r->bytes + r->used;
    *token = (token_part){.bytes = bytes, .size = size, .kind = kind};
    if (kind != TOKEN_NORMAL) {
        memcpy(bytes, text, size + 1);
    } else if (!vocab_decode(text, size, bytes, &token->size)) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "tokenizer: token %lld '%.64s' is not written in the byte alphabet, so it "
                         "is not byte-level",
                         (long long)id, text);
    }
    r->used += token->size;
    return ATTN_OK;
}

/* Added tokens first: the vocabulary then only gives what is left. */
static attn_status read_tokens(reading *r, const json_t *added, json_t *vocabulary)
{
    size_t extra = json_array_size(added), most = json_object_size(vocabulary) + extra, room = 1;
    const char *text;
    json_t *id;
    for (size_t i = 0; i < extra; i++) {
        const char *content =
            json_string_value(json_object_get(json_array_get(added, i), "content"));
        if (!content) {
            return bad("an added token has no content");
        }
        room += strlen(content);
        most -= json_object_get(vocabulary, content) != NULL;
    }
    json_object_foreach(vocabulary, text, id)
    {
        room += strlen(text);
    }
    if (most == 0 || most > INT32_MAX - 1) {
        return bad("there are no tokens");
    }
    r->count = (int32_t)most;
    r->tokens = calloc(most, sizeof *r->tokens);
    r->bytes = malloc(room);
    if (!r->tokens || !r->bytes) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a tokenizer of %zu tokens", most);
    }
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < extra && status == ATTN_OK; i++) {
        json_t *token = json_array_get(added, i), *at = json_object_get(token, "id");
        const char *content = json_string_value(json_object_get(token, "content"));
        json_t *also = json_object_get(vocabulary, content);
        if (!json_is_integer(at) || (also && json_integer_value(also) != json_integer_value(at))) {
            return bad("an added token's id is no whole number, or not that of the vocabulary");
        }
        status = put_token(r, content, json_integer_value(at),
                           is_true(token, "special") ? TOKEN_CONTROL : TOKEN_USER);
        json_object_del(vocabulary, content);
    }
    json_object_foreach(vocabulary, text, id)
    {
        if (status == ATTN_OK) {
            status = json_is_integer(id) ? put_token(r, text, json_integer_value(id), TOKEN_NORMAL)
                                         : bad("an id of the vocabulary is no whole number");
        }
    }
    return status;
}

/* One merge, "a b" or ["a", "b"], into the metadata's form. */
static attn_status put_merge(gguf_build *b, const json_t *merge)
{
    if (json_is_string(merge)) {
        gguf_put_string(b, json_string_value(merge), json_string_length(merge));
        return ATTN_OK;
    }
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    if (json_array_size(merge) != 2 || !json_is_string(left) || !json_is_string(right) ||
        strchr(json_string_value(left), ' ') || strchr(json_string_value(right), ' ')) {
        return bad("a merge is no pair of two pieces of tokens");
    }
    gguf_put_u64(b, json_string_length(left) + 1 + json_string_length(right));
    gguf_put(b, json_string_value(left), json_string_length(left));
    gguf_put(b, " ", 1);
    gguf_put(b, json_string_value(right), json_string_length(right));
    return ATTN_OK;
}

static attn_status check_model(const json_t *all, const json_t *model)
{
    if (!is_text(model, "type", "BPE")) {
        return unknown("its model is not BPE");
    }
    static const char *const off[] = {
        "dropout",  "unk_token",    "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", "byte_fallback"};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        if (!is_off(model, off[i])) {
            return attn_fail(ATTN_ERR_UNSUPPORTED, "tokenizer: '%s' of its model is not supported",
                             off[i]);
        }
    }
    if (!is_off(all, "normalizer")) {
        return unknown("it has a normalizer");
    }
    const json_t *post = json_object_get(all, "post_processor");
    if (!is_off(all, "post_processor") && !is_text(post, "type", "ByteLevel")) {
        return unknown("it has a post-processor");
    }
    return ATTN_OK;
}

static attn_status build(json_t *all, gguf_build *b)
{
    json_t *model = json_object_get(all, "model");
    json_t *vocabulary = json_object_get(model, "vocab"),
           *merges = json_object_get(model, "merges");
    attn_status status = check_model(all, model);
    reading r = {0};
    if (status != ATTN_OK) {
        return status;
    }
    const char *pre =
        read_split(json_object_get(all, "pre_tokenizer"), is_true(model, "ignore_merges"));
    if (!pre) {
        return unknown("its pre_tokenizer is none that is known here");
    }
    if (!json_is_object(vocabulary) || !json_is_array(merges)) {
        return bad("its model has no vocab or no merges");
    }
    status = read_tokens(&r, json_object_get(all, "added_tokens"), vocabulary);
    if (status == ATTN_OK) {
        const tokenizer_parts parts = {
            .pre = pre, .tokens = r.tokens, .count = r.count, .merge_count = -1, .end = -1};
        tokenizer_put(b, &parts);
        gguf_put_array(b, "tokenizer.ggml.merges", ATTN_GGUF_STRING, json_array_size(merges));
    }
    for (size_t i = 0; status == ATTN_OK && i < json_array_size(merges); i++) {
        status = put_merge(b, json_array_get(merges, i));
    }
    free(r.tokens);
    free(r.bytes);
    return status;
}

attn_status tokenizer_put_json(gguf_build *b, const char *json, size_t size)
{
    if (size > JSON_BYTES_MAX) {
        return attn_fail(ATTN_ERR_UNSUPPORTED, "tokenizer: %zu bytes of JSON; at most %zu are read",
                         size, JSON_BYTES_MAX);
    }
    json_error_t error;
    json_t *all = json_loadb(json, size, JSON_REJECT_DUPLICATES, &error);
    if (!all) {
        return error.text[0] == '\0' || json_error_code(&error) == json_error_out_of_memory
                   ? attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a tokenizer of %zu bytes", size)
                   : attn_fail(ATTN_ERR_FORMAT, "tokenizer: not JSON: %.100s (byte %d)", error.text,
                               error.position);
    }
    attn_status status = json_is_object(all) ? build(all, b) : bad("the JSON is no object");
    json_decref(all);
    return status;
}

attn_status attn_tokenizer_from_json(const char *json, size_t size, attn_tokenizer **tokenizer)
{
    if (!tokenizer || !json) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", tokenizer ? "json" : "tokenizer");
    }
    *tokenizer = NULL;
    gguf_build b = {0};
    attn_gguf *file = NULL;
    attn_status status = tokenizer_put_json(&b, json, size);
    if (status == ATTN_OK) {
        status = gguf_from_build(&b, "tokenizer", &file);
    }
    if (status == ATTN_OK) {
        status = attn_tokenizer_create(file, tokenizer);
    }
    for (int32_t id = 0;
         status == ATTN_OK && (*tokenizer)->eos < 0 && id < (*tokenizer)->vocab.count; id++) {
        if ((*tokenizer)->ends[id]) {
            (*tokenizer)->eos = id;
        }
    }
    attn_gguf_close(file);
    gguf_build_free(&b);
    return status;
}
