/**
 * swiglu.c: silu(gate)·up, libattn's but for the forward pass in f64.
 */
#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

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
    attn_status status = held_dy ? attn_grad_fresh(tape, node->in[0], &dgate) : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        status = attn_grad_fresh(tape, node->in[1], &dup);
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

/* ---- both side by side ---- */

static attn_view half(const attn_view *rows, int which)
{
    int64_t n = rows->shape[1] / 2;
    return attn_view_cut(*rows, 1, which * n, (which + 1) * n);
}

static attn_status joined_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_view rows, given;
    attn_grad_target d = {.owner = NULL};
    attn_tensor *held = attn_tensor_rows(tape, node->in[0], &rows);
    attn_tensor *held_dy = held ? attn_tensor_rows(tape, dy, &given) : NULL;
    attn_status status = held_dy ? attn_grad_fresh(tape, node->in[0], &d) : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        attn_view gate = half(&rows, 0), up = half(&rows, 1);
        attn_view dgate = half(&d.rows, 0), dup = half(&d.rows, 1);
        status = attn_swiglu_backward(tape->context, &gate, &up, &given, &dgate, &dup);
    }
    status = attn_grad_done(tape, &d, status);
    attn_tensor_release(held);
    attn_tensor_release(held_dy);
    return status;
}

static const attn_op joined_op = {"swiglu_joined", joined_backward};

attn_tensor *attn_tensor_swiglu_joined(attn_tape *tape, attn_tensor *both)
{
    attn_view rows, rows_y;
    int64_t shape[4];
    if (!attn_op_begin(tape, &joined_op, 1, &both)) {
        return NULL;
    }
    int last = both->view.ndim - 1;
    memcpy(shape, both->view.shape, sizeof shape);
    if (shape[last] % 2 != 0) {
        char text[ATTN_SHAPE_TEXT];
        return attn_op_fail(tape, ATTN_ERR_SHAPE,
                            "swiglu_joined: gate and up are %s, the last size must be even: the "
                            "two side by side",
                            attn_shape_text(last + 1, shape, text));
    }
    shape[last] /= 2;
    attn_tensor *out = attn_op_result(tape, both->view.dtype, last + 1, shape, NULL);
    attn_tensor *held = out ? attn_tensor_rows(tape, both, &rows) : NULL;
    attn_status status = held ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    if (held) {
        attn_view_rows(&out->view, &rows_y);
        attn_view gate = half(&rows, 0), up = half(&rows, 1), v[3] = {rows_y, gate, up};
        status = rows_y.dtype == ATTN_F32 ? attn_swiglu(tape->context, &gate, &up, &rows_y)
                                          : attn_loop(tape->context, 3, v, forward_f64, NULL);
    }
    attn_tensor_release(held);
    return attn_op_ok(tape, status) ? attn_op_record(tape, &joined_op, out, 1, &both, 1, NULL)
                                    : NULL;
}
