/* kernels/dropout: tiles of the mask against Philox slot by slot, bit by bit. */
#include "check.h"

#include "base/rng.h"
#include "kernels/dropout/dropout.h"

#include <math.h>
#include <string.h>

enum { LANES = ATTN_DROPOUT_LANES, MOST = 200 };

static float factor_of(const attn_dropout_key *d, int64_t column, int32_t lane)
{
    const uint32_t counter[4] = {(uint32_t)(column / 4), d->row[lane], d->head[lane], d->batch};
    attn_philox_block block = attn_philox(d->seed, counter);
    return block.word[column % 4] >= d->threshold ? d->scale : 0.0f;
}

static attn_dropout_key random_dropout(check *c)
{
    static const double extremes[] = {0x1p-40, 0x1p-31, 0.5, 0.999999, 1 - 0x1p-40};
    double p = c->index % 5 == 4 ? extremes[check_range(c, 0, 4)] : check_uniform(c);
    attn_dropout_key d = {.seed = check_next(c),
                          .threshold = (uint32_t)(p * 0x1p32),
                          .scale = (float)(1 / (1 - p)),
                          .batch = (uint32_t)check_range(c, 0, 3)};
    for (int r = 0; r < LANES; r++) { /* groups of heads, as a tile has them; large ones at times */
        d.row[r] = c->index % 7 == 6 ? (uint32_t)check_next(c) : (uint32_t)r / 3;
        d.head[r] = c->index % 7 == 6 ? (uint32_t)check_next(c) : (uint32_t)r % 3;
    }
    return d;
}

static void run(check *c)
{
    static float want[LANES * MOST];
    attn_dropout_key d = random_dropout(c);
    int32_t keys = (int32_t)check_size(c, 6, MOST);
    int32_t lanes = (int32_t)check_range(c, 1, LANES), rows = (lanes + 15) / 16 * 16;
    int64_t column = c->index % 3 == 0 ? 0 : check_range(c, 0, (int64_t)1 << 34);
    float *from = check_floats(c, "from", (int64_t)keys * LANES, 64);
    float *to = c->index % 2 ? from : check_floats(c, "to", (int64_t)keys * LANES, 64);
    bool multiply = c->index % 2 || check_range(c, 0, 1);
    check_fill(c, from, (int64_t)keys * LANES, CHECK_NORMAL);
    memset(want, 0xff, sizeof want);
    memcpy(want, to, (size_t)keys * LANES * sizeof *to); /* lanes beyond the last 16 stay */
    for (int32_t j = 0; j < keys; j++) {
        for (int32_t r = 0; r < rows; r++) {
            float factor = factor_of(&d, column + j, r);
            want[j * LANES + r] = multiply ? from[j * LANES + r] * factor : factor;
        }
    }
    if (to != from) {
        check_input(c, from);
    }
    CHECK_CALL(c,
               attn_dropout_tile_for(c->isa)(&d, column, keys, lanes, multiply ? from : NULL, to));
    if (!c->failed) {
        check_same(c, "to", to, want, (int64_t)keys * LANES);
    }
}

/* The row form is C at every level: it must say the same as the definition, whatever its start. */
static void run_row(check *c)
{
    float want[MOST];
    attn_dropout_key d = random_dropout(c);
    int64_t count = check_size(c, 6, MOST), column = check_range(c, 0, 1000);
    float *factor = check_floats(c, "factor", count, 4);
    for (int64_t n = 0; n < count; n++) {
        want[n] = factor_of(&d, column + n, 0);
    }
    CHECK_CALL(c, attn_dropout_row(&d, column, count, factor));
    if (!c->failed) {
        check_same(c, "factor", factor, want, count);
    }
}

enum { BENCH_KEYS = 96 };
static _Alignas(64) float bench_s[BENCH_KEYS * LANES];

static double bench(attn_isa isa, int64_t repeats)
{
    attn_dropout_key d = {.seed = 1, .threshold = 0x20000000, .scale = 1.0f};
    for (int64_t n = 0; n < repeats; n++) {
        attn_dropout_tile_for(isa)(&d, n * BENCH_KEYS, BENCH_KEYS, LANES, bench_s, bench_s);
    }
    return (double)repeats * BENCH_KEYS * LANES;
}

/* A function pointer is no object pointer: levels are told apart by number. */
static const void *table(attn_isa isa)
{
    static const char own[64];
    attn_isa level = ATTN_ISA_C;
    attn_dropout_tile_fn *tile = attn_dropout_tile_for(isa);
    level = tile == attn_dropout_tile_for(ATTN_ISA_AVX2) ? ATTN_ISA_AVX2 : level;
    level = tile == attn_dropout_tile_for(ATTN_ISA_AVX512) ? ATTN_ISA_AVX512 : level;
    level = tile == attn_dropout_tile_for(ATTN_ISA_C) ? ATTN_ISA_C : level;
    return &own[(int)level];
}

static const void *one(attn_isa isa)
{
    static const char own;
    (void)isa;
    return &own;
}

static const check_kernel kernels[] = {
    {"dropout/tile", table, run, 300, bench, "elements"},
    {"dropout/row", one, run_row, 100, NULL, NULL},
};

const check_family check_dropout = {kernels, sizeof kernels / sizeof *kernels};
