/**
 * kernels/common/philox_avx2.h: Philox4x32-10 (base/rng.h) in every lane. Include in *_avx2.c only.
 * A 32×32-bit product has no instruction of its own: even and odd lanes are multiplied apart.
 */
#ifndef ATTN_KERNELS_COMMON_PHILOX_AVX2_H
#define ATTN_KERNELS_COMMON_PHILOX_AVX2_H

#include <immintrin.h>

#include "kernels/common/philox_keys.h"

/* High and low halves of a·m in every lane. */
static inline void attn_philox_multiply_avx2(__m256i a, __m256i m, __m256i *high, __m256i *low)
{
    __m256i even = _mm256_mul_epu32(a, m);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
    *high = _mm256_blend_epi32(_mm256_shuffle_epi32(even, 0xF5), odd, 0xAA);
    *low = _mm256_blend_epi32(even, _mm256_shuffle_epi32(odd, 0xA0), 0xAA);
}

/* Ten rounds over the counters c, key as attn_philox_keys gives it. */
static inline void attn_philox_avx2(const uint32_t key[ATTN_PHILOX_KEYS], __m256i c[4])
{
    const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57);
    for (int round = 0; round < ATTN_PHILOX_KEYS / 2; round++) {
        __m256i high0, low0, high1, low1;
        attn_philox_multiply_avx2(c[0], m0, &high0, &low0);
        attn_philox_multiply_avx2(c[2], m1, &high1, &low1);
        __m256i k0 = _mm256_set1_epi32((int)key[2 * round]);
        __m256i k1 = _mm256_set1_epi32((int)key[2 * round + 1]);
        c[0] = _mm256_xor_si256(_mm256_xor_si256(high1, c[1]), k0);
        c[1] = low1;
        c[2] = _mm256_xor_si256(_mm256_xor_si256(high0, c[3]), k1);
        c[3] = low0;
    }
}

#endif
