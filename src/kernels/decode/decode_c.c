/* kernels/decode in C: the stages as they are meant, one key after the other. */
#include "kernels/decode/decode.h"

#include <assert.h>
#include <math.h>

#include "base/half.h"

enum { LANES = 16 }; /* partial sums of a dot product: short chains keep rounding errors small */

static float element(int type, const void *data, int64_t i)
{
    if (type == ATTN_DECODE_F32) {
        return ((const float *)data)[i];
    }
    uint16_t half = ((const uint16_t *)data)[i];
    return type == ATTN_DECODE_BF16 ? attn_bf16_to_float(half) : attn_f16_to_float(half);
}

static float dot(int type, const float *q, const void *k, int64_t base, int64_t dim)
{
    float sum[LANES] = {0};
    for (int64_t d = 0; d < dim; d++) {
        sum[d % LANES] += q[d] * element(type, k, base + d);
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            sum[i] += sum[i + half];
        }
    }
    return sum[0];
}

static void scores(int type, const float *q, int64_t q_stride, int64_t rows,
                   const attn_decode_block *k, float *s)
{
    assert(rows >= 1 && rows <= ATTN_DECODE_ROWS);
    assert(k->count >= 1 && k->count <= ATTN_DECODE_CHUNK);
    for (int64_t j = 0; j < k->count; j++) {
        for (int64_t r = 0; r < rows; r++) {
            s[r * ATTN_DECODE_CHUNK + j] =
                dot(type, q + r * q_stride, k->data, j * k->stride, k->dim);
        }
    }
}

static void softmax(float *s, int64_t rows, int64_t count, float scale, float *m, float *l,
                    float *alpha)
{
    assert(count >= 1 && count <= ATTN_DECODE_CHUNK);
    for (int64_t r = 0; r < rows; r++) {
        float *row = s + r * ATTN_DECODE_CHUNK;
        float max = m[r];
        for (int64_t j = 0; j < count; j++) {
            row[j] *= scale;
            max = row[j] > max ? row[j] : max; /* false for NaN */
        }
        float base = max == -INFINITY ? 0.0f : max; /* −inf − −inf would be NaN */
        float sum = 0.0f;
        for (int64_t j = 0; j < count; j++) {
            row[j] = expf(row[j] - base);
            sum += row[j];
        }
        for (int64_t j = count; j < ATTN_DECODE_CHUNK; j++) {
            row[j] = 0.0f;
        }
        alpha[r] = expf(m[r] - base);
        l[r] = l[r] * alpha[r] + sum;
        m[r] = max;
    }
}

static void values(int type, const float *s, int64_t rows, const float *alpha,
                   const attn_decode_block *v, float *o, int64_t o_stride)
{
    assert(rows >= 1 && rows <= ATTN_DECODE_ROWS);
    assert(v->count >= 1 && v->count <= ATTN_DECODE_CHUNK);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t d = 0; d < v->dim; d++) {
            float sum = 0.0f; /* the chunk's own sum: one long chain over all keys would drift */
            for (int64_t j = 0; j < v->count; j++) {
                sum += s[r * ATTN_DECODE_CHUNK + j] * element(type, v->data, j * v->stride + d);
            }
            o[r * o_stride + d] = o[r * o_stride + d] * alpha[r] + sum;
        }
    }
}

#define DECODE_C(type, TYPE)                                                          \
    static void scores_##type(const float *q, int64_t q_stride, int64_t rows,         \
                              const attn_decode_block *k, float *s,                   \
                              const attn_decode_ahead *ahead)                         \
    {                                                                                 \
        (void)ahead;                                                                  \
        scores(TYPE, q, q_stride, rows, k, s);                                        \
    }                                                                                 \
    static void values_##type(const float *s, int64_t rows, const float *alpha,       \
                              const attn_decode_block *v, float *o, int64_t o_stride, \
                              const attn_decode_ahead *ahead)                         \
    {                                                                                 \
        (void)ahead;                                                                  \
        values(TYPE, s, rows, alpha, v, o, o_stride);                                 \
    }

DECODE_C(f32, ATTN_DECODE_F32)
DECODE_C(bf16, ATTN_DECODE_BF16)
DECODE_C(f16, ATTN_DECODE_F16)

const attn_decode_kernels attn_decode_c = {
    .name = {"decode_f32_c", "decode_bf16_c", "decode_f16_c"},
    .scores = {scores_f32, scores_bf16, scores_f16},
    .values = {values_f32, values_bf16, values_f16},
    .softmax = softmax,
};
