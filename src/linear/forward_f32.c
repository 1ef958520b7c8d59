/**
 * forward_f32.c: the product in f32: rows packed into tiles once, then panels × rows in pieces.
 */
#include "base/alloc.h"
#include "linear/linear.h"
#include "par/context.h"

#include <string.h>

typedef struct call {
    const attn_linear *linear;
    const attn_gemm_table *table;
    int64_t rows;
    const float *x;
    int64_t ldx;
    float *y;
    int64_t ldy;
    float *tiles; /* rows in groups of mr (the last one shorter): [k][rows of the group] each */
    attn_linear_split split;
} call;

/* Columns of a panel taken at once: with them the rows of a piece fit L2 and pass every panel there, so
   that the weights come from memory once. */
enum { COLUMNS = 512 };

/* Multiply-adds below which waking a thread costs more than it saves (about 10 µs of one core). */
static const double PIECE_WORK = 400e3;

static void pack_task(void *argument, int64_t index, int worker)
{
    const call *c = argument;
    int64_t row = index * c->table->mr;
    int64_t left = c->rows - row;
    (void)worker;
    c->table->pack(c->x + row * c->ldx, c->ldx, left < c->table->mr ? (int)left : c->table->mr,
                   c->linear->in, c->tiles + row * c->linear->in);
}

static const float *panel_at(const call *c, int64_t panel)
{
    return (const float *)(const void *)(c->linear->packed +
                                         (size_t)panel * c->linear->panel_bytes);
}

/* One tile × one panel over columns k0 … k1 − 1; later columns go on from what y holds. */
static void tile_panel(const call *c, int64_t panel, int64_t row, int rows, int64_t k0, int64_t k1)
{
    const attn_linear *l = c->linear;
    int64_t lanes = l->lanes;
    int64_t outputs = l->out - panel * lanes < lanes ? l->out - panel * lanes : lanes;
    float *y = c->y + row * c->ldy + panel * lanes;
    attn_gemm_job job = {
        .w = panel_at(c, panel) + k0 * lanes,
        .ldw = lanes,
        .k = k1 - k0,
        .x = c->tiles + row * l->in + k0 * rows,
        .ldx = 1,
        .x_step = rows,
        .init = k0 > 0 ? y : l->bias + panel * lanes,
        .ld_init = k0 > 0 ? c->ldy : 0,
        .y = y,
        .ldy = c->ldy,
        .ask = c->tiles,
        .columns = (int)outputs,
    };
    c->table->tile(&job, rows);
}

/* Asks for one tile's share of the next panel, which memory delivers while this one is computed. */
static void ask(const float *next, int64_t floats, int64_t tile, int64_t tiles)
{
    int64_t share = (floats + tiles - 1) / tiles;
    int64_t end = (tile + 1) * share < floats ? (tile + 1) * share : floats;
    for (int64_t i = tile * share; i < end; i += 16) {
        __builtin_prefetch(next + i, 0, 2);
    }
}

static void tiles_task(void *argument, int64_t index, int worker)
{
    const call *c = argument;
    attn_linear_piece piece = attn_linear_split_at(&c->split, index);
    int64_t mr = c->table->mr, in = c->linear->in, lanes = c->linear->lanes;
    int64_t tiles = (piece.r1 - piece.r0 + mr - 1) / mr;
    (void)worker;
    for (int64_t k0 = 0; k0 < in; k0 += COLUMNS) {
        int64_t k1 = in - k0 < COLUMNS ? in : k0 + COLUMNS;
        for (int64_t p = piece.p0; p < piece.p1; p++) {
            for (int64_t r = piece.r0; r < piece.r1; r += mr) {
                int64_t left = piece.r1 - r;
                tile_panel(c, p, r, left < mr ? (int)left : (int)mr, k0, k1);
                if (p + 1 < piece.p1) {
                    ask(panel_at(c, p + 1) + k0 * lanes, (k1 - k0) * lanes, (r - piece.r0) / mr,
                        tiles);
                }
            }
        }
    }
}

/* A few rows read in place: memory is the limit, so several panels far apart are read at once. */
static void few_task(void *argument, int64_t index, int worker)
{
    const call *c = argument;
    const attn_linear *l = c->linear;
    attn_linear_piece piece = attn_linear_split_at(&c->split, index);
    int64_t lanes = l->lanes, whole = l->out / lanes;
    int64_t end = piece.p1 < whole ? piece.p1 : whole;
    int64_t streams = c->table->streams, step = (end - piece.p0) / streams;
    int rows = (int)c->rows;
    (void)worker;
    attn_gemm_job job = {.k = l->in, .x = c->x, .ldx = c->ldx, .x_step = 1, .ldy = c->ldy};
    for (int64_t i = 0; i < step; i++) {
        job.w = panel_at(c, piece.p0 + i);
        job.stream = step * l->in * lanes;
        job.step = step * lanes;
        job.init = l->bias + (piece.p0 + i) * lanes;
        job.y = c->y + (piece.p0 + i) * lanes;
        c->table->few(&job, rows, (int)streams);
    }
    job.stream = l->in * lanes;
    job.step = lanes;
    int64_t rest = end - piece.p0 - step * streams;
    if (rest > 0) {
        job.w = panel_at(c, end - rest);
        job.init = l->bias + (end - rest) * lanes;
        job.y = c->y + (end - rest) * lanes;
        c->table->few(&job, rows, (int)rest);
    }
    if (piece.p1 > whole) {
        float last[ATTN_GEMM_FEW * 32];
        job.w = panel_at(c, whole);
        job.init = l->bias + whole * lanes;
        job.y = last;
        job.ldy = lanes;
        c->table->few(&job, rows, 1);
        for (int r = 0; r < rows; r++) {
            memcpy(c->y + r * c->ldy + whole * lanes, last + r * lanes,
                   (size_t)(l->out - whole * lanes) * sizeof(float));
        }
    }
}

attn_status attn_linear_forward_f32(attn_context *context, const attn_linear *linear, int64_t rows,
                                    const float *x, int64_t ldx, float *y, int64_t ldy)
{
    call c = {
        .linear = linear,
        .table = linear->gemm,
        .rows = rows,
        .x = x,
        .ldx = ldx,
        .y = y,
        .ldy = ldy,
    };
    int threads = attn_context_threads(context);
    int64_t mr = c.table->mr;
    double work = (double)rows * (double)linear->in * (double)linear->out;
    if (rows <= ATTN_GEMM_FEW) {
        /* Each weight is four bytes of memory for `rows` multiply-adds: they count more. */
        c.split = attn_linear_split_make(threads, linear->panels, rows, ATTN_GEMM_FEW,
                                         ATTN_GEMM_FEW, work * 32.0 / (double)rows, PIECE_WORK);
        attn_context_run(context, c.split.panel_pieces, true, few_task, &c);
        return ATTN_OK;
    }
    size_t size;
    if (!attn_mul_size((size_t)rows, (size_t)linear->in * sizeof(float), &size)) {
        return attn_fail(ATTN_ERR_SHAPE, "x: [%lld, %lld] is too large to pack", (long long)rows,
                         (long long)linear->in);
    }
    void *scratch;
    attn_status status = attn_context_scratch(context, size, &scratch);
    if (status != ATTN_OK) {
        return status;
    }
    c.tiles = scratch;
    attn_context_run(context, (rows - 1) / mr + 1, true, pack_task, &c);

    int64_t columns = linear->in < COLUMNS ? linear->in : COLUMNS;
    int64_t limit = linear->cached / (columns * (int64_t)sizeof(float)) / mr * mr;
    limit = limit < 4 * mr ? 4 * mr : limit;
    c.split = attn_linear_split_make(threads, linear->panels, rows, mr, limit, work, PIECE_WORK);
    attn_context_run(context, c.split.panel_pieces * c.split.row_pieces, true, tiles_task, &c);
    return ATTN_OK;
}
