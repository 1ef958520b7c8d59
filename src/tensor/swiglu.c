/**
 * swiglu.c: silu(gate)·up, libattn's but for the forward pass in f64.
 */
#include "tensor/tensor.h"

#include <math.h>

static void forward_f64(const void *user, int64_t n, void *const *p, const int64_t *s)
{
    double *y = p[0];
    const double *gate = p[1], *up = p[2];
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        double z = gate[i * s[1]];
        y[i * s[0]] = z / (1 + exp(-z)) * up[i * s[2]];
    }
}

/* Rows to write t's share to: its gradient if that is new, else a scratch; attn_grad_done adds it. */
static attn_status fresh(attn_tape *tape, attn_tensor *t, attn_grad_target *target)
{
    *target = (attn_grad_target){.owner = t};
    if (t->requires_grad && !(t->tape ? t->grad != NULL : t->grad_valid)) {
        return attn_grad_rows(tape, t, NULL, target);
    }
    target->scratch = attn_grad_scratch(tape, t->view.dtype, t->view.ndim, t->view.shape, NULL);
    if (!target->scratch) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_view_rows(&target->scratch->view, &target->rows);
    return ATTN_OK;
}

/* A share nobody asked for was computed beside the other one. */
static attn_status done(attn_tape *tape, attn_grad_target *target, attn_status status)
{
    if (target->owner && !target->owner->requires_grad) {
        attn_tensor_release(target->scratch);
        return status;
    }
    return attn_grad_done(tape, target, status);
}

static attn_status swiglu_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_view gate, up, given;
    attn_grad_target dgate = {.owner = NULL}, dup = {.owner = NULL};
    attn_tensor *held_gate = attn_tensor_rows(tape, node->in[0], &gate);
    attn_tensor *held_up = held_gate ? attn_tensor_rows(tape, node->in[1], &up) : NULL;
    attn_tensor *held_dy = held_up ? attn_tensor_rows(tape, dy, &given) : NULL;
    attn_status status = held_dy ? fresh(tape, node->in[0], &dgate) : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        status = fresh(tape, node->in[1], &dup);
    }
    if (status == ATTN_OK) {
        status = attn_swiglu_backward(tape->context, &gate, &up, &given, &dgate.rows, &dup.rows);
    }
    status = done(tape, &dgate, status);
    status = done(tape, &dup, status);
    attn_tensor_release(held_gate);
    attn_tensor_release(held_up);
    attn_tensor_release(held_dy);
    return status;
}

static const attn_op swiglu_op = {"swiglu", swiglu_backward};

attn_tensor *attn_tensor_swiglu(attn_tape *tape, attn_tensor *gate, attn_tensor *up)
{
    attn_tensor *in[2] = {gate, up};
    attn_view rows_gate, rows_up, rows_y;
    if (!attn_op_begin(tape, &swiglu_op, 2, in)) {
        return NULL;
    }
    if (!attn_view_same_shape(&gate->view, &up->view)) {
        char tg[ATTN_SHAPE_TEXT], tu[ATTN_SHAPE_TEXT];
        return attn_op_fail(tape, ATTN_ERR_SHAPE,
                            "swiglu: gate is %s and up is %s; they must have the same shape",
                            attn_shape_text(gate->view.ndim, gate->view.shape, tg),
                            attn_shape_text(up->view.ndim, up->view.shape, tu));
    }
    attn_tensor *out =
        attn_op_result(tape, gate->view.dtype, gate->view.ndim, gate->view.shape, NULL);
    if (!out) {
        return NULL;
    }
    attn_tensor *held_gate = attn_tensor_rows(tape, gate, &rows_gate);
    attn_tensor *held_up = held_gate ? attn_tensor_rows(tape, up, &rows_up) : NULL;
    attn_status status = held_up ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    attn_view_rows(&out->view, &rows_y);
    if (held_up && rows_y.dtype == ATTN_F32) {
        status = attn_swiglu(tape->context, &rows_gate, &rows_up, &rows_y);
    } else if (held_up) {
        attn_view v[3] = {out->view, gate->view, up->view};
        status = attn_loop(tape->context, 3, v, forward_f64, NULL);
    }
    attn_tensor_release(held_gate);
    attn_tensor_release(held_up);
    return attn_op_ok(tape, status) ? attn_op_record(tape, &swiglu_op, out, 2, in, 3, NULL) : NULL;
}
