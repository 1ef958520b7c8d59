/* Writing an adapter. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lm/model_files.h"

/* One part's names and, where its rows were reordered, its b. */
typedef struct prepared {
    char a[256], b[256];
    float *reordered;
} prepared;

static attn_status prepare(const attn_gguf *base, const attn_model_config *config, int64_t rank,
                           const attn_adapter_part *part, prepared *p,
                           attn_safetensors_item items[2])
{
    char name[160], stem[160];
    if (!part->name || !part->a || !part->b) {
        return attn_fail(ATTN_ERR_ARGUMENT, "parts: a name, an a or a b is NULL");
    }
    lm_as_gguf_name(part->name, name, sizeof name);
    const attn_gguf_tensor *w = attn_gguf_find(base, name);
    if (!w || w->ndim != 2 || !lm_hf_stem(name, stem, sizeof stem)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "parts: '%.100s' is no matrix of the base %s",
                         part->name, attn_gguf_path(base));
    }
    int rotated = lm_rotated(name);
    const float *b = part->b;
    if (rotated && part->pairing == ATTN_ROPE_INTERLEAVED) {
        p->reordered = malloc((size_t)w->dims[1] * (size_t)rank * sizeof *p->reordered);
        if (!p->reordered) {
            return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to write '%s'", name);
        }
        attn_status status = attn_rope_reorder(
            part->b, rotated == 1 ? config->heads_q : config->heads_kv, config->head_dim,
            config->rope_dims, rank, ATTN_ROPE_INTERLEAVED, p->reordered);
        if (status != ATTN_OK) {
            return status;
        }
        b = p->reordered;
    }
    snprintf(p->a, sizeof p->a, "base_model.model.%s.lora_A.weight", stem);
    snprintf(p->b, sizeof p->b, "base_model.model.%s.lora_B.weight", stem);
    items[0] = (attn_safetensors_item){.name = p->a,
                                       .dtype = ATTN_ST_F32,
                                       .ndim = 2,
                                       .shape = {rank, w->dims[0]},
                                       .data = part->a};
    items[1] = (attn_safetensors_item){
        .name = p->b, .dtype = ATTN_ST_F32, .ndim = 2, .shape = {w->dims[1], rank}, .data = b};
    return ATTN_OK;
}

/* The value of "attn.adapter"; malloc'd. */
static attn_status describe(const attn_gguf *base, int64_t rank, double scale, char **json)
{
    char sha256[65];
    const char *path = attn_gguf_path(base), *slash = strrchr(path, '/');
    attn_status status = attn_file_sha256(path, sha256, NULL, NULL);
    if (status != ATTN_OK) {
        return status;
    }
    json_t *object = json_pack("{s:s, s:s, s:I, s:f}", "base", slash ? slash + 1 : path,
                               "base_sha256", sha256, "rank", (json_int_t)rank, "scale", scale);
    *json = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return *json ? ATTN_OK
                 : attn_fail(ATTN_ERR_ARGUMENT, "base: its name cannot be written as JSON");
}

attn_status attn_adapter_save(const char *path, const attn_gguf *base, int64_t rank, double scale,
                              const attn_adapter_part *parts, size_t count)
{
    if (!path || !base || !parts || count == 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: %s",
                         !path   ? "path"
                         : !base ? "base"
                                 : "parts",
                         path && base && parts ? "there are none" : "NULL");
    }
    if (rank < 1 || rank > 65536 || !isfinite(scale)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "rank: %" PRId64 ", scale: %g; they must be 1 to 65536, and finite", rank,
                         scale);
    }
    attn_model_config config;
    char *json = NULL;
    attn_status status = attn_model_config_read(base, &config);
    prepared *prepared_parts = calloc(count, sizeof *prepared_parts);
    attn_safetensors_item *items = calloc(2 * count, sizeof *items);
    if (status == ATTN_OK && (!prepared_parts || !items)) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory to write %s", path);
    }
    for (size_t i = 0; i < count && status == ATTN_OK; i++) {
        status = prepare(base, &config, rank, &parts[i], &prepared_parts[i], &items[2 * i]);
    }
    if (status == ATTN_OK) {
        status = describe(base, rank, scale, &json);
    }
    if (status == ATTN_OK) {
        const attn_safetensors_pair metadata[] = {{ADAPTER_KEY, json}, {"format", "pt"}};
        status = attn_safetensors_save(path, items, 2 * count, metadata, 2);
    }
    for (size_t i = 0; prepared_parts && i < count; i++) {
        free(prepared_parts[i].reordered);
    }
    free(prepared_parts);
    free(items);
    free(json);
    return status;
}
