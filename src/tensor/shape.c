/**
 * shape.c: what strides allow: views of views, and shapes that meet.
 */
#include "tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t attn_view_count(const attn_view *v)
{
    int64_t count = 1;
    for (int i = 0; i < v->ndim; i++) {
        count *= v->shape[i];
    }
    return count;
}

bool attn_view_is_dense(const attn_view *v)
{
    int64_t stride = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] != 1 && v->stride[i] != stride) {
            return attn_view_count(v) == 0;
        }
        stride *= v->shape[i];
    }
    return true;
}

bool attn_view_is_packed(const attn_view *v)
{
    int64_t covered = 1, count = attn_view_count(v);
    /* Each round finds the dimension whose stride is what the ones before it cover. */
    for (bool found = true; found && covered < count;) {
        found = false;
        for (int i = 0; i < v->ndim && !found; i++) {
            if (v->shape[i] > 1 && v->stride[i] == covered) {
                covered *= v->shape[i];
                found = true;
            }
        }
    }
    return covered >= count;
}

bool attn_view_same_shape(const attn_view *a, const attn_view *b)
{
    return a->ndim == b->ndim &&
           memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->ndim) == 0;
}

bool attn_view_same_layout(const attn_view *a, const attn_view *b)
{
    if (!attn_view_same_shape(a, b)) {
        return false;
    }
    for (int i = 0; i < a->ndim; i++) {
        if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) {
            return false;
        }
    }
    return true;
}

attn_view attn_view_swapped(attn_view v, int dim0, int dim1)
{
    int64_t shape = v.shape[dim0], stride = v.stride[dim0];
    v.shape[dim0] = v.shape[dim1];
    v.stride[dim0] = v.stride[dim1];
    v.shape[dim1] = shape;
    v.stride[dim1] = stride;
    return v;
}

attn_view attn_view_transposed(const attn_view *v)
{
    return attn_view_swapped(*v, v->ndim - 2, v->ndim - 1);
}

bool attn_view_follows(const attn_view *a, const attn_view *b)
{
    int64_t stride = a->ndim > 1 ? a->shape[1] : 1; /* rows without gaps */
    bool alike = a->dtype == b->dtype && a->ndim == b->ndim && a->ndim <= 2 &&
                 (a->ndim < 2 || a->shape[1] == b->shape[1]);
    return alike && attn_view_is_dense(a) && attn_view_is_dense(b) &&
           (const char *)b->data ==
               (const char *)a->data + a->shape[0] * stride * (int64_t)attn_dtype_size(a->dtype);
}

attn_view attn_view_cut(attn_view v, int dim, int64_t begin, int64_t end)
{
    v.data = (char *)v.data + begin * v.stride[dim] * (int64_t)attn_dtype_size(v.dtype);
    v.shape[dim] = end - begin;
    return v;
}

/* What v's dimensions come to when those that lie one in the other without gaps are joined, last first; how many. */
static int runs_of(const attn_view *v, int64_t *size, int64_t *stride)
{
    int count = 0;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] == 1) {
            continue;
        }
        if (count > 0 && v->stride[i] == stride[count - 1] * size[count - 1]) {
            size[count - 1] *= v->shape[i];
        } else {
            size[count] = v->shape[i];
            stride[count++] = v->stride[i];
        }
    }
    return count;
}

/* The new sizes, from the right, must each divide what is left of a run. */
bool attn_view_reshaped(const attn_view *v, int ndim, const int64_t *shape, attn_view *out)
{
    int64_t size[4] = {0}, stride[4] = {0};
    attn_view r = attn_view_dense(v->data, v->dtype, ndim, shape);
    int count = attn_view_count(v) == 0 ? 0 : runs_of(v, size, stride), run = 0;
    for (int i = ndim - 1; count > 0 && i >= 0; i--) {
        if (shape[i] == 1) {
            continue;
        }
        if (run < count && size[run] == 1) {
            run++;
        }
        if (run == count || shape[i] < 1 || size[run] % shape[i] != 0) {
            return false;
        }
        r.stride[i] = stride[run];
        stride[run] *= shape[i];
        size[run] /= shape[i];
    }
    *out = r;
    return true;
}

attn_view attn_view_broadcast(const attn_view *v, int ndim, const int64_t *shape)
{
    attn_view r = {.data = v->data, .dtype = v->dtype, .ndim = ndim};
    int shift = ndim - v->ndim;
    for (int i = 0; i < ndim; i++) {
        r.shape[i] = shape[i];
        bool own = i >= shift && v->shape[i - shift] != 1;
        r.stride[i] = own ? v->stride[i - shift] : 0;
    }
    return r;
}

bool attn_view_rows(const attn_view *v, attn_view *rows)
{
    int last = v->ndim - 1;
    int64_t n = v->shape[last], count = attn_view_count(v);
    int64_t shape[2] = {1, n};
    for (int i = 0; i < last; i++) {
        shape[0] *= v->shape[i];
    }
    if (n != 1 && v->stride[last] != 1) {
        return count == 0 && attn_view_reshaped(v, 2, shape, rows);
    }
    if (!attn_view_reshaped(v, 2, shape, rows)) {
        return false;
    }
    if (n == 1) {
        /* Rows of one element: the reshape above has put the rows' distance first. */
        rows->stride[1] = 1;
    }
    return rows->stride[0] >= n || shape[0] <= 1; /* written rows must be apart */
}

bool attn_shapes_meet(const attn_view *a, const attn_view *b, int *ndim, int64_t *shape)
{
    *ndim = a->ndim > b->ndim ? a->ndim : b->ndim;
    for (int i = 0; i < *ndim; i++) {
        int at_a = i - (*ndim - a->ndim), at_b = i - (*ndim - b->ndim);
        int64_t size_a = at_a >= 0 ? a->shape[at_a] : 1, size_b = at_b >= 0 ? b->shape[at_b] : 1;
        if (size_a != size_b && size_a != 1 && size_b != 1) {
            return false;
        }
        shape[i] = size_a == 1 ? size_b : size_a;
    }
    return true;
}

const char *attn_shape_text(int ndim, const int64_t *shape, char *text)
{
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < ndim && i < 4; i++) {
        int written = snprintf(text + at, ATTN_SHAPE_TEXT - at, "%s%lld", i ? ", " : "[",
                               (long long)shape[i]);
        at += written > 0 ? (size_t)written : 0;
    }
    snprintf(text + at, ATTN_SHAPE_TEXT - at, "]");
    return text;
}
