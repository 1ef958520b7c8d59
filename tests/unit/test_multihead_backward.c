/*
 * attn_multihead_backward: gradients of inputs and of all parameters against finite differences of the whole layer in
 * float64.
 */
#include "fixture.h"
#include "projections.h"

#include <attn/multihead.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 24 };

/* ---- the layer in float64 ----------------------------------------------------------------------- */

typedef struct model {
    int64_t batch, len_q, len_k, embed, heads, kv_heads, kdim, vdim;
    bool has_bias, has_key, has_value;
    double *weight[PROJECTIONS], *bias[PROJECTIONS];
    double *x[3]; /* query, key, value; one memory where one stands in for another */
    double *dout;
    attn_sdpa_options o; /* with the joined mask */
} model;

static double *numbers(int64_t count)
{
    double *p = calloc((size_t)(count ? count : 1), sizeof *p);
    assert_non_null(p);
    return p;
}

static int64_t in_of(const model *m, int which)
{
    return which == 1 ? m->kdim : which == 2 ? m->vdim : m->embed;
}

static int64_t out_of(const model *m, int which)
{
    return which == 1 || which == 2 ? m->embed / m->heads * m->kv_heads : m->embed;
}

static double *project(const model *m, int which, const double *x, int64_t rows)
{
    int64_t in = in_of(m, which), out = out_of(m, which);
    double *y = numbers(rows * out);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t n = 0; n < out; n++) {
            double sum = m->bias[which] ? m->bias[which][n] : 0.0;
            for (int64_t d = 0; d < in; d++) {
                sum += m->weight[which][n * in + d] * x[r * in + d];
            }
            y[r * out + n] = sum;
        }
    }
    return y;
}

/* out [batch, len_q, embed]; rows beyond lengths_q are 0. */
static double *model_forward(const model *m)
{
    int64_t dim = m->embed / m->heads;
    double *q = project(m, 0, m->x[0], m->batch * m->len_q);
    double *k = project(m, 1, m->x[1], m->batch * m->len_k);
    double *v = project(m, 2, m->x[2], m->batch * m->len_k);
    attn_view vq = attn_view_blhd(q, ATTN_F64, m->batch, m->len_q, m->heads, dim);
    attn_view vk = attn_view_blhd(k, ATTN_F64, m->batch, m->len_k, m->kv_heads, dim);
    attn_view vv = attn_view_blhd(v, ATTN_F64, m->batch, m->len_k, m->kv_heads, dim);
    attn_kv_view kv = oracle_kv(&vk, &vv);
    oracle_result r = oracle_sdpa(&m->o, &vq, &kv, false);
    double *mixed = numbers(m->batch * m->len_q * m->embed);
    for (int64_t n = 0; n < m->batch * m->len_q * m->embed; n++) {
        int64_t d = n % dim, h = n / dim % m->heads, i = n / m->embed % m->len_q;
        int64_t b = n / m->embed / m->len_q;
        mixed[n] = r.out[((b * m->heads + h) * m->len_q + i) * dim + d];
    }
    double *out = project(m, 3, mixed, m->batch * m->len_q);
    for (int64_t n = 0; m->o.lengths_q && n < m->batch * m->len_q * m->embed; n++) {
        if (n / m->embed % m->len_q >= m->o.lengths_q[n / m->embed / m->len_q]) {
            out[n] = 0.0;
        }
    }
    oracle_free(&r);
    free(q);
    free(k);
    free(v);
    free(mixed);
    return out;
}

static double model_loss(const model *m)
{
    double *out = model_forward(m), loss = 0.0;
    for (int64_t n = 0; n < m->batch * m->len_q * m->embed; n++) {
        loss += m->dout[n] * out[n];
    }
    free(out);
    return loss;
}

/* ∂loss/∂*x to fourth order in the step. */
static double difference(const model *m, double *x)
{
    static const double at[] = {1.0, -1.0, 2.0, -2.0}, times[] = {8.0, -8.0, -1.0, 1.0};
    double given = *x, step = 1e-3, sum = 0.0;
    for (int n = 0; n < 4; n++) {
        *x = given + at[n] * step;
        sum += times[n] * model_loss(m) / (12.0 * step);
    }
    *x = given;
    return sum;
}

/* ---- one random case ---------------------------------------------------------------------------- */

typedef struct trial {
    model m;
    attn_context *context;
    attn_multihead *layer;
    attn_multihead_saved *saved;
    attn_multihead_forward_options o;
    array x[3], out, dout, dx[3], mask, padding, joined;
    int64_t lengths_q[4], lengths_k[4];
} trial;

static double *copy_of(const attn_view *v)
{
    int64_t rows = v->shape[0], a = v->ndim > 1 ? v->shape[1] : 1,
            b = v->ndim > 2 ? v->shape[2] : 1;
    double *x = numbers(rows * a * b);
    for (int64_t n = 0; n < rows * a * b; n++) {
        x[n] = view_get(v, n / b / a, n / b % a, n % b, 0);
    }
    return x;
}

static void random_layer(trial *t, rng *r)
{
    static const int64_t sizes[][3] = {{8, 1, 1}, {8, 2, 2}, {12, 4, 2}, {16, 4, 1}, {12, 3, 3}};
    const int64_t *size = sizes[rng_below(r, 5)];
    model *m = &t->m;
    attn_multihead_options o = attn_multihead_options_init();
    m->has_key = rng_chance(r, 50);
    m->has_value = m->has_key && rng_chance(r, 50);
    m->has_bias = rng_chance(r, 75);
    o.embed_dim = m->embed = size[0];
    o.num_heads = m->heads = size[1];
    o.num_kv_heads = m->kv_heads = size[2];
    o.kdim = m->kdim = m->has_key ? rng_range(r, 3, 14) : m->embed;
    o.vdim = m->vdim = m->has_value ? rng_range(r, 3, 14) : m->kdim;
    o.no_bias = !m->has_bias;
    o.seed = rng_next(r);
    t->context = test_context(1 + (int)rng_below(r, 2));
    assert_int_equal(attn_multihead_create(t->context, &o, &t->layer), ATTN_OK);
    assert_int_equal(attn_multihead_saved_create(t->context, &t->saved), ATTN_OK);
    for (int which = 0; which < PROJECTIONS; which++) {
        attn_view w = projection_parameter(t->layer, which, false, false);
        m->weight[which] = copy_of(&w);
        if (m->has_bias) { /* biases that show when they are forgotten */
            char name[32];
            int64_t n = out_of(m, which);
            array value = array_dense(ATTN_F32, 1, &n);
            array_normal(&value, r, 0.5);
            snprintf(name, sizeof name, "%s.bias", projection_names[which]);
            assert_int_equal(attn_multihead_set_parameter(t->layer, name, &value.view), ATTN_OK);
            m->bias[which] = copy_of(&value.view);
            array_free(&value);
        }
    }
}

/* Which options the case has: masks, lengths, causality, a window, dropout. */
static void random_options(trial *t, rng *r)
{
    model *m = &t->m;
    t->o = attn_multihead_forward_options_init();
    t->o.saved = t->saved;
    t->o.causal = (attn_causal)rng_below(r, 3);
    t->o.has_window = rng_chance(r, 25);
    t->o.window_left = rng_range(r, -1, 4);
    t->o.window_right = rng_range(r, -1, 4);
    if (rng_chance(r, 30)) {
        t->o.dropout = 0.3;
        t->o.dropout_seed = rng_next(r);
    }
    for (int64_t b = 0; b < m->batch; b++) {
        t->lengths_q[b] = rng_range(r, 0, m->len_q);
        t->lengths_k[b] = rng_range(r, 0, m->len_k);
    }
    t->o.lengths_q = rng_chance(r, 25) ? t->lengths_q : NULL;
    t->o.lengths_k = rng_chance(r, 25) ? t->lengths_k : NULL;
    t->mask = array_dense(ATTN_BOOL, 3, (const int64_t[]){m->batch, m->len_q, m->len_k});
    t->padding = array_dense(ATTN_BOOL, 2, (const int64_t[]){m->batch, m->len_k});
    t->joined = array_dense(ATTN_BOOL, 4, (const int64_t[]){m->batch, 1, m->len_q, m->len_k});
    t->o.mask = rng_chance(r, 30) ? &t->mask.view : NULL;
    t->o.key_padding_mask = rng_chance(r, 30) ? &t->padding.view : NULL;
    for (size_t n = 0; n < t->mask.memory.bytes; n++) {
        t->mask.memory.data[n] = rng_chance(r, 70);
    }
    for (size_t n = 0; n < t->padding.memory.bytes; n++) {
        t->padding.memory.data[n] = rng_chance(r, 30);
    }
    for (int64_t n = 0; n < m->batch * m->len_q * m->len_k; n++) {
        int64_t j = n % m->len_k, b = n / m->len_k / m->len_q;
        t->joined.memory.data[n] =
            (!t->o.mask || t->mask.memory.data[n]) &&
            !(t->o.key_padding_mask && t->padding.memory.data[b * m->len_k + j]);
    }
    m->o = attn_sdpa_options_init();
    m->o.causal = t->o.causal;
    m->o.has_window = t->o.has_window;
    m->o.window_left = t->o.window_left;
    m->o.window_right = t->o.window_right;
    m->o.mask = &t->joined.view;
    m->o.lengths_q = t->o.lengths_q;
    m->o.lengths_k = t->o.lengths_k;
    m->o.dropout = t->o.dropout;
    m->o.dropout_seed = t->o.dropout_seed;
}

static void trial_make(trial *t, rng *r)
{
    model *m = &t->m;
    *t = (trial){0};
    random_layer(t, r);
    m->batch = rng_range(r, 1, 3);
    m->len_q = rng_range(r, 1, 7);
    m->len_k = m->has_key ? rng_range(r, 1, 9) : m->len_q;
    random_options(t, r);
    const int64_t widths[3] = {m->embed, m->kdim, m->vdim};
    bool own[3] = {true, m->has_key, m->has_value};
    for (int n = 0; n < 3; n++) {
        int64_t len = n ? m->len_k : m->len_q;
        if (own[n]) {
            const int64_t shape[] = {m->batch, len, widths[n]};
            t->x[n] = array_random(r, ATTN_F32, 3, shape, true);
            array_normal(&t->x[n], r, 1);
            t->dx[n] = array_random(r, ATTN_F32, 3, shape, false);
            m->x[n] = copy_of(&t->x[n].view);
        } else {
            m->x[n] = m->x[n - 1];
        }
    }
    const int64_t shape[] = {m->batch, m->len_q, m->embed};
    t->out = array_dense(ATTN_F32, 3, shape);
    t->dout = array_random(r, ATTN_F32, 3, shape, true);
    array_normal(&t->dout, r, 1);
    m->dout = copy_of(&t->dout.view);
}

static void trial_free(trial *t)
{
    model *m = &t->m;
    for (int n = 0; n < PROJECTIONS; n++) {
        free(m->weight[n]);
        free(m->bias[n]);
    }
    free(m->x[0]);
    array_free(&t->x[0]);
    array_free(&t->dx[0]);
    for (int n = 1; n < 3; n++) {
        if (m->x[n] != m->x[n - 1]) {
            free(m->x[n]);
            array_free(&t->x[n]);
            array_free(&t->dx[n]);
        }
    }
    free(m->dout);
    array_free(&t->out);
    array_free(&t->dout);
    array_free(&t->mask);
    array_free(&t->padding);
    array_free(&t->joined);
    attn_multihead_saved_destroy(t->saved);
    attn_multihead_destroy(t->layer);
    attn_context_destroy(t->context);
}

static const attn_view *key_of(const trial *t)
{
    return t->m.has_key ? &t->x[1].view : NULL;
}

static const attn_view *value_of(const trial *t)
{
    return t->m.has_value ? &t->x[2].view : NULL;
}

static void trial_run(trial *t, int backwards)
{
    attn_multihead_gradients g = attn_multihead_gradients_init();
    g.dquery = t->dx[0].view;
    g.dkey = t->m.has_key ? t->dx[1].view : g.dkey;
    g.dvalue = t->m.has_value ? t->dx[2].view : g.dvalue;
    attn_status status = attn_multihead_forward(t->context, t->layer, &t->o, &t->x[0].view,
                                                key_of(t), value_of(t), &t->out.view);
    status = status == ATTN_OK ? attn_multihead_clear_gradients(t->layer) : status;
    for (int n = 0; status == ATTN_OK && n < backwards; n++) {
        status = attn_multihead_backward(t->context, t->layer, t->saved, &t->o, &t->x[0].view,
                                         key_of(t), value_of(t), &t->dout.view, &g);
    }
    if (status != ATTN_OK) {
        fail_msg("%s; %s", attn_last_error(), test_repro());
    }
}

/* Some elements of one gradient; `times` backwards have been added up in it. `like`: the size of its terms. */
static void compare(const trial *t, const char *what, const attn_view *got, double *x,
                    int64_t count, int times, double like, rng *r)
{
    double want[SAMPLES], most = like;
    int64_t at[SAMPLES], a = got->ndim > 1 ? got->shape[1] : 1,
                         b = got->ndim > 2 ? got->shape[2] : 1;
    for (int n = 0; n < SAMPLES; n++) {
        at[n] = rng_below(r, count);
        want[n] = difference(&t->m, &x[at[n]]) * times;
        most = fmax(most, fabs(want[n]));
    }
    for (int n = 0; n < SAMPLES; n++) {
        double value = view_get(got, at[n] / b / a, at[n] / b % a, at[n] % b, 0);
        if (!(fabs(value - want[n]) <= 1e-5 * most)) {
            fail_msg("%s[%d] is %.9g, must be %.9g; %s", what, (int)at[n], value, want[n],
                     test_repro());
        }
    }
}

/*
 * What gradients are like here: the largest of the weights behind the scores. Those before them are sums of terms of that
 * size that may cancel, to 0 where a row sees one key alone, and in a bias of the keys always.
 */
static double size_of(const trial *t)
{
    double most = 1.0;
    for (int which = 2; which < PROJECTIONS; which++) {
        attn_view v = projection_parameter(t->layer, which, false, true);
        for (int64_t i = 0; i < v.shape[0] * v.shape[1]; i++) {
            most = fmax(most, fabs((double)((const float *)v.data)[i]));
        }
    }
    return most;
}

static void gradients_equal_finite_differences(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();
    int64_t only = test_env("ATTN_TEST_CASE", -1), cases = test_count(60);
    for (int64_t n = only < 0 ? 0 : only; n < (only < 0 ? cases : only + 1); n++) {
        rng r = rng_seed(seed, (uint64_t)n);
        trial t;
        test_running("test_multihead_backward", seed, n);
        trial_make(&t, &r);
        int times = 1 + (int)(n % 2);
        trial_run(&t, times);
        double *out = model_forward(&t.m), like = size_of(&t);
        for (int64_t e = 0; e < t.m.batch * t.m.len_q * t.m.embed; e++) {
            double got = ((const float *)t.out.view.data)[e];
            if (!(fabs(got - out[e]) <= 1e-5)) {
                fail_msg("out[%d] is %.9g, must be %.9g; %s", (int)e, got, out[e], test_repro());
            }
        }
        free(out);
        for (int which = 0; which < PROJECTIONS; which++) {
            attn_view dw = projection_parameter(t.layer, which, false, true);
            compare(&t, projection_names[which], &dw, t.m.weight[which], dw.shape[0] * dw.shape[1],
                    times, like, &r);
            if (t.m.has_bias) {
                attn_view db = projection_parameter(t.layer, which, true, true);

                compare(&t, "a bias", &db, t.m.bias[which], db.shape[0], times, like, &r);
            }
        }
        static const char *const inputs[] = {"dquery", "dkey", "dvalue"};
        for (int i = 0; i < 1 + t.m.has_key + t.m.has_value; i++) {
            const attn_view *v = &t.dx[i].view;
            compare(&t, inputs[i], v, t.m.x[i], v->shape[0] * v->shape[1] * v->shape[2], 1, like,
                    &r);
            assert_true(array_gaps_intact(&t.dx[i]));
        }
        trial_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_equal_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
