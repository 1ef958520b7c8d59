/*
 * attn_merge: partial results over disjoint keys give the whole; sinks are added once, there; all
 * parts −inf give 0 and −inf.
 */
#include "fixture.h"

#include <math.h>
#include <string.h>

enum { PARTS = 4 };

typedef struct parts {
    array out[PARTS], lse[PARTS];
    attn_view outs[PARTS], lses[PARTS];
    int64_t bounds[PARTS + 1];
} parts;

static attn_view slice(const attn_view *view, int64_t from, int64_t to)
{
    attn_view part = *view;
    part.data = (char *)part.data + (size_t)(from * part.stride[2]) * attn_dtype_size(part.dtype);
    part.shape[2] = to - from;
    return part;
}

/* Attention over `count` runs of the keys, without sinks, in the accumulation type. */
static parts attend_in_parts(fixture *f, const int64_t *bounds, int count)
{
    parts p;
    attn_dtype exact = f->size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    memset(&p, 0, sizeof p);
    for (int n = 0; n < count; n++) {
        attn_sdpa_options o = attn_sdpa_options_init();
        attn_view k = slice(&f->k.view, bounds[n], bounds[n + 1]);
        attn_view v = slice(&f->v.view, bounds[n], bounds[n + 1]);
        p.out[n] = array_dense(exact, 4, f->out.view.shape);
        p.lse[n] = array_dense(exact, 3, f->lse.view.shape);
        p.outs[n] = p.out[n].view;
        p.lses[n] = p.lse[n].view;
        o.lse = &p.lses[n];
        if (attn_sdpa(f->context, &o, &f->q.view, &k, &v, &p.outs[n]) != ATTN_OK) {
            fail_msg("%s", attn_last_error());
        }
    }
    return p;
}

static void free_parts(parts *p)
{
    for (int n = 0; n < PARTS; n++) {
        array_free(&p->out[n]);
        array_free(&p->lse[n]);
    }
}

static void check_merged(fixture *f, const parts *p, int count, const attn_view *sinks)
{
    char text[400];
    array_wipe(&f->out);
    array_wipe(&f->lse);
    if (attn_merge(f->context, count, p->outs, p->lses, sinks, &f->out.view, &f->lse.view) !=
        ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    f->o.sinks = sinks;
    attn_kv_view kv = oracle_kv(&f->k.view, &f->v.view);
    oracle_result want = oracle_sdpa(&f->o, &f->q.view, &kv, false);
    bool ok = oracle_compare(&want, &f->out.view, &f->lse.view, NULL, 2, text, sizeof text);
    oracle_free(&want);
    if (!ok) {
        fail_msg("%s", text);
    }
}

static void merged_parts_are_the_whole(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        int64_t n = f.size.len_k;
        const int64_t bounds[][PARTS + 1] = {
            {0, n}, {0, 1, n}, {0, n / 2, n / 2, n}, {0, 1, 2, n / 2, n}};
        for (int c = 0; c < PARTS; c++) {
            parts p = attend_in_parts(&f, bounds[c], c + 1); /* one of them may be empty */
            check_merged(&f, &p, c + 1, NULL);
            free_parts(&p);
        }
    }
}

static void sinks_are_added_once_in_the_merge(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        attn_dtype exact = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        array sinks = array_dense(exact, 1, &f.size.heads_q);
        array_normal(&sinks, &f.random, 2);
        const int64_t bounds[] = {0, f.size.len_k / 3, f.size.len_k};
        parts p = attend_in_parts(&f, bounds, 2);
        check_merged(&f, &p, 2, &sinks.view);
        free_parts(&p);
        array_free(&sinks);
    }
}

static void parts_that_saw_nothing_merge_to_zero(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        attn_dtype exact = f.size.type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        array sinks = array_dense(exact, 1, &f.size.heads_q);
        array_normal(&sinks, &f.random, 2);
        const int64_t bounds[] = {0, 0, 0, 0};
        for (int with = 0; with < 2; with++) {
            parts p = attend_in_parts(&f, bounds, 3);
            assert_int_equal(attn_merge(f.context, 3, p.outs, p.lses, with ? &sinks.view : NULL,
                                        &f.out.view, &f.lse.view),
                             ATTN_OK);
            for (int64_t n = 0; n < f.out.elements; n++) {
                assert_true(oracle_load(&f.out.view, n) == 0);
            }
            for (int64_t n = 0; n < f.lse.elements; n++) {
                assert_true(oracle_load(&f.lse.view, n) == -INFINITY);
            }
            free_parts(&p);
        }
        array_free(&sinks);
    }
}

static void far_apart_parts_do_not_overflow(void **state)
{
    (void)state;
    float out[3] = {1, 2, 3};
    float lse[3] = {-3e38F, 500, -INFINITY};
    float y = NAN;
    float l = NAN;
    attn_view outs[3];
    attn_view lses[3];
    for (int n = 0; n < 3; n++) {
        outs[n] = attn_view_bhld(&out[n], ATTN_F32, 1, 1, 1, 1);
        lses[n] = attn_view_dense(&lse[n], ATTN_F32, 3, (const int64_t[]){1, 1, 1});
    }
    attn_view vy = attn_view_bhld(&y, ATTN_F32, 1, 1, 1, 1);
    attn_view vl = attn_view_dense(&l, ATTN_F32, 3, (const int64_t[]){1, 1, 1});
    attn_context *context = test_context(1);
    assert_int_equal(attn_merge(context, 3, outs, lses, NULL, &vy, &vl), ATTN_OK);
    assert_true(y == 2 && l == 500);
    /* in place: out and lse are the first part's */
    assert_int_equal(attn_merge(context, 3, outs, lses, NULL, &outs[0], &lses[0]), ATTN_OK);
    assert_true(out[0] == 2 && lse[0] == 500);
    attn_context_destroy(context);
}

static void a_nan_part_stays_in_its_row(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[2]);
    const int64_t bounds[] = {0, 60, 131};
    parts p = attend_in_parts(&f, bounds, 2);
    check_merged(&f, &p, 2, NULL);
    uint64_t next = fixture_row_bits(&f, 0, 0, 2);
    view_set(&p.outs[1], 0, 0, 1, 0, NAN);
    assert_int_equal(attn_merge(f.context, 2, p.outs, p.lses, NULL, &f.out.view, &f.lse.view),
                     ATTN_OK);
    assert_true(isnan(view_get(&f.out.view, 0, 0, 1, 0)));
    assert_true(fixture_row_bits(&f, 0, 0, 2) == next);
    free_parts(&p);
    fixture_free(&f);
}

static void shapes_types_and_counts_are_checked(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[0]);
    const int64_t bounds[] = {0, 4, 9};
    parts p = attend_in_parts(&f, bounds, 2);
    attn_context *c = f.context;
    attn_view *out = &f.out.view;
    attn_view *lse = &f.lse.view;
    assert_int_equal(attn_merge(c, 0, p.outs, p.lses, NULL, out, lse), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_merge(c, -1, p.outs, p.lses, NULL, out, lse), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_merge(c, 2, NULL, p.lses, NULL, out, lse), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_merge(c, 2, p.outs, NULL, NULL, out, lse), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_merge(c, 2, p.outs, p.lses, NULL, NULL, lse), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_merge(NULL, 2, p.outs, p.lses, NULL, out, lse), ATTN_ERR_ARGUMENT);
    p.outs[1].shape[3] -= 1;
    assert_int_equal(attn_merge(c, 2, p.outs, p.lses, NULL, out, lse), ATTN_ERR_SHAPE);
    p.outs[1].shape[3] += 1;
    p.lses[0].shape[2] -= 1;
    assert_int_equal(attn_merge(c, 2, p.outs, p.lses, NULL, out, lse), ATTN_ERR_SHAPE);
    p.lses[0].shape[2] += 1;
    p.outs[0].dtype = ATTN_BF16;
    assert_int_equal(attn_merge(c, 2, p.outs, p.lses, NULL, out, lse), ATTN_ERR_DTYPE);
    p.outs[0].dtype = ATTN_F32;
    assert_int_equal(attn_merge(c, 2, p.outs, p.lses, NULL, out, NULL), ATTN_OK);
    free_parts(&p);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_parts_are_the_whole),
        cmocka_unit_test(sinks_are_added_once_in_the_merge),
        cmocka_unit_test(parts_that_saw_nothing_merge_to_zero),
        cmocka_unit_test(far_apart_parts_do_not_overflow),
        cmocka_unit_test(a_nan_part_stays_in_its_row),
        cmocka_unit_test(shapes_types_and_counts_are_checked),
    };
    return cmocka_run_group_tests_name("sdpa merge", tests, NULL, NULL);
}
