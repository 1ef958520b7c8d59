/*
 * What a caller of attn_sdpa_backward can get wrong beyond what attn_sdpa's validation finds: what
 * forward left, what flows in, and where gradients go.
 */
#include "attention/backward.h"
#include "attention/take.h"

static attn_status check_given(const void *const *given, const char *const *names, int count)
{
    for (int n = 0; n < count; n++) {
        if (!given[n]) {
            return attn_fail(ATTN_ERR_ARGUMENT, "%s: is NULL but must be given", names[n]);
        }
    }
    return ATTN_OK;
}

static attn_status check_options(const attn_sdpa_options *o)
{
    if (o->lse || o->weights) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "%s: of the options is given but must be NULL in backward; %s",
                         o->lse ? "lse" : "weights",
                         o->lse ? "what forward wrote goes into the argument lse"
                                : "weights out have no gradient");
    }
    return ATTN_OK;
}

/* The types a gradient may have: the arithmetic's, or that of what it is the gradient of. */
static attn_status check_dtype(const char *name, const attn_view *given, const char *whose,
                               attn_dtype own)
{
    attn_dtype sums = own == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    if (given->dtype != sums && given->dtype != own) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: type is %s but must be %s%s%s beside %s %s", name,
                         attn_dtype_name(given->dtype), attn_dtype_name(sums),
                         own != sums ? " or " : "", own != sums ? attn_dtype_name(own) : "",
                         attn_dtype_name(own), whose);
    }
    return ATTN_OK;
}

/* `given` has the shape of `like`, which is called `whose`. */
static attn_status check_same_shape(const char *name, const attn_view *given, const char *whose,
                                    const attn_view *like)
{
    bool same = given->ndim == like->ndim;
    for (int n = 0; same && n < like->ndim; n++) {
        same = given->shape[n] == like->shape[n];
    }
    if (!same) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: shape %s must be %s's, %s", name,
                         sdpa_shape_text(given).text, whose, sdpa_shape_text(like).text);
    }
    return ATTN_OK;
}

static attn_status take_gradient(const char *name, const attn_view *given, const char *whose,
                                 const attn_view *like, attn_view *taken)
{
    if (given->dtype == ATTN_DTYPE_NONE) {
        return ATTN_OK;
    }
    attn_status s = check_dtype(name, given, whose, like->dtype);
    if (s == ATTN_OK) {
        s = check_same_shape(name, given, whose, like);
    }
    *taken = *given;
    return s == ATTN_OK ? sdpa_check_output(name, given) : s;
}

/* A gradient of something optional: without it there is nothing to differentiate. */
static attn_status check_wanted(const char *name, const attn_view *given, const char *of,
                                const attn_view *like)
{
    if (given->dtype != ATTN_DTYPE_NONE && !like) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "%s: is wanted but the options have no %s; give the forward call's "
                         "options, or leave it at zero",
                         name, of);
    }
    return ATTN_OK;
}

/* dbias as 4 dimensions of its own sizes: 1 where the bias repeats, and there stride 0. */
static attn_status take_dbias(const attn_view *given, const attn_view *bias, attn_view *taken)
{
    attn_view own = {0};
    attn_status s = take_gradient("dbias", given, "bias", bias, &own);
    if (s != ATTN_OK || own.dtype == ATTN_DTYPE_NONE) {
        return s;
    }
    *taken = (attn_view){.data = own.data, .dtype = own.dtype, .ndim = 4};
    for (int n = 0; n < 4; n++) {
        int from = n - (4 - own.ndim);
        taken->shape[n] = from < 0 ? 1 : own.shape[from];
        taken->stride[n] = taken->shape[n] == 1 ? 0 : own.stride[from];
    }
    return ATTN_OK;
}

static attn_status take_dout(const attn_view *dout, sdpa_backward_call *call)
{
    bool f64 = call->call.q.dtype == ATTN_F64;
    bool fits =
        f64 ? dout->dtype == ATTN_F64
            : dout->dtype == ATTN_F32 || dout->dtype == ATTN_BF16 || dout->dtype == ATTN_F16;
    if (!fits) {
        return attn_fail(ATTN_ERR_DTYPE, "dout: type is %s but must be %s beside %s q; convert it",
                         attn_dtype_name(dout->dtype), f64 ? "f64" : "f32, bf16 or f16",
                         attn_dtype_name(call->call.q.dtype));
    }
    attn_status s = check_same_shape("dout", dout, "out", &call->call.out);
    call->dout = *dout;
    return s == ATTN_OK ? sdpa_check_view("dout", dout) : s;
}

static attn_status take_gradients(const attn_sdpa_options *o, const attn_sdpa_gradients *g,
                                  sdpa_backward_call *call)
{
    const sdpa_call *forward = &call->call;
    attn_status s = take_gradient("dq", &g->dq, "q", &forward->q, &call->dq);
    s = s ? s : take_gradient("dk", &g->dk, "k", &forward->kv.k, &call->dk);
    s = s ? s : take_gradient("dv", &g->dv, "v", &forward->kv.v, &call->dv);
    s = s ? s : check_wanted("dbias", &g->dbias, "bias", o->bias);
    s = s ? s : check_wanted("dsinks", &g->dsinks, "sinks", o->sinks);
    s = s ? s : check_wanted("dalibi", &g->dalibi, "alibi", o->alibi);
    if (s == ATTN_OK && o->bias) {
        s = take_dbias(&g->dbias, o->bias, &call->dbias);
    }
    s = s ? s : take_gradient("dsinks", &g->dsinks, "sinks", &forward->sinks, &call->dsinks);
    return s ? s : take_gradient("dalibi", &g->dalibi, "alibi", &forward->alibi, &call->dalibi);
}

static attn_status check_overlaps(const sdpa_backward_call *call)
{
    const sdpa_extent outputs[] = {
        sdpa_view_extent("dq", &call->dq),         sdpa_view_extent("dk", &call->dk),
        sdpa_view_extent("dv", &call->dv),         sdpa_view_extent("dbias", &call->dbias),
        sdpa_view_extent("dsinks", &call->dsinks), sdpa_view_extent("dalibi", &call->dalibi),
    };
    sdpa_extent inputs[SDPA_INPUTS + 4];
    sdpa_input_extents(&call->call, inputs);
    inputs[SDPA_INPUTS] = sdpa_view_extent("out", &call->call.out);
    inputs[SDPA_INPUTS + 1] = sdpa_view_extent("lse", &call->call.lse);
    inputs[SDPA_INPUTS + 2] = sdpa_view_extent("dout", &call->dout);
    inputs[SDPA_INPUTS + 3] = sdpa_view_extent("dlse", &call->dlse);
    return sdpa_check_overlap(outputs, (int)(sizeof outputs / sizeof *outputs), inputs,
                              SDPA_INPUTS + 4);
}

attn_status sdpa_validate_backward(attn_context *context, const attn_sdpa_options *options,
                                   const attn_view *q, const attn_view *k, const attn_view *v,
                                   const attn_view *out, const attn_view *lse,
                                   const attn_view *dout, const attn_sdpa_gradients *gradients,
                                   sdpa_backward_call *call)
{
    const void *const given[] = {k, v, lse, dout, gradients};
    static const char *const names[] = {"k", "v", "lse", "dout", "gradients"};
    attn_sdpa_options o = attn_sdpa_options_init();
    attn_sdpa_gradients g = attn_sdpa_gradients_init();
    *call = (sdpa_backward_call){0};
    attn_status s = check_given(given, names, (int)(sizeof given / sizeof *given));
    if (s == ATTN_OK) {
        s = attn_take_struct("options", "attn_sdpa_options_init", options, &o, sizeof o);
    }
    if (s == ATTN_OK) {
        s = attn_take_struct("gradients", "attn_sdpa_gradients_init", gradients, &g, sizeof g);
    }
    if (s == ATTN_OK) {
        s = check_options(&o);
    }
    if (s == ATTN_OK) {
        attn_kv_view kv = attn_kv_view_init(*k, *v);
        s = sdpa_validate(context, options, q, &kv, out, false, &call->call);
    }
    if (s == ATTN_OK) {
        s = sdpa_take_rows("lse", lse, 3, false, &call->call, &call->call.lse);
    }
    if (s == ATTN_OK) {
        s = take_dout(dout, call);
    }
    if (s == ATTN_OK && g.dlse.dtype != ATTN_DTYPE_NONE) {
        s = sdpa_take_rows("dlse", &g.dlse, 3, false, &call->call, &call->dlse);
    }
    if (s == ATTN_OK) {
        s = take_gradients(&o, &g, call);
    }
    return s == ATTN_OK ? check_overlaps(call) : s;
}
