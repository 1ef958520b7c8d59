/*
 * How a call runs: plan and scratch, explain, threads and bits, own executors, own allocators, and the
 * floating-point state it leaves behind.
 */
#include "fixture.h"
#include "sdpa_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ---- plan -------------------------------------------------------------------------------------- */

static attn_sdpa_plan_info plan_of(fixture *f)
{
    attn_sdpa_plan_info info = attn_sdpa_plan_info_init();
    attn_kv_view kv = attn_kv_view_init(f->k.view, f->v.view);
    attn_status s = attn_sdpa_plan(f->context, &f->o, &f->q.view, &kv, &f->out.view, &info);
    if (s != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return info;
}

static void the_plan_names_a_kernel_and_tasks(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        attn_sdpa_plan_info info = plan_of(&f);
        assert_true(info.kernel[0] != 0 && memchr(info.kernel, 0, sizeof info.kernel) != NULL);
        assert_true(info.tasks >= 1);
        assert_true(info.split >= 0);
        assert_true(info.scratch_bytes >= info.scratch_per_thread);
    }
}

static void the_planned_scratch_is_enough_and_nothing_beyond_it_is_touched(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_run(&f);
        uint64_t want = array_hash(&f.out);
        attn_sdpa_plan_info info = plan_of(&f);
        for (int right = 0; right < 2; right++) {
            block scratch = block_take(info.scratch_bytes, right, 64);
            f.o.scratch = scratch.data;
            f.o.scratch_size = info.scratch_bytes;
            attn_context_trim(f.context);
            fixture_run(&f);
            assert_true(array_hash(&f.out) == want);
            assert_true(attn_context_scratch_bytes(f.context) == 0);
            block_free(&scratch);
        }
    }
}

static void scratch_that_is_too_small_or_misaligned_is_refused(void **state)
{
    (void)state;
    fixture f = fixture_make(&fixture_sizes[2]);
    attn_sdpa_plan_info info = plan_of(&f);
    if (info.scratch_bytes > 0) {
        block scratch = block_take(info.scratch_bytes + 64, false, 64);
        f.o.scratch = scratch.data;
        f.o.scratch_size = info.scratch_bytes - 1;
        fixture_fails(&f, ATTN_ERR_CAPACITY, "scratch");
        f.o.scratch = scratch.data + 4;
        f.o.scratch_size = info.scratch_bytes + 60;
        fixture_fails(&f, ATTN_ERR_ARGUMENT, "scratch");
        block_free(&scratch);
    }
    fixture_free(&f);
}

/* Views of memory that is not there: planning reads no element. */
static attn_sdpa_plan_info plan_large(attn_context *context, attn_dtype type, int64_t len_q,
                                      int64_t len_k, int64_t dim)
{
    const uintptr_t far = (uintptr_t)1 << 40;
    attn_view q = attn_view_bhld((const void *)far, type, 1, 8, len_q, dim);
    attn_view k = attn_view_bhld((const void *)(2 * far), type, 1, 2, len_k, dim);
    attn_view out = attn_view_bhld((const void *)(3 * far), type, 1, 8, len_q, dim);
    attn_kv_view kv = attn_kv_view_init(k, k);
    attn_sdpa_plan_info info = attn_sdpa_plan_info_init();
    attn_status s = attn_sdpa_plan(context, NULL, &q, &kv, &out, &info);
    if (s != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return info;
}

static void scratch_per_thread_is_below_1_mib_at_any_length(void **state)
{
    (void)state;
    const attn_dtype types[] = {ATTN_F32, ATTN_BF16, ATTN_F16, ATTN_F64};
    attn_context *context = test_context(2);
    for (int t = 0; t < 4; t++) {
        for (int64_t n = 100; n <= 1000000; n *= 100) {
            for (int64_t dim = 64; dim <= 128; dim += 64) {
                attn_sdpa_plan_info full = plan_large(context, types[t], n, n, dim);
                attn_sdpa_plan_info decode = plan_large(context, types[t], 1, n, dim);
                assert_in_range(full.scratch_per_thread, 0, (1 << 20) - 1);
                assert_in_range(decode.scratch_per_thread, 0, (1 << 20) - 1);
                /* beside that: what is packed of the heads in flight, and split partials: O(len_k) */
                assert_in_range(full.scratch_bytes, 0,
                                (4 << 20) + (size_t)(n * dim) * 2 * 2 * 2 * 8);
                assert_in_range(decode.scratch_bytes, 0, (4 << 20) + (size_t)(n * dim) * 32);
            }
        }
    }
    attn_context_destroy(context);
}

static void explain_says_something_and_always_terminates_it(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        char text[400];
        attn_kv_view kv = attn_kv_view_init(f.k.view, f.v.view);
        memset(text, 'x', sizeof text);
        assert_int_equal(
            attn_sdpa_explain(f.context, &f.o, &f.q.view, &kv, &f.out.view, text, sizeof text),
            ATTN_OK);
        assert_non_null(memchr(text, 0, sizeof text));
        attn_sdpa_plan_info info = plan_of(&f);
        assert_non_null(strstr(text, info.kernel));
        memset(text, 'x', sizeof text);
        assert_int_equal(attn_sdpa_explain(f.context, &f.o, &f.q.view, &kv, &f.out.view, text, 5),
                         ATTN_OK);
        assert_int_equal(strlen(text), 4);
        assert_true(text[5] == 'x');
    }
}

/* ---- threads and bits -------------------------------------------------------------------------- */

static uint64_t bits_of(const sdpa_case *c)
{
    uint64_t bits = array_hash(&c->out);
    bits ^= c->options.lse ? 3 * array_hash(&c->lse) : 0;
    return bits ^ (c->options.weights ? 5 * array_hash(&c->weights) : 0);
}

static void bits_do_not_depend_on_threads_or_on_the_run(void **state)
{
    (void)state;
    const int threads[] = {1, 2, 3, 7, 7, 1};
    attn_context *contexts[6];
    uint64_t seed = test_seed();
    for (int t = 0; t < 6; t++) {
        contexts[t] = test_context(threads[t]);
    }
    for (int64_t n = 0; n < test_count(600); n++) {
        uint64_t want = 0;
        for (int t = 0; t < 6; t++) {
            sdpa_case c;
            sdpa_case_make(&c, CASE_FORWARD, seed ^ 0x7777, n, -1);
            if (sdpa_case_run(&c, contexts[t]) != ATTN_OK) {
                fail_msg("case %lld: %s", (long long)n, attn_last_error());
            }
            uint64_t got = bits_of(&c);
            char what[1024];
            sdpa_case_describe(&c, what, sizeof what);
            sdpa_case_free(&c);
            if (t > 0 && got != want) {
                fail_msg("case %lld, seed %llu: %d threads give other bits than 1: %s",
                         (long long)n, (unsigned long long)seed, threads[t], what);
            }
            want = got;
        }
    }
    for (int t = 0; t < 6; t++) {
        attn_context_destroy(contexts[t]);
    }
}

static void bits_do_not_depend_on_threads_for_long_sequences(void **state)
{
    (void)state;
    const fixture_size sizes[] = {{ATTN_F32, 1, 2, 1, 700, 900, 64, 64},
                                  {ATTN_F32, 1, 8, 2, 1, 20000, 64, 64},
                                  {ATTN_BF16, 1, 4, 2, 3, 9000, 32, 32}};
    for (int s = 0; s < 3; s++) {
        uint64_t want = 0;
        const int threads[] = {1, 2, 3, 7};
        for (int t = 0; t < 4; t++) {
            fixture f = fixture_make(&sizes[s]);
            f.o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
            attn_context_destroy(f.context);
            f.context = test_context(threads[t]);
            f.o.lse = &f.lse.view;
            assert_int_equal(
                attn_sdpa(f.context, &f.o, &f.q.view, &f.k.view, &f.v.view, &f.out.view), ATTN_OK);
            uint64_t got = array_hash(&f.out) ^ 3 * array_hash(&f.lse);
            assert_true(t == 0 || got == want);
            want = got;
            fixture_free(&f);
        }
    }
}

static void asking_for_lse_or_weights_does_not_change_out(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_run(&f);
        uint64_t with = array_hash(&f.out);
        f.o.lse = NULL;
        f.o.weights = NULL;
        array_wipe(&f.out);
        assert_int_equal(attn_sdpa(f.context, &f.o, &f.q.view, &f.k.view, &f.v.view, &f.out.view),
                         ATTN_OK);
        if (array_hash(&f.out) != with) { /* other paths may round otherwise, within the bound */
            attn_kv_view kv = oracle_kv(&f.k.view, &f.v.view);
            oracle_result want = oracle_sdpa(&f.o, &f.q.view, &kv, false);
            char text[400];
            assert_true(oracle_compare(&want, &f.out.view, NULL, NULL, 1, text, sizeof text));
            oracle_free(&want);
        }
    }
}

/* ---- own executor, own allocator --------------------------------------------------------------- */

typedef struct backwards {
    int64_t runs, tasks;
} backwards;

/* Tasks in reverse order on the calling thread, with changing worker numbers. */
static void run_backwards(void *user, int64_t count,
                          void (*task)(void *argument, int64_t index, int worker), void *argument)
{
    backwards *b = user;
    b->runs++;
    for (int64_t i = count - 1; i >= 0; i--) {
        b->tasks++;
        task(argument, i, (int)(i % 5));
    }
}

static void an_own_executor_runs_the_tasks(void **state)
{
    (void)state;
    FOR_EACH_SIZE(f)
    {
        fixture_run(&f);
        uint64_t want = array_hash(&f.out);
        attn_sdpa_plan_info info = plan_of(&f);
        backwards b = {0};
        attn_executor executor = {.threads = 5, .run = run_backwards, .user = &b};
        attn_context_options options = attn_context_options_init();
        options.executor = &executor;
        attn_context_destroy(f.context);
        assert_int_equal(attn_context_create(&options, &f.context), ATTN_OK);
        assert_int_equal(attn_context_threads(f.context), 5);
        fixture_check(&f);
        assert_true(array_hash(&f.out) == want);
        assert_true(b.runs > 0 || info.tasks == 1);
    }
}

typedef struct counter {
    int64_t calls;
    size_t bytes;
} counter;

static void *count_alloc(void *user, size_t size, size_t alignment)
{
    counter *c = user;
    void *memory = NULL;
    assert_true(size > 0 && alignment > 0 && (alignment & (alignment - 1)) == 0);
    assert_true(alignment <= 2u << 20);
    c->calls++;
    c->bytes += size;
    return posix_memalign(&memory, alignment < 16 ? 16 : alignment, size) == 0 ? memory : NULL;
}

static void count_free(void *user, void *pointer, size_t size)
{
    counter *c = user;
    assert_non_null(pointer);
    c->bytes -= size;
    free(pointer);
}

static void an_own_allocator_gives_and_gets_back_all_memory(void **state)
{
    (void)state;
    counter c = {0};
    FOR_EACH_SIZE(f)
    {
        attn_allocator allocator = {count_alloc, count_free, &c};
        attn_context_options options = attn_context_options_init();
        options.allocator = &allocator;
        options.threads = 2;
        attn_context_destroy(f.context);
        assert_int_equal(attn_context_create(&options, &f.context), ATTN_OK);
        fixture_run(&f);
        int64_t calls = c.calls;
        assert_true(calls > 0);
        fixture_run(&f); /* scratch is kept */
        assert_true(c.calls == calls);
        assert_in_range(attn_context_scratch_bytes(f.context), 0, c.bytes);
        attn_context_trim(f.context);
        assert_int_equal(attn_context_scratch_bytes(f.context), 0);
        fixture_run(&f);
    }
    assert_int_equal(c.bytes, 0);
}

/* ---- the floating-point state ------------------------------------------------------------------ */

static void the_floating_point_state_of_the_caller_is_restored(void **state)
{
    (void)state;
#if defined(__x86_64__)
    const unsigned modes[] = {_MM_ROUND_NEAREST, _MM_ROUND_NEAREST | 0x8040};
    unsigned saved = _mm_getcsr();
    for (int m = 0; m < 2; m++) {
        FOR_EACH_SIZE(f)
        {
            /* control bits: masks, rounding, FTZ, DAZ; the low six are sticky flags */
            _mm_setcsr((saved & ~0x803fu & ~0x40u) | modes[m]);
            unsigned before = _mm_getcsr() & ~0x3fu;
            f.o.lse = &f.lse.view;
            attn_status s =
                attn_sdpa(f.context, &f.o, &f.q.view, &f.k.view, &f.v.view, &f.out.view);
            unsigned after = _mm_getcsr() & ~0x3fu;
            _mm_setcsr(saved);
            assert_int_equal(s, ATTN_OK);
            assert_int_equal(after, before);
        }
    }
#endif
    volatile double tiny = 0x1p-1022;
    assert_true(tiny / 4 > 0); /* subnormals still exist out here */
}

static void subnormal_inputs_count_as_zero_in_float32_and_not_in_float64(void **state)
{
    (void)state;
    float w[2];
    float lse;
    attn_sdpa_options o = attn_sdpa_options_init();
    o.has_scale = true;
    o.scale = 1e38;
    weights_of_scores((const float[]){0x1p-127F, 0}, 2, &o, w, &lse);
    assert_true(w[0] == 0.5F && w[1] == 0.5F);
    fixture f = fixture_make(&(fixture_size){ATTN_F64, 1, 1, 1, 1, 2, 1, 1});
    view_set(&f.q.view, 0, 0, 0, 0, 1);
    view_set(&f.k.view, 0, 0, 0, 0, 0x1p-1030);
    view_set(&f.k.view, 0, 0, 1, 0, 0);
    f.o.has_scale = true;
    f.o.scale = 0x1p1022;
    fixture_check(&f); /* 2^-8 apart */
    assert_true(view_get(&f.weights.view, 0, 0, 0, 0) > 0.5);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_names_a_kernel_and_tasks),
        cmocka_unit_test(the_planned_scratch_is_enough_and_nothing_beyond_it_is_touched),
        cmocka_unit_test(scratch_that_is_too_small_or_misaligned_is_refused),
        cmocka_unit_test(scratch_per_thread_is_below_1_mib_at_any_length),
        cmocka_unit_test(explain_says_something_and_always_terminates_it),
        cmocka_unit_test(bits_do_not_depend_on_threads_or_on_the_run),
        cmocka_unit_test(bits_do_not_depend_on_threads_for_long_sequences),
        cmocka_unit_test(asking_for_lse_or_weights_does_not_change_out),
        cmocka_unit_test(an_own_executor_runs_the_tasks),
        cmocka_unit_test(an_own_allocator_gives_and_gets_back_all_memory),
        cmocka_unit_test(the_floating_point_state_of_the_caller_is_restored),
        cmocka_unit_test(subnormal_inputs_count_as_zero_in_float32_and_not_in_float64),
    };
    return cmocka_run_group_tests_name("sdpa runs", tests, NULL, NULL);
}
