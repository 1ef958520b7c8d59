/**
 * 03_kv_cache.c: why language models keep keys and values. A text of N tokens is read one token at a time, first without a cache
 * (every step attends from all rows again), then with one (every step has one row). The results are the same; the times are not.
 *
 *   cc -O2 03_kv_cache.c $(pkg-config --cflags --libs attn) -lm -o 03_kv_cache
 *   03_kv_cache [tokens]     default 512
 */
#define _POSIX_C_SOURCE 200809L
#include <attn/attn.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HEADS = 8, KV_HEADS = 2, DIM = 64 };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void fill(float *values, long count, unsigned seed)
{
    unsigned state = seed;
    for (long i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
}

/* Rows [begin, end) of a text laid out [heads, tokens, dim]. */
static attn_view rows(const float *data, long heads, long tokens, long begin, long end)
{
    attn_view view = attn_view_bhld(data + begin * DIM, ATTN_F32, 1, heads, end - begin, DIM);
    view.stride[1] = tokens * DIM;
    return view;
}

/* Step t computes rows 0 … t again and keeps the last one: what a model without a cache has to do. */
static attn_status without_cache(attn_context *context, const float *q, const float *k,
                                 const float *v, long tokens, float *work, float *out)
{
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    for (long t = 0; t < tokens; t++) {
        attn_view qs = rows(q, HEADS, tokens, 0, t + 1), ks = rows(k, KV_HEADS, tokens, 0, t + 1);
        attn_view vs = rows(v, KV_HEADS, tokens, 0, t + 1);
        attn_view all = attn_view_bhld(work, ATTN_F32, 1, HEADS, t + 1, DIM);
        attn_status status = attn_sdpa(context, &options, &qs, &ks, &vs, &all);
        if (status != ATTN_OK) {
            return status;
        }
        for (long h = 0; h < HEADS; h++) {
            memcpy(out + (h * tokens + t) * DIM, work + (h * (t + 1) + t) * DIM,
                   DIM * sizeof(float));
        }
    }
    return ATTN_OK;
}

/* Step t appends one key and value and attends from one row. */
static attn_status with_cache(attn_context *context, attn_kv_cache *cache, const float *q,
                              const float *k, const float *v, long tokens, float *out)
{
    for (long t = 0; t < tokens; t++) {
        attn_view ks = rows(k, KV_HEADS, tokens, t, t + 1);
        attn_view vs = rows(v, KV_HEADS, tokens, t, t + 1);
        attn_status status = attn_kv_cache_append(cache, &ks, &vs, NULL);
        if (status != ATTN_OK) {
            return status;
        }
        attn_view qs = rows(q, HEADS, tokens, t, t + 1), os = rows(out, HEADS, tokens, t, t + 1);
        attn_kv_view held = attn_kv_cache_view(cache);
        status = attn_sdpa_kv(context, NULL, &qs, &held, &os);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return ATTN_OK;
}

static attn_status compare(attn_context *context, attn_kv_cache *cache, long tokens, float *memory,
                           double *largest)
{
    long q_count = HEADS * tokens * DIM, kv_count = KV_HEADS * tokens * DIM;
    float *q = memory, *k = q + q_count, *v = k + kv_count, *plain = v + kv_count;
    float *cached = plain + q_count, *work = cached + q_count;
    fill(q, q_count, 1);
    fill(k, kv_count, 2);
    fill(v, kv_count, 3);
    double start = seconds();
    attn_status status = without_cache(context, q, k, v, tokens, work, plain);
    double plain_time = seconds() - start;
    if (status != ATTN_OK) {
        return status;
    }
    start = seconds();
    status = with_cache(context, cache, q, k, v, tokens, cached);
    double cached_time = seconds() - start;
    if (status != ATTN_OK) {
        return status;
    }
    *largest = 0;
    for (long i = 0; i < q_count; i++) {
        *largest = fmax(*largest, fabs((double)plain[i] - (double)cached[i]));
    }
    printf("%ld tokens, %d query heads over %d kv heads, head_dim %d\n", tokens, HEADS, KV_HEADS,
           DIM);
    printf("without cache %9.2f ms\n", plain_time * 1e3);
    printf("with cache    %9.2f ms: %.0f times faster, for %zu KiB of keys and values\n",
           cached_time * 1e3, plain_time / cached_time, attn_kv_cache_bytes_used(cache) / 1024);
    printf("largest difference %.2g\n", *largest);
    return ATTN_OK;
}

int main(int argc, char **argv)
{
    long tokens = argc > 1 ? strtol(argv[1], NULL, 10) : 512;
    if (tokens < 1 || tokens > 8192) {
        fprintf(stderr, "tokens: %s is not in 1 … 8192\n", argv[1]);
        return 2;
    }
    attn_context *context = NULL;
    attn_kv_cache *cache = NULL;
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        attn_kv_cache_options options = attn_kv_cache_options_init();
        options.batch = 1;
        options.heads_kv = KV_HEADS;
        options.dim_qk = DIM;
        options.capacity = tokens;
        options.dtype = ATTN_F32;
        status = attn_kv_cache_create(context, &options, &cache);
    }
    double largest = 1;
    size_t floats = (size_t)tokens * DIM * (4 * HEADS + 2 * KV_HEADS);
    float *memory = malloc(sizeof(float) * floats);
    if (status == ATTN_OK && memory) {
        status = compare(context, cache, tokens, memory, &largest);
    }
    if (status != ATTN_OK || !memory) {
        fprintf(stderr, "%s\n", memory ? attn_last_error() : "no memory");
    }
    free(memory);
    attn_kv_cache_destroy(cache);
    attn_context_destroy(context);
    return status == ATTN_OK && largest < 1e-5 ? 0 : 1;
}
