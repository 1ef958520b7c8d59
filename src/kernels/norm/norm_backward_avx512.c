/* kernels/norm/norm_backward_avx512.c: eight doubles at a time; the tail is a mask. */
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

/* to (+)= value */
INLINE void store(float *to, __m512d value, bool add, __mmask8 mask)
{
    value = add ? _mm512_add_pd(load(to, mask), value) : value;
    _mm256_mask_storeu_ps(to, mask, _mm512_cvtpd_ps(value));
}

typedef struct sums {
    double squares, g, product;
} sums;

INLINE double mean_of(const float *x, int64_t n)
{
    __m512d a = _mm512_setzero_pd();
    for (int64_t i = 0; i < n; i += 8) {
        a = _mm512_add_pd(a, load(x + i, lanes(n - i)));
    }
    return _mm512_reduce_add_pd(a) / (double)n;
}

INLINE sums sums_of(const float *x, const float *weight, const float *dy, double mean, int64_t n)
{
    const __m512d m = _mm512_set1_pd(mean);
    __m512d squares = _mm512_setzero_pd(), sum = squares, product = squares;
    for (int64_t i = 0; i < n; i += 8) {
        __mmask8 mask = lanes(n - i);
        __m512d v = _mm512_maskz_sub_pd(mask, load(x + i, mask), m), g = load(dy + i, mask);
        g = weight ? _mm512_mul_pd(g, load(weight + i, mask)) : g;
        squares = _mm512_fmadd_pd(v, v, squares);
        sum = _mm512_add_pd(sum, g);
        product = _mm512_fmadd_pd(g, v, product);
    }
    return (sums){_mm512_reduce_add_pd(squares), _mm512_reduce_add_pd(sum),
                  _mm512_reduce_add_pd(product)};
}

void attn_norm_backward_avx512(const attn_norm_gradient *o)
{
    const float *x = o->x, *weight = o->weight, *dy = o->dy;
    float *dx = o->dx, *dweight = o->dweight, *dbias = o->dbias;
    const double n = (double)o->n, mean = o->layer ? mean_of(x, o->n) : 0.0;
    assert(o->n >= 1);
    sums s = sums_of(x, weight, dy, mean, o->n);
    double factor = 1.0 / sqrt(s.squares / n + o->eps);
    const __m512d m = _mm512_set1_pd(mean), f = _mm512_set1_pd(factor);
    const __m512d mean_g = _mm512_set1_pd(o->layer ? s.g / n : 0.0);
    const __m512d slope = _mm512_set1_pd(s.product * factor / n);
    for (int64_t i = 0; i < o->n; i += 8) {
        __mmask8 mask = lanes(o->n - i);
        __m512d normal = _mm512_mul_pd(_mm512_sub_pd(load(x + i, mask), m), f);
        __m512d d = load(dy + i, mask), g = d;
        g = weight ? _mm512_mul_pd(g, load(weight + i, mask)) : g;
        if (dweight) {
            store(dweight + i, _mm512_mul_pd(d, normal), true, mask);
        }
        if (dbias) {
            store(dbias + i, d, true, mask);
        }
        if (dx) {
            g = _mm512_fnmadd_pd(normal, slope, _mm512_sub_pd(g, mean_g));
            store(dx + i, _mm512_mul_pd(f, g), o->accumulate, mask);
        }
    }
}
