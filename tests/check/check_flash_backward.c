/* kernels/flash, backward: every stage of a tile against double, full and partial, rows 1 … 64. */
#include "check_flash_tile.h"

#include "kernels/flash/flash_backward.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Fills column r of a tile. */
static void fill_column(check *c, const attn_flash_tile *t, float *s, int64_t r, check_values kind)
{
    float column[MOST_KEYS];
    check_fill(c, column, t->keys, kind);
    for (int64_t j = 0; j < t->keys; j++) {
        s[j * LANES + r] = column[j];
    }
}

/* ---- gradient ---------------------------------------------------------------------------------- */

typedef struct gradient_case {
    attn_flash_tile tile;
    bool hidden;
    float s[MOST_KEYS * LANES], dp[MOST_KEYS * LANES]; /* before */
    const float *lse, *delta, *keep;
} gradient_case;

static void check_gradient_row(check *c, const gradient_case *g, int64_t r, const float *s,
                               const float *ds)
{
    const attn_flash_tile *t = &g->tile;
    double lse = (double)g->lse[r];
    double delta = (double)g->delta[r];
    for (int64_t j = 0; j < t->keys && !c->failed; j++) {
        int64_t at = j * LANES + r;
        double x = (double)g->s[at];
        double f = g->keep ? (double)g->keep[at] : 1;
        bool there = flash_attends(t, r, j) && !(g->hidden && g->s[at] == -INFINITY);
        double p = there ? exp(x - lse) : 0;
        double want[2] = {f * p, there ? p * (f * (double)g->dp[at] - delta) : 0};
        double size = isfinite(x) ? fabs(x) + fabs(lse) : 0;
        double part = 0x1p-24 * (12 + 3 * size);
        double tiny = 2 * (double)FLT_MIN;
        double allowed[2] = {f * p * part + tiny * (1 + f),
                             (p * part + tiny) * (f * fabs((double)g->dp[at]) + fabs(delta)) +
                                 tiny};
        float got[2] = {s[at], ds[at]};
        check_close(c, "s, dp", got, want, allowed, 2);
    }
}

static void run_gradient(check *c)
{
    static gradient_case g;
    g.tile = flash_make_tile(c);
    g.hidden = c->index % 3 == 1;
    int64_t size = g.tile.keys * LANES;
    float *s = flash_take_tile(c, "s", &g.tile);
    float *dp = flash_take_tile(c, "dp", &g.tile);
    float *lse = check_floats(c, "lse", LANES, 64);
    float *delta = check_floats(c, "delta", LANES, 64);
    float *keep = c->index % 4 == 3 ? check_floats(c, "keep", size, 64) : NULL;
    check_fill(c, lse, LANES, CHECK_NORMAL);
    check_fill(c, delta, LANES, CHECK_NORMAL);
    for (int64_t r = 0; r < g.tile.rows; r++) {
        check_values kind = (check_values)((c->index + r) % CHECK_FINITE_KINDS);
        fill_column(c, &g.tile, s, r,
                    kind == CHECK_HUGE || kind == CHECK_HIGH ? CHECK_EQUAL : kind);
        fill_column(c, &g.tile, dp, r, kind);
        for (int64_t j = 0; j < g.tile.keys; j++) {
            float *slot = &s[j * LANES + r];
            if (!flash_attends(&g.tile, r, j)) {
                *slot = -INFINITY; /* as modify leaves it */
                dp[j * LANES + r] = check_range(c, 0, 1) ? NAN : INFINITY;
            } else if (g.hidden && check_range(c, 0, 3) == 0) {
                *slot = -INFINITY;
                dp[j * LANES + r] = NAN;
            } else if (check_range(c, 0, 199) == 0) {
                *slot = NAN; /* attended: must stay in its slot */
            }
        }
        if (g.hidden && r % 7 == 3) { /* a row with nothing to attend to */
            fill_column(c, &g.tile, s, r, CHECK_ALL_HIDDEN);
            lse[r] = -INFINITY;
            delta[r] = NAN;
        }
    }
    for (int64_t n = 0; keep && n < size; n++) {
        keep[n] = check_range(c, 0, 2) ? 1.25F : 0;
    }
    memcpy(g.s, s, (size_t)size * sizeof *s);
    memcpy(g.dp, dp, (size_t)size * sizeof *dp);
    g.lse = lse;
    g.delta = delta;
    g.keep = keep;
    check_input(c, lse);
    check_input(c, delta);
    if (keep) {
        check_input(c, keep);
    }
    CHECK_CALL(
        c, attn_flash_backward_table(c->isa)->gradient(&g.tile, lse, delta, keep, g.hidden, s, dp));
    for (int64_t r = 0; r < g.tile.rows && !c->failed; r++) {
        check_gradient_row(c, &g, r, s, dp);
    }
}

/* ---- slope ------------------------------------------------------------------------------------- */

static void run_slope(check *c)
{
    attn_flash_tile t = flash_make_tile(c);
    const float caps[] = {30, 2.5F, 0.01F};
    float cap = caps[c->index % 3];
    float *capped = flash_take_tile(c, "capped", &t);
    float *ds = flash_take_tile(c, "ds", &t);
    static float before[MOST_KEYS * LANES];
    for (int64_t r = 0; r < t.rows; r++) {
        fill_column(c, &t, ds, r, (check_values)((c->index + r) % CHECK_FINITE_KINDS));
        for (int64_t j = 0; j < t.keys; j++) {
            bool masked = !flash_attends(&t, r, j) || check_range(c, 0, 5) == 0;
            capped[j * LANES + r] = masked ? -INFINITY : cap * (float)tanh(check_normal(c));
            capped[j * LANES + r] = masked && j % 2 ? NAN : capped[j * LANES + r];
            ds[j * LANES + r] = masked ? 0 : ds[j * LANES + r];
        }
    }
    memcpy(before, ds, (size_t)(t.keys * LANES) * sizeof *ds);
    check_input(c, capped);
    CHECK_CALL(c, attn_flash_backward_table(c->isa)->slope(&t, cap, capped, ds));
    for (int64_t r = 0; r < t.rows && !c->failed; r++) {
        for (int64_t j = 0; j < t.keys && !c->failed; j++) {
            double x = (double)before[j * LANES + r];
            double u = (double)capped[j * LANES + r] / (double)cap;
            double want = x == 0 ? 0 : x * (1 - u * u);
            double allowed = 4 * 0x1p-24 * fabs(x) + 2 * (double)FLT_MIN;
            check_close(c, "ds", &ds[j * LANES + r], &want, &allowed, 1);
        }
    }
}

/* ---- product ----------------------------------------------------------------------------------- */

static void run_product(check *c)
{
    attn_flash_tile t = flash_make_tile(c);
    int64_t dim = check_range(c, 1, MOST_DIM);
    int64_t stride = dim + check_range(c, 0, 9);
    int64_t ldx = flash_up_to(dim, 16) + 16 * check_range(c, 0, 1);
    int64_t size = (t.keys - 1) * stride + dim;
    float *s = flash_take_tile(c, "s", &t);
    float *x = check_floats(c, "x", LANES * ldx, 64);
    float *out = check_floats(c, "c", size, 4);
    bool first = c->index % 3 == 2; /* then c comes in full of NaN */
    static float before[MOST_KEYS * (MOST_DIM + 9)];
    for (int64_t r = 0; r < t.rows; r++) { /* rows beyond, and columns beyond dim, stay NaN */
        check_fill(c, x + r * ldx, dim, (check_values)(c->index % CHECK_FINITE_KINDS));
        for (int64_t j = 0; j < t.keys; j++) {
            s[j * LANES + r] = flash_attends(&t, r, j) ? (float)check_uniform(c) : 0;
        }
    }
    if (!first) {
        check_fill(c, out, size, CHECK_NORMAL);
    }
    memcpy(before, out, (size_t)size * sizeof *out);
    check_input(c, s);
    check_input(c, x);
    CHECK_CALL(c,
               attn_flash_backward_table(c->isa)->product(&t, s, x, ldx, dim, first, out, stride));
    for (int64_t j = 0; j < t.keys && !c->failed; j++) {
        double want[MOST_DIM];
        double allowed[MOST_DIM];
        for (int64_t d = 0; d < dim; d++) {
            want[d] = first ? 0 : (double)before[j * stride + d];
            double sum = fabs(want[d]);
            for (int64_t r = 0; r < t.rows; r++) {
                double term = (double)s[j * LANES + r] * (double)x[r * ldx + d];
                want[d] += term;
                sum += fabs(term);
            }
            allowed[d] = (LANES + 4) * 0x1p-24 * sum + (LANES + 2) * (double)FLT_MIN;
        }
        if (check_close(c, "c", out + j * stride, want, allowed, dim) && j + 1 < t.keys) {
            check_same(c, "between the rows of c", out + j * stride + dim,
                       before + j * stride + dim, stride - dim);
        }
    }
}

/* ---- dot and add ------------------------------------------------------------------------------- */

static void run_dot(check *c)
{
    int64_t dim = check_size(c, 16, MOST_DIM);
    float *a = check_floats(c, "a", dim, 4);
    float *b = check_floats(c, "b", dim, 4);
    float got = 0;
    check_fill(c, a, dim, (check_values)(c->index % CHECK_FINITE_KINDS));
    check_fill(c, b, dim, CHECK_NORMAL);
    double want = 0;
    double size = 0;
    for (int64_t d = 0; d < dim; d++) {
        want += (double)a[d] * (double)b[d];
        size += fabs((double)a[d] * (double)b[d]);
    }
    double allowed = (24 + (double)dim / 8) * 0x1p-24 * size + (double)(dim + 1) * (double)FLT_MIN;
    check_input(c, a);
    check_input(c, b);
    CHECK_CALL(c, got = attn_flash_backward_table(c->isa)->dot(a, b, dim));
    check_close(c, "dot", &got, &want, &allowed, 1);
}

static void run_add(check *c)
{
    int64_t dim = check_size(c, 16, MOST_DIM);
    float *x = check_floats(c, "x", dim, 4);
    float *out = check_floats(c, "out", dim, 4);
    float factor = (float)check_normal(c);
    double want[MOST_DIM];
    double allowed[MOST_DIM];
    check_fill(c, x, dim, (check_values)(c->index % CHECK_KINDS));
    check_fill(c, out, dim, CHECK_NORMAL);
    for (int64_t d = 0; d < dim; d++) {
        double part = (double)factor * (double)x[d];
        want[d] = (double)out[d] + part;
        allowed[d] = 2 * 0x1p-24 * (fabs(part) + fabs((double)out[d])) + 2 * (double)FLT_MIN;
    }
    check_input(c, x);
    CHECK_CALL(c, attn_flash_backward_table(c->isa)->add(factor, x, dim, out));
    check_close(c, "out", out, want, allowed, dim);
}

/* ---- bench: a full tile of 64 rows, 48 keys, 64 dims ------------------------------------------- */

enum { BENCH_KEYS = 48, BENCH_DIM = 64 };
static _Alignas(64) float bench_s[BENCH_KEYS * LANES], bench_dp[BENCH_KEYS * LANES],
    bench_x[LANES * BENCH_DIM], bench_c[BENCH_KEYS * BENCH_DIM];
static _Alignas(64) float bench_lse[LANES], bench_delta[LANES];
static const attn_flash_tile bench_tile = {.rows = LANES, .keys = BENCH_KEYS};

static double bench_gradient(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_flash_backward_table(isa)->gradient(&bench_tile, bench_lse, bench_delta, NULL, false,
                                                 bench_s, bench_dp);
    }
    return (double)repeats * LANES * BENCH_KEYS;
}

static double bench_product(attn_isa isa, int64_t repeats)
{
    memset(bench_s, 0, sizeof bench_s);
    for (int64_t n = 0; n < repeats; n++) {
        attn_flash_backward_table(isa)->product(&bench_tile, bench_s, bench_x, BENCH_DIM, BENCH_DIM,
                                                false, bench_c, BENCH_DIM);
    }
    return 2.0 * LANES * BENCH_KEYS * BENCH_DIM * (double)repeats;
}

static const void *table(attn_isa isa)
{
    return attn_flash_backward_table(isa);
}

static const check_kernel kernels[] = {
    {"flash_backward/gradient", table, run_gradient, 250, bench_gradient, "elements"},
    {"flash_backward/slope", table, run_slope, 150, NULL, NULL},
    {"flash_backward/product", table, run_product, 250, bench_product, "flops"},
    {"flash_backward/dot", table, run_dot, 150, NULL, NULL},
    {"flash_backward/add", table, run_add, 150, NULL, NULL},
};

const check_family check_flash_backward = {kernels, sizeof kernels / sizeof *kernels};
