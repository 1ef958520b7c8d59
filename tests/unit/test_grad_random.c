/*
 * attn_sdpa_backward on random combinations of options and types, against gradients worked out in
 * float64, within the bounds of docs/numerics.md. Inputs are read-only and lie between inaccessible
 * pages, what no row attends to is NaN, gradients start as NaN and their gaps must stay so.
 */
#include "grad_case.h"
#include "oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PROGRAM "test_grad_random"

enum { CASES = 2000 };

static bool one_case(uint64_t seed, int64_t index)
{
    grad_case c;
    char text[400] = "";
    test_running(PROGRAM, seed, index);
    grad_case_make(&c, CASE_GRADIENT, seed, index, -1);
    attn_status status = grad_case_run(&c, test_contexts[index % TEST_CONTEXTS]);
    bool ok = status == ATTN_OK;
    if (!ok) {
        snprintf(text, sizeof text, "status %s: %s", attn_status_string(status), attn_last_error());
    } else {
        ok = grad_case_check(&c, text, sizeof text);
    }
    if (!ok) {
        sdpa_case_report(&c.forward, index, text);
    }
    grad_case_free(&c);
    return ok;
}

static void random_combinations_match_the_oracle(void **state)
{
    (void)state;
    int failures = test_cases(CASES, one_case);
    print_message("largest error: %.2f of its bound\n", grad_largest_share());
    assert_int_equal(failures, 0);
}

/* The same bits for 1, 2, 3 and 7 threads, for all types. */
static void threads_do_not_change_bits(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    uint64_t seed = test_seed() ^ 0x5a5a;
    attn_context *context[4];
    for (int n = 0; n < 4; n++) {
        context[n] = test_context(threads[n]);
    }
    for (int64_t index = 0; index < test_count(150); index++) {
        grad_case c;
        uint64_t first[GRADS] = {0};
        test_running(PROGRAM " (threads)", seed, index);
        grad_case_make(&c, CASE_GRADIENT, seed, index, -1);
        for (int n = 0; n < 4; n++) {
            attn_status status =
                n == 0 ? grad_case_run(&c, context[n]) : grad_case_backward(&c, context[n]);
            assert_int_equal(status, ATTN_OK);
            for (int g = 0; g < GRADS; g++) {
                uint64_t hash = c.gradient[g].memory.map ? array_hash(&c.gradient[g]) : 0;
                if (n > 0 && hash != first[g]) {
                    fail_msg("%s differs with %d threads; repeat with: %s", grad_names[g],
                             threads[n], test_repro());
                }
                first[g] = hash;
            }
        }
        grad_case_free(&c);
    }
    for (int n = 0; n < 4; n++) {
        attn_context_destroy(context[n]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_combinations_match_the_oracle),
        cmocka_unit_test(threads_do_not_change_bits),
    };
    return cmocka_run_group_tests_name("grad random", tests, test_contexts_make,
                                       test_contexts_free);
}
