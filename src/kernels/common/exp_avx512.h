/**
 * kernels/common/exp_avx512.h: eˣ in f32, sixteen at a time, for softmax. Include in *_avx512*.c only.
 *
 * x = n·ln2 + r with n an integer and |r| ≤ ln2/2 (Cody & Waite 1980), eʳ = 1 + r·(1 + r·q(r)) with q a weighted
 * minimax polynomial of degree 4 (3.1e-9 relative), then ·2ⁿ. Error below 1.3 ulp on [−87, 88].
 * −inf and everything whose result is subnormal in f32 gives 0 under FTZ; NaN gives NaN. x is not +inf.
 */
#ifndef ATTN_KERNELS_COMMON_EXP_AVX512_H
#define ATTN_KERNELS_COMMON_EXP_AVX512_H

#include <immintrin.h>

static inline __m512 attn_exp_avx512(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-110.0f), x); /* this order keeps NaN; −inf would make r NaN */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e43p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0x1.05c61p-29f), r);
    __m512 q = _mm512_set1_ps(0x1.6a23cep-10f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.123a2p-7f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f2p-5f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555492p-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(q, n);
}

#endif
