/**
 * check.c: the arguments of attn_multihead_forward, in one sentence each when they do not fit.
 */
#include <string.h>

#include "attention/views.h"
#include "cache/cache.h"
#include "multihead/forward.h"

/* Rows of an input or output: [batch, len, width], f32. len < 0: any. */
static attn_status check_rows(const char *name, const attn_view *view, int64_t batch, int64_t len,
                              const char *width_name, int64_t width)
{
    if (view->dtype != ATTN_F32) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "%s: is %s but the layer computes in f32; convert it with attn_convert",
                         name, attn_dtype_name(view->dtype));
    }
    if (view->ndim != 3) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: has %d dimensions but must be [batch, len, %s]; heads are split "
                         "inside, for example [2, 8, 64]",
                         name, view->ndim, width_name);
    }
    if (view->shape[2] != width) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: %s has rows of %lld but the layer's %s is %lld; give [batch, len, "
                         "%lld], or create the layer with another %s",
                         name, sdpa_shape_text(view).text, (long long)view->shape[2], width_name,
                         (long long)width, (long long)width, width_name);
    }
    if (view->shape[0] != batch || (len >= 0 && view->shape[1] != len)) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: %s does not go with batch %lld and len %lld; are batch and len "
                         "swapped?",
                         name, sdpa_shape_text(view).text, (long long)batch,
                         (long long)(len >= 0 ? len : view->shape[1]));
    }
    return sdpa_check_view(name, view);
}

static attn_status check_inputs(multihead_call *c, const attn_view *query, const attn_view *key,
                                const attn_view *value, const attn_view *out)
{
    const attn_multihead *layer = c->layer;
    c->query = *query;
    c->key = key ? *key : *query;
    c->value = value ? *value : c->key;
    c->out = *out;
    c->batch = c->query.shape[0];
    c->len_q = c->query.shape[1];
    c->len_k = c->key.shape[1];
    attn_status status =
        check_rows("query", &c->query, c->batch, -1, "embed_dim", layer->embed_dim);
    if (status == ATTN_OK) {
        status = check_rows(key ? "key" : "key (NULL: query)", &c->key, c->batch, -1, "kdim",
                            layer->kdim);
    }
    if (status == ATTN_OK) {
        status = check_rows(value ? "value" : "value (NULL: key)", &c->value, c->batch, c->len_k,
                            "vdim", layer->vdim);
    }
    if (status == ATTN_OK) {
        status = check_rows(c->backward ? "dout" : "out", &c->out, c->batch, c->len_q, "embed_dim",
                            layer->embed_dim);
    }
    return status == ATTN_OK && !c->backward ? sdpa_check_output("out", &c->out) : status;
}

/* How many of the key rows each sequence has, or appends. */
static attn_status check_lengths(const char *name, const int64_t *lengths, int64_t batch,
                                 int64_t len)
{
    for (int64_t b = 0; lengths && b < batch; b++) {
        if (lengths[b] < 0 || lengths[b] > len) {
            return attn_fail(ATTN_ERR_ARGUMENT, "%s[%lld]: is %lld but must be in 0 … %lld", name,
                             (long long)b, (long long)lengths[b], (long long)len);
        }
    }
    return ATTN_OK;
}

static attn_status check_cache(multihead_call *c)
{
    const attn_kv_cache *cache = c->o.cache;
    const attn_multihead *layer = c->layer;
    c->columns = c->len_k;
    if (!cache) {
        return ATTN_OK;
    }
    if (c->o.saved || c->backward) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "cache: there are no gradients through a cache; train on whole sequences, "
                         "with cache NULL");
    }
    if (c->o.causal == ATTN_CAUSAL_TOP_LEFT) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "causal: top-left has no meaning on a cache, where queries are the last "
                         "positions; use ATTN_CAUSAL_BOTTOM_RIGHT");
    }
    if (cache->dtype == ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "cache: stores f64 but the layer computes in f32; create it with f32, "
                         "bf16 or f16");
    }
    if (cache->batch != c->batch || cache->heads_kv != layer->num_kv_heads ||
        cache->dim_qk != layer->head_dim || cache->dim_v != layer->head_dim) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "cache: is for batch %lld, heads_kv %lld, dims %lld and %lld but the call "
                         "has batch %lld and the layer %lld kv heads of %lld; create the cache "
                         "with those",
                         (long long)cache->batch, (long long)cache->heads_kv,
                         (long long)cache->dim_qk, (long long)cache->dim_v, (long long)c->batch,
                         (long long)layer->num_kv_heads, (long long)layer->head_dim);
    }
    c->columns = 0;
    for (int64_t b = 0; b < c->batch; b++) {
        int64_t room = cache->capacity - cache->length[b];
        int64_t rows = c->o.lengths_k ? c->o.lengths_k[b] : c->len_k;
        int64_t held = cache->length[b] + (rows < room ? rows : room);
        c->columns = held > c->columns ? held : c->columns;
    }
    return ATTN_OK;
}

static attn_status check_bool(const char *name, const attn_view *view)
{
    if (view->dtype != ATTN_BOOL) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "%s: is %s but must be bool; additive masks are attn_sdpa's bias", name,
                         attn_dtype_name(view->dtype));
    }
    if (view->ndim < 2 || view->ndim > 4) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: has %d dimensions but must have 2 to 4", name,
                         view->ndim);
    }
    return sdpa_check_view(name, view);
}

/* The mask as attn_sdpa takes it: three dimensions mean (batch, len_q, len_k) here. */
static attn_status check_mask(multihead_call *c)
{
    const attn_view *given = c->o.mask;
    if (!given) {
        return ATTN_OK;
    }
    attn_status status = check_bool("mask", given);
    if (status != ATTN_OK) {
        return status;
    }
    const int64_t want[4] = {c->batch, c->layer->num_heads, c->len_q, c->columns};
    attn_view four = *given;
    four.ndim = 4;
    for (int n = 0; n < 4; n++) {
        int from = given->ndim == 3 && n == 0 ? 0 : n + given->ndim - 4;
        bool there = given->ndim == 3 ? n != 1 : from >= 0;
        four.shape[n] = there ? given->shape[from] : 1;
        four.stride[n] = there ? given->stride[from] : 0;
        if (four.shape[n] != 1 && four.shape[n] != want[n]) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "mask: %s does not fit batch %lld, num_heads %lld, len_q %lld, len_k "
                             "%lld; give [len_q, len_k], [batch, len_q, len_k] or [batch, "
                             "num_heads, len_q, len_k], sizes of 1 repeat%s",
                             sdpa_shape_text(given).text, (long long)want[0], (long long)want[1],
                             (long long)want[2], (long long)want[3],
                             given->ndim == 3 && n == 0 && given->shape[0] == want[1]
                                 ? "; one mask a head is [1, num_heads, len_q, len_k]"
                                 : "");
        }
    }
    c->mask = four;
    return ATTN_OK;
}

static attn_status check_padding(const multihead_call *c)
{
    const attn_view *padding = c->o.key_padding_mask;
    if (!padding) {
        return ATTN_OK;
    }
    attn_status status = check_bool("key_padding_mask", padding);
    if (status != ATTN_OK) {
        return status;
    }
    if (padding->ndim != 2 || padding->shape[0] != c->batch || padding->shape[1] != c->columns) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "key_padding_mask: is %s but must be [batch=%lld, len_k=%lld], 1 where a "
                         "key is to be ignored%s",
                         sdpa_shape_text(padding).text, (long long)c->batch, (long long)c->columns,
                         c->o.cache ? "; with a cache its columns are all keys held" : "");
    }
    return ATTN_OK;
}

static attn_status check_weights(const multihead_call *c)
{
    attn_need_weights need = c->o.need_weights;
    if (need != ATTN_WEIGHTS_NONE && need != ATTN_WEIGHTS_PER_HEAD &&
        need != ATTN_WEIGHTS_AVERAGED) {
        return attn_fail(ATTN_ERR_ARGUMENT, "need_weights: is %d but must be 0, 1 or 2", (int)need);
    }
    const attn_view *weights = c->o.weights;
    if (need == ATTN_WEIGHTS_NONE) {
        return ATTN_OK;
    }
    const int64_t per_head[] = {c->batch, c->layer->num_heads, c->len_q, c->columns};
    const int64_t averaged[] = {c->batch, c->len_q, c->columns};
    bool mean = need == ATTN_WEIGHTS_AVERAGED;
    attn_view want = attn_view_dense(NULL, ATTN_F32, mean ? 3 : 4, mean ? averaged : per_head);
    if (!weights) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "weights: is NULL but need_weights asks for them; give a view of %s f32",
                         sdpa_shape_text(&want).text);
    }
    if (weights->dtype != ATTN_F32) {
        return attn_fail(ATTN_ERR_DTYPE, "weights: is %s but must be f32",
                         attn_dtype_name(weights->dtype));
    }
    bool same = weights->ndim == want.ndim;
    for (int n = 0; same && n < want.ndim; n++) {
        same = weights->shape[n] == want.shape[n];
    }
    if (!same) {
        return attn_fail(
            ATTN_ERR_SHAPE, "weights: has %d dimensions %s but must be %s", weights->ndim,
            weights->ndim >= 1 && weights->ndim <= 4 ? sdpa_shape_text(weights).text : "",
            sdpa_shape_text(&want).text);
    }
    return sdpa_check_output("weights", weights);
}

static attn_status check_dropout(const multihead_call *c)
{
    if (!(c->o.dropout >= 0.0 && c->o.dropout < 1.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "dropout: is %g but must be at least 0 and below 1, for example 0.1",
                         c->o.dropout);
    }
    return ATTN_OK;
}

static attn_status check_overlap(const multihead_call *c)
{
    const attn_view none = {0};
    const sdpa_extent outputs[] = {
        sdpa_view_extent("out", &c->out),
        sdpa_view_extent("weights", c->o.need_weights == ATTN_WEIGHTS_NONE ? &none : c->o.weights),
    };
    const sdpa_extent inputs[] = {
        sdpa_view_extent("query", &c->query),
        sdpa_view_extent("key", &c->key),
        sdpa_view_extent("value", &c->value),
        sdpa_view_extent("mask", c->o.mask ? c->o.mask : &none),
        sdpa_view_extent("key_padding_mask", c->o.key_padding_mask ? c->o.key_padding_mask : &none),
    };
    return sdpa_check_overlap(outputs, (int)(sizeof outputs / sizeof *outputs), inputs,
                              (int)(sizeof inputs / sizeof *inputs));
}

attn_status multihead_check(attn_context *context, const attn_multihead *layer,
                            const attn_multihead_forward_options *options, const attn_view *query,
                            const attn_view *key, const attn_view *value, const attn_view *out,
                            bool backward, multihead_call *call)
{
    if (!context || !layer || !query || !out) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: is NULL but must be given",
                         !context   ? "context"
                         : !layer   ? "layer"
                         : !query   ? "query"
                         : backward ? "dout"
                                    : "out");
    }
    *call = (multihead_call){.context = context,
                             .layer = layer,
                             .o = attn_multihead_forward_options_init(),
                             .backward = backward};
    attn_status status = attn_take_struct("options", "attn_multihead_forward_options_init", options,
                                          &call->o, sizeof call->o);
    if (status != ATTN_OK) {
        return status;
    }
    if (backward) {
        call->o.need_weights = ATTN_WEIGHTS_NONE;
    }
    status = check_inputs(call, query, key, value, out);
    if (status == ATTN_OK) {
        status = check_lengths("lengths_q", call->o.lengths_q, call->batch, call->len_q);
    }
    if (status == ATTN_OK) {
        status = check_lengths("lengths_k", call->o.lengths_k, call->batch, call->len_k);
    }
    status = status == ATTN_OK ? check_cache(call) : status;
    status = status == ATTN_OK ? check_mask(call) : status;
    status = status == ATTN_OK ? check_padding(call) : status;
    status = status == ATTN_OK ? check_weights(call) : status;
    status = status == ATTN_OK ? check_dropout(call) : status;
    return status == ATTN_OK && !backward ? check_overlap(call) : status;
}
