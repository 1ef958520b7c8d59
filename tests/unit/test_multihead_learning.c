/*
 * Multi-head layers of ordinary size that learn: threads; padding that must not be read; layers in a row; refusals.
 */
#include "fixture.h"
#include "projections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { E = 64, H = 8, B = 2, L = 50 };

static attn_multihead *layer_make(attn_context *context, uint64_t seed)
{
    attn_multihead *layer = NULL;
    attn_multihead_options o = attn_multihead_options_init();
    o.embed_dim = E;
    o.num_heads = H;
    o.seed = seed;
    assert_int_equal(attn_multihead_create(context, &o, &layer), ATTN_OK);
    return layer;
}

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    uint64_t first = 0;
    for (int n = 0; n < 4; n++) {
        attn_context *context = test_context(threads[n]);
        attn_multihead *layer = layer_make(context, 5);
        attn_multihead_saved *saved = NULL;
        assert_int_equal(attn_multihead_saved_create(context, &saved), ATTN_OK);
        rng r = rng_seed(test_seed(), 500);
        const int64_t shape[] = {B, L, E};
        array x = array_dense(ATTN_F32, 3, shape), out = array_dense(ATTN_F32, 3, shape);
        array dout = array_dense(ATTN_F32, 3, shape), dx = array_dense(ATTN_F32, 3, shape);
        array_normal(&x, &r, 1);
        array_normal(&dout, &r, 1);
        attn_multihead_forward_options o = attn_multihead_forward_options_init();
        attn_multihead_gradients g = attn_multihead_gradients_init();
        o.saved = saved;
        o.causal = ATTN_CAUSAL_TOP_LEFT;
        o.dropout = 0.1;
        g.dquery = dx.view;
        assert_int_equal(attn_multihead_forward(context, layer, &o, &x.view, NULL, NULL, &out.view),
                         ATTN_OK);
        assert_int_equal(
            attn_multihead_backward(context, layer, saved, &o, &x.view, NULL, NULL, &dout.view, &g),
            ATTN_OK);
        uint64_t hash = array_hash(&dx) ^ array_hash(&out);
        for (int which = 0; which < PROJECTIONS; which++) {
            for (int bias = 0; bias < 2; bias++) {
                attn_view v = projection_parameter(layer, which, bias, true);
                const unsigned char *bytes = v.data;
                size_t size = (size_t)(v.shape[0] * (bias ? 1 : v.shape[1])) * sizeof(float);
                for (size_t i = 0; i < size; i++) {
                    hash = (hash ^ bytes[i]) * 1099511628211u;
                }
            }
        }
        first = n == 0 ? hash : first;
        assert_true(hash == first);
        array_free(&x);
        array_free(&out);
        array_free(&dout);
        array_free(&dx);
        attn_multihead_saved_destroy(saved);
        attn_multihead_destroy(layer);
        attn_context_destroy(context);
    }
}

/* Four layers in a row: the gradient reaches every parameter of the first. */
static void every_parameter_learns_through_four_layers(void **state)
{
    (void)state;
    enum { LAYERS = 4, LEN = 12 };
    attn_context *context = test_context(2);
    attn_multihead *layer[LAYERS];
    attn_multihead_saved *saved[LAYERS];
    array x[LAYERS + 1], dx[LAYERS + 1];
    rng r = rng_seed(test_seed(), 600);
    const int64_t shape[] = {B, LEN, E};
    for (int n = 0; n <= LAYERS; n++) {
        x[n] = array_dense(ATTN_F32, 3, shape);
        dx[n] = array_dense(ATTN_F32, 3, shape);
    }
    array_normal(&x[0], &r, 1);
    array_normal(&dx[LAYERS], &r, 1);
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    o.causal = ATTN_CAUSAL_TOP_LEFT;
    for (int n = 0; n < LAYERS; n++) {
        layer[n] = layer_make(context, (uint64_t)n);
        assert_int_equal(attn_multihead_saved_create(context, &saved[n]), ATTN_OK);
        o.saved = saved[n];
        assert_int_equal(
            attn_multihead_forward(context, layer[n], &o, &x[n].view, NULL, NULL, &x[n + 1].view),
            ATTN_OK);
    }
    for (int n = LAYERS - 1; n >= 0; n--) {
        attn_multihead_gradients g = attn_multihead_gradients_init();
        g.dquery = dx[n].view;
        assert_int_equal(attn_multihead_backward(context, layer[n], saved[n], &o, &x[n].view, NULL,
                                                 NULL, &dx[n + 1].view, &g),
                         ATTN_OK);
    }
    for (int n = 0; n < LAYERS; n++) {
        for (int which = 0; which < PROJECTIONS; which++) {
            for (int bias = 0; bias < 2; bias++) {
                attn_view v = projection_parameter(layer[n], which, bias, true);
                double most = 0.0;
                for (int64_t i = 0; i < v.shape[0] * (bias ? 1 : v.shape[1]); i++) {
                    most = fmax(most, fabs((double)((const float *)v.data)[i]));
                }
                /* A bias of all keys moves every score of a row alike: its gradient is 0 but for rounding. */
                bool vanishes = bias && which == 1;
                assert_true(vanishes ? most < 1e-4 : most > 1e-4);
            }
        }
        attn_multihead_saved_destroy(saved[n]);
        attn_multihead_destroy(layer[n]);
    }
    for (int n = 0; n <= LAYERS; n++) {
        array_free(&x[n]);
        array_free(&dx[n]);
    }
    attn_context_destroy(context);
}

/* NaN in rows that are padding: nothing of it in any gradient, and those rows' own are 0. */
static void padding_is_not_read(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        attn_context *context = test_context(2);
        attn_multihead *layer = layer_make(context, 9);
        attn_multihead_saved *saved = NULL;
        assert_int_equal(attn_multihead_saved_create(context, &saved), ATTN_OK);
        rng r = rng_seed(test_seed(), 700);
        const int64_t shape[] = {B, L, E}, lengths[B] = {L - 7, L};
        array x = array_dense(ATTN_F32, 3, shape), y = array_dense(ATTN_F32, 3, shape);
        array out = array_dense(ATTN_F32, 3, shape), dout = array_dense(ATTN_F32, 3, shape);
        array dx = array_dense(ATTN_F32, 3, shape), dy = array_dense(ATTN_F32, 3, shape);
        array padding = array_dense(ATTN_BOOL, 2, shape);
        array_normal(&x, &r, 1);
        array_normal(&y, &r, 1);
        array_normal(&dout, &r, 1);
        memset(padding.memory.data, 0, padding.memory.bytes);
        for (int64_t i = lengths[0]; i < L; i++) {
            padding.memory.data[i] = 1;
            view_set(&y.view, 0, i, 3, 0, NAN);
            if (kind == 0) {
                view_set(&x.view, 0, i, 5, 0, NAN);
                view_set(&dout.view, 0, i, 6, 0, NAN);
            }
        }
        attn_multihead_forward_options o = attn_multihead_forward_options_init();
        attn_multihead_gradients g = attn_multihead_gradients_init();
        o.saved = saved;
        o.lengths_q = kind == 0 ? lengths : NULL;
        o.lengths_k = kind == 0 ? lengths : NULL;
        o.key_padding_mask = kind == 0 ? NULL : &padding.view;
        g.dquery = dx.view;
        g.dkey = dy.view;
        assert_int_equal(
            attn_multihead_forward(context, layer, &o, &x.view, &y.view, NULL, &out.view), ATTN_OK);
        assert_int_equal(attn_multihead_backward(context, layer, saved, &o, &x.view, &y.view, NULL,
                                                 &dout.view, &g),
                         ATTN_OK);
        for (int64_t n = 0; n < B * L * E; n++) {
            int64_t d = n % E, i = n / E % L, b = n / E / L;
            double q = view_get(&dx.view, b, i, d, 0), k = view_get(&dy.view, b, i, d, 0);
            bool beyond = i >= lengths[b];
            assert_true(isfinite(q) && isfinite(k));
            assert_true(!beyond || (k == 0.0 && (kind == 1 || q == 0.0)));
        }
        for (int which = 0; which < PROJECTIONS; which++) {
            attn_view v = projection_parameter(layer, which, false, true);
            for (int64_t i = 0; i < E * E; i++) {
                assert_true(isfinite(((const float *)v.data)[i]));
            }
        }
        array *all[] = {&x, &y, &out, &dout, &dx, &dy, &padding};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            array_free(all[i]);
        }
        attn_multihead_saved_destroy(saved);
        attn_multihead_destroy(layer);
        attn_context_destroy(context);
    }
}

/* ---- refusals ----------------------------------------------------------------------------------- */

/* Options that are not the forward call's would give the gradients of another function. */
static void other_options_are_refused(attn_context *context, attn_multihead *layer,
                                      const attn_multihead_saved *saved,
                                      const attn_multihead_forward_options *forward,
                                      const attn_view *x, const attn_view *dout)
{
    static unsigned char ones[B * L * L];
    static int64_t lengths[B];
    attn_view padding = attn_view_dense(ones, ATTN_BOOL, 2, (const int64_t[]){B, L});
    attn_view mask = attn_view_dense(ones, ATTN_BOOL, 2, (const int64_t[]){L, L});
    static const char *const names[] = {"causal",    "window",    "mask",   "key_padding_mask",
                                        "lengths_q", "lengths_k", "dropout"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        attn_multihead_forward_options o = *forward;
        o.causal = n == 0 ? (attn_causal)(forward->causal == ATTN_CAUSAL_NONE) : o.causal;
        o.has_window = n == 1;
        o.window_left = o.window_right = 1;
        o.mask = n == 2 ? &mask : NULL;
        o.key_padding_mask = n == 3 ? &padding : NULL;
        o.lengths_q = n == 4 ? lengths : NULL;
        o.lengths_k = n == 5 ? lengths : NULL;
        o.dropout = n == 6 ? 0.5 : 0.0;
        expect_error(attn_multihead_backward(context, layer, saved, &o, x, NULL, NULL, dout, NULL),
                     ATTN_ERR_ARGUMENT, names[n]);
    }
}

static void refusals_say_what_to_do(void **state)
{
    (void)state;
    attn_context *context = test_context(1);
    attn_multihead *layer = layer_make(context, 1), *other = layer_make(context, 2);
    attn_multihead_saved *saved = NULL;
    const int64_t shape[] = {B, L, E}, shorter[] = {B, L - 1, E};
    array x = array_dense(ATTN_F32, 3, shape), out = array_dense(ATTN_F32, 3, shape);
    array dout = array_dense(ATTN_F32, 3, shape), dx = array_dense(ATTN_F32, 3, shape);
    array less = array_dense(ATTN_F32, 3, shorter);
    rng r = rng_seed(test_seed(), 800);
    array_normal(&x, &r, 1);
    array_normal(&less, &r, 1);
    array_normal(&dout, &r, 1);
    attn_multihead_forward_options o = attn_multihead_forward_options_init();
    attn_multihead_gradients g = attn_multihead_gradients_init();
    attn_view v;
#define BACKWARD(layer, saved, query, dout) \
    attn_multihead_backward(context, layer, saved, &o, query, NULL, NULL, dout, &g)
    expect_error(attn_multihead_saved_create(NULL, &saved), ATTN_ERR_ARGUMENT, "context");
    assert_null(saved);
    assert_int_equal(attn_multihead_saved_create(context, &saved), ATTN_OK);
    expect_error(attn_multihead_gradient(layer, "q_proj.weight", &v), ATTN_ERR_ARGUMENT,
                 "no gradients");
    expect_error(BACKWARD(layer, NULL, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "saved");
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "no forward call");
    expect_error(BACKWARD(layer, saved, &x.view, NULL), ATTN_ERR_ARGUMENT, "dout");
    o.saved = saved;
    assert_int_equal(attn_multihead_forward(context, layer, &o, &x.view, NULL, NULL, &out.view),
                     ATTN_OK);
    assert_true(attn_multihead_saved_bytes(saved) > (size_t)(4 * B * L * E) * sizeof(float));
    expect_error(BACKWARD(other, saved, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "another layer");
    expect_error(BACKWARD(layer, saved, &less.view, &less.view), ATTN_ERR_SHAPE, "len_q");
    expect_error(BACKWARD(layer, saved, &x.view, &less.view), ATTN_ERR_SHAPE, "dout");
    g.dquery = less.view;
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_SHAPE, "dquery");
    g.dquery = x.view;
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "dquery");
    g.dquery = dx.view;
    g.dquery.dtype = ATTN_F16;
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_DTYPE, "f32");
    g.dquery = (attn_view){0};
    g.dkey = dx.view;
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "zeroed");
    g.dkey = (attn_view){0};
    g.struct_size = 7;
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "struct_size");
    g = attn_multihead_gradients_init();
    o.dropout = 1.0;
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "dropout");
    expect_error(attn_multihead_forward(context, layer, &o, &x.view, NULL, NULL, &out.view),
                 ATTN_ERR_ARGUMENT, "dropout");
    o.dropout = 0.0;
    other_options_are_refused(context, layer, saved, &o, &x.view, &dout.view);

    attn_kv_cache_options co = attn_kv_cache_options_init();
    attn_kv_cache *cache = NULL;
    co.batch = B;
    co.heads_kv = H;
    co.dim_qk = E / H;
    co.capacity = 2 * L;
    co.dtype = ATTN_F32;
    assert_int_equal(attn_kv_cache_create(context, &co, &cache), ATTN_OK);
    o.cache = cache;
    expect_error(attn_multihead_forward(context, layer, &o, &x.view, NULL, NULL, &out.view),
                 ATTN_ERR_ARGUMENT, "cache");
    o.cache = NULL;
    attn_kv_cache_destroy(cache);

    /* A frozen layer: gradients of inputs alone, twice from one forward. */
    g.dquery = dx.view;
    g.no_parameters = true;
    assert_int_equal(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_OK);
    uint64_t hash = array_hash(&dx);
    assert_int_equal(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_OK);
    assert_true(hash == array_hash(&dx));
    expect_error(attn_multihead_gradient(layer, "q_proj.weight", &v), ATTN_ERR_ARGUMENT,
                 "no gradients");
    assert_int_equal(attn_multihead_clear_gradients(layer), ATTN_OK);
    assert_int_equal(attn_multihead_gradient(layer, "q_proj.weight", &v), ATTN_OK);
    expect_error(attn_multihead_gradient(layer, "x_proj.weight", &v), ATTN_ERR_ARGUMENT,
                 "q_proj.weight");
    v = projection_parameter(layer, 0, true, false);
    array bias = array_dense(ATTN_F32, 1, v.shape);
    array_normal(&bias, &r, 1);
    assert_int_equal(attn_multihead_set_parameter(layer, "q_proj.bias", &bias.view), ATTN_OK);
    expect_error(BACKWARD(layer, saved, &x.view, &dout.view), ATTN_ERR_ARGUMENT, "changed");
    array *all[] = {&x, &out, &dout, &dx, &less, &bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        array_free(all[i]);
    }
    attn_multihead_saved_destroy(saved);
    attn_multihead_destroy(layer);
    attn_multihead_destroy(other);
    attn_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(every_parameter_learns_through_four_layers),
        cmocka_unit_test(padding_is_not_read),
        cmocka_unit_test(refusals_say_what_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
