/**
 * dropout.c: the keep-mask comes from a counter, so backward makes it again instead of keeping it.
 */
#include "tensor/tensor.h"

static attn_status dropout_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    double p = node->params.number[0];
    uint64_t seed = (uint64_t)node->params.integer[0];
    /* attn_dropout writes and does not add: where dy is, if nobody else reads it. */
    bool over = attn_tensor_exclusive(dy) && attn_view_is_dense(&dy->view);
    attn_tensor *held = attn_tensor_dense(tape, dy);
    attn_tensor *dx =
        over ? attn_tensor_retain(dy)
             : attn_grad_scratch(tape, dy->view.dtype, dy->view.ndim, dy->view.shape, NULL);
    attn_status status = held && dx ? attn_dropout(tape->context, p, seed, &held->view, &dx->view)
                                    : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        status = attn_grad_give(tape, node->in[0], dx);
    }
    attn_tensor_release(held);
    attn_tensor_release(dx);
    return status;
}

static const attn_op dropout_op = {"dropout", dropout_backward};

attn_tensor *attn_tensor_dropout(attn_tape *tape, attn_tensor *a, double p, uint64_t seed)
{
    if (!attn_op_begin(tape, &dropout_op, 1, &a)) {
        return NULL;
    }
    if (!(p >= 0.0 && p < 1.0)) {
        return attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                            "dropout: p = %g must be at least 0 and less than 1; it is the share "
                            "that is dropped",
                            p);
    }
    if (p == 0.0) {
        return a;
    }
    attn_tensor *out = attn_op_result(tape, a->view.dtype, a->view.ndim, a->view.shape, NULL);
    attn_tensor *x = out ? attn_tensor_dense(tape, a) : NULL;
    attn_status status =
        x ? attn_dropout(tape->context, p, seed, &x->view, &out->view) : ATTN_ERR_NO_MEMORY;
    attn_tensor_release(x);
    attn_params params = {.number = {p}, .integer = {(int64_t)seed}};
    return attn_op_ok(tape, status) ? attn_op_record(tape, &dropout_op, out, 1, &a, 0, &params)
                                    : NULL;
}
