/**
 * sum.c: sums over some dimensions, in double, cut into pieces that depend on the shape alone: the bits do not know how many
 * threads there are.
 */
#include "tensor/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    COLUMNS = 64,  /* results of a block, side by side */
    LANES = 8,     /* sums kept apart along a row */
    WORTH = 16384, /* elements from which on the reduced dimensions are cut */
    PIECES = 32,
    CUT_FROM = 64, /* reduced elements of a piece, at least */
};

/* Some dimensions of src, outermost first. */
typedef struct dims {
    int count;
    int64_t shape[4], src[4], dst[4];
    int64_t total;
} dims;

typedef struct sum_call {
    dims kept, reduced; /* kept's last one is the block's columns */
    attn_dtype dtype;
    const char *src;
    char *dst;
    double *partial; /* [pieces, results]; NULL: one piece, straight to dst */
    int64_t columns, blocks, pieces, piece;
    double factor;
    bool accumulate;
} sum_call;

static void add_dim(dims *d, int64_t shape, int64_t src, int64_t dst)
{
    int at = d->count++;
    for (; at > 0 && llabs(d->src[at - 1]) < llabs(src); at--) {
        d->shape[at] = d->shape[at - 1];
        d->src[at] = d->src[at - 1];
        d->dst[at] = d->dst[at - 1];
    }
    d->shape[at] = shape;
    d->src[at] = src;
    d->dst[at] = dst;
    d->total *= shape;
}

static void join_dims(dims *d)
{
    int kept = 0;
    for (int i = 1; i < d->count; i++) {
        bool joins =
            d->src[kept] == d->src[i] * d->shape[i] && d->dst[kept] == d->dst[i] * d->shape[i];
        int64_t shape = joins ? d->shape[kept] * d->shape[i] : d->shape[i];
        kept += !joins;
        d->shape[kept] = shape;
        d->src[kept] = d->src[i];
        d->dst[kept] = d->dst[i];
    }
    d->count = d->count > 0 ? kept + 1 : 0;
    if (d->count == 0) {
        *d = (dims){.count = 1, .shape = {1}, .src = {1}, .dst = {1}, .total = 1};
    }
}

static int64_t offset_of(const dims *d, int count, int64_t index, const int64_t *stride)
{
    int64_t at = 0;
    for (int i = count - 1; i >= 0; i--) {
        at += index % d->shape[i] * stride[i];
        index /= d->shape[i];
    }
    return at;
}

#define SUM_BODIES(S)                                                                      \
    /* Σ of n elements with a stride, in LANES sums */                                    \
    static double run_##S(const number_##S *x, int64_t n, int64_t stride)                  \
    {                                                                                      \
        double lane[LANES] = {0};                                                          \
        int64_t i = 0;                                                                     \
        for (; i + LANES <= n; i += LANES) {                                               \
            for (int k = 0; k < LANES; k++) {                                              \
                lane[k] += (double)x[(i + k) * stride];                                    \
            }                                                                              \
        }                                                                                  \
        for (; i < n; i++) {                                                               \
            lane[i % LANES] += (double)x[i * stride];                                      \
        }                                                                                  \
        return ((lane[0] + lane[4]) + (lane[1] + lane[5])) +                               \
               ((lane[2] + lane[6]) + (lane[3] + lane[7]));                                \
    }                                                                                      \
    static void add_row_##S(double *restrict sum, const number_##S *restrict x, int64_t n, \
                            int64_t stride)                                                \
    {                                                                                      \
        if (stride == 1) {                                                                 \
            for (int64_t i = 0; i < n; i++) {                                              \
                sum[i] += (double)x[i];                                                    \
            }                                                                              \
        } else {                                                                           \
            for (int64_t i = 0; i < n; i++) {                                              \
                sum[i] += (double)x[i * stride];                                           \
            }                                                                              \
        }                                                                                  \
    }                                                                                      \
    /* Reduced elements from … to of n neighbouring results whose first element is x. */ \
    static void block_##S(const sum_call *c, const number_##S *x, int64_t n, int64_t from, \
                          int64_t to, double *sum)                                         \
    {                                                                                      \
        const dims *r = &c->reduced;                                                       \
        int last = r->count - 1;                                                           \
        int64_t column = c->kept.src[c->kept.count - 1], row = r->src[last];               \
        bool along = llabs(row) < llabs(column);                                           \
        while (from < to) {                                                                \
            int64_t at = from % r->shape[last], run = r->shape[last] - at;                 \
            const number_##S *first = x + offset_of(r, r->count, from, r->src);            \
            run = run < to - from ? run : to - from;                                       \
            for (int64_t i = 0; along && i < n; i++) {                                     \
                sum[i] += run_##S(first + i * column, run, row);                           \
            }                                                                              \
            for (int64_t i = 0; !along && i < run; i++) {                                  \
                add_row_##S(sum, first + i * row, n, column);                              \
            }                                                                              \
            from += run;                                                                   \
        }                                                                                  \
    }                                                                                      \
    static void store_##S(const sum_call *c, number_##S *y, double sum)                    \
    {                                                                                      \
        *y = (number_##S)((c->accumulate ? (double)*y : 0.0) + c->factor * sum);           \
    }
SUM_BODIES(f32)
SUM_BODIES(f64)

static void store(const sum_call *c, int64_t result, double sum)
{
    int64_t at = offset_of(&c->kept, c->kept.count, result, c->kept.dst);
    if (c->dtype == ATTN_F32) {
        store_f32(c, (float *)(void *)c->dst + at, sum);
    } else {
        store_f64(c, (double *)(void *)c->dst + at, sum);
    }
}

static void sum_task(void *argument, int64_t index, int worker)
{
    const sum_call *c = argument;
    int64_t piece = index % c->pieces, block = index / c->pieces % c->blocks;
    int64_t row = index / c->pieces / c->blocks, column = block * COLUMNS;
    int64_t n = c->columns - column < COLUMNS ? c->columns - column : COLUMNS;
    int64_t from = piece * c->piece, to = from + c->piece;
    int64_t result = row * c->columns + column;
    int64_t at = offset_of(&c->kept, c->kept.count, result, c->kept.src);
    double sum[COLUMNS] = {0};
    (void)worker;
    to = to < c->reduced.total ? to : c->reduced.total;
    if (c->dtype == ATTN_F32) {
        block_f32(c, (const float *)(const void *)c->src + at, n, from, to, sum);
    } else {
        block_f64(c, (const double *)(const void *)c->src + at, n, from, to, sum);
    }
    for (int64_t i = 0; i < n; i++) {
        if (c->partial) {
            c->partial[piece * c->kept.total + result + i] = sum[i];
        } else {
            store(c, result + i, sum[i]);
        }
    }
}

static void split_dims(sum_call *c, const attn_view *src, const attn_view *dst)
{
    attn_view wide = attn_view_broadcast(dst, src->ndim, src->shape);
    c->kept.total = c->reduced.total = 1;
    for (int i = 0; i < src->ndim; i++) {
        bool reduced = i < src->ndim - dst->ndim || dst->shape[i - (src->ndim - dst->ndim)] == 1;
        if (src->shape[i] != 1) {
            add_dim(reduced ? &c->reduced : &c->kept, src->shape[i], src->stride[i],
                    reduced ? 0 : wide.stride[i]);
        }
    }
    join_dims(&c->kept);
    join_dims(&c->reduced);
}

attn_status attn_loop_sum(attn_tape *tape, const attn_view *src, const attn_view *dst,
                          double factor, bool accumulate)
{
    sum_call c = {.dtype = src->dtype, .src = src->data, .dst = dst->data};
    c.factor = factor;
    c.accumulate = accumulate;
    if (attn_view_count(dst) == 0) {
        return ATTN_OK;
    }
    if (attn_view_count(src) == 0) {
        /* A mean of nothing, whose factor is infinite, is no number. */
        return accumulate
                   ? ATTN_OK
                   : attn_loop_fill(tape->context, dst, isfinite(factor) ? 0.0 : (double)NAN);
    }
    split_dims(&c, src, dst);
    int64_t results = c.kept.total, reduced = c.reduced.total;
    c.columns = c.kept.shape[c.kept.count - 1];
    c.blocks = (c.columns - 1) / COLUMNS + 1;
    c.pieces = 1;
    if (reduced >= 2 * CUT_FROM && results <= WORTH && reduced * results >= WORTH) {
        c.pieces = reduced / CUT_FROM < PIECES ? reduced / CUT_FROM : PIECES;
    }
    c.piece = (reduced - 1) / c.pieces + 1;
    attn_storage *memory = NULL;
    if (c.pieces > 1) {
        memory = attn_storage_take(tape->pool, sizeof(double) * (size_t)(c.pieces * results));
        if (!memory) {
            return ATTN_ERR_NO_MEMORY;
        }
        c.partial = memory->data;
    }
    int64_t tasks = results / c.columns * c.blocks * c.pieces;
    attn_status status = ATTN_OK;
    if (results * reduced < WORTH) {
        for (int64_t i = 0; i < tasks; i++) {
            sum_task(&c, i, 0);
        }
    } else {
        status = attn_parallel_for(tape->context, tasks, sum_task, &c);
    }
    for (int64_t i = 0; c.partial && status == ATTN_OK && i < results; i++) {
        double sum = 0;
        for (int64_t p = 0; p < c.pieces; p++) {
            sum += c.partial[p * results + i];
        }
        store(&c, i, sum);
    }
    attn_storage_release(memory);
    return status;
}
