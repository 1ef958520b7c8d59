/**
 * multihead/forward.h: one call, checked: what check.c gives, forward.c and backward.c run, and the memory it runs in.
 */
#ifndef ATTN_MULTIHEAD_FORWARD_H
#define ATTN_MULTIHEAD_FORWARD_H

#include "multihead/layer.h"

typedef struct multihead_call {
    attn_context *context;
    const attn_multihead *layer;
    attn_multihead_forward_options o;
    attn_view query, key, value, out; /* 3-D; out of a backward call is dout, which is read */
    bool backward;
    int64_t batch, len_q, len_k; /* len_k: rows of key and value given */
    int64_t columns;             /* keys that attention sees: of mask, padding mask and weights */
    attn_view mask;              /* as attn_sdpa takes it, without padding; dtype NONE: none */
} multihead_call;

/** Memory of one call, one block; parts that are not needed are empty. */
typedef struct multihead_workspace {
    float *q, *k, *v, *o; /* [batch, len, width] */
    float *lse;           /* [batch, num_heads, len_q], to be saved */
    float *weights;       /* [batch, num_heads, len_q, columns], to be averaged */
    unsigned char *mask;  /* mask and padding together */
    int64_t *positions;   /* of the cache's sequences before the call */
    attn_view mask_view;  /* what attention is given; dtype NONE: nothing */
    void *block;
    size_t bytes;
} multihead_workspace;

struct attn_multihead_saved {
    attn_context *context;
    const attn_multihead *layer; /* of the last forward; NULL: none yet, or it failed */
    uint64_t version;            /* of its parameters then */
    int64_t batch, len_q, len_k;
    attn_multihead_forward_options options; /* pointers only to compare with NULL */
    multihead_workspace workspace;
};

/** Everything that can be told from the arguments; nothing has happened yet when it fails. `backward`: out is dout. */
attn_status multihead_check(attn_context *context, const attn_multihead *layer,
                            const attn_multihead_forward_options *options, const attn_view *query,
                            const attn_view *key, const attn_view *value, const attn_view *out,
                            bool backward, multihead_call *call);

/** Adds a·b·c·d elements of `size` bytes to a block of *bytes; returns where, or sets *fits to false. */
size_t multihead_reserve(size_t *bytes, bool *fits, const int64_t sizes[4], size_t size);

/** mask AND NOT key_padding_mask in `to`, in the mask's own shape with the batch spelled out; the mask alone without padding. */
attn_view multihead_join_masks(const multihead_call *call, unsigned char *to);
/** The sizes of that, in bytes, for multihead_reserve. */
void multihead_mask_sizes(const multihead_call *call, int64_t sizes[4]);

/** What attn_sdpa is told of the call, without outputs. `mask` must outlive the options. */
attn_sdpa_options multihead_sdpa_options(const multihead_call *call, const attn_view *mask);

#endif
