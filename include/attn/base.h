/**
 * attn/base.h: what every other header needs: status and error text, element types, allocator,
 * version, logging sink.
 */
#ifndef ATTN_BASE_H
#define ATTN_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define ATTN_API
#elif defined(__GNUC__)
#define ATTN_API __attribute__((visibility("default")))
#else
#define ATTN_API
#endif

#define ATTN_VERSION_MAJOR  0
#define ATTN_VERSION_MINOR  1
#define ATTN_VERSION_PATCH  0
#define ATTN_VERSION_STRING "0.1.0"

/** What a call returns. The values are pinned: they are part of the binary interface. */
typedef enum attn_status {
    ATTN_OK = 0,
    ATTN_ERR_SHAPE = 1,       /**< sizes or strides that do not fit together */
    ATTN_ERR_DTYPE = 2,       /**< an element type that is not accepted there */
    ATTN_ERR_ARGUMENT = 3,    /**< any other bad value, NULL included */
    ATTN_ERR_UNSUPPORTED = 4, /**< legal, but not implemented: the text says what */
    ATTN_ERR_CAPACITY = 5,    /**< a cache or buffer is full: the text says both numbers */
    ATTN_ERR_NO_MEMORY = 6,
    ATTN_ERR_IO = 7,
    ATTN_ERR_FORMAT = 8,   /**< a file that is not what it claims to be */
    ATTN_ERR_CANCELLED = 9 /**< a cancel callback asked to stop */
} attn_status;

/** Element types. Zero is none of them, so that a zeroed view is recognised as empty. */
typedef enum attn_dtype {
    ATTN_DTYPE_NONE = 0,
    ATTN_F32 = 1,
    ATTN_F64 = 2,
    ATTN_BF16 = 3, /**< the upper half of an f32 */
    ATTN_F16 = 4,  /**< IEEE 754 binary16 */
    ATTN_BOOL = 5  /**< one byte: 0 is false, anything else true */
} attn_dtype;

/** Bytes of one element; 0 for a value that is no element type. */
ATTN_API size_t attn_dtype_size(attn_dtype dtype);

/** "f32", "f64", "bf16", "f16", "bool"; "none" or "invalid" otherwise. Static storage. */
ATTN_API const char *attn_dtype_name(attn_dtype dtype);

/** "0.1.0": the version of the library that is running (ATTN_VERSION_STRING is the header's). */
ATTN_API const char *attn_version(void);

/** A short name of a status, "ok", "shape", … Static storage. */
ATTN_API const char *attn_status_string(attn_status status);

/**
 * The text of the last failure on the calling thread: which argument, what it was, what it must be,
 * the usual fix. Never NULL; "" when nothing has failed. Valid until the thread's next attn call that
 * fails. A call that succeeds leaves it as it is.
 */
ATTN_API const char *attn_last_error(void);

/**
 * Reads options as every attn function does, for libraries built on attn: *known, of known_size bytes, holds the defaults (what `init` returns); the
 * given struct's bytes, as many as its struct_size says, go over them. A smaller struct_size is an older caller, for whom what it lacks keeps its
 * default; a larger one is a newer caller, understood as long as all that this library does not know is zero. `given` NULL leaves the defaults.
 * Errors name `name` and `init`: ARGUMENT where struct_size is none, UNSUPPORTED where something unknown is set.
 */
ATTN_API attn_status attn_take_struct(const char *name, const char *init, const void *given,
                                      void *known, size_t known_size);

/**
 * Records a failure on the calling thread and returns `status`: for libraries built on attn, so that
 * attn_last_error() tells their failures too. `format` as printf's; texts beyond 1023 bytes are cut.
 */
ATTN_API attn_status attn_fail(attn_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

/**
 * Where memory comes from. `alloc` returns `size` (> 0) bytes aligned to `alignment` (a power of two, at most 2 MiB) or
 * NULL; `free` gets the same pointer and size back (never NULL). Both may be called from any thread
 * that calls attn with the context the allocator was given to.
 */
typedef struct attn_allocator {
    void *(*alloc)(void *user, size_t size, size_t alignment);
    void (*free)(void *user, void *pointer, size_t size);
    void *user;
} attn_allocator;

/**
 * Where ATTN_VERBOSE=1 output goes, a line at a time without its newline. NULL restores stderr.
 * Set it before other threads use attn.
 */
ATTN_API void attn_set_log_sink(void (*sink)(void *user, const char *line), void *user);

#ifdef __cplusplus
}
#endif
#endif
