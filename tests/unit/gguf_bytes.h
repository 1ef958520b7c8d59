/**
 * gguf_bytes.h: GGUF files put together in memory, right or wrong, for the tests that read them.
 */
#ifndef TESTS_GGUF_BYTES_H
#define TESTS_GGUF_BYTES_H

#include <attn/gguf.h>

/** A file being written. */
typedef struct bytes {
    uint8_t *data;
    size_t size, capacity;
} bytes;

void put(bytes *b, const void *data, size_t size);
void put_u8(bytes *b, uint8_t value);
void put_u32(bytes *b, uint32_t value);
void put_u64(bytes *b, uint64_t value);
/** Length and bytes. */
void put_string(bytes *b, const char *text);
void put_zeros(bytes *b, size_t count);
/** Zeros up to a multiple of `alignment`. */
void put_padding(bytes *b, size_t alignment);

/** Magic, version, counts. */
void put_header(bytes *b, uint32_t version, uint64_t tensors, uint64_t pairs);
void put_pair(bytes *b, const char *key, attn_gguf_type type); /* the value follows */
void put_pair_u32(bytes *b, const char *key, uint32_t value);
void put_pair_bool(bytes *b, const char *key, bool value);
void put_pair_string(bytes *b, const char *key, const char *text);
void put_pair_strings(bytes *b, const char *key, const char *const *texts, size_t count);
void put_pair_i32s(bytes *b, const char *key, const int32_t *values, size_t count);
/** An entry of the tensor table. */
void put_tensor(bytes *b, const char *name, uint32_t ndim, const uint64_t *dims, uint32_t type,
                uint64_t offset);

void bytes_free(bytes *b);

/** attn_gguf_open of data[0 … size), through a file without a name. */
attn_status open_bytes(const void *data, size_t size, attn_gguf **file);

/** Whether attn_last_error() contains `part`; prints it when not. */
bool error_has(const char *part);

/** $ATTN_CACHE or ~/.cache/attn, and the default model's file; NULL, with a message, where it is
 * not there. Static storage. */
const char *default_model(void);

#endif
