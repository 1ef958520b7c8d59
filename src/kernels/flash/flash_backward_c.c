/*
 * kernels/flash, backward, readable: what every other level computes, in plain loops.
 *
 * Where softmax(S) = P and O = P·V, a change of the scores changes row r of O by
 *   Σ_j P_rj·(dS_rj − Σ_k P_rk·dS_rk)·V_j,
 * so the gradient of a score is P_rj·(dP_rj − Σ_k P_rk·dP_rk) with dP = dO·Vᵀ. The inner sum is
 * dO·O, one number per row that is known beforehand: delta. So no row has to be seen as a whole,
 * and blocks of keys are independent of each other.
 */
#include "kernels/flash/flash_backward.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

enum { ROWS = ATTN_FLASH_ROWS };

/* Sums are made of runs of 16 terms: the error of a plain sum grows with its length. */
enum { RUN = 16 };

/* s: scores in, P∘Z out; dp: dO·Vᵀ in, dS = P∘(Z∘dP − delta) out. Z is keep, or 1 without dropout. */
static void gradient(const attn_flash_tile *tile, const float *lse, const float *delta,
                     const float *keep, bool hidden, float *s, float *dp)
{
    assert(tile->rows >= 1 && tile->rows <= ROWS && tile->keys >= 1);
    for (int32_t j = 0; j < tile->keys; j++) {
        for (int32_t r = 0; r < tile->rows; r++) {
            float *weight = &s[j * ROWS + r], *ds = &dp[j * ROWS + r];
            bool outside = tile->partial && (j < tile->lo[r] || j >= tile->hi[r]);
            if (outside || (hidden && *weight == -INFINITY)) {
                *weight = *ds = 0.0f; /* selected: both may hold NaN */
                continue;
            }
            float p = expf(*weight - lse[r]);
            float f = keep ? keep[j * ROWS + r] : 1.0f;
            *weight = f * p;
            *ds = p * (f * *ds - delta[r]);
        }
    }
}

/* dS in, dS∘cap' out: what the scores before softcap·tanh(s/softcap) get. */
static void slope(const attn_flash_tile *tile, float cap, const float *capped, float *ds)
{
    assert(cap > 0.0f);
    for (int32_t j = 0; j < tile->keys; j++) {
        for (int32_t r = 0; r < tile->rows; r++) {
            float t = capped[j * ROWS + r] / cap, *at = &ds[j * ROWS + r];
            *at = *at == 0.0f ? 0.0f : *at * (1.0f - t * t); /* tanh' = 1 − tanh² */
        }
    }
}

/* c += sᵀ·x over the tile's rows: dV += (P∘Z)ᵀ·dO, dK += dSᵀ·Q. */
static void product(const attn_flash_tile *tile, const float *s, const float *x, int64_t ldx,
                    int64_t dim, bool first, float *c, int64_t stride)
{
    assert(dim >= 1 && ldx >= dim);
    for (int32_t j = 0; j < tile->keys; j++) {
        int32_t group, last;
        attn_flash_groups(tile, j, j + 1, &group, &last);
        last = last * ATTN_FLASH_LANES < tile->rows ? last * ATTN_FLASH_LANES : tile->rows;
        for (int64_t d = 0; d < dim; d++) {
            float sum = 0.0f;
            for (int32_t begin = group * ATTN_FLASH_LANES; begin < last; begin += RUN) {
                int32_t end = begin + RUN < last ? begin + RUN : last;
                float run = 0.0f;
                for (int32_t r = begin; r < end; r++) {
                    run += s[j * ROWS + r] * x[r * ldx + d];
                }
                sum += run;
            }
            c[j * stride + d] = first ? sum : c[j * stride + d] + sum;
        }
    }
}

static float dot(const float *a, const float *b, int64_t dim)
{
    float sum = 0.0f;
    for (int64_t begin = 0; begin < dim; begin += RUN) {
        int64_t end = begin + RUN < dim ? begin + RUN : dim;
        float run = 0.0f;
        for (int64_t d = begin; d < end; d++) {
            run += a[d] * b[d];
        }
        sum += run;
    }
    return sum;
}

static void add(float factor, const float *x, int64_t dim, float *out)
{
    for (int64_t d = 0; d < dim; d++) {
        out[d] += factor * x[d];
    }
}

const attn_flash_backward_kernels attn_flash_backward_c = {
    .name = "flash_backward_f32_c",
    .block_keys = 48,
    .gradient = gradient,
    .slope = slope,
    .product = product,
    .dot = dot,
    .add = add,
};
