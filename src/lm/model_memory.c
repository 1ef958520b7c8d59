/**
 * lm/model_memory.c: what loading and running will take, from the file's shapes alone.
 */
#include "lm/model.h"
#include <string.h>

/*
 * Packed weights: linear layers keep block formats in their own size, rows rounded up to the 16
 * that a panel interleaves, and everything else (or all, with f32 activations) as f32 in panels of
 * as many rows.
 */
#define PANEL 16

static bool add_matrix(const attn_gguf_tensor *tensor, attn_activations activations, size_t *sum)
{
    attn_weight_type type = lm_weight_type(tensor->type);
    bool blocks = type == ATTN_WEIGHT_Q8_0 || type == ATTN_WEIGHT_Q4_0 || type == ATTN_WEIGHT_Q4_1;
    if (!blocks || activations == ATTN_ACTIVATIONS_F32) {
        type = ATTN_WEIGHT_F32;
    }
    int64_t rows = (tensor->dims[1] + PANEL - 1) / PANEL * PANEL;
    size_t bytes = attn_weight_bytes(type, rows, tensor->dims[0]);
    return bytes > 0 && !__builtin_add_overflow(*sum, bytes, sum);
}

static bool weights_bytes(const attn_gguf *file, const attn_model_config *config,
                          attn_activations activations, size_t *sum)
{
    const attn_gguf_tensor *embedding = attn_gguf_find(file, "token_embd.weight");
    const attn_gguf_tensor *output =
        config->tied_output ? embedding : attn_gguf_find(file, "output.weight");
    *sum =
        embedding->bytes + (size_t)(2 * config->layers + 1) * (size_t)config->dim * sizeof(float);
    bool fits = add_matrix(output, activations, sum);
    for (int64_t layer = 0; fits && layer < config->layers; layer++) {
        for (int m = 0; fits && m < LM_MATRIX_COUNT; m++) {
            fits = add_matrix(lm_find_matrix(file, layer, (lm_matrix)m), activations, sum);
        }
    }
    return fits;
}

bool lm_working_floats(const attn_model_config *config, int64_t block, size_t *floats)
{
    int64_t row = 2 * config->dim +
                  (2 * config->heads_q + 2 * config->heads_kv) * config->head_dim +
                  2 * config->ffn_dim;
    return !__builtin_mul_overflow((size_t)row, (size_t)block, floats) &&
           *floats <= SIZE_MAX / 2 / sizeof(float);
}

int64_t lm_cache_slots(int64_t context, int64_t window, int64_t block, bool *ring)
{
    *ring = window > 0 && (context == 0 || window + block - 1 < context);
    return *ring ? window + block - 1 : context;
}

attn_status attn_model_memory(const attn_gguf *file, const attn_model_options *options,
                              attn_dtype kv, int64_t context, int64_t window, size_t *weights,
                              size_t *cache, size_t *activations)
{
    attn_model_options defaults = attn_model_options_init();
    options = options ? options : &defaults;
    attn_model_config config;
    attn_status s = attn_model_config_read(file, &config);
    if (s != ATTN_OK) {
        return s;
    }
    if (context < 0 || window < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: %lld, it must be at least 0",
                         context < 0 ? "context" : "window",
                         (long long)(context < 0 ? context : window));
    }
    if (kv == ATTN_DTYPE_NONE) {
        kv = options->activations == ATTN_ACTIVATIONS_F32 ? ATTN_F32 : ATTN_F16;
    }
    if (context == 0 && window == 0) {
        context = config.context;
    }
    bool ring;
    const int64_t block = 512; /* attn_session_options' default */
    int64_t slots = lm_cache_slots(context, window > INT32_MAX ? INT32_MAX : window, block, &ring);
    size_t token = attn_model_kv_bytes_per_token(&config, kv), cache_bytes, weight_bytes, floats;
    if (__builtin_mul_overflow((size_t)slots, token, &cache_bytes) ||
        !weights_bytes(file, &config, options->activations, &weight_bytes) ||
        !lm_working_floats(&config, block, &floats)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "context: %lld tokens take more memory than there can be",
                         (long long)context);
    }
    if (weights) {
        *weights = weight_bytes;
    }
    if (cache) {
        *cache = cache_bytes;
    }
    if (activations) { /* and logits */
        *activations = floats * sizeof(float) + (size_t)config.vocab * sizeof(float);
    }
    return ATTN_OK;
}
