/**
 * peak_avx512.c: the ceilings of AVX-512.
 */
#include "kernels/peak/peak.h"

#include <immintrin.h>

enum { REGISTERS = 16, LANES = 16 };

static float fma_avx512(int64_t rounds)
{
    __m512 sum[REGISTERS];
    const __m512 factor = _mm512_set1_ps(0.999f), addend = _mm512_set1_ps(0.001f);
#pragma GCC unroll 16
    for (int i = 0; i < REGISTERS; i++) {
        sum[i] = _mm512_set1_ps((float)i);
    }
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < REGISTERS; i++) {
            sum[i] = _mm512_fmadd_ps(sum[i], factor, addend);
        }
    }
#pragma GCC unroll 16
    for (int i = 1; i < REGISTERS; i++) {
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    }
    float lanes[LANES];
    _mm512_storeu_ps(lanes, sum[0]);
    return lanes[0] + lanes[1];
}

static uint64_t read_avx512(const void *data, size_t bytes)
{
    const char *at = data;
    __m512i mixed[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        mixed[i] = _mm512_setzero_si512();
    }
    size_t step = sizeof mixed, offset = 0;
    for (; offset + step <= bytes; offset += step) {
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            const __m512i *line = (const __m512i *)(const void *)(at + offset) + i;
            mixed[i] = _mm512_or_si512(mixed[i], _mm512_loadu_si512(line));
        }
    }
#pragma GCC unroll 8
    for (int i = 1; i < 8; i++) {
        mixed[0] = _mm512_or_si512(mixed[0], mixed[i]);
    }
    uint64_t words[sizeof(__m512i) / 8];
    _mm512_storeu_si512((__m512i *)(void *)words, mixed[0]);
    return words[0] ^ attn_peak_c.read(at + offset, bytes - offset);
}

const attn_peak_kernels attn_peak_avx512 = {
    .fma = fma_avx512,
    .flops_per_round = (int64_t)2 * LANES * REGISTERS,
    .read = read_avx512,
};
