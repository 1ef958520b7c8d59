/**
 * lm/tokenizer_build.h: making a tokenizer from its parts. They become GGUF metadata in memory and are read like a file's, so that there
 * is one way in.
 */
#ifndef ATTN_LM_TOKENIZER_BUILD_H
#define ATTN_LM_TOKENIZER_BUILD_H

#include <attn/tokenizer.h>

#include "lm/gguf_build.h"

/** A token: its bytes (or, for a special one, its text). */
typedef struct token_part {
    const char *bytes;
    size_t size;
    uint8_t kind; /**< a token_kind */
} token_part;

/** Two tokens that become one. */
typedef struct merge_part {
    int32_t left, right;
} merge_part;

typedef struct tokenizer_parts {
    const char *pre; /**< the pre-split */
    const token_part *tokens;
    int32_t count;
    const merge_part *merges;
    int32_t merge_count; /**< −1: the caller appends tokenizer.ggml.merges itself */
    int32_t end;         /**< id of the end of text, −1: none */
} tokenizer_parts;

/** Appends the tokenizer.ggml.* pairs. */
void tokenizer_put(gguf_build *b, const tokenizer_parts *parts);

/** The same from the text of a tokenizer.json, without an end of text. Errors: FORMAT, UNSUPPORTED, NO_MEMORY. */
attn_status tokenizer_put_json(gguf_build *b, const char *json, size_t size);

/** Errors: as attn_tokenizer_create. */
attn_status tokenizer_from_parts(const tokenizer_parts *parts, attn_tokenizer **tokenizer);

#endif
