/*
 * kernels/decode for AVX2 with FMA and F16C.
 *
 * scores: 8 accumulators, R rows × 8/R keys (R rounded up to a power of two), one sum per lane, then one transposing
 * reduction turns them into 8 scores. values: R rows × W vectors of o in registers over the whole chunk. R is a constant in
 * each copy, 1 … 4; more rows are worked off in groups of at most 4, since sixteen registers hold no more.
 */
#include "kernels/decode/decode.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/common/exp_avx2.h"

#define INLINE static inline __attribute__((always_inline))
enum { CHUNK = ATTN_DECODE_CHUNK, GROUP = 4, ALL = 8 };

INLINE int64_t size_of(int type)
{
    return type == ATTN_DECODE_F32 ? 4 : 2;
}

/* Elements 8·i … 8·i+left−1 of a row (left ≤ ALL), zeros after them; nothing else is read. */
INLINE __m256 load(int type, const char *row, int64_t i, int64_t left)
{
    if (type == ATTN_DECODE_F32) {
        const float *at = (const float *)(const void *)row + 8 * i;
        if (left == ALL) {
            return _mm256_loadu_ps(at);
        }
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_maskload_ps(at, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)left), lane));
    }
    __m128i half;
    if (left == ALL) {
        half = _mm_loadu_si128((const __m128i *)(const void *)(row + 16 * i));
    } else {
        uint16_t part[ALL] = {0};
        memcpy(part, row + 16 * i, (size_t)left * sizeof *part);
        half = _mm_loadu_si128((const __m128i *)part);
    }
    if (type == ATTN_DECODE_F16) {
        return _mm256_cvtph_ps(half);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
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
INLINE __m256 reduce8(const __m256 *x)
{
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                         _mm256_permute2f128_ps(low, high, 0x31));
}

/* sum[r·keys + x] += q_r · row[x] over vector i. */
INLINE void multiply(int type, int rows, int keys, const float *q, int64_t q_stride,
                     const char *const *row, int64_t i, int64_t left, __m256 *sum)
{
    __m256 k[8];
#pragma GCC unroll 8
    for (int x = 0; x < keys; x++) {
        k[x] = load(type, row[x], i, left);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        __m256 query = _mm256_load_ps(q + r * q_stride + 8 * i);
#pragma GCC unroll 8
        for (int x = 0; x < keys; x++) {
            sum[r * keys + x] = _mm256_fmadd_ps(query, k[x], sum[r * keys + x]);
        }
    }
}

/* Sums of `rows` × `keys` keys from key j on; keys past the last are the last one again. */
INLINE void score_keys(int type, int rows, int keys, const float *q, int64_t q_stride,
                       const attn_decode_block *k, int64_t j, __m256 *sum,
                       const attn_decode_ahead *ahead)
{
    const char *row[8];
    __m256 odd[8];
    const int64_t full = k->dim / 8, vector = 8 * size_of(type);
#pragma GCC unroll 8
    for (int x = 0; x < keys; x++) {
        int64_t at = j + x < k->count ? j + x : k->count - 1;
        row[x] = (const char *)k->data + at * k->stride * size_of(type);
        odd[x] = _mm256_setzero_ps();
    }
#pragma GCC unroll 8
    for (int x = 0; x < rows * keys; x++) {
        sum[x] = _mm256_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 2 <= full; i += 2) {
        if (i * vector % 64 == 0 && i * vector < ahead->bytes) {
            prefetch(ahead, j, keys, i * vector);
        }
        /* with one query, two chains a key: they cover the latency of FMA */
        multiply(type, rows, keys, q, q_stride, row, i, ALL, sum);
        multiply(type, rows, keys, q, q_stride, row, i + 1, ALL, rows == 1 ? odd : sum);
    }
    for (int64_t at = (i * vector + 63) / 64 * 64; at < ahead->bytes; at += 64) {
        prefetch(ahead, j, keys, at);
    }
    if (i < full) {
        multiply(type, rows, keys, q, q_stride, row, i, ALL, sum);
        i++;
    }
    if (k->dim % 8) {
        multiply(type, rows, keys, q, q_stride, row, i, k->dim % 8, sum);
    }
    if (rows == 1) {
#pragma GCC unroll 8
        for (int x = 0; x < keys; x++) {
            sum[x] = _mm256_add_ps(sum[x], odd[x]);
        }
    }
}

INLINE void score_rows(int type, int rows, const float *q, int64_t q_stride,
                       const attn_decode_block *k, float *s, const attn_decode_ahead *ahead)
{
    const int keys = rows == 1 ? 8 : rows == 2 ? 4 : 2;
    for (int64_t j = 0; j < k->count; j += keys) {
        __m256 sum[8];
        float score[8] __attribute__((aligned(32)));
        if (rows == 1) { /* four keys at a time: reads stay close together */
            score_keys(type, 1, 4, q, q_stride, k, j, sum, ahead);
            score_keys(type, 1, 4, q, q_stride, k, j + 4, sum + 4, ahead);
        } else {
            score_keys(type, rows, keys, q, q_stride, k, j, sum, ahead);
#pragma GCC unroll 8
            for (int x = rows * keys; x < 8; x++) {
                sum[x] = _mm256_setzero_ps();
            }
        }
        _mm256_store_ps(score, reduce8(sum));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            memcpy(s + r * CHUNK + j, score + r * keys, (size_t)keys * sizeof(float));
        }
    }
}

/* Vectors i … i+width−1 of o for `rows` rows over the whole chunk. */
INLINE void value_block(int type, int rows, int width, const float *s, const float *alpha,
                        const attn_decode_block *v, int64_t i, int64_t left, float *o,
                        int64_t o_stride, const attn_decode_ahead *ahead)
{
    __m256 sum[12];
#pragma GCC unroll 12
    for (int x = 0; x < rows * width; x++) {
        sum[x] = _mm256_setzero_ps();
    }
    const char *row = v->data;
    for (int64_t j = 0; j < v->count; j++, row += v->stride * size_of(type)) {
        for (int64_t at = 0; ahead && at < ahead->bytes; at += 64) {
            prefetch(ahead, j, 1, at);
        }
        __m256 value[8];
#pragma GCC unroll 8
        for (int w = 0; w < width; w++) {
            value[w] = load(type, row, i + w, left);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256 weight = _mm256_broadcast_ss(s + r * CHUNK + j);
#pragma GCC unroll 8
            for (int w = 0; w < width; w++) {
                sum[r * width + w] = _mm256_fmadd_ps(weight, value[w], sum[r * width + w]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        float *out = o + r * o_stride + 8 * i;
#pragma GCC unroll 8
        for (int w = 0; w < width; w++) {
            __m256 old = _mm256_load_ps(out + 8 * w);
            _mm256_store_ps(out + 8 * w,
                            _mm256_fmadd_ps(old, _mm256_set1_ps(alpha[r]), sum[r * width + w]));
        }
    }
}

INLINE void value_rows(int type, int rows, const float *s, const float *alpha,
                       const attn_decode_block *v, float *o, int64_t o_stride,
                       const attn_decode_ahead *ahead)
{
    const int width = rows == 1 ? 8 : rows == 2 ? 4 : 2;
    const int64_t full = v->dim / 8;
    const attn_decode_ahead *next = ahead->bytes > 0 ? ahead : NULL; /* with the first block only */
    int64_t i = 0;
    for (; i + width <= full; i += width, next = NULL) {
        value_block(type, rows, width, s, alpha, v, i, ALL, o, o_stride, next);
    }
    for (; i < full; i++, next = NULL) {
        value_block(type, rows, 1, s, alpha, v, i, ALL, o, o_stride, next);
    }
    if (v->dim % 8) {
        value_block(type, rows, 1, s, alpha, v, i, v->dim % 8, o, o_stride, next);
    }
}

INLINE float lane_max(__m256 x)
{
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_shuffle_ps(y, y, 1)));
}

INLINE float lane_sum(__m256 x)
{
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_shuffle_ps(y, y, 1)));
}

static void softmax(float *s, int64_t rows, int64_t count, float scale, float *m, float *l,
                    float *alpha)
{
    const __m256 hidden = _mm256_set1_ps(-INFINITY), factor = _mm256_set1_ps(scale);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int64_t r = 0; r < rows; r++, s += CHUNK) {
        __m256 top = hidden, sum = _mm256_setzero_ps();
        for (int i = 0; i < CHUNK; i += 8) {
            __m256i held = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count - i), lane);
            __m256 x = _mm256_mul_ps(_mm256_loadu_ps(s + i), factor);
            x = _mm256_blendv_ps(hidden, x, _mm256_castsi256_ps(held));
            top = _mm256_max_ps(x, top); /* this order leaves NaN out */
            _mm256_storeu_ps(s + i, x);
        }
        float old = m[r], max = lane_max(top);
        max = max > old ? max : old;
        float base = max == -INFINITY ? 0.0f : max; /* −inf − −inf would be NaN */
        for (int i = 0; i < CHUNK; i += 8) {
            __m256 x = _mm256_sub_ps(_mm256_loadu_ps(s + i), _mm256_set1_ps(base));
            x = attn_exp_avx2(x);
            sum = _mm256_add_ps(sum, x);
            _mm256_storeu_ps(s + i, x);
        }
        alpha[r] = _mm256_cvtss_f32(attn_exp_avx2(_mm256_set1_ps(old - base)));
        l[r] = l[r] * alpha[r] + lane_sum(sum);
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

/* Even groups of at most GROUP rows, the larger ones first; the first one prefetches. */
INLINE int64_t group_rows(int64_t left)
{
    int64_t groups = (left + GROUP - 1) / GROUP;
    return (left + groups - 1) / groups;
}

#define DECODE_TYPE(type, TYPE)                                                                 \
    DECODE_ROWS(type, TYPE, 1)                                                                  \
    DECODE_ROWS(type, TYPE, 2)                                                                  \
    DECODE_ROWS(type, TYPE, 3)                                                                  \
    DECODE_ROWS(type, TYPE, 4)                                                                  \
    static void scores_##type(const float *q, int64_t q_stride, int64_t rows,                   \
                              const attn_decode_block *k, float *s,                             \
                              const attn_decode_ahead *ahead)                                   \
    {                                                                                           \
        static const scores_function table[GROUP] = {scores_##type##_1, scores_##type##_2,      \
                                                     scores_##type##_3, scores_##type##_4};     \
        const attn_decode_ahead none = {0};                                                     \
        assert(rows >= 1 && rows <= ATTN_DECODE_ROWS && k->count >= 1 && k->count <= CHUNK);    \
        for (int64_t r = 0, n; r < rows; r += n) {                                              \
            n = group_rows(rows - r);                                                           \
            table[n - 1](q + r * q_stride, q_stride, k, s + r * CHUNK, r == 0 ? ahead : &none); \
        }                                                                                       \
    }                                                                                           \
    static void values_##type(const float *s, int64_t rows, const float *alpha,                 \
                              const attn_decode_block *v, float *o, int64_t o_stride,           \
                              const attn_decode_ahead *ahead)                                   \
    {                                                                                           \
        static const values_function table[GROUP] = {values_##type##_1, values_##type##_2,      \
                                                     values_##type##_3, values_##type##_4};     \
        const attn_decode_ahead none = {0};                                                     \
        assert(rows >= 1 && rows <= ATTN_DECODE_ROWS && v->count >= 1 && v->count <= CHUNK);    \
        for (int64_t r = 0, n; r < rows; r += n) {                                              \
            n = group_rows(rows - r);                                                           \
            table[n - 1](s + r * CHUNK, alpha + r, v, o + r * o_stride, o_stride,               \
                         r == 0 ? ahead : &none);                                               \
        }                                                                                       \
    }

DECODE_TYPE(f32, ATTN_DECODE_F32)
DECODE_TYPE(bf16, ATTN_DECODE_BF16)
DECODE_TYPE(f16, ATTN_DECODE_F16)

const attn_decode_kernels attn_decode_avx2 = {
    .name = {"decode_f32_avx2", "decode_bf16_avx2", "decode_f16_avx2"},
    .scores = {scores_f32, scores_bf16, scores_f16},
    .values = {values_f32, values_bf16, values_f16},
    .softmax = softmax,
};
