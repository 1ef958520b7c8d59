/**
 * attention/backward.h: one backward call, checked: what validate_backward gives and the paths read.
 */
#ifndef ATTN_ATTENTION_BACKWARD_H
#define ATTN_ATTENTION_BACKWARD_H

#include "attention/call.h"

typedef struct sdpa_backward_call {
    sdpa_call call; /* the forward call; call.out and call.lse are what it wrote: inputs here */
    attn_view dout; /* 4-D [batch, heads_q, len_q, dim_v]; f32, bf16, f16 (f64 with f64) */
    attn_view dlse; /* 3-D, or dtype NONE: absent; f32 (f64) */
    attn_view dq, dk, dv; /* 4-D, or NONE: not wanted; f32 or the type of q, k (f64) */
    attn_view dbias; /* 4-D with size 1 and stride 0 where bias repeats, or NONE; f32 or bias's */
    attn_view dsinks, dalibi; /* 1-D [heads_q], or NONE; f32 (f64) */
} sdpa_backward_call;

/**
 * Fills `call` from the public arguments, or fails with a sentence.
 */
attn_status sdpa_validate_backward(attn_context *context, const attn_sdpa_options *options,
                                   const attn_view *q, const attn_view *k, const attn_view *v,
                                   const attn_view *out, const attn_view *lse,
                                   const attn_view *dout, const attn_sdpa_gradients *gradients,
                                   sdpa_backward_call *call);

/*
 * The paths, as in call.h. They see batch, len_q and len_k ≥ 1 and write every element of every
 * gradient that is wanted: 0 where nothing flows.
 */

/** f64: exact, in the plainest order. */
sdpa_needs sdpa_backward_f64_needs(const sdpa_backward_call *call);
void sdpa_backward_f64_run(const sdpa_backward_call *call, void *scratch);

/** f32 arithmetic, f32 and 16-bit arrays. */
sdpa_needs sdpa_backward_flash_needs(const sdpa_backward_call *call);
void sdpa_backward_flash_run(const sdpa_backward_call *call, void *scratch);

#endif
