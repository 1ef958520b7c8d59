/*
 * The exact gradients: f64 arrays, every slot (query row i, key j) worked out where it is needed, in
 * its plainest form. This is the function to read to see what backward computes. With S the scores
 * and Z what dropout multiplies the weights with,
 *
 *   P = exp(S − lse)   dP = Z∘(dout·vᵀ)   delta = Σ_d dout∘out − dlse   dS = P∘(dP − delta)
 *
 * and every gradient is a sum of P or dS over rows or keys. Each sum has one owner, who adds in a
 * fixed order: query rows own dq (pass 1), keys own dk and dv (pass 2), elements of the bias own
 * dbias (pass 3), heads own dsinks and dalibi (at the end). Slots are worked out anew in each pass:
 * that costs time, not N² memory.
 */
#include "attention/backward.h"
#include "base/alloc.h"
#include "kernels/flash/flash_f64.h"
#include "par/context.h"

#include <math.h>
#include <string.h>

enum {
    COLUMNS = 256,     /* slots of a row at a time: scratch does not grow with len_k */
    ROWS_PER_TASK = 8, /* pass 1 */
    KEYS_PER_TASK = 32 /* pass 2 */
};

/* One interval of a row's slots. */
typedef struct slots {
    double s[COLUMNS];      /* the scores */
    double dp[COLUMNS];     /* dout·v, then Z∘ that */
    double slope[COLUMNS];  /* of the score: scale·(1 − tanh²) */
    double weight[COLUMNS]; /* P∘Z: what v was multiplied with */
    double ds[COLUMNS];     /* gradient of the score: the bias's */
    double dot[COLUMNS];    /* slope∘dS: gradient of q·k */
    double addend[COLUMNS];
    float keep[COLUMNS];
    unsigned char hidden[COLUMNS]; /* masked: contributes to nothing, is not read */
} slots;

typedef struct backward_job {
    const sdpa_backward_call *call;
    double *delta; /* [batch, heads_q, len_q] */
    double *slope; /* the same: what a row adds to dalibi */
    char *workers;
    size_t per_worker;
} backward_job;

/* A query row that attends to something. */
typedef struct query_row {
    int64_t b, h, i;
    const double *q, *dout;
    double lse, delta;
} query_row;

static int64_t blocks_of(int64_t size, int64_t block)
{
    return (size + block - 1) / block;
}

/* Where element (i0, i1, i2, 0) of an f64 view lies. */
static double *at(const attn_view *view, int64_t i0, int64_t i1, int64_t i2)
{
    int64_t where = i0 * view->stride[0] + i1 * view->stride[1];
    return (double *)view->data + where + (view->ndim > 2 ? i2 * view->stride[2] : 0);
}

static int64_t row_index(const sdpa_call *call, int64_t b, int64_t h, int64_t i)
{
    return (b * call->heads_q + h) * call->len_q + i;
}

/* False for rows that nothing flows through: beyond lengths_q, or with nothing to attend to. */
static bool find_row(const backward_job *job, int64_t b, int64_t h, int64_t i, query_row *row)
{
    const sdpa_call *call = &job->call->call;
    if (i >= sdpa_rows(call, b)) {
        return false;
    }
    *row = (query_row){.b = b,
                       .h = h,
                       .i = i,
                       .q = at(&call->q, b, h, i),
                       .dout = at(&job->call->dout, b, h, i),
                       .lse = *at(&call->lse, b, h, i),
                       .delta = job->delta[row_index(call, b, h, i)]};
    return row->lse != -(double)INFINITY;
}

/* Scores, their slopes, and which slots are hidden. */
static void find_scores(const sdpa_call *call, const query_row *row, int64_t begin, int64_t count,
                        slots *t)
{
    for (int64_t c = 0; c < count; c++) {
        t->slope[c] = call->scale;
        if (call->softcap > 0.0) {
            double bent = tanh(t->s[c] / call->softcap);
            t->s[c] = call->softcap * bent;
            t->slope[c] *= (1.0 - bent) * (1.0 + bent);
        }
    }
    memset(t->hidden, 0, sizeof t->hidden);
    if (!sdpa_has_addend(call)) {
        return;
    }
    sdpa_addend_f64(call, row->b, row->h, row->i, begin, count, t->addend);
    for (int64_t c = 0; c < count; c++) {
        /* asked again, since an attended addend may have overflowed to −inf */
        t->hidden[c] = t->addend[c] == -(double)INFINITY &&
                       !sdpa_attends(call, row->b, row->h, row->i, begin + c);
        t->s[c] += t->addend[c];
    }
}

/* Everything about slots begin … begin+count−1 of a row; count ≤ COLUMNS. */
static void find_slots(const sdpa_call *call, const query_row *row, int64_t begin, int64_t count,
                       slots *t)
{
    sdpa_kv_run run = sdpa_kv_at(call, row->b, row->h / call->group, begin, count);
    attn_flash_f64_scores(row->q, run.k, run.k_stride, call->dim_qk, count, call->scale, t->s);
    attn_flash_f64_scores(row->dout, run.v, run.v_stride, call->dim_v, count, 1.0, t->dp);
    find_scores(call, row, begin, count, t);
    if (call->dropout > 0.0) {
        sdpa_keep(call, row->b, row->h, row->i, begin, count, t->keep);
    }
    for (int64_t c = 0; c < count; c++) {
        double z = 1.0;
        if (call->dropout > 0.0) {
            z = t->keep[c] != 0.0f ? 1.0 / (1.0 - call->dropout) : 0.0;
        }
        double p = exp(t->s[c] - row->lse);
        t->weight[c] = t->hidden[c] ? 0.0 : p * z;
        t->ds[c] = t->hidden[c] ? 0.0 : p * (z * t->dp[c] - row->delta);
        t->dot[c] = t->hidden[c] ? 0.0 : t->slope[c] * t->ds[c];
    }
}

/* ---- pass 1: query rows ------------------------------------------------------------------------ */

/* delta = Σ_d dout∘out − dlse; 0 for rows whose values must not be read. */
static void find_delta(const backward_job *job, int64_t b, int64_t h, int64_t i)
{
    const sdpa_backward_call *back = job->call;
    double *delta = &job->delta[row_index(&back->call, b, h, i)];
    query_row row;
    *delta = 0.0;
    if (!find_row(job, b, h, i, &row)) {
        return;
    }
    attn_flash_f64_scores(row.dout, at(&back->call.out, b, h, i), 0, back->call.dim_v, 1, 1.0,
                          delta);
    if (back->dlse.dtype != ATTN_DTYPE_NONE) {
        *delta -= *at(&back->dlse, b, h, i);
    }
}

static void one_row(const backward_job *job, int64_t b, int64_t h, int64_t i, slots *t)
{
    const sdpa_backward_call *back = job->call;
    const sdpa_call *call = &back->call;
    double *dq = back->dq.dtype ? at(&back->dq, b, h, i) : NULL, slope = 0.0;
    query_row row;
    find_delta(job, b, h, i);
    if (dq) {
        memset(dq, 0, (size_t)call->dim_qk * sizeof *dq);
    }
    sdpa_range range = {0, 0};
    if ((dq || back->dalibi.dtype) && find_row(job, b, h, i, &row)) {
        range = sdpa_row_range(call, b, i);
    }
    for (int64_t begin = range.begin; begin < range.end; begin += COLUMNS) {
        int64_t count = range.end - begin < COLUMNS ? range.end - begin : COLUMNS;
        find_slots(call, &row, begin, count, t);
        if (dq) {
            sdpa_kv_run run = sdpa_kv_at(call, b, h / call->group, begin, count);
            attn_flash_f64_accumulate(t->dot, t->hidden, run.k, run.k_stride, call->dim_qk, count,
                                      dq);
        }
        for (int64_t c = 0; back->dalibi.dtype && c < count; c++) {
            slope -= t->ds[c] * sdpa_distance(call, b, i, begin + c);
        }
    }
    job->slope[row_index(call, b, h, i)] = slope;
}

static void rows_task(void *argument, int64_t index, int worker)
{
    const backward_job *job = argument;
    const sdpa_call *call = &job->call->call;
    int64_t blocks = blocks_of(call->len_q, ROWS_PER_TASK);
    int64_t head = index / blocks, first = index % blocks * ROWS_PER_TASK;
    slots *t = (void *)(job->workers + (size_t)worker * job->per_worker);
    for (int64_t i = first; i < first + ROWS_PER_TASK && i < call->len_q; i++) {
        one_row(job, head / call->heads_q, head % call->heads_q, i, t);
    }
}

/* ---- pass 2: keys ------------------------------------------------------------------------------ */

static sdpa_range within(sdpa_range range, int64_t begin, int64_t end)
{
    range.begin = range.begin > begin ? range.begin : begin;
    range.end = range.end < end ? range.end : end;
    return range;
}

/* What one query row gives to keys begin … end−1. */
static void give_to_keys(const backward_job *job, const query_row *row, int64_t begin, int64_t end,
                         slots *t)
{
    const sdpa_backward_call *back = job->call;
    const sdpa_call *call = &back->call;
    int64_t g = row->h / call->group;
    sdpa_range range = within(sdpa_row_range(call, row->b, row->i), begin, end);
    int64_t count = range.end - range.begin;
    if (count <= 0) {
        return;
    }
    find_slots(call, row, range.begin, count, t);
    if (back->dk.dtype) {
        attn_flash_f64_spread(t->dot, t->hidden, row->q, call->dim_qk, count,
                              at(&back->dk, row->b, g, range.begin), back->dk.stride[2]);
    }
    if (back->dv.dtype) {
        attn_flash_f64_spread(t->weight, t->hidden, row->dout, call->dim_v, count,
                              at(&back->dv, row->b, g, range.begin), back->dv.stride[2]);
    }
}

static void zero_rows(const attn_view *view, int64_t b, int64_t g, int64_t begin, int64_t end)
{
    for (int64_t j = begin; view->dtype && j < end; j++) {
        memset(at(view, b, g, j), 0, (size_t)view->shape[3] * sizeof(double));
    }
}

static void keys_task(void *argument, int64_t index, int worker)
{
    const backward_job *job = argument;
    const sdpa_call *call = &job->call->call;
    int64_t blocks = blocks_of(call->len_k, KEYS_PER_TASK), head = index / blocks;
    int64_t b = head / call->heads_kv, g = head % call->heads_kv;
    int64_t begin = index % blocks * KEYS_PER_TASK;
    int64_t end = begin + KEYS_PER_TASK < call->len_k ? begin + KEYS_PER_TASK : call->len_k;
    slots *t = (void *)(job->workers + (size_t)worker * job->per_worker);
    zero_rows(&job->call->dk, b, g, begin, end);
    zero_rows(&job->call->dv, b, g, begin, end);
    for (int64_t h = g * call->group; h < (g + 1) * call->group; h++) {
        for (int64_t i = 0; i < call->len_q; i++) {
            query_row row;
            if (find_row(job, b, h, i, &row)) {
                give_to_keys(job, &row, begin, end, t);
            }
        }
    }
}

/* ---- pass 3: elements of the bias -------------------------------------------------------------- */

/* The indices of dimension n that element `own` of dbias stands for: itself, or all of them. */
static sdpa_range stands_for(const attn_view *dbias, int n, int64_t own, int64_t full)
{
    return dbias->shape[n] == 1 ? (sdpa_range){0, full} : (sdpa_range){own, own + 1};
}

/* Adds dS of one row in columns begin … end−1. */
static void give_to_bias(const backward_job *job, const query_row *row, int64_t begin, int64_t end,
                         double *to, slots *t)
{
    const sdpa_call *call = &job->call->call;
    sdpa_range range = within(sdpa_row_range(call, row->b, row->i), begin, end);
    for (int64_t from = range.begin; from < range.end; from += COLUMNS) {
        int64_t count = range.end - from < COLUMNS ? range.end - from : COLUMNS;
        find_slots(call, row, from, count, t);
        for (int64_t c = 0; c < count; c++) {
            to[(from + c) * job->call->dbias.stride[3]] += t->ds[c];
        }
    }
}

/* Columns of dbias that a task owns: a block of them, or where one stands for all, that one. */
static int64_t bias_blocks(const attn_view *dbias)
{
    return blocks_of(dbias->shape[3], COLUMNS);
}

static void bias_task(void *argument, int64_t index, int worker)
{
    const backward_job *job = argument;
    const sdpa_call *call = &job->call->call;
    const attn_view *d = &job->call->dbias;
    slots *t = (void *)(job->workers + (size_t)worker * job->per_worker);
    int64_t own = index / bias_blocks(d), begin = index % bias_blocks(d) * COLUMNS;
    int64_t end = begin + COLUMNS < d->shape[3] ? begin + COLUMNS : d->shape[3];
    int64_t own_i = own % d->shape[2], own_h = own / d->shape[2] % d->shape[1];
    int64_t own_b = own / d->shape[2] / d->shape[1];
    double *to = at(d, own_b, own_h, own_i);
    memset(to + begin, 0, (size_t)(end - begin) * sizeof *to);
    end = d->shape[3] == 1 ? call->len_k : end;
    sdpa_range bs = stands_for(d, 0, own_b, call->batch);
    sdpa_range hs = stands_for(d, 1, own_h, call->heads_q);
    sdpa_range is = stands_for(d, 2, own_i, call->len_q);
    for (int64_t b = bs.begin; b < bs.end; b++) {
        for (int64_t h = hs.begin; h < hs.end; h++) {
            for (int64_t i = is.begin; i < is.end; i++) {
                query_row row;
                if (find_row(job, b, h, i, &row)) {
                    give_to_bias(job, &row, begin, end, to, t);
                }
            }
        }
    }
}

/* ---- the whole --------------------------------------------------------------------------------- */

/* dsinks = Σ_rows −exp(sink − lse)·delta, dalibi = Σ_rows of what pass 1 found. */
static void finish_head(const backward_job *job, int64_t h)
{
    const sdpa_backward_call *back = job->call;
    const sdpa_call *call = &back->call;
    double sinks = 0.0, slope = 0.0;
    for (int64_t b = 0; b < call->batch; b++) {
        for (int64_t i = 0; i < call->len_q; i++) {
            query_row row;
            if (find_row(job, b, h, i, &row)) {
                sinks -= back->dsinks.dtype ? exp(sdpa_sink(call, h) - row.lse) * row.delta : 0.0;
                slope += job->slope[row_index(call, b, h, i)];
            }
        }
    }
    if (back->dsinks.dtype) {
        ((double *)back->dsinks.data)[h] = sinks;
    }
    if (back->dalibi.dtype) {
        ((double *)back->dalibi.data)[h] = slope;
    }
}

sdpa_needs sdpa_backward_f64_needs(const sdpa_backward_call *call)
{
    const sdpa_call *forward = &call->call;
    size_t rows, bytes;
    if (!attn_mul_size((size_t)forward->batch, (size_t)forward->heads_q, &rows) ||
        !attn_mul_size(rows, (size_t)forward->len_q, &rows) ||
        !attn_mul_size(rows, 2 * sizeof(double), &bytes)) {
        bytes = SIZE_MAX / 2; /* the plan refuses it */
    }
    return (sdpa_needs){
        .shared = bytes,
        .per_worker = sizeof(slots),
        .tasks = forward->batch * forward->heads_q * blocks_of(forward->len_q, ROWS_PER_TASK),
        .kernel = "backward_f64_c",
    };
}

void sdpa_backward_f64_run(const sdpa_backward_call *call, void *scratch)
{
    const sdpa_call *forward = &call->call;
    sdpa_needs needs = sdpa_backward_f64_needs(call);
    backward_job job = {
        .call = call,
        .delta = scratch,
        .slope = (double *)scratch + forward->batch * forward->heads_q * forward->len_q,
        .workers = (char *)scratch + attn_round_up(needs.shared),
        .per_worker = attn_round_up(needs.per_worker),
    };
    attn_context_run(forward->context, needs.tasks, false, rows_task, &job);
    if (call->dk.dtype || call->dv.dtype) {
        int64_t heads = forward->batch * forward->heads_kv;
        attn_context_run(forward->context, heads * blocks_of(forward->len_k, KEYS_PER_TASK), false,
                         keys_task, &job);
    }
    if (call->dbias.dtype) {
        const int64_t *own = call->dbias.shape;
        attn_context_run(forward->context, own[0] * own[1] * own[2] * bias_blocks(&call->dbias),
                         false, bias_task, &job);
    }
    for (int64_t h = 0; (call->dsinks.dtype || call->dalibi.dtype) && h < forward->heads_q; h++) {
        finish_head(&job, h);
    }
}
