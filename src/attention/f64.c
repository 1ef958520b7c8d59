/*
 * The exact path: f64 arrays, one query row at a time, every option in its plainest form. This is
 * the function to read to see what attention computes, and the oracle that users can compare with.
 */
#include "attention/call.h"
#include "base/alloc.h"
#include "kernels/flash/flash_f64.h"
#include "par/context.h"

#include <math.h>
#include <string.h>

enum {
    KEYS = 256,       /* keys at a time: scratch does not grow with len_k */
    ROWS_PER_TASK = 8 /* rows of one head share K and V in cache */
};

/* What a worker has for itself. */
typedef struct f64_scratch {
    double s[KEYS], addend[KEYS];
    unsigned char hidden[KEYS];
    float keep[KEYS];
    double out[]; /* [dim_v], not divided yet */
} f64_scratch;

/* One row and what the online softmax knows of it: running maximum and Σ exp(s − maximum). */
typedef struct f64_row {
    int64_t b, h, i;
    const double *q;
    double maximum, sum;
} f64_row;

sdpa_needs sdpa_f64_needs(const sdpa_call *call)
{
    int64_t blocks = (call->len_q + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
    return (sdpa_needs){
        .per_worker = sizeof(f64_scratch) + (size_t)call->dim_v * sizeof(double),
        .tasks = call->batch * call->heads_q * blocks,
        .kernel = "rows_f64_c",
    };
}

/*
 * Scores of columns begin … begin+count−1, capped and biased; hidden[] where mask or bias hide the
 * slot.
 */
static sdpa_kv_run scores(const sdpa_call *call, const f64_row *row, int64_t begin, int64_t wanted,
                          f64_scratch *t)
{
    sdpa_kv_run run = sdpa_kv_at(call, row->b, row->h / call->group, begin, wanted);
    attn_flash_f64_scores(row->q, run.k, run.k_stride, call->dim_qk, run.count, call->scale, t->s);
    if (call->softcap > 0.0) {
        for (int64_t c = 0; c < run.count; c++) {
            t->s[c] = call->softcap * tanh(t->s[c] / call->softcap);
        }
    }
    memset(t->hidden, 0, (size_t)run.count);
    if (sdpa_has_addend(call)) {
        sdpa_addend_f64(call, row->b, row->h, row->i, begin, run.count, t->addend);
        for (int64_t c = 0; c < run.count; c++) {
            /* asked again, since an attended addend may have overflowed to −inf */
            t->hidden[c] = t->addend[c] == -(double)INFINITY &&
                           !sdpa_attends(call, row->b, row->h, row->i, begin + c);
            t->s[c] += t->addend[c];
        }
    }
    return run;
}

/* Dropout: weights times 0 or 1/(1−p). */
static void drop(const sdpa_call *call, const f64_row *row, int64_t begin, int64_t count,
                 f64_scratch *t)
{
    sdpa_keep(call, row->b, row->h, row->i, begin, count, t->keep);
    for (int64_t c = 0; c < count; c++) {
        t->s[c] *= t->keep[c] != 0.0f ? 1.0 / (1.0 - call->dropout) : 0.0;
    }
}

/* Pass 1: maximum, sum and weighted sum of V, rescaled whenever the maximum grows. */
static void attend(const sdpa_call *call, f64_row *row, sdpa_range range, f64_scratch *t)
{
    memset(t->out, 0, (size_t)call->dim_v * sizeof *t->out);
    row->maximum = -(double)INFINITY;
    row->sum = 0.0;
    int64_t wanted;
    for (int64_t begin = range.begin; begin < range.end; begin += wanted) {
        wanted = range.end - begin < KEYS ? range.end - begin : KEYS;
        sdpa_kv_run run = scores(call, row, begin, wanted, t);
        wanted = run.count;
        double maximum = row->maximum;
        for (int64_t c = 0; c < run.count; c++) {
            maximum = t->hidden[c] ? maximum : fmax(maximum, t->s[c]); /* NaN shows in the sum */
        }
        double from = maximum == -(double)INFINITY ? 0.0 : maximum;
        double shrink = exp(row->maximum - from);
        row->maximum = maximum;
        row->sum *= shrink;
        for (int64_t c = 0; c < run.count; c++) {
            t->s[c] = t->hidden[c] ? 0.0 : exp(t->s[c] - from);
            row->sum += t->s[c];
        }
        for (int64_t d = 0; d < call->dim_v; d++) {
            t->out[d] *= shrink;
        }
        if (call->dropout > 0.0) { /* after the sum: LSE is without dropout */
            drop(call, row, begin, run.count, t);
        }
        attn_flash_f64_accumulate(t->s, t->hidden, run.v, run.v_stride, call->dim_v, run.count,
                                  t->out);
    }
}

/* Pass 2, only when weights are wanted: every score again, now that maximum and total are known. */
static void write_weights(const sdpa_call *call, const f64_row *row, sdpa_range range, double from,
                          double total, f64_scratch *t)
{
    const attn_view *w = &call->weights;
    double *to =
        (double *)w->data + row->b * w->stride[0] + row->h * w->stride[1] + row->i * w->stride[2];
    memset(to, 0, (size_t)call->len_k * sizeof *to);
    int64_t wanted;
    for (int64_t begin = range.begin; begin < range.end; begin += wanted) {
        wanted = range.end - begin < KEYS ? range.end - begin : KEYS;
        wanted = scores(call, row, begin, wanted, t).count;
        for (int64_t c = 0; c < wanted; c++) {
            to[begin + c] = t->hidden[c] ? 0.0 : exp(t->s[c] - from) / total;
        }
    }
}

static void one_row(const sdpa_call *call, f64_row *row, f64_scratch *t)
{
    sdpa_range range = {0, 0};
    if (row->i < sdpa_rows(call, row->b)) {
        range = sdpa_row_range(call, row->b, row->i);
    }
    attend(call, row, range, t);
    /* The sink enters the denominator here, once, and may be the largest term. */
    double maximum = row->maximum, total = row->sum, shrink = 1.0;
    bool nothing = total == 0.0; /* nothing attended, or only scores that overflowed to −inf */
    if (nothing && sdpa_row_attends(call, row->b, row->h, row->i)) {
        maximum = total = (double)NAN;
        nothing = false;
    } else if (!nothing && call->sinks.dtype != ATTN_DTYPE_NONE) {
        double sink = sdpa_sink(call, row->h);
        maximum = fmax(row->maximum, sink);
        shrink = exp(row->maximum - maximum);
        total = row->sum * shrink + exp(sink - maximum);
    }
    double *out = (double *)call->out.data + row->b * call->out.stride[0] +
                  row->h * call->out.stride[1] + row->i * call->out.stride[2];
    for (int64_t d = 0; d < call->dim_v; d++) {
        out[d] = nothing ? 0.0 : t->out[d] * shrink / total;
    }
    if (call->lse.dtype != ATTN_DTYPE_NONE) {
        const attn_view *lse = &call->lse;
        double *to = (double *)lse->data + row->b * lse->stride[0] + row->h * lse->stride[1] +
                     row->i * lse->stride[2];
        *to = nothing ? -(double)INFINITY : maximum + log(total);
    }
    if (call->weights.dtype != ATTN_DTYPE_NONE) {
        write_weights(call, row, nothing ? (sdpa_range){0, 0} : range, maximum, total, t);
    }
}

typedef struct f64_job {
    const sdpa_call *call;
    char *scratch;
    size_t per_worker;
} f64_job;

static void task(void *argument, int64_t index, int worker)
{
    const f64_job *job = argument;
    const sdpa_call *call = job->call;
    f64_scratch *t = (void *)(job->scratch + (size_t)worker * job->per_worker);
    int64_t blocks = (call->len_q + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
    int64_t head = index / blocks, first = index % blocks * ROWS_PER_TASK;
    for (int64_t i = first; i < first + ROWS_PER_TASK && i < call->len_q; i++) {
        f64_row row = {.b = head / call->heads_q, .h = head % call->heads_q, .i = i};
        row.q = (const double *)call->q.data + row.b * call->q.stride[0] +
                row.h * call->q.stride[1] + i * call->q.stride[2];
        one_row(call, &row, t);
    }
}

void sdpa_f64_run(const sdpa_call *call, void *scratch)
{
    sdpa_needs needs = sdpa_f64_needs(call);
    f64_job job = {call, scratch, attn_round_up(needs.per_worker)};
    attn_context_run(call->context, needs.tasks, false, task, &job);
}
