/**
 * attn/optim.h: optimizers over tensors: AdamW, SGD with momentum, clipping, accumulation, schedules, state for checkpoints.
 */
#ifndef ATTN_OPTIM_H
#define ATTN_OPTIM_H

#include <attn/context.h>
#include <attn/nn.h>
#include <attn/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum attn_optimizer_kind {
    /** Loshchilov & Hutter 2019: m = β1·m + (1−β1)·g, v = β2·v + (1−β2)·g², p −= lr·( (m/(1−β1ᵗ)) / (√(v/(1−β2ᵗ)) + eps) + weight_decay·p ) */
    ATTN_OPTIMIZER_ADAMW = 0,
    /** m = momentum·m + g + weight_decay·p, p −= lr·m (the first step: m = g + weight_decay·p) */
    ATTN_OPTIMIZER_SGD = 1
} attn_optimizer_kind;

typedef struct attn_optimizer_options {
    size_t struct_size;
    attn_optimizer_kind kind;
    double beta1, beta2, eps; /**< ADAMW; defaults 0.9, 0.95, 1e-8 */
    double momentum;          /**< SGD; default 0 */
    double weight_decay;      /**< of the groups that decay; default 0.1 */
} attn_optimizer_options;

ATTN_API attn_optimizer_options attn_optimizer_options_init(void);

typedef struct attn_optimizer attn_optimizer;

/** The context must outlive the optimizer. options may be NULL. */
ATTN_API attn_status attn_optimizer_create(attn_context *context,
                                           const attn_optimizer_options *options,
                                           attn_optimizer **optimizer);
ATTN_API void attn_optimizer_destroy(attn_optimizer *optimizer);

/**
 * Adds one parameter (retained) under a name of its own, with its factor on the learning rate and its weight decay. State starts at 0.
 * ARGUMENT for a name or tensor that is there already.
 */
ATTN_API attn_status attn_optimizer_add(attn_optimizer *optimizer, const char *name,
                                        attn_tensor *parameter, double lr_scale,
                                        double weight_decay);

/** Adds every parameter of a module that requires a gradient: matrices with the options' weight_decay, what has one dimension (norms, biases) without. */
ATTN_API attn_status attn_optimizer_add_module(attn_optimizer *optimizer,
                                               const attn_module *module);

typedef struct attn_step_options {
    size_t struct_size;
    double lr;
    double
        grad_scale; /**< gradients are read times this, before clipping: 1/n after n backward passes; default 1 */
    double
        clip; /**< > 0: the global norm of all gradients is scaled down to this; default 0 (none) */
} attn_step_options;

ATTN_API attn_step_options attn_step_options_init(void);

/**
 * One step on the gradients that are there (a parameter without one is left alone). *norm (or NULL) receives the global norm of the scaled
 * gradients before clipping. A norm that is not finite: ARGUMENT, and nothing has changed. Gradients stay: clear them with
 * attn_optimizer_zero_grad. Bits do not depend on the number of threads.
 */
ATTN_API attn_status attn_optimizer_step(attn_optimizer *optimizer,
                                         const attn_step_options *options, double *norm);
ATTN_API void attn_optimizer_zero_grad(attn_optimizer *optimizer);

/** Steps done; set it when a run is resumed. */
ATTN_API int64_t attn_optimizer_steps(const attn_optimizer *optimizer);
ATTN_API attn_status attn_optimizer_set_steps(attn_optimizer *optimizer, int64_t steps);

/**
 * What a checkpoint must hold besides parameters and steps: "exp_avg.<name>" and "exp_avg_sq.<name>" for ADAMW, "momentum.<name>" for SGD with
 * momentum, shaped as the parameter. Views may be read and written (to import) between steps. Bytes of all of it: attn_optimizer_state_bytes.
 */
ATTN_API int attn_optimizer_state_count(const attn_optimizer *optimizer);
ATTN_API const char *attn_optimizer_state_name(const attn_optimizer *optimizer, int index);
ATTN_API attn_view attn_optimizer_state(const attn_optimizer *optimizer, int index);
ATTN_API size_t attn_optimizer_state_bytes(const attn_optimizer *optimizer);
/** Copies `values` (same type and shape) into the state of that name. */
ATTN_API attn_status attn_optimizer_set_state(attn_optimizer *optimizer, const char *name,
                                              const attn_view *values);

/**
 * Learning rate of step 0 ≤ step < total (Loshchilov & Hutter 2017): peak·(step + 1)/warmup while step < warmup, then
 * lowest + (peak − lowest)·(1 + cos(π·(step − warmup + 1)/(total − warmup)))/2, which is `lowest` at the last step, and `lowest` from then on.
 */
ATTN_API double attn_lr_cosine(int64_t step, int64_t warmup, int64_t total, double peak,
                               double lowest);

#ifdef __cplusplus
}
#endif
#endif
