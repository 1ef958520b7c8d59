/**
 * matmul_f32.c: the product in f32 on the kernels of kernels/gemm: a packed into tiles of rows, b into panels of
 * columns, block by block over k, both just before they are used. Blocks decide about speed alone: every
 * element is one chain of multiply-adds whatever they are.
 */
#include <string.h>

#include "base/alloc.h"
#include "linear/linear.h"
#include "linear/matmul.h"
#include "par/context.h"

enum {
    COLUMNS = 512, /* of k taken at once: a panel of them passes every tile of a block from L2 */
    LONG = 192,    /* columns from which a tile hides the fetching of the next one's sums */
    SHARED_FLOATS = 2 << 20 /* of a packed for all threads at a time */
};

/* Multiply-adds below which waking a thread costs more than it saves (about 10 µs of one core). */
static const double PIECE_WORK = 400e3;

/* A run of k within which tiles are packed one after the other, each [k][rows]. */
typedef struct range {
    int64_t begin, end;
} range;

typedef struct product {
    const attn_matmul_call *call;
    const attn_gemm_table *table;
    int64_t panels;
    int64_t columns; /* of a block: k in even steps of at most COLUMNS */
    float *panel;    /* one for each worker: [columns][nr] */
    float *tiles;    /* alone: one block for each worker; together: one for all */
    int64_t block;   /* rows of a block */
    int64_t together, group;
    attn_linear_split split;
    int64_t x, y, row; /* together: which matrix, and its first row */
    range k;
} product;

static const float *a_at(const attn_matmul_call *call, int64_t x, int64_t y)
{
    return (const float *)call->a + x * call->a_lead[0] + y * call->a_lead[1];
}

static const float *b_at(const attn_matmul_call *call, int64_t x, int64_t y)
{
    return (const float *)call->b + x * call->b_lead[0] + y * call->b_lead[1];
}

static float *c_at(const attn_matmul_call *call, int64_t x, int64_t y)
{
    return (float *)call->c + x * call->c_lead[0] + y * call->c_lead[1];
}

/* Rows row … row + rows − 1 of a over k as one tile. */
static void pack_tile(const product *p, const float *a, int64_t row, int rows, range k, float *tile)
{
    const attn_matmul_call *call = p->call;
    p->table->pack_any(a + row * call->a_row + k.begin * call->a_k, call->a_row, call->a_k, rows,
                       k.end - k.begin, rows, tile);
}

/* What one tile's sums of one panel start from and go to, through `whole` where c itself does not do. */
static void multiply(const product *p, float *c, int64_t panel, int rows, range k,
                     const float *tile, const float *w)
{
    const attn_matmul_call *call = p->call;
    static const float zeros[32];
    float whole[32 * 32];
    int64_t nr = p->table->nr, left = call->n - panel * nr, columns = left < nr ? left : nr;
    const float *bias = call->bias ? (const float *)call->bias + panel * nr : NULL;
    bool first = k.begin == 0, from_c = !first || call->accumulate;
    attn_gemm_job job = {.w = w, .k = k.end - k.begin, .x = tile, .y = c, .ldy = call->c_row};
    if (columns == nr && !(first && bias && from_c)) {
        job.init = from_c ? c : bias ? bias : zeros;
        job.ld_init = from_c ? call->c_row : 0;
        p->table->tile(&job, rows);
        return;
    }
    for (int r = 0; r < rows; r++) {
        float *start = whole + r * nr;
        memset(start, 0, (size_t)nr * sizeof *start);
        if (from_c) {
            memcpy(start, c + r * call->c_row, (size_t)columns * sizeof *start);
        }
        for (int64_t i = 0; first && bias && i < columns; i++) {
            start[i] += bias[i];
        }
    }
    job.init = job.y = whole;
    job.ld_init = job.ldy = nr;
    p->table->tile(&job, rows);
    for (int r = 0; r < rows; r++) {
        memcpy(c + r * call->c_row, whole + r * nr, (size_t)columns * sizeof *whole);
    }
}

/* Asks for the place of the next tile's sums, which the kernel would otherwise wait for at its start. */
static void ask(const float *c, int64_t c_row, int64_t rows, int64_t nr)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < nr; i += 16) {
            __builtin_prefetch(c + r * c_row + i, 1, 3);
        }
    }
}

/*
 * Rows × panels of one matrix over one block of k, `tiles` being those rows over `packed`: each panel is packed and
 * meets all tiles.
 */
static void multiply_block(const product *p, int64_t x, int64_t y, attn_linear_piece piece, range k,
                           const float *tiles, range packed, float *w)
{
    const attn_matmul_call *call = p->call;
    int64_t mr = p->table->mr, nr = p->table->nr;
    int64_t length = packed.end - packed.begin, skip = k.begin - packed.begin;
    const float *b = b_at(call, x, y) + k.begin * call->b_k;
    for (int64_t panel = piece.p0; panel < piece.p1; panel++) {
        int64_t left = call->n - panel * nr;
        p->table->pack_any(b + panel * nr * call->b_column, call->b_column, call->b_k,
                           left < nr ? (int)left : (int)nr, k.end - k.begin, (int)nr, w);
        for (int64_t r = piece.r0; r < piece.r1; r += mr) {
            int rows = piece.r1 - r < mr ? (int)(piece.r1 - r) : (int)mr;
            float *c = c_at(call, x, y) + r * call->c_row + panel * nr;
            int64_t next = piece.r1 - r - rows;
            if (next > 0 && k.end - k.begin >= LONG) {
                ask(c + rows * call->c_row, call->c_row, next < mr ? next : mr, nr);
            }
            multiply(p, c, panel, rows, k, tiles + (r - piece.r0) * length + skip * rows, w);
        }
    }
}

/* The next block of k; an empty k is one empty block, so that c gets its start values. */
static bool next_block(const product *p, range within, range *k)
{
    bool more = k->end < within.end || (k->begin < 0 && within.end == 0);
    k->begin = k->end;
    k->end = within.end - k->begin < p->columns ? within.end : k->begin + p->columns;
    return more;
}

/* ---- alone: a task is whole matrices, each worker packs for itself ------------------------------ */

static void matrix_alone(const product *p, int64_t x, int64_t y, int worker)
{
    const attn_matmul_call *call = p->call;
    float *w = p->panel + worker * p->columns * p->table->nr;
    float *tiles = p->tiles + worker * p->columns * p->block;
    int64_t mr = p->table->mr;
    for (int64_t row = 0; row < call->m; row += p->block) {
        attn_linear_piece piece = {0, p->panels, row, row + p->block};
        piece.r1 = piece.r1 < call->m ? piece.r1 : call->m;
        range k = {-1, 0};
        while (next_block(p, (range){0, call->k}, &k)) {
            for (int64_t r = row; r < piece.r1; r += mr) {
                int rows = piece.r1 - r < mr ? (int)(piece.r1 - r) : (int)mr;
                pack_tile(p, a_at(call, x, y), r, rows, k, tiles + (r - row) * (k.end - k.begin));
            }
            multiply_block(p, x, y, piece, k, tiles, k, w);
        }
    }
}

static void alone_task(void *argument, int64_t index, int worker)
{
    const product *p = argument;
    int64_t count = p->call->lead[0] * p->call->lead[1];
    int64_t end = (index + 1) * p->group < count ? (index + 1) * p->group : count;
    for (int64_t i = index * p->group; i < end; i++) {
        matrix_alone(p, i / p->call->lead[1], i % p->call->lead[1], worker);
    }
}

/* ---- together: all threads on one matrix, a packed once for all of them -------------------------- */

static void pack_task(void *argument, int64_t index, int worker)
{
    const product *p = argument;
    int64_t r = index * p->table->mr, left = p->split.rows - r;
    (void)worker;
    pack_tile(p, a_at(p->call, p->x, p->y), p->row + r,
              left < p->table->mr ? (int)left : p->table->mr, p->k,
              p->tiles + r * (p->k.end - p->k.begin));
}

static void piece_task(void *argument, int64_t index, int worker)
{
    const product *p = argument;
    attn_linear_piece piece = attn_linear_split_at(&p->split, index);
    float *w = p->panel + worker * p->columns * p->table->nr;
    const float *tiles = p->tiles + piece.r0 * (p->k.end - p->k.begin);
    piece.r0 += p->row;
    piece.r1 += p->row;
    range k = {p->k.begin > 0 ? p->k.begin : -1, p->k.begin};
    while (next_block(p, p->k, &k)) {
        multiply_block(p, p->x, p->y, piece, k, tiles, p->k, w);
    }
}

static void matrix_together(attn_context *context, product *p)
{
    const attn_matmul_call *call = p->call;
    int threads = attn_context_threads(context);
    int64_t mr = p->table->mr;
    for (p->row = 0; p->row < call->m; p->row += p->together) {
        int64_t left = call->m - p->row, rows = left < p->together ? left : p->together;
        /* As much of k as fits beside so many rows, in whole blocks. */
        int64_t blocks = SHARED_FLOATS / (rows * p->columns);
        int64_t step = (blocks < 1 ? 1 : blocks) * p->columns;
        for (int64_t k = 0; k == 0 || k < call->k; k += step) {
            p->k = (range){k, call->k - k < step ? call->k : k + step};
            double work = (double)rows * (double)call->n * (double)(p->k.end - k);
            p->split =
                attn_linear_split_make(threads, p->panels, rows, mr, p->block, work, PIECE_WORK);
            attn_context_run(context, (rows - 1) / mr + 1, true, pack_task, p);
            attn_context_run(context, p->split.panel_pieces * p->split.row_pieces, true, piece_task,
                             p);
        }
    }
}

/* ---- the plan ----------------------------------------------------------------------------------- */

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static attn_status take_scratch(attn_context *context, product *p, int64_t tiles)
{
    int64_t threads = attn_context_threads(context);
    int64_t panels = threads * p->columns * p->table->nr;
    void *scratch;
    attn_status status =
        attn_context_scratch(context, (size_t)(tiles + panels) * sizeof(float), &scratch);
    if (status == ATTN_OK) {
        p->panel = scratch;
        p->tiles = p->panel + panels;
    }
    return status;
}

attn_status attn_matmul_f32(attn_context *context, const attn_matmul_call *call)
{
    product p = {.call = call, .table = attn_gemm_table_for(attn_context_isa(context))};
    int threads = attn_context_threads(context);
    int64_t mr = p.table->mr, nr = p.table->nr, k = call->k > 0 ? call->k : 1;
    int64_t matrices = call->lead[0] * call->lead[1];
    p.panels = (call->n - 1) / nr + 1;
    int64_t runs = (k + COLUMNS / 2 - 1) / COLUMNS;
    p.columns = round_up((k - 1) / (runs > 0 ? runs : 1) + 1, 8);
    int64_t fits = attn_linear_cached_bytes() / (p.columns * (int64_t)sizeof(float)) / mr * mr;
    fits = fits < 4 * mr ? 4 * mr : fits;
    /* Even blocks, a little larger rather than one more. */
    int64_t blocks = (call->m + fits * 3 / 4 - 1) / fits;
    p.block = round_up((call->m - 1) / (blocks > 0 ? blocks : 1) + 1, mr);

    double one = (double)call->m * (double)call->n * (double)(call->k + 1);
    if (threads == 1 || matrices >= 4 * threads || one * (double)matrices < 2 * PIECE_WORK) {
        double group = PIECE_WORK / one;
        p.group = group < 1.0 ? 1 : group > (double)matrices ? matrices : (int64_t)group;
        attn_status status = take_scratch(context, &p, threads * p.columns * p.block);
        if (status == ATTN_OK) {
            attn_context_run(context, (matrices - 1) / p.group + 1, true, alone_task, &p);
        }
        return status;
    }
    int64_t most = SHARED_FLOATS / p.columns / p.block * p.block;
    p.together = most < p.block ? p.block : most;
    p.together = p.together < call->m ? p.together : call->m;
    /* The rows that fit, or where they are few the run of k that matrix_together takes. */
    int64_t tiles = p.together * p.columns;
    tiles = tiles > SHARED_FLOATS ? tiles : SHARED_FLOATS;
    if (p.together * round_up(k, p.columns) < tiles) {
        tiles = p.together * round_up(k, p.columns);
    }
    attn_status status = take_scratch(context, &p, tiles);
    for (int64_t i = 0; status == ATTN_OK && i < matrices; i++) {
        p.x = i / call->lead[1];
        p.y = i % call->lead[1];
        matrix_together(context, &p);
    }
    return status;
}
