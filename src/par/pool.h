/**
 * par/pool.h: the built-in pool: threads that take tasks from one counter.
 */
#ifndef ATTN_PAR_POOL_H
#define ATTN_PAR_POOL_H

#include <attn/base.h>

typedef struct attn_pool attn_pool;

/** A pool of `threads` workers, the caller of attn_pool_run being one; threads start at the first run. */
attn_status attn_pool_create(const attn_allocator *allocator, int threads, attn_pool **pool);
void attn_pool_destroy(attn_pool *pool);

/**
 * Runs task(argument, i, worker) once for each i in 0 … count−1 and returns when all have. Where threads cannot be
 * started, those there are (at least the caller) do the work.
 */
void attn_pool_run(attn_pool *pool, int64_t count,
                   void (*task)(void *argument, int64_t index, int worker), void *argument);

#endif
