/**
 * sdpa.c: fused attention on the tape. What stays for backward is out and one number per row, the LSE.
 */
#include "tensor/tensor.h"

#include <string.h>

enum { Q, K, V, BIAS, SINKS, ALIBI, INPUTS };

/* The call, to be repeated in backward: options whose pointers lead into this struct and the arrays behind it. */
typedef struct saved_call {
    attn_sdpa_options options;
    attn_view mask, bias, sinks, alibi;
} saved_call;

static const attn_view *keep_view(const attn_view *given, attn_view *kept)
{
    if (!given) {
        return NULL;
    }
    *kept = *given;
    return kept;
}

static const int64_t *keep_array(const int64_t *given, int64_t count, int64_t **room)
{
    int64_t *kept = *room;
    if (!given || count < 1) {
        return NULL;
    }
    memcpy(kept, given, sizeof *kept * (size_t)count);
    *room += count;
    return kept;
}

attn_sdpa_options *attn_op_keep_options(attn_tape *tape, const attn_sdpa_options *given,
                                        int64_t batch)
{
    attn_sdpa_options o = attn_sdpa_options_init();
    attn_status status = attn_take_struct("options", "attn_sdpa_options_init", given, &o, sizeof o);
    if (status != ATTN_OK) {
        attn_tape_fail(tape, status);
        return NULL;
    }
    int64_t offsets = o.q_offset_count > batch ? batch : o.q_offset_count;
    batch = batch > 0 ? batch : 0;
    offsets = offsets > 0 ? offsets : 0;
    saved_call *call =
        attn_op_memory(tape, sizeof *call + sizeof(int64_t) * (size_t)(2 * batch + offsets));
    if (!call) {
        return NULL;
    }
    int64_t *room = (int64_t *)(call + 1);
    call->options = o;
    call->options.mask = keep_view(o.mask, &call->mask);
    call->options.bias = keep_view(o.bias, &call->bias);
    call->options.sinks = keep_view(o.sinks, &call->sinks);
    call->options.alibi = keep_view(o.alibi, &call->alibi);
    call->options.lengths_q = keep_array(o.lengths_q, batch, &room);
    call->options.lengths_k = keep_array(o.lengths_k, batch, &room);
    call->options.q_offset = keep_array(o.q_offset, offsets, &room);
    return &call->options;
}

/* t (one more reference), or a dense copy where its last stride is not 1. */
static attn_tensor *unit(attn_tape *tape, attn_tensor *t)
{
    int last = t->view.ndim - 1;
    return t->view.stride[last] == 1 || t->view.shape[last] == 1 ? attn_tensor_retain(t)
                                                                 : attn_tensor_dense(tape, t);
}

/* The inputs as libattn reads them, and options that point to them; let_go in any case. */
static attn_status hold(attn_tape *tape, const attn_sdpa_options *kept, attn_tensor *const *in,
                        attn_tensor **held, attn_sdpa_options *o)
{
    *o = *kept;
    for (int i = Q; i < INPUTS; i++) {
        held[i] = in[i] ? unit(tape, in[i]) : NULL;
        if (in[i] && !held[i]) {
            return ATTN_ERR_NO_MEMORY;
        }
    }
    o->bias = held[BIAS] ? &held[BIAS]->view : o->bias;
    o->sinks = held[SINKS] ? &held[SINKS]->view : o->sinks;
    o->alibi = held[ALIBI] ? &held[ALIBI]->view : o->alibi;
    return ATTN_OK;
}

static void let_go(attn_tensor **held)
{
    for (int i = Q; i < INPUTS; i++) {
        attn_tensor_release(held[i]);
    }
}

/* ---- backward ---- */

/*
 * Where attn_sdpa_backward may write t's share: its gradient if that is new, else a scratch: also where one tensor is two
 * inputs, k and v say.
 */
static attn_status target(attn_tape *tape, attn_tensor *t, attn_tensor **scratch, attn_view *view)
{
    bool accumulate = false;
    if (!t || !t->requires_grad) {
        return ATTN_OK;
    }
    int last = t->view.ndim - 1;
    bool taken = t->tape ? t->grad != NULL : t->grad_valid;
    bool straight = t->view.stride[last] == 1 || !t->tape; /* a leaf's gradient is row-major */
    attn_tensor *g = NULL;
    if (!taken && straight) {
        g = attn_grad_open(tape, t, &accumulate);
    } else {
        g = *scratch = attn_grad_scratch(tape, t->view.dtype, t->view.ndim, t->view.shape, NULL);
    }
    if (!g) {
        return ATTN_ERR_NO_MEMORY;
    }
    *view = g->view;
    return ATTN_OK;
}

static attn_status sdpa_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    const attn_params *p = &node->params;
    attn_tensor *scratch[INPUTS] = {NULL}, *held[INPUTS] = {NULL}, *dout = unit(tape, dy);
    attn_sdpa_options o;
    attn_sdpa_gradients g = attn_sdpa_gradients_init();
    attn_view *views[INPUTS] = {&g.dq, &g.dk, &g.dv, &g.dbias, &g.dsinks, &g.dalibi};
    attn_status status = dout ? hold(tape, p->data, node->in, held, &o) : ATTN_ERR_NO_MEMORY;
    for (int i = Q; i < INPUTS && status == ATTN_OK; i++) {
        status = target(tape, node->in[i], &scratch[i], views[i]);
    }
    if (status == ATTN_OK) {
        o.weights = NULL;
        status =
            attn_sdpa_backward(tape->context, &o, &held[Q]->view, &held[K]->view, &held[V]->view,
                               &p->tensor[0]->view, &p->tensor[1]->view, &dout->view, &g);
    }
    for (int i = Q; i < INPUTS; i++) {
        if (scratch[i] && status == ATTN_OK) {
            status = attn_grad_give(tape, node->in[i], scratch[i]);
        }
        attn_tensor_release(scratch[i]);
    }
    let_go(held);
    attn_tensor_release(dout);
    return status;
}

static const attn_op sdpa_op = {"sdpa", sdpa_backward};

/* ---- forward ---- */

static bool check(attn_tape *tape, const attn_sdpa_options *options, attn_tensor *const *in)
{
    if (!attn_op_begin(tape, &sdpa_op, 3, in)) {
        return false;
    }
    for (int i = 0; i < INPUTS; i++) {
        if (i <= V && in[i]->view.ndim != 4) {
            char text[ATTN_SHAPE_TEXT];
            attn_op_fail(tape, ATTN_ERR_SHAPE,
                         "sdpa: %c is %s and must be [batch, heads, len, dim]; reshape "
                         "[batch, len, heads*dim] to four dimensions and transpose 1 and 2",
                         "qkv"[i], attn_shape_text(in[i]->view.ndim, in[i]->view.shape, text));
            return false;
        }
        attn_tensor *pair[2] = {in[Q], in[i]};
        if (i > V && in[i] && !attn_op_begin(tape, &sdpa_op, 2, pair)) {
            return false;
        }
    }
    if (options && (options->lse || options->scratch)) {
        attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                     "sdpa: lse and scratch of the options are the tape's own and must be NULL");
        return false;
    }
    if (options && ((options->bias && in[BIAS]) || (options->sinks && in[SINKS]) ||
                    (options->alibi && in[ALIBI]))) {
        attn_op_fail(
            tape, ATTN_ERR_ARGUMENT,
            "sdpa: bias, sinks and alibi are given in the options or as tensors, not both");
        return false;
    }
    return true;
}

attn_tensor *attn_tensor_sdpa(attn_tape *tape, const attn_sdpa_options *options, attn_tensor *q,
                              attn_tensor *k, attn_tensor *v, const attn_tensor_sdpa_terms *terms)
{
    attn_tensor *in[INPUTS] = {q, k, v};
    if (terms) {
        in[BIAS] = terms->bias;
        in[SINKS] = terms->sinks;
        in[ALIBI] = terms->alibi;
    }
    if (!check(tape, options, in)) {
        return NULL;
    }
    attn_tensor *held[INPUTS] = {NULL}, *out = NULL, *lse = NULL;
    attn_sdpa_options o;
    attn_sdpa_options *call = attn_op_keep_options(tape, options, q->view.shape[0]);
    attn_status status = call ? hold(tape, call, in, held, &o) : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        const attn_view *like = &held[Q]->view;
        int64_t shape[4] = {like->shape[0], like->shape[1], like->shape[2], v->view.shape[3]};
        bool keeps = like->stride[3] == 1 && like->stride[1] < like->stride[2];
        out = attn_op_result(tape, like->dtype, 4, shape, keeps ? like : NULL);
        lse = out ? attn_op_result(tape, like->dtype, 3, shape, NULL) : NULL;
    }
    if (lse) {
        o.lse = &lse->view;
        status = attn_sdpa(tape->context, &o, &held[Q]->view, &held[K]->view, &held[V]->view,
                           &out->view);
    }
    let_go(held);
    attn_params params = {.tensor = {out, lse}, .data = call};
    if (!attn_op_ok(tape, status) || !lse) {
        return NULL;
    }
    return attn_op_record(tape, &sdpa_op, out, INPUTS, in, ATTN_SAVED_INPUTS | ATTN_SAVED_OUT,
                          &params);
}
