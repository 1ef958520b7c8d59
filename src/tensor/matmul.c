/**
 * matmul.c: products. Backward of c = a·b is da = dc·bᵀ, db = aᵀ·dc; transposes are views.
 */
#include "tensor/tensor.h"

#include <attn/linear.h>

#include <string.h>

static attn_view transposed(const attn_view *v)
{
    return attn_view_swapped(*v, v->ndim - 2, v->ndim - 1);
}

/* c (+)= a·b where c's last stride need not be 1: else cᵀ (+)= bᵀ·aᵀ, else through a scratch. */
static attn_status product(attn_tape *tape, const attn_view *a, const attn_view *b, bool accumulate,
                           const attn_view *c)
{
    int last = c->ndim - 1;
    if (c->shape[last] == 1 || c->stride[last] == 1) {
        return attn_matmul(tape->context, a, b, NULL, accumulate, c);
    }
    if (c->shape[last - 1] == 1 || c->stride[last - 1] == 1) {
        attn_view at = transposed(a), bt = transposed(b), ct = transposed(c);
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
    attn_status status = product(tape, x, y, accumulate, &g->view);
    if (!same) {
        status = status == ATTN_OK ? attn_grad_give_reduced(tape, t, g) : status;
        attn_tensor_release(g);
    }
    return status;
}

static attn_status matmul_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *a = node->in[0], *b = node->in[1];
    attn_view at = transposed(&a->view), bt = transposed(&b->view), rows_a, rows_dy;
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
        at = transposed(&rows_a);
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

/* ---- linear ---- */

static attn_status linear_weight(attn_tape *tape, attn_tensor *weight, const attn_view *x,
                                 const attn_view *dy)
{
    bool accumulate = false;
    attn_view dy_t = transposed(dy);
    attn_tensor *dw = attn_grad_open(tape, weight, &accumulate);
    return dw ? product(tape, &dy_t, x, accumulate, &dw->view) : ATTN_ERR_NO_MEMORY;
}

static attn_status linear_bias(attn_tape *tape, attn_tensor *bias, const attn_view *dy)
{
    bool accumulate = false;
    attn_tensor *db = attn_grad_open(tape, bias, &accumulate);
    if (!db) {
        return ATTN_ERR_NO_MEMORY;
    }
    return db->view.stride[0] == 1 || db->view.shape[0] == 1
               ? attn_sum_rows(tape->context, dy, accumulate, &db->view)
               : attn_loop_sum(tape, dy, &db->view, 1.0, accumulate);
}

static attn_status linear_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *x = node->in[0], *weight = node->in[1], *bias = node->in[2];
    attn_view rows_x, rows_dy;
    attn_tensor *held_x = attn_tensor_rows(tape, x, &rows_x);
    attn_tensor *held_dy = held_x ? attn_tensor_rows(tape, dy, &rows_dy) : NULL;
    attn_status status = held_dy ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK && weight->requires_grad) {
        status = linear_weight(tape, weight, &rows_x, &rows_dy);
    }
    if (status == ATTN_OK && bias && bias->requires_grad) {
        status = linear_bias(tape, bias, &rows_dy);
    }
    if (status == ATTN_OK && x->requires_grad) {
        attn_grad_target dx;
        status = attn_grad_rows(tape, x, NULL, &dx);
        if (status == ATTN_OK) {
            status =
                attn_matmul(tape->context, &rows_dy, &weight->view, NULL, dx.accumulate, &dx.rows);
        }
        status = attn_grad_done(tape, &dx, status);
    }
    attn_tensor_release(held_x);
    attn_tensor_release(held_dy);
    return status;
}

static const attn_op linear_op = {"linear", linear_backward};

static bool check_linear(attn_tape *tape, const attn_tensor *x, const attn_tensor *weight,
                         const attn_tensor *bias)
{
    char tx[ATTN_SHAPE_TEXT], tw[ATTN_SHAPE_TEXT];
    attn_shape_text(weight->view.ndim, weight->view.shape, tw);
    if (weight->view.ndim != 2 || x->view.shape[x->view.ndim - 1] != weight->view.shape[1]) {
        attn_op_fail(tape, ATTN_ERR_SHAPE,
                     "linear: x is %s and weight is %s; weight must be [out, in] with in = %lld, "
                     "x's last size",
                     attn_shape_text(x->view.ndim, x->view.shape, tx), tw,
                     (long long)x->view.shape[x->view.ndim - 1]);
        return false;
    }
    if (bias && (bias->view.ndim != 1 || bias->view.shape[0] != weight->view.shape[0])) {
        attn_op_fail(tape, ATTN_ERR_SHAPE, "linear: bias is %s and must be [%lld], as weight is %s",
                     attn_shape_text(bias->view.ndim, bias->view.shape, tx),
                     (long long)weight->view.shape[0], tw);
        return false;
    }
    return true;
}

attn_tensor *attn_tensor_linear(attn_tape *tape, attn_tensor *x, attn_tensor *weight,
                                attn_tensor *bias)
{
    attn_tensor *in[3] = {x, weight, bias};
    int64_t shape[4];
    if (!attn_op_begin(tape, &linear_op, bias ? 3 : 2, in) ||
        !check_linear(tape, x, weight, bias)) {
        return NULL;
    }
    attn_view rows_x, rows_y, weight_t = transposed(&weight->view);
    int last = x->view.ndim - 1;
    memcpy(shape, x->view.shape, sizeof shape);
    shape[last] = weight->view.shape[0];
    attn_tensor *out = attn_op_result(tape, x->view.dtype, last + 1, shape, NULL);
    attn_tensor *held = out ? attn_tensor_rows(tape, x, &rows_x) : NULL;
    attn_tensor *held_bias = bias && held ? attn_tensor_dense(tape, bias) : NULL;
    attn_status status = held && (!bias || held_bias) ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        attn_view_rows(&out->view, &rows_y);
        status = attn_matmul(tape->context, &rows_x, &weight_t, held_bias ? &held_bias->view : NULL,
                             false, &rows_y);
    }
    attn_tensor_release(held);
    attn_tensor_release(held_bias);
    return attn_op_ok(tape, status) ? attn_op_record(tape, &linear_op, out, 3, in, 3, NULL) : NULL;
}
