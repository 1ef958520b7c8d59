/* kernels/decode: the three stages of a chunk, for every storage type, against double. */
#include "check.h"

#include "base/half.h"
#include "kernels/decode/decode.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { CHUNK = ATTN_DECODE_CHUNK, ROWS = ATTN_DECODE_ROWS, MOST_DIM = 200 };

/* Rows of K or V in their storage type, with any stride, gaps NaN. */
typedef struct store {
    attn_decode_block block;
    float value[CHUNK * MOST_DIM]; /* what the elements are, dense */
} store;

static store content;

static const store *make_store(check *c, int type, check_values kind)
{
    size_t size = type == ATTN_DECODE_F32 ? 4 : 2;
    int64_t count = c->index < CHUNK ? c->index + 1 : check_range(c, 1, CHUNK);
    int64_t dim = c->index < 70 ? 1 + (c->index * 7) % 70 : check_range(c, 1, MOST_DIM);
    int64_t stride = dim + (check_range(c, 0, 1) ? check_range(c, 0, 20) : 0);
    int64_t elements = (count - 1) * stride + dim;
    unsigned char *memory = check_take(c, "cache", (size_t)elements * size, size);
    bool backwards = check_range(c, 0, 4) == 0;
    check_fill(c, content.value, count * dim, kind);
    for (int64_t j = 0; j < count; j++) {
        int64_t row = backwards ? count - 1 - j : j;
        for (int64_t d = 0; d < dim; d++) {
            float *x = &content.value[j * dim + d];
            unsigned char *at = memory + (size_t)(row * stride + d) * size;
            uint16_t half =
                type == ATTN_DECODE_F16 ? attn_float_to_f16(*x) : attn_float_to_bf16(*x);
            if (type == ATTN_DECODE_F32) {
                memcpy(at, x, 4);
                continue;
            }
            memcpy(at, &half, 2);
            *x = type == ATTN_DECODE_F16 ? attn_f16_to_float(half) : attn_bf16_to_float(half);
        }
    }
    content.block =
        (attn_decode_block){.data = memory, .stride = stride, .count = count, .dim = dim};
    if (backwards) {
        content.block.data = memory + (size_t)((count - 1) * stride) * size;
        content.block.stride = -stride;
    }
    check_input(c, memory);
    return &content;
}

/* Storage of 16 bits cannot hold every kind. */
static check_values kind_of(const check *c, int type)
{
    check_values kind = (check_values)(c->index % CHECK_FINITE_KINDS);
    return kind == CHECK_HUGE && type == ATTN_DECODE_F16 ? CHECK_NORMAL : kind;
}

static int type_of(const check *c)
{
    return (int)(c->index / 2 % ATTN_DECODE_TYPES);
}

/* The next stage's rows, some of the time; they are only brought near. */
static attn_decode_ahead ahead_of(const check *c, const store *s)
{
    attn_decode_ahead ahead = {0};
    if (c->index % 3 == 0) {
        ahead.base = s->block.data;
        ahead.stride = 64;
        ahead.bytes = 100;
        ahead.rows = s->block.count;
    }
    return ahead;
}

static int64_t padded(int64_t n)
{
    return (n + 15) / 16 * 16;
}

static void run_scores(check *c)
{
    int type = type_of(c);
    bool nan = c->index % 8 == 7;
    const store *k = make_store(c, type, nan ? CHECK_NAN : kind_of(c, type));
    int64_t rows = check_range(c, 1, ROWS);
    int64_t dim = k->block.dim;
    int64_t stride = padded(dim) + 16 * check_range(c, 0, 2);
    float *q = check_floats(c, "q", rows * stride, 64);
    float *s = check_floats(c, "s", rows * CHUNK, 64);
    attn_decode_ahead ahead = ahead_of(c, k);
    memset(q, 0, (size_t)(rows * stride) * 4);
    for (int64_t r = 0; r < rows; r++) {
        check_fill(c, q + r * stride, dim, kind_of(c, ATTN_DECODE_F16));
    }
    check_input(c, q);
    CHECK_CALL(c, attn_decode_table(c->isa)->scores[type](q, stride, rows, &k->block, s, &ahead));
    for (int64_t r = 0; r < rows && !c->failed; r++) {
        double want[CHUNK];
        double allowed[CHUNK];
        for (int64_t j = 0; j < k->block.count; j++) {
            double size = 0;
            want[j] = 0;
            for (int64_t d = 0; d < dim; d++) {
                double term = (double)q[r * stride + d] * (double)k->value[j * dim + d];
                want[j] += term;
                size += fabs(term);
            }
            allowed[j] = (8 + (double)dim / 8) * 0x1p-24 * size +
                         (double)(dim + 1) * (double)FLT_MIN * (1 + size);
        }
        check_close(c, "s", s + r * CHUNK, want, allowed, k->block.count);
    }
}

static void softmax_row(check *c, const float *before, int64_t count, double scale, float m,
                        float l, const float *after, float m_after, float l_after, float alpha)
{
    double want[CHUNK + 3];
    double allowed[CHUNK + 3];
    float got[CHUNK + 3];
    double maximum = (double)m;
    bool bad = false;
    for (int64_t j = 0; j < count; j++) {
        double s = scale * (double)before[j];
        bad = bad || isnan(s) || s == INFINITY;
        maximum = isnan(s) ? maximum : fmax(maximum, s);
    }
    if (bad) {
        if (!isnan(l_after)) {
            check_fail(c, "l is %g in a row with a NaN or +inf score, must be NaN",
                       (double)l_after);
        }
        return;
    }
    double base = maximum == -INFINITY ? 0 : maximum;
    double sum = (double)l * exp((double)m - base);
    double rounding = 0x1p-24 * (12 + 4 * fabs(base));
    for (int64_t j = 0; j < CHUNK; j++) {
        double s = scale * (double)before[j < count ? j : 0];
        want[j] = j < count ? exp(s - base) : 0;
        allowed[j] = j < count ? want[j] * (rounding + 0x1p-24 * fabs(isinf(s) ? 0 : s)) +
                                     2 * (double)FLT_MIN
                               : 0;
        sum += want[j];
    }
    memcpy(got, after, CHUNK * sizeof *got);
    got[CHUNK] = m_after;
    want[CHUNK] = maximum;
    allowed[CHUNK] = 0x1p-23 * fabs(base) + (double)FLT_MIN;
    got[CHUNK + 1] = alpha;
    want[CHUNK + 1] = exp((double)m - base);
    allowed[CHUNK + 1] = want[CHUNK + 1] * (rounding + 0x1p-23 * fabs(isinf(m) ? 0 : (double)m)) +
                         2 * (double)FLT_MIN;
    got[CHUNK + 2] = l_after;
    want[CHUNK + 2] = sum;
    allowed[CHUNK + 2] = sum * (2 * rounding + 16 * 0x1p-24) + CHUNK * (double)FLT_MIN;
    check_close(c, "s[0..63], m, alpha, l", got, want, allowed, CHUNK + 3);
}

static void run_softmax(check *c)
{
    int64_t rows = check_range(c, 1, ROWS);
    int64_t count = c->index < CHUNK ? c->index + 1 : check_range(c, 1, CHUNK);
    float before[ROWS * CHUNK];
    float m_before[ROWS];
    float l_before[ROWS];
    const float scales[] = {1, 0.125F, -2, 0};
    float scale = scales[c->index % 4];
    float *s = check_floats(c, "s", rows * CHUNK, 64);
    float *m = check_floats(c, "m", rows, 4);
    float *l = check_floats(c, "l", rows, 4);
    float *alpha = check_floats(c, "alpha", rows, 4);
    for (int64_t r = 0; r < rows;
         r++) { /* hostile kinds differ from row to row: NaN must stay in its own */
        check_values kind = (check_values)((c->index / 4 + r) % CHECK_KINDS);
        if (scale <= 0 && (kind == CHECK_SOME_HIDDEN || kind == CHECK_ALL_HIDDEN)) {
            kind = CHECK_NORMAL; /* 0·inf is NaN, −2·−inf is +inf */
        }
        check_fill(c, s + r * CHUNK, count, kind);
        m[r] = check_range(c, 0, 1) ? -INFINITY : (float)(3 * check_normal(c));
        l[r] = m[r] == -INFINITY ? 0 : (float)(1 + check_uniform(c));
    }
    memcpy(before, s, (size_t)(rows * CHUNK) * 4);
    memcpy(m_before, m, (size_t)rows * 4);
    memcpy(l_before, l, (size_t)rows * 4);
    CHECK_CALL(c, attn_decode_table(c->isa)->softmax(s, rows, count, scale, m, l, alpha));
    for (int64_t r = 0; r < rows && !c->failed; r++) {
        softmax_row(c, before + r * CHUNK, count, (double)scale, m_before[r], l_before[r],
                    s + r * CHUNK, m[r], l[r], alpha[r]);
    }
}

static void run_values(check *c)
{
    int type = type_of(c);
    bool nan = c->index % 8 == 7;
    const store *v = make_store(c, type, nan ? CHECK_NAN : kind_of(c, type));
    int64_t rows = check_range(c, 1, ROWS);
    int64_t dim = v->block.dim;
    int64_t stride = padded(dim) + 16 * check_range(c, 0, 2);
    float *s = check_floats(c, "s", rows * CHUNK, 64);
    float *alpha = check_floats(c, "alpha", rows, 4);
    float *o = check_floats(c, "o", rows * stride, 64);
    static float o_before[ROWS * 300];
    _Alignas(64) static float alone[300];
    attn_decode_ahead ahead = ahead_of(c, v);
    memset(s, 0, (size_t)(rows * CHUNK) * 4);
    check_fill(c, o, rows * stride, CHECK_NORMAL);
    check_fill(c, alpha, rows, CHECK_NORMAL);
    for (int64_t r = 0; r < rows; r++) {
        check_fill(c, s + r * CHUNK, v->block.count, CHECK_NORMAL);
    }
    memcpy(o_before, o, (size_t)(rows * stride) * 4);
    check_input(c, s);
    check_input(c, alpha);
    CHECK_CALL(
        c, attn_decode_table(c->isa)->values[type](s, rows, alpha, &v->block, o, stride, &ahead));
    for (int64_t r = 0; r < rows && !c->failed; r++) {
        double want[MOST_DIM];
        double allowed[MOST_DIM];
        for (int64_t d = 0; d < dim; d++) {
            want[d] = (double)o_before[r * stride + d] * (double)alpha[r];
            double size = fabs(want[d]);
            for (int64_t j = 0; j < v->block.count; j++) {
                double term = (double)s[r * CHUNK + j] * (double)v->value[j * dim + d];
                want[d] += term;
                size += fabs(term);
            }
            allowed[d] =
                (double)(v->block.count + 4) * 0x1p-24 * size + CHUNK * 4 * (double)FLT_MIN;
        }
        check_close(c, "o", o + r * stride, want, allowed, dim);
    }
    if (!c->failed) { /* a row alone has the same bits */
        int64_t r = check_range(c, 0, rows - 1);
        _Alignas(64) float row[CHUNK];
        memcpy(row, s + r * CHUNK, sizeof row);
        memcpy(alone, o_before + r * stride, (size_t)stride * 4);
        CHECK_CALL(c, attn_decode_table(c->isa)->values[type](row, 1, alpha + r, &v->block, alone,
                                                              stride, &ahead));
        check_same(c, "o beside the row alone", o + r * stride, alone, dim);
    }
}

/* ---- bench: 64 keys of 128 numbers, one row ---------------------------------------------------- */

static _Alignas(64) float bench_kv[CHUNK * 128], bench_q[ROWS * 128], bench_s[ROWS * CHUNK];
static float bench_m[ROWS], bench_l[ROWS], bench_alpha[ROWS];

static double bench_scores(attn_isa isa, int64_t repeats)
{
    attn_decode_block k = {bench_kv, 128, CHUNK, 128};
    attn_decode_ahead ahead = {0};
    for (int64_t n = 0; n < repeats; n++) {
        attn_decode_table(isa)->scores[0](bench_q, 128, 1, &k, bench_s, &ahead);
    }
    return (double)repeats * CHUNK * 128 * 2;
}

static double bench_softmax(attn_isa isa, int64_t repeats)
{
    for (int64_t n = 0; n < repeats; n++) {
        attn_decode_table(isa)->softmax(bench_s, ROWS, CHUNK, 1, bench_m, bench_l, bench_alpha);
    }
    return (double)repeats * ROWS * CHUNK;
}

static double bench_values(attn_isa isa, int64_t repeats)
{
    attn_decode_block v = {bench_kv, 128, CHUNK, 128};
    attn_decode_ahead ahead = {0};
    for (int64_t n = 0; n < repeats; n++) {
        attn_decode_table(isa)->values[0](bench_s, 1, bench_alpha, &v, bench_q, 128, &ahead);
    }
    return (double)repeats * CHUNK * 128 * 2;
}

static const void *table(attn_isa isa)
{
    return attn_decode_table(isa);
}

static const check_kernel kernels[] = {
    {"decode/scores", table, run_scores, 400, bench_scores, "flops"},
    {"decode/softmax", table, run_softmax, 400, bench_softmax, "elements"},
    {"decode/values", table, run_values, 400, bench_values, "flops"},
};

const check_family check_decode = {kernels, sizeof kernels / sizeof *kernels};
