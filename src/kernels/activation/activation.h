/**
 * kernels/activation/activation.h: y[i] = f(x[i]) and dx[i] (+)= f'(x[i])·dy[i], i < n, for the functions of attn/train_ops.h.
 * y may be x; dx may be dy where it does not accumulate. n ≥ 0, no alignment. NaN gives NaN, an infinite x the limit.
 */
#ifndef ATTN_KERNELS_ACTIVATION_ACTIVATION_H
#define ATTN_KERNELS_ACTIVATION_ACTIVATION_H

#include <attn/train_ops.h>

enum { ATTN_ACTIVATIONS = 8 };

typedef void attn_activation_fn(const float *x, int64_t n, float *y);
typedef void attn_activation_backward_fn(const float *x, const float *dy, bool accumulate,
                                         int64_t n, float *dx);

/** Indexed by attn_activation. */
typedef struct attn_activation_table {
    attn_activation_fn *forward[ATTN_ACTIVATIONS];
    attn_activation_backward_fn *backward[ATTN_ACTIVATIONS];
} attn_activation_table;

/** The best kernels for a level; C for levels it does not know. Never NULL. */
const attn_activation_table *attn_activation_table_for(attn_isa isa);

extern const attn_activation_table attn_activation_c, attn_activation_avx2, attn_activation_avx512;

/** The same in f64, plain loops. */
void attn_activation_f64_c(attn_activation kind, const double *x, int64_t n, double *y);
void attn_activation_backward_f64_c(attn_activation kind, const double *x, const double *dy,
                                    bool accumulate, int64_t n, double *dx);

#endif
