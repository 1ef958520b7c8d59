/**
 * kernels/swiglu/swiglu.h: y[i] = silu(gate[i])·up[i], silu(z) = z/(1 + e^−z), i < n. y may be gate or up.
 * backward, with σ = 1/(1 + e^−gate):  dup = dy·gate·σ, dgate = dy·up·σ·(1 + gate·(1 − σ)); either may be any input.
 * NaN in gives NaN out; gate = −inf is NaN (−inf/inf), +inf is inf·up;
 * dgate is NaN where gate is infinite.
 */
#ifndef ATTN_KERNELS_SWIGLU_SWIGLU_H
#define ATTN_KERNELS_SWIGLU_SWIGLU_H

#include <attn/context.h>

typedef void attn_swiglu_fn(const float *gate, const float *up, int64_t n, float *y);

typedef void attn_swiglu_backward_fn(const float *gate, const float *up, const float *dy, int64_t n,
                                     float *dgate, float *dup);

/** The best kernel for a level; C for levels it does not know. Never NULL. */
attn_swiglu_fn *attn_swiglu_for(attn_isa isa);

attn_swiglu_backward_fn *attn_swiglu_backward_for(attn_isa isa);

attn_swiglu_fn attn_swiglu_f32_c, attn_swiglu_f32_avx2, attn_swiglu_f32_avx512;
attn_swiglu_backward_fn attn_swiglu_backward_f32_c, attn_swiglu_backward_f32_avx2,
    attn_swiglu_backward_f32_avx512;

#endif
