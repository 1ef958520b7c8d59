/*
 * expect.c: see expect.h.
 */
#include "expect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

void expect_ok(attn_status got)
{
    if (got != ATTN_OK) {
        fail_msg("%s: %s", attn_status_string(got), attn_last_error());
    }
}

void expect_error(attn_status got, attn_status wanted, const char *part)
{
    if (got != wanted || (wanted != ATTN_OK && !strstr(attn_last_error(), part))) {
        fail_msg("status %s, wanted %s with \"%s\" in: %s", attn_status_string(got),
                 attn_status_string(wanted), part, attn_last_error());
    }
}

bool error_has(const char *part)
{
    bool has = strstr(attn_last_error(), part) != NULL;
    if (!has) {
        print_error("wanted \"%s\" in: %s\n", part, attn_last_error());
    }
    return has;
}
