/**
 * attn/safetensors.h: reading and writing safetensors files: 8 bytes of little-endian header length, a JSON
 * header, the tensors' bytes. A file is hostile until checked; what is written is byte for byte what the
 * `safetensors` Python package writes (0.8), with metadata in the order of their keys, where the package has none.
 */
#ifndef ATTN_SAFETENSORS_H
#define ATTN_SAFETENSORS_H

#include <attn/base.h>
#include <attn/view.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Element types of the format, in the order in which the package sorts tensors (the last first). */
typedef enum attn_safetensors_dtype {
    ATTN_ST_NONE = 0,
    ATTN_ST_BOOL,
    ATTN_ST_U8,
    ATTN_ST_I8,
    ATTN_ST_F8_E5M2,
    ATTN_ST_F8_E4M3,
    ATTN_ST_F8_E8M0,
    ATTN_ST_F8_E4M3FNUZ,
    ATTN_ST_F8_E5M2FNUZ,
    ATTN_ST_I16,
    ATTN_ST_U16,
    ATTN_ST_F16,
    ATTN_ST_BF16,
    ATTN_ST_I32,
    ATTN_ST_U32,
    ATTN_ST_F32,
    ATTN_ST_C64, /**< complex, two F32 */
    ATTN_ST_F64,
    ATTN_ST_I64,
    ATTN_ST_U64
} attn_safetensors_dtype;

/** Dimensions that a tensor may have here. */
#define ATTN_SAFETENSORS_MAX_NDIM 8

/** "F32", "BF16", …; "NONE" for no dtype of this list. Static storage. */
ATTN_API const char *attn_safetensors_dtype_name(attn_safetensors_dtype dtype);
/** Bytes of one element; 0 for no dtype of this list. */
ATTN_API size_t attn_safetensors_dtype_size(attn_safetensors_dtype dtype);
/** The dtype that holds a view's elements as they are; NONE for ATTN_DTYPE_NONE. */
ATTN_API attn_safetensors_dtype attn_safetensors_dtype_of(attn_dtype dtype);

/* ---- reading ---- */

typedef struct attn_safetensors attn_safetensors;

/** One tensor of a file: row-major, dense. */
typedef struct attn_safetensor {
    const char *name; /**< NUL-terminated */
    attn_safetensors_dtype dtype;
    int ndim;                                 /**< 0 (a scalar) … 8 */
    int64_t shape[ATTN_SAFETENSORS_MAX_NDIM]; /**< sizes ≥ 0; 1 beyond ndim */
    int64_t elements;
    const void *
        data; /**< in the mapped file, little-endian, of any alignment; NULL when it has no bytes */
    size_t bytes;
} attn_safetensor;

/**
 * Maps and checks a file: header of at most 100,000,000 bytes, valid UTF-8 JSON, no name twice, every tensor's shape, dtype
 * and place agreeing, tensors side by side without gaps or overlaps to the very end of the file, as the package demands. Memory
 * is bounded by a multiple of the header's size. The file must not be truncated while it is open; replacing
 * it by rename, as attn_safetensors_save does, is fine. Errors: IO, FORMAT (names the tensor), UNSUPPORTED (a dtype or number of dimensions
 * not listed above), NO_MEMORY, ARGUMENT.
 */
ATTN_API attn_status attn_safetensors_open(const char *path, attn_safetensors **file);
/** NULL is allowed. */
ATTN_API void attn_safetensors_close(attn_safetensors *file);

ATTN_API const char *attn_safetensors_path(const attn_safetensors *file);
ATTN_API size_t attn_safetensors_file_bytes(const attn_safetensors *file);
ATTN_API int64_t attn_safetensors_count(const attn_safetensors *file);
/** By index in the order of their bytes in the file; NULL out of range. */
ATTN_API const attn_safetensor *attn_safetensors_at(const attn_safetensors *file, int64_t index);
/** By name; NULL when there is none. */
ATTN_API const attn_safetensor *attn_safetensors_find(const attn_safetensors *file,
                                                      const char *name);

/** Number of `__metadata__` strings. */
ATTN_API int64_t attn_safetensors_metadata_count(const attn_safetensors *file);
/** Key and value (both NUL-terminated, `value` may be NULL) by index, in the order of keys; NULL out of range. */
ATTN_API const char *attn_safetensors_metadata_at(const attn_safetensors *file, int64_t index,
                                                  const char **value);
/** The value of a key (NUL-terminated); NULL when there is none. */
ATTN_API const char *attn_safetensors_metadata(const attn_safetensors *file, const char *key);

/**
 * dst[elements] = the tensor's values. F64, F32, F16, BF16 convert to F32 and F64 (to F32 rounding to nearest even); any other dtype
 * is copied as it is, `dtype` then being ATTN_DTYPE_NONE (which copies every dtype as it is). Errors: SHAPE (elements), DTYPE (names both).
 */
ATTN_API attn_status attn_safetensors_read(const attn_safetensor *tensor, attn_dtype dtype,
                                           void *dst, int64_t elements);

/* ---- writing ---- */

/** A tensor to be written. */
typedef struct attn_safetensors_item {
    const char *name;             /**< UTF-8, unique, not "__metadata__" */
    attn_safetensors_dtype dtype; /**< how it is stored */
    int ndim;
    int64_t shape[ATTN_SAFETENSORS_MAX_NDIM];
    const void *data; /**< dense, row-major; may be NULL when there are no elements */
    /** ATTN_DTYPE_NONE: data is of `dtype` already. ATTN_F32 (with dtype F32, F16 or BF16): data is float, and is rounded to nearest even. */
    attn_dtype source;
} attn_safetensors_item;

/** A pair of `__metadata__`: NUL-terminated UTF-8. */
typedef struct attn_safetensors_pair {
    const char *key, *value;
} attn_safetensors_pair;

/**
 * A dense view (f32, f64, bf16, f16, bool) as an item, stored as `dtype` (NONE: the view's own). Names are not copied. A view that is not dense row-major gives an item
 * with dtype NONE, which attn_safetensors_save refuses.
 */
ATTN_API attn_safetensors_item attn_safetensors_item_from(const char *name, const attn_view *view,
                                                          attn_safetensors_dtype dtype);

/**
 * Writes a file atomically: into `<path>.part` beside it, flushed to the disk, renamed over `path`, the folder flushed. Whatever fails (a full
 * disk, a kill at any moment), `path` is the old file or the new one, whole; after a failure that returns, the `.part` is gone. One left behind by
 * a kill is taken over by the next save. A path that is a device or pipe is written to as it is; through a symbolic link the file it points to is replaced.
 * Tensors are ordered as the package orders them, whatever the order of items.
 * Errors: IO (says why; also when another process is just writing `path`), ARGUMENT, SHAPE, NO_MEMORY.
 */
ATTN_API attn_status attn_safetensors_save(const char *path, const attn_safetensors_item *items,
                                           size_t count, const attn_safetensors_pair *metadata,
                                           size_t pairs);

#ifdef __cplusplus
}
#endif
#endif
