/**
 * lm/model.h: the inside of a loaded model and of a session, shared by model*.c, session.c and
 * forward.c.
 */
#ifndef ATTN_LM_MODEL_H
#define ATTN_LM_MODEL_H

#include <attn/kv_cache.h>
#include <attn/model.h>

/** The matrices of one layer, by what they do. */
typedef enum lm_matrix {
    LM_ATTN_Q,
    LM_ATTN_K,
    LM_ATTN_V,
    LM_ATTN_OUTPUT,
    LM_FFN_GATE,
    LM_FFN_UP,
    LM_FFN_DOWN,
    LM_MATRIX_COUNT
} lm_matrix;

/** Rows (outputs) and columns (inputs) of a layer's matrix. */
void lm_matrix_shape(const attn_model_config *config, lm_matrix matrix, int64_t *rows,
                     int64_t *cols);

/** A layer's matrix or norm in the file. Only after attn_model_config_read has checked that it is
 * there. */
const attn_gguf_tensor *lm_find_matrix(const attn_gguf *file, int64_t layer, lm_matrix matrix);
const attn_gguf_tensor *lm_find_norm(const attn_gguf *file, int64_t layer, bool ffn);

/** The metadata of a trained model seen as GGUF: "halves" where q and k are for ATTN_ROPE_HALVES. */
#define LM_PAIRING_KEY "attn.rope.pairing"

/** ggml's number of a tensor type as a weight type; 0 where linear layers do not take it. */
attn_weight_type lm_weight_type(uint32_t tensor_type);

/**
 * Matrices that read the same input, their outputs side by side. Neighbours of one type are one
 * packed matrix; a file may mix types.
 */
typedef struct lm_projection {
    int count;
    attn_linear *linear[3];
    int64_t offset[3]; /* first output of each */
    int64_t out_features;
} lm_projection;

typedef struct lm_layer {
    float *attn_norm, *ffn_norm; /* [dim] */
    lm_projection qkv, attn_output, gate_up, down;
} lm_layer;

struct attn_model {
    attn_context *context;
    attn_model_config config;
    attn_activations activations;
    attn_weight_type embedding_type;
    unsigned char *embedding; /* rows as in the file, dequantised one by one */
    size_t embedding_row;     /* bytes */
    float *norms;             /* all norm weights; layers point into it */
    float *output_norm;       /* [dim] */
    lm_projection output;
    lm_layer *layers;
    size_t bytes;
};

struct attn_session {
    attn_context *context;
    const attn_model *model;
    attn_dtype kv;
    int64_t limit;  /* tokens; 0: endless */
    int64_t window; /* 0: none */
    int64_t block;  /* tokens of one prefill block */
    int64_t position;
    attn_kv_cache **caches; /* one a layer */
    /* Working memory for one block, rows one after the other: */
    float *x;      /* [block, dim] the residual stream */
    float *h;      /* [block, dim] normalised input of a projection, or its output */
    float *qkv;    /* [block, (heads_q + 2·heads_kv)·head_dim] */
    float *mix;    /* [block, heads_q·head_dim] what attention gives */
    float *ffn;    /* [block, 2·ffn_dim] gate and up side by side */
    float *memory; /* all of the above */
    int64_t *positions;
    bool (*cancel)(void *user);
    void *cancel_user;
};

/**
 * Runs tokens[rows] (rows ≤ block) through all layers: K and V of every layer are appended. Logits
 * of the last `wanted` rows (0, 1 or rows) go to logits[wanted·vocab]. The session's position is
 * the caller's to move, and to move caches back on failure.
 */
attn_status lm_forward_block(attn_session *session, const int32_t *tokens, int64_t rows,
                             int64_t wanted, float *logits);

/** Floats of working memory a session of these block rows needs; false when that does not fit
 * size_t. */
bool lm_working_floats(const attn_model_config *config, int64_t block, size_t *floats);

/** Capacity of one layer's cache in tokens: contiguous or a ring; *ring tells which. */
int64_t lm_cache_slots(int64_t context, int64_t window, int64_t block, bool *ring);

#endif
