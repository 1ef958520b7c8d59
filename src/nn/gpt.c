/**
 * gpt.c: decoders: token embedding, blocks, final norm, output matrix.
 */
#include "nn/gpt.h"
#include "nn/init.h"
#include "nn/layers.h"

/* Seeds of a GPT's children; block i is SEED_BLOCKS + i. Of its dropout sites likewise. */
enum { SEED_TOKENS, SEED_POSITION, SEED_OUTPUT, SEED_BLOCKS };

typedef struct gpt_names {
    const char *tokens, *position, *blocks, *norm, *output;
} gpt_names;

static const gpt_names names_of[] = {
    [ATTN_NAMES_LLAMA] = {"model.embed_tokens", "model.embed_positions", "model.layers.",
                          "model.norm", "lm_head"},
    [ATTN_NAMES_GPT2] = {"transformer.wte", "transformer.wpe", "transformer.h.", "transformer.ln_f",
                         "lm_head"},
};

/* ---- creating ---------------------------------------------------------------------------------- */

static attn_status add_embeddings(attn_module *m, const attn_nn_options *full,
                                  const gpt_names *names)
{
    nn_gpt *g = &m->as.gpt;
    const attn_gpt_options *o = &g->options;
    attn_module *made;
    attn_nn_options own = nn_child(full, SEED_TOKENS);
    attn_status status = attn_nn_embedding_create(&own, o->vocab, o->dim, &made);
    if (status == ATTN_OK) {
        status = nn_add(m, names->tokens, made, &g->tokens);
    }
    bool added = o->position == ATTN_POSITION_LEARNED || o->position == ATTN_POSITION_SINUSOIDAL;
    if (status == ATTN_OK && added) {
        own = nn_child(full, SEED_POSITION);
        status = attn_nn_position_create(&own, o->position, o->context, o->dim, &made);
        if (status == ATTN_OK) {
            status = nn_add(m, names->position, made, &g->position);
        }
    }
    return status;
}

static attn_nn_attend attends(const attn_gpt_options *o)
{
    attn_nn_attend attend = attn_nn_attend_init();
    attend.causal = ATTN_CAUSAL_TOP_LEFT;
    attend.has_window = o->window > 0;
    attend.window_left = o->window - 1;
    attend.window_right = -1;
    return attend;
}

static attn_status add_blocks(attn_module *m, const attn_nn_options *full, const gpt_names *names)
{
    nn_gpt *g = &m->as.gpt;
    const attn_gpt_options *o = &g->options;
    attn_nn_block_options block = attn_nn_block_options_init();
    block.attention = nn_gpt_attention(o);
    block.mlp = o->mlp;
    block.hidden = o->ffn;
    block.mlp_bias = o->bias;
    block.norm = o->norm;
    block.norm_eps = o->norm_eps;
    block.dropout = o->dropout;
    attn_status status =
        nn_add_blocks(m, names->blocks, o->layers, full, SEED_BLOCKS, &block, &g->blocks);
    for (int64_t i = 0; i < o->layers && status == ATTN_OK; i++) {
        g->blocks[i]->as.block.attend = attends(o);
    }
    return status;
}

static attn_status add_ends(attn_module *m, const attn_nn_options *full, const gpt_names *names)
{
    nn_gpt *g = &m->as.gpt;
    const attn_gpt_options *o = &g->options;
    attn_module *made;
    attn_status status = attn_nn_norm_create(full, o->norm, o->dim, o->norm_eps, &made);
    if (status == ATTN_OK) {
        status = nn_add(m, names->norm, made, &g->norm);
    }
    if (status == ATTN_OK && o->untied) {
        attn_nn_options own = nn_child(full, SEED_OUTPUT);
        status = attn_nn_linear_create(&own, o->dim, o->vocab, false, &made);
        if (status == ATTN_OK) {
            status = nn_add(m, names->output, made, &g->output);
        }
    }
    return status;
}

attn_status attn_gpt_create(const attn_gpt_options *options, attn_module **gpt)
{
    attn_gpt_options full;
    attn_status status = nn_no_place(gpt);
    if (status == ATTN_OK) {
        status = nn_gpt_complete(options, &full);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_GPT);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    m->as.gpt.options = full;
    m->as.gpt.options.init_context = NULL;
    attn_nn_options nn = attn_nn_options_init();
    nn.dtype = full.dtype;
    nn.init = full.init;
    nn.seed = full.seed;
    nn.init_context = full.init_context;
    const gpt_names *names = &names_of[nn_gpt_naming(&full)];
    status = add_embeddings(m, &nn, names);
    if (status == ATTN_OK) {
        status = add_blocks(m, &nn, names);
    }
    if (status == ATTN_OK) {
        status = add_ends(m, &nn, names);
    }
    return nn_finish(status, m, gpt);
}

const attn_gpt_options *attn_gpt_get_options(const attn_module *gpt)
{
    return gpt && gpt->kind == NN_GPT ? &gpt->as.gpt.options : NULL;
}

attn_status attn_gpt_set_checkpoint(attn_module *gpt, bool checkpoint)
{
    if (!attn_gpt_get_options(gpt)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "gpt: must be a module of attn_gpt_create");
    }
    gpt->as.gpt.options.checkpoint = checkpoint;
    return ATTN_OK;
}

/* ---- applying ---------------------------------------------------------------------------------- */

static attn_tensor *run_block(attn_tape *tape, attn_module *block, attn_tensor *x, uint64_t seed)
{
    attn_nn_attend attend = block->as.block.attend;
    attend.dropout_seed = seed;
    return attn_nn_block(tape, block, &attend, x, NULL, NULL);
}

/* A dropout seed travels to backward's second run as an input: four numbers of 16 bits, exact in any float. */
static attn_tensor *seed_tensor(attn_tape *tape, attn_dtype dtype, uint64_t seed)
{
    attn_tensor *tensor;
    attn_status status = attn_tensor_create(dtype, 1, (int64_t[]){4}, &tensor);
    if (status != ATTN_OK) {
        return attn_tape_fail(tape, status);
    }
    attn_view view = attn_tensor_write(tensor);
    for (int i = 0; i < 4; i++) {
        uint16_t word = (uint16_t)(seed >> 16 * i);
        if (dtype == ATTN_F64) {
            ((double *)view.data)[i] = word;
        } else {
            ((float *)view.data)[i] = word;
        }
    }
    return tensor;
}

static attn_tensor *block_again(void *user, attn_tape *tape, attn_tensor *const *inputs, int count)
{
    uint64_t seed = 0;
    if (count > 1) {
        attn_view view = attn_tensor_view(inputs[1]);
        for (int i = 0; i < 4; i++) {
            double word = view.dtype == ATTN_F64 ? ((const double *)view.data)[i]
                                                 : (double)((const float *)view.data)[i];
            seed |= (uint64_t)word << 16 * i;
        }
    }
    return run_block(tape, user, inputs[0], seed);
}

static attn_tensor *checkpointed(attn_tape *tape, const attn_module *gpt, attn_module *block,
                                 attn_tensor *x, uint64_t seed)
{
    if (!x) {
        return NULL;
    }
    if (!gpt->training || gpt->as.gpt.options.dropout == 0.0) {
        return attn_tensor_checkpoint(tape, block_again, block, &x, 1);
    }
    attn_tensor *inputs[2] = {x, seed_tensor(tape, attn_tensor_dtype(x), seed)};
    attn_tensor *y = inputs[1] ? attn_tensor_checkpoint(tape, block_again, block, inputs, 2) : NULL;
    attn_tensor_release(inputs[1]);
    return y;
}

static bool check_call(attn_tape *tape, const attn_module *gpt, const int64_t *ids, int64_t batch,
                       int64_t len)
{
    if (!nn_is(tape, gpt, NN_GPT)) {
        return false;
    }
    int64_t context = gpt->as.gpt.options.context;
    if (!ids || batch < 1 || len < 1) {
        nn_fail(tape, ATTN_ERR_ARGUMENT,
                "ids, batch, len: %s, %lld, %lld; there must be ids, and at least 1 of both, for "
                "example 16 and 64",
                ids ? "given" : "NULL", (long long)batch, (long long)len);
        return false;
    }
    if (len > context) {
        nn_fail(tape, ATTN_ERR_SHAPE,
                "len: %lld is more than the model's context %lld; shorten the sequence, or create "
                "the model with a larger context",
                (long long)len, (long long)context);
        return false;
    }
    return true;
}

attn_tensor *attn_gpt_hidden(attn_tape *tape, attn_module *gpt, const int64_t *ids, int64_t batch,
                             int64_t len)
{
    if (!check_call(tape, gpt, ids, batch, len)) {
        return NULL;
    }
    nn_gpt *g = &gpt->as.gpt;
    uint64_t call = gpt->training ? gpt->dropout_calls++ : 0;
    uint64_t seed = nn_mix(gpt->dropout_seed, call);
    int64_t shape[2] = {batch, len};
    attn_tensor *x = attn_nn_embedding(tape, g->tokens, ids, 2, shape);
    if (g->position) {
        x = attn_nn_position(tape, g->position, x);
    }
    x = nn_dropout(tape, gpt, x, g->options.dropout, nn_mix(seed, SEED_TOKENS));
    for (int64_t i = 0; i < g->options.layers; i++) {
        uint64_t own = nn_mix(seed, SEED_BLOCKS + (uint64_t)i);
        x = g->options.checkpoint ? checkpointed(tape, gpt, g->blocks[i], x, own)
                                  : run_block(tape, g->blocks[i], x, own);
    }
    return attn_nn_norm(tape, g->norm, x);
}

attn_tensor *attn_gpt_logits(attn_tape *tape, attn_module *gpt, const int64_t *ids, int64_t batch,
                             int64_t len)
{
    attn_tensor *x = attn_gpt_hidden(tape, gpt, ids, batch, len);
    if (!x) {
        return NULL;
    }
    nn_gpt *g = &gpt->as.gpt;
    return g->output ? attn_nn_linear(tape, g->output, x)
                     : attn_tensor_linear(tape, x, g->tokens->as.embedding.weight, NULL);
}

attn_tensor *attn_gpt_loss(attn_tape *tape, attn_module *gpt, const int64_t *ids,
                           const int64_t *targets, int64_t batch, int64_t len)
{
    const attn_gpt_options *o = attn_gpt_get_options(gpt);
    const nn_linear *output = o && gpt->as.gpt.output ? &gpt->as.gpt.output->as.linear : NULL;
    if (!o || (output && output->lora_a)) { /* an adapter is a product of its own */
        return attn_tensor_cross_entropy(tape, attn_gpt_logits(tape, gpt, ids, batch, len),
                                         targets);
    }
    attn_tensor *weight = output ? output->weight : gpt->as.gpt.tokens->as.embedding.weight;
    return attn_tensor_linear_cross_entropy(tape, attn_gpt_hidden(tape, gpt, ids, batch, len),
                                            weight, targets);
}
