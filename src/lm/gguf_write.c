/* Writing a GGUF file: the base's head with some types and places changed, then the tensors, streamed. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <attn/context.h>

#include "lm/atomic_file.h"
#include "lm/model_files.h"

/* ggml's numbers of types, and general.file_type of files made mostly of them. */
#define TYPE_F32       0
#define TYPE_F16       1
#define TYPE_BF16      30
#define FILE_TYPE_BF16 32

/* Floats converted at a time. */
#define CHUNK 65536

typedef struct writing {
    const attn_gguf *base;
    const char *name;                       /* general.name, or NULL */
    const attn_gguf_replacement **replaced; /* [tensors], NULL: the base's */
    attn_model_config config;
    attn_context *context;
    float *rows;      /* CHUNK floats in the file's order */
    uint16_t *halves; /* the same, rounded */
    uint64_t alignment;
    uint32_t file_type; /* of the replaced matrices */
    bool changed;
} writing;

static uint32_t type_of(const writing *w, size_t index)
{
    const attn_gguf_tensor *t = &w->base->tensors[index];
    const attn_gguf_replacement *r = w->replaced[index];
    if (!r) {
        return t->type;
    }
    return t->ndim == 1 || r->dtype == ATTN_F32 ? TYPE_F32
           : r->dtype == ATTN_F16               ? TYPE_F16
                                                : TYPE_BF16;
}

static int64_t elements_of(const attn_gguf_tensor *t)
{
    return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]; /* checked when the base was read */
}

static uint64_t bytes_of(const writing *w, size_t index)
{
    const attn_gguf_tensor *t = &w->base->tensors[index];
    if (!w->replaced[index]) {
        return t->bytes;
    }
    return (uint64_t)elements_of(t) * (type_of(w, index) == TYPE_F32 ? 4 : 2);
}

static uint64_t aligned(const writing *w, uint64_t size)
{
    return (size + w->alignment - 1) & ~(w->alignment - 1);
}

/* ---- the head ---- */

static void put_pairs(const writing *w, gguf_build *b)
{
    bool named = false, typed = false;
    for (size_t i = 0; i < w->base->pair_count; i++) {
        const gguf_pair *pair = &w->base->pairs[i];
        if (w->name && strcmp(pair->key, "general.name") == 0) {
            gguf_put_pair_text(b, pair->key, w->name);
            named = true;
        } else if (w->changed && strcmp(pair->key, "general.file_type") == 0) {
            gguf_put_pair_u32(b, pair->key, w->file_type);
            typed = true;
        } else {
            gguf_put_copy(b, w->base, pair);
        }
    }
    if (w->name && !named) {
        gguf_put_pair_text(b, "general.name", w->name);
    }
    if (w->changed && !typed) {
        gguf_put_pair_u32(b, "general.file_type", w->file_type);
    }
}

static void put_tensors(const writing *w, gguf_build *b)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < w->base->tensor_count; i++) {
        const attn_gguf_tensor *t = &w->base->tensors[i];
        gguf_put_string(b, t->name, strlen(t->name));
        gguf_put_u32(b, (uint32_t)t->ndim);
        for (int d = 0; d < t->ndim; d++) {
            gguf_put_u64(b, (uint64_t)t->dims[d]);
        }
        gguf_put_u32(b, type_of(w, i));
        gguf_put_u64(b, offset);
        offset = aligned(w, offset + bytes_of(w, i));
    }
}

/* ---- the tensors ---- */

/* Where row `row` of the file is in the replacement's data. */
static int64_t source_row(const writing *w, const attn_gguf_tensor *t,
                          const attn_gguf_replacement *r, int64_t row)
{
    int64_t head = w->config.head_dim, dims = w->config.rope_dims, i = row % head;
    if (!lm_rotated(t->name) || r->pairing != ATTN_ROPE_HALVES || i >= dims) {
        return row;
    }
    return row - i + i % 2 * (dims / 2) + i / 2; /* as attn_rope_reorder */
}

static attn_status write_floats(const writing *w, atomic_file *file, const float *data, int64_t n,
                                uint32_t type)
{
    if (type == TYPE_F32) {
        return atomic_write(file, data, (size_t)n * sizeof *data);
    }
    attn_view from = attn_view_dense(data, ATTN_F32, 1, &n);
    attn_view to = attn_view_dense(w->halves, type == TYPE_F16 ? ATTN_F16 : ATTN_BF16, 1, &n);
    attn_status status = attn_convert(w->context, &from, &to);
    return status == ATTN_OK ? atomic_write(file, w->halves, (size_t)n * sizeof *w->halves)
                             : status;
}

/* Rows in pieces of at most CHUNK floats, gathered where their order differs. */
static attn_status write_replaced(const writing *w, atomic_file *file, size_t index)
{
    const attn_gguf_tensor *t = &w->base->tensors[index];
    const attn_gguf_replacement *r = w->replaced[index];
    int64_t cols = t->dims[0], rows = elements_of(t) / cols, held = 0;
    uint32_t type = type_of(w, index);
    attn_status status = ATTN_OK;
    for (int64_t row = 0; row < rows; row++) {
        const float *from = r->data + source_row(w, t, r, row) * cols;
        for (int64_t at = 0; at < cols && status == ATTN_OK;) {
            int64_t n = cols - at < CHUNK - held ? cols - at : CHUNK - held;
            memcpy(w->rows + held, from + at, (size_t)n * sizeof *from);
            held += n;
            at += n;
            if (held == CHUNK) {
                status = write_floats(w, file, w->rows, held, type);
                held = 0;
            }
        }
    }
    return status == ATTN_OK && held > 0 ? write_floats(w, file, w->rows, held, type) : status;
}

static attn_status write_file(const writing *w, atomic_file *file, const gguf_build *head)
{
    attn_status status = atomic_write(file, head->bytes, head->size);
    for (size_t i = 0; i < w->base->tensor_count && status == ATTN_OK; i++) {
        const attn_gguf_tensor *t = &w->base->tensors[i];
        status = atomic_pad(file, w->alignment);
        if (status == ATTN_OK) {
            status =
                w->replaced[i] ? write_replaced(w, file, i) : atomic_write(file, t->data, t->bytes);
        }
    }
    return status == ATTN_OK ? atomic_pad(file, w->alignment) : status;
}

static attn_status write_all(const writing *w, const char *path)
{
    gguf_build head = {0}, pairs = {0};
    atomic_file file;
    put_pairs(w, &pairs);
    gguf_put(&head, "GGUF", 4);
    gguf_put_u32(&head, 3);
    gguf_put_u64(&head, w->base->tensor_count);
    gguf_put_u64(&head, pairs.pairs);
    gguf_put(&head, pairs.bytes, pairs.size);
    put_tensors(w, &head);
    attn_status status = head.failed || pairs.failed
                             ? attn_fail(ATTN_ERR_NO_MEMORY, "no memory for the head of %s", path)
                             : atomic_open(path, &file);
    if (status == ATTN_OK) {
        status = write_file(w, &file, &head);
        if (status == ATTN_OK) {
            status = atomic_commit(&file);
        } else {
            atomic_abandon(&file);
        }
    }
    gguf_build_free(&head);
    gguf_build_free(&pairs);
    return status;
}

/* ---- checks ---- */

static attn_status place_replacement(writing *w, const attn_gguf_replacement *r)
{
    char name[160];
    if (!r->name || !r->data) {
        return attn_fail(ATTN_ERR_ARGUMENT, "replacements: a name or its data is NULL");
    }
    lm_as_gguf_name(r->name, name, sizeof name);
    const attn_gguf_tensor *t = attn_gguf_find(w->base, name);
    if (!t) {
        return attn_fail(ATTN_ERR_ARGUMENT, "replacements: %s has no tensor '%.100s'",
                         attn_gguf_path(w->base), r->name);
    }
    size_t index = (size_t)(t - w->base->tensors);
    if (w->replaced[index]) {
        return attn_fail(ATTN_ERR_ARGUMENT, "replacements: '%.100s' is there twice", r->name);
    }
    if (r->dtype != ATTN_F32 && r->dtype != ATTN_BF16 && r->dtype != ATTN_F16) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "replacements: '%.100s' as %s; f32, bf16 and f16 can be "
                         "written",
                         r->name, attn_dtype_name(r->dtype));
    }
    if (lm_rotated(name) && (t->dims[1] % w->config.head_dim != 0 || t->ndim != 2)) {
        return attn_fail(ATTN_ERR_SHAPE, "replacements: the rows of '%s' are no whole heads", name);
    }
    w->replaced[index] = r;
    if (t->ndim > 1) {
        w->file_type = r->dtype == ATTN_BF16  ? FILE_TYPE_BF16
                       : r->dtype == ATTN_F16 ? TYPE_F16
                                              : TYPE_F32;
    }
    w->changed = w->changed || t->ndim > 1;
    return ATTN_OK;
}

static attn_status check_base(writing *w)
{
    int64_t alignment = 32;
    const attn_gguf *base = w->base;
    if (base->lender) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "base: %s is no GGUF file; a model that was trained here is written with "
                         "attn_safetensors_save",
                         attn_gguf_path(base));
    }
    for (size_t i = 0; i < base->tensor_count; i++) {
        if (!base->tensors[i].data) {
            return attn_fail(ATTN_ERR_UNSUPPORTED,
                             "base: tensor '%s' is of type %s, whose size is not known here",
                             base->tensors[i].name, attn_gguf_type_name(base->tensors[i].type));
        }
    }
    attn_gguf_get_int(base, "general.alignment", &alignment);
    w->alignment = (uint64_t)alignment;
    return attn_model_config_read(base, &w->config);
}

attn_status attn_gguf_write(const char *path, const attn_gguf *base,
                            const attn_gguf_replacement *replacements, size_t count,
                            const char *name)
{
    if (!path || !base || (!replacements && count > 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL",
                         !path   ? "path"
                         : !base ? "base"
                                 : "replacements");
    }
    writing w = {.base = base, .name = name};
    attn_context_options one = attn_context_options_init();
    one.threads = 1; /* the disk is what takes the time */
    attn_status status = check_base(&w);
    w.replaced = calloc(base->tensor_count + 1, sizeof *w.replaced);
    w.rows = malloc(CHUNK * sizeof *w.rows);
    w.halves = malloc(CHUNK * sizeof *w.halves);
    if (status == ATTN_OK && (!w.replaced || !w.rows || !w.halves)) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory to write %s", path);
    }
    for (size_t i = 0; i < count && status == ATTN_OK; i++) {
        status = place_replacement(&w, &replacements[i]);
    }
    if (status == ATTN_OK) {
        status = attn_context_create(&one, &w.context);
    }
    if (status == ATTN_OK) {
        status = write_all(&w, path);
    }
    attn_context_destroy(w.context);
    free(w.replaced);
    free(w.rows);
    free(w.halves);
    return status;
}
