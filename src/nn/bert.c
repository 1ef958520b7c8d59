/**
 * bert.c: encoders (Devlin et al. 2019): three embeddings summed and normed, then post-norm blocks that see both ways.
 */
#include "nn/init.h"
#include "nn/layers.h"

enum { SEED_WORDS, SEED_POSITIONS, SEED_SEGMENTS, SEED_BLOCKS };

attn_bert_options attn_bert_options_init(void)
{
    return (attn_bert_options){.struct_size = sizeof(attn_bert_options),
                               .dtype = ATTN_F32,
                               .layers = 4,
                               .dim = 128,
                               .heads = 4,
                               .context = 256};
}

static attn_status complete(const attn_bert_options *options, attn_bert_options *full)
{
    if (!options) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "options: NULL; start from attn_bert_options_init() and set vocab");
    }
    *full = attn_bert_options_init();
    attn_status status =
        attn_take_struct("options", "attn_bert_options_init", options, full, sizeof *full);
    if (status != ATTN_OK) {
        return status;
    }
    full->dtype = full->dtype == ATTN_DTYPE_NONE ? ATTN_F32 : full->dtype;
    full->ffn = full->ffn ? full->ffn : 4 * full->dim;
    full->segments = full->segments ? full->segments : 2;
    full->norm_eps = full->norm_eps > 0.0 ? full->norm_eps : 1e-12;
    status = nn_positive("vocab", full->vocab, "30522");
    if (status == ATTN_OK) {
        status = nn_positive("layers", full->layers, "6");
    }
    if (status == ATTN_OK) {
        status = nn_positive("context", full->context, "512");
    }
    return status == ATTN_OK ? nn_check_dropout(full->dropout) : status;
}

static attn_status add_embedding(attn_module *m, const char *name, const attn_nn_options *full,
                                 uint64_t seed, int64_t count, attn_module **slot)
{
    attn_nn_options own = nn_child(full, seed);
    attn_module *made;
    attn_status status = attn_nn_embedding_create(&own, count, m->as.bert.options.dim, &made);
    return status == ATTN_OK ? nn_add(m, name, made, slot) : status;
}

static attn_status add_embeddings(attn_module *m, const attn_nn_options *full)
{
    nn_bert *b = &m->as.bert;
    const attn_bert_options *o = &b->options;
    attn_module *made;
    attn_status status =
        add_embedding(m, "embeddings.word_embeddings", full, SEED_WORDS, o->vocab, &b->words);
    if (status == ATTN_OK) {
        status = add_embedding(m, "embeddings.position_embeddings", full, SEED_POSITIONS,
                               o->context, &b->positions);
    }
    if (status == ATTN_OK) {
        status = add_embedding(m, "embeddings.token_type_embeddings", full, SEED_SEGMENTS,
                               o->segments, &b->segments);
    }
    if (status == ATTN_OK) {
        status = attn_nn_norm_create(full, ATTN_NORM_LAYER, o->dim, o->norm_eps, &made);
    }
    return status == ATTN_OK ? nn_add(m, "embeddings.LayerNorm", made, &b->norm) : status;
}

static attn_status add_blocks(attn_module *m, const attn_nn_options *full)
{
    nn_bert *b = &m->as.bert;
    const attn_bert_options *o = &b->options;
    attn_nn_block_options block = attn_nn_block_options_init();
    block.attention.dim = o->dim;
    block.attention.heads = o->heads;
    block.attention.bias = block.attention.out_bias = true;
    block.attention.dropout = o->dropout;
    block.attention.naming = ATTN_NAMES_BERT;
    block.mlp = ATTN_MLP_GELU;
    block.hidden = o->ffn;
    block.mlp_bias = true;
    block.norm = ATTN_NORM_LAYER;
    block.norm_eps = o->norm_eps;
    block.post_norm = true;
    block.dropout = o->dropout;
    return nn_add_blocks(m, "encoder.layer.", o->layers, full, SEED_BLOCKS, &block, &b->blocks);
}

attn_status attn_bert_create(const attn_bert_options *options, attn_module **bert)
{
    attn_bert_options full;
    attn_status status = nn_no_place(bert);
    if (status == ATTN_OK) {
        status = complete(options, &full);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_BERT);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    m->as.bert.options = full;
    attn_nn_options nn = attn_nn_options_init(), checked;
    nn.dtype = full.dtype;
    nn.init = full.init;
    nn.seed = full.seed;
    status = nn_options(&nn, &checked);
    if (status == ATTN_OK) {
        status = add_embeddings(m, &checked);
    }
    if (status == ATTN_OK) {
        status = add_blocks(m, &checked);
    }
    return nn_finish(status, m, bert);
}

/* ---- applying ---------------------------------------------------------------------------------- */

/* Words, positions 0, 1, … and segments (all 0 where there are none), summed. */
static attn_tensor *embed(attn_tape *tape, const nn_bert *b, const int64_t *ids,
                          const int64_t *segments, int64_t batch, int64_t len)
{
    int64_t shape[2] = {batch, len};
    attn_tensor *x = attn_nn_embedding(tape, b->words, ids, 2, shape);
    attn_tensor *positions = b->positions->as.embedding.weight;
    attn_tensor *kinds = b->segments->as.embedding.weight;
    x = attn_tensor_add(tape, x, attn_tensor_slice(tape, positions, 0, 0, len));
    kinds = segments ? attn_nn_embedding(tape, b->segments, segments, 2, shape)
                     : attn_tensor_slice(tape, kinds, 0, 0, 1);
    return attn_tensor_add(tape, x, kinds);
}

attn_tensor *attn_bert_forward(attn_tape *tape, attn_module *bert, const int64_t *ids,
                               const int64_t *segments, const int64_t *lengths, int64_t batch,
                               int64_t len)
{
    if (!nn_is(tape, bert, NN_BERT)) {
        return NULL;
    }
    nn_bert *b = &bert->as.bert;
    if (!ids || batch < 1 || len < 1 || len > b->options.context) {
        return nn_fail(tape, ATTN_ERR_SHAPE,
                       "ids: %s, batch %lld, len %lld; batch ≥ 1 and 1 ≤ len ≤ context %lld",
                       ids ? "given" : "NULL", (long long)batch, (long long)len,
                       (long long)b->options.context);
    }
    uint64_t seed = nn_mix(bert->dropout_seed, bert->training ? bert->dropout_calls++ : 0);
    attn_tensor *x = attn_nn_norm(tape, b->norm, embed(tape, b, ids, segments, batch, len));
    x = nn_dropout(tape, bert, x, b->options.dropout, nn_mix(seed, SEED_WORDS));
    attn_nn_attend attend = attn_nn_attend_init();
    attend.lengths_k = lengths;
    for (int64_t i = 0; i < b->options.layers; i++) {
        attend.dropout_seed = nn_mix(seed, SEED_BLOCKS + (uint64_t)i);
        x = attn_nn_block(tape, b->blocks[i], &attend, x, NULL, NULL);
    }
    return x;
}
