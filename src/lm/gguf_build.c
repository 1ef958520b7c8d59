/* Metadata in memory. */
#define _GNU_SOURCE
#include "lm/gguf_build.h"

#include <stdlib.h>
#include <string.h>

void gguf_build_free(gguf_build *b)
{
    free(b->bytes);
    *b = (gguf_build){0};
}

void gguf_put(gguf_build *b, const void *data, size_t size)
{
    if (!b->failed && size > b->room - b->size) {
        size_t room = 2 * b->room + size + 1024;
        unsigned char *bigger = realloc(b->bytes, room);
        b->failed = bigger == NULL;
        if (bigger) {
            b->bytes = bigger;
            b->room = room;
        }
    }
    if (!b->failed && size > 0) {
        memcpy(b->bytes + b->size, data, size);
        b->size += size;
    }
}

void gguf_put_u32(gguf_build *b, uint32_t value)
{
    unsigned char bytes[4];
    for (int i = 0; i < 4; i++) {
        bytes[i] = (unsigned char)(value >> (8 * i));
    }
    gguf_put(b, bytes, sizeof bytes);
}

void gguf_put_u64(gguf_build *b, uint64_t value)
{
    gguf_put_u32(b, (uint32_t)value);
    gguf_put_u32(b, (uint32_t)(value >> 32));
}

void gguf_put_string(gguf_build *b, const char *data, size_t size)
{
    gguf_put_u64(b, size);
    gguf_put(b, data, size);
}

static void put_key(gguf_build *b, const char *key, attn_gguf_type type)
{
    gguf_put_string(b, key, strlen(key));
    gguf_put_u32(b, (uint32_t)type);
    b->pairs++;
}

void gguf_put_pair_u32(gguf_build *b, const char *key, uint32_t value)
{
    put_key(b, key, ATTN_GGUF_U32);
    gguf_put_u32(b, value);
}

void gguf_put_pair_f64(gguf_build *b, const char *key, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(b, key, ATTN_GGUF_F64);
    gguf_put_u64(b, bits);
}

void gguf_put_pair_bool(gguf_build *b, const char *key, bool value)
{
    unsigned char byte = value;
    put_key(b, key, ATTN_GGUF_BOOL);
    gguf_put(b, &byte, 1);
}

void gguf_put_pair_text(gguf_build *b, const char *key, const char *text)
{
    put_key(b, key, ATTN_GGUF_STRING);
    gguf_put_string(b, text, strlen(text));
}

void gguf_put_array(gguf_build *b, const char *key, attn_gguf_type element, uint64_t count)
{
    put_key(b, key, ATTN_GGUF_ARRAY);
    gguf_put_u32(b, (uint32_t)element);
    gguf_put_u64(b, count);
}

/* Bytes of the string whose length is at p, the length included. */
static size_t string_bytes(const uint8_t *p)
{
    return 8 + (size_t)gguf_u64(p);
}

void gguf_put_copy(gguf_build *b, const attn_gguf *file, const gguf_pair *pair)
{
    if (pair->type != ATTN_GGUF_ARRAY) {
        put_key(b, pair->key, pair->type);
        gguf_put(b, pair->value,
                 pair->type == ATTN_GGUF_STRING ? string_bytes(pair->value)
                                                : gguf_scalar_bytes(pair->type));
        return;
    }
    gguf_put_array(b, pair->key, pair->element, (uint64_t)pair->count);
    if (pair->element != ATTN_GGUF_STRING) {
        gguf_put(b, pair->value, (size_t)pair->count * gguf_scalar_bytes(pair->element));
        return;
    }
    for (int64_t i = 0; i < pair->count; i++) {
        const uint8_t *string = file->map + pair->strings[i];
        gguf_put(b, string, string_bytes(string));
    }
}

attn_status gguf_from_build(gguf_build *b, const char *name, attn_gguf **file)
{
    gguf_build head = {0};
    *file = NULL;
    gguf_put(&head, "GGUF", 4);
    gguf_put_u32(&head, 3);
    gguf_put_u64(&head, 0);
    gguf_put_u64(&head, b->pairs);
    gguf_put(&head, b->bytes, b->size);
    attn_gguf *made = calloc(1, sizeof *made);
    if (made) {
        made->path = strdup(name);
    }
    if (!made || !made->path || head.failed || b->failed) {
        gguf_build_free(&head);
        gguf_build_free(b);
        attn_gguf_close(made);
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for its metadata", name);
    }
    gguf_build_free(b);
    made->map = head.bytes;
    made->size = head.size;
    made->heap = true;
    attn_status status = gguf_parse(made);
    if (status != ATTN_OK) {
        attn_gguf_close(made);
        return status;
    }
    *file = made;
    return ATTN_OK;
}

attn_status gguf_set_tensors(attn_gguf *file, attn_gguf_tensor *tensors, size_t count)
{
    free(file->tensors);
    free(file->tensor_order);
    file->tensors = tensors;
    file->tensor_count = count;
    file->tensor_order = NULL;
    return gguf_index_tensors(file);
}
