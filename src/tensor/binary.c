/**
 * binary.c: a + b, a − b, a·b, a/b with broadcasting. The gradient of what was repeated is summed over the repeats.
 */
#include "tensor/tensor.h"

/* y (+)= EXPR of a (p[1]), b (p[2]) and c (p[3]): a loop without strides where there are none, for the compiler's vectors. */
#define LOOPS(T, WRITE, EXPR)                                    \
    for (int64_t i = 0; unit && i < n; i++) {                    \
        const T a = A[i], b = B[i], c = C[i];                    \
        (void)c;                                                 \
        Y[i] WRITE EXPR;                                         \
    }                                                            \
    for (int64_t i = 0; !unit && i < n; i++) {                   \
        const T a = A[i * s[1]], b = B[i * s[2]], c = C[i * sc]; \
        (void)c;                                                 \
        Y[i * s[0]] WRITE EXPR;                                  \
    }

#define BODY(NAME, S, OPERANDS, EXPR)                                                     \
    static void NAME##_##S(const void *user, int64_t n, void *const *p, const int64_t *s) \
    {                                                                                     \
        number_##S *restrict Y = p[0];                                                    \
        const number_##S *A = p[1], *B = p[2], *C = (OPERANDS) > 3 ? p[3] : A;            \
        const int64_t sc = (OPERANDS) > 3 ? s[3] : s[1];                                  \
        const bool unit = s[0] == 1 && s[1] == 1 && s[2] == 1 && sc == 1;                 \
        if (user && *(const bool *)user) {                                                \
            LOOPS(number_##S, +=, EXPR)                                                   \
        } else {                                                                          \
            LOOPS(number_##S, =, EXPR)                                                    \
        }                                                                                 \
    }

#define BODIES(NAME, OPERANDS, EXPR) \
    BODY(NAME, f32, OPERANDS, EXPR)  \
    BODY(NAME, f64, OPERANDS, EXPR)

BODIES(add, 3, a + b)
BODIES(sub, 3, a - b)
BODIES(mul, 3, a *b)
BODIES(quotient, 3, a / b)
BODIES(div_b, 4, -(a *b) / (c * c)) /* dy, a, b: the share of the divisor */

#define PICK(view, name) ((view).dtype == ATTN_F32 ? name##_f32 : name##_f64)

static attn_tensor *binary(attn_tape *tape, const attn_op *op, attn_tensor *a, attn_tensor *b,
                           attn_loop_body *f32, attn_loop_body *f64, int saved)
{
    attn_tensor *in[2] = {a, b};
    int64_t shape[4];
    int ndim;
    if (!attn_op_begin(tape, op, 2, in)) {
        return NULL;
    }
    if (!attn_shapes_meet(&a->view, &b->view, &ndim, shape)) {
        char ta[ATTN_SHAPE_TEXT], tb[ATTN_SHAPE_TEXT];
        return attn_op_fail(tape, ATTN_ERR_SHAPE,
                            "%s: a is %s and b is %s; sizes, aligned at the right, must be equal "
                            "or 1: reshape or transpose one of them",
                            op->name, attn_shape_text(a->view.ndim, a->view.shape, ta),
                            attn_shape_text(b->view.ndim, b->view.shape, tb));
    }
    bool like_a = ndim == a->view.ndim && attn_view_count(&a->view) >= attn_view_count(&b->view);
    attn_tensor *out = attn_op_result(tape, a->view.dtype, ndim, shape, like_a ? &a->view : NULL);
    if (!out) {
        return NULL;
    }
    attn_view v[3] = {out->view, a->view, b->view};
    attn_status status =
        attn_loop(tape->context, 3, v, out->view.dtype == ATTN_F32 ? f32 : f64, NULL);
    return attn_op_ok(tape, status) ? attn_op_record(tape, op, out, 2, in, saved, NULL) : NULL;
}

/* input's gradient += body(dy, x, y), summed where input was broadcast. */
static attn_status give(attn_tape *tape, attn_tensor *input, attn_tensor *dy, int operands,
                        const attn_tensor *x, const attn_tensor *y, attn_loop_body *body)
{
    attn_view v[4] = {{.data = NULL}, dy->view, x->view};
    bool same = attn_view_same_shape(&input->view, &dy->view), accumulate = false;
    if (operands > 3) {
        v[3] = y->view;
    }
    attn_tensor *g =
        same ? attn_grad_open(tape, input, &accumulate)
             : attn_grad_scratch(tape, dy->view.dtype, dy->view.ndim, dy->view.shape, NULL);
    if (!g) {
        return ATTN_ERR_NO_MEMORY;
    }
    v[0] = g->view;
    attn_status status = attn_loop(tape->context, operands, v, body, &accumulate);
    if (!same) {
        status = status == ATTN_OK ? attn_grad_give_reduced(tape, input, g) : status;
        attn_tensor_release(g);
    }
    return status;
}

/* ---- the four ---- */

static attn_status add_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_status status = ATTN_OK;
    for (int i = 0; i < 2 && status == ATTN_OK; i++) {
        if (node->in[i]->requires_grad) {
            status = attn_grad_give_reduced(tape, node->in[i], dy);
        }
    }
    return status;
}

static attn_status sub_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_status status = ATTN_OK;
    bool accumulate = false;
    if (node->in[1]->requires_grad) {
        attn_tensor *g = attn_grad_open(tape, node->in[1], &accumulate);
        bool same = attn_view_same_shape(&node->in[1]->view, &dy->view);
        if (!g) {
            return ATTN_ERR_NO_MEMORY;
        }
        status = same ? attn_loop_copy(tape->context, &dy->view, &g->view, -1.0, accumulate)
                      : attn_loop_sum(tape, &dy->view, &g->view, -1.0, accumulate);
    }
    if (status == ATTN_OK && node->in[0]->requires_grad) {
        status = attn_grad_give_reduced(tape, node->in[0], dy);
    }
    return status;
}

static attn_status mul_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_status status = ATTN_OK;
    for (int i = 0; i < 2 && status == ATTN_OK; i++) {
        if (node->in[i]->requires_grad) {
            status = give(tape, node->in[i], dy, 3, node->in[1 - i], NULL, PICK(dy->view, mul));
        }
    }
    return status;
}

static attn_status div_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *a = node->in[0], *b = node->in[1];
    attn_status status = ATTN_OK;
    if (a->requires_grad) {
        status = give(tape, a, dy, 3, b, NULL, PICK(dy->view, quotient));
    }
    if (status == ATTN_OK && b->requires_grad) {
        status = give(tape, b, dy, 4, a, b, PICK(dy->view, div_b));
    }
    return status;
}

static const attn_op add_op = {"add", add_backward}, sub_op = {"sub", sub_backward},
                     mul_op = {"mul", mul_backward}, div_op = {"div", div_backward};

attn_tensor *attn_tensor_add(attn_tape *tape, attn_tensor *a, attn_tensor *b)
{
    return binary(tape, &add_op, a, b, add_f32, add_f64, 0);
}

attn_tensor *attn_tensor_sub(attn_tape *tape, attn_tensor *a, attn_tensor *b)
{
    return binary(tape, &sub_op, a, b, sub_f32, sub_f64, 0);
}

attn_tensor *attn_tensor_mul(attn_tape *tape, attn_tensor *a, attn_tensor *b)
{
    return binary(tape, &mul_op, a, b, mul_f32, mul_f64, 3);
}

attn_tensor *attn_tensor_div(attn_tape *tape, attn_tensor *a, attn_tensor *b)
{
    return binary(tape, &div_op, a, b, quotient_f32, quotient_f64, 3);
}
