/*
 * The header of a safetensors file: JSON of one known shape. A scan without memory comes first: it bounds depth,
 * counts and list lengths by the bytes there are, so that the tree that is built then stays within a
 * multiple of them.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/safetensors_file.h"

/* What the shortest entries take: {"dtype":"","shape":[],"data_offsets":[0,0]} and "":"". A header may
 * have this many more pairs than that, since small ones need few bytes anyway. */
#define TENSOR_BYTES_MIN 44
#define PAIR_BYTES_MIN   11
#define PAIRS_FREE       65536

/* A name of the file, shortened and without control characters, for error texts. */
typedef struct shown {
    char text[88];
} shown;

static shown show(const char *name, size_t size)
{
    shown s;
    size_t n = size < 80 ? size : 80;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        s.text[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    strcpy(s.text + n, size > n ? "..." : "");
    return s;
}

static shown show_name(const char *name)
{
    return show(name, strlen(name));
}

/* ---- the scan ---- */

typedef struct scan {
    const attn_safetensors *file;
    const char *text;
    size_t size;
    int depth;
    size_t tensors, pairs, values; /* values: commas of the list that is open */
    const char *name;              /* the last string at depth 1 */
    size_t name_size;
} scan;

static attn_status refuse(const scan *s, attn_status status, size_t at, const char *why)
{
    return attn_fail(status, "%s: the entry '%s' of the header (byte %zu) %s", s->file->path,
                     show(s->name, s->name_size).text, at + SAFETENSORS_PREFIX, why);
}

/* The end of the string that begins at `at`; the size where it has none. */
static size_t string_end(const scan *s, size_t at)
{
    for (at++; at < s->size && s->text[at] != '"'; at++) {
        at += s->text[at] == '\\';
    }
    return at < s->size ? at : s->size;
}

static attn_status scan_byte(scan *s, size_t at)
{
    switch (s->text[at]) {
    case '{':
        s->depth++;
        if (s->depth > 2) {
            return refuse(s, ATTN_ERR_FORMAT, at,
                          "has an object inside; the format has none there");
        }
        s->tensors += s->depth == 2;
        return ATTN_OK;
    case '[':
        s->depth++;
        s->values = 0;
        return s->depth == 3
                   ? ATTN_OK
                   : refuse(s, ATTN_ERR_FORMAT, at, "has a list where the format has none");
    case '}':
    case ']': s->depth--; return ATTN_OK;
    case ':': s->pairs++; return ATTN_OK;
    case ',':
        s->values += s->depth == 3;
        return s->values < ATTN_SAFETENSORS_MAX_NDIM
                   ? ATTN_OK
                   : refuse(s, ATTN_ERR_UNSUPPORTED, at,
                            "has a list of more than 8 numbers; tensors of up to 8 dimensions can "
                            "be read");
    default: return ATTN_OK;
    }
}

static attn_status scan_header(const attn_safetensors *file, const char *text, size_t size)
{
    scan s = {.file = file, .text = text, .size = size, .name = ""};
    for (size_t at = 0; at < size; at++) {
        if (text[at] == '"') {
            size_t end = string_end(&s, at);
            if (s.depth == 1) {
                s.name = text + at + 1;
                s.name_size = end - at - 1 < size ? end - at - 1 : 0;
            }
            at = end;
            continue;
        }
        attn_status status = scan_byte(&s, at);
        if (status != ATTN_OK) {
            return status;
        }
    }
    if (s.tensors > size / TENSOR_BYTES_MIN + 1 || s.pairs > size / PAIR_BYTES_MIN + PAIRS_FREE) {
        return attn_fail(
            ATTN_ERR_FORMAT,
            "%s: the header has %zu entries and %zu pairs, more than its %zu bytes can "
            "hold tensors; the file is damaged",
            file->path, s.tensors, s.pairs, size);
    }
    return ATTN_OK;
}

/* ---- the tree ---- */

static attn_status bad_tensor(const attn_safetensors *file, const char *name, attn_status status,
                              const char *why)
{
    return attn_fail(status, "%s: tensor '%s' %s", file->path, show_name(name).text, why);
}

static attn_status take_dtype(const attn_safetensors *file, json_t *entry, attn_safetensor *t)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype) {
        return bad_tensor(file, t->name, ATTN_ERR_FORMAT, "has no dtype; it must be a string");
    }
    t->dtype = safetensors_dtype_named(dtype);
    return t->dtype ? ATTN_OK
                    : attn_fail(ATTN_ERR_UNSUPPORTED,
                                "%s: tensor '%s' is of dtype '%s', which this reader does not know",
                                file->path, show_name(t->name).text, show_name(dtype).text);
}

static attn_status take_shape(const attn_safetensors *file, json_t *entry, attn_safetensor *t)
{
    json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) {
        return bad_tensor(file, t->name, ATTN_ERR_FORMAT, "has no shape; it must be a list");
    }
    t->ndim = (int)json_array_size(shape); /* the scan saw to at most 8 */
    t->elements = 1;
    bool empty = false;
    for (int d = 0; d < ATTN_SAFETENSORS_MAX_NDIM; d++) {
        json_t *size = d < t->ndim ? json_array_get(shape, (size_t)d) : NULL;
        t->shape[d] = 1;
        if (!size) {
            continue;
        }
        t->shape[d] = json_is_integer(size) ? json_integer_value(size) : -1;
        if (t->shape[d] < 0) {
            return bad_tensor(file, t->name, ATTN_ERR_FORMAT,
                              "has a size that is no whole number from 0 up");
        }
        empty = empty || t->shape[d] == 0;
        if (__builtin_mul_overflow(t->elements, t->shape[d] ? t->shape[d] : 1, &t->elements)) {
            return bad_tensor(file, t->name, ATTN_ERR_FORMAT,
                              "has more elements than 63 bits count");
        }
    }
    t->elements = empty ? 0 : t->elements;
    if (__builtin_mul_overflow((size_t)t->elements, attn_safetensors_dtype_size(t->dtype),
                               &t->bytes)) {
        return bad_tensor(file, t->name, ATTN_ERR_FORMAT, "has more bytes than 64 bits count");
    }
    return ATTN_OK;
}

/* data_offsets, against the shape and the bytes of the file; t->data is left at the first byte. */
static attn_status take_place(const attn_safetensors *file, json_t *entry, size_t base,
                              attn_safetensor *t)
{
    json_t *offsets = json_object_get(entry, "data_offsets");
    json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last)) {
        return bad_tensor(file, t->name, ATTN_ERR_FORMAT,
                          "has no data_offsets; they must be a list of two whole numbers");
    }
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    size_t room = file->size - base;
    if (begin < 0 || end < begin || (uint64_t)end > room) {
        return attn_fail(
            ATTN_ERR_FORMAT,
            "%s: tensor '%s' lies at bytes %lld … %lld of the data, of which there are "
            "%zu; the file is cut off or damaged",
            file->path, show_name(t->name).text, (long long)begin, (long long)end, room);
    }
    if ((uint64_t)(end - begin) != t->bytes) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: tensor '%s' has %lld bytes, its shape and dtype make it %zu",
                         file->path, show_name(t->name).text, (long long)(end - begin), t->bytes);
    }
    t->data = file->map + base + begin;
    return ATTN_OK;
}

static attn_status take_tensor(const attn_safetensors *file, const char *name, json_t *entry,
                               size_t base, attn_safetensor *t)
{
    t->name = name;
    if (!json_is_object(entry)) {
        return bad_tensor(file, name, ATTN_ERR_FORMAT,
                          "is no object of dtype, shape and data_offsets");
    }
    attn_status status = take_dtype(file, entry, t);
    if (status == ATTN_OK) {
        status = take_shape(file, entry, t);
    }
    if (status == ATTN_OK) {
        status = take_place(file, entry, base, t);
    }
    if (status == ATTN_OK && json_object_size(entry) != 3) {
        status = bad_tensor(file, name, ATTN_ERR_UNSUPPORTED,
                            "has more than dtype, shape and data_offsets");
    }
    return status;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const attn_safetensors_pair *)a)->key, ((const attn_safetensors_pair *)b)->key);
}

static attn_status take_metadata(attn_safetensors *file, json_t *metadata)
{
    if (!json_is_object(metadata)) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: __metadata__ is no object of strings", file->path);
    }
    file->metadata = calloc(json_object_size(metadata) + 1, sizeof *file->metadata);
    if (!file->metadata) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for its metadata", file->path);
    }
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            return attn_fail(ATTN_ERR_FORMAT, "%s: metadata '%s' is no string", file->path,
                             show_name(key).text);
        }
        file->metadata[file->pairs++] = (attn_safetensors_pair){key, json_string_value(value)};
    }
    qsort(file->metadata, file->pairs, sizeof *file->metadata, by_key);
    return ATTN_OK;
}

static attn_status take_all(attn_safetensors *file, size_t base)
{
    size_t entries = json_object_size(file->header);
    file->tensors = calloc(entries + 1, sizeof *file->tensors);
    if (!file->tensors) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for a table of %zu tensors", file->path,
                         entries);
    }
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        attn_status status =
            strcmp(name, "__metadata__") == 0
                ? take_metadata(file, entry)
                : take_tensor(file, name, entry, base, &file->tensors[file->count++]);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return ATTN_OK;
}

/* ---- the whole ---- */

/* By place; tensors without bytes before the one that begins there, then by name. */
static int by_place(const void *a, const void *b)
{
    const attn_safetensor *x = a, *y = b;
    if (x->data != y->data) {
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    }
    if ((x->bytes == 0) != (y->bytes == 0)) {
        return x->bytes == 0 ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b, void *user)
{
    const attn_safetensor *tensors = user;
    return strcmp(tensors[*(const uint32_t *)a].name, tensors[*(const uint32_t *)b].name);
}

/* Side by side from the first byte of the data to the last of the file. */
static attn_status check_places(attn_safetensors *file, size_t base)
{
    qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
    const unsigned char *at = file->map + base, *end = file->map + file->size;
    for (size_t i = 0; i < file->count; i++) {
        attn_safetensor *t = &file->tensors[i];
        const unsigned char *data = t->data;
        if (data != at) {
            return attn_fail(
                ATTN_ERR_FORMAT,
                "%s: tensor '%s' begins at byte %zu of the data, but the one before it "
                "ends at %zu; tensors lie side by side",
                file->path, show_name(t->name).text, (size_t)(data - file->map) - base,
                (size_t)(at - file->map) - base);
        }
        at += t->bytes;
        t->data = t->bytes ? t->data : NULL;
    }
    if (at != end) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: %zu bytes at the end belong to no tensor; the file is damaged",
                         file->path, (size_t)(end - at));
    }
    return ATTN_OK;
}

static attn_status index_names(attn_safetensors *file)
{
    file->order = malloc((file->count + 1) * sizeof *file->order);
    if (!file->order) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for an index of %zu tensors",
                         file->path, file->count);
    }
    for (size_t i = 0; i < file->count; i++) {
        file->order[i] = (uint32_t)i;
    }
    qsort_r(file->order, file->count, sizeof *file->order, by_name, file->tensors);
    return ATTN_OK;
}

static attn_status load_json(attn_safetensors *file, const char *text, size_t size)
{
    json_error_t error;
    file->header = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (file->header) {
        return ATTN_OK;
    }
    /* Without memory jansson gives no text. */
    if (error.text[0] == '\0' || json_error_code(&error) == json_error_out_of_memory) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for a header of %zu bytes", file->path,
                         size);
    }
    return attn_fail(ATTN_ERR_FORMAT, "%s: the header is not the JSON it must be: %s (byte %d)",
                     file->path, show_name(error.text).text, error.position + SAFETENSORS_PREFIX);
}

attn_status safetensors_parse(attn_safetensors *file)
{
    uint64_t size = 0;
    for (int i = SAFETENSORS_PREFIX; i-- > 0;) {
        size = size << 8 | file->map[i];
    }
    const char *text = (const char *)file->map + SAFETENSORS_PREFIX;
    size_t room = file->size - SAFETENSORS_PREFIX;
    if (text[0] != '{') {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: not a safetensors file (byte 8 is 0x%02x, not the '{' of its header)",
                         file->path, (unsigned)file->map[SAFETENSORS_PREFIX]);
    }
    if (size > SAFETENSORS_HEADER_MAX || size > room) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: the first 8 bytes give a header of %llu bytes, but %s %zu; the file "
                         "is cut off or damaged",
                         file->path, (unsigned long long)size,
                         size > room ? "the file goes on for" : "the format allows",
                         size > room ? room : (size_t)SAFETENSORS_HEADER_MAX);
    }
    attn_status status = scan_header(file, text, (size_t)size);
    if (status == ATTN_OK) {
        status = load_json(file, text, (size_t)size);
    }
    size_t base = SAFETENSORS_PREFIX + (size_t)size;
    if (status == ATTN_OK) {
        status = take_all(file, base);
    }
    if (status == ATTN_OK) {
        status = check_places(file, base);
    }
    return status == ATTN_OK ? index_names(file) : status;
}
