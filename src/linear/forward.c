/**
 * forward.c: attn_linear_forward's checks.
 */
#include "linear/check.h"
#include "linear/linear.h"

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
    attn_status status = attn_check_f32("x", x, 2, "[rows, in_features]");
    if (status == ATTN_OK) {
        status = attn_check_f32("y", y, 2, "[rows, out_features]");
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
    if (rows > 0 && x->data == y->data) {
        return attn_fail(ATTN_ERR_ARGUMENT, "y: is x's memory; the product cannot be in place");
    }
    return attn_check_rows_apart("y", y);
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
