/**
 * grad.c: where gradients gather. A result's gradient is memory of the pool, from the first operation that adds to it until the one
 * that made it has run back; the first share is passed on without a copy where it can be. A leaf's is its own and stays.
 */
#include "tensor/tensor.h"

attn_tensor *attn_grad_scratch(attn_tape *tape, attn_dtype dtype, int ndim, const int64_t *shape,
                               const attn_view *like)
{
    return attn_tensor_make(tape->pool, dtype, ndim, shape, like);
}

static attn_tensor *scratch_as(attn_tape *tape, const attn_view *v, const attn_view *like)
{
    return attn_tensor_make(tape->pool, v->dtype, v->ndim, v->shape, like);
}

/* A leaf's gradient is dense row-major: optimizers walk it from end to end. */
static attn_tensor *open_leaf(attn_tensor *t, bool *accumulate)
{
    *accumulate = t->grad_valid;
    if (!t->grad || (!t->grad_valid && !attn_tensor_exclusive(t->grad))) {
        attn_tensor_release(t->grad);
        t->grad = attn_tensor_make(NULL, t->view.dtype, t->view.ndim, t->view.shape, NULL);
    }
    if (t->grad) {
        t->grad_valid = true;
        t->grad->storage->version++;
    }
    return t->grad;
}

/* Whether the leaves' gradients are one matrix that nobody else sees. */
static bool one_matrix(int count, attn_tensor *const *leaves)
{
    const attn_tensor *first = leaves[0]->grad;
    for (int i = 0; i < count; i++) {
        const attn_tensor *g = leaves[i]->grad;
        if (!g || g->references != 1 || g->storage != first->storage ||
            (i > 0 && !attn_view_follows(&leaves[i - 1]->grad->view, &g->view))) {
            return false;
        }
    }
    return first->storage->references == count;
}

/* New memory for all of them. */
static attn_status make_matrix(int count, attn_tensor *const *leaves, int64_t rows)
{
    attn_view part = leaves[0]->view;
    int64_t shape[2] = {rows, part.shape[1]}, row = 0;
    attn_tensor *all = attn_tensor_make(NULL, part.dtype, part.ndim, shape, NULL);
    for (int i = 0; all && i < count; i++) {
        int64_t end = row + leaves[i]->view.shape[0];
        part = attn_view_cut(all->view, 0, row, end);
        attn_tensor_release(leaves[i]->grad);
        leaves[i]->grad = attn_tensor_alias(all, &part);
        if (!leaves[i]->grad) {
            attn_tensor_release(all);
            return ATTN_ERR_NO_MEMORY;
        }
        row = end;
    }
    attn_tensor_release(all);
    return all ? ATTN_OK : ATTN_ERR_NO_MEMORY;
}

attn_status attn_grad_open_joined(int count, attn_tensor *const *leaves, bool *accumulate,
                                  attn_view *view)
{
    int64_t rows = 0;
    int valid = 0;
    *view = (attn_view){.data = NULL};
    for (int i = 0; i < count; i++) {
        rows += leaves[i]->view.shape[0];
        valid += leaves[i]->grad_valid;
    }
    bool ready = (valid == 0 || valid == count) && one_matrix(count, leaves);
    if (!ready && valid > 0) {
        return ATTN_OK;
    }
    attn_status status = ready ? ATTN_OK : make_matrix(count, leaves, rows);
    if (status != ATTN_OK) {
        return status;
    }
    *view = leaves[0]->grad->view;
    view->shape[0] = rows;
    *accumulate = valid > 0;
    leaves[0]->grad->storage->version++;
    for (int i = 0; i < count; i++) {
        leaves[i]->grad_valid = true;
    }
    return ATTN_OK;
}

attn_tensor *attn_grad_open(attn_tape *tape, attn_tensor *t, bool *accumulate)
{
    if (!t->tape) {
        return open_leaf(t, accumulate);
    }
    *accumulate = t->grad != NULL;
    if (!t->grad) {
        t->grad = scratch_as(tape, &t->view, &t->view);
    } else if (!attn_tensor_exclusive(t->grad)) {
        /* Shared with another result's gradient, which must not see what is added here. */
        attn_tensor *own = scratch_as(tape, &t->view, &t->view);
        if (own && attn_loop_copy(tape->context, &t->grad->view, &own->view, 1.0, false)) {
            attn_tensor_release(own);
            own = NULL;
        }
        if (!own) {
            return NULL;
        }
        attn_tensor_release(t->grad);
        t->grad = own;
    }
    return t->grad;
}

attn_tensor *attn_grad_open_over(attn_tape *tape, attn_tensor *t, attn_tensor *dy, bool *accumulate)
{
    if (t->tape && !t->grad && attn_tensor_exclusive(dy) && attn_view_is_packed(&dy->view)) {
        *accumulate = false;
        t->grad = attn_tensor_retain(dy);
        return dy;
    }
    return attn_grad_open(tape, t, accumulate);
}

attn_status attn_grad_give(attn_tape *tape, attn_tensor *t, attn_tensor *g)
{
    if (t->tape && !t->grad) {
        t->grad = attn_tensor_retain(g);
        return ATTN_OK;
    }
    bool accumulate = false;
    attn_tensor *sum = attn_grad_open(tape, t, &accumulate);
    if (!sum) {
        return ATTN_ERR_NO_MEMORY;
    }
    return attn_loop_copy(tape->context, &g->view, &sum->view, 1.0, accumulate);
}

attn_status attn_grad_give_reduced(attn_tape *tape, attn_tensor *t, attn_tensor *g)
{
    if (attn_view_same_shape(&t->view, &g->view)) {
        return attn_grad_give(tape, t, g);
    }
    bool accumulate = false;
    attn_tensor *sum = attn_grad_open(tape, t, &accumulate);
    if (!sum) {
        return ATTN_ERR_NO_MEMORY;
    }
    return attn_loop_sum(tape, &g->view, &sum->view, 1.0, accumulate);
}

static attn_tensor *copy_of(attn_tape *tape, attn_tensor *t)
{
    attn_tensor *copy = scratch_as(tape, &t->view, NULL);
    if (copy && attn_loop_copy(tape->context, &t->view, &copy->view, 1.0, false) != ATTN_OK) {
        attn_tensor_release(copy);
        return NULL;
    }
    return copy;
}

attn_tensor *attn_tensor_dense(attn_tape *tape, attn_tensor *t)
{
    return attn_view_is_dense(&t->view) ? attn_tensor_retain(t) : copy_of(tape, t);
}

attn_tensor *attn_tensor_rows(attn_tape *tape, attn_tensor *t, attn_view *rows)
{
    attn_tensor *held = attn_view_rows(&t->view, rows) ? attn_tensor_retain(t) : copy_of(tape, t);
    if (held && held != t) {
        attn_view_rows(&held->view, rows);
    }
    return held;
}

typedef bool fits_function(const attn_view *v, attn_view *as);

static bool fits_dense(const attn_view *v, attn_view *as)
{
    *as = *v;
    return attn_view_is_dense(v);
}

static attn_status open_target(attn_tape *tape, attn_tensor *t, attn_tensor *dy,
                               fits_function *fits, attn_grad_target *target)
{
    *target = (attn_grad_target){.owner = t};
    bool over = dy && fits(&dy->view, &target->rows);
    attn_tensor *g = over ? attn_grad_open_over(tape, t, dy, &target->accumulate)
                          : attn_grad_open(tape, t, &target->accumulate);
    if (!g) {
        return ATTN_ERR_NO_MEMORY;
    }
    if (fits(&g->view, &target->rows)) {
        return ATTN_OK;
    }
    target->scratch = scratch_as(tape, &t->view, NULL);
    if (!target->scratch) {
        return ATTN_ERR_NO_MEMORY;
    }
    fits(&target->scratch->view, &target->rows);
    if (target->accumulate) {
        target->accumulate = false;
        return ATTN_OK;
    }
    return attn_loop_fill(tape->context, &g->view, 0.0);
}

attn_status attn_grad_rows(attn_tape *tape, attn_tensor *t, attn_tensor *dy,
                           attn_grad_target *target)
{
    return open_target(tape, t, dy, attn_view_rows, target);
}

attn_status attn_grad_dense(attn_tape *tape, attn_tensor *t, attn_tensor *dy,
                            attn_grad_target *target)
{
    return open_target(tape, t, dy, fits_dense, target);
}

attn_status attn_grad_fresh(attn_tape *tape, attn_tensor *t, attn_grad_target *target)
{
    *target = (attn_grad_target){.owner = t};
    if (t->requires_grad && !(t->tape ? t->grad != NULL : t->grad_valid)) {
        return attn_grad_rows(tape, t, NULL, target);
    }
    target->scratch = scratch_as(tape, &t->view, NULL);
    if (!target->scratch) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_view_rows(&target->scratch->view, &target->rows);
    return ATTN_OK;
}

attn_status attn_grad_done(attn_tape *tape, attn_grad_target *target, attn_status status)
{
    if (target->scratch && status == ATTN_OK) {
        status = attn_grad_give(tape, target->owner, target->scratch);
    }
    attn_tensor_release(target->scratch);
    target->scratch = NULL;
    return status;
}
