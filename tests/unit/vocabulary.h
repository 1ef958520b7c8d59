/**
 * vocabulary.h: small vocabularies for tests, written to a GGUF file and read back as a tokenizer.
 */
#ifndef TESTS_VOCABULARY_H
#define TESTS_VOCABULARY_H

#include <attn/tokenizer.h>

enum { MAX_TOKENS = 600, MAX_MERGES = 300 };

/** A vocabulary to be: token texts as the file spells them. */
typedef struct vocabulary {
    const char *model, *pre;
    char tokens[MAX_TOKENS][64];
    int32_t kinds[MAX_TOKENS];
    size_t token_count;
    char merges[MAX_MERGES][64];
    size_t merge_count;
    int bos, eos, add_bos; /* −1: not in the file */
    const char *chat_template;
} vocabulary;

/** The 256 bytes, token i for byte i, and nothing else; free with free(). */
vocabulary *bytes_vocabulary(const char *pre);

/** One more token; its kind as in tokenizer.ggml.token_type. */
void add_token(vocabulary *v, const char *text, int32_t kind);

/** One more merge, and the token it makes where there is none yet. */
void add_merge(vocabulary *v, const char *left, const char *right);

/** attn_tokenizer_create from a file of this vocabulary, which is closed again before this returns.
 */
attn_status vocabulary_tokenizer(const vocabulary *v, attn_tokenizer **t);

/** The same where it must succeed; frees the vocabulary. */
attn_tokenizer *tokenizer_of(vocabulary *v);

#endif
