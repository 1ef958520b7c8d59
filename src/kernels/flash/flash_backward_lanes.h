/**
 * kernels/flash/flash_backward_lanes.h: what backward does element by element, on lanes. Include in flash_backward_<isa>.c, after
 * lanes_<isa>.h and a definition of flash_exp: eˣ for x ≤ 0 about, whatever x is. The product has a text of its own at each level.
 */
#ifndef ATTN_KERNELS_FLASH_FLASH_BACKWARD_LANES_H
#define ATTN_KERNELS_FLASH_FLASH_BACKWARD_LANES_H

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "kernels/flash/flash_backward.h"

enum { ROWS = ATTN_FLASH_ROWS, GROUP = ATTN_FLASH_LANES, KEYS = ATTN_FLASH_KEYS };

static inline void clear_keys(int32_t begin, int32_t end, float *s, float *dp)
{
    for (int32_t j = begin; j < end; j++) {
        lanes_store(s + j * ROWS, lanes_set(0.0f));
        lanes_store(dp + j * ROWS, lanes_set(0.0f));
    }
}

/* Keys begin … end−1 of a vector of rows; hidden and whether keep is there are constants. */
static inline __attribute__((always_inline)) void gradient_keys(int32_t begin, int32_t end,
                                                                lanes lse, lanes delta,
                                                                const float *keep, bool dropout,
                                                                bool hidden, float *s, float *dp)
{
#pragma GCC unroll 4
    for (int32_t j = begin; j < end; j++) {
        lanes x = lanes_load(s + j * ROWS), g = lanes_load(dp + j * ROWS);
        lanes p = flash_exp(x - lse), w = p;
        if (dropout) {
            lanes f = lanes_load(keep + j * ROWS);
            g = g * f;
            w = p * f;
        }
        lanes ds = p * (g - delta);
        if (hidden) { /* NaN counts as attended; what is beside −inf may be NaN and is cut off */
            lanes_mask there = lanes_differ(x, lanes_set(-INFINITY));
            w = lanes_select(there, w, lanes_set(0.0f));
            ds = lanes_select(there, ds, lanes_set(0.0f));
        }
        lanes_store(s + j * ROWS, w);
        lanes_store(dp + j * ROWS, ds);
    }
}

static void gradient(const attn_flash_tile *tile, const float *lse, const float *delta,
                     const float *keep, bool hidden, float *s, float *dp)
{
    assert(tile->rows >= 1 && tile->rows <= ROWS && tile->keys >= 1);
    hidden = hidden || tile->partial;
    for (int32_t r = 0; r < (tile->rows + GROUP - 1) / GROUP * GROUP; r += LANES) {
        int32_t begin, end, group = r / GROUP * GROUP;
        attn_flash_keys(tile, group, group + GROUP, &begin, &end);
        lanes l = lanes_load(lse + r), d = lanes_load(delta + r);
        float *to = s + r, *ds = dp + r;
        /* products run over the lanes of all groups: keys that this one leaves out weigh 0 */
        clear_keys(0, begin, to, ds);
        if (keep) {
            gradient_keys(begin, end, l, d, keep + r, true, true, to, ds);
        } else if (hidden) {
            gradient_keys(begin, end, l, d, NULL, false, true, to, ds);
        } else {
            gradient_keys(begin, end, l, d, NULL, false, false, to, ds);
        }
        clear_keys(end, tile->keys, to, ds);
    }
}

static void slope(const attn_flash_tile *tile, float cap, const float *capped, float *ds)
{
    const lanes inverse = lanes_set(1.0f / cap), one = lanes_set(1.0f), zero = lanes_set(0.0f);
    for (int32_t r = 0; r < (tile->rows + GROUP - 1) / GROUP * GROUP; r += LANES) {
        int32_t begin, end, group = r / GROUP * GROUP;
        attn_flash_keys(tile, group, group + GROUP, &begin, &end);
        for (int32_t j = begin; j < end; j++) {
            lanes x = lanes_load(ds + j * ROWS + r);
            lanes t = lanes_load(capped + j * ROWS + r) * inverse;
            lanes_store(ds + j * ROWS + r,
                        lanes_select(lanes_differ(x, zero), x * lanes_fnma(t, t, one), zero));
        }
    }
}

static float dot(const float *a, const float *b, int64_t dim)
{
    lanes sum = lanes_set(0.0f);
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES) {
        sum = lanes_fma(lanes_load(a + d), lanes_load(b + d), sum);
    }
    if (d < dim) {
        sum = lanes_fma(lanes_load_some(a + d, dim - d, 0.0f),
                        lanes_load_some(b + d, dim - d, 0.0f), sum);
    }
    return lanes_total(sum);
}

static void add(float factor, const float *x, int64_t dim, float *out)
{
    const lanes f = lanes_set(factor);
    int64_t d = 0;
    for (; d + LANES <= dim; d += LANES) {
        lanes_store(out + d, lanes_fma(f, lanes_load(x + d), lanes_load(out + d)));
    }
    if (d < dim) {
        lanes sum = lanes_fma(f, lanes_load_some(x + d, dim - d, 0.0f),
                              lanes_load_some(out + d, dim - d, 0.0f));
        lanes_store_some(out + d, dim - d, sum);
    }
}

#endif
