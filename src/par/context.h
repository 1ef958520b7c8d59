/**
 * par/context.h: the inside of a context, for rooms above: tasks with kernel state, scratch, allocator.
 */
#ifndef ATTN_PAR_CONTEXT_H
#define ATTN_PAR_CONTEXT_H

#include <attn/context.h>

const attn_allocator *attn_context_allocator(const attn_context *context);

typedef void (*attn_task)(void *argument, int64_t index, int worker);

/**
 * Runs task(argument, i, worker) for i in 0 … count−1; each worker's thread has subnormals flushed (never for f64: pass
 * flush = false) and its own state restored afterwards. A count of 1 runs on the calling thread.
 */
void attn_context_run(attn_context *context, int64_t count, bool flush, attn_task task,
                      void *argument);

/**
 * At least `size` bytes of the context's scratch, 64-byte aligned, contents undefined, valid until the next call of this
 * function or of attn_context_trim. One user at a time: a public call takes it once, at its plan.
 */
attn_status attn_context_scratch(attn_context *context, size_t size, void **scratch);

#endif
