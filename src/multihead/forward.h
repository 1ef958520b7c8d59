/**
 * multihead/forward.h: one forward call, checked: what check.c gives and forward.c runs.
 */
#ifndef ATTN_MULTIHEAD_FORWARD_H
#define ATTN_MULTIHEAD_FORWARD_H

#include "multihead/layer.h"

typedef struct multihead_call {
    attn_context *context;
    const attn_multihead *layer;
    attn_multihead_forward_options o;
    attn_view query, key, value, out; /* 3-D */
    int64_t batch, len_q, len_k;      /* len_k: rows of key and value given */
    int64_t columns; /* keys that attention sees: of mask, padding mask and weights */
    attn_view mask;  /* as attn_sdpa takes it, without padding; dtype NONE: none */
} multihead_call;

/** Everything that can be told from the arguments; nothing has happened yet when it fails. */
attn_status multihead_check(attn_context *context, const attn_multihead *layer,
                            const attn_multihead_forward_options *options, const attn_view *query,
                            const attn_view *key, const attn_view *value, const attn_view *out,
                            multihead_call *call);

#endif
