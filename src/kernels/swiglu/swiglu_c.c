/* kernels/swiglu/swiglu_c.c: the readable reference. */
#include <math.h>

#include "kernels/swiglu/swiglu.h"

void attn_swiglu_f32_c(const float *gate, const float *up, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}
