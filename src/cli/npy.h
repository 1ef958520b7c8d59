/**
 * npy.h: NumPy's .npy files (format versions 1 to 3): C order, little-endian, numbers only.
 * Source: NumPy's documentation of numpy.lib.format.
 */
#ifndef ATTN_CLI_NPY_H
#define ATTN_CLI_NPY_H

#include <attn/base.h>

typedef enum npy_type { NPY_F16, NPY_F32, NPY_F64, NPY_BOOL, NPY_U8, NPY_I32, NPY_I64 } npy_type;

typedef struct npy_array {
    npy_type type;
    int ndim; /**< 0 … 4 */
    int64_t shape[4];
    int64_t count; /**< elements */
    void *data;    /**< malloc'd; free with npy_free */
} npy_array;

/**
 * Reads a file whole. The header is not believed: sizes are checked against the file before memory is taken. Errors: IO,
 * FORMAT (with the fix, where a file of another order or type can be saved again), NO_MEMORY.
 */
attn_status npy_read(const char *path, npy_array *array);
void npy_free(npy_array *array);

/** Writes atomically: a temporary file beside `path`, flushed, then renamed; on failure `path` is as it was. */
attn_status npy_write(const char *path, npy_type type, int ndim, const int64_t *shape,
                      const void *data);

/** Element i of a numeric array as a double, or as an int64 (integers only: false otherwise). */
double npy_number(const npy_array *array, int64_t i);
bool npy_integer(const npy_array *array, int64_t i, int64_t *value);

size_t npy_type_size(npy_type type);
/** "<f4" and the like. */
const char *npy_type_name(npy_type type);

#endif
