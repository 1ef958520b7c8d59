/**
 * lm/train_result.c: a fine-tuned model as a file that inference loads.
 */
#include <attn/model_file.h>
#include <attn/train.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char lora_a[] = ".lora_A.weight", lora_b[] = ".lora_B.weight", weight[] = ".weight";

/* A layer's name in front of an ending; malloc'd. NULL with *status set where the parameter ends otherwise (OK) or without memory. */
static char *layer_of(const char *name, const char *ending, const char *other, attn_status *status)
{
    size_t size = strlen(name), tail = strlen(ending);
    *status = ATTN_OK;
    if (size < tail || strcmp(name + size - tail, ending) != 0) {
        return NULL;
    }
    size_t room = size - tail + strlen(other) + 1;
    char *layer = malloc(room);
    if (layer == NULL) {
        *status = attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory to write the model");
        return NULL;
    }
    snprintf(layer, room, "%.*s%s", (int)(size - tail), name, other);
    return layer;
}

/* Names of the matrices that have adapters: list[0 … *count), room for all parameters. */
static attn_status adapted(const attn_module *gpt, char **list, size_t *count)
{
    attn_status s = ATTN_OK;
    *count = 0;
    for (int i = 0; i < attn_module_parameter_count(gpt) && s == ATTN_OK; i++) {
        char *name = layer_of(attn_module_parameter_name(gpt, i), lora_a, weight, &s);
        if (name) {
            list[(*count)++] = name;
        }
    }
    return s;
}

static void free_list(char **list, size_t count)
{
    for (size_t i = 0; list && i < count; i++) {
        free(list[i]);
    }
    free(list);
}

static attn_status no_memory(const char *path)
{
    return attn_fail(ATTN_ERR_NO_MEMORY, "%s: not enough memory to write it", path);
}

/* ---- GGUF ---- */

static attn_status write_gguf(const attn_module *gpt, char *const *names, size_t count,
                              const attn_gguf *base, const char *path)
{
    attn_gguf_replacement *list = calloc(count + 1, sizeof *list);
    attn_status s = list ? ATTN_OK : no_memory(path);
    for (size_t i = 0; i < count && s == ATTN_OK; i++) {
        attn_view view = attn_tensor_view(attn_module_find_parameter(gpt, names[i]));
        list[i] = (attn_gguf_replacement){
            .name = names[i], .data = view.data, .pairing = ATTN_ROPE_HALVES, .dtype = ATTN_BF16};
        if (view.dtype != ATTN_F32) {
            s = attn_fail(ATTN_ERR_DTYPE, "gpt: parameter '%s' must be f32", names[i]);
        }
    }
    s = s ? s : attn_gguf_write(path, base, list, count, NULL);
    free(list);
    return s;
}

/* Names of all parameters, as adapted(). */
static attn_status all_names(const attn_module *gpt, char **list, size_t *count)
{
    for (int i = 0; i < attn_module_parameter_count(gpt); i++) {
        const char *name = attn_module_parameter_name(gpt, i);
        list[i] = malloc(strlen(name) + 1);
        if (list[i] == NULL) {
            return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory to write the model");
        }
        strcpy(list[i], name);
        *count = (size_t)i + 1;
    }
    return ATTN_OK;
}

attn_status attn_gpt_save_gguf(attn_context *context, attn_module *gpt, const attn_gguf *base,
                               const char *path)
{
    if (!context || !gpt || !base || !path) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context, gpt, base and path must not be NULL");
    }
    size_t count = 0;
    char **names = calloc((size_t)attn_module_parameter_count(gpt) + 1, sizeof *names);
    attn_status s = names ? adapted(gpt, names, &count) : no_memory(path);
    if (s == ATTN_OK) {
        s = count > 0 ? attn_lora_merge(context, gpt) : all_names(gpt, names, &count);
    }
    s = s ? s : write_gguf(gpt, names, count, base, path);
    free_list(names, count);
    return s;
}

/* ---- adapters ---- */

static attn_status write_adapter(const attn_module *gpt, char *const *names, size_t count,
                                 const attn_gguf *base, double alpha, const char *path)
{
    attn_adapter_part *parts = calloc(count, sizeof *parts);
    attn_status s = parts ? ATTN_OK : no_memory(path);
    int64_t rank = 0;
    for (size_t i = 0; i < count && s == ATTN_OK; i++) {
        char *a = layer_of(names[i], weight, lora_a, &s);
        char *b = a ? layer_of(names[i], weight, lora_b, &s) : NULL;
        if (b) {
            attn_tensor *down = attn_module_find_parameter(gpt, a);
            attn_tensor *up = attn_module_find_parameter(gpt, b);
            rank = attn_tensor_size(down, 0);
            parts[i] = (attn_adapter_part){.name = names[i],
                                           .a = attn_tensor_view(down).data,
                                           .b = attn_tensor_view(up).data,
                                           .pairing = ATTN_ROPE_HALVES};
        }
        free(a);
        free(b);
    }
    s = s ? s : attn_adapter_save(path, base, rank, alpha / (double)rank, parts, count);
    free(parts);
    return s;
}

attn_status attn_gpt_save_adapter(const attn_module *gpt, const attn_gguf *base, double alpha,
                                  const char *path)
{
    if (!gpt || !base || !path) {
        return attn_fail(ATTN_ERR_ARGUMENT, "gpt, base and path must not be NULL");
    }
    size_t count = 0;
    char **names = calloc((size_t)attn_module_parameter_count(gpt) + 1, sizeof *names);
    attn_status s = names ? adapted(gpt, names, &count) : no_memory(path);
    if (s == ATTN_OK && count == 0) {
        s = attn_fail(ATTN_ERR_ARGUMENT, "gpt: has no adapters; attn_lora_apply makes them");
    }
    s = s ? s : write_adapter(gpt, names, count, base, alpha, path);
    free_list(names, count);
    return s;
}
