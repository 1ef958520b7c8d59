/*
 * kernels/flash, backward, for AVX2: the product has 6 keys × 16 columns in registers; see
 * flash_backward_avx512.c.
 */
#include "kernels/common/lanes_avx2.h"
#include "kernels/flash/flash_avx2.h"

/* The exponent is kept below 127: scores are ≤ LSE up to rounding, but LSE is the caller's. */
static inline lanes flash_exp(lanes x)
{
    return attn_flash_exp_avx2(lanes_at_most(87.0f, x));
}

#include "kernels/flash/flash_backward_lanes.h"

enum { WIDTH = LANES };

/* 6 keys × 8 or 16 columns, n vectors, a constant; `last` masks the last vector's columns. */
static inline __attribute__((always_inline)) void product_tile(const float *s, const float *x,
                                                               int64_t ldx, int32_t rows,
                                                               __m256i last, bool first, int n,
                                                               float *const row[KEYS])
{
    __m256 sum[KEYS][2];
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
        sum[j][0] = _mm256_setzero_ps();
        sum[j][1] = _mm256_setzero_ps();
    }
#pragma GCC unroll 2
    for (int32_t r = 0; r < rows; r++) {
        __m256 x0 = _mm256_load_ps(x + r * ldx);
        __m256 x1 = n == 2 ? _mm256_load_ps(x + r * ldx + WIDTH) : _mm256_setzero_ps();
#pragma GCC unroll 6
        for (int j = 0; j < KEYS; j++) {
            __m256 p = _mm256_broadcast_ss(s + j * ROWS + r);
            sum[j][0] = _mm256_fmadd_ps(x0, p, sum[j][0]);
            if (n == 2) {
                sum[j][1] = _mm256_fmadd_ps(x1, p, sum[j][1]);
            }
        }
    }
    const __m256i all = first ? _mm256_setzero_si256() : _mm256_set1_epi32(-1);
    const __m256i most = _mm256_and_si256(last, all);
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
        float *end = row[j] + (n - 1) * WIDTH;
        if (n == 2) {
            _mm256_storeu_ps(row[j], _mm256_add_ps(_mm256_maskload_ps(row[j], all), sum[j][0]));
        }
        __m256 total = _mm256_add_ps(_mm256_maskload_ps(end, most), sum[j][n - 1]);
        _mm256_maskstore_ps(end, last, total);
    }
}

typedef void product_kernel(const float *s, const float *x, int64_t ldx, int32_t rows, __m256i last,
                            bool first, float *const row[KEYS]);

static void product_1(const float *s, const float *x, int64_t ldx, int32_t rows, __m256i last,
                      bool first, float *const row[KEYS])
{
    product_tile(s, x, ldx, rows, last, first, 1, row);
}

static void product_2(const float *s, const float *x, int64_t ldx, int32_t rows, __m256i last,
                      bool first, float *const row[KEYS])
{
    product_tile(s, x, ldx, rows, last, first, 2, row);
}

static void product(const attn_flash_tile *tile, const float *s, const float *x, int64_t ldx,
                    int64_t dim, bool first, float *c, int64_t stride)
{
    _Alignas(32) float nowhere[2 * WIDTH] = {0}; /* what keys beyond the last are added to */
    assert(dim >= 1 && ldx >= dim && ldx % 16 == 0);
    for (int64_t d = 0; d < dim; d += 2 * WIDTH) {
        int64_t columns = dim - d < 2 * WIDTH ? dim - d : 2 * WIDTH;
        product_kernel *kernel = columns > WIDTH ? product_2 : product_1;
        __m256i last = attn_flash_first_avx2(columns > WIDTH ? columns - WIDTH : columns);
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
                kernel(s + j * ROWS + begin, x + begin * ldx + d, ldx, stop - begin, last, first,
                       row);
            }
        }
    }
    _mm256_zeroupper(); /* gcc leaves it out here, since the kernels take a vector */
}

const attn_flash_backward_kernels attn_flash_backward_avx2 = {
    .name = "flash_backward_f32_avx2",
    .block_keys = 48,
    .gradient = gradient,
    .slope = slope,
    .product = product,
    .dot = dot,
    .add = add,
};
