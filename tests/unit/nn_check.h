/**
 * nn_check.h: gradients of anything built on tensors, in f64, against finite differences.
 */
#ifndef TESTS_NN_CHECK_H
#define TESTS_NN_CHECK_H

#include <attn/nn.h>

/** Computes something from parameters that live elsewhere; the same every time. */
typedef attn_tensor *nn_forward(attn_tape *tape, void *user);

/** Fails the cmocka test, with the last error's text, unless the status is OK. */
void nn_ok(attn_status status, const char *what);

/** A context of `threads` threads. */
attn_context *nn_context(int threads);

/** cmocka's group setup and teardown, between which there is a context of two threads. */
int nn_start(void **unused);
int nn_stop(void **unused);
extern attn_context *context;

attn_tape *nn_tape(attn_context *of);

/** A GPT as GPT-2 is: LayerNorm, GELU, learned positions, biases. */
attn_gpt_options nn_gpt2_options(void);

/** A small GPT: 50 tokens, dim 32, 16 positions. */
attn_module *nn_gpt(attn_gpt_options options, int64_t layers);

/** An f32 or f64 tensor of normal numbers. */
attn_tensor *nn_random(attn_dtype dtype, uint64_t seed, int ndim, const int64_t *shape);

/** Gives every parameter values that nothing cancels in: normal(0, 0.3), around 1 where it was 1. */
void nn_shake(attn_module *module, uint64_t seed);

/**
 * loss = Σ out∘w with fixed random w: for some elements of every parameter of `module` (or NULL) and of inputs[count], the gradient is within
 * 1e-7 of the largest difference quotient of that tensor (or 1e-9 where all are smaller than 1e-2), and no tensor's gradient is all 0.
 */
void nn_check_gradients(attn_context *context, const char *what, nn_forward *forward, void *user,
                        attn_module *module, int count, attn_tensor *const *inputs);

#endif
