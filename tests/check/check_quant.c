/*
 * kernels/quant: activations' tiles to the bit, products against double from GGUF's own blocks (so that
 * repacking is checked with them), and bits that do not depend on rows and panels taken together.
 */
#include "check.h"

#include "kernels/quant/quant.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BLOCK = ATTN_QUANT_BLOCK, PANEL = ATTN_QUANT_PANEL, ROWS = ATTN_QUANT_ROWS, MOST = 9 };

/* ---- tiles of activations ---------------------------------------------------------------------- */

static void run_tile(check *c)
{
    int rows = (int)check_range(c, 1, ROWS);
    int64_t blocks = check_size(c, 4, 40);
    int64_t ldx = blocks * BLOCK + check_range(c, 0, 5);
    size_t bytes = (size_t)blocks * (size_t)rows * ATTN_QUANT_RECORD;
    static uint8_t want[40 * ROWS * ATTN_QUANT_RECORD];
    float *x = check_floats(c, "x", (rows - 1) * ldx + blocks * BLOCK, 4);
    uint8_t *tile = check_take(c, "tile", bytes, 4);
    check_values kind = (check_values)(c->index % CHECK_KINDS);
    check_fill(c, x, (rows - 1) * ldx + blocks * BLOCK, kind);
    if (c->index % 10 == 9) { /* around the smallest block that counts */
        for (int64_t i = 0; i < (rows - 1) * ldx + blocks * BLOCK; i++) {
            x[i] *= 0x1p-111F;
        }
    }
    check_input(c, x);
    attn_quant_tile_c(x, ldx, rows, blocks, want);
    CHECK_CALL(c, attn_quant_table_for(c->isa)->tile(x, ldx, rows, blocks, tile));
    for (int64_t b = 0; b < blocks && !c->failed; b++) {
        const uint8_t *got = tile + (size_t)b * (size_t)rows * ATTN_QUANT_RECORD;
        const uint8_t *must = want + (size_t)b * (size_t)rows * ATTN_QUANT_RECORD;
        size_t q = (size_t)rows * BLOCK;
        float numbers[2][2 * ROWS]; /* scale and sum: NaN of any bits is NaN */
        memcpy(numbers[0], got + q, (size_t)rows * 8);
        memcpy(numbers[1], must + q, (size_t)rows * 8);
        if (check_bytes(c, "q", got, must, q) &&
            check_same(c, "scale, sum", numbers[0], numbers[1], 2 * rows)) {
            check_bytes(c, "shift", got + q + (size_t)rows * 8, must + q + (size_t)rows * 8,
                        (size_t)rows * 4);
        }
    }
}

/* The C tile itself: what the header promises of scale, q, sum and shift. */
static void run_tile_contract(check *c)
{
    float x[BLOCK];
    uint8_t tile[ATTN_QUANT_RECORD];
    float scale;
    float sum;
    int32_t shift;
    check_fill(c, x, BLOCK, (check_values)(c->index % CHECK_KINDS));
    attn_quant_table_for(c->isa)->tile(x, BLOCK, 1, 1, tile);
    memcpy(&scale, tile + 32, 4);
    memcpy(&sum, tile + 36, 4);
    memcpy(&shift, tile + 40, 4);
    float max = 0;
    bool finite = true;
    for (int i = 0; i < BLOCK; i++) {
        finite = finite && isfinite(x[i]);
        max = fmaxf(max, fabsf(x[i]));
    }
    int total = 0;
    for (int i = 0; i < BLOCK; i++) {
        int q = (int8_t)tile[i];
        double error = fabs((double)x[i] - (double)q * (double)scale);
        total += q;
        if (finite && !(error <= 0.501 * (double)scale + 0x1p-110)) {
            check_fail(c, "x[%d] = %g became %d·%g", i, (double)x[i], q, (double)scale);
        }
        if (!finite && q != 0) {
            check_fail(c, "q[%d] = %d in a block that is not finite", i, q);
        }
    }
    if (finite ? !(fabsf(scale * 127 - max) <= 1e-6F * max + 0x1p-110F)
               : !(isnan(scale) && isnan(sum))) {
        check_fail(c, "scale %g, sum %g, largest %g", (double)scale, (double)sum, (double)max);
    }
    if (shift != -128 * total || (finite && sum != scale * (float)total)) {
        check_fail(c, "shift %d, sum %g of Σq %d", shift, (double)sum, total);
    }
}

/* ---- products ---------------------------------------------------------------------------------- */

typedef enum format { Q4_0, Q4_1, Q8_0, Q4_0_AS_Q8 } format;

static const size_t block_bytes[] = {18, 20, 34, 18};

static double half(const uint8_t *p)
{
    int bits = p[0] | p[1] << 8;
    int exponent = bits >> 10 & 31;
    double magnitude =
        exponent ? ldexp(1024 + (bits & 1023), exponent - 25) : ldexp(bits & 1023, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* A normal f16 of moderate size. */
static void put_half(check *c, uint8_t *p)
{
    unsigned bits = (unsigned)check_range(c, 8, 16) << 10 | (unsigned)check_range(c, 0, 1023) |
                    (check_range(c, 0, 1) ? 0x8000u : 0);
    p[0] = (uint8_t)bits;
    p[1] = (uint8_t)(bits >> 8);
}

/* Weight `column` of a GGUF block; *part: the magnitude of what it is added up from. */
static double weight(format f, const uint8_t *block, int column, double *part)
{
    double d = half(block);
    if (f == Q8_0) {
        double w = d * (int8_t)block[2 + column];
        *part = fabs(w);
        return w;
    }
    const uint8_t *q = block + (f == Q4_1 ? 4 : 2);
    int nibble = column < 16 ? q[column] & 15 : q[column - 16] >> 4;
    double offset = f == Q4_1 ? half(block + 2) : -8 * d;
    *part = fabs(d * nibble) + fabs(offset);
    return d * nibble + offset;
}

typedef struct product {
    format f;
    int rows, panels;
    int64_t blocks, ldy, step;
    size_t stream;
    uint8_t *gguf, *w, *tile;
    float *bias, *y;
} product;

static const uint8_t *gguf_block(const product *p, int panel, int lane, int64_t block)
{
    size_t row = (size_t)(panel * PANEL + lane) * (size_t)p->blocks;
    return p->gguf + (row + (size_t)block) * block_bytes[p->f];
}

static void pack(const product *p, int panel)
{
    const uint8_t *rows[PANEL];
    uint8_t *w = p->w + (size_t)panel * p->stream;
    for (int lane = 0; lane < PANEL; lane++) {
        rows[lane] = gguf_block(p, panel, lane, 0);
    }
    switch (p->f) {
    case Q4_0: attn_quant_pack_q4_0(rows, PANEL, p->blocks, w); break;
    case Q4_1: attn_quant_pack_q4_1(rows, PANEL, p->blocks, w); break;
    case Q8_0: attn_quant_pack_q8_0(rows, PANEL, p->blocks, w); break;
    default: attn_quant_pack_q4_0_as_q8(rows, PANEL, p->blocks, w);
    }
}

static product make(check *c, format f)
{
    const attn_quant_table *t = attn_quant_table_for(c->isa);
    product p = {.f = f, .blocks = check_size(c, 3, MOST)};
    p.rows = (int)check_range(c, 1, ROWS);
    p.panels = (int)check_range(c, 1, t->panels[p.rows]);
    p.step = PANEL + check_range(c, 0, 3);
    p.ldy = (p.panels - 1) * p.step + PANEL + check_range(c, 0, 5);
    size_t panel = f == Q4_0 || f == Q4_1 ? attn_quant_q4_panel_bytes(p.blocks)
                                          : attn_quant_q8_panel_bytes(p.blocks);
    p.stream = panel + 64 * (size_t)check_range(c, 0, 3);
    size_t gguf = (size_t)(p.panels * PANEL) * (size_t)p.blocks * block_bytes[f];
    size_t weights = (size_t)(p.panels - 1) * p.stream + panel;
    int64_t outputs = (p.rows - 1) * p.ldy + (p.panels - 1) * p.step + PANEL;
    p.gguf = check_take(c, "gguf", gguf, 2);
    p.w = check_take(c, "w", weights, 64);
    p.tile = check_take(c, "tile", (size_t)p.blocks * (size_t)p.rows * ATTN_QUANT_RECORD, 4);
    p.bias = check_floats(c, "bias", (p.panels - 1) * p.step + PANEL, 4);
    p.y = check_floats(c, "y", outputs, 4);
    for (size_t b = 0; b < gguf; b++) {
        p.gguf[b] = (uint8_t)check_next(c);
    }
    for (size_t b = 0; b < gguf; b += block_bytes[f]) {
        put_half(c, p.gguf + b);
        put_half(c, p.gguf + b + (f == Q4_1 ? 2 : 0));
    }
    for (int n = 0; n < p.panels; n++) {
        pack(&p, n);
    }
    static float x[ROWS * MOST * BLOCK];
    check_fill(c, x, p.rows * p.blocks * BLOCK, CHECK_NORMAL);
    if (c->index % 5 == 4) {
        x[check_range(c, 0, p.rows * p.blocks * BLOCK - 1)] = NAN;
    }
    attn_quant_tile_c(x, p.blocks * BLOCK, p.rows, p.blocks, p.tile);
    check_fill(c, p.bias, (p.panels - 1) * p.step + PANEL, CHECK_NORMAL);
    check_input(c, p.gguf);
    check_input(c, p.w);
    check_input(c, p.tile);
    check_input(c, p.bias);
    return p;
}

/* What output `lane` of row r must be, from the blocks as the file has them. */
static double expected(const product *p, int r, int panel, int lane, double *size)
{
    double sum = (double)p->bias[panel * p->step + lane];
    *size = fabs(sum);
    for (int64_t b = 0; b < p->blocks; b++) {
        const uint8_t *record = p->tile + (size_t)b * (size_t)p->rows * ATTN_QUANT_RECORD;
        float scale;
        memcpy(&scale, record + p->rows * BLOCK + 4 * r, 4);
        for (int column = 0; column < BLOCK; column++) {
            double part;
            double w = weight(p->f, gguf_block(p, panel, lane, b), column, &part);
            double x = (double)scale * (int8_t)record[r * BLOCK + column];
            sum += w * x;
            *size += part * fabs(x);
        }
    }
    return sum;
}

static attn_quant_job job_of(const product *p)
{
    return (attn_quant_job){.w = p->w,
                            .stream = p->stream,
                            .blocks = p->blocks,
                            .x = p->tile,
                            .bias = p->bias,
                            .y = p->y,
                            .ldy = p->ldy,
                            .step = p->step,
                            .prefetch = p->blocks % 2 == 0};
}

static void run_product(check *c, format f)
{
    const attn_quant_table *t = attn_quant_table_for(c->isa);
    attn_quant_product_fn *kernel = f == Q4_0 || f == Q4_1 ? t->q4 : t->q8;
    product p = make(c, f);
    attn_quant_job job = job_of(&p);
    CHECK_CALL(c, kernel(&job, p.rows, p.panels));
    for (int r = 0; r < p.rows && !c->failed; r++) {
        for (int panel = 0; panel < p.panels && !c->failed; panel++) {
            double want[PANEL];
            double allowed[PANEL];
            for (int lane = 0; lane < PANEL; lane++) {
                want[lane] = expected(&p, r, panel, lane, &allowed[lane]);
                allowed[lane] *= (double)(2 * p.blocks + 4) * 0x1p-24;
            }
            check_close(c, "y", &p.y[r * p.ldy + panel * p.step], want, allowed, PANEL);
        }
    }
    /* one row, one panel at a time: the same bits */
    for (int r = 0; r < p.rows && !c->failed; r++) {
        uint8_t tile[MOST * ATTN_QUANT_RECORD];
        float y[PANEL];
        int panel = (int)check_range(c, 0, p.panels - 1);
        for (int64_t b = 0; b < p.blocks; b++) {
            const uint8_t *from = p.tile + (size_t)b * (size_t)p.rows * ATTN_QUANT_RECORD;
            uint8_t *to = tile + b * ATTN_QUANT_RECORD;
            memcpy(to, from + r * BLOCK, BLOCK);
            for (int n = 0; n < 3; n++) {
                memcpy(to + BLOCK + 4 * n, from + p.rows * BLOCK + 4 * (n * p.rows + r), 4);
            }
        }
        attn_quant_job one = job;
        one.w += (size_t)panel * p.stream;
        one.bias += panel * p.step;
        one.x = tile;
        one.y = y;
        kernel(&one, 1, 1);
        check_same(c, "y beside a single row and panel", &p.y[r * p.ldy + panel * p.step], y,
                   PANEL);
    }
}

static void run_q4_0(check *c)
{
    run_product(c, Q4_0);
}

static void run_q4_1(check *c)
{
    run_product(c, Q4_1);
}

static void run_q8_0(check *c)
{
    run_product(c, Q8_0);
}

static void run_q4_0_as_q8(check *c)
{
    run_product(c, Q4_0_AS_Q8);
}

/* ---- bench ------------------------------------------------------------------------------------- */

enum { BENCH_BLOCKS = 18, BENCH_PANELS = 16 }; /* 576 columns */
static _Alignas(64) uint8_t bench_w[BENCH_PANELS * BENCH_BLOCKS / 2 * ATTN_QUANT_Q8_PAIR];
static _Alignas(64) uint8_t bench_tile[BENCH_BLOCKS * ROWS * ATTN_QUANT_RECORD];
static float bench_x[ROWS * BENCH_BLOCKS * BLOCK], bench_y[ROWS * BENCH_PANELS * PANEL];

static double bench_quantise(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_quant_table_for(isa)->tile(bench_x, BENCH_BLOCKS * BLOCK, ROWS, BENCH_BLOCKS,
                                        bench_tile);
    }
    return (double)repeats * ROWS * BENCH_BLOCKS * BLOCK;
}

static double bench_product(attn_isa isa, int64_t repeats, int rows, bool q8)
{
    const attn_quant_table *t = attn_quant_table_for(isa);
    attn_quant_job job = {.w = bench_w,
                          .stream = q8 ? attn_quant_q8_panel_bytes(BENCH_BLOCKS)
                                       : attn_quant_q4_panel_bytes(BENCH_BLOCKS),
                          .blocks = BENCH_BLOCKS,
                          .x = bench_tile,
                          .bias = bench_x,
                          .y = bench_y,
                          .ldy = BENCH_PANELS * PANEL,
                          .step = PANEL};
    int panels = t->panels[rows] < BENCH_PANELS ? t->panels[rows] : BENCH_PANELS;
    for (int64_t n = 0; n < repeats; n++) {
        (q8 ? t->q8 : t->q4)(&job, rows, panels);
    }
    return 2.0 * (double)repeats * rows * panels * PANEL * BENCH_BLOCKS * BLOCK;
}

static double bench_q4_row(attn_isa isa, int64_t repeats)
{
    return bench_product(isa, repeats, 1, false);
}

static double bench_q4_tile(attn_isa isa, int64_t repeats)
{
    return bench_product(isa, repeats, ROWS, false);
}

static double bench_q8_row(attn_isa isa, int64_t repeats)
{
    return bench_product(isa, repeats, 1, true);
}

static double bench_q8_tile(attn_isa isa, int64_t repeats)
{
    return bench_product(isa, repeats, ROWS, true);
}

static const void *table(attn_isa isa)
{
    return attn_quant_table_for(isa);
}

static const check_kernel kernels[] = {
    {"quant/tile", table, run_tile, 400, bench_quantise, "elements"},
    {"quant/tile_contract", table, run_tile_contract, 200, NULL, NULL},
    {"quant/q4_0", table, run_q4_0, 200, bench_q4_row, "flops"},
    {"quant/q4_1", table, run_q4_1, 300, bench_q4_tile, "flops"},
    {"quant/q8_0", table, run_q8_0, 300, bench_q8_row, "flops"},
    {"quant/q4_0_as_q8", table, run_q4_0_as_q8, 200, bench_q8_tile, "flops"},
};

const check_family check_quant = {kernels, sizeof kernels / sizeof *kernels};
