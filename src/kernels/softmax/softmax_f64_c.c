/* kernels/softmax/softmax_f64_c.c: softmax_c.c in f64, for checking gradients. */
#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "kernels/softmax/softmax.h"

static double largest(const double *x, int64_t n)
{
    double most = x[0];
    for (int64_t i = 1; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    return most;
}

static double sum_exp(const double *x, double most, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += exp(x[i] - most);
    }
    return sum;
}

void attn_softmax_f64_c(const double *x, bool log_form, int64_t n, double *y)
{
    assert(n >= 1);
    double most = largest(x, n), sum = sum_exp(x, most, n), offset = log(sum);
    for (int64_t i = 0; i < n; i++) {
        y[i] = log_form ? x[i] - most - offset : exp(x[i] - most) / sum;
    }
}

void attn_softmax_backward_f64_c(const double *y, const double *dy, bool log_form, bool accumulate,
                                 int64_t n, double *dx)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += log_form ? dy[i] : y[i] * dy[i];
    }
    for (int64_t i = 0; i < n; i++) {
        double d = log_form ? dy[i] - exp(y[i]) * sum : y[i] * (dy[i] - sum);
        dx[i] = accumulate ? dx[i] + d : d;
    }
}

double attn_softmax_cross_entropy_f64_c(const double *x, int64_t target, double scale, int64_t n,
                                        double *dx)
{
    assert(target >= 0 && target < n);
    double most = largest(x, n), sum = sum_exp(x, most, n), loss = log(sum) + (most - x[target]);
    for (int64_t i = 0; dx != NULL && i < n; i++) {
        dx[i] = scale * (exp(x[i] - most) / sum - (i == target ? 1.0 : 0.0));
    }
    return loss;
}
