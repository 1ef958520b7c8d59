/**
 * attn/model_file.h: model files of every kind: opening one (GGUF, what was trained here, an adapter with its base), and what training writes: the
 * configuration of a trained model, fine-tuned GGUF files, adapters.
 *
 * A trained model is one safetensors file (attn/safetensors.h) of the llama architecture:
 *   __metadata__  "format" = "pt", "attn.config" (attn_model_config_json), "attn.tokenizer" (attn_tokenizer_to_json)
 *   tensors       F32, BF16 or F16, with Hugging Face's names: model.embed_tokens.weight [vocab, dim], model.norm.weight [dim], lm_head.weight [vocab, dim] (not
 *                 there when the output is tied to the embedding), and for each layer model.layers.N. + self_attn.q_proj.weight, self_attn.k_proj.weight,
 *                 self_attn.v_proj.weight, self_attn.o_proj.weight, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight,
 *                 input_layernorm.weight, post_attention_layernorm.weight
 * RoPE rotates halves (ATTN_ROPE_HALVES), as Hugging Face's llama does. Tensors named "attn.…" are not part of the model and are passed over.
 */
#ifndef ATTN_MODEL_FILE_H
#define ATTN_MODEL_FILE_H

#include <attn/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_model_open_options {
    size_t struct_size;
    const char *adapter;        /**< path of an adapter for `path`; NULL: none */
    const char *const *folders; /**< where else to look for the base of an adapter; may be NULL */
    size_t folder_count;
    bool (*cancel)(
        void *user); /**< asked while a base is hashed and merged; true stops with CANCELLED */
    void *cancel_user;
} attn_model_open_options;

ATTN_API attn_model_open_options attn_model_open_options_init(void);

/**
 * Opens a model file by what is in it: a GGUF file; a trained model; an adapter, whose base is looked for by its file name beside the adapter and in
 * `folders`; with `adapter`, that adapter on the base `path`. Whatever it was, the result is seen as GGUF (names, metadata), for attn_model_config_read, attn_model_load,
 * attn_tokenizer_create and the rest; attn_gguf_close it. An adapter is merged here, W + scale·B·A in f32, after the SHA-256 of its base was checked.
 * `options` may be NULL. Errors: as attn_gguf_open and attn_safetensors_open; FORMAT and UNSUPPORTED where the parts do not fit (says which), CANCELLED.
 */
ATTN_API attn_status attn_model_open(const char *path, const attn_model_open_options *options,
                                     attn_gguf **file);

/**
 * *json = the value of "attn.config" (malloc'd, caller frees): the names of Hugging Face's config.json. Of `config` everything but architecture (llama)
 * and parameters is used; rope_pairing must be HALVES and rope_dims head_dim. bos, eos: token ids, −1: none.
 */
ATTN_API attn_status attn_model_config_json(const attn_model_config *config, int32_t bos,
                                            int32_t eos, char **json);

/**
 * The GGUF name of one of Hugging Face's llama tensor names, into text[size] ("model.layers.3.mlp.up_proj.weight" → "blk.3.ffn_up.weight"); false where it is none.
 */
ATTN_API bool attn_model_gguf_name(const char *name, char *text, size_t size);

/**
 * The order of q's or k's rows: dst = the rows of src [heads·head_dim, cols], in each head the first `dims` reordered from the pairing `from`
 * to the other one (a matrix for halves becomes one for interleaved pairs, and back), so that RoPE with the other pairing gives the same scores. dst must not overlap src. cols = 1 for a bias.
 */
ATTN_API attn_status attn_rope_reorder(const float *src, int64_t heads, int64_t head_dim,
                                       int64_t dims, int64_t cols, attn_rope_pairing from,
                                       float *dst);

/** A tensor that replaces one of the base. */
typedef struct attn_gguf_replacement {
    const char *name;  /**< GGUF's or Hugging Face's */
    const float *data; /**< dense, rows as the base has them, but for: */
    attn_rope_pairing
        pairing; /**< q and k: HALVES rows are reordered to the file's INTERLEAVED; else not used */
    attn_dtype
        dtype; /**< stored as F32, BF16 or F16; one-dimensional tensors are stored as F32 whatever it says */
} attn_gguf_replacement;

/**
 * Writes a GGUF v3 file atomically (as attn_safetensors_save): the base's metadata and tensors with some replaced. The tokenizer and all
 * other metadata are copied byte for byte, but general.file_type, which follows the replaced types, and general.name where `name` is not NULL. Errors: IO, ARGUMENT (a name the base does not
 * have, named), UNSUPPORTED, NO_MEMORY.
 */
ATTN_API attn_status attn_gguf_write(const char *path, const attn_gguf *base,
                                     const attn_gguf_replacement *replacements, size_t count,
                                     const char *name);

/** One matrix's low-rank change (Hu et al. 2021): W + scale·b·a, W [rows, cols], a [rank, cols], b [rows, rank]. */
typedef struct attn_adapter_part {
    const char *name;          /**< of W: GGUF's or Hugging Face's */
    const float *a, *b;        /**< dense */
    attn_rope_pairing pairing; /**< q and k: the order of b's rows; else not used */
} attn_adapter_part;

/**
 * Writes an adapter atomically: a safetensors file with F32 tensors "base_model.model.<Hugging Face's name>.lora_A.weight" [rank, cols] and "….lora_B.weight" [rows, rank] (rows in
 * Hugging Face's order), and in its metadata "attn.adapter" = {"base": file name, "base_sha256": …, "rank": …, "scale": …}. `base` is the open base, whose file is hashed
 * here (a third of a second per 100 MB). Errors: IO, ARGUMENT, SHAPE, NO_MEMORY.
 */
ATTN_API attn_status attn_adapter_save(const char *path, const attn_gguf *base, int64_t rank,
                                       double scale, const attn_adapter_part *parts, size_t count);

/** text = 64 hexadecimal digits: SHA-256 (FIPS 180-4) of a file. `cancel` may be NULL. Errors: IO, CANCELLED. */
ATTN_API attn_status attn_file_sha256(const char *path, char text[65], bool (*cancel)(void *user),
                                      void *cancel_user);

#ifdef __cplusplus
}
#endif
#endif
