/*
 * Everything a caller can get wrong, found once: one sentence per mistake with the argument, what
 * it was, what it must be and the usual fix. What passes is a sdpa_call that nobody checks again.
 */
#include "attention/call.h"
#include "attention/take.h"

#include <float.h>
#include <math.h>
#include <string.h>

static attn_status check_unsupported(const attn_sdpa_options *o)
{
    if (o->cu_seqlens_q || o->cu_seqlens_k || o->num_sequences != 0) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "cu_seqlens: packed sequences are not supported yet; leave cu_seqlens_q, "
                         "cu_seqlens_k and num_sequences at zero and use lengths_q, lengths_k");
    }
    if (o->invariant) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "invariant: batch invariance is not supported yet; it must be false");
    }
    return ATTN_OK;
}

static attn_status check_numbers(const attn_sdpa_options *o, bool f64, bool cached)
{
    if (o->has_scale && !isfinite(o->scale)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "scale: is %g but must be finite; leave has_scale false for 1/sqrt(dim)",
                         o->scale);
    }
    if (o->has_scale && !f64 && fabs(o->scale) > FLT_MAX) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "scale: is %g but must fit float32, the type of the scores; use f64 "
                         "arrays for it",
                         o->scale);
    }
    if (!isfinite(o->softcap) || o->softcap < 0.0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "softcap: is %g but must be finite and above 0, or 0 for none",
                         o->softcap);
    }
    if (!(o->dropout >= 0.0 && o->dropout < 1.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "dropout: is %g but must be at least 0 and below 1; it is the share of "
                         "weights that are dropped",
                         o->dropout);
    }
    if (o->causal != ATTN_CAUSAL_NONE && o->causal != ATTN_CAUSAL_TOP_LEFT &&
        o->causal != ATTN_CAUSAL_BOTTOM_RIGHT) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "causal: is %d but must be ATTN_CAUSAL_NONE, _TOP_LEFT or _BOTTOM_RIGHT",
                         (int)o->causal);
    }
    if (cached && o->causal == ATTN_CAUSAL_TOP_LEFT) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "causal: is TOP_LEFT but must be NONE or BOTTOM_RIGHT on a cache; give "
                         "q_offset for other positions");
    }
    if (o->has_window && (o->window_left < -1 || o->window_right < -1)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "window: is (%lld, %lld) but both must be at least 0, or -1 for "
                         "unlimited; the counts do not include the row's own position",
                         (long long)o->window_left, (long long)o->window_right);
    }
    return ATTN_OK;
}

static bool is_float32_or_16(attn_dtype dtype)
{
    return dtype == ATTN_F32 || dtype == ATTN_BF16 || dtype == ATTN_F16;
}

static attn_status check_dtypes(const attn_view *q, const attn_view *k, const attn_view *v,
                                const attn_view *out)
{
    const attn_view *views[] = {q, k, v, out};
    const char *names[] = {"q", "k", "v", "out"};
    for (int n = 0; n < 4; n++) {
        if (!is_float32_or_16(views[n]->dtype) && views[n]->dtype != ATTN_F64) {
            return attn_fail(ATTN_ERR_DTYPE,
                             "%s: type is %s but must be f32, bf16, f16 or f64; set its dtype",
                             names[n], attn_dtype_name(views[n]->dtype));
        }
    }
    if (k->dtype != v->dtype) {
        return attn_fail(ATTN_ERR_DTYPE, "v: type is %s but must be k's, %s; convert one of them",
                         attn_dtype_name(v->dtype), attn_dtype_name(k->dtype));
    }
    for (int n = 1; n < 4; n++) {
        if ((views[n]->dtype == ATTN_F64) != (q->dtype == ATTN_F64)) {
            return attn_fail(ATTN_ERR_DTYPE,
                             "%s: type is %s but q's is %s, and f64 goes with f64 only; convert "
                             "one of them",
                             names[n], attn_dtype_name(views[n]->dtype), attn_dtype_name(q->dtype));
        }
    }
    return ATTN_OK;
}

static attn_status check_ndim(const char *name, const attn_view *view, const char *dims)
{
    if (view->ndim != 4) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: has %d dimensions but must have 4, %s; see attn_view_bhld and "
                         "attn_view_blhd",
                         name, view->ndim, dims);
    }
    return ATTN_OK;
}

static attn_status check_size(const char *name, const char *what, int64_t was, int64_t must,
                              const char *whose, const char *fix)
{
    if (was != must) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: %s %lld does not match %s %lld; %s", name, what,
                         (long long)was, whose, (long long)must, fix);
    }
    return ATTN_OK;
}

static attn_status check_shapes(const attn_view *q, const attn_view *k, const attn_view *v,
                                const attn_view *out)
{
    const char *order = "are the dimensions in the order [batch, heads, len, dim]?";
    const char *turned = "did you pass k transposed?";
    const attn_view *views[] = {q, k, v, out};
    const char *names[] = {"q", "k", "v", "out"};
    attn_status s = ATTN_OK;
    for (int n = 0; n < 4 && s == ATTN_OK; n++) {
        s = n == 3 ? sdpa_check_output(names[n], views[n]) : sdpa_check_view(names[n], views[n]);
        for (int d = 1; d < 4 && s == ATTN_OK; d += 2) {
            if (views[n]->shape[d] < 1) {
                s = attn_fail(ATTN_ERR_SHAPE, "%s: %s is %lld but must be at least 1; %s", names[n],
                              d == 1 ? "number of heads" : "head dim",
                              (long long)views[n]->shape[d], order);
            }
        }
    }
    if (s == ATTN_OK) {
        s = check_size("k", "batch", k->shape[0], q->shape[0], "q's", order);
    }
    if (s == ATTN_OK) {
        s = check_size("k", "head dim", k->shape[3], q->shape[3], "q's", turned);
    }
    if (s == ATTN_OK) {
        s = check_size("v", "batch", v->shape[0], k->shape[0], "k's", order);
    }
    if (s == ATTN_OK) {
        s = check_size("v", "heads", v->shape[1], k->shape[1], "k's", order);
    }
    if (s == ATTN_OK) {
        s = check_size("v", "length", v->shape[2], k->shape[2], "k's", "every key needs one value");
    }
    if (s == ATTN_OK) {
        s = check_size("out", "batch", out->shape[0], q->shape[0], "q's", order);
    }
    if (s == ATTN_OK) {
        s = check_size("out", "heads", out->shape[1], q->shape[1], "q's", order);
    }
    if (s == ATTN_OK) {
        s = check_size("out", "length", out->shape[2], q->shape[2], "q's", order);
    }
    if (s == ATTN_OK) {
        s = check_size("out", "head dim", out->shape[3], v->shape[3], "v's",
                       "out has v's head dim, which may differ from q's");
    }
    if (s == ATTN_OK && q->shape[1] % k->shape[1] != 0) {
        s = attn_fail(ATTN_ERR_SHAPE,
                      "q: %lld heads must be a multiple of k's %lld; each key head serves an equal "
                      "group of query heads",
                      (long long)q->shape[1], (long long)k->shape[1]);
    }
    return s;
}

static attn_status check_lengths(const char *name, const int64_t *lengths, int64_t batch,
                                 int64_t size, const char *limit)
{
    for (int64_t b = 0; lengths && b < batch; b++) {
        if (lengths[b] < 0 || lengths[b] > size) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "%s: that of sequence %lld is %lld but must be 0 ... %lld (%s)", name,
                             (long long)b, (long long)lengths[b], (long long)size, limit);
        }
    }
    return ATTN_OK;
}

/*
 * The cache view's own fields, and the number of columns that masks have: the largest length held.
 */
static attn_status check_cache(const attn_kv_view *kv, int64_t batch, int64_t *len_k)
{
    int64_t slots = kv->k.shape[2];
    if (kv->ring != 0 && kv->ring != slots) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "kv: ring is %lld but must be 0 or the number of slots, %lld; take the "
                         "view from attn_kv_cache_view",
                         (long long)kv->ring, (long long)slots);
    }
    attn_status status =
        check_lengths("kv length", kv->length, batch, slots, "the slots there are");
    if (status != ATTN_OK) {
        return status;
    }
    *len_k = kv->length ? 0 : slots;
    for (int64_t b = 0; b < batch; b++) {
        int64_t held = kv->length ? kv->length[b] : slots;
        *len_k = held > *len_k ? held : *len_k;
        if (kv->first && (kv->first[b] < 0 || kv->first[b] > INT64_MAX - held)) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "kv: first of sequence %lld is %lld but must be at least 0 and leave "
                             "room for %lld keys; take the view from attn_kv_cache_view",
                             (long long)b, (long long)kv->first[b], (long long)held);
        }
    }
    return ATTN_OK;
}

static attn_status check_q_offset(const attn_sdpa_options *o, int64_t batch)
{
    if (o->q_offset_count != 0 && o->q_offset_count != 1 && o->q_offset_count != batch) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "q_offset_count: is %lld but must be 0, 1 or the batch, %lld",
                         (long long)o->q_offset_count, (long long)batch);
    }
    if (batch > 0 && (o->q_offset != NULL) != (o->q_offset_count != 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "q_offset: is %s but q_offset_count is %lld; set both or neither",
                         o->q_offset ? "given" : "NULL", (long long)o->q_offset_count);
    }
    return ATTN_OK;
}

/* sinks and alibi: one number per query head, in the type of the arithmetic. */
static attn_status take_per_head(const char *name, const attn_view *given, const sdpa_call *call,
                                 attn_view *taken)
{
    attn_dtype must = call->q.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    if (!given) {
        return ATTN_OK;
    }
    if (given->dtype != must) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: type is %s but must be %s beside %s q; convert it",
                         name, attn_dtype_name(given->dtype), attn_dtype_name(must),
                         attn_dtype_name(call->q.dtype));
    }
    if (given->ndim != 1 || given->shape[0] != call->heads_q) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: shape %s must be [heads_q=%lld]; give one number per query head",
                         name, sdpa_shape_text(given).text, (long long)call->heads_q);
    }
    *taken = *given;
    return sdpa_check_view(name, given);
}

static attn_status take_masks(const attn_sdpa_options *o, sdpa_call *call)
{
    const int64_t shape[4] = {call->batch, call->heads_q, call->len_q, call->len_k};
    attn_dtype q = call->q.dtype;
    attn_status status = ATTN_OK;
    if (o->mask) {
        if (o->mask->dtype != ATTN_BOOL) {
            return attn_fail(ATTN_ERR_DTYPE,
                             "mask: type is %s but must be bool, 1 = attend; an additive mask goes "
                             "into bias",
                             attn_dtype_name(o->mask->dtype));
        }
        status = sdpa_broadcast("mask", o->mask, shape, &call->mask);
    }
    if (status == ATTN_OK && o->bias) {
        attn_dtype bias = o->bias->dtype;
        if (bias != q && !(bias == ATTN_F32 && q != ATTN_F64)) {
            return attn_fail(ATTN_ERR_DTYPE, "bias: type is %s but must be %s%s; %s",
                             attn_dtype_name(bias), attn_dtype_name(q),
                             is_float32_or_16(q) && q != ATTN_F32 ? " or f32" : "",
                             bias == ATTN_BOOL ? "a boolean mask goes into mask" : "convert it");
        }
        status = sdpa_broadcast("bias", o->bias, shape, &call->bias);
    }
    if (status == ATTN_OK) {
        status = take_per_head("sinks", o->sinks, call, &call->sinks);
    }
    if (status == ATTN_OK) {
        status = take_per_head("alibi", o->alibi, call, &call->alibi);
    }
    return status;
}

static attn_status check_overlaps(const sdpa_call *call)
{
    const sdpa_extent outputs[] = {
        sdpa_view_extent("out", &call->out),
        sdpa_view_extent("lse", &call->lse),
        sdpa_view_extent("weights", &call->weights),
    };
    sdpa_extent inputs[SDPA_INPUTS];
    sdpa_input_extents(call, inputs);
    return sdpa_check_overlap(outputs, (int)(sizeof outputs / sizeof *outputs), inputs,
                              SDPA_INPUTS);
}

/* q, kv and out: types, shapes, lengths; fills the sizes of `call`. */
static attn_status take_arrays(const attn_sdpa_options *o, const attn_view *q,
                               const attn_kv_view *kv, const attn_view *out, bool cached,
                               sdpa_call *call)
{
    attn_status s = check_ndim("q", q, "[batch, heads_q, len_q, dim_qk]");
    if (s == ATTN_OK) {
        s = check_ndim("k", &kv->k, "[batch, heads_kv, len_k, dim_qk]");
    }
    if (s == ATTN_OK) {
        s = check_ndim("v", &kv->v, "[batch, heads_kv, len_k, dim_v]");
    }
    if (s == ATTN_OK) {
        s = check_ndim("out", out, "[batch, heads_q, len_q, dim_v]");
    }
    if (s == ATTN_OK) {
        s = check_dtypes(q, &kv->k, &kv->v, out);
    }
    if (s == ATTN_OK) {
        s = check_shapes(q, &kv->k, &kv->v, out);
    }
    if (s == ATTN_OK) {
        s = check_numbers(o, q->dtype == ATTN_F64, cached);
    }
    if (s != ATTN_OK) {
        return s;
    }
    call->q = *q;
    call->out = *out;
    call->kv = *kv;
    call->batch = q->shape[0];
    call->heads_q = q->shape[1];
    call->heads_kv = kv->k.shape[1];
    call->group = call->heads_q / call->heads_kv;
    call->len_q = q->shape[2];
    call->len_k = kv->k.shape[2];
    call->dim_qk = q->shape[3];
    call->dim_v = kv->v.shape[3];
    call->lengths_q = o->lengths_q;
    call->lengths_k = cached ? kv->length : o->lengths_k;
    if (cached && o->lengths_k) {
        return attn_fail(ATTN_ERR_ARGUMENT, "lengths_k: is given but must be NULL on a cache, "
                                            "whose view has the lengths");
    }
    if (cached) {
        s = check_cache(kv, call->batch, &call->len_k);
    } else {
        s = check_lengths("lengths_k", o->lengths_k, call->batch, call->len_k, "len_k");
    }
    if (s == ATTN_OK) {
        s = check_lengths("lengths_q", o->lengths_q, call->batch, call->len_q, "len_q");
    }
    return s;
}

attn_status sdpa_validate(attn_context *context, const attn_sdpa_options *options,
                          const attn_view *q, const attn_kv_view *kv, const attn_view *out,
                          bool cached, sdpa_call *call)
{
    attn_sdpa_options o = attn_sdpa_options_init();
    attn_kv_view cache = {0};
    memset(call, 0, sizeof *call);
    if (!context || !q || !kv || !out) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: is NULL but must be given",
                         !context ? "context"
                         : !q     ? "q"
                         : !kv    ? "kv"
                                  : "out");
    }
    attn_status s = attn_take_struct("options", "attn_sdpa_options_init", options, &o, sizeof o);
    if (s == ATTN_OK) {
        s = attn_take_struct("kv", "attn_kv_view_init", kv, &cache, sizeof cache);
    }
    if (s == ATTN_OK) {
        s = check_unsupported(&o);
    }
    if (s == ATTN_OK) {
        s = take_arrays(&o, q, &cache, out, cached, call);
    }
    if (s == ATTN_OK) {
        s = check_q_offset(&o, call->batch);
    }
    if (s == ATTN_OK) {
        s = take_masks(&o, call);
    }
    if (s == ATTN_OK) {
        s = sdpa_take_rows("lse", o.lse, 3, true, call, &call->lse);
    }
    if (s == ATTN_OK) {
        s = sdpa_take_rows("weights", o.weights, 4, true, call, &call->weights);
    }
    if (s != ATTN_OK) {
        return s;
    }
    call->context = context;
    call->cached = cached;
    call->scale = o.has_scale ? o.scale : 1.0 / sqrt((double)call->dim_qk);
    call->softcap = o.softcap;
    call->dropout = o.dropout;
    call->dropout_seed = o.dropout_seed;
    call->causal = o.causal;
    call->left = o.has_window ? o.window_left : -1;
    call->right = o.has_window ? o.window_right : -1;
    call->q_offset = o.q_offset_count ? o.q_offset : NULL;
    call->q_offset_step = o.q_offset_count > 1 ? 1 : 0;
    call->scratch = o.scratch;
    call->scratch_size = o.scratch_size;
    return check_overlaps(call);
}
