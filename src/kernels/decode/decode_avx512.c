/*
 * kernels/decode for AVX-512.
 *
 * scores: 16 accumulators, R rows × 16/R keys (R rounded up to a power of two), one sum per lane, then one transposing reduction
 * turns them into 16 scores. values: R rows × W vectors of o in registers over the whole chunk. R is a constant in each
 * copy, so that accumulators stay in registers; more than 8 rows are worked off in two even groups.
 */
#include "kernels/decode/decode.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>

#include "kernels/common/exp_avx512.h"

#define INLINE static inline __attribute__((always_inline))
enum { CHUNK = ATTN_DECODE_CHUNK, GROUP = 8 };

INLINE int64_t size_of(int type)
{
    return type == ATTN_DECODE_F32 ? 4 : 2;
}

/* Elements 16·i … 16·i+15 of a row, those outside `mask` zero and not read. */
INLINE __m512 load(int type, const char *row, int64_t i, __mmask16 mask)
{
    if (type == ATTN_DECODE_F32) {
        return _mm512_maskz_loadu_ps(mask, row + 64 * i);
    }
    __m256i half = _mm256_maskz_loadu_epi16(mask, row + 32 * i);
    if (type == ATTN_DECODE_F16) {
        return _mm512_cvtph_ps(half);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE __mmask16 tail_of(int64_t dim)
{
    return (__mmask16)((1u << (dim % 16)) - 1u);
}

/*
 * One line of each of `count` rows from row `from` on of what the next stage reads, `at` bytes into the row, to L2. Called as often as
 * this stage reads as much itself: a burst of prefetches would wait for free buffers.
 */
INLINE void prefetch(const attn_decode_ahead *ahead, int64_t from, int count, int64_t at)
{
#pragma GCC unroll 16
    for (int x = 0; x < count; x++) {
        int64_t row = from + x < ahead->rows ? from + x : ahead->rows - 1;
        _mm_prefetch(ahead->base + row * ahead->stride + at, _MM_HINT_T1);
    }
}

/* Lane i: the sum of x[i]'s lanes. */
INLINE __m512 reduce16(const __m512 *x)
{
    __m512 two[8], four[4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        two[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]),
                               _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512d even = _mm512_castps_pd(two[2 * i]), odd = _mm512_castps_pd(two[2 * i + 1]);
        four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(even, odd)),
                                _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd)));
    }
    __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x88),
                               _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
    __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x88),
                                _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88),
                         _mm512_shuffle_f32x4(low, high, 0xdd));
}

/* sum[r·keys + x] += q_r · row[x] over vector i. */
INLINE void multiply(int type, int rows, int keys, const float *q, int64_t q_stride,
                     const char *const *row, int64_t i, __mmask16 mask, __m512 *sum)
{
    __m512 k[16];
#pragma GCC unroll 16
    for (int x = 0; x < keys; x++) {
        k[x] = load(type, row[x], i, mask);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        __m512 query = _mm512_load_ps(q + r * q_stride + 16 * i);
#pragma GCC unroll 16
        for (int x = 0; x < keys; x++) {
            sum[r * keys + x] = _mm512_fmadd_ps(query, k[x], sum[r * keys + x]);
        }
    }
}

/* Sums of `rows` × `keys` keys from key j on; keys past the last are the last one again. */
INLINE void score_keys(int type, int rows, int keys, const float *q, int64_t q_stride,
                       const attn_decode_block *k, int64_t j, __m512 *sum,
                       const attn_decode_ahead *ahead)
{
    const char *row[16];
    __m512 odd[16];
    const int64_t full = k->dim / 16, vector = 16 * size_of(type);
#pragma GCC unroll 16
    for (int x = 0; x < keys; x++) {
        int64_t at = j + x < k->count ? j + x : k->count - 1;
        row[x] = (const char *)k->data + at * k->stride * size_of(type);
        odd[x] = _mm512_setzero_ps();
    }
#pragma GCC unroll 16
    for (int x = 0; x < rows * keys; x++) {
        sum[x] = _mm512_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 2 <= full; i += 2) {
        if (i * vector % 64 == 0 && i * vector < ahead->bytes) {
            prefetch(ahead, j, keys, i * vector);
        }
        /* with one query, two chains a key: they cover the latency of FMA */
        multiply(type, rows, keys, q, q_stride, row, i, 0xffff, sum);
        multiply(type, rows, keys, q, q_stride, row, i + 1, 0xffff, rows == 1 ? odd : sum);
    }
    for (int64_t at = (i * vector + 63) / 64 * 64; at < ahead->bytes; at += 64) {
        prefetch(ahead, j, keys, at);
    }
    if (i < full) {
        multiply(type, rows, keys, q, q_stride, row, i, 0xffff, sum);
        i++;
    }
    if (k->dim % 16) {
        multiply(type, rows, keys, q, q_stride, row, i, tail_of(k->dim), sum);
    }
    if (rows == 1) {
#pragma GCC unroll 16
        for (int x = 0; x < keys; x++) {
            sum[x] = _mm512_add_ps(sum[x], odd[x]);
        }
    }
}

INLINE void score_rows(int type, int rows, const float *q, int64_t q_stride,
                       const attn_decode_block *k, float *s, const attn_decode_ahead *ahead)
{
    const int keys = rows == 1 ? 16 : rows == 2 ? 8 : rows <= 4 ? 4 : 2;
    for (int64_t j = 0; j < k->count; j += keys) {
        __m512 sum[16];
        float score[16] __attribute__((aligned(64)));
        if (rows == 1) { /* four keys at a time: reads stay close together */
#pragma GCC unroll 4
            for (int x = 0; x < 16; x += 4) {
                score_keys(type, 1, 4, q, q_stride, k, j + x, sum + x, ahead);
            }
        } else {
            score_keys(type, rows, keys, q, q_stride, k, j, sum, ahead);
#pragma GCC unroll 16
            for (int x = rows * keys; x < 16; x++) {
                sum[x] = _mm512_setzero_ps();
            }
        }
        _mm512_store_ps(score, reduce16(sum));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __builtin_memcpy(s + r * CHUNK + j, score + r * keys, (size_t)keys * sizeof(float));
        }
    }
}

/* Vectors i … i+width−1 of o for `rows` rows over the whole chunk. */
INLINE void value_block(int type, int rows, int width, const float *s, const float *alpha,
                        const attn_decode_block *v, int64_t i, __mmask16 mask, float *o,
                        int64_t o_stride, const attn_decode_ahead *ahead)
{
    __m512 sum[24];
#pragma GCC unroll 24
    for (int x = 0; x < rows * width; x++) {
        sum[x] = _mm512_setzero_ps();
    }
    const char *row = v->data;
    for (int64_t j = 0; j < v->count; j++, row += v->stride * size_of(type)) {
        for (int64_t at = 0; ahead && at < ahead->bytes; at += 64) {
            prefetch(ahead, j, 1, at);
        }
        __m512 weight[8];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            weight[r] = _mm512_set1_ps(s[r * CHUNK + j]);
        }
#pragma GCC unroll 8
        for (int w = 0; w < width; w++) {
            __m512 value = load(type, row, i + w, mask);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                sum[r * width + w] = _mm512_fmadd_ps(weight[r], value, sum[r * width + w]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        float *out = o + r * o_stride + 16 * i;
#pragma GCC unroll 8
        for (int w = 0; w < width; w++) {
            __m512 old = _mm512_load_ps(out + 16 * w);
            _mm512_store_ps(out + 16 * w,
                            _mm512_fmadd_ps(old, _mm512_set1_ps(alpha[r]), sum[r * width + w]));
        }
    }
}

INLINE void value_rows(int type, int rows, const float *s, const float *alpha,
                       const attn_decode_block *v, float *o, int64_t o_stride,
                       const attn_decode_ahead *ahead)
{
    const int width = rows <= 3 ? 8 : rows == 4 ? 4 : 2;
    const int64_t full = v->dim / 16;
    const attn_decode_ahead *next = ahead->bytes > 0 ? ahead : NULL; /* with the first block only */
    int64_t i = 0;
    for (; i + width <= full; i += width, next = NULL) {
        value_block(type, rows, width, s, alpha, v, i, 0xffff, o, o_stride, next);
    }
    if (width > 4 && i + 4 <= full) {
        value_block(type, rows, 4, s, alpha, v, i, 0xffff, o, o_stride, next);
        i += 4;
        next = NULL;
    }
    for (; i < full; i++, next = NULL) {
        value_block(type, rows, 1, s, alpha, v, i, 0xffff, o, o_stride, next);
    }
    if (v->dim % 16) {
        value_block(type, rows, 1, s, alpha, v, i, tail_of(v->dim), o, o_stride, next);
    }
}

static void softmax(float *s, int64_t rows, int64_t count, float scale, float *m, float *l,
                    float *alpha)
{
    const __m512 hidden = _mm512_set1_ps(-INFINITY), factor = _mm512_set1_ps(scale);
    for (int64_t r = 0; r < rows; r++, s += CHUNK) {
        __m512 x[CHUNK / 16], top = hidden, sum = _mm512_setzero_ps();
#pragma GCC unroll 4
        for (int i = 0; i < CHUNK / 16; i++) {
            int64_t left = count - 16 * i;
            __mmask16 mask = (__mmask16)(left >= 16 ? 0xffffu : left > 0 ? (1u << left) - 1u : 0u);
            x[i] = _mm512_mask_mul_ps(hidden, mask, _mm512_load_ps(s + 16 * i), factor);
            top = _mm512_max_ps(x[i], top); /* this order leaves NaN out */
        }
        float old = m[r], max = _mm512_reduce_max_ps(top);
        max = max > old ? max : old;
        float base = max == -INFINITY ? 0.0f : max; /* −inf − −inf would be NaN */
#pragma GCC unroll 4
        for (int i = 0; i < CHUNK / 16; i++) {
            x[i] = attn_exp_avx512(_mm512_sub_ps(x[i], _mm512_set1_ps(base)));
            sum = _mm512_add_ps(sum, x[i]);
            _mm512_store_ps(s + 16 * i, x[i]);
        }
        alpha[r] = _mm512_cvtss_f32(attn_exp_avx512(_mm512_set1_ps(old - base)));
        l[r] = l[r] * alpha[r] + _mm512_reduce_add_ps(sum);
        m[r] = max;
    }
}

#define DECODE_ROWS(type, TYPE, R)                                                                \
    static void scores_##type##_##R(const float *q, int64_t q_stride, const attn_decode_block *k, \
                                    float *s, const attn_decode_ahead *ahead)                     \
    {                                                                                             \
        score_rows(TYPE, R, q, q_stride, k, s, ahead);                                            \
    }                                                                                             \
    static void values_##type##_##R(const float *s, const float *alpha,                           \
                                    const attn_decode_block *v, float *o, int64_t o_stride,       \
                                    const attn_decode_ahead *ahead)                               \
    {                                                                                             \
        value_rows(TYPE, R, s, alpha, v, o, o_stride, ahead);                                     \
    }

typedef void (*scores_function)(const float *, int64_t, const attn_decode_block *, float *,
                                const attn_decode_ahead *);
typedef void (*values_function)(const float *, const float *, const attn_decode_block *, float *,
                                int64_t, const attn_decode_ahead *);

#define EACH_ROWS(X, ...) \
    X(__VA_ARGS__, 1)     \
    X(__VA_ARGS__, 2)     \
    X(__VA_ARGS__, 3)     \
    X(__VA_ARGS__, 4)     \
    X(__VA_ARGS__, 5)     \
    X(__VA_ARGS__, 6)     \
    X(__VA_ARGS__, 7)     \
    X(__VA_ARGS__, 8)

/* The first of two groups is the larger one, and prefetches. */
#define DECODE_TYPE(type, TYPE)                                                                   \
    EACH_ROWS(DECODE_ROWS, type, TYPE)                                                            \
    static void scores_##type(const float *q, int64_t q_stride, int64_t rows,                     \
                              const attn_decode_block *k, float *s,                               \
                              const attn_decode_ahead *ahead)                                     \
    {                                                                                             \
        static const scores_function table[GROUP] = {                                             \
            scores_##type##_1, scores_##type##_2, scores_##type##_3, scores_##type##_4,           \
            scores_##type##_5, scores_##type##_6, scores_##type##_7, scores_##type##_8};          \
        const attn_decode_ahead none = {0};                                                       \
        int64_t first = rows > GROUP ? (rows + 1) / 2 : rows;                                     \
        assert(rows >= 1 && rows <= ATTN_DECODE_ROWS && k->count >= 1 && k->count <= CHUNK);      \
        table[first - 1](q, q_stride, k, s, ahead);                                               \
        if (rows > first) {                                                                       \
            table[rows - first - 1](q + first * q_stride, q_stride, k, s + first * CHUNK, &none); \
        }                                                                                         \
    }                                                                                             \
    static void values_##type(const float *s, int64_t rows, const float *alpha,                   \
                              const attn_decode_block *v, float *o, int64_t o_stride,             \
                              const attn_decode_ahead *ahead)                                     \
    {                                                                                             \
        static const values_function table[GROUP] = {                                             \
            values_##type##_1, values_##type##_2, values_##type##_3, values_##type##_4,           \
            values_##type##_5, values_##type##_6, values_##type##_7, values_##type##_8};          \
        const attn_decode_ahead none = {0};                                                       \
        int64_t first = rows > GROUP ? (rows + 1) / 2 : rows;                                     \
        assert(rows >= 1 && rows <= ATTN_DECODE_ROWS && v->count >= 1 && v->count <= CHUNK);      \
        table[first - 1](s, alpha, v, o, o_stride, ahead);                                        \
        if (rows > first) {                                                                       \
            table[rows - first - 1](s + first * CHUNK, alpha + first, v, o + first * o_stride,    \
                                    o_stride, &none);                                             \
        }                                                                                         \
    }

DECODE_TYPE(f32, ATTN_DECODE_F32)
DECODE_TYPE(bf16, ATTN_DECODE_BF16)
DECODE_TYPE(f16, ATTN_DECODE_F16)

const attn_decode_kernels attn_decode_avx512 = {
    .name = {"decode_f32_avx512", "decode_bf16_avx512", "decode_f16_avx512"},
    .scores = {scores_f32, scores_bf16, scores_f16},
    .values = {values_f32, values_bf16, values_f16},
    .softmax = softmax,
};
