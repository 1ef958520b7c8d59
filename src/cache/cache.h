/**
 * cache/cache.h: the inside of a key/value cache.
 *
 * Storage is [batch, heads_kv, capacity, dim], so that a head's keys are one stream. Position p of a sequence lives in
 * slot p (contiguous) or p mod capacity (ring). Held are the positions first … first + length − 1.
 */
#ifndef ATTN_CACHE_CACHE_H
#define ATTN_CACHE_CACHE_H

#include <attn/kv_cache.h>

struct attn_kv_cache {
    attn_context *context;
    int64_t batch, heads_kv, dim_qk, dim_v;
    int64_t capacity;
    int64_t window;     /* 0: contiguous */
    int64_t max_append; /* ring only */
    attn_dtype dtype;
    void *k, *v;
    size_t k_bytes, v_bytes;
    int64_t *length, *first; /* [batch]; views point here */
};

static inline int64_t attn_kv_cache_next(const attn_kv_cache *cache, int64_t sequence)
{
    return cache->first[sequence] + cache->length[sequence];
}

#endif
