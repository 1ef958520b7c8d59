/**
 * kernels/dropout/dropout_span.h: dropout of a plain array, element by element. Element i of the array is kept when word i mod 4 of
 * Philox4x32-10 with key = seed and counter = (i/4 low, i/4 high, 0, 0) is ≥ threshold. All levels give the same bits.
 */
#ifndef ATTN_KERNELS_DROPOUT_DROPOUT_SPAN_H
#define ATTN_KERNELS_DROPOUT_DROPOUT_SPAN_H

#include <attn/context.h>

/** y[k] = x[k]·scale where element at + k is kept, else 0, k < n; whatever a dropped x[k] holds. y may be x; at ≥ 0, n ≥ 0. */
typedef void attn_dropout_span_fn(uint64_t seed, uint32_t threshold, float scale, int64_t at,
                                  const float *x, int64_t n, float *y);

/** The best kernel for a level; C for levels it does not know. Never NULL. */
attn_dropout_span_fn *attn_dropout_span_for(attn_isa isa);

attn_dropout_span_fn attn_dropout_span_c, attn_dropout_span_avx2, attn_dropout_span_avx512;

/** The same in f64. */
void attn_dropout_span_f64_c(uint64_t seed, uint32_t threshold, double scale, int64_t at,
                             const double *x, int64_t n, double *y);

#endif
