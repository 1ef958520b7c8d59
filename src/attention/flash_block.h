/**
 * attention/flash_block.h: one block of up to 64 query rows on its way through the keys.
 *
 * The rows of a block belong to one KV head: row t of the block list is query row t / group of
 * query head kv_head·group + t % group. So a GQA group shares its passes over K and V, and few
 * query rows still fill vector lanes; both ends of the rows' intervals of keys never fall from lane
 * to lane, as the kernels ask.
 */
#ifndef ATTN_ATTENTION_FLASH_BLOCK_H
#define ATTN_ATTENTION_FLASH_BLOCK_H

#include "attention/call.h"
#include "kernels/convert/convert.h"
#include "kernels/flash/flash.h"

/** Columns of V that a pass of the kernels takes; copies of V are made in panels of so many. */
enum { FLASH_PANEL = 64 };

/** Sizes of a call's tiles, and where each array lies in a worker's scratch (bytes). */
typedef struct flash_layout {
    int64_t keys;       /* of a block */
    int64_t ld_addend;  /* keys, rounded up to 16 */
    int64_t ldo;        /* dim_v, rounded up to 16 */
    int64_t row_blocks; /* per KV head */
    bool copy;          /* K and V are not f32: blocks of them are converted */
    size_t qt, s, o, total, addend, k, v, row, size;
} flash_layout;

flash_layout flash_make_layout(const sdpa_call *call);

#define FLASH_UNIT 0x1p32f

/**
 * How V is read. Each mode redoes the rows that came out of the one before with non-finite values.
 */
typedef enum flash_mode {
    FLASH_PLAIN,  /* as it is */
    FLASH_SELECT, /* rows of V with a NaN or inf reach only the query rows that attend to them */
    FLASH_SCALED, /* besides, in units of FLASH_UNIT: sums of finite V that overflow f32 */
    FLASH_MODES
} flash_mode;

typedef struct flash_block {
    const sdpa_call *call;
    const flash_layout *layout;
    const attn_flash_kernels *kernels;
    const attn_convert_kernels *convert;
    attn_dropout_tile_fn *drop; /* NULL: no dropout */
    attn_dropout_key dropout;
    float *qt, *s, *o, *total, *addend, *k, *v, *row; /* in scratch */
    float *capped;             /* NULL, or room for a tile: capped scores are kept, for backward */
    int64_t b, kv_head, first; /* first: index of lane 0 in the KV head's list of rows */
    int32_t rows, valid;       /* lanes, and those of them below n_q (the first ones) */
    flash_mode mode;
    int32_t since_fold; /* blocks of keys summed in o and l */
    bool folded;        /* total and l_total hold something */
    int64_t head[ATTN_FLASH_ROWS], query[ATTN_FLASH_ROWS];
    sdpa_range range[ATTN_FLASH_ROWS];
    attn_flash_tile tile;
    _Alignas(64) float m[ATTN_FLASH_ROWS], l[ATTN_FLASH_ROWS];
    _Alignas(64) float maximum[ATTN_FLASH_ROWS], alpha[ATTN_FLASH_ROWS];
    _Alignas(64) float m_total[ATTN_FLASH_ROWS], l_total[ATTN_FLASH_ROWS];
    _Alignas(64) int32_t top[ATTN_FLASH_ROWS]; /* in the tile at hand: the key of the maximum */
    int64_t best[ATTN_FLASH_ROWS];             /* with LSE: the column of the maximum so far */
    float factor[ATTN_FLASH_ROWS];             /* out = o·factor */
    float lse[ATTN_FLASH_ROWS];
    bool nothing[ATTN_FLASH_ROWS]; /* rows that attend to nothing */
    bool again[ATTN_FLASH_ROWS];   /* rows to redo in the next mode */
} flash_block;

/**
 * Sets the block up for rows `first` … of KV head `kv_head` of sequence b and packs their queries.
 */
void flash_begin(flash_block *x, int64_t b, int64_t kv_head, int64_t first);

/**
 * The same for rows of `heads` query heads from `head`, all of one KV head, in turn: row t of that
 * list is query row t / heads of head + t % heads.
 */
void flash_begin_rows(flash_block *x, int64_t b, int64_t head, int64_t heads, int64_t first);

/** Runs all keys through the tiles in x->mode: o, m, l are then those of the whole rows. */
void flash_attend(flash_block *x);

/** Denominators, out and lse; sets again[] and returns whether the next mode must redo any row. */
bool flash_finish(flash_block *x);

/** Weights out: a second pass over the tiles, with the maximum and the sum that finish knows. */
void flash_weights(flash_block *x);

/**
 * Scores of `wanted` columns from `begin`, modified and masked, into s, and x->maximum = max(x->m,
 * s). Returns the run that they lie in; its count, ≤ wanted, is what was done. `partial`: whether
 * some row sees less than all of them.
 */
sdpa_kv_run flash_scores(flash_block *x, int64_t begin, int64_t wanted, bool partial);

/**
 * The same for `count` columns whose K, in f32, is given, and which lie in one tile. `maximum`: whether
 * x->maximum is wanted; if not, it holds anything afterwards.
 */
void flash_score_tile(flash_block *x, const float *k, int64_t stride, int64_t begin, int64_t count,
                      bool partial, bool maximum);

/** The softcap as the kernels take it; 0: none. */
float flash_cap(const sdpa_call *call);

/** dst = `count` elements of src in f32. */
void flash_to_f32(const flash_block *x, attn_dtype dtype, const void *src, int64_t count,
                  float *dst);

/** o = o·alpha + Pᵀ·V for a run of columns whose weights are in s, V read in x->mode. */
void flash_values(flash_block *x, const sdpa_kv_run *run, int64_t begin);

/** The score of row r in a column it attends to, in double. */
double flash_exact_score(flash_block *x, int32_t r, int64_t column);

/**
 * Calls visit(x, begin, wanted, partial) → columns done, over all columns that any row of the block
 * sees.
 */
void flash_walk(flash_block *x,
                int64_t (*visit)(flash_block *x, int64_t begin, int64_t wanted, bool partial));

/** The same within columns begin … end−1. */
void flash_walk_columns(flash_block *x, int64_t begin, int64_t end,
                        int64_t (*visit)(flash_block *x, int64_t begin, int64_t wanted,
                                         bool partial));

#endif
