/**
 * linear/sum_rows.h: the last step of sums over rows: what blocks of rows gave, added up in their order.
 */
#ifndef ATTN_LINEAR_SUM_ROWS_H
#define ATTN_LINEAR_SUM_ROWS_H

#include <attn/context.h>
#include <attn/view.h>

/** dst[i] (+)= Σ_b partial[b·stride + i] for the elements i of dst, a vector of f32 or f64, as the partial sums are. */
void attn_sum_blocks(attn_context *context, void *partial, int64_t blocks, int64_t stride,
                     bool accumulate, const attn_view *dst);

#endif
