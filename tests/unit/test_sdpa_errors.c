/* What attn_sdpa refuses, with which status and which words, and that it then writes nothing. */
#include "fixture.h"

#include <math.h>
#include <string.h>

static fixture small(void)
{
    return fixture_make(&(fixture_size){ATTN_F32, 2, 4, 2, 3, 5, 8, 8});
}

static void dropout_is_a_share_below_one(void **state)
{
    (void)state;
    const double wrong[] = {-0.1, 1.0, 1.5, INFINITY, (double)NAN};
    for (int n = 0; n < 5; n++) {
        fixture f = small();
        f.o.dropout = wrong[n];
        fixture_fails(&f, ATTN_ERR_ARGUMENT, "dropout: is ");
        fixture_free(&f);
    }
}

/* ---- not supported yet ------------------------------------------------------------------------- */

static void packed_sequences_are_unsupported(void **state)
{
    (void)state;
    const int64_t starts[3] = {0, 1, 3};
    fixture f = small();
    f.o.cu_seqlens_q = starts;
    fixture_fails(&f, ATTN_ERR_UNSUPPORTED, "cu_seqlens");
    f.o.cu_seqlens_q = NULL;
    f.o.cu_seqlens_k = starts;
    fixture_fails(&f, ATTN_ERR_UNSUPPORTED, "cu_seqlens");
    f.o.cu_seqlens_q = starts;
    f.o.num_sequences = 2;
    fixture_fails(&f, ATTN_ERR_UNSUPPORTED, "cu_seqlens");
    fixture_free(&f);
}

static void invariant_is_unsupported(void **state)
{
    (void)state;
    fixture f = small();
    f.o.invariant = true;
    fixture_fails(&f, ATTN_ERR_UNSUPPORTED, "invariant");
    fixture_free(&f);
}

/* ---- types ------------------------------------------------------------------------------------- */

static void k_and_v_share_a_type(void **state)
{
    (void)state;
    fixture f = small();
    f.v.view.dtype = ATTN_BF16;
    fixture_fails(&f, ATTN_ERR_DTYPE, "bf16");
    fixture_free(&f);
}

static void float64_goes_with_float64_only(void **state)
{
    (void)state;
    const int wide[] = {1, 2, 4, 3, 5, 6}; /* bits: q, kv, out */
    for (int n = 0; n < 6; n++) {
        fixture f = fixture_make(&(fixture_size){ATTN_F64, 1, 1, 1, 2, 3, 8, 8});
        f.q.view.dtype = wide[n] & 1 ? ATTN_F64 : ATTN_F32;
        f.k.view.dtype = f.v.view.dtype = wide[n] & 2 ? ATTN_F64 : ATTN_F32;
        f.out.view.dtype = wide[n] & 4 ? ATTN_F64 : ATTN_F32;
        fixture_fails(&f, ATTN_ERR_DTYPE, "f64");
        fixture_free(&f);
    }
}

static void booleans_and_unknown_types_are_refused(void **state)
{
    (void)state;
    const int types[] = {ATTN_BOOL, ATTN_DTYPE_NONE, 6, 99, -1};
    for (int n = 0; n < 5; n++) {
        for (int which = 0; which < 3; which++) {
            fixture f = small();
            attn_dtype type = (attn_dtype)types[n];
            attn_view *views[3] = {&f.q.view, &f.k.view, &f.out.view};
            views[which]->dtype = type;
            f.v.view.dtype = which == 1 ? type : ATTN_F32;
            attn_status s =
                attn_sdpa(f.context, &f.o, &f.q.view, &f.k.view, &f.v.view, &f.out.view);
            assert_true(s == ATTN_ERR_DTYPE || (types[n] == ATTN_DTYPE_NONE && s != ATTN_OK));
            fixture_free(&f);
        }
    }
}

static void sinks_and_slopes_are_float32_or_float64_with_float64(void **state)
{
    (void)state;
    for (int alibi = 0; alibi < 2; alibi++) {
        fixture f = small();
        array a = array_dense(ATTN_F64, 1, &f.size.heads_q);
        f.o.sinks = alibi ? NULL : &a.view;
        f.o.alibi = alibi ? &a.view : NULL;
        fixture_fails(&f, ATTN_ERR_DTYPE, alibi ? "alibi" : "sinks");
        array_free(&a);
        const int64_t wrong = f.size.heads_kv;
        a = array_dense(ATTN_F32, 1, &wrong);
        fixture_fails(&f, ATTN_ERR_SHAPE, alibi ? "alibi" : "sinks");
        array_free(&a);
        fixture_free(&f);
    }
}

/* ---- shapes ------------------------------------------------------------------------------------ */

static void head_dims_that_differ_suggest_a_transposed_k(void **state)
{
    (void)state;
    fixture f = small();
    f.k.view.shape[3] = 5;
    fixture_fails(&f, ATTN_ERR_SHAPE, "k: head dim 5 does not match q's 8");
    assert_true(error_has("transpose"));
    fixture_free(&f);
}

static void every_size_that_does_not_fit_is_named(void **state)
{
    (void)state;
    static const struct {
        int view, dim;
        const char *word;
    } wrong[] = {{1, 0, "batch"}, {2, 0, "batch"}, {3, 0, "batch"}, {2, 1, "v"},
                 {3, 1, "out"},   {2, 2, "v"},     {3, 2, "out"},   {3, 3, "out"}};
    for (int n = 0; n < 8; n++) {
        fixture f = small();
        attn_view *views[4] = {&f.q.view, &f.k.view, &f.v.view, &f.out.view};
        views[wrong[n].view]->shape[wrong[n].dim] -= 1;
        fixture_fails(&f, ATTN_ERR_SHAPE, wrong[n].word);
        fixture_free(&f);
    }
}

static void lse_and_weights_shapes_are_checked(void **state)
{
    (void)state;
    for (int d = 0; d < 7; d++) {
        fixture f = small();
        attn_view *view = d < 3 ? &f.lse.view : &f.weights.view;
        view->shape[d < 3 ? d : d - 3] -= 1;
        f.o.lse = d < 3 ? view : NULL;
        f.o.weights = d < 3 ? NULL : view;
        fixture_fails(&f, ATTN_ERR_SHAPE, d < 3 ? "lse" : "weights");
        fixture_free(&f);
    }
}

static void views_of_other_than_four_dimensions_are_refused(void **state)
{
    (void)state;
    for (int ndim = -1; ndim < 6; ndim++) {
        for (int which = 0; which < 4 && ndim != 4; which++) {
            fixture f = small();
            attn_view *views[4] = {&f.q.view, &f.k.view, &f.v.view, &f.out.view};
            views[which]->ndim = ndim;
            fixture_fails(&f, ATTN_ERR_SHAPE, (const char *[]){"q", "k", "v", "out"}[which]);
            fixture_free(&f);
        }
    }
}

static void dims_and_heads_are_at_least_one(void **state)
{
    (void)state;
    const fixture_size sizes[] = {{ATTN_F32, 1, 0, 0, 2, 2, 8, 8},
                                  {ATTN_F32, 1, 2, 0, 2, 2, 8, 8},
                                  {ATTN_F32, 1, 1, 1, 2, 2, 0, 8},
                                  {ATTN_F32, 1, 1, 1, 2, 2, 8, 0}};
    for (int n = 0; n < 4; n++) {
        fixture f = fixture_make(&sizes[n]);
        fixture_fails(&f, ATTN_ERR_SHAPE, "");
        fixture_free(&f);
    }
}

static void negative_sizes_are_refused(void **state)
{
    (void)state;
    for (int d = 0; d < 4; d++) {
        fixture f = small();
        f.q.view.shape[d] = f.out.view.shape[d] = -1;
        fixture_fails(&f, ATTN_ERR_SHAPE, "");
        fixture_free(&f);
    }
}

static void sizes_whose_product_overflows_are_refused(void **state)
{
    (void)state;
    fixture f = small();
    f.q.view.shape[2] = f.out.view.shape[2] = INT64_MAX / 2;
    attn_status s = attn_sdpa(f.context, &f.o, &f.q.view, &f.k.view, &f.v.view, &f.out.view);
    assert_true(s == ATTN_ERR_SHAPE || s == ATTN_ERR_NO_MEMORY || s == ATTN_ERR_ARGUMENT);
    fixture_free(&f);
}

/* ---- arguments --------------------------------------------------------------------------------- */

static void null_arguments_are_errors_and_null_options_are_defaults(void **state)
{
    (void)state;
    fixture f = small();
    attn_view *a[4] = {&f.q.view, &f.k.view, &f.v.view, &f.out.view};
    assert_int_equal(attn_sdpa(NULL, NULL, a[0], a[1], a[2], a[3]), ATTN_ERR_ARGUMENT);
    for (int n = 0; n < 4; n++) {
        attn_view *keep = a[n];
        a[n] = NULL;
        assert_int_equal(attn_sdpa(f.context, NULL, a[0], a[1], a[2], a[3]), ATTN_ERR_ARGUMENT);
        a[n] = keep;
        void *data = keep->data;
        keep->data = NULL;
        assert_int_equal(attn_sdpa(f.context, NULL, a[0], a[1], a[2], a[3]), ATTN_ERR_ARGUMENT);
        keep->data = data;
    }
    assert_int_equal(attn_sdpa(f.context, NULL, a[0], a[1], a[2], a[3]), ATTN_OK);
    uint64_t plain = array_hash(&f.out);
    f.o = attn_sdpa_options_init();
    array_wipe(&f.out);
    assert_int_equal(attn_sdpa(f.context, &f.o, a[0], a[1], a[2], a[3]), ATTN_OK);
    assert_true(array_hash(&f.out) == plain);
    fixture_free(&f);
}

static void causal_must_be_one_of_its_values(void **state)
{
    (void)state;
    fixture f = small();
    f.o.causal = (attn_causal)3;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "causal");
    f.o.causal = (attn_causal)-1;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "causal");
    fixture_free(&f);
}

static void options_of_an_older_or_newer_program_work(void **state)
{
    (void)state;
    fixture f = small();
    f.o.struct_size = 0;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "struct_size");
    /* older: it knew nothing behind `causal`; what lies there must not be read */
    f.o = attn_sdpa_options_init();
    f.o.causal = ATTN_CAUSAL_TOP_LEFT;
    array_wipe(&f.out);
    assert_int_equal(attn_sdpa(f.context, &f.o, &f.q.view, &f.k.view, &f.v.view, &f.out.view),
                     ATTN_OK);
    uint64_t want = array_hash(&f.out);
    size_t known = offsetof(attn_sdpa_options, has_window);
    attn_sdpa_options old;
    memset(&old, 0xa5, sizeof old);
    memcpy(&old, &f.o, known);
    old.struct_size = known;
    array_wipe(&f.out);
    assert_int_equal(attn_sdpa(f.context, &old, &f.q.view, &f.k.view, &f.v.view, &f.out.view),
                     ATTN_OK);
    assert_true(array_hash(&f.out) == want);
    /* newer: more than this library knows, all zero, is defaults; set, it is refused */
    struct {
        attn_sdpa_options o;
        char more[32];
    } newer = {.o = f.o};
    newer.o.struct_size = sizeof newer;
    assert_int_equal(attn_sdpa(f.context, &newer.o, &f.q.view, &f.k.view, &f.v.view, &f.out.view),
                     ATTN_OK);
    assert_true(array_hash(&f.out) == want);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropout_is_a_share_below_one),
        cmocka_unit_test(packed_sequences_are_unsupported),
        cmocka_unit_test(invariant_is_unsupported),
        cmocka_unit_test(k_and_v_share_a_type),
        cmocka_unit_test(float64_goes_with_float64_only),
        cmocka_unit_test(booleans_and_unknown_types_are_refused),
        cmocka_unit_test(sinks_and_slopes_are_float32_or_float64_with_float64),
        cmocka_unit_test(head_dims_that_differ_suggest_a_transposed_k),
        cmocka_unit_test(every_size_that_does_not_fit_is_named),
        cmocka_unit_test(lse_and_weights_shapes_are_checked),
        cmocka_unit_test(views_of_other_than_four_dimensions_are_refused),
        cmocka_unit_test(dims_and_heads_are_at_least_one),
        cmocka_unit_test(negative_sizes_are_refused),
        cmocka_unit_test(sizes_whose_product_overflows_are_refused),
        cmocka_unit_test(null_arguments_are_errors_and_null_options_are_defaults),
        cmocka_unit_test(causal_must_be_one_of_its_values),
        cmocka_unit_test(options_of_an_older_or_newer_program_work),
    };
    return cmocka_run_group_tests_name("sdpa errors", tests, NULL, NULL);
}
