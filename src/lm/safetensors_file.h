/**
 * lm/safetensors_file.h: an opened safetensors file, as its reader leaves it for the look-ups. Everything here has been checked.
 */
#ifndef ATTN_LM_SAFETENSORS_FILE_H
#define ATTN_LM_SAFETENSORS_FILE_H

#include <attn/safetensors.h>
#include <jansson.h>

struct attn_safetensors {
    char *path;
    const unsigned char *map;
    size_t size;
    json_t *header; /**< names and metadata strings live in it */
    attn_safetensor *tensors;
    size_t count;
    uint32_t *order; /**< indices of tensors, by name */
    attn_safetensors_pair *metadata;
    size_t pairs;
};

/** Bytes of the header's length in front of the header. */
#define SAFETENSORS_PREFIX 8
/** The package's own limit. */
#define SAFETENSORS_HEADER_MAX 100000000u

/** Reads and checks file->map; what it allocated is file's, also on failure. */
attn_status safetensors_parse(attn_safetensors *file);

/** The dtype of a name, or NONE. */
attn_safetensors_dtype safetensors_dtype_named(const char *name);

#endif
