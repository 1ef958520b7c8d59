/**
 * parameters.c: what is done with all parameters of a module: listing, counting, setting, freezing; and its modes.
 */
#include "nn/module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int attn_module_parameter_count(const attn_module *module)
{
    return module ? module->entry_count : 0;
}

const char *attn_module_parameter_name(const attn_module *module, int index)
{
    return module && index >= 0 && index < module->entry_count ? module->entries[index].name : NULL;
}

attn_tensor *attn_module_parameter(const attn_module *module, int index)
{
    return module && index >= 0 && index < module->entry_count ? module->entries[index].tensor
                                                               : NULL;
}

int64_t attn_module_element_count(const attn_module *module, bool trainable)
{
    int64_t count = 0;
    for (int i = 0; module && i < module->entry_count; i++) {
        const attn_tensor *tensor = module->entries[i].tensor;
        if (!trainable || attn_tensor_requires_grad(tensor)) {
            count += attn_tensor_count(tensor);
        }
    }
    return count;
}

void attn_module_zero_grad(attn_module *module)
{
    for (int i = 0; module && i < module->entry_count; i++) {
        attn_tensor_clear_grad(module->entries[i].tensor);
    }
}

void attn_module_require_grad(attn_module *module, bool require)
{
    for (int i = 0; module && i < module->entry_count; i++) {
        attn_tensor_require_grad(module->entries[i].tensor, require);
    }
}

void attn_module_set_training(attn_module *module, bool training)
{
    if (!module) {
        return;
    }
    module->training = training;
    for (int i = 0; i < module->child_count; i++) {
        attn_module_set_training(module->children[i], training);
    }
}

bool attn_module_training(const attn_module *module)
{
    return module && module->training;
}

void attn_module_set_dropout_seed(attn_module *module, uint64_t seed)
{
    if (!module) {
        return;
    }
    module->dropout_seed = seed;
    module->dropout_calls = 0;
    for (int i = 0; i < module->child_count; i++) {
        attn_module_set_dropout_seed(module->children[i], seed);
    }
}

/* ---- setting by name --------------------------------------------------------------------------- */

/* Edits between two names (Levenshtein 1966), for the nearest; 99 where there is no memory to tell. */
static int distance(const char *a, const char *b)
{
    int rows = (int)strlen(a), columns = (int)strlen(b);
    int *row = malloc(((size_t)columns + 1) * sizeof *row);
    if (!row) {
        return 99;
    }
    for (int j = 0; j <= columns; j++) {
        row[j] = j;
    }
    for (int i = 1; i <= rows; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= columns; j++) {
            int best = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            best = best < row[j] + 1 ? best : row[j] + 1;
            row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
        }
    }
    int result = row[columns];
    free(row);
    return result;
}

static attn_status no_such(const attn_module *module, const char *name)
{
    const char *nearest = NULL;
    int least = 1000;
    for (int i = 0; i < module->entry_count && strlen(name) < 200; i++) {
        int d = distance(name, module->entries[i].name);
        if (d < least) {
            least = d;
            nearest = module->entries[i].name;
        }
    }
    return attn_fail(ATTN_ERR_ARGUMENT,
                     "name: \"%.200s\" is no parameter of this module, which has %d%s%s%s", name,
                     module->entry_count, nearest ? "; did you mean \"" : "",
                     nearest ? nearest : "", nearest ? "\"?" : "");
}

static void shape_text(const attn_view *view, char text[96])
{
    int at = 0;
    text[0] = '\0';
    for (int d = 0; d < view->ndim && d < 4; d++) {
        at += snprintf(text + at, 96 - (size_t)at, "%s%lld", d ? ", " : "",
                       (long long)view->shape[d]);
    }
}

static attn_status check_shape(const char *name, const attn_view *own, const attn_view *values)
{
    bool same = own->ndim == values->ndim;
    for (int d = 0; same && d < own->ndim; d++) {
        same = own->shape[d] == values->shape[d];
    }
    if (same) {
        return ATTN_OK;
    }
    char wanted[96], given[96];
    shape_text(own, wanted);
    shape_text(values, given);
    bool turned = own->ndim == 2 && values->ndim == 2 && own->shape[0] == values->shape[1] &&
                  own->shape[1] == values->shape[0];
    return attn_fail(ATTN_ERR_SHAPE, "values: %s is [%s], given [%s]%s", name, wanted, given,
                     turned ? "; pass it transposed"
                            : "; the model's options must be those the values come from");
}

attn_status attn_module_set_parameter(attn_context *context, attn_module *module, const char *name,
                                      const attn_view *values)
{
    if (!context || !module || !name || !values) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL",
                         !context  ? "context"
                         : !module ? "module"
                         : !name   ? "name"
                                   : "values");
    }
    attn_tensor *tensor = attn_module_find_parameter(module, name);
    if (!tensor) {
        return no_such(module, name);
    }
    attn_view own = attn_tensor_view(tensor);
    attn_status status = check_shape(name, &own, values);
    if (status == ATTN_OK) {
        own = attn_tensor_write(tensor);
        status = attn_convert(context, values, &own);
    }
    return status;
}
