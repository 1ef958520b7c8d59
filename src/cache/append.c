/**
 * append.c: rows into a cache: check everything, then copy, so that a failure changes nothing.
 */
#include "cache/cache.h"

#include <string.h>

#include "kernels/convert/convert.h"
#include "par/context.h"

/* One append, checked. Sequence b of the views goes to sequence first_sequence + b of the cache. */
typedef struct append_job {
    attn_kv_cache *cache;
    const attn_view *k, *v;
    const int64_t *counts; /* NULL: rows for all */
    int64_t first_sequence, sequences, rows;
} append_job;

enum { STAGE = 256 }; /* floats between two 16-bit types */

static int64_t rows_of(const append_job *job, int64_t b)
{
    return job->counts ? job->counts[b] : job->rows;
}

/* `count` elements at src of one type to dst of another; f64 only to f64 (checked before). */
static void copy_row(const attn_convert_kernels *convert, attn_dtype from, const void *src,
                     attn_dtype to, void *dst, int64_t count)
{
    if (from == to) {
        memcpy(dst, src, (size_t)count * attn_dtype_size(to));
    } else if (from == ATTN_F32) {
        (to == ATTN_BF16 ? convert->f32_to_bf16 : convert->f32_to_f16)(src, dst, count);
    } else if (to == ATTN_F32) {
        (from == ATTN_BF16 ? convert->bf16_to_f32 : convert->f16_to_f32)(src, dst, count);
    } else {
        const uint16_t *in = src;
        uint16_t *out = dst;
        for (int64_t i = 0; i < count; i += STAGE) {
            float stage[STAGE];
            int64_t part = count - i < STAGE ? count - i : STAGE;
            copy_row(convert, from, in + i, ATTN_F32, stage, part);
            copy_row(convert, ATTN_F32, stage, to, out + i, part);
        }
    }
}

/* The rows of one head of one sequence, from view to storage. */
static void copy_head(const append_job *job, const attn_view *view, void *storage, int64_t b,
                      int64_t head)
{
    const attn_kv_cache *cache = job->cache;
    const attn_convert_kernels *convert = attn_convert_table(attn_context_isa(cache->context));
    int64_t sequence = job->first_sequence + b;
    int64_t dim = view->shape[3];
    size_t from_size = attn_dtype_size(view->dtype);
    size_t row_bytes = (size_t)dim * attn_dtype_size(cache->dtype);
    char *base = (char *)storage +
                 (size_t)(sequence * cache->heads_kv + head) * (size_t)cache->capacity * row_bytes;
    int64_t slot = attn_kv_cache_next(cache, sequence) % cache->capacity;
    const char *src = (const char *)view->data +
                      (b * view->stride[0] + head * view->stride[1]) * (int64_t)from_size;
    for (int64_t row = 0; row < rows_of(job, b); row++) {
        copy_row(convert, view->dtype, src + row * view->stride[2] * (int64_t)from_size,
                 cache->dtype, base + (size_t)slot * row_bytes, dim);
        slot = slot + 1 == cache->capacity ? 0 : slot + 1;
    }
}

static void append_task(void *argument, int64_t index, int worker)
{
    (void)worker;
    const append_job *job = argument;
    int64_t heads = job->cache->heads_kv;
    copy_head(job, job->k, job->cache->k, index / heads, index % heads);
    copy_head(job, job->v, job->cache->v, index / heads, index % heads);
}

static attn_status check_view(const append_job *job, const char *name, const attn_view *view,
                              int64_t dim)
{
    const attn_kv_cache *cache = job->cache;
    if (!view || (!view->data && job->rows > 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL", name);
    }
    bool wide = cache->dtype == ATTN_F64;
    bool half = view->dtype == ATTN_BF16 || view->dtype == ATTN_F16;
    if (wide ? view->dtype != ATTN_F64 : view->dtype != ATTN_F32 && !half) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: %s does not go into a cache of %s; give it as %s",
                         name, attn_dtype_name(view->dtype), attn_dtype_name(cache->dtype),
                         wide ? "f64" : "f32, bf16 or f16");
    }
    if (view->ndim != 4) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: has %d dimensions, must be [batch, heads_kv, n, dim]",
                         name, view->ndim);
    }
    if (view->shape[0] != job->sequences || view->shape[1] != cache->heads_kv ||
        view->shape[2] != job->rows || view->shape[2] < 0 || view->shape[3] != dim) {
        return attn_fail(
            ATTN_ERR_SHAPE,
            "%s: [%lld, %lld, %lld, %lld] does not fit [sequences %lld, heads_kv %lld, "
            "n %lld, dim %lld]; did you mix up heads and tokens (attn_view_blhd)?",
            name, (long long)view->shape[0], (long long)view->shape[1], (long long)view->shape[2],
            (long long)view->shape[3], (long long)job->sequences, (long long)cache->heads_kv,
            (long long)job->rows, (long long)dim);
    }
    if (view->stride[3] != 1 && dim > 1) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: last stride is %lld, must be 1; copy it to dense rows", name,
                         (long long)view->stride[3]);
    }
    return ATTN_OK;
}

static attn_status check_room(const append_job *job, int64_t b)
{
    const attn_kv_cache *cache = job->cache;
    int64_t sequence = job->first_sequence + b;
    int64_t rows = rows_of(job, b);
    if (rows < 0 || rows > job->rows) {
        return attn_fail(ATTN_ERR_ARGUMENT, "counts[%lld]: %lld is not in 0 … %lld, the rows given",
                         (long long)b, (long long)rows, (long long)job->rows);
    }
    if (cache->window > 0) {
        if (rows > cache->max_append) {
            return attn_fail(
                ATTN_ERR_CAPACITY,
                "append: sequence %lld was given %lld tokens, but this ring takes at "
                "most %lld at once (max_append); append in parts and attend in between",
                (long long)sequence, (long long)rows, (long long)cache->max_append);
        }
        return ATTN_OK;
    }
    int64_t held = cache->length[sequence];
    if (rows > cache->capacity - held) {
        return attn_fail(ATTN_ERR_CAPACITY,
                         "append: sequence %lld holds %lld of %lld tokens and was given %lld more, "
                         "%lld fit; create the cache with a larger capacity, or truncate it",
                         (long long)sequence, (long long)held, (long long)cache->capacity,
                         (long long)rows, (long long)(cache->capacity - held));
    }
    return ATTN_OK;
}

static attn_status append(append_job *job)
{
    attn_kv_cache *cache = job->cache;
    job->rows = job->k ? job->k->shape[2] : 0;
    attn_status status = check_view(job, "k", job->k, cache->dim_qk);
    if (status == ATTN_OK) {
        status = check_view(job, "v", job->v, cache->dim_v);
    }
    for (int64_t b = 0; status == ATTN_OK && b < job->sequences; b++) {
        status = check_room(job, b);
    }
    if (status != ATTN_OK || job->rows == 0) {
        return status;
    }
    int64_t tasks = job->sequences * cache->heads_kv;
    if (job->rows * (cache->dim_qk + cache->dim_v) < 4096) {
        for (int64_t i = 0; i < tasks; i++) { /* too little to wake threads for */
            append_task(job, i, 0);
        }
    } else {
        attn_context_run(cache->context, tasks, false, append_task, job);
    }
    for (int64_t b = 0; b < job->sequences; b++) {
        int64_t sequence = job->first_sequence + b;
        int64_t length = cache->length[sequence] + rows_of(job, b);
        int64_t lost = length > cache->capacity ? length - cache->capacity : 0;
        cache->first[sequence] += lost;
        cache->length[sequence] = length - lost;
    }
    return ATTN_OK;
}

attn_status attn_kv_cache_append(attn_kv_cache *cache, const attn_view *k, const attn_view *v,
                                 const int64_t *counts)
{
    if (!cache) {
        return attn_fail(ATTN_ERR_ARGUMENT, "cache: must not be NULL");
    }
    append_job job = {.cache = cache, .k = k, .v = v, .counts = counts, .sequences = cache->batch};
    return append(&job);
}

attn_status attn_kv_cache_append_one(attn_kv_cache *cache, int64_t sequence, const attn_view *k,
                                     const attn_view *v)
{
    if (!cache) {
        return attn_fail(ATTN_ERR_ARGUMENT, "cache: must not be NULL");
    }
    if (sequence < 0 || sequence >= cache->batch) {
        return attn_fail(ATTN_ERR_ARGUMENT, "sequence: %lld is not in 0 … %lld",
                         (long long)sequence, (long long)cache->batch - 1);
    }
    append_job job = {.cache = cache, .k = k, .v = v, .first_sequence = sequence, .sequences = 1};
    return append(&job);
}
