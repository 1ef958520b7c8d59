/**
 * views.c: transpose, reshape, slice, concat, detach. Their gradients are views of gradients wherever they can be.
 */
#include "tensor/tensor.h"

#include <string.h>

static attn_status give_view(attn_tape *tape, attn_tensor *to, attn_tensor *dy,
                             const attn_view *view)
{
    attn_tensor *alias = attn_tensor_alias(dy, view);
    attn_status status = alias ? attn_grad_give(tape, to, alias) : ATTN_ERR_NO_MEMORY;
    attn_tensor_release(alias);
    return status;
}

/* ---- transpose ---- */

static attn_status transpose_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    const int64_t *dim = node->params.integer;
    attn_view view = attn_view_swapped(dy->view, (int)dim[0], (int)dim[1]);
    return give_view(tape, node->in[0], dy, &view);
}

static const attn_op transpose_op = {"transpose", transpose_backward};

attn_tensor *attn_tensor_transpose(attn_tape *tape, attn_tensor *a, int dim0, int dim1)
{
    if (!attn_op_begin(tape, &transpose_op, 1, &a)) {
        return NULL;
    }
    int d0 = attn_op_dim(tape, &transpose_op, a, dim0);
    int d1 = d0 < 0 ? -1 : attn_op_dim(tape, &transpose_op, a, dim1);
    if (d1 < 0) {
        return NULL;
    }
    attn_params params = {.integer = {d0, d1}};
    attn_view view = attn_view_swapped(a->view, d0, d1);
    attn_tensor *out = attn_op_view(tape, a, &view);
    return out ? attn_op_record(tape, &transpose_op, out, 1, &a, 0, &params) : NULL;
}

/* ---- reshape ---- */

static attn_status reshape_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *a = node->in[0];
    attn_view view;
    attn_tensor *held = attn_tensor_retain(dy);
    if (!attn_view_reshaped(&dy->view, a->view.ndim, a->view.shape, &view)) {
        attn_tensor_release(held);
        held = attn_tensor_dense(tape, dy);
        if (!held) {
            return ATTN_ERR_NO_MEMORY;
        }
        attn_view_reshaped(&held->view, a->view.ndim, a->view.shape, &view);
    }
    attn_status status = give_view(tape, a, held, &view);
    attn_tensor_release(held);
    return status;
}

static const attn_op reshape_op = {"reshape", reshape_backward};

/* Puts the size that −1 stands for; false where the shapes hold different numbers of elements. */
static bool fill_in(int64_t count, int ndim, int64_t *shape)
{
    int64_t known = 1;
    int open = -1;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == -1 && open < 0) {
            open = i;
        } else if (shape[i] < 0 || (shape[i] > 0 && known > INT64_MAX / shape[i])) {
            return false;
        } else {
            known *= shape[i];
        }
    }
    if (open >= 0 && known > 0) {
        shape[open] = count / known;
        known *= shape[open];
    }
    return known == count && (open < 0 || shape[open] >= 0);
}

attn_tensor *attn_tensor_reshape(attn_tape *tape, attn_tensor *a, int ndim, const int64_t *shape)
{
    int64_t sizes[4];
    attn_view view;
    if (!attn_op_begin(tape, &reshape_op, 1, &a)) {
        return NULL;
    }
    if (!shape || ndim < 1 || ndim > 4) {
        return attn_op_fail(tape, ATTN_ERR_ARGUMENT, "reshape: %s",
                            shape ? "ndim must be 1 to 4" : "shape must not be NULL");
    }
    memcpy(sizes, shape, sizeof *shape * (size_t)ndim);
    if (!fill_in(attn_view_count(&a->view), ndim, sizes)) {
        char from[ATTN_SHAPE_TEXT], to[ATTN_SHAPE_TEXT];
        return attn_op_fail(tape, ATTN_ERR_SHAPE,
                            "reshape: %s holds %lld elements and cannot become %s; the products "
                            "must be equal, and one size may be -1",
                            attn_shape_text(a->view.ndim, a->view.shape, from),
                            (long long)attn_view_count(&a->view), attn_shape_text(ndim, shape, to));
    }
    attn_tensor *out = NULL;
    if (attn_view_reshaped(&a->view, ndim, sizes, &view)) {
        out = attn_op_view(tape, a, &view);
    } else {
        out = attn_op_result(tape, a->view.dtype, ndim, sizes, NULL);
        if (out) {
            view = attn_view_dense(out->view.data, out->view.dtype, a->view.ndim, a->view.shape);
            if (!attn_op_ok(tape, attn_loop_copy(tape->context, &a->view, &view, 1.0, false))) {
                return NULL;
            }
        }
    }
    return out ? attn_op_record(tape, &reshape_op, out, 1, &a, 0, NULL) : NULL;
}

/* ---- slice ---- */

static attn_status slice_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *a = node->in[0];
    int dim = (int)node->params.integer[0];
    int64_t begin = node->params.integer[1], end = begin + dy->view.shape[dim];
    bool accumulate = false;
    attn_tensor *da = attn_grad_open(tape, a, &accumulate);
    if (!da) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = ATTN_OK;
    if (!accumulate) { /* zeros around the slice; the slice itself is written below */
        attn_view before = attn_view_cut(da->view, dim, 0, begin);
        attn_view after = attn_view_cut(da->view, dim, end, da->view.shape[dim]);
        status = attn_loop_fill(tape->context, &before, 0.0);
        if (status == ATTN_OK) {
            status = attn_loop_fill(tape->context, &after, 0.0);
        }
    }
    attn_view into = attn_view_cut(da->view, dim, begin, end);
    return status == ATTN_OK ? attn_loop_copy(tape->context, &dy->view, &into, 1.0, accumulate)
                             : status;
}

static const attn_op slice_op = {"slice", slice_backward};

attn_tensor *attn_tensor_slice(attn_tape *tape, attn_tensor *a, int dim, int64_t begin, int64_t end)
{
    if (!attn_op_begin(tape, &slice_op, 1, &a)) {
        return NULL;
    }
    int d = attn_op_dim(tape, &slice_op, a, dim);
    if (d < 0) {
        return NULL;
    }
    int64_t size = a->view.shape[d], from = begin < 0 ? begin + size : begin;
    int64_t to = end < 0 ? end + size : end;
    if (from < 0 || to > size || from > to) {
        char text[ATTN_SHAPE_TEXT];
        return attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                            "slice: %lld to %lld does not lie in dimension %d of %s, whose size is "
                            "%lld; begin <= end <= size, negative bounds count from the end",
                            (long long)begin, (long long)end, d,
                            attn_shape_text(a->view.ndim, a->view.shape, text), (long long)size);
    }
    attn_params params = {.integer = {d, from}};
    attn_view view = attn_view_cut(a->view, d, from, to);
    attn_tensor *out = attn_op_view(tape, a, &view);
    return out ? attn_op_record(tape, &slice_op, out, 1, &a, 0, &params) : NULL;
}

/* ---- concat ---- */

static attn_status concat_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    int dim = (int)node->params.integer[0];
    attn_status status = ATTN_OK;
    int64_t at = 0;
    for (int i = 0; i < node->count && status == ATTN_OK; i++) {
        int64_t size = node->in[i]->view.shape[dim];
        attn_view part = attn_view_cut(dy->view, dim, at, at + size);
        if (node->in[i]->requires_grad) {
            status = give_view(tape, node->in[i], dy, &part);
        }
        at += size;
    }
    return status;
}

static const attn_op concat_op = {"concat", concat_backward};

/* The result's shape; false after a failure. */
static bool concat_shape(attn_tape *tape, int count, attn_tensor *const *t, int dim, int64_t *shape)
{
    const attn_view *first = &t[0]->view;
    memcpy(shape, first->shape, sizeof first->shape);
    for (int i = 1; i < count; i++) {
        const attn_view *v = &t[i]->view;
        bool fits = v->ndim == first->ndim;
        for (int d = 0; fits && d < v->ndim; d++) {
            fits = d == dim || v->shape[d] == first->shape[d];
        }
        if (!fits) {
            char a[ATTN_SHAPE_TEXT], b[ATTN_SHAPE_TEXT];
            attn_op_fail(tape, ATTN_ERR_SHAPE,
                         "concat: tensor %d is %s and tensor 0 is %s; all sizes but that of "
                         "dimension %d must be equal",
                         i, attn_shape_text(v->ndim, v->shape, a),
                         attn_shape_text(first->ndim, first->shape, b), dim);
            return false;
        }
        if (__builtin_add_overflow(shape[dim], v->shape[dim], &shape[dim])) {
            attn_op_fail(tape, ATTN_ERR_SHAPE,
                         "concat: sizes of dimension %d add up to more than "
                         "63 bits count",
                         dim);
            return false;
        }
    }
    return true;
}

attn_tensor *attn_tensor_concat(attn_tape *tape, int count, attn_tensor *const *tensors, int dim)
{
    int64_t shape[4], at = 0;
    if (!tensors || count < 1) {
        attn_fail(ATTN_ERR_ARGUMENT, "concat: needs at least one tensor");
        return attn_tape_fail(tape, ATTN_ERR_ARGUMENT);
    }
    if (!attn_op_begin(tape, &concat_op, count, tensors)) {
        return NULL;
    }
    int d = attn_op_dim(tape, &concat_op, tensors[0], dim);
    if (d < 0 || !concat_shape(tape, count, tensors, d, shape)) {
        return NULL;
    }
    const attn_view *first = &tensors[0]->view;
    attn_tensor *out = attn_op_result(tape, first->dtype, first->ndim, shape, NULL);
    for (int i = 0; out && i < count; i++) {
        int64_t size = tensors[i]->view.shape[d];
        attn_view part = attn_view_cut(out->view, d, at, at + size);
        if (!attn_op_ok(tape,
                        attn_loop_copy(tape->context, &tensors[i]->view, &part, 1.0, false))) {
            return NULL;
        }
        at += size;
    }
    attn_params params = {.integer = {d}};
    return out ? attn_op_record(tape, &concat_op, out, count, tensors, 0, &params) : NULL;
}

/* ---- detach ---- */

attn_tensor *attn_tensor_detach(attn_tape *tape, attn_tensor *a)
{
    static const attn_op detach_op = {"detach", NULL};
    if (!attn_op_begin(tape, &detach_op, 1, &a)) {
        return NULL;
    }
    return attn_op_view(tape, a, &a->view);
}
