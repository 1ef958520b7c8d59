/* kernels/quant/quant_pack.c: GGUF rows of blocks into panels (once, at load; plain C is fast enough). */
#include <assert.h>
#include <string.h>

#include "base/half.h"
#include "kernels/quant/quant.h"

enum { Q4_0_BYTES = 18, Q4_1_BYTES = 20, Q8_0_BYTES = 34 };

static uint16_t read_bits(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, 2);
    return bits;
}

/* The nibbles of a GGUF block are already paired (i, i + 16): only rows are interleaved. */
static void q4_nibbles(const uint8_t *source, uint8_t *block, int row)
{
    for (int j = 0; j < 4; j++) {
        memcpy(block + j * 64 + 4 * row, source + 4 * j, 4);
    }
}

void attn_quant_pack_q4_1(const uint8_t *const *rows, int count, int64_t blocks, uint8_t *panel)
{
    assert(count >= 1 && count <= ATTN_QUANT_PANEL);
    if (count < ATTN_QUANT_PANEL) {
        memset(panel, 0, attn_quant_q4_panel_bytes(blocks));
    }
    for (int64_t b = 0; b < blocks; b++) {
        uint8_t *block = panel + b * ATTN_QUANT_Q4_BLOCK;
        for (int r = 0; r < count; r++) {
            const uint8_t *source = rows[r] + b * Q4_1_BYTES;
            q4_nibbles(source + 4, block, r);
            memcpy(block + 256 + 2 * r, source, 2);
            memcpy(block + 288 + 2 * r, source + 2, 2);
        }
    }
}

/* −8·d as f16 bits; exact where attn_quant_q4_0_fits. */
static uint16_t minus_eight(uint16_t d)
{
    return attn_float_to_f16(-8.0f * attn_f16_to_float(d));
}

bool attn_quant_q4_0_fits(const uint8_t *row, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++) {
        /* −8·d overflows f16 from an exponent of 2^13 on; below, a shift of the exponent is exact. An
           infinite or NaN d gives outputs that are no numbers either way. */
        unsigned exponent = (read_bits(row + b * Q4_0_BYTES) >> 10) & 0x1fu;
        if (exponent >= 28 && exponent != 31) {
            return false;
        }
    }
    return true;
}

void attn_quant_pack_q4_0(const uint8_t *const *rows, int count, int64_t blocks, uint8_t *panel)
{
    assert(count >= 1 && count <= ATTN_QUANT_PANEL);
    if (count < ATTN_QUANT_PANEL) {
        memset(panel, 0, attn_quant_q4_panel_bytes(blocks));
    }
    for (int64_t b = 0; b < blocks; b++) {
        uint8_t *block = panel + b * ATTN_QUANT_Q4_BLOCK;
        for (int r = 0; r < count; r++) {
            const uint8_t *source = rows[r] + b * Q4_0_BYTES;
            uint16_t m = minus_eight(read_bits(source));
            q4_nibbles(source + 2, block, r);
            memcpy(block + 256 + 2 * r, source, 2);
            memcpy(block + 288 + 2 * r, &m, 2);
        }
    }
}

/* Zero panels of Q8: q = 0 is stored as 128, in the partner of an odd last block too. */
static void q8_clear(uint8_t *panel, int64_t blocks)
{
    for (int64_t b = 0; b < blocks + (blocks & 1); b++) {
        memset(panel + attn_quant_q8_vectors(b), 128, 512);
        memset(panel + attn_quant_q8_scales(b), 0, 32);
    }
}

void attn_quant_pack_q4_0_as_q8(const uint8_t *const *rows, int count, int64_t blocks,
                                uint8_t *panel)
{
    assert(count >= 1 && count <= ATTN_QUANT_PANEL);
    q8_clear(panel, blocks);
    for (int64_t b = 0; b < blocks; b++) {
        uint8_t *vectors = panel + attn_quant_q8_vectors(b);
        for (int r = 0; r < count; r++) {
            const uint8_t *source = rows[r] + b * Q4_0_BYTES;
            for (int i = 0; i < 16; i++) {
                uint8_t *low = vectors + (i / 4) * 64 + 4 * r + i % 4;
                low[0] = (uint8_t)(128 - 8 + (source[2 + i] & 15));
                low[4 * 64] = (uint8_t)(128 - 8 + (source[2 + i] >> 4));
            }
            memcpy(panel + attn_quant_q8_scales(b) + 2 * r, source, 2);
        }
    }
}

void attn_quant_pack_q8_0(const uint8_t *const *rows, int count, int64_t blocks, uint8_t *panel)
{
    assert(count >= 1 && count <= ATTN_QUANT_PANEL);
    q8_clear(panel, blocks);
    for (int64_t b = 0; b < blocks; b++) {
        uint8_t *vectors = panel + attn_quant_q8_vectors(b);
        for (int r = 0; r < count; r++) {
            const uint8_t *source = rows[r] + b * Q8_0_BYTES;
            for (int j = 0; j < 8; j++) {
                uint32_t four;
                memcpy(&four, source + 2 + 4 * j, 4);
                four ^= 0x80808080u;
                memcpy(vectors + j * 64 + 4 * r, &four, 4);
            }
            memcpy(panel + attn_quant_q8_scales(b) + 2 * r, source, 2);
        }
    }
}
