/**
 * kernels/vector/vector.h: plain arithmetic on n ≥ 0 elements, no alignment.
 */
#ifndef ATTN_KERNELS_VECTOR_VECTOR_H
#define ATTN_KERNELS_VECTOR_VECTOR_H

#include <attn/context.h>

typedef struct attn_vector_table {
    /** y = a·x + b·y, y not read where b = 0; x may be y. */
    void (*axpby)(float a, const float *x, float b, int64_t n, float *y);
    /** Σ x², every square and sum in f64. */
    double (*sum_squares)(const float *x, int64_t n);
} attn_vector_table;

/** The best kernels for a level; C for levels it does not know. Never NULL. */
const attn_vector_table *attn_vector_table_for(attn_isa isa);

extern const attn_vector_table attn_vector_c, attn_vector_avx2, attn_vector_avx512;

/** The same in f64. */
void attn_vector_axpby_f64_c(double a, const double *x, double b, int64_t n, double *y);
double attn_vector_sum_squares_f64_c(const double *x, int64_t n);

#endif
