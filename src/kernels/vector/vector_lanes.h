/**
 * kernels/vector/vector_lanes.h: vector_c.c on lanes. Include in vector_<isa>.c, after lanes_<isa>.h.
 */
#ifndef ATTN_KERNELS_VECTOR_VECTOR_LANES_H
#define ATTN_KERNELS_VECTOR_VECTOR_LANES_H

#include "kernels/vector/vector.h"

static void scale(float a, const float *x, int64_t n, float *y)
{
    const lanes factor = lanes_set(a);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_store(y + i, factor * lanes_load(x + i));
    }
    if (i < n) {
        lanes_store_some(y + i, n - i, factor * lanes_load_some(x + i, n - i, 0.0f));
    }
}

static void axpby(float a, const float *x, float b, int64_t n, float *y)
{
    if (b == 0.0f) {
        scale(a, x, n, y);
        return;
    }
    const lanes fx = lanes_set(a), fy = lanes_set(b);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_store(y + i, lanes_fma(fx, lanes_load(x + i), fy * lanes_load(y + i)));
    }
    if (i < n) {
        int64_t left = n - i;
        lanes old = lanes_load_some(y + i, left, 0.0f);
        lanes_store_some(y + i, left, lanes_fma(fx, lanes_load_some(x + i, left, 0.0f), fy * old));
    }
}

static double sum_squares(const float *x, int64_t n)
{
    lanes_sums a = lanes_sums_zero(), b = a;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        lanes_sums_add_square(&a, lanes_load(x + i));
        lanes_sums_add_square(&b, lanes_load(x + i + LANES));
    }
    for (; i < n; i += LANES) {
        lanes last = n - i < LANES ? lanes_load_some(x + i, n - i, 0.0f) : lanes_load(x + i);
        lanes_sums_add_square(&a, last);
    }
    return lanes_sums_total(&a) + lanes_sums_total(&b);
}

#endif
