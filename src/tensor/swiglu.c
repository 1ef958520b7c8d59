/**
 * swiglu.c: silu(gate)·up. f32 forward is libattn's; f64 and the way back are loops.
 */
#include "tensor/tensor.h"

#include <math.h>

#define SWIGLU(T, EXP)                                                                     \
    static void forward_##T(const void *user, int64_t n, void *const *p, const int64_t *s) \
    {                                                                                      \
        T *y = p[0];                                                                       \
        const T *gate = p[1], *up = p[2];                                                  \
        (void)user;                                                                        \
        for (int64_t i = 0; i < n; i++) {                                                  \
            T z = gate[i * s[1]];                                                          \
            y[i * s[0]] = z / (1 + EXP(-z)) * up[i * s[2]];                                \
        }                                                                                  \
    }                                                                                      \
    /* p[0] (+)= dy·up·silu'(gate) */                                                    \
    static void gate_##T(const void *user, int64_t n, void *const *p, const int64_t *s)    \
    {                                                                                      \
        T *dgate = p[0];                                                                   \
        const T *dy = p[1], *gate = p[2], *up = p[3];                                      \
        bool add = *(const bool *)user;                                                    \
        for (int64_t i = 0; i < n; i++) {                                                  \
            T z = gate[i * s[2]], sigmoid = 1 / (1 + EXP(-z));                             \
            T g = dy[i * s[1]] * up[i * s[3]] * sigmoid * (1 + z * (1 - sigmoid));         \
            dgate[i * s[0]] = add ? dgate[i * s[0]] + g : g;                               \
        }                                                                                  \
    }                                                                                      \
    /* p[0] (+)= dy·silu(gate) */                                                         \
    static void up_##T(const void *user, int64_t n, void *const *p, const int64_t *s)      \
    {                                                                                      \
        T *dup = p[0];                                                                     \
        const T *dy = p[1], *gate = p[2];                                                  \
        bool add = *(const bool *)user;                                                    \
        for (int64_t i = 0; i < n; i++) {                                                  \
            T z = gate[i * s[2]], g = dy[i * s[1]] * z / (1 + EXP(-z));                    \
            dup[i * s[0]] = add ? dup[i * s[0]] + g : g;                                   \
        }                                                                                  \
    }
SWIGLU(float, expf)
SWIGLU(double, exp)

#define PICK(view, name) ((view).dtype == ATTN_F32 ? name##_float : name##_double)

static attn_status swiglu_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *gate = node->in[0], *up = node->in[1];
    attn_status status = ATTN_OK;
    bool add = false;
    if (gate->requires_grad) {
        attn_tensor *g = attn_grad_open(tape, gate, &add);
        if (!g) {
            return ATTN_ERR_NO_MEMORY;
        }
        attn_view v[4] = {g->view, dy->view, gate->view, up->view};
        status = attn_loop(tape->context, 4, v, PICK(dy->view, gate), &add);
    }
    if (status == ATTN_OK && up->requires_grad) {
        attn_tensor *g = attn_grad_open(tape, up, &add);
        if (!g) {
            return ATTN_ERR_NO_MEMORY;
        }
        attn_view v[3] = {g->view, dy->view, gate->view};
        status = attn_loop(tape->context, 3, v, PICK(dy->view, up), &add);
    }
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
    attn_status status;
    if (gate->view.dtype == ATTN_F32 && attn_view_rows(&gate->view, &rows_gate) &&
        attn_view_rows(&up->view, &rows_up) && attn_view_rows(&out->view, &rows_y)) {
        status = attn_swiglu(tape->context, &rows_gate, &rows_up, &rows_y);
    } else {
        attn_view v[3] = {out->view, gate->view, up->view};
        status = attn_loop(tape->context, 3, v, PICK(out->view, forward), NULL);
    }
    return attn_op_ok(tape, status) ? attn_op_record(tape, &swiglu_op, out, 2, in, 3, NULL) : NULL;
}
