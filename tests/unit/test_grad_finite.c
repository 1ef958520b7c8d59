/*
 * attn_sdpa_backward in float64 against central finite differences of attn_sdpa, on random
 * combinations of every option. The loss is Σ dout∘out + Σ dlse∘lse; differences at two steps are
 * extrapolated, so that their error falls with the fourth power of the step.
 *
 * A query row's part of the loss depends on few of the inputs. So one input of every row (or key, or
 * head) is moved at the same time, and the parts are told apart.
 */
#include "grad_case.h"
#include "oracle.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PROGRAM "test_grad_finite"

enum { CASES = 1200, MOST = 4096 };

static const double step = 0x1p-11, tolerance = 1e-7;

static attn_context *context;

/* Dense copies of the inputs, to be moved; and the loss, a part for each row. */
typedef struct moved {
    const grad_case *c;
    double data[GRADS][MOST], out[MOST], lse[MOST], base[MOST];
    attn_view view[GRADS], out_view, lse_view;
    attn_sdpa_options options;
    int64_t count[GRADS], rows;
    double size; /* of all terms of the loss: what it rounds by */
} moved;

static void make_moved(moved *m, const grad_case *c)
{
    const sdpa_case *f = &c->forward;
    const array *of[GRADS] = {&f->q, &f->k, &f->v, &f->bias, &f->sinks, &f->alibi};
    memset(m, 0, sizeof *m);
    m->c = c;
    m->options = c->options;
    for (int n = 0; n < GRADS; n++) {
        const attn_view *v = &of[n]->view;
        if (!v->dtype) {
            continue;
        }
        m->view[n] = attn_view_dense(m->data[n], ATTN_F64, v->ndim, v->shape);
        m->count[n] = 1;
        for (int d = 0; d < v->ndim; d++) {
            m->count[n] *= v->shape[d];
        }
        assert_true(m->count[n] <= MOST);
        for (int64_t e = 0; e < m->count[n]; e++) {
            int64_t at[4] = {0};
            for (int64_t d = v->ndim - 1, rest = e; d >= 0; d--) {
                at[d] = rest % v->shape[d];
                rest /= v->shape[d];
            }
            m->data[n][e] = view_get(v, at[0], at[1], at[2], at[3]);
        }
    }
    m->out_view = attn_view_dense(m->out, ATTN_F64, 4, f->out.view.shape);
    m->lse_view = attn_view_dense(m->lse, ATTN_F64, 3, f->out.view.shape);
    m->options.lse = &m->lse_view;
    m->options.bias = f->options.bias ? &m->view[GRAD_BIAS] : NULL;
    m->options.sinks = f->options.sinks ? &m->view[GRAD_SINKS] : NULL;
    m->options.alibi = f->options.alibi ? &m->view[GRAD_ALIBI] : NULL;
    m->rows = f->batch * f->heads_q * f->len_q;
}

/* loss[row] += factor·(that row's part of the loss) */
static void add_loss(moved *m, double factor, double *loss)
{
    const sdpa_case *f = &m->c->forward;
    assert_int_equal(attn_sdpa(context, &m->options, &m->view[GRAD_Q], &m->view[GRAD_K],
                               &m->view[GRAD_V], &m->out_view),
                     ATTN_OK);
    for (int64_t at = 0; at < m->rows; at++) {
        int64_t b = at / f->len_q / f->heads_q, h = at / f->len_q % f->heads_q, i = at % f->len_q;
        if (m->lse[at] == -INFINITY) {
            continue;
        }
        double part = 0, size = 0;
        for (int64_t d = 0; d < f->dim_v; d++) {
            double term = view_get(&m->c->dout.view, b, h, i, d) * m->out[at * f->dim_v + d];
            part += term;
            size += fabs(term);
        }
        if (m->c->wanted.dlse.dtype) {
            double term = view_get(&m->c->wanted.dlse, b, h, i, 0) * m->lse[at];
            part += term;
            size += fabs(term);
        }
        m->size += size;
        loss[at] += factor * part;
    }
}

/* slope[row]: how each row's part changes when elements first, first + stride, … of tensor n move. */
static void differ(moved *m, int n, int64_t first, int64_t stride, double *slope)
{
    memset(slope, 0, (size_t)m->rows * sizeof *slope);
    memcpy(m->base, m->data[n], sizeof m->base);
    for (int side = 0; side < 4; side++) {
        m->size = 0;
        double h = (side & 1 ? -1 : 1) * (side & 2 ? step / 2 : step);
        for (int64_t e = first; e < m->count[n]; e += stride) {
            m->data[n][e] = m->base[e] + h;
        }
        /* (4·D(h/2) − D(h))/3, D(h) = (L(h) − L(−h))/2h */
        add_loss(m, (side & 2 ? 4.0 : -1.0) / 3 / (2 * h), slope);
    }
    memcpy(m->data[n], m->base, sizeof m->base);
}

/* Which element of tensor n, of those that move together with `first`, row `at` depends on. */
static int64_t element_of(const moved *m, int n, int64_t first, int64_t at)
{
    const sdpa_case *f = &m->c->forward;
    const attn_view *v = &m->view[n];
    int64_t b = at / f->len_q / f->heads_q, h = at / f->len_q % f->heads_q, i = at % f->len_q;
    int64_t index[4] = {b, h, i, 0}, element = 0;
    switch (n) {
    case GRAD_Q: return at * f->dim_qk + first;
    case GRAD_K:
    case GRAD_V:
        return (b * f->heads_kv + h / (f->heads_q / f->heads_kv)) * v->shape[2] * v->shape[3] +
               first;
    case GRAD_BIAS:
        for (int d = 0; d < v->ndim; d++) {
            element = element * v->shape[d] + (v->shape[d] == 1 ? 0 : index[4 - v->ndim + d]);
        }
        return element + first;
    default: return h;
    }
}

/* Elements this far apart move together. */
static int64_t stride_of(const moved *m, int n)
{
    const attn_view *v = &m->view[n];
    switch (n) {
    case GRAD_Q:
    case GRAD_BIAS: return v->shape[v->ndim - 1];
    case GRAD_K:
    case GRAD_V: return v->shape[2] * v->shape[3];
    default: return 1;
    }
}

/* Over all cases; tensors compared, those that were 0 and those that differ by rounding alone. */
static double worst_share;
static int tensors, cancelled, below_floor;

static bool check_tensor(moved *m, grad_case *c, int n, char *text, size_t size)
{
    static double want[MOST], slope[MOST];
    const attn_view *got = grad_case_view(c, n);
    double largest = 0, error = 0, floor = 0;
    memset(want, 0, sizeof want);
    for (int64_t first = 0; first < stride_of(m, n); first++) {
        differ(m, n, first, stride_of(m, n), slope);
        for (int64_t at = 0; at < m->rows; at++) {
            want[element_of(m, n, first, at)] += slope[at];
        }
    }
    for (int64_t e = 0; e < m->count[n]; e++) {
        int64_t at[4] = {0};
        for (int64_t d = got->ndim - 1, rest = e; d >= 0; d--) {
            at[d] = rest % got->shape[d];
            rest /= got->shape[d];
        }
        double x = view_get(got, at[0], at[1], at[2], at[3]);
        largest = fmax(largest, fabs(want[e]));
        error = isfinite(x) ? fmax(error, fabs(x - want[e])) : INFINITY;
    }
    /*
     * Where all differences are rounding of the loss, relative errors mean nothing. Such are the
     * gradients of a scale of 0, or of q with one key.
     */
    floor = 16 * DBL_EPSILON * m->size / step;
    tensors++;
    if (largest < floor && error < floor) {
        cancelled++;
        return true;
    }
    if (error > tolerance * largest && error < floor) {
        below_floor++;
        return true;
    }
    worst_share = fmax(worst_share, error / largest);
    if (error <= tolerance * largest) {
        return true;
    }
    snprintf(text, size, "%s: max|g − fd| is %.3g of max|fd| = %.3g", grad_names[n],
             error / largest, largest);
    return false;
}

static int pairs[CASE_OPTIONS][CASE_OPTIONS];

static bool one_case(uint64_t seed, int64_t index)
{
    static moved m;
    grad_case c;
    char text[400] = "";
    test_running(PROGRAM, seed, index);
    grad_case_make(&c, CASE_SMOOTH, seed, index, -1);
    attn_status status = grad_case_run(&c, context);
    bool ok = status == ATTN_OK;
    if (!ok) {
        snprintf(text, sizeof text, "status %s: %s", attn_status_string(status), attn_last_error());
    } else {
        make_moved(&m, &c);
        for (int n = 0; n < GRADS && ok; n++) {
            ok = !m.count[n] || check_tensor(&m, &c, n, text, sizeof text);
        }
    }
    if (!ok) {
        sdpa_case_report(&c.forward, index, text);
    }
    for (int a = 0; a < CASE_OPTIONS; a++) {
        for (int b = 0; b < CASE_OPTIONS; b++) {
            pairs[a][b] += (c.forward.have >> a & 1) && (c.forward.have >> b & 1);
        }
    }
    grad_case_free(&c);
    return ok;
}

/* Options that gradients have: every two of them must have met. */
static int rarest_pair(void)
{
    const int without = CASE_CACHED | CASE_RING | CASE_FIRST | CASE_WEIGHTS;
    int rarest = INT32_MAX;
    for (int a = 0; a < CASE_OPTIONS; a++) {
        for (int b = 0; b < CASE_OPTIONS; b++) {
            if (!((1 << a | 1 << b) & without)) {
                rarest = pairs[a][b] < rarest ? pairs[a][b] : rarest;
            }
        }
    }
    return rarest;
}

static void gradients_are_finite_differences(void **state)
{
    (void)state;
    int failures = test_cases(CASES, one_case);
    print_message("largest error: %.2g of the largest difference in %d tensors; %d were 0, %d too "
                  "small to tell; every pair of options in at least %d cases\n",
                  worst_share, tensors, cancelled, below_floor, rarest_pair());
    assert_int_equal(failures, 0);
    assert_true(test_env("ATTN_TEST_CASE", -1) >= 0 || test_count(CASES) < CASES ||
                rarest_pair() >= 10);
}

static int make_context(void **state)
{
    (void)state;
    context = test_context(1);
    return 0;
}

static int free_context(void **state)
{
    (void)state;
    attn_context_destroy(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_are_finite_differences)};
    return cmocka_run_group_tests_name("grad finite", tests, make_context, free_context);
}
