/**
 * adamw.c: a step of AdamW, and the sum of squares that gradients are clipped by.
 */
#include "kernels/adamw/adamw.h"

#include "kernels/vector/vector.h"
#include "linear/elements.h"

#include <attn/train_ops.h>
#include <math.h>

attn_adamw_options attn_adamw_options_init(void)
{
    return (attn_adamw_options){.struct_size = sizeof(attn_adamw_options),
                                .lr = 1e-3,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay = 0.01,
                                .grad_scale = 1.0,
                                .step = 1};
}

static attn_status check_options(const attn_adamw_options *o)
{
    if (!(o->beta1 >= 0.0 && o->beta1 < 1.0 && o->beta2 >= 0.0 && o->beta2 < 1.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "beta1 and beta2: %g and %g must be in [0, 1)",
                         o->beta1, o->beta2);
    }
    if (!(o->eps > 0.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "eps: %g must be above 0; 1e-8 is usual", o->eps);
    }
    if (!isfinite(o->lr) || !isfinite(o->grad_scale) || !(o->weight_decay >= 0.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "lr %g and grad_scale %g must be finite, weight_decay %g at least 0",
                         o->lr, o->grad_scale, o->weight_decay);
    }
    if (o->step < 1) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "step: %lld must be at least 1, the first step's number",
                         (long long)o->step);
    }
    return ATTN_OK;
}

typedef struct adamw_call {
    attn_adamw_factors factors;
    const attn_adamw_table *kernels;
    bool f64;
} adamw_call;

static void adamw_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const adamw_call *c = argument;
    (void)at;
    if (c->f64) {
        attn_adamw_f64_c(&c->factors, data[1], n, data[0], data[2], data[3]);
    } else {
        c->kernels->step(&c->factors, data[1], n, data[0], data[2], data[3]);
    }
}

attn_status attn_adamw(attn_context *context, const attn_adamw_options *options, const attn_view *p,
                       const attn_view *g, const attn_view *m, const attn_view *v)
{
    const attn_elements_view views[] = {
        {"p", p, true}, {"g", g, false}, {"m", m, true}, {"v", v, true}};
    attn_adamw_options o = attn_adamw_options_init();
    attn_elements e;
    attn_status status =
        options ? attn_take_struct("options", "attn_adamw_options_init", options, &o, sizeof o)
                : attn_fail(ATTN_ERR_ARGUMENT, "options: must not be NULL; start from "
                                               "attn_adamw_options_init()");
    if (status == ATTN_OK) {
        status = check_options(&o);
    }
    if (status == ATTN_OK) {
        status = attn_elements_make(context, 4, views, true, &e);
    }
    if (status != ATTN_OK) {
        return status;
    }
    double step = (double)o.step;
    adamw_call c = {.kernels = attn_adamw_table_for(attn_context_isa(context)),
                    .f64 = e.dtype == ATTN_F64};
    c.factors = (attn_adamw_factors){
        .grad_scale = o.grad_scale,
        .beta1 = o.beta1,
        .rest1 = 1.0 - o.beta1,
        .beta2 = o.beta2,
        .rest2 = 1.0 - o.beta2,
        .decay = o.lr * o.weight_decay,
        .rate = o.lr / (1.0 - pow(o.beta1, step)),
        .correct2 = 1.0 / (1.0 - pow(o.beta2, step)),
        .eps = o.eps,
    };
    attn_elements_run(context, &e, ATTN_ELEMENTS_PIECE, adamw_run, &c);
    return ATTN_OK;
}

/* A sum for each piece, added up in order; the number of pieces is bounded so that they fit on the stack. */
enum { SUMS = 256 };

typedef struct squares_call {
    const attn_vector_table *kernels;
    bool f64;
    int64_t piece;
    double sum[SUMS];
} squares_call;

static void squares_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    squares_call *c = argument;
    c->sum[at / c->piece] +=
        c->f64 ? attn_vector_sum_squares_f64_c(data[0], n) : c->kernels->sum_squares(data[0], n);
}

attn_status attn_sum_squares(attn_context *context, const attn_view *x, double *sum)
{
    const attn_elements_view views[] = {{"x", x, false}};
    attn_elements e;
    if (!sum) {
        return attn_fail(ATTN_ERR_ARGUMENT, "sum: must not be NULL; pass where to put it");
    }
    attn_status status = attn_elements_make(context, 1, views, true, &e);
    if (status != ATTN_OK) {
        return status;
    }
    squares_call c = {.kernels = attn_vector_table_for(attn_context_isa(context)),
                      .f64 = e.dtype == ATTN_F64};
    int64_t even = e.count / SUMS + (e.count % SUMS != 0);
    c.piece = even > ATTN_ELEMENTS_PIECE ? even : ATTN_ELEMENTS_PIECE;
    attn_elements_run(context, &e, c.piece, squares_run, &c);
    double total = 0.0;
    for (int i = 0; i < SUMS; i++) {
        total += c.sum[i];
    }
    *sum = total;
    return ATTN_OK;
}
