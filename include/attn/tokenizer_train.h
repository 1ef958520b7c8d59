/**
 * attn/tokenizer_train.h: tokenizers made from a text, and tokenizers as JSON: the form of Hugging Face's tokenizer.json, so
 * that a trained model can carry its own.
 */
#ifndef ATTN_TOKENIZER_TRAIN_H
#define ATTN_TOKENIZER_TRAIN_H

#include <attn/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_tokenizer_train_options {
    size_t struct_size;
    int64_t vocab;     /**< BPE: tokens in all, end_text and the 256 bytes counted; 0: 2,304 */
    int64_t min_count; /**< BPE: a pair that occurs less often is not merged; 0: 2 */
    const char *
        end_text; /**< text of a special token with id 0 that ends texts, as no other token is written; NULL: none */
    bool (*cancel)(void *user); /**< asked between merges; true stops with CANCELLED */
    void *cancel_user;
} attn_tokenizer_train_options;

/** Zeros but for struct_size, and end_text "<|endoftext|>". */
ATTN_API attn_tokenizer_train_options attn_tokenizer_train_options_init(void);

/**
 * Byte-level BPE (Sennrich et al. 2016, Radford et al. 2019): the text is cut into words with GPT-2's expression; again and again the most frequent pair of
 * neighbouring tokens within words becomes a token; of equally frequent ones that with the smaller left id, then the smaller right id. The
 * result depends on the text alone. Ids: end_text (if any), the 256 bytes in the order of their characters in GPT-2's byte alphabet, the merges: as Hugging Face's trainer gives them with the
 * whole alphabet as initial one. There may be fewer tokens than `vocab` when no pair is frequent enough. Any bytes may be
 * in the text; encoding gives back any bytes. `options` may be NULL. Errors: ARGUMENT, NO_MEMORY, UNSUPPORTED (text of 2^31 − 1 bytes or more), CANCELLED.
 */
ATTN_API attn_status attn_tokenizer_train_bpe(const char *text, size_t size,
                                              const attn_tokenizer_train_options *options,
                                              attn_tokenizer **tokenizer);

/**
 * One token per character: end_text (if any), the text's code points in ascending order, then bytes of it that are no UTF-8. Characters that the
 * text does not have are left out when encoding. `vocab` and `min_count` are not used.
 */
ATTN_API attn_status attn_tokenizer_train_chars(const char *text, size_t size,
                                                const attn_tokenizer_train_options *options,
                                                attn_tokenizer **tokenizer);

/**
 * The tokenizer as *json (malloc'd, NUL-terminated; caller frees): what Hugging Face's `tokenizers` reads as tokenizer.json and encodes equally with. Tokens one per
 * character are a BPE model without merges behind a split into characters. Pre-splits gpt-2, smollm and characters; UNSUPPORTED names another, or tells that two tokens are written alike.
 */
ATTN_API attn_status attn_tokenizer_to_json(const attn_tokenizer *tokenizer, char **json);

/**
 * Reads such a JSON text (hostile until checked; at most 16 MiB). The end of text is the first special token that a known model family ends
 * with ("<|endoftext|>", …). Errors: FORMAT, UNSUPPORTED (names what is not known), NO_MEMORY, ARGUMENT.
 */
ATTN_API attn_status attn_tokenizer_from_json(const char *json, size_t size,
                                              attn_tokenizer **tokenizer);

#ifdef __cplusplus
}
#endif
#endif
