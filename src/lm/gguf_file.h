/**
 * lm/gguf_file.h: an opened GGUF file, as its reader (gguf.c, gguf_parse.c) leaves it for the
 * look-ups (gguf_query.c). Everything here has been checked.
 */
#ifndef ATTN_LM_GGUF_FILE_H
#define ATTN_LM_GGUF_FILE_H

#include <attn/gguf.h>
#include <attn/safetensors.h>

/** A piece of memory for names; gguf_cursor.c knows it. */
typedef struct gguf_chunk gguf_chunk;

/** One metadata pair. */
typedef struct gguf_pair {
    char *key; /**< NUL-terminated, in the file's chunks */
    attn_gguf_type type;
    attn_gguf_type element; /**< of an array */
    int64_t count;          /**< of an array; 1 for scalars */
    const uint8_t *value;   /**< first byte of the scalar, of a string's length, or of element 0 */
    uint64_t *strings; /**< string arrays: offset in the file of each element's length; else NULL */
} gguf_pair;

struct attn_gguf {
    char *path;
    const uint8_t *map;
    size_t size;

    gguf_chunk *names; /**< keys and tensor names, NUL-terminated */
    gguf_pair *pairs;
    size_t pair_count;
    uint32_t *pair_order; /**< indices of pairs, by key */

    attn_gguf_tensor *tensors;
    size_t tensor_count;
    uint32_t *tensor_order; /**< indices of tensors, by name */

    bool heap;                /**< map is memory of our own, not a mapped file */
    attn_safetensors *lender; /**< what lends the bytes of tensors; closed with the file */
    size_t shown_bytes;       /**< the size to tell, where it is not the map's; 0 otherwise */
};

/** Reads header, metadata and tensor table of file->map into `file`; what it allocated is file's,
 * also on failure. */
attn_status gguf_parse(attn_gguf *file);

/** Sorts the tensors by name into file->tensor_order (which was NULL); FORMAT when a name is there twice. */
attn_status gguf_index_tensors(attn_gguf *file);

/** Frees the chunks of names. */
void gguf_free_names(attn_gguf *file);

/** Elements and bytes of a block of a tensor type; false when the type is unknown here. */
bool gguf_type_block(uint32_t tensor_type, int64_t *elements, size_t *bytes);

/** Bytes of a scalar of a metadata type; 0 for strings, arrays and unknown numbers. */
size_t gguf_scalar_bytes(uint32_t type);

/** Little-endian integers at any address. */
static inline uint32_t gguf_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t gguf_u64(const uint8_t *p)
{
    return (uint64_t)gguf_u32(p) | (uint64_t)gguf_u32(p + 4) << 32;
}

/** The pair of a key, or NULL. */
const gguf_pair *gguf_pair_find(const attn_gguf *file, const char *key);

#endif
