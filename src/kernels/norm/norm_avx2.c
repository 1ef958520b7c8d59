/* kernels/norm/norm_avx2.c: four doubles at a time; the tail one by one. */
#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <stddef.h>

#include "kernels/norm/norm.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256d load(const float *p)
{
    return _mm256_cvtps_pd(_mm_loadu_ps(p));
}

/* Σ(x − mean)² over the row, or Σx with `plain`; two chains of additions. */
INLINE double sum(const float *x, int64_t n, double mean, const bool plain)
{
    __m256d a[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    const __m256d m = _mm256_set1_pd(mean);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            __m256d v = load(x + i + 4 * j);
            if (plain) {
                a[j] = _mm256_add_pd(a[j], v);
            } else {
                v = _mm256_sub_pd(v, m);
                a[j] = _mm256_fmadd_pd(v, v, a[j]);
            }
        }
    }
    double four[4], rest = 0.0;
    _mm256_storeu_pd(four, _mm256_add_pd(a[0], a[1]));
    for (; i < n; i++) {
        double v = x[i] - mean;
        rest += plain ? x[i] : v * v;
    }
    return (four[0] + four[2]) + (four[1] + four[3]) + rest;
}

INLINE void apply(const float *x, const float *weight, const float *bias, double mean,
                  double factor, int64_t n, float *y)
{
    const __m256d m = _mm256_set1_pd(mean), f = _mm256_set1_pd(factor);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256d v = _mm256_mul_pd(_mm256_sub_pd(load(x + i), m), f);
        if (weight) {
            v = _mm256_mul_pd(v, load(weight + i));
        }
        if (bias) {
            v = _mm256_add_pd(v, load(bias + i));
        }
        _mm_storeu_ps(y + i, _mm256_cvtpd_ps(v));
    }
    for (; i < n; i++) {
        double v = (x[i] - mean) * factor;
        v = weight ? v * weight[i] : v;
        y[i] = (float)(bias ? v + bias[i] : v);
    }
}

void attn_norm_rms_avx2(const float *x, const float *weight, double eps, int64_t n, float *y)
{
    assert(n >= 1);
    double factor = 1.0 / sqrt(sum(x, n, 0.0, false) / (double)n + eps);
    apply(x, weight, NULL, 0.0, factor, n, y);
}

void attn_norm_layer_avx2(const float *x, const float *weight, const float *bias, double eps,
                          int64_t n, float *y)
{
    assert(n >= 1);
    double mean = sum(x, n, 0.0, true) / (double)n;
    double factor = 1.0 / sqrt(sum(x, n, mean, false) / (double)n + eps);
    apply(x, weight, bias, mean, factor, n, y);
}
