/**
 * lm/bpe_train.h: learning merges from counted words (Sennrich et al. 2016).
 */
#ifndef ATTN_LM_BPE_TRAIN_H
#define ATTN_LM_BPE_TRAIN_H

#include "lm/tokenizer_build.h"

/** A word and how often the text has it. */
typedef struct counted_word {
    const char *bytes; /**< in the text */
    size_t size;
    int64_t count;
} counted_word;

/** Words of a text, each once, in the order of their first place. */
typedef struct word_list {
    counted_word *words;
    size_t count, room;
    uint32_t *table; /**< open addressing: index + 1, 0: free */
    size_t slots;    /**< a power of two */
} word_list;

/** The words of text[0 … size) as GPT-2's expression cuts it; word_list_free after any outcome. Bytes that are no UTF-8 are left out. */
attn_status word_list_count(word_list *list, const char *text, size_t size);
void word_list_free(word_list *list);

typedef struct bpe_training {
    int32_t byte[256]; /**< the token of each byte */
    int32_t vocab;     /**< tokens to stop at */
    int64_t min_count; /**< ≥ 1 */
    bool (*cancel)(void *user);
    void *cancel_user;
} bpe_training;

/**
 * Tokens grow from tokens[*count), which hold the bytes, to at most training->vocab; merges[*merge_count) become what was learned. Both arrays are
 * malloc'd and may be moved; bytes of new tokens are malloc'd into *pool, which the caller frees as they are used.
 */
typedef struct bpe_learned {
    token_part *tokens;
    int32_t count, token_room;
    merge_part *merges;
    int32_t merge_count, merge_room;
    char **blocks; /**< memory of the new tokens' bytes */
    size_t block_count, block_room, block_used;
} bpe_learned;

void bpe_learned_free(bpe_learned *l);

/** Errors: NO_MEMORY, CANCELLED. */
attn_status bpe_learn(const word_list *list, const bpe_training *training, bpe_learned *learned);

#endif
