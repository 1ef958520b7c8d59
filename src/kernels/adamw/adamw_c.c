/* kernels/adamw/adamw_c.c: the readable reference, and f64. */
#include <math.h>

#include "kernels/adamw/adamw.h"

static void step(const attn_adamw_factors *f, const float *g, int64_t n, float *p, float *m,
                 float *v)
{
    float scale = (float)f->grad_scale, beta1 = (float)f->beta1, rest1 = (float)f->rest1;
    float beta2 = (float)f->beta2, rest2 = (float)f->rest2, decay = (float)f->decay;
    float rate = (float)f->rate, correct2 = (float)f->correct2, eps = (float)f->eps;
    for (int64_t i = 0; i < n; i++) {
        float slope = scale * g[i];
        m[i] = beta1 * m[i] + rest1 * slope;
        v[i] = beta2 * v[i] + rest2 * slope * slope;
        p[i] -= decay * p[i] + rate * m[i] / (sqrtf(v[i] * correct2) + eps);
    }
}

const attn_adamw_table attn_adamw_c = {step};

void attn_adamw_f64_c(const attn_adamw_factors *f, const double *g, int64_t n, double *p, double *m,
                      double *v)
{
    for (int64_t i = 0; i < n; i++) {
        double slope = f->grad_scale * g[i];
        m[i] = f->beta1 * m[i] + f->rest1 * slope;
        v[i] = f->beta2 * v[i] + f->rest2 * slope * slope;
        p[i] -= f->decay * p[i] + f->rate * m[i] / (sqrt(v[i] * f->correct2) + f->eps);
    }
}
