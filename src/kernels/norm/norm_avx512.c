/* kernels/norm/norm_avx512.c: eight doubles at a time; the tail is a mask. */
#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <stddef.h>

#include "kernels/norm/norm.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __mmask8 lanes(int64_t left)
{
    unsigned mask = left >= 8 ? 0xffu : (1u << left) - 1u;
    return (__mmask8)mask;
}

INLINE __m512d load(const float *p, __mmask8 mask)
{
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, p));
}

/* Σ(x − mean)² over the row, or Σx with `plain`; two chains of additions. */
INLINE double sum(const float *x, int64_t n, double mean, const bool plain)
{
    __m512d a[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    const __m512d m = _mm512_set1_pd(mean);
    for (int64_t i = 0; i < n; i += 16) {
        for (int j = 0; j < 2 && i + 8 * j < n; j++) {
            __mmask8 mask = lanes(n - i - 8 * j);
            __m512d v = load(x + i + 8 * j, mask);
            if (plain) {
                a[j] = _mm512_add_pd(a[j], v);
            } else {
                v = _mm512_maskz_sub_pd(mask, v, m);
                a[j] = _mm512_fmadd_pd(v, v, a[j]);
            }
        }
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(a[0], a[1]));
}

INLINE void apply(const float *x, const float *weight, const float *bias, double mean,
                  double factor, int64_t n, float *y)
{
    const __m512d m = _mm512_set1_pd(mean), f = _mm512_set1_pd(factor);
    for (int64_t i = 0; i < n; i += 8) {
        __mmask8 mask = lanes(n - i);
        __m512d v = _mm512_mul_pd(_mm512_sub_pd(load(x + i, mask), m), f);
        if (weight) {
            v = _mm512_mul_pd(v, load(weight + i, mask));
        }
        if (bias) {
            v = _mm512_add_pd(v, load(bias + i, mask));
        }
        _mm256_mask_storeu_ps(y + i, mask, _mm512_cvtpd_ps(v));
    }
}

void attn_norm_rms_avx512(const float *x, const float *weight, double eps, int64_t n, float *y)
{
    assert(n >= 1);
    double factor = 1.0 / sqrt(sum(x, n, 0.0, false) / (double)n + eps);
    apply(x, weight, NULL, 0.0, factor, n, y);
}

void attn_norm_layer_avx512(const float *x, const float *weight, const float *bias, double eps,
                            int64_t n, float *y)
{
    assert(n >= 1);
    double mean = sum(x, n, 0.0, true) / (double)n;
    double factor = 1.0 / sqrt(sum(x, n, mean, false) / (double)n + eps);
    apply(x, weight, bias, mean, factor, n, y);
}
