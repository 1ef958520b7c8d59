/* kernels/softmax/softmax_c.c: the readable reference. */
#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "kernels/softmax/softmax.h"

/* The largest is subtracted first: no exponential overflows, and the sum is at least 1. NaN shows in the sum. */
static float largest(const float *x, int64_t n)
{
    float most = x[0];
    for (int64_t i = 1; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    return most;
}

static double sum_exp(const float *x, float most, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += expf(x[i] - most);
    }
    return sum;
}

static void forward(const float *x, bool log_form, int64_t n, float *y)
{
    assert(n >= 1);
    float most = largest(x, n);
    double sum = sum_exp(x, most, n);
    float factor = (float)(1.0 / sum), offset = (float)log(sum);
    for (int64_t i = 0; i < n; i++) {
        y[i] = log_form ? x[i] - most - offset : expf(x[i] - most) * factor;
    }
}

static void backward(const float *y, const float *dy, bool log_form, bool accumulate, int64_t n,
                     float *dx)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += log_form ? dy[i] : (double)y[i] * dy[i];
    }
    float total = (float)sum;
    for (int64_t i = 0; i < n; i++) {
        float d = log_form ? dy[i] - expf(y[i]) * total : y[i] * (dy[i] - total);
        dx[i] = accumulate ? dx[i] + d : d;
    }
}

static double cross_entropy(const float *x, int64_t target, double scale, int64_t n, float *dx)
{
    assert(target >= 0 && target < n);
    float most = largest(x, n);
    double sum = sum_exp(x, most, n), loss = log(sum) + ((double)most - (double)x[target]);
    if (dx != NULL) {
        double p = exp(x[target] - (double)most) / sum; /* p − 1 must not cancel further */
        float factor = (float)(scale / sum);
        for (int64_t i = 0; i < n; i++) {
            dx[i] = expf(x[i] - most) * factor;
        }
        dx[target] = (float)(scale * (p - 1.0));
    }
    return loss;
}

const attn_softmax_table attn_softmax_c = {forward, backward, cross_entropy};
