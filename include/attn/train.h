/**
 * attn/train.h: training a decoder on a text: windows drawn from tokens, steps, validation, checkpoints that resume to
 * identical bits.
 *
 *   attn_trainer_options options = attn_trainer_options_init();
 *   attn_trainer_create(context, &options, gpt, tokens, count, &trainer);
 *   while (attn_trainer_steps(trainer) < options.steps && attn_trainer_step(trainer, &result) == ATTN_OK) …
 *   attn_trainer_save(trainer, "model.safetensors", NULL, 0);
 */
#ifndef ATTN_TRAIN_H
#define ATTN_TRAIN_H

#include <attn/context.h>
#include <attn/gguf.h>
#include <attn/nn.h>
#include <attn/optim.h>
#include <attn/safetensors.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_trainer attn_trainer;

typedef struct attn_trainer_options {
    size_t struct_size;
    int64_t context;                   /**< tokens of a window; 0: the model's context */
    int64_t batch;                     /**< windows of one forward and backward pass; default 16 */
    int64_t accumulate;                /**< passes whose gradients make one step; default 1 */
    int64_t steps;                     /**< where the schedule ends; default 1000 */
    double lr;                         /**< at its peak; default 1e-3 */
    double lr_lowest;                  /**< at the end, as a share of the peak; default 0.1 */
    int64_t warmup;                    /**< steps of linear rise; default 100 */
    double weight_decay, beta1, beta2; /**< AdamW; defaults 0.1, 0.9, 0.99 */
    double clip;                       /**< of the gradient's global norm; 0: none; default 1 */
    int64_t validation; /**< tokens at the end that are held out; −1 (default): a tenth; 0: none */
    uint64_t seed;      /**< of windows and dropout */
    /** Asked between passes; true: attn_trainer_step and attn_trainer_evaluate return CANCELLED, and nothing has changed. */
    bool (*cancel)(void *user);
    void *cancel_user;
} attn_trainer_options;

ATTN_API attn_trainer_options attn_trainer_options_init(void);

/**
 * A trainer for a model of attn_gpt_create: AdamW over those parameters that require a gradient (matrices decay, norms and biases do not),
 * rate by attn_lr_cosine. The context, the model and tokens[count] must outlive it; every token is in 0 … vocab−1. Window n of pass m of
 * step s begins at a place drawn from (seed, s, m, n) alone, so nothing but the step's number needs to be remembered.
 * *trainer is NULL on failure. Errors: ARGUMENT (an option out of range; a token outside the vocabulary; a text too short for one window:
 * names both numbers), NO_MEMORY.
 */
ATTN_API attn_status attn_trainer_create(attn_context *context, const attn_trainer_options *options,
                                         attn_module *gpt, const int32_t *tokens, int64_t count,
                                         attn_trainer **trainer);
/** The model stays. NULL is allowed. */
ATTN_API void attn_trainer_destroy(attn_trainer *trainer);

/** Steps done. */
ATTN_API int64_t attn_trainer_steps(const attn_trainer *trainer);
/** Tokens that training draws from, and those held out after them. Either may be NULL. */
ATTN_API void attn_trainer_tokens(const attn_trainer *trainer, int64_t *training,
                                  int64_t *validation);

/** Another warm-up, and another end of the schedule, at least the steps done. Bits of a run depend on both. ARGUMENT. */
ATTN_API attn_status attn_trainer_set_schedule(attn_trainer *trainer, int64_t warmup,
                                               int64_t steps);

typedef struct attn_train_result {
    int64_t step;     /**< number of this step, from 1 */
    double loss;      /**< mean cross-entropy over its tokens before the update, nats */
    double lr;        /**< it was taken with */
    double grad_norm; /**< before clipping */
    int64_t tokens;   /**< batch·accumulate·context */
} attn_train_result;

/**
 * One step. result may be NULL. On failure the model and the optimizer are as before and the trainer can go on. Bits do not depend on
 * the number of threads. Errors: ARGUMENT (a loss or gradient that is no finite number: tells the usual fix), CANCELLED, NO_MEMORY.
 */
ATTN_API attn_status attn_trainer_step(attn_trainer *trainer, attn_train_result *result);

/**
 * *loss = mean cross-entropy in nats per token over `windows` windows, evenly spaced over the held-out tokens; 0: over all of them, side by side, what is left
 * after the last whole one at the end of another. Dropout is off. The same windows every time. Errors: ARGUMENT (nothing held out), CANCELLED, NO_MEMORY.
 */
ATTN_API attn_status attn_trainer_evaluate(attn_trainer *trainer, int64_t windows, double *loss);

/** logits[vocab] of what follows tokens[count], with the weights as they are now; the last `context` tokens count. count ≥ 1. */
ATTN_API attn_status attn_trainer_next(attn_trainer *trainer, const int32_t *tokens, int64_t count,
                                       float *logits);

/** Floating-point operations of one step (multiply and add count two): products with weights, and causal attention, forward and back. */
ATTN_API double attn_trainer_step_flops(const attn_trainer *trainer);

/** Bytes held: parameters, their gradients and the optimizer's state; and what passes work in (grows to its size in the first step). */
ATTN_API void attn_trainer_bytes(const attn_trainer *trainer, size_t *parameters, size_t *passes);

/**
 * Writes a checkpoint with attn_safetensors_save: every parameter that requires a gradient under its name, the optimizer's state as
 * "attn.optimizer.<name>", in `__metadata__` "attn.trainer.step", ".seed" and ".text" (a hash of the tokens), and the caller's metadata[pairs].
 * Whatever fails, a file that was there stays whole, and the trainer can go on. Errors: IO (says why), ARGUMENT (a key of the trainer's own), NO_MEMORY.
 */
ATTN_API attn_status attn_trainer_save(const attn_trainer *trainer, const char *path,
                                       const attn_safetensors_pair *metadata, size_t pairs);

/**
 * Takes up where attn_trainer_save left off: made with the same options, model and tokens, the steps that follow give the bits of a run that was never interrupted. The file
 * is checked before anything changes. Errors: IO, FORMAT (no checkpoint; names what is missing), ARGUMENT (another text, another model; names the
 * parameter), NO_MEMORY.
 */
ATTN_API attn_status attn_trainer_resume(attn_trainer *trainer, const char *path);

/* ---- starting from a model that is there ---------------------------------------------------------- */

/**
 * Options of a decoder with the shape of a model file of the llama family. `window`: the longest it will be trained with; 0: the file's
 * context. Errors: as attn_model_config_read; UNSUPPORTED (rotary embedding of a part of a head only), ARGUMENT.
 */
ATTN_API attn_status attn_gpt_options_from_gguf(const attn_gguf *file, int64_t window,
                                                attn_gpt_options *options);

/**
 * A decoder with the file's weights, in f32: dequantised, the rows of q and k put from GGUF's order of rotary pairs into Hugging
 * Face's. options: of attn_gpt_options_from_gguf, dropout, checkpoint and context changed at will. file may be closed afterwards.
 * *gpt is NULL on failure. Errors: ARGUMENT, FORMAT (a parameter that the file has no tensor for), NO_MEMORY.
 */
ATTN_API attn_status attn_gpt_from_gguf(attn_context *context, const attn_gguf *file,
                                        const attn_gpt_options *options, attn_module **gpt);

/**
 * Writes a model that began as `base` as a GGUF file with its tokenizer and settings (attn_gguf_write): trained matrices in BF16, everything else as the base has it. Adapters of
 * attn_lora_apply are merged into gpt first (attn_lora_merge) and count as what was trained; a model without any is written in full.
 * Errors: as those two; NO_MEMORY.
 */
ATTN_API attn_status attn_gpt_save_gguf(attn_context *context, attn_module *gpt,
                                        const attn_gguf *base, const char *path);

/** Writes the adapters of attn_lora_apply alone (attn_adapter_save); alpha: as they were applied with. ARGUMENT where there are none. */
ATTN_API attn_status attn_gpt_save_adapter(const attn_module *gpt, const attn_gguf *base,
                                           double alpha, const char *path);

#ifdef __cplusplus
}
#endif
#endif
