/**
 * norm.c: layer norm and RMS norm over the last dimension, libattn's but for the forward pass in f64.
 */
#include "tensor/tensor.h"

#include <math.h>

enum { X, WEIGHT, BIAS, INPUTS, PIECE = 16384 };

typedef struct norm_call {
    attn_view x, y;            /* rows */
    const void *weight, *bias; /* [dim] or NULL */
    double eps;
    bool centered;
    int64_t rows_per_task;
} norm_call;

/* Row r in f64. */
static void forward_row(const norm_call *c, int64_t r)
{
    int64_t n = c->x.shape[1];
    const double *x = (const double *)c->x.data + r * c->x.stride[0], *w = c->weight, *b = c->bias;
    double *y = (double *)c->y.data + r * c->y.stride[0], mean = 0, squares = 0;
    for (int64_t i = 0; c->centered && i < n; i++) {
        mean += x[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        squares += (x[i] - mean) * (x[i] - mean);
    }
    double scale = 1.0 / sqrt(squares / (double)n + c->eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (x[i] - mean) * scale * (w ? w[i] : 1.0) + (b ? b[i] : 0.0);
    }
}

static void norm_task(void *argument, int64_t index, int worker)
{
    const norm_call *c = argument;
    int64_t rows = c->x.shape[0], end = (index + 1) * c->rows_per_task;
    (void)worker;
    for (int64_t r = index * c->rows_per_task; r < end && r < rows; r++) {
        forward_row(c, r);
    }
}

/* ---- backward ---- */

/* One parameter's gradient as libattn is to write it: its accumulate is one for all. */
typedef struct share {
    attn_tensor *scratch;
    attn_view view;
} share;

static attn_status open_share(attn_tape *tape, attn_tensor *t, bool accumulate, share *s)
{
    bool filled = false;
    if (!t || !t->requires_grad) {
        return ATTN_OK;
    }
    attn_tensor *g = attn_grad_open(tape, t, &filled);
    if (g && filled && !accumulate) { /* added in the end */
        g = s->scratch = attn_grad_scratch(tape, t->view.dtype, 1, t->view.shape, NULL);
    }
    if (!g) {
        return ATTN_ERR_NO_MEMORY;
    }
    s->view = g->view;
    return accumulate && !filled ? attn_loop_fill(tape->context, &g->view, 0.0) : ATTN_OK;
}

static attn_status close_share(attn_tape *tape, attn_tensor *t, share *s, attn_status status)
{
    if (s->scratch && status == ATTN_OK) {
        status = attn_grad_give(tape, t, s->scratch);
    }
    attn_tensor_release(s->scratch);
    return status;
}

static attn_status norm_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *x = node->in[X], *weight = node->in[WEIGHT];
    double eps = node->params.number[0];
    attn_view rows_x, rows_dy;
    attn_grad_target dx = {.owner = x};
    share dw = {.scratch = NULL}, db = {.scratch = NULL};
    attn_tensor *held_x = attn_tensor_rows(tape, x, &rows_x);
    attn_tensor *held_dy = held_x ? attn_tensor_rows(tape, dy, &rows_dy) : NULL;
    attn_tensor *held_w = held_dy && weight ? attn_tensor_dense(tape, weight) : NULL;
    attn_status status = held_dy && (!weight || held_w) ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK && x->requires_grad) {
        status = attn_grad_rows(tape, x, held_dy == dy ? dy : NULL, &dx);
    }
    if (status == ATTN_OK) {
        status = open_share(tape, weight, dx.accumulate, &dw);
    }
    if (status == ATTN_OK) {
        status = open_share(tape, node->in[BIAS], dx.accumulate, &db);
    }
    if (status == ATTN_OK) {
        const attn_view *w = held_w ? &held_w->view : NULL;
        status = node->params.integer[0]
                     ? attn_layer_norm_backward(tape->context, &rows_x, w, eps, &rows_dy,
                                                dx.accumulate, &dx.rows, &dw.view, &db.view)
                     : attn_rms_norm_backward(tape->context, &rows_x, w, eps, &rows_dy,
                                              dx.accumulate, &dx.rows, &dw.view);
    }
    status = close_share(tape, weight, &dw, status);
    status = close_share(tape, node->in[BIAS], &db, status);
    status = attn_grad_done(tape, &dx, status);
    attn_tensor_release(held_x);
    attn_tensor_release(held_dy);
    attn_tensor_release(held_w);
    return status;
}

static const attn_op layer_op = {"layer_norm", norm_backward}, rms_op = {"rms_norm", norm_backward};

/* ---- forward ---- */

static bool check(attn_tape *tape, const attn_op *op, double eps, attn_tensor *const *in)
{
    if (!attn_op_begin(tape, op, 1, in)) {
        return false;
    }
    int64_t dim = in[X]->view.shape[in[X]->view.ndim - 1];
    for (int i = WEIGHT; i < INPUTS; i++) {
        attn_tensor *pair[2] = {in[X], in[i]};
        if (!attn_op_begin(tape, op, in[i] ? 2 : 1, pair)) {
            return false;
        }
        if (in[i] && (in[i]->view.ndim != 1 || in[i]->view.shape[0] != dim)) {
            char tw[ATTN_SHAPE_TEXT], tx[ATTN_SHAPE_TEXT];
            attn_op_fail(tape, ATTN_ERR_SHAPE, "%s: %s is %s and must be [%lld], as x is %s",
                         op->name, i == WEIGHT ? "weight" : "bias",
                         attn_shape_text(in[i]->view.ndim, in[i]->view.shape, tw), (long long)dim,
                         attn_shape_text(in[X]->view.ndim, in[X]->view.shape, tx));
            return false;
        }
    }
    if (dim < 1 || !(eps >= 0.0)) {
        if (dim < 1) {
            attn_op_fail(tape, ATTN_ERR_SHAPE, "%s: x's last dimension has size 0, and no mean",
                         op->name);
        } else {
            attn_op_fail(tape, ATTN_ERR_ARGUMENT, "%s: eps is %g and must be at least 0, as 1e-5",
                         op->name, eps);
        }
        return false;
    }
    return true;
}

static attn_status forward(attn_tape *tape, norm_call *c)
{
    if (c->x.shape[0] == 0) {
        return ATTN_OK;
    }
    if (c->x.dtype == ATTN_F64) {
        c->rows_per_task = c->x.shape[1] < PIECE ? PIECE / c->x.shape[1] : 1;
        return attn_parallel_for(tape->context, (c->x.shape[0] - 1) / c->rows_per_task + 1,
                                 norm_task, c);
    }
    return c->centered ? attn_layer_norm(tape->context, &c->x, c->weight, c->bias, c->eps, &c->y)
                       : attn_rms_norm(tape->context, &c->x, c->weight, c->eps, &c->y);
}

static attn_tensor *norm(attn_tape *tape, const attn_op *op, attn_tensor *const *in, double eps)
{
    norm_call c = {.eps = eps, .centered = op == &layer_op};
    attn_tensor *held[INPUTS] = {NULL};
    if (!check(tape, op, eps, in)) {
        return NULL;
    }
    const attn_view *v = &in[X]->view;
    attn_tensor *out = attn_op_result(tape, v->dtype, v->ndim, v->shape, NULL);
    bool ok = out != NULL;
    held[X] = ok ? attn_tensor_rows(tape, in[X], &c.x) : NULL;
    ok = ok && held[X];
    for (int i = WEIGHT; ok && i < INPUTS; i++) {
        held[i] = in[i] ? attn_tensor_dense(tape, in[i]) : NULL;
        ok = !in[i] || held[i];
    }
    attn_status status = ATTN_ERR_NO_MEMORY;
    if (ok) {
        attn_view_rows(&out->view, &c.y);
        c.weight = held[WEIGHT] ? held[WEIGHT]->view.data : NULL;
        c.bias = held[BIAS] ? held[BIAS]->view.data : NULL;
        status = forward(tape, &c);
    }
    for (int i = X; i < INPUTS; i++) {
        attn_tensor_release(held[i]);
    }
    attn_params params = {.number = {eps}, .integer = {c.centered}};
    return attn_op_ok(tape, status)
               ? attn_op_record(tape, op, out, INPUTS, in, (1 << X) | (1 << WEIGHT), &params)
               : NULL;
}

attn_tensor *attn_tensor_layer_norm(attn_tape *tape, attn_tensor *x, attn_tensor *weight,
                                    attn_tensor *bias, double eps)
{
    attn_tensor *in[INPUTS] = {x, weight, bias};
    return norm(tape, &layer_op, in, eps);
}

attn_tensor *attn_tensor_rms_norm(attn_tape *tape, attn_tensor *x, attn_tensor *weight, double eps)
{
    attn_tensor *in[INPUTS] = {x, weight, NULL};
    return norm(tape, &rms_op, in, eps);
}
