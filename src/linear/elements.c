/**
 * elements.c: the walk over views of the same sizes.
 */
#include "linear/elements.h"

#include "linear/check.h"
#include "par/context.h"

static attn_status check_one(const attn_elements_view *v)
{
    const attn_view *view = v->view;
    attn_status status = attn_check_view(v->name, view);
    if (status != ATTN_OK) {
        return status;
    }
    if (view->dtype != ATTN_F32 && view->dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: is %s, must be f32 or f64; attn_convert makes it so",
                         v->name, attn_dtype_name(view->dtype));
    }
    int last = view->ndim - 1;
    if (view->shape[last] > 1 && view->stride[last] != 1) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: stride of the last dimension is %lld, must be 1",
                         v->name, (long long)view->stride[last]);
    }
    for (int d = 0; v->written && d < last; d++) {
        int64_t stride = view->stride[d], row = view->shape[last];
        if (view->shape[d] > 1 && stride < row && stride > -row) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "%s: stride %lld of dimension %d is below the %lld elements of a row; "
                             "what is written must not overlap itself",
                             v->name, (long long)stride, d, (long long)row);
        }
    }
    return ATTN_OK;
}

static attn_status check_all(const attn_context *context, int views, const attn_elements_view *v)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    for (int i = 0; i < views; i++) {
        attn_status status = check_one(&v[i]);
        if (status != ATTN_OK) {
            return status;
        }
        if (v[i].view->dtype != v[0].view->dtype) {
            return attn_fail(ATTN_ERR_DTYPE, "%s: is %s, must be %s's %s; attn_convert makes it so",
                             v[i].name, attn_dtype_name(v[i].view->dtype), v[0].name,
                             attn_dtype_name(v[0].view->dtype));
        }
        status = attn_check_same_shape(v[0].name, v[0].view, v[i].name, v[i].view);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return ATTN_OK;
}

/* Does dimension d continue the run of e->columns elements in every view? */
static bool continues(const attn_elements *e, const attn_elements_view *v, int d)
{
    for (int i = 0; i < e->views; i++) {
        if (v[i].view->stride[d] != e->columns) {
            return false;
        }
    }
    return true;
}

attn_status attn_elements_make(const attn_context *context, int views, const attn_elements_view *v,
                               bool merge, attn_elements *e)
{
    attn_status status = check_all(context, views, v);
    if (status != ATTN_OK) {
        return status;
    }
    const attn_view *first = v[0].view;
    int last = first->ndim - 1;
    *e = (attn_elements){.views = views, .dtype = first->dtype, .count = 1};
    for (int i = 0; i < views; i++) {
        e->data[i] = v[i].view->data;
    }
    for (int d = 0; d <= last; d++) {
        if (__builtin_mul_overflow(e->count, first->shape[d], &e->count)) {
            return attn_fail(ATTN_ERR_SHAPE, "%s: its sizes overflow", v[0].name);
        }
    }
    e->columns = first->shape[last];
    int kept = last; /* dimensions before it are outer ones */
    while (merge && kept > 0 && (first->shape[kept - 1] == 1 || continues(e, v, kept - 1))) {
        e->columns *= first->shape[--kept];
    }
    e->outer = kept;
    for (int d = 0; d < kept; d++) {
        e->shape[d] = first->shape[d];
        for (int i = 0; i < views; i++) {
            e->stride[i][d] = v[i].view->stride[d];
        }
    }
    return ATTN_OK;
}

typedef struct walk {
    const attn_elements *e;
    int64_t piece;
    attn_elements_fn *fn;
    void *argument;
} walk;

static void run_at(const walk *w, int64_t at, int64_t n)
{
    const attn_elements *e = w->e;
    size_t size = attn_dtype_size(e->dtype);
    void *data[ATTN_ELEMENTS_VIEWS] = {0};
    for (int i = 0; i < e->views; i++) {
        int64_t row = at / e->columns, offset = at % e->columns;
        for (int d = e->outer - 1; d >= 0; d--) {
            offset += row % e->shape[d] * e->stride[i][d];
            row /= e->shape[d];
        }
        data[i] = (char *)e->data[i] + offset * (int64_t)size;
    }
    w->fn(w->argument, at, n, data);
}

static void walk_task(void *argument, int64_t index, int worker)
{
    const walk *w = argument;
    int64_t at = index * w->piece, left = w->e->count - at;
    int64_t end = at + (left < w->piece ? left : w->piece);
    (void)worker;
    while (at < end) {
        int64_t row_end = at - at % w->e->columns + w->e->columns;
        int64_t n = (row_end < end ? row_end : end) - at;
        run_at(w, at, n);
        at += n;
    }
}

void attn_elements_run(attn_context *context, const attn_elements *e, int64_t piece,
                       attn_elements_fn *fn, void *argument)
{
    if (e->count == 0) {
        return;
    }
    walk w = {.e = e, .piece = piece, .fn = fn, .argument = argument};
    attn_context_run(context, (e->count - 1) / piece + 1, e->dtype == ATTN_F32, walk_task, &w);
}
