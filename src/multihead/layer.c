/**
 * layer.c: a layer's life: sizes checked, parameters initialised and packed, given back.
 */
#include "multihead/layer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "par/context.h"

attn_multihead_options attn_multihead_options_init(void)
{
    return (attn_multihead_options){.struct_size = sizeof(attn_multihead_options)};
}

static attn_status check_positive(const char *name, int64_t value)
{
    if (value < 1) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: is %lld but must be at least 1, as in embed_dim 64, num_heads 8",
                         name, (long long)value);
    }
    return ATTN_OK;
}

enum { SEARCH = 4096 /* a suggested number of heads is at most this: absurd sizes fail fast */ };

/* The multiples of num_heads around embed_dim, and a number of heads that would divide it. */
static attn_status fail_heads(int64_t embed_dim, int64_t num_heads)
{
    int64_t below = embed_dim / num_heads * num_heads;
    int64_t divisor = num_heads < SEARCH ? num_heads : SEARCH;
    char fix[64] = "";
    while (embed_dim % divisor != 0) {
        divisor--;
    }
    if (below > 0) {
        snprintf(fix, sizeof fix, "%lld or ", (long long)below);
    }
    return attn_fail(ATTN_ERR_SHAPE,
                     "embed_dim %lld is not a multiple of num_heads %lld, so heads have no whole "
                     "size; use embed_dim %s%lld, or num_heads %lld (for example embed_dim 64 with "
                     "num_heads 8: heads of 8)",
                     (long long)embed_dim, (long long)num_heads, fix,
                     (long long)(below <= INT64_MAX - num_heads ? below + num_heads : below),
                     (long long)divisor);
}

static attn_status check_options(const attn_multihead_options *o)
{
    attn_status status = check_positive("embed_dim", o->embed_dim);
    status = status == ATTN_OK ? check_positive("num_heads", o->num_heads) : status;
    status = status == ATTN_OK ? check_positive("num_kv_heads", o->num_kv_heads) : status;
    status = status == ATTN_OK ? check_positive("kdim", o->kdim) : status;
    status = status == ATTN_OK ? check_positive("vdim", o->vdim) : status;
    if (status != ATTN_OK) {
        return status;
    }
    if (o->embed_dim % o->num_heads != 0) {
        return fail_heads(o->embed_dim, o->num_heads);
    }
    if (o->num_heads % o->num_kv_heads != 0) {
        int64_t fits = o->num_kv_heads < SEARCH ? o->num_kv_heads : SEARCH;
        while (o->num_heads % fits != 0) {
            fits--;
        }
        return attn_fail(ATTN_ERR_SHAPE,
                         "num_kv_heads %lld does not divide num_heads %lld, so query heads cannot "
                         "share them evenly; use %lld (for example 8 heads with 2 kv heads: groups "
                         "of 4)",
                         (long long)o->num_kv_heads, (long long)o->num_heads, (long long)fits);
    }
    return ATTN_OK;
}

attn_status multihead_pack(attn_context *context, const multihead_projection *p,
                           const float *weight, const float *bias, attn_linear **packed)
{
    attn_linear_part part = {ATTN_WEIGHT_F32, weight ? weight : p->weight, p->out};
    return attn_linear_create(context, NULL, p->in, 1, &part, bias ? bias : p->bias, packed);
}

static bool weight_bytes(const multihead_projection *p, size_t *bytes)
{
    return attn_mul_size((size_t)p->in, sizeof(float), bytes) &&
           attn_mul_size((size_t)p->out, *bytes, bytes);
}

/* Xavier-uniform: ±√(6 / (in + out)), each projection a stream of its own. */
static void initialise(multihead_projection *p, uint64_t seed, uint64_t stream)
{
    double bound = sqrt(6.0 / ((double)p->in + (double)p->out));
    for (int64_t i = 0; i < p->in * p->out; i++) {
        p->weight[i] = (float)((2.0 * attn_uniform(seed, stream, (uint64_t)i) - 1.0) * bound);
    }
    if (p->bias) {
        memset(p->bias, 0, (size_t)p->out * sizeof *p->bias);
    }
}

static attn_status create_projection(attn_multihead *layer, int which, uint64_t seed)
{
    multihead_projection *p = &layer->projection[which];
    const attn_allocator *allocator = attn_context_allocator(layer->context);
    size_t bytes;
    if (!weight_bytes(p, &bytes)) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "a projection of [%lld, %lld] is larger than memory can be; check "
                         "embed_dim, kdim and vdim",
                         (long long)p->out, (long long)p->in);
    }
    p->weight = attn_alloc(allocator, bytes, "multi-head weights");
    if (!p->weight) {
        return ATTN_ERR_NO_MEMORY;
    }
    if (layer->has_bias) {
        p->bias = attn_alloc(allocator, (size_t)p->out * sizeof *p->bias, "multi-head biases");
        if (!p->bias) {
            return ATTN_ERR_NO_MEMORY;
        }
    }
    initialise(p, seed, (uint64_t)which);
    return multihead_pack(layer->context, p, NULL, NULL, &p->packed);
}

static attn_status read_options(const attn_multihead_options *given, attn_multihead_options *o)
{
    *o = attn_multihead_options_init();
    attn_status status =
        attn_take_struct("options", "attn_multihead_options_init", given, o, sizeof *o);
    if (status != ATTN_OK) {
        return status;
    }
    o->num_kv_heads = o->num_kv_heads == 0 ? o->num_heads : o->num_kv_heads;
    o->kdim = o->kdim == 0 ? o->embed_dim : o->kdim;
    o->vdim = o->vdim == 0 ? o->embed_dim : o->vdim;
    return check_options(o);
}

attn_status attn_multihead_create(attn_context *context, const attn_multihead_options *options,
                                  attn_multihead **out)
{
    if (!out) {
        return attn_fail(ATTN_ERR_ARGUMENT, "layer: must not be NULL; pass where to put it");
    }
    *out = NULL;
    if (!context || !options) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL",
                         context ? "options" : "context");
    }
    attn_multihead_options o;
    attn_status status = read_options(options, &o);
    if (status != ATTN_OK) {
        return status;
    }
    attn_multihead *layer =
        attn_alloc(attn_context_allocator(context), sizeof *layer, "multi-head layer");
    if (!layer) {
        return ATTN_ERR_NO_MEMORY;
    }
    int64_t head_dim = o.embed_dim / o.num_heads, kv_width = head_dim * o.num_kv_heads;
    *layer =
        (attn_multihead){.context = context,
                         .embed_dim = o.embed_dim,
                         .num_heads = o.num_heads,
                         .num_kv_heads = o.num_kv_heads,
                         .head_dim = head_dim,
                         .kdim = o.kdim,
                         .vdim = o.vdim,
                         .has_bias = !o.no_bias,
                         .projection = {[MULTIHEAD_Q] = {.in = o.embed_dim, .out = o.embed_dim},
                                        [MULTIHEAD_K] = {.in = o.kdim, .out = kv_width},
                                        [MULTIHEAD_V] = {.in = o.vdim, .out = kv_width},
                                        [MULTIHEAD_OUT] = {.in = o.embed_dim, .out = o.embed_dim}}};
    for (int which = 0; status == ATTN_OK && which < MULTIHEAD_PROJECTIONS; which++) {
        status = create_projection(layer, which, o.seed);
    }
    if (status != ATTN_OK) {
        attn_multihead_destroy(layer);
        return status;
    }
    *out = layer;
    return ATTN_OK;
}

void attn_multihead_destroy(attn_multihead *layer)
{
    if (!layer) {
        return;
    }
    const attn_allocator *allocator = attn_context_allocator(layer->context);
    for (int which = 0; which < MULTIHEAD_PROJECTIONS; which++) {
        multihead_projection *p = &layer->projection[which];
        size_t bytes = 0;
        (void)weight_bytes(p, &bytes); /* it fitted when it was allocated */
        attn_linear_destroy(p->packed);
        attn_free(allocator, p->weight, bytes);
        attn_free(allocator, p->bias, (size_t)p->out * sizeof *p->bias);
    }
    attn_free(allocator, layer->gradients, layer->gradient_bytes);
    attn_free(allocator, layer, sizeof *layer);
}
