#include "sdpa_case.h"

#include "oracle.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes and types --------------------------------------------------------------------------- */

/* Mostly small; sometimes just past a tile of 16, 32, 64 or 96. */
static int64_t random_length(rng *r)
{
    static const int64_t crossing[] = {15, 16, 17, 31, 33, 63, 64, 65, 95, 96, 97, 129, 130, 200};
    if (rng_chance(r, 2)) {
        return 0;
    }
    if (rng_chance(r, 25)) {
        return crossing[rng_below(r, (int64_t)(sizeof crossing / sizeof *crossing))];
    }
    return rng_chance(r, 50) ? rng_range(r, 1, 8) : rng_range(r, 1, 40);
}

static int64_t random_dim(rng *r)
{
    static const int64_t usual[] = {8, 16, 32, 64, 64, 80, 96, 128};
    if (rng_chance(r, 40)) {
        return usual[rng_below(r, (int64_t)(sizeof usual / sizeof *usual))];
    }
    return rng_chance(r, 70) ? rng_range(r, 1, 24) : rng_range(r, 25, 140);
}

static void random_sizes(sdpa_case *c)
{
    rng *r = &c->random;
    if (c->kind == CASE_SMOOTH) {
        c->batch = rng_range(r, 1, 2);
        c->heads_kv = rng_range(r, 1, 2);
        c->heads_q = c->heads_kv * rng_range(r, 1, 3);
        c->len_q = rng_range(r, 1, 5);
        c->len_k = c->slots = rng_range(r, rng_chance(r, 90) ? 4 : 1, rng_chance(r, 80) ? 7 : 12);
        c->dim_qk = rng_range(r, 1, 4);
        c->dim_v = rng_range(r, 1, 4);
        return;
    }
    do {
        c->batch = rng_chance(r, 2) ? 0 : rng_range(r, 1, 3);
        c->heads_kv = rng_range(r, 1, 3);
        c->heads_q = c->heads_kv * (rng_chance(r, 50) ? 1 : rng_range(r, 2, 5));
        c->len_q = rng_chance(r, 35) ? rng_range(r, 1, 4) : random_length(r);
        c->len_k = random_length(r);
        c->dim_qk = random_dim(r);
        c->dim_v = rng_chance(r, 60) ? c->dim_qk : random_dim(r);
    } while (c->batch * c->heads_q * c->len_q * c->len_k * (c->dim_qk + c->dim_v) > 3000000);
    c->slots = c->len_k;
}

static void random_types(sdpa_case *c)
{
    static const attn_dtype types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    rng *r = &c->random;
    int kind = (int)rng_below(r, 100);
    if (kind < 15 || c->kind == CASE_SMOOTH) {
        c->q_type = c->kv_type = c->out_type = ATTN_F64;
    } else if (kind < 60) {
        c->q_type = c->kv_type = c->out_type = ATTN_F32;
    } else {
        c->q_type = types[rng_below(r, 3)];
        c->kv_type = types[rng_below(r, 3)];
        c->out_type = types[rng_below(r, 3)];
    }
}

static attn_dtype exact_type(const sdpa_case *c)
{
    return c->q_type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
}

/* ---- values ------------------------------------------------------------------------------------ */

enum { FILL_NORMAL, FILL_WIDE, FILL_HIGH, FILL_EQUAL, FILL_HUGE, FILL_TINY, FILLS };

static double random_value(rng *r, int fill)
{
    switch (fill) {
    case FILL_WIDE: return 30 * rng_normal(r);
    case FILL_HIGH: return 90 + 10 * rng_uniform(r);
    case FILL_EQUAL: return 1.5;
    case FILL_HUGE: return rng_chance(r, 2) ? 1e4 : rng_normal(r);
    case FILL_TINY:
        return rng_chance(r, 30) ? (rng_chance(r, 50) ? 0.0 : -0.0)
                                 : (rng_chance(r, 40) ? 1e-41 : 1e-3 * rng_normal(r));
    default: return rng_normal(r);
    }
}

static void fill(array *a, rng *r, int how)
{
    const attn_view *v = &a->view;
    for (int64_t b = 0; b < v->shape[0]; b++) {
        for (int64_t h = 0; h < v->shape[1]; h++) {
            for (int64_t i = 0; i < v->shape[2]; i++) {
                for (int64_t d = 0; d < v->shape[3]; d++) {
                    double value = random_value(r, how);
                    /* subnormal halves are numbers like any other; only floats count as 0 */
                    view_set(v, b, h, i, d,
                             v->dtype == ATTN_F16 && how == FILL_TINY ? 1e3 * value : value);
                }
            }
        }
    }
}

static void random_arrays(sdpa_case *c)
{
    rng *r = &c->random;
    int64_t q_shape[4] = {c->batch, c->heads_q, c->len_q, c->dim_qk};
    int64_t k_shape[4] = {c->batch, c->heads_kv, c->slots, c->dim_qk};
    int64_t v_shape[4] = {c->batch, c->heads_kv, c->slots, c->dim_v};
    int64_t out_shape[4] = {c->batch, c->heads_q, c->len_q, c->dim_v};
    c->q = array_random(r, c->q_type, 4, q_shape, true);
    c->k = array_random(r, c->kv_type, 4, k_shape, true);
    c->v = array_random(r, c->kv_type, 4, v_shape, true);
    c->out = array_random(r, c->out_type, 4, out_shape, false);
    int how = rng_chance(r, 50) ? FILL_NORMAL : (int)rng_below(r, FILLS);
    if (c->kind == CASE_SMOOTH) {
        fill(&c->q, r, FILL_NORMAL);
        fill(&c->k, r, FILL_NORMAL);
        fill(&c->v, r, FILL_NORMAL);
        return;
    }
    fill(&c->q, r, how);
    fill(&c->k, r, rng_chance(r, 50) ? how : FILL_NORMAL);
    fill(&c->v, r, rng_chance(r, 60) ? FILL_NORMAL : (int)rng_below(r, FILLS));
}

/* ---- options ----------------------------------------------------------------------------------- */

static void random_lengths(sdpa_case *c)
{
    rng *r = &c->random;
    for (int64_t b = 0; b < c->batch; b++) {
        c->lengths_q[b] = rng_chance(r, 20) ? c->len_q : rng_range(r, 0, c->len_q);
        c->lengths_k[b] = rng_chance(r, 20) ? c->len_k : rng_range(r, 0, c->len_k);
        c->first[b] = rng_chance(r, 20) ? 0 : rng_range(r, 0, 500);
    }
    c->options.lengths_q = c->have & CASE_LENGTHS_Q ? c->lengths_q : NULL;
    if (!(c->have & CASE_LENGTHS_K)) {
        return;
    }
    if (!(c->have & CASE_CACHED)) {
        c->options.lengths_k = c->lengths_k;
        return;
    }
    c->kv.length = c->lengths_k;
    c->len_k = 0; /* columns are the largest length held */
    for (int64_t b = 0; b < c->batch; b++) {
        c->len_k = c->lengths_k[b] > c->len_k ? c->lengths_k[b] : c->len_k;
    }
}

static void random_positions(sdpa_case *c)
{
    rng *r = &c->random;
    attn_sdpa_options *o = &c->options;
    bool cached = c->have & CASE_CACHED;
    if (c->have & CASE_CAUSAL) {
        o->causal = cached || rng_chance(r, 50) ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_TOP_LEFT;
    }
    if (c->have & CASE_OFFSET) {
        for (int64_t b = 0; b < c->batch; b++) {
            int64_t base = cached && (c->have & CASE_FIRST) ? c->first[b] : 0;
            c->offsets[b] = base + rng_range(r, -4, c->len_k + 4);
        }
        o->q_offset = c->offsets;
        o->q_offset_count = rng_chance(r, 50) && c->batch > 0 ? c->batch : 1;
    }
    if (c->have & CASE_WINDOW) {
        o->has_window = true;
        o->window_left = rng_chance(r, 20) ? -1 : rng_range(r, 0, rng_chance(r, 50) ? 5 : 100);
        o->window_right = rng_chance(r, 30) ? -1 : rng_range(r, 0, rng_chance(r, 50) ? 5 : 100);
    }
}

/* A view of 2 to 4 dimensions that broadcasts to the scores. */
static array random_broadcast(sdpa_case *c, attn_dtype type)
{
    rng *r = &c->random;
    int64_t full[4] = {c->batch, c->heads_q, c->len_q, c->len_k};
    int ndim = (int)rng_range(r, 2, 4);
    int64_t shape[4];
    for (int d = 0; d < ndim; d++) {
        shape[d] = rng_chance(r, 25) ? 1 : full[4 - ndim + d];
    }
    return array_random(r, type, ndim, shape, true);
}

static void fill_mask(array *a, rng *r, bool smooth)
{
    int percent = rng_chance(r, smooth ? 5 : 20) ? 5 : (int)rng_range(r, smooth ? 60 : 30, 100);
    uint8_t *bytes = a->memory.data;
    for (size_t n = 0; n < a->memory.bytes; n++) {
        bytes[n] = rng_chance(r, percent) ? (rng_chance(r, 80) ? 1 : 2) : 0;
    }
}

static void fill_bias(array *a, rng *r, bool smooth)
{
    int hidden = rng_chance(r, 50) ? 0 : (int)rng_range(r, 0, smooth ? 40 : 100);
    for (int64_t n = 0; n < a->elements; n++) {
        attn_view at = a->view;
        at.data = a->memory.data;
        oracle_store(&at, n, rng_chance(r, hidden) ? -INFINITY : 2 * rng_normal(r));
    }
}

static void random_addends(sdpa_case *c)
{
    rng *r = &c->random;
    attn_sdpa_options *o = &c->options;
    if (c->have & CASE_MASK) {
        c->mask = random_broadcast(c, ATTN_BOOL);
        fill_mask(&c->mask, r, c->kind == CASE_SMOOTH);
        o->mask = &c->mask.view;
    }
    if (c->have & CASE_BIAS) {
        c->bias = random_broadcast(c, rng_chance(r, 50) ? c->q_type : exact_type(c));
        fill_bias(&c->bias, r, c->kind == CASE_SMOOTH);
        o->bias = &c->bias.view;
    }
    if (c->have & CASE_ALIBI) {
        c->alibi = array_random(r, exact_type(c), 1, &c->heads_q, true);
        for (int64_t h = 0; h < c->heads_q; h++) {
            view_set(&c->alibi.view, h, 0, 0, 0, rng_chance(r, 80) ? rng_uniform(r) : -0.1);
        }
        o->alibi = &c->alibi.view;
    }
    if (c->have & CASE_SINKS) {
        c->sinks = array_random(r, exact_type(c), 1, &c->heads_q, true);
        array_normal(&c->sinks, r, rng_chance(r, 80) ? 2 : 40);
        o->sinks = &c->sinks.view;
    }
}

static void random_outputs(sdpa_case *c)
{
    int64_t shape[4] = {c->batch, c->heads_q, c->len_q, c->len_k};
    if (c->have & CASE_LSE) {
        c->lse = array_random(&c->random, exact_type(c), 3, shape, false);
        c->options.lse = &c->lse.view;
    }
    if (c->have & CASE_WEIGHTS) {
        c->weights = array_random(&c->random, exact_type(c), 4, shape, false);
        c->options.weights = &c->weights.view;
    }
}

/* ---- poison ------------------------------------------------------------------------------------ */

/* NaN into every element of `a` that `needed` does not tell, gaps included. */
static void poison(array *a, const unsigned char *needed)
{
    attn_view at = a->view;
    at.data = a->memory.data;
    for (int64_t n = 0; n < a->elements; n++) {
        if (!needed[n]) {
            oracle_store(&at, n, NAN);
        }
    }
}

static void need(const array *a, unsigned char *needed, int64_t i0, int64_t i1, int64_t i2)
{
    for (int64_t d = 0; d < a->view.shape[3]; d++) {
        needed[a->origin + oracle_at(&a->view, i0, i1, i2, d)] = 1;
    }
}

static void need_bias(const array *a, unsigned char *needed, const int64_t index[4])
{
    int64_t at = a->origin;
    for (int d = 0; d < a->view.ndim; d++) {
        int64_t i = index[4 - a->view.ndim + d];
        at += (a->view.shape[d] == 1 ? 0 : i) * a->view.stride[d];
    }
    needed[at] = 1;
}

static unsigned char *flags(const array *a)
{
    unsigned char *all = calloc((size_t)a->elements + 1, 1);
    if (!all) {
        abort();
    }
    return all;
}

/*
 * Slots that no row attends to may hold anything: fill them with NaN. A bias slot also decides who
 * attends (−inf), so those that are −inf stay.
 */
static void poison_unattended(sdpa_case *c)
{
    const attn_sdpa_options *o = &c->options;
    unsigned char *q = flags(&c->q);
    unsigned char *k = flags(&c->k);
    unsigned char *v = flags(&c->v);
    unsigned char *bias = flags(&c->bias);
    attn_view all = c->bias.view;
    all.data = c->bias.memory.data;
    for (int64_t n = 0; n < c->bias.elements; n++) {
        bias[n] = oracle_load(&all, n) == -INFINITY;
    }
    for (int64_t b = 0; b < c->batch; b++) {
        for (int64_t h = 0; h < c->heads_q; h++) {
            for (int64_t i = 0; i < c->len_q; i++) {
                for (int64_t j = 0; j < c->len_k; j++) {
                    if (!oracle_attends(o, &c->q.view, &c->kv, c->have & CASE_CACHED, b, h, i, j)) {
                        continue;
                    }
                    int64_t g = h / (c->heads_q / c->heads_kv);
                    need(&c->q, q, b, h, i);
                    need(&c->k, k, b, g, oracle_slot(&c->kv, b, j));
                    need(&c->v, v, b, g, oracle_slot(&c->kv, b, j));
                    if (o->bias) {
                        need_bias(&c->bias, bias, (int64_t[4]){b, h, i, j});
                    }
                }
            }
        }
    }
    poison(&c->q, q);
    poison(&c->k, k);
    poison(&c->v, v);
    if (o->bias) {
        poison(&c->bias, bias);
    }
    free(q);
    free(k);
    free(v);
    free(bias);
}

/* A NaN or an infinity somewhere in K or V, attended or not. */
static void plant(sdpa_case *c)
{
    rng *r = &c->random;
    array *a = rng_chance(r, 70) ? &c->v : &c->k;
    if (a->elements == 0) {
        return;
    }
    for (int64_t n = rng_range(r, 1, 3); n > 0; n--) {
        view_set(&a->view, rng_below(r, c->batch), rng_below(r, c->heads_kv),
                 rng_below(r, c->slots), rng_below(r, a->view.shape[3]),
                 rng_chance(r, 60) ? NAN : INFINITY);
    }
}

/* ---- the whole case ---------------------------------------------------------------------------- */

static int random_have(sdpa_case_kind kind, rng *r)
{
    int have = 0;
    switch (rng_below(r, 4)) {
    case 0: /* one option */ have = 1 << rng_below(r, CASE_OPTIONS); break;
    case 1: /* two */
        have = 1 << rng_below(r, CASE_OPTIONS) | 1 << rng_below(r, CASE_OPTIONS);
        break;
    case 2: /* everything; a cache every other time */
        have = (1 << CASE_OPTIONS) - 1;
        have &= rng_chance(r, 50) ? have : ~CASE_CACHED;
        have &= rng_chance(r, 50) ? have : ~CASE_OFFSET;
        break;
    default:
        for (int bit = 0; bit < CASE_OPTIONS; bit++) {
            have |= rng_chance(r, 35) ? 1 << bit : 0;
        }
    }
    have |= rng_chance(r, 60) ? CASE_LSE : 0;
    if (kind != CASE_FORWARD) {
        have = (have & ~(CASE_CACHED | CASE_WEIGHTS)) | CASE_LSE;
    }
    return have & CASE_CACHED ? have : have & ~(CASE_RING | CASE_FIRST);
}

void sdpa_case_make(sdpa_case *c, sdpa_case_kind kind, uint64_t seed, int64_t index, int have)
{
    memset(c, 0, sizeof *c);
    c->kind = kind;
    c->random = rng_seed(seed, (uint64_t)index);
    rng *r = &c->random;
    int drawn = random_have(kind, r);
    c->have = have < 0 ? drawn : have;
    c->options = attn_sdpa_options_init();
    random_sizes(c);
    random_types(c);
    if (c->slots == 0) { /* no ring of no slots */
        c->have &= ~CASE_RING;
    }
    random_arrays(c);
    c->kv = (attn_kv_view){.struct_size = sizeof c->kv, .k = c->k.view, .v = c->v.view};
    random_lengths(c);
    if (c->have & CASE_FIRST) {
        c->kv.first = c->first;
    }
    c->kv.ring = c->have & CASE_RING ? c->slots : 0;
    if (c->have & CASE_SCALE) {
        c->options.has_scale = true;
        c->options.scale = rng_chance(r, 20) ? 0 : 0.3 * rng_normal(r);
    }
    if (c->have & CASE_SOFTCAP) {
        c->options.softcap = rng_chance(r, 50) ? 50 : 0.5 + 5 * rng_uniform(r);
    }
    if (c->have & CASE_DROPOUT) {
        c->options.dropout = rng_chance(r, 10) ? 0.999 : rng_uniform(r);
        if (c->kind == CASE_GRADIENT && c->out_type == ATTN_F16) {
            c->options.dropout *= 0.8; /* an out that overflows has no gradient */
        }
        c->options.dropout_seed = rng_next(r);
    }
    random_positions(c);
    random_addends(c);
    random_outputs(c);
    if (c->batch > 0 && kind != CASE_SMOOTH && rng_chance(r, 12)) {
        plant(c);
    }
    if (rng_chance(r, 60)) {
        poison_unattended(c);
    }
    const array *inputs[] = {&c->q, &c->k, &c->v, &c->mask, &c->bias, &c->sinks, &c->alibi};
    for (size_t n = 0; n < sizeof inputs / sizeof *inputs; n++) {
        if (inputs[n]->memory.map) {
            block_read_only(&inputs[n]->memory);
        }
    }
}

void sdpa_case_free(sdpa_case *c)
{
    array *all[] = {&c->q,       &c->k,    &c->v,    &c->out,   &c->lse,
                    &c->weights, &c->mask, &c->bias, &c->sinks, &c->alibi};
    for (size_t n = 0; n < sizeof all / sizeof *all; n++) {
        array_free(all[n]);
    }
}

attn_status sdpa_case_run(sdpa_case *c, attn_context *context)
{
    if (c->have & CASE_CACHED) {
        return attn_sdpa_kv(context, &c->options, &c->q.view, &c->kv, &c->out.view);
    }
    return attn_sdpa(context, &c->options, &c->q.view, &c->k.view, &c->v.view, &c->out.view);
}

bool sdpa_case_check(const sdpa_case *c, char *text, size_t size)
{
    oracle_result want = oracle_sdpa(&c->options, &c->q.view, &c->kv, (c->have & CASE_CACHED) != 0);
    bool ok =
        oracle_compare(&want, &c->out.view, c->options.lse, c->options.weights, 1, text, size);
    oracle_free(&want);
    const array *outputs[] = {&c->out, &c->lse, &c->weights};
    for (int n = 0; ok && n < 3; n++) {
        if (outputs[n]->memory.map && !array_gaps_intact(outputs[n])) {
            snprintf(text, size, "%s: written outside the view",
                     (const char *[]){"out", "lse", "weights"}[n]);
            ok = false;
        }
    }
    return ok;
}
