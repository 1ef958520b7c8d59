/**
 * reduce.c: sums, means and maxima along a dimension or over everything.
 */
#include "tensor/tensor.h"

#include <math.h>

/* v with size 1 at `dim` where a reduction took the dimension away: what broadcasts over the input again. */
static attn_view kept(const attn_view *v, int dim, int ndim)
{
    attn_view k = *v;
    if (v->ndim < ndim) {
        for (int i = ndim - 1; i > dim; i--) {
            k.shape[i] = v->shape[i - 1];
            k.stride[i] = v->stride[i - 1];
        }
        k.ndim = ndim;
        k.shape[dim] = 1;
        k.stride[dim] = 1;
    }
    return k;
}

static attn_tensor *reduced(attn_tape *tape, const attn_view *a, int dim, bool keepdim)
{
    int64_t shape[4];
    int ndim = 0;
    for (int i = 0; i < a->ndim; i++) {
        if (i != dim) {
            shape[ndim++] = a->shape[i];
        } else if (keepdim || a->ndim == 1) {
            shape[ndim++] = 1;
        }
    }
    return attn_op_result(tape, a->dtype, ndim, shape, NULL);
}

/* ---- sum, mean ---- */

static attn_status sum_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *a = node->in[0];
    int dim = (int)node->params.integer[0];
    bool accumulate = false;
    attn_tensor *da = attn_grad_open(tape, a, &accumulate);
    if (!da) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_view from = dim < 0 ? dy->view : kept(&dy->view, dim, a->view.ndim);
    return attn_loop_copy(tape->context, &from, &da->view, node->params.number[0], accumulate);
}

static const attn_op sum_op = {"sum", sum_backward}, mean_op = {"mean", sum_backward};

static attn_tensor *sum_along(attn_tape *tape, const attn_op *op, attn_tensor *a, int dim,
                              bool keepdim)
{
    if (!attn_op_begin(tape, op, 1, &a)) {
        return NULL;
    }
    int d = attn_op_dim(tape, op, a, dim);
    attn_tensor *out = d < 0 ? NULL : reduced(tape, &a->view, d, keepdim);
    if (!out) {
        return NULL;
    }
    double factor = op == &mean_op ? 1.0 / (double)a->view.shape[d] : 1.0;
    attn_view to = kept(&out->view, d, a->view.ndim);
    attn_params params = {.number = {factor}, .integer = {d}};
    if (!attn_op_ok(tape, attn_loop_sum(tape, &a->view, &to, factor, false))) {
        return NULL;
    }
    return attn_op_record(tape, op, out, 1, &a, 0, &params);
}

static attn_tensor *sum_all(attn_tape *tape, const attn_op *op, attn_tensor *a)
{
    const int64_t one[1] = {1};
    if (!attn_op_begin(tape, op, 1, &a)) {
        return NULL;
    }
    attn_tensor *out = attn_op_result(tape, a->view.dtype, 1, one, NULL);
    double factor = op == &mean_op ? 1.0 / (double)attn_view_count(&a->view) : 1.0;
    attn_params params = {.number = {factor}, .integer = {-1}};
    if (!out || !attn_op_ok(tape, attn_loop_sum(tape, &a->view, &out->view, factor, false))) {
        return NULL;
    }
    return attn_op_record(tape, op, out, 1, &a, 0, &params);
}

attn_tensor *attn_tensor_sum(attn_tape *tape, attn_tensor *a, int dim, bool keepdim)
{
    return sum_along(tape, &sum_op, a, dim, keepdim);
}

attn_tensor *attn_tensor_mean(attn_tape *tape, attn_tensor *a, int dim, bool keepdim)
{
    return sum_along(tape, &mean_op, a, dim, keepdim);
}

attn_tensor *attn_tensor_sum_all(attn_tape *tape, attn_tensor *a)
{
    return sum_all(tape, &sum_op, a);
}

attn_tensor *attn_tensor_mean_all(attn_tape *tape, attn_tensor *a)
{
    return sum_all(tape, &mean_op, a);
}

/* ---- max ---- */

static double value_at(const attn_view *v, int64_t offset)
{
    return v->dtype == ATTN_F32 ? (double)((const float *)v->data)[offset]
                                : ((const double *)v->data)[offset];
}

static void add_at(const attn_view *v, int64_t offset, double value)
{
    if (v->dtype == ATTN_F32) {
        ((float *)v->data)[offset] += (float)value;
    } else {
        ((double *)v->data)[offset] += value;
    }
}

/* Place in memory of element `index` (row-major) of v, counting from its start. */
static int64_t offset_of(const attn_view *v, int64_t index)
{
    int64_t at = 0;
    for (int i = v->ndim - 1; i >= 0; i--) {
        at += index % v->shape[i] * v->stride[i];
        index /= v->shape[i];
    }
    return at;
}

static attn_status max_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *a = node->in[0];
    int dim = (int)node->params.integer[0];
    const int64_t *place = node->params.data;
    bool accumulate = false;
    attn_tensor *da = attn_grad_open(tape, a, &accumulate);
    if (!da) {
        return ATTN_ERR_NO_MEMORY;
    }
    if (!accumulate) {
        attn_status status = attn_loop_fill(tape->context, &da->view, 0.0);
        if (status != ATTN_OK) {
            return status;
        }
    }
    attn_view from = kept(&dy->view, dim, a->view.ndim), to = da->view;
    to.shape[dim] = 1;
    for (int64_t i = 0; i < attn_view_count(&from); i++) {
        add_at(&da->view, offset_of(&to, i) + place[i] * da->view.stride[dim],
               value_at(&from, offset_of(&from, i)));
    }
    return ATTN_OK;
}

static const attn_op max_op = {"max", max_backward};

attn_tensor *attn_tensor_max(attn_tape *tape, attn_tensor *a, int dim, bool keepdim)
{
    if (!attn_op_begin(tape, &max_op, 1, &a)) {
        return NULL;
    }
    int d = attn_op_dim(tape, &max_op, a, dim);
    if (d < 0) {
        return NULL;
    }
    if (a->view.shape[d] == 0) {
        return attn_op_fail(tape, ATTN_ERR_SHAPE, "max: dimension %d has size 0 and no maximum", d);
    }
    attn_tensor *out = reduced(tape, &a->view, d, keepdim);
    int64_t count = out ? attn_view_count(&out->view) : 0;
    int64_t *place = out ? attn_op_memory(tape, sizeof *place * (size_t)count) : NULL;
    if (!place) {
        return NULL;
    }
    attn_view from = a->view;
    from.shape[d] = 1;
    for (int64_t i = 0; i < count; i++) {
        int64_t first = offset_of(&from, i);
        double best = value_at(&a->view, first);
        place[i] = 0;
        for (int64_t j = 1; j < a->view.shape[d] && !isnan(best); j++) {
            double value = value_at(&a->view, first + j * a->view.stride[d]);
            if (value > best || isnan(value)) {
                best = value;
                place[i] = j;
            }
        }
        if (out->view.dtype == ATTN_F32) {
            ((float *)out->view.data)[i] = (float)best;
        } else {
            ((double *)out->view.data)[i] = best;
        }
    }
    attn_params params = {.integer = {d}, .data = place};
    return attn_op_record(tape, &max_op, out, 1, &a, 0, &params);
}
