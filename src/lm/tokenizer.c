/* Making a tokenizer from a file's metadata, and what it tells about its tokens. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/tokenizer_impl.h"

/* Texts of tokens that end a turn or a text in the model families that use this kind of tokenizer;
 * files often name only one of theirs. */
static const char *const end_texts[] = {
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>",
    "<|end|>",    "</s>",          "<EOT>",
};

static attn_status check_model(const attn_gguf *file)
{
    attn_gguf_string model;
    if (!attn_gguf_get_string(file, "tokenizer.ggml.model", &model)) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: no tokenizer (tokenizer.ggml.model is not there)",
                         attn_gguf_path(file));
    }
    if (model.size != 4 || memcmp(model.data, "gpt2", 4) != 0) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: tokenizer.ggml.model is '%.*s'; only 'gpt2' (byte-level BPE) can be "
                         "read yet",
                         attn_gguf_path(file), (int)(model.size < 64 ? model.size : 64),
                         model.data);
    }
    return ATTN_OK;
}

static attn_status load_splitter(attn_tokenizer *t, const attn_gguf *file)
{
    attn_gguf_string pre;
    if (!attn_gguf_get_string(file, "tokenizer.ggml.pre", &pre)) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: tokenizer.ggml.pre is not there, so how text is split into words is "
                         "unknown; convert the model again with a current converter",
                         attn_gguf_path(file));
    }
    return splitter_create(pre.data, pre.size, &t->splitter);
}

/* A token id from the metadata: −1 where the key is absent, an error where it is no token. */
static attn_status read_id(const attn_tokenizer *t, const attn_gguf *file, const char *key,
                           int32_t *id)
{
    int64_t value;
    *id = -1;
    if (!attn_gguf_get_int(file, key, &value)) {
        return ATTN_OK;
    }
    if (value < 0 || value >= t->vocab.count) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: %s is %lld, but tokens are 0 … %d",
                         attn_gguf_path(file), key, (long long)value, t->vocab.count - 1);
    }
    *id = (int32_t)value;
    return ATTN_OK;
}

static attn_status load_ends(attn_tokenizer *t, const attn_gguf *file)
{
    t->ends = calloc((size_t)t->vocab.count, sizeof *t->ends);
    if (!t->ends) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for %d tokens", t->vocab.count);
    }
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int32_t id;
        attn_status status = read_id(t, file, keys[i], &id);
        if (status != ATTN_OK) {
            return status;
        }
        if (id >= 0) {
            t->ends[id] = true;
        }
        if (i == 0) {
            t->eos = id;
        }
    }
    for (size_t i = 0; i < sizeof end_texts / sizeof *end_texts; i++) {
        int32_t id = attn_tokenizer_special(t, end_texts[i]);
        if (id >= 0) {
            t->ends[id] = true;
        }
    }
    return ATTN_OK;
}

static attn_status load_special(attn_tokenizer *t, const attn_gguf *file)
{
    attn_status status = read_id(t, file, "tokenizer.ggml.bos_token_id", &t->bos);
    if (status == ATTN_OK) {
        status = load_ends(t, file);
    }
    if (status != ATTN_OK) {
        return status;
    }
    t->add_bos = splitter_default_bos(t->splitter);
    attn_gguf_get_bool(file, "tokenizer.ggml.add_bos_token", &t->add_bos);
    attn_gguf_string template;
    if (attn_gguf_get_string(file, "tokenizer.chat_template", &template)) {
        t->chat_template = strndup(template.data, template.size);
        if (!t->chat_template) {
            return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a chat template of %zu bytes",
                             template.size);
        }
    }
    return ATTN_OK;
}

attn_status attn_tokenizer_create(const attn_gguf *file, attn_tokenizer **tokenizer)
{
    if (!tokenizer) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tokenizer: NULL; give the address of a pointer");
    }
    *tokenizer = NULL;
    if (!file) {
        return attn_fail(ATTN_ERR_ARGUMENT, "file: NULL; open one with attn_gguf_open");
    }
    attn_tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a tokenizer");
    }
    attn_status status = check_model(file);
    if (status == ATTN_OK) {
        status = load_splitter(t, file);
    }
    if (status == ATTN_OK) {
        status = vocab_load(&t->vocab, file);
    }
    if (status == ATTN_OK) {
        status = bpe_load(&t->bpe, &t->vocab, file);
    }
    if (status == ATTN_OK) {
        status = load_special(t, file);
    }
    if (status != ATTN_OK) {
        attn_tokenizer_destroy(t);
        return status;
    }
    *tokenizer = t;
    return ATTN_OK;
}

void attn_tokenizer_destroy(attn_tokenizer *t)
{
    if (!t) {
        return;
    }
    splitter_destroy(t->splitter);
    vocab_free(&t->vocab);
    bpe_free(&t->bpe);
    free(t->ends);
    free(t->chat_template);
    free(t);
}

const char *attn_tokenizer_piece(const attn_tokenizer *t, int32_t id, bool special, size_t *size)
{
    if (size) {
        *size = 0;
    }
    if (!t || id < 0 || id >= t->vocab.count) {
        return NULL;
    }
    uint8_t kind = t->vocab.kind[id];
    if (!special && (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN)) {
        return "";
    }
    size_t bytes;
    const char *piece = vocab_bytes(&t->vocab, id, &bytes);
    if (size) {
        *size = bytes;
    }
    return piece;
}

int64_t attn_tokenizer_vocab_size(const attn_tokenizer *t)
{
    return t ? t->vocab.count : 0;
}

int32_t attn_tokenizer_bos(const attn_tokenizer *t)
{
    return t ? t->bos : -1;
}

int32_t attn_tokenizer_eos(const attn_tokenizer *t)
{
    return t ? t->eos : -1;
}

bool attn_tokenizer_is_end(const attn_tokenizer *t, int32_t id)
{
    return t && id >= 0 && id < t->vocab.count && t->ends[id];
}

bool attn_tokenizer_has_chat_template(const attn_tokenizer *t)
{
    return t && t->chat_template;
}

int32_t attn_tokenizer_special(const attn_tokenizer *t, const char *text)
{
    return t && text ? vocab_find_special(&t->vocab, text, strlen(text)) : -1;
}
