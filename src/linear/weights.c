/**
 * weights.c: stored formats of weights: their sizes and the floats they stand for.
 */
#include "base/alloc.h"
#include "base/half.h"
#include "linear/linear.h"

static const struct {
    const char *name;
    int64_t block;
    size_t bytes;
} formats[] = {
    [ATTN_WEIGHT_F32] = {"f32", 1, 4},     [ATTN_WEIGHT_F16] = {"f16", 1, 2},
    [ATTN_WEIGHT_BF16] = {"bf16", 1, 2},   [ATTN_WEIGHT_Q8_0] = {"q8_0", 32, 34},
    [ATTN_WEIGHT_Q4_0] = {"q4_0", 32, 18}, [ATTN_WEIGHT_Q4_1] = {"q4_1", 32, 20},
};

static bool known(attn_weight_type type)
{
    return (int)type >= ATTN_WEIGHT_F32 && (int)type <= ATTN_WEIGHT_Q4_1;
}

int64_t attn_weight_block(attn_weight_type type)
{
    return known(type) ? formats[type].block : 0;
}

size_t attn_weight_block_bytes(attn_weight_type type)
{
    return known(type) ? formats[type].bytes : 0;
}

const char *attn_weight_name(attn_weight_type type)
{
    return known(type) ? formats[type].name : "invalid";
}

size_t attn_weight_bytes(attn_weight_type type, int64_t rows, int64_t cols)
{
    if (!known(type) || rows < 0 || cols < 0 || cols % formats[type].block != 0) {
        return 0;
    }
    size_t bytes;
    if (!attn_mul_size((size_t)rows, (size_t)(cols / formats[type].block), &bytes) ||
        !attn_mul_size(bytes, formats[type].bytes, &bytes)) {
        return 0;
    }
    return bytes;
}

static float half_at(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, 2);
    return attn_f16_to_float(bits);
}

static void q8_0(const uint8_t *block, float *dst)
{
    float d = half_at(block);
    for (int i = 0; i < 32; i++) {
        dst[i] = d * (float)(int8_t)block[2 + i];
    }
}

static void q4_0(const uint8_t *block, float *dst)
{
    float d = half_at(block);
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)((block[2 + i] & 15) - 8);
        dst[16 + i] = d * (float)((block[2 + i] >> 4) - 8);
    }
}

/* d·q has 15 bits at most, so only the sum rounds. */
static void q4_1(const uint8_t *block, float *dst)
{
    float d = half_at(block), m = half_at(block + 2);
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)(block[4 + i] & 15) + m;
        dst[16 + i] = d * (float)(block[4 + i] >> 4) + m;
    }
}

static void from_halves(attn_weight_type type, const uint8_t *src, int64_t count, float *dst)
{
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, src + 2 * i, 2);
        dst[i] = type == ATTN_WEIGHT_F16 ? attn_f16_to_float(bits) : attn_bf16_to_float(bits);
    }
}

void attn_weight_to_float(attn_weight_type type, const void *source, int64_t count, float *dst)
{
    const uint8_t *src = source;
    int64_t blocks = count / attn_weight_block(type);
    switch (type) {
    case ATTN_WEIGHT_F32: memcpy(dst, src, (size_t)count * 4); return;
    case ATTN_WEIGHT_F16:
    case ATTN_WEIGHT_BF16: from_halves(type, src, count, dst); return;
    case ATTN_WEIGHT_Q8_0:
        for (int64_t b = 0; b < blocks; b++) {
            q8_0(src + b * 34, dst + b * 32);
        }
        return;
    case ATTN_WEIGHT_Q4_0:
        for (int64_t b = 0; b < blocks; b++) {
            q4_0(src + b * 18, dst + b * 32);
        }
        return;
    case ATTN_WEIGHT_Q4_1:
        for (int64_t b = 0; b < blocks; b++) {
            q4_1(src + b * 20, dst + b * 32);
        }
        return;
    }
}

attn_status attn_weight_dequantize(attn_weight_type type, const void *src, int64_t count,
                                   float *dst)
{
    if (!known(type)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "type: %d is no weight type; f32, f16, bf16, q8_0, q4_0 and q4_1 are",
                         (int)type);
    }
    if (count < 0 || count % formats[type].block != 0) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "count: %lld is not a multiple of %lld, the block of %s; pass whole rows",
                         (long long)count, (long long)formats[type].block, formats[type].name);
    }
    if (count == 0) {
        return ATTN_OK;
    }
    if (!src || !dst) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL for %lld values",
                         src ? "dst" : "src", (long long)count);
    }
    attn_weight_to_float(type, src, count, dst);
    return ATTN_OK;
}
