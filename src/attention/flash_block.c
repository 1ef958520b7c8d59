/* The tile loop of one block of query rows: columns in blocks, scores, softmax, values. */
#include "attention/flash_block.h"
#include "base/alloc.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    ROWS = ATTN_FLASH_ROWS,
    UNIT = ATTN_FLASH_KEYS,
    COPY_BYTES = 384 * 1024, /* K and V blocks in f32 together: within half of a 1 MiB L2 */
    FOLD = 16,               /* blocks of keys until o and l are added to their totals */
    FULL_AT_LEAST = 32,      /* columns that are worth a tile without masks */
};

static size_t take(size_t *size, int64_t floats)
{
    size_t at = *size;
    *size = attn_round_up(at + (size_t)floats * sizeof(float));
    return at;
}

flash_layout flash_make_layout(const sdpa_call *call)
{
    const attn_flash_kernels *kernels = attn_flash_table(attn_context_isa(call->context));
    int64_t dims = call->dim_qk + call->dim_v;
    int64_t fit = COPY_BYTES / (int64_t)sizeof(float) / dims / UNIT * UNIT;
    flash_layout f = {.keys = kernels->block_keys, .ldo = (call->dim_v + 15) / 16 * 16};
    f.keys = fit < 4 * UNIT ? 4 * UNIT : fit < f.keys ? fit : f.keys;
    f.ld_addend = (f.keys + 15) / 16 * 16;
    f.row_blocks = (call->len_q * call->group + ROWS - 1) / ROWS;
    f.copy = call->kv.k.dtype != ATTN_F32;
    int64_t longest = call->dim_qk > f.ldo ? call->dim_qk : f.ldo;
    f.qt = take(&f.size, ROWS * call->dim_qk);
    f.s = take(&f.size, ROWS * f.keys);
    f.o = take(&f.size, ROWS * f.ldo);
    f.total = take(&f.size, ROWS * f.ldo);
    f.addend = take(&f.size, sdpa_has_addend(call) ? ROWS * f.ld_addend : 0);
    f.k = take(&f.size, f.copy ? f.keys * call->dim_qk : 0);
    /* the select mode copies whatever the type */
    f.v = take(&f.size, f.keys * ((call->dim_v + FLASH_PANEL - 1) / FLASH_PANEL * FLASH_PANEL));
    f.row = take(&f.size, ATTN_FLASH_LANES * longest);
    return f;
}

void flash_to_f32(const flash_block *x, attn_dtype dtype, const void *src, int64_t count,
                  float *dst)
{
    if (dtype == ATTN_F32) {
        memcpy(dst, src, (size_t)count * sizeof *dst);
    } else if (dtype == ATTN_BF16) {
        x->convert->bf16_to_f32(src, dst, count);
    } else {
        x->convert->f16_to_f32(src, dst, count);
    }
}

float flash_cap(const sdpa_call *call)
{
    /* A cap beyond float's range caps nothing; one below it leaves scores of about 0. */
    float cap = call->softcap > (double)FLT_MAX ? 0.0f : (float)call->softcap;
    return call->softcap > 0.0 && call->softcap < (double)FLT_MIN ? FLT_MIN : cap;
}

static const void *q_row(const flash_block *x, int32_t r)
{
    const attn_view *q = &x->call->q;
    int64_t at = x->b * q->stride[0] + x->head[r] * q->stride[1] + x->query[r] * q->stride[2];
    return (const char *)q->data + at * (int64_t)attn_dtype_size(q->dtype);
}

/* Qᵀ of the valid rows, 16 lanes at a time; lanes beyond them are zeros. */
static void pack_queries(flash_block *x)
{
    const sdpa_call *call = x->call;
    for (int32_t lane = 0; lane < x->valid; lane += ATTN_FLASH_LANES) {
        const float *rows[ATTN_FLASH_LANES];
        int32_t count = x->valid - lane;
        count = count < ATTN_FLASH_LANES ? count : ATTN_FLASH_LANES;
        for (int32_t r = 0; r < count; r++) {
            const void *row = q_row(x, lane + r);
            if (call->q.dtype != ATTN_F32) {
                float *wide = x->row + r * call->dim_qk;
                flash_to_f32(x, call->q.dtype, row, call->dim_qk, wide);
                row = wide;
            }
            rows[r] = row;
        }
        x->kernels->pack(rows, count, call->dim_qk, x->qt + lane);
    }
}

void flash_begin_rows(flash_block *x, int64_t b, int64_t head, int64_t heads, int64_t first)
{
    const sdpa_call *call = x->call;
    int64_t all = call->len_q * heads - first;
    int64_t live = sdpa_rows(call, b) * heads - first;
    x->b = b;
    x->kv_head = head / call->group;
    x->first = first;
    x->rows = (int32_t)(all < ROWS ? all : ROWS);
    x->valid = (int32_t)(live < 0 ? 0 : live < ROWS ? live : ROWS);
    x->mode = FLASH_PLAIN;
    for (int32_t r = 0; r < x->rows; r++) {
        x->head[r] = head + (first + r) % heads;
        x->query[r] = (first + r) / heads;
        x->range[r] = sdpa_row_range(call, b, x->query[r]);
        x->again[r] = true;
    }
    x->tile.rows = x->valid;
    if (x->drop) {
        x->dropout = sdpa_dropout(call, b);
        for (int32_t r = 0; r < x->rows; r++) {
            x->dropout.row[r] = (uint32_t)x->query[r];
            x->dropout.head[r] = (uint32_t)x->head[r];
        }
    }
    pack_queries(x);
}

void flash_begin(flash_block *x, int64_t b, int64_t kv_head, int64_t first)
{
    flash_begin_rows(x, b, kv_head * x->call->group, x->call->group, first);
}

/* Sets the tile's intervals for columns begin … begin+count−1. */
static void set_tile(flash_block *x, int64_t begin, int64_t count, bool partial)
{
    x->tile.keys = (int32_t)count;
    x->tile.partial = partial;
    for (int32_t r = 0; partial && r < ROWS; r++) {
        sdpa_range range = x->range[r < x->valid ? r : x->valid - 1];
        int64_t lo = range.begin - begin, hi = range.end - begin;
        x->tile.lo[r] = (int32_t)(lo < 0 ? 0 : lo > count ? count : lo);
        x->tile.hi[r] = (int32_t)(hi < 0 ? 0 : hi > count ? count : hi);
    }
}

static void fill_addend(flash_block *x, int64_t begin, int64_t count)
{
    for (int32_t r = 0; r < x->valid; r++) {
        sdpa_addend(x->call, x->b, x->head[r], x->query[r], begin, count,
                    x->addend + r * x->layout->ld_addend);
    }
}

void flash_score_tile(flash_block *x, const float *k, int64_t stride, int64_t begin, int64_t count,
                      bool partial, bool maximum)
{
    const sdpa_call *call = x->call;
    set_tile(x, begin, count, partial);
    memcpy(x->maximum, x->m, sizeof x->m);
    x->kernels->scores(&x->tile, x->qt, k, stride, call->dim_qk, (float)call->scale, x->s,
                       maximum ? x->maximum : NULL);
    float cap = flash_cap(call);
    bool addend = sdpa_has_addend(call);
    if (addend) {
        fill_addend(x, begin, count);
    }
    if (cap > 0.0f && x->capped) {
        x->kernels->modify(&x->tile, cap, NULL, 0, x->s, x->maximum);
        memcpy(x->capped, x->s, (size_t)(count * ROWS) * sizeof *x->s);
        cap = 0.0f;
    }
    if (addend || cap > 0.0f || partial) {
        memcpy(x->maximum, x->m, sizeof x->m); /* of what is left, not of raw scores */
        x->kernels->modify(&x->tile, cap, addend ? x->addend : NULL, x->layout->ld_addend, x->s,
                           x->maximum);
    }
}

sdpa_kv_run flash_scores(flash_block *x, int64_t begin, int64_t wanted, bool partial)
{
    const sdpa_call *call = x->call;
    sdpa_kv_run run = sdpa_kv_at(call, x->b, x->kv_head, begin, wanted);
    const float *k = run.k;
    int64_t stride = run.k_stride;
    if (x->layout->copy) {
        int64_t bytes = run.k_stride * (int64_t)attn_dtype_size(call->kv.k.dtype);
        for (int64_t j = 0; j < run.count; j++) {
            flash_to_f32(x, call->kv.k.dtype, (const char *)run.k + j * bytes, call->dim_qk,
                         x->k + j * call->dim_qk);
        }
        k = x->k;
        stride = call->dim_qk;
    }
    flash_score_tile(x, k, stride, begin, run.count, partial, true);
    return run;
}

/*
 * Adds o and l to their totals. A sum of n terms has an error that grows with n; in two levels it
 * grows with FOLD blocks and with their number.
 */
static void fold(flash_block *x)
{
    float beta[ROWS];
    int64_t floats = x->valid * x->layout->ldo;
    if (!x->folded) {
        memset(x->total, 0, (size_t)floats * sizeof *x->total);
        memset(x->l_total, 0, sizeof x->l_total);
    }
    for (int32_t r = 0; r < x->valid; r++) {
        float from = x->m[r] == -INFINITY ? 0.0f : x->m[r];
        beta[r] = x->folded ? expf(x->m_total[r] - from) : 0.0f;
        x->l_total[r] = x->l_total[r] * beta[r] + x->l[r];
        x->l[r] = 0.0f;
        x->m_total[r] = x->m[r];
    }
    x->kernels->fold(x->valid, x->layout->ldo, beta, x->o, x->total);
    x->folded = true;
    x->since_fold = 0;
}

/* Remembers the column of each row's maximum, which finish looks at again for an exact LSE. */
static void note_best(flash_block *x, int64_t begin)
{
    x->kernels->argmax(&x->tile, x->s, x->maximum, x->top);
    for (int32_t r = 0; r < x->valid; r++) {
        x->best[r] = x->maximum[r] > x->m[r] ? begin + x->top[r] : x->best[r];
    }
}

static int64_t attend_tile(flash_block *x, int64_t begin, int64_t wanted, bool partial)
{
    if (x->since_fold == FOLD) {
        fold(x);
    }
    sdpa_kv_run run = flash_scores(x, begin, wanted, partial);
    if (x->call->lse.dtype != ATTN_DTYPE_NONE) {
        note_best(x, begin);
    }
    x->kernels->softmax(&x->tile, x->maximum, x->s, x->m, x->l, x->alpha);
    if (x->drop) { /* after l, so that LSE and the denominator are without it */
        x->drop(&x->dropout, begin, (int32_t)run.count, x->valid, x->s, x->s);
    }
    flash_values(x, &run, begin);
    x->since_fold++;
    return run.count;
}

/* Columns begin … end−1 in blocks of about equal size. */
static void walk_region(flash_block *x, int64_t begin, int64_t end, bool partial,
                        int64_t (*visit)(flash_block *, int64_t, int64_t, bool))
{
    int64_t length = end - begin;
    if (length <= 0) {
        return;
    }
    int64_t blocks = (length + x->layout->keys - 1) / x->layout->keys;
    int64_t size = ((length + blocks - 1) / blocks + UNIT - 1) / UNIT * UNIT;
    while (begin < end) {
        int64_t wanted = end - begin < size ? end - begin : size;
        begin += visit(x, begin, wanted, partial);
    }
}

double flash_exact_score(flash_block *x, int32_t r, int64_t column)
{
    const sdpa_call *call = x->call;
    sdpa_kv_run run = sdpa_kv_at(call, x->b, x->kv_head, column, 1);
    int64_t dim = call->dim_qk;
    const float *q = q_row(x, r), *k = run.k;
    if (call->q.dtype != ATTN_F32) {
        flash_to_f32(x, call->q.dtype, q, dim, x->row);
        q = x->row;
    }
    if (call->kv.k.dtype != ATTN_F32) {
        flash_to_f32(x, call->kv.k.dtype, k, dim, x->row + dim);
        k = x->row + dim;
    }
    double dot = 0.0;
    for (int64_t d = 0; d < dim; d++) {
        dot += (double)q[d] * (double)k[d];
    }
    double score = call->scale * dot;
    if (call->softcap > 0.0) {
        score = call->softcap * tanh(score / call->softcap);
    }
    if (sdpa_has_addend(call)) {
        float addend;
        sdpa_addend(call, x->b, x->head[r], x->query[r], column, 1, &addend);
        score += (double)addend;
    }
    return score;
}

static int64_t clip(int64_t column, int64_t begin, int64_t end)
{
    return column < begin ? begin : column > end ? end : column;
}

void flash_walk_columns(flash_block *x, int64_t begin, int64_t end,
                        int64_t (*visit)(flash_block *, int64_t, int64_t, bool))
{
    if (x->valid == 0) {
        return;
    }
    /*
     * Both ends never fall from row to row: the last row's begin and the first row's end bound what
     * all rows see.
     */
    sdpa_range top = x->range[0], bottom = x->range[x->valid - 1];
    top = (sdpa_range){clip(top.begin, begin, end), clip(top.end, begin, end)};
    bottom = (sdpa_range){clip(bottom.begin, begin, end), clip(bottom.end, begin, end)};
    int64_t full_begin = bottom.begin, full_end = top.end;
    if (top.begin == bottom.begin && top.end == bottom.end) {
        walk_region(x, top.begin, top.end, false, visit);
        return;
    }
    full_end -= full_end > full_begin ? (full_end - full_begin) % UNIT : 0;
    if (full_end - full_begin < FULL_AT_LEAST) {
        walk_region(x, top.begin, bottom.end, true, visit);
        return;
    }
    walk_region(x, top.begin, full_begin, true, visit);
    walk_region(x, full_begin, full_end, false, visit);
    walk_region(x, full_end, bottom.end, true, visit);
}

void flash_walk(flash_block *x, int64_t (*visit)(flash_block *, int64_t, int64_t, bool))
{
    flash_walk_columns(x, 0, x->call->len_k, visit);
}

void flash_attend(flash_block *x)
{
    memset(x->o, 0, (size_t)(ROWS * x->layout->ldo) * sizeof *x->o);
    for (int32_t r = 0; r < ROWS; r++) {
        x->m[r] = -INFINITY;
        x->l[r] = 0.0f;
        x->top[r] = 0;
        x->best[r] = 0;
    }
    x->since_fold = 0;
    x->folded = false;
    flash_walk(x, attend_tile);
    if (x->folded) {
        fold(x);
        memcpy(x->l, x->l_total, sizeof x->l);
        memcpy(x->o, x->total, (size_t)(x->valid * x->layout->ldo) * sizeof *x->o);
    }
}
