/*
 * The lines of the contract about single rows and slots, backward: nothing to attend to, masked
 * slots, NaN, lengths, empty calls. Over all paths (fixture_sizes).
 */
#include "grad_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FOR_EACH_GRAD(g)                                \
    for (int size_ = 0; size_ < FIXTURE_SIZES; size_++) \
        for (grad_fixture g = {0}; grad_step(&g, size_);)

/* Makes the fixture on the first step of the inner loop, frees it on the second. */
static bool grad_step(grad_fixture *g, int size)
{
    if (g->f.context) {
        grad_fixture_free(g);
        return false;
    }
    grad_fixture_make(g, &fixture_sizes[size]);
    return true;
}

static bool all_zero(const attn_view *v, int64_t b, int64_t h, int64_t i)
{
    for (int64_t d = 0; d < v->shape[3]; d++) {
        if (view_get(v, b, h, i, d) != 0) {
            return false;
        }
    }
    return true;
}

static bool all_finite(const grad_fixture *g)
{
    for (int n = 0; n < GRADS; n++) {
        attn_view flat = g->gradient[n].view;
        for (int64_t e = 0; e < g->gradient[n].elements; e++) {
            if (!isfinite(oracle_load(&flat, e))) {
                print_message("%s[%lld] is not finite\n", grad_names[n], (long long)e);
                return false;
            }
        }
    }
    return true;
}

static void poison_row(const attn_view *v, int64_t b, int64_t h, int64_t i)
{
    for (int64_t d = 0; d < v->shape[3]; d++) {
        view_set(v, b, h, i, d, NAN);
    }
}

/* Row 1 of every head is hidden by the mask; its q, dout and dlse are NaN. */
static void rows_with_nothing_to_attend_to_have_no_gradient(void **state)
{
    (void)state;
    FOR_EACH_GRAD(g)
    {
        const fixture_size *s = &g.f.size;
        const int64_t shape[2] = {s->len_q, s->len_k};
        array mask = array_dense(ATTN_BOOL, 2, shape);
        memset(mask.memory.data + s->len_k, 0, (size_t)s->len_k);
        g.f.o.mask = &mask.view;
        for (int64_t b = 0; b < s->batch; b++) {
            for (int64_t h = 0; h < s->heads_q; h++) {
                poison_row(&g.f.q.view, b, h, 1);
                poison_row(&g.dout.view, b, h, 1);
                view_set(&g.dlse.view, b, h, 1, 0, NAN);
            }
        }
        grad_fixture_run(&g);
        assert_true(all_finite(&g));
        for (int64_t b = 0; b < s->batch; b++) {
            for (int64_t h = 0; h < s->heads_q; h++) {
                assert_true(all_zero(&g.gradient[GRAD_Q].view, b, h, 1));
                for (int64_t j = 0; j < s->len_k; j++) {
                    assert_true(view_get(&g.gradient[GRAD_BIAS].view, h, 1, j, 0) == 0);
                }
            }
        }
        array_free(&mask);
    }
}

/* Nothing to attend to anywhere: every gradient is 0, whatever the arrays hold. */
static void calls_that_attend_to_nothing_have_no_gradient(void **state)
{
    (void)state;
    FOR_EACH_GRAD(g)
    {
        int64_t lengths[8] = {0};
        g.f.o.lengths_k = lengths;
        array *inputs[] = {&g.f.q, &g.f.k, &g.f.v, &g.dout, &g.dlse, &g.bias};
        for (int n = 0; n < 6; n++) {
            array_wipe(inputs[n]);
        }
        grad_fixture_run(&g);
        for (int n = 0; n < GRADS; n++) {
            attn_view flat = g.gradient[n].view;
            for (int64_t e = 0; e < g.gradient[n].elements; e++) {
                assert_true(oracle_load(&flat, e) == 0);
            }
        }
    }
}

/* Column 2 is masked for every row; its k and v are NaN, and so is its bias. */
static void masked_slots_are_not_read(void **state)
{
    (void)state;
    FOR_EACH_GRAD(g)
    {
        const fixture_size *s = &g.f.size;
        const int64_t shape[2] = {1, s->len_k};
        array mask = array_dense(ATTN_BOOL, 2, shape);
        mask.memory.data[2] = 0;
        g.f.o.mask = &mask.view;
        for (int64_t b = 0; b < s->batch; b++) {
            for (int64_t h = 0; h < s->heads_kv; h++) {
                poison_row(&g.f.k.view, b, h, 2);
                poison_row(&g.f.v.view, b, h, 2);
            }
        }
        for (int64_t h = 0; h < s->heads_q; h++) {
            for (int64_t i = 0; i < s->len_q; i++) {
                view_set(&g.bias.view, h, i, 2, 0, NAN);
            }
        }
        grad_fixture_run(&g);
        assert_true(all_finite(&g));
        for (int64_t b = 0; b < s->batch; b++) {
            for (int64_t h = 0; h < s->heads_kv; h++) {
                assert_true(all_zero(&g.gradient[GRAD_K].view, b, h, 2));
                assert_true(all_zero(&g.gradient[GRAD_V].view, b, h, 2));
            }
        }
        array_free(&mask);
    }
}

/* Rows and keys beyond the lengths hold NaN and get gradient 0. */
static void beyond_the_lengths_nothing_is_read_and_zero_is_written(void **state)
{
    (void)state;
    FOR_EACH_GRAD(g)
    {
        const fixture_size *s = &g.f.size;
        int64_t rows[8], keys[8];
        for (int64_t b = 0; b < s->batch; b++) {
            rows[b] = s->len_q - 1 - b;
            keys[b] = s->len_k - 2 - b;
            for (int64_t h = 0; h < s->heads_q; h++) {
                for (int64_t i = rows[b]; i < s->len_q; i++) {
                    poison_row(&g.f.q.view, b, h, i);
                    poison_row(&g.dout.view, b, h, i);
                    view_set(&g.dlse.view, b, h, i, 0, NAN);
                }
            }
            for (int64_t h = 0; h < s->heads_kv; h++) {
                for (int64_t j = keys[b]; j < s->len_k; j++) {
                    poison_row(&g.f.k.view, b, h, j);
                    poison_row(&g.f.v.view, b, h, j);
                }
            }
        }
        g.f.o.lengths_q = rows;
        g.f.o.lengths_k = keys;
        g.f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
        grad_fixture_run(&g);
        assert_true(all_finite(&g));
        for (int64_t b = 0; b < s->batch; b++) {
            for (int64_t i = rows[b]; i < s->len_q; i++) {
                assert_true(all_zero(&g.gradient[GRAD_Q].view, b, s->heads_q - 1, i));
            }
            for (int64_t j = keys[b]; j < s->len_k; j++) {
                assert_true(all_zero(&g.gradient[GRAD_K].view, b, s->heads_kv - 1, j));
                assert_true(all_zero(&g.gradient[GRAD_V].view, b, s->heads_kv - 1, j));
            }
        }
    }
}

/* A NaN in an attended v reaches dq of the rows that attend to it, and of no other row. */
static void an_attended_nan_stays_in_its_rows(void **state)
{
    (void)state;
    FOR_EACH_GRAD(g)
    {
        const fixture_size *s = &g.f.size;
        g.f.o.causal = ATTN_CAUSAL_TOP_LEFT;
        view_set(&g.f.v.view, 0, 0, 2, 1, NAN);
        grad_fixture_run(&g);
        for (int64_t h = 0; h < s->heads_q; h++) {
            for (int64_t i = 0; i < s->len_q; i++) {
                bool attends = h < s->heads_q / s->heads_kv && i >= 2;
                double dq = view_get(&g.gradient[GRAD_Q].view, 0, h, i, 0);
                assert_true(isnan(dq) == attends);
            }
        }
        for (int64_t j = 0; j < s->len_k; j++) { /* all that those rows attend to, nothing more */
            double dk = view_get(&g.gradient[GRAD_K].view, 0, 0, j, 0);
            assert_true(isnan(dk) == (s->len_q > 2 && j < s->len_q));
        }
    }
}

/* Sizes of 0: what there is of the gradients is 0. */
static void empty_calls_write_zeros(void **state)
{
    (void)state;
    for (int n = 0; n < 3; n++) {
        grad_fixture g;
        fixture_size size = {
            n == 2 ? ATTN_F64 : ATTN_F32, 2, 4, 2, n == 0 ? 0 : 3, n ? 0 : 5, 8, 6};
        grad_fixture_make(&g, &size);
        grad_fixture_run(&g);
        for (int which = 0; which < GRADS; which++) {
            attn_view flat = g.gradient[which].view;
            for (int64_t e = 0; e < g.gradient[which].elements; e++) {
                assert_true(oracle_load(&flat, e) == 0);
            }
        }
        grad_fixture_free(&g);
    }
}

/* What is not asked for changes nothing in what is, to the bit. */
static void any_gradient_alone_has_the_same_bits(void **state)
{
    (void)state;
    FOR_EACH_GRAD(g)
    {
        uint64_t hash[GRADS];
        g.f.o.softcap = 20;
        g.f.o.dropout = 0.2;
        grad_fixture_run(&g);
        for (int n = 0; n < GRADS; n++) {
            hash[n] = array_hash(&g.gradient[n]);
        }
        attn_sdpa_gradients all = g.wanted;
        for (int n = 0; n < GRADS; n++) {
            attn_view *one[GRADS] = {&g.wanted.dq,    &g.wanted.dk,     &g.wanted.dv,
                                     &g.wanted.dbias, &g.wanted.dsinks, &g.wanted.dalibi};
            for (int m = 0; m < GRADS; m++) {
                one[m]->dtype = m == n ? g.gradient[m].view.dtype : ATTN_DTYPE_NONE;
            }
            assert_int_equal(grad_fixture_backward(&g), ATTN_OK);
            assert_true(array_hash(&g.gradient[n]) == hash[n]);
        }
        g.wanted = all;
    }
}

/* Eight times as long, at most eight times the memory and a little; not the sixty-four times of a matrix of weights. */
static void memory_grows_with_the_length(void **state)
{
    (void)state;
    size_t scratch[2];
    for (int n = 0; n < 2; n++) {
        grad_fixture g;
        int64_t len = n ? 2048 : 256;
        fixture_size size = {ATTN_F32, 1, 2, 1, len, len, 16, 16};
        grad_fixture_make(&g, &size);
        array_free(&g.bias); /* itself N² */
        g.f.o.bias = NULL;
        g.wanted.dbias.dtype = ATTN_DTYPE_NONE;
        grad_fixture_run(&g);
        attn_context_trim(g.f.context);
        assert_int_equal(grad_fixture_backward(&g), ATTN_OK);
        scratch[n] = attn_context_scratch_bytes(g.f.context);
        grad_fixture_free(&g);
    }
    assert_true(scratch[1] < 8 * scratch[0] + 65536);
    assert_true(scratch[1] < (size_t)2048 * 2048 * sizeof(float) / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_with_nothing_to_attend_to_have_no_gradient),
        cmocka_unit_test(calls_that_attend_to_nothing_have_no_gradient),
        cmocka_unit_test(masked_slots_are_not_read),
        cmocka_unit_test(beyond_the_lengths_nothing_is_read_and_zero_is_written),
        cmocka_unit_test(an_attended_nan_stays_in_its_rows),
        cmocka_unit_test(empty_calls_write_zeros),
        cmocka_unit_test(any_gradient_alone_has_the_same_bits),
        cmocka_unit_test(memory_grows_with_the_length),
    };
    return cmocka_run_group_tests_name("grad rows", tests, NULL, NULL);
}
