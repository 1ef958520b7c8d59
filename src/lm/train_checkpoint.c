/**
 * lm/train_checkpoint.c: a trainer's state as a safetensors file, and back.
 */
#include "lm/train.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OWN       "attn.trainer."
#define OPTIMIZER "attn.optimizer."

static const char key_step[] = OWN "step", key_seed[] = OWN "seed", key_text[] = OWN "text";

/* ---- saving ---- */

/* "attn.optimizer.<name>" of every piece of state, malloc'd as one array; NULL without memory. */
static char **state_names(const attn_optimizer *optimizer, int count)
{
    char **names = calloc((size_t)count + 1, sizeof *names);
    for (int i = 0; names && i < count; i++) {
        const char *name = attn_optimizer_state_name(optimizer, i);
        size_t size = sizeof OPTIMIZER + strlen(name);
        names[i] = malloc(size);
        if (names[i] == NULL) {
            while (i-- > 0) {
                free(names[i]);
            }
            free(names);
            return NULL;
        }
        snprintf(names[i], size, OPTIMIZER "%s", name);
    }
    return names;
}

static attn_status check_metadata(const attn_safetensors_pair *metadata, size_t pairs)
{
    for (size_t i = 0; i < pairs; i++) {
        if (strncmp(metadata[i].key, OWN, sizeof OWN - 1) == 0) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "metadata: the key '%s' is the trainer's own; take another",
                             metadata[i].key);
        }
    }
    return ATTN_OK;
}

static attn_status save(const attn_trainer *t, const char *path, attn_safetensors_item *items,
                        char **names, int states, attn_safetensors_pair *all, size_t pairs)
{
    char step[24], seed[24], text[24];
    size_t count = 0;
    for (int i = 0; i < attn_module_parameter_count(t->gpt); i++) {
        attn_tensor *parameter = attn_module_parameter(t->gpt, i);
        if (attn_tensor_requires_grad(parameter)) {
            attn_view view = attn_tensor_view(parameter);
            items[count++] = attn_safetensors_item_from(attn_module_parameter_name(t->gpt, i),
                                                        &view, ATTN_ST_NONE);
        }
    }
    for (int i = 0; i < states; i++) {
        attn_view view = attn_optimizer_state(t->optimizer, i);
        items[count++] = attn_safetensors_item_from(names[i], &view, ATTN_ST_NONE);
    }
    snprintf(step, sizeof step, "%" PRId64, t->step);
    snprintf(seed, sizeof seed, "%" PRIu64, t->options.seed);
    snprintf(text, sizeof text, "%016" PRIx64, t->text);
    all[pairs++] = (attn_safetensors_pair){key_step, step};
    all[pairs++] = (attn_safetensors_pair){key_seed, seed};
    all[pairs++] = (attn_safetensors_pair){key_text, text};
    return attn_safetensors_save(path, items, count, all, pairs);
}

attn_status attn_trainer_save(const attn_trainer *trainer, const char *path,
                              const attn_safetensors_pair *metadata, size_t pairs)
{
    if (path == NULL || (pairs > 0 && metadata == NULL)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: is NULL", path ? "metadata" : "path");
    }
    attn_status s = check_metadata(metadata, pairs);
    if (s != ATTN_OK) {
        return s;
    }
    int states = attn_optimizer_state_count(trainer->optimizer);
    size_t most = (size_t)attn_module_parameter_count(trainer->gpt) + (size_t)states;
    char **names = state_names(trainer->optimizer, states);
    attn_safetensors_item *items = calloc(most + 1, sizeof *items);
    attn_safetensors_pair *all = calloc(pairs + 3, sizeof *all);
    if (names && items && all) {
        if (pairs > 0) {
            memcpy(all, metadata, pairs * sizeof *all);
        }
        s = save(trainer, path, items, names, states, all, pairs);
    } else {
        s = attn_fail(ATTN_ERR_NO_MEMORY, "%s: not enough memory to save", path);
    }
    for (int i = 0; names && i < states; i++) {
        free(names[i]);
    }
    free(names);
    free(items);
    free(all);
    return s;
}

/* ---- resuming ---- */

/* A tensor of the file that is to become `view`'s values: there, and of its shape. */
static attn_status check_tensor(const attn_safetensors *file, const char *name,
                                const attn_view *view)
{
    const attn_safetensor *tensor = attn_safetensors_find(file, name);
    const char *path = attn_safetensors_path(file);
    if (tensor == NULL) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: holds no tensor '%s', which this model needs", path,
                         name);
    }
    if (tensor->dtype != attn_safetensors_dtype_of(view->dtype)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: tensor '%s' is %s, training needs %s", path, name,
                         attn_safetensors_dtype_name(tensor->dtype), attn_dtype_name(view->dtype));
    }
    bool same = tensor->ndim == view->ndim;
    for (int d = 0; same && d < view->ndim; d++) {
        same = tensor->shape[d] == view->shape[d];
    }
    return same ? ATTN_OK
                : attn_fail(ATTN_ERR_ARGUMENT,
                            "%s: tensor '%s' has another shape here: is it of another model?", path,
                            name);
}

/* Calls `visit` for every tensor of a checkpoint: what it is called in the file, its name for `set`, its values now. */
typedef struct walker {
    attn_trainer *trainer;
    const attn_safetensors *file;
    void *buffer;  /* NULL while only checking */
    int64_t most;  /* elements of the largest */
    int64_t count; /* tensors seen */
} walker;

static attn_status visit(walker *w, const char *stored, const char *name, bool parameter,
                         const attn_view *view)
{
    attn_status s = check_tensor(w->file, stored, view);
    int64_t elements = 1;
    for (int d = 0; d < view->ndim; d++) {
        elements *= view->shape[d];
    }
    w->most = elements > w->most ? elements : w->most;
    w->count++;
    if (s != ATTN_OK || w->buffer == NULL) {
        return s;
    }
    s = attn_safetensors_read(attn_safetensors_find(w->file, stored), view->dtype, w->buffer,
                              elements);
    attn_view values = attn_view_dense(w->buffer, view->dtype, view->ndim, view->shape);
    if (s != ATTN_OK) {
        return s;
    }
    return parameter
               ? attn_module_set_parameter(w->trainer->context, w->trainer->gpt, name, &values)
               : attn_optimizer_set_state(w->trainer->optimizer, name, &values);
}

static attn_status walk(walker *w)
{
    attn_trainer *t = w->trainer;
    attn_status s = ATTN_OK;
    for (int i = 0; i < attn_module_parameter_count(t->gpt) && s == ATTN_OK; i++) {
        attn_tensor *parameter = attn_module_parameter(t->gpt, i);
        if (attn_tensor_requires_grad(parameter)) {
            const char *name = attn_module_parameter_name(t->gpt, i);
            attn_view view = attn_tensor_view(parameter);
            s = visit(w, name, name, true, &view);
        }
    }
    for (int i = 0; i < attn_optimizer_state_count(t->optimizer) && s == ATTN_OK; i++) {
        const char *name = attn_optimizer_state_name(t->optimizer, i);
        size_t size = sizeof OPTIMIZER + strlen(name);
        char *stored = malloc(size);
        if (stored == NULL) {
            return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory to resume");
        }
        snprintf(stored, size, OPTIMIZER "%s", name);
        attn_view view = attn_optimizer_state(t->optimizer, i);
        s = visit(w, stored, name, false, &view);
        free(stored);
    }
    return s;
}

/* Whether this run has a place for a tensor of that name. */
static bool has_place(const attn_trainer *t, const char *name)
{
    if (strncmp(name, OPTIMIZER, sizeof OPTIMIZER - 1) != 0) {
        return attn_tensor_requires_grad(attn_module_find_parameter(t->gpt, name));
    }
    for (int i = 0; i < attn_optimizer_state_count(t->optimizer); i++) {
        if (strcmp(attn_optimizer_state_name(t->optimizer, i), name + sizeof OPTIMIZER - 1) == 0) {
            return true;
        }
    }
    return false;
}

/* A file with everything that is needed and more is of a larger model. */
static attn_status check_rest(const walker *w)
{
    for (int64_t i = 0; w->count < attn_safetensors_count(w->file); i++) {
        const attn_safetensor *tensor = attn_safetensors_at(w->file, i);
        if (!tensor) {
            break;
        }
        if (!has_place(w->trainer, tensor->name)) {
            return attn_fail(
                ATTN_ERR_ARGUMENT,
                "%s: holds a tensor '%.200s', which this model has no place for: is it "
                "of another model?",
                attn_safetensors_path(w->file), tensor->name);
        }
    }
    return ATTN_OK;
}

/* The number that metadata gives for a key. */
static attn_status read_number(const attn_safetensors *file, const char *key, int base,
                               uint64_t *value)
{
    const char *text = attn_safetensors_metadata(file, key);
    char *end = NULL;
    errno = 0;
    *value = text ? strtoull(text, &end, base) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0 || text[0] == '-') {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: is no checkpoint of a training run: its metadata has no %s",
                         attn_safetensors_path(file), key);
    }
    return ATTN_OK;
}

static attn_status resume(attn_trainer *t, const attn_safetensors *file)
{
    uint64_t step, seed, text;
    attn_status s = read_number(file, key_step, 10, &step);
    s = s ? s : read_number(file, key_seed, 10, &seed);
    s = s ? s : read_number(file, key_text, 16, &text);
    if (s == ATTN_OK && step > INT64_MAX / 2) {
        s = attn_fail(ATTN_ERR_FORMAT, "%s: its step is no sensible number",
                      attn_safetensors_path(file));
    }
    if (s == ATTN_OK && text != t->text) {
        s = attn_fail(ATTN_ERR_ARGUMENT,
                      "%s: that run trains on another text (or with another tokenizer); give the "
                      "files it began with",
                      attn_safetensors_path(file));
    }
    walker w = {.trainer = t, .file = file};
    s = s ? s : walk(&w); /* checks all before changing any */
    s = s ? s : check_rest(&w);
    if (s == ATTN_OK) {
        w.buffer = malloc((size_t)w.most * attn_dtype_size(ATTN_F64) + 1);
        s = w.buffer ? walk(&w) : attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory to resume");
        free(w.buffer);
    }
    s = s ? s : attn_optimizer_set_steps(t->optimizer, (int64_t)step);
    if (s == ATTN_OK) {
        t->step = (int64_t)step;
        t->options.seed = seed;
    }
    return s;
}

attn_status attn_trainer_resume(attn_trainer *trainer, const char *path)
{
    attn_safetensors *file = NULL;
    attn_status s = attn_safetensors_open(path, &file);
    s = s ? s : resume(trainer, file);
    attn_safetensors_close(file);
    return s;
}
