/**
 * matmul_f32.c: the product in f32 on the kernels of kernels/gemm. Operands are read where they lie if the kernels can; else a is
 * packed into tiles of rows, b into panels of columns. Blocks decide about speed alone: every element is one chain of
 * multiply-adds whatever they are.
 */
#include "base/alloc.h"
#include "linear/linear.h"
#include "linear/matmul.h"
#include "par/context.h"

enum {
    COLUMNS = 512, /* of k taken at once */
    LONG = 192,    /* columns from which a tile hides the fetching of the next one's sums */
    TALL = 512,    /* rows from which b is packed before, once for all threads */
    BLOCK =
        8, /* tiles of a block then: a panel from L2 passes them in L1, and c's lines come and go once */
    SHARED_FLOATS = 2 << 20 /* of b packed for all threads at a time */
};

/* Multiply-adds below which waking a thread costs more than it saves (about 10 µs of one core). */
static const double PIECE_WORK = 400e3;

/* Multiply-adds of one thread from which it does several pieces, to even out cores that a neighbour slows down. */
static const double LARGE_WORK = 500e6;

typedef struct range {
    int64_t begin, end;
} range;

typedef struct product {
    const attn_matmul_call *call;
    const attn_gemm_table *table;
    bool a_there, b_there; /* read where they lie */
    int64_t panels;        /* of b */
    int64_t columns;       /* of a block: k in even steps of at most COLUMNS */
    int64_t block;         /* rows of a block */
    float *panel;          /* one for each worker: [columns][nr] */
    float *tiles; /* one for each worker unless a_there: [columns][block], tile after tile */
    float *
        shared; /* b for all: blocks of k, in them panels; NULL where each worker packs for itself */
    int64_t group; /* alone: matrices of a task */
    /* together: which matrix, which part of k and of the panels, in which pieces */
    int64_t x, y;
    range k, some;
    attn_linear_split split;
} product;

static int64_t at_most(int64_t n, int64_t limit)
{
    return n < limit ? n : limit;
}

static int64_t ceil_div(int64_t n, int64_t by)
{
    return n / by + (n % by != 0);
}

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

/* Rows of a tile: as even as they come, rather than a short one at the end. */
static int64_t tile_rows(const product *p, int64_t rows)
{
    return ceil_div(rows, ceil_div(rows, p->table->mr));
}

/* What one tile's sums of one panel start from, and the product. */
static void multiply(const product *p, attn_gemm_job *job, int64_t panel, int rows, bool first)
{
    const attn_matmul_call *call = p->call;
    static const float zeros[32];
    float start[32 * 32];
    int64_t nr = p->table->nr;
    const float *bias = first && call->bias ? (const float *)call->bias + panel * nr : NULL;
    bool from_c = !first || call->accumulate;
    job->init = from_c ? job->y : bias ? bias : zeros;
    job->ld_init = from_c ? call->c_row : 0;
    if (from_c && bias) {
        for (int r = 0; r < rows; r++) {
            for (int i = 0; i < job->columns; i++) {
                start[r * nr + i] = job->y[r * call->c_row + i] + bias[i];
            }
        }
        job->init = start;
        job->ld_init = nr;
    }
    p->table->tile(job, rows);
}

/* Asks for the place of the next tile's sums, which the kernel would otherwise wait for at its start. */
static void ask_sums(const float *c, int64_t c_row, int64_t rows, int64_t nr)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < nr; i += 16) {
            __builtin_prefetch(c + r * c_row + i, 1, 3);
        }
    }
}

/* A matrix of the batch, and the memory of the worker that is at it. */
typedef struct place {
    const float *a, *b;
    float *c, *tiles, *panel;
} place;

static place place_of(const product *p, int64_t x, int64_t y, int worker)
{
    const attn_matmul_call *call = p->call;
    return (place){
        .a = (const float *)call->a + x * call->a_lead[0] + y * call->a_lead[1],
        .b = (const float *)call->b + x * call->b_lead[0] + y * call->b_lead[1],
        .c = (float *)call->c + x * call->c_lead[0] + y * call->c_lead[1],
        .tiles = p->tiles + worker * p->columns * p->block,
        .panel = p->panel + worker * p->columns * p->table->nr,
    };
}

/*
 * What memory is to deliver while tile number `tile` of one panel is computed, a line with each column. With b packed for all: a's
 * rows of the next block with the first panel, later the sums of the next panel. Else the next block of k: a's columns with the
 * first panel, b's lines with those after it.
 */
static void ask(const product *p, const place *at, range rows, range panels, int64_t panel, range k,
                int64_t tile, attn_gemm_job *job)
{
    const attn_matmul_call *call = p->call;
    int64_t high = rows.end - rows.begin, nr = p->table->nr, ahead = panel - panels.begin;
    int64_t line = (ahead - 1) * ceil_div(high, tile_rows(p, high)) + tile;
    job->ask = job->x;
    job->ask_step = 0;
    if (p->shared && ahead == 0 && p->a_there && call->a_k == 1 && call->a_row <= 2 * job->k) {
        job->ask = job->x + high * call->a_row;
        job->ask_step = 16;
    } else if (p->shared && ahead > 0 && tile < nr / 16 && job->k <= 4 * high) {
        bool last = panel + 1 == panels.end;
        job->ask = at->c + (last ? rows.end : rows.begin) * call->c_row +
                   (last ? panels.begin : panel + 1) * nr + tile * 16;
        job->ask_step = call->c_row;
    } else if (!p->shared && ahead == 0 && p->a_there && call->a_row == 1) {
        job->ask = job->x + job->k * call->a_k + tile_rows(p, high) - 1;
        job->ask_step = call->a_k;
    } else if (!p->shared && ahead > 0 && p->b_there &&
               line < (panels.end - panels.begin) * nr / 16) {
        job->ask = at->b + panels.begin * nr + k.end * call->b_k + line * 16;
        job->ask_step = call->b_k;
    }
}

/* Rows × one panel over one block of k. */
static void multiply_panel(const product *p, const place *at, range rows, range panels,
                           int64_t panel, range k, attn_gemm_job job)
{
    const attn_matmul_call *call = p->call;
    int64_t nr = p->table->nr, step = tile_rows(p, rows.end - rows.begin);
    job.columns = (int)at_most(call->n - panel * nr, nr);
    job.k = k.end - k.begin;
    job.ldy = call->c_row;
    for (int64_t r = rows.begin; r < rows.end; r += step) {
        int count = (int)at_most(rows.end - r, step);
        int64_t next = rows.end - r - count;
        job.y = at->c + r * call->c_row + panel * nr;
        if (p->a_there) {
            job.x = at->a + r * call->a_row + k.begin * call->a_k;
            job.ldx = call->a_row;
            job.x_step = call->a_k;
        } else {
            job.x = at->tiles + (r - rows.begin) * job.k;
            job.ldx = 1;
            job.x_step = count;
        }
        ask(p, at, rows, panels, panel, k, (r - rows.begin) / step, &job);
        if (next > 0 && job.k >= LONG) {
            ask_sums(job.y + count * call->c_row, call->c_row, next < step ? next : step, nr);
        }
        multiply(p, &job, panel, count, k.begin == 0);
    }
}

static void pack_panel(const product *p, const float *b, int64_t panel, range k, float *out)
{
    const attn_matmul_call *call = p->call;
    int64_t nr = p->table->nr;
    p->table->pack_any(b + panel * nr * call->b_column + k.begin * call->b_k, call->b_column,
                       call->b_k, (int)at_most(call->n - panel * nr, nr), k.end - k.begin, (int)nr,
                       out);
}

/* Where pack_task has put a panel of one block of k. */
static float *shared_panel(const product *p, int64_t panel, range k)
{
    int64_t before = (k.begin - p->k.begin) * (p->some.end - p->some.begin);
    return p->shared +
           (before + (panel - p->some.begin) * (k.end - k.begin)) * (int64_t)p->table->nr;
}

/* One block of rows × panels over one block of k. */
static void multiply_block(const product *p, const place *at, range rows, range panels, range k)
{
    const attn_matmul_call *call = p->call;
    int64_t nr = p->table->nr, length = k.end - k.begin, step = tile_rows(p, rows.end - rows.begin);
    for (int64_t r = rows.begin; r < rows.end && !p->a_there; r += step) {
        int count = (int)at_most(rows.end - r, step);
        p->table->pack_any(at->a + r * call->a_row + k.begin * call->a_k, call->a_row, call->a_k,
                           count, length, count, at->tiles + (r - rows.begin) * length);
    }
    for (int64_t panel = panels.begin; panel < panels.end; panel++) {
        attn_gemm_job job = {.w = at->panel, .ldw = nr};
        if (p->shared) {
            job.w = shared_panel(p, panel, k);
        } else if (p->b_there && (panel + 1) * nr <= call->n) {
            job.w = at->b + panel * nr + k.begin * call->b_k;
            job.ldw = call->b_k;
        } else {
            pack_panel(p, at->b, panel, k, at->panel);
        }
        multiply_panel(p, at, rows, panels, panel, k, job);
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

/* One worker's work: rows × panels over a range of k. */
static void multiply_piece(const product *p, const place *at, range rows, range panels,
                           range within)
{
    for (int64_t row = rows.begin; row < rows.end; row += p->block) {
        range block = {row, at_most(row + p->block, rows.end)};
        range k = {within.begin > 0 ? within.begin : -1, within.begin};
        while (next_block(p, within, &k)) {
            multiply_block(p, at, block, panels, k);
        }
    }
}

/* ---- alone: a task is whole matrices ------------------------------------------------------------- */

static void alone_task(void *argument, int64_t index, int worker)
{
    const product *p = argument;
    const attn_matmul_call *call = p->call;
    int64_t end = at_most((index + 1) * p->group, call->lead[0] * call->lead[1]);
    for (int64_t i = index * p->group; i < end; i++) {
        place at = place_of(p, i / call->lead[1], i % call->lead[1], worker);
        multiply_piece(p, &at, (range){0, call->m}, (range){0, p->panels}, (range){0, call->k});
    }
}

/* ---- together: all threads on one matrix --------------------------------------------------------- */

static void pack_task(void *argument, int64_t index, int worker)
{
    const product *p = argument;
    int64_t panels = p->some.end - p->some.begin, panel = p->some.begin + index % panels;
    int64_t begin = p->k.begin + index / panels * p->columns;
    range k = {begin, at_most(begin + p->columns, p->k.end)};
    place at = place_of(p, p->x, p->y, worker);
    pack_panel(p, at.b, panel, k, shared_panel(p, panel, k));
}

static void piece_task(void *argument, int64_t index, int worker)
{
    const product *p = argument;
    attn_linear_piece piece = attn_linear_split_at(&p->split, index);
    place at = place_of(p, p->x, p->y, worker);
    multiply_piece(p, &at, (range){piece.r0, piece.r1},
                   (range){p->some.begin + piece.p0, p->some.begin + piece.p1}, p->k);
}

/*
 * At most `limit` pieces, so that the longest line of them is short: a piece costs its multiply-adds and what it reads of a and of
 * b, which others read as well.
 */
static attn_linear_split cut(const product *p, int threads, int64_t limit)
{
    int64_t nr = p->table->nr, rows = p->call->m, panels = p->some.end - p->some.begin;
    attn_linear_split best = {0};
    double least = 0;
    for (int64_t i = 1; i <= at_most(limit, ceil_div(rows, p->table->mr)); i++) {
        attn_linear_split s = {.rows = rows, .row_step = ceil_div(rows, i), .panels = panels};
        s.panel_step = ceil_div(panels, at_most(limit / i, panels));
        s.row_pieces = ceil_div(rows, s.row_step);
        s.panel_pieces = ceil_div(panels, s.panel_step);
        double wide = (double)(s.panel_step * nr), high = (double)s.row_step;
        double cost = (double)ceil_div(s.row_pieces * s.panel_pieces, threads) *
                      (high * wide / (double)nr + (wide + high) / 2);
        if (i == 1 || cost < least) {
            least = cost;
            best = s;
        }
    }
    return best;
}

/* The part of one matrix that p->k and p->some say. */
static void multiply_part(attn_context *context, product *p)
{
    int threads = attn_context_threads(context);
    int64_t length = p->k.end - p->k.begin, panels = p->some.end - p->some.begin;
    double work = (double)p->call->m * (double)(panels * p->table->nr) * (double)length;
    if (p->shared) {
        attn_context_run(context, panels * ceil_div(length, p->columns), true, pack_task, p);
        int64_t rows = round_up(ceil_div(p->call->m, (int64_t)threads * 4), p->table->mr);
        rows = threads == 1 ? p->call->m : rows < p->block ? p->block : rows;
        p->split = attn_linear_split_make(threads, panels, p->call->m, p->table->mr, rows, work,
                                          PIECE_WORK);
    } else {
        int64_t wanted = work > threads * LARGE_WORK ? 4 * (int64_t)threads : threads;
        double most = 1 + work / PIECE_WORK;
        wanted = threads == 1 ? 1 : most < (double)wanted ? (int64_t)most : wanted;
        p->split = cut(p, threads, wanted);
    }
    attn_context_run(context, p->split.row_pieces * p->split.panel_pieces, true, piece_task, p);
}

static void matrix_together(attn_context *context, product *p)
{
    const attn_matmul_call *call = p->call;
    int64_t panels = p->panels, step = call->k > 0 ? call->k : 1;
    if (p->shared) {
        /* All panels of as many blocks of k as fit, or some panels of one. */
        int64_t fit = SHARED_FLOATS / (p->columns * p->table->nr);
        panels = at_most(panels, fit);
        step = fit / panels * p->columns;
    }
    for (int64_t panel = 0; panel < p->panels; panel += panels) {
        p->some = (range){panel, at_most(panel + panels, p->panels)};
        for (int64_t k = 0; k == 0 || k < call->k; k += step) {
            p->k = (range){k, at_most(k + step, call->k)};
            multiply_part(context, p);
        }
    }
}

/* ---- the plan ----------------------------------------------------------------------------------- */

/* Lines so far apart fall into the same few sets of L1, each on a page of its own. */
static bool crowded(int64_t stride)
{
    int64_t bytes = stride % 1024 * (int64_t)sizeof(float);
    return stride > 16 && (bytes < 64 || bytes > 4096 - 64);
}

/* So many rows that packing b for all costs little, unless k is longer still. */
static bool is_tall(const attn_matmul_call *call)
{
    return call->m >= TALL && call->k > 0 && (call->b_column != 1 || call->k <= call->m);
}

/* Blocks of k and rows, and what is read where it lies. */
static void plan(product *p)
{
    const attn_matmul_call *call = p->call;
    int64_t mr = p->table->mr, nr = p->table->nr, k = call->k > 0 ? call->k : 1;
    p->panels = ceil_div(call->n, nr);
    int64_t most = COLUMNS;
    if (!is_tall(call)) {
        int64_t wide = at_most(call->n, TALL);
        int64_t fit = attn_linear_cached_bytes() /
                      (2 * (int64_t)sizeof(float) * (at_most(call->m, TALL) + wide));
        most = fit < most ? fit : most;
    }
    int64_t runs = (k + most / 2 - 1) / most;
    p->columns = round_up((k - 1) / (runs > 0 ? runs : 1) + 1, 8);
    p->a_there =
        (call->a_k == 1 && !crowded(call->a_row)) || (call->a_row == 1 && !crowded(call->a_k));
    p->b_there = call->b_column == 1 && (call->m <= 2 * mr || !crowded(call->b_k));
    int64_t fits = attn_linear_cached_bytes() / (p->columns * (int64_t)sizeof(float)) / mr * mr;
    fits = fits < 4 * mr ? 4 * mr : fits;
    /* Even blocks, a little larger rather than one more. */
    int64_t blocks = (call->m + fits * 3 / 4 - 1) / fits;
    p->block = round_up((call->m - 1) / (blocks > 0 ? blocks : 1) + 1, mr);
}

attn_status attn_matmul_f32(attn_context *context, const attn_matmul_call *given)
{
    attn_matmul_call call = *given;
    product p = {.call = &call, .table = attn_gemm_table_for(attn_context_isa(context))};
    /* What has one element has any stride. */
    call.a_k = call.k > 1 ? call.a_k : 1;
    call.a_row = call.m > 1 ? call.a_row : 1;
    call.b_column = call.n > 1 ? call.b_column : 1;
    plan(&p);
    int threads = attn_context_threads(context);
    int64_t nr = p.table->nr, matrices = call.lead[0] * call.lead[1];
    double one = (double)call.m * (double)call.n * (double)(call.k + 1);
    bool alone = matrices > 1 && (threads == 1 || matrices >= 4 * threads ||
                                  one * (double)matrices < 2 * PIECE_WORK);
    bool tall = !alone && is_tall(&call);
    p.block = tall ? at_most(p.block, BLOCK * p.table->mr) : p.block;

    int64_t own = p.columns * (nr + (p.a_there ? 0 : p.block)), shared = 0;
    if (tall) {
        int64_t fit = SHARED_FLOATS / (p.columns * nr);
        shared = at_most(p.panels, fit) * at_most(ceil_div(call.k, p.columns), fit);
        shared = at_most(shared, fit) * p.columns * nr;
    }
    void *scratch;
    attn_status status =
        attn_context_scratch(context, (size_t)(threads * own + shared) * sizeof(float), &scratch);
    if (status != ATTN_OK) {
        return status;
    }
    p.panel = scratch;
    p.tiles = p.panel + threads * p.columns * nr;
    p.shared = tall ? p.panel + threads * own : NULL;
    if (alone) {
        double group = PIECE_WORK / one;
        p.group = group < 1.0 ? 1 : group > (double)matrices ? matrices : (int64_t)group;
        attn_context_run(context, (matrices - 1) / p.group + 1, true, alone_task, &p);
        return ATTN_OK;
    }
    for (int64_t i = 0; i < matrices; i++) {
        p.x = i / call.lead[1];
        p.y = i % call.lead[1];
        matrix_together(context, &p);
    }
    return ATTN_OK;
}
