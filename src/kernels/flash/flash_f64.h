/**
 * kernels/flash/flash_f64.h: the products of attention in double, one query row against a run of keys,
 * forward and back. Portable C at every level: f64 is there to be exact, and its order of summation is the
 * same everywhere.
 */
#ifndef ATTN_KERNELS_FLASH_FLASH_F64_H
#define ATTN_KERNELS_FLASH_FLASH_F64_H

#include <stdint.h>

/** s[j] = scale·Σ_d q[d]·k[j·stride + d], j = 0 … keys−1. Long sums are added pairwise. */
void attn_flash_f64_scores(const double *q, const double *k, int64_t stride, int64_t dim,
                           int64_t keys, double scale, double *s);

/**
 * o[d] += Σ_j p[j]·v[j·stride + d] over the slots with hidden[j] == 0, in the order of j. Hidden
 * rows of V are not read.
 */
void attn_flash_f64_accumulate(const double *p, const unsigned char *hidden, const double *v,
                               int64_t stride, int64_t dim, int64_t keys, double *o);

/**
 * o[j·stride + d] += p[j]·row[d] for the slots with hidden[j] == 0: what one query row gives to the
 * gradients of a run of keys.
 */
void attn_flash_f64_spread(const double *p, const unsigned char *hidden, const double *row,
                           int64_t dim, int64_t keys, double *o, int64_t stride);

#endif
