/**
 * kernels/swiglu/swiglu.h: y[i] = silu(gate[i])·up[i], silu(z) = z/(1 + e^−z), i < n. y may be gate or up.
 * NaN in gives NaN out; gate = −inf is NaN (−inf/inf), +inf is inf·up.
 */
#ifndef ATTN_KERNELS_SWIGLU_SWIGLU_H
#define ATTN_KERNELS_SWIGLU_SWIGLU_H

#include <attn/context.h>

typedef void attn_swiglu_fn(const float *gate, const float *up, int64_t n, float *y);

/** The best kernel for a level; C for levels it does not know. Never NULL. */
attn_swiglu_fn *attn_swiglu_for(attn_isa isa);

attn_swiglu_fn attn_swiglu_f32_c, attn_swiglu_f32_avx2, attn_swiglu_f32_avx512;

#endif
