/* Parts of a tokenizer as metadata. */
#define _GNU_SOURCE
#include "lm/tokenizer_build.h"

#include <string.h>

#include "lm/tokenizer_vocab.h"

/* Bytes in GPT-2's alphabet, without the length in front. */
static void put_alphabet(gguf_build *b, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char text[2];
        gguf_put(b, text, vocab_encode_byte((unsigned char)bytes[i], text));
    }
}

static size_t alphabet_size(const char *bytes, size_t size)
{
    size_t sum = 0;
    for (size_t i = 0; i < size; i++) {
        char text[2];
        sum += vocab_encode_byte((unsigned char)bytes[i], text);
    }
    return sum;
}

static void put_token(gguf_build *b, const token_part *token)
{
    if (token->kind == TOKEN_NORMAL) {
        gguf_put_u64(b, alphabet_size(token->bytes, token->size));
        put_alphabet(b, token->bytes, token->size);
    } else {
        gguf_put_string(b, token->bytes, token->size);
    }
}

static void put_merges(gguf_build *b, const tokenizer_parts *parts)
{
    gguf_put_array(b, "tokenizer.ggml.merges", ATTN_GGUF_STRING, (uint64_t)parts->merge_count);
    for (int32_t i = 0; i < parts->merge_count; i++) {
        const token_part *left = &parts->tokens[parts->merges[i].left];
        const token_part *right = &parts->tokens[parts->merges[i].right];
        gguf_put_u64(b, alphabet_size(left->bytes, left->size) + 1 +
                            alphabet_size(right->bytes, right->size));
        put_alphabet(b, left->bytes, left->size);
        gguf_put(b, " ", 1);
        put_alphabet(b, right->bytes, right->size);
    }
}

void tokenizer_put(gguf_build *b, const tokenizer_parts *parts)
{
    gguf_put_pair_text(b, "tokenizer.ggml.model", "gpt2");
    gguf_put_pair_text(b, "tokenizer.ggml.pre", parts->pre);
    gguf_put_array(b, "tokenizer.ggml.tokens", ATTN_GGUF_STRING, (uint64_t)parts->count);
    for (int32_t i = 0; i < parts->count; i++) {
        put_token(b, &parts->tokens[i]);
    }
    gguf_put_array(b, "tokenizer.ggml.token_type", ATTN_GGUF_I32, (uint64_t)parts->count);
    for (int32_t i = 0; i < parts->count; i++) {
        gguf_put_u32(b, parts->tokens[i].kind);
    }
    if (parts->end >= 0) {
        gguf_put_pair_u32(b, "tokenizer.ggml.eos_token_id", (uint32_t)parts->end);
    }
    gguf_put_pair_bool(b, "tokenizer.ggml.add_bos_token", false);
    if (parts->merge_count >= 0) {
        put_merges(b, parts);
    }
}

attn_status tokenizer_from_parts(const tokenizer_parts *parts, attn_tokenizer **tokenizer)
{
    gguf_build b = {0};
    attn_gguf *file = NULL;
    tokenizer_put(&b, parts);
    attn_status status = gguf_from_build(&b, "tokenizer", &file);
    if (status == ATTN_OK) {
        status = attn_tokenizer_create(file, tokenizer);
    }
    attn_gguf_close(file);
    return status;
}
