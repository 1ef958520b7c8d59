/**
 * kernels/common/exp_avx2.h: eˣ in f32, eight at a time, for softmax. Include in *_avx2.c only.
 *
 * The method and constants of exp_avx512.h; 2ⁿ goes into the exponent bits, so x is kept at ≥ −87 for it.
 * Error below 1.3 ulp on [−87, 88]; below −87, −inf included, the result is 0; NaN gives NaN. x ≤ 88.
 */
#ifndef ATTN_KERNELS_COMMON_EXP_AVX2_H
#define ATTN_KERNELS_COMMON_EXP_AVX2_H

#include <immintrin.h>

static inline __m256 attn_exp_avx2(__m256 x)
{
    const __m256 lowest = _mm256_set1_ps(-87.0f);
    __m256 tiny = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
    x = _mm256_max_ps(lowest, x); /* this order keeps NaN */
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e43p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-0x1.05c61p-29f), r);
    __m256 q = _mm256_set1_ps(0x1.6a23cep-10f);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.123a2p-7f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5558f2p-5f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.555492p-3f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.fffffcp-2f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.0f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.0f));
    /* Not for NaN lanes: there n is no integer, and q is NaN already. */
    __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    __m256 power = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q), exponent));
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_andnot_ps(tiny, _mm256_blendv_ps(power, q, nan));
}

#endif
