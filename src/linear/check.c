/**
 * check.c: views of the linear room's calls.
 */
#include "linear/check.h"

#include <stdio.h>

attn_status attn_check_view(const char *name, const attn_view *view)
{
    if (!view || view->dtype == ATTN_DTYPE_NONE) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must be a view, is %s", name,
                         view ? "a zeroed one" : "NULL");
    }
    if (attn_dtype_size(view->dtype) == 0) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: dtype %d is no element type", name, (int)view->dtype);
    }
    if (view->ndim < 1 || view->ndim > 4) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: has %d dimensions, views have 1 to 4", name,
                         view->ndim);
    }
    bool empty = false;
    for (int d = 0; d < view->ndim; d++) {
        if (view->shape[d] < 0) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "%s: size of dimension %d is %lld, must not be negative", name, d,
                             (long long)view->shape[d]);
        }
        empty = empty || view->shape[d] == 0;
    }
    if (!view->data && !empty) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: data must not be NULL", name);
    }
    return ATTN_OK;
}

static attn_status check_rows(const char *name, const attn_view *view, int ndim, const char *shape)
{
    if (view->ndim != ndim) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: has %d dimensions, must be %s", name, view->ndim,
                         shape);
    }
    int64_t last = view->stride[ndim - 1];
    if (view->shape[ndim - 1] > 1 && last != 1) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: stride of the last dimension is %lld, must be 1",
                         name, (long long)last);
    }
    return ATTN_OK;
}

attn_status attn_check_f32(const char *name, const attn_view *view, int ndim, const char *shape)
{
    attn_status status = attn_check_view(name, view);
    if (status == ATTN_OK && view->dtype != ATTN_F32) {
        status = attn_fail(ATTN_ERR_DTYPE, "%s: is %s, must be f32; attn_convert makes it so", name,
                           attn_dtype_name(view->dtype));
    }
    return status == ATTN_OK ? check_rows(name, view, ndim, shape) : status;
}

attn_status attn_check_float(const char *name, const attn_view *view, int ndim, const char *shape)
{
    attn_status status = attn_check_view(name, view);
    if (status == ATTN_OK && view->dtype != ATTN_F32 && view->dtype != ATTN_F64) {
        status =
            attn_fail(ATTN_ERR_DTYPE, "%s: is %s, must be f32 or f64; attn_convert makes it so",
                      name, attn_dtype_name(view->dtype));
    }
    return status == ATTN_OK ? check_rows(name, view, ndim, shape) : status;
}

static void write_shape(const attn_view *view, char text[96])
{
    int used = 0;
    for (int d = 0; d < view->ndim; d++) {
        used += snprintf(text + used, (size_t)(96 - used), "%s%lld", d ? ", " : "",
                         (long long)view->shape[d]);
    }
}

attn_status attn_check_same_shape(const char *a_name, const attn_view *a, const char *b_name,
                                  const attn_view *b)
{
    bool same = a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++) {
        same = a->shape[d] == b->shape[d];
    }
    if (!same) {
        char sa[96], sb[96];
        write_shape(a, sa);
        write_shape(b, sb);
        return attn_fail(ATTN_ERR_SHAPE, "%s: [%s] does not match %s's [%s]", b_name, sb, a_name,
                         sa);
    }
    return ATTN_OK;
}

attn_status attn_check_rows_apart(const char *name, const attn_view *view)
{
    int64_t rows = view->shape[0], columns = view->shape[1], stride = view->stride[0];
    if (rows > 1 && stride < columns && stride > -columns) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: row stride %lld is below %lld columns, rows overlap",
                         name, (long long)stride, (long long)columns);
    }
    return ATTN_OK;
}

/* From the smallest stride up, each step goes past all that the ones before it reach. */
attn_status attn_check_apart(const char *name, const attn_view *view)
{
    bool used[4] = {false};
    int64_t reach = 0; /* elements from the first to the last so far */
    for (int d = 0; d < view->ndim; d++) {
        if (view->shape[d] == 0) {
            return ATTN_OK;
        }
        used[d] = view->shape[d] == 1;
    }
    for (;;) {
        int next = -1;
        int64_t least = 0;
        for (int d = 0; d < view->ndim; d++) {
            int64_t stride = view->stride[d] < 0 ? -view->stride[d] : view->stride[d];
            if (!used[d] && (next < 0 || stride < least)) {
                next = d;
                least = stride;
            }
        }
        if (next < 0) {
            return ATTN_OK;
        }
        int64_t step;
        if (least <= reach || __builtin_mul_overflow(view->shape[next] - 1, least, &step) ||
            __builtin_add_overflow(reach, step, &reach)) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "%s: stride %lld of dimension %d makes elements overlap; what is "
                             "written needs a place for each",
                             name, (long long)view->stride[next], next);
        }
        used[next] = true;
    }
}
