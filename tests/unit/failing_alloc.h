/**
 * failing_alloc.h: the n-th allocation fails, and nothing may crash, leak or stay silent. The C library's
 * allocation functions are replaced in the program under test with the linker's --wrap, so that
 * every allocation of the libraries is seen, from whatever thread.
 */
#ifndef TESTS_FAILING_ALLOC_H
#define TESTS_FAILING_ALLOC_H

#include <attn/base.h>

/** Does something from creation to destruction; the status of the first step that failed. */
typedef attn_status scenario(void);

/**
 * Runs `run` without failures, then with the n-th allocation failing for n = 1 … 200 (as far as there are as many),
 * then for 200 random n. Each time: no leak; OK only when what failed could be done without; a failure is
 * NO_MEMORY with a text. Fails the cmocka test otherwise, with a line that repeats it.
 */
void fail_every_allocation(const char *program, const char *name, scenario *run);

#endif
