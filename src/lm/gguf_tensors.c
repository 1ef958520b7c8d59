/* The tensor table of a GGUF file: dimensions, types and places, none of them believed. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/gguf_cursor.h"

#define DEFAULT_ALIGNMENT 32

/* Dimensions of the tensor named t->name; its number of elements, which an int64_t holds. */
static attn_status take_dims(gguf_cursor *c, attn_gguf_tensor *t, int64_t *elements)
{
    uint32_t ndim = 0;
    size_t start = c->at;
    attn_status status = gguf_take_u32(c, "a tensor's number of dimensions", &ndim);
    if (status != ATTN_OK) {
        return status;
    }
    if (ndim < 1 || ndim > 4) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: tensor '%s' at byte %zu has %u dimensions; 1 to 4 are allowed",
                         c->file->path, gguf_show(t->name).text, start, ndim);
    }
    t->ndim = (int)ndim;
    *elements = 1;
    for (int d = 0; d < 4; d++) {
        uint64_t dim = 1;
        start = c->at;
        if (d < t->ndim) {
            status = gguf_take_u64(c, "a tensor's dimension", &dim);
            if (status != ATTN_OK) {
                return status;
            }
        }
        t->dims[d] = (int64_t)dim;
        if (dim == 0 || dim > INT64_MAX ||
            __builtin_mul_overflow(*elements, t->dims[d], elements)) {
            return attn_fail(
                ATTN_ERR_FORMAT, "%s: tensor '%s': dimension %d at byte %zu is %llu, which %s",
                c->file->path, gguf_show(t->name).text, d, start, (unsigned long long)dim,
                dim == 0 ? "must be at least 1" : "makes more elements than 63 bits count");
        }
    }
    return ATTN_OK;
}

/* One entry of the tensor table; its offset is left in *offset, as t->data has no base yet. */
static attn_status take_tensor(gguf_cursor *c, attn_gguf_tensor *t, uint64_t *offset)
{
    char *name = NULL;
    int64_t elements = 1;
    attn_status status = gguf_take_name(c, "a tensor's name", &name);
    if (status != ATTN_OK) {
        return status;
    }
    t->name = name;
    status = take_dims(c, t, &elements);
    if (status == ATTN_OK) {
        status = gguf_take_u32(c, "a tensor's type", &t->type);
    }
    if (status == ATTN_OK) {
        status = gguf_take_u64(c, "a tensor's offset", offset);
    }
    int64_t block;
    size_t block_bytes;
    if (status != ATTN_OK || !gguf_type_block(t->type, &block, &block_bytes)) {
        return status;
    }
    if (t->dims[0] % block != 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: tensor '%s' has rows of %lld elements, which is no multiple of %s's "
                         "block of %lld",
                         c->file->path, gguf_show(name).text, (long long)t->dims[0],
                         attn_gguf_type_name(t->type), (long long)block);
    }
    if (__builtin_mul_overflow((size_t)(elements / block), block_bytes, &t->bytes)) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: tensor '%s' would have more bytes than 64 bits count", c->file->path,
                         gguf_show(name).text);
    }
    return ATTN_OK;
}

static attn_status find_alignment(const attn_gguf *file, uint64_t *alignment)
{
    *alignment = DEFAULT_ALIGNMENT;
    const gguf_pair *pair = gguf_pair_find(file, "general.alignment");
    if (!pair) {
        return ATTN_OK;
    }
    int64_t value;
    if (!attn_gguf_get_int(file, "general.alignment", &value)) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: general.alignment is no integer; it must be a u32",
                         file->path);
    }
    if (value < 8 || value > UINT32_MAX || (value & (value - 1)) != 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: general.alignment is %lld; it must be a power of two from 8 up",
                         file->path, (long long)value);
    }
    *alignment = (uint64_t)value;
    return ATTN_OK;
}

/* Turns offsets into addresses: aligned, inside the file. */
static attn_status place_tensors(attn_gguf *file, size_t table_end, uint64_t *offsets)
{
    uint64_t alignment;
    attn_status status = find_alignment(file, &alignment);
    if (status != ATTN_OK) {
        return status;
    }
    /* A file without tensors may end right after its metadata. */
    uint64_t start = ((uint64_t)table_end + alignment - 1) & ~(alignment - 1);
    uint64_t room = start < file->size ? file->size - start : 0;
    for (size_t i = 0; i < file->tensor_count; i++) {
        attn_gguf_tensor *t = &file->tensors[i];
        if (offsets[i] % alignment != 0) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: tensor '%s' starts at offset %llu, which is no multiple of the "
                             "alignment %llu",
                             file->path, gguf_show(t->name).text, (unsigned long long)offsets[i],
                             (unsigned long long)alignment);
        }
        if (offsets[i] > room || t->bytes > room - offsets[i]) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: tensor '%s' needs %zu bytes from offset %llu of the data at byte "
                             "%llu, but the file ends at byte %zu; it is cut off or damaged, fetch "
                             "it again",
                             file->path, gguf_show(t->name).text, t->bytes,
                             (unsigned long long)offsets[i], (unsigned long long)start, file->size);
        }
        t->data = t->bytes ? file->map + start + offsets[i] : NULL;
    }
    return ATTN_OK;
}

static int by_name(const void *a, const void *b, void *user)
{
    const attn_gguf *file = user;
    return strcmp(file->tensors[*(const uint32_t *)a].name,
                  file->tensors[*(const uint32_t *)b].name);
}

static int by_address(const void *a, const void *b, void *user)
{
    const attn_gguf *file = user;
    uintptr_t x = (uintptr_t)file->tensors[*(const uint32_t *)a].data;
    uintptr_t y = (uintptr_t)file->tensors[*(const uint32_t *)b].data;
    return (x > y) - (x < y);
}

attn_status gguf_index_tensors(attn_gguf *file)
{
    file->tensor_order = gguf_sorted_indices(file, file->tensor_count, by_name);
    if (!file->tensor_order) {
        return ATTN_ERR_NO_MEMORY;
    }
    for (size_t i = 1; i < file->tensor_count; i++) {
        const char *name = file->tensors[file->tensor_order[i]].name;
        if (strcmp(file->tensors[file->tensor_order[i - 1]].name, name) == 0) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: tensor '%s' is there twice; names must be unique", file->path,
                             gguf_show(name).text);
        }
    }
    return ATTN_OK;
}

static attn_status check_overlap(attn_gguf *file)
{
    uint32_t *order = gguf_sorted_indices(file, file->tensor_count, by_address);
    if (!order) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = ATTN_OK;
    for (size_t i = 1; i < file->tensor_count && status == ATTN_OK; i++) {
        const attn_gguf_tensor *a = &file->tensors[order[i - 1]], *b = &file->tensors[order[i]];
        if (a->data && (const uint8_t *)a->data + a->bytes > (const uint8_t *)b->data) {
            status =
                attn_fail(ATTN_ERR_FORMAT,
                          "%s: tensors '%s' and '%s' overlap in the file (from byte %zu); each "
                          "must have bytes of its own",
                          file->path, gguf_show(a->name).text, gguf_show(b->name).text,
                          (size_t)((const uint8_t *)b->data - file->map));
        }
    }
    free(order);
    return status;
}

attn_status gguf_take_tensors(gguf_cursor *c)
{
    attn_gguf *file = c->file;
    file->tensors = calloc(file->tensor_count + 1, sizeof *file->tensors);
    uint64_t *offsets = calloc(file->tensor_count + 1, sizeof *offsets);
    attn_status status = ATTN_OK;
    if (!file->tensors || !offsets) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for a table of %zu tensors",
                           file->path, file->tensor_count);
    }
    for (size_t i = 0; i < file->tensor_count && status == ATTN_OK; i++) {
        status = take_tensor(c, &file->tensors[i], &offsets[i]);
    }
    if (status == ATTN_OK) {
        status = gguf_index_tensors(file);
    }
    if (status == ATTN_OK) {
        status = place_tensors(file, c->at, offsets);
    }
    free(offsets);
    return status == ATTN_OK ? check_overlap(file) : status;
}
