/*
 * kernels/flash for AVX-512: what lies between the two products: cap, bias, masks, and the online
 * softmax.
 */
#include "kernels/flash/flash_avx512.h"

#include <math.h>

enum { ROWS = ATTN_FLASH_ROWS, LANES = ATTN_FLASH_LANES };

/*
 * tanh: x + x³·P(x²) below 0.625 (4.4e-9 relative: small scores under a large cap must keep all
 * their bits), else (1 − e)/(1 + e) with e = exp(−2|x|), and x's sign.
 */
static inline __m512 tanh_16(__m512 x)
{
    __m512 size = _mm512_abs_ps(x), square = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(-0x1.75e1cap-8f);
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(0x1.52269ap-6f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-0x1.b83c5ap-5f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(0x1.110726p-3f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-0x1.555532p-2f));
    __m512 low = _mm512_fmadd_ps(_mm512_mul_ps(p, square), x, x);
    __m512 one = _mm512_set1_ps(1.0f);
    __m512 e = attn_flash_exp_avx512(_mm512_mul_ps(size, _mm512_set1_ps(-2.0f)));
    __m512 high = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    high = _mm512_or_ps(high, _mm512_and_ps(x, _mm512_set1_ps(-0.0f)));
    __mmask16 small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0.625f), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(small, high, low);
}

/* Keys of the tile that the 16 lanes from `lane` attend to at all. */
static inline void group_keys(const attn_flash_tile *tile, int32_t lane, int32_t *begin,
                              int32_t *end)
{
    attn_flash_keys(tile, lane, lane + LANES, begin, end);
}

static void cap_scores(float cap, int32_t begin, int32_t end, float *s)
{
    __m512 c = _mm512_set1_ps(cap), inverse = _mm512_set1_ps(1.0f / cap);
    for (int32_t j = begin; j < end; j++) {
        __m512 x = _mm512_mul_ps(_mm512_load_ps(s + j * ROWS), inverse);
        _mm512_store_ps(s + j * ROWS, _mm512_mul_ps(tanh_16(x), c));
    }
}

/* s + addend, −inf where addend is; 16 rows of addend are transposed 16 keys at a time. */
static void add_addend(const float *addend, int64_t ld, int32_t begin, int32_t end, float *s)
{
    const __m512 hidden = _mm512_set1_ps(-INFINITY);
    for (int32_t from = begin & ~15; from < end; from += 16) {
        __m512 a[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            a[i] = _mm512_load_ps(addend + i * ld + from);
        }
        attn_flash_transpose_avx512(a);
        int32_t first = from < begin ? begin : from, last = from + 16 < end ? from + 16 : end;
        for (int32_t j = first; j < last; j++) {
            __m512 plus = a[j - from];
            __m512 sum = _mm512_add_ps(_mm512_load_ps(s + j * ROWS), plus);
            __mmask16 masked = _mm512_cmp_ps_mask(plus, hidden, _CMP_EQ_OQ);
            _mm512_store_ps(s + j * ROWS, _mm512_mask_blend_ps(masked, sum, hidden));
        }
    }
}

/* Lanes whose interval holds key j. */
static inline __mmask16 inside(int32_t j, __m512i lo, __m512i hi)
{
    __m512i key = _mm512_set1_epi32(j);
    return _mm512_mask_cmplt_epi32_mask(_mm512_cmple_epi32_mask(lo, key), key, hi);
}

void attn_flash_modify_avx512(const attn_flash_tile *tile, float cap, const float *addend,
                              int64_t ld, float *s, float *maximum)
{
    for (int32_t lane = 0; lane < tile->rows; lane += LANES) {
        int32_t begin, end;
        float *column = s + lane;
        group_keys(tile, lane, &begin, &end);
        if (cap > 0.0f) {
            cap_scores(cap, begin, end, column);
        }
        if (addend) {
            add_addend(addend + lane * ld, ld, begin, end, column);
        }
        __m512 top = _mm512_load_ps(maximum + lane);
        if (!tile->partial) {
            for (int32_t j = begin; j < end; j++) {
                top = _mm512_max_ps(top, _mm512_load_ps(column + j * ROWS));
            }
        } else {
            __m512i lo = _mm512_load_si512(tile->lo + lane),
                    hi = _mm512_load_si512(tile->hi + lane);
            for (int32_t j = begin; j < end; j++) {
                __m512 x = _mm512_mask_blend_ps(inside(j, lo, hi), _mm512_set1_ps(-INFINITY),
                                                _mm512_load_ps(column + j * ROWS));
                _mm512_store_ps(column + j * ROWS, x);
                top = _mm512_max_ps(top, x);
            }
        }
        _mm512_store_ps(maximum + lane, top);
    }
}

void attn_flash_argmax_avx512(const attn_flash_tile *tile, const float *s, const float *maximum,
                              int32_t *key)
{
    for (int32_t lane = 0; lane < tile->rows; lane += LANES) {
        int32_t begin, end;
        group_keys(tile, lane, &begin, &end);
        __m512 top = _mm512_load_ps(maximum + lane);
        __m512i found = _mm512_load_si512(key + lane);
        for (int32_t j = begin; j < end; j++) {
            __m512 x = _mm512_load_ps(s + j * ROWS + lane);
            __mmask16 equal = _mm512_cmp_ps_mask(x, top, _CMP_EQ_OQ);
            found = _mm512_mask_set1_epi32(found, equal, j);
        }
        _mm512_store_si512(key + lane, found);
    }
}

/* Weights of 16 rows over keys begin … end−1, and their sum. */
static inline __m512 weigh(float *s, int32_t begin, int32_t end, __m512 from)
{
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                     _mm512_setzero_ps()};
    int32_t j = begin;
    for (; j + 4 <= end; j += 4) {
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++) {
            __m512 x = _mm512_load_ps(s + (j + n) * ROWS);
            __m512 p = attn_flash_exp_avx512(_mm512_sub_ps(x, from));
            sum[n] = _mm512_add_ps(sum[n], p);
            _mm512_store_ps(s + (j + n) * ROWS, p);
        }
    }
    for (; j < end; j++) {
        __m512 p = attn_flash_exp_avx512(_mm512_sub_ps(_mm512_load_ps(s + j * ROWS), from));
        sum[0] = _mm512_add_ps(sum[0], p);
        _mm512_store_ps(s + j * ROWS, p);
    }
    return _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
}

void attn_flash_softmax_avx512(const attn_flash_tile *tile, const float *maximum, float *s,
                               float *m, float *l, float *alpha)
{
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    for (int32_t lane = 0; lane < tile->rows; lane += LANES) {
        int32_t begin, end;
        group_keys(tile, lane, &begin, &end);
        __m512 top = _mm512_load_ps(maximum + lane);
        __mmask16 nothing = _mm512_cmp_ps_mask(top, lowest, _CMP_EQ_OQ);
        __m512 from = _mm512_mask_blend_ps(nothing, top, _mm512_setzero_ps());
        __m512 shrink = attn_flash_exp_avx512(_mm512_sub_ps(_mm512_load_ps(m + lane), from));
        /*
         * Values are summed over rows of different groups: keys that this group leaves out weigh 0.
         */
        for (int32_t j = 0; j < begin; j++) {
            _mm512_store_ps(s + j * ROWS + lane, _mm512_setzero_ps());
        }
        __m512 sum = weigh(s + lane, begin, end, from);
        for (int32_t j = end; j < tile->keys; j++) {
            _mm512_store_ps(s + j * ROWS + lane, _mm512_setzero_ps());
        }
        _mm512_store_ps(l + lane, _mm512_fmadd_ps(_mm512_load_ps(l + lane), shrink, sum));
        _mm512_store_ps(m + lane, top);
        _mm512_store_ps(alpha + lane, shrink);
    }
}
