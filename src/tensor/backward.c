/**
 * backward.c: the tape walked back. A result has a gradient only if the loss depends on it, and by the time the walk
 * comes to the operation that made it, every operation that used it has added its share: each runs once.
 */
#include "tensor/tensor.h"

/* Fails where something this operation's way back reads was written to since. */
static attn_status check_versions(const attn_node *node)
{
    for (int i = 0; i <= node->count; i++) {
        const attn_tensor *t = i < node->count ? node->in[i] : node->out;
        int bit = i < node->count ? 1 << (i < 29 ? i : 29) : ATTN_SAVED_OUT;
        if (t && (node->saved & bit) && t->storage->version != node->versions[i]) {
            char text[ATTN_SHAPE_TEXT];
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "backward of %s: %s %d, of shape %s, was changed in place after it "
                             "was used, and its old values are needed; change it after "
                             "attn_tape_backward, or use a copy",
                             node->op->name, i < node->count ? "input" : "result",
                             i < node->count ? i : 0,
                             attn_shape_text(t->view.ndim, t->view.shape, text));
        }
    }
    return ATTN_OK;
}

attn_status attn_tape_walk(attn_tape *tape, int64_t begin, int64_t end)
{
    attn_status status = ATTN_OK;
    for (int64_t i = end - 1; i >= begin; i--) {
        const attn_node *node = attn_tape_node(tape, i);
        attn_tensor *dy = node->out->grad;
        if (!dy) {
            continue; /* the loss does not depend on it */
        }
        node->out->grad = NULL;
        if (status == ATTN_OK) {
            status = check_versions(node);
        }
        if (status == ATTN_OK) {
            status = node->op->backward(tape, node, dy);
        }
        attn_tensor_release(dy); /* also after a failure: no gradient stays behind */
    }
    return status;
}

static attn_status check_loss(const attn_tape *tape, const attn_tensor *loss,
                              const attn_tensor *seed)
{
    char text[ATTN_SHAPE_TEXT], other[ATTN_SHAPE_TEXT];
    if (!loss) {
        return attn_fail(ATTN_ERR_ARGUMENT, "loss: must not be NULL");
    }
    if (loss->tape != tape) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "loss: nothing it was computed from on this tape requires a gradient; "
                         "call attn_tensor_require_grad on parameters before using them, and "
                         "check that the tape was recording");
    }
    if (!seed && attn_view_count(&loss->view) != 1) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "loss: %s is more than one number; take attn_tensor_mean_all of it, or "
                         "give a seed of its shape",
                         attn_shape_text(loss->view.ndim, loss->view.shape, text));
    }
    if (seed && seed->view.dtype != loss->view.dtype) {
        return attn_fail(ATTN_ERR_DTYPE, "seed: is %s, the loss is %s",
                         attn_dtype_name(seed->view.dtype), attn_dtype_name(loss->view.dtype));
    }
    if (seed && !attn_view_same_shape(&seed->view, &loss->view)) {
        return attn_fail(ATTN_ERR_SHAPE, "seed: %s must have the loss's shape %s",
                         attn_shape_text(seed->view.ndim, seed->view.shape, text),
                         attn_shape_text(loss->view.ndim, loss->view.shape, other));
    }
    return ATTN_OK;
}

attn_status attn_tape_backward(attn_tape *tape, attn_tensor *loss, const attn_tensor *seed)
{
    if (!tape) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tape: must not be NULL");
    }
    if (tape->status != ATTN_OK) {
        return tape->status; /* its text stands */
    }
    attn_status status = check_loss(tape, loss, seed);
    if (status != ATTN_OK) {
        return status;
    }
    bool accumulate = false;
    attn_tensor *start = attn_grad_open(tape, loss, &accumulate);
    if (!start) {
        return ATTN_ERR_NO_MEMORY;
    }
    status = seed ? attn_loop_copy(tape->context, &seed->view, &start->view, 1.0, false)
                  : attn_loop_fill(tape->context, &start->view, 1.0);
    if (status != ATTN_OK) {
        attn_tensor_release(loss->grad);
        loss->grad = NULL;
        return status;
    }
    return attn_tape_walk(tape, 0, loss->node + 1);
}
