/**
 * linear.c: x·Wᵀ + b, for one layer or for several that read the same x. Weights that go on in memory where the one before ends
 * (attn_tensor_create_joined) are one matrix to the product, forward and back, and so are their gradients: x is read once, and dx is
 * one sum.
 */
#include "tensor/tensor.h"

#include <attn/linear.h>

#include <string.h>

enum { LAYERS = 8 };

/* A node's inputs: x, weight[count], bias[count]. */
typedef struct layers {
    int count;
    attn_tensor *x, *const *weight, *const *bias;
} layers;

static layers layers_of(int count, attn_tensor *const *in)
{
    return (layers){.count = count, .x = in[0], .weight = in + 1, .bias = in + 1 + count};
}

static bool goes_on(const attn_tensor *a, const attn_tensor *b)
{
    return a == NULL && b == NULL
               ? true
               : a && b && a->storage == b->storage && attn_view_follows(&a->view, &b->view);
}

/* The layers from `begin` on that are one product; tells the end of them, their matrix, their bias (not dense perhaps if it is one). */
static int run_of(const layers *l, int begin, attn_view *weight, attn_view *bias)
{
    int end = begin + 1;
    *weight = l->weight[begin]->view;
    *bias = l->bias[begin] ? l->bias[begin]->view : (attn_view){.data = NULL};
    for (; end < l->count && goes_on(l->weight[end - 1], l->weight[end]) &&
           goes_on(l->bias[end - 1], l->bias[end]);
         end++) {
        weight->shape[0] += l->weight[end]->view.shape[0];
        bias->shape[0] += l->bias[end] ? l->bias[end]->view.shape[0] : 0;
    }
    return end;
}

static attn_view columns(const attn_view *rows, int64_t begin, int64_t count)
{
    return attn_view_cut(*rows, 1, begin, begin + count);
}

/* ---- backward ---- */

static attn_status give_bias(attn_tape *tape, attn_tensor *bias, const attn_view *dy)
{
    bool accumulate = false;
    attn_tensor *db = attn_grad_open(tape, bias, &accumulate);
    if (!db) {
        return ATTN_ERR_NO_MEMORY;
    }
    return db->view.stride[0] == 1 || db->view.shape[0] == 1
               ? attn_sum_rows(tape->context, dy, accumulate, &db->view)
               : attn_loop_sum(tape, dy, &db->view, 1.0, accumulate);
}

static attn_status give_weight(attn_tape *tape, attn_tensor *weight, const attn_view *x,
                               const attn_view *dy)
{
    bool accumulate = false;
    attn_view dy_t = attn_view_transposed(dy);
    attn_tensor *dw = attn_grad_open(tape, weight, &accumulate);
    return dw ? attn_tensor_product(tape, &dy_t, x, accumulate, &dw->view) : ATTN_ERR_NO_MEMORY;
}

static bool all_want(const layers *l, int begin, int end)
{
    for (int i = begin; i < end; i++) {
        if (!l->weight[i]->requires_grad || l->weight[i]->tape) {
            return false;
        }
    }
    return true;
}

/* dW = dyᵀ·x of the layers begin … end−1, dy being their columns: one product where their gradients can be one matrix. */
static attn_status give_weights(attn_tape *tape, const layers *l, int begin, int end,
                                const attn_view *x, const attn_view *dy)
{
    attn_view joined = {.data = NULL};
    attn_status status = ATTN_OK;
    bool accumulate = false;
    if (end - begin > 1 && all_want(l, begin, end)) {
        status = attn_grad_open_joined(end - begin, l->weight + begin, &accumulate, &joined);
    }
    if (status != ATTN_OK || joined.data) {
        attn_view dy_t = attn_view_transposed(dy);
        return status == ATTN_OK ? attn_matmul(tape->context, &dy_t, x, NULL, accumulate, &joined)
                                 : status;
    }
    for (int64_t i = begin, column = 0; i < end && status == ATTN_OK; i++) {
        int64_t n = l->weight[i]->view.shape[0];
        attn_view own = columns(dy, column, n);
        if (l->weight[i]->requires_grad) {
            status = give_weight(tape, l->weight[i], x, &own);
        }
        column += n;
    }
    return status;
}

static attn_status give_parameters(attn_tape *tape, const layers *l, const attn_view *x,
                                   const attn_view *dy)
{
    attn_status status = ATTN_OK;
    int64_t column = 0;
    attn_view weight, bias;
    for (int i = 0, end; i < l->count && status == ATTN_OK; i = end) {
        end = run_of(l, i, &weight, &bias);
        attn_view own = columns(dy, column, weight.shape[0]);
        status = give_weights(tape, l, i, end, x, &own);
        column += weight.shape[0];
    }
    column = 0;
    for (int i = 0; i < l->count && status == ATTN_OK; i++) {
        int64_t n = l->weight[i]->view.shape[0];
        attn_view own = columns(dy, column, n);
        if (l->bias[i] && l->bias[i]->requires_grad) {
            status = give_bias(tape, l->bias[i], &own);
        }
        column += n;
    }
    return status;
}

static attn_status give_input(attn_tape *tape, const layers *l, const attn_view *dy)
{
    attn_grad_target dx;
    attn_status status = attn_grad_rows(tape, l->x, NULL, &dx);
    bool accumulate = dx.accumulate;
    int64_t column = 0;
    attn_view weight, bias;
    for (int i = 0, end; i < l->count && status == ATTN_OK; i = end) {
        end = run_of(l, i, &weight, &bias);
        attn_view own = columns(dy, column, weight.shape[0]);
        status = attn_matmul(tape->context, &own, &weight, NULL, accumulate, &dx.rows);
        column += weight.shape[0];
        accumulate = true;
    }
    return attn_grad_done(tape, &dx, status);
}

static attn_status linear_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    layers l = layers_of((int)node->params.integer[0], node->in);
    attn_view rows_x, rows_dy;
    attn_tensor *held_x = attn_tensor_rows(tape, l.x, &rows_x);
    attn_tensor *held_dy = held_x ? attn_tensor_rows(tape, dy, &rows_dy) : NULL;
    attn_status status =
        held_dy ? give_parameters(tape, &l, &rows_x, &rows_dy) : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK && l.x->requires_grad) {
        status = give_input(tape, &l, &rows_dy);
    }
    attn_tensor_release(held_x);
    attn_tensor_release(held_dy);
    return status;
}

static const attn_op linear_op = {"linear", linear_backward};

/* ---- forward ---- */

static bool check_layer(attn_tape *tape, const attn_tensor *x, const attn_tensor *weight,
                        const attn_tensor *bias)
{
    char tx[ATTN_SHAPE_TEXT], tw[ATTN_SHAPE_TEXT];
    attn_shape_text(weight->view.ndim, weight->view.shape, tw);
    if (weight->view.ndim != 2 || x->view.shape[x->view.ndim - 1] != weight->view.shape[1]) {
        attn_op_fail(tape, ATTN_ERR_SHAPE,
                     "linear: x is %s and weight is %s; weight must be [out, in] with in = %lld, "
                     "x's last size",
                     attn_shape_text(x->view.ndim, x->view.shape, tx), tw,
                     (long long)x->view.shape[x->view.ndim - 1]);
        return false;
    }
    if (bias && (bias->view.ndim != 1 || bias->view.shape[0] != weight->view.shape[0])) {
        attn_op_fail(tape, ATTN_ERR_SHAPE, "linear: bias is %s and must be [%lld], as weight is %s",
                     attn_shape_text(bias->view.ndim, bias->view.shape, tx),
                     (long long)weight->view.shape[0], tw);
        return false;
    }
    return true;
}

/* All inputs and shapes; *out: the result's columns. */
static bool check_layers(attn_tape *tape, const layers *l, int64_t *out)
{
    *out = 0;
    for (int i = 0; i < l->count; i++) {
        attn_tensor *in[3] = {l->x, l->weight[i], l->bias[i]};
        if (!attn_op_begin(tape, &linear_op, in[2] ? 3 : 2, in) ||
            !check_layer(tape, l->x, l->weight[i], l->bias[i])) {
            return false;
        }
        if (__builtin_add_overflow(*out, l->weight[i]->view.shape[0], out)) {
            attn_op_fail(tape, ATTN_ERR_SHAPE, "linear: the weights' rows overflow when added");
            return false;
        }
    }
    return true;
}

/* y's columns of the layers that are one product. */
static attn_status run_forward(attn_tape *tape, const attn_view *x, const attn_view *weight,
                               attn_tensor *single_bias, attn_view *bias, const attn_view *y)
{
    attn_view weight_t = attn_view_transposed(weight);
    attn_tensor *held = NULL;
    if (bias->data && bias->stride[0] != 1 && bias->shape[0] != 1) { /* never one of several */
        held = attn_tensor_dense(tape, single_bias);
        if (!held) {
            return ATTN_ERR_NO_MEMORY;
        }
        *bias = held->view;
    }
    attn_status status =
        attn_matmul(tape->context, x, &weight_t, bias->data ? bias : NULL, false, y);
    attn_tensor_release(held);
    return status;
}

static attn_status forward(attn_tape *tape, const layers *l, attn_tensor *out)
{
    attn_view rows_x, rows_y, weight, bias;
    attn_tensor *held = attn_tensor_rows(tape, l->x, &rows_x);
    attn_status status = held ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    int64_t column = 0;
    attn_view_rows(&out->view, &rows_y);
    for (int i = 0, end; i < l->count && status == ATTN_OK; i = end) {
        end = run_of(l, i, &weight, &bias);
        attn_view own = columns(&rows_y, column, weight.shape[0]);
        status = run_forward(tape, &rows_x, &weight, l->bias[i], &bias, &own);
        column += weight.shape[0];
    }
    attn_tensor_release(held);
    return status;
}

attn_tensor *attn_tensor_linear_joined(attn_tape *tape, attn_tensor *x, int count,
                                       attn_tensor *const *weights, attn_tensor *const *biases)
{
    attn_tensor *in[1 + 2 * LAYERS] = {x};
    int64_t shape[4];
    if (count < 1 || count > LAYERS || !weights) {
        return attn_tape_fail(tape, attn_fail(ATTN_ERR_ARGUMENT,
                                              weights ? "linear: %d weights; 1 to %d are accepted"
                                                      : "linear: weights must not be NULL",
                                              count, LAYERS));
    }
    memcpy(in + 1, weights, sizeof *in * (size_t)count);
    if (biases) {
        memcpy(in + 1 + count, biases, sizeof *in * (size_t)count);
    }
    layers l = layers_of(count, in);
    if (!attn_op_begin(tape, &linear_op, 1 + count, in)) {
        return NULL;
    }
    int last = x->view.ndim - 1;
    memcpy(shape, x->view.shape, sizeof shape);
    if (!check_layers(tape, &l, &shape[last])) {
        return NULL;
    }
    attn_tensor *out = attn_op_result(tape, x->view.dtype, last + 1, shape, NULL);
    attn_params params = {.integer = {count}};
    return out && attn_op_ok(tape, forward(tape, &l, out))
               ? attn_op_record(tape, &linear_op, out, 1 + 2 * count, in, (1 << (1 + count)) - 1,
                                &params)
               : NULL;
}

attn_tensor *attn_tensor_linear(attn_tape *tape, attn_tensor *x, attn_tensor *weight,
                                attn_tensor *bias)
{
    return attn_tensor_linear_joined(tape, x, 1, &weight, &bias);
}
