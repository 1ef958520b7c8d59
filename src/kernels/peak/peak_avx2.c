/**
 * peak_avx2.c: the ceilings of AVX2 with FMA.
 */
#include "kernels/peak/peak.h"

#include <immintrin.h>

enum { REGISTERS = 12, LANES = 8 };

static float fma_avx2(int64_t rounds)
{
    __m256 sum[REGISTERS];
    const __m256 factor = _mm256_set1_ps(0.999f), addend = _mm256_set1_ps(0.001f);
#pragma GCC unroll 16
    for (int i = 0; i < REGISTERS; i++) {
        sum[i] = _mm256_set1_ps((float)i);
    }
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < REGISTERS; i++) {
            sum[i] = _mm256_fmadd_ps(sum[i], factor, addend);
        }
    }
#pragma GCC unroll 16
    for (int i = 1; i < REGISTERS; i++) {
        sum[0] = _mm256_add_ps(sum[0], sum[i]);
    }
    float lanes[LANES];
    _mm256_storeu_ps(lanes, sum[0]);
    return lanes[0] + lanes[1];
}

static uint64_t read_avx2(const void *data, size_t bytes)
{
    const char *at = data;
    __m256i mixed[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        mixed[i] = _mm256_setzero_si256();
    }
    size_t step = sizeof mixed, offset = 0;
    for (; offset + step <= bytes; offset += step) {
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            const __m256i *line = (const __m256i *)(const void *)(at + offset) + i;
            mixed[i] = _mm256_or_si256(mixed[i], _mm256_loadu_si256(line));
        }
    }
#pragma GCC unroll 8
    for (int i = 1; i < 8; i++) {
        mixed[0] = _mm256_or_si256(mixed[0], mixed[i]);
    }
    uint64_t words[sizeof(__m256i) / 8];
    _mm256_storeu_si256((__m256i *)(void *)words, mixed[0]);
    return words[0] ^ attn_peak_c.read(at + offset, bytes - offset);
}

const attn_peak_kernels attn_peak_avx2 = {
    .fma = fma_avx2,
    .flops_per_round = (int64_t)2 * LANES * REGISTERS,
    .read = read_avx2,
};
