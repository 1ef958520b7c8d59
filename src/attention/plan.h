/**
 * attention/plan.h: which path a checked call takes, and what it needs.
 */
#ifndef ATTN_ATTENTION_PLAN_H
#define ATTN_ATTENTION_PLAN_H

#include "attention/call.h"

typedef enum sdpa_path {
    SDPA_NOTHING, /* no query rows: a no-op that succeeds */
    SDPA_FLASH,
    SDPA_DECODE,
    SDPA_F64,
} sdpa_path;

/**
 * Scratch is one block: the shared part, then one part per worker of the context, each rounded up
 * to ATTN_ALIGN; `scratch` is the sum.
 */
typedef struct sdpa_plan {
    sdpa_path path;
    sdpa_needs needs;
    size_t scratch;
} sdpa_plan;

/** NO_MEMORY where the scratch does not fit the address space. */
attn_status sdpa_make_plan(const sdpa_call *call, sdpa_plan *plan);

/** Bytes of a call's scratch in all, or NO_MEMORY. */
attn_status sdpa_scratch_size(const sdpa_call *call, const sdpa_needs *needs, size_t *size);

/** The caller's scratch where it is given and enough, else the context's. */
attn_status sdpa_find_scratch(const sdpa_call *call, size_t needed, const char *asked,
                              void **scratch);

/** Tells what the public plans tell; an older caller's struct is shorter and never written beyond. */
void sdpa_tell_plan(const sdpa_needs *needs, size_t scratch, attn_sdpa_plan_info *info);

/** True for a view of a cache, false for plain arrays (attn_kv_view_init): which rules hold. */
bool sdpa_is_cache(const attn_kv_view *kv);

#endif
