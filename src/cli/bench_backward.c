/*
 * bench_backward.c: the backward of attn bench: its arrays, the call, and a check against the formulas in float64. The
 * gradients lie in a second set of the arrays of forward, of the same shapes.
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>

static attn_sdpa_options options_of(bool causal)
{
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;
    return options;
}

attn_status bench_gradients_make(attn_context *context, const bench_shape *s, bool causal,
                                 bench_arrays *arrays, bench_gradients *g)
{
    *g = (bench_gradients){0};
    attn_dtype type = arrays->q.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    attn_status status = bench_make(context, s, arrays->q.dtype, &g->memory);
    if (status != ATTN_OK) {
        return status;
    }
    int64_t rows = s->batch * s->heads_q * s->len_q; /* bench_make checked more than that */
    g->rows = malloc((size_t)rows * attn_dtype_size(type));
    if (!g->rows) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for lse of %lld rows", (long long)rows);
    }
    g->lse = attn_view_dense(g->rows, type, 3, (int64_t[]){s->batch, s->heads_q, s->len_q});
    g->dout = g->memory.q;
    g->dq = g->memory.out;
    g->dk = g->memory.k;
    g->dv = g->memory.v;
    attn_sdpa_options options = options_of(causal);
    options.lse = &g->lse;
    return attn_sdpa(context, &options, &arrays->q, &arrays->k, &arrays->v, &arrays->out);
}

void bench_gradients_free(bench_gradients *g)
{
    bench_free(&g->memory);
    free(g->rows);
    *g = (bench_gradients){0};
}

static attn_sdpa_gradients wanted_of(const bench_gradients *g)
{
    attn_sdpa_gradients wanted = attn_sdpa_gradients_init();
    wanted.dq = g->dq;
    wanted.dk = g->dk;
    wanted.dv = g->dv;
    return wanted;
}

attn_status bench_backward(attn_context *context, bool causal, const bench_arrays *a,
                           const bench_gradients *g)
{
    attn_sdpa_options options = options_of(causal);
    attn_sdpa_gradients wanted = wanted_of(g);
    return attn_sdpa_backward(context, &options, &a->q, &a->k, &a->v, &a->out, &g->lse, &g->dout,
                              &wanted);
}

attn_status bench_backward_plan(attn_context *context, bool causal, const bench_arrays *a,
                                const bench_gradients *g, attn_sdpa_plan_info *info)
{
    attn_sdpa_options options = options_of(causal);
    attn_sdpa_gradients wanted = wanted_of(g);
    return attn_sdpa_backward_plan(context, &options, &a->q, &a->k, &a->v, &a->out, &g->lse,
                                   &g->dout, &wanted, info);
}

typedef struct problem {
    attn_context *context;
    const bench_shape *shape;
    bool causal;
    const bench_arrays *arrays;
    const bench_gradients *gradients;
} problem;

/* Σ_d a[row_a, d]·b[row_b, d] */
static double dot(const problem *p, const attn_view *a, int64_t row_a, const attn_view *b,
                  int64_t row_b)
{
    double sum = 0;
    int64_t dim = p->shape->dim;
    for (int64_t d = 0; d < dim; d++) {
        sum += bench_element(p->context, a, row_a * dim + d) *
               bench_element(p->context, b, row_b * dim + d);
    }
    return sum;
}

/* One slot of the first sequence: its weight, the gradient of its score, and what that is a difference of. */
typedef struct slot {
    double weight, ds, size;
} slot;

/* All zeros where it is masked. */
static slot slot_at(const problem *p, int64_t h, int64_t i, int64_t j)
{
    const bench_shape *s = p->shape;
    const bench_arrays *a = p->arrays;
    const bench_gradients *g = p->gradients;
    int64_t row = h * s->len_q + i, key = h / (s->heads_q / s->heads_kv) * s->len_k + j;
    if (p->causal && j > i + s->len_k - s->len_q) {
        return (slot){0, 0, 0};
    }
    double scale = 1 / sqrt((double)s->dim);
    double weight =
        exp(scale * dot(p, &a->q, row, &a->k, key) - bench_element(p->context, &g->lse, row));
    double dp = dot(p, &g->dout, row, &a->v, key), delta = dot(p, &g->dout, row, &a->out, row);
    return (slot){weight, scale * weight * (dp - delta), scale * weight * (fabs(dp) + fabs(delta))};
}

/* A sum of products that one element of a gradient must be, and of their magnitudes. */
typedef struct expected {
    double sum, size;
} expected;

static void add(expected *e, double a, double size, double b)
{
    e->sum += a * b;
    e->size += size * fabs(b);
}

static double error_of(const problem *p, const attn_view *gradient, int64_t index, expected e)
{
    return fabs(bench_element(p->context, gradient, index) - e.sum) / (e.size + 1e-30);
}

/* The larger of two errors, of which a NaN is the largest. */
static double worse(double a, double b)
{
    return a <= b ? b : a;
}

/* Errors of the first element of dq's row i, and of dk's and dv's row j, relative to the sums' sizes. */
static double row_error(const problem *p, int64_t h, int64_t i, int64_t j)
{
    const bench_shape *s = p->shape;
    const bench_arrays *a = p->arrays;
    int64_t group = s->heads_q / s->heads_kv, kv = h / group, dim = s->dim;
    expected q = {0, 0}, k = {0, 0}, v = {0, 0};
    for (int64_t n = 0; n < s->len_k; n++) {
        slot at = slot_at(p, h, i, n);
        add(&q, at.ds, at.size, bench_element(p->context, &a->k, (kv * s->len_k + n) * dim));
    }
    for (int64_t n = 0; n < group * s->len_q; n++) {
        int64_t head = kv * group + n / s->len_q, row = head * s->len_q + n % s->len_q;
        slot at = slot_at(p, head, n % s->len_q, j);
        add(&k, at.ds, at.size, bench_element(p->context, &a->q, row * dim));
        add(&v, at.weight, at.weight, bench_element(p->context, &p->gradients->dout, row * dim));
    }
    double error = error_of(p, &p->gradients->dq, (h * s->len_q + i) * dim, q);
    error = worse(error, error_of(p, &p->gradients->dk, (kv * s->len_k + j) * dim, k));
    return worse(error, error_of(p, &p->gradients->dv, (kv * s->len_k + j) * dim, v));
}

attn_status bench_backward_check(attn_context *context, const bench_shape *s, bool causal,
                                 const bench_arrays *arrays, const bench_gradients *gradients)
{
    problem p = {context, s, causal, arrays, gradients};
    attn_dtype dtype = arrays->q.dtype;
    double bound = dtype == ATTN_F64   ? 1e-12
                   : dtype == ATTN_F32 ? 2e-5
                   : dtype == ATTN_F16 ? 1e-2
                                       : 5e-2;
    for (int n = 0; n < 2; n++) {
        int64_t h = (s->heads_q - 1) * n, i = (s->len_q - 1) * (1 - n) / 2;
        int64_t j = (s->len_k - 1) * (2 - n) / 2;
        double error = row_error(&p, h, i, j);
        if (!(error <= bound)) {
            return attn_fail(
                ATTN_ERR_ARGUMENT,
                "the gradients are wrong: head %lld, row %lld, key %lld is off by %.2g "
                "of its terms (allowed %.2g); nothing is reported",
                (long long)h, (long long)i, (long long)j, error, bound);
        }
    }
    return ATTN_OK;
}
