/* Header and metadata of a mapped GGUF v3 file. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/gguf_cursor.h"

/* The fewest bytes that a pair (key length, 1 byte of key, type, 1 byte of value) and a tensor
 * (name length, 1 byte of name, number of dimensions, one dimension, type, offset) can take: bounds
 * on the header's counts. */
#define PAIR_BYTES_MIN   14
#define TENSOR_BYTES_MIN 33

/* Steps over the elements of a string array and notes where each starts. */
static attn_status take_string_array(gguf_cursor *c, gguf_pair *pair, uint64_t count)
{
    pair->strings = malloc(count ? (size_t)count * sizeof *pair->strings : 1);
    if (!pair->strings) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for the %llu strings of '%s'",
                         c->file->path, (unsigned long long)count, gguf_show(pair->key).text);
    }
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *bytes;
        size_t size = 0;
        pair->strings[i] = c->at;
        attn_status status = gguf_take_string(c, "a string of an array", &bytes, &size);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return ATTN_OK;
}

static attn_status check_bools(const gguf_cursor *c, const gguf_pair *pair)
{
    for (int64_t i = 0; i < pair->count; i++) {
        if (pair->value[i] > 1) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: metadata '%s': the bool at byte %zu is %d; it must be 0 or 1",
                             c->file->path, gguf_show(pair->key).text,
                             (size_t)(pair->value + i - c->file->map), pair->value[i]);
        }
    }
    return ATTN_OK;
}

static attn_status take_array(gguf_cursor *c, gguf_pair *pair)
{
    uint32_t element = 0;
    uint64_t count = 0;
    size_t start = c->at;
    attn_status status = gguf_take_u32(c, "an array's element type", &element);
    if (status == ATTN_OK) {
        status = gguf_take_u64(c, "an array's length", &count);
    }
    if (status != ATTN_OK) {
        return status;
    }
    const char *key = pair->key;
    if (element == ATTN_GGUF_ARRAY) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: metadata '%s' at byte %zu is an array of arrays, which this reader "
                         "does not take",
                         c->file->path, gguf_show(key).text, start);
    }
    size_t each = element == ATTN_GGUF_STRING ? 8 : gguf_scalar_bytes(element);
    if (each == 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: metadata '%s' at byte %zu is an array of type %u; types are 0 … 12",
                         c->file->path, gguf_show(key).text, start, element);
    }
    if (count > (c->file->size - c->at) / each) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: metadata '%s' at byte %zu claims %llu elements of %zu bytes or more, "
                         "but only %zu bytes are left",
                         c->file->path, gguf_show(key).text, start, (unsigned long long)count, each,
                         c->file->size - c->at);
    }
    pair->element = (attn_gguf_type)element;
    pair->count = (int64_t)count;
    pair->value = c->file->map + c->at;
    if (element == ATTN_GGUF_STRING) {
        return take_string_array(c, pair, count);
    }
    c->at += (size_t)count * each;
    return element == ATTN_GGUF_BOOL ? check_bools(c, pair) : ATTN_OK;
}

static attn_status take_pair(gguf_cursor *c, gguf_pair *pair)
{
    attn_status status = gguf_take_name(c, "a metadata key", &pair->key);
    if (status != ATTN_OK) {
        return status;
    }
    uint32_t type = 0;
    size_t start = c->at;
    status = gguf_take_u32(c, "a metadata value's type", &type);
    if (status != ATTN_OK) {
        return status;
    }
    pair->type = (attn_gguf_type)type;
    if (type == ATTN_GGUF_ARRAY) {
        return take_array(c, pair);
    }
    pair->count = 1;
    pair->value = c->file->map + c->at;
    if (type == ATTN_GGUF_STRING) {
        const uint8_t *bytes;
        size_t size = 0;
        return gguf_take_string(c, "a metadata string", &bytes, &size);
    }
    size_t bytes = gguf_scalar_bytes(type);
    if (bytes == 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: metadata '%s' at byte %zu has type %u; types are 0 … 12",
                         c->file->path, gguf_show(pair->key).text, start, type);
    }
    status = gguf_take(c, bytes, "a metadata value", &pair->value);
    return status == ATTN_OK && type == ATTN_GGUF_BOOL ? check_bools(c, pair) : status;
}

static int by_key(const void *a, const void *b, void *user)
{
    const attn_gguf *file = user;
    return strcmp(file->pairs[*(const uint32_t *)a].key, file->pairs[*(const uint32_t *)b].key);
}

static attn_status index_pairs(attn_gguf *file)
{
    file->pair_order = gguf_sorted_indices(file, file->pair_count, by_key);
    if (!file->pair_order) {
        return ATTN_ERR_NO_MEMORY;
    }
    for (size_t i = 1; i < file->pair_count; i++) {
        const char *key = file->pairs[file->pair_order[i]].key;
        if (strcmp(file->pairs[file->pair_order[i - 1]].key, key) == 0) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: metadata '%s' is there twice; a key must be unique", file->path,
                             gguf_show(key).text);
        }
    }
    return ATTN_OK;
}

/* Magic, version and the two counts, each bounded by what is left of the file. */
static attn_status take_header(gguf_cursor *c, size_t *pair_count)
{
    attn_gguf *file = c->file;
    uint32_t version;
    uint64_t tensors, pairs;
    if (memcmp(file->map, "GGUF", 4) != 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: not a GGUF file (it starts with %02x %02x %02x %02x, not \"GGUF\")",
                         file->path, file->map[0], file->map[1], file->map[2], file->map[3]);
    }
    version = gguf_u32(file->map + 4);
    tensors = gguf_u64(file->map + 8);
    pairs = gguf_u64(file->map + 16);
    c->at = 24;
    if (version != 3) {
        bool swapped = (version & 0xffff) == 0 && version != 0;
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         swapped ? "%s: a big-endian GGUF file (version field %#x at byte 4); "
                                   "convert it with gguf-convert-endian"
                                 : "%s: GGUF version %u at byte 4; this reader takes version 3, "
                                   "convert the model again",
                         file->path, version);
    }
    size_t left = file->size - c->at;
    if (pairs > left / PAIR_BYTES_MIN || tensors > left / TENSOR_BYTES_MIN) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: the header claims %llu tensors (byte 8) and %llu metadata pairs "
                         "(byte 16), which %zu bytes cannot hold",
                         file->path, (unsigned long long)tensors, (unsigned long long)pairs,
                         file->size);
    }
    /* Indices are 32 bits. */
    if (pairs > UINT32_MAX || tensors > UINT32_MAX) {
        return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: more than 2^32 tensors or metadata pairs",
                         file->path);
    }
    file->tensor_count = (size_t)tensors;
    *pair_count = (size_t)pairs;
    return ATTN_OK;
}

attn_status gguf_parse(attn_gguf *file)
{
    gguf_cursor c = {.file = file};
    size_t pairs = 0;
    attn_status status = take_header(&c, &pairs);
    if (status != ATTN_OK) {
        return status;
    }
    file->pairs = calloc(pairs + 1, sizeof *file->pairs);
    if (!file->pairs) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for %zu metadata pairs", file->path,
                         pairs);
    }
    file->pair_count = pairs;
    for (size_t i = 0; i < pairs; i++) {
        status = take_pair(&c, &file->pairs[i]);
        if (status != ATTN_OK) {
            return status;
        }
    }
    status = index_pairs(file);
    return status == ATTN_OK ? gguf_take_tensors(&c) : status;
}
