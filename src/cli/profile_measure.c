/**
 * profile_measure.c: the measurements of `attn profile`: the four-line formula with its weight matrix, the same tiled, and one decode step on a
 * cache, for growing lengths. Memory is counted where it is taken: at the allocator.
 */
#define _GNU_SOURCE
#include "bench.h"
#include "naive.h"
#include "profile.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define POINT_SECONDS 0.6   /* a longer run of the formula is the last one */
#define NAIVE_BYTES   2.0e9 /* the formula stops where its weights take more */

enum { SAMPLES = 5, GPT3_LAYERS = 96, GPT3_HEADS = 96, GPT3_DIM = 128, GPT3_LEN = 2048 };

/* An allocator that knows how much it has given out. */
typedef struct counter {
    _Atomic size_t now, peak;
} counter;

static void *counted_alloc(void *user, size_t size, size_t alignment)
{
    counter *c = user;
    void *pointer = NULL;
    if (posix_memalign(&pointer, alignment, size) != 0) {
        return NULL;
    }
    size_t now = atomic_fetch_add(&c->now, size) + size;
    size_t peak = atomic_load(&c->peak);
    while (now > peak && !atomic_compare_exchange_weak(&c->peak, &peak, now)) {
    }
    return pointer;
}

static void counted_free(void *user, void *pointer, size_t size)
{
    counter *c = user;
    free(pointer);
    atomic_fetch_sub(&c->now, size);
}

typedef struct bench_run {
    attn_context *context;
    counter *count;
    bench_arrays arrays;
    bench_shape shape;
    bool causal;
    float *work;          /* the formula's */
    attn_kv_cache *cache; /* decode's */
} bench_run;

static void naive_task(void *argument, int64_t head, int worker)
{
    bench_run *r = argument;
    (void)worker;
    const bench_shape *s = &r->shape;
    int64_t size = s->len_q * s->dim;
    naive_sdpa((const float *)r->arrays.q.data + head * size,
               (const float *)r->arrays.k.data + head * size,
               (const float *)r->arrays.v.data + head * size, s->len_q, s->len_k, s->dim, r->causal,
               r->work + head * naive_floats(s->len_q, s->len_k, s->dim),
               (float *)r->arrays.out.data + head * size);
}

static attn_status run_naive(bench_run *r)
{
    return attn_parallel_for(r->context, r->shape.heads_q, naive_task, r);
}

static attn_status run_tiled(bench_run *r)
{
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = r->causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;
    return attn_sdpa(r->context, &options, &r->arrays.q, &r->arrays.k, &r->arrays.v,
                     &r->arrays.out);
}

static attn_status run_decode(bench_run *r)
{
    attn_view q = r->arrays.q, out = r->arrays.out;
    q.shape[2] = out.shape[2] = 1; /* the last token's row; which one makes no difference */
    attn_kv_view kv = attn_kv_cache_view(r->cache);
    return attn_sdpa_kv(r->context, NULL, &q, &kv, &out);
}

/* Median milliseconds of a few samples of at least a millisecond each. */
static attn_status time_run(bench_run *r, attn_status (*run)(bench_run *), double *ms)
{
    double samples[SAMPLES], start = cli_now();
    attn_status status = run(r);
    double once = cli_now() - start;
    int64_t inner = once < 1e-3 ? (int64_t)(1e-3 / (once + 1e-8)) + 1 : 1;
    int count = once > POINT_SECONDS ? 1 : SAMPLES;
    samples[0] = once;
    for (int n = 0; n < count && once <= POINT_SECONDS && status == ATTN_OK; n++) {
        start = cli_now();
        for (int64_t i = 0; i < inner && status == ATTN_OK; i++) {
            status = run(r);
        }
        samples[n] = (cli_now() - start) / (double)inner;
    }
    *ms = bench_statistics(samples, count).median * 1e3;
    return status;
}

static void add_point(profile_series *series, int64_t len, double ms, double bytes)
{
    series->points[series->count++] = (profile_point){.len = len, .ms = ms, .bytes = bytes};
}

static attn_status naive_point(bench_run *r, profile_series *series)
{
    const bench_shape *s = &r->shape;
    double bytes = 4.0 * (double)naive_floats(s->len_q, s->len_k, s->dim) * (double)s->heads_q;
    int last = series->count - 1;
    bool too_long = last >= 0 && series->points[last].ms > POINT_SECONDS * 1e3;
    if (bytes > NAIVE_BYTES || too_long) {
        return ATTN_OK;
    }
    counter count = {0};
    r->work = counted_alloc(&count, (size_t)bytes, 64);
    if (!r->work) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "the formula: no memory for its %.0f bytes", bytes);
    }
    double ms;
    attn_status status = time_run(r, run_naive, &ms);
    if (status == ATTN_OK) {
        add_point(series, s->len_q, ms, (double)count.peak);
    }
    counted_free(&count, r->work, (size_t)bytes);
    r->work = NULL;
    return status;
}

static attn_status tiled_point(bench_run *r, profile_series *series)
{
    double ms;
    attn_context_trim(r->context);
    size_t before = atomic_load(&r->count->now);
    atomic_store(&r->count->peak, before);
    attn_status status = time_run(r, run_tiled, &ms);
    if (status == ATTN_OK) {
        add_point(series, r->shape.len_q, ms, (double)(atomic_load(&r->count->peak) - before));
    }
    return status;
}

/* The step that makes token len: keys and values of all tokens are held, one row attends. */
static attn_status decode_point(bench_run *r, profile_series *series)
{
    const bench_shape *s = &r->shape;
    attn_context_trim(r->context);
    size_t before = atomic_load(&r->count->now);
    atomic_store(&r->count->peak, before);
    attn_kv_cache_options options = attn_kv_cache_options_init();
    options.batch = 1;
    options.heads_kv = s->heads_kv;
    options.dim_qk = s->dim;
    options.capacity = s->len_k;
    options.dtype = ATTN_F32;
    double ms = 0;
    attn_status status = attn_kv_cache_create(r->context, &options, &r->cache);
    status = status ? status : attn_kv_cache_append(r->cache, &r->arrays.k, &r->arrays.v, NULL);
    status = status ? status : time_run(r, run_decode, &ms);
    if (status == ATTN_OK) {
        add_point(series, s->len_k, ms, (double)(atomic_load(&r->count->peak) - before));
    }
    attn_kv_cache_destroy(r->cache);
    r->cache = NULL;
    return status;
}

static attn_status measure_len(bench_run *r, profile *p)
{
    attn_status status = bench_make(r->context, &r->shape, ATTN_F32, &r->arrays);
    for (int causal = 0; causal < 2 && status == ATTN_OK; causal++) {
        r->causal = causal;
        status = naive_point(r, &p->series[causal]);
        status = status ? status : tiled_point(r, &p->series[2 + causal]);
    }
    status = status ? status : decode_point(r, &p->series[4]);
    bench_free(&r->arrays);
    return status;
}

/* Two-sided 95 % points of Student's t, by degrees of freedom 1 … 10; beyond, the normal's is near enough. */
static double student(int degrees)
{
    static const double points[] = {12.706, 4.303, 3.182, 2.776, 2.571,
                                    2.447,  2.365, 2.306, 2.262, 2.228};
    return degrees < 1 ? (double)NAN : degrees <= 10 ? points[degrees - 1] : 1.96;
}

/* Slope of log y over log len. Short lengths, where fixed costs rule, are left out while four points remain. */
static profile_fit fit(const profile_series *series, bool memory)
{
    int first = series->count / 3;
    while (first > 0 && series->count - first < 4) {
        first--;
    }
    int n = series->count - first;
    double sx = 0, sy = 0, sxx = 0, sxy = 0, residual = 0;
    for (int i = first; i < series->count; i++) {
        double x = log((double)series->points[i].len);
        double y = log(memory ? series->points[i].bytes : series->points[i].ms);
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
    }
    double spread = sxx - sx * sx / n, slope = (sxy - sx * sy / n) / spread;
    double offset = (sy - slope * sx) / n;
    for (int i = first; i < series->count; i++) {
        double x = log((double)series->points[i].len);
        double y = log(memory ? series->points[i].bytes : series->points[i].ms);
        residual += (y - offset - slope * x) * (y - offset - slope * x);
    }
    if (n < 3 || !isfinite(slope)) {
        return (profile_fit){(double)NAN, (double)NAN, n};
    }
    return (profile_fit){slope, student(n - 2) * sqrt(residual / (n - 2) / spread), n};
}

static attn_status measure_gpt3(bench_run *r, bool quick, profile_gpt3 *g)
{
    double weights = 4.0 * GPT3_HEADS * (double)GPT3_LEN * GPT3_LEN;
    *g = (profile_gpt3){.formula_layer_bytes = weights,
                        .formula_bytes = weights * GPT3_LAYERS,
                        .formula_layer_ms = (double)NAN,
                        .formula_layer_measured_bytes = (double)NAN};
    r->shape = (bench_shape){1, GPT3_HEADS, GPT3_HEADS, GPT3_LEN, GPT3_LEN, GPT3_DIM};
    r->causal = true;
    attn_status status = bench_make(r->context, &r->shape, ATTN_F32, &r->arrays);
    profile_series tiled = {0};
    status = status ? status : tiled_point(r, &tiled);
    if (status == ATTN_OK) {
        g->tiled_layer_ms = tiled.points[0].ms;
        g->tiled_layer_bytes = tiled.points[0].bytes;
    }
    if (status == ATTN_OK && !quick) {
        counter count = {0};
        size_t bytes =
            sizeof(float) * (size_t)naive_floats(GPT3_LEN, GPT3_LEN, GPT3_DIM) * (size_t)GPT3_HEADS;
        r->work = counted_alloc(&count, bytes, 64);
        double ms = (double)NAN;
        if (r->work) { /* 1.6 GiB: a machine that lacks it gets the computed figure alone */
            status = time_run(r, run_naive, &ms);
            g->formula_layer_measured_bytes = (double)count.peak;
            counted_free(&count, r->work, bytes);
        }
        g->formula_layer_ms = ms;
        r->work = NULL;
    }
    bench_free(&r->arrays);
    return status;
}

attn_status profile_measure(int64_t threads, bool quick, profile *p)
{
    static const char *const names[PROFILE_SERIES][2] = {
        {"formula_full", "four lines, full"},     {"formula_causal", "four lines, causal"},
        {"tiled_full", "attn_sdpa, full"},        {"tiled_causal", "attn_sdpa, causal"},
        {"decode_cached", "one token, KV cache"},
    };
    counter count = {0};
    attn_allocator allocator = {counted_alloc, counted_free, &count};
    attn_context_options options = attn_context_options_init();
    options.threads = (int)threads;
    options.allocator = &allocator;
    bench_run r = {.count = &count};
    attn_status status = attn_context_create(&options, &r.context);
    if (status != ATTN_OK) {
        return status;
    }
    p->threads = attn_context_threads(r.context);
    strncpy(p->isa, attn_isa_name(attn_context_isa(r.context)), sizeof p->isa - 1);
    for (int i = 0; i < PROFILE_SERIES; i++) {
        p->series[i] = (profile_series){.name = names[i][0], .title = names[i][1]};
    }
    for (int64_t len = 128; len <= p->max_len && status == ATTN_OK; len *= 2) {
        if (cli_interrupted()) {
            status = attn_fail(ATTN_ERR_CANCELLED, "interrupted");
            break;
        }
        r.shape = (bench_shape){1, p->heads, p->heads, len, len, p->dim};
        status = measure_len(&r, p);
    }
    for (int i = 0; i < PROFILE_SERIES && status == ATTN_OK; i++) {
        p->series[i].time = fit(&p->series[i], false);
        p->series[i].memory = fit(&p->series[i], true);
    }
    status = status ? status : measure_gpt3(&r, quick, &p->gpt3);
    attn_context_destroy(r.context);
    return status;
}
