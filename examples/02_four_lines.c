/**
 * 02_four_lines.c: attention is four lines: scores, softmax, weights times values. Here they are as plain loops,
 * beside attn_sdpa on the same numbers: how far apart, how long each, how much memory each.
 *
 *   02_four_lines [len]      default 1024
 */
#define _POSIX_C_SOURCE 200809L
#include <attn/attn.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HEADS = 4, DIM = 64 };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* softmax(Q·Kᵀ/√d)·V for one head; `weights` holds len × len floats, which is the trouble with it. */
static void four_lines(const float *q, const float *k, const float *v, long len, float *weights,
                       float *out)
{
    /* 1. scores = Q·Kᵀ / √d */
    for (long i = 0; i < len; i++) {
        for (long j = 0; j < len; j++) {
            float dot = 0;
            for (long d = 0; d < DIM; d++) {
                dot += q[i * DIM + d] * k[j * DIM + d];
            }
            weights[i * len + j] = dot / sqrtf(DIM);
        }
    }
    /* 2. weights = exp(scores − row maximum)   3. weights /= row sum */
    for (long i = 0; i < len; i++) {
        float *row = weights + i * len, largest = row[0], sum = 0;
        for (long j = 1; j < len; j++) {
            largest = fmaxf(largest, row[j]);
        }
        for (long j = 0; j < len; j++) {
            row[j] = expf(row[j] - largest);
            sum += row[j];
        }
        for (long j = 0; j < len; j++) {
            row[j] /= sum;
        }
    }
    /* 4. out = weights·V */
    for (long i = 0; i < len; i++) {
        for (long d = 0; d < DIM; d++) {
            out[i * DIM + d] = 0;
        }
        for (long j = 0; j < len; j++) {
            for (long d = 0; d < DIM; d++) {
                out[i * DIM + d] += weights[i * len + j] * v[j * DIM + d];
            }
        }
    }
}

/* Sums of uniform numbers: near enough to normal, and the same everywhere. */
static void fill(float *values, long count, unsigned seed)
{
    unsigned state = seed;
    for (long i = 0; i < count; i++) {
        float sum = -6;
        for (int n = 0; n < 12; n++) {
            state = state * 1664525u + 1013904223u;
            sum += (float)(state >> 8) * 0x1p-24f;
        }
        values[i] = sum;
    }
}

static int compare(attn_context *context, long len)
{
    long count = HEADS * len * DIM;
    float *memory = malloc(sizeof(float) * (size_t)(5 * count + len * len));
    if (!memory) {
        fprintf(stderr, "no memory for len %ld\n", len);
        return 1;
    }
    float *q = memory, *k = q + count, *v = k + count, *naive = v + count, *out = naive + count;
    float *weights = out + count;
    fill(q, count, 1);
    fill(k, count, 2);
    fill(v, count, 3);

    double start = seconds();
    for (long h = 0; h < HEADS; h++) {
        long offset = h * len * DIM;
        four_lines(q + offset, k + offset, v + offset, len, weights, naive + offset);
    }
    double naive_time = seconds() - start;

    attn_view q_view = attn_view_bhld(q, ATTN_F32, 1, HEADS, len, DIM);
    attn_view k_view = attn_view_bhld(k, ATTN_F32, 1, HEADS, len, DIM);
    attn_view v_view = attn_view_bhld(v, ATTN_F32, 1, HEADS, len, DIM);
    attn_view out_view = attn_view_bhld(out, ATTN_F32, 1, HEADS, len, DIM);
    attn_status status = attn_sdpa(context, NULL, &q_view, &k_view, &v_view, &out_view);
    start = seconds();
    if (status == ATTN_OK) {
        status = attn_sdpa(context, NULL, &q_view, &k_view, &v_view, &out_view);
    }
    double fused_time = seconds() - start;
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        free(memory);
        return 1;
    }

    double largest = 0;
    for (long i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)naive[i] - (double)out[i]));
    }
    printf("%d heads, %ld words, head_dim %d\n", HEADS, len, DIM);
    printf("four lines  %9.2f ms, %8.1f KiB for the weights of one head\n", naive_time * 1e3,
           (double)(len * len) * sizeof(float) / 1024);
    printf("attn_sdpa   %9.2f ms, %8.1f KiB of scratch for all of them\n", fused_time * 1e3,
           (double)attn_context_scratch_bytes(context) / 1024);
    printf("largest difference %.2g\n", largest);
    free(memory);
    return largest < 1e-5 ? 0 : 1; /* both round; more than this would be a mistake */
}

int main(int argc, char **argv)
{
    long len = argc > 1 ? strtol(argv[1], NULL, 10) : 1024;
    if (len < 1 || len > 16384) {
        fprintf(stderr, "len: %s is not in 1 … 16384\n", argv[1]);
        return 2;
    }
    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }
    int result = compare(context, len);
    attn_context_destroy(context);
    return result;
}
