/*
 * kernels/gemm: products against double, and the promise of gemm.h that bits do not depend on the tile,
 * the number of rows, or where k is split.
 */
#include "check.h"

#include "kernels/gemm/gemm.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32, MOST_K = 200 };

static void run_pack(check *c)
{
    const attn_gemm_table *t = attn_gemm_table_for(c->isa);
    int rows = (int)check_range(c, 1, t->mr);
    int64_t k = check_size(c, 16, MOST_K);
    int64_t ldx = k + check_range(c, 0, 9);
    float *x = check_floats(c, "x", (rows - 1) * ldx + k, 4);
    float *tile = check_floats(c, "tile", k * rows, 4);
    check_fill(c, x, (rows - 1) * ldx + k, (check_values)(c->index % CHECK_KINDS));
    check_input(c, x);
    CHECK_CALL(c, t->pack(x, ldx, rows, k, tile));
    for (int64_t i = 0; i < k && !c->failed; i++) {
        for (int r = 0; r < rows && !c->failed; r++) {
            check_same(c, "tile", &tile[i * rows + r], &x[r * ldx + i], 1);
        }
    }
}

/* A matrix of any strides: contiguous rows, contiguous columns, neither, one value for all. */
static void run_pack_any(check *c)
{
    const attn_gemm_table *t = attn_gemm_table_for(c->isa);
    int width = (int)check_range(c, 1, LANES);
    int rows = (int)check_range(c, 1, width);
    if (check_range(c, 0, 1)) {
        width = check_range(c, 0, 1) ? t->mr : t->nr;
        rows = (int)check_range(c, width / 2, width);
    }
    int64_t k = check_size(c, 16, MOST_K), gap = check_range(c, 0, 9);
    int64_t row_stride = k + gap, k_stride = 1;
    switch (check_range(c, 0, 4)) {
    case 0:
        row_stride = 1;
        k_stride = rows + gap;
        break;
    case 1:
        row_stride = 2;
        k_stride = 2 * rows + gap;
        break;
    case 2: row_stride = 0; break;
    default: break;
    }
    int64_t floats = (rows - 1) * row_stride + (k - 1) * k_stride + 1;
    float *x = check_floats(c, "x", floats, 4);
    float *out = check_floats(c, "out", k * width, 4);
    check_fill(c, x, floats, (check_values)(c->index % CHECK_KINDS));
    check_input(c, x);
    CHECK_CALL(c, t->pack_any(x, row_stride, k_stride, rows, k, width, out));
    static const float zero;
    for (int64_t i = 0; i < k && !c->failed; i++) {
        for (int r = 0; r < width && !c->failed; r++) {
            const float *want = r < rows ? &x[r * row_stride + i * k_stride] : &zero;
            check_same(c, "out", &out[i * width + r], want, 1);
        }
    }
}

typedef struct product {
    const attn_gemm_table *t;
    int rows, panels, columns; /* outputs of a panel */
    int64_t k, ldx, x_step, ldw, ldy, step, stream, ld_init;
    int64_t outputs;
    float *w, *x, *init, *y;
} product;

/* Weights, activations, start values and room for results of one call; of a tile in each of the ways it may lie. */
static product make(check *c, int rows, int panels, bool few)
{
    product p = {.t = attn_gemm_table_for(c->isa), .rows = rows, .panels = panels};
    int nr = p.t->nr;
    p.k = check_size(c, 8, MOST_K);
    p.columns = few || check_range(c, 0, 1) ? nr : (int)check_range(c, 1, nr);
    p.ldw = nr + (few || check_range(c, 0, 1) ? 0 : check_range(c, 1, 70));
    p.ldx = p.k + check_range(c, 0, 7);
    p.x_step = 1;
    if (!few && check_range(c, 0, 1)) {
        p.ldx = 1;
        p.x_step = rows + (check_range(c, 0, 1) ? 0 : check_range(c, 1, 40));
    }
    p.step = nr + check_range(c, 0, 5);
    p.ldy = (panels - 1) * p.step + p.columns + check_range(c, 0, 9);
    p.stream = p.k * nr + LANES * check_range(c, 0, 3);
    p.ld_init = c->index % 2 ? 0 : p.ldy;
    p.outputs = (rows - 1) * p.ldy + (panels - 1) * p.step + p.columns;
    int64_t starts = (rows - 1) * p.ld_init + (panels - 1) * p.step + p.columns;
    int64_t weights = (panels - 1) * p.stream + (p.k - 1) * p.ldw + nr;
    int64_t values = (rows - 1) * p.ldx + (p.k - 1) * p.x_step + 1;
    check_values kind =
        c->index % 6 == 5 ? CHECK_NAN : (check_values)(c->index % CHECK_FINITE_KINDS);
    p.w = check_floats(c, "w", weights, few ? 64 : 4);
    p.x = check_floats(c, "x", values, 4);
    p.init = check_floats(c, "init", starts, 4);
    p.y = check_floats(c, "y", p.outputs, 4);
    check_fill(c, p.w, weights, CHECK_NORMAL);
    check_fill(c, p.x, values, kind);
    check_fill(c, p.init, starts, CHECK_NORMAL);
    check_input(c, p.w);
    check_input(c, p.x);
    check_input(c, p.init);
    return p;
}

static attn_gemm_job job_of(const product *p)
{
    return (attn_gemm_job){.w = p->w,
                           .ldw = p->ldw,
                           .stream = p->stream,
                           .k = p->k,
                           .x = p->x,
                           .ldx = p->ldx,
                           .x_step = p->x_step,
                           .init = p->init,
                           .ld_init = p->ld_init,
                           .y = p->y,
                           .ldy = p->ldy,
                           .step = p->step,
                           .ask = p->x, /* and far behind it: asking is no reading */
                           .ask_step = p->k % 3 * 1000,
                           .columns = p->columns};
}

/* Between its rows y is as it was: NaN of all bits, as check_floats leaves it. */
static void verify_gaps(check *c, const product *p)
{
    float before;
    memset(&before, 0xff, sizeof before);
    for (int64_t i = 0; i < p->outputs && !c->failed; i++) {
        int64_t in_row = i % p->ldy, in_panel = in_row % p->step;
        if (in_row / p->step >= p->panels || in_panel >= p->columns) {
            check_same(c, "y between rows", &p->y[i], &before, 1);
        }
    }
}

static void verify(check *c, const product *p)
{
    for (int r = 0; r < p->rows && !c->failed; r++) {
        for (int panel = 0; panel < p->panels && !c->failed; panel++) {
            double want[LANES];
            double allowed[LANES];
            for (int i = 0; i < p->columns; i++) {
                double sum = (double)p->init[r * p->ld_init + panel * p->step + i];
                double size = fabs(sum);
                for (int64_t k = 0; k < p->k; k++) {
                    double term = (double)p->x[r * p->ldx + k * p->x_step] *
                                  (double)p->w[panel * p->stream + k * p->ldw + i];
                    sum += term;
                    size += fabs(term);
                }
                want[i] = sum;
                /* a chain of k roundings, each of a partial sum */
                allowed[i] = (double)(p->k + 2) * 0x1p-24 * size + (double)p->k * (double)FLT_MIN;
            }
            check_close(c, "y", &p->y[r * p->ldy + panel * p->step], want, allowed, p->columns);
        }
    }
}

/* Row r of panel 0 alone, packed, k in two parts: the same bits. */
static void verify_bits(check *c, const product *p)
{
    int nr = p->t->nr;
    float tile[MOST_K];
    float w[MOST_K * LANES];
    float sum[LANES] = {0};
    attn_gemm_pack_any_c(p->w, 1, p->ldw, nr, p->k, nr, w);
    for (int r = 0; r < p->rows && !c->failed; r++) {
        int64_t split = check_range(c, 0, p->k);
        attn_gemm_pack_any_c(p->x + r * p->ldx, 1, p->x_step, 1, p->k, 1, tile);
        memcpy(sum, &p->init[r * p->ld_init], (size_t)p->columns * sizeof *sum);
        for (int part = 0; part < 2; part++) {
            int64_t from = part ? split : 0;
            attn_gemm_job job = {.w = w + from * nr,
                                 .ldw = nr,
                                 .k = part ? p->k - split : split,
                                 .x = tile + from,
                                 .ldx = MOST_K,
                                 .x_step = 1,
                                 .init = sum,
                                 .y = sum,
                                 .ldy = LANES,
                                 .step = LANES,
                                 .ask = tile,
                                 .columns = nr};
            p->t->tile(&job, 1);
        }
        check_same(c, "y beside a single row with k split", &p->y[r * p->ldy], sum, p->columns);
    }
}

static void run(check *c, product *p, void (*call)(const product *p))
{
    CHECK_CALL(c, call(p));
    verify(c, p);
    if (!c->failed) {
        verify_gaps(c, p);
    }
    if (!c->failed) {
        verify_bits(c, p);
    }
}

static void call_tile(const product *p)
{
    attn_gemm_job job = job_of(p);
    p->t->tile(&job, p->rows);
}

static void call_few(const product *p)
{
    attn_gemm_job job = job_of(p);
    p->t->few(&job, p->rows, p->panels);
}

static void run_tile(check *c)
{
    const attn_gemm_table *t = attn_gemm_table_for(c->isa);
    product p = make(c, (int)check_range(c, 1, t->mr), 1, false);
    run(c, &p, call_tile);
}

static void run_few(check *c)
{
    const attn_gemm_table *t = attn_gemm_table_for(c->isa);
    product p =
        make(c, (int)check_range(c, 1, ATTN_GEMM_FEW), (int)check_range(c, 1, t->streams), true);
    run(c, &p, call_few);
}

enum { BENCH_K = 512 };
static _Alignas(64) float bench_w[BENCH_K * LANES * 16], bench_x[BENCH_K * LANES],
    bench_y[LANES * LANES * 16];

/* A packed tile; with `rows`, rows read where they lie. */
static double bench_product(attn_isa isa, int64_t repeats, bool rows)
{
    const attn_gemm_table *t = attn_gemm_table_for(isa);
    attn_gemm_job job = {.w = bench_w,
                         .ldw = t->nr,
                         .k = BENCH_K,
                         .x = bench_x,
                         .ldx = rows ? BENCH_K : 1,
                         .x_step = rows ? 1 : t->mr,
                         .init = bench_w,
                         .y = bench_y,
                         .ldy = LANES,
                         .step = LANES,
                         .ask = bench_x,
                         .columns = t->nr};
    for (int64_t n = 0; n < repeats; n++) {
        t->tile(&job, t->mr);
    }
    return 2.0 * BENCH_K * t->mr * t->nr * (double)repeats;
}

static double bench_tile(attn_isa isa, int64_t repeats)
{
    return bench_product(isa, repeats, false);
}

static double bench_rows(attn_isa isa, int64_t repeats)
{
    return bench_product(isa, repeats, true);
}

static double bench_few(attn_isa isa, int64_t repeats)
{
    const attn_gemm_table *t = attn_gemm_table_for(isa);
    attn_gemm_job job = {.w = bench_w,
                         .stream = BENCH_K * t->nr,
                         .k = BENCH_K,
                         .x = bench_x,
                         .ldx = BENCH_K,
                         .x_step = 1,
                         .init = bench_w,
                         .y = bench_y,
                         .ldy = LANES * 16,
                         .step = LANES};
    int panels = t->streams < 16 ? t->streams : 16;
    for (int64_t n = 0; n < repeats; n++) {
        t->few(&job, 1, panels);
    }
    return 2.0 * BENCH_K * panels * t->nr * (double)repeats;
}

/* A panel of contiguous rows: what the weights of x·Wᵀ are. */
static double bench_pack_any(attn_isa isa, int64_t repeats)
{
    const attn_gemm_table *t = attn_gemm_table_for(isa);
    for (int64_t n = 0; n < repeats; n++) {
        t->pack_any(bench_w, BENCH_K, 1, t->nr, BENCH_K, t->nr, bench_x);
    }
    return (double)(BENCH_K * t->nr * repeats);
}

static const void *table(attn_isa isa)
{
    return attn_gemm_table_for(isa);
}

static const check_kernel kernels[] = {
    {"gemm/pack", table, run_pack, 300, NULL, NULL},
    {"gemm/pack_any", table, run_pack_any, 600, bench_pack_any, "elements"},
    {"gemm/tile", table, run_tile, 500, bench_tile, "flops"},
    {"gemm/tile_rows", table, run_tile, 500, bench_rows, "flops"},
    {"gemm/few", table, run_few, 500, bench_few, "flops"},
};

const check_family check_gemm = {kernels, sizeof kernels / sizeof *kernels};
