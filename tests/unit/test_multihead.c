/*
 * attn_multihead: against the layer written out in float64 loops, alone and through a cache; masks of
 * every form; parameters by name; refusals that name issue, fix and example.
 */
#include "fixture.h"

#include <attn/multihead.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the layer in plain loops ------------------------------------------------------------------- */

typedef struct layer {
    attn_context *context;
    attn_multihead *layer;
    int64_t embed, heads, kv_heads, kdim, vdim;
} layer;

static layer layer_make(attn_multihead_options o, int threads)
{
    layer l = {test_context(threads), NULL, o.embed_dim, o.num_heads, 0, 0, 0};
    l.kv_heads = o.num_kv_heads ? o.num_kv_heads : o.num_heads;
    l.kdim = o.kdim ? o.kdim : o.embed_dim;
    l.vdim = o.vdim ? o.vdim : o.embed_dim;
    if (attn_multihead_create(l.context, &o, &l.layer) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    /* biases that show when they are forgotten */
    rng random = rng_seed(test_seed(), 77);
    for (int n = 1; !o.no_bias && n < 8; n += 2) {
        const char *name = attn_multihead_parameter_name(l.layer, n);
        attn_view bias;
        assert_int_equal(attn_multihead_parameter(l.layer, name, &bias), ATTN_OK);
        array value = array_dense(ATTN_F32, 1, bias.shape);
        array_normal(&value, &random, 0.5);
        assert_int_equal(attn_multihead_set_parameter(l.layer, name, &value.view), ATTN_OK);
        array_free(&value);
    }
    return l;
}

static void layer_free(layer *l)
{
    attn_multihead_destroy(l->layer);
    attn_context_destroy(l->context);
}

static double *numbers(int64_t count)
{
    double *p = calloc((size_t)(count ? count : 1), sizeof *p);
    assert_non_null(p);
    return p;
}

/* x·Wᵀ + b of every row. */
static double *project(const layer *l, const char *name, const attn_view *x)
{
    char weight_name[32];
    char bias_name[32];
    attn_view w;
    attn_view bias = {0};
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    snprintf(bias_name, sizeof bias_name, "%s.bias", name);
    assert_int_equal(attn_multihead_parameter(l->layer, weight_name, &w), ATTN_OK);
    if (attn_multihead_parameter_count(l->layer) == 8) {
        assert_int_equal(attn_multihead_parameter(l->layer, bias_name, &bias), ATTN_OK);
    }
    int64_t batch = x->shape[0], len = x->shape[1], out = w.shape[0];
    double *y = numbers(batch * len * out);
    for (int64_t r = 0; r < batch * len; r++) {
        for (int64_t n = 0; n < out; n++) {
            double sum = bias.dtype ? view_get(&bias, n, 0, 0, 0) : 0;
            for (int64_t d = 0; d < w.shape[1]; d++) {
                sum += view_get(&w, n, d, 0, 0) * view_get(x, r / len, r % len, d, 0);
            }
            y[r * out + n] = sum;
        }
    }
    return y;
}

/* Which keys row i of head h of sequence b attends to. */
typedef bool (*sees)(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j);

static bool sees_all(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    (void)rule, (void)b, (void)h, (void)i, (void)j;
    return true;
}

typedef struct expected {
    double *out;     /* [batch, len_q, embed] */
    double *weights; /* [batch, heads, len_q, len_k] */
} expected;

static expected layer_in_loops(const layer *l, const attn_view *query, const attn_view *key,
                               const attn_view *value, sees rule, const void *what)
{
    int64_t batch = query->shape[0], len_q = query->shape[1], len_k = key->shape[1];
    int64_t dim = l->embed / l->heads, kv_width = dim * l->kv_heads;
    double *q = project(l, "q_proj", query);
    double *k = project(l, "k_proj", key);
    double *v = project(l, "v_proj", value);
    array middle = array_dense(ATTN_F64, 3, (const int64_t[]){batch, len_q, l->embed});
    expected e = {NULL, numbers(batch * l->heads * len_q * len_k)};
    for (int64_t n = 0; n < batch * l->heads * len_q; n++) {
        int64_t i = n % len_q, h = n / len_q % l->heads, b = n / len_q / l->heads;
        int64_t g = h / (l->heads / l->kv_heads);
        double *w = e.weights + n * len_k;
        double total = 0;
        for (int64_t j = 0; j < len_k; j++) {
            double s = 0;
            for (int64_t d = 0; d < dim; d++) {
                s += q[(b * len_q + i) * l->embed + h * dim + d] *
                     k[(b * len_k + j) * kv_width + g * dim + d];
            }
            w[j] = rule(what, b, h, i, j) ? exp(s / sqrt((double)dim)) : 0;
            total += w[j];
        }
        for (int64_t d = 0; d < dim; d++) {
            double sum = 0;
            for (int64_t j = 0; j < len_k; j++) {
                sum += total > 0 ? w[j] / total * v[(b * len_k + j) * kv_width + g * dim + d] : 0;
            }
            view_set(&middle.view, b, i, h * dim + d, 0, sum);
        }
        for (int64_t j = 0; j < len_k; j++) {
            w[j] = total > 0 ? w[j] / total : 0;
        }
    }
    e.out = project(l, "out_proj", &middle.view);
    array_free(&middle);
    free(q);
    free(k);
    free(v);
    return e;
}

static void close_to(const attn_view *got, const double *want, double most)
{
    int64_t len = got->shape[1], width = got->shape[2];
    for (int64_t n = 0; n < got->shape[0] * len * width; n++) {
        double x = view_get(got, n / width / len, n / width % len, n % width, 0);
        if (!(fabs(x - want[n]) <= most)) {
            fail_msg("element %d is %.9g, must be %.9g ± %g; seed %llu", (int)n, x, want[n], most,
                     (unsigned long long)test_seed());
        }
    }
}

static void expected_free(expected *e)
{
    free(e->out);
    free(e->weights);
}

static array input(rng *random, int64_t batch, int64_t len, int64_t width)
{
    array a = array_random(random, ATTN_F32, 3, (const int64_t[]){batch, len, width}, true);
    array_normal(&a, random, 1);
    return a;
}

static void forward(const layer *l, const attn_multihead_forward_options *o, const attn_view *query,
                    const attn_view *key, const attn_view *value, const attn_view *out)
{
    if (attn_multihead_forward(l->context, l->layer, o, query, key, value, out) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
}

static attn_multihead_options sized(int64_t embed, int64_t heads)
{
    attn_multihead_options o = attn_multihead_options_init();
    o.embed_dim = embed;
    o.num_heads = heads;
    o.seed = 3;
    return o;
}

/* ---- what it computes --------------------------------------------------------------------------- */

static void self_attention_equals_the_loops(void **state)
{
    (void)state;
    const int64_t heads[] = {1, 2, 4, 8};
    rng random = rng_seed(test_seed(), 1);
    for (int n = 0; n < 8; n++) {
        attn_multihead_options o = sized(64, heads[n % 4]);
        o.no_bias = n >= 4;
        layer l = layer_make(o, 1 + n % 2);
        array x = input(&random, 2, 5 + 9 * (n % 3), 64);
        array out = array_random(&random, ATTN_F32, 3, x.view.shape, false);
        forward(&l, NULL, &x.view, NULL, NULL, &out.view);
        expected e = layer_in_loops(&l, &x.view, &x.view, &x.view, sees_all, NULL);
        close_to(&out.view, e.out, 5e-6);
        assert_true(array_gaps_intact(&out));
        expected_free(&e);
        array_free(&x);
        array_free(&out);
        layer_free(&l);
    }
}

static void cross_attention_with_its_own_widths_equals_the_loops(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 2);
    for (int n = 0; n < 4; n++) {
        attn_multihead_options o = sized(48, 6);
        o.num_kv_heads = n % 2 ? 2 : 0;
        o.kdim = 40;
        o.vdim = 24;
        layer l = layer_make(o, 2);
        int64_t len_q = 4 + 7 * n;
        array query = input(&random, 2, len_q, 48);
        array key = input(&random, 2, len_q + 8, 40);
        array value = input(&random, 2, len_q + 8, 24);
        array out = array_dense(ATTN_F32, 3, query.view.shape);
        forward(&l, NULL, &query.view, &key.view, &value.view, &out.view);
        expected e = layer_in_loops(&l, &query.view, &key.view, &value.view, sees_all, NULL);
        close_to(&out.view, e.out, 5e-6);
        expected_free(&e);
        array_free(&query);
        array_free(&key);
        array_free(&value);
        array_free(&out);
        layer_free(&l);
    }
}

static bool sees_past(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    (void)rule, (void)b, (void)h;
    return j <= i;
}

static void weights_sum_to_one_and_the_future_is_exactly_zero(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 3);
    layer l = layer_make(sized(64, 8), 2);
    const int64_t len = 19;
    array x = input(&random, 2, len, 64);
    array out = array_dense(ATTN_F32, 3, x.view.shape);
    array each = array_dense(ATTN_F32, 4, (const int64_t[]){2, 8, len, len});
    array mean = array_dense(ATTN_F32, 3, (const int64_t[]){2, len, len});
    expected e = layer_in_loops(&l, &x.view, &x.view, &x.view, sees_past, NULL);
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    o.causal = ATTN_CAUSAL_TOP_LEFT;
    o.need_weights = ATTN_WEIGHTS_PER_HEAD;
    o.weights = &each.view;
    forward(&l, &o, &x.view, NULL, NULL, &out.view);
    close_to(&out.view, e.out, 5e-6);
    o.need_weights = ATTN_WEIGHTS_AVERAGED;
    o.weights = &mean.view;
    forward(&l, &o, &x.view, NULL, NULL, &out.view);
    close_to(&out.view, e.out, 5e-6);
    for (int64_t row = 0; row < 2 * len; row++) {
        int64_t b = row / len, i = row % len;
        double sum = 0;
        for (int64_t j = 0; j < len; j++) {
            double average = 0;
            for (int64_t h = 0; h < 8; h++) {
                double w = view_get(&each.view, b, h, i, j);
                assert_true(fabs(w - e.weights[((b * 8 + h) * len + i) * len + j]) <= 2e-6);
                assert_true(j <= i || w == 0);
                average += w / 8;
            }
            double got = view_get(&mean.view, b, i, j, 0);
            assert_true(fabs(got - average) <= 1e-7 && (j <= i || got == 0));
            sum += got;
        }
        assert_true(fabs(sum - 1) <= 1e-6);
    }
    expected_free(&e);
    array_free(&x);
    array_free(&out);
    array_free(&each);
    array_free(&mean);
    layer_free(&l);
}

/* ---- masks -------------------------------------------------------------------------------------- */

typedef struct masks {
    const attn_view *mask; /* 4-D with sizes of 1 where repeated, or NULL */
    const attn_view *padding;
} masks;

static bool sees_masks(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const masks *m = rule;
    if (m->padding && view_get(m->padding, b, j, 0, 0) != 0) {
        return false;
    }
    if (!m->mask) {
        return true;
    }
    const int64_t *shape = m->mask->shape;
    return view_get(m->mask, shape[0] > 1 ? b : 0, shape[1] > 1 ? h : 0, shape[2] > 1 ? i : 0,
                    shape[3] > 1 ? j : 0) != 0;
}

static void fill_bits(array *a, rng *random)
{
    for (int64_t n = 0; n < (int64_t)a->memory.bytes; n++) {
        a->memory.data[n] = rng_chance(random, 70);
    }
}

static void masks_of_every_form_join_with_padding(void **state)
{
    (void)state;
    enum { B = 3, H = 4, Q = 6, K = 14 };
    /* as given, and as four dimensions */
    const struct {
        int ndim;
        int64_t shape[4], four[4];
    } forms[] = {
        {2, {Q, K}, {1, 1, Q, K}},       {2, {1, K}, {1, 1, 1, K}},
        {3, {B, Q, K}, {B, 1, Q, K}},    {3, {1, Q, K}, {1, 1, Q, K}},
        {3, {B, 1, K}, {B, 1, 1, K}},    {4, {B, H, Q, K}, {B, H, Q, K}},
        {4, {1, H, Q, 1}, {1, H, Q, 1}}, {4, {B, 1, Q, K}, {B, 1, Q, K}},
    };
    rng random = rng_seed(test_seed(), 4);
    layer l = layer_make(sized(32, H), 2);
    array query = input(&random, B, Q, 32);
    array key = input(&random, B, K, 32);
    array out = array_dense(ATTN_F32, 3, query.view.shape);
    array padding = array_dense(ATTN_BOOL, 2, (const int64_t[]){B, K});
    fill_bits(&padding, &random);
    for (int n = 0; n < 3 * 8; n++) {
        array mask = array_dense(ATTN_BOOL, forms[n / 3].ndim, forms[n / 3].shape);
        fill_bits(&mask, &random);
        attn_view four = attn_view_dense(mask.view.data, ATTN_BOOL, 4, forms[n / 3].four);
        masks m = {n % 3 != 0 ? &four : NULL, n % 3 != 1 ? &padding.view : NULL};
        attn_multihead_forward_options o = attn_multihead_forward_options_init();
        o.mask = m.mask ? &mask.view : NULL;
        o.key_padding_mask = m.padding;
        forward(&l, &o, &query.view, &key.view, NULL, &out.view);
        expected e = layer_in_loops(&l, &query.view, &key.view, &key.view, sees_masks, &m);
        close_to(&out.view, e.out, 5e-6);
        expected_free(&e);
        array_free(&mask);
    }
    array_free(&query);
    array_free(&key);
    array_free(&out);
    array_free(&padding);
    layer_free(&l);
}

static bool sees_length(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
    (void)h, (void)i;
    return j < ((const int64_t *)rule)[b];
}

static void lengths_hide_keys_and_clear_rows(void **state)
{
    (void)state;
    const int64_t lengths_q[3] = {5, 0, 2};
    const int64_t lengths_k[3] = {4, 7, 0};
    rng random = rng_seed(test_seed(), 5);
    layer l = layer_make(sized(32, 4), 1);
    array query = array_dense(ATTN_F32, 3, (const int64_t[]){3, 5, 32});
    array key = array_dense(ATTN_F32, 3, (const int64_t[]){3, 7, 32});
    array out = array_dense(ATTN_F32, 3, query.view.shape);
    array_normal(&query, &random, 1);
    array_normal(&key, &random, 1);
    expected e = layer_in_loops(&l, &query.view, &key.view, &key.view, sees_length, lengths_k);
    for (int64_t n = 0; n < 3 * 5 * 32; n++) { /* rows past a length hold nothing worth reading */
        int64_t b = n / 160, i = n / 32 % 5;
        if (i >= lengths_q[b]) {
            e.out[n] = 0;
            view_set(&query.view, b, i, n % 32, 0, NAN);
        }
    }
    for (int64_t n = 0; n < 3 * 7 * 32; n++) {
        int64_t b = n / 224, j = n / 32 % 7;
        if (j >= lengths_k[b]) {
            view_set(&key.view, b, j, n % 32, 0, NAN);
        }
    }
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    o.lengths_q = lengths_q;
    o.lengths_k = lengths_k;
    forward(&l, &o, &query.view, &key.view, NULL, &out.view);
    close_to(&out.view, e.out, 5e-6);
    expected_free(&e);
    array_free(&query);
    array_free(&key);
    array_free(&out);
    layer_free(&l);
}

/* ---- through a cache ---------------------------------------------------------------------------- */

static attn_kv_cache *cache_for(const layer *l, int64_t batch, int64_t capacity, int64_t window,
                                int64_t most, attn_dtype dtype)
{
    attn_kv_cache_options o = attn_kv_cache_options_init();
    attn_kv_cache *cache = NULL;
    o.batch = batch;
    o.heads_kv = l->kv_heads;
    o.dim_qk = l->embed / l->heads;
    o.capacity = capacity;
    o.window = window;
    o.max_append = most;
    o.dtype = dtype;
    if (attn_kv_cache_create(l->context, &o, &cache) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return cache;
}

static attn_view rows(const attn_view *view, int64_t from, int64_t n)
{
    attn_view part = *view;
    part.data = (float *)part.data + from * part.stride[1];
    part.shape[1] = n;
    return part;
}

static void chunks_through_a_cache_equal_the_whole(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 6);
    for (int n = 0; n < 12; n++) {
        attn_multihead_options options = sized(48, 6);
        options.num_kv_heads = n % 3 ? 3 : 6;
        layer l = layer_make(options, 1 + n % 3);
        const int64_t len = 23, window = 5, most = 4;
        bool ring = n % 2;
        array x = input(&random, 2, len, 48);
        array whole = array_dense(ATTN_F32, 3, x.view.shape);
        array chunk = array_dense(ATTN_F32, 3, x.view.shape);
        attn_multihead_forward_options o = attn_multihead_forward_options_init();
        o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        o.has_window = ring;
        o.window_left = window - 1;
        o.window_right = 0;
        forward(&l, &o, &x.view, NULL, NULL, &whole.view);
        o.cache = cache_for(&l, 2, ring ? 0 : len, ring ? window : 0, ring ? most : 0, ATTN_F32);
        for (int64_t at = 0, count; at < len; at += count) {
            count = rng_range(&random, 1, len - at < most ? len - at : most);
            attn_view part = rows(&x.view, at, count);
            attn_view out = rows(&chunk.view, at, count);
            forward(&l, &o, &part, NULL, NULL, &out);
        }
        assert_int_equal(attn_kv_cache_position(o.cache, 1), len);
        for (int64_t k = 0; k < whole.elements; k++) {
            double a = oracle_load(&whole.view, k), b = oracle_load(&chunk.view, k);
            assert_true(fabs(a - b) <= 5e-6);
        }
        attn_kv_cache_destroy(o.cache);
        array_free(&x);
        array_free(&whole);
        array_free(&chunk);
        layer_free(&l);
    }
}

static void a_call_that_fails_leaves_the_cache_alone(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 7);
    layer l = layer_make(sized(32, 4), 1);
    array x = input(&random, 2, 4, 32);
    array out = array_dense(ATTN_F32, 3, x.view.shape);
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    o.cache = cache_for(&l, 2, 6, 0, 0, ATTN_F16);
    forward(&l, &o, &x.view, NULL, NULL, &out.view);
    array_wipe(&out);
    uint64_t nan = array_hash(&out);
    assert_int_equal(attn_multihead_forward(l.context, l.layer, &o, &x.view, NULL, NULL, &out.view),
                     ATTN_ERR_CAPACITY);
    assert_true(error_has("4 of 6"));
    o.has_window = true;
    o.window_left = -7; /* found only by attention, after the append */
    attn_view one = rows(&x.view, 0, 1);
    attn_view out_one = rows(&out.view, 0, 1);
    assert_int_equal(attn_multihead_forward(l.context, l.layer, &o, &one, NULL, NULL, &out_one),
                     ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_kv_cache_position(o.cache, 0), 4);
    assert_int_equal(attn_kv_cache_position(o.cache, 1), 4);
    o.has_window = false;
    o.causal = ATTN_CAUSAL_TOP_LEFT;
    assert_int_equal(attn_multihead_forward(l.context, l.layer, &o, &one, NULL, NULL, &out_one),
                     ATTN_ERR_ARGUMENT);
    assert_true(error_has("top-left"));
    assert_true(array_hash(&out) == nan);
    attn_kv_cache_destroy(o.cache);
    array_free(&x);
    array_free(&out);
    layer_free(&l);
}

/* ---- parameters and refusals -------------------------------------------------------------------- */

static void parameters_have_names_and_xavier_bounds(void **state)
{
    (void)state;
    const char *const names[] = {"q_proj.weight",   "q_proj.bias",   "k_proj.weight",
                                 "k_proj.bias",     "v_proj.weight", "v_proj.bias",
                                 "out_proj.weight", "out_proj.bias"};
    attn_multihead_options o = sized(64, 8);
    attn_context *context = test_context(1);
    attn_multihead *layer[3] = {NULL};
    o.kdim = 24;
    for (int n = 0; n < 3; n++) {
        o.seed = n == 2 ? 4 : 3;
        assert_int_equal(attn_multihead_create(context, &o, &layer[n]), ATTN_OK);
    }
    assert_int_equal(attn_multihead_parameter_count(layer[0]), 8);
    assert_null(attn_multihead_parameter_name(layer[0], 8));
    assert_null(attn_multihead_parameter_name(layer[0], -1));
    for (int n = 0; n < 8; n++) {
        attn_view v[3];
        assert_string_equal(attn_multihead_parameter_name(layer[0], n), names[n]);
        for (int k = 0; k < 3; k++) {
            assert_int_equal(attn_multihead_parameter(layer[k], names[n], &v[k]), ATTN_OK);
        }
        int64_t count = v[0].shape[0] * (v[0].ndim == 2 ? v[0].shape[1] : 1);
        assert_int_equal(v[0].ndim, n % 2 ? 1 : 2);
        const float *a = v[0].data;
        const float *b = v[1].data;
        const float *c = v[2].data;
        assert_memory_equal(a, b, (size_t)count * sizeof *a); /* one seed, one layer */
        double bound = n % 2 ? 0 : sqrt(6.0 / (double)(v[0].shape[0] + v[0].shape[1]));
        double sum = 0, largest = 0;
        int64_t same = 0;
        for (int64_t k = 0; k < count; k++) {
            sum += (double)a[k];
            largest = fmax(largest, fabs((double)a[k]));
            same += a[k] == c[k];
        }
        assert_true(largest <= bound && (n % 2 || largest > 0.98 * bound));
        assert_true(fabs(sum) <= 4 * bound * sqrt((double)count / 3));
        assert_true(n % 2 || same < 5);
    }
    for (int n = 0; n < 3; n++) {
        attn_multihead_destroy(layer[n]);
    }
    attn_context_destroy(context);
}

static void a_parameter_that_is_set_is_used(void **state)
{
    (void)state;
    attn_multihead_options o = sized(4, 1);
    layer l = layer_make(o, 1);
    float eye[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    float zero[4] = {0};
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    float y[8];
    attn_view vx = attn_view_dense(x, ATTN_F32, 3, (const int64_t[]){1, 2, 4});
    attn_view vy = attn_view_dense(y, ATTN_F32, 3, (const int64_t[]){1, 2, 4});
    attn_view weight = attn_view_dense(eye, ATTN_F32, 2, (const int64_t[]){4, 4});
    attn_view bias = attn_view_dense(zero, ATTN_F32, 1, (const int64_t[]){4});
    attn_view before;
    assert_int_equal(attn_multihead_parameter(l.layer, "q_proj.weight", &before), ATTN_OK);
    for (int n = 0; n < 8; n++) {
        const char *name = attn_multihead_parameter_name(l.layer, n);
        assert_int_equal(attn_multihead_set_parameter(l.layer, name, n % 2 ? &bias : &weight),
                         ATTN_OK);
    }
    attn_view after;
    assert_int_equal(attn_multihead_parameter(l.layer, "q_proj.weight", &after), ATTN_OK);
    assert_ptr_equal(before.data, after.data);
    assert_memory_equal(after.data, eye, sizeof eye);
    attn_multihead_forward_options f = attn_multihead_forward_options_init();
    f.causal = ATTN_CAUSAL_TOP_LEFT;
    forward(&l, &f, &vx, NULL, NULL, &vy);
    assert_memory_equal(y, x, 4 * sizeof *y); /* the first row sees itself alone */
    assert_int_equal(attn_multihead_set_parameter(l.layer, "q_proj.weight", &bias), ATTN_ERR_SHAPE);
    assert_true(error_has("[out=4, in=4]"));
    assert_int_equal(attn_multihead_set_parameter(l.layer, "w_q", &weight), ATTN_ERR_ARGUMENT);
    assert_true(error_has("q_proj.weight"));
    layer_free(&l);
    o.no_bias = true;
    l = layer_make(o, 1);
    assert_int_equal(attn_multihead_parameter_count(l.layer), 4);
    assert_string_equal(attn_multihead_parameter_name(l.layer, 3), "out_proj.weight");
    assert_int_equal(attn_multihead_parameter(l.layer, "q_proj.bias", &after), ATTN_ERR_ARGUMENT);
    assert_true(error_has("no_bias"));
    layer_free(&l);
}

static void refused(attn_multihead_options o, attn_status status, const char *word)
{
    attn_context *context = test_context(1);
    attn_multihead *layer = (void *)&o;
    assert_int_equal(attn_multihead_create(context, &o, &layer), status);
    assert_null(layer);
    assert_true(error_has(word));
    attn_context_destroy(context);
}

static void bad_sizes_name_issue_fix_and_example(void **state)
{
    (void)state;
    attn_multihead_options o = sized(65, 8);
    refused(o, ATTN_ERR_SHAPE, "embed_dim 65 is not a multiple of num_heads 8");
    refused(o, ATTN_ERR_SHAPE, "64 or 72");
    refused(o, ATTN_ERR_SHAPE, "num_heads 5");
    refused(o, ATTN_ERR_SHAPE, "example");
    refused(sized(3, 8), ATTN_ERR_SHAPE, "use embed_dim 8");
    refused(sized(0, 8), ATTN_ERR_SHAPE, "embed_dim");
    refused(sized(64, -1), ATTN_ERR_SHAPE, "num_heads");
    refused(sized(INT64_MAX - 8, INT64_MAX - 9), ATTN_ERR_SHAPE, "multiple");
    refused(sized((int64_t)1 << 40, 8), ATTN_ERR_SHAPE, "larger than memory");
    o = sized(64, 8);
    o.num_kv_heads = 3;
    refused(o, ATTN_ERR_SHAPE, "num_kv_heads 3 does not divide num_heads 8");
    refused(o, ATTN_ERR_SHAPE, "use 2");
}

static void bad_calls_are_refused_in_words(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 8);
    layer l = layer_make(sized(32, 4), 1);
    array x = array_dense(ATTN_F32, 3, (const int64_t[]){2, 5, 32});
    array out = array_dense(ATTN_F32, 3, x.view.shape);
    array mask = array_dense(ATTN_BOOL, 3, (const int64_t[]){4, 5, 5});
    array_normal(&x, &random, 1);
    array_wipe(&out);
    uint64_t nan = array_hash(&out);
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    attn_view bad = x.view;
    bad.shape[2] = 31;
#define REFUSED(status, word, query, key, value)                                                   \
    do {                                                                                           \
        assert_int_equal(                                                                          \
            attn_multihead_forward(l.context, l.layer, &o, query, key, value, &out.view), status); \
        assert_true(error_has(word));                                                              \
    } while (0)
    REFUSED(ATTN_ERR_SHAPE, "embed_dim is 32", &bad, NULL, NULL);
    REFUSED(ATTN_ERR_SHAPE, "kdim is 32", &x.view, &bad, NULL);
    REFUSED(ATTN_ERR_ARGUMENT, "query", NULL, NULL, NULL);
    bad = x.view;
    bad.shape[1] = 4;
    REFUSED(ATTN_ERR_SHAPE, "value", &x.view, &x.view, &bad);
    bad = x.view;
    bad.dtype = ATTN_F16;
    REFUSED(ATTN_ERR_DTYPE, "f16", &bad, NULL, NULL);
    bad = x.view;
    bad.ndim = 2;
    REFUSED(ATTN_ERR_SHAPE, "[batch, len, embed_dim]", &bad, NULL, NULL);
    REFUSED(ATTN_ERR_ARGUMENT, "overlap", &out.view, NULL, NULL);
    o.mask = &mask.view; /* one a head, which is four dimensions here */
    REFUSED(ATTN_ERR_SHAPE, "[1, num_heads, len_q, len_k]", &x.view, NULL, NULL);
    mask.view.dtype = ATTN_F32;
    REFUSED(ATTN_ERR_DTYPE, "bool", &x.view, NULL, NULL);
    mask.view.dtype = ATTN_BOOL;
    o.mask = NULL;
    o.key_padding_mask = &mask.view;
    REFUSED(ATTN_ERR_SHAPE, "[batch=2, len_k=5]", &x.view, NULL, NULL);
    o.key_padding_mask = NULL;
    o.need_weights = ATTN_WEIGHTS_AVERAGED;
    REFUSED(ATTN_ERR_ARGUMENT, "[2,5,5]", &x.view, NULL, NULL);
    o.weights = &out.view;
    REFUSED(ATTN_ERR_SHAPE, "[2,5,5]", &x.view, NULL, NULL);
    o = attn_multihead_forward_options_init();
    o.lengths_k = (const int64_t[]){5, 6};
    REFUSED(ATTN_ERR_ARGUMENT, "lengths_k[1]", &x.view, NULL, NULL);
    o = attn_multihead_forward_options_init();
    o.cache = cache_for(&l, 3, 6, 0, 0, ATTN_F32);
    REFUSED(ATTN_ERR_SHAPE, "batch 3", &x.view, NULL, NULL);
    attn_kv_cache_destroy(o.cache);
    assert_true(array_hash(&out) == nan);
    array_free(&x);
    array_free(&out);
    array_free(&mask);
    layer_free(&l);
}

static void threads_do_not_change_bits(void **state)
{
    (void)state;
    uint64_t first = 0;
    const int threads[] = {1, 2, 3, 7};
    for (int n = 0; n < 4; n++) {
        rng random = rng_seed(test_seed(), 9);
        layer l = layer_make(sized(64, 8), threads[n]);
        array x = input(&random, 3, 40, 64);
        array out = array_dense(ATTN_F32, 3, x.view.shape);
        forward(&l, NULL, &x.view, NULL, NULL, &out.view);
        first = n == 0 ? array_hash(&out) : first;
        assert_true(array_hash(&out) == first);
        array_free(&x);
        array_free(&out);
        layer_free(&l);
    }
}

static void nothing_to_do_succeeds(void **state)
{
    (void)state;
    layer l = layer_make(sized(32, 4), 1);
    float x[64] = {0};
    const int64_t shapes[][3] = {{0, 5, 32}, {2, 0, 32}};
    for (int n = 0; n < 2; n++) {
        attn_view v = attn_view_dense(x, ATTN_F32, 3, shapes[n]);
        forward(&l, NULL, &v, NULL, NULL, &v);
    }
    layer_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(self_attention_equals_the_loops),
        cmocka_unit_test(cross_attention_with_its_own_widths_equals_the_loops),
        cmocka_unit_test(weights_sum_to_one_and_the_future_is_exactly_zero),
        cmocka_unit_test(masks_of_every_form_join_with_padding),
        cmocka_unit_test(lengths_hide_keys_and_clear_rows),
        cmocka_unit_test(chunks_through_a_cache_equal_the_whole),
        cmocka_unit_test(a_call_that_fails_leaves_the_cache_alone),
        cmocka_unit_test(parameters_have_names_and_xavier_bounds),
        cmocka_unit_test(a_parameter_that_is_set_is_used),
        cmocka_unit_test(bad_sizes_name_issue_fix_and_example),
        cmocka_unit_test(bad_calls_are_refused_in_words),
        cmocka_unit_test(threads_do_not_change_bits),
        cmocka_unit_test(nothing_to_do_succeeds),
    };
    return cmocka_run_group_tests_name("multi-head attention", tests, NULL, NULL);
}
