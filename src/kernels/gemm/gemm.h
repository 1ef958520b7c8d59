/**
 * kernels/gemm/gemm.h: y = x·Wᵀ in f32 with W in panels.
 *
 * A panel holds `nr` rows of W (outputs), column after column: w[k·nr + i] = W[panel·nr + i, k]; missing
 * rows of the last panel are zeros. Panels lie one after the other.
 *
 * Every output is one chain of fused multiply-adds (products and sums in C) in the order of k, starting
 * from `init`: the bits depend on the level, not on the tile, the number of rows, or where k is split.
 */
#ifndef ATTN_KERNELS_GEMM_GEMM_H
#define ATTN_KERNELS_GEMM_GEMM_H

#include <attn/context.h>

/* Most rows that the `few` kernels take: there memory is the limit, beyond it arithmetic. */
#define ATTN_GEMM_FEW 4

/**
 * One product of some rows of x with some panels, over k columns. A tile reads x and the panel where they are: rows or columns of x
 * are contiguous, columns of the panel lie ldw apart.
 */
typedef struct attn_gemm_job {
    const float *w; /* first panel, at its first column */
    int64_t ldw; /* tile: floats from one column to the next, nr where packed; nr floats are read */
    int64_t stream; /* few: floats from one panel of this call to the next */
    int64_t k;      /* columns */
    const float *x; /* column i of row r at x + r·ldx + i·x_step */
    int64_t ldx;    /* 1 unless x_step is */
    int64_t x_step; /* tile: 1, or columns lie so far apart (the rows of a packed tile); few: 1 */
    const float *init; /* what sums start from: row r, panel p at init + r·ld_init + p·step */
    int64_t ld_init;   /* 0: every row starts from the bias; may be y itself */
    float *y;          /* row r, panel p, lane i at y[r·ldy + p·step + i] */
    int64_t ldy, step;
    const float *ask; /* tile: what will be needed later: a line at ask + i·ask_step is asked for */
    int64_t ask_step; /* with every column i; any address will do */
    int columns; /* tile: outputs of the panel that are read and written, at most nr; few: all nr */
} attn_gemm_job;

typedef void attn_gemm_pack_fn(const float *x, int64_t ldx, int rows, int64_t k, float *tile);
/* out[i·width + r] = x[r·row_stride + i·k_stride] for r < rows and i < k; zeros for rows ≤ r < width ≤ 32. */
typedef void attn_gemm_pack_any_fn(const float *x, int64_t row_stride, int64_t k_stride, int rows,
                                   int64_t k, int width, float *out);
typedef void attn_gemm_tile_fn(const attn_gemm_job *job, int rows);
typedef void attn_gemm_few_fn(const attn_gemm_job *job, int rows, int panels);

typedef struct attn_gemm_table {
    attn_isa isa;            /* the level the kernels need */
    int mr, nr;              /* rows of a full tile, outputs of a panel (at most 32 of either) */
    attn_gemm_pack_fn *pack; /* rows (1 … mr) of x, ldx floats apart, to [k][rows] */
    attn_gemm_tile_fn *tile; /* rows 1 … mr, one panel */
    attn_gemm_few_fn *few; /* rows 1 … ATTN_GEMM_FEW, panels 1 … streams: far apart reads faster */
    int streams;
    attn_gemm_pack_any_fn *pack_any; /* tiles and panels from a matrix of any strides */
} attn_gemm_table;

/** The best table for a level; its C table for levels it does not know. Never NULL. */
const attn_gemm_table *attn_gemm_table_for(attn_isa isa);

/** The plain way to pack a tile: every level's, where it has no better. */
void attn_gemm_pack_c(const float *x, int64_t ldx, int rows, int64_t k, float *tile);

/** The plain way to pack with any strides. */
void attn_gemm_pack_any_c(const float *x, int64_t row_stride, int64_t k_stride, int rows, int64_t k,
                          int width, float *out);

void attn_gemm_f32_4x16_c(const attn_gemm_job *job, int rows);
void attn_gemm_f32_few_c(const attn_gemm_job *job, int rows, int panels);

void attn_gemm_pack_avx2(const float *x, int64_t ldx, int rows, int64_t k, float *tile);
void attn_gemm_pack_any_avx2(const float *x, int64_t row_stride, int64_t k_stride, int rows,
                             int64_t k, int width, float *out);
void attn_gemm_f32_6x16_avx2(const attn_gemm_job *job, int rows);
void attn_gemm_f32_few_avx2(const attn_gemm_job *job, int rows, int panels);

void attn_gemm_pack_any_avx512(const float *x, int64_t row_stride, int64_t k_stride, int rows,
                               int64_t k, int width, float *out);
void attn_gemm_f32_14x32_avx512(const attn_gemm_job *job, int rows);
void attn_gemm_f32_few_avx512(const attn_gemm_job *job, int rows, int panels);

#endif
