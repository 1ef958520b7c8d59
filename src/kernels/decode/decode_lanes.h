/**
 * kernels/decode/decode_lanes.h: scores, softmax and values on lanes. Include in decode_<isa>.c, after lanes_<isa>.h and what says how
 * many registers there are:
 *   GROUP, EACH_ROWS(X, …)  the most query rows that are worked on together; X(…, 1) … X(…, GROUP)
 *   share, WHOLE, REST(dim) which lanes of a vector a row has: all, and those of its last vector
 *   load, reduce, width_of  a vector of stored elements, LANES sums of lanes, vectors of o that R rows keep in registers
 *
 * scores: LANES accumulators, R rows × LANES/R keys (R rounded up to a power of two), one sum per lane, then one transposing
 * reduction turns them into LANES scores. values: R rows × width_of(R) vectors of o in registers over the whole chunk. R is a
 * constant in each copy, so that accumulators stay in registers; more rows than GROUP are worked off in even groups.
 */
#ifndef ATTN_KERNELS_DECODE_DECODE_LANES_H
#define ATTN_KERNELS_DECODE_DECODE_LANES_H

#include <assert.h>
#include <math.h>
#include <string.h>

enum { CHUNK = ATTN_DECODE_CHUNK };

INLINE int64_t size_of(int type)
{
    return type == ATTN_DECODE_F32 ? 4 : 2;
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

/* sum[r·keys + x] += q_r · row[x] over vector i. */
INLINE void multiply(int type, int rows, int keys, const float *q, int64_t q_stride,
                     const char *const *row, int64_t i, share part, lanes *sum)
{
    lanes k[LANES];
#pragma GCC unroll 16
    for (int x = 0; x < keys; x++) {
        k[x] = load(type, row[x], i, part);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        lanes query = lanes_load(q + r * q_stride + LANES * i);
#pragma GCC unroll 16
        for (int x = 0; x < keys; x++) {
            sum[r * keys + x] = lanes_fma(query, k[x], sum[r * keys + x]);
        }
    }
}

/* Sums of `rows` × `keys` keys from key j on; keys past the last are the last one again. */
INLINE void score_keys(int type, int rows, int keys, const float *q, int64_t q_stride,
                       const attn_decode_block *k, int64_t j, lanes *sum,
                       const attn_decode_ahead *ahead)
{
    const char *row[LANES];
    lanes odd[LANES];
    const int64_t full = k->dim / LANES, vector = LANES * size_of(type);
#pragma GCC unroll 16
    for (int x = 0; x < keys; x++) {
        int64_t at = j + x < k->count ? j + x : k->count - 1;
        row[x] = (const char *)k->data + at * k->stride * size_of(type);
        odd[x] = lanes_set(0.0f);
    }
#pragma GCC unroll 16
    for (int x = 0; x < rows * keys; x++) {
        sum[x] = lanes_set(0.0f);
    }
    int64_t i = 0;
    for (; i + 2 <= full; i += 2) {
        if (i * vector % 64 == 0 && i * vector < ahead->bytes) {
            prefetch(ahead, j, keys, i * vector);
        }
        /* with one query, two chains a key: they cover the latency of FMA */
        multiply(type, rows, keys, q, q_stride, row, i, WHOLE, sum);
        multiply(type, rows, keys, q, q_stride, row, i + 1, WHOLE, rows == 1 ? odd : sum);
    }
    for (int64_t at = (i * vector + 63) / 64 * 64; at < ahead->bytes; at += 64) {
        prefetch(ahead, j, keys, at);
    }
    if (i < full) {
        multiply(type, rows, keys, q, q_stride, row, i, WHOLE, sum);
        i++;
    }
    if (k->dim % LANES) {
        multiply(type, rows, keys, q, q_stride, row, i, REST(k->dim), sum);
    }
    if (rows == 1) {
#pragma GCC unroll 16
        for (int x = 0; x < keys; x++) {
            sum[x] = sum[x] + odd[x];
        }
    }
}

INLINE void score_rows(int type, int rows, const float *q, int64_t q_stride,
                       const attn_decode_block *k, float *s, const attn_decode_ahead *ahead)
{
    const int keys = LANES / (rows <= 2 ? rows : rows <= 4 ? 4 : 8);
    for (int64_t j = 0; j < k->count; j += keys) {
        lanes sum[LANES];
        float score[LANES] __attribute__((aligned(64)));
        if (rows == 1) { /* four keys at a time: reads stay close together */
#pragma GCC unroll 4
            for (int x = 0; x < LANES; x += 4) {
                score_keys(type, 1, 4, q, q_stride, k, j + x, sum + x, ahead);
            }
        } else {
            score_keys(type, rows, keys, q, q_stride, k, j, sum, ahead);
#pragma GCC unroll 16
            for (int x = rows * keys; x < LANES; x++) {
                sum[x] = lanes_set(0.0f);
            }
        }
        lanes_store(score, reduce(sum));
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            memcpy(s + r * CHUNK + j, score + r * keys, (size_t)keys * sizeof(float));
        }
    }
}

/* Vectors i … i+width−1 of o for `rows` rows over the whole chunk. */
INLINE void value_block(int type, int rows, int width, const float *s, const float *alpha,
                        const attn_decode_block *v, int64_t i, share part, float *o,
                        int64_t o_stride, const attn_decode_ahead *ahead)
{
    lanes sum[24];
#pragma GCC unroll 24
    for (int x = 0; x < rows * width; x++) {
        sum[x] = lanes_set(0.0f);
    }
    const char *row = v->data;
    for (int64_t j = 0; j < v->count; j++, row += v->stride * size_of(type)) {
        for (int64_t at = 0; ahead && at < ahead->bytes; at += 64) {
            prefetch(ahead, j, 1, at);
        }
        lanes weight[GROUP];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            weight[r] = lanes_set(s[r * CHUNK + j]);
        }
#pragma GCC unroll 8
        for (int w = 0; w < width; w++) {
            lanes value = load(type, row, i + w, part);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                sum[r * width + w] = lanes_fma(weight[r], value, sum[r * width + w]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        float *out = o + r * o_stride + LANES * i;
#pragma GCC unroll 8
        for (int w = 0; w < width; w++) {
            lanes old = lanes_load(out + LANES * w);
            lanes_store(out + LANES * w, lanes_fma(old, lanes_set(alpha[r]), sum[r * width + w]));
        }
    }
}

INLINE void value_rows(int type, int rows, const float *s, const float *alpha,
                       const attn_decode_block *v, float *o, int64_t o_stride,
                       const attn_decode_ahead *ahead)
{
    const int width = width_of(rows);
    const int64_t full = v->dim / LANES;
    const attn_decode_ahead *next = ahead->bytes > 0 ? ahead : NULL; /* with the first block only */
    int64_t i = 0;
    for (; i + width <= full; i += width, next = NULL) {
        value_block(type, rows, width, s, alpha, v, i, WHOLE, o, o_stride, next);
    }
    if (width > 4 && i + 4 <= full) {
        value_block(type, rows, 4, s, alpha, v, i, WHOLE, o, o_stride, next);
        i += 4;
        next = NULL;
    }
    for (; i < full; i++, next = NULL) {
        value_block(type, rows, 1, s, alpha, v, i, WHOLE, o, o_stride, next);
    }
    if (v->dim % LANES) {
        value_block(type, rows, 1, s, alpha, v, i, REST(v->dim), o, o_stride, next);
    }
}

static void softmax(float *s, int64_t rows, int64_t count, float scale, float *m, float *l,
                    float *alpha)
{
    const lanes hidden = lanes_set(-INFINITY), factor = lanes_set(scale);
    for (int64_t r = 0; r < rows; r++, s += CHUNK) {
        lanes x[CHUNK / LANES], top = hidden, sum = lanes_set(0.0f);
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK / LANES; i++) {
            lanes scaled = lanes_load(s + LANES * i) * factor;
            x[i] = lanes_select(lanes_before(count - LANES * i), scaled, hidden);
            top = lanes_max(x[i], top); /* this order leaves NaN out */
        }
        float old = m[r], max = lanes_largest(top);
        max = max > old ? max : old;
        float base = max == -INFINITY ? 0.0f : max; /* −inf − −inf would be NaN */
#pragma GCC unroll 8
        for (int i = 0; i < CHUNK / LANES; i++) {
            x[i] = lanes_exp(x[i] - lanes_set(base));
            sum = sum + x[i];
            lanes_store(s + LANES * i, x[i]);
        }
        alpha[r] = lanes_exp(lanes_set(old - base))[0];
        l[r] = l[r] * alpha[r] + lanes_sum(sum);
        m[r] = max;
    }
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

INLINE void score_groups(const scores_function *table, const float *q, int64_t q_stride,
                         int64_t rows, const attn_decode_block *k, float *s,
                         const attn_decode_ahead *ahead)
{
    const attn_decode_ahead none = {0};
    assert(rows >= 1 && rows <= ATTN_DECODE_ROWS && k->count >= 1 && k->count <= CHUNK);
    for (int64_t r = 0, n; r < rows; r += n) {
        n = group_rows(rows - r);
        table[n - 1](q + r * q_stride, q_stride, k, s + r * CHUNK, r == 0 ? ahead : &none);
    }
}

INLINE void value_groups(const values_function *table, const float *s, int64_t rows,
                         const float *alpha, const attn_decode_block *v, float *o, int64_t o_stride,
                         const attn_decode_ahead *ahead)
{
    const attn_decode_ahead none = {0};
    assert(rows >= 1 && rows <= ATTN_DECODE_ROWS && v->count >= 1 && v->count <= CHUNK);
    for (int64_t r = 0, n; r < rows; r += n) {
        n = group_rows(rows - r);
        table[n - 1](s + r * CHUNK, alpha + r, v, o + r * o_stride, o_stride,
                     r == 0 ? ahead : &none);
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

#define DECODE_ENTRY(name, R) name##_##R,

#define DECODE_TYPE(type, TYPE)                                                               \
    EACH_ROWS(DECODE_ROWS, type, TYPE)                                                        \
    static void scores_##type(const float *q, int64_t q_stride, int64_t rows,                 \
                              const attn_decode_block *k, float *s,                           \
                              const attn_decode_ahead *ahead)                                 \
    {                                                                                         \
        static const scores_function table[GROUP] = {EACH_ROWS(DECODE_ENTRY, scores_##type)}; \
        score_groups(table, q, q_stride, rows, k, s, ahead);                                  \
    }                                                                                         \
    static void values_##type(const float *s, int64_t rows, const float *alpha,               \
                              const attn_decode_block *v, float *o, int64_t o_stride,         \
                              const attn_decode_ahead *ahead)                                 \
    {                                                                                         \
        static const values_function table[GROUP] = {EACH_ROWS(DECODE_ENTRY, values_##type)}; \
        value_groups(table, s, rows, alpha, v, o, o_stride, ahead);                           \
    }

DECODE_TYPE(f32, ATTN_DECODE_F32)
DECODE_TYPE(bf16, ATTN_DECODE_BF16)
DECODE_TYPE(f16, ATTN_DECODE_F16)

#endif
