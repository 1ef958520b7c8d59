/*
 * kernels/flash for AVX2: what lies between the two products: cap, bias, masks, and the online
 * softmax.
 */
#include "kernels/flash/flash_avx2.h"

#include <math.h>

enum { ROWS = ATTN_FLASH_ROWS, WIDTH = 8 };

/*
 * tanh: x + x³·P(x²) below 0.625, else (1 − e)/(1 + e) with e = exp(−2|x|), and x's sign; see
 * flash_softmax_avx512.c.
 */
static inline __m256 tanh_8(__m256 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    __m256 size = _mm256_andnot_ps(sign, x), square = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(-0x1.75e1cap-8f);
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(0x1.52269ap-6f));
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-0x1.b83c5ap-5f));
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(0x1.110726p-3f));
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-0x1.555532p-2f));
    __m256 low = _mm256_fmadd_ps(_mm256_mul_ps(p, square), x, x);
    __m256 e = attn_flash_exp_avx2(_mm256_mul_ps(size, _mm256_set1_ps(-2.0f)));
    __m256 high = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
    high = _mm256_or_ps(high, _mm256_and_ps(x, sign));
    return _mm256_blendv_ps(high, low, _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_LT_OQ));
}

/* Keys of the tile that the lane group of `lane` attends to at all. */
static inline void group_keys(const attn_flash_tile *tile, int32_t lane, int32_t *begin,
                              int32_t *end)
{
    int32_t first = lane / ATTN_FLASH_LANES * ATTN_FLASH_LANES;
    attn_flash_keys(tile, first, first + ATTN_FLASH_LANES, begin, end);
}

static void cap_scores(float cap, int32_t begin, int32_t end, float *s)
{
    __m256 c = _mm256_set1_ps(cap), inverse = _mm256_set1_ps(1.0f / cap);
    for (int32_t j = begin; j < end; j++) {
        __m256 x = _mm256_mul_ps(_mm256_load_ps(s + j * ROWS), inverse);
        _mm256_store_ps(s + j * ROWS, _mm256_mul_ps(tanh_8(x), c));
    }
}

/* s + addend, −inf where addend is; 8 rows of addend are transposed 8 keys at a time. */
static void add_addend(const float *addend, int64_t ld, int32_t begin, int32_t end, float *s)
{
    const __m256 hidden = _mm256_set1_ps(-INFINITY);
    for (int32_t from = begin & ~7; from < end; from += 8) {
        __m256 a[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            a[i] = _mm256_load_ps(addend + i * ld + from);
        }
        attn_flash_transpose_avx2(a);
        int32_t first = from < begin ? begin : from, last = from + 8 < end ? from + 8 : end;
        for (int32_t j = first; j < last; j++) {
            __m256 plus = a[j - from];
            __m256 sum = _mm256_add_ps(_mm256_load_ps(s + j * ROWS), plus);
            __m256 masked = _mm256_cmp_ps(plus, hidden, _CMP_EQ_OQ);
            _mm256_store_ps(s + j * ROWS, _mm256_blendv_ps(sum, hidden, masked));
        }
    }
}

void attn_flash_modify_avx2(const attn_flash_tile *tile, float cap, const float *addend, int64_t ld,
                            float *s, float *maximum)
{
    const __m256 hidden = _mm256_set1_ps(-INFINITY);
    for (int32_t lane = 0; lane < tile->rows; lane += WIDTH) {
        int32_t begin, end;
        float *column = s + lane;
        group_keys(tile, lane, &begin, &end);
        if (cap > 0.0f) {
            cap_scores(cap, begin, end, column);
        }
        if (addend) {
            add_addend(addend + lane * ld, ld, begin, end, column);
        }
        __m256 top = _mm256_load_ps(maximum + lane);
        if (!tile->partial) {
            for (int32_t j = begin; j < end; j++) {
                top = _mm256_max_ps(top, _mm256_load_ps(column + j * ROWS));
            }
        } else {
            __m256i lo = _mm256_load_si256((const __m256i *)(tile->lo + lane));
            __m256i hi = _mm256_load_si256((const __m256i *)(tile->hi + lane));
            for (int32_t j = begin; j < end; j++) {
                __m256i key = _mm256_set1_epi32(j);
                __m256i in =
                    _mm256_andnot_si256(_mm256_cmpgt_epi32(lo, key), _mm256_cmpgt_epi32(hi, key));
                __m256 x = _mm256_blendv_ps(hidden, _mm256_load_ps(column + j * ROWS),
                                            _mm256_castsi256_ps(in));
                _mm256_store_ps(column + j * ROWS, x);
                top = _mm256_max_ps(top, x);
            }
        }
        _mm256_store_ps(maximum + lane, top);
    }
}

void attn_flash_argmax_avx2(const attn_flash_tile *tile, const float *s, const float *maximum,
                            int32_t *key)
{
    for (int32_t lane = 0; lane < tile->rows; lane += WIDTH) {
        int32_t begin, end;
        group_keys(tile, lane, &begin, &end);
        __m256 top = _mm256_load_ps(maximum + lane);
        __m256i found = _mm256_load_si256((const __m256i *)(key + lane));
        for (int32_t j = begin; j < end; j++) {
            __m256 equal = _mm256_cmp_ps(_mm256_load_ps(s + j * ROWS + lane), top, _CMP_EQ_OQ);
            found = _mm256_blendv_epi8(found, _mm256_set1_epi32(j), _mm256_castps_si256(equal));
        }
        _mm256_store_si256((__m256i *)(key + lane), found);
    }
}

/* Weights of 8 rows over keys begin … end−1, and their sum. */
static inline __m256 weigh(float *s, int32_t begin, int32_t end, __m256 from)
{
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    int32_t j = begin;
    for (; j + 4 <= end; j += 4) {
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++) {
            __m256 x = _mm256_load_ps(s + (j + n) * ROWS);
            __m256 p = attn_flash_exp_avx2(_mm256_sub_ps(x, from));
            sum[n] = _mm256_add_ps(sum[n], p);
            _mm256_store_ps(s + (j + n) * ROWS, p);
        }
    }
    for (; j < end; j++) {
        __m256 p = attn_flash_exp_avx2(_mm256_sub_ps(_mm256_load_ps(s + j * ROWS), from));
        sum[0] = _mm256_add_ps(sum[0], p);
        _mm256_store_ps(s + j * ROWS, p);
    }
    return _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
}

void attn_flash_softmax_avx2(const attn_flash_tile *tile, const float *maximum, float *s, float *m,
                             float *l, float *alpha)
{
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    for (int32_t lane = 0; lane < (tile->rows + 15) / 16 * 16; lane += WIDTH) {
        int32_t begin, end;
        group_keys(tile, lane, &begin, &end);
        __m256 top = _mm256_load_ps(maximum + lane);
        __m256 nothing = _mm256_cmp_ps(top, lowest, _CMP_EQ_OQ);
        __m256 from = _mm256_andnot_ps(nothing, top); /* 0 where nothing was attended yet */
        __m256 shrink = attn_flash_exp_avx2(_mm256_sub_ps(_mm256_load_ps(m + lane), from));
        /*
         * Values are summed over rows of different groups: keys that this group leaves out weigh 0.
         */
        for (int32_t j = 0; j < begin; j++) {
            _mm256_store_ps(s + j * ROWS + lane, _mm256_setzero_ps());
        }
        __m256 sum = weigh(s + lane, begin, end, from);
        for (int32_t j = end; j < tile->keys; j++) {
            _mm256_store_ps(s + j * ROWS + lane, _mm256_setzero_ps());
        }
        _mm256_store_ps(l + lane, _mm256_fmadd_ps(_mm256_load_ps(l + lane), shrink, sum));
        _mm256_store_ps(m + lane, top);
        _mm256_store_ps(alpha + lane, shrink);
    }
}
