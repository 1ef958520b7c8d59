/* Tensor names of the llama architecture as GGUF and as Hugging Face have them, and the two orders of q's and k's rows. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lm/model_files.h"

/* Without ".weight" in both. */
static const char *const layer_names[][2] = {
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
};
static const char *const end_names[][2] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* "<prefix>N.<rest>": N and where the rest begins; NULL for another name. */
static const char *in_layer(const char *name, const char *prefix, int64_t *layer)
{
    size_t skip = strlen(prefix);
    int used = 0;
    if (strncmp(name, prefix, skip) != 0 || name[skip] < '0' || name[skip] > '9' ||
        sscanf(name + skip, "%9" SCNd64 ".%n", layer, &used) != 1 || used == 0) {
        return NULL;
    }
    return name + skip + used;
}

/* Whether a name is `stem` and ".weight". */
static bool is_weight(const char *name, const char *stem)
{
    size_t size = strlen(stem);
    return strncmp(name, stem, size) == 0 && strcmp(name + size, ".weight") == 0;
}

bool attn_model_gguf_name(const char *name, char *text, size_t size)
{
    int64_t layer;
    int length = -1;
    if (!name || !text) {
        return false;
    }
    const char *rest = in_layer(name, "model.layers.", &layer);
    for (size_t i = 0; rest && i < COUNT(layer_names); i++) {
        if (is_weight(rest, layer_names[i][1])) {
            length = snprintf(text, size, "blk.%" PRId64 ".%s.weight", layer, layer_names[i][0]);
        }
    }
    for (size_t i = 0; !rest && i < COUNT(end_names); i++) {
        if (is_weight(name, end_names[i][1])) {
            length = snprintf(text, size, "%s.weight", end_names[i][0]);
        }
    }
    return length >= 0 && (size_t)length < size;
}

bool lm_hf_stem(const char *name, char *text, size_t size)
{
    int64_t layer;
    int length = -1;
    const char *rest = in_layer(name, "blk.", &layer);
    for (size_t i = 0; rest && i < COUNT(layer_names); i++) {
        if (is_weight(rest, layer_names[i][0])) {
            length = snprintf(text, size, "model.layers.%" PRId64 ".%s", layer, layer_names[i][1]);
        }
    }
    for (size_t i = 0; !rest && i < COUNT(end_names); i++) {
        if (is_weight(name, end_names[i][0])) {
            length = snprintf(text, size, "%s", end_names[i][1]);
        }
    }
    return length >= 0 && (size_t)length < size;
}

void lm_as_gguf_name(const char *name, char *text, size_t size)
{
    if (!attn_model_gguf_name(name, text, size)) {
        snprintf(text, size, "%s", name);
    }
}

int lm_rotated(const char *name)
{
    int64_t layer;
    const char *rest = in_layer(name, "blk.", &layer);
    return !rest ? 0 : is_weight(rest, "attn_q") ? 1 : is_weight(rest, "attn_k") ? 2 : 0;
}

attn_status attn_rope_reorder(const float *src, int64_t heads, int64_t head_dim, int64_t dims,
                              int64_t cols, attn_rope_pairing from, float *dst)
{
    if (!src || !dst) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", src ? "dst" : "src");
    }
    dims = dims ? dims : head_dim;
    if (heads < 0 || head_dim < 1 || cols < 0 || dims < 2 || dims % 2 != 0 || dims > head_dim) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%" PRId64 " heads of %" PRId64 " rows of %" PRId64 ", %" PRId64
                         " of them rotated: sizes must be at least 0, the last even and at most "
                         "the head's",
                         heads, head_dim, cols, dims);
    }
    for (int64_t h = 0; h < heads; h++) {
        for (int64_t i = 0; i < head_dim; i++) {
            /* Row i of interleaved pairs is row i/2 of half i%2. */
            int64_t half = i < dims ? i % 2 * (dims / 2) + i / 2 : i;
            int64_t to = from == ATTN_ROPE_HALVES ? i : half;
            int64_t at = from == ATTN_ROPE_HALVES ? half : i;
            memcpy(dst + (h * head_dim + to) * cols, src + (h * head_dim + at) * cols,
                   (size_t)cols * sizeof *dst);
        }
    }
    return ATTN_OK;
}
