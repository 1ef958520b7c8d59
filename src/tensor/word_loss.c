/**
 * word_loss.c: the last product of a language model and its cross-entropy, in pieces of rows: logits are as many as tokens times
 * vocabulary, and nothing else of a step is as large. A piece's gradients are computed while its logits are there, so backward has
 * only to scale them and hand them on.
 */
#include "tensor/tensor.h"

#include <attn/linear.h>

#include <string.h>

enum {
    X,
    WEIGHT,
    INPUTS,
    PIECE = 4 << 20, /* logits of a piece: 16 MiB in f32 */
    LEAST = 256      /* rows of one: the weight is read, and packed, once a piece */
};

/* One call; dx and dweight are NULL where nobody wants them. */
typedef struct call {
    attn_tape *tape;
    attn_view x, weight, weight_t; /* x as rows */
    const int64_t *targets;
    double share; /* of a row in the mean */
    attn_tensor *logits, *losses, *dx, *dweight;
} call;

static int64_t piece_rows(int64_t rows, int64_t vocab)
{
    int64_t fit = vocab > 0 ? PIECE / vocab : rows;
    fit = fit < LEAST ? LEAST : fit;
    return fit < rows ? fit : rows;
}

static attn_status run_piece(const call *c, int64_t begin, int64_t end)
{
    attn_context *context = c->tape->context;
    bool wanted = c->dx || c->dweight;
    attn_view x = attn_view_cut(c->x, 0, begin, end), dx;
    attn_view logits = attn_view_cut(c->logits->view, 0, 0, end - begin);
    attn_view losses = attn_view_cut(c->losses->view, 0, begin, end);
    attn_status status = attn_matmul(context, &x, &c->weight_t, NULL, false, &logits);
    if (status == ATTN_OK) {
        status = attn_cross_entropy(context, &logits, c->targets + begin, c->share, &losses,
                                    wanted ? &logits : NULL);
    }
    if (status == ATTN_OK && c->dx) {
        attn_view_rows(&c->dx->view, &dx);
        dx = attn_view_cut(dx, 0, begin, end);
        status = attn_matmul(context, &logits, &c->weight, NULL, false, &dx);
    }
    if (status == ATTN_OK && c->dweight) {
        attn_view logits_t = attn_view_transposed(&logits);
        status = attn_matmul(context, &logits_t, &x, NULL, begin > 0, &c->dweight->view);
    }
    return status;
}

static attn_status run(call *c, int64_t rows, int64_t vocab, attn_tensor *out)
{
    int64_t piece = piece_rows(rows, vocab), counted = 0;
    const int64_t shape[2] = {piece, vocab};
    for (int64_t r = 0; r < rows; r++) {
        counted += c->targets[r] != -1;
    }
    c->share = counted > 0 ? 1.0 / (double)counted : 0.0;
    c->losses = attn_grad_scratch(c->tape, c->x.dtype, 1, &rows, NULL);
    c->logits = c->losses ? attn_grad_scratch(c->tape, c->x.dtype, 2, shape, NULL) : NULL;
    attn_status status = c->logits ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    for (int64_t r = 0; r < rows && status == ATTN_OK; r += piece) {
        status = run_piece(c, r, r + piece < rows ? r + piece : rows);
    }
    if (status == ATTN_OK) {
        status = attn_loop_sum(c->tape, &c->losses->view, &out->view, c->share, false);
    }
    attn_tensor_release(c->losses);
    attn_tensor_release(c->logits);
    return status;
}

/* ---- backward ---- */

static attn_status give(attn_tape *tape, attn_tensor *to, attn_tensor *g, double scale)
{
    if (!g) {
        return ATTN_OK;
    }
    if (scale == 1.0) {
        return attn_grad_give(tape, to, g);
    }
    bool accumulate = false;
    attn_tensor *sum = attn_grad_open(tape, to, &accumulate);
    return sum ? attn_loop_copy(tape->context, &g->view, &sum->view, scale, accumulate)
               : ATTN_ERR_NO_MEMORY;
}

static attn_status loss_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    double scale = attn_tensor_item(dy);
    attn_status status = give(tape, node->in[X], node->params.tensor[X], scale);
    return status == ATTN_OK ? give(tape, node->in[WEIGHT], node->params.tensor[WEIGHT], scale)
                             : status;
}

static const attn_op loss_op = {"linear_cross_entropy", loss_backward};

/* ---- forward ---- */

static bool check(attn_tape *tape, attn_tensor *const *in, const int64_t *targets)
{
    char tx[ATTN_SHAPE_TEXT], tw[ATTN_SHAPE_TEXT];
    if (!attn_op_begin(tape, &loss_op, INPUTS, in)) {
        return false;
    }
    const attn_view *x = &in[X]->view, *w = &in[WEIGHT]->view;
    if (w->ndim != 2 || x->shape[x->ndim - 1] != w->shape[1]) {
        attn_op_fail(tape, ATTN_ERR_SHAPE,
                     "linear_cross_entropy: x is %s and weight is %s; weight must be [vocab, in] "
                     "with in = %lld, x's last size",
                     attn_shape_text(x->ndim, x->shape, tx), attn_shape_text(2, w->shape, tw),
                     (long long)x->shape[x->ndim - 1]);
        return false;
    }
    if (!targets) {
        attn_op_fail(tape, ATTN_ERR_ARGUMENT, "linear_cross_entropy: targets must not be NULL");
        return false;
    }
    return true;
}

/* A place for the gradient of one that wants it. False: no memory. */
static bool place(attn_tape *tape, const attn_tensor *t, attn_tensor **gradient)
{
    if (!tape->recording || !t->requires_grad) {
        return true;
    }
    *gradient = attn_op_result(tape, t->view.dtype, t->view.ndim, t->view.shape, NULL);
    return *gradient != NULL;
}

attn_tensor *attn_tensor_linear_cross_entropy(attn_tape *tape, attn_tensor *x, attn_tensor *weight,
                                              const int64_t *targets)
{
    attn_tensor *in[INPUTS] = {x, weight};
    const int64_t one[1] = {1};
    if (!check(tape, in, targets)) {
        return NULL;
    }
    call c = {.tape = tape, .targets = targets, .weight = weight->view};
    c.weight_t = attn_view_transposed(&weight->view);
    attn_tensor *out = attn_op_result(tape, x->view.dtype, 1, one, NULL);
    attn_tensor *held = NULL;
    if (out && place(tape, x, &c.dx) && place(tape, weight, &c.dweight)) {
        held = attn_tensor_rows(tape, x, &c.x);
    }
    attn_status status =
        held ? run(&c, c.x.shape[0], weight->view.shape[0], out) : ATTN_ERR_NO_MEMORY;
    attn_tensor_release(held);
    attn_params params = {.tensor = {c.dx, c.dweight}};
    return attn_op_ok(tape, status) ? attn_op_record(tape, &loss_op, out, INPUTS, in, 0, &params)
                                    : NULL;
}
