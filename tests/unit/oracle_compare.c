/* The comparing half of the oracle: what the library wrote against what it had to be. */
#include "oracle.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

/* Half the spacing of a type's numbers around `value`: what rounding to it may add (docs/numerics.md). */
static double output_rounding(attn_dtype dtype, double value)
{
    switch (dtype) {
    case ATTN_BF16: return 0x1p-8 * fabs(value) + 0x1p-134;
    case ATTN_F16: return 0x1p-11 * fabs(value) + 0x1p-25;
    default: return 0;
    }
}

/* How often the error is larger than allowed: ≤ 1 is right. Classes first: NaN, infinities. */
static double excess(double got, double want, double allowed)
{
    if (isnan(want) || isnan(got)) {
        return isnan(want) && isnan(got) ? 0 : INFINITY;
    }
    if (isinf(want) || isinf(got)) {
        return want == got ? 0 : INFINITY;
    }
    double error = fabs(got - want);
    if (error == 0) {
        return 0;
    }
    return allowed > 0 ? error / allowed : INFINITY;
}

typedef struct worst {
    double excess, got, want, allowed;
    const char *what;
    int64_t row, column;
    bool
        narrow; /* 16-bit output: its rounding is most of the error, and says nothing of the rest */
    double share;
} worst;

static void consider(worst *w, const char *what, int64_t row, int64_t column, double got,
                     double want, double allowed)
{
    double e = excess(got, want, allowed);
    if (!w->narrow) {
        w->share = fmax(w->share, e);
    }
    if (e > w->excess) {
        *w = (worst){e, got, want, allowed, what, row, column, w->narrow, w->share};
    }
}

static void compare_out(const oracle_result *want, const attn_view *out, double tolerance,
                        int64_t at, worst *w)
{
    int64_t b = at / (want->heads_q * want->len_q);
    int64_t h = at / want->len_q % want->heads_q;
    int64_t i = at % want->len_q;
    for (int64_t d = 0; d < want->dim_v; d++) {
        double x = want->out[at * want->dim_v + d];
        double got = oracle_load(out, oracle_at(out, b, h, i, d));
        if (want->kind[at] == ORACLE_ORDINARY && !isfinite(x)) {
            /* attended non-finite V: non-finite, NaN or inf unspecified once a weight underflows */
            consider(w, "out", at, d, isfinite(got) ? got : NAN, NAN, 0);
            continue;
        }
        /* f32 results below the smallest normal number are flushed, once per key at most */
        double flushed = want->f64 ? 0 : FLT_MIN * (double)(want->len_k + 1);
        double allowed = tolerance * want->bound[at] * want->v_max[at] + flushed;
        if (out->dtype == ATTN_F16 && fabs(x) + allowed >= 65520 && isinf(got)) {
            x = copysign(INFINITY, x); /* dropout takes results beyond what f16 holds */
        }
        allowed += output_rounding(out->dtype, fabs(x) + allowed);
        consider(w, "out", at, d, got, x, want->kind[at] == ORACLE_EMPTY ? 0 : allowed);
    }
}

static void compare_weights(const oracle_result *want, const attn_view *weights, double tolerance,
                            int64_t at, worst *w)
{
    int64_t b = at / (want->heads_q * want->len_q);
    int64_t h = at / want->len_q % want->heads_q;
    int64_t i = at % want->len_q;
    for (int64_t j = 0; j < want->len_k; j++) {
        double got = oracle_load(weights, oracle_at(weights, b, h, i, j));
        bool attends = want->attends[at * want->len_k + j];
        if (want->kind[at] == ORACLE_NAN && attends) {
            continue; /* the contract says nothing of single weights of a NaN row */
        }
        consider(w, "weights", at, j, got, want->weights[at * want->len_k + j],
                 attends ? tolerance * want->bound[at] : 0);
    }
}

static double largest_share;

double oracle_largest_share(void)
{
    return largest_share;
}

bool oracle_compare(const oracle_result *want, const attn_view *out, const attn_view *lse,
                    const attn_view *weights, double tolerance, char *text, size_t size)
{
    worst w = {0};
    int64_t rows = want->batch * want->heads_q * want->len_q;
    for (int64_t at = 0; at < rows; at++) {
        int64_t b = at / (want->heads_q * want->len_q);
        int64_t h = at / want->len_q % want->heads_q;
        int64_t i = at % want->len_q;
        w.narrow = attn_dtype_size(out->dtype) == 2;
        compare_out(want, out, tolerance, at, &w);
        w.narrow = false;
        if (lse) {
            consider(&w, "lse", at, 0, oracle_load(lse, oracle_at(lse, b, h, i, 0)), want->lse[at],
                     tolerance * want->bound[at]);
        }
        if (weights) {
            compare_weights(want, weights, tolerance, at, &w);
        }
    }
    largest_share = fmax(largest_share, w.share);
    if (w.excess <= 1) {
        return true;
    }
    int64_t b = w.row / (want->heads_q * want->len_q);
    int64_t h = w.row / want->len_q % want->heads_q;
    snprintf(text, size,
             "%s[b=%lld, h=%lld, i=%lld, %lld] is %.9g, must be %.9g ± %.3g (%.3g times the bound)",
             w.what, (long long)b, (long long)h, (long long)(w.row % want->len_q),
             (long long)w.column, w.got, w.want, w.allowed, w.excess);
    return false;
}
