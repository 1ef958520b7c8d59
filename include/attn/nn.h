/**
 * attn/nn.h: layers and transformers on tensors.
 *   attn_module        a tree with named children and named parameters; every layer and every model is one
 *   attn_nn_*          layers: a function that creates the module, and one that applies it on a tape
 *   attn_gpt_*         decoder language models, parameters named as Hugging Face names them
 *   attn_bert_*        encoders with segments and padding
 *   attn_lora_*        low-rank adapters on the linear layers of any module
 *
 * Functions that apply a layer take the tape first and follow its rules (attn/tensor.h): the result belongs to the tape, NULL in gives NULL
 * out, and a failure (attn_last_error() tells the argument, the fix and an example) is kept by the tape until it is cleared.
 * Functions that create set *module to NULL on failure. One thread at a time per module; arithmetic runs on the tape's context.
 */
#ifndef ATTN_NN_H
#define ATTN_NN_H

#include <attn/attention.h>
#include <attn/ops.h>
#include <attn/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- modules ---------------------------------------------------------------------------------- */

typedef struct attn_module attn_module;

/** An empty module, to hang layers and parameters of your own on. The caller destroys it. */
ATTN_API attn_status attn_module_create(attn_module **module);

/** Destroys a module with all its children and releases its parameters. NULL is allowed. A child that has a parent is its parent's to destroy. */
ATTN_API void attn_module_destroy(attn_module *module);

/**
 * Hangs `child` under `name` (may contain dots; unique among the parent's names) and takes it over: also on failure, which destroys it, so that
 * creating and adding need one check. A NULL child fails with the text of whatever made it NULL left in place.
 */
ATTN_API attn_status attn_module_add(attn_module *parent, const char *name, attn_module *child);

/** Adds a parameter: the module retains `tensor` and makes it require a gradient. */
ATTN_API attn_status attn_module_add_parameter(attn_module *module, const char *name,
                                               attn_tensor *tensor);

/** The module at a dotted path, "model.layers.0.mlp"; "" is the module itself; NULL when there is none. Borrowed. */
ATTN_API attn_module *attn_module_find(const attn_module *module, const char *path);

/** Parameters (tensors) of the module and all below it. Shared ones count once: a tied output matrix is its embedding. */
ATTN_API int attn_module_parameter_count(const attn_module *module);
/** Dotted name of a parameter, in order of creation; NULL when out of range. Lives as long as the parameter does. */
ATTN_API const char *attn_module_parameter_name(const attn_module *module, int index);
/** A parameter by index; NULL when out of range. Borrowed. */
ATTN_API attn_tensor *attn_module_parameter(const attn_module *module, int index);
/** A parameter by dotted name; NULL when there is none. Borrowed. */
ATTN_API attn_tensor *attn_module_find_parameter(const attn_module *module, const char *name);
/** Elements of all parameters; `trainable`: only of those that require a gradient. */
ATTN_API int64_t attn_module_element_count(const attn_module *module, bool trainable);

/**
 * Copies `values` into a parameter, converted to its type (f32, f64, bf16, f16; unit last stride). The shape must be the parameter's.
 * Errors: ARGUMENT (no such name: tells the nearest there is), SHAPE (tells when it fits transposed), DTYPE.
 */
ATTN_API attn_status attn_module_set_parameter(attn_context *context, attn_module *module,
                                               const char *name, const attn_view *values);

/** Clears the gradients of all parameters. */
ATTN_API void attn_module_zero_grad(attn_module *module);
/** Whether parameters require gradients (freezing a base is `false`). */
ATTN_API void attn_module_require_grad(attn_module *module, bool require);

/** Training mode (dropout works) or evaluation mode, of the module and all below it. Modules start in evaluation mode. */
ATTN_API void attn_module_set_training(attn_module *module, bool training);
ATTN_API bool attn_module_training(const attn_module *module);

/**
 * Dropout masks depend on this seed, the number of forward calls in training mode since, and where in the model they are: nothing else, so a
 * run resumes with identical masks when the seed is set from the step's number. Of the whole tree.
 */
ATTN_API void attn_module_set_dropout_seed(attn_module *module, uint64_t seed);

/* ---- layers ----------------------------------------------------------------------------------- */

/** How matrices start. Biases start at 0, norm weights at 1. */
typedef enum attn_init {
    ATTN_INIT_NORMAL = 0, /**< normal(0, std) (Radford et al. 2019 take 0.02) */
    ATTN_INIT_XAVIER = 1, /**< uniform(±√(6/(in + out))) (Glorot & Bengio 2010) */
    ATTN_INIT_ZERO = 2    /**< zeros: values will be set */
} attn_init;

/** What all creating functions want to know. Same options, same bits, on any number of threads. */
typedef struct attn_nn_options {
    size_t struct_size;
    attn_dtype dtype; /**< of the parameters: f32 (default) or f64 (for tests, slow) */
    attn_init init;
    double std; /**< of ATTN_INIT_NORMAL; 0: 0.02 */
    uint64_t seed;
    attn_context *
        init_context; /**< whose threads draw the values, which changes no bit; NULL: the caller's alone. Not kept */
} attn_nn_options;

ATTN_API attn_nn_options attn_nn_options_init(void);

/** y = x·Wᵀ + b: parameters "weight" [out, in] and, with `bias`, "bias" [out]. options may be NULL everywhere below. */
ATTN_API attn_status attn_nn_linear_create(const attn_nn_options *options, int64_t in_features,
                                           int64_t out_features, bool bias, attn_module **module);
/** x [.., in] → [.., out]. Adds the adapter of attn_lora_apply where there is one. */
ATTN_API attn_tensor *attn_nn_linear(attn_tape *tape, attn_module *module, attn_tensor *x);

/** Rows of a table: parameter "weight" [count, dim]. */
ATTN_API attn_status attn_nn_embedding_create(const attn_nn_options *options, int64_t count,
                                              int64_t dim, attn_module **module);
/** ids: int64 of shape[ndim], 1 … 3 dimensions, each in 0 … count−1 → [shape.., dim]. */
ATTN_API attn_tensor *attn_nn_embedding(attn_tape *tape, attn_module *module, const int64_t *ids,
                                        int ndim, const int64_t *shape);

typedef enum attn_norm_kind {
    ATTN_NORM_RMS = 0,  /**< "weight" [dim] (Zhang & Sennrich 2019) */
    ATTN_NORM_LAYER = 1 /**< "weight", "bias" [dim] (Ba et al. 2016) */
} attn_norm_kind;

/** eps 0: 1e-5. */
ATTN_API attn_status attn_nn_norm_create(const attn_nn_options *options, attn_norm_kind kind,
                                         int64_t dim, double eps, attn_module **module);
/** Over the last dimension of x [.., dim]. */
ATTN_API attn_tensor *attn_nn_norm(attn_tape *tape, attn_module *module, attn_tensor *x);

/** How order gets into a model. */
typedef enum attn_position_kind {
    ATTN_POSITION_NONE = 0,
    ATTN_POSITION_LEARNED = 1, /**< a table added to the embeddings */
    ATTN_POSITION_SINUSOIDAL =
        2,                  /**< sin and cos added to the embeddings (Vaswani et al. 2017, §3.5) */
    ATTN_POSITION_ROPE = 3, /**< q and k rotated, halves pairing (Su et al. 2021) */
    ATTN_POSITION_ALIBI = 4 /**< −slope·distance added to the scores (Press et al. 2022) */
} attn_position_kind;

/** LEARNED ("weight" [max_len, dim]) or SINUSOIDAL (no parameters) rows, added to x [batch, len, dim], len ≤ max_len. */
ATTN_API attn_status attn_nn_position_create(const attn_nn_options *options,
                                             attn_position_kind kind, int64_t max_len, int64_t dim,
                                             attn_module **module);
ATTN_API attn_tensor *attn_nn_position(attn_tape *tape, attn_module *module, attn_tensor *x);

/** Slopes of ALiBi: slopes[h] = 2^(−8(h+1)/heads); where heads is no power of two, those of the power below, then every other one of the power above. */
ATTN_API attn_status attn_alibi_slopes(int64_t heads, double *slopes);

/** What parameters and layers are called. */
typedef enum attn_naming {
    ATTN_NAMES_LLAMA = 0, /**< self_attn.q_proj, mlp.gate_proj, input_layernorm, … */
    ATTN_NAMES_GPT2 =
        1, /**< attn.c_attn (q, k and v in one, weights [in, out]), mlp.c_fc, ln_1, … */
    ATTN_NAMES_BERT = 2 /**< attention.self.query, intermediate.dense, output.LayerNorm, … */
} attn_naming;

typedef struct attn_nn_attention_options {
    size_t struct_size;
    int64_t dim;                 /**< of inputs and outputs */
    int64_t heads;               /**< of queries */
    int64_t heads_kv;            /**< 0: heads; else divides heads */
    int64_t head_dim;            /**< 0: dim/heads, which must be whole */
    int64_t kv_dim;              /**< width of what keys and values are made from; 0: dim */
    bool bias, out_bias;         /**< of q, k, v, and of the output projection */
    attn_position_kind position; /**< NONE, ROPE or ALIBI */
    double rope_theta;           /**< 0: 10000 */
    attn_rope_pairing rope_pairing;
    double dropout;     /**< of the weights, in training mode */
    double out_gain;    /**< factor on the output projection's initial values; 0: 1 */
    attn_naming naming; /**< "q_proj", "k_proj", "v_proj", "o_proj" for LLAMA */
} attn_nn_attention_options;

ATTN_API attn_nn_attention_options attn_nn_attention_options_init(void);

/** Errors: SHAPE names the sizes, the fix and an example (dim 65 with 8 heads). */
ATTN_API attn_status attn_nn_attention_create(const attn_nn_options *options,
                                              const attn_nn_attention_options *attention,
                                              attn_module **module);

/** What one call attends to. Zeroed: everything. */
typedef struct attn_nn_attend {
    size_t struct_size;
    attn_causal causal;
    bool has_window;
    int64_t window_left, window_right; /**< as attn_sdpa_options */
    const attn_view *
        mask; /**< BOOL, 1 = attend, broadcasts to [batch, heads, len_q, len_k]; its data must stay until the tape is cleared */
    const int64_t *lengths_q; /**< [batch] valid rows of x */
    const int64_t *lengths_k; /**< [batch] valid rows of memory (of x) */
    const int64_t *positions; /**< [batch·len] for RoPE; NULL: 0, 1, … */
    uint64_t dropout_seed;    /**< of this call, in training mode */
} attn_nn_attend;

ATTN_API attn_nn_attend attn_nn_attend_init(void);

/**
 * concat_h(sdpa(x·Wq, memory·Wk, memory·Wv))·Wo through the fused attn_tensor_sdpa: no len_q × len_k memory.
 * x [batch, len_q, dim], memory [batch, len_k, kv_dim] or NULL (x: self-attention) → [batch, len_q, dim]. attend may be NULL.
 */
ATTN_API attn_tensor *attn_nn_attention(attn_tape *tape, attn_module *module,
                                        const attn_nn_attend *attend, attn_tensor *x,
                                        attn_tensor *memory);

typedef enum attn_mlp_kind {
    ATTN_MLP_SWIGLU = 0,    /**< down(silu(gate(x))·up(x)) (Shazeer 2020) */
    ATTN_MLP_GELU = 1,      /**< down(gelu(up(x))), erf */
    ATTN_MLP_GELU_TANH = 2, /**< the same with tanh's approximation, as GPT-2 */
    ATTN_MLP_RELU = 3
} attn_mlp_kind;

/** dim → hidden → dim. `out_gain` as for attention. */
ATTN_API attn_status attn_nn_mlp_create(const attn_nn_options *options, attn_mlp_kind kind,
                                        int64_t dim, int64_t hidden, bool bias, double out_gain,
                                        attn_naming naming, attn_module **module);
ATTN_API attn_tensor *attn_nn_mlp(attn_tape *tape, attn_module *module, attn_tensor *x);

/** One layer of a transformer: self-attention, optionally cross-attention, MLP, each with a norm and a residual sum. */
typedef struct attn_nn_block_options {
    size_t struct_size;
    attn_nn_attention_options attention; /**< `dropout` here is of the weights only */
    attn_mlp_kind mlp;
    int64_t hidden; /**< of the MLP; 0: 4·dim */
    bool mlp_bias;
    attn_norm_kind norm;
    double norm_eps;
    bool post_norm;     /**< norm(x + f(x)) (Vaswani et al. 2017, BERT) instead of x + f(norm(x)) */
    bool cross;         /**< a decoder that also attends to a memory */
    int64_t memory_dim; /**< of the memory; 0: dim */
    double dropout;     /**< of what is added to the residual, in training mode */
} attn_nn_block_options;

ATTN_API attn_nn_block_options attn_nn_block_options_init(void);
ATTN_API attn_status attn_nn_block_create(const attn_nn_options *options,
                                          const attn_nn_block_options *block, attn_module **module);
/** x [batch, len, dim] → same. memory [batch, len_m, memory_dim] and how it is attended to: for cross only, else NULL. Both attends may be NULL. */
ATTN_API attn_tensor *attn_nn_block(attn_tape *tape, attn_module *module,
                                    const attn_nn_attend *attend, attn_tensor *x,
                                    const attn_nn_attend *memory_attend, attn_tensor *memory);

/* ---- models ----------------------------------------------------------------------------------- */

/**
 * A decoder. With the defaults of attn_gpt_options_init (RMS norm, SwiGLU, RoPE, no biases, tied output) it is exactly a Hugging Face "llama",
 * parameters named and shaped as there: model.embed_tokens.weight, model.layers.0.self_attn.q_proj.weight, … mlp.gate_proj.weight, …
 * model.norm.weight, and lm_head.weight where not tied. With LAYER, GELU_TANH, LEARNED, biases: a "gpt2" (transformer.wte.weight, transformer.h.0.attn.c_attn.weight, …).
 * Names follow the norm: RMS gives llama's, LAYER gives gpt2's, whatever the rest is.
 */
typedef struct attn_gpt_options {
    size_t struct_size;
    attn_dtype dtype;           /**< f32 (default) or f64 */
    int64_t vocab;              /**< number of tokens; no default */
    int64_t layers, dim, heads; /**< defaults 4, 128, 4 */
    int64_t heads_kv;           /**< 0: heads */
    int64_t head_dim;           /**< 0: dim/heads */
    int64_t ffn;     /**< 0: 4·dim; for SWIGLU 8/3·dim, rounded up to a multiple of 32 */
    int64_t context; /**< longest sequence; default 256 */
    attn_norm_kind norm;
    double norm_eps; /**< 0: 1e-5 */
    attn_mlp_kind mlp;
    attn_position_kind position;
    double rope_theta; /**< 0: 10000 */
    bool bias;         /**< of the linear layers (never of the output matrix) */
    bool untied;       /**< an output matrix of its own */
    int64_t window;    /**< > 0: each token sees this many, itself included */
    double dropout;    /**< of embeddings, weights and residuals, in training mode */
    bool
        checkpoint; /**< keep only the blocks' inputs, and compute the blocks again in backward (training mode must not change between) */
    attn_init
        init; /**< ZERO: parameters will be set by name; NORMAL: 0.02, the residual's output projections × 1/√(2·layers) */
    uint64_t seed;
    attn_context
        *init_context; /**< whose threads draw the values; NULL: the caller's alone. Not kept */
} attn_gpt_options;

ATTN_API attn_gpt_options attn_gpt_options_init(void);

/** Elements of all parameters that attn_gpt_create would make; −1 with an error text where options are wrong. */
ATTN_API int64_t attn_gpt_element_count(const attn_gpt_options *options);

/** Errors: SHAPE, ARGUMENT (each names the option, the fix and an example), NO_MEMORY. */
ATTN_API attn_status attn_gpt_create(const attn_gpt_options *options, attn_module **gpt);

/** The options it was created with, zeros replaced by what they stand for; NULL for any other module. */
ATTN_API const attn_gpt_options *attn_gpt_get_options(const attn_module *gpt);

/** Switches recomputation in backward. */
ATTN_API attn_status attn_gpt_set_checkpoint(attn_module *gpt, bool checkpoint);

/** ids [batch, len], dense, each in 0 … vocab−1, len ≤ context → logits [batch, len, vocab]. */
ATTN_API attn_tensor *attn_gpt_logits(attn_tape *tape, attn_module *gpt, const int64_t *ids,
                                      int64_t batch, int64_t len);

/** The last block's output after the final norm: [batch, len, dim]. */
ATTN_API attn_tensor *attn_gpt_hidden(attn_tape *tape, attn_module *gpt, const int64_t *ids,
                                      int64_t batch, int64_t len);

/** Mean cross-entropy of logits against targets [batch, len] (−1: ignored) in nats: [1]. */
ATTN_API attn_tensor *attn_gpt_loss(attn_tape *tape, attn_module *gpt, const int64_t *ids,
                                    const int64_t *targets, int64_t batch, int64_t len);

/** An encoder as BERT: word, position and segment embeddings, post-norm blocks, GELU, biases; Hugging Face's names (no prefix). */
typedef struct attn_bert_options {
    size_t struct_size;
    attn_dtype dtype;
    int64_t vocab, layers, dim, heads;
    int64_t ffn;      /**< 0: 4·dim */
    int64_t context;  /**< longest sequence */
    int64_t segments; /**< 0: 2 */
    double norm_eps;  /**< 0: 1e-12 */
    double dropout;
    attn_init init;
    uint64_t seed;
} attn_bert_options;

ATTN_API attn_bert_options attn_bert_options_init(void);
ATTN_API attn_status attn_bert_create(const attn_bert_options *options, attn_module **bert);
/** ids [batch, len]; segments [batch, len] or NULL (0); lengths [batch] or NULL: rows beyond one are padding, seen by nobody → [batch, len, dim]. */
ATTN_API attn_tensor *attn_bert_forward(attn_tape *tape, attn_module *bert, const int64_t *ids,
                                        const int64_t *segments, const int64_t *lengths,
                                        int64_t batch, int64_t len);

/* ---- LoRA (Hu et al. 2021) -------------------------------------------------------------------- */

typedef struct attn_lora_options {
    size_t struct_size;
    int64_t rank; /**< default 8 */
    double alpha; /**< default 16: the adapter's output is scaled by alpha/rank */
    const char *const *
        targets; /**< last words of layers' names, "q_proj"; NULL: every linear layer inside blocks */
    int target_count;
    uint64_t seed; /**< of A, uniform(±1/√in); B starts at 0, so nothing changes at first */
} attn_lora_options;

ATTN_API attn_lora_options attn_lora_options_init(void);

/**
 * Freezes every parameter of `module` and gives each linear layer that is targeted two new ones, "lora_A.weight" [rank, in] and "lora_B.weight" [out, rank]:
 * y = x·Wᵀ + b + alpha/rank·(x·Aᵀ)·Bᵀ. *count (or NULL) receives how many layers. ARGUMENT when none matches (lists the names there are) or one has an adapter already.
 */
ATTN_API attn_status attn_lora_apply(attn_module *module, const attn_lora_options *options,
                                     int *count);

/** W += alpha/rank·B·A everywhere; the adapters are gone afterwards, and parameters require gradients again. */
ATTN_API attn_status attn_lora_merge(attn_context *context, attn_module *module);

#ifdef __cplusplus
}
#endif
#endif
