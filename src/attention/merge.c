/*
 * attn_merge: partial results over disjoint sets of keys become one. Summed in double whatever the type, so that the number of
 * parts does not show in the error.
 */
#include "attention/views.h"

#include <attn/attention.h>
#include <math.h>
#include <string.h>

#include "kernels/convert/convert.h"
#include "par/context.h"

enum { BLOCK = 256 /* elements of a row at a time */, ROWS_PER_TASK = 64 };

typedef struct merge_job {
    int64_t parts;
    const attn_view *outs, *lses, *sinks, *out, *lse;
    const attn_convert_kernels *convert;
    int64_t rows; /* batch · heads · len_q */
} merge_job;

static double load(const attn_view *view, int64_t at)
{
    return view->dtype == ATTN_F64 ? ((const double *)view->data)[at]
                                   : (double)((const float *)view->data)[at];
}

static int64_t row_at(const attn_view *view, const int64_t index[3])
{
    return index[0] * view->stride[0] + index[1] * view->stride[1] + index[2] * view->stride[2];
}

static void store(const merge_job *job, int64_t at, int64_t count, const double *row)
{
    const attn_view *out = job->out;
    if (out->dtype == ATTN_F64) {
        memcpy((double *)out->data + at, row, (size_t)count * sizeof *row);
        return;
    }
    float rounded[BLOCK];
    for (int64_t c = 0; c < count; c++) {
        rounded[c] = (float)row[c];
    }
    if (out->dtype == ATTN_F32) {
        memcpy((float *)out->data + at, rounded, (size_t)count * sizeof *rounded);
    } else {
        (out->dtype == ATTN_BF16 ? job->convert->f32_to_bf16 : job->convert->f32_to_f16)(
            rounded, (uint16_t *)out->data + at, count);
    }
}

/*
 * A block is read from all parts before it is written and the row's lse is written last: out and lse may be one of the
 * parts'.
 */
static void merge_row(const merge_job *job, const int64_t index[3])
{
    double top = -(double)INFINITY, sum = 0.0;
    for (int64_t p = 0; p < job->parts; p++) {
        top = fmax(top, load(&job->lses[p], row_at(&job->lses[p], index)));
    }
    double base = top == -(double)INFINITY ? 0.0 : top;
    for (int64_t p = 0; p < job->parts; p++) {
        sum += exp(load(&job->lses[p], row_at(&job->lses[p], index)) - base);
    }
    bool nothing = sum == 0.0;
    if (!nothing && job->sinks) {
        double sink = load(job->sinks, index[1] * job->sinks->stride[0]);
        double higher = fmax(base, sink);
        sum = sum * exp(base - higher) + exp(sink - higher);
        base = higher;
    }
    for (int64_t d = 0; d < job->out->shape[3]; d += BLOCK) {
        double row[BLOCK] = {0};
        int64_t count = job->out->shape[3] - d < BLOCK ? job->out->shape[3] - d : BLOCK;
        for (int64_t p = 0; p < job->parts && !nothing; p++) {
            double lse = load(&job->lses[p], row_at(&job->lses[p], index));
            if (lse == -(double)INFINITY) {
                continue; /* this part saw nothing */
            }
            double weight = exp(lse - base) / sum;
            int64_t at = row_at(&job->outs[p], index) + d;
            for (int64_t c = 0; c < count; c++) {
                row[c] += weight * load(&job->outs[p], at + c);
            }
        }
        store(job, row_at(job->out, index) + d, count, row);
    }
    if (job->lse) {
        double value = nothing ? -(double)INFINITY : base + log(sum);
        int64_t at = row_at(job->lse, index);
        if (job->lse->dtype == ATTN_F64) {
            ((double *)job->lse->data)[at] = value;
        } else {
            ((float *)job->lse->data)[at] = (float)value;
        }
    }
}

static void task(void *argument, int64_t block, int worker)
{
    (void)worker;
    const merge_job *job = argument;
    int64_t heads = job->out->shape[1], len = job->out->shape[2];
    int64_t end = (block + 1) * ROWS_PER_TASK < job->rows ? (block + 1) * ROWS_PER_TASK : job->rows;
    for (int64_t r = block * ROWS_PER_TASK; r < end; r++) {
        merge_row(job, (const int64_t[]){r / len / heads, r / len % heads, r % len});
    }
}

static attn_status check_shape(const char *name, int64_t part, const attn_view *view, int ndim,
                               const int64_t *shape)
{
    bool same = view->ndim == ndim;
    for (int n = 0; same && n < ndim; n++) {
        same = view->shape[n] == shape[n];
    }
    if (!same) {
        attn_view wanted = attn_view_dense(NULL, ATTN_F32, ndim, shape);
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s (part %lld): has %d dimensions %s but must be %s, as out says", name,
                         (long long)part, view->ndim,
                         view->ndim >= 1 && view->ndim <= 4 ? sdpa_shape_text(view).text : "",
                         sdpa_shape_text(&wanted).text);
    }
    return ATTN_OK;
}

static attn_status check_input(const char *name, int64_t part, const attn_view *view,
                               attn_dtype type, int ndim, const int64_t *shape)
{
    attn_status status = check_shape(name, part, view, ndim, shape);
    if (status == ATTN_OK && view->dtype != type) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "%s (part %lld): is %s but must be %s, the type partial results are kept "
                         "in beside out of %s",
                         name, (long long)part, attn_dtype_name(view->dtype), attn_dtype_name(type),
                         type == ATTN_F64 ? "f64" : "f32, bf16 or f16");
    }
    return status == ATTN_OK ? sdpa_check_view(name, view) : status;
}

static bool same_view(const attn_view *a, const attn_view *b)
{
    if (a->data != b->data || a->dtype != b->dtype || a->ndim != b->ndim) {
        return false;
    }
    for (int n = 0; n < a->ndim; n++) {
        if (a->shape[n] != b->shape[n] || a->stride[n] != b->stride[n]) {
            return false;
        }
    }
    return true;
}

/* out and lse apart from each other and from every input, except from one that they are exactly. */
static attn_status check_overlaps(const merge_job *job)
{
    sdpa_extent out = sdpa_view_extent("out", job->out);
    sdpa_extent lse = {.name = "lse"};
    if (job->lse) {
        lse = sdpa_view_extent("lse", job->lse);
    }
    attn_status status = sdpa_check_overlap(&lse, 1, &out, 1);
    for (int64_t p = 0; status == ATTN_OK && p < job->parts; p++) {
        sdpa_extent part = sdpa_view_extent("outs", &job->outs[p]);
        sdpa_extent part_lse = sdpa_view_extent("lses", &job->lses[p]);
        status = sdpa_check_overlap(&out, 1, &part_lse, 1);
        if (status == ATTN_OK) {
            status = sdpa_check_overlap(&lse, 1, &part, 1);
        }
        if (status == ATTN_OK && !same_view(job->out, &job->outs[p])) {
            status = sdpa_check_overlap(&out, 1, &part, 1);
        }
        if (status == ATTN_OK && job->lse && !same_view(job->lse, &job->lses[p])) {
            status = sdpa_check_overlap(&lse, 1, &part_lse, 1);
        }
    }
    if (status == ATTN_OK && job->sinks) {
        sdpa_extent sinks = sdpa_view_extent("sinks", job->sinks);
        status = sdpa_check_overlap(&out, 1, &sinks, 1);
        status = status == ATTN_OK ? sdpa_check_overlap(&lse, 1, &sinks, 1) : status;
    }
    return status;
}

static attn_status check_out(const attn_view *out)
{
    if (out->dtype != ATTN_F32 && out->dtype != ATTN_BF16 && out->dtype != ATTN_F16 &&
        out->dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE, "out: is %s but must be f32, bf16, f16 or f64",
                         attn_dtype_name(out->dtype));
    }
    if (out->ndim != 4) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "out: has %d dimensions but must be [batch, heads_q, len_q, dim_v]",
                         out->ndim);
    }
    return sdpa_check_output("out", out);
}

static attn_status check(const merge_job *job)
{
    attn_status status = check_out(job->out);
    const int64_t *shape = job->out->shape;
    attn_dtype type = job->out->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    for (int64_t p = 0; status == ATTN_OK && p < job->parts; p++) {
        status = check_input("outs", p, &job->outs[p], type, 4, shape);
        if (status == ATTN_OK) {
            status = check_input("lses", p, &job->lses[p], type, 3, shape);
        }
    }
    if (status == ATTN_OK && job->sinks) {
        status = check_input("sinks", 0, job->sinks, type, 1, &shape[1]);
    }
    if (status == ATTN_OK && job->lse) {
        status = check_input("lse", 0, job->lse, type, 3, shape);
        status = status == ATTN_OK ? sdpa_check_output("lse", job->lse) : status;
    }
    return status == ATTN_OK ? check_overlaps(job) : status;
}

attn_status attn_merge(attn_context *context, int64_t parts, const attn_view *outs,
                       const attn_view *lses, const attn_view *sinks, const attn_view *out,
                       const attn_view *lse)
{
    if (!context || !outs || !lses || !out) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: is NULL but must be given",
                         !context ? "context"
                         : !outs  ? "outs"
                         : !lses  ? "lses"
                                  : "out");
    }
    if (parts < 1) {
        return attn_fail(ATTN_ERR_ARGUMENT, "parts: is %lld but must be at least 1",
                         (long long)parts);
    }
    merge_job job = {.parts = parts,
                     .outs = outs,
                     .lses = lses,
                     .sinks = sinks,
                     .out = out,
                     .lse = lse,
                     .convert = attn_convert_table(attn_context_isa(context))};
    attn_status status = check(&job);
    if (status != ATTN_OK) {
        return status;
    }
    job.rows = out->shape[0] * out->shape[1] * out->shape[2];
    attn_context_run(context, (job.rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, false, task, &job);
    return ATTN_OK;
}
