/*
 * kernels/rope/rope_avx512.c: eight angles at a time in double. Reduction by multiples of π/2 in two fused steps
 * (106 bits of π/2); Taylor series to x¹¹ and x¹², whose rest on |x| ≤ π/4 is below 1e-11.
 */
#include <immintrin.h>

#include "kernels/rope/rope.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 lanes(int64_t left)
{
    unsigned mask = left >= 16 ? 0xffffu : (1u << left) - 1u;
    return (__mmask16)mask;
}

INLINE void sine_cosine(__m512d x, __m512d *sine, __m512d *cosine)
{
    __m512d z = _mm512_mul_pd(x, x);
    __m512d s = _mm512_set1_pd(-1.0 / 39916800.0);
    s = _mm512_fmadd_pd(s, z, _mm512_set1_pd(1.0 / 362880.0));
    s = _mm512_fmadd_pd(s, z, _mm512_set1_pd(-1.0 / 5040.0));
    s = _mm512_fmadd_pd(s, z, _mm512_set1_pd(1.0 / 120.0));
    s = _mm512_fmadd_pd(s, z, _mm512_set1_pd(-1.0 / 6.0));
    *sine = _mm512_fmadd_pd(_mm512_mul_pd(s, z), x, x);
    __m512d c = _mm512_set1_pd(1.0 / 479001600.0);
    c = _mm512_fmadd_pd(c, z, _mm512_set1_pd(-1.0 / 3628800.0));
    c = _mm512_fmadd_pd(c, z, _mm512_set1_pd(1.0 / 40320.0));
    c = _mm512_fmadd_pd(c, z, _mm512_set1_pd(-1.0 / 720.0));
    c = _mm512_fmadd_pd(c, z, _mm512_set1_pd(1.0 / 24.0));
    c = _mm512_fmadd_pd(c, z, _mm512_set1_pd(-0.5));
    *cosine = _mm512_fmadd_pd(c, z, _mm512_set1_pd(1.0));
}

void attn_rope_angles_avx512(const double *frequency, double position, int64_t pairs, float *cosine,
                             float *sine)
{
    const __m512d p = _mm512_set1_pd(position);
    const __m512i one = _mm512_set1_epi64(1), two = _mm512_set1_epi64(2);
    for (int64_t i = 0; i < pairs; i += 8) {
        __mmask8 mask = (__mmask8)lanes(pairs - i);
        __m512d a = _mm512_mul_pd(_mm512_maskz_loadu_pd(mask, frequency + i), p);
        __m512d n = _mm512_roundscale_pd(_mm512_mul_pd(a, _mm512_set1_pd(0x1.45f306dc9c883p-1)),
                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        a = _mm512_fnmadd_pd(n, _mm512_set1_pd(0x1.921fb54442d18p+0), a);
        a = _mm512_fnmadd_pd(n, _mm512_set1_pd(0x1.1a62633145c07p-54), a);
        __m512d s, c;
        sine_cosine(a, &s, &c);
        /* Quarter turns: odd ones swap sine and cosine, signs follow. */
        __m512i q = _mm512_cvtpd_epi64(n);
        __mmask8 odd = _mm512_test_epi64_mask(q, one);
        __m512i minus_s = _mm512_slli_epi64(_mm512_and_si512(q, two), 62);
        __m512i minus_c = _mm512_slli_epi64(_mm512_and_si512(_mm512_add_epi64(q, one), two), 62);
        __m512d sign_s = _mm512_castsi512_pd(minus_s), sign_c = _mm512_castsi512_pd(minus_c);
        __m512d sin = _mm512_xor_pd(_mm512_mask_blend_pd(odd, s, c), sign_s);
        __m512d cos = _mm512_xor_pd(_mm512_mask_blend_pd(odd, c, s), sign_c);
        _mm256_mask_storeu_ps(cosine + i, mask, _mm512_cvtpd_ps(cos));
        _mm256_mask_storeu_ps(sine + i, mask, _mm512_cvtpd_ps(sin));
    }
}

void attn_rope_interleaved_avx512(float *x, const float *cosine, const float *sine, int64_t pairs)
{
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (int64_t i = 0; i < pairs; i += 8) {
        __mmask16 half = lanes(pairs - i) & 0xff, mask = lanes(2 * (pairs - i));
        __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, cosine + i));
        __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, sine + i));
        __m512 v = _mm512_maskz_loadu_ps(mask, x + 2 * i);
        __m512 w = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);
        _mm512_mask_storeu_ps(x + 2 * i, mask, _mm512_fmaddsub_ps(v, c, w));
    }
}

void attn_rope_halves_avx512(float *low, float *high, const float *cosine, const float *sine,
                             int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i += 16) {
        __mmask16 mask = lanes(pairs - i);
        __m512 c = _mm512_maskz_loadu_ps(mask, cosine + i);
        __m512 s = _mm512_maskz_loadu_ps(mask, sine + i);
        __m512 a = _mm512_maskz_loadu_ps(mask, low + i);
        __m512 b = _mm512_maskz_loadu_ps(mask, high + i);
        _mm512_mask_storeu_ps(low + i, mask, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(high + i, mask, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}
