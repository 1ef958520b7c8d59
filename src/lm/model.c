/**
 * lm/model.c: loading: every matrix packed for the linear layers, norms as f32, the embedding as
 * the file has it.
 */
#include "lm/model.h"
#include <stdlib.h>
#include <string.h>

attn_model_options attn_model_options_init(void)
{
    attn_model_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    return options;
}

static attn_status no_memory(const char *what, size_t bytes)
{
    return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for %s: %zu bytes", what, bytes);
}

/* int8 activations are for block formats: a mixed file keeps f32 for its other matrices. */
static attn_activations activations_for(attn_activations wanted, attn_weight_type type)
{
    bool blocks = type == ATTN_WEIGHT_Q8_0 || type == ATTN_WEIGHT_Q4_0 || type == ATTN_WEIGHT_Q4_1;
    return wanted == ATTN_ACTIVATIONS_INT8 && !blocks ? ATTN_ACTIVATIONS_AUTO : wanted;
}

static void projection_free(lm_projection *projection)
{
    for (int i = 0; i < projection->count; i++) {
        attn_linear_destroy(projection->linear[i]);
    }
    memset(projection, 0, sizeof *projection);
}

/* Packs tensors[count] that read the same input; runs of one type become one matrix. */
static attn_status projection_load(attn_model *model, int count,
                                   const attn_gguf_tensor *const *tensors,
                                   lm_projection *projection)
{
    for (int i = 0; i < count;) {
        attn_linear_part part[3];
        int parts = 0;
        int64_t rows = 0;
        attn_weight_type type = lm_weight_type(tensors[i]->type);
        for (; i < count && lm_weight_type(tensors[i]->type) == type; i++, parts++) {
            part[parts] = (attn_linear_part){type, tensors[i]->data, tensors[i]->dims[1]};
            rows += tensors[i]->dims[1];
        }
        attn_linear_options options = attn_linear_options_init();
        options.activations = activations_for(model->activations, type);
        attn_linear **linear = &projection->linear[projection->count];
        attn_status s = attn_linear_create(model->context, &options, tensors[0]->dims[0], parts,
                                           part, NULL, linear);
        if (s != ATTN_OK) {
            return s;
        }
        projection->offset[projection->count++] = projection->out_features;
        projection->out_features += rows;
        model->bytes += attn_linear_bytes(*linear);
    }
    return ATTN_OK;
}

static attn_status load_layer(attn_model *model, const attn_gguf *file, int64_t index)
{
    lm_layer *layer = &model->layers[index];
    const attn_gguf_tensor *t[LM_MATRIX_COUNT];
    for (int m = 0; m < LM_MATRIX_COUNT; m++) {
        t[m] = lm_find_matrix(file, index, (lm_matrix)m);
    }
    attn_status s = projection_load(model, 3, &t[LM_ATTN_Q], &layer->qkv);
    if (s == ATTN_OK) {
        s = projection_load(model, 1, &t[LM_ATTN_OUTPUT], &layer->attn_output);
    }
    if (s == ATTN_OK) {
        s = projection_load(model, 2, &t[LM_FFN_GATE], &layer->gate_up);
    }
    if (s == ATTN_OK) {
        s = projection_load(model, 1, &t[LM_FFN_DOWN], &layer->down);
    }
    size_t dim = (size_t)model->config.dim;
    layer->attn_norm = model->norms + (size_t)(2 * index) * dim;
    layer->ffn_norm = layer->attn_norm + dim;
    memcpy(layer->attn_norm, lm_find_norm(file, index, false)->data, dim * sizeof(float));
    memcpy(layer->ffn_norm, lm_find_norm(file, index, true)->data, dim * sizeof(float));
    return s;
}

/* Norms, embedding and output: what is not in layers. */
static attn_status load_ends(attn_model *model, const attn_gguf *file)
{
    const attn_model_config *c = &model->config;
    size_t dim = (size_t)c->dim;
    size_t norms = (size_t)(2 * c->layers + 1) * dim * sizeof(float);
    model->norms = malloc(norms);
    if (model->norms == NULL) {
        return no_memory("the norms", norms);
    }
    model->output_norm = model->norms + (size_t)(2 * c->layers) * dim;
    memcpy(model->output_norm, attn_gguf_find(file, "output_norm.weight")->data,
           dim * sizeof(float));

    const attn_gguf_tensor *embedding = attn_gguf_find(file, "token_embd.weight");
    model->embedding_type = lm_weight_type(embedding->type);
    model->embedding_row = embedding->bytes / (size_t)c->vocab;
    model->embedding = malloc(embedding->bytes);
    if (model->embedding == NULL) {
        return no_memory("the embedding", embedding->bytes);
    }
    memcpy(model->embedding, embedding->data, embedding->bytes);
    model->bytes += norms + embedding->bytes;

    const attn_gguf_tensor *output =
        c->tied_output ? embedding : attn_gguf_find(file, "output.weight");
    return projection_load(model, 1, &output, &model->output);
}

static attn_status load_all(attn_model *model, const attn_gguf *file,
                            const attn_model_options *options)
{
    model->layers = calloc((size_t)model->config.layers, sizeof *model->layers);
    if (model->layers == NULL) {
        return no_memory("the layers", (size_t)model->config.layers * sizeof *model->layers);
    }
    attn_status s = load_ends(model, file);
    for (int64_t i = 0; s == ATTN_OK && i < model->config.layers; i++) {
        if (options->cancel && options->cancel(options->cancel_user)) {
            return attn_fail(ATTN_ERR_CANCELLED, "loading was cancelled");
        }
        s = load_layer(model, file, i);
    }
    return s;
}

attn_status attn_model_load(attn_context *context, const attn_gguf *file,
                            const attn_model_options *options, attn_model **model)
{
    attn_model_options o = attn_model_options_init();
    if (model == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "model: NULL; give the address of a pointer");
    }
    *model = NULL;
    if (context == NULL || file == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", context ? "file" : "context");
    }
    attn_status s = attn_take_struct("options", "attn_model_options_init", options, &o, sizeof o);
    if (s != ATTN_OK) {
        return s;
    }
    if ((unsigned)o.activations > ATTN_ACTIVATIONS_INT8) {
        return attn_fail(ATTN_ERR_ARGUMENT, "activations: %d is no attn_activations",
                         (int)o.activations);
    }
    attn_model_config config;
    s = attn_model_config_read(file, &config);
    if (s != ATTN_OK) {
        return s;
    }
    attn_model *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return no_memory("the model", sizeof *m);
    }
    m->context = context;
    m->config = config;
    m->activations = o.activations;
    s = load_all(m, file, &o);
    if (s != ATTN_OK) {
        attn_model_destroy(m);
        return s;
    }
    *model = m;
    return ATTN_OK;
}

void attn_model_destroy(attn_model *model)
{
    if (model == NULL) {
        return;
    }
    for (int64_t i = 0; model->layers && i < model->config.layers; i++) {
        projection_free(&model->layers[i].qkv);
        projection_free(&model->layers[i].attn_output);
        projection_free(&model->layers[i].gate_up);
        projection_free(&model->layers[i].down);
    }
    projection_free(&model->output);
    free(model->layers);
    free(model->norms);
    free(model->embedding);
    free(model);
}

const attn_model_config *attn_model_get_config(const attn_model *model)
{
    return model ? &model->config : NULL;
}

size_t attn_model_bytes(const attn_model *model)
{
    return model ? model->bytes : 0;
}
