/* kernels/flash: every stage of a tile against double, full and partial, rows 1 … 64. */
#include "check_flash_tile.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Numbers in s[key][row]; each row has its own kind, so that hostile ones must stay in their rows. */
static void fill_scores(check *c, const attn_flash_tile *t, float *s, bool hostile)
{
    float column[MOST_KEYS];
    memset(s, 0, (size_t)(t->keys * LANES) * 4);
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t kinds = hostile ? CHECK_KINDS : CHECK_FINITE_KINDS;
        check_fill(c, column, t->keys, (check_values)((c->index + r) % kinds));
        for (int64_t j = 0; j < t->keys; j++) {
            s[j * LANES + r] = column[j];
        }
    }
}

/* ---- pack -------------------------------------------------------------------------------------- */

static void run_pack(check *c)
{
    int32_t count = (int32_t)check_range(c, 1, 16);
    int64_t dim = check_size(c, 16, MOST_DIM);
    int64_t stride = dim + check_range(c, 0, 5);
    int64_t group = check_range(c, 0, 3) * 16;
    const float *rows[16];
    float *q = check_floats(c, "q", (count - 1) * stride + dim, 4);
    float *qt = check_floats(c, "qt", dim * LANES, 64);
    check_fill(c, q, (count - 1) * stride + dim, (check_values)(c->index % CHECK_KINDS));
    for (int r = 0; r < count; r++) {
        rows[r] = q + r * stride;
    }
    check_input(c, q);
    CHECK_CALL(c, attn_flash_table(c->isa)->pack(rows, count, dim, qt + group));
    for (int64_t d = 0; d < dim && !c->failed; d++) {
        for (int r = 0; r < LANES && !c->failed; r++) {
            float want = NAN;
            if (r >= group && r < group + 16) {
                want = r - group < count ? rows[r - group][d] : 0;
            }
            check_same(c, "qt", &qt[d * LANES + r], &want, 1);
        }
    }
}

/* ---- scores ------------------------------------------------------------------------------------ */

static void run_scores(check *c)
{
    attn_flash_tile t = flash_make_tile(c);
    int64_t dim = check_range(c, 1, MOST_DIM);
    int64_t stride = dim + check_range(c, 0, 9);
    const float scales[] = {0.125F, 1, -0.7F, 0};
    float scale = scales[c->index % 4];
    bool backward = c->index % 5 == 4; /* asks without a maximum */
    check_values kind = (check_values)(c->index % CHECK_FINITE_KINDS);
    float *qt = check_floats(c, "qt", dim * LANES, 64);
    float *k = check_floats(c, "k", (t.keys - 1) * stride + dim, 4);
    float *s = flash_take_tile(c, "s", &t);
    float *maximum = check_floats(c, "maximum", LANES, 64);
    float before[LANES];
    for (int64_t d = 0; d < dim; d++) { /* lanes that are not in use hold anything: here NaN */
        check_fill(c, qt + d * LANES, t.rows, kind);
    }
    check_fill(c, k, (t.keys - 1) * stride + dim, CHECK_NORMAL);
    check_fill(c, maximum, LANES, c->index % 2 ? CHECK_ALL_HIDDEN : CHECK_NORMAL);
    memcpy(before, maximum, sizeof before);
    check_input(c, qt);
    check_input(c, k);
    CHECK_CALL(c, attn_flash_table(c->isa)->scores(&t, qt, k, stride, dim, scale, s,
                                                   backward ? NULL : maximum));
    for (int64_t r = 0; r < t.rows && !c->failed; r++) {
        double largest = (double)before[r];
        double slack = 0;
        for (int64_t j = 0; j < t.keys && !c->failed; j++) {
            double want = 0;
            double size = 0;
            for (int64_t d = 0; d < dim; d++) {
                double term = (double)qt[d * LANES + r] * (double)k[j * stride + d];
                want += term;
                size += fabs(term);
            }
            want *= (double)scale;
            size *= fabs((double)scale);
            double allowed =
                (8 + (double)dim / 4) * 0x1p-24 * size + (double)(dim + 1) * (double)FLT_MIN;
            if (flash_attends(&t, r, j)) {
                check_close(c, "s", &s[j * LANES + r], &want, &allowed, 1);
                largest = fmax(largest, want);
                slack = fmax(slack, allowed);
            }
        }
        if (!c->failed && !backward && !((double)maximum[r] >= largest - slack)) {
            check_fail(c, "maximum[%lld] is %.9g, the scores reach %.9g", (long long)r,
                       (double)maximum[r], largest);
        }
        if (!c->failed && !backward && !t.partial && !((double)maximum[r] <= largest + slack)) {
            check_fail(c, "maximum[%lld] is %.9g, no score is above %.9g", (long long)r,
                       (double)maximum[r], largest);
        }
    }
}

/* ---- modify and argmax ------------------------------------------------------------------------- */

static void run_modify(check *c)
{
    attn_flash_tile t = flash_make_tile(c);
    const float caps[] = {0, 50, 2.5F, 0.01F};
    float cap = caps[c->index % 4];
    bool add = c->index % 3 != 0 || cap == 0;
    int64_t ld = flash_up_to(t.keys, 16) + 16 * check_range(c, 0, 1);
    int64_t addends = flash_up_to(t.rows, 16) * ld;
    float *s = flash_take_tile(c, "s", &t);
    float *addend = check_floats(c, "addend", addends, 64);
    float *maximum = check_floats(c, "maximum", LANES, 64);
    static float before[MOST_KEYS * LANES];
    fill_scores(c, &t, s, false);
    memcpy(before, s, (size_t)(t.keys * LANES) * 4);
    check_fill(c, addend, addends, c->index % 2 ? CHECK_SOME_HIDDEN : CHECK_NORMAL);
    if (c->index % 4 == 2) { /* a hidden slot may hold a NaN score */
        for (int64_t r = 0; r < t.rows; r++) {
            before[r] = s[r] = NAN;
            addend[r * ld] = -INFINITY;
        }
        add = true;
    }
    check_fill(c, maximum, LANES, CHECK_ALL_HIDDEN);
    check_input(c, addend);
    CHECK_CALL(c, attn_flash_table(c->isa)->modify(&t, cap, add ? addend : NULL, ld, s, maximum));
    for (int64_t r = 0; r < t.rows && !c->failed; r++) {
        float largest = -INFINITY;
        for (int64_t j = 0; j < t.keys && !c->failed; j++) {
            double x = (double)before[j * LANES + r];
            double a = add ? (double)addend[r * ld + j] : 0;
            double capped = cap > 0 ? (double)cap * tanh(x / (double)cap) : x;
            double want = !flash_attends(&t, r, j) || a == -INFINITY ? -INFINITY : capped + a;
            double allowed =
                0x1p-24 * ((cap > 0 ? 8 * fabs(capped) : 0) + 2 * fabs(a) + fabs(capped)) +
                2 * (double)FLT_MIN;
            bool skipped =
                t.partial && !flash_attends(&t, r, j); /* −inf, or in a group nobody looks at */
            if (!skipped) {
                check_close(c, "s", &s[j * LANES + r], &want, &allowed, 1);
                largest = fmaxf(largest, s[j * LANES + r]);
            }
        }
        if (!c->failed) {
            check_same(c, "maximum", &maximum[r], &largest, 1);
        }
    }
}

static void run_argmax(check *c)
{
    attn_flash_tile t = flash_make_tile(c);
    float *s = flash_take_tile(c, "s", &t);
    float *maximum = check_floats(c, "maximum", LANES, 64);
    int32_t *key = check_take(c, "key", LANES * sizeof(int32_t), 64);
    fill_scores(c, &t, s, false);
    for (int64_t r = 0; r < LANES; r++) {
        maximum[r] = -INFINITY;
        key[r] = -7;
        for (int64_t j = 0; j < t.keys && r < t.rows; j++) {
            float *at = &s[j * LANES + r];
            *at = flash_attends(&t, r, j) ? *at : -INFINITY; /* as modify leaves it */
            maximum[r] = fmaxf(maximum[r], *at);
        }
        maximum[r] += (c->index + r) % 5 == 0 ? 1.0F : 0; /* found nowhere */
    }
    check_input(c, s);
    check_input(c, maximum);
    CHECK_CALL(c, attn_flash_table(c->isa)->argmax(&t, s, maximum, key));
    for (int64_t r = 0; r < t.rows && !c->failed; r++) {
        int32_t want = -7;
        for (int32_t j = 0; j < t.keys; j++) {
            want = flash_attends(&t, r, j) && s[j * LANES + r] == maximum[r] ? j : want;
        }
        if (key[r] != want && fabsf(maximum[r]) >= FLT_MIN && isfinite(maximum[r])) {
            check_fail(c, "key[%lld] is %d, must be %d", (long long)r, key[r], want);
        }
    }
}

/* ---- softmax ----------------------------------------------------------------------------------- */

typedef struct sums {
    float maximum[LANES], m[LANES], l[LANES];
} sums;

static void check_softmax_row(check *c, const attn_flash_tile *t, int64_t r, const float *before,
                              const sums *old, const float *s, float m, float l, float alpha)
{
    double base = old->maximum[r] == -INFINITY ? 0 : (double)old->maximum[r];
    double sum = (double)old->l[r] * exp((double)old->m[r] - base);
    double rounding = 0x1p-24 * (12 + 2 * fabs(base));
    bool nan = false;
    for (int64_t j = 0; j < t->keys && !c->failed; j++) {
        double x = (double)before[j * LANES + r];
        double want = flash_attends(t, r, j) ? exp(x - base) : 0;
        double allowed =
            want * (rounding + 0x1p-24 * (isfinite(x) ? fabs(x) : 0)) + 2 * (double)FLT_MIN;
        nan = nan || isnan(want);
        sum += want;
        check_close(c, "s", &s[j * LANES + r], &want, &allowed, 1);
    }
    double want[3] = {(double)old->maximum[r], nan ? NAN : sum, exp((double)old->m[r] - base)};
    double allowed[3] = {0, sum * (2 * rounding + 64 * 0x1p-24) + MOST_KEYS * (double)FLT_MIN,
                         want[2] * rounding * 2 + 2 * (double)FLT_MIN};
    float got[3] = {m, l, alpha};
    if (!c->failed) {
        check_close(c, "m, l, alpha", got, want, allowed, 3);
    }
}

static void run_softmax(check *c)
{
    attn_flash_tile t = flash_make_tile(c);
    float *s = flash_take_tile(c, "s", &t);
    float *maximum = check_floats(c, "maximum", LANES, 64);
    float *m = check_floats(c, "m", LANES, 64);
    float *l = check_floats(c, "l", LANES, 64);
    float *alpha = check_floats(c, "alpha", LANES, 64);
    static float before[MOST_KEYS * LANES];
    sums old;
    fill_scores(c, &t, s, true);
    for (int64_t r = 0; r < LANES; r++) {
        m[r] = check_range(c, 0, 1) ? -INFINITY : (float)check_normal(c);
        l[r] = m[r] == -INFINITY ? 0 : (float)(1 + check_uniform(c));
        maximum[r] = m[r];
        for (int64_t j = 0; j < t.keys && r < t.rows; j++) {
            if (!flash_attends(&t, r, j)) { /* as modify leaves it */
                s[j * LANES + r] = -INFINITY;
            } else if (s[j * LANES + r] > maximum[r]) {
                maximum[r] = s[j * LANES + r];
            }
        }
    }
    memcpy(before, s, (size_t)(t.keys * LANES) * 4);
    memcpy(old.maximum, maximum, sizeof old.maximum);
    memcpy(old.m, m, sizeof old.m);
    memcpy(old.l, l, sizeof old.l);
    check_input(c, maximum);
    CHECK_CALL(c, attn_flash_table(c->isa)->softmax(&t, maximum, s, m, l, alpha));
    for (int64_t r = 0; r < t.rows && !c->failed; r++) {
        check_softmax_row(c, &t, r, before, &old, s, m[r], l[r], alpha[r]);
    }
}

/* ---- values, fold, finish ---------------------------------------------------------------------- */

static void run_values(check *c)
{
    attn_flash_tile t = flash_make_tile(c);
    int64_t dim = check_range(c, 1, MOST_DIM);
    int64_t stride = dim + check_range(c, 0, 9);
    int64_t ldo = flash_up_to(dim, 16) + 16 * check_range(c, 0, 1);
    float *s = flash_take_tile(c, "s", &t);
    float *v = check_floats(c, "v", (t.keys - 1) * stride + dim, 4);
    float *alpha = check_floats(c, "alpha", LANES, 64);
    float *o = check_floats(c, "o", LANES * ldo, 64);
    static float before[LANES * 176];
    memset(s, 0, (size_t)(flash_up_to(t.keys, UNIT) * LANES) * 4);
    check_fill(c, v, (t.keys - 1) * stride + dim, (check_values)(c->index % CHECK_FINITE_KINDS));
    check_fill(c, alpha, LANES, CHECK_NORMAL);
    check_fill(c, o, LANES * ldo, CHECK_NORMAL);
    for (int64_t r = 0; r < t.rows; r++) {
        for (int64_t j = 0; j < t.keys; j++) {
            s[j * LANES + r] = flash_attends(&t, r, j) ? (float)check_uniform(c) : 0;
        }
    }
    memcpy(before, o, (size_t)(LANES * ldo) * 4);
    check_input(c, s);
    check_input(c, v);
    check_input(c, alpha);
    CHECK_CALL(c, attn_flash_table(c->isa)->values(&t, s, v, stride, dim, alpha, o, ldo));
    for (int64_t r = 0; r < t.rows && !c->failed; r++) {
        double want[MOST_DIM];
        double allowed[MOST_DIM];
        for (int64_t d = 0; d < dim; d++) {
            want[d] = (double)before[r * ldo + d] * (double)alpha[r];
            double size = fabs(want[d]);
            for (int64_t j = 0; j < t.keys; j++) {
                want[d] += (double)s[j * LANES + r] * (double)v[j * stride + d];
                size += fabs((double)s[j * LANES + r] * (double)v[j * stride + d]);
            }
            allowed[d] = (double)(t.keys + 4) * 0x1p-24 * size + MOST_KEYS * (double)FLT_MIN;
        }
        check_close(c, "o", o + r * ldo, want, allowed, dim);
    }
}

static void run_fold(check *c)
{
    int32_t rows = (int32_t)(c->index < LANES ? c->index + 1 : check_range(c, 1, LANES));
    int64_t ldo = 16 * check_range(c, 1, 9);
    float *beta = check_floats(c, "beta", LANES, 64);
    float *o = check_floats(c, "o", LANES * ldo, 64);
    float *total = check_floats(c, "total", LANES * ldo, 64);
    static float old[2][LANES * 144];
    check_fill(c, beta, LANES, CHECK_NORMAL);
    check_fill(c, o, LANES * ldo, (check_values)(c->index % CHECK_FINITE_KINDS));
    check_fill(c, total, LANES * ldo, CHECK_NORMAL);
    memcpy(old[0], o, (size_t)(LANES * ldo) * 4);
    memcpy(old[1], total, (size_t)(LANES * ldo) * 4);
    check_input(c, beta);
    CHECK_CALL(c, attn_flash_table(c->isa)->fold(rows, ldo, beta, o, total));
    for (int64_t n = 0; n < rows * ldo && !c->failed; n++) {
        double part = (double)old[1][n] * (double)beta[n / ldo];
        double want = part + (double)old[0][n];
        double allowed = 2 * 0x1p-24 * (fabs(part) + fabs((double)old[0][n])) + 2 * (double)FLT_MIN;
        float zero = 0;
        if (check_close(c, "total", &total[n], &want, &allowed, 1)) {
            check_same(c, "o", &o[n], &zero, 1);
        }
    }
}

static void run_finish(check *c)
{
    int64_t dim = check_size(c, 16, MOST_DIM);
    double want[MOST_DIM];
    double allowed[MOST_DIM];
    float *o = check_floats(c, "o", flash_up_to(dim, 16), 64);
    float *out = check_floats(c, "out", dim, 4);
    float factor = (float)check_normal(c);
    bool all = true;
    bool finite = false;
    check_fill(c, o, dim, (check_values)(c->index % CHECK_KINDS));
    for (int64_t d = 0; d < dim; d++) {
        want[d] = (double)o[d] * (double)factor;
        allowed[d] = 0x1p-24 * fabs(want[d]) + (double)FLT_MIN;
        all = all && isfinite(want[d]);
    }
    check_input(c, o);
    CHECK_CALL(c, finite = attn_flash_table(c->isa)->finish(o, factor, dim, out));
    if (!c->failed && check_close(c, "out", out, want, allowed, dim) && finite != all) {
        check_fail(c, "says that the row %s", finite ? "is finite" : "is not finite");
    }
}

/* ---- bench: a full tile of 64 rows, 96 keys, 64 dims ------------------------------------------- */

enum { BENCH_KEYS = 96, BENCH_DIM = 64 };
static _Alignas(64) float bench_qt[BENCH_DIM * LANES], bench_kv[BENCH_KEYS * BENCH_DIM],
    bench_s[BENCH_KEYS * LANES], bench_o[LANES * BENCH_DIM];
static _Alignas(64) float bench_max[LANES], bench_m[LANES], bench_l[LANES], bench_alpha[LANES];
static const attn_flash_tile bench_tile = {.rows = LANES, .keys = BENCH_KEYS};

static double bench_scores(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_flash_table(isa)->scores(&bench_tile, bench_qt, bench_kv, BENCH_DIM, BENCH_DIM, 0.125F,
                                      bench_s, bench_max);
    }
    return 2.0 * LANES * BENCH_KEYS * BENCH_DIM * (double)repeats;
}

static double bench_softmax(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_flash_table(isa)->softmax(&bench_tile, bench_max, bench_s, bench_m, bench_l,
                                       bench_alpha);
    }
    return (double)repeats * LANES * BENCH_KEYS;
}

static double bench_values(attn_isa isa, int64_t repeats)
{
    memset(bench_s, 0, sizeof bench_s);
    for (int64_t n = 0; n < repeats; n++) {
        attn_flash_table(isa)->values(&bench_tile, bench_s, bench_kv, BENCH_DIM, BENCH_DIM,
                                      bench_alpha, bench_o, BENCH_DIM);
    }
    return 2.0 * LANES * BENCH_KEYS * BENCH_DIM * (double)repeats;
}

static const void *table(attn_isa isa)
{
    return attn_flash_table(isa);
}

static const check_kernel kernels[] = {
    {"flash/pack", table, run_pack, 150, NULL, NULL},
    {"flash/scores", table, run_scores, 250, bench_scores, "flops"},
    {"flash/modify", table, run_modify, 250, NULL, NULL},
    {"flash/argmax", table, run_argmax, 150, NULL, NULL},
    {"flash/softmax", table, run_softmax, 250, bench_softmax, "elements"},
    {"flash/values", table, run_values, 250, bench_values, "flops"},
    {"flash/fold", table, run_fold, 100, NULL, NULL},
    {"flash/finish", table, run_finish, 150, NULL, NULL},
};

const check_family check_flash = {kernels, sizeof kernels / sizeof *kernels};
