/**
 * lm/tokenizer_vocab.h: the tokens of a file: their bytes, their kinds, and both found by their
 * bytes.
 */
#ifndef ATTN_LM_TOKENIZER_VOCAB_H
#define ATTN_LM_TOKENIZER_VOCAB_H

#include <attn/gguf.h>

/** Kinds of tokens, with the file's numbers. */
typedef enum token_kind {
    TOKEN_UNDEFINED = 0,
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
} token_kind;

/** A token in a list sorted by bytes. */
typedef struct vocab_entry {
    uint64_t prefix; /**< the first 8 bytes, the first of them highest, 0 beyond the end: settles
                        most comparisons */
    int32_t id;
} vocab_entry;

typedef struct vocab {
    int32_t count;
    char *bytes;   /**< of all tokens, one after the other */
    size_t *start; /**< [count + 1] token i is bytes[start[i] … start[i + 1]) */
    uint8_t *kind; /**< [count] */

    vocab_entry *ordinary; /**< tokens that text is made of, by their bytes */
    int32_t ordinary_count;
    vocab_entry *special; /**< control, user-defined and unknown tokens, by their bytes */
    int32_t special_count;
    int32_t byte[256]; /**< the token of one byte, −1 where the vocabulary has none */
} vocab;

/** Reads tokenizer.ggml.tokens and token_type; vocab_free after any outcome. */
attn_status vocab_load(vocab *v, const attn_gguf *file);
void vocab_free(vocab *v);

/** The ordinary token with exactly these bytes, or −1. */
int32_t vocab_find(const vocab *v, const char *bytes, size_t size);

/** The special token with exactly these bytes, or −1. */
int32_t vocab_find_special(const vocab *v, const char *bytes, size_t size);

/** The longest special token that text[0 … size) starts with, or −1. */
int32_t vocab_match_special(const vocab *v, const char *text, size_t size);

/**
 * Undoes GPT-2's byte alphabet (bytes that print stand for themselves, the others are U+0100 …):
 * writes the bytes that text[0 … size) stands for to `bytes` (room for `size`). False where a
 * character is not of the alphabet.
 */
bool vocab_decode(const char *text, size_t size, char *bytes, size_t *count);

/** The character of GPT-2's alphabet that a byte is written as: 1 or 2 bytes of UTF-8 in text; how many. */
size_t vocab_encode_byte(unsigned char byte, char text[2]);

/** The token's bytes. */
static inline const char *vocab_bytes(const vocab *v, int32_t id, size_t *size)
{
    *size = v->start[id + 1] - v->start[id];
    return v->bytes + v->start[id];
}

#endif
