/**
 * lm/model_files.h: the parts of opening and writing model files: names, configuration, trained models, adapters.
 */
#ifndef ATTN_LM_MODEL_FILES_H
#define ATTN_LM_MODEL_FILES_H

#include <attn/model_file.h>
#include <attn/safetensors.h>

#include "lm/gguf_build.h"
#include "lm/model.h"

/** Metadata of safetensors files. */
#define CONFIG_KEY    "attn.config"
#define TOKENIZER_KEY "attn.tokenizer"
#define ADAPTER_KEY   "attn.adapter"

/** Whether a GGUF name is that of a q (1) or k (2) matrix, whose rows RoPE pairs; else 0. */
int lm_rotated(const char *name);

/** Hugging Face's name of a GGUF tensor, without ".weight", into text[size]; false for one that has none. */
bool lm_hf_stem(const char *name, char *text, size_t size);

/** A replacement's or adapter's name as GGUF's: it may be either. */
void lm_as_gguf_name(const char *name, char *text, size_t size);

/** "attn.config" as llama.* pairs; *tied: the output is the embedding. Errors: FORMAT, UNSUPPORTED, NO_MEMORY. */
attn_status lm_put_config(gguf_build *b, const char *path, const char *json, bool *tied);

/** A trained model seen as GGUF; takes `from` whatever happens. */
attn_status lm_open_trained(attn_safetensors *from, attn_gguf **file);

/** What "attn.adapter" says. */
typedef struct lm_adapter {
    char base[256]; /**< file name */
    char sha256[65];
    int64_t rank;
    double scale;
} lm_adapter;

attn_status lm_read_adapter(const attn_safetensors *from, lm_adapter *adapter);

/** Checks the base's SHA-256 and merges. */
attn_status lm_merge_adapter(attn_gguf *base, const attn_safetensors *from,
                             const lm_adapter *adapter, const attn_model_open_options *options);

#endif
