/* "attn.config": Hugging Face's config.json of a llama, written and read. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "lm/model_files.h"

#define CONFIG_BYTES_MAX ((size_t)1 << 20)

/* ---- writing ---- */

static json_t *id_or_null(int32_t id)
{
    return id < 0 ? json_null() : json_integer(id);
}

attn_status attn_model_config_json(const attn_model_config *c, int32_t bos, int32_t eos,
                                   char **json)
{
    if (!json || !c) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", json ? "config" : "json");
    }
    *json = NULL;
    if (c->rope_pairing != ATTN_ROPE_HALVES || c->rope_dims != c->head_dim) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "config: a trained model rotates halves of whole heads: rope_pairing must "
                         "be ATTN_ROPE_HALVES and rope_dims (%" PRId64 ") head_dim (%" PRId64 ")",
                         c->rope_dims, c->head_dim);
    }
    json_t *object = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:s, s:b, s:b, s:n, "
        "s:o, s:o}",
        "architectures", "LlamaForCausalLM", "model_type", "llama", "hidden_size",
        (json_int_t)c->dim, "intermediate_size", (json_int_t)c->ffn_dim, "num_hidden_layers",
        (json_int_t)c->layers, "num_attention_heads", (json_int_t)c->heads_q, "num_key_value_heads",
        (json_int_t)c->heads_kv, "head_dim", (json_int_t)c->head_dim, "vocab_size",
        (json_int_t)c->vocab, "max_position_embeddings", (json_int_t)c->context, "rms_norm_eps",
        c->norm_eps, "rope_theta", c->rope_theta, "tie_word_embeddings", (int)c->tied_output,
        "hidden_act", "silu", "attention_bias", 0, "mlp_bias", 0, "rope_scaling", "bos_token_id",
        id_or_null(bos), "eos_token_id", id_or_null(eos));
    bool good = object != NULL;
    if (good && c->name[0]) {
        good = json_object_set_new(object, "_name_or_path", json_string(c->name)) == 0;
    }
    *json = good ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return *json ? ATTN_OK
                 : attn_fail(good ? ATTN_ERR_NO_MEMORY : ATTN_ERR_ARGUMENT,
                             good ? "no memory for the configuration as JSON"
                                  : "config: its numbers or its name cannot be written as JSON");
}

/* ---- reading ---- */

/* One size: from `name` to the metadata `key`; `needed` or absent. */
static attn_status put_size(gguf_build *b, const char *path, const json_t *config, const char *name,
                            const char *key, bool needed)
{
    const json_t *value = json_object_get(config, name);
    if (!needed && (!value || json_is_null(value))) {
        return ATTN_OK;
    }
    json_int_t size = json_is_integer(value) ? json_integer_value(value) : 0;
    if (size < 1 || size > INT32_MAX) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: '%s' of " CONFIG_KEY " is %s; it must be 1 to 2^31 − 1", path, name,
                         value ? "no such number" : "missing");
    }
    gguf_put_pair_u32(b, key, (uint32_t)size);
    return ATTN_OK;
}

static attn_status put_sizes(gguf_build *b, const char *path, const json_t *config)
{
    static const struct {
        const char *name, *key;
        bool needed;
    } sizes[] = {
        {"num_hidden_layers", "llama.block_count", true},
        {"hidden_size", "llama.embedding_length", true},
        {"intermediate_size", "llama.feed_forward_length", true},
        {"max_position_embeddings", "llama.context_length", true},
        {"num_attention_heads", "llama.attention.head_count", true},
        {"num_key_value_heads", "llama.attention.head_count_kv", false},
        {"head_dim", "llama.attention.key_length", false},
        {"head_dim", "llama.attention.value_length", false},
        {"head_dim", "llama.rope.dimension_count", false},
        {"vocab_size", "llama.vocab_size", false},
    };
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == ATTN_OK; i++) {
        status = put_size(b, path, config, sizes[i].name, sizes[i].key, sizes[i].needed);
    }
    return status;
}

static bool is_absent(const json_t *value)
{
    return !value || json_is_null(value);
}

/* What would change the arithmetic in a way that is not written here. */
static attn_status refuse_features(const char *path, const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const json_t *act = json_object_get(config, "hidden_act");
    if (!type || strcmp(type, "llama") != 0) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: model_type '%.40s' of " CONFIG_KEY " is not supported ('llama' is)",
                         path, type ? type : "");
    }
    if (!is_absent(act) && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0)) {
        return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: a hidden_act other than silu is not supported",
                         path);
    }
    if (json_is_true(json_object_get(config, "attention_bias")) ||
        json_is_true(json_object_get(config, "mlp_bias"))) {
        return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: biases are not supported", path);
    }
    static const char *const absent[] = {"rope_scaling", "sliding_window", "quantization_config"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        if (!is_absent(json_object_get(config, absent[i]))) {
            return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: '%s' of " CONFIG_KEY " is not supported",
                             path, absent[i]);
        }
    }
    return ATTN_OK;
}

static attn_status put_token(gguf_build *b, const char *path, const json_t *config,
                             const char *name, const char *key)
{
    const json_t *id = json_object_get(config, name);
    if (is_absent(id)) {
        return ATTN_OK;
    }
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: '%s' of " CONFIG_KEY " is no token", path, name);
    }
    gguf_put_pair_u32(b, key, (uint32_t)json_integer_value(id));
    return ATTN_OK;
}

static attn_status put_all(gguf_build *b, const char *path, const json_t *config, bool *tied)
{
    attn_status status = refuse_features(path, config);
    const json_t *name = json_object_get(config, "_name_or_path");
    const json_t *eps = json_object_get(config, "rms_norm_eps");
    const json_t *theta = json_object_get(config, "rope_theta");
    if (status == ATTN_OK && !json_is_number(eps)) {
        status =
            attn_fail(ATTN_ERR_FORMAT, "%s: 'rms_norm_eps' of " CONFIG_KEY " is no number", path);
    }
    if (status != ATTN_OK) {
        return status;
    }
    gguf_put_pair_text(b, "general.architecture", "llama");
    gguf_put_pair_text(b, "general.name", json_is_string(name) ? json_string_value(name) : "");
    gguf_put_pair_text(b, LM_PAIRING_KEY, "halves");
    gguf_put_pair_f64(b, "llama.attention.layer_norm_rms_epsilon", json_number_value(eps));
    if (json_is_number(theta)) {
        gguf_put_pair_f64(b, "llama.rope.freq_base", json_number_value(theta));
    }
    *tied = json_is_true(json_object_get(config, "tie_word_embeddings"));
    status = put_sizes(b, path, config);
    if (status == ATTN_OK) {
        status = put_token(b, path, config, "bos_token_id", "tokenizer.ggml.bos_token_id");
    }
    if (status == ATTN_OK) {
        status = put_token(b, path, config, "eos_token_id", "tokenizer.ggml.eos_token_id");
    }
    return status;
}

attn_status lm_put_config(gguf_build *b, const char *path, const char *json, bool *tied)
{
    size_t size = strlen(json);
    if (size > CONFIG_BYTES_MAX) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: " CONFIG_KEY " has %zu bytes; at most %zu are read",
                         path, size, CONFIG_BYTES_MAX);
    }
    json_error_t error;
    json_t *config = json_loadb(json, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(config)) {
        bool no_memory = !config && error.text[0] == '\0';
        json_decref(config);
        return no_memory ? attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for " CONFIG_KEY, path)
                         : attn_fail(ATTN_ERR_FORMAT, "%s: " CONFIG_KEY " is no JSON object", path);
    }
    attn_status status = put_all(b, path, config, tied);
    json_decref(config);
    return status;
}
