/**
 * naive.h: attention by the four-line formula with the whole weight matrix in memory: what bench and profile put beside attn_sdpa. Written
 * the way a careful person would in plain C (loops that a compiler can vectorise), no further.
 */
#ifndef ATTN_CLI_NAIVE_H
#define ATTN_CLI_NAIVE_H

#include <stdbool.h>
#include <stdint.h>

/** Floats of working memory: the weights, and Kᵀ. */
int64_t naive_floats(int64_t len_q, int64_t len_k, int64_t dim);

/**
 * out = softmax(Q·Kᵀ/√dim)·V of one head; q [len_q, dim], k [len_k, dim], v [len_k, dim], dense f32; causal: bottom-right.
 * Masked scores are computed and thrown away, as the formula says.
 */
void naive_sdpa(const float *q, const float *k, const float *v, int64_t len_q, int64_t len_k,
                int64_t dim, bool causal, float *work, float *out);

#endif
