/**
 * create.c: weights checked, repacked into panels once, and given back.
 */
#include "base/alloc.h"
#include "cpu/cpu.h"
#include "linear/linear.h"
#include "par/context.h"

#include <string.h>

attn_linear_options attn_linear_options_init(void)
{
    return (attn_linear_options){.struct_size = sizeof(attn_linear_options)};
}

/* What one creation is about, after its checks. */
typedef struct request {
    attn_weight_type type;
    int parts;
    const attn_linear_part *part;
    attn_linear *linear;
    int64_t step; /* panels a task packs */
} request;

static const uint8_t *row_of(const request *r, int64_t row)
{
    const attn_linear_part *part = r->part;
    while (row >= part->out_features) {
        row -= part->out_features;
        part++;
    }
    return (const uint8_t *)part->weights +
           (size_t)row * attn_weight_bytes(r->type, 1, r->linear->in);
}

/* One row of a type into lane `lane` of an f32 panel, some columns at a time. */
static void pack_row_f32(attn_weight_type type, const uint8_t *row, int64_t columns, float *panel,
                         int64_t lanes)
{
    enum { CHUNK = 256 };
    float values[CHUNK];
    for (int64_t k = 0; k < columns; k += CHUNK) {
        int64_t count = columns - k < CHUNK ? columns - k : CHUNK;
        attn_weight_to_float(type, row + attn_weight_bytes(type, 1, k), count, values);
        for (int64_t i = 0; i < count; i++) {
            panel[(k + i) * lanes] = values[i];
        }
    }
}

static void pack_panel(const request *r, int64_t panel)
{
    const attn_linear *l = r->linear;
    uint8_t *to = l->packed + (size_t)panel * l->panel_bytes;
    int64_t first = panel * l->lanes;
    int64_t count = l->out - first < l->lanes ? l->out - first : l->lanes;
    if (l->kind == ATTN_LINEAR_F32) {
        if (count < l->lanes) {
            memset(to, 0, l->panel_bytes);
        }
        for (int64_t i = 0; i < count; i++) {
            pack_row_f32(r->type, row_of(r, first + i), l->in, (float *)(void *)to + i, l->lanes);
        }
        return;
    }
    const uint8_t *rows[ATTN_QUANT_PANEL];
    int64_t blocks = l->in / ATTN_QUANT_BLOCK;
    for (int64_t i = 0; i < count; i++) {
        rows[i] = row_of(r, first + i);
    }
    if (r->type == ATTN_WEIGHT_Q4_1) {
        attn_quant_pack_q4_1(rows, (int)count, blocks, to);
    } else if (r->type == ATTN_WEIGHT_Q8_0) {
        attn_quant_pack_q8_0(rows, (int)count, blocks, to);
    } else if (l->kind == ATTN_LINEAR_Q4) {
        attn_quant_pack_q4_0(rows, (int)count, blocks, to);
    } else {
        attn_quant_pack_q4_0_as_q8(rows, (int)count, blocks, to);
    }
}

static void pack_task(void *argument, int64_t index, int worker)
{
    const request *r = argument;
    int64_t end = (index + 1) * r->step;
    (void)worker;
    for (int64_t p = index * r->step; p < r->linear->panels && p < end; p++) {
        pack_panel(r, p);
    }
}

/* Q4_0 whose −8·d overflows f16 somewhere keeps its exact values as 8-bit weights. */
static bool fits_q4(const request *r)
{
    for (int p = 0; p < r->parts; p++) {
        int64_t blocks = r->part[p].out_features * (r->linear->in / ATTN_QUANT_BLOCK);
        if (!attn_quant_q4_0_fits(r->part[p].weights, blocks)) {
            return false;
        }
    }
    return true;
}

/* Half of L2, since its other half serves panels and results; within what other machines have. Asked of the system once. */
int64_t attn_linear_cached_bytes(void)
{
    static _Atomic int64_t known;
    int64_t bytes = known;
    if (bytes == 0) {
        size_t half = attn_cpu_cache_sizes().l2 / 2;
        size_t least = (size_t)256 << 10, most = (size_t)1 << 20;
        bytes = (int64_t)(half < least ? least : half > most ? most : half);
        known = bytes;
    }
    return bytes;
}

static attn_status choose_layout(const request *r, bool int8)
{
    attn_linear *l = r->linear;
    int64_t blocks = l->in / ATTN_QUANT_BLOCK;
    l->gemm = attn_gemm_table_for(l->isa);
    l->quant = attn_quant_table_for(l->isa);
    l->cached = attn_linear_cached_bytes();
    l->lanes = ATTN_QUANT_PANEL;
    bool fits = true;
    if (!int8) {
        l->kind = ATTN_LINEAR_F32;
        l->lanes = l->gemm->nr;
        fits = attn_mul_size((size_t)l->in, (size_t)l->lanes * sizeof(float), &l->panel_bytes);
    } else if (r->type == ATTN_WEIGHT_Q8_0 || (r->type == ATTN_WEIGHT_Q4_0 && !fits_q4(r))) {
        l->kind = ATTN_LINEAR_Q8;
        l->panel_bytes = attn_quant_q8_panel_bytes(blocks);
    } else {
        l->kind = ATTN_LINEAR_Q4;
        l->panel_bytes = attn_quant_q4_panel_bytes(blocks);
    }
    l->panels = (l->out - 1) / l->lanes + 1;
    if (!fits || !attn_mul_size((size_t)l->panels, l->panel_bytes, &l->packed_bytes) ||
        !attn_mul_size((size_t)l->panels, (size_t)l->lanes * sizeof(float), &l->bias_bytes)) {
        return attn_fail(ATTN_ERR_SHAPE, "weights [%lld, %lld] packed exceed the address space",
                         (long long)l->out, (long long)l->in);
    }
    return ATTN_OK;
}

static attn_status check_part(const attn_linear_part *part, int index, attn_weight_type type,
                              int64_t in)
{
    if (part->type != type) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "part %d: is %s, part 0 is %s; parts of one linear share a type, create "
                         "one linear for each type",
                         index, attn_weight_name(part->type), attn_weight_name(type));
    }
    if (part->out_features < 1) {
        return attn_fail(ATTN_ERR_SHAPE, "part %d: out_features is %lld, must be at least 1", index,
                         (long long)part->out_features);
    }
    if (!part->weights) {
        return attn_fail(ATTN_ERR_ARGUMENT, "part %d: weights must not be NULL", index);
    }
    if (attn_weight_bytes(type, part->out_features, in) == 0) {
        return attn_fail(ATTN_ERR_SHAPE, "part %d: weights [%lld, %lld] exceed the address space",
                         index, (long long)part->out_features, (long long)in);
    }
    return ATTN_OK;
}

static attn_status check_parts(int64_t in, int parts, const attn_linear_part *part, int64_t *out)
{
    if (parts < 1 || !part) {
        return attn_fail(ATTN_ERR_ARGUMENT, "part: needs at least one matrix, got %d%s", parts,
                         part ? "" : " and NULL");
    }
    attn_weight_type type = part[0].type;
    int64_t block = attn_weight_block(type);
    if (block == 0) {
        return attn_fail(
            ATTN_ERR_ARGUMENT,
            "part 0: type %d is no weight type; f32, f16, bf16, q8_0, q4_0 and q4_1 are",
            (int)type);
    }
    if (in < 1 || in % block != 0) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "in_features: %lld must be positive and a multiple of %lld, the block of "
                         "%s; keep such a matrix in f16 or f32",
                         (long long)in, (long long)block, attn_weight_name(type));
    }
    *out = 0;
    for (int p = 0; p < parts; p++) {
        attn_status status = check_part(&part[p], p, type, in);
        if (status != ATTN_OK) {
            return status;
        }
        if (__builtin_add_overflow(*out, part[p].out_features, out)) {
            return attn_fail(ATTN_ERR_SHAPE, "part: the sum of out_features overflows");
        }
    }
    return ATTN_OK;
}

/* *int8: whether activations are quantised; *refine: whether few rows get a second 8 bits. */
static attn_status check_options(const attn_linear_options *given, attn_weight_type type,
                                 bool *int8, bool *refine)
{
    attn_linear_options options = attn_linear_options_init();
    attn_status status =
        attn_take_struct("options", "attn_linear_options_init", given, &options, sizeof options);
    if (status != ATTN_OK) {
        return status;
    }
    bool quantised = attn_weight_block(type) > 1;
    switch (options.activations) {
    case ATTN_ACTIVATIONS_AUTO:
        *int8 = quantised;
        *refine = quantised;
        return ATTN_OK;
    case ATTN_ACTIVATIONS_F32: *int8 = false; return ATTN_OK;
    case ATTN_ACTIVATIONS_INT8:
        *int8 = true;
        if (!quantised) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "activations: int8 goes with q8_0, q4_0 and q4_1 weights, these are "
                             "%s; use ATTN_ACTIVATIONS_AUTO",
                             attn_weight_name(type));
        }
        return ATTN_OK;
    }
    return attn_fail(ATTN_ERR_ARGUMENT,
                     "activations: %d is none of ATTN_ACTIVATIONS_AUTO, _F32, _INT8",
                     (int)options.activations);
}

static attn_status allocate(attn_linear *l, const float *bias)
{
    l->packed = attn_alloc(&l->allocator, l->packed_bytes, "packed weights");
    l->bias = l->packed ? attn_alloc(&l->allocator, l->bias_bytes, "bias") : NULL;
    if (!l->bias) {
        return ATTN_ERR_NO_MEMORY;
    }
    memset(l->bias, 0, l->bias_bytes);
    if (bias) {
        memcpy(l->bias, bias, (size_t)l->out * sizeof *bias);
    }
    return ATTN_OK;
}

attn_status attn_linear_create(attn_context *context, const attn_linear_options *options,
                               int64_t in_features, int parts, const attn_linear_part *part,
                               const float *bias, attn_linear **linear)
{
    if (!linear) {
        return attn_fail(ATTN_ERR_ARGUMENT, "linear: must not be NULL; pass where to put it");
    }
    *linear = NULL;
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL; attn_context_create first");
    }
    int64_t out = 0;
    bool int8 = false, refine = false;
    attn_status status = check_parts(in_features, parts, part, &out);
    if (status == ATTN_OK) {
        status = check_options(options, part[0].type, &int8, &refine);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_allocator allocator = *attn_context_allocator(context);
    attn_linear *l = attn_alloc(&allocator, sizeof *l, "linear");
    if (!l) {
        return ATTN_ERR_NO_MEMORY;
    }
    *l = (attn_linear){.allocator = allocator,
                       .isa = attn_context_isa(context),
                       .in = in_features,
                       .out = out,
                       .refine = refine};
    request r = {.type = part[0].type, .parts = parts, .part = part, .linear = l};
    status = choose_layout(&r, int8);
    if (status == ATTN_OK) {
        status = allocate(l, bias);
    }
    if (status != ATTN_OK) {
        attn_linear_destroy(l);
        return status;
    }
    /* About 64 KiB a task; a small matrix is one. */
    r.step = 1 + (int64_t)(((size_t)64 << 10) / l->panel_bytes);
    attn_context_run(context, (l->panels + r.step - 1) / r.step, false, pack_task, &r);
    *linear = l;
    return ATTN_OK;
}

void attn_linear_destroy(attn_linear *linear)
{
    if (!linear) {
        return;
    }
    attn_allocator allocator = linear->allocator;
    attn_free(&allocator, linear->packed, linear->packed_bytes);
    attn_free(&allocator, linear->bias, linear->bias_bytes);
    attn_free(&allocator, linear, sizeof *linear);
}

int64_t attn_linear_in_features(const attn_linear *linear)
{
    return linear ? linear->in : 0;
}

int64_t attn_linear_out_features(const attn_linear *linear)
{
    return linear ? linear->out : 0;
}

size_t attn_linear_bytes(const attn_linear *linear)
{
    return linear ? linear->packed_bytes : 0;
}
