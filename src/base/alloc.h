/**
 * base/alloc.h: memory through the allocator hook, and size arithmetic that cannot wrap.
 */
#ifndef ATTN_BASE_ALLOC_H
#define ATTN_BASE_ALLOC_H

#include <attn/base.h>

#define ATTN_ALIGN ((size_t)64) /* cache line; every attn buffer starts on one */

/** The C library's aligned allocator as an attn_allocator. */
attn_allocator attn_allocator_default(void);

/**
 * `size` bytes (0 gives 1) aligned to ATTN_ALIGN; from 1 MiB on, whole pages of 2 MiB, and offered to the kernel as huge pages. NULL on failure, with attn_last_error()
 * naming `what` and the size.
 */
void *attn_alloc(const attn_allocator *allocator, size_t size, const char *what);
/** Frees what attn_alloc gave with the same size; NULL is allowed. */
void attn_free(const attn_allocator *allocator, void *pointer, size_t size);

/** *out = a·b, a + b, or false when the result does not fit (or an operand is negative). */
static inline bool attn_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool attn_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool attn_mul_i64(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/** Rounds up to a multiple of ATTN_ALIGN; the caller has room for it below SIZE_MAX. */
static inline size_t attn_round_up(size_t size)
{
    return (size + ATTN_ALIGN - 1) & ~(ATTN_ALIGN - 1);
}

#endif
