/* kernels/norm/norm_backward_avx2.c: four doubles at a time; the tail goes through zeros. */
#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <stddef.h>

#include "kernels/norm/norm.h"

#define INLINE static inline __attribute__((always_inline))

/* Up to four floats; zeros beyond `left`. */
INLINE __m256d load(const float *p, int64_t left)
{
    if (left >= 4) {
        return _mm256_cvtps_pd(_mm_loadu_ps(p));
    }
    float four[4] = {p[0], left > 1 ? p[1] : 0.0f, left > 2 ? p[2] : 0.0f, 0.0f};
    return _mm256_cvtps_pd(_mm_loadu_ps(four));
}

/* to (+)= value, the first `left` of four */
INLINE void store(float *to, __m256d value, bool add, int64_t left)
{
    value = add ? _mm256_add_pd(load(to, left), value) : value;
    if (left >= 4) {
        _mm_storeu_ps(to, _mm256_cvtpd_ps(value));
        return;
    }
    float four[4];
    _mm_storeu_ps(four, _mm256_cvtpd_ps(value));
    for (int64_t i = 0; i < left; i++) {
        to[i] = four[i];
    }
}

INLINE double total(__m256d v)
{
    double four[4];
    _mm256_storeu_pd(four, v);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

typedef struct sums {
    double squares, g, product;
} sums;

INLINE double mean_of(const float *x, int64_t n)
{
    __m256d a = _mm256_setzero_pd();
    for (int64_t i = 0; i < n; i += 4) {
        a = _mm256_add_pd(a, load(x + i, n - i));
    }
    return total(a) / (double)n;
}

INLINE sums sums_of(const float *x, const float *weight, const float *dy, double mean, int64_t n)
{
    const __m256d m = _mm256_set1_pd(mean);
    __m256d squares = _mm256_setzero_pd(), sum = squares, product = squares;
    sums s = {0.0, 0.0, 0.0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256d v = _mm256_sub_pd(load(x + i, 4), m), g = load(dy + i, 4);
        g = weight ? _mm256_mul_pd(g, load(weight + i, 4)) : g;
        squares = _mm256_fmadd_pd(v, v, squares);
        sum = _mm256_add_pd(sum, g);
        product = _mm256_fmadd_pd(g, v, product);
    }
    for (; i < n; i++) {
        double v = (double)x[i] - mean, g = weight ? (double)dy[i] * (double)weight[i] : dy[i];
        s.squares += v * v;
        s.g += g;
        s.product += g * v;
    }
    return (sums){s.squares + total(squares), s.g + total(sum), s.product + total(product)};
}

void attn_norm_backward_avx2(const attn_norm_gradient *o)
{
    const float *x = o->x, *weight = o->weight, *dy = o->dy;
    float *dx = o->dx, *dweight = o->dweight, *dbias = o->dbias;
    const double n = (double)o->n, mean = o->layer ? mean_of(x, o->n) : 0.0;
    assert(o->n >= 1);
    sums s = sums_of(x, weight, dy, mean, o->n);
    double factor = 1.0 / sqrt(s.squares / n + o->eps);
    const __m256d m = _mm256_set1_pd(mean), f = _mm256_set1_pd(factor);
    const __m256d mean_g = _mm256_set1_pd(o->layer ? s.g / n : 0.0);
    const __m256d slope = _mm256_set1_pd(s.product * factor / n);
    for (int64_t i = 0; i < o->n; i += 4) {
        int64_t left = o->n - i;
        __m256d normal = _mm256_mul_pd(_mm256_sub_pd(load(x + i, left), m), f);
        __m256d d = load(dy + i, left), g = d;
        g = weight ? _mm256_mul_pd(g, load(weight + i, left)) : g;
        if (dweight) {
            store(dweight + i, _mm256_mul_pd(d, normal), true, left);
        }
        if (dbias) {
            store(dbias + i, d, true, left);
        }
        if (dx) {
            g = _mm256_fnmadd_pd(normal, slope, _mm256_sub_pd(g, mean_g));
            store(dx + i, _mm256_mul_pd(f, g), o->accumulate, left);
        }
    }
}
