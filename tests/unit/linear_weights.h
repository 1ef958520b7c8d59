/**
 * linear_weights.h: weights of every storage type, made up, and decoded a second time, independently of the library.
 */
#ifndef TESTS_UNIT_LINEAR_WEIGHTS_H
#define TESTS_UNIT_LINEAR_WEIGHTS_H

#include <attn/linear.h>

enum { LINEAR_TYPES = 6 };
extern const attn_weight_type linear_types[LINEAR_TYPES];

/** An f16, little-endian, in double. */
double half_value(const uint8_t *p);

/** Element k of a row. */
double weight_at(attn_weight_type type, const uint8_t *row, int64_t k);

/** rows × cols of the draws of draws.h, of a size that weights have; malloc'd. */
uint8_t *random_weights(attn_weight_type type, int64_t rows, int64_t cols);

#endif
