/* kernels/convert in C: one element at a time, as base/half.h says. */
#include "kernels/convert/convert.h"

#include <assert.h>

#include "base/half.h"

static void bf16_to_f32(const uint16_t *src, float *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i++) {
        dst[i] = attn_bf16_to_float(src[i]);
    }
}

static void f16_to_f32(const uint16_t *src, float *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i++) {
        dst[i] = attn_f16_to_float(src[i]);
    }
}

static void f32_to_bf16(const float *src, uint16_t *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i++) {
        dst[i] = attn_float_to_bf16(src[i]);
    }
}

static void f32_to_f16(const float *src, uint16_t *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i++) {
        dst[i] = attn_float_to_f16(src[i]);
    }
}

const attn_convert_kernels attn_convert_c = {bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
