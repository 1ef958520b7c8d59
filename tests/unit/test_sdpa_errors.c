/*
 * What attn_sdpa refuses, with which status and which words, and that it then writes nothing.
 * Views of inputs may have any strides; those of outputs must not overlap anything.
 */
#include "fixture.h"

#include <math.h>
#include <string.h>

static fixture small(void)
{
    return fixture_make(&(fixture_size){ATTN_F32, 2, 4, 2, 3, 5, 8, 8});
}

/* ---- not supported yet ------------------------------------------------------------------------- */

static void dropout_is_unsupported(void **state)
{
    (void)state;
    fixture f = small();
    f.o.dropout = 0.1;
    fixture_fails(&f, ATTN_ERR_UNSUPPORTED, "dropout");
    fixture_free(&f);
}

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
    assert_true(error_says("transpose"));
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

/* ---- strides and overlap ----------------------------------------------------------------------- */

static void the_last_stride_must_be_one(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        fixture f = small();
        attn_view *views[4] = {&f.q.view, &f.k.view, &f.v.view, &f.out.view};
        views[which]->stride[3] = 2;
        views[which]->shape[0] = 2;
        fixture_fails(&f, ATTN_ERR_SHAPE, "stride");
        fixture_free(&f);
    }
}

static void inputs_may_have_zero_and_negative_strides(void **state)
{
    (void)state;
    for (int64_t len_q = 2; len_q < 60; len_q += 50) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 4, 2, len_q, 70, 8, 8});
        f.k.view.stride[0] = 0; /* one sequence for all of the batch */
        f.v.view.stride[1] = 0;
        f.q.view.data = (float *)f.q.view.data + (len_q - 1) * 8; /* rows from the last */
        f.q.view.stride[2] = -8;
        fixture_check(&f);
        fixture_free(&f);
    }
}

static void both_common_layouts_give_the_same_bits(void **state)
{
    (void)state;
    for (int64_t len = 3; len < 80; len += 67) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 2, 3, 3, len, len, 16, 16});
        assert_int_equal(attn_sdpa(f.context, NULL, &f.q.view, &f.k.view, &f.v.view, &f.out.view),
                         ATTN_OK);
        const int64_t swapped[4] = {2, len, 3, 16};
        array moved[4];
        attn_view views[4];
        array *from[4] = {&f.q, &f.k, &f.v, &f.out};
        for (int n = 0; n < 4; n++) {
            moved[n] = array_dense(ATTN_F32, 4, swapped);
            views[n] = attn_view_blhd(moved[n].memory.data, ATTN_F32, 2, len, 3, 16);
            for (int64_t e = 0; n < 3 && e < 2 * 3 * len * 16; e++) {
                int64_t b = e / (3 * len * 16);
                int64_t h = e / (len * 16) % 3;
                int64_t i = e / 16 % len;
                view_set(&views[n], b, h, i, e % 16, view_get(&from[n]->view, b, h, i, e % 16));
            }
        }
        assert_int_equal(attn_sdpa(f.context, NULL, &views[0], &views[1], &views[2], &views[3]),
                         ATTN_OK);
        for (int64_t e = 0; e < 2 * 3 * len * 16; e++) {
            int64_t b = e / (3 * len * 16);
            int64_t h = e / (len * 16) % 3;
            int64_t i = e / 16 % len;
            assert_true(view_get(&views[3], b, h, i, e % 16) ==
                        view_get(&f.out.view, b, h, i, e % 16));
        }
        for (int n = 0; n < 4; n++) {
            array_free(&moved[n]);
        }
        fixture_free(&f);
    }
}

static void outputs_must_not_overlap_themselves(void **state)
{
    (void)state;
    for (int d = 0; d < 3; d++) {
        fixture f = small();
        f.out.view.stride[d] = 0;
        fixture_fails(&f, ATTN_ERR_SHAPE, "out: stride 0");
        fixture_free(&f);
    }
    fixture f = small();
    f.out.view.stride[2] = 7; /* rows of 8 */
    fixture_fails(&f, ATTN_ERR_SHAPE, "out: stride 7");
    fixture_free(&f);
}

static void outputs_must_not_overlap_an_input(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        fixture f = fixture_make(&(fixture_size){ATTN_F32, 1, 2, 2, 5, 5, 8, 8});
        array *inputs[3] = {&f.q, &f.k, &f.v};
        attn_view out = inputs[which]->view;
        uint64_t before = array_hash(inputs[which]);
        assert_int_equal(attn_sdpa(f.context, &f.o, &f.q.view, &f.k.view, &f.v.view, &out),
                         ATTN_ERR_ARGUMENT);
        assert_true(error_says("overlap"));
        assert_true(array_hash(inputs[which]) == before);
        fixture_free(&f);
    }
}

static void lse_and_weights_must_not_overlap_out(void **state)
{
    (void)state;
    fixture f = fixture_make(&(fixture_size){ATTN_F32, 1, 2, 2, 5, 5, 8, 8});
    attn_view lse = attn_view_dense(f.out.view.data, ATTN_F32, 3, (const int64_t[]){1, 2, 5});
    f.o.lse = &lse;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "overlap");
    f.o.lse = NULL;
    attn_view weights = attn_view_bhld(f.out.view.data, ATTN_F32, 1, 2, 5, 5);
    f.o.weights = &weights;
    fixture_fails(&f, ATTN_ERR_ARGUMENT, "overlap");
    fixture_free(&f);
}

static void interleaved_heads_of_one_buffer_do_not_overlap(void **state)
{
    (void)state;
    /* q, k, v and out as slices of one [len, 4, heads, dim] buffer, as a fused projection gives */
    float memory[6 * 4 * 2 * 8];
    for (size_t n = 0; n < sizeof memory / sizeof *memory; n++) {
        memory[n] = 0.01F * (float)(n % 97);
    }
    attn_view views[4];
    for (int n = 0; n < 4; n++) {
        views[n] = attn_view_bhld(memory + (size_t)n * 16, ATTN_F32, 1, 2, 6, 8);
        views[n].stride[0] = 6 * 64;
        views[n].stride[1] = 8;
        views[n].stride[2] = 64;
    }
    attn_context *context = test_context(1);
    attn_status s = attn_sdpa(context, NULL, &views[0], &views[1], &views[2], &views[3]);
    if (s != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    attn_context_destroy(context);
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
        cmocka_unit_test(dropout_is_unsupported),
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
        cmocka_unit_test(the_last_stride_must_be_one),
        cmocka_unit_test(inputs_may_have_zero_and_negative_strides),
        cmocka_unit_test(both_common_layouts_give_the_same_bits),
        cmocka_unit_test(outputs_must_not_overlap_themselves),
        cmocka_unit_test(outputs_must_not_overlap_an_input),
        cmocka_unit_test(lse_and_weights_must_not_overlap_out),
        cmocka_unit_test(interleaved_heads_of_one_buffer_do_not_overlap),
        cmocka_unit_test(null_arguments_are_errors_and_null_options_are_defaults),
        cmocka_unit_test(causal_must_be_one_of_its_values),
        cmocka_unit_test(options_of_an_older_or_newer_program_work),
    };
    return cmocka_run_group_tests_name("sdpa errors", tests, NULL, NULL);
}
