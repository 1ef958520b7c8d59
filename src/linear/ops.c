/**
 * ops.c: norms and SwiGLU, row by row. Threads only where there is work enough for them.
 */
#include "kernels/norm/norm.h"
#include "kernels/swiglu/swiglu.h"
#include "linear/check.h"
#include "par/context.h"

#include <attn/ops.h>

/* Floats of a piece: below it (some µs of one core) waking a thread costs more than it saves. */
enum { PIECE = 16384 };

/* What one call does to row r: y = f(x, second) with a kernel and its parameters. */
typedef struct row_call {
    const attn_view *x, *second, *y;
    const float *weight, *bias;
    double eps;
    attn_rms_fn *rms;
    attn_layer_fn *layer;
    attn_swiglu_fn *swiglu;
    int64_t rows_per_piece;
} row_call;

static float *row_at(const attn_view *view, int64_t row)
{
    return (float *)view->data + row * view->stride[0];
}

static void rows_task(void *argument, int64_t index, int worker)
{
    const row_call *c = argument;
    int64_t rows = c->x->shape[0], n = c->x->shape[1];
    int64_t end = (index + 1) * c->rows_per_piece;
    (void)worker;
    for (int64_t r = index * c->rows_per_piece; r < end && r < rows; r++) {
        const float *x = row_at(c->x, r);
        float *y = row_at(c->y, r);
        if (c->rms) {
            c->rms(x, c->weight, c->eps, n, y);
        } else if (c->layer) {
            c->layer(x, c->weight, c->bias, c->eps, n, y);
        } else {
            c->swiglu(x, row_at(c->second, r), n, y);
        }
    }
}

static void run_rows(attn_context *context, row_call *c)
{
    int64_t rows = c->x->shape[0], n = c->x->shape[1];
    c->rows_per_piece = n >= PIECE ? 1 : PIECE / n;
    attn_context_run(context, (rows - 1) / c->rows_per_piece + 1, true, rows_task, c);
}

static attn_status check_pair(const attn_context *context, const char *x_name, const attn_view *x,
                              const char *y_name, const attn_view *y)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status = attn_check_f32(x_name, x, 2, "[rows, dim]");
    if (status == ATTN_OK) {
        status = attn_check_f32(y_name, y, 2, "[rows, dim]");
    }
    if (status == ATTN_OK) {
        status = attn_check_same_shape(x_name, x, y_name, y);
    }
    return status;
}

static attn_status check_norm(const attn_context *context, const attn_view *x, double eps,
                              const attn_view *y)
{
    attn_status status = check_pair(context, "x", x, "y", y);
    if (status != ATTN_OK) {
        return status;
    }
    if (!(eps >= 0.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "eps: %g must be at least 0; 1e-5 is usual", eps);
    }
    if (x->shape[1] < 1) {
        return attn_fail(ATTN_ERR_SHAPE, "x: rows of length 0 have no mean");
    }
    return attn_check_rows_apart("y", y);
}

attn_status attn_rms_norm(attn_context *context, const attn_view *x, const float *weight,
                          double eps, const attn_view *y)
{
    attn_status status = check_norm(context, x, eps, y);
    if (status != ATTN_OK || x->shape[0] == 0) {
        return status;
    }
    row_call c = {.x = x, .y = y, .weight = weight, .eps = eps};
    c.rms = attn_norm_table_for(attn_context_isa(context))->rms;
    run_rows(context, &c);
    return ATTN_OK;
}

attn_status attn_layer_norm(attn_context *context, const attn_view *x, const float *weight,
                            const float *bias, double eps, const attn_view *y)
{
    attn_status status = check_norm(context, x, eps, y);
    if (status != ATTN_OK || x->shape[0] == 0) {
        return status;
    }
    row_call c = {.x = x, .y = y, .weight = weight, .bias = bias, .eps = eps};
    c.layer = attn_norm_table_for(attn_context_isa(context))->layer;
    run_rows(context, &c);
    return ATTN_OK;
}

attn_status attn_swiglu(attn_context *context, const attn_view *gate, const attn_view *up,
                        const attn_view *y)
{
    attn_status status = check_pair(context, "gate", gate, "up", up);
    if (status == ATTN_OK) {
        status = check_pair(context, "gate", gate, "y", y);
    }
    if (status == ATTN_OK) {
        status = attn_check_rows_apart("y", y);
    }
    if (status != ATTN_OK || gate->shape[0] == 0 || gate->shape[1] == 0) {
        return status;
    }
    row_call c = {.x = gate, .second = up, .y = y};
    c.swiglu = attn_swiglu_for(attn_context_isa(context));
    run_rows(context, &c);
    return ATTN_OK;
}
