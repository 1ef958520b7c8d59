/**
 * grad_fixture.h: one backward call with every option that has a gradient, for named tests.
 */
#ifndef TESTS_GRAD_FIXTURE_H
#define TESTS_GRAD_FIXTURE_H

#include "fixture.h"
#include "grad_case.h"

typedef struct grad_fixture {
    fixture f; /* forward; f.o has bias, sinks and alibi */
    array bias, sinks, alibi, dout, dlse, gradient[GRADS];
    attn_sdpa_options o; /* backward's */
    attn_sdpa_gradients wanted;
} grad_fixture;

/** Allocates and fills with normal numbers; bias is [heads_q, len_q, len_k]. Points into itself: do not copy. */
void grad_fixture_make(grad_fixture *g, const fixture_size *size);
void grad_fixture_free(grad_fixture *g);

/** Forward with f.o, then backward; both must succeed. Whoever changes f.o changes both. */
void grad_fixture_run(grad_fixture *g);

/** Backward must fail with `status` and a text that has `word` in it, and write nothing. */
void grad_fixture_fails(grad_fixture *g, attn_status status, const char *word);

attn_status grad_fixture_backward(grad_fixture *g);

#endif
