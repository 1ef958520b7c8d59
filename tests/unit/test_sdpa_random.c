/*
 * attn_sdpa and attn_sdpa_kv on thousands of random combinations of options, against the float64
 * oracle within the bounds of docs/numerics.md. Inputs are read-only and lie between inaccessible
 * pages, what no row attends to is NaN, outputs start as NaN and their gaps must stay so.
 */
#include "oracle.h"
#include "sdpa_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PROGRAM "test_sdpa_random"

enum { CASES = 6000 };

/* Every tenth call computes in the caller's scratch: exactly as much as the plan tells, fenced. */
static attn_status run_in_own_scratch(sdpa_case *c, attn_context *context)
{
    attn_sdpa_plan_info info = attn_sdpa_plan_info_init();
    attn_kv_view kv = attn_kv_view_init(c->k.view, c->v.view);
    attn_status status = attn_sdpa_plan(context, &c->options, &c->q.view, &kv, &c->out.view, &info);
    if (status != ATTN_OK) {
        return status;
    }
    block scratch = block_take(info.scratch_bytes, true, 64);
    c->options.scratch = scratch.data;
    c->options.scratch_size = info.scratch_bytes;
    status = sdpa_case_run(c, context);
    block_free(&scratch);
    return status;
}

static bool one_case(uint64_t seed, int64_t index)
{
    sdpa_case c;
    char text[400] = "";
    test_running(PROGRAM, seed, index);
    sdpa_case_make(&c, CASE_FORWARD, seed, index, -1);
    attn_context *context = test_contexts[index % TEST_CONTEXTS];
    attn_status status = index % 10 == 9 && !(c.have & CASE_CACHED)
                             ? run_in_own_scratch(&c, context)
                             : sdpa_case_run(&c, context);
    bool ok = status == ATTN_OK;
    if (!ok) {
        snprintf(text, sizeof text, "status %s: %s", attn_status_string(status), attn_last_error());
    } else {
        ok = sdpa_case_check(&c, text, sizeof text);
    }
    if (!ok) {
        sdpa_case_report(&c, index, text);
    }
    sdpa_case_free(&c);
    return ok;
}

static void random_combinations_match_the_oracle(void **state)
{
    (void)state;
    int failures = test_cases(CASES, one_case);
    print_message("largest error: %.2f of its bound\n", oracle_largest_share());
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_combinations_match_the_oracle)};
    return cmocka_run_group_tests_name("sdpa random", tests, test_contexts_make,
                                       test_contexts_free);
}
