/* kernels/swiglu/swiglu_avx512.c: sixteen at a time; the tail is a mask. */
#include <immintrin.h>

#include "kernels/common/exp_avx512.h"
#include "kernels/swiglu/swiglu.h"

void attn_swiglu_f32_avx512(const float *gate, const float *up, int64_t n, float *y)
{
    const __m512 one = _mm512_set1_ps(1.0f), most = _mm512_set1_ps(150.0f);
    for (int64_t i = 0; i < n; i += 16) {
        unsigned lanes = n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u;
        __mmask16 mask = (__mmask16)lanes;
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + i), u = _mm512_maskz_loadu_ps(mask, up + i);
        /* e^150 is infinite in f32; the cut keeps e^+inf from becoming NaN, and this order a NaN. */
        __m512 x = _mm512_min_ps(most, _mm512_sub_ps(_mm512_setzero_ps(), g));
        __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, attn_exp_avx512(x)));
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(silu, u));
    }
}

void attn_swiglu_backward_f32_avx512(const float *gate, const float *up, const float *dy, int64_t n,
                                     float *dgate, float *dup)
{
    const __m512 one = _mm512_set1_ps(1.0f), most = _mm512_set1_ps(150.0f);
    for (int64_t i = 0; i < n; i += 16) {
        unsigned lanes = n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1u;
        __mmask16 mask = (__mmask16)lanes;
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + i), u = _mm512_maskz_loadu_ps(mask, up + i);
        __m512 d = _mm512_maskz_loadu_ps(mask, dy + i);
        __m512 x = _mm512_min_ps(most, _mm512_sub_ps(_mm512_setzero_ps(), g));
        __m512 below = _mm512_add_ps(one, attn_exp_avx512(x)), sigma = _mm512_div_ps(one, below);
        __m512 slope = _mm512_fmadd_ps(g, _mm512_sub_ps(one, sigma), one);
        slope = _mm512_mul_ps(sigma, slope);
        _mm512_mask_storeu_ps(dgate + i, mask, _mm512_mul_ps(_mm512_mul_ps(d, u), slope));
        _mm512_mask_storeu_ps(dup + i, mask, _mm512_mul_ps(d, _mm512_div_ps(g, below)));
    }
}
