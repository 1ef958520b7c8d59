#include "grad_oracle.h"

#include "oracle.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What all slots of a call share. */
typedef struct back {
    const grad_case *c;
    const sdpa_case *f;
    oracle_result o;
    grad_result *result;
    double *q, *k, *v, *dout; /* their elements, dense */
    double unit, tiny;        /* roundoff of the arithmetic; what flushing may lose */
    double scale;
} back;

/* A query row: where it is, delta and the error that delta may have. */
typedef struct back_row {
    int64_t b, h, i, at;
    double delta, delta_error, eta;
} back_row;

static void add(grad_tensor *t, int64_t index, double value, double error)
{
    t->value[index] += value;
    t->allowed[index] += error;
}

/* Where (b, h, i, j) lies in a tensor of 1 to 4 dimensions that is broadcast from the right. */
static int64_t index_of(const grad_tensor *t, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const int64_t full[4] = {b, h, i, j};
    int64_t index = 0;
    for (int d = 0; d < t->ndim; d++) {
        int64_t at = t->shape[d] == 1 ? 0 : full[4 - t->ndim + d];
        index = index * t->shape[d] + at;
    }
    return index;
}

/* Rounding of the stored out enters delta as Σ|dout|·error(out). */
static double out_error(const back *x, const back_row *row, double out)
{
    double error = x->o.bound[row->at] * x->o.v_max[row->at];
    switch (x->f->out_type) {
    case ATTN_BF16: return error + 0x1p-8 * (fabs(out) + error) + 0x1p-134;
    case ATTN_F16: return error + 0x1p-11 * (fabs(out) + error) + 0x1p-25;
    default: return error;
    }
}

static back_row find_row(const back *x, int64_t at)
{
    const sdpa_case *f = x->f;
    back_row row = {.b = at / f->len_q / f->heads_q,
                    .h = at / f->len_q % f->heads_q,
                    .i = at % f->len_q,
                    .at = at};
    double size = 0;
    for (int64_t d = 0; d < f->dim_v; d++) {
        double dout = x->dout[at * f->dim_v + d];
        double out = x->o.out[at * f->dim_v + d];
        row.delta += dout * out;
        size += fabs(dout * out);
        row.delta_error += fabs(dout) * out_error(x, &row, out) + x->tiny;
    }
    if (x->c->wanted.dlse.dtype) {
        double dlse = view_get(&x->c->wanted.dlse, row.b, row.h, row.i, 0);
        row.delta -= dlse;
        size += fabs(dlse);
    }
    row.delta_error += 8 * x->unit * size;
    /* P = exp(score − lse): both are off by at most the forward bound */
    row.eta = expm1(fmin(2 * x->o.bound[at], 700)) + 4 * x->unit;
    return row;
}

/* The slope of the score of column j, and its error. */
static double slope_of(const back *x, const back_row *row, int64_t j, double *error)
{
    const sdpa_case *f = x->f;
    double cap = f->options.softcap, dot = 0, size = 0;
    if (cap == 0) {
        *error = 2 * x->unit * fabs(x->scale);
        return x->scale;
    }
    int64_t g = row->h / (f->heads_q / f->heads_kv);
    const double *q = x->q + row->at * f->dim_qk;
    const double *k = x->k + ((row->b * f->heads_kv + g) * f->slots + j) * f->dim_qk;
    for (int64_t d = 0; d < f->dim_qk; d++) {
        dot += q[d] * k[d];
        size += fabs(q[d] * k[d]);
    }
    double bent = tanh(x->scale * dot / cap);
    double raw = 4 * x->unit * (8 + fabs(x->scale) * size) / cap;
    *error = fabs(x->scale) * (8 * x->unit + 2 * (1 - bent * bent) * raw);
    return x->scale * (1 - bent * bent);
}

/* Everything one slot (row, column j) adds to the gradients. */
static void add_slot(const back *x, const back_row *row, int64_t j)
{
    const sdpa_case *f = x->f;
    grad_tensor *to = x->result->of;
    int64_t key = (row->b * f->heads_kv + row->h / (f->heads_q / f->heads_kv)) * f->slots + j;
    double p = x->o.weights[row->at * f->len_k + j];
    double z = oracle_keep(&f->options, row->b, row->h, row->i, j);
    double dot = 0, size = 0, slope_error;
    if (x->o.kind[row->at] == ORACLE_NAN) {
        p = NAN;
    }
    for (int64_t d = 0; d < f->dim_v; d++) {
        double dout = x->dout[row->at * f->dim_v + d], v = x->v[key * f->dim_v + d];
        dot += dout * v;
        size += fabs(dout * v);
        /* a sum of `long` terms is off by at most 32 units of its size, as in forward */
        add(&to[GRAD_V], key * f->dim_v + d, p * z * dout,
            (p * (row->eta + 32 * x->unit) + x->tiny) * z * fabs(dout) + x->tiny);
    }
    double ds = p * (z * dot - row->delta);
    double error =
        p * row->eta * fabs(z * dot - row->delta) +
        (p * (1 + row->eta) + x->tiny) * (8 * x->unit * z * size + row->delta_error + x->tiny) +
        x->tiny * (fabs(z * dot - row->delta) + 1);
    double slope = slope_of(x, row, j, &slope_error);
    double back = slope * ds;
    double back_error = fabs(slope) * error + slope_error * (fabs(ds) + error) +
                        32 * x->unit * fabs(back) + x->tiny;
    for (int64_t d = 0; d < f->dim_qk; d++) {
        double q = x->q[row->at * f->dim_qk + d], k = x->k[key * f->dim_qk + d];
        add(&to[GRAD_Q], row->at * f->dim_qk + d, back * k, back_error * fabs(k) + x->tiny);
        add(&to[GRAD_K], key * f->dim_qk + d, back * q, back_error * fabs(q) + x->tiny);
    }
    error += 32 * x->unit * fabs(ds);
    if (to[GRAD_BIAS].count) {
        add(&to[GRAD_BIAS], index_of(&to[GRAD_BIAS], row->b, row->h, row->i, j), ds, error);
    }
    if (to[GRAD_ALIBI].count) {
        const attn_sdpa_options *o = &f->options;
        double distance = (double)oracle_distance(o, &f->q.view, &f->kv, false, row->b, row->i, j);
        add(&to[GRAD_ALIBI], row->h, -ds * distance, error * fabs(distance) + x->tiny);
    }
}

static void add_row(const back *x, int64_t at)
{
    const sdpa_case *f = x->f;
    if (x->o.kind[at] == ORACLE_EMPTY) {
        return;
    }
    back_row row = find_row(x, at);
    for (int64_t j = 0; j < f->len_k; j++) {
        if (x->o.attends[at * f->len_k + j]) {
            add_slot(x, &row, j);
        }
    }
    if (f->options.sinks) {
        double sink = view_get(f->options.sinks, row.h, 0, 0, 0);
        double p = exp(sink - x->o.lse[at]);
        add(&x->result->of[GRAD_SINKS], row.h, -p * row.delta,
            p * ((row.eta + 32 * x->unit) * fabs(row.delta) + (1 + row.eta) * row.delta_error) +
                x->tiny * (1 + fabs(row.delta)));
    }
}

/* All elements of a 4-D view, row-major. */
static double *elements_of(const attn_view *view)
{
    const int64_t *n = view->shape;
    int64_t count = n[0] * n[1] * n[2] * n[3];
    double *all = calloc((size_t)count + 1, sizeof *all);
    if (!all) {
        abort();
    }
    for (int64_t e = 0; e < count; e++) {
        int64_t row = e / n[3];
        all[e] = view_get(view, row / n[2] / n[1], row / n[2] % n[1], row % n[2], e % n[3]);
    }
    return all;
}

static void make_tensor(grad_tensor *t, const attn_view *like)
{
    *t = (grad_tensor){.ndim = like->ndim, .count = like->dtype ? 1 : 0};
    for (int d = 0; d < like->ndim; d++) {
        t->shape[d] = like->shape[d];
        t->count *= like->shape[d];
    }
    t->value = calloc((size_t)t->count + 1, sizeof(double));
    t->allowed = calloc((size_t)t->count + 1, sizeof(double));
    if (!t->value || !t->allowed) {
        abort();
    }
}

grad_result grad_oracle(const grad_case *c)
{
    const sdpa_case *f = &c->forward;
    const array *of[GRADS] = {&f->q, &f->k, &f->v, &f->bias, &f->sinks, &f->alibi};
    grad_result result;
    for (int n = 0; n < GRADS; n++) {
        make_tensor(&result.of[n], &of[n]->view);
    }
    back x = {.c = c,
              .f = f,
              .o = oracle_sdpa(&f->options, &f->q.view, &f->kv, false),
              .result = &result,
              .q = elements_of(&f->q.view),
              .k = elements_of(&f->k.view),
              .v = elements_of(&f->v.view),
              .dout = elements_of(&c->dout.view),
              .unit = f->q_type == ATTN_F64 ? 0x1p-52 : 0x1p-24,
              .tiny = f->q_type == ATTN_F64 ? 0x1p-1070 : 2 * FLT_MIN};
    x.scale = f->options.has_scale ? f->options.scale : 1 / sqrt((double)f->dim_qk);
    for (int64_t at = 0; at < f->batch * f->heads_q * f->len_q; at++) {
        add_row(&x, at);
    }
    oracle_free(&x.o);
    free(x.q);
    free(x.k);
    free(x.v);
    free(x.dout);
    return result;
}

void grad_oracle_free(grad_result *result)
{
    for (int n = 0; n < GRADS; n++) {
        free(result->of[n].value);
        free(result->of[n].allowed);
    }
}
