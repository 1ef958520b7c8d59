/**
 * softmax.c: softmax over the last dimension, its gradient, and cross-entropy; a row is one thread's.
 */
#include "kernels/softmax/softmax.h"

#include "linear/check.h"
#include "linear/elements.h"

#include <attn/train_ops.h>
#include <string.h>

typedef struct softmax_call {
    const attn_softmax_table *kernels;
    bool f64, log, accumulate;
    /* cross-entropy */
    const int64_t *targets;
    const attn_view *losses;
    double scale;
    bool gradient;
} softmax_call;

static softmax_call make_call(const attn_context *context, const attn_elements *e)
{
    return (softmax_call){.kernels = attn_softmax_table_for(attn_context_isa(context)),
                          .f64 = e->dtype == ATTN_F64};
}

static void forward_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const softmax_call *c = argument;
    (void)at;
    if (c->f64) {
        attn_softmax_f64_c(data[0], c->log, n, data[1]);
    } else {
        c->kernels->forward(data[0], c->log, n, data[1]);
    }
}

attn_status attn_softmax(attn_context *context, bool log, const attn_view *x, const attn_view *y)
{
    const attn_elements_view views[] = {{"x", x, false}, {"y", y, true}};
    attn_elements e;
    attn_status status = attn_elements_make(context, 2, views, false, &e);
    if (status != ATTN_OK) {
        return status;
    }
    softmax_call c = make_call(context, &e);
    c.log = log;
    attn_elements_run(context, &e, attn_elements_rows(&e), forward_run, &c);
    return ATTN_OK;
}

static void backward_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const softmax_call *c = argument;
    (void)at;
    if (c->f64) {
        attn_softmax_backward_f64_c(data[0], data[1], c->log, c->accumulate, n, data[2]);
    } else {
        c->kernels->backward(data[0], data[1], c->log, c->accumulate, n, data[2]);
    }
}

attn_status attn_softmax_backward(attn_context *context, bool log, const attn_view *y,
                                  const attn_view *dy, bool accumulate, const attn_view *dx)
{
    const attn_elements_view views[] = {{"y", y, false}, {"dy", dy, false}, {"dx", dx, true}};
    attn_elements e;
    attn_status status = attn_elements_make(context, 3, views, false, &e);
    if (status != ATTN_OK) {
        return status;
    }
    softmax_call c = make_call(context, &e);
    c.log = log;
    c.accumulate = accumulate;
    attn_elements_run(context, &e, attn_elements_rows(&e), backward_run, &c);
    return ATTN_OK;
}

static attn_status check_losses(const attn_view *logits, const attn_view *losses)
{
    attn_status status = attn_check_view("losses", losses);
    if (status != ATTN_OK) {
        return status;
    }
    if (losses->dtype != logits->dtype) {
        return attn_fail(ATTN_ERR_DTYPE, "losses: is %s, must be logits' %s",
                         attn_dtype_name(losses->dtype), attn_dtype_name(logits->dtype));
    }
    if (losses->ndim != 1 || losses->shape[0] != logits->shape[0]) {
        return attn_fail(ATTN_ERR_SHAPE, "losses: must be 1-D with logits' %lld rows",
                         (long long)logits->shape[0]);
    }
    if (losses->shape[0] > 1 && losses->stride[0] == 0) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "losses: stride 0; what is written must not overlap itself");
    }
    return ATTN_OK;
}

static attn_status check_targets(const attn_view *logits, const int64_t *targets)
{
    if (!targets && logits->shape[0] > 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "targets: must not be NULL");
    }
    for (int64_t r = 0; r < logits->shape[0]; r++) {
        if (targets[r] < -1 || targets[r] >= logits->shape[1]) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "targets: %lld in row %lld is not in 0 … %lld, nor −1 (ignored)",
                             (long long)targets[r], (long long)r, (long long)logits->shape[1] - 1);
        }
    }
    return ATTN_OK;
}

static void store_loss(const softmax_call *c, int64_t row, double loss)
{
    if (c->losses) {
        int64_t at = row * c->losses->stride[0];
        if (c->f64) {
            ((double *)c->losses->data)[at] = loss;
        } else {
            ((float *)c->losses->data)[at] = (float)loss;
        }
    }
}

static void cross_entropy_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const softmax_call *c = argument;
    int64_t row = at / n, target = c->targets[row];
    void *dx = c->gradient ? data[1] : NULL;
    double loss = 0.0;
    if (target >= 0 && c->f64) {
        loss = attn_softmax_cross_entropy_f64_c(data[0], target, c->scale, n, dx);
    } else if (target >= 0) {
        loss = c->kernels->cross_entropy(data[0], target, c->scale, n, dx);
    } else if (dx) {
        memset(dx, 0, (size_t)n * (c->f64 ? sizeof(double) : sizeof(float)));
    }
    store_loss(c, row, loss);
}

attn_status attn_cross_entropy(attn_context *context, const attn_view *logits,
                               const int64_t *targets, double scale, const attn_view *losses,
                               const attn_view *dlogits)
{
    losses = losses && losses->dtype != ATTN_DTYPE_NONE ? losses : NULL;
    dlogits = dlogits && dlogits->dtype != ATTN_DTYPE_NONE ? dlogits : NULL;
    const attn_elements_view views[] = {{"logits", logits, false}, {"dlogits", dlogits, true}};
    attn_elements e;
    attn_status status = attn_elements_make(context, dlogits ? 2 : 1, views, false, &e);
    if (status != ATTN_OK) {
        return status;
    }
    if (logits->ndim != 2) {
        return attn_fail(ATTN_ERR_SHAPE, "logits: has %d dimensions, must be [rows, vocab]",
                         logits->ndim);
    }
    if (!losses && !dlogits) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "losses and dlogits: both are NULL, there is nothing to compute");
    }
    if (losses) {
        status = check_losses(logits, losses);
    }
    if (status == ATTN_OK) {
        status = check_targets(logits, targets);
    }
    if (status != ATTN_OK) {
        return status;
    }
    softmax_call c = make_call(context, &e);
    c.targets = targets;
    c.losses = losses;
    c.scale = scale;
    c.gradient = dlogits != NULL;
    if (logits->shape[1] == 0) { /* every row is ignored */
        for (int64_t r = 0; r < logits->shape[0]; r++) {
            store_loss(&c, r, 0.0);
        }
    }
    attn_elements_run(context, &e, attn_elements_rows(&e), cross_entropy_run, &c);
    return ATTN_OK;
}
