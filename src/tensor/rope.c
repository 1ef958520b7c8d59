/**
 * rope.c: rotary embedding. A rotation's gradient is the rotation back.
 */
#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

typedef struct rope_call {
    attn_view x;
    const int64_t *positions; /* [batch, len] */
    double theta, sign;
    int64_t dims;
    attn_rope_pairing pairing;
} rope_call;

#define ROTATE(T)                                                                                \
    static void rotate_##T(const rope_call *c, T *row, int64_t position)                         \
    {                                                                                            \
        int64_t half = c->dims / 2, step = c->x.stride[3];                                       \
        for (int64_t i = 0; i < half; i++) {                                                     \
            double angle = (double)position * pow(c->theta, -2.0 * (double)i / (double)c->dims); \
            double cosine = cos(angle), sine = c->sign * sin(angle);                             \
            bool halves = c->pairing == ATTN_ROPE_HALVES;                                        \
            T *a = row + (halves ? i : 2 * i) * step;                                            \
            T *b = row + (halves ? i + half : 2 * i + 1) * step;                                 \
            double x = (double)*a, y = (double)*b;                                               \
            *a = (T)(x * cosine - y * sine);                                                     \
            *b = (T)(x * sine + y * cosine);                                                     \
        }                                                                                        \
    }
ROTATE(float)
ROTATE(double)

static void rope_task(void *argument, int64_t index, int worker)
{
    const rope_call *c = argument;
    const attn_view *x = &c->x;
    int64_t l = index % x->shape[2], h = index / x->shape[2] % x->shape[1];
    int64_t b = index / x->shape[2] / x->shape[1], position = c->positions[b * x->shape[2] + l];
    int64_t at = b * x->stride[0] + h * x->stride[1] + l * x->stride[2];
    (void)worker;
    if (x->dtype == ATTN_F32) {
        rotate_float(c, (float *)x->data + at, position);
    } else {
        rotate_double(c, (double *)x->data + at, position);
    }
}

/* In place; forward in f32 is libattn's. */
static attn_status rotate(attn_tape *tape, const attn_view *x, const attn_params *p, bool back)
{
    rope_call c = {.x = *x, .positions = p->data, .theta = p->number[0], .sign = back ? -1 : 1};
    c.dims = p->integer[0];
    c.pairing = (attn_rope_pairing)p->integer[1];
    if (attn_view_count(x) == 0) {
        return ATTN_OK;
    }
    if (!back && x->dtype == ATTN_F32) {
        return attn_rope(tape->context, x, c.positions, c.theta, c.dims, c.pairing);
    }
    return attn_parallel_for(tape->context, x->shape[0] * x->shape[1] * x->shape[2], rope_task, &c);
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
    int64_t count = shape[0] * shape[2];
    int64_t *copy = attn_op_memory(tape, sizeof *copy * (size_t)count);
    attn_tensor *out = copy ? attn_op_result(tape, x->view.dtype, 4, shape,
                                             x->view.stride[3] == 1 ? &x->view : NULL)
                            : NULL;
    if (!out) {
        return NULL;
    }
    for (int64_t i = 0; i < count; i++) {
        copy[i] = positions ? positions[i] : i % shape[2];
    }
    attn_params params = {.number = {theta}, .integer = {dims, (int64_t)pairing}, .data = copy};
    attn_status status = attn_loop_copy(tape->context, &x->view, &out->view, 1.0, false);
    if (status == ATTN_OK) {
        status = rotate(tape, &out->view, &params, false);
    }
    return attn_op_ok(tape, status) ? attn_op_record(tape, &rope_op, out, 1, &x, 0, &params) : NULL;
}
