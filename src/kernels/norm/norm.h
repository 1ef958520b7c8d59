/**
 * kernels/norm/norm.h: normalisation of one row of n ≥ 1 floats. y may be x; weight (and bias) may be NULL.
 *
 * rms     y = x·(1/√(Σx²/n + eps))·weight                  (Zhang & Sennrich 2019)
 * layer   y = (x − mean)·(1/√(var + eps))·weight + bias    (Ba et al. 2016; var = Σ(x − mean)²/n)
 *
 * backward: with x̂ = (x − mean)·factor (rms: mean 0) and g = dy·weight
 *           dx (+)= factor·(g − [layer: mean(g)] − x̂·mean(g·x̂)), dweight += dy·x̂, dbias += dy
 *
 * Sums run in double, so that rows of 1e30 neither overflow nor lose their mean.
 */
#ifndef ATTN_KERNELS_NORM_NORM_H
#define ATTN_KERNELS_NORM_NORM_H

#include <attn/context.h>

typedef void attn_rms_fn(const float *x, const float *weight, double eps, int64_t n, float *y);
typedef void attn_layer_fn(const float *x, const float *weight, const float *bias, double eps,
                           int64_t n, float *y);

/** The gradient of one row. Floats; of attn_norm_backward_f64_c doubles. */
typedef struct attn_norm_gradient {
    const void *x, *weight, *dy; /* weight NULL: ones */
    void *dx;                    /* NULL: not wanted; may be dy */
    void *dweight, *dbias;       /* sums the row is added to; NULL: not wanted */
    double eps;
    int64_t n;
    bool layer;      /* else rms */
    bool accumulate; /* dx is added to */
} attn_norm_gradient;

typedef void attn_norm_backward_fn(const attn_norm_gradient *g);

typedef struct attn_norm_table {
    attn_isa isa;
    attn_rms_fn *rms;
    attn_layer_fn *layer;
    attn_norm_backward_fn *backward;
} attn_norm_table;

/** The best table for a level; its C table for levels it does not know. Never NULL. */
const attn_norm_table *attn_norm_table_for(attn_isa isa);

attn_rms_fn attn_norm_rms_c, attn_norm_rms_avx2, attn_norm_rms_avx512;
attn_layer_fn attn_norm_layer_c, attn_norm_layer_avx2, attn_norm_layer_avx512;
attn_norm_backward_fn attn_norm_backward_c, attn_norm_backward_avx2, attn_norm_backward_avx512,
    attn_norm_backward_f64_c;

#endif
