/*
 * kernels/flash for AVX2: packing, the two products, finish. What lies between them is in
 * flash_softmax_avx2.c.
 *
 * Sixteen registers hold 6 × 2 accumulators, 2 vectors of one operand and a broadcast of the other:
 * 6 keys × 16 queries for scores, 6 queries × 16 columns for values.
 */
#include "kernels/flash/flash_avx2.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    ROWS = ATTN_FLASH_ROWS,
    LANES = ATTN_FLASH_LANES,
    KEYS = ATTN_FLASH_KEYS,
    MR = 6,
    RUN = 16 /* dims summed before they join the total: the error of a sum grows with its length */
};

static void pack(const float *const *rows, int32_t count, int64_t dim, float *qt)
{
    assert(count >= 0 && count <= LANES && dim >= 1);
    for (int32_t lane = 0; lane < LANES; lane += 8) {
        for (int64_t d = 0; d < dim; d += 8) {
            int64_t left = dim - d < 8 ? dim - d : 8;
            __m256i mask = attn_flash_first_avx2(left);
            __m256 r[8];
            for (int32_t i = 0; i < 8; i++) {
                r[i] = lane + i < count ? _mm256_maskload_ps(rows[lane + i] + d, mask)
                                        : _mm256_setzero_ps();
            }
            attn_flash_transpose_avx2(r);
            for (int64_t i = 0; i < left; i++) {
                _mm256_store_ps(qt + (d + i) * ROWS + lane, r[i]);
            }
        }
    }
}

/* Sums of dims begin … end−1 of 6 keys × 16 queries. */
static inline __attribute__((always_inline)) void sum_run(const float *qt,
                                                          const float *const key[KEYS],
                                                          int64_t begin, int64_t end,
                                                          __m256 sum[KEYS][2])
{
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
        sum[j][0] = _mm256_setzero_ps();
        sum[j][1] = _mm256_setzero_ps();
    }
#pragma GCC unroll 2
    for (int64_t d = begin; d < end; d++) {
        __m256 q0 = _mm256_load_ps(qt + d * ROWS), q1 = _mm256_load_ps(qt + d * ROWS + 8);
#pragma GCC unroll 6
        for (int j = 0; j < KEYS; j++) {
            __m256 k = _mm256_broadcast_ss(key[j] + d);
            sum[j][0] = _mm256_fmadd_ps(q0, k, sum[j][0]);
            sum[j][1] = _mm256_fmadd_ps(q1, k, sum[j][1]);
        }
    }
}

/* Runs but the last leave their sums in s; the last one adds, scales and takes the maximum. */
static inline __attribute__((always_inline)) void score_keys(const float *qt,
                                                             const float *const key[KEYS],
                                                             int64_t dim, float scale, bool maxima,
                                                             float *s, float *maximum)
{
    __m256 sum[KEYS][2];
    int64_t d = 0;
    for (; d + RUN < dim; d += RUN) {
        sum_run(qt, key, d, d + RUN, sum);
#pragma GCC unroll 6
        for (int j = 0; j < KEYS; j++) {
#pragma GCC unroll 2
            for (int g = 0; g < 2; g++) {
                float *at = s + j * ROWS + g * 8;
                __m256 total = d > 0 ? _mm256_add_ps(sum[j][g], _mm256_load_ps(at)) : sum[j][g];
                _mm256_store_ps(at, total);
            }
        }
    }
    sum_run(qt, key, d, dim, sum);
    __m256 factor = _mm256_set1_ps(scale);
    __m256 top[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    if (maxima) {
        top[0] = _mm256_load_ps(maximum);
        top[1] = _mm256_load_ps(maximum + 8);
    }
#pragma GCC unroll 6
    for (int j = 0; j < KEYS; j++) {
#pragma GCC unroll 2
        for (int g = 0; g < 2; g++) {
            float *at = s + j * ROWS + g * 8;
            __m256 total = d > 0 ? _mm256_add_ps(sum[j][g], _mm256_load_ps(at)) : sum[j][g];
            total = _mm256_mul_ps(total, factor);
            _mm256_store_ps(at, total);
            top[g] = _mm256_max_ps(top[g], total);
        }
    }
    if (maxima) {
        _mm256_store_ps(maximum, top[0]);
        _mm256_store_ps(maximum + 8, top[1]);
    }
}

static void score_maxima(const float *qt, const float *const *key, int64_t dim, float scale,
                         float *s, float *maximum)
{
    score_keys(qt, key, dim, scale, true, s, maximum);
}

static void score_alone(const float *qt, const float *const *key, int64_t dim, float scale,
                        float *s, float *maximum)
{
    score_keys(qt, key, dim, scale, false, s, maximum);
}

static void scores(const attn_flash_tile *tile, const float *qt, const float *k, int64_t stride,
                   int64_t dim, float scale, float *s, float *maximum)
{
    assert(tile->rows >= 1 && tile->rows <= ROWS && tile->keys >= 1 && dim >= 1);
    for (int32_t j = 0; j < tile->keys; j += KEYS) {
        const float *key[KEYS];
        int32_t first, last;
        for (int32_t n = 0; n < KEYS; n++) { /* beyond the last key: the last one again */
            key[n] = k + (j + n < tile->keys ? j + n : tile->keys - 1) * stride;
        }
        attn_flash_groups(tile, j, j + KEYS, &first, &last);
        for (int32_t lane = first * LANES; lane < last * LANES; lane += LANES) {
            float *to = s + j * ROWS + lane;
            if (maximum) {
                score_maxima(qt + lane, key, dim, scale, to, maximum + lane);
            } else {
                score_alone(qt + lane, key, dim, scale, to, NULL);
            }
        }
    }
}

/* mr rows × 8 or 16 columns, constants both; `last` masks the last vector's columns. */
static inline __attribute__((always_inline)) void values_tile(const float *s, const float *v,
                                                              int64_t stride, int32_t keys,
                                                              __m256i last, const float *alpha,
                                                              float *o, int64_t ldo, int mr, int n)
{
    __m256 sum[MR][2];
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
        sum[r][0] = _mm256_setzero_ps();
        sum[r][1] = _mm256_setzero_ps();
    }
#pragma GCC unroll 2
    for (int32_t j = 0; j < keys; j++) {
        const float *row = v + j * stride;
        __m256 x0 = n == 2 ? _mm256_loadu_ps(row) : _mm256_maskload_ps(row, last);
        __m256 x1 = n == 2 ? _mm256_maskload_ps(row + 8, last) : _mm256_setzero_ps();
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            __m256 p = _mm256_broadcast_ss(s + j * ROWS + r);
            sum[r][0] = _mm256_fmadd_ps(x0, p, sum[r][0]);
            if (n == 2) {
                sum[r][1] = _mm256_fmadd_ps(x1, p, sum[r][1]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
        __m256 shrink = _mm256_set1_ps(alpha[r]);
#pragma GCC unroll 2
        for (int c = 0; c < n; c++) {
            float *at = o + r * ldo + c * 8;
            _mm256_store_ps(at, _mm256_fmadd_ps(_mm256_load_ps(at), shrink, sum[r][c]));
        }
    }
}

typedef void values_kernel(const float *s, const float *v, int64_t stride, int32_t keys,
                           __m256i last, const float *alpha, float *o, int64_t ldo);

#define VALUES_KERNEL(mr, n)                                                                    \
    static void values_##mr##x##n(const float *s, const float *v, int64_t stride, int32_t keys, \
                                  __m256i last, const float *alpha, float *o, int64_t ldo)      \
    {                                                                                           \
        values_tile(s, v, stride, keys, last, alpha, o, ldo, mr, n);                            \
    }
VALUES_KERNEL(6, 2)
VALUES_KERNEL(6, 1)
VALUES_KERNEL(4, 2)
VALUES_KERNEL(4, 1)

static void values(const attn_flash_tile *tile, const float *s, const float *v, int64_t stride,
                   int64_t dim, const float *alpha, float *o, int64_t ldo)
{
    static values_kernel *const kernels[2][2] = {{values_4x1, values_4x2},
                                                 {values_6x1, values_6x2}};
    assert(dim >= 1 && ldo >= dim && ldo % 16 == 0);
    for (int64_t d = 0; d < dim; d += 16) {
        int64_t columns = dim - d < 16 ? dim - d : 16;
        int64_t n = (columns + 7) / 8;
        __m256i last = attn_flash_first_avx2(columns - (n - 1) * 8);
        for (int32_t r = 0; r < tile->rows;) {
            int32_t left = tile->rows - r; /* 64 rows are 10 times 6 and once 4 */
            int32_t mr = left > 4 ? MR : 4, begin, end;
            attn_flash_keys(tile, r, r + mr, &begin, &end);
            values_kernel *kernel = kernels[mr == MR][n - 1];
            kernel(s + begin * ROWS + r, v + begin * stride + d, stride, end - begin, last,
                   alpha + r, o + r * ldo + d, ldo);
            r += mr;
        }
    }
    _mm256_zeroupper(); /* gcc leaves it out here, since the kernels take a vector */
}

static void fold(int32_t rows, int64_t ldo, const float *beta, float *o, float *total)
{
    for (int32_t r = 0; r < rows; r++) {
        __m256 shrink = _mm256_set1_ps(beta[r]);
        for (int64_t d = r * ldo; d < (r + 1) * ldo; d += 8) {
            __m256 sum = _mm256_fmadd_ps(_mm256_load_ps(total + d), shrink, _mm256_load_ps(o + d));
            _mm256_store_ps(total + d, sum);
            _mm256_store_ps(o + d, _mm256_setzero_ps());
        }
    }
}

static bool finish(const float *o, float factor, int64_t dim, float *out)
{
    const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
    __m256 f = _mm256_set1_ps(factor), bad = _mm256_setzero_ps();
    for (int64_t d = 0; d < dim; d += 8) {
        __m256i mask = attn_flash_first_avx2(dim - d < 8 ? dim - d : 8);
        __m256 x = _mm256_mul_ps(_mm256_maskload_ps(o + d, mask), f);
        _mm256_maskstore_ps(out + d, mask, x);
        __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
        __m256 odd = _mm256_cmp_ps(size, infinity, _CMP_NLT_UQ); /* inf, NaN */
        bad = _mm256_or_ps(bad, _mm256_and_ps(odd, _mm256_castsi256_ps(mask)));
    }
    return _mm256_movemask_ps(bad) == 0;
}

const attn_flash_kernels attn_flash_avx2 = {
    .name = "flash_f32_avx2",
    .block_keys = 96,
    .pack = pack,
    .scores = scores,
    .modify = attn_flash_modify_avx2,
    .argmax = attn_flash_argmax_avx2,
    .softmax = attn_flash_softmax_avx2,
    .values = values,
    .fold = fold,
    .finish = finish,
};
