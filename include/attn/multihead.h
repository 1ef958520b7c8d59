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

#ifdef __cplusplus
}
#endif
#endif
