/**
 * kernels/common/functions_lanes.h: tanh, log, sigmoid and the normal distribution's tail on lanes. Include after lanes_<isa>.h.
 *
 * Polynomials and the quotient are weighted minimax fits; the error beside each is the fit's, to which rounding adds 2 to 4 half ulps.
 */
#ifndef ATTN_KERNELS_COMMON_FUNCTIONS_LANES_H
#define ATTN_KERNELS_COMMON_FUNCTIONS_LANES_H

#include <float.h>
#include <math.h>

/* x cut to −most … most; NaN stays. */
static inline lanes lanes_cut(lanes x, float most)
{
    return lanes_at_most(most, lanes_at_least(-most, x));
}

/* eˣ for every x. Above 80, where 2ⁿ alone may leave the range, e·e^(x−1): the difference is exact there. */
static inline lanes lanes_exp_any(lanes x)
{
    lanes z = lanes_at_most(89.0f, x);
    lanes_mask high = lanes_less(lanes_set(80.0f), z);
    lanes e = lanes_exp(lanes_select(high, z - lanes_set(1.0f), z));
    return lanes_select(high, e * lanes_set(0x1.5bf0a8p+1f), e);
}

/* ln x: x = 2^e·(1 + f), ln(1 + f) = f − f²/2 + f³·P(f) (5.8e-9). Subnormals count as 0: −∞. */
static inline lanes lanes_log(lanes x)
{
    lanes e, f = lanes_split(x, &e) - lanes_set(1.0f), square = f * f;
    lanes p = lanes_set(-0x1.38b576p-4f);
    p = lanes_fma(p, f, lanes_set(0x1.055b68p-3f));
    p = lanes_fma(p, f, lanes_set(-0x1.0d8542p-3f));
    p = lanes_fma(p, f, lanes_set(0x1.22da1ep-3f));
    p = lanes_fma(p, f, lanes_set(-0x1.547244p-3f));
    p = lanes_fma(p, f, lanes_set(0x1.99a008p-3f));
    p = lanes_fma(p, f, lanes_set(-0x1.000226p-2f));
    p = lanes_fma(p, f, lanes_set(0x1.555554p-2f));
    /* The first part of ln 2 has 15 bits, so that e times it is exact. */
    lanes tail =
        lanes_fma(e, lanes_set(0x1.7f7d1cp-20f), square * lanes_fma(p, f, lanes_set(-0.5f)));
    lanes y = lanes_fma(e, lanes_set(0x1.62e4p-1f), f + tail);
    lanes size = lanes_abs(x);
    y = lanes_select(lanes_less(size, lanes_set(INFINITY)), y, x); /* +∞ and NaN */
    y = lanes_select(lanes_less(x, lanes_set(0.0f)), lanes_set(NAN), y);
    return lanes_select(lanes_less(size, lanes_set(FLT_MIN)), lanes_set(-INFINITY), y);
}

/* tanh: x + x³·P(x²) below 0.625 (4.4e-9), else (1 − e)/(1 + e) with e = e^(−2|x|), which is 0 soon. */
static inline lanes lanes_tanh(lanes x)
{
    const lanes one = lanes_set(1.0f);
    lanes size = lanes_abs(x), square = x * x;
    lanes p = lanes_set(-0x1.75e1cep-8f);
    p = lanes_fma(p, square, lanes_set(0x1.52269cp-6f));
    p = lanes_fma(p, square, lanes_set(-0x1.b83c5ap-5f));
    p = lanes_fma(p, square, lanes_set(0x1.110726p-3f));
    p = lanes_fma(p, square, lanes_set(-0x1.555532p-2f));
    lanes low = lanes_fma(p * square, x, x);
    lanes e = lanes_exp(size * lanes_set(-2.0f));
    lanes high = lanes_sign_of((one - e) / (one + e), x);
    return lanes_select(lanes_less(size, lanes_set(0.625f)), low, high);
}

/* σ(x) = 1/(1 + e^−x), from e^−|x| ≤ 1 */
static inline lanes lanes_sigmoid(lanes x)
{
    const lanes one = lanes_set(1.0f);
    lanes e = lanes_exp(lanes_set(0.0f) - lanes_abs(x));
    return lanes_select(lanes_less(x, lanes_set(0.0f)), e, one) / (one + e);
}

/* σ(x), and σ(−x) without cancellation */
static inline lanes lanes_sigmoids(lanes x, lanes *other)
{
    const lanes one = lanes_set(1.0f);
    lanes e = lanes_exp(lanes_set(0.0f) - lanes_abs(x));
    lanes more = one / (one + e), less = e * more;
    lanes_mask negative = lanes_less(x, lanes_set(0.0f));
    *other = lanes_select(negative, more, less);
    return lanes_select(negative, less, more);
}

/*
 * Φ(−a) for 0 ≤ a ≤ 14: e^(−a²/2) times a quotient of degrees 3 and 4 (1.7e-8 up to 2, 1.7e-8·e^(a²/8) beyond, where Φ is small).
 * *bell = e^(−a²/2).
 */
static inline lanes lanes_lower_tail(lanes a, lanes *bell)
{
    lanes n = lanes_set(0x1.924758p-7f);
    n = lanes_fma(n, a, lanes_set(0x1.91fd9cp-4f));
    n = lanes_fma(n, a, lanes_set(0x1.4a1440p-2f));
    n = lanes_fma(n, a, lanes_set(0x1p-1f));
    lanes d = lanes_set(0x1.f8b8bcp-6f);
    d = lanes_fma(d, a, lanes_set(0x1.f6376cp-3f));
    d = lanes_fma(d, a, lanes_set(0x1.b1d16ep-1f));
    d = lanes_fma(d, a, lanes_set(0x1.714c36p+0f));
    d = lanes_fma(d, a, lanes_set(1.0f));
    *bell = lanes_exp(lanes_set(-0.5f) * a * a);
    return *bell * (n / d);
}

#endif
