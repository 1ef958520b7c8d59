/*
 * kernels/activation/activation_c.c: the readable reference. Every function is one of a float with its slope below it; the loops are at
 * the end. The forms are those that neither overflow nor cancel: exponentials of −|x| only, and e^−|x|/(1 + e^−|x|) for
 * what is left of 1 beside a sigmoid.
 */
#include <float.h>
#include <math.h>

#include "kernels/activation/activation.h"

/* x cut to −most … most, beyond which a slope is at its limit; NaN stays. */
static float cut(float x, float most)
{
    return x < -most ? -most : x > most ? most : x;
}

static float relu(float x)
{
    return x < 0.0f ? 0.0f : x;
}

static float relu_slope(float x)
{
    return x >= FLT_MIN ? 1.0f : x < FLT_MIN ? 0.0f : x; /* subnormals count as 0 */
}

/* Φ(−a), a ≥ 0 */
static float lower_tail(float a)
{
    return 0.5f * erfcf(a * 0.70710678f);
}

/* x·Φ(x) = max(x, 0) − |x|·Φ(−|x|) */
static float gelu(float x)
{
    float a = fabsf(cut(x, 14.0f));
    return relu(x) - a * lower_tail(a);
}

/* Φ(x) + x·φ(x); what it is for −|x| and for |x| adds up to 1 */
static float gelu_slope(float x)
{
    float a = fabsf(cut(x, 14.0f));
    float left = lower_tail(a) - a * (0.39894228f * expf(-0.5f * a * a));
    return x < 0.0f ? left : 1.0f - left;
}

static float sigmoid(float x)
{
    float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* σ(x)·σ(−x) */
static float sigmoid_slope(float x)
{
    float e = expf(-fabsf(x));
    return e / ((1.0f + e) * (1.0f + e));
}

/* The cut keeps −∞ from meeting σ = 0. */
static float silu(float x)
{
    return (x < -110.0f ? -110.0f : x) * sigmoid(x);
}

static float silu_slope(float x)
{
    float z = cut(x, 110.0f);
    return sigmoid(z) * (1.0f + z * sigmoid(-z));
}

/* 2·√(2/π)·(z + 0.044715·z³): (1 + tanh(u))/2 is σ(2u) */
static float gelu_argument(float z)
{
    return z * (1.5957691f + 0.071354814f * z * z);
}

static float gelu_tanh(float x)
{
    return (x < -13.0f ? -13.0f : x) * sigmoid(gelu_argument(cut(x, 13.0f)));
}

static float gelu_tanh_slope(float x)
{
    float z = cut(x, 13.0f), u = gelu_argument(z);
    return sigmoid(u) * (1.0f + z * sigmoid(-u) * (1.5957691f + 0.21406444f * z * z));
}

static float tanh_slope(float x)
{
    float e = expf(-2.0f * fabsf(x));
    return 4.0f * e / ((1.0f + e) * (1.0f + e));
}

static float logarithm(float x)
{
    return logf(fabsf(x) < FLT_MIN ? 0.0f : x);
}

static float log_slope(float x)
{
    return 1.0f / (fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x);
}

/* The loops over f and over its slope. */
#define ATTN_ACTIVATION(name, f, slope)                                                      \
    static void name##_forward(const float *x, int64_t n, float *y)                          \
    {                                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                    \
            y[i] = f(x[i]);                                                                  \
        }                                                                                    \
    }                                                                                        \
    static void name##_backward(const float *x, const float *dy, bool accumulate, int64_t n, \
                                float *dx)                                                   \
    {                                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                    \
            float d = slope(x[i]) * dy[i];                                                   \
            dx[i] = accumulate ? dx[i] + d : d;                                              \
        }                                                                                    \
    }

ATTN_ACTIVATION(relu, relu, relu_slope)
ATTN_ACTIVATION(gelu, gelu, gelu_slope)
ATTN_ACTIVATION(gelu_tanh, gelu_tanh, gelu_tanh_slope)
ATTN_ACTIVATION(silu, silu, silu_slope)
ATTN_ACTIVATION(tanh, tanhf, tanh_slope)
ATTN_ACTIVATION(sigmoid, sigmoid, sigmoid_slope)
ATTN_ACTIVATION(exp, expf, expf)
ATTN_ACTIVATION(log, logarithm, log_slope)

const attn_activation_table attn_activation_c = {
    .forward = {relu_forward, gelu_forward, gelu_tanh_forward, silu_forward, tanh_forward,
                sigmoid_forward, exp_forward, log_forward},
    .backward = {relu_backward, gelu_backward, gelu_tanh_backward, silu_backward, tanh_backward,
                 sigmoid_backward, exp_backward, log_backward},
};
