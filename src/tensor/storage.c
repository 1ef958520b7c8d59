/**
 * storage.c: the memory of tensors. A training step needs the same sizes again and again: the tape's pool keeps what a step
 * gives back, so that the next one finds its pages mapped. Page faults cost more than many operations do.
 */
#define _GNU_SOURCE /* posix_memalign, madvise */
#include "tensor/tensor.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)

enum {
    ALIGN = 64,
    SMALLEST = 6, /* log2 of the smallest class */
    STEPS = 8,    /* classes per power of two: at most an eighth is wasted */
    CLASSES = STEPS * (64 - SMALLEST),
    IDLE_STEPS = 2, /* clears after which a buffer that nobody took goes */
};

/* Lies at the start of a free buffer. */
typedef struct spare {
    struct spare *next;
    size_t bytes;
    int64_t since; /* step in which it came back */
} spare;

struct attn_buffers {
    int64_t references;
    int64_t step;
    size_t bytes; /* of all buffers, in use and spare */
    bool closed;
    spare *spares[CLASSES];
};

/* Rounds bytes up to a class's size and tells the class; SIZE_MAX bytes for what cannot be had. */
static int class_of(size_t *bytes)
{
    size_t size = *bytes < ((size_t)1 << SMALLEST) ? (size_t)1 << SMALLEST : *bytes;
    int log = SMALLEST;
    while (log < 62 && size >> (log + 1) != 0) {
        log++;
    }
    size_t step = ((size_t)1 << log) / STEPS;
    size_t over = (size - ((size_t)1 << log) + step - 1) / step;
    if (size > SIZE_MAX / 4) {
        *bytes = SIZE_MAX;
        return -1;
    }
    *bytes = ((size_t)1 << log) + over * step;
    return (log - SMALLEST) * STEPS + (int)over;
}

static void *fresh(size_t bytes)
{
    void *pointer = NULL;
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGN;
    if (bytes == SIZE_MAX || posix_memalign(&pointer, align, bytes) != 0) {
        return NULL;
    }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= HUGE_PAGE) {
        (void)madvise(pointer, bytes, MADV_HUGEPAGE); /* only advice */
    }
#endif
    return pointer;
}

attn_buffers *attn_buffers_create(void)
{
    attn_buffers *pool = calloc(1, sizeof *pool);
    if (pool) {
        pool->references = 1;
    }
    return pool;
}

void attn_buffers_release(attn_buffers *pool)
{
    if (pool && --pool->references == 0) {
        attn_buffers_close(pool);
        free(pool);
    }
}

/* Frees spares of a class that came back before `step`; the list is newest first. */
static void drop_before(attn_buffers *pool, spare **list, int64_t step)
{
    while (*list && (*list)->since >= step) {
        list = &(*list)->next;
    }
    while (*list) {
        spare *gone = *list;
        *list = gone->next;
        pool->bytes -= gone->bytes;
        free(gone);
    }
}

void attn_buffers_close(attn_buffers *pool)
{
    pool->closed = true;
    for (int i = 0; i < CLASSES; i++) {
        drop_before(pool, &pool->spares[i], INT64_MAX);
    }
}

void attn_buffers_step(attn_buffers *pool)
{
    pool->step++;
    for (int i = 0; i < CLASSES; i++) {
        drop_before(pool, &pool->spares[i], pool->step - IDLE_STEPS);
    }
}

size_t attn_buffers_bytes(const attn_buffers *pool)
{
    return pool->bytes;
}

static void *pool_take(attn_buffers *pool, int index, size_t bytes)
{
    spare *found = index >= 0 ? pool->spares[index] : NULL;
    if (found) {
        pool->spares[index] = found->next;
        return found;
    }
    void *pointer = fresh(bytes);
    pool->bytes += pointer ? bytes : 0;
    return pointer;
}

static void pool_give(attn_buffers *pool, void *pointer, size_t bytes)
{
    if (pool->closed) {
        pool->bytes -= bytes;
        free(pointer);
        return;
    }
    size_t size = bytes;
    int index = class_of(&size);
    spare *s = pointer;
    *s = (spare){.next = pool->spares[index], .bytes = bytes, .since = pool->step};
    pool->spares[index] = s;
}

attn_storage *attn_storage_take(attn_buffers *pool, size_t bytes)
{
    size_t rounded = bytes;
    int index = class_of(&rounded);
    attn_storage *storage = malloc(sizeof *storage);
    void *data = !storage ? NULL : pool ? pool_take(pool, index, rounded) : fresh(rounded);
    if (!data) {
        free(storage);
        attn_fail(ATTN_ERR_NO_MEMORY,
                  "tensor: no memory for %zu bytes; use a smaller batch, shorter sequences or "
                  "attn_tensor_checkpoint",
                  bytes);
        return NULL;
    }
    *storage = (attn_storage){.references = 1, .data = data, .bytes = rounded, .pool = pool};
    if (pool) {
        pool->references++;
    }
    return storage;
}

void attn_storage_release(attn_storage *storage)
{
    if (!storage || --storage->references > 0) {
        return;
    }
    if (storage->pool) {
        pool_give(storage->pool, storage->data, storage->bytes);
        attn_buffers_release(storage->pool);
    } else {
        free(storage->data);
    }
    free(storage);
}
