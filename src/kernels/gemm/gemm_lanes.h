/**
 * kernels/gemm/gemm_lanes.h: gemm_c.c on lanes, two vectors of outputs a row. Include in gemm_<isa>.c, after lanes_<isa>.h
 * and TILE_ROWS, the rows that fill the registers.
 */
#ifndef ATTN_KERNELS_GEMM_GEMM_LANES_H
#define ATTN_KERNELS_GEMM_GEMM_LANES_H

#include <assert.h>
#include <stddef.h>

#include "kernels/gemm/gemm.h"

#define INLINE static inline __attribute__((always_inline))

enum { PANEL = 2 * LANES };

/* Two vectors of a row. */
typedef struct pair {
    lanes v[2];
} pair;

INLINE pair pair_load(const float *p)
{
    return (pair){{lanes_load(p), lanes_load(p + LANES)}};
}

INLINE void pair_store(float *p, pair x)
{
    lanes_store(p, x.v[0]);
    lanes_store(p + LANES, x.v[1]);
}

/* The first `columns` < PANEL floats. */
INLINE pair pair_load_some(const float *p, int columns)
{
    if (columns <= LANES) {
        return (pair){{lanes_load_some(p, columns, 0.0f), lanes_set(0.0f)}};
    }
    return (pair){{lanes_load(p), lanes_load_some(p + LANES, columns - LANES, 0.0f)}};
}

INLINE void pair_store_some(float *p, int columns, pair x)
{
    if (columns <= LANES) {
        lanes_store_some(p, columns, x.v[0]);
    } else {
        lanes_store(p, x.v[0]);
        lanes_store_some(p + LANES, columns - LANES, x.v[1]);
    }
}

/*
 * The first elements of `rows` rows, from which all are reached: with in_rows row r at x[r / 3] + r % 3 · ldx, since base, base + ldx
 * and base + 2·ldx are addresses that one instruction can say; else all at x[0] + r.
 */
typedef struct origins {
    const float *x[(TILE_ROWS + 2) / 3];
} origins;

/* One column: sums += x·w. */
INLINE void tile_column(pair *sum, const origins *at, int64_t ldx, int64_t i, const float *w,
                        const int rows, const bool in_rows)
{
    const pair b = pair_load(w);
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        lanes a = lanes_set(in_rows ? at->x[r / 3][r % 3 * ldx + i] : at->x[0][r]);
        sum[r].v[0] = lanes_fma(a, b.v[0], sum[r].v[0]);
        sum[r].v[1] = lanes_fma(a, b.v[1], sum[r].v[1]);
    }
}

INLINE void advance(origins *at, int64_t by, const int rows)
{
#pragma GCC unroll 5
    for (int r = 0; r < rows; r += 3) {
        at->x[r / 3] += by;
    }
}

/* Four columns in one go: what counts the loop would else take its turn on the ports of the multiply-adds. */
INLINE void tile(const attn_gemm_job *job, const int rows, const bool in_rows)
{
    const float *w = job->w, *ask = job->ask;
    const int64_t ldx = job->ldx, ldw = job->ldw, step = in_rows ? 1 : job->x_step;
    const int64_t ask_step = job->ask_step;
    const bool whole = job->columns == PANEL;
    int64_t k = job->k;
    pair sum[TILE_ROWS];
    origins at;
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        const float *init = job->init + r * job->ld_init;
        sum[r] = whole ? pair_load(init) : pair_load_some(init, job->columns);
        at.x[r / 3] = r % 3 ? at.x[r / 3] : job->x + (in_rows ? r * ldx : r);
    }
#pragma GCC unroll 4
    for (; k > 0; k--) {
        tile_column(sum, &at, ldx, 0, w, rows, in_rows);
        advance(&at, step, rows);
        __builtin_prefetch(ask, 0, 2);
        ask += ask_step;
        w += ldw;
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        if (whole) {
            pair_store(job->y + r * job->ldy, sum[r]);
        } else {
            pair_store_some(job->y + r * job->ldy, job->columns, sum[r]);
        }
    }
}

#define TILE(rows)                                                              \
    static __attribute__((noinline)) void tile_##rows(const attn_gemm_job *job) \
    {                                                                           \
        tile(job, rows, false);                                                 \
    }                                                                           \
    static __attribute__((noinline)) void rows_##rows(const attn_gemm_job *job) \
    {                                                                           \
        tile(job, rows, true);                                                  \
    }

/* How far ahead of a stream to ask for lines: the hardware's prefetcher stops at 4 KiB pages. */
enum { AHEAD = 2048 };

INLINE void few(const attn_gemm_job *job, const int rows, const int panels)
{
    const float *x = job->x, *w = job->w;
    const int64_t stream = job->stream, ldx = job->ldx;
    pair acc[8];
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels; i++) {
        acc[i] = pair_load(job->init + i % rows * job->ld_init + i / rows * job->step);
    }
    for (int64_t k = 0; k < job->k; k++) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            const float *panel = w + p * stream;
#pragma GCC unroll 2
            for (int line = 0; line < PANEL; line += 16) {
                __builtin_prefetch((const char *)(panel + line) + AHEAD, 0, 3);
            }
            lanes w0 = lanes_load(panel), w1 = lanes_load(panel + LANES);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                lanes a = lanes_set(x[r * ldx + k]);
                pair *sum = &acc[p * rows + r];
                sum->v[0] = lanes_fma(a, w0, sum->v[0]);
                sum->v[1] = lanes_fma(a, w1, sum->v[1]);
            }
        }
        w += PANEL;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels; i++) {
        pair_store(job->y + i % rows * job->ldy + i / rows * job->step, acc[i]);
    }
}

#define FEW(rows, panels)                                                                 \
    static __attribute__((noinline)) void few_##rows##_##panels(const attn_gemm_job *job) \
    {                                                                                     \
        few(job, rows, panels);                                                           \
    }

typedef void few_fn(const attn_gemm_job *job);

/* Panels in runs of 4, 2 or 1, as many as the registers hold for so many rows: kernels[rows][log2 of the run]. */
static void few_panels(few_fn *const kernels[][3], const attn_gemm_job *job, int rows, int panels)
{
    attn_gemm_job part = *job;
    assert(rows >= 1 && rows <= ATTN_GEMM_FEW && panels >= 1);
    while (panels > 0) {
        int log = 2;
        while ((1 << log) > panels || !kernels[rows][log]) {
            log--;
        }
        kernels[rows][log](&part);
        part.w += part.stream << log;
        part.y += part.step << log;
        part.init += part.step << log;
        panels -= 1 << log;
    }
}

#endif
