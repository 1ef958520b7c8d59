/**
 * unary.c: functions of one tensor, element by element.
 */
#include "tensor/tensor.h"

#include <math.h>

/* Memory order is any order's equal here: all of one layout become one row, else all become dense. */
static bool flatten(int count, attn_view *v)
{
    for (int i = 0; i < count; i++) {
        if (!attn_view_is_packed(&v[i]) || !attn_view_same_layout(&v[i], &v[0])) {
            return false;
        }
    }
    int64_t n[1] = {attn_view_count(&v[0])};
    for (int i = 0; i < count; i++) {
        v[i] = attn_view_dense(v[i].data, v[i].dtype, 1, n);
    }
    return true;
}

/* ---- a·factor, a + value, a^exponent ---- */

typedef struct power_call {
    double exponent;
    bool accumulate;
} power_call;

#define POWER(S, POW)                                                                         \
    static void power_##S(const void *user, int64_t n, void *const *p, const int64_t *s)      \
    {                                                                                         \
        number_##S *y = p[0], e = (number_##S)((const power_call *)user)->exponent;           \
        const number_##S *x = p[1];                                                           \
        for (int64_t i = 0; i < n; i++) {                                                     \
            y[i * s[0]] = POW(x[i * s[1]], e);                                                \
        }                                                                                     \
    }                                                                                         \
    static void power_back_##S(const void *user, int64_t n, void *const *p, const int64_t *s) \
    {                                                                                         \
        const power_call *c = user;                                                           \
        number_##S *dx = p[0], e = (number_##S)c->exponent;                                   \
        const number_##S *dy = p[1], *x = p[2];                                               \
        for (int64_t i = 0; i < n; i++) {                                                     \
            number_##S g = e == 0 ? 0 : dy[i * s[1]] * e * POW(x[i * s[2]], e - 1);           \
            dx[i * s[0]] = c->accumulate ? dx[i * s[0]] + g : g;                              \
        }                                                                                     \
    }                                                                                         \
    static void plus_##S(const void *user, int64_t n, void *const *p, const int64_t *s)       \
    {                                                                                         \
        number_##S *y = p[0], value = (number_##S) * (const double *)user;                    \
        const number_##S *x = p[1];                                                           \
        for (int64_t i = 0; i < n; i++) {                                                     \
            y[i * s[0]] = x[i * s[1]] + value;                                                \
        }                                                                                     \
    }
POWER(f32, powf)
POWER(f64, pow)

static attn_status scale_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    bool accumulate = false;
    attn_tensor *dx = attn_grad_open_over(tape, node->in[0], dy, &accumulate);
    if (!dx) {
        return ATTN_ERR_NO_MEMORY;
    }
    return attn_loop_copy(tape->context, &dy->view, &dx->view, node->params.number[0], accumulate);
}

static attn_status pass_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    return attn_grad_give(tape, node->in[0], dy);
}

static attn_status pow_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    power_call c = {.exponent = node->params.number[0]};
    attn_tensor *dx = attn_grad_open_over(tape, node->in[0], dy, &c.accumulate);
    if (!dx) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_view v[3] = {dx->view, dy->view, node->in[0]->view};
    return attn_loop(tape->context, 3, v,
                     dx->view.dtype == ATTN_F32 ? power_back_f32 : power_back_f64, &c);
}

static const attn_op scale_op = {"scale", scale_backward}, neg_op = {"neg", scale_backward},
                     add_scalar_op = {"add_scalar", pass_backward}, pow_op = {"pow", pow_backward};

static attn_tensor *scaled(attn_tape *tape, const attn_op *op, attn_tensor *a, double factor)
{
    attn_params params = {.number = {factor}};
    if (!attn_op_begin(tape, op, 1, &a)) {
        return NULL;
    }
    attn_tensor *out = attn_op_result(tape, a->view.dtype, a->view.ndim, a->view.shape, &a->view);
    if (!out ||
        !attn_op_ok(tape, attn_loop_copy(tape->context, &a->view, &out->view, factor, false))) {
        return NULL;
    }
    return attn_op_record(tape, op, out, 1, &a, 0, &params);
}

attn_tensor *attn_tensor_scale(attn_tape *tape, attn_tensor *a, double factor)
{
    return scaled(tape, &scale_op, a, factor);
}

attn_tensor *attn_tensor_neg(attn_tape *tape, attn_tensor *a)
{
    return scaled(tape, &neg_op, a, -1.0);
}

static attn_tensor *mapped(attn_tape *tape, const attn_op *op, attn_tensor *a, attn_loop_body *f32,
                           attn_loop_body *f64, const void *user, int saved, double number)
{
    attn_params params = {.number = {number}};
    if (!attn_op_begin(tape, op, 1, &a)) {
        return NULL;
    }
    attn_tensor *out = attn_op_result(tape, a->view.dtype, a->view.ndim, a->view.shape, &a->view);
    if (!out) {
        return NULL;
    }
    attn_view v[2] = {out->view, a->view};
    if (!attn_op_ok(tape,
                    attn_loop(tape->context, 2, v, a->view.dtype == ATTN_F32 ? f32 : f64, user))) {
        return NULL;
    }
    return attn_op_record(tape, op, out, 1, &a, saved, &params);
}

attn_tensor *attn_tensor_add_scalar(attn_tape *tape, attn_tensor *a, double value)
{
    return mapped(tape, &add_scalar_op, a, plus_f32, plus_f64, &value, 0, value);
}

attn_tensor *attn_tensor_pow(attn_tape *tape, attn_tensor *a, double exponent)
{
    power_call c = {.exponent = exponent};
    return mapped(tape, &pow_op, a, power_f32, power_f64, &c, 1, exponent);
}

/* ---- activations ---- */

/* Row-major copies where layouts differ. */
static attn_status activate_apart(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_activation kind = (attn_activation)node->params.integer[0];
    attn_tensor *x = attn_tensor_dense(tape, node->in[0]);
    attn_tensor *given = x ? attn_tensor_dense(tape, dy) : NULL;
    attn_status status = ATTN_ERR_NO_MEMORY;
    if (given) {
        attn_grad_target dx;
        status = attn_grad_dense(tape, node->in[0], NULL, &dx);
        if (status == ATTN_OK) {
            status = attn_activate_backward(tape->context, kind, &x->view, &given->view,
                                            dx.accumulate, &dx.rows);
        }
        status = attn_grad_done(tape, &dx, status);
    }
    attn_tensor_release(x);
    attn_tensor_release(given);
    return status;
}

static attn_status activate_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_activation kind = (attn_activation)node->params.integer[0];
    attn_tensor *x = node->in[0];
    attn_view v[3] = {x->view, dy->view, x->grad ? x->grad->view : x->view};
    bool accumulate = false;
    if (!x->tape || !flatten(3, v)) {
        return activate_apart(tape, node, dy);
    }
    attn_tensor *dx = attn_grad_open_over(tape, x, dy, &accumulate);
    if (!dx) {
        return ATTN_ERR_NO_MEMORY;
    }
    v[2].data = dx->view.data; /* a result's gradient has its layout, or the one it came with */
    return attn_activate_backward(tape->context, kind, &v[0], &v[1], accumulate, &v[2]);
}

/* One for each kind, so that failures name what was called. */
static const attn_op activate_ops[] = {
    [ATTN_ACT_RELU] = {"relu", activate_backward},
    [ATTN_ACT_GELU] = {"gelu", activate_backward},
    [ATTN_ACT_GELU_TANH] = {"gelu", activate_backward},
    [ATTN_ACT_SILU] = {"silu", activate_backward},
    [ATTN_ACT_TANH] = {"tanh", activate_backward},
    [ATTN_ACT_SIGMOID] = {"sigmoid", activate_backward},
    [ATTN_ACT_EXP] = {"exp", activate_backward},
    [ATTN_ACT_LOG] = {"log", activate_backward},
};

attn_tensor *attn_tensor_activate(attn_tape *tape, attn_activation kind, attn_tensor *a)
{
    static const attn_op unknown = {"activate", NULL};
    size_t index = (size_t)kind;
    bool known = index < sizeof activate_ops / sizeof *activate_ops;
    const attn_op *op = known ? &activate_ops[index] : &unknown;
    attn_params params = {.integer = {(int64_t)kind}};
    if (!attn_op_begin(tape, op, 1, &a)) {
        return NULL;
    }
    if (!known) {
        return attn_op_fail(tape, ATTN_ERR_ARGUMENT, "activate: kind %d is no attn_activation",
                            (int)kind);
    }
    attn_tensor *x =
        attn_view_is_packed(&a->view) ? attn_tensor_retain(a) : attn_tensor_dense(tape, a);
    if (!x) {
        return attn_tape_fail(tape, ATTN_ERR_NO_MEMORY);
    }
    attn_tensor *out = attn_op_result(tape, x->view.dtype, x->view.ndim, x->view.shape, &x->view);
    if (out) {
        attn_view v[2] = {x->view, out->view};
        flatten(2, v);
        if (!attn_op_ok(tape, attn_activate(tape->context, kind, &v[0], &v[1]))) {
            out = NULL;
        }
    }
    attn_tensor_release(x);
    return out ? attn_op_record(tape, op, out, 1, &a, 1, &params) : NULL;
}

attn_tensor *attn_tensor_relu(attn_tape *tape, attn_tensor *a)
{
    return attn_tensor_activate(tape, ATTN_ACT_RELU, a);
}

attn_tensor *attn_tensor_gelu(attn_tape *tape, attn_tensor *a, bool tanh_form)
{
    return attn_tensor_activate(tape, tanh_form ? ATTN_ACT_GELU_TANH : ATTN_ACT_GELU, a);
}

attn_tensor *attn_tensor_silu(attn_tape *tape, attn_tensor *a)
{
    return attn_tensor_activate(tape, ATTN_ACT_SILU, a);
}

attn_tensor *attn_tensor_tanh(attn_tape *tape, attn_tensor *a)
{
    return attn_tensor_activate(tape, ATTN_ACT_TANH, a);
}

attn_tensor *attn_tensor_sigmoid(attn_tape *tape, attn_tensor *a)
{
    return attn_tensor_activate(tape, ATTN_ACT_SIGMOID, a);
}

attn_tensor *attn_tensor_exp(attn_tape *tape, attn_tensor *a)
{
    return attn_tensor_activate(tape, ATTN_ACT_EXP, a);
}

attn_tensor *attn_tensor_log(attn_tape *tape, attn_tensor *a)
{
    return attn_tensor_activate(tape, ATTN_ACT_LOG, a);
}
