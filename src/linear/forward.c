/**
 * forward.c: attn_linear_forward's checks.
 */
#include "linear/linear.h"

static attn_status check_matrix(const char *name, const attn_view *view)
{
    if (!view || view->dtype == ATTN_DTYPE_NONE) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must be a view, is %s", name,
                         view ? "a zeroed one" : "NULL");
    }
    if (view->dtype != ATTN_F32) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: is %s, must be f32; attn_convert makes it so", name,
                         attn_dtype_name(view->dtype));
    }
    if (view->ndim != 2) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: has %d dimensions, must be [rows, features]; fold batch and length "
                         "into rows",
                         name, view->ndim);
    }
    if (view->shape[0] < 0 || view->shape[1] < 0) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: shape [%lld, %lld] has a negative size", name,
                         (long long)view->shape[0], (long long)view->shape[1]);
    }
    if (view->shape[1] > 1 && view->stride[1] != 1) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: stride of the last dimension is %lld, must be 1",
                         name, (long long)view->stride[1]);
    }
    if (!view->data && view->shape[0] > 0 && view->shape[1] > 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: data must not be NULL", name);
    }
    return ATTN_OK;
}

static attn_status check_features(const char *name, const char *what, const attn_view *view,
                                  int64_t features)
{
    if (view->shape[1] != features) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: [%lld, %lld] has %lld columns, the layer's %s is %lld; did you pass "
                         "it transposed?",
                         name, (long long)view->shape[0], (long long)view->shape[1],
                         (long long)view->shape[1], what, (long long)features);
    }
    return ATTN_OK;
}

static attn_status check(const attn_context *context, const attn_linear *linear, const attn_view *x,
                         const attn_view *y)
{
    if (!context || !linear) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL", context ? "linear" : "context");
    }
    if (attn_context_isa(context) != linear->isa) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "context: its level is %s, the weights were packed for %s; create the "
                         "layer with a context of the same level",
                         attn_isa_name(attn_context_isa(context)), attn_isa_name(linear->isa));
    }
    attn_status status = check_matrix("x", x);
    if (status == ATTN_OK) {
        status = check_matrix("y", y);
    }
    if (status == ATTN_OK) {
        status = check_features("x", "in_features", x, linear->in);
    }
    if (status == ATTN_OK) {
        status = check_features("y", "out_features", y, linear->out);
    }
    if (status != ATTN_OK) {
        return status;
    }
    int64_t rows = x->shape[0];
    if (y->shape[0] != rows) {
        return attn_fail(ATTN_ERR_SHAPE, "y: has %lld rows, x has %lld", (long long)y->shape[0],
                         (long long)rows);
    }
    if (rows > 1 && y->stride[0] < linear->out && y->stride[0] > -linear->out) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "y: row stride %lld is below out_features %lld, rows would overlap",
                         (long long)y->stride[0], (long long)linear->out);
    }
    if (rows > 0 && x->data == y->data) {
        return attn_fail(ATTN_ERR_ARGUMENT, "y: is x's memory; the product cannot be in place");
    }
    return ATTN_OK;
}

attn_status attn_linear_forward(attn_context *context, const attn_linear *linear,
                                const attn_view *x, const attn_view *y)
{
    attn_status status = check(context, linear, x, y);
    if (status != ATTN_OK || x->shape[0] == 0) {
        return status;
    }
    /* A stride that is never used may hold anything. */
    int64_t rows = x->shape[0];
    int64_t ldx = rows > 1 ? x->stride[0] : 0, ldy = rows > 1 ? y->stride[0] : 0;
    if (linear->kind == ATTN_LINEAR_F32) {
        return attn_linear_forward_f32(context, linear, rows, x->data, ldx, y->data, ldy);
    }
    return attn_linear_forward_quant(context, linear, rows, x->data, ldx, y->data, ldy);
}
