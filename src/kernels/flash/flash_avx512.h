/**
 * kernels/flash/flash_avx512.h: what the AVX-512 files of this family share. Contracts are in
 * flash.h.
 */
#ifndef ATTN_KERNELS_FLASH_FLASH_AVX512_H
#define ATTN_KERNELS_FLASH_FLASH_AVX512_H

#include "kernels/flash/flash.h"

#include <immintrin.h>

void attn_flash_modify_avx512(const attn_flash_tile *tile, float cap, const float *addend,
                              int64_t ld, float *s, float *maximum);
void attn_flash_argmax_avx512(const attn_flash_tile *tile, const float *s, const float *maximum,
                              int32_t *key);
void attn_flash_softmax_avx512(const attn_flash_tile *tile, const float *maximum, float *s,
                               float *m, float *l, float *alpha);
void attn_flash_values_avx512(const attn_flash_tile *tile, const float *s, const float *v,
                              int64_t stride, int64_t dim, const float *alpha, float *o,
                              int64_t ldo);
void attn_flash_fold_avx512(int32_t rows, int64_t ldo, const float *beta, float *o, float *total);
bool attn_flash_finish_avx512(const float *o, float factor, int64_t dim, float *out);

/*
 * eˣ for x ≤ 0; NaN gives NaN, −inf and what would be subnormal give 0, 0 gives exactly 1. y =
 * x·log₂e splits into an integer and r in [−½, ½] (vreduceps); 2^r is a minimax polynomial of
 * degree 5 with a constant term of 1 (1.1e-7 relative with its coefficients in f32); vscalefps puts
 * the two together. The maximum is subtracted before the multiplication, so scores near ±FLT_MAX do
 * not overflow.
 */
static inline __attribute__((always_inline)) __m512 attn_flash_exp_avx512(__m512 x)
{
    __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f));
    __m512 r = _mm512_reduce_ps(y, 0);
    __m512 p = _mm512_set1_ps(0x1.5bba14p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3cea88p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6b752p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebf9bcp-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e42ap-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, _mm512_sub_ps(y, r));
}

/* r[i] lane j ↔ r[j] lane i. Shuffles within 128 bits, then of 128-bit quarters. */
static inline __attribute__((always_inline)) void attn_flash_transpose_avx512(__m512 r[16])
{
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) { /* pairs of rows */
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* fours of rows: column 4·quarter + n in r[4i + n] */
        __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
        __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) { /* quarters 0, 2 and 1, 3 of the upper and lower eight rows */
        t[n] = _mm512_shuffle_f32x4(r[n], r[4 + n], 0x88);
        t[4 + n] = _mm512_shuffle_f32x4(r[n], r[4 + n], 0xdd);
        t[8 + n] = _mm512_shuffle_f32x4(r[8 + n], r[12 + n], 0x88);
        t[12 + n] = _mm512_shuffle_f32x4(r[8 + n], r[12 + n], 0xdd);
    }
#pragma GCC unroll 8
    for (int n = 0; n < 8; n++) {
        r[n] = _mm512_shuffle_f32x4(t[n], t[8 + n], 0x88);
        r[8 + n] = _mm512_shuffle_f32x4(t[n], t[8 + n], 0xdd);
    }
}

#endif
