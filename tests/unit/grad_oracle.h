/**
 * grad_oracle.h: the gradients of attention in float64, as plainly as they can be said, with the
 * error that f32 arithmetic may make (docs/numerics.md). Written from the contract alone.
 */
#ifndef TESTS_GRAD_ORACLE_H
#define TESTS_GRAD_ORACLE_H

#include "grad_case.h"

/** One gradient, dense in its own shape, and how far from it a result may be. */
typedef struct grad_tensor {
    int ndim;
    int64_t shape[4], count;
    double *value, *allowed;
} grad_tensor;

typedef struct grad_result {
    grad_tensor of[GRADS]; /* count 0 where the call has no such input */
} grad_result;

grad_result grad_oracle(const grad_case *c);
void grad_oracle_free(grad_result *result);

#endif
