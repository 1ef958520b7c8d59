/*
 * kernels/rope/rope_avx2.c: four angles at a time in double; see rope_avx512.c for the reduction and series. Tails
 * are the reference's.
 */
#include <immintrin.h>

#include "kernels/rope/rope.h"

#define INLINE static inline __attribute__((always_inline))

INLINE void sine_cosine(__m256d x, __m256d *sine, __m256d *cosine)
{
    __m256d z = _mm256_mul_pd(x, x);
    __m256d s = _mm256_set1_pd(-1.0 / 39916800.0);
    s = _mm256_fmadd_pd(s, z, _mm256_set1_pd(1.0 / 362880.0));
    s = _mm256_fmadd_pd(s, z, _mm256_set1_pd(-1.0 / 5040.0));
    s = _mm256_fmadd_pd(s, z, _mm256_set1_pd(1.0 / 120.0));
    s = _mm256_fmadd_pd(s, z, _mm256_set1_pd(-1.0 / 6.0));
    *sine = _mm256_fmadd_pd(_mm256_mul_pd(s, z), x, x);
    __m256d c = _mm256_set1_pd(1.0 / 479001600.0);
    c = _mm256_fmadd_pd(c, z, _mm256_set1_pd(-1.0 / 3628800.0));
    c = _mm256_fmadd_pd(c, z, _mm256_set1_pd(1.0 / 40320.0));
    c = _mm256_fmadd_pd(c, z, _mm256_set1_pd(-1.0 / 720.0));
    c = _mm256_fmadd_pd(c, z, _mm256_set1_pd(1.0 / 24.0));
    c = _mm256_fmadd_pd(c, z, _mm256_set1_pd(-0.5));
    *cosine = _mm256_fmadd_pd(c, z, _mm256_set1_pd(1.0));
}

void attn_rope_angles_avx2(const double *frequency, double position, int64_t pairs, float *cosine,
                           float *sine)
{
    const __m256d p = _mm256_set1_pd(position);
    const __m256i one = _mm256_set1_epi64x(1), two = _mm256_set1_epi64x(2);
    int64_t i = 0;
    for (; i + 4 <= pairs; i += 4) {
        __m256d a = _mm256_mul_pd(_mm256_loadu_pd(frequency + i), p);
        __m256d n = _mm256_round_pd(_mm256_mul_pd(a, _mm256_set1_pd(0x1.45f306dc9c883p-1)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        a = _mm256_fnmadd_pd(n, _mm256_set1_pd(0x1.921fb54442d18p+0), a);
        a = _mm256_fnmadd_pd(n, _mm256_set1_pd(0x1.1a62633145c07p-54), a);
        __m256d s, c;
        sine_cosine(a, &s, &c);
        /* Quarter turns: odd ones swap sine and cosine, signs follow. */
        __m256i q = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n));
        __m256d odd = _mm256_castsi256_pd(_mm256_slli_epi64(q, 63));
        __m256i minus_s = _mm256_slli_epi64(_mm256_and_si256(q, two), 62);
        __m256i minus_c = _mm256_slli_epi64(_mm256_and_si256(_mm256_add_epi64(q, one), two), 62);
        __m256d sin = _mm256_xor_pd(_mm256_blendv_pd(s, c, odd), _mm256_castsi256_pd(minus_s));
        __m256d cos = _mm256_xor_pd(_mm256_blendv_pd(c, s, odd), _mm256_castsi256_pd(minus_c));
        _mm_storeu_ps(cosine + i, _mm256_cvtpd_ps(cos));
        _mm_storeu_ps(sine + i, _mm256_cvtpd_ps(sin));
    }
    attn_rope_angles_c(frequency + i, position, pairs - i, cosine + i, sine + i);
}

void attn_rope_interleaved_avx2(float *x, const float *cosine, const float *sine, int64_t pairs)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    int64_t i = 0;
    for (; i + 4 <= pairs; i += 4) {
        __m256 c = _mm256_castps128_ps256(_mm_loadu_ps(cosine + i));
        __m256 s = _mm256_castps128_ps256(_mm_loadu_ps(sine + i));
        __m256 v = _mm256_loadu_ps(x + 2 * i);
        __m256 w = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), _mm256_permutevar8x32_ps(s, twice));
        v = _mm256_fmaddsub_ps(v, _mm256_permutevar8x32_ps(c, twice), w);
        _mm256_storeu_ps(x + 2 * i, v);
    }
    attn_rope_interleaved_c(x + 2 * i, cosine + i, sine + i, pairs - i);
}

void attn_rope_halves_avx2(float *low, float *high, const float *cosine, const float *sine,
                           int64_t pairs)
{
    int64_t i = 0;
    for (; i + 8 <= pairs; i += 8) {
        __m256 c = _mm256_loadu_ps(cosine + i), s = _mm256_loadu_ps(sine + i);
        __m256 a = _mm256_loadu_ps(low + i), b = _mm256_loadu_ps(high + i);
        _mm256_storeu_ps(low + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(high + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
    attn_rope_halves_c(low + i, high + i, cosine + i, sine + i, pairs - i);
}
