/**
 * lm/model_config.c: what a GGUF file says of its model, believed only as far as its tensors bear
 * it out.
 *
 * Three kinds of check: metadata values in sane ranges; every tensor that the architecture needs
 * there, with the shape that the values give and a type that can be computed with; and nothing
 * beside them, since a tensor or a setting that is not known here would change what the model
 * computes.
 */
#include "lm/model.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_SIZE ((int64_t)1 << 28) /* of any dimension: products of two fit easily */

static const char *const matrix_names[LM_MATRIX_COUNT] = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
};

attn_weight_type lm_weight_type(uint32_t tensor_type)
{
    switch (tensor_type) {
    case 0: return ATTN_WEIGHT_F32;
    case 1: return ATTN_WEIGHT_F16;
    case 2: return ATTN_WEIGHT_Q4_0;
    case 3: return ATTN_WEIGHT_Q4_1;
    case 8: return ATTN_WEIGHT_Q8_0;
    case 30: return ATTN_WEIGHT_BF16;
    default: return (attn_weight_type)0;
    }
}

void lm_matrix_shape(const attn_model_config *config, lm_matrix matrix, int64_t *rows,
                     int64_t *cols)
{
    int64_t q = config->heads_q * config->head_dim;
    int64_t kv = config->heads_kv * config->head_dim;
    *rows = config->dim;
    *cols = config->dim;
    switch (matrix) {
    case LM_ATTN_Q: *rows = q; break;
    case LM_ATTN_K:
    case LM_ATTN_V: *rows = kv; break;
    case LM_ATTN_OUTPUT: *cols = q; break;
    case LM_FFN_GATE:
    case LM_FFN_UP: *rows = config->ffn_dim; break;
    case LM_FFN_DOWN: *cols = config->ffn_dim; break;
    case LM_MATRIX_COUNT: break;
    }
}

static const attn_gguf_tensor *find_in_layer(const attn_gguf *file, int64_t layer, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%" PRId64 ".%s.weight", layer, what);
    return attn_gguf_find(file, name);
}

const attn_gguf_tensor *lm_find_matrix(const attn_gguf *file, int64_t layer, lm_matrix matrix)
{
    return find_in_layer(file, layer, matrix_names[matrix]);
}

const attn_gguf_tensor *lm_find_norm(const attn_gguf *file, int64_t layer, bool ffn)
{
    return find_in_layer(file, layer, ffn ? "ffn_norm" : "attn_norm");
}

/* ---- metadata ---- */

static attn_status read_size(const attn_gguf *file, const char *key, int64_t max, int64_t *value)
{
    if (!attn_gguf_get_int(file, key, value)) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: metadata '%s' is missing or no whole number",
                         attn_gguf_path(file), key);
    }
    if (*value < 1 || *value > max) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: metadata '%s' is %" PRId64 ", it must be 1 to %" PRId64,
                         attn_gguf_path(file), key, *value, max);
    }
    return ATTN_OK;
}

/* As read_size, but a missing key leaves *value, the default. */
static attn_status read_optional(const attn_gguf *file, const char *key, int64_t max,
                                 int64_t *value)
{
    for (int64_t i = 0; i < attn_gguf_key_count(file); i++) {
        attn_gguf_type type;
        const char *name = attn_gguf_key_at(file, i, &type);
        if (name && strcmp(name, key) == 0) {
            if (type == ATTN_GGUF_ARRAY) {
                return attn_fail(
                    ATTN_ERR_UNSUPPORTED,
                    "%s: metadata '%s' differs from layer to layer, which is not supported",
                    attn_gguf_path(file), key);
            }
            return read_size(file, key, max, value);
        }
    }
    return ATTN_OK;
}

static attn_status read_number(const attn_gguf *file, const char *key, double above, double max,
                               double *value)
{
    double number;
    if (attn_gguf_get_float(file, key, &number)) {
        if (!(number > above && number <= max)) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: metadata '%s' is %g, it must be above %g, at most %g",
                             attn_gguf_path(file), key, number, above, max);
        }
        *value = number;
    }
    return ATTN_OK;
}

static void read_text(const attn_gguf *file, const char *key, char *text, size_t size)
{
    attn_gguf_string string = {"", 0};
    attn_gguf_get_string(file, key, &string);
    size_t n = string.size < size - 1 ? string.size : size - 1;
    memcpy(text, string.data, n);
    text[n] = '\0';
}

/* Settings that change the arithmetic in a way that is not written here: refused unless they have
 * the value that means "not used". */
static attn_status refuse_features(const attn_gguf *file)
{
    static const struct {
        const char *key, *what;
        double neutral;
    } numbers[] = {
        {"llama.rope.scaling.factor", "scaled rotary embedding", 1},
        {"llama.rope.scale_linear", "scaled rotary embedding", 1},
        {"llama.expert_count", "mixture of experts", 0},
        {"llama.attention.sliding_window", "a sliding window of the model's own", 0},
        {"llama.attention.clamp_kqv", "clamped projections", 0},
        {"llama.attention.max_alibi_bias", "ALiBi", 0},
        {"llama.attention.scale", "an attention scale of the model's own", 0},
        {"llama.attn_logit_softcapping", "soft-capped scores", 0},
        {"llama.final_logit_softcapping", "soft-capped logits", 0},
        {"llama.logit_scale", "scaled logits", 1},
        {"llama.residual_scale", "a scaled residual", 1},
        {"llama.embedding_scale", "a scaled embedding", 1},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        double number;
        if (attn_gguf_get_float(file, numbers[i].key, &number) && number != numbers[i].neutral &&
            number != 0) {
            return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: %s ('%s' = %g) is not supported",
                             attn_gguf_path(file), numbers[i].what, numbers[i].key, number);
        }
    }
    static const struct {
        const char *key, *what;
        bool neutral;
    } flags[] = {
        {"llama.use_parallel_residual", "a parallel residual", false},
        {"llama.attention.causal", "attention that is not causal", true},
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        bool flag;
        if (attn_gguf_get_bool(file, flags[i].key, &flag) && flag != flags[i].neutral) {
            return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: %s ('%s') is not supported",
                             attn_gguf_path(file), flags[i].what, flags[i].key);
        }
    }
    char scaling[32];
    read_text(file, "llama.rope.scaling.type", scaling, sizeof scaling);
    if (scaling[0] != '\0' && strcmp(scaling, "none") != 0) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: rotary embedding scaled by '%s' is not supported",
                         attn_gguf_path(file), scaling);
    }
    return ATTN_OK;
}

static attn_status read_metadata(const attn_gguf *file, attn_model_config *c)
{
    attn_status s;
    int64_t value_dim;
    if ((s = read_size(file, "llama.block_count", MAX_SIZE, &c->layers)) != ATTN_OK ||
        (s = read_size(file, "llama.embedding_length", MAX_SIZE, &c->dim)) != ATTN_OK ||
        (s = read_size(file, "llama.feed_forward_length", MAX_SIZE, &c->ffn_dim)) != ATTN_OK ||
        (s = read_size(file, "llama.context_length", INT32_MAX, &c->context)) != ATTN_OK ||
        (s = read_size(file, "llama.attention.head_count", MAX_SIZE, &c->heads_q)) != ATTN_OK) {
        return s;
    }
    c->heads_kv = c->heads_q;
    s = read_optional(file, "llama.attention.head_count_kv", MAX_SIZE, &c->heads_kv);
    if (s != ATTN_OK) {
        return s;
    }
    if (c->heads_q % c->heads_kv != 0) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: %" PRId64 " query heads are no multiple of %" PRId64 " key heads",
                         attn_gguf_path(file), c->heads_q, c->heads_kv);
    }
    c->head_dim = c->dim / c->heads_q; /* 0 fits no tensor */
    s = read_optional(file, "llama.attention.key_length", MAX_SIZE, &c->head_dim);
    if (s != ATTN_OK) {
        return s;
    }
    value_dim = c->head_dim;
    s = read_optional(file, "llama.attention.value_length", MAX_SIZE, &value_dim);
    if (s != ATTN_OK) {
        return s;
    }
    if (value_dim != c->head_dim) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: values of another size (%" PRId64 ") than keys (%" PRId64
                         ") are not supported",
                         attn_gguf_path(file), value_dim, c->head_dim);
    }
    c->rope_dims = c->head_dim;
    s = read_optional(file, "llama.rope.dimension_count", MAX_SIZE, &c->rope_dims);
    if (s != ATTN_OK) {
        return s;
    }
    if (c->rope_dims % 2 != 0 || c->rope_dims < 2 || c->rope_dims > c->head_dim) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: metadata 'llama.rope.dimension_count' is %" PRId64
                         ", it must be even and at most the head's %" PRId64,
                         attn_gguf_path(file), c->rope_dims, c->head_dim);
    }
    c->rope_theta = 10000;
    c->norm_eps = -1;
    char pairing[16];
    read_text(file, LM_PAIRING_KEY, pairing, sizeof pairing);
    c->rope_pairing = strcmp(pairing, "halves") == 0 ? ATTN_ROPE_HALVES : ATTN_ROPE_INTERLEAVED;
    s = read_number(file, "llama.rope.freq_base", 0, 1e15, &c->rope_theta);
    if (s == ATTN_OK) {
        s = read_number(file, "llama.attention.layer_norm_rms_epsilon", 0, 1, &c->norm_eps);
    }
    if (s == ATTN_OK && c->norm_eps < 0) {
        s = attn_fail(ATTN_ERR_FORMAT,
                      "%s: metadata 'llama.attention.layer_norm_rms_epsilon' is missing",
                      attn_gguf_path(file));
    }
    return s;
}

/* ---- tensors ---- */

static attn_status check_tensor(const attn_gguf *file, const attn_gguf_tensor *tensor,
                                const char *name, int64_t rows, int64_t cols, bool norm)
{
    if (tensor == NULL) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: tensor '%s' is missing", attn_gguf_path(file), name);
    }
    if (tensor->dims[0] != cols || tensor->dims[1] != rows || tensor->dims[2] != 1 ||
        tensor->dims[3] != 1) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: tensor '%s' is [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64
                         "], the metadata make it [%" PRId64 ", %" PRId64 "]",
                         attn_gguf_path(file), name, tensor->dims[0], tensor->dims[1],
                         tensor->dims[2], tensor->dims[3], cols, rows);
    }
    attn_weight_type type = lm_weight_type(tensor->type);
    if (type == 0 || tensor->data == NULL || (norm && type != ATTN_WEIGHT_F32)) {
        return attn_fail(ATTN_ERR_UNSUPPORTED, "%s: tensor '%s' is %s, which is not supported%s",
                         attn_gguf_path(file), name, attn_gguf_type_name(tensor->type),
                         norm ? " for a norm (F32 is)"
                              : " (F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are)");
    }
    size_t bytes = attn_weight_bytes(type, rows, cols);
    if (bytes == 0 || bytes != tensor->bytes) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: tensor '%s' has %zu bytes, its shape and type make it %zu",
                         attn_gguf_path(file), name, tensor->bytes, bytes);
    }
    return ATTN_OK;
}

static attn_status check_layer(const attn_gguf *file, const attn_model_config *config,
                               int64_t layer)
{
    char name[64];
    for (int m = 0; m < LM_MATRIX_COUNT; m++) {
        int64_t rows, cols;
        lm_matrix_shape(config, (lm_matrix)m, &rows, &cols);
        snprintf(name, sizeof name, "blk.%" PRId64 ".%s.weight", layer, matrix_names[m]);
        attn_status s =
            check_tensor(file, lm_find_matrix(file, layer, (lm_matrix)m), name, rows, cols, false);
        if (s != ATTN_OK) {
            return s;
        }
    }
    for (int ffn = 0; ffn < 2; ffn++) {
        snprintf(name, sizeof name, "blk.%" PRId64 ".%s.weight", layer,
                 ffn ? "ffn_norm" : "attn_norm");
        attn_status s =
            check_tensor(file, lm_find_norm(file, layer, ffn), name, 1, config->dim, true);
        if (s != ATTN_OK) {
            return s;
        }
    }
    return ATTN_OK;
}

static bool is_known(const char *name, int64_t layers)
{
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "output_norm.weight") == 0 ||
        strcmp(name, "output.weight") == 0) {
        return true;
    }
    int64_t layer = -1;
    int used = 0;
    if (sscanf(name, "blk.%" SCNd64 ".%n", &layer, &used) != 1 || used == 0 || layer < 0 ||
        layer >= layers) {
        return false;
    }
    for (int m = 0; m < LM_MATRIX_COUNT + 2; m++) {
        const char *known = m < LM_MATRIX_COUNT    ? matrix_names[m]
                            : m == LM_MATRIX_COUNT ? "attn_norm"
                                                   : "ffn_norm";
        size_t size = strlen(known);
        if (strncmp(name + used, known, size) == 0 && strcmp(name + used + size, ".weight") == 0) {
            return true;
        }
    }
    return false;
}

static attn_status check_tensors(const attn_gguf *file, attn_model_config *c)
{
    int64_t count = attn_gguf_tensor_count(file);
    if (c->layers > count) { /* before a loop over layers that a lying file made long */
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: metadata 'llama.block_count' is %" PRId64 " but there are %" PRId64
                         " tensors in all",
                         attn_gguf_path(file), c->layers, count);
    }
    const attn_gguf_tensor *embedding = attn_gguf_find(file, "token_embd.weight");
    c->vocab = embedding ? embedding->dims[1] : 1;
    if (c->vocab < 1 || c->vocab > MAX_SIZE) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: tensor 'token_embd.weight' has %" PRId64 " rows",
                         attn_gguf_path(file), c->vocab);
    }
    attn_status s = check_tensor(file, embedding, "token_embd.weight", c->vocab, c->dim, false);
    int64_t vocab = c->vocab;
    if (s == ATTN_OK) {
        s = read_optional(file, "llama.vocab_size", MAX_SIZE, &vocab);
    }
    if (s == ATTN_OK && vocab != c->vocab) {
        s = attn_fail(ATTN_ERR_FORMAT,
                      "%s: metadata 'llama.vocab_size' is %" PRId64
                      ", but 'token_embd.weight' has %" PRId64 " rows",
                      attn_gguf_path(file), vocab, c->vocab);
    }
    if (s == ATTN_OK) {
        s = check_tensor(file, attn_gguf_find(file, "output_norm.weight"), "output_norm.weight", 1,
                         c->dim, true);
    }
    const attn_gguf_tensor *output = attn_gguf_find(file, "output.weight");
    c->tied_output = output == NULL;
    if (s == ATTN_OK && output) {
        s = check_tensor(file, output, "output.weight", c->vocab, c->dim, false);
    }
    for (int64_t layer = 0; s == ATTN_OK && layer < c->layers; layer++) {
        s = check_layer(file, c, layer);
    }
    for (int64_t i = 0; s == ATTN_OK && i < count; i++) {
        const attn_gguf_tensor *tensor = attn_gguf_tensor_at(file, i);
        if (!is_known(tensor->name, c->layers)) {
            return attn_fail(
                ATTN_ERR_UNSUPPORTED,
                "%s: tensor '%s' is no part of the llama architecture as supported here",
                attn_gguf_path(file), tensor->name);
        }
        c->parameters += tensor->dims[0] * tensor->dims[1]; /* shapes were checked above */
    }
    return s;
}

attn_status attn_model_config_read(const attn_gguf *file, attn_model_config *config)
{
    if (file == NULL || config == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL; give %s", file ? "config" : "file",
                         file ? "an attn_model_config to fill" : "an open GGUF file");
    }
    attn_model_config c;
    memset(&c, 0, sizeof c);
    read_text(file, "general.architecture", c.architecture, sizeof c.architecture);
    read_text(file, "general.name", c.name, sizeof c.name);
    attn_status s = ATTN_OK;
    if (strcmp(c.architecture, "llama") != 0) {
        s = attn_fail(ATTN_ERR_UNSUPPORTED, "%s: architecture '%s' is not supported ('llama' is)",
                      attn_gguf_path(file), c.architecture);
    }
    if (s == ATTN_OK) {
        s = refuse_features(file);
    }
    if (s == ATTN_OK) {
        s = read_metadata(file, &c);
    }
    if (s == ATTN_OK) {
        s = check_tensors(file, &c);
    }
    memset(config, 0, sizeof *config);
    if (s == ATTN_OK) {
        *config = c;
    }
    return s;
}

size_t attn_model_kv_bytes_per_token(const attn_model_config *config, attn_dtype kv)
{
    if (config == NULL) {
        return 0;
    }
    return (size_t)config->layers * 2 * (size_t)config->heads_kv * (size_t)config->head_dim *
           attn_dtype_size(kv);
}
