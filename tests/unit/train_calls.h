/**
 * train_calls.h: what the tests of attn/train_ops.h share: numbers, views, and the calls under numbers.
 */
#ifndef TESTS_UNIT_TRAIN_CALLS_H
#define TESTS_UNIT_TRAIN_CALLS_H

#include "draws.h"
#include "expect.h"

#include <attn/attn.h>

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

extern uint64_t train_seed;

/** cmocka's setup: the random numbers start from train_seed again. */
int train_start(void **unused);
/** Takes the seed from the command line. */
void train_arguments(int argc, char **argv);

void *bytes(size_t count);
/** Normal numbers around `offset`. */
double *doubles(int64_t n, double offset);
float *floats(int64_t n, double offset);
attn_view f32(const float *x, int64_t rows, int64_t n);
attn_view f64(const double *x, int64_t rows, int64_t n);

void close_to(double got, double wanted, double tolerance, const char *what);

/** The calls as functions from arrays to an array. */
enum {
    FORWARD = 0, /* 8 activations */
    BACKWARD = 8,
    SOFTMAX = 16, /* and its logarithm */
    SOFTMAX_BACKWARD = 18,
    CROSS_ENTROPY = 20,
    AXPBY = 21,
    DROPOUT = 22,
    CALLS = 23
};

/** out = call(a, b): a is data, b a gradient; out may be a or b where the call allows it. */
attn_status call(attn_context *context, int number, const attn_view *a, const attn_view *b,
                 const attn_view *out);

#endif
