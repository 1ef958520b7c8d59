/* Reading an adapter and merging it into its base: W + scale·B·A (Hu et al. 2021). */
#define _GNU_SOURCE
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attn/context.h>

#include "lm/model_files.h"

#define ADAPTER_BYTES_MAX ((size_t)1 << 16)
#define RANK_MAX          65536

static attn_status bad(const attn_safetensors *from, const char *what)
{
    return attn_fail(ATTN_ERR_FORMAT, "%s: " ADAPTER_KEY " %s", attn_safetensors_path(from), what);
}

static bool copy_text(const json_t *object, const char *key, char *text, size_t size)
{
    const char *value = json_string_value(json_object_get(object, key));
    int length = value ? snprintf(text, size, "%s", value) : -1;
    return length > 0 && (size_t)length < size;
}

/* Only a name: a file that says where else to look is not believed. */
static bool is_file_name(const char *name)
{
    return !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static attn_status read_object(const attn_safetensors *from, const json_t *object,
                               lm_adapter *adapter)
{
    const json_t *scale = json_object_get(object, "scale");
    adapter->rank = json_integer_value(json_object_get(object, "rank"));
    adapter->scale = json_number_value(scale);
    if (!copy_text(object, "base", adapter->base, sizeof adapter->base) ||
        !is_file_name(adapter->base)) {
        return bad(from, "names no base; 'base' must be a file name");
    }
    if (!copy_text(object, "base_sha256", adapter->sha256, sizeof adapter->sha256) ||
        strspn(adapter->sha256, "0123456789abcdef") != 64) {
        return bad(from, "has no base_sha256 of 64 hexadecimal digits");
    }
    if (adapter->rank < 1 || adapter->rank > RANK_MAX) {
        return bad(from, "has no rank from 1 to 65536");
    }
    if (!json_is_number(scale) || !isfinite(adapter->scale)) {
        return bad(from, "has no finite scale");
    }
    return ATTN_OK;
}

attn_status lm_read_adapter(const attn_safetensors *from, lm_adapter *adapter)
{
    const char *json = attn_safetensors_metadata(from, ADAPTER_KEY);
    memset(adapter, 0, sizeof *adapter);
    if (!json) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: its metadata has no " ADAPTER_KEY ", so it is no adapter that attn "
                         "wrote",
                         attn_safetensors_path(from));
    }
    if (strlen(json) > ADAPTER_BYTES_MAX) {
        return bad(from, "is too long");
    }
    json_error_t error;
    json_t *object = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    if (!object && error.text[0] == '\0') {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for " ADAPTER_KEY,
                         attn_safetensors_path(from));
    }
    attn_status status = json_is_object(object) ? read_object(from, object, adapter)
                                                : bad(from, "is no JSON object");
    json_decref(object);
    return status;
}

/* One matrix of the base and what is added to it. */
typedef struct change {
    const attn_safetensor *a, *b;
    attn_gguf_tensor *w;
    int rotated; /* as lm_rotated */
} change;

/* "base_model.model.<name>.lora_A.weight" → the GGUF name of <name>.weight. */
static bool changed_name(const char *name, char *text, size_t size)
{
    static const char head[] = "base_model.model.", tail[] = ".lora_A.weight";
    char middle[160];
    size_t length = strlen(name);
    if (length < sizeof head + sizeof tail || strncmp(name, head, sizeof head - 1) != 0 ||
        strcmp(name + length - (sizeof tail - 1), tail) != 0) {
        return false;
    }
    length -= sizeof head - 1 + sizeof tail - 1;
    int used = length < sizeof middle - 8 ? snprintf(middle, sizeof middle, "%.*s.weight",
                                                     (int)length, name + sizeof head - 1)
                                          : -1;
    return used > 0 && attn_model_gguf_name(middle, text, size);
}

static attn_status find_change(attn_gguf *base, const attn_safetensors *from,
                               const lm_adapter *adapter, const attn_safetensor *a, change *c)
{
    char name[160], other[256];
    if (!changed_name(a->name, name, sizeof name)) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: tensor '%.100s' is no part of an adapter for the llama architecture",
                         attn_safetensors_path(from), a->name);
    }
    size_t length = strlen(a->name) - strlen("A.weight");
    snprintf(other, sizeof other, "%.*sB.weight", (int)length, a->name);
    *c = (change){.a = a, .b = attn_safetensors_find(from, other), .rotated = lm_rotated(name)};
    const attn_gguf_tensor *w = attn_gguf_find(base, name);
    if (!w || !c->b) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: '%.100s' has no %s", attn_safetensors_path(from),
                         a->name, c->b ? "matrix in the base that it could change" : "lora_B");
    }
    c->w = &base->tensors[w - base->tensors];
    if (w->ndim != 2 || a->ndim != 2 || c->b->ndim != 2 || a->shape[0] != adapter->rank ||
        a->shape[1] != w->dims[0] || c->b->shape[0] != w->dims[1] ||
        c->b->shape[1] != adapter->rank) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: '%.100s' and its lora_B do not fit '%s' of the base [%" PRId64
                         ", %" PRId64 "] with rank %" PRId64,
                         attn_safetensors_path(from), a->name, name, w->dims[1], w->dims[0],
                         adapter->rank);
    }
    return ATTN_OK;
}

/* b's values times scale, its rows in the base's order. */
static attn_status read_b(const change *c, const attn_model_config *config, double scale, float *b,
                          float *scratch)
{
    attn_status status = attn_safetensors_read(c->b, ATTN_F32, b, c->b->elements);
    if (status == ATTN_OK && c->rotated && config->rope_pairing == ATTN_ROPE_INTERLEAVED) {
        memcpy(scratch, b, (size_t)c->b->elements * sizeof *b);
        status = attn_rope_reorder(scratch, c->rotated == 1 ? config->heads_q : config->heads_kv,
                                   config->head_dim, config->rope_dims, c->b->shape[1],
                                   ATTN_ROPE_HALVES, b);
    }
    for (int64_t i = 0; i < c->b->elements; i++) {
        b[i] = (float)(scale * b[i]);
    }
    return status;
}

static attn_status merge_one(attn_context *context, attn_gguf *base, const change *c,
                             const attn_model_config *config, double scale)
{
    const int64_t shape_w[2] = {c->w->dims[1], c->w->dims[0]}; /* checked sizes of real bytes */
    const int64_t elements = shape_w[0] * shape_w[1];
    size_t small = (size_t)c->a->elements + 2 * (size_t)c->b->elements;
    float *a = malloc(small * sizeof *a), *b = a + c->a->elements;
    float *w = gguf_store(base, (size_t)elements * sizeof *w);
    attn_status status = a && w
                             ? ATTN_OK
                             : attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory to change tensor '%s'",
                                         attn_gguf_path(base), c->w->name);
    if (status == ATTN_OK) {
        status = attn_gguf_dequantize(c->w, w, elements);
    }
    if (status == ATTN_OK) {
        status = attn_safetensors_read(c->a, ATTN_F32, a, c->a->elements);
    }
    if (status == ATTN_OK) {
        status = read_b(c, config, scale, b, b + c->b->elements);
    }
    if (status == ATTN_OK) {
        attn_view va = attn_view_dense(a, ATTN_F32, 2, c->a->shape);
        attn_view vb = attn_view_dense(b, ATTN_F32, 2, c->b->shape);
        attn_view vw = attn_view_dense(w, ATTN_F32, 2, shape_w);
        status = attn_matmul(context, &vb, &va, NULL, true, &vw);
    }
    if (status == ATTN_OK) {
        c->w->type = 0;
        c->w->data = w;
        c->w->bytes = (size_t)elements * sizeof *w;
    }
    free(a);
    return status;
}

static attn_status merge_all(attn_context *context, attn_gguf *base, const attn_safetensors *from,
                             const lm_adapter *adapter, const attn_model_open_options *options)
{
    attn_model_config config;
    int64_t used = 0, count = attn_safetensors_count(from);
    attn_status status = attn_model_config_read(base, &config);
    for (int64_t i = 0; i < count && status == ATTN_OK; i++) {
        const attn_safetensor *a = attn_safetensors_at(from, i);
        size_t size = strlen(a->name);
        if (size > 14 && strcmp(a->name + size - 14, ".lora_B.weight") == 0) {
            continue; /* found by its lora_A */
        }
        if (options->cancel && options->cancel(options->cancel_user)) {
            return attn_fail(ATTN_ERR_CANCELLED, "merging the adapter was cancelled");
        }
        change c = {0};
        status = find_change(base, from, adapter, a, &c);
        if (status == ATTN_OK) {
            status = merge_one(context, base, &c, &config, adapter->scale);
        }
        used += 2;
    }
    if (status == ATTN_OK && (used != count || count == 0)) {
        status = attn_fail(ATTN_ERR_FORMAT, "%s: %s", attn_safetensors_path(from),
                           count ? "a lora_B is without its lora_A" : "an adapter without tensors");
    }
    return status;
}

attn_status lm_merge_adapter(attn_gguf *base, const attn_safetensors *from,
                             const lm_adapter *adapter, const attn_model_open_options *options)
{
    char sha256[65];
    attn_status status =
        attn_file_sha256(attn_gguf_path(base), sha256, options->cancel, options->cancel_user);
    if (status != ATTN_OK) {
        return status;
    }
    if (strcmp(sha256, adapter->sha256) != 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: it was trained on '%s' with SHA-256 %.16s…, but that of %s is "
                         "%.16s…; it fits no other base",
                         attn_safetensors_path(from), adapter->base, adapter->sha256,
                         attn_gguf_path(base), sha256);
    }
    attn_context *context = NULL;
    attn_context_options one = attn_context_options_init();
    one.threads = 1; /* a matrix takes milliseconds */
    status = attn_context_create(&one, &context);
    if (status == ATTN_OK) {
        status = merge_all(context, base, from, adapter, options);
    }
    attn_context_destroy(context);
    return status;
}
