/* The pieces of a head become its rows of out and lse. */
#include "attention/decode.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

static void store_row(const decode_job *job, int64_t b, int64_t h, int64_t i, int64_t d,
                      int64_t count, const float *row)
{
    const attn_view *out = &job->call->out;
    int64_t at = b * out->stride[0] + h * out->stride[1] + i * out->stride[2] + d;
    if (out->dtype == ATTN_F32) {
        memcpy((float *)out->data + at, row, (size_t)count * sizeof *row);
    } else {
        (out->dtype == ATTN_BF16 ? job->convert->f32_to_bf16 : job->convert->f32_to_f16)(
            row, (uint16_t *)out->data + at, count);
    }
}

/* What merging knows of a row: Σ_p e^(m_p − m)·l_p = sum. */
typedef struct merged_row {
    const decode_job *job;
    int64_t head, r, b, h, i;
    float m;       /* largest m_p, 0 where all are −inf */
    int64_t best;  /* a key whose score is m */
    double top;    /* m, or the sink where that is larger */
    double shrink; /* e^(m − top) */
    double sum;    /* over pieces and sink, relative to top */
    bool nothing;  /* there was no key to attend to */
} merged_row;

static void find_sum(merged_row *row)
{
    const decode_job *job = row->job;
    const sdpa_call *call = job->call;
    float m = -INFINITY;
    for (int64_t p = 0; p < job->pieces; p++) {
        const decode_part *part = decode_part_of(job, row->head, p);
        if (part->m[row->r] > m) {
            m = part->m[row->r];
            row->best = part->best[row->r];
        }
    }
    row->m = m == -INFINITY ? 0.0f : m;
    row->top = row->m;
    row->shrink = 1.0;
    for (int64_t p = 0; p < job->pieces; p++) {
        const decode_part *part = decode_part_of(job, row->head, p);
        row->sum += (double)expf(part->m[row->r] - row->m) * (double)part->l[row->r];
    }
    row->nothing = row->sum == 0.0;
    if (row->nothing && sdpa_row_attends(call, row->b, row->h, row->i)) {
        row->sum = (double)NAN; /* only scores that overflowed to −inf */
        row->nothing = false;
    } else if (!row->nothing && call->sinks.dtype != ATTN_DTYPE_NONE) {
        double sink = sdpa_sink(call, row->h);
        row->top = fmax(row->top, sink);
        row->shrink = exp((double)row->m - row->top);
        row->sum = row->sum * row->shrink + exp(sink - row->top);
    }
}

/*
 * out = Σ_p e^(m_p − m)·o_p / sum, elements d … d+count−1. In double: over thousands of pieces a chain of floats would
 * drift, and it has room for units.
 */
static void merge_block(const merged_row *row, int64_t d, int64_t count, double *total,
                        float *rounded)
{
    const decode_job *job = row->job;
    memset(total, 0, (size_t)count * sizeof *total);
    for (int64_t p = 0; p < job->pieces && !row->nothing; p++) {
        const decode_part *part = decode_part_of(job, row->head, p);
        if (part->empty) {
            continue;
        }
        double weight = (double)expf(part->m[row->r] - row->m) * (double)part->unit;
        const float *o = part->o + row->r * job->o_stride + d;
        for (int64_t c = 0; c < count; c++) {
            total[c] += weight * (double)o[c];
        }
    }
    double factor = row->shrink / row->sum;
    for (int64_t c = 0; c < count; c++) {
        rounded[c] = row->nothing ? 0.0f : (float)(total[c] * factor);
    }
    store_row(job, row->b, row->h, row->i, d, count, rounded);
}

static double key_element(const decode_job *job, const void *k, int64_t d)
{
    if (job->type == ATTN_DECODE_F32) {
        return (double)((const float *)k)[d];
    }
    uint16_t half = ((const uint16_t *)k)[d];
    return (double)(job->type == ATTN_DECODE_BF16 ? attn_bf16_to_float(half)
                                                  : attn_f16_to_float(half));
}

/*
 * lse = m + ln(sum). In out the rounding of m cancels against that of the other scores; here it would show in full, so the
 * best key's score is computed once more, in double.
 */
static double best_score(const merged_row *row, const float *q)
{
    const sdpa_call *call = row->job->call;
    if (!isfinite(row->m) || !isfinite(row->sum)) {
        return row->m;
    }
    sdpa_kv_run run = sdpa_kv_at(call, row->b, row->head % call->heads_kv, row->best, 1);
    double dot = 0.0;
    for (int64_t d = 0; d < call->dim_qk; d++) {
        dot += (double)q[d] * key_element(row->job, run.k, d);
    }
    double score = call->scale * dot;
    if (call->softcap > 0.0) {
        score = call->softcap * tanh(score / call->softcap);
    }
    if (sdpa_has_addend(call)) {
        float addend;
        sdpa_addend(call, row->b, row->h, row->i, row->best, 1, &addend);
        score += (double)addend;
    }
    return score;
}

static void store_lse(const merged_row *row, const float *q)
{
    const attn_view *lse = &row->job->call->lse;
    float *to = (float *)lse->data + row->b * lse->stride[0] + row->h * lse->stride[1] +
                row->i * lse->stride[2];
    if (row->nothing) {
        *to = -INFINITY;
        return;
    }
    double top = row->top > (double)row->m ? row->top : best_score(row, q);
    *to = (float)(top + log(row->sum));
}

void decode_merge(const decode_job *job, int64_t head, decode_worker *worker)
{
    const sdpa_call *call = job->call;
    double *total = (void *)(worker->data + job->rows * job->q_stride);
    for (int64_t r = 0; r < job->rows; r++) {
        merged_row row = {.job = job,
                          .head = head,
                          .r = r,
                          .b = head / call->heads_kv,
                          .h = decode_head(job, head % call->heads_kv, r),
                          .i = decode_query(job, r)};
        find_sum(&row);
        for (int64_t d = 0; d < call->dim_v; d += DECODE_BLOCK) {
            int64_t left = call->dim_v - d;
            merge_block(&row, d, left < DECODE_BLOCK ? left : DECODE_BLOCK, total, worker->s);
        }
        if (call->lse.dtype != ATTN_DTYPE_NONE) {
            store_lse(&row, worker->data + r * job->q_stride);
        }
    }
}
