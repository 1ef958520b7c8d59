/**
 * tensor_case.h: one operation (or a few) as a function of leaves, and what must hold for every one of them: gradients are the
 * finite differences', in f64; f32 agrees; the layout of the inputs and the number of threads change nothing.
 */
#ifndef TESTS_TENSOR_CASE_H
#define TESTS_TENSOR_CASE_H

#include <attn/tensor.h>

enum { CASE_LEAVES = 6 };

/** What values a leaf gets. Kinks (relu at 0, ties of max) are kept away from. */
typedef enum value_kind {
    NORMAL = 0,
    POSITIVE = 1, /* 0.5 … 2.5 */
    APART = 2,    /* distinct, and none within 0.05 of another or of 0 */
    CONSTANT = 4  /* or-ed: no gradient wanted */
} value_kind;

typedef attn_tensor *case_function(attn_tape *tape, attn_tensor *const *in);

typedef struct tensor_case {
    const char *name;
    case_function *function;
    int leaves;
    struct {
        int ndim;
        int64_t shape[4];
        int kind;
    } leaf[CASE_LEAVES];
    double f32; /* bound of |g32 − g64| / max|g64|; 0: 2e-5; negative: f64 alone */
} tensor_case;

/** Every check on one case; fails the cmocka test with a repro line. */
void tensor_case_check(const tensor_case *c, uint64_t seed);

#endif
