/*
 * kernels/flash for AVX-512: packing of queries, and scores. Softmax and values have files of their
 * own.
 *
 * Scores are a matrix product with 6 keys × 64 queries in registers: 24 accumulators, 4 vectors of
 * queries, one broadcast of a key's element. The broadcast goes through a register: as a memory
 * operand of the multiply-add it was a tenth slower.
 */
#include "kernels/flash/flash_avx512.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    ROWS = ATTN_FLASH_ROWS,
    LANES = ATTN_FLASH_LANES,
    KEYS = ATTN_FLASH_KEYS,
    RUN = 16 /* dims summed before they join the total: the error of a sum grows with its length */
};

static void pack(const float *const *rows, int32_t count, int64_t dim, float *qt)
{
    assert(count >= 0 && count <= LANES && dim >= 1);
    for (int64_t d = 0; d < dim; d += 16) {
        int64_t left = dim - d < 16 ? dim - d : 16;
        __mmask16 mask = (__mmask16)((1u << left) - 1u);
        __m512 r[16];
        for (int32_t i = 0; i < 16; i++) {
            r[i] = i < count ? _mm512_maskz_loadu_ps(mask, rows[i] + d) : _mm512_setzero_ps();
        }
        attn_flash_transpose_avx512(r);
        for (int64_t i = 0; i < left; i++) {
            _mm512_store_ps(qt + (d + i) * ROWS, r[i]);
        }
    }
}

/* Sums of dims begin … end−1: 6 keys × n groups of 16 queries, n a constant. */
static inline __attribute__((always_inline)) void sum_run(const float *qt,
                                                          const float *const key[KEYS],
                                                          int64_t begin, int64_t end, int n,
                                                          __m512 sum[KEYS][4])
{
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
#pragma GCC unroll 4
        for (int g = 0; g < n; g++) {
            sum[j][g] = _mm512_setzero_ps();
        }
    }
#pragma GCC unroll 2
    for (int64_t d = begin; d < end; d++) {
        __m512 q[4];
#pragma GCC unroll 4
        for (int g = 0; g < n; g++) {
            q[g] = _mm512_load_ps(qt + d * ROWS + g * LANES);
        }
#pragma GCC unroll 6
        for (int j = 0; j < KEYS; j++) {
            __m512 k = _mm512_set1_ps(key[j][d]);
#pragma GCC unroll 4
            for (int g = 0; g < n; g++) {
                sum[j][g] = _mm512_fmadd_ps(q[g], k, sum[j][g]);
            }
        }
    }
}

/* Runs but the last leave their sums in s; the last one adds, scales and takes the maximum. */
static inline __attribute__((always_inline)) void score_keys(const float *qt,
                                                             const float *const key[KEYS],
                                                             int64_t dim, float scale, int n,
                                                             bool maxima, float *s, float *maximum)
{
    __m512 sum[KEYS][4];
    int64_t d = 0;
    for (; d + RUN < dim; d += RUN) {
        sum_run(qt, key, d, d + RUN, n, sum);
#pragma GCC unroll 6
        for (int j = 0; j < KEYS; j++) {
#pragma GCC unroll 4
            for (int g = 0; g < n; g++) {
                float *at = s + j * ROWS + g * LANES;
                __m512 total = d > 0 ? _mm512_add_ps(sum[j][g], _mm512_load_ps(at)) : sum[j][g];
                _mm512_store_ps(at, total);
            }
        }
    }
    sum_run(qt, key, d, dim, n, sum);
    __m512 factor = _mm512_set1_ps(scale), top[4];
#pragma GCC unroll 4
    for (int g = 0; g < n; g++) {
        top[g] = maxima ? _mm512_load_ps(maximum + g * LANES) : _mm512_setzero_ps();
    }
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
#pragma GCC unroll 4
        for (int g = 0; g < n; g++) {
            float *at = s + j * ROWS + g * LANES;
            __m512 total = d > 0 ? _mm512_add_ps(sum[j][g], _mm512_load_ps(at)) : sum[j][g];
            total = _mm512_mul_ps(total, factor);
            _mm512_store_ps(at, total);
            top[g] = _mm512_max_ps(top[g], total);
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < n && maxima; g++) {
        _mm512_store_ps(maximum + g * LANES, top[g]);
    }
}

typedef void score_kernel(const float *qt, const float *const *key, int64_t dim, float scale,
                          float *s, float *maximum);

#define SCORE_KERNEL(n)                                                                       \
    static void score_##n(const float *qt, const float *const *key, int64_t dim, float scale, \
                          float *s, float *maximum)                                           \
    {                                                                                         \
        score_keys(qt, key, dim, scale, n, true, s, maximum);                                 \
    }                                                                                         \
    static void score_alone_##n(const float *qt, const float *const *key, int64_t dim,        \
                                float scale, float *s, float *maximum)                        \
    {                                                                                         \
        score_keys(qt, key, dim, scale, n, false, s, maximum);                                \
    }
SCORE_KERNEL(1)
SCORE_KERNEL(2)
SCORE_KERNEL(3)
SCORE_KERNEL(4)

static void scores(const attn_flash_tile *tile, const float *qt, const float *k, int64_t stride,
                   int64_t dim, float scale, float *s, float *maximum)
{
    static score_kernel *const kernels[2][4] = {
        {score_1, score_2, score_3, score_4},
        {score_alone_1, score_alone_2, score_alone_3, score_alone_4},
    };
    assert(tile->rows >= 1 && tile->rows <= ROWS && tile->keys >= 1 && dim >= 1);
    for (int32_t j = 0; j < tile->keys; j += KEYS) {
        const float *key[KEYS];
        int32_t first, last;
        for (int32_t n = 0; n < KEYS; n++) { /* beyond the last key: the last one again */
            key[n] = k + (j + n < tile->keys ? j + n : tile->keys - 1) * stride;
        }
        attn_flash_groups(tile, j, j + KEYS, &first, &last);
        if (first < last) { /* else nobody attends to these keys */
            kernels[maximum == NULL][last - first - 1](qt + first * LANES, key, dim, scale,
                                                       s + j * ROWS + first * LANES,
                                                       maximum ? maximum + first * LANES : NULL);
        }
    }
}

const attn_flash_kernels attn_flash_avx512 = {
    .name = "flash_f32_avx512",
    .block_keys = 96,
    .pack = pack,
    .scores = scores,
    .modify = attn_flash_modify_avx512,
    .argmax = attn_flash_argmax_avx512,
    .softmax = attn_flash_softmax_avx512,
    .values = attn_flash_values_avx512,
    .fold = attn_flash_fold_avx512,
    .finish = attn_flash_finish_avx512,
};
