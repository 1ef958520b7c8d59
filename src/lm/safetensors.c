/* Opening, closing, look-ups and values; the header is read by safetensors_parse.c. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include <attn/linear.h>

#include "lm/map_file.h"
#include "lm/name_index.h"
#include "lm/safetensors_file.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [ATTN_ST_NONE] = {"NONE", 0},
    [ATTN_ST_BOOL] = {"BOOL", 1},
    [ATTN_ST_U8] = {"U8", 1},
    [ATTN_ST_I8] = {"I8", 1},
    [ATTN_ST_F8_E5M2] = {"F8_E5M2", 1},
    [ATTN_ST_F8_E4M3] = {"F8_E4M3", 1},
    [ATTN_ST_F8_E8M0] = {"F8_E8M0", 1},
    [ATTN_ST_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 1},
    [ATTN_ST_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 1},
    [ATTN_ST_I16] = {"I16", 2},
    [ATTN_ST_U16] = {"U16", 2},
    [ATTN_ST_F16] = {"F16", 2},
    [ATTN_ST_BF16] = {"BF16", 2},
    [ATTN_ST_I32] = {"I32", 4},
    [ATTN_ST_U32] = {"U32", 4},
    [ATTN_ST_F32] = {"F32", 4},
    [ATTN_ST_C64] = {"C64", 8},
    [ATTN_ST_F64] = {"F64", 8},
    [ATTN_ST_I64] = {"I64", 8},
    [ATTN_ST_U64] = {"U64", 8},
};

#define DTYPES (sizeof dtypes / sizeof *dtypes)

const char *attn_safetensors_dtype_name(attn_safetensors_dtype dtype)
{
    return (size_t)dtype < DTYPES ? dtypes[dtype].name : "NONE";
}

size_t attn_safetensors_dtype_size(attn_safetensors_dtype dtype)
{
    return (size_t)dtype < DTYPES ? dtypes[dtype].size : 0;
}

attn_safetensors_dtype safetensors_dtype_named(const char *name)
{
    for (size_t i = 1; i < DTYPES; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            return (attn_safetensors_dtype)i;
        }
    }
    return ATTN_ST_NONE;
}

attn_safetensors_dtype attn_safetensors_dtype_of(attn_dtype dtype)
{
    switch (dtype) {
    case ATTN_F32: return ATTN_ST_F32;
    case ATTN_F64: return ATTN_ST_F64;
    case ATTN_BF16: return ATTN_ST_BF16;
    case ATTN_F16: return ATTN_ST_F16;
    case ATTN_BOOL: return ATTN_ST_BOOL;
    default: return ATTN_ST_NONE;
    }
}

/* ---- opening ---- */

static attn_status open_and_parse(attn_safetensors *file)
{
    static const map_kind kind = {
        ".safetensors", "a safetensors file, whose empty header alone has", SAFETENSORS_PREFIX + 2};
    attn_status status = map_file(file->path, &kind, &file->map, &file->size);
    return status == ATTN_OK ? safetensors_parse(file) : status;
}

attn_status attn_safetensors_open(const char *path, attn_safetensors **file)
{
    if (!file) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "file: NULL; give the address of an attn_safetensors pointer");
    }
    *file = NULL;
    if (!path) {
        return attn_fail(ATTN_ERR_ARGUMENT, "path: NULL; give the path of a .safetensors file");
    }
    attn_safetensors *opened = calloc(1, sizeof *opened);
    if (opened) {
        opened->path = strdup(path);
    }
    if (!opened || !opened->path) {
        free(opened);
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to open %s", path);
    }
    attn_status status = open_and_parse(opened);
    if (status != ATTN_OK) {
        attn_safetensors_close(opened);
        return status;
    }
    *file = opened;
    return ATTN_OK;
}

void attn_safetensors_close(attn_safetensors *file)
{
    if (!file) {
        return;
    }
    json_decref(file->header);
    free(file->tensors);
    free(file->order);
    free(file->metadata);
    unmap_file(file->map, file->size);
    free(file->path);
    free(file);
}

/* ---- look-ups ---- */

const char *attn_safetensors_path(const attn_safetensors *file)
{
    return file ? file->path : "";
}

size_t attn_safetensors_file_bytes(const attn_safetensors *file)
{
    return file ? file->size : 0;
}

int64_t attn_safetensors_count(const attn_safetensors *file)
{
    return file ? (int64_t)file->count : 0;
}

const attn_safetensor *attn_safetensors_at(const attn_safetensors *file, int64_t index)
{
    return index >= 0 && index < attn_safetensors_count(file) ? &file->tensors[index] : NULL;
}

static const char *name_at(const void *file, uint32_t index)
{
    return ((const attn_safetensors *)file)->tensors[index].name;
}

const attn_safetensor *attn_safetensors_find(const attn_safetensors *file, const char *name)
{
    int64_t index =
        file && name ? name_index_find(file->order, file->count, name_at, file, name) : -1;
    return index < 0 ? NULL : &file->tensors[index];
}

int64_t attn_safetensors_metadata_count(const attn_safetensors *file)
{
    return file ? (int64_t)file->pairs : 0;
}

const char *attn_safetensors_metadata_at(const attn_safetensors *file, int64_t index,
                                         const char **value)
{
    bool there = index >= 0 && index < attn_safetensors_metadata_count(file);
    if (value) {
        *value = there ? file->metadata[index].value : NULL;
    }
    return there ? file->metadata[index].key : NULL;
}

const char *attn_safetensors_metadata(const attn_safetensors *file, const char *key)
{
    size_t low = 0, high = file && key ? file->pairs : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(file->metadata[middle].key, key);
        if (order == 0) {
            return file->metadata[middle].value;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

/* ---- values ---- */

/* Values converted at a time: through aligned memory, since a file may put a tensor at any byte. */
#define CHUNK 4096

/* chunk[0 … n) = the floats at src. */
static attn_status to_floats(attn_safetensors_dtype dtype, const unsigned char *src, int64_t n,
                             float *chunk)
{
    uint16_t halves[CHUNK];
    if (dtype == ATTN_ST_F32) {
        memcpy(chunk, src, (size_t)n * sizeof *chunk);
        return ATTN_OK;
    }
    memcpy(halves, src, (size_t)n * sizeof *halves);
    return attn_weight_dequantize(dtype == ATTN_ST_BF16 ? ATTN_WEIGHT_BF16 : ATTN_WEIGHT_F16,
                                  halves, n, chunk);
}

static attn_status convert(const attn_safetensor *tensor, attn_dtype dtype, void *dst)
{
    const unsigned char *src = tensor->data;
    size_t size = attn_safetensors_dtype_size(tensor->dtype);
    float floats[CHUNK];
    double doubles[CHUNK];
    attn_status status = ATTN_OK;
    for (int64_t at = 0; at < tensor->elements && status == ATTN_OK; at += CHUNK) {
        int64_t n = tensor->elements - at < CHUNK ? tensor->elements - at : CHUNK;
        const unsigned char *from = src + (size_t)at * size;
        if (tensor->dtype == ATTN_ST_F64) {
            memcpy(doubles, from, (size_t)n * sizeof *doubles);
        } else {
            status = to_floats(tensor->dtype, from, n, floats);
        }
        for (int64_t i = 0; i < n && status == ATTN_OK; i++) {
            if (dtype == ATTN_F64) {
                ((double *)dst)[at + i] = tensor->dtype == ATTN_ST_F64 ? doubles[i] : floats[i];
            } else {
                ((float *)dst)[at + i] =
                    tensor->dtype == ATTN_ST_F64 ? (float)doubles[i] : floats[i];
            }
        }
    }
    return status;
}

attn_status attn_safetensors_read(const attn_safetensor *tensor, attn_dtype dtype, void *dst,
                                  int64_t elements)
{
    if (!tensor || (!dst && elements > 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL; give %s", tensor ? "dst" : "tensor",
                         tensor ? "room for the tensor's elements"
                                : "what attn_safetensors_find or attn_safetensors_at returned");
    }
    if (elements != tensor->elements) {
        return attn_fail(ATTN_ERR_SHAPE, "elements: %lld, but tensor '%.80s' has %lld",
                         (long long)elements, tensor->name, (long long)tensor->elements);
    }
    bool is_float = tensor->dtype == ATTN_ST_F32 || tensor->dtype == ATTN_ST_F64 ||
                    tensor->dtype == ATTN_ST_BF16 || tensor->dtype == ATTN_ST_F16;
    bool as_is = dtype == ATTN_DTYPE_NONE || attn_safetensors_dtype_of(dtype) == tensor->dtype;
    if (!as_is && !(is_float && (dtype == ATTN_F32 || dtype == ATTN_F64))) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "dtype: tensor '%.80s' is %s, which is not converted to %s; floats "
                         "convert to f32 and f64, anything is copied as it is with none",
                         tensor->name, attn_safetensors_dtype_name(tensor->dtype),
                         attn_dtype_name(dtype));
    }
    if (tensor->bytes == 0 || !dst) {
        return ATTN_OK;
    }
    if (as_is) {
        memcpy(dst, tensor->data, tensor->bytes);
        return ATTN_OK;
    }
    return convert(tensor, dtype, dst);
}
