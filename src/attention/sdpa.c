/* The public calls: validate, plan, scratch, run. */
#include "attention/plan.h"
#include "base/log.h"
#include "par/context.h"

#include <string.h>

attn_sdpa_options attn_sdpa_options_init(void)
{
    attn_sdpa_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    return options;
}

attn_sdpa_plan_info attn_sdpa_plan_info_init(void)
{
    attn_sdpa_plan_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    return info;
}

/* One comma-separated line per call, for ATTN_VERBOSE=1. */
static void log_call(const sdpa_call *call, const sdpa_plan *plan, double ms)
{
    static const char *const causal[] = {"none", "top-left", "bottom-right"};
    attn_log(
        "attn,sdpa,%s,%lldx%lld/%lldx%lld,%lldx%lld/%lld,%s/%s/%s,%s%s%s%s%s%s%s%s%s,tasks:%lld,"
        "split:%lld,threads:%d,scratch:%zu,%.4f ms",
        plan->needs.kernel, (long long)call->batch, (long long)call->heads_q,
        (long long)call->heads_kv, (long long)call->len_q, (long long)call->len_k,
        (long long)call->dim_qk, (long long)call->dim_v, attn_dtype_name(call->q.dtype),
        attn_dtype_name(call->kv.k.dtype), attn_dtype_name(call->out.dtype), causal[call->causal],
        call->left >= 0 || call->right >= 0 ? "+window" : "", call->softcap > 0.0 ? "+softcap" : "",
        call->mask.dtype ? "+mask" : "", call->bias.dtype ? "+bias" : "",
        call->alibi.dtype ? "+alibi" : "", call->sinks.dtype ? "+sinks" : "",
        call->dropout > 0.0 ? "+dropout" : "", call->cached ? "+cache" : "",
        (long long)plan->needs.tasks, (long long)plan->needs.split,
        attn_context_threads(call->context), plan->scratch, ms);
}

static attn_status run(const sdpa_call *call)
{
    sdpa_plan plan;
    void *scratch = NULL;
    attn_status status = sdpa_make_plan(call, &plan);
    if (status == ATTN_OK) {
        status = sdpa_find_scratch(call, plan.scratch, "attn_sdpa_plan", &scratch);
    }
    if (status != ATTN_OK) {
        return status;
    }
    bool verbose = attn_verbose();
    double start = verbose ? attn_log_ms() : 0.0;
    switch (plan.path) {
    case SDPA_NOTHING: break;
    case SDPA_FLASH: sdpa_flash_run(call, scratch); break;
    case SDPA_DECODE: sdpa_decode_run(call, scratch); break;
    case SDPA_F64: sdpa_f64_run(call, scratch); break;
    }
    if (verbose) {
        log_call(call, &plan, attn_log_ms() - start);
    }
    return ATTN_OK;
}

attn_status attn_sdpa(attn_context *context, const attn_sdpa_options *options, const attn_view *q,
                      const attn_view *k, const attn_view *v, const attn_view *out)
{
    sdpa_call call;
    if (!k || !v) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: is NULL but must be given", k ? "v" : "k");
    }
    attn_kv_view kv = attn_kv_view_init(*k, *v);
    attn_status status = sdpa_validate(context, options, q, &kv, out, false, &call);
    return status == ATTN_OK ? run(&call) : status;
}

attn_status attn_sdpa_kv(attn_context *context, const attn_sdpa_options *options,
                         const attn_view *q, const attn_kv_view *kv, const attn_view *out)
{
    sdpa_call call;
    attn_status status = sdpa_validate(context, options, q, kv, out, true, &call);
    return status == ATTN_OK ? run(&call) : status;
}

attn_status attn_sdpa_plan(attn_context *context, const attn_sdpa_options *options,
                           const attn_view *q, const attn_kv_view *kv, const attn_view *out,
                           attn_sdpa_plan_info *info)
{
    sdpa_call call;
    sdpa_plan plan;
    if (!info || info->struct_size < sizeof info->struct_size) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "info: must be given and start from attn_sdpa_plan_info_init()");
    }
    attn_status status = sdpa_validate(context, options, q, kv, out, sdpa_is_cache(kv), &call);
    if (status == ATTN_OK) {
        status = sdpa_make_plan(&call, &plan);
    }
    if (status != ATTN_OK) {
        return status;
    }
    sdpa_tell_plan(&plan.needs, plan.scratch, info);
    return ATTN_OK;
}
