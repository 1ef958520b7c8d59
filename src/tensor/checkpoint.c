/**
 * checkpoint.c: activation checkpointing: forward unrecorded, results on the way released at once; backward runs the function again,
 * recorded behind the end of the tape, walks that part back, and cuts it off.
 * Source: Chen et al. 2016.
 */
#include "tensor/tensor.h"

#include <string.h>

static attn_status run_again(attn_tape *tape, const attn_params *params, attn_tensor **in,
                             int count, attn_tensor *dy)
{
    int64_t length = tape->length;
    tape->met = 0;
    attn_tensor *out = params->function(params->data, tape, in, count);
    if (!out || tape->status != ATTN_OK) {
        return tape->status != ATTN_OK
                   ? tape->status
                   : attn_fail(ATTN_ERR_ARGUMENT, "checkpoint: the function returned NULL");
    }
    if (!attn_view_same_shape(&out->view, &dy->view)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "checkpoint: the function returned another shape in "
                                            "backward than before; it must do the same again");
    }
    if (!out->requires_grad) {
        return ATTN_OK; /* nothing in it requires a gradient any more */
    }
    if (tape->met != (uint64_t)params->integer[0]) {
        return attn_fail(
            ATTN_ERR_ARGUMENT,
            "backward of checkpoint: a parameter that its function reads was changed in "
            "place after it was used, or the function read others; change parameters "
            "after attn_tape_backward");
    }
    attn_status status = attn_grad_give(tape, out, dy);
    /* A result from before (an input passed through) waits for its own turn. */
    return status == ATTN_OK ? attn_tape_walk(tape, length, tape->length) : status;
}

static attn_status checkpoint_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_params params =
        node->params; /* chunks of nodes stay where they are, but be plain about it */
    int64_t length = tape->length, results = tape->result_count;
    attn_status before = tape->status;
    uint64_t met = tape->met;
    bool recording = attn_tape_set_recording(tape, true);
    attn_status status = run_again(tape, &params, node->in, node->count, dy);
    attn_tape_set_recording(tape, recording);
    attn_tape_cut(tape, length, results);
    tape->met = met;
    tape->status = before; /* backward returns the failure; operations so far stand */
    return status;
}

static const attn_op checkpoint_op = {"checkpoint", checkpoint_backward};

attn_tensor *attn_tensor_checkpoint(attn_tape *tape, attn_tensor_function *function, void *user,
                                    attn_tensor *const *inputs, int count)
{
    if (!tape || !function || !inputs || count < 1) {
        attn_fail(ATTN_ERR_ARGUMENT, "checkpoint: %s",
                  !tape       ? "tape must not be NULL"
                  : !function ? "function must not be NULL"
                              : "needs at least one input");
        return attn_tape_fail(tape, ATTN_ERR_ARGUMENT);
    }
    if (!attn_op_begin(tape, &checkpoint_op, count, inputs)) {
        return NULL;
    }
    int64_t results = tape->result_count;
    bool met = tape->met_grad, recording = attn_tape_set_recording(tape, false);
    uint64_t before = tape->met;
    tape->met_grad = false;
    tape->met = 0;
    attn_tensor *made = function(user, tape, inputs, count);
    /* A tensor that is passed through wants its gradient without any operation. */
    bool wanted = tape->met_grad || attn_tensor_requires_grad(made);
    uint64_t read = tape->met;
    attn_tape_set_recording(tape, recording);
    tape->met_grad = met || wanted;
    tape->met = attn_tape_meet(before, read);
    if (!made) {
        attn_tape_cut(tape, tape->length, results);
        return tape->status != ATTN_OK ? NULL
                                       : attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                                                      "checkpoint: the function returned NULL");
    }
    attn_tensor *out = attn_tensor_alias(made, &made->view);
    attn_tape_cut(tape, tape->length, results); /* all but out goes back to the pool */
    out = out ? attn_tape_own(tape, out) : attn_tape_fail(tape, ATTN_ERR_NO_MEMORY);
    if (!out) {
        return NULL;
    }
    attn_params params = {.function = function, .data = user, .integer = {(int64_t)read}};
    return attn_op_record_as(tape, &checkpoint_op, out, count, inputs, ATTN_SAVED_INPUTS, &params,
                             wanted);
}
