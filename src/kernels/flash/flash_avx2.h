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

/*
 * eˣ for x ≤ 0; NaN gives NaN, −inf and what would be subnormal give 0, 0 gives exactly 1. The
 * polynomial is that of flash_softmax_avx512.c; 2ⁿ is added to the exponent bits, so y is kept
 * where that is a number. NaN passes through the maximum (which returns its second operand) and the
 * polynomial; the integer made of it adds 0.
 */
static inline __attribute__((always_inline)) __m256 attn_flash_exp_avx2(__m256 x)
{
    const __m256 lowest = _mm256_set1_ps(-126.0f);
    __m256 y = _mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f));
    __m256 tiny = _mm256_cmp_ps(y, lowest, _CMP_LT_OQ);
    y = _mm256_max_ps(lowest, y);
    __m256 n = _mm256_round_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_sub_ps(y, n);
    __m256 p = _mm256_set1_ps(0x1.5bba14p-10f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.3cea88p-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.c6b752p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.ebf9bcp-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.62e42ap-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    return _mm256_andnot_ps(tiny, p);
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
