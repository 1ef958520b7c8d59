/* What attn_sdpa_backward refuses, with which status and which words, and that it then writes nothing. */
#include "grad_fixture.h"

#include <math.h>
#include <string.h>

static const fixture_size small = {ATTN_F32, 2, 4, 2, 3, 5, 8, 6};
static const fixture_size half = {ATTN_BF16, 2, 4, 2, 3, 5, 8, 6};
static const fixture_size wide = {ATTN_F64, 2, 4, 2, 3, 5, 8, 6};

static attn_view *gradient_of(grad_fixture *g, int which)
{
    attn_view *all[GRADS] = {&g->wanted.dq,    &g->wanted.dk,     &g->wanted.dv,
                             &g->wanted.dbias, &g->wanted.dsinks, &g->wanted.dalibi};
    return all[which];
}

static void what_is_needed_is_asked_for(void **state)
{
    (void)state;
    static const char *const names[] = {"context", "q",   "k",    "v",
                                        "out",     "lse", "dout", "gradients"};
    for (int n = 0; n < 8; n++) {
        grad_fixture g;
        grad_fixture_make(&g, &small);
        attn_status status = attn_sdpa_backward(
            n == 0 ? NULL : g.f.context, &g.o, n == 1 ? NULL : &g.f.q.view,
            n == 2 ? NULL : &g.f.k.view, n == 3 ? NULL : &g.f.v.view, n == 4 ? NULL : &g.f.out.view,
            n == 5 ? NULL : &g.f.lse.view, n == 6 ? NULL : &g.dout.view, n == 7 ? NULL : &g.wanted);
        assert_int_equal(status, ATTN_ERR_ARGUMENT);
        assert_int_equal(strncmp(attn_last_error(), names[n], strlen(names[n])), 0);
        assert_true(error_has("is NULL but must be given"));
        grad_fixture_free(&g);
    }
}

static void forward_outputs_stay_out_of_the_options(void **state)
{
    (void)state;
    grad_fixture g;
    grad_fixture_make(&g, &small);
    g.o.lse = &g.f.lse.view;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "lse: of the options is given but must be NULL");
    g.o.lse = NULL;
    g.o.weights = &g.f.weights.view;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "weights: of the options is given but must be NULL");
    grad_fixture_free(&g);
}

static void forward_mistakes_are_found_too(void **state)
{
    (void)state;
    grad_fixture g;
    grad_fixture_make(&g, &small);
    g.f.k.view.shape[3] = 5;
    grad_fixture_fails(&g, ATTN_ERR_SHAPE, "k: head dim 5 does not match q's 8");
    g.f.k.view.shape[3] = 8;
    g.o.dropout = 1;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "dropout: is 1");
    g.o.dropout = 0;
    g.o.softcap = -1;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "softcap");
    grad_fixture_free(&g);
}

static void shapes_are_those_of_what_is_differentiated(void **state)
{
    (void)state;
    static const char *const whose[GRADS] = {"must be q's",     "must be k's",
                                             "must be v's",     "must be bias's",
                                             "must be sinks's", "must be alibi's"};
    for (int n = 0; n < GRADS; n++) {
        grad_fixture g;
        grad_fixture_make(&g, &small);
        attn_view *view = gradient_of(&g, n);
        for (int d = 0; d < view->ndim; d++) {
            view->shape[d]--;
            grad_fixture_fails(&g, ATTN_ERR_SHAPE, grad_names[n]);
            assert_true(error_has(whose[n]));
            view->shape[d]++;
        }
        view->ndim--;
        grad_fixture_fails(&g, ATTN_ERR_SHAPE, grad_names[n]);
        grad_fixture_free(&g);
    }
    grad_fixture g;
    grad_fixture_make(&g, &small);
    g.dout.view.shape[2]--;
    grad_fixture_fails(&g, ATTN_ERR_SHAPE, "dout: shape [2,4,2,6] must be out's, [2,4,3,6]");
    g.dout.view.shape[2]++;
    g.f.lse.view.shape[2]--;
    grad_fixture_fails(&g, ATTN_ERR_SHAPE, "lse: shape [2,4,2] must be [2,4,3]");
    g.f.lse.view.shape[2]++;
    g.wanted.dlse.shape[1]--;
    grad_fixture_fails(&g, ATTN_ERR_SHAPE, "dlse: shape [2,3,3] must be [2,4,3]");
    grad_fixture_free(&g);
}

/* A gradient broadcast to the bias's full shape would hide that sums are wanted. */
static void dbias_has_the_shape_that_was_given(void **state)
{
    (void)state;
    grad_fixture g;
    grad_fixture_make(&g, &small);
    g.bias.view.shape[0] = 1;
    grad_fixture_fails(&g, ATTN_ERR_SHAPE, "dbias: shape [4,3,5] must be bias's, [1,3,5]");
    grad_fixture_free(&g);
}

static void types_are_the_arithmetics_or_the_arrays(void **state)
{
    (void)state;
    for (int n = 0; n < GRADS; n++) {
        grad_fixture g;
        grad_fixture_make(&g, &small);
        gradient_of(&g, n)->dtype = ATTN_BF16;
        grad_fixture_fails(&g, ATTN_ERR_DTYPE, "type is bf16 but must be f32");
        assert_true(error_has(grad_names[n]));
        gradient_of(&g, n)->dtype = ATTN_F64;
        grad_fixture_fails(&g, ATTN_ERR_DTYPE, "type is f64 but must be f32");
        grad_fixture_free(&g);
        grad_fixture_make(&g, &wide);
        gradient_of(&g, n)->dtype = ATTN_F32;
        grad_fixture_fails(&g, ATTN_ERR_DTYPE, "type is f32 but must be f64");
        grad_fixture_free(&g);
    }
    grad_fixture g;
    grad_fixture_make(&g, &half);
    g.wanted.dq.dtype = ATTN_F16;
    grad_fixture_fails(&g, ATTN_ERR_DTYPE, "dq: type is f16 but must be f32 or bf16 beside bf16 q");
    g.wanted.dq.dtype = ATTN_F32;
    g.dout.view.dtype = ATTN_F64;
    grad_fixture_fails(&g, ATTN_ERR_DTYPE, "dout: type is f64 but must be f32, bf16 or f16");
    g.dout.view.dtype = ATTN_DTYPE_NONE;
    grad_fixture_fails(&g, ATTN_ERR_DTYPE, "dout: type is none");
    g.dout.view.dtype = ATTN_F32;
    g.f.lse.view.dtype = ATTN_BF16;
    grad_fixture_fails(&g, ATTN_ERR_DTYPE, "lse: type is bf16 but must be f32");
    g.f.lse.view.dtype = ATTN_F32;
    g.wanted.dlse.dtype = ATTN_F64;
    grad_fixture_fails(&g, ATTN_ERR_DTYPE, "dlse: type is f64 but must be f32");
    grad_fixture_free(&g);
    grad_fixture_make(&g, &wide);
    g.dout.view.dtype = ATTN_F32;
    grad_fixture_fails(&g, ATTN_ERR_DTYPE, "dout: type is f32 but must be f64");
    grad_fixture_free(&g);
}

static void gradients_of_what_is_not_there_are_refused(void **state)
{
    (void)state;
    grad_fixture g;
    grad_fixture_make(&g, &small);
    g.o.bias = NULL;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "dbias: is wanted but the options have no bias");
    g.o.bias = &g.bias.view;
    g.o.sinks = NULL;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "dsinks: is wanted but the options have no sinks");
    g.o.sinks = &g.sinks.view;
    g.o.alibi = NULL;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "dalibi: is wanted but the options have no alibi");
    grad_fixture_free(&g);
}

static void outputs_have_memory_of_their_own(void **state)
{
    (void)state;
    for (int n = 0; n < GRADS; n++) {
        grad_fixture g;
        grad_fixture_make(&g, &small);
        attn_view *view = gradient_of(&g, n);
        const attn_view inputs[] = {g.f.q.view,   g.f.k.view,  g.f.v.view,  g.f.out.view,
                                    g.f.lse.view, g.dout.view, g.dlse.view, g.bias.view,
                                    g.sinks.view, g.alibi.view};
        static const char *const names[] = {"q's",    "k's",    "v's",    "out's",   "lse's",
                                            "dout's", "dlse's", "bias's", "sinks's", "alibi's"};
        void *own = view->data;
        for (int m = 0; m < 10; m++) {
            view->data = inputs[m].data;
            grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "its memory overlaps ");
            assert_true(error_has(names[m]) && error_has(grad_names[n]));
        }
        for (int m = 0; m < n; m++) {
            view->data = gradient_of(&g, m)->data;
            grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "its memory overlaps d");
        }
        view->data = own;
        assert_int_equal(grad_fixture_backward(&g), ATTN_OK);
        if (view->ndim > 1) {
            view->stride[0] = 0;
            grad_fixture_fails(&g, ATTN_ERR_SHAPE, "makes elements share memory");
        }
        view->stride[view->ndim - 1] = 2;
        grad_fixture_fails(&g, ATTN_ERR_SHAPE, "last stride is 2 but must be 1");
        grad_fixture_free(&g);
    }
}

static void missing_data_is_told(void **state)
{
    (void)state;
    grad_fixture g;
    grad_fixture_make(&g, &small);
    g.wanted.dk.data = NULL;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "dk: data is NULL");
    g.wanted.dk.data = g.gradient[GRAD_K].view.data;
    g.dout.view.data = NULL;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "dout: data is NULL");
    g.dout.view.data = g.dout.memory.data + 1;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "dout: data at");
    grad_fixture_free(&g);
}

static void structs_of_older_and_newer_programs(void **state)
{
    (void)state;
    struct {
        attn_sdpa_gradients known;
        unsigned char more[16];
    } newer = {0};
    grad_fixture g;
    grad_fixture_make(&g, &small);
    fixture_run(&g.f);
    g.wanted.struct_size = 4;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "gradients: struct_size is 4");
    /* an older program's struct ends before dsinks: what follows is not looked at */
    g.wanted.struct_size = offsetof(attn_sdpa_gradients, dsinks);
    g.wanted.dalibi.dtype = ATTN_BOOL;
    assert_int_equal(grad_fixture_backward(&g), ATTN_OK);
    assert_true(isnan(view_get(&g.gradient[GRAD_SINKS].view, 0, 0, 0, 0)));
    g.wanted = attn_sdpa_gradients_init();
    newer.known = g.wanted;
    newer.known.struct_size = sizeof newer;
    attn_status status =
        attn_sdpa_backward(g.f.context, &g.o, &g.f.q.view, &g.f.k.view, &g.f.v.view, &g.f.out.view,
                           &g.f.lse.view, &g.dout.view, &newer.known);
    assert_int_equal(status, ATTN_OK); /* nothing is wanted: a no-op that succeeds */
    newer.more[3] = 1;
    status = attn_sdpa_backward(g.f.context, &g.o, &g.f.q.view, &g.f.k.view, &g.f.v.view,
                                &g.f.out.view, &g.f.lse.view, &g.dout.view, &newer.known);
    assert_int_equal(status, ATTN_ERR_UNSUPPORTED);
    assert_true(error_has("gradients: byte"));
    grad_fixture_free(&g);
}

static attn_sdpa_plan_info plan_of(grad_fixture *g)
{
    attn_sdpa_plan_info info = attn_sdpa_plan_info_init();
    attn_status status =
        attn_sdpa_backward_plan(g->f.context, &g->o, &g->f.q.view, &g->f.k.view, &g->f.v.view,
                                &g->f.out.view, &g->f.lse.view, &g->dout.view, &g->wanted, &info);
    if (status != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return info;
}

static void the_planned_scratch_is_enough_and_nothing_beyond_it_is_touched(void **state)
{
    (void)state;
    for (int size = 0; size < FIXTURE_SIZES; size++) {
        grad_fixture g;
        uint64_t want[GRADS];
        grad_fixture_make(&g, &fixture_sizes[size]);
        grad_fixture_run(&g);
        for (int n = 0; n < GRADS; n++) {
            want[n] = array_hash(&g.gradient[n]);
        }
        attn_sdpa_plan_info info = plan_of(&g);
        assert_non_null(strstr(info.kernel, "backward"));
        assert_true(info.scratch_bytes >= info.scratch_per_thread && info.tasks >= 1);
        for (int right = 0; right < 2; right++) {
            block scratch = block_take(info.scratch_bytes, right, 64);
            g.o.scratch = scratch.data;
            g.o.scratch_size = info.scratch_bytes;
            attn_context_trim(g.f.context);
            assert_int_equal(grad_fixture_backward(&g), ATTN_OK);
            for (int n = 0; n < GRADS; n++) {
                assert_true(array_hash(&g.gradient[n]) == want[n]);
            }
            assert_true(attn_context_scratch_bytes(g.f.context) == 0);
            block_free(&scratch);
        }
        grad_fixture_free(&g);
    }
}

static void scratch_that_is_too_small_or_misaligned_is_refused(void **state)
{
    (void)state;
    grad_fixture g;
    grad_fixture_make(&g, &small);
    fixture_run(&g.f);
    attn_sdpa_plan_info info = plan_of(&g);
    block scratch = block_take(info.scratch_bytes + 64, false, 64);
    g.o.scratch = scratch.data;
    g.o.scratch_size = info.scratch_bytes - 1;
    grad_fixture_fails(&g, ATTN_ERR_CAPACITY, "attn_sdpa_backward_plan");
    g.o.scratch = scratch.data + 4;
    g.o.scratch_size = info.scratch_bytes + 60;
    grad_fixture_fails(&g, ATTN_ERR_ARGUMENT, "scratch");
    block_free(&scratch);
    grad_fixture_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_needed_is_asked_for),
        cmocka_unit_test(forward_outputs_stay_out_of_the_options),
        cmocka_unit_test(forward_mistakes_are_found_too),
        cmocka_unit_test(shapes_are_those_of_what_is_differentiated),
        cmocka_unit_test(dbias_has_the_shape_that_was_given),
        cmocka_unit_test(types_are_the_arithmetics_or_the_arrays),
        cmocka_unit_test(gradients_of_what_is_not_there_are_refused),
        cmocka_unit_test(outputs_have_memory_of_their_own),
        cmocka_unit_test(missing_data_is_told),
        cmocka_unit_test(structs_of_older_and_newer_programs),
        cmocka_unit_test(the_planned_scratch_is_enough_and_nothing_beyond_it_is_touched),
        cmocka_unit_test(scratch_that_is_too_small_or_misaligned_is_refused),
    };
    return cmocka_run_group_tests_name("grad errors", tests, NULL, NULL);
}
