/**
 * attn/kv_cache.h: keys and values kept from call to call: contiguous, or a ring for sliding windows.
 */
#ifndef ATTN_KV_CACHE_H
#define ATTN_KV_CACHE_H

#include <attn/context.h>
#include <attn/view.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_kv_cache attn_kv_cache;

typedef struct attn_kv_cache_options {
    size_t struct_size;
    int64_t batch;    /**< sequences, ≥ 1 */
    int64_t heads_kv; /**< ≥ 1 */
    int64_t dim_qk;   /**< ≥ 1 */
    int64_t dim_v;    /**< 0: dim_qk */
    int64_t capacity; /**< keys per sequence; contiguous only (window == 0) */
    int64_t
        window; /**< > 0: a ring that keeps what a window of this many keys (self included) needs */
    int64_t
        max_append; /**< ring only: the longest append, ≥ 1; capacity = window + max_append − 1 */
    attn_dtype dtype; /**< storage: f32, bf16, f16, f64; conversion rounds to nearest even */
} attn_kv_cache_options;

ATTN_API attn_kv_cache_options attn_kv_cache_options_init(void);

/** Creates an empty cache; memory from the context's allocator, first touched as tokens arrive. The context must outlive it. */
ATTN_API attn_status attn_kv_cache_create(attn_context *context,
                                          const attn_kv_cache_options *options,
                                          attn_kv_cache **cache);
ATTN_API void attn_kv_cache_destroy(attn_kv_cache *cache);

/**
 * Appends tokens to every sequence.
 * k [batch, heads_kv, n, dim_qk], v [batch, heads_kv, n, dim_v]: f32, bf16 or f16 (f64 with f64), any strides with unit last stride.
 * counts [batch] or NULL: how many of the n rows each sequence takes (0 … n, the first ones); NULL: all n.
 * All or nothing: CAPACITY names the sequence, what it holds, what was asked and what fits; then nothing has changed.
 */
ATTN_API attn_status attn_kv_cache_append(attn_kv_cache *cache, const attn_view *k,
                                          const attn_view *v, const int64_t *counts);

/** Appends to one sequence: k [1, heads_kv, n, dim_qk], v [1, heads_kv, n, dim_v]. */
ATTN_API attn_status attn_kv_cache_append_one(attn_kv_cache *cache, int64_t sequence,
                                              const attn_view *k, const attn_view *v);

/** What attention reads. Valid until the cache is destroyed; lengths and positions follow appends. */
ATTN_API attn_kv_view attn_kv_cache_view(const attn_kv_cache *cache);

/** Tokens appended so far, minus truncated: the absolute position of the next one. */
ATTN_API int64_t attn_kv_cache_position(const attn_kv_cache *cache, int64_t sequence);

/** Keys held (ring: at most its capacity). */
ATTN_API int64_t attn_kv_cache_length(const attn_kv_cache *cache, int64_t sequence);

/** Keys one sequence can hold. */
ATTN_API int64_t attn_kv_cache_capacity(const attn_kv_cache *cache);

/**
 * Forgets what came after the first `position` tokens of a sequence. A ring cannot bring back what it has overwritten: a position whose window is no
 * longer held is an ATTN_ERR_CAPACITY that names both numbers.
 */
ATTN_API attn_status attn_kv_cache_truncate(attn_kv_cache *cache, int64_t sequence,
                                            int64_t position);

/** Empties all sequences. */
ATTN_API void attn_kv_cache_reset(attn_kv_cache *cache);

/** Bytes of K and V storage allocated. */
ATTN_API size_t attn_kv_cache_bytes(const attn_kv_cache *cache);

/** Bytes of K and V that tokens held now occupy, all sequences together. */
ATTN_API size_t attn_kv_cache_bytes_used(const attn_kv_cache *cache);

#ifdef __cplusplus
}
#endif
#endif
