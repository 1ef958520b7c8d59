/* Strides of inputs may be anything; outputs overlap neither themselves nor an input, element by element. */
#include "fixture.h"

#include <stdio.h>
#include <string.h>

static fixture small(void)
{
    return fixture_make(&(fixture_size){ATTN_F32, 2, 4, 2, 3, 5, 8, 8});
}

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
        assert_true(error_has("overlap"));
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

/* Marks the elements of a view; true when one of them is marked already. */
static bool mark(const attn_view *v, int64_t origin, unsigned char *marks)
{
    bool met = false;
    for (int64_t e = 0; e < v->shape[0] * v->shape[1] * v->shape[2] * v->shape[3]; e++) {
        int64_t l = e / v->shape[3];
        int64_t at =
            origin + oracle_at(v, l / v->shape[2] / v->shape[1], l / v->shape[2] % v->shape[1],
                               l % v->shape[2], e % v->shape[3]);
        met = met || marks[at];
        marks[at] = 1;
    }
    return met;
}

/* Views of one buffer at random: where an element is shared, the call is refused; apart, it runs. */
static void random_overlaps_are_found(void **state)
{
    (void)state;
    enum { ALL = 1 << 14 };
    static float buffer[ALL];
    static float other[ALL];
    attn_context *context = test_context(1);
    rng r = rng_seed(test_seed(), 5);
    int shared = 0;
    int apart = 0;
    for (int64_t n = 0; n < test_count(20000); n++) {
        static unsigned char marks[ALL];
        int64_t shape[4] = {rng_range(&r, 1, 2), rng_range(&r, 1, 3), rng_range(&r, 1, 4),
                            rng_range(&r, 1, 6)};
        int64_t from[2];
        attn_view v[2];
        attn_view k = attn_view_bhld(other, ATTN_F32, shape[0], shape[1], 2, shape[3]);
        for (int a = 0; a < 2; a++) { /* out, then q */
            array place = array_random(&r, ATTN_F32, 4, shape, a == 1);
            v[a] = place.view;
            for (int d = 0; d < 3; d++) { /* some strides in common, as slices of one buffer have */
                v[a].stride[d] = a == 1 && rng_chance(&r, 60) ? v[0].stride[d] : v[a].stride[d];
            }
            array_free(&place);
            from[a] = 6000 + rng_below(&r, 60);
            v[a].data = buffer + from[a];
        }
        memset(marks, 0, sizeof marks);
        if (mark(&v[0], from[0], marks)) {
            continue; /* out overlaps itself */
        }
        memset(marks, 0, sizeof marks);
        mark(&v[1], from[1], marks); /* q may overlap itself */
        bool overlap = mark(&v[0], from[0], marks);
        attn_status s = attn_sdpa(context, NULL, &v[1], &k, &k, &v[0]);
        if (overlap && s == ATTN_OK) {
            char text[300];
            snprintf(
                text, sizeof text, "seed %llu, n %lld: overlap of %lld:%lld %lld:%lld not found",
                (unsigned long long)test_seed(), (long long)n, (long long)v[0].stride[1],
                (long long)v[0].stride[2], (long long)v[1].stride[1], (long long)v[1].stride[2]);
            fail_msg("%s", text);
        }
        shared += overlap;
        apart += !overlap && s == ATTN_OK;
    }
    print_message("%d overlaps refused, %d views apart accepted\n", shared, apart);
    assert_true(shared > 100 && apart > 100);
    attn_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_stride_must_be_one),
        cmocka_unit_test(inputs_may_have_zero_and_negative_strides),
        cmocka_unit_test(both_common_layouts_give_the_same_bits),
        cmocka_unit_test(outputs_must_not_overlap_themselves),
        cmocka_unit_test(outputs_must_not_overlap_an_input),
        cmocka_unit_test(lse_and_weights_must_not_overlap_out),
        cmocka_unit_test(interleaved_heads_of_one_buffer_do_not_overlap),
        cmocka_unit_test(random_overlaps_are_found),
    };
    return cmocka_run_group_tests_name("sdpa views", tests, NULL, NULL);
}
