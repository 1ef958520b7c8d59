/**
 * draws.h: what the tests of operations share: numbers that a seed repeats, and contexts of every level.
 */
#ifndef TESTS_UNIT_DRAWS_H
#define TESTS_UNIT_DRAWS_H

#include <attn/context.h>

/** Where the numbers are: set it to the run's seed, and they come again. */
extern uint64_t draw_state;

uint32_t next(void);
/** low … high, both included. */
int64_t between(int64_t low, int64_t high);
/** Roughly normal(0, 1). */
double normal(void);

/** `count` divided by ATTN_TEST_FRACTION, rounded up. */
int64_t fraction(int64_t count);

/** C, AVX2, AVX-512. */
enum { LEVELS = 3 };
extern const attn_isa levels[LEVELS];

/** A context of that level, or NULL where the machine or ATTN_ISA has less. */
attn_context *context_of(attn_isa isa, int threads);

/** The statement that follows, with a context of each level of `array` that there is. */
#define FOR_LEVELS(array, context, threads)                                       \
    for (size_t level_ = 0; level_ < sizeof array / sizeof *array; level_++)      \
        for (attn_context *context = context_of(array[level_], threads); context; \
             attn_context_destroy(context), context = NULL)

#define FOR_EACH_LEVEL(context, threads) FOR_LEVELS(levels, context, threads)

#endif
