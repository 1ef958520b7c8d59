/**
 * kernels/activation/activation_lanes.h: the functions of activation_c.c on lanes, in the same forms, and the loops over them.
 * Include in activation_<isa>.c, after lanes_<isa>.h.
 */
#ifndef ATTN_KERNELS_ACTIVATION_ACTIVATION_LANES_H
#define ATTN_KERNELS_ACTIVATION_ACTIVATION_LANES_H

#include "kernels/activation/activation.h"
#include "kernels/common/functions_lanes.h"

static inline lanes relu(lanes x)
{
    return lanes_at_least(0.0f, x);
}

static inline lanes relu_slope(lanes x)
{
    const lanes zero = lanes_set(0.0f);
    lanes left = lanes_select(lanes_less(x, lanes_set(FLT_MIN)), zero, x); /* NaN stays */
    return lanes_select(lanes_less(zero, left), lanes_set(1.0f), left);
}

static inline lanes gelu(lanes x)
{
    lanes a = lanes_abs(lanes_cut(x, 14.0f)), bell;
    return lanes_fnma(a, lanes_lower_tail(a, &bell), relu(x));
}

static inline lanes gelu_slope(lanes x)
{
    lanes a = lanes_abs(lanes_cut(x, 14.0f)), bell;
    lanes tail = lanes_lower_tail(a, &bell);
    lanes left = lanes_fnma(a * lanes_set(0x1.988454p-2f), bell, tail);
    lanes_mask negative = lanes_less(x, lanes_set(0.0f));
    return lanes_select(negative, left, lanes_set(1.0f) - left);
}

static inline lanes gelu_argument(lanes z)
{
    return z * lanes_fma(z * z, lanes_set(0x1.2444f2p-4f), lanes_set(0x1.988454p+0f));
}

static inline lanes gelu_tanh(lanes x)
{
    return lanes_at_least(-13.0f, x) * lanes_sigmoid(gelu_argument(lanes_cut(x, 13.0f)));
}

static inline lanes gelu_tanh_slope(lanes x)
{
    lanes z = lanes_cut(x, 13.0f), other, s = lanes_sigmoids(gelu_argument(z), &other);
    lanes inner = lanes_fma(z * z, lanes_set(0x1.b6676cp-3f), lanes_set(0x1.988454p+0f));
    return lanes_fma(s * (z * other), inner, s);
}

static inline lanes silu(lanes x)
{
    return lanes_at_least(-110.0f, x) * lanes_sigmoid(x);
}

static inline lanes silu_slope(lanes x)
{
    lanes z = lanes_cut(x, 110.0f), other, s = lanes_sigmoids(z, &other);
    return lanes_fma(s * z, other, s);
}

static inline lanes tanh_slope(lanes x)
{
    lanes e = lanes_exp(lanes_abs(x) * lanes_set(-2.0f)), more = e + lanes_set(1.0f);
    return lanes_set(4.0f) * e / (more * more);
}

static inline lanes sigmoid_slope(lanes x)
{
    lanes e = lanes_exp(lanes_set(0.0f) - lanes_abs(x)), more = e + lanes_set(1.0f);
    return e / (more * more);
}

static inline lanes log_slope(lanes x)
{
    lanes_mask tiny = lanes_less(lanes_abs(x), lanes_set(FLT_MIN));
    lanes zero = lanes_sign_of(lanes_set(0.0f), x);
    return lanes_set(1.0f) / lanes_select(tiny, zero, x);
}

typedef lanes lanes_function(lanes x);

static inline __attribute__((always_inline)) void map(lanes_function *f, const float *x, int64_t n,
                                                      float *y)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_store(y + i, f(lanes_load(x + i)));
    }
    if (i < n) {
        lanes_store_some(y + i, n - i, f(lanes_load_some(x + i, n - i, 1.0f)));
    }
}

static inline __attribute__((always_inline)) void map_slope(lanes_function *slope, const float *x,
                                                            const float *dy, bool accumulate,
                                                            int64_t n, float *dx)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes d = slope(lanes_load(x + i)) * lanes_load(dy + i);
        if (accumulate) {
            d = lanes_load(dx + i) + d;
        }
        lanes_store(dx + i, d);
    }
    if (i < n) {
        int64_t left = n - i;
        lanes d = slope(lanes_load_some(x + i, left, 1.0f)) * lanes_load_some(dy + i, left, 0.0f);
        if (accumulate) {
            d = lanes_load_some(dx + i, left, 0.0f) + d;
        }
        lanes_store_some(dx + i, left, d);
    }
}

/* name##_forward and name##_backward: the loops over f and over its slope. */
#define ATTN_ACTIVATION(name, f, slope)                                                      \
    static void name##_forward(const float *x, int64_t n, float *y)                          \
    {                                                                                        \
        map(f, x, n, y);                                                                     \
    }                                                                                        \
    static void name##_backward(const float *x, const float *dy, bool accumulate, int64_t n, \
                                float *dx)                                                   \
    {                                                                                        \
        map_slope(slope, x, dy, accumulate, n, dx);                                          \
    }

ATTN_ACTIVATION(relu, relu, relu_slope)
ATTN_ACTIVATION(gelu, gelu, gelu_slope)
ATTN_ACTIVATION(gelu_tanh, gelu_tanh, gelu_tanh_slope)
ATTN_ACTIVATION(silu, silu, silu_slope)
ATTN_ACTIVATION(tanh, lanes_tanh, tanh_slope)
ATTN_ACTIVATION(sigmoid, lanes_sigmoid, sigmoid_slope)
ATTN_ACTIVATION(exp, lanes_exp_any, lanes_exp_any)
ATTN_ACTIVATION(log, lanes_log, log_slope)

#define ATTN_ACTIVATION_LANES_TABLE                                                      \
    {                                                                                    \
        .forward = {relu_forward, gelu_forward,    gelu_tanh_forward, silu_forward,      \
                    tanh_forward, sigmoid_forward, exp_forward,       log_forward},      \
        .backward = {relu_backward, gelu_backward,    gelu_tanh_backward, silu_backward, \
                     tanh_backward, sigmoid_backward, exp_backward,       log_backward}, \
    }

#endif
