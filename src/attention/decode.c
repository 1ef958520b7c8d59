/*
 * The decode path: 1 … 16 query rows per KV head. One task per (sequence, KV head, piece of PIECE keys) leaves a partial
 * result (m, l, o) in shared scratch; who finishes a head's last piece merges them, in the order of pieces. Pieces are cut by
 * key columns alone, so bits do not depend on threads.
 */
#include "attention/call.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/convert/convert.h"
#include "kernels/decode/decode.h"
#include "par/context.h"

enum {
    CHUNK = ATTN_DECODE_CHUNK,
    ROWS = ATTN_DECODE_ROWS,
    PIECE = 1024, /* keys of a task; see docs/kernels.md */
    SCRUB = 256,  /* elements of V rows copied at a time where masked slots hold NaN or inf */
    BLOCK = 1024  /* elements of a row merged at a time */
};

/* Sizes and kernels of a call. A row r of a KV head is query i = r / group of head kv_head·group + r % group. */
typedef struct decode_job {
    const sdpa_call *call;
    const attn_decode_kernels *kernels;
    const attn_convert_kernels *convert;
    int type;       /* of K and V, index into the kernels' tables */
    int64_t rows;   /* len_q · group */
    int64_t pieces; /* per KV head */
    int64_t q_stride, o_stride, scrub;
    size_t counters, part; /* bytes of all counters; of one partial result */
    size_t per_worker;
    char *shared, *workers;
} decode_job;

/* What a worker has for itself. */
typedef struct decode_worker {
    float s[ROWS * CHUNK], addend[CHUNK], alpha[ROWS];
    unsigned char hidden[CHUNK];
    float data[]; /* q: rows × q_stride; then CHUNK × at most SCRUB, which merging uses too */
} decode_worker;

_Static_assert(offsetof(decode_worker, data) % 64 == 0, "rows are read by aligned vectors");
_Static_assert(ROWS *CHUNK >= BLOCK, "a merged block is rounded in s");

/* One task. m, l, o: its partial result; rows with no finite score have m = −inf, a piece without keys l = −1. */
typedef struct decode_piece {
    const decode_job *job;
    decode_worker *worker;
    float *q, *scrub;
    float *m, *l, *o;
    int64_t b, kv_head, rows; /* rows: n_q · group of this sequence */
    sdpa_range range[ROWS];   /* by query i, cut to the piece */
    sdpa_range all;           /* their hull */
    bool select;              /* masked slots of V are cut out one by one: slow, exact */
    bool masked;              /* out: some slot of the hull is masked for some row */
} decode_piece;

static size_t product(size_t a, size_t b)
{
    size_t out;
    return attn_mul_size(a, b, &out) ? out : SIZE_MAX / 2; /* the plan refuses such sizes */
}

static decode_job make_job(const sdpa_call *call)
{
    attn_isa isa = attn_context_isa(call->context);
    decode_job job = {.call = call,
                      .kernels = attn_decode_table(isa),
                      .convert = attn_convert_table(isa),
                      .type = call->kv.k.dtype == ATTN_F32    ? ATTN_DECODE_F32
                              : call->kv.k.dtype == ATTN_BF16 ? ATTN_DECODE_BF16
                                                              : ATTN_DECODE_F16,
                      .rows = call->len_q * call->group,
                      .pieces = call->len_k > 0 ? (call->len_k - 1) / PIECE + 1 : 1,
                      .q_stride = (call->dim_qk + 15) / 16 * 16,
                      .o_stride = (call->dim_v + 15) / 16 * 16};
    size_t heads = product((size_t)call->batch, (size_t)call->heads_kv);
    job.counters = attn_round_up(product(heads, sizeof(atomic_int)));
    job.part = ((size_t)job.rows * (size_t)job.o_stride + 2 * ROWS) * sizeof(float);
    job.scrub = job.o_stride < SCRUB ? job.o_stride : SCRUB;
    job.per_worker = attn_round_up(
        sizeof(decode_worker) +
        ((size_t)job.rows * (size_t)job.q_stride + CHUNK * (size_t)job.scrub) * sizeof(float));
    return job;
}

bool sdpa_decode_fits(const sdpa_call *call)
{
    return call->kv.k.dtype != ATTN_F64 && call->weights.dtype == ATTN_DTYPE_NONE &&
           call->len_q <= ROWS && call->group <= ROWS && call->len_q * call->group <= ROWS;
}

sdpa_needs sdpa_decode_needs(const sdpa_call *call)
{
    decode_job job = make_job(call);
    size_t heads = product((size_t)call->batch, (size_t)call->heads_kv);
    size_t parts = product(product(heads, (size_t)job.pieces), job.part);
    return (sdpa_needs){.shared = job.counters + parts,
                        .per_worker = job.per_worker,
                        .tasks = (int64_t)heads * job.pieces,
                        .split = PIECE,
                        .kernel = job.kernels->name[job.type]};
}

static float *partial(const decode_job *job, int64_t head, int64_t piece)
{
    size_t index = (size_t)head * (size_t)job->pieces + (size_t)piece;
    return (void *)(job->shared + job->counters + index * job->part);
}

/* Query rows as f32, zero up to the stride. */
static void load_queries(decode_piece *p)
{
    const decode_job *job = p->job;
    const sdpa_call *call = job->call;
    const attn_view *q = &call->q;
    for (int64_t r = 0; r < p->rows; r++) {
        int64_t at = p->b * q->stride[0] +
                     (p->kv_head * call->group + r % call->group) * q->stride[1] +
                     r / call->group * q->stride[2];
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
    int64_t i = r / call->group, h = p->kv_head * call->group + r % call->group;
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

/* Elements d … d+v->dim−1 of the chunk's V rows as f32, SCRUB floats apart, hidden slots zero. */
static void copy_values(const decode_piece *p, const attn_decode_block *v, int64_t d)
{
    const decode_job *job = p->job;
    for (int64_t c = 0; c < v->count; c++) {
        float *to = p->scrub + c * job->scrub;
        int64_t at = c * v->stride + d;
        if (p->worker->hidden[c]) {
            memset(to, 0, (size_t)v->dim * sizeof *to);
        } else if (job->type == ATTN_DECODE_F32) {
            memcpy(to, (const float *)v->data + at, (size_t)v->dim * sizeof *to);
        } else {
            const uint16_t *from = (const uint16_t *)v->data + at;
            (job->type == ATTN_DECODE_BF16 ? job->convert->bf16_to_f32
                                           : job->convert->f16_to_f32)(from, to, v->dim);
        }
    }
}

/*
 * o += P·V where a hidden slot may hold NaN or inf, row by row through a copy of V. The chains of sums are those of the
 * straight way, so finite results have the same bits.
 */
static void select_values(const decode_piece *p, const attn_decode_block *v, int64_t begin)
{
    const decode_job *job = p->job;
    decode_worker *w = p->worker;
    const attn_decode_ahead none = {0};
    for (int64_t r = 0; r < p->rows; r++) {
        find_addends(p, r, begin, v->count);
        for (int64_t d = 0; d < v->dim; d += job->scrub) {
            attn_decode_block part = *v;
            part.dim = v->dim - d < job->scrub ? v->dim - d : job->scrub;
            copy_values(p, &part, d);
            part.data = p->scrub;
            part.stride = job->scrub;
            job->kernels->values[ATTN_DECODE_F32](w->s + r * CHUNK, 1, w->alpha + r, &part,
                                                  p->o + r * job->o_stride + d, job->o_stride,
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
    job->kernels->softmax(w->s, p->rows, count, scale, p->m, p->l, w->alpha);
    if (p->select && !whole) {
        select_values(p, &v, begin);
    } else {
        job->kernels->values[job->type](w->s, p->rows, w->alpha, &v, p->o, job->o_stride, &keys);
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

static void run_piece(decode_piece *p)
{
    size_t size = (size_t)p->rows * (size_t)p->job->o_stride;
    bool empty = p->all.begin >= p->all.end;
    for (int64_t r = 0; r < ROWS; r++) {
        p->m[r] = -INFINITY;
        p->l[r] = empty || r >= p->rows ? -1.0f : 0.0f;
    }
    if (empty) {
        return;
    }
    memset(p->o, 0, size * sizeof *p->o);
    for (int64_t at = p->all.begin; at < p->all.end;) {
        at += run_chunk(p, at);
    }
    /* A weight of 0 times NaN or inf in a masked slot is NaN: only then is the piece worth a second, careful run. */
    if (!p->select && p->masked && !all_finite(p->o, size)) {
        p->select = true;
        run_piece(p);
    }
}

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

/* What merging knows of a row: Σ_p e^(m_p − m)·l_p = sum. nothing: there was no key to attend to. */
typedef struct merged_row {
    int64_t head, r, b, h, i;
    float m;       /* largest m_p, 0 where all are −inf */
    double top;    /* m, or the sink where that is larger */
    double shrink; /* e^(m − top) */
    double sum;    /* over pieces and sink, relative to top */
    bool nothing;
} merged_row;

static void find_sum(const decode_job *job, merged_row *row)
{
    const sdpa_call *call = job->call;
    const size_t m_at = (size_t)job->rows * (size_t)job->o_stride + (size_t)row->r;
    float m = -INFINITY;
    for (int64_t p = 0; p < job->pieces; p++) {
        m = fmaxf(m, partial(job, row->head, p)[m_at]);
    }
    row->m = m == -INFINITY ? 0.0f : m;
    row->top = row->m;
    row->shrink = 1.0;
    for (int64_t p = 0; p < job->pieces; p++) {
        const float *part = partial(job, row->head, p) + m_at;
        if (!(part[ROWS] < 0.0f)) {
            row->sum += (double)expf(part[0] - row->m) * (double)part[ROWS];
        }
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
 * drift.
 */
static void merge_block(const decode_job *job, const merged_row *row, int64_t d, int64_t count,
                        double *total, float *rounded)
{
    const size_t m_at = (size_t)job->rows * (size_t)job->o_stride + (size_t)row->r;
    memset(total, 0, (size_t)count * sizeof *total);
    for (int64_t p = 0; p < job->pieces && !row->nothing; p++) {
        const float *part = partial(job, row->head, p);
        if (part[m_at + ROWS] < 0.0f) {
            continue;
        }
        double weight = (double)expf(part[m_at] - row->m);
        const float *o = part + row->r * job->o_stride + d;
        for (int64_t c = 0; c < count; c++) {
            total[c] += weight * (double)o[c];
        }
    }
    for (int64_t c = 0; c < count; c++) {
        rounded[c] = row->nothing ? 0.0f : (float)(total[c] * row->shrink / row->sum);
    }
    store_row(job, row->b, row->h, row->i, d, count, rounded);
}

static void merge_row(const decode_job *job, int64_t head, int64_t r, decode_worker *w)
{
    const sdpa_call *call = job->call;
    merged_row row = {.head = head,
                      .r = r,
                      .b = head / call->heads_kv,
                      .h = head % call->heads_kv * call->group + r % call->group,
                      .i = r / call->group};
    find_sum(job, &row);
    double *total = (void *)(w->data + job->rows * job->q_stride);
    for (int64_t d = 0; d < call->dim_v; d += BLOCK) {
        int64_t left = call->dim_v - d;
        merge_block(job, &row, d, left < BLOCK ? left : BLOCK, total, w->s);
    }
    if (call->lse.dtype != ATTN_DTYPE_NONE) {
        const attn_view *lse = &call->lse;
        float *to = (float *)lse->data + row.b * lse->stride[0] + row.h * lse->stride[1] +
                    row.i * lse->stride[2];
        *to = row.nothing ? -INFINITY : (float)(row.top + log(row.sum));
    }
}

static void task(void *argument, int64_t index, int worker)
{
    const decode_job *job = argument;
    const sdpa_call *call = job->call;
    int64_t head = index / job->pieces, piece = index % job->pieces;
    decode_worker *w = (void *)(job->workers + (size_t)worker * job->per_worker);
    decode_piece p = {.job = job,
                      .worker = w,
                      .q = w->data,
                      .scrub = w->data + job->rows * job->q_stride,
                      .o = partial(job, head, piece),
                      .b = head / call->heads_kv,
                      .kv_head = head % call->heads_kv};
    p.rows = sdpa_rows(call, p.b) * call->group;
    p.m = p.o + job->rows * job->o_stride;
    p.l = p.m + ROWS;
    find_ranges(&p, piece * PIECE, (piece + 1) * PIECE);
    load_queries(&p);
    run_piece(&p);
    atomic_int *done = (atomic_int *)(void *)job->shared + head;
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 == job->pieces) {
        for (int64_t r = 0; r < job->rows; r++) {
            merge_row(job, head, r, w);
        }
    }
}

void sdpa_decode_run(const sdpa_call *call, void *scratch)
{
    decode_job job = make_job(call);
    sdpa_needs needs = sdpa_decode_needs(call);
    job.shared = scratch;
    job.workers = job.shared + attn_round_up(needs.shared);
    for (int64_t head = 0; head < call->batch * call->heads_kv; head++) {
        atomic_init((atomic_int *)(void *)job.shared + head, 0);
    }
    attn_context_run(call->context, needs.tasks, true, task, &job);
}
