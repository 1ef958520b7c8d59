/**
 * op.c: what operations begin with: are the inputs there, of one type and of this tape; and where results come from.
 */
#include "tensor/tensor.h"

attn_tensor *attn_tape_fail(attn_tape *tape, attn_status status)
{
    if (tape && tape->status == ATTN_OK) { /* later ones follow from it */
        tape->status = status;
    }
    return NULL;
}

bool attn_op_ok(attn_tape *tape, attn_status status)
{
    if (status != ATTN_OK) {
        attn_tape_fail(tape, status);
    }
    return status == ATTN_OK;
}

bool attn_op_begin(attn_tape *tape, const attn_op *op, int count, attn_tensor *const *inputs)
{
    if (!tape) {
        attn_fail(ATTN_ERR_ARGUMENT, "%s: tape must not be NULL", op->name);
        return false;
    }
    for (int i = 0; i < count; i++) {
        const attn_tensor *t = inputs[i];
        if (!t) {
            if (tape->status == ATTN_OK) { /* else an operation before has said what is wrong */
                attn_op_fail(tape, ATTN_ERR_ARGUMENT, "%s: input %d must not be NULL", op->name, i);
            }
            return false;
        }
        if (t->taken) {
            attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                         "%s: input %d was given to attn_tensor_sdpa_joined, which wrote over it; "
                         "attn_tensor_retain it before that call and it is copied there",
                         op->name, i);
            return false;
        }
        if (t->tape && t->tape != tape) {
            attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                         "%s: input %d was recorded on another tape; use one tape, or "
                         "attn_tensor_detach it there",
                         op->name, i);
            return false;
        }
        if (t->view.dtype != inputs[0]->view.dtype) {
            attn_op_fail(tape, ATTN_ERR_DTYPE,
                         "%s: input %d is %s and input 0 is %s; make them of one type", op->name, i,
                         attn_dtype_name(t->view.dtype), attn_dtype_name(inputs[0]->view.dtype));
            return false;
        }
    }
    return true;
}

attn_tensor *attn_op_result(attn_tape *tape, attn_dtype dtype, int ndim, const int64_t *shape,
                            const attn_view *like)
{
    attn_status status = attn_shape_check(dtype, ndim, shape);
    if (status != ATTN_OK) {
        return attn_tape_fail(tape, status);
    }
    attn_tensor *t = attn_tensor_make(tape->pool, dtype, ndim, shape, like);
    return t ? attn_tape_own(tape, t) : attn_tape_fail(tape, ATTN_ERR_NO_MEMORY);
}

attn_tensor *attn_op_view(attn_tape *tape, attn_tensor *a, const attn_view *view)
{
    attn_tensor *t = attn_tensor_alias(a, view);
    return t ? attn_tape_own(tape, t) : attn_tape_fail(tape, ATTN_ERR_NO_MEMORY);
}

void *attn_op_memory(attn_tape *tape, size_t bytes)
{
    int64_t shape[1] = {(int64_t)bytes};
    attn_tensor *t = attn_op_result(tape, ATTN_BOOL, 1, shape, NULL);
    return t ? t->view.data : NULL;
}

int attn_op_dim(attn_tape *tape, const attn_op *op, const attn_tensor *a, int dim)
{
    int ndim = a->view.ndim, at = dim < 0 ? dim + ndim : dim;
    if (at < 0 || at >= ndim) {
        char text[ATTN_SHAPE_TEXT];
        attn_op_fail(tape, ATTN_ERR_ARGUMENT, "%s: dim %d is not one of %s, which go from %d to %d",
                     op->name, dim, attn_shape_text(ndim, a->view.shape, text), -ndim, ndim - 1);
        return -1;
    }
    return at;
}
