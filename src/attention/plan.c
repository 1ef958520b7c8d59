/* Path choice: the type decides first, then how many query rows share a pass over K and V. */
#include "attention/plan.h"
#include "base/alloc.h"
#include "par/context.h"

#include <string.h>

static sdpa_path choose(const sdpa_call *call)
{
    if (call->batch == 0 || call->len_q == 0) {
        return SDPA_NOTHING;
    }
    if (call->q.dtype == ATTN_F64) {
        return SDPA_F64;
    }
    /* The decode path keeps no scores, so weights come from the tiles, and so does dropout, which is
     * for training. */
    if (call->weights.dtype == ATTN_DTYPE_NONE && call->dropout == 0.0 && sdpa_decode_fits(call)) {
        return SDPA_DECODE;
    }
    return SDPA_FLASH;
}

attn_status sdpa_scratch_size(const sdpa_call *call, const sdpa_needs *needs, size_t *size)
{
    size_t threads = (size_t)attn_context_threads(call->context);
    size_t limit = SIZE_MAX / 4, workers;
    if (needs->shared > limit || needs->per_worker > limit ||
        !attn_mul_size(attn_round_up(needs->per_worker), threads, &workers) ||
        !attn_add_size(attn_round_up(needs->shared), workers, size)) {
        return attn_fail(ATTN_ERR_NO_MEMORY,
                         "scratch: %zu bytes and %zu for each of %zu threads do not fit the "
                         "address space; split the call",
                         needs->shared, needs->per_worker, threads);
    }
    return ATTN_OK;
}

attn_status sdpa_find_scratch(const sdpa_call *call, size_t needed, const char *asked,
                              void **scratch)
{
    if (!call->scratch) {
        return needed ? attn_context_scratch(call->context, needed, scratch) : ATTN_OK;
    }
    if ((uintptr_t)call->scratch % 64 != 0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "scratch: is at %p but must be aligned to 64 bytes; use aligned_alloc",
                         call->scratch);
    }
    if (call->scratch_size < needed) {
        return attn_fail(ATTN_ERR_CAPACITY,
                         "scratch: has %zu bytes but this call needs %zu; ask %s first",
                         call->scratch_size, needed, asked);
    }
    *scratch = call->scratch;
    return ATTN_OK;
}

void sdpa_tell_plan(const sdpa_needs *needs, size_t scratch, attn_sdpa_plan_info *info)
{
    attn_sdpa_plan_info told = attn_sdpa_plan_info_init();
    told.struct_size = info->struct_size;
    told.scratch_bytes = scratch;
    told.scratch_per_thread = needs->per_worker;
    told.tasks = needs->tasks;
    told.split = needs->split;
    strncpy(told.kernel, needs->kernel, sizeof told.kernel - 1);
    memcpy(info, &told, info->struct_size < sizeof told ? info->struct_size : sizeof told);
}

attn_status sdpa_make_plan(const sdpa_call *call, sdpa_plan *plan)
{
    memset(plan, 0, sizeof *plan);
    plan->path = choose(call);
    switch (plan->path) {
    case SDPA_NOTHING: plan->needs.kernel = "none"; return ATTN_OK;
    case SDPA_FLASH: plan->needs = sdpa_flash_needs(call); break;
    case SDPA_DECODE: plan->needs = sdpa_decode_needs(call); break;
    case SDPA_F64: plan->needs = sdpa_f64_needs(call); break;
    }
    return sdpa_scratch_size(call, &plan->needs, &plan->scratch);
}

bool sdpa_is_cache(const attn_kv_view *kv)
{
    return kv && (kv->length || kv->first || kv->ring != 0);
}
