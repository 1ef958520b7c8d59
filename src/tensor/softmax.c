/**
 * softmax.c: softmax and log-softmax along any dimension. Another than the last is brought there by a transposed copy.
 */
#include "tensor/tensor.h"

static attn_status softmax_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    int dim = (int)node->params.integer[0], last = dy->view.ndim - 1;
    bool log = node->params.integer[1] != 0;
    attn_tensor *a = node->in[0], *y = node->params.tensor[0]; /* y: dim last, dense */
    attn_view rows_y, rows_dy;
    attn_view_rows(&y->view, &rows_y);
    if (dim == last) {
        attn_grad_target dx;
        attn_tensor *held = attn_tensor_rows(tape, dy, &rows_dy);
        attn_status status = held ? ATTN_OK : ATTN_ERR_NO_MEMORY;
        if (status == ATTN_OK) {
            status = attn_grad_rows(tape, a, NULL, &dx);
        }
        if (status == ATTN_OK) {
            status = attn_softmax_backward(tape->context, log, &rows_y, &rows_dy, dx.accumulate,
                                           &dx.rows);
            status = attn_grad_done(tape, &dx, status);
        }
        attn_tensor_release(held);
        return status;
    }
    attn_view swapped = attn_view_swapped(dy->view, dim, last);
    attn_tensor *dx = attn_grad_scratch(tape, dy->view.dtype, last + 1, swapped.shape, NULL);
    if (!dx) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = attn_loop_copy(tape->context, &swapped, &dx->view, 1.0, false);
    if (status == ATTN_OK) {
        status = attn_softmax_backward(tape->context, log, &y->view, &dx->view, false, &dx->view);
    }
    if (status == ATTN_OK) {
        dx->view = attn_view_swapped(dx->view, dim, last);
        status = attn_grad_give(tape, a, dx);
    }
    attn_tensor_release(dx);
    return status;
}

static const attn_op softmax_op = {"softmax", softmax_backward},
                     log_softmax_op = {"log_softmax", softmax_backward};

static attn_tensor *softmax(attn_tape *tape, const attn_op *op, attn_tensor *a, int dim)
{
    if (!attn_op_begin(tape, op, 1, &a)) {
        return NULL;
    }
    int d = attn_op_dim(tape, op, a, dim), last = a->view.ndim - 1;
    bool log = op == &log_softmax_op;
    if (d < 0) {
        return NULL;
    }
    attn_view x = d == last ? a->view : attn_view_swapped(a->view, d, last);
    attn_tensor *y = attn_op_result(tape, x.dtype, last + 1, x.shape, NULL);
    if (!y) {
        return NULL;
    }
    attn_status status = ATTN_OK;
    if (x.stride[last] != 1 && x.shape[last] != 1) {
        status = attn_loop_copy(tape->context, &x, &y->view, 1.0, false);
        x = y->view;
    }
    if (!attn_op_ok(tape, status) ||
        !attn_op_ok(tape, attn_softmax(tape->context, log, &x, &y->view))) {
        return NULL;
    }
    attn_view back = attn_view_swapped(y->view, d, last);
    attn_tensor *out = d == last ? y : attn_op_view(tape, y, &back);
    attn_params params = {.integer = {d, log}, .tensor = {y}};
    return out ? attn_op_record(tape, op, out, 1, &a, ATTN_SAVED_OUT, &params) : NULL;
}

attn_tensor *attn_tensor_softmax(attn_tape *tape, attn_tensor *a, int dim)
{
    return softmax(tape, &softmax_op, a, dim);
}

attn_tensor *attn_tensor_log_softmax(attn_tape *tape, attn_tensor *a, int dim)
{
    return softmax(tape, &log_softmax_op, a, dim);
}
