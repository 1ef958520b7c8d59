/**
 * attn/sampler.h: logits → the next token.
 * Order: repetition penalty → temperature → top-k → top-p → min-p → draw.
 */
#ifndef ATTN_SAMPLER_H
#define ATTN_SAMPLER_H

#include <attn/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_sampler attn_sampler;

typedef struct attn_sampler_options {
    size_t struct_size;
    double temperature; /**< 0: greedy (the largest logit; ties: the smallest id) */
    int64_t top_k;      /**< keep the k largest; 0: all */
    double top_p; /**< keep the smallest set with probability ≥ p (Holtzman et al. 2020); 1: all */
    double min_p; /**< keep tokens with probability ≥ min_p·max; 0: all */
    double
        repeat_penalty; /**< > 0; logits of recent tokens: divided if positive, multiplied if negative (Keskar et al. 2019); 1: off */
    int64_t repeat_window; /**< how many recent tokens count, default 64 */
    uint64_t seed;
} attn_sampler_options;

/** temperature 0, top_k 0, top_p 1, min_p 0, repeat_penalty 1, repeat_window 64, seed 0. */
ATTN_API attn_sampler_options attn_sampler_options_init(void);

/** Errors: ARGUMENT names the option and its range; NO_MEMORY. */
ATTN_API attn_status attn_sampler_create(const attn_sampler_options *options, int64_t vocab,
                                         attn_sampler **sampler);
ATTN_API void attn_sampler_destroy(attn_sampler *sampler);

/** Tells the sampler a token of the text so far (prompt or chosen elsewhere), for the repetition penalty. */
ATTN_API void attn_sampler_accept(attn_sampler *sampler, int32_t id);

/** Chooses from logits[vocab] (not changed), accepts and returns the token. NaN logits: ATTN_ERR_ARGUMENT. */
ATTN_API attn_status attn_sampler_sample(attn_sampler *sampler, const float *logits, int32_t *id);

typedef struct attn_token_logprob {
    int32_t id;
    float logprob; /**< natural log of softmax of the raw logits */
} attn_token_logprob;

/** best[k] = the k most probable tokens, most probable first, of log-softmax(logits) (f64 sums). 1 ≤ k ≤ vocab. */
ATTN_API attn_status attn_logprobs_top(const float *logits, int64_t vocab, int64_t k,
                                       attn_token_logprob *best);

#ifdef __cplusplus
}
#endif
#endif
