/* Gradients in f32 arithmetic: sizes, the schedule of waves, and where results are summed. */
#include "attention/backward_flash.h"
#include "base/alloc.h"
#include "par/context.h"

#include <string.h>

enum {
    ROWS = ATTN_FLASH_ROWS,
    UNIT = ATTN_FLASH_KEYS,
    TASKS = 16,           /* of a wave: enough for a handful of threads */
    FEW_TASKS = 8,        /* fewer are worth parts of LEAST_KEYS, not only of twice as many */
    LEAST_KEYS = 128,     /* of a part: a block of rows is taken once for each part */
    MOST_KEYS = 1024,     /* of a part: longer ones gained nothing */
    PART_BYTES = 2 << 20, /* of a part: K, V and their gradients */
};

static size_t take(size_t *size, int64_t floats)
{
    size_t at = *size;
    *size = attn_round_up(at + (size_t)floats * sizeof(float));
    return at;
}

static int64_t up_to(int64_t n, int64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* Parts and ranges: as many as keep some threads busy with few heads, and as make parts fit L2. */
static void cut(const sdpa_call *call, backward_layout *f)
{
    int64_t heads = call->batch * call->heads_kv, pieces = 1;
    int64_t blocks = (call->len_q * call->group + ROWS - 1) / ROWS;
    int64_t bytes = 2 * (call->dim_qk + call->dim_v) * (int64_t)sizeof(float);
    int64_t most = PART_BYTES / bytes < MOST_KEYS ? PART_BYTES / bytes : MOST_KEYS;
    most = most < LEAST_KEYS ? LEAST_KEYS : most;
    while (heads * pieces < TASKS &&
           call->len_k / (2 * pieces) >= (heads * pieces < FEW_TASKS ? 1 : 2) * LEAST_KEYS) {
        pieces *= 2;
    }
    while ((call->len_k + pieces - 1) / pieces > most) {
        pieces *= 2;
    }
    f->range_blocks = (blocks + pieces - 1) / pieces;
    f->ranges = (blocks + f->range_blocks - 1) / f->range_blocks;
    /* Under a causal mask a range of rows ends where a part of keys does, or just before it. */
    f->part_keys = up_to((call->len_k + pieces - 1) / pieces, UNIT);
    f->parts = (call->len_k + f->part_keys - 1) / f->part_keys;
    f->waves = f->parts > f->ranges ? f->parts : f->ranges;
}

static bool narrow(const attn_view *view)
{
    return view->dtype != ATTN_DTYPE_NONE && view->dtype != ATTN_F32;
}

/* The shared scratch: sums of a round of heads where results are 16-bit, and rows' slopes. */
static void share(const sdpa_backward_call *back, backward_layout *f)
{
    const sdpa_call *call = &back->call;
    int64_t heads = call->batch * call->heads_kv, rows = call->len_q * call->group;
    f->round = heads;
    if (narrow(&back->dq) || narrow(&back->dk) || narrow(&back->dv)) {
        int64_t enough = (TASKS + f->waves - 1) / f->waves;
        f->round = enough < heads ? enough : heads;
    }
    f->dq = take(&f->shared, narrow(&back->dq) ? f->round * rows * call->dim_qk : 0);
    f->dk = take(&f->shared, narrow(&back->dk) ? f->round * call->len_k * call->dim_qk : 0);
    f->dv = take(&f->shared, narrow(&back->dv) ? f->round * call->len_k * call->dim_v : 0);
    f->delta = take(&f->shared, heads * rows);
    bool slopes = back->dalibi.dtype != ATTN_DTYPE_NONE;
    f->slopes = take(&f->shared, slopes ? 2 * heads * rows : 0); /* doubles */
}

backward_layout backward_make_layout(const sdpa_backward_call *back)
{
    const sdpa_call *call = &back->call;
    backward_layout f = {.ldq = up_to(call->dim_qk, 16), .ldg = up_to(call->dim_v, 16)};
    flash_layout *t = &f.tile;
    size_t *size = &t->size;
    int64_t longest = f.ldq > f.ldg ? f.ldq : f.ldg;
    bool copy = call->kv.k.dtype != ATTN_F32, bias = back->dbias.dtype != ATTN_DTYPE_NONE;
    t->keys = attn_flash_backward_table(attn_context_isa(call->context))->block_keys;
    t->ld_addend = up_to(t->keys, 16);
    t->row_blocks = (call->len_q * call->group + ROWS - 1) / ROWS;
    cut(call, &f);
    share(back, &f);
    /* four times a tile, so that a pair of a part and a block is through with the next one's rows */
    int64_t times = 4 * ((f.part_keys + t->keys - 1) / t->keys);
    f.ahead = (ROWS + times - 1) / times;
    f.bias_keys = f.part_keys < 4 * t->keys ? f.part_keys : 4 * t->keys;
    t->qt = take(size, ROWS * call->dim_qk);
    t->s = take(size, ROWS * t->keys);
    f.dp = take(size, ROWS * t->keys);
    f.gt = take(size, ROWS * call->dim_v);
    f.q = take(size, ROWS * f.ldq);
    f.g = take(size, ROWS * f.ldg);
    f.o = take(size, ROWS * f.ldq);
    t->row = take(size, ATTN_FLASH_LANES * longest);
    t->addend = take(size, sdpa_has_addend(call) ? ROWS * t->ld_addend : 0);
    f.capped = take(size, flash_cap(call) > 0.0f ? ROWS * t->keys : 0);
    f.keep = take(size, call->dropout > 0.0 ? ROWS * t->keys : 0);
    f.k = take(size, copy ? f.part_keys * call->dim_qk : 0);
    f.v = take(size, copy ? f.part_keys * call->dim_v : 0);
    f.clean = take(size, t->keys * call->dim_qk);
    f.bad = take(size, (f.part_keys + 3) / 4); /* bytes */
    f.dbias = take(size, bias ? ROWS * f.bias_keys : 0);
    return f;
}

sdpa_needs sdpa_backward_flash_needs(const sdpa_backward_call *back)
{
    backward_layout layout = backward_make_layout(back);
    return (sdpa_needs){
        .shared = layout.shared,
        .per_worker = layout.tile.size,
        .tasks = back->call.batch * back->call.heads_kv * layout.waves,
        .kernel = attn_flash_backward_table(attn_context_isa(back->call.context))->name,
    };
}

/* Where the gradients of a KV head's keys from `first` on are summed; `slot`: its place in the round. */
static backward_rows key_rows(const backward_job *job, const attn_view *to, size_t sums,
                              int64_t dim, int64_t slot, int64_t first)
{
    const sdpa_call *call = &job->call->call;
    int64_t head = job->first + slot;
    if (to->dtype == ATTN_DTYPE_NONE) {
        return (backward_rows){0};
    }
    if (to->dtype == ATTN_F32) {
        return (backward_rows){backward_at(to, head / call->heads_kv, head % call->heads_kv, first),
                               to->stride[2]};
    }
    return (backward_rows){
        (float *)(void *)(job->shared + sums) + (slot * call->len_k + first) * dim, dim};
}

/* The same for row t of the KV head's list of query rows. */
static float *query_row(const backward_job *job, int64_t slot, int64_t t)
{
    const sdpa_call *call = &job->call->call;
    const attn_view *to = &job->call->dq;
    int64_t head = job->first + slot;
    if (to->dtype == ATTN_F32) {
        int64_t h = head % call->heads_kv * call->group + t % call->group;
        return backward_at(to, head / call->heads_kv, h, t / call->group);
    }
    return (float *)(void *)(job->shared + job->layout.dq) +
           (slot * call->len_q * call->group + t) * call->dim_qk;
}

static double *slopes_at(const backward_job *job, int64_t slot, int64_t t)
{
    const sdpa_call *call = &job->call->call;
    return (double *)(void *)(job->shared + job->layout.slopes) +
           (job->first + slot) * call->len_q * call->group + t;
}

/* Keys of part p and rows of range r, as intervals of a head's lists; empty where there are none. */
static sdpa_range part_keys(const backward_job *job, int64_t p)
{
    int64_t size = job->layout.part_keys, all = job->call->call.len_k;
    sdpa_range keys = {p * size, (p + 1) * size};
    keys.begin = keys.begin < all ? keys.begin : all;
    keys.end = keys.end < all ? keys.end : all;
    return keys;
}

static sdpa_range range_rows(const backward_job *job, int64_t r)
{
    const sdpa_call *call = &job->call->call;
    int64_t size = job->layout.range_blocks * ROWS, all = call->len_q * call->group;
    sdpa_range rows = {r * size, (r + 1) * size};
    rows.begin = rows.begin < all ? rows.begin : all;
    rows.end = rows.end < all ? rows.end : all;
    return rows;
}

/* Before the first wave comes to rows first … last−1: their delta, and nothing in their slopes. */
static void prepare_rows(const backward_job *job, int64_t slot, int64_t first, int64_t last,
                         int worker)
{
    const sdpa_backward_call *back = job->call;
    const sdpa_call *call = &back->call;
    int64_t head = job->first + slot, b = head / call->heads_kv;
    for (int64_t t = first; t < last; t++) {
        int64_t h = head % call->heads_kv * call->group + t % call->group, i = t / call->group;
        if (i < sdpa_rows(call, b)) {
            *backward_delta_at(job, b, h, i) =
                backward_delta(job, b, h, i, backward_room(job, worker));
        }
        if (back->dalibi.dtype != ATTN_DTYPE_NONE) {
            *slopes_at(job, slot, t) = 0.0;
        }
    }
}

/* After the last wave: 16-bit results are rounded, once. */
static void round_off(const backward_job *job, int64_t slot, sdpa_range keys, sdpa_range rows)
{
    const sdpa_backward_call *back = job->call;
    const sdpa_call *call = &back->call;
    const attn_view *views[2] = {&back->dk, &back->dv};
    const size_t sums[2] = {job->layout.dk, job->layout.dv};
    const int64_t dims[2] = {call->dim_qk, call->dim_v};
    int64_t head = job->first + slot, b = head / call->heads_kv, g = head % call->heads_kv;
    for (int n = 0; n < 2; n++) {
        backward_rows from = key_rows(job, views[n], sums[n], dims[n], slot, keys.begin);
        for (int64_t j = keys.begin; j < keys.end && narrow(views[n]); j++) {
            backward_store(job, views[n]->dtype, from.data + (j - keys.begin) * from.stride,
                           dims[n], backward_at(views[n], b, g, j));
        }
    }
    for (int64_t t = rows.begin; t < rows.end && narrow(&back->dq); t++) {
        backward_store(
            job, back->dq.dtype, query_row(job, slot, t), call->dim_qk,
            backward_at(&back->dq, b, g * call->group + t % call->group, t / call->group));
    }
}

/* What a block gives to rows t … last−1: the first of its sums in wave 0, one more later. */
static void add_to_rows(const backward_block *x, int64_t slot, int64_t t, int64_t last, bool met)
{
    const backward_job *job = x->job;
    const sdpa_call *call = &job->call->call;
    bool first = job->wave == 0;
    int64_t done = met ? t + x->f.valid : t;
    for (int64_t r = 0; t + r < done && x->dq; r++) {
        const float *from = x->o + r * job->layout.ldq;
        float *to = query_row(job, slot, t + r);
        if (first) {
            job->kernels->finish(from, (float)call->scale, call->dim_qk, to);
        } else {
            job->backward->add((float)call->scale, from, call->dim_qk, to);
        }
    }
    for (int64_t r = done; r < last && x->dq && first; r++) {
        memset(query_row(job, slot, r), 0, (size_t)call->dim_qk * sizeof(float));
    }
    for (int64_t r = 0; t + r < done && job->call->dalibi.dtype != ATTN_DTYPE_NONE; r++) {
        *slopes_at(job, slot, t + r) += x->slope[r];
    }
}

/* Part and range against each other. In wave 0 sums have yet to begin. */
static void run_pair(const backward_job *job, int64_t slot, sdpa_range keys, sdpa_range rows,
                     int worker)
{
    const sdpa_backward_call *back = job->call;
    const sdpa_call *call = &back->call;
    int64_t head = job->first + slot, b = head / call->heads_kv, g = head % call->heads_kv;
    int64_t live = sdpa_keys(call, b) < keys.end ? sdpa_keys(call, b) : keys.end;
    bool first = job->wave == 0, loaded = false;
    backward_block x;
    backward_open(&x, job, worker);
    x.dk = key_rows(job, &back->dk, job->layout.dk, call->dim_qk, slot, keys.begin);
    x.dv = key_rows(job, &back->dv, job->layout.dv, call->dim_v, slot, keys.begin);
    x.dq = back->dq.dtype != ATTN_DTYPE_NONE;
    x.begin = keys.begin;
    x.begun = first ? keys.begin : keys.end;
    for (int64_t t = rows.begin; t < rows.end; t += ROWS) {
        int64_t last = t + ROWS < rows.end ? t + ROWS : rows.end;
        sdpa_range seen = {keys.begin, live};
        bool met = keys.begin < live && backward_meets(call, b, call->group, t, seen);
        if (first) {
            prepare_rows(job, slot, t, last, worker);
        }
        if (met && !loaded) {
            backward_load_keys(&x, b, g, keys.begin, live);
            loaded = true;
        }
        if (met) {
            backward_load_rows(&x, b, g * call->group, call->group, t);
            x.ahead = last;
            x.stop = last + ROWS < rows.end ? last + ROWS : rows.end;
            backward_pair(&x);
        }
        add_to_rows(&x, slot, t, last, met);
    }
    backward_clear_keys(&x, keys.end);
}

/*
 * The range that part p meets in a wave. Under a causal mask half of the square is empty, and sums
 * leave every wave about as much to do; with a window only the diagonals are left, and differences do.
 */
static int64_t partner(const backward_job *job, int64_t p)
{
    const sdpa_call *call = &job->call->call;
    int64_t waves = job->layout.waves;
    bool half = call->causal != ATTN_CAUSAL_NONE && call->left < 0;
    return half ? (job->wave - p + waves) % waves : (job->wave + p) % waves;
}

static void task(void *argument, int64_t index, int worker)
{
    const backward_job *job = argument;
    int64_t p = index / job->heads, slot = index % job->heads;
    sdpa_range keys = part_keys(job, p), rows = range_rows(job, partner(job, p));
    run_pair(job, slot, keys, rows, worker);
    if (job->wave == job->layout.waves - 1) {
        round_off(job, slot, keys, rows);
    }
}

void sdpa_backward_flash_run(const sdpa_backward_call *back, void *scratch)
{
    const sdpa_call *call = &back->call;
    attn_isa isa = attn_context_isa(call->context);
    backward_job job = {
        .call = back,
        .layout = backward_make_layout(back),
        .kernels = attn_flash_table(isa),
        .backward = attn_flash_backward_table(isa),
        .convert = attn_convert_table(isa),
        .drop = call->dropout > 0.0 ? attn_dropout_tile_for(isa) : NULL,
        .shared = scratch,
        .workers = (char *)scratch,
    };
    job.workers += attn_round_up(job.layout.shared);
    int64_t heads = call->batch * call->heads_kv;
    for (job.first = 0; job.first < heads; job.first += job.layout.round) {
        int64_t left = heads - job.first;
        job.heads = left < job.layout.round ? left : job.layout.round;
        for (job.wave = 0; job.wave < job.layout.waves; job.wave++) {
            attn_context_run(call->context, job.layout.waves * job.heads, true, task, &job);
        }
    }
    backward_heads(&job);
    backward_bias(&job);
}
