/* One piece of keys against the queries of a KV head: chunk by chunk, scores → modifiers → softmax → values. */
#include "attention/decode.h"

#include <math.h>
#include <string.h>

enum { CHUNK = DECODE_CHUNK, ROWS = DECODE_ROWS };

/* How much care V needs; each try is made when the one before left a non-finite o. */
typedef enum decode_care {
    PLAIN,  /* the kernels read V as it lies */
    SELECT, /* masked slots may hold NaN or inf, and 0·NaN is NaN: V is copied with zeros there */
    SCALED  /* finite V whose sum overflows: besides, copied in units of DECODE_UNIT */
} decode_care;

typedef struct decode_piece {
    const decode_job *job;
    decode_worker *worker;
    decode_part *part;
    float *q, *copy;
    int64_t b, kv_head, rows; /* rows: n_q · group of this sequence */
    sdpa_range range[ROWS];   /* by query, cut to the piece */
    sdpa_range all;           /* their hull */
    decode_care care;
    bool masked; /* out: some slot of the hull is masked for some row */
} decode_piece;

/* Query rows as f32, zero up to the stride. */
static void load_queries(decode_piece *p)
{
    const decode_job *job = p->job;
    const sdpa_call *call = job->call;
    const attn_view *q = &call->q;
    for (int64_t r = 0; r < p->rows; r++) {
        int64_t at = p->b * q->stride[0] + decode_head(job, p->kv_head, r) * q->stride[1] +
                     decode_query(job, r) * q->stride[2];
        float *row = p->q + r * job->q_stride;
        if (q->dtype == ATTN_F32) {
            memcpy(row, (const float *)q->data + at, (size_t)call->dim_qk * sizeof *row);
        } else {
            const uint16_t *half = (const uint16_t *)q->data + at;
            (q->dtype == ATTN_BF16 ? job->convert->bf16_to_f32
                                   : job->convert->f16_to_f32)(half, row, call->dim_qk);
        }
        memset(row + call->dim_qk, 0, (size_t)(job->q_stride - call->dim_qk) * sizeof *row);
    }
}

/* Ranges of the queries within columns begin … end−1, and their hull. */
static void find_ranges(decode_piece *p, int64_t begin, int64_t end)
{
    const sdpa_call *call = p->job->call;
    p->all = (sdpa_range){end, begin};
    for (int64_t i = 0; i < p->rows / call->group; i++) {
        sdpa_range range = sdpa_row_range(call, p->b, i);
        range.begin = range.begin > begin ? range.begin : begin;
        range.end = range.end < end ? range.end : end;
        if (range.begin < range.end) {
            p->all.begin = range.begin < p->all.begin ? range.begin : p->all.begin;
            p->all.end = range.end > p->all.end ? range.end : p->all.end;
        } else {
            range.end = range.begin;
        }
        p->range[i] = range;
    }
}

static bool covers(const decode_piece *p, int64_t begin, int64_t end)
{
    for (int64_t i = 0; i < p->rows / p->job->call->group; i++) {
        if (p->range[i].begin > begin || p->range[i].end < end) {
            return false;
        }
    }
    return true;
}

/*
 * Addends of row r for columns begin … begin+count−1 into worker->addend, and which slots are hidden. An ALiBi addend may
 * overflow to −inf in a slot that is attended to; only then is it worth asking.
 */
static void find_addends(const decode_piece *p, int64_t r, int64_t begin, int64_t count)
{
    const sdpa_call *call = p->job->call;
    decode_worker *w = p->worker;
    int64_t i = decode_query(p->job, r), h = decode_head(p->job, p->kv_head, r);
    int64_t low = p->range[i].begin - begin, high = p->range[i].end - begin;
    low = low < 0 ? 0 : low > count ? count : low;
    high = high < low ? low : high > count ? count : high;
    memset(w->hidden, 1, (size_t)count);
    memset(w->hidden + low, 0, (size_t)(high - low));
    if (!sdpa_has_addend(call)) {
        memset(w->addend, 0, sizeof w->addend);
        return;
    }
    sdpa_addend(call, p->b, h, i, begin + low, high - low, w->addend + low);
    for (int64_t c = low; c < high; c++) {
        if (w->addend[c] == -INFINITY) {
            w->hidden[c] =
                call->alibi.dtype == ATTN_DTYPE_NONE || !sdpa_attends(call, p->b, h, i, begin + c);
        }
    }
}

/* scale, cap, addends, masks: the scores of a chunk in full, hidden ones −inf. */
static void modify(const decode_piece *p, int64_t begin, int64_t count)
{
    const sdpa_call *call = p->job->call;
    decode_worker *w = p->worker;
    const float scale = (float)call->scale, cap = (float)call->softcap;
    for (int64_t r = 0; r < p->rows; r++) {
        float *s = w->s + r * CHUNK;
        for (int64_t c = 0; c < count; c++) {
            s[c] *= scale;
        }
        if (cap > 0.0f) {
            for (int64_t c = 0; c < count; c++) {
                s[c] = cap * tanhf(s[c] / cap);
            }
        }
        find_addends(p, r, begin, count);
        for (int64_t c = 0; c < count; c++) {
            s[c] = w->hidden[c] ? -INFINITY : s[c] + w->addend[c];
        }
    }
}

/* Elements d … d+v->dim−1 of the chunk's V rows as f32, job->copy floats apart, hidden slots zero. */
static void copy_values(const decode_piece *p, const attn_decode_block *v, int64_t d)
{
    const decode_job *job = p->job;
    for (int64_t c = 0; c < v->count; c++) {
        float *to = p->copy + c * job->copy;
        int64_t at = c * v->stride + d;
        if (p->worker->hidden[c]) {
            memset(to, 0, (size_t)v->dim * sizeof *to);
            continue;
        }
        if (job->type == ATTN_DECODE_F32) {
            memcpy(to, (const float *)v->data + at, (size_t)v->dim * sizeof *to);
        } else {
            const uint16_t *from = (const uint16_t *)v->data + at;
            (job->type == ATTN_DECODE_BF16 ? job->convert->bf16_to_f32
                                           : job->convert->f16_to_f32)(from, to, v->dim);
        }
        for (int64_t i = 0; p->care == SCALED && i < v->dim; i++) {
            to[i] *= 1.0f / DECODE_UNIT;
        }
    }
}

/*
 * o += P·V with care, row by row through a copy of V. The chains of sums are those of the straight way, so where that would have been
 * finite this has the same bits.
 */
static void careful_values(const decode_piece *p, const attn_decode_block *v, int64_t begin)
{
    const decode_job *job = p->job;
    decode_worker *w = p->worker;
    const attn_decode_ahead none = {0};
    for (int64_t r = 0; r < p->rows; r++) {
        find_addends(p, r, begin, v->count);
        for (int64_t d = 0; d < v->dim; d += job->copy) {
            attn_decode_block part = *v;
            part.dim = v->dim - d < job->copy ? v->dim - d : job->copy;
            copy_values(p, &part, d);
            part.data = p->copy;
            part.stride = job->copy;
            job->kernels->values[ATTN_DECODE_F32](w->s + r * CHUNK, 1, w->alpha + r, &part,
                                                  p->part->o + r * job->o_stride + d, job->o_stride,
                                                  &none);
        }
    }
}

/* Rows that the next stage will read. 16-bit rows are computed faster than they arrive; f32 rows are not. */
static attn_decode_ahead look_ahead(const decode_job *job, const void *data, int64_t stride,
                                    int64_t dim, int64_t rows)
{
    if (job->type == ATTN_DECODE_F32 || rows <= 0) {
        return (attn_decode_ahead){0};
    }
    return (attn_decode_ahead){data, stride * 2, dim * 2, rows};
}

/* Where the chunk raised a row's maximum, the key that did has weight 1. */
static void find_best(const decode_piece *p, const float *before, int64_t begin, int64_t count)
{
    for (int64_t r = 0; r < p->rows; r++) {
        const float *s = p->worker->s + r * CHUNK;
        for (int64_t c = 0; p->part->m[r] > before[r] && c < count; c++) {
            if (s[c] == 1.0f) {
                p->part->best[r] = begin + c;
                break;
            }
        }
    }
}

/* One chunk from column `begin` on; returns how many keys it had. */
static int64_t run_chunk(decode_piece *p, int64_t begin)
{
    const decode_job *job = p->job;
    const sdpa_call *call = job->call;
    decode_worker *w = p->worker;
    int64_t left = p->all.end - begin;
    sdpa_kv_run run =
        sdpa_kv_at(call, p->b, p->kv_head, begin, left < 2 * CHUNK ? left : 2 * CHUNK);
    int64_t count = run.count < CHUNK ? run.count : CHUNK;
    attn_decode_block k = {run.k, run.k_stride, count, call->dim_qk};
    attn_decode_block v = {run.v, run.v_stride, count, call->dim_v};
    attn_decode_ahead values = look_ahead(job, v.data, v.stride, v.dim, count);
    attn_decode_ahead keys = {0};
    if (run.count > CHUNK) {
        keys = look_ahead(job, (const uint16_t *)run.k + CHUNK * run.k_stride, k.stride, k.dim,
                          run.count - CHUNK);
    }
    job->kernels->scores[job->type](p->q, job->q_stride, p->rows, &k, w->s, &values);
    float scale = (float)call->scale;
    bool whole = !sdpa_has_addend(call) && covers(p, begin, begin + count);
    p->masked |= !whole;
    if (!whole || call->softcap > 0.0) {
        modify(p, begin, count);
        scale = 1.0f;
    }
    float before[ROWS];
    memcpy(before, p->part->m, sizeof before);
    job->kernels->softmax(w->s, p->rows, count, scale, p->part->m, p->part->l, w->alpha);
    if (call->lse.dtype != ATTN_DTYPE_NONE) {
        find_best(p, before, begin, count);
    }
    if (p->care == SCALED || (p->care == SELECT && !whole)) {
        careful_values(p, &v, begin);
    } else {
        job->kernels->values[job->type](w->s, p->rows, w->alpha, &v, p->part->o, job->o_stride,
                                        &keys);
    }
    return count;
}

static bool all_finite(const float *values, size_t count)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

static void run_chunks(decode_piece *p, decode_care care)
{
    decode_part *part = p->part;
    for (int64_t r = 0; r < ROWS; r++) {
        part->m[r] = -INFINITY;
        part->l[r] = 0.0f;
        part->best[r] = 0;
    }
    p->care = care;
    part->unit = care == SCALED ? DECODE_UNIT : 1.0f;
    part->empty = p->all.begin >= p->all.end;
    if (part->empty) {
        return;
    }
    memset(part->o, 0, (size_t)(p->rows * p->job->o_stride) * sizeof *part->o);
    for (int64_t at = p->all.begin; at < p->all.end;) {
        at += run_chunk(p, at);
    }
}

static bool is_finite(const decode_piece *p)
{
    return p->part->empty || all_finite(p->part->o, (size_t)(p->rows * p->job->o_stride));
}

void decode_run_piece(const decode_job *job, int64_t head, int64_t piece, decode_worker *worker)
{
    const sdpa_call *call = job->call;
    decode_piece p = {.job = job,
                      .worker = worker,
                      .part = decode_part_of(job, head, piece),
                      .q = worker->data,
                      .copy = worker->data + job->rows * job->q_stride,
                      .b = head / call->heads_kv,
                      .kv_head = head % call->heads_kv};
    p.rows = sdpa_rows(call, p.b) * call->group;
    find_ranges(&p, piece * DECODE_PIECE, (piece + 1) * DECODE_PIECE);
    load_queries(&p);
    run_chunks(&p, PLAIN);
    if (!is_finite(&p) && p.masked) {
        run_chunks(&p, SELECT);
    }
    if (!is_finite(&p)) {
        run_chunks(&p, SCALED);
    }
}
