/* kernels/swiglu/swiglu_avx2.c: eight at a time; the tail is the reference's. */
#include <immintrin.h>

#include "kernels/common/exp_avx2.h"
#include "kernels/swiglu/swiglu.h"

void attn_swiglu_f32_avx2(const float *gate, const float *up, int64_t n, float *y)
{
    const __m256 one = _mm256_set1_ps(1.0f), most = _mm256_set1_ps(88.0f);
    const __m256 infinity = _mm256_set1_ps(__builtin_inff());
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), u = _mm256_loadu_ps(up + i);
        __m256 x = _mm256_sub_ps(_mm256_setzero_ps(), g);
        /* Beyond e^88, infinity: the result would be below 1e-36. min in this order keeps a NaN. */
        __m256 e = _mm256_blendv_ps(attn_exp_avx2(_mm256_min_ps(most, x)), infinity,
                                    _mm256_cmp_ps(x, most, _CMP_GT_OQ));
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        _mm256_storeu_ps(y + i, _mm256_mul_ps(silu, u));
    }
    attn_swiglu_f32_c(gate + i, up + i, n - i, y + i);
}

void attn_swiglu_backward_f32_avx2(const float *gate, const float *up, const float *dy, int64_t n,
                                   float *dgate, float *dup)
{
    const __m256 one = _mm256_set1_ps(1.0f), most = _mm256_set1_ps(88.0f);
    const __m256 infinity = _mm256_set1_ps(__builtin_inff());
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), u = _mm256_loadu_ps(up + i);
        __m256 d = _mm256_loadu_ps(dy + i), x = _mm256_sub_ps(_mm256_setzero_ps(), g);
        __m256 e = _mm256_blendv_ps(attn_exp_avx2(_mm256_min_ps(most, x)), infinity,
                                    _mm256_cmp_ps(x, most, _CMP_GT_OQ));
        __m256 below = _mm256_add_ps(one, e), sigma = _mm256_div_ps(one, below);
        __m256 slope = _mm256_fmadd_ps(g, _mm256_sub_ps(one, sigma), one);
        slope = _mm256_mul_ps(sigma, slope);
        _mm256_storeu_ps(dgate + i, _mm256_mul_ps(_mm256_mul_ps(d, u), slope));
        _mm256_storeu_ps(dup + i, _mm256_mul_ps(d, _mm256_div_ps(g, below)));
    }
    attn_swiglu_backward_f32_c(gate + i, up + i, dy + i, n - i, dgate + i, dup + i);
}
