/**
 * kernels/convert: rows of bf16 and f16 to and from f32.
 *
 * Rounding is to nearest even whatever MXCSR says. NaN stays NaN; infinities stay; f32 beyond the largest half gives
 * infinity. Subnormal halves are exact in both directions, also while FTZ|DAZ is set: in f32 they are normal
 * numbers. (Subnormal f32 become zero in f16 under any state, and keep their upper half in bf16.)
 */
#ifndef ATTN_KERNELS_CONVERT_CONVERT_H
#define ATTN_KERNELS_CONVERT_CONVERT_H

#include <attn/context.h>

/** dst[i] = src[i], i = 0 … count−1. Any alignment; src and dst do not overlap. */
typedef void (*attn_convert_up)(const uint16_t *src, float *dst, int64_t count);
typedef void (*attn_convert_down)(const float *src, uint16_t *dst, int64_t count);

typedef struct attn_convert_kernels {
    attn_convert_up bf16_to_f32, f16_to_f32;
    attn_convert_down f32_to_bf16, f32_to_f16;
} attn_convert_kernels;

/** The kernels of a level, or of the best one below it that there are any of. */
const attn_convert_kernels *attn_convert_table(attn_isa isa);

extern const attn_convert_kernels attn_convert_c;
extern const attn_convert_kernels attn_convert_avx2;
extern const attn_convert_kernels attn_convert_avx512;

#endif
