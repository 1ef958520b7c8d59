/**
 * nn/layers.h: what the layers share: checks with their texts, and linear layers as models name and start them.
 */
#ifndef ATTN_NN_LAYERS_H
#define ATTN_NN_LAYERS_H

#include "nn/module.h"

/* value ≥ 1, or SHAPE with `example`. */
attn_status nn_positive(const char *name, int64_t value, const char *example);

/* *module = NULL; ARGUMENT where module is NULL itself. */
attn_status nn_no_place(attn_module **module);

/* The same, hung under `name`; transposed where the naming has it so. */
attn_status nn_add_linear(attn_module *parent, const char *name, const attn_nn_options *full,
                          int64_t in, int64_t out, bool bias, attn_naming naming, double gain,
                          attn_module **slot);

/* One of several linear layers that read the same x. */
typedef struct nn_linear_spec {
    const char *name;
    attn_nn_options options; /* its own seed */
    int64_t out;
    attn_module **slot;
} nn_linear_spec;

/* Hangs them under their names, with weights that attn_tensor_linear_joined takes as one (but for weights [in, out]). */
attn_status nn_add_linears(attn_module *parent, int count, const nn_linear_spec *specs, int64_t in,
                           bool bias, attn_naming naming);

/* *blocks of `parent`: `layers` of them, hung under `prefix` and their number; block i draws as child `seed` + i of `full`. */
attn_status nn_add_blocks(attn_module *parent, const char *prefix, int64_t layers,
                          const attn_nn_options *full, uint64_t seed,
                          const attn_nn_block_options *block, attn_module ***blocks);

/* Whether nn_joined can stand for attn_nn_linear on each: no adapters, weights [out, in]. */
bool nn_can_join(int count, attn_module *const *linears);

/* The results of linear layers side by side. */
attn_tensor *nn_joined(attn_tape *tape, int count, attn_module *const *linears, attn_tensor *x);

/* The module is there and of a kind, or the tape fails with a text. */
bool nn_is(attn_tape *tape, const attn_module *module, nn_kind kind);

/* Besides, x is there: NULL is no failure of its own. */
bool nn_ready(attn_tape *tape, const attn_module *module, nn_kind kind, const attn_tensor *x);

/* The last dimension of x is `size`, called `what` in the text. */
bool nn_last_is(attn_tape *tape, const attn_tensor *x, const char *layer, const char *what,
                int64_t size);

/* Fails the tape: NULL, for a caller to return. */
attn_tensor *nn_fail(attn_tape *tape, attn_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* p of a dropout, 0 ≤ p < 1. */
attn_status nn_check_dropout(double p);

/* x, or with some of it dropped where the module is in training mode. */
attn_tensor *nn_dropout(attn_tape *tape, const attn_module *module, attn_tensor *x, double p,
                        uint64_t seed);

#endif
