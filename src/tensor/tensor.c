/**
 * tensor.c: tensors on their own: made, shared, read, written.
 */
#include "tensor/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Number of bytes of a shape, or false where the product overflows or a size is negative. */
static bool size_of(attn_dtype dtype, int ndim, const int64_t *shape, size_t *bytes)
{
    int64_t count = 1, nonzero = 1;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0 || (shape[i] > 0 && nonzero > INT64_MAX / 16 / shape[i])) {
            return false;
        }
        nonzero *= shape[i] > 0 ? shape[i] : 1;
        count *= shape[i];
    }
    *bytes = (size_t)count * attn_dtype_size(dtype);
    return true;
}

/*
 * Dense strides, the dimensions lying in memory in the order that `like` has them in. Those of size 1 have no place of their own there,
 * whatever their strides say: they come last.
 */
static void dense_strides(attn_view *v, const attn_view *like)
{
    int order[4] = {0, 1, 2, 3}, placed = 0;
    for (int i = 0; like && i < v->ndim; i++) { /* stable: equal strides keep their order */
        int at = placed;
        if (like->shape[i] == 1) {
            continue;
        }
        for (; at > 0 && llabs(like->stride[order[at - 1]]) < llabs(like->stride[i]); at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
        placed++;
    }
    for (int i = 0; like && i < v->ndim; i++) {
        if (like->shape[i] == 1) {
            order[placed++] = i;
        }
    }
    int64_t stride = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        v->stride[order[i]] = stride;
        stride *= v->shape[order[i]] > 0 ? v->shape[order[i]] : 1;
    }
}

attn_status attn_shape_check(attn_dtype dtype, int ndim, const int64_t *shape)
{
    size_t bytes = 0;
    char text[ATTN_SHAPE_TEXT];
    if (size_of(dtype, ndim, shape, &bytes)) {
        return ATTN_OK;
    }
    return attn_fail(ATTN_ERR_SHAPE,
                     "shape: %s must have sizes from 0 on, and no more elements than an address "
                     "space holds",
                     attn_shape_text(ndim, shape, text));
}

static attn_tensor *wrap(attn_storage *storage, const attn_view *view)
{
    attn_tensor *t = calloc(1, sizeof *t);
    if (!t) {
        attn_fail(ATTN_ERR_NO_MEMORY, "tensor: no memory for a tensor's own %zu bytes", sizeof *t);
        return NULL;
    }
    t->references = 1;
    t->storage = storage;
    t->view = *view;
    t->node = -1;
    return t;
}

attn_tensor *attn_tensor_make(attn_buffers *pool, attn_dtype dtype, int ndim, const int64_t *shape,
                              const attn_view *like)
{
    size_t bytes = 0;
    if (attn_shape_check(dtype, ndim, shape) != ATTN_OK || !size_of(dtype, ndim, shape, &bytes)) {
        return NULL;
    }
    attn_storage *storage = attn_storage_take(pool, bytes);
    if (!storage) {
        return NULL;
    }
    attn_view view = {.data = storage->data, .dtype = dtype, .ndim = ndim};
    memcpy(view.shape, shape, sizeof *shape * (size_t)ndim);
    dense_strides(&view, like);
    attn_tensor *t = wrap(storage, &view);
    if (!t) {
        attn_storage_release(storage);
    }
    return t;
}

attn_tensor *attn_tensor_alias(attn_tensor *t, const attn_view *view)
{
    attn_tensor *alias = wrap(t->storage, view);
    if (alias) {
        t->storage->references++;
    }
    return alias;
}

bool attn_tensor_exclusive(const attn_tensor *t)
{
    return t->references == 1 && t->storage->references == 1;
}

static attn_status check_new(attn_dtype dtype, int ndim, const int64_t *shape, attn_tensor **tensor)
{
    if (!tensor) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tensor: must not be NULL; it is what is returned");
    }
    *tensor = NULL;
    if (!shape) {
        return attn_fail(ATTN_ERR_ARGUMENT, "shape: must not be NULL; a single number has [1]");
    }
    if (ndim < 1 || ndim > 4) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "ndim: is %d, a tensor has 1 to 4 dimensions; a single number has the "
                         "shape [1]",
                         ndim);
    }
    if (dtype != ATTN_F32 && dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "dtype: a tensor is f32 or f64, not %s; attn_convert changes types",
                         attn_dtype_name(dtype));
    }
    return ATTN_OK;
}

attn_status attn_tensor_create(attn_dtype dtype, int ndim, const int64_t *shape,
                               attn_tensor **tensor)
{
    attn_status status = check_new(dtype, ndim, shape, tensor);
    if (status != ATTN_OK) {
        return status;
    }
    status = attn_shape_check(dtype, ndim, shape);
    if (status != ATTN_OK) {
        return status;
    }
    *tensor = attn_tensor_make(NULL, dtype, ndim, shape, NULL);
    if (!*tensor) {
        return ATTN_ERR_NO_MEMORY;
    }
    memset((*tensor)->view.data, 0, (*tensor)->storage->bytes);
    return ATTN_OK;
}

attn_status attn_tensor_create_joined(attn_dtype dtype, int count, const int64_t *rows,
                                      int64_t columns, attn_tensor **tensors)
{
    int64_t shape[2] = {0, columns}, row = 0;
    attn_tensor *all = NULL;
    for (int i = 0; tensors && i < count; i++) {
        tensors[i] = NULL;
    }
    for (int i = 0; rows && i < count; i++) {
        if (rows[i] < 0 || __builtin_add_overflow(shape[0], rows[i], &shape[0])) {
            return attn_fail(ATTN_ERR_SHAPE, "rows: %lld is negative, or the sum overflows",
                             (long long)rows[i]);
        }
    }
    if (count < 1 || !rows || !tensors) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s",
                         count < 1 ? "count: must be at least 1"
                                   : "rows, tensors: must not be NULL");
    }
    attn_status status = attn_tensor_create(dtype, columns == 0 ? 1 : 2, shape, &all);
    for (int i = 0; i < count && status == ATTN_OK; i++) {
        attn_view part = attn_view_cut(all->view, 0, row, row + rows[i]);
        tensors[i] = attn_tensor_alias(all, &part);
        status = tensors[i] ? ATTN_OK : ATTN_ERR_NO_MEMORY;
        row += rows[i];
    }
    for (int i = 0; i < count && status != ATTN_OK; i++) {
        attn_tensor_release(tensors[i]);
        tensors[i] = NULL;
    }
    attn_tensor_release(all);
    return status;
}

static void copy_elements(const attn_view *from, const attn_view *to)
{
    size_t size = attn_dtype_size(from->dtype);
    attn_view f = attn_view_broadcast(from, from->ndim, from->shape), t = *to;
    for (; f.ndim < 4; f.ndim++, t.ndim++) { /* dimensions of size 1 at the end do no harm */
        f.shape[f.ndim] = t.shape[t.ndim] = 1;
        f.stride[f.ndim] = t.stride[t.ndim] = 1;
    }
    for (int64_t a = 0; a < f.shape[0]; a++) {
        for (int64_t b = 0; b < f.shape[1]; b++) {
            for (int64_t c = 0; c < f.shape[2]; c++) {
                for (int64_t d = 0; d < f.shape[3]; d++) {
                    int64_t i =
                        a * f.stride[0] + b * f.stride[1] + c * f.stride[2] + d * f.stride[3];
                    int64_t o =
                        a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3];
                    memcpy((char *)t.data + o * (int64_t)size,
                           (const char *)f.data + i * (int64_t)size, size);
                }
            }
        }
    }
}

attn_status attn_tensor_from(const attn_view *values, attn_tensor **tensor)
{
    if (!values) {
        if (tensor) {
            *tensor = NULL;
        }
        return attn_fail(ATTN_ERR_ARGUMENT, "values: must not be NULL");
    }
    attn_status status = attn_tensor_create(values->dtype, values->ndim, values->shape, tensor);
    if (status == ATTN_OK && attn_tensor_count(*tensor) > 0) {
        if (!values->data) {
            attn_tensor_release(*tensor);
            *tensor = NULL;
            return attn_fail(ATTN_ERR_ARGUMENT, "values: its data must not be NULL");
        }
        copy_elements(values, &(*tensor)->view);
    }
    return status;
}

attn_tensor *attn_tensor_retain(attn_tensor *tensor)
{
    if (tensor) {
        tensor->references++;
    }
    return tensor;
}

void attn_tensor_release(attn_tensor *tensor)
{
    if (!tensor || --tensor->references > 0) {
        return;
    }
    attn_tensor_release(tensor->grad); /* a gradient has none of its own: the depth is 2 */
    attn_storage_release(tensor->storage);
    free(tensor);
}

int attn_tensor_ndim(const attn_tensor *tensor)
{
    return tensor ? tensor->view.ndim : 0;
}

int64_t attn_tensor_size(const attn_tensor *tensor, int dim)
{
    int ndim = attn_tensor_ndim(tensor);
    int at = dim < 0 ? dim + ndim : dim;
    return at >= 0 && at < ndim ? tensor->view.shape[at] : 0;
}

int64_t attn_tensor_count(const attn_tensor *tensor)
{
    return tensor ? attn_view_count(&tensor->view) : 0;
}

attn_dtype attn_tensor_dtype(const attn_tensor *tensor)
{
    return tensor ? tensor->view.dtype : ATTN_DTYPE_NONE;
}

attn_view attn_tensor_view(const attn_tensor *tensor)
{
    return tensor ? tensor->view : (attn_view){.data = NULL};
}

attn_view attn_tensor_write(attn_tensor *tensor)
{
    if (tensor) {
        tensor->storage->version++;
    }
    return attn_tensor_view(tensor);
}

double attn_tensor_item(const attn_tensor *tensor)
{
    if (attn_tensor_count(tensor) != 1) {
        return (double)NAN;
    }
    return tensor->view.dtype == ATTN_F32 ? (double)*(const float *)tensor->view.data
                                          : *(const double *)tensor->view.data;
}

void attn_tensor_require_grad(attn_tensor *tensor, bool require)
{
    if (tensor && !tensor->tape) {
        tensor->requires_grad = require;
    }
}

bool attn_tensor_requires_grad(const attn_tensor *tensor)
{
    return tensor && tensor->requires_grad;
}

attn_tensor *attn_tensor_grad(const attn_tensor *tensor)
{
    return tensor && !tensor->tape && tensor->grad_valid ? tensor->grad : NULL;
}

void attn_tensor_clear_grad(attn_tensor *tensor)
{
    if (tensor) {
        tensor->grad_valid = false;
    }
}
