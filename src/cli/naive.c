/**
 * naive.c: the four-line formula.
 */
#include "naive.h"

#include <math.h>
#include <string.h>

int64_t naive_floats(int64_t len_q, int64_t len_k, int64_t dim)
{
    return len_q * len_k + dim * len_k;
}

static void softmax_row(float *row, int64_t count)
{
    float largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < count; j++) {
        largest = row[j] > largest ? row[j] : largest;
    }
    for (int64_t j = 0; j < count; j++) {
        row[j] = expf(row[j] - largest);
        sum += row[j];
    }
    for (int64_t j = 0; j < count; j++) {
        row[j] /= sum;
    }
}

void naive_sdpa(const float *q, const float *k, const float *v, int64_t len_q, int64_t len_k,
                int64_t dim, bool causal, float *work, float *out)
{
    float *weights = work, *keys = work + len_q * len_k; /* keys: [dim, len_k] */
    for (int64_t j = 0; j < len_k; j++) {
        for (int64_t d = 0; d < dim; d++) {
            keys[d * len_k + j] = k[j * dim + d];
        }
    }
    const float scale = 1 / sqrtf((float)dim);
    memset(weights, 0, sizeof(float) * (size_t)(len_q * len_k));
    for (int64_t i = 0; i < len_q; i++) {
        float *restrict row = weights + i * len_k;
        for (int64_t d = 0; d < dim; d++) {
            const float *restrict key = keys + d * len_k;
            const float factor = q[i * dim + d] * scale;
            for (int64_t j = 0; j < len_k; j++) {
                row[j] += factor * key[j];
            }
        }
    }
    for (int64_t i = 0; i < len_q; i++) {
        for (int64_t j = i + len_k - len_q + 1; causal && j < len_k; j++) {
            if (j >= 0) {
                weights[i * len_k + j] = -INFINITY;
            }
        }
        softmax_row(weights + i * len_k, len_k);
    }
    memset(out, 0, sizeof(float) * (size_t)(len_q * dim));
    for (int64_t i = 0; i < len_q; i++) {
        float *restrict row = out + i * dim;
        for (int64_t j = 0; j < len_k; j++) {
            const float *restrict value = v + j * dim;
            const float factor = weights[i * len_k + j];
            for (int64_t d = 0; d < dim; d++) {
                row[d] += factor * value[d];
            }
        }
    }
}
