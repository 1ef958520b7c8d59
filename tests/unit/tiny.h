/*
 * tiny.h: the tiny random llama of tests/golden, opened for tests of sessions and generation.
 */
#ifndef ATTN_TESTS_TINY_H
#define ATTN_TESTS_TINY_H

#include <attn/lm.h>

typedef struct tiny {
    attn_context *context;
    attn_gguf *file;
    attn_tokenizer *tokenizer;
    attn_model *model;
} tiny;

/* Path of tiny.gguf, from the program's first argument. */
extern const char *tiny_path;

/* Opens everything or fails the test. */
tiny tiny_open(int threads, attn_activations activations);
void tiny_close(tiny *t);

/* A session of `context` tokens (0: the model's), `prefill` a block (0: the default). */
attn_session *tiny_session(const tiny *t, int64_t context, int64_t window, int64_t prefill,
                           attn_dtype kv);

/* ids[count] of a fixed sequence of ordinary tokens. */
void tiny_ids(uint64_t seed, int32_t *ids, int64_t count);

/* A tensor's floats, q and k in the order for halves where wanted; malloc'd. */
float *tiny_floats(const attn_gguf *file, const attn_gguf_tensor *t, bool halves);

enum { TINY_TOKENS = 24 };

/* logits[TINY_TOKENS · vocab] of a fixed text, in f32 arithmetic; malloc'd. */
float *tiny_logits(attn_context *context, const attn_gguf *file);

/* xorshift64*: [0, n) */
uint64_t tiny_random(uint64_t *state, uint64_t n);

#endif
