/**
 * train_calls.h: what the tests of attn/train_ops.h share: numbers, views, and the calls under numbers.
 */
#ifndef TESTS_UNIT_TRAIN_CALLS_H
#define TESTS_UNIT_TRAIN_CALLS_H

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

uint32_t next(void);
double normal(void);

enum { LEVELS = 3 };
extern const attn_isa levels[LEVELS];
/** NULL where the machine (or ATTN_ISA) lacks the level. */
attn_context *context_of(attn_isa isa, int threads);

void *bytes(size_t count);
/** Normal numbers around `offset`. */
double *doubles(int64_t n, double offset);
float *floats(int64_t n, double offset);
attn_view f32(const float *x, int64_t rows, int64_t n);
attn_view f64(const double *x, int64_t rows, int64_t n);

void close_to(double got, double wanted, double tolerance, const char *what);
void expect(attn_status got, attn_status wanted, const char *word);
void ok(attn_status status);

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
