/**
 * peak_c.c: the portable ceiling.
 */
#include "kernels/peak/peak.h"

#include <string.h>

enum { LANES = 32 };

static float fma_c(int64_t rounds)
{
    float sum[LANES];
    for (int i = 0; i < LANES; i++) {
        sum[i] = (float)i;
    }
    for (int64_t round = 0; round < rounds; round++) {
        for (int i = 0; i < LANES; i++) {
            sum[i] = sum[i] * 0.999f + 0.001f;
        }
    }
    float total = 0;
    for (int i = 0; i < LANES; i++) {
        total += sum[i];
    }
    return total;
}

static uint64_t read_c(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t mixed[8] = {0};
    size_t i = 0;
    for (; i + sizeof mixed <= bytes; i += sizeof mixed) {
        uint64_t words[8];
        memcpy(words, at + i, sizeof words);
        for (int w = 0; w < 8; w++) {
            mixed[w] ^= words[w];
        }
    }
    for (; i < bytes; i++) {
        mixed[0] ^= at[i];
    }
    for (int w = 1; w < 8; w++) {
        mixed[0] ^= mixed[w];
    }
    return mixed[0];
}

const attn_peak_kernels attn_peak_c = {
    .fma = fma_c,
    .flops_per_round = 2 * LANES,
    .read = read_c,
};
