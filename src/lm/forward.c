/**
 * lm/forward.c: one block of tokens through a llama-family transformer (Touvron et al. 2023).
 *
 *   x = embedding[token]
 *   per layer:  h = rms_norm(x);  q, k, v = W_qkv·h;  rope(q, k);  append k, v;  x +=
 * W_o·attention(q, cache) h = rms_norm(x);  x += W_down·(silu(W_gate·h)·(W_up·h)) logits =
 * W_out·rms_norm(x)
 *
 * Prefill and decode are this same code: attention always reads keys and values as the cache stores
 * them, so that a token sees the same numbers whichever way it came in. q, k and v stay where the
 * projection put them; attention gets strided views of it.
 */
#include "lm/model.h"
#include <attn/attention.h>
#include <attn/ops.h>
#include <string.h>

/* A block of rows that a task of the residual sum takes. */
#define ROWS_A_TASK 32

static attn_view rows_of(float *data, int64_t rows, int64_t cols, int64_t stride)
{
    return attn_view_matrix(data, ATTN_F32, rows, cols, stride);
}

/* [1, heads, rows, head_dim] over rows of `stride` floats, heads side by side in each. */
static attn_view heads_of(float *data, int64_t rows, int64_t heads, int64_t dim, int64_t stride)
{
    attn_view view = attn_view_blhd(data, ATTN_F32, 1, rows, heads, dim);
    view.stride[0] = rows * stride;
    view.stride[2] = stride;
    return view;
}

static attn_status project(attn_session *s, const lm_projection *projection, const attn_view *x,
                           float *y, int64_t stride)
{
    for (int i = 0; i < projection->count; i++) {
        const attn_linear *linear = projection->linear[i];
        attn_view out = rows_of(y + projection->offset[i], x->shape[0],
                                attn_linear_out_features(linear), stride);
        attn_status status = attn_linear_forward(s->context, linear, x, &out);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return ATTN_OK;
}

/* x += h for rows × dim floats: on this thread for the few rows of decode, on all of them in
 * prefill. */
typedef struct residual {
    float *x;
    const float *h;
    int64_t rows, dim;
} residual;

static void add_rows(void *argument, int64_t index, int worker)
{
    const residual *r = argument;
    (void)worker;
    int64_t begin = index * ROWS_A_TASK * r->dim;
    int64_t end = begin + ROWS_A_TASK * r->dim;
    if (end > r->rows * r->dim) {
        end = r->rows * r->dim;
    }
    for (int64_t i = begin; i < end; i++) {
        r->x[i] += r->h[i];
    }
}

static attn_status add_residual(attn_session *s, float *x, const float *h, int64_t rows)
{
    residual r = {x, h, rows, s->model->config.dim};
    int64_t tasks = (rows + ROWS_A_TASK - 1) / ROWS_A_TASK;
    if (tasks <= 1) {
        add_rows(&r, 0, 0);
        return ATTN_OK;
    }
    return attn_parallel_for(s->context, tasks, add_rows, &r);
}

static attn_status embed(attn_session *s, const int32_t *tokens, int64_t rows)
{
    const attn_model *m = s->model;
    for (int64_t i = 0; i < rows; i++) {
        attn_status status = attn_weight_dequantize(
            m->embedding_type, m->embedding + (size_t)tokens[i] * m->embedding_row, m->config.dim,
            s->x + i * m->config.dim);
        if (status != ATTN_OK) {
            return status;
        }
        s->positions[i] = s->position + i;
    }
    return ATTN_OK;
}

/* h = norm(x), then q, k, v of all rows; k and v go to the cache. */
static attn_status keys_and_values(attn_session *s, int64_t index, int64_t rows)
{
    const attn_model_config *c = &s->model->config;
    const lm_layer *layer = &s->model->layers[index];
    int64_t stride = layer->qkv.out_features;
    attn_view x = rows_of(s->x, rows, c->dim, c->dim), h = rows_of(s->h, rows, c->dim, c->dim);
    attn_status status = attn_rms_norm(s->context, &x, layer->attn_norm, c->norm_eps, &h);
    if (status == ATTN_OK) {
        status = project(s, &layer->qkv, &h, s->qkv, stride);
    }
    if (status == ATTN_OK) { /* q and k heads are neighbours: one call turns them all */
        attn_view qk = heads_of(s->qkv, rows, c->heads_q + c->heads_kv, c->head_dim, stride);
        status =
            attn_rope(s->context, &qk, s->positions, c->rope_theta, c->rope_dims, c->rope_pairing);
    }
    if (status == ATTN_OK) {
        float *keys = s->qkv + c->heads_q * c->head_dim;
        attn_view k = heads_of(keys, rows, c->heads_kv, c->head_dim, stride);
        attn_view v =
            heads_of(keys + c->heads_kv * c->head_dim, rows, c->heads_kv, c->head_dim, stride);
        status = attn_kv_cache_append(s->caches[index], &k, &v, NULL);
    }
    return status;
}

/* x += W_o·attention for the last `rows` of `appended` rows. */
static attn_status attend(attn_session *s, int64_t index, int64_t appended, int64_t rows)
{
    const attn_model_config *c = &s->model->config;
    const lm_layer *layer = &s->model->layers[index];
    int64_t stride = layer->qkv.out_features, first = appended - rows,
            width = c->heads_q * c->head_dim;
    attn_view q = heads_of(s->qkv + first * stride, rows, c->heads_q, c->head_dim, stride);
    attn_view mixed = heads_of(s->mix, rows, c->heads_q, c->head_dim, width);
    attn_kv_view kv = attn_kv_cache_view(s->caches[index]);
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    if (s->window > 0) {
        options.has_window = true;
        options.window_left = s->window - 1; /* the session's window counts the token itself */
        options.window_right = -1;
    }
    attn_status status = attn_sdpa_kv(s->context, &options, &q, &kv, &mixed);
    if (status == ATTN_OK) {
        attn_view in = rows_of(s->mix, rows, width, width);
        status = project(s, &layer->attn_output, &in, s->h, c->dim);
    }
    return status == ATTN_OK ? add_residual(s, s->x + first * c->dim, s->h, rows) : status;
}

static attn_status feed_forward(attn_session *s, const lm_layer *layer, float *x, int64_t rows)
{
    const attn_model_config *c = &s->model->config;
    attn_view in = rows_of(x, rows, c->dim, c->dim), h = rows_of(s->h, rows, c->dim, c->dim);
    attn_status status = attn_rms_norm(s->context, &in, layer->ffn_norm, c->norm_eps, &h);
    if (status == ATTN_OK) {
        status = project(s, &layer->gate_up, &h, s->ffn, 2 * c->ffn_dim);
    }
    attn_view gate = rows_of(s->ffn, rows, c->ffn_dim, 2 * c->ffn_dim);
    attn_view up = rows_of(s->ffn + c->ffn_dim, rows, c->ffn_dim, 2 * c->ffn_dim);
    if (status == ATTN_OK) {
        status = attn_swiglu(s->context, &gate, &up, &gate);
    }
    if (status == ATTN_OK) {
        status = project(s, &layer->down, &gate, s->h, c->dim);
    }
    return status == ATTN_OK ? add_residual(s, x, s->h, rows) : status;
}

static attn_status cancelled(const attn_session *s)
{
    return s->cancel && s->cancel(s->cancel_user) ? attn_fail(ATTN_ERR_CANCELLED, "cancelled")
                                                  : ATTN_OK;
}

attn_status lm_forward_block(attn_session *session, const int32_t *tokens, int64_t rows,
                             int64_t wanted, float *logits)
{
    attn_session *s = session;
    const attn_model *m = s->model;
    const attn_model_config *c = &m->config;
    attn_status status = embed(s, tokens, rows);
    for (int64_t i = 0; status == ATTN_OK && i < c->layers; i++) {
        if ((status = cancelled(s)) != ATTN_OK ||
            (status = keys_and_values(s, i, rows)) != ATTN_OK) {
            return status;
        }
        /* Nobody reads the last layer's rows but those whose logits are wanted. */
        int64_t needed = i + 1 < c->layers ? rows : wanted;
        if (needed > 0 && (status = attend(s, i, rows, needed)) == ATTN_OK) {
            status = feed_forward(s, &m->layers[i], s->x + (rows - needed) * c->dim, needed);
        }
    }
    if (status != ATTN_OK || wanted == 0) {
        return status;
    }
    attn_view x = rows_of(s->x + (rows - wanted) * c->dim, wanted, c->dim, c->dim);
    attn_view h = rows_of(s->h, wanted, c->dim, c->dim);
    status = attn_rms_norm(s->context, &x, m->output_norm, c->norm_eps, &h);
    return status == ATTN_OK ? project(s, &m->output, &h, logits, c->vocab) : status;
}
