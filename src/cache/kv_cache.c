/**
 * kv_cache.c: a cache's life: creation, what it holds, forgetting. Appending is in append.c.
 */
#include "cache/cache.h"

#include <string.h>

#include "base/alloc.h"
#include "par/context.h"

attn_kv_cache_options attn_kv_cache_options_init(void)
{
    return (attn_kv_cache_options){.struct_size = sizeof(attn_kv_cache_options), .dtype = ATTN_F32};
}

static attn_status at_least_one(const char *name, int64_t value)
{
    if (value < 1) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: %lld, must be at least 1", name, (long long)value);
    }
    return ATTN_OK;
}

static attn_status check_sizes(const attn_kv_cache_options *options)
{
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"batch", options->batch},
                 {"heads_kv", options->heads_kv},
                 {"dim_qk", options->dim_qk},
                 {"dim_v", options->dim_v}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        attn_status status = at_least_one(sizes[i].name, sizes[i].value);
        if (status != ATTN_OK) {
            return status;
        }
    }
    if (options->dtype != ATTN_F32 && options->dtype != ATTN_BF16 && options->dtype != ATTN_F16 &&
        options->dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE, "dtype: a cache stores f32, bf16, f16 or f64, not %s",
                         attn_dtype_name(options->dtype));
    }
    return ATTN_OK;
}

/* Capacity of a contiguous cache as given, of a ring from window and max_append. */
static attn_status find_capacity(const attn_kv_cache_options *options, int64_t *capacity)
{
    if (options->window < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "window: %lld, must be at least 1 for a ring, or 0 for a contiguous cache",
                         (long long)options->window);
    }
    if (options->window == 0) {
        if (options->max_append != 0) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "max_append: %lld given without a window; it belongs to ring caches, "
                             "set window too",
                             (long long)options->max_append);
        }
        *capacity = options->capacity;
        return at_least_one("capacity", options->capacity);
    }
    attn_status status = at_least_one("max_append", options->max_append);
    if (status != ATTN_OK) {
        return status;
    }
    if (__builtin_add_overflow(options->window, options->max_append - 1, capacity)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "window %lld + max_append %lld − 1 is too large",
                         (long long)options->window, (long long)options->max_append);
    }
    if (options->capacity != 0 && options->capacity != *capacity) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "capacity: %lld, but a ring with window %lld and max_append %lld holds "
                         "%lld keys; leave capacity at 0",
                         (long long)options->capacity, (long long)options->window,
                         (long long)options->max_append, (long long)*capacity);
    }
    return ATTN_OK;
}

static bool storage_bytes(const attn_kv_cache *cache, int64_t dim, size_t *bytes)
{
    *bytes = attn_dtype_size(cache->dtype);
    /* Elements must be countable in int64_t too: strides are. */
    return attn_mul_size(*bytes, (size_t)cache->batch, bytes) &&
           attn_mul_size(*bytes, (size_t)cache->heads_kv, bytes) &&
           attn_mul_size(*bytes, (size_t)cache->capacity, bytes) &&
           attn_mul_size(*bytes, (size_t)dim, bytes) && *bytes <= (size_t)INT64_MAX;
}

static attn_status allocate(attn_kv_cache *cache)
{
    const attn_allocator *allocator = attn_context_allocator(cache->context);
    size_t counters;
    if (!storage_bytes(cache, cache->dim_qk, &cache->k_bytes) ||
        !storage_bytes(cache, cache->dim_v, &cache->v_bytes) ||
        !attn_mul_size((size_t)cache->batch, 2 * sizeof(int64_t), &counters)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "kv cache [batch %lld, heads_kv %lld, capacity %lld, dim %lld] is larger "
                         "than memory can be",
                         (long long)cache->batch, (long long)cache->heads_kv,
                         (long long)cache->capacity, (long long)cache->dim_qk);
    }
    cache->length = attn_alloc(allocator, counters, "kv cache lengths");
    if (!cache->length) {
        return ATTN_ERR_NO_MEMORY;
    }
    memset(cache->length, 0, counters);
    cache->first = cache->length + cache->batch;
    cache->k = attn_alloc(allocator, cache->k_bytes, "kv cache keys");
    cache->v = cache->k ? attn_alloc(allocator, cache->v_bytes, "kv cache values") : NULL;
    return cache->v ? ATTN_OK : ATTN_ERR_NO_MEMORY;
}

attn_status attn_kv_cache_create(attn_context *context, const attn_kv_cache_options *given,
                                 attn_kv_cache **out)
{
    if (!out) {
        return attn_fail(ATTN_ERR_ARGUMENT, "cache: must not be NULL; pass where to put it");
    }
    *out = NULL;
    if (!context || !given) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL",
                         context ? "options" : "context");
    }
    attn_kv_cache_options options = attn_kv_cache_options_init();
    attn_status status =
        attn_take_struct("options", "attn_kv_cache_options_init", given, &options, sizeof options);
    if (status != ATTN_OK) {
        return status;
    }
    options.dim_v = options.dim_v == 0 ? options.dim_qk : options.dim_v;
    int64_t capacity = 0;
    status = check_sizes(&options);
    if (status == ATTN_OK) {
        status = find_capacity(&options, &capacity);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_kv_cache *cache = attn_alloc(attn_context_allocator(context), sizeof *cache, "kv cache");
    if (!cache) {
        return ATTN_ERR_NO_MEMORY;
    }
    *cache = (attn_kv_cache){.context = context,
                             .batch = options.batch,
                             .heads_kv = options.heads_kv,
                             .dim_qk = options.dim_qk,
                             .dim_v = options.dim_v,
                             .capacity = capacity,
                             .window = options.window,
                             .max_append = options.max_append,
                             .dtype = options.dtype};
    status = allocate(cache);
    if (status != ATTN_OK) {
        attn_kv_cache_destroy(cache);
        return status;
    }
    *out = cache;
    return ATTN_OK;
}

void attn_kv_cache_destroy(attn_kv_cache *cache)
{
    if (!cache) {
        return;
    }
    const attn_allocator *allocator = attn_context_allocator(cache->context);
    attn_free(allocator, cache->v, cache->v_bytes);
    attn_free(allocator, cache->k, cache->k_bytes);
    attn_free(allocator, cache->length, (size_t)cache->batch * 2 * sizeof(int64_t));
    attn_free(allocator, cache, sizeof *cache);
}

attn_kv_view attn_kv_cache_view(const attn_kv_cache *cache)
{
    if (!cache) {
        return (attn_kv_view){.struct_size = sizeof(attn_kv_view)};
    }
    attn_kv_view view =
        attn_kv_view_init(attn_view_bhld(cache->k, cache->dtype, cache->batch, cache->heads_kv,
                                         cache->capacity, cache->dim_qk),
                          attn_view_bhld(cache->v, cache->dtype, cache->batch, cache->heads_kv,
                                         cache->capacity, cache->dim_v));
    view.length = cache->length;
    view.first = cache->first;
    view.ring = cache->window > 0 ? cache->capacity : 0;
    return view;
}

static bool has_sequence(const attn_kv_cache *cache, int64_t sequence)
{
    return cache && sequence >= 0 && sequence < cache->batch;
}

int64_t attn_kv_cache_position(const attn_kv_cache *cache, int64_t sequence)
{
    return has_sequence(cache, sequence) ? attn_kv_cache_next(cache, sequence) : 0;
}

int64_t attn_kv_cache_length(const attn_kv_cache *cache, int64_t sequence)
{
    return has_sequence(cache, sequence) ? cache->length[sequence] : 0;
}

int64_t attn_kv_cache_capacity(const attn_kv_cache *cache)
{
    return cache ? cache->capacity : 0;
}

/*
 * Later queries stand at `position` or after it, so a ring must still hold what a window ending there sees of the
 * past: positions position − window + 1 … position − 1. Since capacity = window + max_append − 1 that always allows
 * taking back one append of max_append tokens.
 */
attn_status attn_kv_cache_truncate(attn_kv_cache *cache, int64_t sequence, int64_t position)
{
    if (!cache) {
        return attn_fail(ATTN_ERR_ARGUMENT, "cache: must not be NULL");
    }
    if (!has_sequence(cache, sequence)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "sequence: %lld is not in 0 … %lld",
                         (long long)sequence, (long long)cache->batch - 1);
    }
    int64_t next = attn_kv_cache_next(cache, sequence);
    if (position < 0 || position > next) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "position: %lld is not in 0 … %lld, the tokens appended to sequence %lld",
                         (long long)position, (long long)next, (long long)sequence);
    }
    int64_t first = cache->first[sequence];
    int64_t needed =
        cache->window > 0 && position >= cache->window ? position - cache->window + 1 : 0;
    if (needed < position && needed < first && position < next) {
        return attn_fail(ATTN_ERR_CAPACITY,
                         "position: truncating sequence %lld to %lld needs keys from position %lld "
                         "on (window %lld), but the ring holds them from %lld on; create it with a "
                         "larger max_append, or truncate to 0 and append again",
                         (long long)sequence, (long long)position, (long long)needed,
                         (long long)cache->window, (long long)first);
    }
    cache->first[sequence] = first < position ? first : position;
    cache->length[sequence] = position - cache->first[sequence];
    return ATTN_OK;
}

void attn_kv_cache_reset(attn_kv_cache *cache)
{
    if (cache) {
        memset(cache->length, 0, (size_t)cache->batch * 2 * sizeof(int64_t));
    }
}

size_t attn_kv_cache_bytes(const attn_kv_cache *cache)
{
    return cache ? cache->k_bytes + cache->v_bytes : 0;
}

size_t attn_kv_cache_bytes_used(const attn_kv_cache *cache)
{
    if (!cache) {
        return 0;
    }
    size_t per_key = attn_dtype_size(cache->dtype) * (size_t)cache->heads_kv *
                     ((size_t)cache->dim_qk + (size_t)cache->dim_v);
    size_t keys = 0;
    for (int64_t b = 0; b < cache->batch; b++) {
        keys += (size_t)cache->length[b];
    }
    return keys * per_key;
}
