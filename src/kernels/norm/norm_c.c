/* kernels/norm/norm_c.c: the readable reference. */
#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "kernels/norm/norm.h"

void attn_norm_rms_c(const float *x, const float *weight, double eps, int64_t n, float *y)
{
    assert(n >= 1);
    double squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        squares += (double)x[i] * x[i];
    }
    double factor = 1.0 / sqrt(squares / (double)n + eps);
    for (int64_t i = 0; i < n; i++) {
        double scaled = x[i] * factor;
        y[i] = (float)(weight ? scaled * weight[i] : scaled);
    }
}

void attn_norm_layer_c(const float *x, const float *weight, const float *bias, double eps,
                       int64_t n, float *y)
{
    assert(n >= 1);
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
    }
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) {
        squares += (x[i] - mean) * (x[i] - mean);
    }
    double factor = 1.0 / sqrt(squares / (double)n + eps);
    for (int64_t i = 0; i < n; i++) {
        double scaled = (x[i] - mean) * factor;
        scaled = weight ? scaled * weight[i] : scaled;
        y[i] = (float)(bias ? scaled + bias[i] : scaled);
    }
}
