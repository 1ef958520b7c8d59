/**
 * attention/backward_flash.h: gradients in f32 arithmetic, by blocks of 64 query rows and parts of
 * the keys.
 *
 * Rows and keys of a KV head are cut into ranges and parts, sizes that depend on the shapes alone.
 * A pair (part, range) adds to the gradients of the part's keys and of the range's queries, so pairs
 * that share neither run side by side: the pairs are dealt into waves, as the cells of a Latin
 * square. Every gradient is summed in the order of the waves, whichever thread runs what, no score
 * is computed twice, and nothing is stored beside the results themselves.
 */
#ifndef ATTN_ATTENTION_BACKWARD_FLASH_H
#define ATTN_ATTENTION_BACKWARD_FLASH_H

#include "attention/backward.h"
#include "attention/flash_block.h"
#include "kernels/flash/flash_backward.h"

/** Sizes of a call, and where each array lies: in the shared scratch, and in a worker's (bytes). */
typedef struct backward_layout {
    flash_layout tile;              /* the part that forward's blocks know */
    int64_t ldq, ldg;               /* dim_qk and dim_v, rounded up to 16 */
    int64_t part_keys, parts;       /* keys of a part, parts per KV head */
    int64_t range_blocks, ranges;   /* blocks of rows in a range, ranges per KV head */
    int64_t waves;                  /* max(parts, ranges) */
    int64_t round;                  /* KV heads that are worked on at a time */
    int64_t bias_keys;              /* columns of the bias gradient that a task takes */
    size_t gt, dp, capped, keep;    /* tiles: dOᵀ, dP, capped scores, dropout's factors */
    size_t q, g, o;                 /* rows: scale·Q, dO, dQ/scale */
    size_t k, v, clean, bad, dbias; /* a part's K and V in f32, K without NaN, which keys */
    size_t dq, dk, dv;              /* shared: sums in f32 where the results are 16-bit */
    size_t delta, slopes, shared;   /* shared: a number per row */
    int64_t ahead;                  /* rows of the next block to prefetch at a time */
} backward_layout;

backward_layout backward_make_layout(const sdpa_backward_call *call);

/** A call on its way. */
typedef struct backward_job {
    const sdpa_backward_call *call;
    backward_layout layout;
    const attn_flash_kernels *kernels;
    const attn_flash_backward_kernels *backward;
    const attn_convert_kernels *convert;
    attn_dropout_tile_fn *drop; /* NULL: no dropout */
    char *shared, *workers;
    int64_t first, heads, wave; /* KV heads of the round, and the wave at hand */
} backward_job;

/** Rows in f32 that something is added to; data NULL: not wanted. */
typedef struct backward_rows {
    float *data;
    int64_t stride;
} backward_rows;

/** One block of query rows and the part of the keys that it meets. `f` comes first. */
typedef struct backward_block {
    flash_block f;
    const backward_job *job;
    float *gt, *dp, *keep, *q, *g, *o, *k_copy, *v_copy, *clean, *dbias;
    bool *bad_key; /* keys of the part whose K holds anything but finite numbers */
    int64_t begin, end;
    const float *k, *v; /* of column `begin` */
    int64_t k_stride, v_stride;
    bool any_bad_key;
    bool bad_q[ATTN_FLASH_ROWS], bad_g[ATTN_FLASH_ROWS]; /* the same of rows of Q and dO */
    bool odd[ATTN_FLASH_ROWS]; /* rows whose lse is NaN or delta not finite */
    bool any_bad_row, any_odd;
    _Alignas(64) float lse[ATTN_FLASH_ROWS], delta[ATTN_FLASH_ROWS];
    _Alignas(64) float one[ATTN_FLASH_ROWS]; /* o's factor: nothing is rescaled */
    backward_rows dk, dv;                    /* of column `begin` */
    int64_t begun;                           /* columns from here on hold no dk and dv yet */
    bool dq;                                 /* whether o is wanted */
    int64_t ahead, stop;                     /* rows of the KV head's list to prefetch */
    int64_t key_ahead;                       /* columns from here on to prefetch */
    double slope[ATTN_FLASH_ROWS];
} backward_block;

/** A block in the scratch of `worker`. */
void backward_open(backward_block *x, const backward_job *job, int worker);

/**
 * Whether causality, window and lengths let any of the 64 rows from t, of `heads` heads in turn, see any
 * of the keys.
 */
bool backward_meets(const sdpa_call *call, int64_t b, int64_t heads, int64_t t, sdpa_range keys);

/** Takes columns begin … end−1, ≤ part_keys, of a KV head: conversion and the search for NaN. */
void backward_load_keys(backward_block *x, int64_t b, int64_t kv_head, int64_t begin, int64_t end);

/** Takes rows as flash_begin_rows does: Q and dO as rows and transposed, lse and delta. */
void backward_load_rows(backward_block *x, int64_t b, int64_t head, int64_t heads, int64_t first);

/**
 * P in f.s (with dropout's factors) and dS in dp, for columns from `begin` that lie in the part; capped scores,
 * where there are any, in f.capped.
 */
void backward_scores(backward_block *x, int64_t begin, int64_t count, bool partial);

/** dk and dv are 0 in columns x->begun … end−1, which end the begun ones. */
void backward_clear_keys(backward_block *x, int64_t end);

/** The loaded rows against the loaded keys: adds to dk, dv, o (which starts from 0) and slope. */
void backward_pair(backward_block *x);

/** delta of row (b, h, i): Σ_d dout·out − dlse, computed, and where it is kept. `room`: for 2·dim_v floats. */
float backward_delta(const backward_job *job, int64_t b, int64_t h, int64_t i, float *room);
float *backward_delta_at(const backward_job *job, int64_t b, int64_t h, int64_t i);

/** Room for 16 rows of any kind in a worker's scratch. */
float *backward_room(const backward_job *job, int worker);

/** The element (b, h, i, 0) of a view of f32, bf16 or f16; dimensions beyond the view's are not looked at. */
void *backward_at(const attn_view *view, int64_t b, int64_t h, int64_t i);

/** A row of 16-bit or f32 elements in f32: the row itself, or a copy in `room`. */
const float *backward_f32(const backward_job *job, attn_dtype dtype, const void *row, int64_t dim,
                          float *room);

/** The other way: stores a row of f32 in a view's type. */
void backward_store(const backward_job *job, attn_dtype dtype, const float *row, int64_t dim,
                    void *to);

/** The gradient of bias, in a second pass over the tiles. */
void backward_bias(const backward_job *job);

/** The gradients of sinks and slopes, from what is known per row. */
void backward_heads(const backward_job *job);

#endif
