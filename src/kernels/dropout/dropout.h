/**
 * kernels/dropout: which weights dropout keeps, from Philox4x32-10 (Salmon et al. 2011) with
 *   key = seed, counter = (column/4, row, query head, batch), word = column mod 4
 * A weight is kept, and counts `scale` times, when its word is ≥ threshold. So the mask depends on
 * nothing but the slot: not on tiles, threads or ISA levels, which all give the same bits.
 */
#ifndef ATTN_KERNELS_DROPOUT_DROPOUT_H
#define ATTN_KERNELS_DROPOUT_DROPOUT_H

#include <attn/context.h>

enum { ATTN_DROPOUT_LANES = 64 }; /* query rows of a tile, as in kernels/flash */

typedef struct attn_dropout_key {
    uint64_t seed;
    uint32_t threshold; /* ⌊p·2³²⌋ */
    float scale;        /* 1/(1−p) */
    uint32_t batch;
    _Alignas(
        64) uint32_t row[ATTN_DROPOUT_LANES]; /* of each lane; lanes beyond those in use: any */
    _Alignas(64) uint32_t head[ATTN_DROPOUT_LANES]; /* query head */
} attn_dropout_key;

/**
 * to[j·64 + r] = from[j·64 + r]·factor, or the factor itself (0 or scale) where `from` is NULL, for
 * column + j, j < keys, and lanes r < lanes rounded up to a multiple of 16. `to` may be `from`; both
 * are aligned to 64 bytes; column ≥ 0.
 */
typedef void attn_dropout_tile_fn(const attn_dropout_key *d, int64_t column, int32_t keys,
                                  int32_t lanes, const float *from, float *to);

/** factor[c] for columns column … column+count−1 of one row, portable C: (row, head) are lane 0's. */
void attn_dropout_row(const attn_dropout_key *d, int64_t column, int64_t count, float *factor);

/** The best kernel for a level; C for levels it does not know. Never NULL. */
attn_dropout_tile_fn *attn_dropout_tile_for(attn_isa isa);

attn_dropout_tile_fn attn_dropout_tile_c, attn_dropout_tile_avx2, attn_dropout_tile_avx512;

#endif
