/*
 * The gradient of bias: dS, summed over what the bias repeats over.
 *
 * A second pass over the tiles, of two products, with an order of its own: a task owns a tile of the
 * gradient and goes through all sequences, heads, rows and columns that add to it. So the sum needs no
 * memory beside the tile and comes out the same however many threads there are.
 */
#include "attention/backward_flash.h"
#include "base/alloc.h"
#include "par/context.h"

#include <string.h>

enum { ROWS = ATTN_FLASH_ROWS };

/* How many tasks a dimension of the gradient is cut into, and what a task sums over. */
typedef struct extent {
    int64_t tasks, step, size; /* positions task·step … + step−1, below size */
    bool repeats;              /* one task takes them all */
} extent;

static extent cut(int64_t own, int64_t size, int64_t step)
{
    bool repeats = own == 1;
    return (extent){repeats ? 1 : (size + step - 1) / step, step, size, repeats};
}

typedef struct bias_job {
    const backward_job *job;
    extent at[4]; /* batch, head, row, column */
} bias_job;

/* Positions of a task: a step of its own, or all. */
static sdpa_range positions(const extent *e, int64_t task)
{
    int64_t begin = e->repeats ? 0 : task * e->step, end = begin + e->step;
    return (sdpa_range){begin, e->repeats || end > e->size ? e->size : end};
}

static int64_t bias_tile(flash_block *f, int64_t begin, int64_t wanted, bool partial)
{
    backward_block *x = (backward_block *)f; /* its first member */
    backward_scores(x, begin, wanted, partial);
    for (int64_t j = 0; j < wanted; j++) {
        float *sum = x->dbias + (begin - x->begin + j) * ROWS;
        const float *ds = x->dp + j * ROWS;
        for (int32_t r = 0; r < f->valid; r++) {
            sum[r] += ds[r];
        }
    }
    return wanted;
}

/* Adds rows t … of one head against the columns, in steps, to the tile. */
static void add_rows(backward_block *x, int64_t b, int64_t h, int64_t t, sdpa_range columns,
                     int64_t step)
{
    const sdpa_call *call = x->f.call;
    bool loaded = false;
    for (int64_t c = columns.begin; c < columns.end; c += step) {
        int64_t keys = sdpa_keys(call, b);
        sdpa_range some = {c, c + step < columns.end ? c + step : columns.end};
        some.end = some.end < keys ? some.end : keys;
        if (some.begin < some.end && backward_meets(call, b, 1, t, some)) {
            if (!loaded) {
                backward_load_rows(x, b, h, 1, t);
                loaded = true;
            }
            backward_load_keys(x, b, h / call->group, some.begin, some.end);
            flash_walk_columns(&x->f, some.begin, some.end, bias_tile);
        }
    }
}

/* What the tile holds, summed over lanes and columns where the bias repeats over them. */
static void write_tile(backward_block *x, const bias_job *bias, const int64_t task[4])
{
    const backward_job *job = x->job;
    const attn_view *to = &job->call->dbias;
    const extent *row = &bias->at[2], *column = &bias->at[3];
    sdpa_range rows = positions(row, task[2]), columns = positions(column, task[3]);
    int64_t keys = column->size < column->step ? column->size : column->step;
    int64_t lanes = row->repeats ? 1 : rows.end - rows.begin;
    int64_t count = column->repeats ? 1 : columns.end - columns.begin;
    float *line = x->f.s; /* a tile's room, free by now */
    for (int64_t r = 0; r < lanes; r++) {
        for (int64_t j = 0; j < count; j++) {
            float sum = 0.0f;
            for (int64_t c = j; c < (column->repeats ? keys : j + 1); c++) {
                for (int64_t n = r; n < (row->repeats ? ROWS : r + 1); n++) {
                    sum += x->dbias[c * ROWS + n];
                }
            }
            line[j] = sum;
        }
        int64_t i = row->repeats ? 0 : rows.begin + r, from = column->repeats ? 0 : columns.begin;
        char *at = backward_at(to, task[0], task[1], i);
        backward_store(job, to->dtype, line, count,
                       at + from * (int64_t)attn_dtype_size(to->dtype));
    }
}

static void task(void *argument, int64_t index, int worker)
{
    const bias_job *bias = argument;
    int64_t part[4];
    backward_block x;
    backward_open(&x, bias->job, worker);
    for (int n = 3; n >= 0; n--) {
        part[n] = index % bias->at[n].tasks;
        index /= bias->at[n].tasks;
    }
    memset(x.dbias, 0, (size_t)(ROWS * bias->job->layout.bias_keys) * sizeof *x.dbias);
    sdpa_range b = positions(&bias->at[0], part[0]), h = positions(&bias->at[1], part[1]);
    sdpa_range rows = positions(&bias->at[2], part[2]), columns = positions(&bias->at[3], part[3]);
    for (int64_t n = b.begin; n < b.end; n++) {
        for (int64_t m = h.begin; m < h.end; m++) {
            for (int64_t t = rows.begin; t < rows.end; t += ROWS) {
                add_rows(&x, n, m, t, columns, bias->at[3].step);
            }
        }
    }
    write_tile(&x, bias, part);
}

void backward_bias(const backward_job *job)
{
    const sdpa_call *call = &job->call->call;
    const attn_view *to = &job->call->dbias;
    if (to->dtype == ATTN_DTYPE_NONE) {
        return;
    }
    bias_job bias = {.job = job};
    bias.at[0] = cut(to->shape[0], call->batch, 1);
    bias.at[1] = cut(to->shape[1], call->heads_q, 1);
    bias.at[2] = cut(to->shape[2], call->len_q, ROWS);
    bias.at[3] = cut(to->shape[3], call->len_k, job->layout.bias_keys);
    int64_t tasks = 1;
    for (int n = 0; n < 4; n++) {
        tasks *= bias.at[n].tasks;
    }
    attn_context_run(call->context, tasks, true, task, &bias);
}
