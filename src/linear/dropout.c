/**
 * dropout.c: dropout of plain arrays. The mask of an element depends on its place in row-major order alone.
 */
#include "kernels/dropout/dropout_span.h"
#include "linear/elements.h"

#include <attn/train_ops.h>

typedef struct dropout_call {
    attn_dropout_span_fn *span;
    uint64_t seed;
    uint32_t threshold;
    double scale;
    bool f64;
} dropout_call;

static void dropout_run(void *argument, int64_t at, int64_t n, void *const *data)
{
    const dropout_call *c = argument;
    if (c->f64) {
        attn_dropout_span_f64_c(c->seed, c->threshold, c->scale, at, data[0], n, data[1]);
    } else {
        c->span(c->seed, c->threshold, (float)c->scale, at, data[0], n, data[1]);
    }
}

attn_status attn_dropout(attn_context *context, double p, uint64_t seed, const attn_view *x,
                         const attn_view *y)
{
    const attn_elements_view views[] = {{"x", x, false}, {"y", y, true}};
    attn_elements e;
    if (!(p >= 0.0 && p < 1.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "p: %g must be in [0, 1), the share that is dropped",
                         p);
    }
    attn_status status = attn_elements_make(context, 2, views, true, &e);
    if (status != ATTN_OK) {
        return status;
    }
    dropout_call c = {.span = attn_dropout_span_for(attn_context_isa(context)),
                      .seed = seed,
                      .threshold = (uint32_t)(p * 0x1p32),
                      .scale = 1.0 / (1.0 - p),
                      .f64 = e.dtype == ATTN_F64};
    attn_elements_run(context, &e, ATTN_ELEMENTS_PIECE, dropout_run, &c);
    return ATTN_OK;
}
