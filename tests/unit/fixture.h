/**
 * fixture.h: one attention call for the named tests of the contract: arrays of normal numbers, all
 * outputs, a context. Tests run over `fixture_sizes`, which reach every path of the library:
 * few rows (decode), many rows with tiles that do not fill up, groups of heads, float64, 16 bits.
 */
#ifndef TESTS_FIXTURE_H
#define TESTS_FIXTURE_H

#include "expect.h"
#include "oracle.h"
#include "support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

typedef struct fixture_size {
    attn_dtype type;
    int64_t batch, heads_q, heads_kv, len_q, len_k, dim_qk, dim_v;
} fixture_size;

enum { FIXTURE_SIZES = 8 };
extern const fixture_size fixture_sizes[FIXTURE_SIZES];

typedef struct fixture {
    attn_context *context;
    rng random;
    fixture_size size;
    attn_sdpa_options o;
    array q, k, v, out, lse, weights;
} fixture;

/** Allocates and fills with normal numbers; lse and weights are asked for. */
fixture fixture_make(const fixture_size *size);
void fixture_free(fixture *f);

/** Wipes the outputs and runs attn_sdpa, which must succeed. */
void fixture_run(fixture *f);

/** Runs and compares every output with the oracle. */
void fixture_check(fixture *f);

/** Runs attn_sdpa, which must fail with `status` and a text that has `word` in it, and write nothing. */
void fixture_fails(fixture *f, attn_status status, const char *word);

/** Bits of one row of out, lse included, as a hash. */
uint64_t fixture_row_bits(const fixture *f, int64_t b, int64_t h, int64_t i);

/** Weights of one query with the given scores: scale 1, dim 1, v = 0, one head. `o` may be NULL. */
void weights_of_scores(const float *scores, int count, const attn_sdpa_options *o, float *weights,
                       float *lse);

/** Fills the view of a boolean or float array from `rule(i, j)`-free data: element by element. */
array array_from(attn_dtype type, int ndim, const int64_t *shape, const double *values);

#define FOR_EACH_SIZE(f)                                \
    for (int size_ = 0; size_ < FIXTURE_SIZES; size_++) \
        for (fixture f = fixture_make(&fixture_sizes[size_]); f.context; fixture_free(&f))

#endif
