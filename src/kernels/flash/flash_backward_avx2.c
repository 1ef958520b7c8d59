/*
 * kernels/flash, backward, for AVX2: the product has 6 keys × 16 columns in registers; see
 * flash_backward_avx512.c.
 */
#include "kernels/flash/flash_avx2.h"
#include "kernels/flash/flash_backward.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

enum { ROWS = ATTN_FLASH_ROWS, LANES = ATTN_FLASH_LANES, KEYS = ATTN_FLASH_KEYS, WIDTH = 8 };

static void clear_keys(int32_t begin, int32_t end, float *s, float *dp)
{
    for (int32_t j = begin; j < end; j++) {
        _mm256_store_ps(s + j * ROWS, _mm256_setzero_ps());
        _mm256_store_ps(dp + j * ROWS, _mm256_setzero_ps());
    }
}

/*
 * Keys begin … end−1 of 8 lanes; hidden and whether keep is there are constants. The exponent is
 * kept below 127: scores are ≤ LSE up to rounding, but LSE is the caller's.
 */
static inline __attribute__((always_inline)) void gradient_lanes(int32_t begin, int32_t end,
                                                                 __m256 lse, __m256 delta,
                                                                 const float *keep, bool dropout,
                                                                 bool hidden, float *s, float *dp)
{
    const __m256 most = _mm256_set1_ps(87.0f), lowest = _mm256_set1_ps(-INFINITY);
#pragma GCC unroll 2
    for (int32_t j = begin; j < end; j++) {
        __m256 x = _mm256_load_ps(s + j * ROWS), g = _mm256_load_ps(dp + j * ROWS);
        __m256 p = attn_flash_exp_avx2(_mm256_min_ps(most, _mm256_sub_ps(x, lse)));
        __m256 w = p;
        if (dropout) {
            __m256 f = _mm256_load_ps(keep + j * ROWS);
            g = _mm256_mul_ps(g, f);
            w = _mm256_mul_ps(p, f);
        }
        __m256 ds = _mm256_mul_ps(p, _mm256_sub_ps(g, delta));
        if (hidden) { /* NaN counts as attended; what is beside −inf may be NaN and is cut off */
            __m256 there = _mm256_cmp_ps(x, lowest, _CMP_NEQ_UQ);
            w = _mm256_and_ps(w, there);
            ds = _mm256_and_ps(ds, there);
        }
        _mm256_store_ps(s + j * ROWS, w);
        _mm256_store_ps(dp + j * ROWS, ds);
    }
}

static void gradient(const attn_flash_tile *tile, const float *lse, const float *delta,
                     const float *keep, bool hidden, float *s, float *dp)
{
    assert(tile->rows >= 1 && tile->rows <= ROWS && tile->keys >= 1);
    hidden = hidden || tile->partial;
    for (int32_t lane = 0; lane < (tile->rows + LANES - 1) / LANES * LANES; lane += WIDTH) {
        int32_t begin, end, group = lane / LANES * LANES;
        attn_flash_keys(tile, group, group + LANES, &begin, &end);
        __m256 l = _mm256_load_ps(lse + lane), d = _mm256_load_ps(delta + lane);
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
    const __m256 inverse = _mm256_set1_ps(1.0f / cap), one = _mm256_set1_ps(1.0f);
    for (int32_t lane = 0; lane < (tile->rows + LANES - 1) / LANES * LANES; lane += WIDTH) {
        int32_t begin, end, group = lane / LANES * LANES;
        attn_flash_keys(tile, group, group + LANES, &begin, &end);
        for (int32_t j = begin; j < end; j++) {
            __m256 x = _mm256_load_ps(ds + j * ROWS + lane);
            __m256 t = _mm256_mul_ps(_mm256_load_ps(capped + j * ROWS + lane), inverse);
            __m256 some = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_UQ);
            x = _mm256_mul_ps(x, _mm256_fnmadd_ps(t, t, one));
            _mm256_store_ps(ds + j * ROWS + lane, _mm256_and_ps(x, some));
        }
    }
}

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
            begin *= LANES;
            stop = stop * LANES < tile->rows ? stop * LANES : tile->rows;
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

static float dot(const float *a, const float *b, int64_t dim)
{
    __m256 sum = _mm256_setzero_ps();
    for (int64_t d = 0; d < dim; d += WIDTH) {
        __m256i mask = attn_flash_first_avx2(dim - d < WIDTH ? dim - d : WIDTH);
        sum =
            _mm256_fmadd_ps(_mm256_maskload_ps(a + d, mask), _mm256_maskload_ps(b + d, mask), sum);
    }
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

static void add(float factor, const float *x, int64_t dim, float *out)
{
    __m256 f = _mm256_set1_ps(factor);
    for (int64_t d = 0; d < dim; d += WIDTH) {
        __m256i mask = attn_flash_first_avx2(dim - d < WIDTH ? dim - d : WIDTH);
        __m256 sum =
            _mm256_fmadd_ps(f, _mm256_maskload_ps(x + d, mask), _mm256_maskload_ps(out + d, mask));
        _mm256_maskstore_ps(out + d, mask, sum);
    }
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
