/**
 * lm/gguf_build.h: putting GGUF metadata together in memory: the head of files that are written, and files that exist in memory
 * alone, so that what is not a GGUF file can be read as if it were one.
 */
#ifndef ATTN_LM_GGUF_BUILD_H
#define ATTN_LM_GGUF_BUILD_H

#include "lm/gguf_file.h"

/** Metadata pairs as their bytes. `failed` once memory ran out: then the rest is ignored. */
typedef struct gguf_build {
    unsigned char *bytes;
    size_t size, room;
    uint64_t pairs;
    bool failed;
} gguf_build;

void gguf_build_free(gguf_build *b);

void gguf_put(gguf_build *b, const void *data, size_t size);
void gguf_put_u32(gguf_build *b, uint32_t value);
void gguf_put_u64(gguf_build *b, uint64_t value);
/** Length and bytes. */
void gguf_put_string(gguf_build *b, const char *data, size_t size);

void gguf_put_pair_u32(gguf_build *b, const char *key, uint32_t value);
void gguf_put_pair_f64(gguf_build *b, const char *key, double value);
void gguf_put_pair_bool(gguf_build *b, const char *key, bool value);
void gguf_put_pair_text(gguf_build *b, const char *key, const char *text);
/** The head of an array; `count` elements follow. */
void gguf_put_array(gguf_build *b, const char *key, attn_gguf_type element, uint64_t count);
/** A pair of another file, byte for byte. */
void gguf_put_copy(gguf_build *b, const attn_gguf *file, const gguf_pair *pair);

/**
 * A file in memory with these pairs and no tensors; takes the bytes. `name` is its path in error texts. Its tensors are then added
 * with gguf_set_tensors.
 */
attn_status gguf_from_build(gguf_build *b, const char *name, attn_gguf **file);

/** Makes tensors[count] (calloc'd, names living as long as the file) the file's own and indexes them. Errors: NO_MEMORY, FORMAT (a name twice). */
attn_status gguf_set_tensors(attn_gguf *file, attn_gguf_tensor *tensors, size_t count);

/** Room for `size` bytes that lives as long as the file; NULL without memory. */
void *gguf_store(attn_gguf *file, size_t size);

#endif
