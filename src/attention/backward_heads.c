/* What backward knows per row and is asked for per head: the gradients of sinks and of slopes. */
#include "attention/backward_flash.h"
#include "par/context.h"

#include <math.h>

/* A sink has the weight e^(sink − lse) in every row of its head, and adds nothing to out. */
static double sink_row(const backward_job *job, int64_t b, int64_t h, int64_t i)
{
    const sdpa_call *call = &job->call->call;
    double lse = (double)*(const float *)backward_at(&call->lse, b, h, i);
    if (lse == -(double)INFINITY) { /* nothing to attend to: the sink is not there either */
        return 0.0;
    }
    return -exp(sdpa_sink(call, h) - lse) * (double)*backward_delta_at(job, b, h, i);
}

/* One query head: sums over its rows in double, in their order. */
static void task(void *argument, int64_t h, int worker)
{
    (void)worker;
    const backward_job *job = argument;
    const sdpa_backward_call *back = job->call;
    const sdpa_call *call = &back->call;
    bool sinks = back->dsinks.dtype != ATTN_DTYPE_NONE;
    bool slopes = back->dalibi.dtype != ATTN_DTYPE_NONE;
    double sink = 0.0, slope = 0.0;
    const double *rows = (const double *)(const void *)(job->shared + job->layout.slopes);
    for (int64_t b = 0; b < call->batch; b++) {
        int64_t count = sdpa_rows(call, b), head = b * call->heads_kv + h / call->group;
        for (int64_t i = 0; i < count; i++) {
            sink += sinks ? sink_row(job, b, h, i) : 0.0;
            slope += slopes ? rows[(head * call->len_q + i) * call->group + h % call->group] : 0.0;
        }
    }
    if (sinks) {
        ((float *)back->dsinks.data)[h * back->dsinks.stride[0]] = (float)sink;
    }
    if (slopes) {
        ((float *)back->dalibi.data)[h * back->dalibi.stride[0]] = (float)slope;
    }
}

void backward_heads(const backward_job *job)
{
    const sdpa_backward_call *back = job->call;
    if (back->dsinks.dtype != ATTN_DTYPE_NONE || back->dalibi.dtype != ATTN_DTYPE_NONE) {
        backward_job copy = *job;
        attn_context_run(back->call.context, back->call.heads_q, true, task, &copy);
    }
}
