/**
 * lm/bpe.h: byte-pair merging of one word (Sennrich et al. 2016): while any adjacent pair has a
 * merge, the one of lowest rank, leftmost first, becomes one token.
 */
#ifndef ATTN_LM_BPE_H
#define ATTN_LM_BPE_H

#include "lm/tokenizer_vocab.h"

/** One merge: left and right become `result`. */
typedef struct bpe_merge {
    int32_t left, right, result;
} bpe_merge;

typedef struct bpe {
    bpe_merge *merges; /**< by rank */
    int32_t count;
    int32_t *by_pair; /**< ranks, by (left, right), without repeated pairs */
    int32_t pairs;
    int32_t *first; /**< [tokens + 1] those of `left` are by_pair[first[left] … first[left + 1]) */
} bpe;

/** Reads tokenizer.ggml.merges; bpe_free after any outcome. */
attn_status bpe_load(bpe *b, const vocab *v, const attn_gguf *file);
void bpe_free(bpe *b);

typedef struct bpe_symbol {
    int32_t id; /**< −1: merged into the one before it */
    int32_t previous, next;
} bpe_symbol;

/** Memory for merging, kept between words; zeroed to begin with. */
typedef struct bpe_work {
    bpe_symbol *symbols;
    uint64_t *heap;
    size_t capacity; /**< symbols; the heap has twice as many entries */
    size_t heap_size;
} bpe_work;

void bpe_work_free(bpe_work *work);

/**
 * Merges the tokens ids[0 … count) of one word in place and sets *count to how many are left.
 * O(count·log count). NO_MEMORY leaves them as they were.
 */
attn_status bpe_merge_word(const bpe *b, bpe_work *work, int32_t *ids, size_t *count);

#endif
