#include "vocabulary.h"
#include "gguf_bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void add_token(vocabulary *v, const char *text, int32_t kind)
{
    assert_true(v->token_count < MAX_TOKENS && strlen(text) < 64);
    strcpy(v->tokens[v->token_count], text);
    v->kinds[v->token_count++] = kind;
}

/* The character that GPT-2's alphabet writes a byte as, in UTF-8. */
static void spell(unsigned byte, char text[3])
{
    unsigned code = byte;
    if (byte <= 0x20) {
        code = 0x100 + byte;
    } else if (byte >= 0x7f && byte <= 0xa0) {
        code = 0x121 + byte - 0x7f;
    } else if (byte == 0xad) {
        code = 0x143;
    }
    if (code < 0x80) {
        text[0] = (char)code;
        text[1] = 0;
    } else {
        text[0] = (char)(0xc0 | code >> 6);
        text[1] = (char)(0x80 | (code & 0x3f));
    }
    text[2] = 0;
}

void add_merge(vocabulary *v, const char *left, const char *right)
{
    char joined[64];
    assert_true(v->merge_count < MAX_MERGES);
    snprintf(v->merges[v->merge_count++], 64, "%s %s", left, right);
    snprintf(joined, sizeof joined, "%s%s", left, right);
    for (size_t i = 0; i < v->token_count; i++) {
        if (strcmp(v->tokens[i], joined) == 0) {
            return;
        }
    }
    add_token(v, joined, 1);
}

vocabulary *bytes_vocabulary(const char *pre)
{
    vocabulary *v = calloc(1, sizeof *v);
    assert_non_null(v);
    v->model = "gpt2";
    v->pre = pre;
    v->bos = v->eos = v->add_bos = -1;
    for (unsigned b = 0; b < 256; b++) {
        char text[3];
        spell(b, text);
        add_token(v, text, 1);
    }
    return v;
}

static bytes file_of(const vocabulary *v)
{
    const char *tokens[MAX_TOKENS], *merges[MAX_MERGES];
    for (size_t i = 0; i < v->token_count; i++) {
        tokens[i] = v->tokens[i];
    }
    for (size_t i = 0; i < v->merge_count; i++) {
        merges[i] = v->merges[i];
    }
    bytes b = {0};
    put_header(&b, 3, 0,
               4u + (v->pre != NULL) + (v->bos >= 0) + (v->eos >= 0) + (v->add_bos >= 0) +
                   (v->chat_template != NULL));
    put_pair_string(&b, "tokenizer.ggml.model", v->model);
    put_pair_strings(&b, "tokenizer.ggml.tokens", tokens, v->token_count);
    put_pair_i32s(&b, "tokenizer.ggml.token_type", v->kinds, v->token_count);
    put_pair_strings(&b, "tokenizer.ggml.merges", merges, v->merge_count);
    if (v->pre) {
        put_pair_string(&b, "tokenizer.ggml.pre", v->pre);
    }
    if (v->bos >= 0) {
        put_pair_u32(&b, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    }
    if (v->eos >= 0) {
        put_pair_u32(&b, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    }
    if (v->add_bos >= 0) {
        put_pair_bool(&b, "tokenizer.ggml.add_bos_token", v->add_bos);
    }
    if (v->chat_template) {
        put_pair_string(&b, "tokenizer.chat_template", v->chat_template);
    }
    return b;
}

attn_status vocabulary_tokenizer(const vocabulary *v, attn_tokenizer **t)
{
    bytes b = file_of(v);
    attn_gguf *file;
    assert_int_equal(open_bytes(b.data, b.size, &file), ATTN_OK);
    attn_status status = attn_tokenizer_create(file, t);
    attn_gguf_close(file); /* the tokenizer must not need it any more */
    bytes_free(&b);
    return status;
}

attn_tokenizer *tokenizer_of(vocabulary *v)
{
    attn_tokenizer *t;
    attn_status status = vocabulary_tokenizer(v, &t);
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    assert_int_equal(status, ATTN_OK);
    free(v);
    return t;
}
