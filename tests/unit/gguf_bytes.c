#define _GNU_SOURCE
#include "gguf_bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void put(bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->capacity) {
        b->capacity = 2 * (b->size + size);
        b->data = realloc(b->data, b->capacity);
        if (!b->data) {
            abort();
        }
    }
    if (size > 0) {
        memcpy(b->data + b->size, data, size);
    }
    b->size += size;
}

void put_u8(bytes *b, uint8_t value)
{
    put(b, &value, 1);
}

void put_u32(bytes *b, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        put_u8(b, (uint8_t)(value >> (8 * i)));
    }
}

void put_u64(bytes *b, uint64_t value)
{
    put_u32(b, (uint32_t)value);
    put_u32(b, (uint32_t)(value >> 32));
}

void put_string(bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

void put_zeros(bytes *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put_u8(b, 0);
    }
}

void put_padding(bytes *b, size_t alignment)
{
    while (b->size % alignment) {
        put_u8(b, 0);
    }
}

void put_header(bytes *b, uint32_t version, uint64_t tensors, uint64_t pairs)
{
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, tensors);
    put_u64(b, pairs);
}

void put_pair(bytes *b, const char *key, attn_gguf_type type)
{
    put_string(b, key);
    put_u32(b, (uint32_t)type);
}

void put_pair_u32(bytes *b, const char *key, uint32_t value)
{
    put_pair(b, key, ATTN_GGUF_U32);
    put_u32(b, value);
}

void put_pair_bool(bytes *b, const char *key, bool value)
{
    put_pair(b, key, ATTN_GGUF_BOOL);
    put_u8(b, value);
}

void put_pair_string(bytes *b, const char *key, const char *text)
{
    put_pair(b, key, ATTN_GGUF_STRING);
    put_string(b, text);
}

void put_pair_strings(bytes *b, const char *key, const char *const *texts, size_t count)
{
    put_pair(b, key, ATTN_GGUF_ARRAY);
    put_u32(b, ATTN_GGUF_STRING);
    put_u64(b, count);
    for (size_t i = 0; i < count; i++) {
        put_string(b, texts[i]);
    }
}

void put_pair_i32s(bytes *b, const char *key, const int32_t *values, size_t count)
{
    put_pair(b, key, ATTN_GGUF_ARRAY);
    put_u32(b, ATTN_GGUF_I32);
    put_u64(b, count);
    for (size_t i = 0; i < count; i++) {
        put_u32(b, (uint32_t)values[i]);
    }
}

void put_tensor(bytes *b, const char *name, uint32_t ndim, const uint64_t *dims, uint32_t type,
                uint64_t offset)
{
    put_string(b, name);
    put_u32(b, ndim);
    for (uint32_t d = 0; d < ndim; d++) {
        put_u64(b, dims[d]);
    }
    put_u32(b, type);
    put_u64(b, offset);
}

void bytes_free(bytes *b)
{
    free(b->data);
    *b = (bytes){0};
}

attn_status open_bytes(const void *data, size_t size, attn_gguf **file)
{
    int fd = memfd_create("test.gguf", 0);
    if (fd < 0) {
        abort();
    }
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n <= 0) {
            abort();
        }
        done += (size_t)n;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    attn_status status = attn_gguf_open(path, file);
    close(fd);
    return status;
}

bool error_has(const char *part)
{
    bool has = strstr(attn_last_error(), part) != NULL;
    if (!has) {
        fprintf(stderr, "wanted \"%s\" in: %s\n", part, attn_last_error());
    }
    return has;
}

const char *default_model(void)
{
    static char path[4096];
    const char *cache = getenv("ATTN_CACHE"), *home = getenv("HOME");
    const char *name = "SmolLM2-135M-Instruct.Q4_1.gguf";
    if (cache && *cache) {
        snprintf(path, sizeof path, "%s/%s", cache, name);
    } else {
        snprintf(path, sizeof path, "%s/.cache/attn/%s", home ? home : "", name);
    }
    if (access(path, R_OK) != 0) {
        printf("skipped: %s is not there; `attn fetch` gets it\n", path);
        return NULL;
    }
    return path;
}
