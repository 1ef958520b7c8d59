/**
 * kernels/softmax/softmax.h: softmax over one row of n ≥ 1 numbers, its gradient, and the cross-entropy of a row.
 * No alignment. −∞ weighs 0; a row with +∞ or NaN, or of −∞ alone, gives NaN. Sums are of short runs in f32, the runs in f64.
 */
#ifndef ATTN_KERNELS_SOFTMAX_SOFTMAX_H
#define ATTN_KERNELS_SOFTMAX_SOFTMAX_H

#include <attn/context.h>

typedef struct attn_softmax_table {
    /** y = e^(x − max)/Σ e^(x − max), or its logarithm; y may be x. */
    void (*forward)(const float *x, bool log, int64_t n, float *y);
    /** dx (+)= y∘(dy − Σ y∘dy); log: dx (+)= dy − e^y·Σ dy. dx may be dy or y where it does not accumulate. */
    void (*backward)(const float *y, const float *dy, bool log, bool accumulate, int64_t n,
                     float *dx);
    /** Returns −ln softmax(x)[target]; dx = scale·(softmax(x) − onehot(target)) unless NULL; dx may be x. 0 ≤ target < n. */
    double (*cross_entropy)(const float *x, int64_t target, double scale, int64_t n, float *dx);
} attn_softmax_table;

/** The best kernels for a level; C for levels it does not know. Never NULL. */
const attn_softmax_table *attn_softmax_table_for(attn_isa isa);

extern const attn_softmax_table attn_softmax_c, attn_softmax_avx2, attn_softmax_avx512;

/** The same in f64, plain loops. */
void attn_softmax_f64_c(const double *x, bool log, int64_t n, double *y);
void attn_softmax_backward_f64_c(const double *y, const double *dy, bool log, bool accumulate,
                                 int64_t n, double *dx);
double attn_softmax_cross_entropy_f64_c(const double *x, int64_t target, double scale, int64_t n,
                                        double *dx);

#endif
