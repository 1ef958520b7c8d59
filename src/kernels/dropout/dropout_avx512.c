/*
 * kernels/dropout, AVX-512: sixteen query rows in the lanes, four columns from each counter. A
 * 32×32-bit product has no instruction of its own: even and odd lanes are multiplied apart.
 */
#include <immintrin.h>

#include "kernels/dropout/dropout.h"

enum { LANES = ATTN_DROPOUT_LANES, ROUNDS = 10 };

/* High and low halves of a·m in every lane. */
static inline void multiply(__m512i a, __m512i m, __m512i *high, __m512i *low)
{
    __m512i even = _mm512_mul_epu32(a, m);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);
    *high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
    *low = _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_CCAA);
}

static inline void philox(const uint32_t key[2 * ROUNDS], __m512i c[4])
{
    const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
    for (int round = 0; round < ROUNDS; round++) {
        __m512i high0, low0, high1, low1;
        multiply(c[0], m0, &high0, &low0);
        multiply(c[2], m1, &high1, &low1);
        __m512i k0 = _mm512_set1_epi32((int)key[2 * round]);
        __m512i k1 = _mm512_set1_epi32((int)key[2 * round + 1]);
        c[0] = _mm512_ternarylogic_epi32(high1, c[1], k0, 0x96);
        c[1] = low1;
        c[2] = _mm512_ternarylogic_epi32(high0, c[3], k1, 0x96);
        c[3] = low0;
    }
}

void attn_dropout_tile_avx512(const attn_dropout *d, int64_t column, int32_t keys, int32_t lanes,
                              const float *from, float *to)
{
    const __m512i threshold = _mm512_set1_epi32((int)d->threshold);
    const __m512 scale = _mm512_set1_ps(d->scale);
    uint32_t key[2 * ROUNDS];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        key[2 * round] = (uint32_t)d->seed + round * 0x9E3779B9u;
        key[2 * round + 1] = (uint32_t)(d->seed >> 32) + round * 0xBB67AE85u;
    }
    /* j: the column of word 0, which lies before the tile where that starts amid four */
    for (int32_t j = -(int32_t)(column % 4); j < keys; j += 4) {
        const __m512i block = _mm512_set1_epi32((int)(uint32_t)((column + j) / 4));
        for (int32_t r = 0; r < lanes; r += 16) {
            __m512i c[4] = {block, _mm512_load_si512(d->row + r), _mm512_load_si512(d->head + r),
                            _mm512_set1_epi32((int)d->batch)};
            philox(key, c);
            for (int32_t w = j < 0 ? -j : 0; w < 4 && j + w < keys; w++) {
                __mmask16 kept = _mm512_cmpge_epu32_mask(c[w], threshold);
                float *at = to + (j + w) * LANES + r;
                __m512 factor = _mm512_maskz_mov_ps(kept, scale);
                if (from) {
                    factor = _mm512_mul_ps(_mm512_load_ps(from + (j + w) * LANES + r), factor);
                }
                _mm512_store_ps(at, factor);
            }
        }
    }
}
