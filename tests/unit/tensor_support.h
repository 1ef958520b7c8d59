/**
 * tensor_support.h: a tape for each test, leaves with random numbers, and what failures must say.
 */
#ifndef TESTS_TENSOR_SUPPORT_H
#define TESTS_TENSOR_SUPPORT_H

#include <attn/tensor.h>

/* Set up and taken down around every test. */
extern attn_context *context;
extern attn_tape *tape;
int tape_setup(void **state);
int tape_teardown(void **state);

/** [s0, s1, s2] of normal numbers, wants a gradient. */
attn_tensor *leaf(int ndim, int64_t s0, int64_t s1, int64_t s2, uint64_t seed);
/** Element i of a dense tensor. */
float at(const attn_tensor *t, int64_t i);
/** got is wanted, and attn_last_error says every word. */
void expect_status(attn_status got, attn_status wanted, const char *const *words, int count);

/* What the tape's status is, with words of its text; then the tape is cleared. */
#define EXPECT_FAILED(result, status, ...)                    \
    do {                                                      \
        const char *const words_[] = {__VA_ARGS__};           \
        assert_null(result);                                  \
        expect_status(attn_tape_status(tape), status, words_, \
                      (int)(sizeof words_ / sizeof *words_)); \
        attn_tape_clear(tape);                                \
        assert_int_equal(attn_tape_status(tape), ATTN_OK);    \
    } while (0)

#define EXPECT_STATUS(call, status, ...)                                              \
    do {                                                                              \
        const char *const words_[] = {__VA_ARGS__};                                   \
        expect_status((call), status, words_, (int)(sizeof words_ / sizeof *words_)); \
    } while (0)

#endif
