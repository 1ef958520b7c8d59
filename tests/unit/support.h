/**
 * support.h: what the attention tests share: random numbers with a seed that can be given, memory
 * between inaccessible pages, strided views over it, contexts, and the repro line of a failure.
 */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include <attn/attention.h>

/* ---- random numbers: splitmix64 (Steele et al. 2014); the same on every machine ---------------- */

typedef struct rng {
    uint64_t state;
} rng;

rng rng_seed(uint64_t seed, uint64_t stream);
uint64_t rng_next(rng *r);
/** 0 … n−1; n ≥ 1. */
int64_t rng_below(rng *r, int64_t n);
/** low … high, both included. */
int64_t rng_range(rng *r, int64_t low, int64_t high);
/** True in `percent` of 100 draws. */
bool rng_chance(rng *r, int percent);
double rng_uniform(rng *r);
double rng_normal(rng *r);

/* ---- environment ------------------------------------------------------------------------------- */

/** An integer from the environment, `otherwise` where it is not set. */
int64_t test_env(const char *name, int64_t otherwise);

/** ATTN_TEST_SEED, or this suite's own. */
uint64_t test_seed(void);

/** `count` divided by ATTN_TEST_FRACTION, at least 1. */
int64_t test_count(int64_t count);

/**
 * How many of `count` random cases fail, the first ten at most; or of the one that ATTN_TEST_CASE names. `one` runs
 * a case and says whether it passed.
 */
int test_cases(int64_t count, bool (*one)(uint64_t seed, int64_t index));

/** cmocka's group setup and teardown of test_contexts: of 1, 2 and 3 threads. */
int test_contexts_make(void **state);
int test_contexts_free(void **state);
enum { TEST_CONTEXTS = 3 };
extern attn_context *test_contexts[TEST_CONTEXTS];

/** A context of `threads` threads at the level ATTN_ISA allows; ends the program when there is none. */
attn_context *test_context(int threads);

/**
 * Names what is running, so that a crash prints a line that repeats it: `program` with
 * ATTN_TEST_SEED and ATTN_TEST_CASE set. Installs the handler on its first call.
 */
void test_running(const char *program, uint64_t seed, int64_t index);

/** The line that repeats what test_running was told last. */
const char *test_repro(void);

/* ---- memory ------------------------------------------------------------------------------------ */

/** Memory flush against an inaccessible page. */
typedef struct block {
    unsigned char *data; /* `bytes` of it may be touched */
    size_t bytes;
    void *map;
    size_t map_bytes;
} block;

/**
 * `bytes` bytes whose end (`right`) or start lies at an inaccessible page; with `right` the start is
 * moved down to a multiple of `align`, a power of two. Filled with 0xff: NaN in every float type.
 */
block block_take(size_t bytes, bool right, size_t align);
void block_read_only(const block *memory);
void block_free(block *memory);

/** A view and the memory under it. */
typedef struct array {
    attn_view view;
    block memory;
    int64_t elements; /* of memory */
    int64_t origin;   /* element of memory that view.data points to */
} array;

/** A dense array, filled with 0xff. */
array array_dense(attn_dtype dtype, int ndim, const int64_t *shape);

/**
 * An array with random strides: outer dimensions in either order, gaps, an odd start; inputs also
 * with zero (broadcast) and negative strides. `plain_percent` of draws are dense.
 */
array array_random(rng *r, attn_dtype dtype, int ndim, const int64_t *shape, bool input);
void array_free(array *a);

/** Fills every element of the view with independent normal numbers times `sigma`. */
void array_normal(array *a, rng *r, double sigma);

/** Element of a view. */
double view_get(const attn_view *v, int64_t i0, int64_t i1, int64_t i2, int64_t i3);
void view_set(const attn_view *v, int64_t i0, int64_t i1, int64_t i2, int64_t i3, double value);

/** Whether the bytes outside the view still are 0xff. */
bool array_gaps_intact(const array *a);

/** Refills all of the memory with 0xff. */
void array_wipe(array *a);

/** FNV-1a over the elements of the view's memory, gaps included. */
uint64_t array_hash(const array *a);

#endif
