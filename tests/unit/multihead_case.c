#include "multihead_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

layer layer_make(attn_multihead_options o, int threads)
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

void layer_free(layer *l)
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

expected layer_in_loops(const layer *l, const attn_view *query, const attn_view *key,
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

void layer_close_to(const attn_view *got, const double *want, double most)
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

void expected_free(expected *e)
{
    free(e->out);
    free(e->weights);
}

array layer_input(rng *random, int64_t batch, int64_t len, int64_t width)
{
    array a = array_random(random, ATTN_F32, 3, (const int64_t[]){batch, len, width}, true);
    array_normal(&a, random, 1);
    return a;
}

void layer_forward(const layer *l, const attn_multihead_forward_options *o, const attn_view *query,
                   const attn_view *key, const attn_view *value, const attn_view *out)
{
    if (attn_multihead_forward(l->context, l->layer, o, query, key, value, out) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
}

attn_multihead_options layer_sized(int64_t embed, int64_t heads)
{
    attn_multihead_options o = attn_multihead_options_init();
    o.embed_dim = embed;
    o.num_heads = heads;
    o.seed = 3;
    return o;
}

attn_kv_cache *layer_cache(const layer *l, int64_t batch, int64_t capacity, int64_t window,
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
