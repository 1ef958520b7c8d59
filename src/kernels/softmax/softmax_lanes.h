/**
 * kernels/softmax/softmax_lanes.h: softmax, its gradient and cross-entropy on lanes. Include in softmax_<isa>.c, after lanes_<isa>.h.
 *
 * Sums: RUN vectors one after the other in f32, then f64, so that long rows lose nothing and the conversion costs little.
 */
#ifndef ATTN_KERNELS_SOFTMAX_SOFTMAX_LANES_H
#define ATTN_KERNELS_SOFTMAX_SOFTMAX_LANES_H

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "kernels/softmax/softmax.h"

enum { RUN = 4 };

static inline float largest(const float *x, int64_t n)
{
    lanes a = lanes_set(-INFINITY), b = a;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        a = lanes_max(a, lanes_load(x + i));
        b = lanes_max(b, lanes_load(x + i + LANES));
    }
    for (; i + LANES <= n; i += LANES) {
        a = lanes_max(a, lanes_load(x + i));
    }
    if (i < n) {
        b = lanes_max(b, lanes_load_some(x + i, n - i, -INFINITY));
    }
    return lanes_largest(lanes_max(a, b));
}

/* Σ e^(x − most), and the terms themselves into y unless NULL */
static inline __attribute__((always_inline)) double sum_exp(const float *x, float most, int64_t n,
                                                            float *y)
{
    lanes_sums sums = lanes_sums_zero();
    const lanes offset = lanes_set(most);
    int64_t i = 0;
    while (i + LANES <= n) {
        lanes part = lanes_set(0.0f);
        for (int k = 0; k < RUN && i + LANES <= n; k++, i += LANES) {
            lanes e = lanes_exp(lanes_load(x + i) - offset);
            if (y != NULL) {
                lanes_store(y + i, e);
            }
            part = part + e;
        }
        lanes_sums_add(&sums, part);
    }
    if (i < n) {
        lanes e = lanes_exp(lanes_load_some(x + i, n - i, -INFINITY) - offset);
        if (y != NULL) {
            lanes_store_some(y + i, n - i, e);
        }
        lanes_sums_add(&sums, e);
    }
    return lanes_sums_total(&sums);
}

static inline void multiply(float factor, int64_t n, float *y)
{
    const lanes f = lanes_set(factor);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_store(y + i, lanes_load(y + i) * f);
    }
    if (i < n) {
        lanes_store_some(y + i, n - i, lanes_load_some(y + i, n - i, 0.0f) * f);
    }
}

static void forward(const float *x, bool log_form, int64_t n, float *y)
{
    assert(n >= 1);
    float most = largest(x, n);
    if (!log_form) {
        multiply((float)(1.0 / sum_exp(x, most, n, y)), n, y);
        return;
    }
    const lanes offset = lanes_set(most);
    const lanes rest = lanes_set((float)log(sum_exp(x, most, n, NULL)));
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_store(y + i, lanes_load(x + i) - offset - rest);
    }
    if (i < n) {
        lanes_store_some(y + i, n - i, lanes_load_some(x + i, n - i, 0.0f) - offset - rest);
    }
}

/* Σ y·dy, or Σ dy with `log_form` */
static inline __attribute__((always_inline)) double sum_products(const float *y, const float *dy,
                                                                 bool log_form, int64_t n)
{
    lanes_sums sums = lanes_sums_zero();
    const lanes one = lanes_set(1.0f);
    int64_t i = 0;
    while (i + LANES <= n) {
        lanes part = lanes_set(0.0f);
        for (int k = 0; k < RUN && i + LANES <= n; k++, i += LANES) {
            part = lanes_fma(log_form ? one : lanes_load(y + i), lanes_load(dy + i), part);
        }
        lanes_sums_add(&sums, part);
    }
    if (i < n) {
        lanes last = lanes_load_some(dy + i, n - i, 0.0f);
        lanes weight = log_form ? one : lanes_load_some(y + i, n - i, 0.0f);
        lanes_sums_add(&sums, weight * last);
    }
    return lanes_sums_total(&sums);
}

static inline lanes gradient(lanes y, lanes dy, lanes sum, bool log_form)
{
    if (log_form) {
        return lanes_fnma(lanes_exp(y), sum, dy);
    }
    return y * (dy - sum);
}

static inline __attribute__((always_inline)) void
backward_form(const float *y, const float *dy, bool log_form, bool accumulate, int64_t n, float *dx)
{
    const lanes sum = lanes_set((float)sum_products(y, dy, log_form, n));
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes d = gradient(lanes_load(y + i), lanes_load(dy + i), sum, log_form);
        if (accumulate) {
            d = lanes_load(dx + i) + d;
        }
        lanes_store(dx + i, d);
    }
    if (i < n) {
        int64_t left = n - i;
        lanes d = gradient(lanes_load_some(y + i, left, 0.0f), lanes_load_some(dy + i, left, 0.0f),
                           sum, log_form);
        if (accumulate) {
            d = lanes_load_some(dx + i, left, 0.0f) + d;
        }
        lanes_store_some(dx + i, left, d);
    }
}

static void backward(const float *y, const float *dy, bool log_form, bool accumulate, int64_t n,
                     float *dx)
{
    if (log_form) {
        backward_form(y, dy, true, accumulate, n, dx);
    } else {
        backward_form(y, dy, false, accumulate, n, dx);
    }
}

static double cross_entropy(const float *x, int64_t target, double scale, int64_t n, float *dx)
{
    assert(target >= 0 && target < n);
    double most = (double)largest(x, n), chosen = (double)x[target];
    if (dx == NULL) {
        return log(sum_exp(x, (float)most, n, NULL)) + (most - chosen);
    }
    double sum = sum_exp(x, (float)most, n, dx);
    multiply((float)(scale / sum), n, dx);
    dx[target] = (float)(scale * (exp(chosen - most) / sum - 1.0));
    return log(sum) + (most - chosen);
}

#endif
