/**
 * kernels/common/philox_avx512.h: Philox4x32-10 (base/rng.h) in every lane. Include in *_avx512.c only.
 * A 32×32-bit product has no instruction of its own: even and odd lanes are multiplied apart.
 */
#ifndef ATTN_KERNELS_COMMON_PHILOX_AVX512_H
#define ATTN_KERNELS_COMMON_PHILOX_AVX512_H

#include <immintrin.h>

#include "kernels/common/philox_keys.h"

/* High and low halves of a·m in every lane. */
static inline void attn_philox_multiply_avx512(__m512i a, __m512i m, __m512i *high, __m512i *low)
{
    __m512i even = _mm512_mul_epu32(a, m);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);
    *high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
    *low = _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_CCAA);
}

/* Ten rounds over the counters c, key as attn_philox_keys gives it. */
static inline void attn_philox_avx512(const uint32_t key[ATTN_PHILOX_KEYS], __m512i c[4])
{
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    for (int round = 0; round < ATTN_PHILOX_KEYS / 2; round++) {
        __m512i high0, low0, high1, low1;
        attn_philox_multiply_avx512(c[0], m0, &high0, &low0);
        attn_philox_multiply_avx512(c[2], m1, &high1, &low1);
        __m512i k0 = _mm512_set1_epi32((int)key[2 * round]);
        __m512i k1 = _mm512_set1_epi32((int)key[2 * round + 1]);
        c[0] = _mm512_ternarylogic_epi32(high1, c[1], k0, 0x96);
        c[1] = low1;
        c[2] = _mm512_ternarylogic_epi32(high0, c[3], k1, 0x96);
        c[3] = low0;
    }
}

#endif
