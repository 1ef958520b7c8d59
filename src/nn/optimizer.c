/**
 * optimizer.c: the parameters an optimizer looks after, and what it remembers of each.
 */
#include "nn/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

attn_optimizer_options attn_optimizer_options_init(void)
{
    return (attn_optimizer_options){.struct_size = sizeof(attn_optimizer_options),
                                    .beta1 = 0.9,
                                    .beta2 = 0.95,
                                    .eps = 1e-8,
                                    .weight_decay = 0.1};
}

static bool below_one(double x)
{
    return x >= 0.0 && x < 1.0;
}

static attn_status check_options(const attn_optimizer_options *o)
{
    if ((unsigned)o->kind > ATTN_OPTIMIZER_SGD) {
        return attn_fail(ATTN_ERR_ARGUMENT, "kind: %d is no attn_optimizer_kind", (int)o->kind);
    }
    if (!below_one(o->beta1) || !below_one(o->beta2) || !below_one(o->momentum)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "beta1, beta2, momentum: %g, %g, %g; each at least 0 and below 1, for "
                         "example 0.9, 0.95, 0.9",
                         o->beta1, o->beta2, o->momentum);
    }
    if (!(o->eps > 0.0 && isfinite(o->eps)) ||
        !(o->weight_decay >= 0.0 && isfinite(o->weight_decay))) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "eps, weight_decay: %g, %g; above 0 and at least 0, for example 1e-8, 0.1",
                         o->eps, o->weight_decay);
    }
    return ATTN_OK;
}

attn_status attn_optimizer_create(attn_context *context, const attn_optimizer_options *options,
                                  attn_optimizer **optimizer)
{
    attn_optimizer_options o = attn_optimizer_options_init();
    if (!optimizer) {
        return attn_fail(ATTN_ERR_ARGUMENT, "optimizer: NULL; give the address of a pointer");
    }
    *optimizer = NULL;
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status =
        attn_take_struct("options", "attn_optimizer_options_init", options, &o, sizeof o);
    if (status == ATTN_OK) {
        status = check_options(&o);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_optimizer *made = calloc(1, sizeof *made);
    if (!made) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for an optimizer");
    }
    made->context = context;
    made->options = o;
    made->slots = o.kind == ATTN_OPTIMIZER_ADAMW ? 2 : o.momentum > 0.0 ? 1 : 0;
    *optimizer = made;
    return ATTN_OK;
}

static void entry_free(optimizer_entry *entry)
{
    for (int s = 0; s < SLOTS_MAX; s++) {
        attn_tensor_release(entry->slots[s]);
        free(entry->slot_names[s]);
    }
    attn_tensor_release(entry->parameter);
    free(entry->name);
    memset(entry, 0, sizeof *entry);
}

void attn_optimizer_destroy(attn_optimizer *optimizer)
{
    if (!optimizer) {
        return;
    }
    for (int i = 0; i < optimizer->count; i++) {
        entry_free(&optimizer->entries[i]);
    }
    free(optimizer->entries);
    free(optimizer);
}

/* ---- adding ------------------------------------------------------------------------------------ */

static attn_status no_memory(const char *name)
{
    return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for the optimizer's state of %s", name);
}

static char *join(const char *prefix, const char *name)
{
    size_t size = strlen(prefix) + strlen(name) + 1;
    char *text = malloc(size);
    if (text) {
        snprintf(text, size, "%s%s", prefix, name);
    }
    return text;
}

static attn_status check_add(const attn_optimizer *o, const char *name, const attn_tensor *p,
                             double lr_scale, double weight_decay)
{
    if (!o || !name || !p) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL",
                         !o      ? "optimizer"
                         : !name ? "name"
                                 : "parameter");
    }
    if (!(lr_scale >= 0.0 && isfinite(lr_scale)) ||
        !(weight_decay >= 0.0 && isfinite(weight_decay))) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "lr_scale, weight_decay: %g, %g; both at least 0, for example 1, 0.1",
                         lr_scale, weight_decay);
    }
    for (int i = 0; i < o->count; i++) {
        if (o->entries[i].parameter == p || strcmp(o->entries[i].name, name) == 0) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "parameter: %s is there already as %s; add each once", name,
                             o->entries[i].name);
        }
    }
    return ATTN_OK;
}

static attn_status make_entry(const attn_optimizer *o, const char *name, attn_tensor *parameter,
                              optimizer_entry *entry)
{
    static const char *const prefixes[][SLOTS_MAX] = {
        [ATTN_OPTIMIZER_ADAMW] = {"exp_avg.", "exp_avg_sq."},
        [ATTN_OPTIMIZER_SGD] = {"momentum.", ""}};
    entry->parameter = attn_tensor_retain(parameter);
    entry->name = join("", name);
    if (!entry->name) {
        return no_memory(name);
    }
    attn_view view = attn_tensor_view(parameter);
    for (int s = 0; s < o->slots; s++) {
        attn_status status =
            attn_tensor_create(view.dtype, view.ndim, view.shape, &entry->slots[s]);
        if (status != ATTN_OK) {
            return status;
        }
        entry->slot_names[s] = join(prefixes[o->options.kind][s], name);
        if (!entry->slot_names[s]) {
            return no_memory(name);
        }
    }
    return ATTN_OK;
}

attn_status attn_optimizer_add(attn_optimizer *optimizer, const char *name, attn_tensor *parameter,
                               double lr_scale, double weight_decay)
{
    attn_status status = check_add(optimizer, name, parameter, lr_scale, weight_decay);
    if (status != ATTN_OK) {
        return status;
    }
    if (optimizer->count == optimizer->capacity) {
        int capacity = optimizer->capacity ? 2 * optimizer->capacity : 16;
        void *more = realloc(optimizer->entries, (size_t)capacity * sizeof *optimizer->entries);
        if (!more) {
            return no_memory(name);
        }
        optimizer->entries = more;
        optimizer->capacity = capacity;
    }
    optimizer_entry entry = {.lr_scale = lr_scale, .weight_decay = weight_decay};
    status = make_entry(optimizer, name, parameter, &entry);
    if (status != ATTN_OK) {
        entry_free(&entry);
        return status;
    }
    optimizer->entries[optimizer->count++] = entry;
    return ATTN_OK;
}

attn_status attn_optimizer_add_module(attn_optimizer *optimizer, const attn_module *module)
{
    if (!optimizer || !module) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL",
                         optimizer ? "module" : "optimizer");
    }
    attn_status status = ATTN_OK;
    for (int i = 0; i < attn_module_parameter_count(module) && status == ATTN_OK; i++) {
        attn_tensor *parameter = attn_module_parameter(module, i);
        double decay = attn_tensor_ndim(parameter) > 1 ? optimizer->options.weight_decay : 0.0;
        if (attn_tensor_requires_grad(parameter)) {
            status = attn_optimizer_add(optimizer, attn_module_parameter_name(module, i), parameter,
                                        1.0, decay);
        }
    }
    return status;
}

void attn_optimizer_zero_grad(attn_optimizer *optimizer)
{
    for (int i = 0; optimizer && i < optimizer->count; i++) {
        attn_tensor_clear_grad(optimizer->entries[i].parameter);
    }
}

/* ---- state ------------------------------------------------------------------------------------- */

int64_t attn_optimizer_steps(const attn_optimizer *optimizer)
{
    return optimizer ? optimizer->steps : 0;
}

attn_status attn_optimizer_set_steps(attn_optimizer *optimizer, int64_t steps)
{
    if (!optimizer) {
        return attn_fail(ATTN_ERR_ARGUMENT, "optimizer: must not be NULL");
    }
    if (steps < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "steps: are %lld, must not be negative; 0 before the "
                         "first",
                         (long long)steps);
    }
    optimizer->steps = steps;
    return ATTN_OK;
}

int attn_optimizer_state_count(const attn_optimizer *optimizer)
{
    return optimizer ? optimizer->slots * optimizer->count : 0;
}

static const optimizer_entry *entry_of(const attn_optimizer *optimizer, int index, int *slot)
{
    if (index < 0 || index >= attn_optimizer_state_count(optimizer)) {
        return NULL;
    }
    *slot = index % optimizer->slots;
    return &optimizer->entries[index / optimizer->slots];
}

const char *attn_optimizer_state_name(const attn_optimizer *optimizer, int index)
{
    int slot = 0;
    const optimizer_entry *entry = entry_of(optimizer, index, &slot);
    return entry ? entry->slot_names[slot] : NULL;
}

attn_view attn_optimizer_state(const attn_optimizer *optimizer, int index)
{
    int slot = 0;
    const optimizer_entry *entry = entry_of(optimizer, index, &slot);
    return attn_tensor_view(entry ? entry->slots[slot] : NULL);
}

size_t attn_optimizer_state_bytes(const attn_optimizer *optimizer)
{
    size_t bytes = 0;
    for (int i = 0; i < attn_optimizer_state_count(optimizer); i++) {
        int slot = 0;
        const attn_tensor *tensor = entry_of(optimizer, i, &slot)->slots[slot];
        bytes += (size_t)attn_tensor_count(tensor) * attn_dtype_size(attn_tensor_dtype(tensor));
    }
    return bytes;
}

attn_status attn_optimizer_set_state(attn_optimizer *optimizer, const char *name,
                                     const attn_view *values)
{
    if (!optimizer || !name || !values) {
        return attn_fail(ATTN_ERR_ARGUMENT, "optimizer, name, values: must not be NULL");
    }
    for (int i = 0; i < attn_optimizer_state_count(optimizer); i++) {
        if (strcmp(attn_optimizer_state_name(optimizer, i), name) == 0) {
            attn_view own = attn_optimizer_state(optimizer, i);
            if (values->dtype != own.dtype) {
                return attn_fail(ATTN_ERR_DTYPE, "values: %s is %s, given %s", name,
                                 attn_dtype_name(own.dtype), attn_dtype_name(values->dtype));
            }
            return attn_convert(optimizer->context, values, &own);
        }
    }
    return attn_fail(ATTN_ERR_ARGUMENT,
                     "name: the optimizer has no state \"%.200s\"; add the parameters and take the "
                     "optimizer's kind it was saved with",
                     name);
}
