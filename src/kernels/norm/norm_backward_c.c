/* kernels/norm/norm_backward_c.c: the readable reference, in f32 and in f64. */
#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "kernels/norm/norm.h"

/*
 * 1. the mean; 2. Σ(x − mean)², Σg and Σg·(x − mean), from which factor and both means of the formula follow;
 * 3. the gradients, element by element.
 */
#define NORM_BACKWARD(name, type)                                                     \
    void name(const attn_norm_gradient *o)                                            \
    {                                                                                 \
        const type *x = o->x, *weight = o->weight, *dy = o->dy;                       \
        type *dx = o->dx, *dweight = o->dweight, *dbias = o->dbias;                   \
        double n = (double)o->n, mean = 0.0, squares = 0.0, sum = 0.0, product = 0.0; \
        assert(o->n >= 1);                                                            \
        for (int64_t i = 0; o->layer && i < o->n; i++) {                              \
            mean += (double)x[i];                                                     \
        }                                                                             \
        mean /= n;                                                                    \
        for (int64_t i = 0; i < o->n; i++) {                                          \
            double centred = (double)x[i] - mean;                                     \
            double g = weight ? (double)dy[i] * (double)weight[i] : (double)dy[i];    \
            squares += centred * centred;                                             \
            sum += g;                                                                 \
            product += g * centred;                                                   \
        }                                                                             \
        double factor = 1.0 / sqrt(squares / n + o->eps);                             \
        double mean_g = o->layer ? sum / n : 0.0;                                     \
        double slope = product * factor / n;                                          \
        for (int64_t i = 0; i < o->n; i++) {                                          \
            double normal = ((double)x[i] - mean) * factor, d = (double)dy[i];        \
            double g = weight ? d * (double)weight[i] : d;                            \
            if (dweight) {                                                            \
                dweight[i] = (type)((double)dweight[i] + d * normal);                 \
            }                                                                         \
            if (dbias) {                                                              \
                dbias[i] = (type)((double)dbias[i] + d);                              \
            }                                                                         \
            if (dx) {                                                                 \
                double value = factor * (g - mean_g - normal * slope);                \
                dx[i] = (type)(o->accumulate ? (double)dx[i] + value : value);        \
            }                                                                         \
        }                                                                             \
    }

NORM_BACKWARD(attn_norm_backward_c, float)
NORM_BACKWARD(attn_norm_backward_f64_c, double)
