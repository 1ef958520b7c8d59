/**
 * rope.c: rotary embedding. A rotation's gradient is the rotation back.
 */
#include "tensor/tensor.h"

/* In place, forth or back. */
static attn_status rotate(attn_tape *tape, const attn_view *x, const attn_params *p, bool back)
{
    int64_t dims = p->integer[0];
    attn_rope_pairing pairing = (attn_rope_pairing)p->integer[1];
    return back ? attn_rope_inverse(tape->context, x, p->data, p->number[0], dims, pairing)
                : attn_rope(tape->context, x, p->data, p->number[0], dims, pairing);
}

static attn_status rope_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *x = node->in[0], *dx = NULL;
    attn_status status = ATTN_OK;
    if (attn_tensor_exclusive(dy) && dy->view.stride[3] == 1) {
        dx = attn_tensor_retain(dy); /* nobody else reads it: turned back where it is */
    } else {
        dx = attn_grad_scratch(tape, dy->view.dtype, 4, dy->view.shape,
                               dy->view.stride[3] == 1 ? &dy->view : NULL);
        status = dx ? attn_loop_copy(tape->context, &dy->view, &dx->view, 1.0, false)
                    : ATTN_ERR_NO_MEMORY;
    }
    if (status == ATTN_OK) {
        status = rotate(tape, &dx->view, &node->params, true);
    }
    if (status == ATTN_OK) {
        status = attn_grad_give(tape, x, dx);
    }
    attn_tensor_release(dx);
    return status;
}

int64_t *attn_op_positions(attn_tape *tape, const int64_t *positions, int64_t batch, int64_t len)
{
    int64_t count = batch * len, *copy = attn_op_memory(tape, sizeof *copy * (size_t)count);
    for (int64_t i = 0; copy && i < count; i++) {
        copy[i] = positions ? positions[i] : i % len;
    }
    return copy;
}

static const attn_op rope_op = {"rope", rope_backward};

static bool check(attn_tape *tape, const attn_tensor *x, double theta, int64_t dims)
{
    char text[ATTN_SHAPE_TEXT];
    if (x->view.ndim != 4) {
        attn_op_fail(tape, ATTN_ERR_SHAPE, "rope: x is %s and must be [batch, heads, len, dim]",
                     attn_shape_text(x->view.ndim, x->view.shape, text));
        return false;
    }
    if (dims < 0 || dims % 2 != 0 || dims > x->view.shape[3] || !(theta > 0)) {
        attn_op_fail(
            tape, ATTN_ERR_ARGUMENT,
            "rope: dims = %lld must be even and at most x's last size %lld, and theta = %g "
            "more than 0",
            (long long)dims, (long long)x->view.shape[3], theta);
        return false;
    }
    return true;
}

attn_tensor *attn_tensor_rope(attn_tape *tape, attn_tensor *x, const int64_t *positions,
                              double theta, int64_t dims, attn_rope_pairing pairing)
{
    if (!attn_op_begin(tape, &rope_op, 1, &x)) {
        return NULL;
    }
    dims = dims == 0 && x->view.ndim == 4 ? x->view.shape[3] : dims;
    if (!check(tape, x, theta, dims)) {
        return NULL;
    }
    const int64_t *shape = x->view.shape;
    int64_t *copy = attn_op_positions(tape, positions, shape[0], shape[2]);
    attn_tensor *out = copy ? attn_op_result(tape, x->view.dtype, 4, shape,
                                             x->view.stride[3] == 1 ? &x->view : NULL)
                            : NULL;
    if (!out) {
        return NULL;
    }
    attn_params params = {.number = {theta}, .integer = {dims, (int64_t)pairing}, .data = copy};
    attn_status status = attn_loop_copy(tape->context, &x->view, &out->view, 1.0, false);
    if (status == ATTN_OK) {
        status = rotate(tape, &out->view, &params, false);
    }
    return attn_op_ok(tape, status) ? attn_op_record(tape, &rope_op, out, 1, &x, 0, &params) : NULL;
}
