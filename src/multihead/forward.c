/**
 * forward.c: project → (append to the cache) → attend → project back. Heads are views of the projections' rows, never
 * copies.
 */
#include "multihead/forward.h"

#include <string.h>

#include "base/alloc.h"
#include "cache/cache.h"
#include "par/context.h"

attn_multihead_forward_options attn_multihead_forward_options_init(void)
{
    return (attn_multihead_forward_options){.struct_size = sizeof(attn_multihead_forward_options)};
}

/* Where the block of *w is too small, another; parts are then placed in it. */
static attn_status take_workspace(const multihead_call *c, multihead_workspace *w)
{
    const attn_multihead *layer = c->layer;
    int64_t kv_width = layer->head_dim * layer->num_kv_heads, mask_sizes[4];
    bool fits = true, average = c->o.need_weights == ATTN_WEIGHTS_AVERAGED;
    const int64_t q_sizes[] = {c->batch, c->len_q, layer->embed_dim, 1};
    const int64_t k_sizes[] = {c->batch, c->len_k, kv_width, 1};
    const int64_t lse_sizes[] = {c->o.saved ? c->batch : 0, layer->num_heads, c->len_q, 1};
    const int64_t weights[] = {average ? c->batch : 0, layer->num_heads, c->len_q, c->columns};
    size_t bytes = 0;
    multihead_mask_sizes(c, mask_sizes);
    size_t q = multihead_reserve(&bytes, &fits, q_sizes, sizeof(float));
    size_t o = multihead_reserve(&bytes, &fits, q_sizes, sizeof(float));
    size_t k = multihead_reserve(&bytes, &fits, k_sizes, sizeof(float));
    size_t v = multihead_reserve(&bytes, &fits, k_sizes, sizeof(float));
    size_t lse = multihead_reserve(&bytes, &fits, lse_sizes, sizeof(float));
    size_t positions =
        multihead_reserve(&bytes, &fits, (int64_t[]){c->batch, 1, 1, 1}, sizeof(int64_t));
    size_t mask = multihead_reserve(&bytes, &fits, mask_sizes, 1);
    size_t mean = multihead_reserve(&bytes, &fits, weights, sizeof(float));
    if (!fits) {
        return attn_fail(ATTN_ERR_NO_MEMORY,
                         "batch %lld of %lld queries and %lld keys does not fit the address space; "
                         "split the call",
                         (long long)c->batch, (long long)c->len_q, (long long)c->columns);
    }
    if (!w->block || bytes > w->bytes) {
        const attn_allocator *allocator = attn_context_allocator(c->context);
        attn_free(allocator, w->block, w->bytes);
        w->bytes = bytes;
        w->block = attn_alloc(allocator, bytes, "multi-head workspace");
        if (!w->block) {
            w->bytes = 0;
            return ATTN_ERR_NO_MEMORY;
        }
    }
    char *base = w->block;
    w->q = (void *)(base + q);
    w->o = (void *)(base + o);
    w->k = (void *)(base + k);
    w->v = (void *)(base + v);
    w->lse = (void *)(base + lse);
    w->positions = (void *)(base + positions);
    w->mask = (void *)(base + mask);
    w->weights = (void *)(base + mean);
    return ATTN_OK;
}

/* y[batch, len, out] = x[batch, len, in]·Wᵀ + b; one product where the rows of all sequences are evenly apart. */
static attn_status project(const multihead_call *c, int which, const attn_view *x,
                           const attn_view *y)
{
    int64_t batch = x->shape[0], len = x->shape[1];
    if (batch == 0 || len == 0) {
        return ATTN_OK;
    }
    int64_t x_row = len > 1 ? x->stride[1] : x->stride[0];
    int64_t y_row = len > 1 ? y->stride[1] : y->stride[0];
    bool even = batch == 1 || ((len == 1 || x->stride[0] == len * x_row) &&
                               (len == 1 || y->stride[0] == len * y_row));
    int64_t calls = even ? 1 : batch, rows = even ? batch * len : len;
    attn_status status = ATTN_OK;
    for (int64_t n = 0; status == ATTN_OK && n < calls; n++) {
        attn_view xs = attn_view_matrix((const float *)x->data + n * x->stride[0], ATTN_F32, rows,
                                        x->shape[2], x_row);
        attn_view ys = attn_view_matrix((const float *)y->data + n * y->stride[0], ATTN_F32, rows,
                                        y->shape[2], y_row);
        status = attn_linear_forward(c->context, c->layer->projection[which].packed, &xs, &ys);
    }
    return status;
}

static attn_view rows_view(const float *data, int64_t batch, int64_t len, int64_t width)
{
    return attn_view_dense(data, ATTN_F32, 3, (int64_t[]){batch, len, width});
}

static attn_status project_inputs(const multihead_call *c, const multihead_workspace *w)
{
    const attn_multihead *layer = c->layer;
    int64_t kv_width = layer->head_dim * layer->num_kv_heads;
    attn_view q = rows_view(w->q, c->batch, c->len_q, layer->embed_dim);
    attn_view k = rows_view(w->k, c->batch, c->len_k, kv_width);
    attn_view v = rows_view(w->v, c->batch, c->len_k, kv_width);
    attn_status status = project(c, MULTIHEAD_Q, &c->query, &q);
    if (status == ATTN_OK) {
        status = project(c, MULTIHEAD_K, &c->key, &k);
    }
    return status == ATTN_OK ? project(c, MULTIHEAD_V, &c->value, &v) : status;
}

/* Appends where there is a cache, and attends. */
static attn_status attend(const multihead_call *c, const multihead_workspace *w, bool *appended)
{
    const attn_multihead *layer = c->layer;
    const attn_multihead_forward_options *given = &c->o;
    attn_sdpa_options o = multihead_sdpa_options(c, &w->mask_view);
    attn_view q =
        attn_view_blhd(w->q, ATTN_F32, c->batch, c->len_q, layer->num_heads, layer->head_dim);
    attn_view k =
        attn_view_blhd(w->k, ATTN_F32, c->batch, c->len_k, layer->num_kv_heads, layer->head_dim);
    attn_view v =
        attn_view_blhd(w->v, ATTN_F32, c->batch, c->len_k, layer->num_kv_heads, layer->head_dim);
    attn_view out =
        attn_view_blhd(w->o, ATTN_F32, c->batch, c->len_q, layer->num_heads, layer->head_dim);
    attn_view weights =
        attn_view_bhld(w->weights, ATTN_F32, c->batch, layer->num_heads, c->len_q, c->columns);
    if (given->need_weights != ATTN_WEIGHTS_NONE) {
        o.weights = given->need_weights == ATTN_WEIGHTS_AVERAGED ? &weights : given->weights;
    }
    attn_view lse =
        attn_view_dense(w->lse, ATTN_F32, 3, (int64_t[]){c->batch, layer->num_heads, c->len_q});
    o.lse = given->saved ? &lse : NULL;
    if (!given->cache) {
        return attn_sdpa(c->context, &o, &q, &k, &v, &out);
    }
    for (int64_t b = 0; b < c->batch; b++) {
        w->positions[b] = attn_kv_cache_position(given->cache, b);
    }
    attn_status status = attn_kv_cache_append(given->cache, &k, &v, given->lengths_k);
    if (status != ATTN_OK) {
        return status;
    }
    *appended = true;
    attn_kv_view kv = attn_kv_cache_view(given->cache);
    return attn_sdpa_kv(c->context, &o, &q, &kv, &out);
}

/* Rows past a sequence's length are 0, not the bias of the projection. */
static void clear_padding(const multihead_call *c)
{
    for (int64_t b = 0; c->o.lengths_q && b < c->batch; b++) {
        for (int64_t i = c->o.lengths_q[b]; i < c->len_q; i++) {
            memset((float *)c->out.data + b * c->out.stride[0] + i * c->out.stride[1], 0,
                   (size_t)c->out.shape[2] * sizeof(float));
        }
    }
}

typedef struct average_job {
    const multihead_call *call;
    const float *weights;
} average_job;

/* One row of averaged weights: heads added in order, in double. */
static void average_task(void *argument, int64_t index, int worker)
{
    (void)worker;
    const average_job *job = argument;
    const multihead_call *c = job->call;
    int64_t heads = c->layer->num_heads, b = index / c->len_q, i = index % c->len_q;
    const attn_view *to = c->o.weights;
    float *row = (float *)to->data + b * to->stride[0] + i * to->stride[1];
    for (int64_t j = 0; j < c->columns; j++) {
        double sum = 0.0;
        for (int64_t h = 0; h < heads; h++) {
            sum += (double)job->weights[((b * heads + h) * c->len_q + i) * c->columns + j];
        }
        row[j] = (float)(sum / (double)heads);
    }
}

static attn_status run(const multihead_call *c, multihead_workspace *w)
{
    bool appended = false;
    w->mask_view = multihead_join_masks(c, w->mask);
    attn_status status = project_inputs(c, w);
    if (status == ATTN_OK) {
        status = attend(c, w, &appended);
    }
    if (status == ATTN_OK) {
        attn_view o = rows_view(w->o, c->batch, c->len_q, c->layer->embed_dim);
        status = project(c, MULTIHEAD_OUT, &o, &c->out);
    }
    if (status != ATTN_OK) {
        /* One append can always be taken back, from a ring too: the call never happened. */
        for (int64_t b = 0; appended && b < c->batch; b++) {
            (void)attn_kv_cache_truncate(c->o.cache, b, w->positions[b]);
        }
        return status;
    }
    clear_padding(c);
    if (c->o.need_weights == ATTN_WEIGHTS_AVERAGED) {
        average_job job = {c, w->weights};
        attn_context_run(c->context, c->batch * c->len_q, false, average_task, &job);
    }
    return ATTN_OK;
}

attn_status attn_multihead_forward(attn_context *context, const attn_multihead *layer,
                                   const attn_multihead_forward_options *options,
                                   const attn_view *query, const attn_view *key,
                                   const attn_view *value, const attn_view *out)
{
    multihead_call call;
    multihead_workspace own = {0};
    attn_status status =
        multihead_check(context, layer, options, query, key, value, out, false, &call);
    if (status != ATTN_OK) {
        return status;
    }
    attn_multihead_saved *saved = call.o.saved;
    if (saved) {
        saved->layer = NULL;
    }
    status = take_workspace(&call, saved ? &saved->workspace : &own);
    if (status == ATTN_OK) {
        status = run(&call, saved ? &saved->workspace : &own);
    }
    if (saved && status == ATTN_OK) {
        saved->layer = layer;
        saved->version = layer->version;
        saved->batch = call.batch;
        saved->len_q = call.len_q;
        saved->len_k = call.len_k;
        saved->options = call.o;
    }
    attn_free(attn_context_allocator(context), own.block, own.bytes);
    return status;
}
