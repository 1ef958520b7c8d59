/* The merges of a file, and their index. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/bpe.h"

#define MERGES "tokenizer.ggml.merges"

static attn_status bad_merge(const attn_gguf *file, int32_t rank, attn_gguf_string text,
                             const char *why)
{
    return attn_fail(ATTN_ERR_FORMAT, "%s: " MERGES "[%d] '%.*s' %s", attn_gguf_path(file), rank,
                     (int)(text.size < 64 ? text.size : 64), text.data, why);
}

/* One "left right"; bytes[0 … room) takes both, decoded. */
static attn_status read_merge(bpe *b, int32_t rank, const vocab *v, const attn_gguf *file,
                              attn_gguf_string text, char *bytes)
{
    const char *space = text.size > 1 ? memchr(text.data + 1, ' ', text.size - 1) : NULL;
    size_t left_text = space ? (size_t)(space - text.data) : 0, left, right;
    if (!space || left_text + 1 == text.size) {
        return bad_merge(file, rank, text, "is not two pieces with a space between them");
    }
    if (!vocab_decode(text.data, left_text, bytes, &left) ||
        !vocab_decode(space + 1, text.size - left_text - 1, bytes + left, &right)) {
        return bad_merge(file, rank, text, "has characters outside the byte alphabet");
    }
    bpe_merge merge = {.left = vocab_find(v, bytes, left),
                       .right = vocab_find(v, bytes + left, right),
                       .result = vocab_find(v, bytes, left + right)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
        return bad_merge(file, rank, text, "joins or makes a piece that is no token");
    }
    b->merges[rank] = merge;
    return ATTN_OK;
}

static attn_status read_merges(bpe *b, const vocab *v, const attn_gguf *file)
{
    char *bytes = NULL;
    size_t room = 0;
    attn_status status = ATTN_OK;
    for (int32_t i = 0; i < b->count && status == ATTN_OK; i++) {
        attn_gguf_string text;
        attn_gguf_array_string(file, MERGES, i, &text);
        if (text.size > room) {
            free(bytes);
            room = 2 * text.size;
            bytes = malloc(room);
            if (!bytes) {
                return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a merge of %zu bytes",
                                 text.size);
            }
        }
        status = read_merge(b, i, v, file, text, bytes);
    }
    free(bytes);
    return status;
}

static int by_pair(const void *a, const void *b, void *user)
{
    const bpe_merge *merges = user;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const bpe_merge *x = &merges[i], *y = &merges[j];
    if (x->left != y->left) {
        return x->left < y->left ? -1 : 1;
    }
    if (x->right != y->right) {
        return x->right < y->right ? -1 : 1;
    }
    return (i > j) - (i < j);
}

static void index_merges(bpe *b, int32_t tokens)
{
    for (int32_t i = 0; i < b->count; i++) {
        b->by_pair[i] = i;
    }
    qsort_r(b->by_pair, (size_t)b->count, sizeof *b->by_pair, by_pair, b->merges);
    /* Of a pair that is there twice, the first rank counts. */
    for (int32_t i = 0; i < b->count; i++) {
        const bpe_merge *m = &b->merges[b->by_pair[i]];
        const bpe_merge *before = b->pairs ? &b->merges[b->by_pair[b->pairs - 1]] : NULL;
        if (!before || before->left != m->left || before->right != m->right) {
            b->by_pair[b->pairs++] = b->by_pair[i];
        }
    }
    int32_t at = 0;
    for (int32_t left = 0; left <= tokens; left++) {
        while (at < b->pairs && b->merges[b->by_pair[at]].left < left) {
            at++;
        }
        b->first[left] = at;
    }
}

attn_status bpe_load(bpe *b, const vocab *v, const attn_gguf *file)
{
    *b = (bpe){0};
    attn_gguf_type element;
    int64_t count;
    if (!attn_gguf_get_array(file, MERGES, &element, &count) || element != ATTN_GGUF_STRING ||
        count > INT32_MAX - 1) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: no merges (" MERGES " must be an array of strings)",
                         attn_gguf_path(file));
    }
    b->count = (int32_t)count;
    b->merges = malloc((size_t)(count + 1) * sizeof *b->merges);
    b->by_pair = malloc((size_t)(count + 1) * sizeof *b->by_pair);
    b->first = malloc(((size_t)v->count + 1) * sizeof *b->first);
    if (!b->merges || !b->by_pair || !b->first) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for %lld merges", (long long)count);
    }
    attn_status status = read_merges(b, v, file);
    if (status == ATTN_OK) {
        index_merges(b, v->count);
    }
    return status;
}

void bpe_free(bpe *b)
{
    free(b->merges);
    free(b->by_pair);
    free(b->first);
    *b = (bpe){0};
}
