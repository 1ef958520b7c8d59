#include "linear_weights.h"

#include "draws.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

double half_value(const uint8_t *p)
{
    unsigned bits = (unsigned)(p[0] | p[1] << 8);
    unsigned exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double value =
        exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024.0 + mantissa, (int)exponent - 25);
    return bits >> 15 ? -value : value;
}

double weight_at(attn_weight_type type, const uint8_t *row, int64_t k)
{
    const uint8_t *block = row;
    int i = (int)(k % 32);
    float f;
    switch (type) {
    case ATTN_WEIGHT_F32: memcpy(&f, row + 4 * k, 4); return f;
    case ATTN_WEIGHT_F16: return half_value(row + 2 * k);
    case ATTN_WEIGHT_BF16: {
        uint32_t bits = (uint32_t)(row[2 * k] | row[2 * k + 1] << 8) << 16;
        memcpy(&f, &bits, 4);
        return f;
    }
    case ATTN_WEIGHT_Q8_0: block += k / 32 * 34; return half_value(block) * (int8_t)block[2 + i];
    case ATTN_WEIGHT_Q4_0:
        block += k / 32 * 18;
        return half_value(block) * ((i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4) - 8);
    case ATTN_WEIGHT_Q4_1:
        block += k / 32 * 20;
        return half_value(block) * (i < 16 ? block[4 + i] & 15 : block[4 + i - 16] >> 4) +
               half_value(block + 2);
    }
    return NAN;
}

/* A finite f16 of a size that weights have; now and then 0 or a subnormal. */
static void random_half(uint8_t *p)
{
    unsigned exponent = next() % 16 == 0 ? 0 : 6 + next() % 6;
    unsigned bits = (next() & 1023) | exponent << 10 | (next() & 1) << 15;
    bits = next() % 32 == 0 ? 0 : bits;
    p[0] = (uint8_t)bits;
    p[1] = (uint8_t)(bits >> 8);
}

uint8_t *random_weights(attn_weight_type type, int64_t rows, int64_t cols)
{
    size_t bytes = attn_weight_bytes(type, rows, cols);
    uint8_t *w = malloc(bytes);
    assert_non_null(w);
    for (size_t i = 0; i < bytes; i++) {
        w[i] = (uint8_t)next();
    }
    size_t block = type == ATTN_WEIGHT_Q8_0 ? 34 : type == ATTN_WEIGHT_Q4_0 ? 18 : 20;
    switch (type) {
    case ATTN_WEIGHT_F32:
        for (size_t i = 0; i < bytes; i += 4) {
            float value = (float)normal();
            memcpy(w + i, &value, 4);
        }
        break;
    case ATTN_WEIGHT_F16:
        for (size_t i = 0; i < bytes; i += 2) {
            random_half(w + i);
        }
        break;
    case ATTN_WEIGHT_BF16:
        for (size_t i = 0; i < bytes; i += 2) {
            float value = (float)normal();
            memcpy(w + i, (uint8_t *)&value + 2, 2);
        }
        break;
    default:
        for (size_t i = 0; i < bytes; i += block) {
            random_half(w + i);
            if (type == ATTN_WEIGHT_Q4_1) {
                random_half(w + i + 2);
            }
        }
    }
    return w;
}

const attn_weight_type linear_types[LINEAR_TYPES] = {ATTN_WEIGHT_F32,  ATTN_WEIGHT_F16,
                                                     ATTN_WEIGHT_BF16, ATTN_WEIGHT_Q8_0,
                                                     ATTN_WEIGHT_Q4_0, ATTN_WEIGHT_Q4_1};
