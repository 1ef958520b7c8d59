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

attn_view attn_view_cut(attn_view v, int dim, int64_t begin, int64_t end)
{
    v.data = (char *)v.data + begin * v.stride[dim] * (int64_t)attn_dtype_size(v.dtype);
    v.shape[dim] = end - begin;
    return v;
}

/*
 * Both shapes are walked from the right; groups of dimensions whose products are equal belong together, and a group can be
 * divided anew when its old dimensions lie one in the other without gaps.
 */
bool attn_view_reshaped(const attn_view *v, int ndim, const int64_t *shape, attn_view *out)
{
    attn_view r = {.data = v->data, .dtype = v->dtype, .ndim = ndim};
    memcpy(r.shape, shape, sizeof *shape * (size_t)ndim);
    if (attn_view_count(v) == 0 || attn_view_is_dense(v)) {
        *out = attn_view_dense(v->data, v->dtype, ndim, shape);
        return true;
    }
    int old = v->ndim - 1, new = ndim - 1;
    while (new >= 0) {
        if (shape[new] == 1) {
            r.stride[new --] = 1;
            continue;
        }
        while (old >= 0 && v->shape[old] == 1) {
            old--;
        }
        int64_t have = v->shape[old], want = shape[new], stride = v->stride[old];
        int first = new;
        r.stride[new] = stride;
        while (have != want) {
            if (have < want) {
                int64_t expected = v->stride[old] * v->shape[old];
                do {
                    old--;
                } while (v->shape[old] == 1);
                if (v->stride[old] != expected) {
                    return false;
                }
                have *= v->shape[old];
            } else {
                new --;
                r.stride[new] = r.stride[new + 1] * r.shape[new + 1];
                want *= shape[new];
            }
        }
        (void)first;
        old--;
        new --;
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
    int64_t shape[2] = {n > 0 ? count / n : 0, n};
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
