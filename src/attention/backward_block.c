/*
 * One block of query rows against one part of the keys, backward.
 *
 * A masked slot has P = dS = 0, and 0·NaN is NaN: a NaN in a row of Q, dO or K could reach the
 * gradients of what does not attend to it. (V is no such trap: dP of masked slots is not looked at.)
 * So rows are checked as they are taken. Those with a NaN or inf are replaced by zeros in the
 * operands of the products, and are added afterwards, slot by slot, where they are attended.
 */
#include "attention/backward_flash.h"
#include "base/alloc.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = ATTN_FLASH_ROWS,
    LANES = ATTN_FLASH_LANES,
    KEYS_AHEAD = 12 /* four times a tile of 48 */
};

void backward_open(backward_block *x, const backward_job *job, int worker)
{
    const backward_layout *at = &job->layout;
    char *scratch = job->workers + (size_t)worker * attn_round_up(at->tile.size);
    memset(x, 0, sizeof *x);
    x->f = (flash_block){
        .call = &job->call->call,
        .layout = &at->tile,
        .kernels = job->kernels,
        .convert = job->convert,
        .drop = job->drop,
        .qt = (void *)(scratch + at->tile.qt),
        .s = (void *)(scratch + at->tile.s),
        .addend = (void *)(scratch + at->tile.addend),
        .row = (void *)(scratch + at->tile.row),
        .capped = flash_cap(&job->call->call) > 0.0f ? (void *)(scratch + at->capped) : NULL,
    };
    x->job = job;
    x->gt = (void *)(scratch + at->gt);
    x->dp = (void *)(scratch + at->dp);
    x->keep = (void *)(scratch + at->keep);
    x->q = (void *)(scratch + at->q);
    x->g = (void *)(scratch + at->g);
    x->o = (void *)(scratch + at->o);
    x->k_copy = (void *)(scratch + at->k);
    x->v_copy = (void *)(scratch + at->v);
    x->clean = (void *)(scratch + at->clean);
    x->dbias = (void *)(scratch + at->dbias);
    x->bad_key = (void *)(scratch + at->bad);
    for (int32_t r = 0; r < ROWS; r++) {
        x->one[r] = 1.0f;
    }
}

float *backward_room(const backward_job *job, int worker)
{
    const flash_layout *at = &job->layout.tile;
    return (float *)(void *)(job->workers + (size_t)worker * attn_round_up(at->size) + at->row);
}

void *backward_at(const attn_view *view, int64_t b, int64_t h, int64_t i)
{
    int64_t at = b * view->stride[0] + h * view->stride[1] + i * view->stride[2];
    return (char *)view->data + at * (view->dtype == ATTN_F32 ? 4 : 2);
}

const float *backward_f32(const backward_job *job, attn_dtype dtype, const void *row, int64_t dim,
                          float *room)
{
    if (dtype == ATTN_F32) {
        return row;
    }
    if (dtype == ATTN_BF16) {
        job->convert->bf16_to_f32(row, room, dim);
    } else {
        job->convert->f16_to_f32(row, room, dim);
    }
    return room;
}

void backward_store(const backward_job *job, attn_dtype dtype, const float *row, int64_t dim,
                    void *to)
{
    if (dtype == ATTN_F32) {
        memcpy(to, row, (size_t)dim * sizeof *row);
    } else if (dtype == ATTN_BF16) {
        job->convert->f32_to_bf16(row, to, dim);
    } else {
        job->convert->f32_to_f16(row, to, dim);
    }
}

bool backward_meets(const sdpa_call *call, int64_t b, int64_t heads, int64_t t, sdpa_range keys)
{
    int64_t rows = sdpa_rows(call, b) * heads, last = t + ROWS < rows ? t + ROWS : rows;
    return t < last && sdpa_row_range(call, b, t / heads).begin < keys.end &&
           sdpa_row_range(call, b, (last - 1) / heads).end > keys.begin;
}

static void find_bad_keys(backward_block *x)
{
    x->any_bad_key = false;
    for (int64_t j = 0; j < x->end - x->begin; j++) {
        x->bad_key[j] =
            !x->f.kernels->finish(x->k + j * x->k_stride, 1.0f, x->f.call->dim_qk, x->f.row);
        x->any_bad_key = x->any_bad_key || x->bad_key[j];
    }
}

void backward_load_keys(backward_block *x, int64_t b, int64_t kv_head, int64_t begin, int64_t end)
{
    const sdpa_call *call = x->f.call;
    const attn_view *k = &call->kv.k, *v = &call->kv.v;
    x->begin = begin;
    x->end = end;
    if (k->dtype == ATTN_F32) {
        x->k = backward_at(k, b, kv_head, begin);
        x->v = backward_at(v, b, kv_head, begin);
        x->k_stride = k->stride[2];
        x->v_stride = v->stride[2];
    } else {
        for (int64_t j = begin; j < end; j++) {
            backward_f32(x->job, k->dtype, backward_at(k, b, kv_head, j), call->dim_qk,
                         x->k_copy + (j - begin) * call->dim_qk);
            backward_f32(x->job, v->dtype, backward_at(v, b, kv_head, j), call->dim_v,
                         x->v_copy + (j - begin) * call->dim_v);
        }
        x->k = x->k_copy;
        x->v = x->v_copy;
        x->k_stride = call->dim_qk;
        x->v_stride = call->dim_v;
    }
    x->key_ahead = begin;
    find_bad_keys(x);
}

float backward_delta(const backward_job *job, int64_t b, int64_t h, int64_t i, float *room)
{
    const sdpa_backward_call *back = job->call;
    const attn_view *out = &back->call.out, *dout = &back->dout, *dlse = &back->dlse;
    int64_t dim = back->call.dim_v;
    const float *o = backward_f32(job, out->dtype, backward_at(out, b, h, i), dim, room);
    const float *g = backward_f32(job, dout->dtype, backward_at(dout, b, h, i), dim, room + dim);
    float delta = job->backward->dot(g, o, dim);
    return dlse->dtype == ATTN_DTYPE_NONE ? delta
                                          : delta - *(const float *)backward_at(dlse, b, h, i);
}

float *backward_delta_at(const backward_job *job, int64_t b, int64_t h, int64_t i)
{
    const sdpa_call *call = &job->call->call;
    return (float *)(void *)(job->shared + job->layout.delta) +
           (b * call->heads_q + h) * call->len_q + i;
}

/* Row r of dO, and of Q times scale; whether they are finite. */
static void load_row(backward_block *x, int32_t r)
{
    const backward_job *job = x->job;
    const sdpa_call *call = x->f.call;
    const attn_view *q = &call->q, *dout = &job->call->dout;
    int64_t b = x->f.b, h = x->f.head[r], i = x->f.query[r];
    float *room = x->f.row;
    const float *row = backward_f32(job, q->dtype, backward_at(q, b, h, i), call->dim_qk, room);
    x->bad_q[r] =
        !job->kernels->finish(row, (float)call->scale, call->dim_qk, x->q + r * job->layout.ldq);
    row = backward_f32(job, dout->dtype, backward_at(dout, b, h, i), call->dim_v, room);
    x->bad_g[r] = !job->kernels->finish(row, 1.0f, call->dim_v, x->g + r * job->layout.ldg);
    x->any_bad_row = x->any_bad_row || x->bad_q[r] || x->bad_g[r];
    x->delta[r] = *backward_delta_at(job, b, h, i);
    x->lse[r] = *(const float *)backward_at(&call->lse, b, h, i);
    x->odd[r] = isnan(x->lse[r]) || !isfinite(x->delta[r]);
    x->any_odd = x->any_odd || x->odd[r];
}

void backward_load_rows(backward_block *x, int64_t b, int64_t head, int64_t heads, int64_t first)
{
    const backward_layout *at = &x->job->layout;
    const sdpa_call *call = x->f.call;
    flash_begin_rows(&x->f, b, head, heads, first);
    x->any_bad_row = x->any_odd = false;
    for (int32_t r = 0; r < x->f.valid; r++) {
        load_row(x, r);
    }
    for (int32_t lane = 0; lane < x->f.valid; lane += LANES) {
        const float *rows[LANES];
        int32_t count = x->f.valid - lane < LANES ? x->f.valid - lane : LANES;
        for (int32_t r = 0; r < count; r++) {
            rows[r] = x->g + (lane + r) * at->ldg;
        }
        x->f.kernels->pack(rows, count, call->dim_v, x->gt + lane);
    }
    for (int32_t r = 0; r < x->f.valid && x->any_bad_row; r++) {
        if (x->bad_q[r]) {
            memset(x->q + r * at->ldq, 0, (size_t)call->dim_qk * sizeof *x->q);
        }
        if (x->bad_g[r]) {
            memset(x->g + r * at->ldg, 0, (size_t)call->dim_v * sizeof *x->g);
        }
    }
}

static void prefetch_row(const void *row, int64_t bytes)
{
    enum { LINE = 64 };
    for (int64_t at = 0; row && at < bytes; at += LINE) {
        __builtin_prefetch((const char *)row + at, 0, 2);
    }
}

/*
 * Rows of the next block come from beyond L2, as this block's did, and nothing of a block can start without
 * them; the same holds for the keys of a part as its first block comes to them. A few of both are asked
 * for between any two stages.
 */
static void prefetch(backward_block *x)
{
    const backward_job *job = x->job;
    const sdpa_call *call = x->f.call;
    const attn_view *views[4] = {&call->q, &job->call->dout, &job->call->dq, &call->out};
    const int64_t dims[4] = {call->dim_qk, call->dim_v, call->dim_qk, call->dim_v};
    int count = job->wave == 0 ? 4 : 3; /* out: for delta */
    for (int64_t n = 0; n < job->layout.ahead && x->ahead < x->stop; n++, x->ahead++) {
        int64_t h = x->f.kv_head * call->group + x->ahead % call->group;
        for (int v = 0; v < count; v++) {
            int64_t bytes = dims[v] * (int64_t)attn_dtype_size(views[v]->dtype);
            const char *row =
                bytes ? backward_at(views[v], x->f.b, h, x->ahead / call->group) : NULL;
            prefetch_row(row, bytes);
        }
    }
    for (int64_t n = 0; n < KEYS_AHEAD && x->key_ahead < x->end; n++, x->key_ahead++) {
        int64_t j = x->key_ahead - x->begin;
        prefetch_row(x->v + j * x->v_stride, call->dim_v * (int64_t)sizeof(float));
        prefetch_row(x->dk.data ? x->dk.data + j * x->dk.stride : NULL,
                     call->dim_qk * (int64_t)sizeof(float));
        prefetch_row(x->dv.data ? x->dv.data + j * x->dv.stride : NULL,
                     call->dim_v * (int64_t)sizeof(float));
    }
}

void backward_clear_keys(backward_block *x, int64_t end)
{
    const sdpa_call *call = x->f.call;
    for (; x->begun < end; x->begun++) {
        int64_t j = x->begun - x->begin;
        if (x->dk.data) {
            memset(x->dk.data + j * x->dk.stride, 0, (size_t)call->dim_qk * sizeof(float));
        }
        if (x->dv.data) {
            memset(x->dv.data + j * x->dv.stride, 0, (size_t)call->dim_v * sizeof(float));
        }
    }
}

/* Whether columns begin … end−1 are given their first terms; if not, they have sums or 0 by now. */
static bool begin_keys(backward_block *x, int64_t begin, int64_t end)
{
    bool first = x->begun <= begin;
    backward_clear_keys(x, first ? begin : end);
    x->begun = x->begun < end ? end : x->begun;
    return first;
}

/*
 * A score of −inf reads as masked. In a row where nothing is a number any more, attended scores that
 * overflowed to −inf must not stay behind as zeros.
 */
static void spread_odd_rows(backward_block *x, int64_t begin)
{
    for (int32_t r = 0; r < x->f.valid; r++) {
        for (int64_t j = 0; x->odd[r] && j < x->f.tile.keys; j++) {
            float *p = &x->f.s[j * ROWS + r], *ds = &x->dp[j * ROWS + r];
            if (sdpa_attends(x->f.call, x->f.b, x->f.head[r], x->f.query[r], begin + j)) {
                *p = isnan(x->lse[r]) ? NAN : *p;
                *ds = *ds == 0.0f ? NAN : *ds;
            }
        }
    }
}

void backward_scores(backward_block *x, int64_t begin, int64_t count, bool partial)
{
    const backward_job *job = x->job;
    const sdpa_call *call = x->f.call;
    int64_t j = begin - x->begin;
    flash_score_tile(&x->f, x->k + j * x->k_stride, x->k_stride, begin, count, partial, false);
    prefetch(x);
    job->kernels->scores(&x->f.tile, x->gt, x->v + j * x->v_stride, x->v_stride, call->dim_v, 1.0f,
                         x->dp, NULL);
    if (job->drop) {
        job->drop(&x->f.dropout, begin, (int32_t)count, x->f.valid, NULL, x->keep);
    }
    job->backward->gradient(&x->f.tile, x->lse, x->delta, job->drop ? x->keep : NULL,
                            sdpa_has_addend(call), x->f.s, x->dp);
    if (x->any_odd) {
        spread_odd_rows(x, begin);
    }
}

/* A row that was left out of the product, a finite number of times each attended key's weight. */
static void add_row(backward_block *x, int32_t r, int64_t begin, const float *weights,
                    const float *row, float factor, int64_t dim, backward_rows to)
{
    for (int64_t j = 0; j < x->f.tile.keys; j++) {
        if (sdpa_attends(x->f.call, x->f.b, x->f.head[r], x->f.query[r], begin + j)) {
            x->job->backward->add(factor * weights[j * ROWS + r], row, dim,
                                  to.data + (begin - x->begin + j) * to.stride);
        }
    }
}

static void add_bad_rows(backward_block *x, int64_t begin)
{
    const sdpa_call *call = x->f.call;
    const attn_view *q = &call->q, *dout = &x->job->call->dout;
    for (int32_t r = 0; r < x->f.valid; r++) {
        int64_t h = x->f.head[r], i = x->f.query[r];
        if (x->bad_q[r] && x->dk.data) {
            const float *row = backward_f32(x->job, q->dtype, backward_at(q, x->f.b, h, i),
                                            call->dim_qk, x->f.row);
            add_row(x, r, begin, x->dp, row, (float)call->scale, call->dim_qk, x->dk);
        }
        if (x->bad_g[r] && x->dv.data) {
            const float *row = backward_f32(x->job, dout->dtype, backward_at(dout, x->f.b, h, i),
                                            call->dim_v, x->f.row);
            add_row(x, r, begin, x->f.s, row, 1.0f, call->dim_v, x->dv);
        }
    }
}

/* K of a tile with zeros for the keys that add_bad_keys adds. */
static void clean_keys(backward_block *x, int64_t begin)
{
    int64_t dim = x->f.call->dim_qk, at = begin - x->begin;
    for (int64_t j = 0; j < x->f.tile.keys; j++) {
        const float *row = x->k + (at + j) * x->k_stride;
        for (int64_t d = 0; d < dim; d++) {
            x->clean[j * dim + d] = x->bad_key[at + j] ? 0.0f : row[d];
        }
    }
}

static void add_bad_keys(backward_block *x, int64_t begin)
{
    const sdpa_call *call = x->f.call;
    for (int64_t j = 0; j < x->f.tile.keys; j++) {
        int64_t at = begin - x->begin + j;
        for (int32_t r = 0; r < x->f.valid && x->bad_key[at]; r++) {
            if (sdpa_attends(call, x->f.b, x->f.head[r], x->f.query[r], begin + j)) {
                x->job->backward->add(x->dp[j * ROWS + r], x->k + at * x->k_stride, call->dim_qk,
                                      x->o + r * x->job->layout.ldq);
            }
        }
    }
}

/* The slope enters a score as −slope·distance. */
static void add_slopes(backward_block *x, int64_t begin)
{
    const sdpa_call *call = x->f.call;
    float sum[ROWS] = {0}, from[ROWS] = {0};
    bool both = call->causal == ATTN_CAUSAL_NONE;
    for (int32_t r = 0; r < x->f.valid; r++) {
        from[r] = (float)((double)sdpa_position(call, x->f.b, x->f.query[r]) - (double)begin);
    }
    for (int32_t j = 0; j < x->f.tile.keys; j++) {
        const float *ds = x->dp + j * ROWS;
        for (int32_t r = 0; r < x->f.valid; r++) {
            float distance = from[r] - (float)j;
            sum[r] -= ds[r] * (both ? fabsf(distance) : distance);
        }
    }
    for (int32_t r = 0; r < x->f.valid; r++) {
        x->slope[r] += (double)sum[r];
    }
}

static int64_t pair_tile(flash_block *f, int64_t begin, int64_t wanted, bool partial)
{
    backward_block *x = (backward_block *)f; /* its first member */
    const backward_job *job = x->job;
    const sdpa_call *call = f->call;
    const attn_flash_backward_kernels *kernels = job->backward;
    const backward_layout *at = &job->layout;
    int64_t j = begin - x->begin;
    backward_scores(x, begin, wanted, partial);
    prefetch(x);
    bool first = begin_keys(x, begin, begin + wanted);
    if (x->dv.data) {
        kernels->product(&f->tile, f->s, x->g, at->ldg, call->dim_v, first,
                         x->dv.data + j * x->dv.stride, x->dv.stride);
    }
    prefetch(x);
    if (job->call->dalibi.dtype != ATTN_DTYPE_NONE) {
        add_slopes(x, begin);
    }
    if (f->capped) {
        kernels->slope(&f->tile, flash_cap(call), f->capped, x->dp);
    }
    if (x->dk.data) {
        kernels->product(&f->tile, x->dp, x->q, at->ldq, call->dim_qk, first,
                         x->dk.data + j * x->dk.stride, x->dk.stride);
    }
    prefetch(x);
    if (x->dq && x->any_bad_key) {
        clean_keys(x, begin);
        f->kernels->values(&f->tile, x->dp, x->clean, call->dim_qk, call->dim_qk, x->one, x->o,
                           at->ldq);
        add_bad_keys(x, begin);
    } else if (x->dq) {
        f->kernels->values(&f->tile, x->dp, x->k + j * x->k_stride, x->k_stride, call->dim_qk,
                           x->one, x->o, at->ldq);
    }
    if (x->any_bad_row) {
        add_bad_rows(x, begin);
    }
    return wanted;
}

void backward_pair(backward_block *x)
{
    memset(x->o, 0, (size_t)(ROWS * x->job->layout.ldq) * sizeof *x->o);
    memset(x->slope, 0, sizeof x->slope);
    flash_walk_columns(&x->f, x->begin, x->end, pair_tile);
}
