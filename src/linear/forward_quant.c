/**
 * forward_quant.c: the product with quantised weights: activations to 8 bits once, then panels × rows in pieces.
 *
 * Refined, a row counts twice: as itself, and as what its 8 bits left over, which is quantised just the same; the two products are
 * added. That makes about 15 bits of activations from the kernels there are. While memory is the limit it costs next to nothing,
 * since both rows share one pass over the weights.
 */
#include "base/alloc.h"
#include "linear/linear.h"
#include "par/context.h"

#include <string.h>

typedef struct call {
    const attn_linear *linear;
    attn_quant_product_fn *product;
    int64_t blocks, rows; /* rows as the kernels see them: twice x's when refined */
    const float *x;
    int64_t ldx;
    float *y; /* the kernels' results: the caller's y, or `sums` when refined */
    int64_t ldy;
    uint8_t *tiles; /* rows in groups of 8 (the last one shorter), one after the other */
    size_t row_bytes;
    attn_linear_split split;
    bool refined;
    float *wide; /* refined: each tile's rows, then what is left of them, [rows, in] */
    float *out;  /* refined: the caller's y */
    int64_t ld_out;
} call;

enum {
    TILES_PER_TASK = 4, /* quantising: 32 rows */
    REFINED_ROWS = 64   /* most rows of x that are refined: beyond, arithmetic is the limit */
};

/* Multiply-adds below which waking a thread costs more than it saves (about 10 µs of one core). */
static const double PIECE_WORK = 400e3;

/* rest = x − scale·q for the rows of a quantised tile. */
static void leftover(const call *c, const uint8_t *tile, const float *x, int count, float *rest)
{
    for (int64_t b = 0; b < c->blocks; b++) {
        const int8_t *q = (const int8_t *)tile + b * ATTN_QUANT_RECORD * count;
        float scales[ATTN_QUANT_ROWS];
        memcpy(scales, q + ATTN_QUANT_BLOCK * count, (size_t)count * sizeof *scales);
        for (int r = 0; r < count; r++) {
            int64_t at = r * c->linear->in + b * ATTN_QUANT_BLOCK;
            for (int k = 0; k < ATTN_QUANT_BLOCK; k++) {
                rest[at + k] = x[at + k] - scales[r] * (float)q[r * ATTN_QUANT_BLOCK + k];
            }
        }
    }
}

/* A tile of `count` rows of x and as many of what their 8 bits leave over. */
static void quantise_refined(const call *c, int64_t row, int count)
{
    const int64_t in = c->linear->in;
    float *x = c->wide + row * in;
    uint8_t *tile = c->tiles + (size_t)row * c->row_bytes;
    for (int r = 0; r < count; r++) {
        memcpy(x + r * in, c->x + (row / 2 + r) * c->ldx, (size_t)in * sizeof *x);
    }
    c->linear->quant->tile(x, in, count, c->blocks, tile);
    leftover(c, tile, x, count, x + count * in);
    c->linear->quant->tile(x, in, 2 * count, c->blocks, tile);
}

static void quantise_tile(const call *c, int64_t row)
{
    int64_t left = c->rows - row;
    int count = left < ATTN_QUANT_ROWS ? (int)left : ATTN_QUANT_ROWS;
    if (c->refined) {
        quantise_refined(c, row, count / 2);
        return;
    }
    c->linear->quant->tile(c->x + row * c->ldx, c->ldx, count, c->blocks,
                           c->tiles + (size_t)row * c->row_bytes);
}

static void quantise_task(void *argument, int64_t index, int worker)
{
    const call *c = argument;
    (void)worker;
    for (int64_t t = 0; t < TILES_PER_TASK; t++) {
        int64_t row = (index * TILES_PER_TASK + t) * ATTN_QUANT_ROWS;
        if (row < c->rows) {
            quantise_tile(c, row);
        }
    }
}

static attn_quant_job job_at(const call *c, int64_t panel, int64_t row, bool prefetch)
{
    const attn_linear *l = c->linear;
    return (attn_quant_job){
        .w = l->packed + (size_t)panel * l->panel_bytes,
        .stream = l->panel_bytes,
        .blocks = c->blocks,
        .x = c->tiles + (size_t)row * c->row_bytes,
        .bias = l->bias + panel * ATTN_QUANT_PANEL,
        .y = c->y + row * c->ldy + panel * ATTN_QUANT_PANEL,
        .ldy = c->ldy,
        .step = ATTN_QUANT_PANEL,
        .prefetch = prefetch,
    };
}

/* The last panel when some of its lanes are no outputs: kernels write whole panels. */
static void ragged_panel(const call *c, attn_quant_job job, int rows, int64_t outputs)
{
    float whole[ATTN_QUANT_ROWS][ATTN_QUANT_PANEL];
    float *y = job.y;
    job.y = whole[0];
    job.ldy = ATTN_QUANT_PANEL;
    c->product(&job, rows, 1);
    for (int r = 0; r < rows; r++) {
        memcpy(y + r * c->ldy, whole[r], (size_t)outputs * sizeof(float));
    }
}

/* One tile of rows: memory is the limit, so several panels far apart are read at once. */
static void stream_panels(const call *c, int64_t p0, int64_t p1, int rows)
{
    int at_once = c->linear->quant->panels[rows];
    int64_t step = (p1 - p0) / at_once;
    for (int64_t i = 0; i < step; i++) {
        attn_quant_job job = job_at(c, p0 + i, 0, true);
        job.stream *= (size_t)step;
        job.step *= step;
        c->product(&job, rows, at_once);
    }
    int rest = (int)(p1 - p0 - step * at_once);
    if (rest > 0) {
        attn_quant_job job = job_at(c, p1 - rest, 0, true);
        c->product(&job, rows, rest);
    }
}

/* Refined: y = product of x + product of the rest; the kernels have added the bias to both. */
static void add_products(const call *c, const attn_linear_piece *piece)
{
    const attn_linear *l = c->linear;
    int64_t begin = piece->p0 * ATTN_QUANT_PANEL, end = piece->p1 * ATTN_QUANT_PANEL;
    end = end < l->out ? end : l->out;
    for (int64_t row = piece->r0; row < piece->r1; row += ATTN_QUANT_ROWS) {
        int64_t left = piece->r1 - row;
        int64_t count = (left < ATTN_QUANT_ROWS ? left : ATTN_QUANT_ROWS) / 2;
        for (int64_t r = 0; r < count; r++) {
            const float *first = c->y + (row + r) * c->ldy;
            const float *second = first + count * c->ldy;
            float *out = c->out + (row / 2 + r) * c->ld_out;
            for (int64_t n = begin; n < end; n++) {
                out[n] = first[n] + (second[n] - l->bias[n]);
            }
        }
    }
}

static void product_task(void *argument, int64_t index, int worker)
{
    const call *c = argument;
    (void)worker;
    attn_linear_piece piece = attn_linear_split_at(&c->split, index);
    int64_t whole = c->linear->out / ATTN_QUANT_PANEL;
    int64_t end = piece.p1 < whole ? piece.p1 : whole;
    if (c->rows <= ATTN_QUANT_ROWS) {
        stream_panels(c, piece.p0, end, (int)c->rows);
    } else {
        for (int64_t p = piece.p0; p < end; p++) {
            for (int64_t r = piece.r0; r < piece.r1; r += ATTN_QUANT_ROWS) {
                int64_t left = piece.r1 - r;
                attn_quant_job job = job_at(c, p, r, r == piece.r0);
                c->product(&job, left < ATTN_QUANT_ROWS ? (int)left : ATTN_QUANT_ROWS, 1);
            }
        }
    }
    if (piece.p1 > whole) {
        for (int64_t r = piece.r0; r < piece.r1; r += ATTN_QUANT_ROWS) {
            int64_t left = piece.r1 - r;
            ragged_panel(c, job_at(c, whole, r, false),
                         left < ATTN_QUANT_ROWS ? (int)left : ATTN_QUANT_ROWS,
                         c->linear->out - whole * ATTN_QUANT_PANEL);
        }
    }
    if (c->refined) {
        add_products(c, &piece);
    }
}

/* Takes scratch for the tiles, and for a refined call's rows and sums. */
static attn_status take_scratch(attn_context *context, call *c)
{
    const attn_linear *l = c->linear;
    size_t tiles, wide = 0, sums = 0, size;
    bool fits = attn_mul_size(c->row_bytes, (size_t)c->rows, &tiles);
    tiles = fits ? attn_round_up(tiles) : 0;
    if (c->refined) { /* at most 128 rows: these products fit where the weights do */
        wide = attn_round_up((size_t)c->rows * (size_t)l->in * sizeof(float));
        sums = (size_t)c->rows * (size_t)l->panels * ATTN_QUANT_PANEL * sizeof(float);
    }
    if (!fits || !attn_add_size(tiles, wide + sums, &size)) {
        return attn_fail(ATTN_ERR_SHAPE, "x: [%lld, %lld] is too large to quantise",
                         (long long)c->rows, (long long)l->in);
    }
    void *scratch;
    attn_status status = attn_context_scratch(context, size, &scratch);
    if (status != ATTN_OK) {
        return status;
    }
    c->tiles = scratch;
    if (c->refined) {
        c->wide = (float *)(void *)(c->tiles + tiles);
        c->y = (float *)(void *)(c->tiles + tiles + wide);
        c->ldy = l->panels * ATTN_QUANT_PANEL;
    }
    return ATTN_OK;
}

attn_status attn_linear_forward_quant(attn_context *context, const attn_linear *linear,
                                      int64_t rows, const float *x, int64_t ldx, float *y,
                                      int64_t ldy)
{
    call c = {
        .linear = linear,
        .product = linear->kind == ATTN_LINEAR_Q8 ? linear->quant->q8 : linear->quant->q4,
        .blocks = linear->in / ATTN_QUANT_BLOCK,
        .refined = linear->refine && rows <= REFINED_ROWS,
        .x = x,
        .ldx = ldx,
        .y = y,
        .ldy = ldy,
        .out = y,
        .ld_out = ldy,
    };
    rows = c.refined ? 2 * rows : rows;
    c.rows = rows;
    c.row_bytes = (size_t)c.blocks * ATTN_QUANT_RECORD;
    attn_status status = take_scratch(context, &c);
    if (status != ATTN_OK) {
        return status;
    }
    int64_t tasks = (rows - 1) / (TILES_PER_TASK * ATTN_QUANT_ROWS) + 1;
    attn_context_run(context, tasks, true, quantise_task, &c);

    int64_t limit = linear->cached / (int64_t)c.row_bytes / ATTN_QUANT_ROWS * ATTN_QUANT_ROWS;
    limit = limit < 4 * ATTN_QUANT_ROWS ? 4 * ATTN_QUANT_ROWS : limit;
    double work = (double)rows * (double)linear->in * (double)linear->out;
    /* One row's multiply-adds each wait for half a byte of memory: they count more. */
    double weight = rows < 8 ? 8.0 / (double)rows : 1.0;
    c.split = attn_linear_split_make(attn_context_threads(context), linear->panels, rows,
                                     ATTN_QUANT_ROWS, limit, work * weight, PIECE_WORK);
    attn_context_run(context, c.split.panel_pieces * c.split.row_pieces, true, product_task, &c);
    return ATTN_OK;
}
