/* Bounded reads from a mapped GGUF file, and the store of its names. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/gguf_build.h"
#include "lm/gguf_cursor.h"

/* Names are copied into chunks of this many bytes (more for a longer name): pointers into them
 * stay. */
#define CHUNK_BYTES 65536

struct gguf_chunk {
    gguf_chunk *next;
    size_t used, size;
    char bytes[];
};

gguf_shown gguf_show(const char *name)
{
    gguf_shown s;
    size_t i = 0;
    for (; i < 80 && name[i]; i++) {
        unsigned char c = (unsigned char)name[i];
        s.text[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    strcpy(s.text + i, name[i] ? "..." : "");
    return s;
}

static attn_status truncated(const gguf_cursor *c, const char *what, uint64_t need)
{
    return attn_fail(
        ATTN_ERR_FORMAT,
        "%s: %s at byte %zu needs %llu bytes, but the file ends at byte %zu; it is cut "
        "off or damaged, fetch it again",
        c->file->path, what, c->at, (unsigned long long)need, c->file->size);
}

attn_status gguf_take(gguf_cursor *c, size_t bytes, const char *what, const uint8_t **p)
{
    if (bytes > c->file->size - c->at) {
        return truncated(c, what, bytes);
    }
    *p = c->file->map + c->at;
    c->at += bytes;
    return ATTN_OK;
}

attn_status gguf_take_u32(gguf_cursor *c, const char *what, uint32_t *value)
{
    const uint8_t *p = NULL;
    attn_status status = gguf_take(c, 4, what, &p);
    if (status == ATTN_OK) {
        *value = gguf_u32(p);
    }
    return status;
}

attn_status gguf_take_u64(gguf_cursor *c, const char *what, uint64_t *value)
{
    const uint8_t *p = NULL;
    attn_status status = gguf_take(c, 8, what, &p);
    if (status == ATTN_OK) {
        *value = gguf_u64(p);
    }
    return status;
}

attn_status gguf_take_string(gguf_cursor *c, const char *what, const uint8_t **bytes, size_t *size)
{
    uint64_t length = 0;
    attn_status status = gguf_take_u64(c, what, &length);
    if (status != ATTN_OK) {
        return status;
    }
    if (length > c->file->size - c->at) {
        return truncated(c, what, length);
    }
    *size = (size_t)length;
    return gguf_take(c, *size, what, bytes);
}

/* Room for `size` bytes that stay where they are. */
static char *store(attn_gguf *file, size_t size)
{
    gguf_chunk *chunk = file->names;
    if (!chunk || size > chunk->size - chunk->used) {
        size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        chunk = malloc(sizeof *chunk + room);
        if (!chunk) {
            return NULL;
        }
        *chunk = (gguf_chunk){.next = file->names, .used = 0, .size = room};
        file->names = chunk;
    }
    char *place = chunk->bytes + chunk->used;
    chunk->used += size;
    return place;
}

void *gguf_store(attn_gguf *file, size_t size)
{
    const size_t alignment = 64;
    gguf_chunk *chunk = size < SIZE_MAX / 2 ? malloc(sizeof *chunk + size + alignment) : NULL;
    if (!chunk) {
        return NULL;
    }
    /* Behind the chunk of names that is being filled. */
    gguf_chunk **link = file->names ? &file->names->next : &file->names;
    *chunk = (gguf_chunk){.next = *link, .used = size + alignment, .size = size + alignment};
    *link = chunk;
    return (void *)(((uintptr_t)chunk->bytes + alignment - 1) & ~(uintptr_t)(alignment - 1));
}

void gguf_free_names(attn_gguf *file)
{
    while (file->names) {
        gguf_chunk *next = file->names->next;
        free(file->names);
        file->names = next;
    }
}

attn_status gguf_take_name(gguf_cursor *c, const char *what, char **name)
{
    const uint8_t *bytes = NULL;
    size_t size = 0;
    size_t start = c->at;
    attn_status status = gguf_take_string(c, what, &bytes, &size);
    if (status != ATTN_OK) {
        return status;
    }
    if (size == 0 || memchr(bytes, 0, size)) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: %s at byte %zu %s; the file is damaged",
                         c->file->path, what, start,
                         size == 0 ? "is empty" : "contains a NUL byte");
    }
    *name = store(c->file, size + 1);
    if (!*name) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for a name of %zu bytes", c->file->path,
                         size);
    }
    memcpy(*name, bytes, size);
    (*name)[size] = 0;
    return ATTN_OK;
}

uint32_t *gguf_sorted_indices(attn_gguf *file, size_t count,
                              int (*compare)(const void *, const void *, void *))
{
    uint32_t *order = malloc(count ? count * sizeof *order : 1);
    if (!order) {
        attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for an index of %zu entries", file->path,
                  count);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = (uint32_t)i;
    }
    qsort_r(order, count, sizeof *order, compare, file);
    return order;
}
