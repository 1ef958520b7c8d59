/*
 * kernels/flash, backward, for AVX-512. The product has 6 keys × 64 columns in registers, as the two
 * of forward have their 6 × 64: its broadcast operand is the tile of weights, its other one the rows
 * of dO or Q.
 */
#include "kernels/flash/flash_avx512.h"
#include "kernels/flash/flash_backward.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

enum { ROWS = ATTN_FLASH_ROWS, LANES = ATTN_FLASH_LANES, KEYS = ATTN_FLASH_KEYS, NR = 4 };

static void clear_keys(int32_t begin, int32_t end, float *s, float *dp)
{
    for (int32_t j = begin; j < end; j++) {
        _mm512_store_ps(s + j * ROWS, _mm512_setzero_ps());
        _mm512_store_ps(dp + j * ROWS, _mm512_setzero_ps());
    }
}

/* Keys begin … end−1 of 16 lanes; hidden and whether keep is there are constants. */
static inline __attribute__((always_inline)) void gradient_lanes(int32_t begin, int32_t end,
                                                                 __m512 lse, __m512 delta,
                                                                 const float *keep, bool dropout,
                                                                 bool hidden, float *s, float *dp)
{
#pragma GCC unroll 4
    for (int32_t j = begin; j < end; j++) {
        __m512 x = _mm512_load_ps(s + j * ROWS), g = _mm512_load_ps(dp + j * ROWS);
        __m512 p = attn_flash_exp_avx512(_mm512_sub_ps(x, lse));
        __m512 w = p;
        if (dropout) {
            __m512 f = _mm512_load_ps(keep + j * ROWS);
            g = _mm512_mul_ps(g, f);
            w = _mm512_mul_ps(p, f);
        }
        __m512 ds = _mm512_mul_ps(p, _mm512_sub_ps(g, delta));
        if (hidden) { /* NaN counts as attended; what is beside −inf may be NaN and is cut off */
            __mmask16 there = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
            w = _mm512_maskz_mov_ps(there, w);
            ds = _mm512_maskz_mov_ps(there, ds);
        }
        _mm512_store_ps(s + j * ROWS, w);
        _mm512_store_ps(dp + j * ROWS, ds);
    }
}

static void gradient(const attn_flash_tile *tile, const float *lse, const float *delta,
                     const float *keep, bool hidden, float *s, float *dp)
{
    assert(tile->rows >= 1 && tile->rows <= ROWS && tile->keys >= 1);
    hidden = hidden || tile->partial;
    for (int32_t lane = 0; lane < tile->rows; lane += LANES) {
        int32_t begin, end;
        attn_flash_keys(tile, lane, lane + LANES, &begin, &end);
        __m512 l = _mm512_load_ps(lse + lane), d = _mm512_load_ps(delta + lane);
        float *to = s + lane, *ds = dp + lane;
        /* products run over the lanes of all groups: keys that this one leaves out weigh 0 */
        clear_keys(0, begin, to, ds);
        if (keep) {
            gradient_lanes(begin, end, l, d, keep + lane, true, true, to, ds);
        } else if (hidden) {
            gradient_lanes(begin, end, l, d, NULL, false, true, to, ds);
        } else {
            gradient_lanes(begin, end, l, d, NULL, false, false, to, ds);
        }
        clear_keys(end, tile->keys, to, ds);
    }
}

static void slope(const attn_flash_tile *tile, float cap, const float *capped, float *ds)
{
    const __m512 inverse = _mm512_set1_ps(1.0f / cap), one = _mm512_set1_ps(1.0f);
    for (int32_t lane = 0; lane < tile->rows; lane += LANES) {
        int32_t begin, end;
        attn_flash_keys(tile, lane, lane + LANES, &begin, &end);
        for (int32_t j = begin; j < end; j++) {
            __m512 x = _mm512_load_ps(ds + j * ROWS + lane);
            __m512 t = _mm512_mul_ps(_mm512_load_ps(capped + j * ROWS + lane), inverse);
            __mmask16 some = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
            x = _mm512_maskz_mul_ps(some, x, _mm512_fnmadd_ps(t, t, one));
            _mm512_store_ps(ds + j * ROWS + lane, x);
        }
    }
}

/* 6 keys × n vectors of columns, n a constant; `last` masks the last vector's columns. */
static inline __attribute__((always_inline)) void product_tile(const float *s, const float *x,
                                                               int64_t ldx, int32_t rows,
                                                               __mmask16 last, bool first, int n,
                                                               float *const row[KEYS])
{
    __m512 sum[KEYS][NR];
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            sum[j][c] = _mm512_setzero_ps();
        }
    }
#pragma GCC unroll 2
    for (int32_t r = 0; r < rows; r++) {
        __m512 v[NR];
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            v[c] = _mm512_load_ps(x + r * ldx + c * 16);
        }
#pragma GCC unroll 6
        for (int j = 0; j < KEYS; j++) {
            __m512 p = _mm512_set1_ps(s[j * ROWS + r]);
#pragma GCC unroll 4
            for (int c = 0; c < n; c++) {
                sum[j][c] = _mm512_fmadd_ps(v[c], p, sum[j][c]);
            }
        }
    }
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            __mmask16 mask = c == n - 1 ? last : (__mmask16)0xffff;
            float *at = row[j] + c * 16;
            __m512 so_far = _mm512_maskz_loadu_ps(first ? 0 : mask, at);
            __m512 total = _mm512_add_ps(so_far, sum[j][c]);
            _mm512_mask_storeu_ps(at, mask, total);
        }
    }
}

typedef void product_kernel(const float *s, const float *x, int64_t ldx, int32_t rows,
                            __mmask16 last, bool first, float *const row[KEYS]);

#define PRODUCT_KERNEL(n)                                                              \
    static void product_##n(const float *s, const float *x, int64_t ldx, int32_t rows, \
                            __mmask16 last, bool first, float *const row[KEYS])        \
    {                                                                                  \
        product_tile(s, x, ldx, rows, last, first, n, row);                            \
    }
PRODUCT_KERNEL(1)
PRODUCT_KERNEL(2)
PRODUCT_KERNEL(3)
PRODUCT_KERNEL(4)

static void product(const attn_flash_tile *tile, const float *s, const float *x, int64_t ldx,
                    int64_t dim, bool first, float *c, int64_t stride)
{
    static product_kernel *const kernels[NR] = {product_1, product_2, product_3, product_4};
    _Alignas(64) float nowhere[NR * 16] = {0}; /* what keys beyond the last are added to */
    assert(dim >= 1 && ldx >= dim && ldx % 16 == 0);
    for (int64_t d = 0; d < dim; d += NR * 16) {
        int64_t columns = dim - d < NR * 16 ? dim - d : NR * 16;
        int64_t n = (columns + 15) / 16;
        __mmask16 last = (__mmask16)((1u << (columns - (n - 1) * 16)) - 1u);
        for (int32_t j = 0; j < tile->keys; j += KEYS) {
            float *row[KEYS];
            int32_t begin, stop;
            attn_flash_groups(tile, j, j + KEYS, &begin, &stop);
            begin *= LANES;
            stop = stop * LANES < tile->rows ? stop * LANES : tile->rows;
            for (int32_t k = 0; k < KEYS; k++) {
                row[k] = j + k < tile->keys ? c + (j + k) * stride + d : nowhere;
            }
            if (begin < stop || first) {
                kernels[n - 1](s + j * ROWS + begin, x + begin * ldx + d, ldx, stop - begin, last,
                               first, row);
            }
        }
    }
}

static float dot(const float *a, const float *b, int64_t dim)
{
    __m512 sum = _mm512_setzero_ps();
    for (int64_t d = 0; d < dim; d += 16) {
        __mmask16 mask = (__mmask16)(dim - d < 16 ? (1u << (dim - d)) - 1u : 0xffffu);
        sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + d),
                              _mm512_maskz_loadu_ps(mask, b + d), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

static void add(float factor, const float *x, int64_t dim, float *out)
{
    __m512 f = _mm512_set1_ps(factor);
    for (int64_t d = 0; d < dim; d += 16) {
        __mmask16 mask = (__mmask16)(dim - d < 16 ? (1u << (dim - d)) - 1u : 0xffffu);
        __m512 sum = _mm512_fmadd_ps(f, _mm512_maskz_loadu_ps(mask, x + d),
                                     _mm512_maskz_loadu_ps(mask, out + d));
        _mm512_mask_storeu_ps(out + d, mask, sum);
    }
}

const attn_flash_backward_kernels attn_flash_backward_avx512 = {
    .name = "flash_backward_f32_avx512",
    .block_keys = 48,
    .gradient = gradient,
    .slope = slope,
    .product = product,
    .dot = dot,
    .add = add,
};
