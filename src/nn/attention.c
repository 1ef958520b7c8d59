/**
 * attention.c: multi-head attention: projections around the fused attention of tensors.
 */
#include "nn/gpt.h"
#include "nn/init.h"
#include "nn/layers.h"

#include <math.h>

attn_nn_attention_options attn_nn_attention_options_init(void)
{
    return (attn_nn_attention_options){.struct_size = sizeof(attn_nn_attention_options),
                                       .rope_pairing = ATTN_ROPE_HALVES};
}

attn_nn_attend attn_nn_attend_init(void)
{
    return (attn_nn_attend){.struct_size = sizeof(attn_nn_attend)};
}

/* ---- creating ---------------------------------------------------------------------------------- */

attn_status nn_attention_sizes(attn_nn_attention_options *o)
{
    attn_status status = nn_positive("dim", o->dim, "64");
    if (status == ATTN_OK) {
        status = nn_positive("heads", o->heads, "8");
    }
    if (status != ATTN_OK) {
        return status;
    }
    if (o->head_dim == 0 && o->dim % o->heads != 0) {
        int64_t fit = (o->dim / o->heads + 1) * o->heads;
        return attn_fail(ATTN_ERR_SHAPE,
                         "dim: %lld is not a multiple of heads %lld, so heads would have no whole "
                         "size; make it one, for example dim %lld with heads %lld, or set head_dim",
                         (long long)o->dim, (long long)o->heads, (long long)fit,
                         (long long)o->heads);
    }
    o->head_dim = o->head_dim ? o->head_dim : o->dim / o->heads;
    o->heads_kv = o->heads_kv ? o->heads_kv : o->heads;
    o->kv_dim = o->kv_dim ? o->kv_dim : o->dim;
    if (o->heads_kv < 1 || o->heads % o->heads_kv != 0) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "heads_kv: %lld does not divide heads %lld; each key head serves as many "
                         "query heads, for example heads %lld with heads_kv %lld",
                         (long long)o->heads_kv, (long long)o->heads, (long long)o->heads,
                         o->heads % 2 ? 1LL : (long long)o->heads / 2);
    }
    if (o->head_dim < 1 || o->kv_dim < 1) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: must be at least 1, for example 64",
                         o->head_dim < 1 ? "head_dim" : "kv_dim");
    }
    return ATTN_OK;
}

static attn_status check_options(attn_nn_attention_options *o)
{
    attn_status status = nn_attention_sizes(o);
    if (status == ATTN_OK) {
        status = nn_check_dropout(o->dropout);
    }
    if (status != ATTN_OK) {
        return status;
    }
    if (o->position != ATTN_POSITION_NONE && o->position != ATTN_POSITION_ROPE &&
        o->position != ATTN_POSITION_ALIBI) {
        return attn_fail(ATTN_ERR_ARGUMENT, "position: attention knows NONE, ROPE and ALIBI; "
                                            "LEARNED and SINUSOIDAL are added to embeddings with "
                                            "attn_nn_position");
    }
    if (o->position == ATTN_POSITION_ROPE && o->head_dim % 2 != 0) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "head_dim: %lld is odd, RoPE rotates pairs; for example "
                         "dim 64 with heads 4",
                         (long long)o->head_dim);
    }
    o->rope_theta = o->rope_theta > 0.0 ? o->rope_theta : 10000.0;
    o->out_gain = o->out_gain > 0.0 ? o->out_gain : 1.0;
    if (!isfinite(o->rope_theta) || (unsigned)o->naming > ATTN_NAMES_BERT) {
        return attn_fail(ATTN_ERR_ARGUMENT, "rope_theta, naming: %g, %d is not accepted",
                         o->rope_theta, (int)o->naming);
    }
    return ATTN_OK;
}

static const char *const projection_names[][5] = {
    [ATTN_NAMES_LLAMA] = {"q_proj", "k_proj", "v_proj", "o_proj", NULL},
    [ATTN_NAMES_GPT2] = {NULL, NULL, NULL, "c_proj", "c_attn"},
    [ATTN_NAMES_BERT] = {"self.query", "self.key", "self.value", "output.dense", NULL},
};

static attn_status add_projections(attn_module *m, const attn_nn_options *full)
{
    nn_attention *a = &m->as.attention;
    const attn_nn_attention_options *o = &a->options;
    const char *const *names = projection_names[o->naming];
    int64_t q = o->heads * o->head_dim, kv = o->heads_kv * o->head_dim;
    attn_nn_options own[4];
    for (uint64_t i = 0; i < 4; i++) {
        own[i] = nn_child(full, i);
    }
    const nn_linear_spec specs[3] = {
        {names[0], own[0], q, &a->q}, {names[1], own[1], kv, &a->k}, {names[2], own[2], kv, &a->v}};
    attn_status status;
    if (names[4]) {
        status = nn_add_linear(m, names[4], &own[0], o->dim, q + 2 * kv, o->bias, o->naming, 1.0,
                               &a->qkv);
    } else if (o->kv_dim == o->dim) {
        status = nn_add_linears(m, 3, specs, o->dim, o->bias, o->naming);
    } else {
        status = nn_add_linears(m, 1, specs, o->dim, o->bias, o->naming);
        if (status == ATTN_OK) {
            status = nn_add_linears(m, 2, specs + 1, o->kv_dim, o->bias, o->naming);
        }
    }
    if (status == ATTN_OK) {
        status = nn_add_linear(m, names[3], &own[3], q, o->dim, o->out_bias, o->naming, o->out_gain,
                               &a->o);
    }
    return status;
}

static attn_status make_slopes(nn_attention *a, attn_dtype dtype)
{
    int64_t heads = a->options.heads;
    attn_status status = attn_tensor_create(dtype, 1, &heads, &a->slopes);
    attn_tensor *exact = NULL;
    if (status == ATTN_OK) {
        status = attn_tensor_create(ATTN_F64, 1, &heads, &exact);
    }
    if (status == ATTN_OK) {
        double *from = attn_tensor_write(exact).data;
        attn_view to = attn_tensor_write(a->slopes);
        status = attn_alibi_slopes(heads, from);
        for (int64_t h = 0; h < heads && status == ATTN_OK; h++) {
            if (dtype == ATTN_F64) {
                ((double *)to.data)[h] = from[h];
            } else {
                ((float *)to.data)[h] = (float)from[h];
            }
        }
    }
    attn_tensor_release(exact);
    return status;
}

attn_status attn_nn_attention_create(const attn_nn_options *options,
                                     const attn_nn_attention_options *attention,
                                     attn_module **module)
{
    attn_nn_options full;
    attn_status status = nn_no_place(module);
    if (status == ATTN_OK && !attention) {
        status = attn_fail(ATTN_ERR_ARGUMENT, "attention: NULL; set dim and heads, for example 64 "
                                              "and 4");
    }
    attn_nn_attention_options o = attn_nn_attention_options_init();
    if (status == ATTN_OK) {
        status = attn_take_struct("attention", "attn_nn_attention_options_init", attention, &o,
                                  sizeof o);
    }
    if (status == ATTN_OK) {
        status = nn_options(options, &full);
    }
    if (status == ATTN_OK) {
        status = check_options(&o);
    }
    if (status == ATTN_OK && o.naming == ATTN_NAMES_GPT2 && o.kv_dim != o.dim) {
        status = attn_fail(ATTN_ERR_UNSUPPORTED,
                           "naming: GPT2 keeps q, k and v in one matrix, which needs kv_dim %lld "
                           "to be dim %lld; take LLAMA",
                           (long long)o.kv_dim, (long long)o.dim);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_ATTENTION);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    m->as.attention.options = o;
    status = add_projections(m, &full);
    if (status == ATTN_OK && o.position == ATTN_POSITION_ALIBI) {
        status = make_slopes(&m->as.attention, full.dtype);
    }
    return nn_finish(status, m, module);
}

/* ---- applying ---------------------------------------------------------------------------------- */

/* [batch, len, heads·dim] as [batch, heads, len, dim]: a view. */
static attn_tensor *split_heads(attn_tape *tape, attn_tensor *x, int64_t heads, int64_t dim)
{
    int64_t shape[4] = {attn_tensor_size(x, 0), attn_tensor_size(x, 1), heads, dim};
    return attn_tensor_transpose(tape, attn_tensor_reshape(tape, x, 4, shape), 1, 2);
}

/* q, k and v side by side, where they come from one x and no adapter is beside one of them; else NULL, or a failure. */
static attn_tensor *project_joined(attn_tape *tape, const nn_attention *a, attn_tensor *x,
                                   const attn_tensor *memory)
{
    attn_module *three[3] = {a->q, a->k, a->v};
    if (a->qkv) {
        return attn_nn_linear(tape, a->qkv, x);
    }
    return memory == x && nn_can_join(3, three) ? nn_joined(tape, 3, three, x) : NULL;
}

static attn_tensor *project(attn_tape *tape, const nn_attention *a, attn_module *linear,
                            attn_tensor *x)
{
    const attn_nn_attention_options *o = &a->options;
    int64_t heads = linear == a->q ? o->heads : o->heads_kv;
    return split_heads(tape, attn_nn_linear(tape, linear, x), heads, o->head_dim);
}

static bool check_shapes(attn_tape *tape, const attn_nn_attention_options *o, const attn_tensor *x,
                         const attn_tensor *memory, bool fused)
{
    const attn_tensor *both[2] = {x, memory};
    for (int i = 0; i < 2; i++) {
        if (attn_tensor_ndim(both[i]) != 3) {
            nn_fail(tape, ATTN_ERR_SHAPE,
                    "%s: has %d dimensions, must be [batch, len, %lld]; reshape it, for example "
                    "one sequence of 16 to [1, 16, %lld]",
                    i ? "memory" : "x", attn_tensor_ndim(both[i]),
                    (long long)(i ? o->kv_dim : o->dim), (long long)(i ? o->kv_dim : o->dim));
            return false;
        }
    }
    if (attn_tensor_size(x, 0) != attn_tensor_size(memory, 0)) {
        nn_fail(tape, ATTN_ERR_SHAPE, "memory: has batch %lld, x has %lld; both must be equal",
                (long long)attn_tensor_size(memory, 0), (long long)attn_tensor_size(x, 0));
        return false;
    }
    if (fused && memory != x) {
        nn_fail(tape, ATTN_ERR_UNSUPPORTED,
                "memory: this layer keeps q, k and v in one matrix (GPT2 naming), so it attends to "
                "x only; create it with LLAMA naming for cross-attention");
        return false;
    }
    return true;
}

static attn_sdpa_options sdpa_options(const attn_module *module, const attn_nn_attend *attend)
{
    attn_sdpa_options o = attn_sdpa_options_init();
    o.causal = attend->causal;
    o.has_window = attend->has_window;
    o.window_left = attend->window_left;
    o.window_right = attend->window_right;
    o.mask = attend->mask;
    o.lengths_q = attend->lengths_q;
    o.lengths_k = attend->lengths_k;
    if (module->training) {
        o.dropout = module->as.attention.options.dropout;
        o.dropout_seed = attend->dropout_seed;
    }
    return o;
}

/* q, k and v each by themselves. */
static attn_tensor *attend_apart(attn_tape *tape, const nn_attention *a,
                                 const attn_sdpa_options *options, const attn_tensor_rotation *r,
                                 attn_tensor *x, attn_tensor *memory)
{
    attn_tensor *q = project(tape, a, a->q, x), *k = project(tape, a, a->k, memory);
    if (r) {
        q = attn_tensor_rope(tape, q, r->positions, r->theta, r->dims, r->pairing);
        k = attn_tensor_rope(tape, k, r->positions, r->theta, r->dims, r->pairing);
    }
    attn_tensor *out = attn_tensor_sdpa(tape, options, q, k, project(tape, a, a->v, memory), NULL);
    int64_t shape[3] = {attn_tensor_size(x, 0), attn_tensor_size(x, 1),
                        a->options.heads * a->options.head_dim};
    return attn_tensor_reshape(tape, attn_tensor_transpose(tape, out, 1, 2), 3, shape);
}

attn_tensor *attn_nn_attention(attn_tape *tape, attn_module *module, const attn_nn_attend *attend,
                               attn_tensor *x, attn_tensor *memory)
{
    if (!nn_ready(tape, module, NN_ATTENTION, x)) {
        return NULL;
    }
    const nn_attention *a = &module->as.attention;
    const attn_nn_attention_options *o = &a->options;
    memory = memory ? memory : x;
    if (!check_shapes(tape, o, x, memory, a->qkv != NULL)) {
        return NULL;
    }
    attn_nn_attend taken = attn_nn_attend_init();
    attn_status status =
        attn_take_struct("attend", "attn_nn_attend_init", attend, &taken, sizeof taken);
    if (status != ATTN_OK) {
        return attn_tape_fail(tape, status);
    }
    attn_sdpa_options options = sdpa_options(module, &taken);
    attn_view slopes = attn_tensor_view(a->slopes);
    options.alibi = a->slopes ? &slopes : NULL;
    bool rotated = o->position == ATTN_POSITION_ROPE;
    const attn_tensor_rotation rotation = {.positions = memory == x ? taken.positions : NULL,
                                           .theta = o->rope_theta,
                                           .pairing = o->rope_pairing};
    attn_tensor *out, *joined = project_joined(tape, a, x, memory);
    if (joined || attn_tape_status(tape) != ATTN_OK) {
        out = attn_tensor_sdpa_joined(tape, &options, rotated ? &rotation : NULL, joined, o->heads,
                                      o->heads_kv);
    } else {
        out = attend_apart(tape, a, &options, rotated ? &rotation : NULL, x, memory);
    }
    return attn_nn_linear(tape, a->o, out);
}
