/* Writing: items checked and put in the package's order, the header made, everything streamed into an atomic file. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attn/context.h>
#include <attn/ops.h>

#include "lm/atomic_file.h"
#include "lm/safetensors_file.h"
#include "lm/utf8.h"

attn_safetensors_item attn_safetensors_item_from(const char *name, const attn_view *view,
                                                 attn_safetensors_dtype dtype)
{
    attn_safetensors_item item = {.name = name};
    if (!view || view->ndim < 1 || view->ndim > 4) {
        return item;
    }
    int64_t step = 1;
    for (int d = view->ndim; d-- > 0;) {
        if (view->shape[d] < 0 || (view->shape[d] > 1 && view->stride[d] != step) ||
            __builtin_mul_overflow(step, view->shape[d], &step)) {
            return item;
        }
        item.shape[d] = view->shape[d];
    }
    item.ndim = view->ndim;
    item.data = view->data;
    item.dtype = dtype ? dtype : attn_safetensors_dtype_of(view->dtype);
    item.source =
        item.dtype == attn_safetensors_dtype_of(view->dtype) ? ATTN_DTYPE_NONE : view->dtype;
    return item;
}

/* ---- the header ---- */

/* Text that grows; `failed` once memory ran out. */
typedef struct text {
    char *bytes;
    size_t size, room;
    bool failed;
} text;

static void put(text *t, const char *bytes, size_t size)
{
    if (!t->failed && t->size + size + 1 > t->room) {
        size_t room = 2 * (t->size + size) + 256;
        char *bigger = realloc(t->bytes, room);
        if (!bigger) {
            t->failed = true;
            return;
        }
        t->bytes = bigger;
        t->room = room;
    }
    if (!t->failed) {
        memcpy(t->bytes + t->size, bytes, size);
        t->size += size;
    }
}

static void puts_to(text *t, const char *string)
{
    put(t, string, strlen(string));
}

/* A JSON string, escaped as the package escapes: only what must be, control characters in short
 * where there is a short form. */
static void put_string(text *t, const char *string)
{
    static const char *const shorts[32] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"};
    puts_to(t, "\"");
    for (const char *p = string; *p; p++) {
        unsigned char c = (unsigned char)*p;
        char code[8];
        if (c == '"' || c == '\\') {
            const char escaped[2] = {'\\', *p};
            put(t, escaped, 2);
        } else if (c >= 0x20) {
            put(t, p, 1);
        } else if (shorts[c]) {
            puts_to(t, shorts[c]);
        } else {
            snprintf(code, sizeof code, "\\u%04x", c);
            puts_to(t, code);
        }
    }
    puts_to(t, "\"");
}

/* One tensor while it is being written: what the item says, and its place. */
typedef struct entry {
    const attn_safetensors_item *item;
    size_t elements, bytes;
} entry;

static void put_entry(text *t, const entry *e, size_t *offset)
{
    char number[64];
    put_string(t, e->item->name);
    puts_to(t, ":{\"dtype\":\"");
    puts_to(t, attn_safetensors_dtype_name(e->item->dtype));
    puts_to(t, "\",\"shape\":[");
    for (int d = 0; d < e->item->ndim; d++) {
        snprintf(number, sizeof number, "%s%lld", d ? "," : "", (long long)e->item->shape[d]);
        puts_to(t, number);
    }
    snprintf(number, sizeof number, "],\"data_offsets\":[%zu,%zu]}", *offset, *offset + e->bytes);
    puts_to(t, number);
    *offset += e->bytes;
}

static void put_header(text *t, const entry *entries, size_t count,
                       const attn_safetensors_pair *metadata, size_t pairs, bool has_metadata)
{
    size_t offset = 0;
    puts_to(t, "{");
    if (has_metadata) {
        puts_to(t, "\"__metadata__\":{");
        for (size_t i = 0; i < pairs; i++) {
            puts_to(t, i ? "," : "");
            put_string(t, metadata[i].key);
            puts_to(t, ":");
            put_string(t, metadata[i].value);
        }
        puts_to(t, "}");
    }
    for (size_t i = 0; i < count; i++) {
        puts_to(t, i || has_metadata ? "," : "");
        put_entry(t, &entries[i], &offset);
    }
    puts_to(t, "}");
    while (t->size % 8 != 0 && !t->failed) {
        puts_to(t, " ");
    }
}

/* ---- checks and order ---- */

static attn_status check_text(const char *what, const char *string)
{
    if (!string) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL; give a string", what);
    }
    size_t size = strlen(string);
    return utf8_valid_prefix(string, size) == size
               ? ATTN_OK
               : attn_fail(ATTN_ERR_ARGUMENT, "%s: '%.80s' is not valid UTF-8", what, string);
}

static bool converts(const attn_safetensors_item *item)
{
    return item->source == ATTN_F32 && (item->dtype == ATTN_ST_F16 || item->dtype == ATTN_ST_BF16);
}

static attn_status check_item(const attn_safetensors_item *item, entry *e)
{
    attn_status status = check_text("items: a name", item->name);
    if (status != ATTN_OK) {
        return status;
    }
    const char *name = item->name;
    size_t size = attn_safetensors_dtype_size(item->dtype), elements = 1, sizes = 1;
    if (strcmp(name, "__metadata__") == 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "items: a tensor cannot be called __metadata__");
    }
    if (size == 0 || (item->source != ATTN_DTYPE_NONE && !converts(item) &&
                      attn_safetensors_dtype_of(item->source) != item->dtype)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "items: '%.80s' cannot be stored as %s from %s; dense arrays are stored "
                         "as they are, f32 also as F16 and BF16",
                         name, attn_safetensors_dtype_name(item->dtype),
                         attn_dtype_name(item->source));
    }
    if (item->ndim < 0 || item->ndim > ATTN_SAFETENSORS_MAX_NDIM) {
        return attn_fail(ATTN_ERR_SHAPE, "items: '%.80s' has %d dimensions; 0 to %d are allowed",
                         name, item->ndim, ATTN_SAFETENSORS_MAX_NDIM);
    }
    for (int d = 0; d < item->ndim; d++) {
        size_t n = (size_t)item->shape[d];
        /* What no reader would take is not written: sizes beside one of 0 must fit too. */
        if (item->shape[d] < 0 || __builtin_mul_overflow(sizes, n ? n : 1, &sizes) ||
            sizes > INT64_MAX) {
            return attn_fail(ATTN_ERR_SHAPE, "items: '%.80s': size %d is %lld, which is no size",
                             name, d, (long long)item->shape[d]);
        }
        elements *= n;
    }
    if (__builtin_mul_overflow(elements, size, &e->bytes) || e->bytes > INT64_MAX) {
        return attn_fail(ATTN_ERR_SHAPE, "items: '%.80s' has more bytes than 63 bits count", name);
    }
    if (!item->data && elements > 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "items: the data of '%.80s' is NULL", name);
    }
    e->item = item;
    e->elements = elements;
    return ATTN_OK;
}

/* The package's order: dtypes backwards, then names. */
static int by_dtype_and_name(const void *a, const void *b)
{
    const attn_safetensors_item *x = ((const entry *)a)->item, *y = ((const entry *)b)->item;
    return x->dtype != y->dtype ? (x->dtype > y->dtype ? -1 : 1) : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->item->name, ((const entry *)b)->item->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const attn_safetensors_pair *)a)->key, ((const attn_safetensors_pair *)b)->key);
}

static attn_status prepare_entries(const attn_safetensors_item *items, size_t count, entry *entries)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        attn_status status = check_item(&items[i], &entries[i]);
        if (status != ATTN_OK) {
            return status;
        }
        if (__builtin_add_overflow(total, entries[i].bytes, &total) || total > INT64_MAX) {
            return attn_fail(ATTN_ERR_SHAPE, "items: together more bytes than 63 bits count");
        }
    }
    qsort(entries, count, sizeof *entries, by_name);
    for (size_t i = 1; i < count; i++) {
        if (by_name(&entries[i - 1], &entries[i]) == 0) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "items: '%.80s' is there twice; names must be unique",
                             entries[i].item->name);
        }
    }
    qsort(entries, count, sizeof *entries, by_dtype_and_name);
    return ATTN_OK;
}

static attn_status prepare_pairs(const attn_safetensors_pair *metadata, size_t count,
                                 attn_safetensors_pair *pairs)
{
    for (size_t i = 0; i < count; i++) {
        attn_status status = check_text("metadata: a key", metadata[i].key);
        if (status == ATTN_OK) {
            status = check_text("metadata: a value", metadata[i].value);
        }
        if (status != ATTN_OK) {
            return status;
        }
        pairs[i] = metadata[i];
    }
    qsort(pairs, count, sizeof *pairs, by_key);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(pairs[i - 1].key, pairs[i].key) == 0) {
            return attn_fail(ATTN_ERR_ARGUMENT, "metadata: '%.80s' is there twice", pairs[i].key);
        }
    }
    return ATTN_OK;
}

/* ---- the bytes ---- */

#define CHUNK 65536

static attn_status write_converted(atomic_file *file, attn_context *context, const entry *e,
                                   uint16_t *chunk)
{
    const float *src = e->item->data;
    attn_dtype to = e->item->dtype == ATTN_ST_BF16 ? ATTN_BF16 : ATTN_F16;
    attn_status status = ATTN_OK;
    for (size_t at = 0; at < e->elements && status == ATTN_OK; at += CHUNK) {
        const int64_t n = (int64_t)(e->elements - at < CHUNK ? e->elements - at : CHUNK);
        attn_view from = attn_view_dense(src + at, ATTN_F32, 1, &n);
        attn_view into = attn_view_dense(chunk, to, 1, &n);
        status = attn_convert(context, &from, &into);
        if (status == ATTN_OK) {
            status = atomic_write(file, chunk, (size_t)n * sizeof *chunk);
        }
    }
    return status;
}

/* Rounding runs on this thread: the disk is what takes the time. */
static attn_status open_converter(const entry *entries, size_t count, attn_context **context,
                                  uint16_t **chunk)
{
    for (size_t i = 0; i < count; i++) {
        if (converts(entries[i].item)) {
            attn_context_options options = attn_context_options_init();
            options.threads = 1;
            *chunk = malloc(CHUNK * sizeof **chunk);
            return *chunk ? attn_context_create(&options, context)
                          : attn_fail(ATTN_ERR_NO_MEMORY, "no memory to convert tensors");
        }
    }
    return ATTN_OK;
}

static attn_status write_all(const char *path, const text *header, const entry *entries,
                             size_t count)
{
    attn_context *context = NULL;
    uint16_t *chunk = NULL;
    atomic_file file;
    unsigned char length[SAFETENSORS_PREFIX];
    for (int i = 0; i < SAFETENSORS_PREFIX; i++) {
        length[i] = (unsigned char)((uint64_t)header->size >> (8 * i));
    }
    attn_status status = open_converter(entries, count, &context, &chunk);
    if (status == ATTN_OK) {
        status = atomic_open(path, &file);
    }
    if (status == ATTN_OK) {
        status = atomic_write(&file, length, sizeof length);
        if (status == ATTN_OK) {
            status = atomic_write(&file, header->bytes, header->size);
        }
        for (size_t i = 0; i < count && status == ATTN_OK; i++) {
            status = converts(entries[i].item)
                         ? write_converted(&file, context, &entries[i], chunk)
                         : atomic_write(&file, entries[i].item->data, entries[i].bytes);
        }
        if (status == ATTN_OK) {
            status = atomic_commit(&file);
        } else {
            atomic_abandon(&file);
        }
    }
    attn_context_destroy(context);
    free(chunk);
    return status;
}

attn_status attn_safetensors_save(const char *path, const attn_safetensors_item *items,
                                  size_t count, const attn_safetensors_pair *metadata, size_t pairs)
{
    if (!path || (!items && count > 0) || (!metadata && pairs > 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL",
                         !path                 ? "path"
                         : !items && count > 0 ? "items"
                                               : "metadata");
    }
    entry *entries = calloc(count + 1, sizeof *entries);
    attn_safetensors_pair *sorted = calloc(pairs + 1, sizeof *sorted);
    text header = {0};
    attn_status status = ATTN_OK;
    if (!entries || !sorted) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a table of %zu tensors", count);
    }
    if (status == ATTN_OK) {
        status = prepare_entries(items, count, entries);
    }
    if (status == ATTN_OK) {
        status = prepare_pairs(metadata, pairs, sorted);
    }
    if (status == ATTN_OK) {
        put_header(&header, entries, count, sorted, pairs, metadata != NULL);
        if (header.failed) {
            status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory for the header of %s", path);
        } else if (header.size > SAFETENSORS_HEADER_MAX) {
            status = attn_fail(ATTN_ERR_ARGUMENT,
                               "%s: the header would have %zu bytes; the format allows %u", path,
                               header.size, SAFETENSORS_HEADER_MAX);
        }
    }
    if (status == ATTN_OK) {
        status = write_all(path, &header, entries, count);
    }
    free(header.bytes);
    free(entries);
    free(sorted);
    return status;
}
