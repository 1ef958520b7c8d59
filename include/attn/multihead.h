/**
 * attn/multihead.h: multi-head attention: four projections around attn_sdpa (Vaswani et al. 2017, §3.2.2).
 */
#ifndef ATTN_MULTIHEAD_H
#define ATTN_MULTIHEAD_H

#include <attn/attention.h>
#include <attn/kv_cache.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_multihead attn_multihead;

typedef struct attn_multihead_options {
    size_t struct_size;
    int64_t embed_dim; /**< of query and output; a multiple of num_heads */
    int64_t num_heads;
    int64_t num_kv_heads; /**< 0: num_heads; else divides num_heads */
    int64_t kdim, vdim;   /**< widths of key and value inputs; 0: embed_dim */
    bool no_bias;         /**< default false: all four projections have biases */
    uint64_t
        seed; /**< of the Xavier-uniform initialisation (Glorot & Bengio 2010); biases start at 0 */
} attn_multihead_options;

ATTN_API attn_multihead_options attn_multihead_options_init(void);

/** Creates a layer with initialised parameters; the context must outlive it. */
ATTN_API attn_status attn_multihead_create(attn_context *context,
                                           const attn_multihead_options *options,
                                           attn_multihead **layer);
ATTN_API void attn_multihead_destroy(attn_multihead *layer);

/** 8 with bias, 4 without. */
ATTN_API int attn_multihead_parameter_count(const attn_multihead *layer);

/** "q_proj.weight", "q_proj.bias", "k_proj.weight", … "out_proj.bias", by index. NULL when out of range. */
ATTN_API const char *attn_multihead_parameter_name(const attn_multihead *layer, int index);

/**
 * A view of a named parameter, f32: weights [out, in], biases [out]. Readable any time. To change a parameter use attn_multihead_set_parameter, so that
 * the packed copy follows.
 */
ATTN_API attn_status attn_multihead_parameter(const attn_multihead *layer, const char *name,
                                              attn_view *view);
ATTN_API attn_status attn_multihead_set_parameter(attn_multihead *layer, const char *name,
                                                  const attn_view *value);

/**
 * What a forward call leaves for its backward: projected rows, mixed heads, lse; (2·len_q·embed_dim + 2·len_k·kv_width + len_q·num_heads)·4 bytes a sequence. One
 * object serves call after call: each forward replaces what it held, memory is kept. The context must outlive it.
 */
typedef struct attn_multihead_saved attn_multihead_saved;

ATTN_API attn_status attn_multihead_saved_create(attn_context *context,
                                                 attn_multihead_saved **saved);
/** NULL is allowed. */
ATTN_API void attn_multihead_saved_destroy(attn_multihead_saved *saved);
/** Bytes it holds now. */
ATTN_API size_t attn_multihead_saved_bytes(const attn_multihead_saved *saved);

typedef enum attn_need_weights {
    ATTN_WEIGHTS_NONE = 0,
    ATTN_WEIGHTS_PER_HEAD = 1, /**< [batch, num_heads, len_q, len_k] */
    ATTN_WEIGHTS_AVERAGED = 2  /**< [batch, len_q, len_k], the mean over heads */
} attn_need_weights;

typedef struct attn_multihead_forward_options {
    size_t struct_size;
    attn_causal causal;
    bool has_window;
    int64_t window_left, window_right;
    const attn_view *
        mask; /**< BOOL, 1 = attend: 2-D [len_q, len_k], 3-D [batch, len_q, len_k], 4-D as attn_sdpa */
    const attn_view *key_padding_mask; /**< BOOL [batch, len_k], 1 = ignore that key */
    const int64_t *lengths_q;          /**< [batch] valid query rows; out is 0 in the others */
    const int64_t *lengths_k; /**< [batch] valid key rows; with a cache: how many are appended */
    attn_need_weights need_weights;
    attn_view *weights; /**< out, f32; required when need_weights is not NONE */
    attn_kv_cache *
        cache; /**< incremental: key and value rows are projected and appended, then attended to from the cache; dtype of its choice */
    attn_multihead_saved *saved; /**< keeps what attn_multihead_backward needs; not with a cache */
    double
        dropout; /**< 0 ≤ p < 1, of attention weights, as attn_sdpa's: weights out are without it */
    uint64_t dropout_seed; /**< a fresh one for every step and layer */
} attn_multihead_forward_options;

ATTN_API attn_multihead_forward_options attn_multihead_forward_options_init(void);

/**
 * out = concat_h( sdpa(query·Wqᵀ + bq, key·Wkᵀ + bk, value·Wvᵀ + bv) )·Woᵀ + bo
 * query [batch, len_q, embed_dim], key [batch, len_k, kdim], value [batch, len_k, vdim], out [batch, len_q, embed_dim]; f32.
 * key NULL: query; value NULL: key (self-attention). options may be NULL.
 * With a cache, len_k of masks and weights is the largest number of keys held after the append, counted from the oldest; positions are
 * bottom-right, so a token sees all before it whatever `causal` is, and ATTN_CAUSAL_BOTTOM_RIGHT hides what follows it in the same append.
 * out and weights overlap no input. On failure nothing is written and the cache holds what it held. Errors name the argument, the fix and an
 * example: SHAPE, DTYPE, ARGUMENT, CAPACITY (the cache), NO_MEMORY. Memory: the projections' rows, from the context's allocator, for the call.
 */
ATTN_API attn_status attn_multihead_forward(attn_context *context, const attn_multihead *layer,
                                            const attn_multihead_forward_options *options,
                                            const attn_view *query, const attn_view *key,
                                            const attn_view *value, const attn_view *out);

/** Gradients of the inputs. Start from attn_multihead_gradients_init(); a zeroed view is not wanted. */
typedef struct attn_multihead_gradients {
    size_t struct_size;
    attn_view
        dquery; /**< out: query's shape, f32, unit last stride; with key or value NULL the sum of all that query served as */
    attn_view
        dkey; /**< out: key's shape; with value NULL of both; must be zeroed when key is NULL */
    attn_view dvalue;   /**< out: value's shape; must be zeroed when value is NULL */
    bool no_parameters; /**< leaves the parameters' gradients alone: a frozen layer */
} attn_multihead_gradients;

ATTN_API attn_multihead_gradients attn_multihead_gradients_init(void);

/**
 * Gradients of attn_multihead_forward. With o the mixed heads and (dq, dk, dv) what attn_sdpa_backward makes of dout·Wo:
 *   dWo += doutᵀ·o, dbo += Σ_rows dout; dWq += dqᵀ·query, dbq += Σ_rows dq, dquery = dq·Wq; k and v likewise
 *
 * saved     of the forward call, with this layer; its parameters must not have changed since. Read: several backwards may follow one forward
 * options   those of the forward call: others are ARGUMENT where it can be seen (saved, weights and need_weights are not looked at)
 * query, key, value  those of the forward call, read
 * dout      [batch, len_q, embed_dim] f32: gradient with respect to out; unit last stride; read
 * gradients of the inputs: written; overlap nothing. NULL: only the parameters'
 *
 * The parameters' gradients are added to those the layer holds: attn_multihead_gradient reads them, attn_multihead_clear_gradients starts anew.
 * Query rows beyond lengths_q, key rows beyond lengths_k or ignored by key_padding_mask are not read and have gradient 0.
 * Bits do not depend on threads. Memory: as the forward call's, from the context's allocator, for the call.
 * Errors: SHAPE, DTYPE, ARGUMENT: nothing is written. NO_MEMORY: gradients may be part of what they should be; clear them.
 */
ATTN_API attn_status attn_multihead_backward(attn_context *context, attn_multihead *layer,
                                             const attn_multihead_saved *saved,
                                             const attn_multihead_forward_options *options,
                                             const attn_view *query, const attn_view *key,
                                             const attn_view *value, const attn_view *dout,
                                             const attn_multihead_gradients *gradients);

/**
 * A view of a parameter's gradient, in the parameter's shape, valid as long as the layer. There from the first attn_multihead_backward or
 * attn_multihead_clear_gradients on; ARGUMENT before.
 */
ATTN_API attn_status attn_multihead_gradient(const attn_multihead *layer, const char *name,
                                             attn_view *view);

/** Sets all gradients of parameters to 0, before the first backward of a step. Errors: ARGUMENT, NO_MEMORY. */
ATTN_API attn_status attn_multihead_clear_gradients(attn_multihead *layer);

#ifdef __cplusplus
}
#endif
#endif
