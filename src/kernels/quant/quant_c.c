/* kernels/quant/quant_c.c: the readable reference. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernels/quant/quant.h"

/* One row of one block into its record: q at `q`, the three numbers at numbers[0], [rows], [2·rows]. */
static void quantise_block(const float *x, int8_t *q, uint8_t *numbers, int rows)
{
    /* As integers magnitudes order the same, with infinity and then NaN on top. */
    uint32_t largest = 0;
    for (int i = 0; i < ATTN_QUANT_BLOCK; i++) {
        uint32_t magnitude = attn_float_bits(x[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    float max = attn_bits_float(largest);
    float scale = 0.0f;
    float factor = 0.0f;
    if (largest >= 0x7f800000u) {
        scale = NAN;
    } else if (max >= ATTN_QUANT_TINY) {
        scale = max / 127.0f;
        factor = 127.0f / max;
    }
    int32_t sum = 0;
    for (int i = 0; i < ATTN_QUANT_BLOCK; i++) {
        int32_t value = factor > 0.0f ? (int32_t)lrintf(x[i] * factor) : 0;
        q[i] = (int8_t)value;
        sum += value;
    }
    float scaled = scale * (float)sum;
    int32_t shift = -128 * sum;
    memcpy(numbers, &scale, 4);
    memcpy(numbers + 4 * rows, &scaled, 4);
    memcpy(numbers + 8 * rows, &shift, 4);
}

void attn_quant_tile_c(const float *x, int64_t ldx, int rows, int64_t blocks, uint8_t *tile)
{
    assert(rows >= 1 && rows <= ATTN_QUANT_ROWS && blocks >= 1);
    for (int64_t b = 0; b < blocks; b++) {
        for (int r = 0; r < rows; r++) {
            quantise_block(x + r * ldx + b * ATTN_QUANT_BLOCK,
                           (int8_t *)tile + r * ATTN_QUANT_BLOCK,
                           tile + rows * ATTN_QUANT_BLOCK + 4 * r, rows);
        }
        tile += (size_t)rows * ATTN_QUANT_RECORD;
    }
}

static float read_half(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, 2);
    return attn_f16_to_float(bits);
}

static float read_float(const uint8_t *p)
{
    float value;
    memcpy(&value, p, 4);
    return value;
}

/* Σ q_w·q_x of one block and one output; w points at the output's 4 bytes of vector 0. */
static int32_t dot_q4(const uint8_t *w, const int8_t *x)
{
    int32_t sum = 0;
    for (int j = 0; j < 4; j++) {
        for (int i = 0; i < 4; i++) {
            uint8_t pair = w[j * 64 + i];
            sum += (pair & 15) * x[4 * j + i] + (pair >> 4) * x[16 + 4 * j + i];
        }
    }
    return sum;
}

static int32_t dot_q8(const uint8_t *w, const int8_t *x)
{
    int32_t sum = 0;
    for (int j = 0; j < 8; j++) {
        for (int i = 0; i < 4; i++) {
            sum += (w[j * 64 + i] - 128) * x[4 * j + i];
        }
    }
    return sum;
}

static void q4_panel(const attn_quant_job *job, const uint8_t *w, const float *bias, int rows,
                     int r, float *y)
{
    for (int lane = 0; lane < ATTN_QUANT_PANEL; lane++) {
        const uint8_t *x = job->x;
        float sum = bias[lane];
        for (int64_t b = 0; b < job->blocks; b++) {
            const uint8_t *block = w + b * ATTN_QUANT_Q4_BLOCK;
            const uint8_t *numbers = x + rows * ATTN_QUANT_BLOCK + 4 * r;
            int32_t dot = dot_q4(block + 4 * lane, (const int8_t *)x + r * ATTN_QUANT_BLOCK);
            float d = read_half(block + 256 + 2 * lane);
            float m = read_half(block + 288 + 2 * lane);
            sum += d * read_float(numbers) * (float)dot;
            sum += m * read_float(numbers + 4 * rows);
            x += rows * ATTN_QUANT_RECORD;
        }
        y[lane] = sum;
    }
}

static void q8_panel(const attn_quant_job *job, const uint8_t *w, const float *bias, int rows,
                     int r, float *y)
{
    for (int lane = 0; lane < ATTN_QUANT_PANEL; lane++) {
        const uint8_t *x = job->x;
        float sum = bias[lane];
        for (int64_t b = 0; b < job->blocks; b++) {
            int32_t dot = dot_q8(w + attn_quant_q8_vectors(b) + 4 * lane,
                                 (const int8_t *)x + r * ATTN_QUANT_BLOCK);
            float d = read_half(w + attn_quant_q8_scales(b) + 2 * lane);
            sum += d * read_float(x + rows * ATTN_QUANT_BLOCK + 4 * r) * (float)dot;
            x += rows * ATTN_QUANT_RECORD;
        }
        y[lane] = sum;
    }
}

void attn_quant_q4_c(const attn_quant_job *job, int rows, int panels)
{
    assert(rows >= 1 && rows <= ATTN_QUANT_ROWS && panels >= 1);
    for (int p = 0; p < panels; p++) {
        for (int r = 0; r < rows; r++) {
            q4_panel(job, job->w + (size_t)p * job->stream, job->bias + p * job->step, rows, r,
                     job->y + r * job->ldy + p * job->step);
        }
    }
}

void attn_quant_q8_c(const attn_quant_job *job, int rows, int panels)
{
    assert(rows >= 1 && rows <= ATTN_QUANT_ROWS && panels >= 1);
    for (int p = 0; p < panels; p++) {
        for (int r = 0; r < rows; r++) {
            q8_panel(job, job->w + (size_t)p * job->stream, job->bias + p * job->step, rows, r,
                     job->y + r * job->ldy + p * job->step);
        }
    }
}
