/**
 * parameters.c: the layer's parameters by name, read and replaced, and their gradients.
 */
#include "multihead/layer.h"

#include <string.h>

#include "base/alloc.h"
#include "par/context.h"

static const char *const weight_names[MULTIHEAD_PROJECTIONS] = {"q_proj.weight", "k_proj.weight",
                                                                "v_proj.weight", "out_proj.weight"};
static const char *const bias_names[MULTIHEAD_PROJECTIONS] = {"q_proj.bias", "k_proj.bias",
                                                              "v_proj.bias", "out_proj.bias"};

int attn_multihead_parameter_count(const attn_multihead *layer)
{
    return !layer ? 0 : layer->has_bias ? 2 * MULTIHEAD_PROJECTIONS : MULTIHEAD_PROJECTIONS;
}

const char *attn_multihead_parameter_name(const attn_multihead *layer, int index)
{
    if (index < 0 || index >= attn_multihead_parameter_count(layer)) {
        return NULL;
    }
    if (!layer->has_bias) {
        return weight_names[index];
    }
    return index % 2 ? bias_names[index / 2] : weight_names[index / 2];
}

static attn_status find(const attn_multihead *layer, const char *name, int *which, bool *is_bias)
{
    if (!layer || !name) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL", layer ? "name" : "layer");
    }
    for (int i = 0; i < MULTIHEAD_PROJECTIONS; i++) {
        *which = i;
        *is_bias = strcmp(name, bias_names[i]) == 0;
        if (strcmp(name, weight_names[i]) == 0 || (*is_bias && layer->has_bias)) {
            return ATTN_OK;
        }
        if (*is_bias) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "name: this layer has no \"%s\", it was created with no_bias", name);
        }
    }
    return attn_fail(ATTN_ERR_ARGUMENT,
                     "name: \"%s\" is no parameter; they are {q,k,v,out}_proj.{weight,bias}, for "
                     "example \"q_proj.weight\"",
                     name);
}

static attn_view view_of(const multihead_projection *p, bool is_bias)
{
    return is_bias ? attn_view_dense(p->bias, ATTN_F32, 1, &p->out)
                   : attn_view_dense(p->weight, ATTN_F32, 2, (int64_t[]){p->out, p->in});
}

attn_status attn_multihead_parameter(const attn_multihead *layer, const char *name, attn_view *view)
{
    int which = 0;
    bool is_bias = false;
    if (!view) {
        return attn_fail(ATTN_ERR_ARGUMENT, "view: must not be NULL; pass where to put it");
    }
    *view = (attn_view){0};
    attn_status status = find(layer, name, &which, &is_bias);
    if (status == ATTN_OK) {
        *view = view_of(&layer->projection[which], is_bias);
    }
    return status;
}

static attn_status check_value(const char *name, const attn_view *value, const attn_view *own)
{
    if (!value || !value->data) {
        return attn_fail(ATTN_ERR_ARGUMENT, "value: must not be NULL");
    }
    if (value->dtype != ATTN_F32) {
        return attn_fail(ATTN_ERR_DTYPE, "value: is %s, %s is f32; convert it with attn_convert",
                         attn_dtype_name(value->dtype), name);
    }
    bool same = value->ndim == own->ndim;
    for (int n = 0; same && n < own->ndim; n++) {
        same = value->shape[n] == own->shape[n];
    }
    if (!same && own->ndim == 1) {
        return attn_fail(ATTN_ERR_SHAPE, "value: %s is [%lld]; its first size is %lld of %d", name,
                         (long long)own->shape[0], (long long)value->shape[0], value->ndim);
    }
    if (!same) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "value: %s is [out=%lld, in=%lld], this has %d dimensions, the first "
                         "[%lld, %lld]; did you pass it transposed?",
                         name, (long long)own->shape[0], (long long)own->shape[1], value->ndim,
                         (long long)value->shape[0], (long long)value->shape[1]);
    }
    if (value->stride[own->ndim - 1] != 1 && own->shape[own->ndim - 1] > 1) {
        return attn_fail(ATTN_ERR_SHAPE, "value: last stride is %lld but must be 1",
                         (long long)value->stride[own->ndim - 1]);
    }
    return ATTN_OK;
}

/* Everything that can fail comes before the first change; views handed out stay where they are. */
attn_status attn_multihead_set_parameter(attn_multihead *layer, const char *name,
                                         const attn_view *value)
{
    int which = 0;
    bool is_bias = false;
    attn_status status = find(layer, name, &which, &is_bias);
    if (status != ATTN_OK) {
        return status;
    }
    multihead_projection *p = &layer->projection[which];
    attn_view own = view_of(p, is_bias);
    status = check_value(name, value, &own);
    if (status != ATTN_OK) {
        return status;
    }
    int64_t rows = is_bias ? 1 : p->out, cols = is_bias ? p->out : p->in;
    int64_t stride = is_bias ? 0 : value->stride[0];
    size_t bytes = (size_t)rows * (size_t)cols * sizeof(float);
    const attn_allocator *allocator = attn_context_allocator(layer->context);
    float *copy = attn_alloc(allocator, bytes, "a parameter's new value");
    if (!copy) {
        return ATTN_ERR_NO_MEMORY;
    }
    for (int64_t r = 0; r < rows; r++) {
        memcpy(copy + r * cols, (const float *)value->data + r * stride,
               (size_t)cols * sizeof(float));
    }
    attn_linear *packed = NULL;
    status =
        multihead_pack(layer->context, p, is_bias ? NULL : copy, is_bias ? copy : NULL, &packed);
    if (status == ATTN_OK) {
        attn_linear_destroy(p->packed);
        p->packed = packed;
        layer->version++;
        memcpy(is_bias ? p->bias : p->weight, copy, bytes);
    }
    attn_free(allocator, copy, bytes);
    return status;
}

/* One block for all, so that it is there as a whole or not at all. */
attn_status multihead_need_gradients(attn_multihead *layer)
{
    if (layer->gradients) {
        return ATTN_OK;
    }
    size_t floats = 0;
    for (int i = 0; i < MULTIHEAD_PROJECTIONS; i++) { /* twice the parameters' bytes: no wrap */
        const multihead_projection *p = &layer->projection[i];
        floats += (size_t)p->out * (size_t)(p->in + (layer->has_bias ? 1 : 0));
    }
    float *block = attn_alloc(attn_context_allocator(layer->context), floats * sizeof *block,
                              "multi-head gradients");
    if (!block) {
        return ATTN_ERR_NO_MEMORY;
    }
    memset(block, 0, floats * sizeof *block);
    layer->gradients = block;
    layer->gradient_bytes = floats * sizeof *block;
    for (int i = 0; i < MULTIHEAD_PROJECTIONS; i++) {
        multihead_projection *p = &layer->projection[i];
        p->dweight = block;
        block += p->out * p->in;
        p->dbias = layer->has_bias ? block : NULL;
        block += layer->has_bias ? p->out : 0;
    }
    return ATTN_OK;
}

attn_status attn_multihead_clear_gradients(attn_multihead *layer)
{
    if (!layer) {
        return attn_fail(ATTN_ERR_ARGUMENT, "layer: must not be NULL");
    }
    if (layer->gradients) {
        memset(layer->gradients, 0, layer->gradient_bytes);
    }
    return multihead_need_gradients(layer);
}

attn_status attn_multihead_gradient(const attn_multihead *layer, const char *name, attn_view *view)
{
    int which = 0;
    bool is_bias = false;
    if (!view) {
        return attn_fail(ATTN_ERR_ARGUMENT, "view: must not be NULL; pass where to put it");
    }
    *view = (attn_view){0};
    attn_status status = find(layer, name, &which, &is_bias);
    if (status != ATTN_OK) {
        return status;
    }
    const multihead_projection *p = &layer->projection[which];
    if (!layer->gradients) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "layer: has no gradients yet; call attn_multihead_clear_gradients before "
                         "a step and attn_multihead_backward in it");
    }
    *view = view_of(p, is_bias);
    view->data = is_bias ? p->dbias : p->dweight;
    return ATTN_OK;
}
