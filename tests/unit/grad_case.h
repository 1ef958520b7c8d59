/**
 * grad_case.h: a random attention call with what flows back into it and where its gradients go.
 */
#ifndef TESTS_GRAD_CASE_H
#define TESTS_GRAD_CASE_H

#include "sdpa_case.h"

/** The gradients, in the order of attn_sdpa_gradients. */
enum { GRAD_Q, GRAD_K, GRAD_V, GRAD_BIAS, GRAD_SINKS, GRAD_ALIBI, GRADS };
extern const char *const grad_names[GRADS];

typedef struct grad_case {
    sdpa_case forward; /* points into itself: do not copy a case */
    array dout, dlse, gradient[GRADS];
    attn_sdpa_options options; /* of backward: forward's without lse */
    attn_sdpa_gradients wanted;
} grad_case;

/**
 * Makes case number `index` of a seed. Gradients are mostly wanted, always in a smooth case; dout and dlse
 * hold NaN in rows that attend to nothing.
 */
void grad_case_make(grad_case *c, sdpa_case_kind kind, uint64_t seed, int64_t index, int have);
void grad_case_free(grad_case *c);

/** Runs forward, then backward. */
attn_status grad_case_run(grad_case *c, attn_context *context);

/** Backward alone, into outputs that are wiped. */
attn_status grad_case_backward(grad_case *c, attn_context *context);

/** The view of gradient `which` in `wanted`. */
attn_view *grad_case_view(grad_case *c, int which);

/** Whether row i attends to anything. */
bool grad_case_row_attends(const grad_case *c, int64_t b, int64_t h, int64_t i);

/** Compares with the oracle within the bounds of docs/numerics.md, and looks at the gaps. */
bool grad_case_check(grad_case *c, char *text, size_t size);

/** The largest error of this program's checks as a share of its bound; 16-bit gradients left out. */
double grad_largest_share(void);

#endif
