/**
 * norm.c: layer norm and RMS norm over the last dimension. f32 forward is libattn's; f64 and the way back are the loops below.
 */
#include "tensor/tensor.h"

#include <attn/linear.h>

#include <math.h>

enum { X, WEIGHT, BIAS, INPUTS, PIECE = 16384 };

typedef struct norm_call {
    attn_view x, dy, out, products; /* rows; out: y or dx; products: dy·x̂, or none */
    const void *weight, *bias;      /* [dim] or NULL */
    double eps;
    bool centered, accumulate;
    int64_t rows_per_task;
} norm_call;

static void *row_of(const attn_view *v, int64_t row)
{
    return (char *)v->data + row * v->stride[0] * (int64_t)attn_dtype_size(v->dtype);
}

#define NORM(T)                                                                                  \
    /* mean (0 where not centered) and 1/√(mean square distance + eps) */                      \
    static double statistics_##T(const T *x, int64_t n, bool centered, double eps, double *mean) \
    {                                                                                            \
        double sum = 0, squares = 0;                                                             \
        for (int64_t i = 0; centered && i < n; i++) {                                            \
            sum += (double)x[i];                                                                 \
        }                                                                                        \
        *mean = sum / (double)n;                                                                 \
        for (int64_t i = 0; i < n; i++) {                                                        \
            double d = (double)x[i] - *mean;                                                     \
            squares += d * d;                                                                    \
        }                                                                                        \
        return 1.0 / sqrt(squares / (double)n + eps);                                            \
    }                                                                                            \
    static void backward_row_##T(const norm_call *c, int64_t r)                                  \
    {                                                                                            \
        const T *x = row_of(&c->x, r), *dy = row_of(&c->dy, r), *w = c->weight;                  \
        T *dx = c->out.data ? row_of(&c->out, r) : NULL;                                         \
        T *products = c->products.data ? row_of(&c->products, r) : NULL;                         \
        int64_t n = c->x.shape[1];                                                               \
        double mean, scale = statistics_##T(x, n, c->centered, c->eps, &mean);                   \
        double sum = 0, dot = 0;                                                                 \
        for (int64_t i = 0; i < n; i++) {                                                        \
            double hat = ((double)x[i] - mean) * scale;                                          \
            double g = (double)dy[i] * (w ? (double)w[i] : 1.0);                                 \
            sum += g;                                                                            \
            dot += g * hat;                                                                      \
            if (products) {                                                                      \
                products[i] = (T)((double)dy[i] * hat);                                          \
            }                                                                                    \
        }                                                                                        \
        sum = c->centered ? sum / (double)n : 0.0;                                               \
        dot /= (double)n;                                                                        \
        for (int64_t i = 0; dx && i < n; i++) {                                                  \
            double hat = ((double)x[i] - mean) * scale;                                          \
            double g = (double)dy[i] * (w ? (double)w[i] : 1.0);                                 \
            double value = scale * (g - sum - hat * dot);                                        \
            dx[i] = (T)(c->accumulate ? (double)dx[i] + value : value);                          \
        }                                                                                        \
    }
NORM(float)
NORM(double)

static void forward_row(const norm_call *c, int64_t r)
{
    const double *x = row_of(&c->x, r), *w = c->weight, *b = c->bias;
    double *y = row_of(&c->out, r), mean;
    double scale = statistics_double(x, c->x.shape[1], c->centered, c->eps, &mean);
    for (int64_t i = 0; i < c->x.shape[1]; i++) {
        y[i] = (x[i] - mean) * scale * (w ? w[i] : 1.0) + (b ? b[i] : 0.0);
    }
}

static void norm_task(void *argument, int64_t index, int worker)
{
    const norm_call *c = argument;
    int64_t rows = c->x.shape[0], end = (index + 1) * c->rows_per_task;
    (void)worker;
    for (int64_t r = index * c->rows_per_task; r < end && r < rows; r++) {
        if (!c->dy.data) {
            forward_row(c, r);
        } else if (c->x.dtype == ATTN_F32) {
            backward_row_float(c, r);
        } else {
            backward_row_double(c, r);
        }
    }
}

static attn_status run(attn_tape *tape, norm_call *c)
{
    int64_t rows = c->x.shape[0], n = c->x.shape[1];
    c->rows_per_task = n < PIECE ? PIECE / n : 1;
    return attn_parallel_for(tape->context, (rows + c->rows_per_task - 1) / c->rows_per_task,
                             norm_task, c);
}

/* ---- backward ---- */

/* Column sums of rows into a 1-D parameter's gradient. */
static attn_status give_sum(attn_tape *tape, attn_tensor *t, const attn_view *rows)
{
    bool accumulate = false;
    attn_tensor *g = attn_grad_open(tape, t, &accumulate);
    return g ? attn_sum_rows(tape->context, rows, accumulate, &g->view) : ATTN_ERR_NO_MEMORY;
}

/* The parameters' shares; what goes to x is run alone or with them. */
static attn_status parameters(attn_tape *tape, const attn_node *node, norm_call *c)
{
    attn_tensor *weight = node->in[WEIGHT], *bias = node->in[BIAS];
    attn_tensor *products = NULL;
    attn_status status = ATTN_OK;
    if (weight && weight->requires_grad) {
        products = attn_grad_scratch(tape, c->x.dtype, 2, c->x.shape, NULL);
        if (!products) {
            return ATTN_ERR_NO_MEMORY;
        }
        c->products = products->view;
    }
    status = bias && bias->requires_grad ? give_sum(tape, bias, &c->dy) : ATTN_OK;
    if (status == ATTN_OK && (products || c->out.data)) {
        status = run(tape, c);
    }
    if (status == ATTN_OK && products) {
        status = give_sum(tape, weight, &products->view);
    }
    attn_tensor_release(products);
    return status;
}

static attn_status norm_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    norm_call c = {.eps = node->params.number[0], .centered = node->params.integer[0] != 0};
    attn_tensor *x = node->in[X], *weight = node->in[WEIGHT];
    attn_tensor *held_x = attn_tensor_rows(tape, x, &c.x);
    attn_tensor *held_dy = held_x ? attn_tensor_rows(tape, dy, &c.dy) : NULL;
    attn_tensor *held_w = held_dy && weight ? attn_tensor_dense(tape, weight) : NULL;
    attn_grad_target dx = {.owner = x};
    attn_status status = held_dy && (!weight || held_w) ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    c.weight = held_w ? held_w->view.data : NULL;
    if (status == ATTN_OK && x->requires_grad) {
        status = attn_grad_rows(tape, x, NULL, &dx);
        c.out = dx.rows;
        c.accumulate = dx.accumulate;
    }
    if (status == ATTN_OK && c.x.shape[0] > 0) {
        status = parameters(tape, node, &c);
    }
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
    int64_t dim = in[X] ? in[X]->view.shape[in[X]->view.ndim - 1] : 0;
    for (int i = X; i < INPUTS; i++) {
        attn_tensor *pair[2] = {in[X], in[i]};
        if (!attn_op_begin(tape, op, in[i] ? 2 : 1, pair)) {
            return false;
        }
        if (i > X && in[i] && (in[i]->view.ndim != 1 || in[i]->view.shape[0] != dim)) {
            char tw[ATTN_SHAPE_TEXT], tx[ATTN_SHAPE_TEXT];
            attn_op_fail(tape, ATTN_ERR_SHAPE, "%s: %s is %s and must be [%lld], as x is %s",
                         op->name, i == WEIGHT ? "weight" : "bias",
                         attn_shape_text(in[i]->view.ndim, in[i]->view.shape, tw), (long long)dim,
                         attn_shape_text(in[X]->view.ndim, in[X]->view.shape, tx));
            return false;
        }
    }
    if (dim < 1 || !(eps >= 0.0)) {
        attn_op_fail(tape, dim < 1 ? ATTN_ERR_SHAPE : ATTN_ERR_ARGUMENT, "%s: %s", op->name,
                     dim < 1 ? "x's last dimension has size 0" : "eps must be at least 0");
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
        return run(tape, c);
    }
    return c->centered ? attn_layer_norm(tape->context, &c->x, c->weight, c->bias, c->eps, &c->out)
                       : attn_rms_norm(tape->context, &c->x, c->weight, c->eps, &c->out);
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
        attn_view_rows(&out->view, &c.out);
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
