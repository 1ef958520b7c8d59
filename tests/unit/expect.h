/**
 * expect.h: what tests ask of a status and of the text that goes with it.
 */
#ifndef TESTS_UNIT_EXPECT_H
#define TESTS_UNIT_EXPECT_H

#include <attn/base.h>

/** Fails the test with the last error's text unless the status is OK. */
void expect_ok(attn_status got);

/** Fails the test unless the status is `wanted`, and, where that is an error, its text has `part`. */
void expect_error(attn_status got, attn_status wanted, const char *part);

/** Whether the last error's text has `part`; prints both where not. */
bool error_has(const char *part);

#endif
