/**
 * block.c: one layer of a transformer: attention, perhaps to a memory too, and MLP, each with its norm and residual sum.
 */
#include "nn/init.h"
#include "nn/layers.h"

#include <stdio.h>
#include <stdlib.h>

attn_nn_block_options attn_nn_block_options_init(void)
{
    return (attn_nn_block_options){.struct_size = sizeof(attn_nn_block_options),
                                   .attention = attn_nn_attention_options_init()};
}

typedef struct block_names {
    const char *norm1, *attention, *norm_cross, *cross, *norm2, *mlp;
} block_names;

static const block_names names_of[] = {
    [ATTN_NAMES_LLAMA] = {"input_layernorm", "self_attn", "cross_attention_layernorm", "cross_attn",
                          "post_attention_layernorm", "mlp"},
    [ATTN_NAMES_GPT2] = {"ln_1", "attn", "ln_cross_attn", "crossattention", "ln_2", "mlp"},
    [ATTN_NAMES_BERT] = {"attention.output.LayerNorm", "attention",
                         "crossattention.output.LayerNorm", "crossattention", "output.LayerNorm",
                         ""},
};

static attn_status add_norm(attn_module *m, const char *name, const attn_nn_options *full,
                            const attn_nn_block_options *o, attn_module **slot)
{
    attn_module *norm;
    attn_status status = attn_nn_norm_create(full, o->norm, o->attention.dim, o->norm_eps, &norm);
    return status == ATTN_OK ? nn_add(m, name, norm, slot) : status;
}

static attn_status add_attention(attn_module *m, const char *name, const attn_nn_options *full,
                                 const attn_nn_attention_options *o, attn_module **slot)
{
    attn_module *attention;
    attn_status status = attn_nn_attention_create(full, o, &attention);
    return status == ATTN_OK ? nn_add(m, name, attention, slot) : status;
}

/* Self-attention with its norm, in the order of the files that carry such names. */
static attn_status add_self(attn_module *m, const attn_nn_options *full,
                            const attn_nn_block_options *o, const block_names *names)
{
    attn_nn_options own = nn_child(full, 0);
    attn_status status = add_norm(m, names->norm1, full, o, &m->as.block.norm1);
    return status == ATTN_OK
               ? add_attention(m, names->attention, &own, &o->attention, &m->as.block.attention)
               : status;
}

/* The memory has no positions in common with x: neither RoPE nor ALiBi there. */
static attn_status add_cross(attn_module *m, const attn_nn_options *full,
                             const attn_nn_block_options *o, const block_names *names)
{
    attn_nn_options own = nn_child(full, 1);
    attn_nn_attention_options cross = o->attention;
    cross.position = ATTN_POSITION_NONE;
    cross.kv_dim = o->memory_dim;
    attn_status status = add_norm(m, names->norm_cross, full, o, &m->as.block.norm_cross);
    return status == ATTN_OK ? add_attention(m, names->cross, &own, &cross, &m->as.block.cross)
                             : status;
}

static attn_status add_mlp(attn_module *m, const attn_nn_options *full,
                           const attn_nn_block_options *o, const block_names *names)
{
    attn_nn_options own = nn_child(full, 2);
    attn_module *mlp;
    attn_status status = add_norm(m, names->norm2, full, o, &m->as.block.norm2);
    if (status == ATTN_OK) {
        status = attn_nn_mlp_create(&own, o->mlp, o->attention.dim,
                                    o->hidden ? o->hidden : 4 * o->attention.dim, o->mlp_bias,
                                    o->attention.out_gain, o->attention.naming, &mlp);
    }
    return status == ATTN_OK ? nn_add(m, names->mlp, mlp, &m->as.block.mlp) : status;
}

attn_status attn_nn_block_create(const attn_nn_options *options, const attn_nn_block_options *block,
                                 attn_module **module)
{
    attn_nn_options full;
    attn_status status = nn_no_place(module);
    if (status == ATTN_OK && !block) {
        status = attn_fail(ATTN_ERR_ARGUMENT, "block: NULL; set attention.dim and attention.heads, "
                                              "for example 64 and 4");
    }
    attn_nn_block_options taken = attn_nn_block_options_init();
    if (status == ATTN_OK) {
        status =
            attn_take_struct("block", "attn_nn_block_options_init", block, &taken, sizeof taken);
    }
    block = &taken;
    if (status == ATTN_OK) {
        status = nn_options(options, &full);
    }
    if (status == ATTN_OK) {
        status = nn_check_dropout(block->dropout);
    }
    if (status == ATTN_OK && (unsigned)block->attention.naming > ATTN_NAMES_BERT) {
        status = attn_fail(ATTN_ERR_ARGUMENT, "naming: %d is no attn_naming",
                           (int)block->attention.naming);
    }
    if (status == ATTN_OK && block->cross && block->attention.naming == ATTN_NAMES_GPT2) {
        status = attn_fail(ATTN_ERR_UNSUPPORTED,
                           "cross: GPT2 naming keeps q, k and v in one matrix; take LLAMA");
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_BLOCK);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    m->as.block = (nn_block){
        .dim = block->attention.dim, .post_norm = block->post_norm, .dropout = block->dropout};
    const block_names *names = &names_of[block->attention.naming];
    status = add_self(m, &full, block, names);
    if (status == ATTN_OK && block->cross) {
        status = add_cross(m, &full, block, names);
    }
    if (status == ATTN_OK) {
        status = add_mlp(m, &full, block, names);
    }
    return nn_finish(status, m, module);
}

attn_status nn_add_blocks(attn_module *parent, const char *prefix, int64_t layers,
                          const attn_nn_options *full, uint64_t seed,
                          const attn_nn_block_options *block, attn_module ***blocks)
{
    *blocks = calloc((size_t)layers, sizeof **blocks);
    if (!*blocks) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for %lld layers",
                         (long long)layers);
    }
    attn_status status = ATTN_OK;
    for (int64_t i = 0; i < layers && status == ATTN_OK; i++) {
        attn_nn_options own = nn_child(full, seed + (uint64_t)i);
        attn_module *made;
        char name[64];
        snprintf(name, sizeof name, "%s%lld", prefix, (long long)i);
        status = attn_nn_block_create(&own, block, &made);
        if (status == ATTN_OK) {
            status = nn_add(parent, name, made, &(*blocks)[i]);
        }
    }
    return status;
}

/* ---- applying ---------------------------------------------------------------------------------- */

enum { SEED_ATTENTION, SEED_RESIDUAL, SEED_CROSS, SEED_CROSS_RESIDUAL, SEED_MLP_RESIDUAL };

/* One of a block's parts: attention where there is a module for it, else the MLP. */
static attn_tensor *part(attn_tape *tape, attn_module *block, attn_module *norm,
                         attn_module *attention, const attn_nn_attend *attend, attn_tensor *x,
                         attn_tensor *memory, uint64_t residual_seed)
{
    const nn_block *b = &block->as.block;
    attn_tensor *in = b->post_norm ? x : attn_nn_norm(tape, norm, x);
    attn_tensor *out = attention ? attn_nn_attention(tape, attention, attend, in, memory)
                                 : attn_nn_mlp(tape, b->mlp, in);
    out = attn_tensor_add(tape, x, nn_dropout(tape, block, out, b->dropout, residual_seed));
    return b->post_norm ? attn_nn_norm(tape, norm, out) : out;
}

attn_tensor *attn_nn_block(attn_tape *tape, attn_module *module, const attn_nn_attend *attend,
                           attn_tensor *x, const attn_nn_attend *memory_attend, attn_tensor *memory)
{
    if (!nn_ready(tape, module, NN_BLOCK, x) ||
        !nn_last_is(tape, x, "block", "dim", module->as.block.dim)) {
        return NULL;
    }
    nn_block *b = &module->as.block;
    if ((b->cross == NULL) != (memory == NULL)) {
        return nn_fail(tape, ATTN_ERR_ARGUMENT,
                       b->cross ? "memory: NULL, but the block was created with cross; give what "
                                  "it attends to, for example an encoder's output"
                                : "memory: the block was created without cross; set that option");
    }
    attn_nn_attend own = attend ? *attend : attn_nn_attend_init();
    attn_nn_attend other = memory_attend ? *memory_attend : attn_nn_attend_init();
    uint64_t seed = own.dropout_seed;
    own.dropout_seed = nn_mix(seed, SEED_ATTENTION);
    other.dropout_seed = nn_mix(seed, SEED_CROSS);
    x = part(tape, module, b->norm1, b->attention, &own, x, NULL, nn_mix(seed, SEED_RESIDUAL));
    if (b->cross) {
        x = part(tape, module, b->norm_cross, b->cross, &other, x, memory,
                 nn_mix(seed, SEED_CROSS_RESIDUAL));
    }
    return part(tape, module, b->norm2, NULL, NULL, x, NULL, nn_mix(seed, SEED_MLP_RESIDUAL));
}
