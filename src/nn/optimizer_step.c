/**
 * optimizer_step.c: one step of all parameters, and the learning rate's course.
 */
#include "nn/optimizer.h"

#include <attn/train_ops.h>

#include <math.h>

attn_step_options attn_step_options_init(void)
{
    return (attn_step_options){
        .struct_size = sizeof(attn_step_options), .lr = 1e-3, .grad_scale = 1.0};
}

static attn_status check_step(const attn_optimizer *optimizer, const attn_step_options *o)
{
    if (!optimizer) {
        return attn_fail(ATTN_ERR_ARGUMENT, "optimizer: must not be NULL");
    }
    if (!(o->lr >= 0.0 && isfinite(o->lr)) || !isfinite(o->grad_scale) ||
        !(o->clip >= 0.0 && isfinite(o->clip))) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "lr, grad_scale, clip: %g, %g, %g; finite, lr and clip not negative, for "
                         "example 1e-3, 1, 1",
                         o->lr, o->grad_scale, o->clip);
    }
    return ATTN_OK;
}

/* √Σ (grad_scale·g)² over all gradients, parameter after parameter. */
static attn_status global_norm(const attn_optimizer *optimizer, double grad_scale, double *norm)
{
    double total = 0.0;
    for (int i = 0; i < optimizer->count; i++) {
        const attn_tensor *grad = attn_tensor_grad(optimizer->entries[i].parameter);
        if (!grad) {
            continue;
        }
        attn_view view = attn_tensor_view(grad);
        double sum = 0.0;
        attn_status status = attn_sum_squares(optimizer->context, &view, &sum);
        if (status != ATTN_OK) {
            return status;
        }
        total += sum;
    }
    *norm = fabs(grad_scale) * sqrt(total);
    return ATTN_OK;
}

static attn_status step_adamw(const attn_optimizer *optimizer, const optimizer_entry *e, double lr,
                              double scale, const attn_view *p, const attn_view *g)
{
    attn_adamw_options o = attn_adamw_options_init();
    attn_view m = attn_tensor_write(e->slots[0]), v = attn_tensor_write(e->slots[1]);
    o.lr = lr;
    o.beta1 = optimizer->options.beta1;
    o.beta2 = optimizer->options.beta2;
    o.eps = optimizer->options.eps;
    o.weight_decay = e->weight_decay;
    o.grad_scale = scale;
    o.step = optimizer->steps + 1;
    return attn_adamw(optimizer->context, &o, p, g, &m, &v);
}

static attn_status step_sgd(const attn_optimizer *optimizer, const optimizer_entry *e, double lr,
                            double scale, const attn_view *p, const attn_view *g)
{
    attn_context *context = optimizer->context;
    if (!e->slots[0]) {
        return attn_axpby(context, -lr * scale, g, 1.0 - lr * e->weight_decay, p);
    }
    attn_view m = attn_tensor_write(e->slots[0]);
    attn_status status = attn_axpby(context, scale, g, optimizer->options.momentum, &m);
    if (status == ATTN_OK && e->weight_decay > 0.0) {
        status = attn_axpby(context, e->weight_decay, p, 1.0, &m);
    }
    return status == ATTN_OK ? attn_axpby(context, -lr, &m, 1.0, p) : status;
}

attn_status attn_optimizer_step(attn_optimizer *optimizer, const attn_step_options *options,
                                double *norm)
{
    attn_step_options o = attn_step_options_init();
    double size = 0.0;
    attn_status status =
        attn_take_struct("options", "attn_step_options_init", options, &o, sizeof o);
    if (status == ATTN_OK) {
        status = check_step(optimizer, &o);
    }
    if (status == ATTN_OK) {
        status = global_norm(optimizer, o.grad_scale, &size);
    }
    if (norm) {
        *norm = size;
    }
    if (status == ATTN_OK && !isfinite(size)) {
        status = attn_fail(ATTN_ERR_ARGUMENT,
                           "gradients: their norm is %g, nothing was changed; lower the learning "
                           "rate, clip, or look for what is not finite in the data",
                           size);
    }
    if (status != ATTN_OK) {
        return status;
    }
    double scale = o.clip > 0.0 && size > o.clip ? o.grad_scale * (o.clip / size) : o.grad_scale;
    for (int i = 0; i < optimizer->count && status == ATTN_OK; i++) {
        const optimizer_entry *e = &optimizer->entries[i];
        const attn_tensor *grad = attn_tensor_grad(e->parameter);
        if (!grad) {
            continue;
        }
        attn_view p = attn_tensor_write(e->parameter), g = attn_tensor_view(grad);
        status = (optimizer->options.kind == ATTN_OPTIMIZER_ADAMW ? step_adamw : step_sgd)(
            optimizer, e, o.lr * e->lr_scale, scale, &p, &g);
    }
    optimizer->steps += status == ATTN_OK;
    return status;
}

double attn_lr_cosine(int64_t step, int64_t warmup, int64_t total, double peak, double lowest)
{
    if (step < warmup) {
        return peak * (double)(step + 1) / (double)warmup;
    }
    if (step >= total - 1) {
        return lowest;
    }
    double way = (double)(step - warmup + 1) / (double)(total - warmup);
    return lowest + (peak - lowest) * 0.5 * (1.0 + cos(3.14159265358979323846 * way));
}
