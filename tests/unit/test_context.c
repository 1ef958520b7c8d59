/* attn/context.h: levels and their words, contexts, threads, executors, scratch. */
#define _GNU_SOURCE /* sched_setaffinity */
#include <attn/attn.h>

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    attn_isa isa;
    const char *word;
} levels[] = {{ATTN_ISA_C, "c"},           {ATTN_ISA_AVX2, "avx2"},
              {ATTN_ISA_AVX512, "avx512"}, {ATTN_ISA_AVX512VNNI, "avx512vnni"},
              {ATTN_ISA_AMX, "amx"},       {ATTN_ISA_AVX512BF16, "avx512bf16"},
              {ATTN_ISA_NEON, "neon"}};
enum { LEVELS = sizeof levels / sizeof *levels };

static attn_status create(attn_isa isa, int threads, attn_context **context)
{
    attn_context_options options = attn_context_options_init();
    options.isa = isa;
    options.threads = threads;
    *context = (attn_context *)(uintptr_t)1;
    return attn_context_create(&options, context);
}

static void every_level_has_a_word(void **state)
{
    (void)state;
    attn_isa isa;
    for (int n = 0; n < LEVELS; n++) {
        assert_string_equal(attn_isa_name(levels[n].isa), levels[n].word);
        assert_int_equal(attn_isa_parse(levels[n].word, &isa), ATTN_OK);
        assert_int_equal(isa, levels[n].isa);
    }
    isa = ATTN_ISA_C;
    assert_int_equal(attn_isa_parse("", &isa), ATTN_OK);
    assert_int_equal(isa, ATTN_ISA_AUTO);
    assert_int_equal(attn_isa_parse("auto", &isa), ATTN_OK);
    assert_int_equal(isa, ATTN_ISA_AUTO);
}

static void a_wrong_word_lists_the_right_ones(void **state)
{
    (void)state;
    attn_isa isa;
    const char *wrong[] = {"sse", "AVX-512", "avx", "avx5122", "c "};
    for (int n = 0; n < 5; n++) {
        assert_int_equal(attn_isa_parse(wrong[n], &isa), ATTN_ERR_ARGUMENT);
        assert_non_null(strstr(attn_last_error(), wrong[n]));
        assert_non_null(strstr(attn_last_error(), "avx512"));
    }
    assert_int_equal(attn_isa_parse(NULL, &isa), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_isa_parse("c", NULL), ATTN_ERR_ARGUMENT);
}

static void defaults_take_the_best_level_and_all_processors(void **state)
{
    (void)state;
    attn_context *context = NULL;
    unsetenv("ATTN_ISA");
    assert_int_equal(attn_context_create(NULL, &context), ATTN_OK);
    assert_int_equal(attn_context_isa(context), attn_isa_detected());
    assert_int_equal(attn_context_threads(context), attn_available_processors());
    assert_int_equal(attn_context_scratch_bytes(context), 0);
    attn_context_destroy(context);
}

static void the_environment_caps_the_level(void **state)
{
    (void)state;
    attn_context *context = NULL;
    for (int n = 0; n < 4; n++) { /* c, avx2, avx512, avx512vnni */
        setenv("ATTN_ISA", levels[n].word, 1);
        assert_int_equal(attn_context_create(NULL, &context), ATTN_OK);
        assert_true(attn_context_isa(context) <= levels[n].isa);
        assert_true(attn_context_isa(context) == levels[n].isa ||
                    attn_isa_detected() < levels[n].isa);
        attn_context_destroy(context);
        assert_int_equal(create(ATTN_ISA_C, 1, &context), ATTN_OK); /* both caps hold */
        assert_int_equal(attn_context_isa(context), ATTN_ISA_C);
        attn_context_destroy(context);
    }
    setenv("ATTN_ISA", "fast", 1);
    assert_int_equal(create(ATTN_ISA_AUTO, 1, &context), ATTN_ERR_ARGUMENT);
    assert_null(context);
    assert_non_null(strstr(attn_last_error(), "ATTN_ISA"));
    assert_non_null(strstr(attn_last_error(), "fast"));
    unsetenv("ATTN_ISA");
}

static void bad_options_are_errors_and_leave_null(void **state)
{
    (void)state;
    attn_context *context = NULL;
    attn_context_options options = attn_context_options_init();
    assert_int_equal(create(ATTN_ISA_AUTO, -1, &context), ATTN_ERR_ARGUMENT);
    assert_null(context);
    assert_non_null(strstr(attn_last_error(), "threads"));
    assert_int_equal(create(ATTN_ISA_AUTO, 1000000, &context), ATTN_ERR_ARGUMENT);
    assert_null(context);
    assert_int_equal(create((attn_isa)7, 1, &context), ATTN_ERR_ARGUMENT);
    assert_null(context);
    assert_non_null(strstr(attn_last_error(), "isa"));
    assert_int_equal(attn_context_create(&options, NULL), ATTN_ERR_ARGUMENT);
    attn_executor executor = {.threads = 0, .run = NULL};
    options.executor = &executor;
    context = (attn_context *)(uintptr_t)1;
    assert_int_equal(attn_context_create(&options, &context), ATTN_ERR_ARGUMENT);
    assert_null(context);
    options = attn_context_options_init();
    options.struct_size = 1;
    context = (attn_context *)(uintptr_t)1;
    assert_int_equal(attn_context_create(&options, &context), ATTN_ERR_ARGUMENT);
    assert_null(context);
    attn_context_destroy(NULL);
}

static void available_processors_follow_the_affinity_mask(void **state)
{
    (void)state;
    cpu_set_t all;
    cpu_set_t one;
    int before = attn_available_processors();
    assert_true(before >= 1);
    if (sched_getaffinity(0, sizeof all, &all) != 0) {
        return;
    }
    assert_true(before <= CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int n = 0; n < CPU_SETSIZE && CPU_COUNT(&one) == 0; n++) {
        if (CPU_ISSET((size_t)n, &all)) {
            CPU_SET((size_t)n, &one);
        }
    }
    if (sched_setaffinity(0, sizeof one, &one) == 0) {
        assert_int_equal(attn_available_processors(), 1);
        sched_setaffinity(0, sizeof all, &all);
    }
}

/* ---- attn_parallel_for ------------------------------------------------------------------------- */

enum { TASKS = 1000 };

typedef struct work {
    int done[TASKS];
    int busy[64];
    int collisions, threads;

} work;

static void task(void *argument, int64_t index, int worker)
{
    work *w = argument;
    if (worker < 0 || worker >= w->threads ||
        __atomic_fetch_add(&w->busy[worker], 1, __ATOMIC_SEQ_CST)) {
        __atomic_fetch_add(&w->collisions, 1, __ATOMIC_SEQ_CST);
    }
    for (volatile int n = 0; n < 200; n++) {
    }
    __atomic_fetch_add(&w->done[index], 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_sub(&w->busy[worker], 1, __ATOMIC_SEQ_CST);
}

static void every_task_runs_once_and_workers_do_not_collide(void **state)
{
    (void)state;
    const int64_t counts[] = {0, 1, 2, 7, 1000};
    for (int threads = 1; threads <= 7; threads += 2) {
        attn_context *context = NULL;
        assert_int_equal(create(ATTN_ISA_AUTO, threads, &context), ATTN_OK);
        assert_int_equal(attn_context_threads(context), threads);
        for (int repeat = 0; repeat < 20; repeat++) {
            for (int c = 0; c < 5; c++) {
                work w = {.threads = threads};
                assert_int_equal(attn_parallel_for(context, counts[c], task, &w), ATTN_OK);
                assert_int_equal(w.collisions, 0);
                for (int n = 0; n < TASKS; n++) {
                    assert_int_equal(w.done[n], n < counts[c]);
                }
            }
        }
        assert_int_equal(attn_parallel_for(context, -1, task, NULL), ATTN_ERR_ARGUMENT);
        assert_int_equal(attn_parallel_for(context, 1, NULL, NULL), ATTN_ERR_ARGUMENT);
        attn_context_destroy(context);
    }
    assert_int_equal(attn_parallel_for(NULL, 1, task, NULL), ATTN_ERR_ARGUMENT);
}

/* ---- several contexts at the same time --------------------------------------------------------- */

enum { LEN = 150, DIM = 32 };

static float shared_in[LEN * DIM];

static void *attend(void *argument)
{
    float *out = argument;
    attn_context *context = NULL;
    attn_view x = attn_view_bhld(shared_in, ATTN_F32, 1, 1, LEN, DIM);
    attn_view y = attn_view_bhld(out, ATTN_F32, 1, 1, LEN, DIM);
    if (create(ATTN_ISA_AUTO, 2, &context) != ATTN_OK) {
        return NULL;
    }
    for (int n = 0; n < 20; n++) {
        if (attn_sdpa(context, NULL, &x, &x, &x, &y) != ATTN_OK) {
            out[0] = -1000;
        }
        attn_context_trim(context);
    }
    attn_context_destroy(context);
    return NULL;
}

static void contexts_work_at_the_same_time(void **state)
{
    (void)state;
    static float out[5][LEN * DIM];
    pthread_t threads[4];
    for (int n = 0; n < LEN * DIM; n++) {
        shared_in[n] = (float)((n * 37) % 101) / 50 - 1;
    }
    attend(out[4]);
    for (int n = 0; n < 4; n++) {
        assert_int_equal(pthread_create(&threads[n], NULL, attend, out[n]), 0);
    }
    for (int n = 0; n < 4; n++) {
        pthread_join(threads[n], NULL);
        assert_memory_equal(out[n], out[4], sizeof out[4]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_work_at_the_same_time), /* first: before ATTN_ISA is changed */
        cmocka_unit_test(every_task_runs_once_and_workers_do_not_collide),
        cmocka_unit_test(available_processors_follow_the_affinity_mask),
        cmocka_unit_test(every_level_has_a_word),
        cmocka_unit_test(a_wrong_word_lists_the_right_ones),
        cmocka_unit_test(defaults_take_the_best_level_and_all_processors),
        cmocka_unit_test(the_environment_caps_the_level),
        cmocka_unit_test(bad_options_are_errors_and_leave_null),
    };
    return cmocka_run_group_tests_name("context", tests, NULL, NULL);
}
