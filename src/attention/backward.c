/* attn_sdpa_backward: validate, plan, scratch, run. */
#include "attention/backward.h"
#include "attention/plan.h"
#include "base/log.h"
#include "par/context.h"

#include <string.h>

attn_sdpa_gradients attn_sdpa_gradients_init(void)
{
    attn_sdpa_gradients gradients;
    memset(&gradients, 0, sizeof gradients);
    gradients.struct_size = sizeof gradients;
    return gradients;
}

/* One comma-separated line per call, for ATTN_VERBOSE=1. */
static void log_call(const sdpa_backward_call *back, const sdpa_needs *needs, size_t scratch,
                     double ms)
{
    static const char *const causal[] = {"none", "top-left", "bottom-right"};
    const sdpa_call *call = &back->call;
    attn_log("attn,sdpa_backward,%s,%lldx%lld/%lldx%lld,%lldx%lld/%lld,%s/%s/%s,%s%s%s%s%s%s%s%s,"
             "dq:%d,dk:%d,dv:%d,dbias:%d,tasks:%lld,threads:%d,scratch:%zu,%.4f ms",
             needs->kernel, (long long)call->batch, (long long)call->heads_q,
             (long long)call->heads_kv, (long long)call->len_q, (long long)call->len_k,
             (long long)call->dim_qk, (long long)call->dim_v, attn_dtype_name(call->q.dtype),
             attn_dtype_name(call->kv.k.dtype), attn_dtype_name(call->out.dtype),
             causal[call->causal], call->left >= 0 || call->right >= 0 ? "+window" : "",
             call->softcap > 0.0 ? "+softcap" : "", call->mask.dtype ? "+mask" : "",
             call->bias.dtype ? "+bias" : "", call->alibi.dtype ? "+alibi" : "",
             call->sinks.dtype ? "+sinks" : "", call->dropout > 0.0 ? "+dropout" : "",
             back->dq.dtype != ATTN_DTYPE_NONE, back->dk.dtype != ATTN_DTYPE_NONE,
             back->dv.dtype != ATTN_DTYPE_NONE, back->dbias.dtype != ATTN_DTYPE_NONE,
             (long long)needs->tasks, attn_context_threads(call->context), scratch, ms);
}

/* All zeros, which are zero bytes in every float type. The last stride is 1. */
static void zero_view(const attn_view *view)
{
    int64_t size[4] = {1, 1, 1, 1}, stride[4] = {0, 0, 0, 0};
    for (int n = 0; n < view->ndim; n++) {
        size[4 - view->ndim + n] = view->shape[n];
        stride[4 - view->ndim + n] = view->stride[n];
    }
    int64_t element = (int64_t)attn_dtype_size(view->dtype);
    for (int64_t b = 0; view->dtype && b < size[0]; b++) {
        for (int64_t h = 0; h < size[1]; h++) {
            for (int64_t i = 0; i < size[2] && size[3] > 0; i++) {
                int64_t at = b * stride[0] + h * stride[1] + i * stride[2];
                memset((char *)view->data + at * element, 0, (size_t)(size[3] * element));
            }
        }
    }
}

/* Without rows or keys nothing flows. */
static void write_zeros(const sdpa_backward_call *call)
{
    const attn_view *all[] = {&call->dq,    &call->dk,     &call->dv,
                              &call->dbias, &call->dsinks, &call->dalibi};
    for (size_t n = 0; n < sizeof all / sizeof *all; n++) {
        zero_view(all[n]);
    }
}

/* What a call needs; `*nothing`: no rows or no keys, so that nothing flows. */
static attn_status make_plan(const sdpa_backward_call *call, sdpa_needs *needs, size_t *scratch,
                             bool *nothing)
{
    const sdpa_call *forward = &call->call;
    *nothing = forward->batch == 0 || forward->len_q == 0 || forward->len_k == 0;
    *needs = (sdpa_needs){.kernel = "none"};
    if (*nothing) {
        *scratch = 0;
        return ATTN_OK;
    }
    bool f64 = forward->q.dtype == ATTN_F64;
    *needs = f64 ? sdpa_backward_f64_needs(call) : sdpa_backward_flash_needs(call);
    return sdpa_scratch_size(forward, needs, scratch);
}

static attn_status run(const sdpa_backward_call *call)
{
    const sdpa_call *forward = &call->call;
    sdpa_needs needs;
    size_t size;
    bool nothing;
    void *scratch = NULL;
    attn_status status = make_plan(call, &needs, &size, &nothing);
    if (status == ATTN_OK) {
        status = sdpa_find_scratch(forward, size, "attn_sdpa_backward_plan", &scratch);
    }
    if (status != ATTN_OK) {
        return status;
    }
    bool verbose = attn_verbose();
    double start = verbose ? attn_log_ms() : 0.0;
    if (nothing) {
        write_zeros(call);
    } else if (forward->q.dtype == ATTN_F64) {
        sdpa_backward_f64_run(call, scratch);
    } else {
        sdpa_backward_flash_run(call, scratch);
    }
    if (verbose && !nothing) {
        log_call(call, &needs, size, attn_log_ms() - start);
    }
    return ATTN_OK;
}

attn_status attn_sdpa_backward(attn_context *context, const attn_sdpa_options *options,
                               const attn_view *q, const attn_view *k, const attn_view *v,
                               const attn_view *out, const attn_view *lse, const attn_view *dout,
                               const attn_sdpa_gradients *gradients)
{
    sdpa_backward_call call;
    attn_status status =
        sdpa_validate_backward(context, options, q, k, v, out, lse, dout, gradients, &call);
    return status == ATTN_OK ? run(&call) : status;
}

attn_status attn_sdpa_backward_plan(attn_context *context, const attn_sdpa_options *options,
                                    const attn_view *q, const attn_view *k, const attn_view *v,
                                    const attn_view *out, const attn_view *lse,
                                    const attn_view *dout, const attn_sdpa_gradients *gradients,
                                    attn_sdpa_plan_info *info)
{
    sdpa_backward_call call;
    sdpa_needs needs;
    size_t size;
    bool nothing;
    if (!info || info->struct_size < sizeof info->struct_size) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "info: must be given and start from attn_sdpa_plan_info_init()");
    }
    attn_status status =
        sdpa_validate_backward(context, options, q, k, v, out, lse, dout, gradients, &call);
    if (status == ATTN_OK) {
        status = make_plan(&call, &needs, &size, &nothing);
    }
    if (status == ATTN_OK) {
        sdpa_tell_plan(&needs, size, info);
    }
    return status;
}
