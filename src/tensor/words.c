/**
 * words.c: into and out of a vocabulary: rows of an embedding table, and the loss of predicted words.
 */
#include "tensor/tensor.h"

#include <string.h>

/* ---- embedding ---- */

enum { ROWS = 64, BYTES = 256 }; /* rows of a forward task; bytes of a row of a backward task */

typedef struct embedding_call {
    const int64_t *ids;
    int64_t count, dim;
    attn_view table, out; /* [vocab, dim], [count, dim] */
    int64_t columns;
} embedding_call;

static void gather_task(void *argument, int64_t index, int worker)
{
    const embedding_call *c = argument;
    int64_t size = (int64_t)attn_dtype_size(c->table.dtype);
    int64_t end = (index + 1) * ROWS < c->count ? (index + 1) * ROWS : c->count;
    (void)worker;
    for (int64_t i = index * ROWS; i < end; i++) {
        memcpy((char *)c->out.data + i * c->out.stride[0] * size,
               (const char *)c->table.data + c->ids[i] * c->table.stride[0] * size,
               (size_t)(c->dim * size));
    }
}

/* table += out's rows, some columns of all words: a word may occur often, in this order. */
static void scatter_task(void *argument, int64_t index, int worker)
{
    const embedding_call *c = argument;
    int64_t from = index * c->columns, n = c->dim - from < c->columns ? c->dim - from : c->columns;
    (void)worker;
    for (int64_t i = 0; i < c->count; i++) {
        int64_t to = c->ids[i] * c->table.stride[0] + from, at = i * c->out.stride[0] + from;
        if (c->table.dtype == ATTN_F32) {
            float *restrict sum = (float *)c->table.data + to;
            const float *restrict x = (const float *)c->out.data + at;
            for (int64_t k = 0; k < n; k++) {
                sum[k] += x[k];
            }
        } else {
            double *restrict sum = (double *)c->table.data + to;
            const double *restrict x = (const double *)c->out.data + at;
            for (int64_t k = 0; k < n; k++) {
                sum[k] += x[k];
            }
        }
    }
}

static attn_status embedding_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *table = node->in[0];
    embedding_call c = {.ids = node->params.data, .dim = table->view.shape[1]};
    attn_grad_target target;
    attn_tensor *held = attn_tensor_rows(tape, dy, &c.out);
    if (!held) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = attn_grad_rows(tape, table, NULL, &target);
    if (status == ATTN_OK && !target.accumulate) {
        status = attn_loop_fill(tape->context, &target.rows, 0.0);
    }
    if (status == ATTN_OK) {
        c.table = target.rows;
        c.count = c.out.shape[0];
        c.columns = BYTES / (int64_t)attn_dtype_size(dy->view.dtype);
        status =
            attn_parallel_for(tape->context, (c.dim + c.columns - 1) / c.columns, scatter_task, &c);
    }
    status = attn_grad_done(tape, &target, status);
    attn_tensor_release(held);
    return status;
}

static const attn_op embedding_op = {"embedding", embedding_backward};

static bool check_ids(attn_tape *tape, const int64_t *ids, int ndim, const int64_t *shape,
                      int64_t vocab, int64_t *count)
{
    *count = 1;
    if (!ids || !shape || ndim < 1 || ndim > 3) {
        attn_op_fail(tape, ATTN_ERR_ARGUMENT, "embedding: %s",
                     ids && shape ? "ids have 1 to 3 dimensions"
                                  : "ids and shape must not be NULL");
        return false;
    }
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0 || (shape[i] > 0 && *count > INT64_MAX / 16 / shape[i])) {
            attn_op_fail(tape, ATTN_ERR_SHAPE, "embedding: size %d of ids is %lld", i,
                         (long long)shape[i]);
            return false;
        }
        *count *= shape[i];
    }
    for (int64_t i = 0; i < *count; i++) {
        if (ids[i] < 0 || ids[i] >= vocab) {
            attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                         "embedding: id %lld at place %lld is not in 0 to %lld, the rows of table",
                         (long long)ids[i], (long long)i, (long long)vocab - 1);
            return false;
        }
    }
    return true;
}

attn_tensor *attn_tensor_embedding(attn_tape *tape, attn_tensor *table, const int64_t *ids,
                                   int ndim, const int64_t *shape)
{
    embedding_call c = {.ids = ids};
    int64_t sizes[4];
    if (!attn_op_begin(tape, &embedding_op, 1, &table)) {
        return NULL;
    }
    if (table->view.ndim != 2) {
        char text[ATTN_SHAPE_TEXT];
        return attn_op_fail(tape, ATTN_ERR_SHAPE, "embedding: table is %s and must be [vocab, dim]",
                            attn_shape_text(table->view.ndim, table->view.shape, text));
    }
    c.dim = table->view.shape[1];
    if (!check_ids(tape, ids, ndim, shape, table->view.shape[0], &c.count)) {
        return NULL;
    }
    memcpy(sizes, shape, sizeof *shape * (size_t)ndim);
    sizes[ndim] = c.dim;
    attn_tensor *out = attn_op_result(tape, table->view.dtype, ndim + 1, sizes, NULL);
    int64_t *copy = out ? attn_op_memory(tape, sizeof *copy * (size_t)c.count) : NULL;
    attn_tensor *held = copy ? attn_tensor_rows(tape, table, &c.table) : NULL;
    if (!held) {
        return attn_tape_fail(tape, ATTN_ERR_NO_MEMORY);
    }
    memcpy(copy, ids, sizeof *copy * (size_t)c.count);
    attn_view_rows(&out->view, &c.out);
    attn_status status =
        attn_parallel_for(tape->context, (c.count + ROWS - 1) / ROWS, gather_task, &c);
    attn_tensor_release(held);
    attn_params params = {.data = copy};
    return attn_op_ok(tape, status)
               ? attn_op_record(tape, &embedding_op, out, 1, &table, 0, &params)
               : NULL;
}

/* ---- cross-entropy ---- */

static attn_status cross_entropy_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_tensor *logits = node->in[0];
    attn_view rows;
    double scale = attn_tensor_item(dy) * node->params.number[0];
    attn_tensor *held = attn_tensor_rows(tape, logits, &rows);
    attn_tensor *scratch = NULL;
    attn_grad_target target;
    if (!held) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = attn_grad_rows(tape, logits, NULL, &target);
    attn_view to = target.rows;
    if (status == ATTN_OK && target.accumulate) { /* attn_cross_entropy writes, it does not add */
        scratch = attn_grad_scratch(tape, rows.dtype, 2, rows.shape, NULL);
        status = scratch ? ATTN_OK : ATTN_ERR_NO_MEMORY;
        to = scratch ? scratch->view : to;
    }
    if (status == ATTN_OK) {
        status = attn_cross_entropy(tape->context, &rows, node->params.data, scale, NULL, &to);
    }
    if (status == ATTN_OK && scratch) {
        status = attn_loop_copy(tape->context, &to, &target.rows, 1.0, true);
    }
    status = attn_grad_done(tape, &target, status);
    attn_tensor_release(scratch);
    attn_tensor_release(held);
    return status;
}

static const attn_op cross_entropy_op = {"cross_entropy", cross_entropy_backward};

attn_tensor *attn_tensor_cross_entropy(attn_tape *tape, attn_tensor *logits, const int64_t *targets)
{
    const int64_t one[1] = {1};
    attn_view rows;
    if (!attn_op_begin(tape, &cross_entropy_op, 1, &logits)) {
        return NULL;
    }
    if (!targets) {
        return attn_op_fail(tape, ATTN_ERR_ARGUMENT, "cross_entropy: targets must not be NULL");
    }
    attn_tensor *out = attn_op_result(tape, logits->view.dtype, 1, one, NULL);
    attn_tensor *held = out ? attn_tensor_rows(tape, logits, &rows) : NULL;
    attn_tensor *losses = held ? attn_grad_scratch(tape, rows.dtype, 1, rows.shape, NULL) : NULL;
    int64_t count = losses ? rows.shape[0] : 0, counted = 0;
    int64_t *copy = losses ? attn_op_memory(tape, sizeof *copy * (size_t)count) : NULL;
    attn_status status = copy ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        memcpy(copy, targets, sizeof *copy * (size_t)count);
        status = attn_cross_entropy(tape->context, &rows, targets, 1.0, &losses->view, NULL);
    }
    for (int64_t i = 0; status == ATTN_OK && i < count; i++) {
        counted += targets[i] != -1;
    }
    double share = counted > 0 ? 1.0 / (double)counted : 0.0;
    if (status == ATTN_OK) {
        status = attn_loop_sum(tape, &losses->view, &out->view, share, false);
    }
    attn_tensor_release(losses);
    attn_tensor_release(held);
    attn_params params = {.number = {share}, .data = copy};
    return attn_op_ok(tape, status)
               ? attn_op_record(tape, &cross_entropy_op, out, 1, &logits, 1, &params)
               : NULL;
}
