/* kernels/activation/activation_f64_c.c: the functions of activation_c.c in f64, for checking gradients. */
#include <math.h>

#include "kernels/activation/activation.h"

static double cut(double x, double most)
{
    return x < -most ? -most : x > most ? most : x;
}

static double lower_tail(double a)
{
    return 0.5 * erfc(a * 0.70710678118654752440);
}

static double sigmoid(double x)
{
    double e = exp(-fabs(x));
    return (x < 0.0 ? e : 1.0) / (1.0 + e);
}

/* 2·√(2/π) and 0.044715 times it */
static const double gelu_first = 1.5957691216057307117, gelu_third = 0.071354816272602248774;

static double gelu_argument(double z)
{
    return z * (gelu_first + gelu_third * z * z);
}

static double value(attn_activation kind, double x)
{
    switch (kind) {
    case ATTN_ACT_RELU: return x < 0.0 ? 0.0 : x;
    case ATTN_ACT_GELU: {
        double a = fabs(cut(x, 40.0));
        return (x < 0.0 ? 0.0 : x) - a * lower_tail(a);
    }
    case ATTN_ACT_GELU_TANH: return (x < -25.0 ? -25.0 : x) * sigmoid(gelu_argument(cut(x, 25.0)));
    case ATTN_ACT_SILU: return (x < -800.0 ? -800.0 : x) * sigmoid(x);
    case ATTN_ACT_TANH: return tanh(x);
    case ATTN_ACT_SIGMOID: return sigmoid(x);
    case ATTN_ACT_EXP: return exp(x);
    case ATTN_ACT_LOG: return log(x);
    }
    return NAN;
}

static double slope(attn_activation kind, double x)
{
    switch (kind) {
    case ATTN_ACT_RELU: return x > 0.0 ? 1.0 : x <= 0.0 ? 0.0 : x;
    case ATTN_ACT_GELU: {
        double a = fabs(cut(x, 40.0));
        double left = lower_tail(a) - a * (0.39894228040143267794 * exp(-0.5 * a * a));
        return x < 0.0 ? left : 1.0 - left;
    }
    case ATTN_ACT_GELU_TANH: {
        double z = cut(x, 25.0), u = gelu_argument(z);
        return sigmoid(u) * (1.0 + z * sigmoid(-u) * (gelu_first + 3.0 * gelu_third * z * z));
    }
    case ATTN_ACT_SILU: {
        double z = cut(x, 800.0);
        return sigmoid(z) * (1.0 + z * sigmoid(-z));
    }
    case ATTN_ACT_TANH: {
        double e = exp(-2.0 * fabs(x));
        return 4.0 * e / ((1.0 + e) * (1.0 + e));
    }
    case ATTN_ACT_SIGMOID: return sigmoid(x) * sigmoid(-x);
    case ATTN_ACT_EXP: return exp(x);
    case ATTN_ACT_LOG: return 1.0 / x;
    }
    return NAN;
}

void attn_activation_f64_c(attn_activation kind, const double *x, int64_t n, double *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = value(kind, x[i]);
    }
}

void attn_activation_backward_f64_c(attn_activation kind, const double *x, const double *dy,
                                    bool accumulate, int64_t n, double *dx)
{
    for (int64_t i = 0; i < n; i++) {
        double d = slope(kind, x[i]) * dy[i];
        dx[i] = accumulate ? dx[i] + d : d;
    }
}
