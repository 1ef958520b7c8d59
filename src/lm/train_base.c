/**
 * lm/train_base.c: a model file as the beginning of training.
 */
#include <attn/model_file.h>
#include <attn/train.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Heads whose rows come in pairs for the rotary embedding: of q's and k's projections; 0 for all other parameters. */
static int64_t rotary_heads(const attn_gpt_options *model, const char *name)
{
    return strstr(name, ".q_proj.") ? model->heads : strstr(name, ".k_proj.") ? model->heads_kv : 0;
}

/* In place: from the file's interleaved pairs to halves. */
static attn_status reorder(float *rows, int64_t heads, int64_t head_dim, int64_t cols)
{
    size_t bytes = (size_t)(heads * head_dim * cols) * sizeof(float);
    float *copy = malloc(bytes);
    if (copy == NULL) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory to load the model");
    }
    memcpy(copy, rows, bytes);
    attn_status s =
        attn_rope_reorder(copy, heads, head_dim, head_dim, cols, ATTN_ROPE_INTERLEAVED, rows);
    free(copy);
    return s;
}

static attn_status load_parameter(const attn_gguf *file, const attn_gpt_options *model,
                                  attn_rope_pairing pairing, const char *name,
                                  attn_tensor *parameter)
{
    char gguf[96];
    const attn_gguf_tensor *tensor =
        attn_model_gguf_name(name, gguf, sizeof gguf) ? attn_gguf_find(file, gguf) : NULL;
    if (tensor == NULL) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: holds no tensor for '%s'", attn_gguf_path(file),
                         name);
    }
    if (attn_tensor_dtype(parameter) != ATTN_F32) {
        return attn_fail(ATTN_ERR_ARGUMENT, "options.dtype: must be f32 for a model from a file");
    }
    attn_view view = attn_tensor_write(parameter);
    attn_status s = attn_gguf_dequantize(tensor, view.data, attn_tensor_count(parameter));
    int64_t heads = rotary_heads(model, name);
    if (s == ATTN_OK && heads > 0 && pairing == ATTN_ROPE_INTERLEAVED) {
        s = reorder(view.data, heads, model->head_dim, attn_tensor_size(parameter, 1));
    }
    return s;
}

static attn_status load_all(const attn_gguf *file, attn_module *gpt)
{
    const attn_gpt_options *model = attn_gpt_get_options(gpt);
    attn_model_config config;
    attn_status s = attn_model_config_read(file, &config);
    for (int i = 0; i < attn_module_parameter_count(gpt) && s == ATTN_OK; i++) {
        s = load_parameter(file, model, config.rope_pairing, attn_module_parameter_name(gpt, i),
                           attn_module_parameter(gpt, i));
    }
    return s;
}

attn_status attn_gpt_options_from_gguf(const attn_gguf *file, int64_t window,
                                       attn_gpt_options *options)
{
    attn_model_config c;
    attn_status s = attn_model_config_read(file, &c);
    if (s != ATTN_OK) {
        return s;
    }
    if (c.rope_dims != c.head_dim) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "%s: rotates %" PRId64 " of %" PRId64
                         " dimensions of a head; training supports only all of them",
                         attn_gguf_path(file), c.rope_dims, c.head_dim);
    }
    if (window < 0 || window > c.context) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "window: %" PRId64 " must be at most the model's context, %" PRId64,
                         window, c.context);
    }
    *options = attn_gpt_options_init();
    options->vocab = c.vocab;
    options->layers = c.layers;
    options->dim = c.dim;
    options->heads = c.heads_q;
    options->heads_kv = c.heads_kv;
    options->head_dim = c.head_dim;
    options->ffn = c.ffn_dim;
    options->context = window > 0 ? window : c.context;
    options->rope_theta = c.rope_theta;
    options->norm_eps = c.norm_eps;
    options->untied = !c.tied_output;
    return ATTN_OK;
}

attn_status attn_gpt_from_gguf(attn_context *context, const attn_gguf *file,
                               const attn_gpt_options *options, attn_module **gpt)
{
    if (gpt == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "gpt: is NULL, it must be where to put the model");
    }
    *gpt = NULL;
    if (context == NULL || file == NULL || options == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: is NULL",
                         !context ? "context"
                         : !file  ? "file"
                                  : "options");
    }
    attn_gpt_options o = *options;
    o.init = ATTN_INIT_ZERO;
    attn_module *made = NULL;
    attn_status s = attn_gpt_create(&o, &made);
    s = s ? s : load_all(file, made);
    if (s != ATTN_OK) {
        attn_module_destroy(made);
        return s;
    }
    *gpt = made;
    return ATTN_OK;
}
