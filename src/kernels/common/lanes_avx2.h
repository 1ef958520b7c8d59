/**
 * kernels/common/lanes_avx2.h: eight floats at a time; the names are those of lanes_avx512.h, where they are explained.
 * Include in *_avx2.c only.
 */
#ifndef ATTN_KERNELS_COMMON_LANES_AVX2_H
#define ATTN_KERNELS_COMMON_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "kernels/common/exp_avx2.h"

enum { LANES = 8 };
typedef __m256 lanes;
typedef __m256 lanes_mask;

static inline lanes lanes_set(float x)
{
    return _mm256_set1_ps(x);
}

static inline lanes lanes_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void lanes_store(float *p, lanes x)
{
    _mm256_storeu_ps(p, x);
}

static inline __m256i lanes_first(int64_t n)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), index);
}

static inline lanes lanes_load_some(const float *p, int64_t n, float fill)
{
    __m256i first = lanes_first(n);
    return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, first),
                            _mm256_castsi256_ps(first));
}

static inline void lanes_store_some(float *p, int64_t n, lanes x)
{
    _mm256_maskstore_ps(p, lanes_first(n), x);
}

static inline lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline lanes lanes_fnma(lanes a, lanes b, lanes c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

static inline lanes lanes_at_least(float limit, lanes x)
{
    return _mm256_max_ps(_mm256_set1_ps(limit), x);
}

static inline lanes lanes_at_most(float limit, lanes x)
{
    return _mm256_min_ps(_mm256_set1_ps(limit), x);
}

static inline lanes lanes_max(lanes a, lanes b)
{
    return _mm256_max_ps(a, b);
}

static inline lanes lanes_abs(lanes x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

static inline lanes lanes_sqrt(lanes x)
{
    return _mm256_sqrt_ps(x);
}

static inline lanes lanes_sign_of(lanes size, lanes sign)
{
    return _mm256_or_ps(size, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}

static inline lanes_mask lanes_less(lanes a, lanes b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

static inline lanes_mask lanes_before(int64_t n)
{
    return _mm256_castsi256_ps(lanes_first(n));
}

static inline lanes_mask lanes_differ(lanes a, lanes b)
{
    return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ);
}

static inline lanes lanes_select(lanes_mask mask, lanes yes, lanes no)
{
    return _mm256_blendv_ps(no, yes, mask);
}

static inline lanes lanes_exp(lanes x)
{
    return attn_exp_avx2(x);
}

static inline lanes lanes_split(lanes x, lanes *e)
{
    const __m256i half_root = _mm256_set1_epi32(0x3f3504f3);
    __m256i bits = _mm256_sub_epi32(_mm256_castps_si256(x), half_root);
    *e = _mm256_cvtepi32_ps(_mm256_srai_epi32(bits, 23));
    __m256i fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff));
    return _mm256_castsi256_ps(_mm256_add_epi32(fraction, half_root));
}

static inline float lanes_largest(lanes x)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline float lanes_sum(lanes x)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline float lanes_total(lanes x)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

typedef struct lanes_sums {
    __m256d low, high;
} lanes_sums;

static inline lanes_sums lanes_sums_zero(void)
{
    return (lanes_sums){_mm256_setzero_pd(), _mm256_setzero_pd()};
}

static inline __m256d lanes_low(lanes x)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
}

static inline __m256d lanes_high(lanes x)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}

static inline void lanes_sums_add(lanes_sums *s, lanes x)
{
    s->low = _mm256_add_pd(s->low, lanes_low(x));
    s->high = _mm256_add_pd(s->high, lanes_high(x));
}

static inline void lanes_sums_add_square(lanes_sums *s, lanes x)
{
    __m256d low = lanes_low(x), high = lanes_high(x);
    s->low = _mm256_fmadd_pd(low, low, s->low);
    s->high = _mm256_fmadd_pd(high, high, s->high);
}

static inline double lanes_sums_total(const lanes_sums *s)
{
    __m256d four = _mm256_add_pd(s->low, s->high);
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#endif
