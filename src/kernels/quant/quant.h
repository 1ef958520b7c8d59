/**
 * kernels/quant/quant.h: y = x·Wᵀ with 4- or 8-bit weights in blocks of 32 and activations quantised to 8 bits
 * in blocks of 32.
 *
 * Weights are repacked once into panels of 16 rows (outputs), so that a vector lane is an output and no
 * sum ever crosses lanes. Panels lie one after the other. Missing rows of the last panel are zeros.
 *
 * Q4 panel (of Q4_1, and of Q4_0 with m = −8·d), per block of 32 columns 320 bytes, five cache lines:
 *     4 × 64 bytes   vector j, row r: bytes 4r … 4r+3 hold columns 4j … 4j+3 in their low nibbles and
 *                    columns 16+4j … 16+4j+3 in their high ones
 *     16 f16 d, 16 f16 m                                                      w = d·q + m
 *
 * Q8 panel, per two blocks 1088 bytes, 17 cache lines (an odd last block leaves its partner zero):
 *     2 × 8 × 64 bytes   vector j, row r: columns 4j … 4j+3 as q + 128, unsigned for vpdpbusd
 *     2 × 16 f16 d                                                            w = d·q
 *
 * Activations: a tile of 1 … 8 rows of x; per block of 32 columns a record of 44·rows bytes:
 *     int8 q[rows][32], float scale[rows], float sum[rows] = scale·Σq, int32 shift[rows] = −128·Σq
 * scale = max|x|/127, q = x·(127/max|x|) rounded to nearest even. A block whose largest magnitude is
 * below 2^-110 counts as zeros. A block with a NaN or an infinity has scale = sum = NaN and q = 0:
 * every output of that row is NaN, and no other row's. All levels give the same bits of a tile.
 *
 * Products: y = bias + Σ_blocks d·scale·Σ(q_w·q_x) + m·sum; integer sums are exact, the float sum runs
 * block after block, whatever the rows and panels taken together.
 */
#ifndef ATTN_KERNELS_QUANT_QUANT_H
#define ATTN_KERNELS_QUANT_QUANT_H

#include <attn/context.h>

#define ATTN_QUANT_BLOCK    32 /* columns that share a scale */
#define ATTN_QUANT_PANEL    16 /* rows of W in a panel */
#define ATTN_QUANT_ROWS     8  /* most rows of x in a tile */
#define ATTN_QUANT_Q4_BLOCK 320
#define ATTN_QUANT_Q8_PAIR  1088
#define ATTN_QUANT_RECORD   44 /* bytes of a tile per row and block */

/* Below this a block of activations counts as zeros: 127/max stays finite and scale stays normal. */
#define ATTN_QUANT_TINY 0x1p-110f

static inline size_t attn_quant_q4_panel_bytes(int64_t blocks)
{
    return (size_t)blocks * ATTN_QUANT_Q4_BLOCK;
}

static inline size_t attn_quant_q8_panel_bytes(int64_t blocks)
{
    return (size_t)((blocks + 1) / 2) * ATTN_QUANT_Q8_PAIR;
}

/* Where block b of a Q8 panel has its vectors and its scales. */
static inline size_t attn_quant_q8_vectors(int64_t block)
{
    return (size_t)(block >> 1) * ATTN_QUANT_Q8_PAIR + (size_t)(block & 1) * 512;
}

static inline size_t attn_quant_q8_scales(int64_t block)
{
    return (size_t)(block >> 1) * ATTN_QUANT_Q8_PAIR + 1024 + (size_t)(block & 1) * 32;
}

/**
 * Repack one panel from rows[0 … count−1] (count ≤ 16) of GGUF blocks; the other rows become zeros.
 * panel: 64-byte aligned, attn_quant_q*_panel_bytes(blocks).
 * q4_0_to_q4 needs 8·d to be an f16 for every block (attn_quant_q4_0_fits); q4_0_to_q8 takes any.
 */
void attn_quant_pack_q4_1(const uint8_t *const *rows, int count, int64_t blocks, uint8_t *panel);
void attn_quant_pack_q4_0(const uint8_t *const *rows, int count, int64_t blocks, uint8_t *panel);
void attn_quant_pack_q4_0_as_q8(const uint8_t *const *rows, int count, int64_t blocks,
                                uint8_t *panel);
void attn_quant_pack_q8_0(const uint8_t *const *rows, int count, int64_t blocks, uint8_t *panel);

/** True when m = −8·d of every one of `blocks` Q4_0 blocks is exact in f16 (or d is no number). */
bool attn_quant_q4_0_fits(const uint8_t *row, int64_t blocks);

/** One product of a tile of activations with some panels. */
typedef struct attn_quant_job {
    const uint8_t *w;  /* first panel */
    size_t stream;     /* bytes from one panel of this call to the next: far apart reads faster */
    int64_t blocks;    /* in_features / 32 */
    const uint8_t *x;  /* tile of `rows` rows */
    const float *bias; /* [16] of the first panel, the next panel's `step` later */
    float *y; /* row r, panel p, lane i at y[r·ldy + p·step + i]; 16 floats are written */
    int64_t ldy, step;
    bool prefetch; /* the weights come from memory, not from a cache: ask for them early */
} attn_quant_job;

typedef void attn_quant_tile_fn(const float *x, int64_t ldx, int rows, int64_t blocks,
                                uint8_t *tile);
typedef void attn_quant_product_fn(const attn_quant_job *job, int rows, int panels);

typedef struct attn_quant_table {
    attn_isa isa;             /* the level the kernels need */
    attn_quant_tile_fn *tile; /* quantises `rows` (1 … 8) rows of x, ldx floats apart */
    attn_quant_product_fn *q4, *q8;
    int panels[ATTN_QUANT_ROWS + 1]; /* most panels that q4 and q8 take at once, by rows */
} attn_quant_table;

/** The best table for a level; its C table for levels it does not know. Never NULL. */
const attn_quant_table *attn_quant_table_for(attn_isa isa);

void attn_quant_tile_c(const float *x, int64_t ldx, int rows, int64_t blocks, uint8_t *tile);
void attn_quant_q4_c(const attn_quant_job *job, int rows, int panels);
void attn_quant_q8_c(const attn_quant_job *job, int rows, int panels);

void attn_quant_tile_avx2(const float *x, int64_t ldx, int rows, int64_t blocks, uint8_t *tile);
void attn_quant_q4_avx2(const attn_quant_job *job, int rows, int panels);
void attn_quant_q8_avx2(const attn_quant_job *job, int rows, int panels);

void attn_quant_tile_avx512vnni(const float *x, int64_t ldx, int rows, int64_t blocks,
                                uint8_t *tile);
void attn_quant_q4_avx512vnni(const attn_quant_job *job, int rows, int panels);
void attn_quant_q8_avx512vnni(const attn_quant_job *job, int rows, int panels);

#endif
