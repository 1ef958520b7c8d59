/* kernels/vector/vector_c.c: the readable reference, and f64. */
#include "kernels/vector/vector.h"

static void axpby(float a, const float *x, float b, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = b == 0.0f ? a * x[i] : a * x[i] + b * y[i];
    }
}

static double sum_squares(const float *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * x[i];
    }
    return sum;
}

const attn_vector_table attn_vector_c = {axpby, sum_squares};

void attn_vector_axpby_f64_c(double a, const double *x, double b, int64_t n, double *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = b == 0.0 ? a * x[i] : a * x[i] + b * y[i];
    }
}

double attn_vector_sum_squares_f64_c(const double *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    return sum;
}
