/**
 * layers.c: the plain layers: linear, embedding, norms, MLP.
 */
#include "nn/layers.h"
#include "nn/init.h"

#include <math.h>

attn_status nn_positive(const char *name, int64_t value, const char *example)
{
    if (value < 1) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: is %lld, must be at least 1, for example %s", name,
                         (long long)value, example);
    }
    return ATTN_OK;
}

attn_status nn_no_place(attn_module **module)
{
    if (module) {
        *module = NULL;
        return ATTN_OK;
    }
    return attn_fail(ATTN_ERR_ARGUMENT, "module: NULL; give the address of a pointer");
}

/* ---- linear ------------------------------------------------------------------------------------ */

/* A linear layer; `transposed`: weight [in, out]; `gain` times the initial values; `made`: nn_matrix_in's weight, nn_vector_in's bias. */
static attn_status make_linear(attn_tensor *const made[2], const attn_nn_options *full, int64_t in,
                               int64_t out, bool bias, bool transposed, double gain,
                               attn_module **module)
{
    *module = NULL;
    attn_status status = nn_positive("in_features", in, "64");
    if (status == ATTN_OK) {
        status = nn_positive("out_features", out, "64");
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_LINEAR);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    nn_linear *l = &m->as.linear;
    *l = (nn_linear){.in = in, .out = out, .transposed = transposed};
    int64_t shape[2] = {transposed ? in : out, transposed ? out : in};
    attn_tensor_retain(made[0]);
    status = nn_matrix_in(made[0], m, "weight", full, shape, gain, &l->weight);
    if (status == ATTN_OK && bias) {
        attn_tensor_retain(made[1]);
        status = nn_vector_in(made[1], m, "bias", full, out, 0.0, &l->bias);
    }
    return nn_finish(status, m, module);
}

static attn_tensor *const own_memory[2] = {NULL, NULL};

attn_status attn_nn_linear_create(const attn_nn_options *options, int64_t in_features,
                                  int64_t out_features, bool bias, attn_module **module)
{
    attn_nn_options full;
    attn_status status = nn_no_place(module);
    if (status == ATTN_OK) {
        status = nn_options(options, &full);
    }
    return status == ATTN_OK
               ? make_linear(own_memory, &full, in_features, out_features, bias, false, 1.0, module)
               : status;
}

/* x·W + b with W [in, out]: over one long list of rows, which matmul reads as one matrix. */
static attn_tensor *times_transposed(attn_tape *tape, const nn_linear *l, attn_tensor *x)
{
    int ndim = attn_tensor_ndim(x);
    int64_t shape[4], flat[2] = {-1, l->in};
    for (int d = 0; d < ndim; d++) {
        shape[d] = attn_tensor_size(x, d);
    }
    shape[ndim - 1] = l->out;
    /* The weight as [out, in], a view: the linear operation reads any strides. */
    attn_tensor *weight = attn_tensor_transpose(tape, l->weight, 0, 1);
    attn_tensor *rows = attn_tensor_reshape(tape, x, 2, flat);
    return attn_tensor_reshape(tape, attn_tensor_linear(tape, rows, weight, l->bias), ndim, shape);
}

attn_tensor *attn_nn_linear(attn_tape *tape, attn_module *module, attn_tensor *x)
{
    if (!nn_ready(tape, module, NN_LINEAR, x) ||
        !nn_last_is(tape, x, "linear", "in_features", module->as.linear.in)) {
        return NULL;
    }
    const nn_linear *l = &module->as.linear;
    attn_tensor *y = l->transposed ? times_transposed(tape, l, x)
                                   : attn_tensor_linear(tape, x, l->weight, l->bias);
    if (!l->lora_a) {
        return y;
    }
    /* Scaled where it is smallest. */
    attn_tensor *low = attn_tensor_linear(tape, x, l->lora_a, NULL);
    low = attn_tensor_scale(tape, low, l->lora_scale);
    return attn_tensor_add(tape, y, attn_tensor_linear(tape, low, l->lora_b, NULL));
}

/* ---- embedding --------------------------------------------------------------------------------- */

attn_status attn_nn_embedding_create(const attn_nn_options *options, int64_t count, int64_t dim,
                                     attn_module **module)
{
    attn_nn_options full;
    attn_status status = nn_no_place(module);
    if (status == ATTN_OK) {
        status = nn_options(options, &full);
    }
    if (status == ATTN_OK) {
        status = nn_positive("count", count, "256");
    }
    if (status == ATTN_OK) {
        status = nn_positive("dim", dim, "64");
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_EMBEDDING);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    m->as.embedding = (nn_embedding){.count = count, .dim = dim};
    int64_t shape[2] = {count, dim};
    status = nn_matrix(m, "weight", &full, shape, 1.0, &m->as.embedding.weight);
    return nn_finish(status, m, module);
}

attn_tensor *attn_nn_embedding(attn_tape *tape, attn_module *module, const int64_t *ids, int ndim,
                               const int64_t *shape)
{
    if (!nn_is(tape, module, NN_EMBEDDING)) {
        return NULL;
    }
    return attn_tensor_embedding(tape, module->as.embedding.weight, ids, ndim, shape);
}

/* ---- norms ------------------------------------------------------------------------------------- */

attn_status attn_nn_norm_create(const attn_nn_options *options, attn_norm_kind kind, int64_t dim,
                                double eps, attn_module **module)
{
    attn_nn_options full;
    attn_status status = nn_no_place(module);
    if (status == ATTN_OK) {
        status = nn_options(options, &full);
    }
    if (status == ATTN_OK) {
        status = nn_positive("dim", dim, "64");
    }
    if (status == ATTN_OK && (unsigned)kind > ATTN_NORM_LAYER) {
        status = attn_fail(ATTN_ERR_ARGUMENT, "norm: %d is no attn_norm_kind", (int)kind);
    }
    if (status == ATTN_OK && !(eps >= 0.0 && isfinite(eps))) {
        status = attn_fail(ATTN_ERR_ARGUMENT, "eps: is %g, must be above 0, for example 1e-5", eps);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_NORM);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    nn_norm *n = &m->as.norm;
    *n = (nn_norm){.kind = kind, .dim = dim, .eps = eps > 0.0 ? eps : 1e-5};
    status = nn_vector(m, "weight", &full, dim, 1.0, &n->weight);
    if (status == ATTN_OK && kind == ATTN_NORM_LAYER) {
        status = nn_vector(m, "bias", &full, dim, 0.0, &n->bias);
    }
    return nn_finish(status, m, module);
}

attn_tensor *attn_nn_norm(attn_tape *tape, attn_module *module, attn_tensor *x)
{
    if (!nn_ready(tape, module, NN_NORM, x) ||
        !nn_last_is(tape, x, "norm", "dim", module->as.norm.dim)) {
        return NULL;
    }
    const nn_norm *n = &module->as.norm;
    return n->kind == ATTN_NORM_RMS ? attn_tensor_rms_norm(tape, x, n->weight, n->eps)
                                    : attn_tensor_layer_norm(tape, x, n->weight, n->bias, n->eps);
}

/* ---- MLP --------------------------------------------------------------------------------------- */

static const char *const mlp_names[][3] = {
    [ATTN_NAMES_LLAMA] = {"gate_proj", "up_proj", "down_proj"},
    [ATTN_NAMES_GPT2] = {"c_gate", "c_fc", "c_proj"},
    [ATTN_NAMES_BERT] = {"intermediate.gate", "intermediate.dense", "output.dense"},
};

attn_status nn_add_linear(attn_module *parent, const char *name, const attn_nn_options *full,
                          int64_t in, int64_t out, bool bias, attn_naming naming, double gain,
                          attn_module **slot)
{
    attn_module *linear = NULL;
    *slot = NULL;
    attn_status status =
        make_linear(own_memory, full, in, out, bias, naming == ATTN_NAMES_GPT2, gain, &linear);
    return status == ATTN_OK ? nn_add(parent, name, linear, slot) : status;
}

enum { JOINED = 3 };

/* Weights one after the other in memory, and biases; NULLs where the layers keep their own. */
static attn_status joined_memory(int count, const nn_linear_spec *specs, int64_t in, bool bias,
                                 attn_tensor *made[JOINED][2])
{
    int64_t rows[JOINED];
    attn_tensor *weights[JOINED], *biases[JOINED] = {NULL};
    for (int i = 0; i < count; i++) {
        rows[i] = specs[i].out;
    }
    attn_dtype dtype = specs[0].options.dtype;
    attn_status status = attn_tensor_create_joined(dtype, count, rows, in, weights);
    if (status == ATTN_OK && bias) {
        status = attn_tensor_create_joined(dtype, count, rows, 0, biases);
    }
    for (int i = 0; i < count; i++) {
        made[i][0] = weights[i];
        made[i][1] = biases[i];
    }
    return status;
}

attn_status nn_add_linears(attn_module *parent, int count, const nn_linear_spec *specs, int64_t in,
                           bool bias, attn_naming naming)
{
    attn_tensor *made[JOINED][2] = {{NULL}};
    attn_status status = nn_positive("in_features", in, "64");
    for (int i = 0; i < count && status == ATTN_OK; i++) {
        *specs[i].slot = NULL;
        status = nn_positive("out_features", specs[i].out, "64");
    }
    bool transposed = naming == ATTN_NAMES_GPT2;
    if (status == ATTN_OK && !transposed) {
        status = joined_memory(count, specs, in, bias, made);
    }
    for (int i = 0; i < count && status == ATTN_OK; i++) {
        const nn_linear_spec *s = &specs[i];
        attn_module *linear = NULL;
        status = make_linear(made[i], &s->options, in, s->out, bias, transposed, 1.0, &linear);
        status = status == ATTN_OK ? nn_add(parent, s->name, linear, s->slot) : status;
    }
    for (int i = 0; i < count; i++) {
        attn_tensor_release(made[i][0]);
        attn_tensor_release(made[i][1]);
    }
    return status;
}

bool nn_can_join(int count, attn_module *const *linears)
{
    for (int i = 0; i < count; i++) {
        const nn_linear *l = linears[i] ? &linears[i]->as.linear : NULL;
        if (!l || l->transposed || l->lora_a) {
            return false;
        }
    }
    return true;
}

attn_tensor *nn_joined(attn_tape *tape, int count, attn_module *const *linears, attn_tensor *x)
{
    attn_tensor *weights[JOINED], *biases[JOINED];
    for (int i = 0; i < count; i++) {
        if (!nn_ready(tape, linears[i], NN_LINEAR, x) ||
            !nn_last_is(tape, x, "linear", "in_features", linears[i]->as.linear.in)) {
            return NULL;
        }
        weights[i] = linears[i]->as.linear.weight;
        biases[i] = linears[i]->as.linear.bias;
    }
    return attn_tensor_linear_joined(tape, x, count, weights, biases);
}

attn_status attn_nn_mlp_create(const attn_nn_options *options, attn_mlp_kind kind, int64_t dim,
                               int64_t hidden, bool bias, double out_gain, attn_naming naming,
                               attn_module **module)
{
    attn_nn_options full;
    attn_status status = nn_no_place(module);
    if (status == ATTN_OK) {
        status = nn_options(options, &full);
    }
    if (status == ATTN_OK &&
        ((unsigned)kind > ATTN_MLP_RELU || (unsigned)naming > ATTN_NAMES_BERT)) {
        status = attn_fail(ATTN_ERR_ARGUMENT,
                           "mlp, naming: %d, %d is no attn_mlp_kind, "
                           "attn_naming",
                           (int)kind, (int)naming);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_MLP);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    nn_mlp *p = &m->as.mlp;
    p->kind = kind;
    const char *const *names = mlp_names[naming];
    const nn_linear_spec inner[2] = {{names[0], nn_child(&full, 0), hidden, &p->gate},
                                     {names[1], nn_child(&full, 1), hidden, &p->up}};
    int gates = kind == ATTN_MLP_SWIGLU;
    status = nn_add_linears(m, 1 + gates, inner + 1 - gates, dim, bias, naming);
    if (status == ATTN_OK) {
        attn_nn_options own = nn_child(&full, 2);
        status = nn_add_linear(m, names[2], &own, hidden, dim, bias, naming,
                               out_gain > 0.0 ? out_gain : 1.0, &p->down);
    }
    return nn_finish(status, m, module);
}

attn_tensor *attn_nn_mlp(attn_tape *tape, attn_module *module, attn_tensor *x)
{
    if (!nn_ready(tape, module, NN_MLP, x)) {
        return NULL;
    }
    const nn_mlp *p = &module->as.mlp;
    attn_module *pair[2] = {p->gate, p->up};
    if (p->kind == ATTN_MLP_SWIGLU && nn_can_join(2, pair)) {
        attn_tensor *both = nn_joined(tape, 2, pair, x);
        return attn_nn_linear(tape, p->down, attn_tensor_swiglu_joined(tape, both));
    }
    attn_tensor *up = attn_nn_linear(tape, p->up, x), *inner = NULL;
    switch (p->kind) {
    case ATTN_MLP_SWIGLU:
        inner = attn_tensor_swiglu(tape, attn_nn_linear(tape, p->gate, x), up);
        break;
    case ATTN_MLP_GELU: inner = attn_tensor_gelu(tape, up, false); break;
    case ATTN_MLP_GELU_TANH: inner = attn_tensor_gelu(tape, up, true); break;
    case ATTN_MLP_RELU: inner = attn_tensor_relu(tape, up); break;
    }
    return attn_nn_linear(tape, p->down, inner);
}
