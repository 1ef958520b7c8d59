/* kernels/rope/rope_c.c: the readable reference. */
#include <math.h>

#include "kernels/rope/rope.h"

void attn_rope_angles_c(const double *frequency, double position, int64_t pairs, float *cosine,
                        float *sine)
{
    for (int64_t i = 0; i < pairs; i++) {
        double angle = position * frequency[i];
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
}

void attn_rope_interleaved_c(float *x, const float *cosine, const float *sine, int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosine[i] - b * sine[i];
        x[2 * i + 1] = b * cosine[i] + a * sine[i];
    }
}

void attn_rope_halves_c(float *low, float *high, const float *cosine, const float *sine,
                        int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i++) {
        float a = low[i], b = high[i];
        low[i] = a * cosine[i] - b * sine[i];
        high[i] = b * cosine[i] + a * sine[i];
    }
}
