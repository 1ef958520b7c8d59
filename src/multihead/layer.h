/**
 * multihead/layer.h: the inside of a multi-head attention layer.
 */
#ifndef ATTN_MULTIHEAD_LAYER_H
#define ATTN_MULTIHEAD_LAYER_H

#include <attn/linear.h>
#include <attn/multihead.h>

enum { MULTIHEAD_Q = 0, MULTIHEAD_K, MULTIHEAD_V, MULTIHEAD_OUT, MULTIHEAD_PROJECTIONS };

/** y = x·weightᵀ + bias: the plain parameters, and the packed copy that forward reads. */
typedef struct multihead_projection {
    int64_t in, out;
    float *weight; /* [out, in] */
    float *bias;   /* [out], NULL without */
    attn_linear *packed;
    float *dweight, *dbias; /* gradients, in the layer's block; NULL before the first */
} multihead_projection;

struct attn_multihead {
    attn_context *context;
    int64_t embed_dim, num_heads, num_kv_heads, head_dim, kdim, vdim;
    bool has_bias;
    multihead_projection projection[MULTIHEAD_PROJECTIONS];
    float *gradients; /* of all parameters; NULL before the first backward */
    size_t gradient_bytes;
    uint64_t version; /* counts changes of parameters */
};

/** Packs weight and bias as they are now (`weight`, `bias`: instead of the projection's own where not NULL). */
attn_status multihead_pack(attn_context *context, const multihead_projection *projection,
                           const float *weight, const float *bias, attn_linear **packed);

/** Gives the layer room for gradients, zeros, where it has none yet. */
attn_status multihead_need_gradients(attn_multihead *layer);

#endif
