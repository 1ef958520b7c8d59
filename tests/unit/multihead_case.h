/**
 * multihead_case.h: a layer of multi-head attention whose biases show, and the same layer written out in float64 loops.
 */
#ifndef TESTS_UNIT_MULTIHEAD_CASE_H
#define TESTS_UNIT_MULTIHEAD_CASE_H

#include "fixture.h"

#include <attn/multihead.h>

typedef struct layer {
    attn_context *context;
    attn_multihead *layer;
    int64_t embed, heads, kv_heads, kdim, vdim;
} layer;

/** Options of a layer of that size, seed 3. */
attn_multihead_options layer_sized(int64_t embed, int64_t heads);

/** The layer and a context of its own; biases are not zero. */
layer layer_make(attn_multihead_options o, int threads);
void layer_free(layer *l);

/** A cache that fits the layer. */
attn_kv_cache *layer_cache(const layer *l, int64_t batch, int64_t capacity, int64_t window,
                           int64_t most, attn_dtype dtype);

/** [batch, len, width] of normal numbers, strided anyhow. */
array layer_input(rng *random, int64_t batch, int64_t len, int64_t width);

/** Runs the layer, which must succeed. */
void layer_forward(const layer *l, const attn_multihead_forward_options *o, const attn_view *query,
                   const attn_view *key, const attn_view *value, const attn_view *out);

/** Which keys row i of head h of sequence b attends to. */
typedef bool (*sees)(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j);

typedef struct expected {
    double *out;     /* [batch, len_q, embed] */
    double *weights; /* [batch, heads, len_q, len_k] */
} expected;

/** The layer in loops. */
expected layer_in_loops(const layer *l, const attn_view *query, const attn_view *key,
                        const attn_view *value, sees rule, const void *what);
void expected_free(expected *e);

/** Every element within `most`. */
void layer_close_to(const attn_view *got, const double *want, double most);

#endif
