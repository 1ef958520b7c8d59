/**
 * attn/gguf.h: reading GGUF v3 model files. A file is hostile until checked: every count, length, offset and
 * product is verified before it is used, and a bad file is an error, never a crash.
 */
#ifndef ATTN_GGUF_H
#define ATTN_GGUF_H

#include <attn/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_gguf attn_gguf;

/** Types of metadata values, with the file's own numbers. */
typedef enum attn_gguf_type {
    ATTN_GGUF_U8 = 0,
    ATTN_GGUF_I8 = 1,
    ATTN_GGUF_U16 = 2,
    ATTN_GGUF_I16 = 3,
    ATTN_GGUF_U32 = 4,
    ATTN_GGUF_I32 = 5,
    ATTN_GGUF_F32 = 6,
    ATTN_GGUF_BOOL = 7,
    ATTN_GGUF_STRING = 8,
    ATTN_GGUF_ARRAY = 9,
    ATTN_GGUF_U64 = 10,
    ATTN_GGUF_I64 = 11,
    ATTN_GGUF_F64 = 12
} attn_gguf_type;

/** A string inside the mapped file: not NUL-terminated, lives as long as the attn_gguf. */
typedef struct attn_gguf_string {
    const char *data;
    size_t size;
} attn_gguf_string;

/** One tensor. Dimensions are fastest first, as in the file: dims[0] is the length of a row. */
typedef struct attn_gguf_tensor {
    const char *name; /**< NUL-terminated */
    uint32_t type;    /**< ggml's number: 0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0, 30 BF16, … */
    int ndim;         /**< 1 … 4 */
    int64_t dims[4];  /**< 1 beyond ndim */
    const void *data; /**< in the mapped file; NULL when the type's size is unknown here */
    size_t bytes;     /**< 0 when the type's size is unknown here */
} attn_gguf_tensor;

/** Maps and checks a file. Errors: IO, FORMAT (what, where in the file), NO_MEMORY, ARGUMENT. */
ATTN_API attn_status attn_gguf_open(const char *path, attn_gguf **file);
ATTN_API void attn_gguf_close(attn_gguf *file);

ATTN_API const char *attn_gguf_path(const attn_gguf *file);
ATTN_API size_t attn_gguf_file_bytes(const attn_gguf *file);
ATTN_API int64_t attn_gguf_tensor_count(const attn_gguf *file);
/** By index in the file's order; NULL out of range. */
ATTN_API const attn_gguf_tensor *attn_gguf_tensor_at(const attn_gguf *file, int64_t index);
/** By name; NULL when there is none. */
ATTN_API const attn_gguf_tensor *attn_gguf_find(const attn_gguf *file, const char *name);
/** "Q4_1", "F32", …; "type 99" style text for unknown numbers. Static or thread-local storage. */
ATTN_API const char *attn_gguf_type_name(uint32_t tensor_type);

/** Number of metadata pairs, and the key (NUL-terminated) and type of each. */
ATTN_API int64_t attn_gguf_key_count(const attn_gguf *file);
ATTN_API const char *attn_gguf_key_at(const attn_gguf *file, int64_t index, attn_gguf_type *type);

/** Typed look-ups: true and *value set when the key exists and its value is (losslessly) of that kind. */
ATTN_API bool attn_gguf_get_int(const attn_gguf *file, const char *key, int64_t *value);
ATTN_API bool attn_gguf_get_float(const attn_gguf *file, const char *key, double *value);
ATTN_API bool attn_gguf_get_bool(const attn_gguf *file, const char *key, bool *value);
ATTN_API bool attn_gguf_get_string(const attn_gguf *file, const char *key, attn_gguf_string *value);

/** Arrays: element type and count; elements of string arrays by index (constant time), numbers as int64 / double. */
ATTN_API bool attn_gguf_get_array(const attn_gguf *file, const char *key, attn_gguf_type *element,
                                  int64_t *count);
ATTN_API bool attn_gguf_array_string(const attn_gguf *file, const char *key, int64_t index,
                                     attn_gguf_string *value);
ATTN_API bool attn_gguf_array_int(const attn_gguf *file, const char *key, int64_t index,
                                  int64_t *value);
ATTN_API bool attn_gguf_array_float(const attn_gguf *file, const char *key, int64_t index,
                                    double *value);

/** dst[elements] = the tensor's floats. UNSUPPORTED names the tensor and its type. */
ATTN_API attn_status attn_gguf_dequantize(const attn_gguf_tensor *tensor, float *dst,
                                          int64_t elements);

#ifdef __cplusplus
}
#endif
#endif
