/* A model trained here, seen as GGUF: its configuration and tokenizer become metadata, its tensors keep their bytes in the safetensors file. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/model_files.h"
#include "lm/tokenizer_build.h"

static bool ends_with(const char *name, const char *end)
{
    size_t size = strlen(name), tail = strlen(end);
    return size >= tail && strcmp(name + size - tail, end) == 0;
}

/* Tensors that are no part of the model. */
static bool passed_over(const char *name, bool tied)
{
    return strncmp(name, "attn.", 5) == 0 || ends_with(name, ".rotary_emb.inv_freq") ||
           (tied && strcmp(name, "lm_head.weight") == 0);
}

static bool type_of(attn_safetensors_dtype dtype, uint32_t *type)
{
    *type = dtype == ATTN_ST_F32 ? 0 : dtype == ATTN_ST_F16 ? 1 : 30;
    return dtype == ATTN_ST_F32 || dtype == ATTN_ST_F16 || dtype == ATTN_ST_BF16;
}

/* The tensor's bytes where they are; a copy where norms must become f32, or numbers are not
 * aligned. */
static attn_status lend(attn_gguf *file, const attn_safetensor *from, attn_gguf_tensor *t)
{
    bool widen = from->ndim == 1 && from->dtype != ATTN_ST_F32;
    size_t each = attn_safetensors_dtype_size(from->dtype);
    t->data = from->data;
    t->bytes = from->bytes;
    if (!widen && (uintptr_t)from->data % each == 0) {
        return ATTN_OK;
    }
    t->type = widen ? 0 : t->type;
    t->bytes = widen ? (size_t)from->elements * sizeof(float) : from->bytes;
    void *copy = gguf_store(file, t->bytes);
    if (!copy) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for tensor '%.80s'",
                         attn_gguf_path(file), from->name);
    }
    t->data = copy;
    return attn_safetensors_read(from, widen ? ATTN_F32 : ATTN_DTYPE_NONE, copy, from->elements);
}

static attn_status take_tensor(attn_gguf *file, const attn_safetensor *from, attn_gguf_tensor *t)
{
    char name[128];
    if (!attn_model_gguf_name(from->name, name, sizeof name)) {
        return attn_fail(
            ATTN_ERR_UNSUPPORTED,
            "%s: tensor '%.80s' is no part of the llama architecture as supported here",
            attn_gguf_path(file), from->name);
    }
    if (!type_of(from->dtype, &t->type)) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: tensor '%.80s' is %s, which is not supported (F32, F16 and BF16 are)",
                         attn_gguf_path(file), from->name,
                         attn_safetensors_dtype_name(from->dtype));
    }
    if (from->ndim < 1 || from->ndim > 4 || from->elements == 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: tensor '%.80s' has %d dimensions and %lld elements; a model's have 1 "
                         "or 2 and some",
                         attn_gguf_path(file), from->name, from->ndim, (long long)from->elements);
    }
    t->ndim = from->ndim;
    for (int d = 0; d < 4; d++) {
        t->dims[d] = d < t->ndim ? from->shape[t->ndim - 1 - d] : 1;
    }
    char *kept = gguf_store(file, strlen(name) + 1);
    if (!kept) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for a name", attn_gguf_path(file));
    }
    t->name = strcpy(kept, name);
    return lend(file, from, t);
}

static attn_status take_tensors(attn_gguf *file, bool tied)
{
    int64_t count = attn_safetensors_count(file->lender);
    attn_gguf_tensor *tensors = calloc((size_t)count + 1, sizeof *tensors);
    size_t taken = 0;
    attn_status status = ATTN_OK;
    if (!tensors) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for a table of %lld tensors",
                         attn_gguf_path(file), (long long)count);
    }
    for (int64_t i = 0; i < count && status == ATTN_OK; i++) {
        const attn_safetensor *from = attn_safetensors_at(file->lender, i);
        if (!passed_over(from->name, tied)) {
            status = take_tensor(file, from, &tensors[taken++]);
        }
    }
    if (status != ATTN_OK) {
        free(tensors);
        return status;
    }
    status = gguf_set_tensors(file, tensors, taken);
    if (status == ATTN_OK && !tied && !attn_gguf_find(file, "output.weight")) {
        status = attn_fail(ATTN_ERR_FORMAT,
                           "%s: tensor 'lm_head.weight' is missing, and " CONFIG_KEY
                           " does not tie the output to the embedding",
                           attn_gguf_path(file));
    }
    return status;
}

/* Configuration and tokenizer as metadata. */
static attn_status put_metadata(gguf_build *b, const attn_safetensors *from, bool *tied)
{
    const char *path = attn_safetensors_path(from);
    const char *config = attn_safetensors_metadata(from, CONFIG_KEY);
    const char *tokenizer = attn_safetensors_metadata(from, TOKENIZER_KEY);
    const char *template = attn_safetensors_metadata(from, "attn.chat_template");
    if (!config) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: its metadata has no " CONFIG_KEY
                         ", so it is no model that attn trained; give one, or a GGUF file",
                         path);
    }
    attn_status status = lm_put_config(b, path, config, tied);
    if (status == ATTN_OK && tokenizer) {
        status = tokenizer_put_json(b, tokenizer, strlen(tokenizer));
    }
    if (status == ATTN_OK && template) {
        gguf_put_pair_text(b, "tokenizer.chat_template", template);
    }
    return status;
}

attn_status lm_open_trained(attn_safetensors *from, attn_gguf **file)
{
    gguf_build b = {0};
    bool tied = false;
    *file = NULL;
    attn_status status = put_metadata(&b, from, &tied);
    if (status == ATTN_OK) {
        status = gguf_from_build(&b, attn_safetensors_path(from), file);
    }
    gguf_build_free(&b);
    if (status != ATTN_OK) {
        attn_safetensors_close(from);
        return status;
    }
    (*file)->lender = from;
    (*file)->shown_bytes = attn_safetensors_file_bytes(from);
    status = take_tensors(*file, tied);
    if (status != ATTN_OK) {
        attn_gguf_close(*file);
        *file = NULL;
    }
    return status;
}
