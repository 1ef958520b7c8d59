/**
 * ops_backward.c: gradients of the norms and of SwiGLU. Rows go in blocks of a fixed size, whose sums for dweight and dbias
 * are added in their order afterwards: bits do not depend on threads.
 */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/norm/norm.h"
#include "kernels/swiglu/swiglu.h"
#include "linear/check.h"
#include "linear/sum_rows.h"
#include "par/context.h"

#include <attn/ops.h>

enum {
    ROWS = 32,    /* of a block */
    PIECE = 16384 /* elements of a task: below it waking a thread costs more than it saves */
};

/* A view that is asked for: there and not zeroed. */
static bool wanted(const attn_view *view)
{
    return view && view->dtype != ATTN_DTYPE_NONE;
}

static void *row_at(const attn_view *view, int64_t row)
{
    int64_t stride = view->shape[0] > 1 ? view->stride[0] : 0;
    return (char *)view->data + row * stride * (int64_t)attn_dtype_size(view->dtype);
}

/* ---- norms -------------------------------------------------------------------------------------- */

typedef struct norm_call {
    const attn_view *x, *weight, *dy, *dx, *dweight, *dbias; /* NULL: not there */
    double eps;
    bool layer, accumulate;
    attn_norm_backward_fn *kernel;
    int64_t group;  /* blocks of a task */
    int64_t stride; /* elements of a block's sums */
    char *partial;  /* [blocks][dweight, dbias] */
} norm_call;

static void norm_block(const norm_call *c, int64_t block)
{
    size_t size = attn_dtype_size(c->x->dtype);
    int64_t rows = c->x->shape[0], n = c->x->shape[1];
    int64_t end = (block + 1) * ROWS < rows ? (block + 1) * ROWS : rows;
    char *sums = c->partial ? c->partial + (size_t)(block * c->stride) * size : NULL;
    if (sums) {
        memset(sums, 0, (size_t)c->stride * size);
    }
    attn_norm_gradient g = {
        .weight = c->weight ? c->weight->data : NULL,
        .dweight = c->dweight ? sums : NULL,
        .dbias = c->dbias ? sums + (c->dweight ? (size_t)n * size : 0) : NULL,
        .eps = c->eps,
        .n = n,
        .layer = c->layer,
        .accumulate = c->accumulate,
    };
    for (int64_t r = block * ROWS; r < end; r++) {
        g.x = row_at(c->x, r);
        g.dy = row_at(c->dy, r);
        g.dx = c->dx ? row_at(c->dx, r) : NULL;
        c->kernel(&g);
    }
}

static void norm_task(void *argument, int64_t index, int worker)
{
    const norm_call *c = argument;
    int64_t blocks = (c->x->shape[0] - 1) / ROWS + 1;
    (void)worker;
    for (int64_t b = index * c->group; b < (index + 1) * c->group && b < blocks; b++) {
        norm_block(c, b);
    }
}

static attn_status run_norm(attn_context *context, norm_call *c)
{
    int64_t rows = c->x->shape[0], n = c->x->shape[1];
    int64_t blocks = rows / ROWS + (rows % ROWS != 0), sums = !!c->dweight + !!c->dbias;
    if (sums > 0) {
        size_t size;
        void *scratch;
        if (!attn_mul_size((size_t)(blocks * sums), (size_t)n, &size) ||
            !attn_mul_size(size, attn_dtype_size(c->x->dtype), &size)) {
            return attn_fail(ATTN_ERR_SHAPE, "x: [%lld, %lld] is larger than memory can be",
                             (long long)rows, (long long)n);
        }
        attn_status status = attn_context_scratch(context, size, &scratch);
        if (status != ATTN_OK) {
            return status;
        }
        c->partial = scratch;
        c->stride = sums * n;
    }
    c->group = n * ROWS >= PIECE ? 1 : PIECE / (n * ROWS);
    if (blocks > 0) {
        attn_context_run(context, (blocks - 1) / c->group + 1, c->x->dtype == ATTN_F32, norm_task,
                         c);
    }
    if (c->dweight) {
        attn_sum_blocks(context, c->partial, blocks, c->stride, c->accumulate, c->dweight);
    }
    if (c->dbias) {
        char *first =
            c->dweight ? c->partial + (size_t)n * attn_dtype_size(c->x->dtype) : c->partial;
        attn_sum_blocks(context, first, blocks, c->stride, c->accumulate, c->dbias);
    }
    return ATTN_OK;
}

/* [dim] beside x. */
static attn_status check_vector(const char *name, const attn_view *view, const attn_view *x)
{
    attn_status status = attn_check_float(name, view, 1, "[dim]");
    if (status == ATTN_OK && view->shape[0] != x->shape[1]) {
        status = attn_fail(ATTN_ERR_SHAPE, "%s: [%lld] does not match the %lld columns of x", name,
                           (long long)view->shape[0], (long long)x->shape[1]);
    }
    return status;
}

/* [rows, dim] beside x. */
static attn_status check_matrix(const char *x_name, const attn_view *x, const char *name,
                                const attn_view *view, bool written)
{
    attn_status status = attn_check_float(name, view, 2, "[rows, dim]");
    if (status == ATTN_OK && view->dtype != x->dtype) {
        status = attn_fail(ATTN_ERR_DTYPE, "%s: is %s, %s is %s; both must be one type", name,
                           attn_dtype_name(view->dtype), x_name, attn_dtype_name(x->dtype));
    }
    status = status == ATTN_OK ? attn_check_same_shape(x_name, x, name, view) : status;
    return status == ATTN_OK && written ? attn_check_rows_apart(name, view) : status;
}

static attn_status check_norm(const attn_context *context, const norm_call *c)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status = attn_check_float("x", c->x, 2, "[rows, dim]");
    if (status == ATTN_OK && c->x->shape[1] < 1) {
        status = attn_fail(ATTN_ERR_SHAPE, "x: rows of length 0 have no mean");
    }
    if (status == ATTN_OK && !(c->eps >= 0.0)) {
        status = attn_fail(ATTN_ERR_ARGUMENT, "eps: %g must be at least 0; 1e-5 is usual", c->eps);
    }
    status = status == ATTN_OK ? check_matrix("x", c->x, "dy", c->dy, false) : status;
    if (status == ATTN_OK && c->dx) {
        status = check_matrix("x", c->x, "dx", c->dx, true);
    }
    const attn_view *vectors[] = {c->weight, c->dweight, c->dbias};
    static const char *const names[] = {"weight", "dweight", "dbias"};
    for (int i = 0; status == ATTN_OK && i < 3; i++) {
        status = vectors[i] ? check_vector(names[i], vectors[i], c->x) : ATTN_OK;
        if (status == ATTN_OK && vectors[i] && vectors[i]->dtype != c->x->dtype) {
            status = attn_fail(ATTN_ERR_DTYPE, "%s: is %s, x is %s; all must be one type", names[i],
                               attn_dtype_name(vectors[i]->dtype), attn_dtype_name(c->x->dtype));
        }
    }
    return status;
}

static attn_status norm_backward(attn_context *context, norm_call *c)
{
    c->weight = wanted(c->weight) ? c->weight : NULL;
    c->dx = wanted(c->dx) ? c->dx : NULL;
    c->dweight = wanted(c->dweight) ? c->dweight : NULL;
    c->dbias = wanted(c->dbias) ? c->dbias : NULL;
    attn_status status = check_norm(context, c);
    if (status != ATTN_OK) {
        return status;
    }
    c->kernel = c->x->dtype == ATTN_F64 ? attn_norm_backward_f64_c
                                        : attn_norm_table_for(attn_context_isa(context))->backward;
    return run_norm(context, c);
}

attn_status attn_rms_norm_backward(attn_context *context, const attn_view *x,
                                   const attn_view *weight, double eps, const attn_view *dy,
                                   bool accumulate, const attn_view *dx, const attn_view *dweight)
{
    norm_call c = {.x = x, .weight = weight, .dy = dy, .dx = dx, .dweight = dweight};
    c.eps = eps;
    c.accumulate = accumulate;
    return norm_backward(context, &c);
}

attn_status attn_layer_norm_backward(attn_context *context, const attn_view *x,
                                     const attn_view *weight, double eps, const attn_view *dy,
                                     bool accumulate, const attn_view *dx, const attn_view *dweight,
                                     const attn_view *dbias)
{
    norm_call c = {
        .x = x, .weight = weight, .dy = dy, .dx = dx, .dweight = dweight, .dbias = dbias};
    c.eps = eps;
    c.layer = true;
    c.accumulate = accumulate;
    return norm_backward(context, &c);
}

/* ---- SwiGLU ------------------------------------------------------------------------------------- */

typedef struct swiglu_call {
    const attn_view *gate, *up, *dy, *dgate, *dup;
    attn_swiglu_backward_fn *kernel;
    int64_t rows_per_piece;
} swiglu_call;

static void swiglu_f64(const double *gate, const double *up, const double *dy, int64_t n,
                       double *dgate, double *dup)
{
    for (int64_t i = 0; i < n; i++) {
        double g = gate[i], u = up[i], d = dy[i], sigma = 1.0 / (1.0 + exp(-g));
        dgate[i] = d * u * (sigma * (1.0 + g * (1.0 - sigma)));
        dup[i] = d * (g / (1.0 + exp(-g)));
    }
}

static void swiglu_task(void *argument, int64_t index, int worker)
{
    const swiglu_call *c = argument;
    int64_t rows = c->gate->shape[0], n = c->gate->shape[1];
    int64_t end = (index + 1) * c->rows_per_piece;
    (void)worker;
    for (int64_t r = index * c->rows_per_piece; r < end && r < rows; r++) {
        if (c->gate->dtype == ATTN_F64) {
            swiglu_f64(row_at(c->gate, r), row_at(c->up, r), row_at(c->dy, r), n,
                       row_at(c->dgate, r), row_at(c->dup, r));
        } else {
            c->kernel(row_at(c->gate, r), row_at(c->up, r), row_at(c->dy, r), n,
                      row_at(c->dgate, r), row_at(c->dup, r));
        }
    }
}

attn_status attn_swiglu_backward(attn_context *context, const attn_view *gate, const attn_view *up,
                                 const attn_view *dy, const attn_view *dgate, const attn_view *dup)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status = attn_check_float("gate", gate, 2, "[rows, n]");
    status = status == ATTN_OK ? check_matrix("gate", gate, "up", up, false) : status;
    status = status == ATTN_OK ? check_matrix("gate", gate, "dy", dy, false) : status;
    status = status == ATTN_OK ? check_matrix("gate", gate, "dgate", dgate, true) : status;
    status = status == ATTN_OK ? check_matrix("gate", gate, "dup", dup, true) : status;
    if (status != ATTN_OK || gate->shape[0] == 0 || gate->shape[1] == 0) {
        return status;
    }
    swiglu_call c = {.gate = gate, .up = up, .dy = dy, .dgate = dgate, .dup = dup};
    int64_t n = gate->shape[1];
    c.kernel = attn_swiglu_backward_for(attn_context_isa(context));
    c.rows_per_piece = n >= PIECE ? 1 : PIECE / n;
    attn_context_run(context, (gate->shape[0] - 1) / c.rows_per_piece + 1, gate->dtype == ATTN_F32,
                     swiglu_task, &c);
    return ATTN_OK;
}
