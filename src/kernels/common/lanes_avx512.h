/**
 * kernels/common/lanes_avx512.h: sixteen floats at a time under the names that lanes_avx2.h gives to eight, so that an element-wise kernel
 * is written once (*_lanes.h) for both. Include in *_avx512*.c only. +, −, · and / are the compiler's on vectors.
 */
#ifndef ATTN_KERNELS_COMMON_LANES_AVX512_H
#define ATTN_KERNELS_COMMON_LANES_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "kernels/common/exp_avx512.h"

enum { LANES = 16 };
typedef __m512 lanes;
typedef __mmask16 lanes_mask;

static inline lanes lanes_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline lanes lanes_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void lanes_store(float *p, lanes x)
{
    _mm512_storeu_ps(p, x);
}

static inline __mmask16 lanes_first(int64_t n)
{
    return (__mmask16)((1u << n) - 1u);
}

/* The first n < LANES; the others are `fill`. */
static inline lanes lanes_load_some(const float *p, int64_t n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), lanes_first(n), p);
}

static inline void lanes_store_some(float *p, int64_t n, lanes x)
{
    _mm512_mask_storeu_ps(p, lanes_first(n), x);
}

/* a·b + c, and c − a·b, rounded once */
static inline lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline lanes lanes_fnma(lanes a, lanes b, lanes c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* A NaN in x stays; one in `limit` does not. */
static inline lanes lanes_at_least(float limit, lanes x)
{
    return _mm512_max_ps(_mm512_set1_ps(limit), x);
}

static inline lanes lanes_at_most(float limit, lanes x)
{
    return _mm512_min_ps(_mm512_set1_ps(limit), x);
}

/* NaN may get lost. */
static inline lanes lanes_max(lanes a, lanes b)
{
    return _mm512_max_ps(a, b);
}

static inline lanes lanes_abs(lanes x)
{
    return _mm512_abs_ps(x);
}

static inline lanes lanes_sqrt(lanes x)
{
    return _mm512_sqrt_ps(x);
}

static inline lanes lanes_sign_of(lanes size, lanes sign)
{
    return _mm512_or_ps(size, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}

/* false where either is NaN */
static inline lanes_mask lanes_less(lanes a, lanes b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

/* the first n, whatever n is */
static inline lanes_mask lanes_before(int64_t n)
{
    return (lanes_mask)(n >= LANES ? 0xffffu : n > 0 ? (1u << n) - 1u : 0u);
}

/* true where either is NaN */
static inline lanes_mask lanes_differ(lanes a, lanes b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
}

static inline lanes lanes_select(lanes_mask mask, lanes yes, lanes no)
{
    return _mm512_mask_blend_ps(mask, no, yes);
}

/* eˣ for x ≤ 88 */
static inline lanes lanes_exp(lanes x)
{
    return attn_exp_avx512(x);
}

/* x = 2^e·m with √½ ≤ m < √2, for normal x > 0 */
static inline lanes lanes_split(lanes x, lanes *e)
{
    const __m512i half_root = _mm512_set1_epi32(0x3f3504f3);
    __m512i bits = _mm512_sub_epi32(_mm512_castps_si512(x), half_root);
    *e = _mm512_cvtepi32_ps(_mm512_srai_epi32(bits, 23));
    __m512i fraction = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffff));
    return _mm512_castsi512_ps(_mm512_add_epi32(fraction, half_root));
}

static inline float lanes_largest(lanes x)
{
    return _mm512_reduce_max_ps(x);
}

static inline float lanes_sum(lanes x)
{
    return _mm512_reduce_add_ps(x);
}

/* Σ of the lanes, in f32 */
static inline float lanes_total(lanes x)
{
    return _mm512_reduce_add_ps(x);
}

/* Sums in f64. */
typedef struct lanes_sums {
    __m512d low, high;
} lanes_sums;

static inline lanes_sums lanes_sums_zero(void)
{
    return (lanes_sums){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

static inline __m512d lanes_low(lanes x)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}

static inline __m512d lanes_high(lanes x)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
}

static inline void lanes_sums_add(lanes_sums *s, lanes x)
{
    s->low = _mm512_add_pd(s->low, lanes_low(x));
    s->high = _mm512_add_pd(s->high, lanes_high(x));
}

static inline void lanes_sums_add_square(lanes_sums *s, lanes x)
{
    __m512d low = lanes_low(x), high = lanes_high(x);
    s->low = _mm512_fmadd_pd(low, low, s->low);
    s->high = _mm512_fmadd_pd(high, high, s->high);
}

static inline double lanes_sums_total(const lanes_sums *s)
{
    return _mm512_reduce_add_pd(_mm512_add_pd(s->low, s->high));
}

#endif
