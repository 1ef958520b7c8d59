/* kernels/swiglu/swiglu_c.c: the readable reference. */
#include <math.h>

#include "kernels/swiglu/swiglu.h"

void attn_swiglu_f32_c(const float *gate, const float *up, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

void attn_swiglu_backward_f32_c(const float *gate, const float *up, const float *dy, int64_t n,
                                float *dgate, float *dup)
{
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i], u = up[i], d = dy[i];
        float sigma = 1.0f / (1.0f + expf(-g));
        dgate[i] = d * u * (sigma * (1.0f + g * (1.0f - sigma)));
        dup[i] = d * (g / (1.0f + expf(-g)));
    }
}
