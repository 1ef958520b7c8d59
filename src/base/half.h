/**
 * base/half.h: bf16 and f16 as bits, converted one at a time. Rounding is to nearest even, as IEEE 754.
 */
#ifndef ATTN_BASE_HALF_H
#define ATTN_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t attn_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float attn_bits_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float attn_bf16_to_float(uint16_t half)
{
    return attn_bits_float((uint32_t)half << 16);
}

static inline uint16_t attn_float_to_bf16(float value)
{
    uint32_t bits = attn_float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { /* NaN stays a (quiet) NaN */
        return (uint16_t)((bits >> 16) | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float attn_f16_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0x1f) { /* inf, NaN */
        return attn_bits_float(sign | 0x7f800000u | (mantissa << 13));
    }
    if (exponent == 0) { /* zero, subnormal: mantissa·2^-24 is exact in f32 */
        float value = (float)mantissa * 0x1p-24f;
        return attn_bits_float(sign | attn_float_bits(value));
    }
    return attn_bits_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

static inline uint16_t attn_float_to_f16(float value)
{
    uint32_t bits = attn_float_bits(value);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    }
    if (magnitude >= 0x477ff000u) { /* ≥ 65520 rounds to inf */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude < 0x38800000u) { /* below 2^-14: subnormal, in units of 2^-24 */
        uint32_t exponent = magnitude >> 23;
        if (exponent < 102) { /* below 2^-25 rounds to 0 */
            return sign;
        }
        uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        uint32_t shift = 126u - exponent;
        uint32_t half = mantissa >> shift;
        uint32_t rest = mantissa & ((1u << shift) - 1u);
        uint32_t middle = 1u << (shift - 1u);
        half += (rest > middle || (rest == middle && (half & 1u))) ? 1u : 0u;
        return (uint16_t)(sign | half);
    }
    uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | (rounded >> 13));
}

#endif
