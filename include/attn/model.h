/**
 * attn/model.h: language models of the llama family from GGUF files: what is in a file, loading it, running it.
 */
#ifndef ATTN_MODEL_H
#define ATTN_MODEL_H

#include <attn/context.h>
#include <attn/gguf.h>
#include <attn/linear.h>
#include <attn/ops.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a file says of its model, checked against its tensors. */
typedef struct attn_model_config {
    char architecture[32];
    char name[128];
    int64_t layers, dim, heads_q, heads_kv, head_dim, ffn_dim, vocab, context;
    double rope_theta, norm_eps;
    int64_t rope_dims;
    bool tied_output;               /**< the embedding is also the output matrix */
    int64_t parameters;             /**< elements of all tensors */
    attn_rope_pairing rope_pairing; /**< GGUF files: INTERLEAVED; models trained here: HALVES */
} attn_model_config;

/** Reads and checks the configuration without loading weights. UNSUPPORTED names an architecture or feature that is not supported. */
ATTN_API attn_status attn_model_config_read(const attn_gguf *file, attn_model_config *config);

/** Bytes of K and V per token at a storage type. */
ATTN_API size_t attn_model_kv_bytes_per_token(const attn_model_config *config, attn_dtype kv);

typedef struct attn_model attn_model;

typedef struct attn_model_options {
    size_t struct_size;
    attn_activations activations; /**< F32: dequantised f32 weights, slow and exact */
    bool (*cancel)(void *user);   /**< asked between tensors; true stops with CANCELLED */
    void *cancel_user;
} attn_model_options;

ATTN_API attn_model_options attn_model_options_init(void);

/**
 * Bytes that loading and running would take, before loading: packed weights, K/V cache of `context` tokens (bounded by `window` > 0), activations.
 * Any of the outputs may be NULL.
 */
ATTN_API attn_status attn_model_memory(const attn_gguf *file, const attn_model_options *options,
                                       attn_dtype kv, int64_t context, int64_t window,
                                       size_t *weights, size_t *cache, size_t *activations);

/** Loads: packs every weight; `file` may be closed afterwards. `context` (threads) must outlive the model. */
ATTN_API attn_status attn_model_load(attn_context *context, const attn_gguf *file,
                                     const attn_model_options *options, attn_model **model);
ATTN_API void attn_model_destroy(attn_model *model);
ATTN_API const attn_model_config *attn_model_get_config(const attn_model *model);
ATTN_API size_t attn_model_bytes(const attn_model *model);

/** A text being read or written: K/V caches and working memory. One model may have many. */
typedef struct attn_session attn_session;

typedef struct attn_session_options {
    size_t struct_size;
    int64_t context; /**< tokens; 0: the model's own */
    attn_dtype kv;   /**< f32, bf16, f16; NONE: f16, or f32 with f32 activations */
    int64_t window;  /**< > 0: each token sees this many keys, itself included; ring caches */
    int64_t prefill; /**< tokens per block of prefill; 0: 512 */
} attn_session_options;

ATTN_API attn_session_options attn_session_options_init(void);

ATTN_API attn_status attn_session_create(attn_context *context, const attn_model *model,
                                         const attn_session_options *options,
                                         attn_session **session);
ATTN_API void attn_session_destroy(attn_session *session);

/** Asked between blocks and layers; true stops the call with CANCELLED, the session as it was before the call; a ring session (window > 0) that has
 * overwritten its past meanwhile is emptied instead (position 0). */
ATTN_API void attn_session_set_cancel(attn_session *session, bool (*cancel)(void *user),
                                      void *user);

/**
 * Appends tokens[count] and computes logits: logits[vocab] of the last token, or, with `all`, logits[count·vocab] of every token. logits may be NULL.
 * Prefill (many tokens) and decode (one) are this same call. CAPACITY when the context is full (names both numbers; nothing has changed);
 * ARGUMENT for an id outside the vocabulary.
 */
ATTN_API attn_status attn_session_eval(attn_session *session, const int32_t *tokens, int64_t count,
                                       bool all, float *logits);

ATTN_API int64_t attn_session_position(const attn_session *session);
/** Tokens the session can hold: 0 where a window makes it endless. */
ATTN_API int64_t attn_session_capacity(const attn_session *session);
/** Forgets everything after the first `position` tokens. */
ATTN_API attn_status attn_session_truncate(attn_session *session, int64_t position);
/** Bytes of K/V storage allocated. */
ATTN_API size_t attn_session_kv_bytes(const attn_session *session);
ATTN_API attn_dtype attn_session_kv_dtype(const attn_session *session);

#ifdef __cplusplus
}
#endif
#endif
