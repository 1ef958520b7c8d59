/**
 * attn/mask.h: constructors of boolean masks (1 = attend). Most uses need none of them: causal, window
 * and lengths are options of attn_sdpa and cost no memory.
 */
#ifndef ATTN_MASK_H
#define ATTN_MASK_H

#include <attn/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Each writes `mask`: BOOL, its last two dimensions [len_q, len_k], the leading ones (if any) filled alike or, where the constructor has
 * something per sequence, dimension 0 of a 4-D mask being the batch. Errors: SHAPE, DTYPE, ARGUMENT.
 */

/** mask[i,j] = j ≤ i (TOP_LEFT) or j ≤ i + len_k − len_q (BOTTOM_RIGHT); NONE gives all ones. */
ATTN_API attn_status attn_mask_causal(const attn_view *mask, attn_causal causal);

/** mask[i,j] = p(i)−left ≤ j ≤ p(i)+right, and j ≤ p(i) unless NONE; −1: unlimited on that side. */
ATTN_API attn_status attn_mask_sliding(const attn_view *mask, attn_causal causal, int64_t left,
                                       int64_t right);

/** mask[b,…,i,j] = j < lengths[b]; a 4-D mask with shape[0] == batch. 0 ≤ lengths[b] ≤ len_k. */
ATTN_API attn_status attn_mask_padding(const attn_view *mask, const int64_t *lengths,
                                       int64_t batch);

/** mask[i,j] = ids_q[i] == ids_k[j]: several documents in one row (ids_k NULL: ids_q, len_q == len_k). */
ATTN_API attn_status attn_mask_block_diagonal(const attn_view *mask, const int64_t *ids_q,
                                              const int64_t *ids_k);

/** mask[i,j] = j < prefix, or causal bottom-right: the prefix is seen by all, the rest causally. */
ATTN_API attn_status attn_mask_prefix_lm(const attn_view *mask, int64_t prefix);

#ifdef __cplusplus
}
#endif
#endif
