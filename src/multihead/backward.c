/**
 * backward.c: the street of forward.c the other way: out projection, attention, input projections. Gradients of weights are
 * products over all rows, those of biases sums of rows.
 */
#include <string.h>

#include "attention/views.h"
#include "base/alloc.h"
#include "multihead/forward.h"
#include "par/context.h"

#include <attn/linear.h>

attn_multihead_gradients attn_multihead_gradients_init(void)
{
    return (attn_multihead_gradients){.struct_size = sizeof(attn_multihead_gradients)};
}

/* One of query, key, value, dout: its rows as one matrix, copied where they are no such thing as they lie. */
typedef struct row_source {
    const attn_view *view;
    const int64_t *lengths;   /* rows beyond count as zeros; NULL: none do */
    const attn_view *padding; /* so do rows that this ignores; NULL: none */
    bool copied;
    attn_view matrix; /* [batch·len, width] */
} row_source;

typedef struct backward_call {
    multihead_call call;
    attn_multihead *layer;
    const attn_multihead_saved *saved;
    attn_multihead_gradients wanted;
    bool has_key, has_value;
    row_source query, key, value, dout;
    float *dmixed, *dq, *dk, *dv; /* [batch, len, width] */
    attn_view mask;
    void *block;
    size_t bytes;
} backward_call;

/* ---- checks ------------------------------------------------------------------------------------- */

/* What of the options differs from the forward call's and can be seen; NULL: nothing. */
static const char *other_option(const attn_multihead_forward_options *forward,
                                const attn_multihead_forward_options *now)
{
    bool window = forward->has_window && (forward->window_left != now->window_left ||
                                          forward->window_right != now->window_right);
    bool p = forward->dropout < now->dropout || forward->dropout > now->dropout;
    return forward->causal != now->causal                                     ? "causal"
           : forward->has_window != now->has_window || window                 ? "window"
           : !forward->mask != !now->mask                                     ? "mask"
           : !forward->key_padding_mask != !now->key_padding_mask             ? "key_padding_mask"
           : !forward->lengths_q != !now->lengths_q                           ? "lengths_q"
           : !forward->lengths_k != !now->lengths_k                           ? "lengths_k"
           : p                                                                ? "dropout"
           : now->dropout > 0.0 && forward->dropout_seed != now->dropout_seed ? "dropout_seed"
                                                                              : NULL;
}

static attn_status check_saved(const backward_call *b)
{
    const attn_multihead_saved *saved = b->saved;
    const multihead_call *c = &b->call;
    if (!saved) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "saved: is NULL but must be what the forward call was given as "
                         "options.saved");
    }
    if (saved->layer != b->layer) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "saved: holds %s; call attn_multihead_forward with options.saved first, "
                         "and keep one object for each layer",
                         saved->layer ? "another layer's forward call" : "no forward call");
    }
    if (saved->version != b->layer->version) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "saved: the layer's parameters changed after the forward call; call "
                         "attn_multihead_set_parameter after the backward");
    }
    if (saved->batch != c->batch || saved->len_q != c->len_q || saved->len_k != c->len_k) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "saved: is of batch %lld, len_q %lld, len_k %lld but this call has %lld, "
                         "%lld, %lld; give what the forward call was given",
                         (long long)saved->batch, (long long)saved->len_q, (long long)saved->len_k,
                         (long long)c->batch, (long long)c->len_q, (long long)c->len_k);
    }
    const char *other = other_option(&saved->options, &c->o);
    if (other) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "options: %s is not that of the forward call, and the gradients would be "
                         "of another function; give its options",
                         other);
    }
    return ATTN_OK;
}

static attn_status check_gradient(const char *name, const attn_view *view, const char *of,
                                  const attn_view *input, bool has_input)
{
    if (view->dtype == ATTN_DTYPE_NONE) {
        return ATTN_OK;
    }
    if (!has_input) {
        return attn_fail(
            ATTN_ERR_ARGUMENT,
            "gradients.%s: %s was NULL, its gradient is part of the input's that stood "
            "in for it; leave the view zeroed",
            name, of);
    }
    if (view->dtype != ATTN_F32) {
        return attn_fail(ATTN_ERR_DTYPE, "gradients.%s: is %s but must be f32", name,
                         attn_dtype_name(view->dtype));
    }
    bool same = view->ndim == 3;
    for (int n = 0; same && n < 3; n++) {
        same = view->shape[n] == input->shape[n];
    }
    if (!same) {
        return attn_fail(ATTN_ERR_SHAPE, "gradients.%s: must have %s's shape %s", name, of,
                         sdpa_shape_text(input).text);
    }
    return sdpa_check_output(name, view);
}

static attn_status check_gradients(backward_call *b, const attn_multihead_gradients *given)
{
    const multihead_call *c = &b->call;
    attn_multihead_gradients *g = &b->wanted;
    *g = attn_multihead_gradients_init();
    attn_status status =
        attn_take_struct("gradients", "attn_multihead_gradients_init", given, g, sizeof *g);
    if (status != ATTN_OK) {
        return status;
    }
    status = check_gradient("dquery", &g->dquery, "query", &c->query, true);
    if (status == ATTN_OK) {
        status = check_gradient("dkey", &g->dkey, "key", &c->key, b->has_key);
    }
    if (status == ATTN_OK) {
        status = check_gradient("dvalue", &g->dvalue, "value", &c->value, b->has_value);
    }
    if (status != ATTN_OK) {
        return status;
    }
    const attn_view none = {0};
    const attn_view *padding = c->o.key_padding_mask, *mask = c->o.mask;
    const sdpa_extent outputs[] = {sdpa_view_extent("dquery", &g->dquery),
                                   sdpa_view_extent("dkey", &g->dkey),
                                   sdpa_view_extent("dvalue", &g->dvalue)};
    const sdpa_extent inputs[] = {sdpa_view_extent("query", &c->query),
                                  sdpa_view_extent("key", &c->key),
                                  sdpa_view_extent("value", &c->value),
                                  sdpa_view_extent("dout", &c->out),
                                  sdpa_view_extent("mask", mask ? mask : &none),
                                  sdpa_view_extent("key_padding_mask", padding ? padding : &none)};
    return sdpa_check_overlap(outputs, 3, inputs, 6);
}

/* ---- memory ------------------------------------------------------------------------------------- */

/* Whether the rows of all sequences are evenly apart and none is to be left out. */
static row_source source_of(const attn_view *view, const int64_t *lengths, const attn_view *padding)
{
    int64_t batch = view->shape[0], len = view->shape[1];
    bool even = batch <= 1 || len <= 1 || view->stride[0] == len * view->stride[1];
    return (row_source){view, lengths, padding, !even || lengths || padding, {0}};
}

static size_t reserve_rows(backward_call *b, bool *fits, const row_source *source)
{
    const int64_t sizes[] = {source->copied ? source->view->shape[0] : 0, source->view->shape[1],
                             source->view->shape[2], 1};
    return multihead_reserve(&b->bytes, fits, sizes, sizeof(float));
}

static bool left_out(const row_source *source, int64_t b, int64_t i)
{
    const attn_view *padding = source->padding;
    return (source->lengths && i >= source->lengths[b]) ||
           (padding && ((const unsigned char *)padding->data)[b * padding->stride[0] + i] != 0);
}

static void place_rows(row_source *source, float *to)
{
    const attn_view *view = source->view;
    int64_t batch = view->shape[0], len = view->shape[1], width = view->shape[2];
    if (!source->copied) {
        int64_t stride = len > 1 ? view->stride[1] : view->stride[0];
        source->matrix = attn_view_matrix(view->data, ATTN_F32, batch * len, width, stride);
        return;
    }
    source->matrix = attn_view_matrix(to, ATTN_F32, batch * len, width, width);
    for (int64_t r = 0; r < batch * len; r++, to += width) {
        int64_t b = r / len, i = r % len;
        const float *row = (const float *)view->data + b * view->stride[0] + i * view->stride[1];
        if (left_out(source, b, i)) {
            memset(to, 0, (size_t)width * sizeof *to);
        } else {
            memcpy(to, row, (size_t)width * sizeof *to);
        }
    }
}

static attn_status take_memory(backward_call *b)
{
    const multihead_call *c = &b->call;
    const attn_multihead *layer = b->layer;
    const int64_t *lengths_q = c->o.lengths_q, *lengths_k = c->o.lengths_k;
    int64_t kv_width = layer->head_dim * layer->num_kv_heads, mask_sizes[4];
    const int64_t q_sizes[] = {c->batch, c->len_q, layer->embed_dim, 1};
    const int64_t k_sizes[] = {c->batch, c->len_k, kv_width, 1};
    bool fits = true;
    b->query = source_of(&c->query, lengths_q, NULL);
    b->key = source_of(&c->key, lengths_k, c->o.key_padding_mask);
    b->value = source_of(&c->value, lengths_k, c->o.key_padding_mask);
    b->dout = source_of(&c->out, lengths_q, NULL);
    multihead_mask_sizes(c, mask_sizes);
    size_t dmixed = multihead_reserve(&b->bytes, &fits, q_sizes, sizeof(float));
    size_t dq = multihead_reserve(&b->bytes, &fits, q_sizes, sizeof(float));
    size_t dk = multihead_reserve(&b->bytes, &fits, k_sizes, sizeof(float));
    size_t dv = multihead_reserve(&b->bytes, &fits, k_sizes, sizeof(float));
    size_t query = reserve_rows(b, &fits, &b->query), key = reserve_rows(b, &fits, &b->key);
    size_t value = reserve_rows(b, &fits, &b->value), dout = reserve_rows(b, &fits, &b->dout);
    size_t mask = multihead_reserve(&b->bytes, &fits, mask_sizes, 1);
    if (!fits) {
        return attn_fail(ATTN_ERR_NO_MEMORY,
                         "batch %lld of %lld queries and %lld keys does not fit the address space; "
                         "split the call",
                         (long long)c->batch, (long long)c->len_q, (long long)c->columns);
    }
    b->block =
        attn_alloc(attn_context_allocator(c->context), b->bytes, "multi-head backward workspace");
    if (!b->block) {
        return ATTN_ERR_NO_MEMORY;
    }
    char *base = b->block;
    b->dmixed = (void *)(base + dmixed);
    b->dq = (void *)(base + dq);
    b->dk = (void *)(base + dk);
    b->dv = (void *)(base + dv);
    place_rows(&b->query, (void *)(base + query));
    place_rows(&b->key, (void *)(base + key));
    place_rows(&b->value, (void *)(base + value));
    place_rows(&b->dout, (void *)(base + dout));
    b->mask = multihead_join_masks(c, (unsigned char *)base + mask);
    return ATTN_OK;
}

/* ---- the steps ---------------------------------------------------------------------------------- */

static attn_view matrix_of(const float *data, int64_t rows, int64_t width)
{
    return attn_view_matrix(data, ATTN_F32, rows, width, width);
}

static attn_view weight_of(const multihead_projection *p, const float *data)
{
    return matrix_of(data, p->out, p->in);
}

/* dW += dyᵀ·x and db += Σ_rows dy of one projection. */
static attn_status parameters(const backward_call *b, int which, const attn_view *dy,
                              const attn_view *x)
{
    const multihead_projection *p = &b->layer->projection[which];
    if (b->wanted.no_parameters) {
        return ATTN_OK;
    }
    attn_view dw = weight_of(p, p->dweight), transposed = *dy;
    transposed.shape[0] = dy->shape[1];
    transposed.shape[1] = dy->shape[0];
    transposed.stride[0] = 1;
    transposed.stride[1] = dy->stride[0];
    attn_status status = attn_matmul(b->call.context, &transposed, x, NULL, true, &dw);
    if (status == ATTN_OK && p->dbias) {
        attn_view db = attn_view_dense(p->dbias, ATTN_F32, 1, &p->out);
        status = attn_sum_rows(b->call.context, dy, true, &db);
    }
    return status;
}

/* dx (+)= dy·W of one projection. */
static attn_status input(const backward_call *b, int which, const float *dy, const attn_view *dx,
                         bool accumulate)
{
    const multihead_projection *p = &b->layer->projection[which];
    if (dx->dtype == ATTN_DTYPE_NONE) {
        return ATTN_OK;
    }
    attn_view w = weight_of(p, p->weight);
    attn_view rows =
        attn_view_dense(dy, ATTN_F32, 3, (int64_t[]){dx->shape[0], dx->shape[1], p->out});
    return attn_matmul(b->call.context, &rows, &w, NULL, accumulate, dx);
}

static attn_status out_projection(const backward_call *b)
{
    const multihead_call *c = &b->call;
    const multihead_projection *p = &b->layer->projection[MULTIHEAD_OUT];
    int64_t rows = c->batch * c->len_q;
    attn_view dmixed = matrix_of(b->dmixed, rows, p->in);
    attn_view mixed = matrix_of(b->saved->workspace.o, rows, p->in), w = weight_of(p, p->weight);
    attn_status status = attn_matmul(c->context, &b->dout.matrix, &w, NULL, false, &dmixed);
    return status == ATTN_OK ? parameters(b, MULTIHEAD_OUT, &b->dout.matrix, &mixed) : status;
}

static attn_status attention(const backward_call *b)
{
    const multihead_call *c = &b->call;
    const attn_multihead *layer = b->layer;
    const multihead_workspace *w = &b->saved->workspace;
    int64_t heads = layer->num_heads, kv_heads = layer->num_kv_heads, dim = layer->head_dim;
    attn_sdpa_options o = multihead_sdpa_options(c, &b->mask);
    attn_view q = attn_view_blhd(w->q, ATTN_F32, c->batch, c->len_q, heads, dim), out = q, dout = q;
    attn_view k = attn_view_blhd(w->k, ATTN_F32, c->batch, c->len_k, kv_heads, dim), v = k;
    attn_view lse = attn_view_dense(w->lse, ATTN_F32, 3, (int64_t[]){c->batch, heads, c->len_q});
    attn_sdpa_gradients g = attn_sdpa_gradients_init();
    v.data = w->v;
    out.data = w->o;
    dout.data = b->dmixed;
    g.dq = q;
    g.dq.data = b->dq;
    g.dk = g.dv = k;
    g.dk.data = b->dk;
    g.dv.data = b->dv;
    return attn_sdpa_backward(c->context, &o, &q, &k, &v, &out, &lse, &dout, &g);
}

static attn_status input_projections(const backward_call *b)
{
    const multihead_call *c = &b->call;
    const multihead_projection *p = b->layer->projection;
    int64_t rows_q = c->batch * c->len_q, rows_k = c->batch * c->len_k;
    attn_view dq = matrix_of(b->dq, rows_q, p[MULTIHEAD_Q].out);
    attn_view dk = matrix_of(b->dk, rows_k, p[MULTIHEAD_K].out);
    attn_view dv = matrix_of(b->dv, rows_k, p[MULTIHEAD_V].out);
    attn_status status = parameters(b, MULTIHEAD_Q, &dq, &b->query.matrix);
    status = status == ATTN_OK ? parameters(b, MULTIHEAD_K, &dk, &b->key.matrix) : status;
    status = status == ATTN_OK ? parameters(b, MULTIHEAD_V, &dv, &b->value.matrix) : status;
    /* What stood in for a missing input gets its gradient too. */
    const attn_view *to_q = &b->wanted.dquery;
    const attn_view *to_k = b->has_key ? &b->wanted.dkey : to_q;
    const attn_view *to_v = b->has_value ? &b->wanted.dvalue : to_k;
    status = status == ATTN_OK ? input(b, MULTIHEAD_Q, b->dq, to_q, false) : status;
    status = status == ATTN_OK ? input(b, MULTIHEAD_K, b->dk, to_k, to_k == to_q) : status;
    return status == ATTN_OK ? input(b, MULTIHEAD_V, b->dv, to_v, to_v == to_k) : status;
}

attn_status attn_multihead_backward(attn_context *context, attn_multihead *layer,
                                    const attn_multihead_saved *saved,
                                    const attn_multihead_forward_options *options,
                                    const attn_view *query, const attn_view *key,
                                    const attn_view *value, const attn_view *dout,
                                    const attn_multihead_gradients *gradients)
{
    backward_call b = {.layer = layer, .saved = saved, .has_key = key, .has_value = value};
    attn_status status =
        multihead_check(context, layer, options, query, key, value, dout, true, &b.call);
    status = status == ATTN_OK ? check_saved(&b) : status;
    status = status == ATTN_OK ? check_gradients(&b, gradients) : status;
    if (status == ATTN_OK && !b.wanted.no_parameters) {
        status = multihead_need_gradients(layer);
    }
    status = status == ATTN_OK ? take_memory(&b) : status;
    status = status == ATTN_OK ? out_projection(&b) : status;
    status = status == ATTN_OK ? attention(&b) : status;
    status = status == ATTN_OK ? input_projections(&b) : status;
    attn_free(context ? attn_context_allocator(context) : NULL, b.block, b.bytes);
    return status;
}
