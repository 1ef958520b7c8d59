/**
 * kernels/flash/flash_avx2.h: what the AVX2 files of this family share. Contracts are in flash.h.
 */
#ifndef ATTN_KERNELS_FLASH_FLASH_AVX2_H
#define ATTN_KERNELS_FLASH_FLASH_AVX2_H

#include "kernels/flash/flash.h"

#include <immintrin.h>

void attn_flash_modify_avx2(const attn_flash_tile *tile, float cap, const float *addend, int64_t ld,
                            float *s, float *maximum);
void attn_flash_argmax_avx2(const attn_flash_tile *tile, const float *s, const float *maximum,
                            int32_t *key);
void attn_flash_softmax_avx2(const attn_flash_tile *tile, const float *maximum, float *s, float *m,
                             float *l, float *alpha);

/* The first n of 8 lanes, n in 0 … 8, as a mask for maskload and maskstore. */
static inline __m256i attn_flash_first_avx2(int64_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)n), lane);
}

/* r[i] lane j ↔ r[j] lane i. */
static inline __attribute__((always_inline)) void attn_flash_transpose_avx2(__m256 r[8])
{
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) {
        __m256 low = _mm256_permute2f128_ps(r[n], r[4 + n], 0x20);
        __m256 high = _mm256_permute2f128_ps(r[n], r[4 + n], 0x31);
        r[n] = low;
        r[4 + n] = high;
    }
}

#endif
