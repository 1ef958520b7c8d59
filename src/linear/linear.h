/**
 * linear/linear.h: packed weights, as the files of this room share them.
 */
#ifndef ATTN_LINEAR_LINEAR_H
#define ATTN_LINEAR_LINEAR_H

#include "kernels/gemm/gemm.h"
#include "kernels/quant/quant.h"

#include <attn/linear.h>

typedef enum attn_linear_kind {
    ATTN_LINEAR_F32, /* panels of kernels/gemm */
    ATTN_LINEAR_Q4,  /* panels of kernels/quant */
    ATTN_LINEAR_Q8
} attn_linear_kind;

struct attn_linear {
    attn_allocator allocator;
    attn_isa isa; /* of the context it was packed for */
    attn_linear_kind kind;
    int64_t in, out;
    int64_t lanes;      /* outputs of a panel */
    int64_t panels;     /* ⌈out / lanes⌉ */
    size_t panel_bytes; /* a multiple of 64 */
    uint8_t *packed;
    float *bias; /* [panels·lanes], zeros where there is none */
    size_t packed_bytes, bias_bytes;
    int64_t cached; /* bytes of activations that may stay in L2 while panels pass by */
    const attn_gemm_table *gemm;
    const attn_quant_table *quant;
    bool refine; /* few rows of activations get a second 8 bits */
};

/** Columns that share a scale: 32, or 1 for types without blocks; 0 for a value that is no type. */
int64_t attn_weight_block(attn_weight_type type);
/** Bytes of such a block; 0 for a value that is no type. */
size_t attn_weight_block_bytes(attn_weight_type type);
/** "q4_1", …; "invalid" otherwise. */
const char *attn_weight_name(attn_weight_type type);
/** attn_weight_dequantize without its checks. */
void attn_weight_to_float(attn_weight_type type, const void *src, int64_t count, float *dst);

/** Bytes of L2 that one operand may keep while the other passes by. */
int64_t attn_linear_cached_bytes(void);

/** attn_linear_forward after its checks: x [rows, in] and y [rows, out], ldx and ldy floats apart. */
attn_status attn_linear_forward_f32(attn_context *context, const attn_linear *linear, int64_t rows,
                                    const float *x, int64_t ldx, float *y, int64_t ldy);
attn_status attn_linear_forward_quant(attn_context *context, const attn_linear *linear,
                                      int64_t rows, const float *x, int64_t ldx, float *y,
                                      int64_t ldy);

/** How a product is cut into independent pieces: panels × rows, each in even steps. */
typedef struct attn_linear_split {
    int64_t panels, panel_step, panel_pieces;
    int64_t rows, row_step, row_pieces;
} attn_linear_split;

/** One piece: panels p0 … p1 − 1, rows r0 … r1 − 1. */
typedef struct attn_linear_piece {
    int64_t p0, p1, r0, r1;
} attn_linear_piece;

/**
 * Cuts `rows` into steps of at most `row_limit` (a multiple of `tile`) and panels so that every
 * thread finds several pieces, none of less than `piece_work` of the `work` multiply-adds in all.
 */
attn_linear_split attn_linear_split_make(int threads, int64_t panels, int64_t rows, int64_t tile,
                                         int64_t row_limit, double work, double piece_work);
attn_linear_piece attn_linear_split_at(const attn_linear_split *split, int64_t index);

#endif
