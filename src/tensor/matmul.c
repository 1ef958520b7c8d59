/**
 * matmul.c: products. Backward of c = a·b is da = dc·bᵀ, db = aᵀ·dc; transposes are views.
 */
#include "tensor/tensor.h"

#include <attn/linear.h>

#include <string.h>

/* Where the last stride is not 1: cᵀ (+)= bᵀ·aᵀ, else through a scratch. */
attn_status attn_tensor_product(attn_tape *tape, const attn_view *a, const attn_view *b,
                                bool accumulate, const attn_view *c)
{
    int last = c->ndim - 1;
    if (c->shape[last] == 1 || c->stride[last] == 1) {
        return attn_matmul(tape->context, a, b, NULL, accumulate, c);
    }
    if (c->shape[last - 1] == 1 || c->stride[last - 1] == 1) {
        attn_view at = attn_view_transposed(a), bt = attn_view_transposed(b),
                  ct = attn_view_transposed(c);
        return attn_matmul(tape->context, &bt, &at, NULL, accumulate, &ct);
    }
    attn_tensor *scratch = attn_grad_scratch(tape, c->dtype, c->ndim, c->shape, NULL);
    if (!scratch) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = attn_matmul(tape->context, a, b, NULL, false, &scratch->view);
    if (status == ATTN_OK) {
        status = attn_loop_copy(tape->context, &scratch->view, c, 1.0, accumulate);
    }
    attn_tensor_release(scratch);
    return status;
}

/* t's gradient += x·y, whose leading dimensions are dy's: summed where t was broadcast. */
static attn_status give_product(attn_tape *tape, attn_tensor *t, const attn_view *x,
                                const attn_view *y, const attn_view *dy)
{
    bool accumulate = false, same = t->view.ndim == dy->ndim;
    int64_t shape[4];
    for (int i = 0; i < dy->ndim; i++) {
        shape[i] = i < dy->ndim - 2 ? dy->shape[i] : t->view.shape[i - dy->ndim + t->view.ndim];
        same = same && shape[i] == t->view.shape[i];
    }
    attn_tensor *g = same ? attn_grad_open(tape, t, &accumulate)
                          : attn_grad_scratch(tape, dy->dtype, dy->ndim, shape, NULL);
    if (!g) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = attn_tensor_product(tape, x, y, accumulate, &g->view);
    if (!same) {
        status = status == ATTN_OK ? attn_grad_give_reduced(tape, t, g) : status;
        attn_tensor_release(g);
    }
    return status;
}

static attn_status matmul_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *a = node->in[0], *b = node->in[1];
    attn_view at = attn_view_transposed(&a->view), bt = attn_view_transposed(&b->view), rows_a,
              rows_dy;
    attn_status status = ATTN_OK;
    if (a->requires_grad) {
        status = give_product(tape, a, &dy->view, &bt, &dy->view);
    }
    if (status != ATTN_OK || !b->requires_grad) {
        return status;
    }
    /* One matrix for all of a batch: its gradient is one product over all rows. */
    if (b->view.ndim == 2 && attn_view_rows(&a->view, &rows_a) &&
        attn_view_rows(&dy->view, &rows_dy) && rows_a.shape[0] == rows_dy.shape[0]) {
        at = attn_view_transposed(&rows_a);
        return give_product(tape, b, &at, &rows_dy, &rows_dy);
    }
    return give_product(tape, b, &at, &dy->view, &dy->view);
}

static const attn_op matmul_op = {"matmul", matmul_backward};

/* The result's shape, or a failure that says which sizes must match. */
static bool matmul_shape(attn_tape *tape, const attn_view *a, const attn_view *b, int *ndim,
                         int64_t *shape)
{
    char ta[ATTN_SHAPE_TEXT], tb[ATTN_SHAPE_TEXT];
    attn_shape_text(a->ndim, a->shape, ta);
    attn_shape_text(b->ndim, b->shape, tb);
    if (a->ndim < 2 || b->ndim < 2) {
        attn_op_fail(tape, ATTN_ERR_SHAPE,
                     "matmul: a is %s and b is %s; both need at least two dimensions: reshape a "
                     "vector to [1, n] or [n, 1]",
                     ta, tb);
        return false;
    }
    int64_t k = a->shape[a->ndim - 1], other = b->shape[b->ndim - 2], n = b->shape[b->ndim - 1];
    if (k != other) {
        attn_op_fail(tape, ATTN_ERR_SHAPE,
                     "matmul: a is %s and b is %s: inner sizes %lld and %lld must match%s", ta, tb,
                     (long long)k, (long long)other,
                     k == n ? "; did you mean to transpose b?"
                            : "; check which of them is transposed");
        return false;
    }
    attn_view lead_a = *a, lead_b = *b;
    lead_a.shape[a->ndim - 1] = lead_b.shape[b->ndim - 1] = 1;
    lead_a.shape[a->ndim - 2] = lead_b.shape[b->ndim - 2] = 1;
    if (!attn_shapes_meet(&lead_a, &lead_b, ndim, shape)) {
        attn_op_fail(tape, ATTN_ERR_SHAPE,
                     "matmul: a is %s and b is %s: sizes before the last two must be equal or 1",
                     ta, tb);
        return false;
    }
    shape[*ndim - 2] = a->shape[a->ndim - 2];
    shape[*ndim - 1] = n;
    return true;
}

attn_tensor *attn_tensor_matmul(attn_tape *tape, attn_tensor *a, attn_tensor *b)
{
    attn_tensor *in[2] = {a, b};
    int64_t shape[4];
    int ndim;
    if (!attn_op_begin(tape, &matmul_op, 2, in) ||
        !matmul_shape(tape, &a->view, &b->view, &ndim, shape)) {
        return NULL;
    }
    attn_tensor *out = attn_op_result(tape, a->view.dtype, ndim, shape, NULL);
    if (!out) {
        return NULL;
    }
    attn_view x = a->view, y = out->view, rows_x, rows_y;
    if (b->view.ndim == 2 && attn_view_rows(&x, &rows_x) && attn_view_rows(&y, &rows_y)) {
        x = rows_x;
        y = rows_y;
    }
    attn_status status = attn_matmul(tape->context, &x, &b->view, NULL, false, &y);
    return attn_op_ok(tape, status) ? attn_op_record(tape, &matmul_op, out, 2, in, 3, NULL) : NULL;
}
