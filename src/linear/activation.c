/**
 * activation.c: element-wise functions, their gradients, and plain arithmetic on arrays.
 */
#include "kernels/activation/activation.h"
#include "kernels/vector/vector.h"
#include "linear/elements.h"

#include <attn/train_ops.h>

typedef struct activation_call {
    attn_activation kind;
    attn_activation_fn *forward;
    attn_activation_backward_fn *backward;
    bool f64, accumulate;
} activation_call;

static attn_status check_kind(attn_activation kind)
{
    if ((int)kind < 0 || (int)kind >= ATTN_ACTIVATIONS) {
        return attn_fail(ATTN_ERR_ARGUMENT, "kind: %d is no attn_activation", (int)kind);
    }
    return ATTN_OK;
}

static void forward_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const activation_call *c = argument;
    (void)at;
    if (c->f64) {
        attn_activation_f64_c(c->kind, data[0], n, data[1]);
    } else {
        c->forward(data[0], n, data[1]);
    }
}

attn_status attn_activate(attn_context *context, attn_activation kind, const attn_view *x,
                          const attn_view *y)
{
    const attn_elements_view views[] = {{"x", x, false}, {"y", y, true}};
    attn_elements e;
    attn_status status = check_kind(kind);
    if (status == ATTN_OK) {
        status = attn_elements_make(context, 2, views, true, &e);
    }
    if (status != ATTN_OK) {
        return status;
    }
    activation_call c = {.kind = kind, .f64 = e.dtype == ATTN_F64};
    c.forward = attn_activation_table_for(attn_context_isa(context))->forward[kind];
    attn_elements_run(context, &e, ATTN_ELEMENTS_PIECE, forward_run, &c);
    return ATTN_OK;
}

static void backward_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const activation_call *c = argument;
    (void)at;
    if (c->f64) {
        attn_activation_backward_f64_c(c->kind, data[0], data[1], c->accumulate, n, data[2]);
    } else {
        c->backward(data[0], data[1], c->accumulate, n, data[2]);
    }
}

attn_status attn_activate_backward(attn_context *context, attn_activation kind, const attn_view *x,
                                   const attn_view *dy, bool accumulate, const attn_view *dx)
{
    const attn_elements_view views[] = {{"x", x, false}, {"dy", dy, false}, {"dx", dx, true}};
    attn_elements e;
    attn_status status = check_kind(kind);
    if (status == ATTN_OK) {
        status = attn_elements_make(context, 3, views, true, &e);
    }
    if (status != ATTN_OK) {
        return status;
    }
    activation_call c = {.kind = kind, .f64 = e.dtype == ATTN_F64, .accumulate = accumulate};
    c.backward = attn_activation_table_for(attn_context_isa(context))->backward[kind];
    attn_elements_run(context, &e, ATTN_ELEMENTS_PIECE, backward_run, &c);
    return ATTN_OK;
}

typedef struct axpby_call {
    double a, b;
    bool f64;
    const attn_vector_table *kernels;
} axpby_call;

static void axpby_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const axpby_call *c = argument;
    (void)at;
    if (c->f64) {
        attn_vector_axpby_f64_c(c->a, data[0], c->b, n, data[1]);
    } else {
        c->kernels->axpby((float)c->a, data[0], (float)c->b, n, data[1]);
    }
}

attn_status attn_axpby(attn_context *context, double a, const attn_view *x, double b,
                       const attn_view *y)
{
    const attn_elements_view views[] = {{"x", x, false}, {"y", y, true}};
    attn_elements e;
    attn_status status = attn_elements_make(context, 2, views, true, &e);
    if (status != ATTN_OK) {
        return status;
    }
    axpby_call c = {.a = a, .b = b, .f64 = e.dtype == ATTN_F64};
    c.kernels = attn_vector_table_for(attn_context_isa(context));
    attn_elements_run(context, &e, ATTN_ELEMENTS_PIECE, axpby_run, &c);
    return ATTN_OK;
}
