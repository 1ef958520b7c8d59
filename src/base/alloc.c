/**
 * alloc.c: memory through the allocator hook.
 */
#define _GNU_SOURCE /* posix_memalign, madvise */
#include "base/alloc.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM ((size_t)1 << 20) /* smaller blocks would waste more than they gain */

static size_t alignment_of(size_t size)
{
    return size >= HUGE_FROM ? HUGE_PAGE : ATTN_ALIGN;
}

/* What is taken for `size`: never nothing, and from HUGE_FROM on whole huge pages. */
static size_t taken_for(size_t size)
{
    if (size < HUGE_FROM || size > SIZE_MAX - HUGE_PAGE) {
        return size > 0 ? size : 1;
    }
    return (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

static void *default_alloc(void *user, size_t size, size_t alignment)
{
    (void)user;
    void *pointer = NULL;
    if (posix_memalign(&pointer, alignment, size) != 0) {
        return NULL;
    }
    return pointer;
}

static void default_free(void *user, void *pointer, size_t size)
{
    (void)user;
    (void)size;
    free(pointer);
}

attn_allocator attn_allocator_default(void)
{
    return (attn_allocator){.alloc = default_alloc, .free = default_free};
}

void *attn_alloc(const attn_allocator *allocator, size_t size, const char *what)
{
    size_t bytes = taken_for(size);
    void *pointer = allocator->alloc(allocator->user, bytes, alignment_of(bytes));
    if (!pointer) {
        attn_fail(ATTN_ERR_NO_MEMORY,
                  "%s: no memory for %zu bytes; free some, or use smaller sizes", what, bytes);
        return NULL;
    }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= HUGE_FROM) {
        /* Only advice: a refusal changes nothing but speed. */
        (void)madvise(pointer, bytes, MADV_HUGEPAGE);
    }
#endif
    return pointer;
}

void attn_free(const attn_allocator *allocator, void *pointer, size_t size)
{
    if (pointer) {
        allocator->free(allocator->user, pointer, taken_for(size));
    }
}
