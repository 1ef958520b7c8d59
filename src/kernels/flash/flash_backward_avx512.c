/*
 * kernels/flash, backward, for AVX-512. The product has 6 keys × 64 columns in registers, as the two
 * of forward have their 6 × 64: its broadcast operand is the tile of weights, its other one the rows
 * of dO or Q. The rest is flash_backward_lanes.h.
 */
#include "kernels/common/lanes_avx512.h"
#include "kernels/flash/flash_avx512.h"

static inline lanes flash_exp(lanes x)
{
    return attn_flash_exp_avx512(x);
}

#include "kernels/flash/flash_backward_lanes.h"

enum { NR = 4 };

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
            begin *= GROUP;
            stop = stop * GROUP < tile->rows ? stop * GROUP : tile->rows;
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

const attn_flash_backward_kernels attn_flash_backward_avx512 = {
    .name = "flash_backward_f32_avx512",
    .block_keys = 48,
    .gradient = gradient,
    .slope = slope,
    .product = product,
    .dot = dot,
    .add = add,
};
