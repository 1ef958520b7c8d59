/**
 * nn/module.h: what a module is inside: a node of the tree, the parameters of everything below it by full name, and what its kind needs.
 */
#ifndef ATTN_NN_MODULE_H
#define ATTN_NN_MODULE_H

#include <attn/nn.h>

typedef enum nn_kind {
    NN_TREE,
    NN_LINEAR,
    NN_EMBEDDING,
    NN_NORM,
    NN_POSITION,
    NN_ATTENTION,
    NN_MLP,
    NN_BLOCK,
    NN_GPT,
    NN_BERT
} nn_kind;

typedef struct nn_entry {
    char *name; /* dotted, from the module that has this entry */
    attn_tensor *tensor;
    const attn_module *owner; /* the module it was added to, which holds the reference */
} nn_entry;

typedef struct nn_linear {
    int64_t in, out;
    bool transposed; /* weight [in, out], as GPT-2's files have it */
    attn_tensor *weight, *bias;
    attn_tensor *lora_a, *lora_b; /* NULL without an adapter */
    double lora_scale;
} nn_linear;

typedef struct nn_embedding {
    int64_t count, dim;
    attn_tensor *weight;
} nn_embedding;

typedef struct nn_norm {
    attn_norm_kind kind;
    int64_t dim;
    double eps;
    attn_tensor *weight, *bias;
} nn_norm;

typedef struct nn_position {
    int64_t max_len, dim;
    attn_tensor *table; /* LEARNED: a parameter; SINUSOIDAL: held in `own_table` too */
    attn_tensor *own_table;
} nn_position;

typedef struct nn_attention {
    attn_nn_attention_options options; /* zeros replaced */
    attn_module *q, *k, *v, *o;
    attn_module *qkv;    /* all three in one, instead */
    attn_tensor *slopes; /* ALIBI; held */
} nn_attention;

typedef struct nn_mlp {
    attn_mlp_kind kind;
    attn_module *gate, *up, *down;
} nn_mlp;

typedef struct nn_block {
    attn_module *norm1, *attention, *norm_cross, *cross, *norm2, *mlp;
    int64_t dim;
    bool post_norm;
    double dropout;
    attn_nn_attend attend; /* how a model that owns the block has it attend */
} nn_block;

typedef struct nn_gpt {
    attn_gpt_options options; /* zeros replaced */
    attn_module *tokens, *position, *norm, *output;
    attn_module **blocks; /* [layers], held */
} nn_gpt;

typedef struct nn_bert {
    attn_bert_options options; /* zeros replaced */
    attn_module *words, *positions, *segments, *norm;
    attn_module **blocks; /* [layers], held */
} nn_bert;

struct attn_module {
    nn_kind kind;
    attn_module *parent;
    char *name; /* in the parent; NULL at the root */
    nn_entry *entries;
    int entry_count, entry_capacity;
    attn_module **children;
    int child_count, child_capacity;
    bool training;
    uint64_t dropout_seed, dropout_calls;
    union {
        nn_linear linear;
        nn_embedding embedding;
        nn_norm norm;
        nn_position position;
        nn_attention attention;
        nn_mlp mlp;
        nn_block block;
        nn_gpt gpt;
        nn_bert bert;
    } as;
};

/* "a linear layer", "an embedding", … for error texts. */
const char *nn_kind_name(nn_kind kind);

/* A module of a kind; NULL with an error text where memory is short. */
attn_module *nn_module_new(nn_kind kind);

/* As attn_module_add, also under "": the child's names appear without a prefix. *slot receives the child (NULL on failure). */
attn_status nn_add(attn_module *parent, const char *name, attn_module *child, attn_module **slot);

/* Takes a parameter out of the module and all above it, and releases it. */
void nn_remove_parameter(attn_module *module, attn_tensor *tensor);

/* The end of every creating function: hands the module over, or destroys it where status is a failure. */
attn_status nn_finish(attn_status status, attn_module *module, attn_module **out);

#endif
