/* attn/base.h and attn/view.h: pinned values, types, names, error text, the log sink, views. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include <attn/attn.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void status_values_are_pinned(void **state)
{
    (void)state;
    static const attn_status all[] = {ATTN_OK,
                                      ATTN_ERR_SHAPE,
                                      ATTN_ERR_DTYPE,
                                      ATTN_ERR_ARGUMENT,
                                      ATTN_ERR_UNSUPPORTED,
                                      ATTN_ERR_CAPACITY,
                                      ATTN_ERR_NO_MEMORY,
                                      ATTN_ERR_IO,
                                      ATTN_ERR_FORMAT,
                                      ATTN_ERR_CANCELLED};
    for (int n = 0; n < 10; n++) {
        assert_int_equal(all[n], n);
        for (int m = 0; m < n; m++) {
            assert_string_not_equal(attn_status_string(all[n]), attn_status_string(all[m]));
        }
    }
    assert_string_equal(attn_status_string(ATTN_OK), "ok");
    assert_string_equal(attn_status_string(ATTN_ERR_SHAPE), "shape");
    assert_true(attn_status_string((attn_status)1000)[0] != 0);
}

static void element_types_have_sizes_and_names(void **state)
{
    (void)state;
    static const struct {
        int type;
        size_t size;
        const char *name;
    } all[] = {{ATTN_F32, 4, "f32"}, {ATTN_F64, 8, "f64"},   {ATTN_BF16, 2, "bf16"},
               {ATTN_F16, 2, "f16"}, {ATTN_BOOL, 1, "bool"}, {ATTN_DTYPE_NONE, 0, "none"},
               {6, 0, "invalid"},    {-1, 0, "invalid"},     {1000, 0, "invalid"}};
    for (size_t n = 0; n < sizeof all / sizeof *all; n++) {
        assert_int_equal(attn_dtype_size((attn_dtype)all[n].type), all[n].size);
        assert_string_equal(attn_dtype_name((attn_dtype)all[n].type), all[n].name);
    }
    assert_int_equal(ATTN_F32, 1);
    assert_int_equal(ATTN_BOOL, 5);
}

static void the_version_is_the_headers(void **state)
{
    (void)state;
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", ATTN_VERSION_MAJOR, ATTN_VERSION_MINOR,
             ATTN_VERSION_PATCH);
    assert_string_equal(attn_version(), ATTN_VERSION_STRING);
    assert_string_equal(attn_version(), text);
}

/* ---- error text -------------------------------------------------------------------------------- */

static void *other_thread(void *argument)
{
    bool *ok = argument;
    *ok = strcmp(attn_last_error(), "") == 0;
    attn_fail(ATTN_ERR_IO, "the other thread's");
    *ok = *ok && strcmp(attn_last_error(), "the other thread's") == 0;
    return NULL;
}

static void last_error_belongs_to_its_thread(void **state)
{
    (void)state;
    pthread_t thread;
    bool ok = false;
    assert_int_equal(attn_fail(ATTN_ERR_SHAPE, "q: %d is not %s", 3, "four"), ATTN_ERR_SHAPE);
    assert_string_equal(attn_last_error(), "q: 3 is not four");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, &ok), 0);
    pthread_join(thread, NULL);
    assert_true(ok);
    assert_string_equal(attn_last_error(), "q: 3 is not four");
}

static void a_success_leaves_the_error_text_alone(void **state)
{
    (void)state;
    attn_isa isa;
    attn_fail(ATTN_ERR_SHAPE, "still here");
    assert_int_equal(attn_isa_parse("avx2", &isa), ATTN_OK);
    assert_string_equal(attn_last_error(), "still here");
}

static void long_error_texts_are_cut(void **state)
{
    (void)state;
    char text[4000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    attn_fail(ATTN_ERR_SHAPE, "%s", text);
    assert_int_equal(strlen(attn_last_error()), 1023);
    attn_fail(ATTN_ERR_SHAPE, "%s and %s", attn_last_error(),
              "more"); /* its own text as argument */
    assert_true(strlen(attn_last_error()) <= 1023);
}

/* ---- log sink ---------------------------------------------------------------------------------- */

typedef struct lines {
    int count;
    bool whole;
} lines;

static void collect(void *user, const char *line)
{
    lines *l = user;
    l->count++;
    l->whole = l->whole && line[0] != 0 && !strchr(line, '\n');
}

static attn_status attend_once(void)
{
    float x[4] = {1, 2, 3, 4};
    float y[4];
    attn_context *context = NULL;
    attn_view in = attn_view_bhld(x, ATTN_F32, 1, 1, 2, 2);
    attn_view out = attn_view_bhld(y, ATTN_F32, 1, 1, 2, 2);
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        status = attn_sdpa(context, NULL, &in, &in, &in, &out);
    }
    attn_context_destroy(context);
    return status;
}

/* Not set in the environment: not a line; main() sets ATTN_VERBOSE=1 before anything else. */
static void verbose_calls_tell_a_line_to_the_sink(void **state)
{
    (void)state;
    lines l = {.whole = true};
    attn_set_log_sink(collect, &l);
    assert_int_equal(attend_once(), ATTN_OK);
    attn_set_log_sink(NULL, NULL);
    assert_true(l.count > 0);
    assert_true(l.whole);
}

/* ---- views ------------------------------------------------------------------------------------- */

static void dense_views_are_row_major(void **state)
{
    (void)state;
    static float x[120];
    const int64_t shape[4] = {2, 3, 4, 5};
    for (int ndim = 1; ndim <= 4; ndim++) {
        attn_view v = attn_view_dense(x, ATTN_F32, ndim, shape);
        int64_t stride = 1;
        assert_ptr_equal(v.data, x);
        assert_int_equal(v.dtype, ATTN_F32);
        assert_int_equal(v.ndim, ndim);
        for (int d = ndim - 1; d >= 0; d--) {
            assert_int_equal(v.shape[d], shape[d]);
            assert_int_equal(v.stride[d], stride);
            stride *= shape[d];
        }
    }
}

static void views_of_other_dimension_counts_are_empty(void **state)
{
    (void)state;
    const int64_t shape[6] = {1, 1, 1, 1, 1, 1};
    const int counts[] = {0, -1, 5, 6};
    for (int n = 0; n < 4; n++) {
        attn_view v = attn_view_dense(shape, ATTN_F32, counts[n], shape);
        assert_int_equal(v.dtype, ATTN_DTYPE_NONE);
        assert_null(v.data);
        assert_int_equal(v.ndim, 0);
    }
}

static void both_layouts_give_the_same_logical_shape(void **state)
{
    (void)state;
    static uint16_t x[2 * 3 * 4 * 5];
    attn_view a = attn_view_bhld(x, ATTN_F16, 2, 3, 4, 5);
    attn_view b = attn_view_blhd(x, ATTN_F16, 2, 4, 3, 5);
    for (int d = 0; d < 4; d++) {
        assert_int_equal(a.shape[d], ((const int64_t[]){2, 3, 4, 5})[d]);
        assert_int_equal(b.shape[d], ((const int64_t[]){2, 3, 4, 5})[d]);
        assert_int_equal(a.stride[d], ((const int64_t[]){60, 20, 5, 1})[d]);
        assert_int_equal(b.stride[d], ((const int64_t[]){60, 5, 15, 1})[d]);
    }
}

static void matrices_have_a_row_stride(void **state)
{
    (void)state;
    static float x[21];
    attn_view m = attn_view_matrix(x, ATTN_F32, 3, 5, 7);
    assert_int_equal(m.ndim, 2);
    assert_int_equal(m.shape[0], 3);
    assert_int_equal(m.shape[1], 5);
    assert_int_equal(m.stride[0], 7);
    assert_int_equal(m.stride[1], 1);
}

static void plain_arrays_are_kv_views_with_every_slot_held(void **state)
{
    (void)state;
    static float x[120];
    attn_view k = attn_view_bhld(x, ATTN_F32, 2, 3, 4, 5);
    attn_kv_view kv = attn_kv_view_init(k, k);
    assert_int_equal(kv.struct_size, sizeof kv);
    assert_null(kv.length);
    assert_null(kv.first);
    assert_int_equal(kv.ring, 0);
    assert_memory_equal(&kv.k, &k, sizeof k);
}

static void init_functions_give_zeroed_structs_of_their_size(void **state)
{
    (void)state;
    attn_sdpa_options o = attn_sdpa_options_init();
    attn_context_options c = attn_context_options_init();
    attn_sdpa_plan_info p = attn_sdpa_plan_info_init();
    attn_sdpa_options zero = {.struct_size = sizeof zero};
    assert_int_equal(o.struct_size, sizeof o);
    assert_int_equal(c.struct_size, sizeof c);
    assert_int_equal(p.struct_size, sizeof p);
    assert_memory_equal(&o, &zero, sizeof o); /* a zeroed tail means defaults */
    assert_int_equal(c.threads, 0);
    assert_int_equal(c.isa, ATTN_ISA_AUTO);
    assert_null(c.executor);
    assert_null(c.allocator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_values_are_pinned),
        cmocka_unit_test(element_types_have_sizes_and_names),
        cmocka_unit_test(the_version_is_the_headers),
        cmocka_unit_test(last_error_belongs_to_its_thread),
        cmocka_unit_test(a_success_leaves_the_error_text_alone),
        cmocka_unit_test(long_error_texts_are_cut),
        cmocka_unit_test(verbose_calls_tell_a_line_to_the_sink),
        cmocka_unit_test(dense_views_are_row_major),
        cmocka_unit_test(views_of_other_dimension_counts_are_empty),
        cmocka_unit_test(both_layouts_give_the_same_logical_shape),
        cmocka_unit_test(matrices_have_a_row_stride),
        cmocka_unit_test(plain_arrays_are_kv_views_with_every_slot_held),
        cmocka_unit_test(init_functions_give_zeroed_structs_of_their_size),
    };
    setenv("ATTN_VERBOSE", "1", 1);
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
