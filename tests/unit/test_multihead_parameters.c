/*
 * attn_multihead: parameters by name; refusals that name issue, fix and example.
 */
#include "multihead_case.h"

#include <math.h>

static void parameters_have_names_and_xavier_bounds(void **state)
{
    (void)state;
    const char *const names[] = {"q_proj.weight",   "q_proj.bias",   "k_proj.weight",
                                 "k_proj.bias",     "v_proj.weight", "v_proj.bias",
                                 "out_proj.weight", "out_proj.bias"};
    attn_multihead_options o = layer_sized(64, 8);
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
    attn_multihead_options o = layer_sized(4, 1);
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
    layer_forward(&l, &f, &vx, NULL, NULL, &vy);
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
    attn_multihead_options o = layer_sized(65, 8);
    refused(o, ATTN_ERR_SHAPE, "embed_dim 65 is not a multiple of num_heads 8");
    refused(o, ATTN_ERR_SHAPE, "64 or 72");
    refused(o, ATTN_ERR_SHAPE, "num_heads 5");
    refused(o, ATTN_ERR_SHAPE, "example");
    refused(layer_sized(3, 8), ATTN_ERR_SHAPE, "use embed_dim 8");
    refused(layer_sized(0, 8), ATTN_ERR_SHAPE, "embed_dim");
    refused(layer_sized(64, -1), ATTN_ERR_SHAPE, "num_heads");
    refused(layer_sized(INT64_MAX - 8, INT64_MAX - 9), ATTN_ERR_SHAPE, "multiple");
    refused(layer_sized((int64_t)1 << 40, 8), ATTN_ERR_SHAPE, "larger than memory");
    o = layer_sized(64, 8);
    o.num_kv_heads = 3;
    refused(o, ATTN_ERR_SHAPE, "num_kv_heads 3 does not divide num_heads 8");
    refused(o, ATTN_ERR_SHAPE, "use 2");
}

static void bad_calls_are_refused_in_words(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 8);
    layer l = layer_make(layer_sized(32, 4), 1);
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
    o.cache = layer_cache(&l, 3, 6, 0, 0, ATTN_F32);
    REFUSED(ATTN_ERR_SHAPE, "batch 3", &x.view, NULL, NULL);
    attn_kv_cache_destroy(o.cache);
    assert_true(array_hash(&out) == nan);
    array_free(&x);
    array_free(&out);
    array_free(&mask);
    layer_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_have_names_and_xavier_bounds),
        cmocka_unit_test(a_parameter_that_is_set_is_used),
        cmocka_unit_test(bad_sizes_name_issue_fix_and_example),
        cmocka_unit_test(bad_calls_are_refused_in_words),
    };
    return cmocka_run_group_tests_name("parameters of multi-head attention", tests, NULL, NULL);
}
