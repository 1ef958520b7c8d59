/**
 * matmul.c: attn_matmul's checks, broadcasting, and the flattening of leading dimensions into rows.
 */
#include "linear/matmul.h"

#include "linear/check.h"

#include <attn/linear.h>

static attn_status check_operand(const char *name, const attn_view *view, const char *shape)
{
    attn_status status = attn_check_view(name, view);
    if (status != ATTN_OK) {
        return status;
    }
    if (view->dtype != ATTN_F32 && view->dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: is %s, must be f32 or f64; attn_convert makes it so",
                         name, attn_dtype_name(view->dtype));
    }
    if (view->ndim < 2) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: has 1 dimension, must be %s with 2 to 4", name,
                         shape);
    }
    return ATTN_OK;
}

static attn_status check_types(const attn_view *a, const attn_view *b, const attn_view *bias,
                               const attn_view *c)
{
    const attn_view *others[] = {b, bias, c};
    static const char *const names[] = {"b", "bias", "c"};
    for (int i = 0; i < 3; i++) {
        if (others[i] && others[i]->dtype != a->dtype) {
            return attn_fail(ATTN_ERR_DTYPE, "%s: is %s, a is %s; all must be one type", names[i],
                             attn_dtype_name(others[i]->dtype), attn_dtype_name(a->dtype));
        }
    }
    return ATTN_OK;
}

static attn_status check_bias(const attn_view *bias, int64_t n)
{
    attn_status status = attn_check_view("bias", bias);
    if (status != ATTN_OK) {
        return status;
    }
    if (bias->ndim != 1 || bias->shape[0] != n) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "bias: must be [%lld], one for each column of c; it is "
                         "%d-dimensional, its first size %lld",
                         (long long)n, bias->ndim, (long long)bias->shape[0]);
    }
    if (n > 1 && bias->stride[0] != 1) {
        return attn_fail(ATTN_ERR_SHAPE, "bias: stride is %lld, must be 1",
                         (long long)bias->stride[0]);
    }
    return ATTN_OK;
}

/* Sizes of the last two dimensions: a [m, k], b [k, n], c [m, n]. */
static attn_status check_inner(const attn_view *a, const attn_view *b, const attn_view *c)
{
    int64_t m = a->shape[a->ndim - 2], k = a->shape[a->ndim - 1];
    int64_t kb = b->shape[b->ndim - 2], n = b->shape[b->ndim - 1];
    if (k != kb) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "b: [%lld, %lld] cannot follow a's [%lld, %lld], its rows must be a's "
                         "columns; did you mean the transpose? Swap the last two sizes and strides "
                         "of the view",
                         (long long)kb, (long long)n, (long long)m, (long long)k);
    }
    if (c->shape[c->ndim - 2] != m || c->shape[c->ndim - 1] != n) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "c: is [.., %lld, %lld], a·b is [.., %lld, %lld]: give it that shape",
                         (long long)c->shape[c->ndim - 2], (long long)c->shape[c->ndim - 1],
                         (long long)m, (long long)n);
    }
    if (n > 1 && c->stride[c->ndim - 1] != 1) {
        return attn_fail(ATTN_ERR_SHAPE, "c: stride of the last dimension is %lld, must be 1",
                         (long long)c->stride[c->ndim - 1]);
    }
    return ATTN_OK;
}

/* Strides of view's leading dimensions where c's are lead[2], from the right; 0 where it has one of many. */
static attn_status broadcast(const char *name, const attn_view *view, const int64_t lead[2],
                             int64_t stride[2])
{
    for (int i = 0; i < 2; i++) {
        int d = view->ndim - 4 + i;
        int64_t size = d < 0 ? 1 : view->shape[d];
        stride[i] = size > 1 ? view->stride[d] : 0;
        if (size != 1 && size != lead[i]) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "%s: leading size %lld (dimension %d) does not broadcast to c's %lld; "
                             "it must be that or 1",
                             name, (long long)size, d, (long long)lead[i]);
        }
    }
    return ATTN_OK;
}

static int64_t stride_of(const attn_view *view, int from_last)
{
    int d = view->ndim - from_last;
    return view->shape[d] > 1 ? view->stride[d] : 0;
}

/* One b for all: leading dimensions of a and c that go on where their rows end are more rows. */
static void flatten(attn_matmul_call *call)
{
    for (int i = 1; i >= 0; i--) {
        int64_t size = call->lead[i];
        int64_t a = call->a_lead[i], c = call->c_lead[i], rows;
        if (size == 1) {
            continue;
        }
        bool follows = call->m == 1 || (a == call->m * call->a_row && c == call->m * call->c_row);
        if (call->b_lead[i] != 0 || !follows || __builtin_mul_overflow(size, call->m, &rows)) {
            return;
        }
        call->a_row = call->m == 1 ? a : call->a_row;
        call->c_row = call->m == 1 ? c : call->c_row;
        call->m = rows;
        call->lead[i] = 1;
        call->a_lead[i] = call->c_lead[i] = 0;
    }
}

static attn_status prepare(const attn_view *a, const attn_view *b, const attn_view *bias,
                           bool accumulate, const attn_view *c, attn_matmul_call *call)
{
    *call = (attn_matmul_call){
        .m = c->shape[c->ndim - 2],
        .n = c->shape[c->ndim - 1],
        .k = a->shape[a->ndim - 1],
        .a = a->data,
        .b = b->data,
        .bias = bias ? bias->data : NULL,
        .c = c->data,
        .a_row = stride_of(a, 2),
        .a_k = stride_of(a, 1),
        .b_k = stride_of(b, 2),
        .b_column = stride_of(b, 1),
        .c_row = stride_of(c, 2),
        .accumulate = accumulate,
    };
    for (int i = 0; i < 2; i++) {
        int d = c->ndim - 4 + i;
        call->lead[i] = d < 0 ? 1 : c->shape[d];
    }
    attn_status status = broadcast("c", c, call->lead, call->c_lead);
    status = status == ATTN_OK ? broadcast("a", a, call->lead, call->a_lead) : status;
    return status == ATTN_OK ? broadcast("b", b, call->lead, call->b_lead) : status;
}

static attn_status check(const attn_context *context, const attn_view *a, const attn_view *b,
                         const attn_view *bias, const attn_view *c)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status = check_operand("a", a, "[.., m, k]");
    status = status == ATTN_OK ? check_operand("b", b, "[.., k, n]") : status;
    status = status == ATTN_OK ? check_operand("c", c, "[.., m, n]") : status;
    status = status == ATTN_OK ? check_inner(a, b, c) : status;
    if (status == ATTN_OK && bias) {
        status = check_bias(bias, c->shape[c->ndim - 1]);
    }
    status = status == ATTN_OK ? check_types(a, b, bias, c) : status;
    return status == ATTN_OK ? attn_check_apart("c", c) : status;
}

attn_status attn_matmul(attn_context *context, const attn_view *a, const attn_view *b,
                        const attn_view *bias, bool accumulate, const attn_view *c)
{
    attn_matmul_call call;
    attn_status status = check(context, a, b, bias, c);
    status = status == ATTN_OK ? prepare(a, b, bias, accumulate, c, &call) : status;
    if (status != ATTN_OK) {
        return status;
    }
    if (call.lead[0] == 0 || call.lead[1] == 0 || call.m == 0 || call.n == 0) {
        return ATTN_OK;
    }
    flatten(&call);
    if (a->dtype == ATTN_F64) {
        attn_matmul_f64(context, &call);
        return ATTN_OK;
    }
    return attn_matmul_f32(context, &call);
}
