/*
 * kernels/dropout, AVX2: eight query rows in the lanes, four columns from each counter. A
 * 32×32-bit product has no instruction of its own: even and odd lanes are multiplied apart.
 */
#include <immintrin.h>

#include "kernels/dropout/dropout.h"

enum { LANES = ATTN_DROPOUT_LANES, ROUNDS = 10 };

/* High and low halves of a·m in every lane. */
static inline void multiply(__m256i a, __m256i m, __m256i *high, __m256i *low)
{
    __m256i even = _mm256_mul_epu32(a, m);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
    *high = _mm256_blend_epi32(_mm256_shuffle_epi32(even, 0xF5), odd, 0xAA);
    *low = _mm256_blend_epi32(even, _mm256_shuffle_epi32(odd, 0xA0), 0xAA);
}

static inline void philox(const uint32_t key[2 * ROUNDS], __m256i c[4])
{
    const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57);
    for (int round = 0; round < ROUNDS; round++) {
        __m256i high0, low0, high1, low1;
        multiply(c[0], m0, &high0, &low0);
        multiply(c[2], m1, &high1, &low1);
        __m256i k0 = _mm256_set1_epi32((int)key[2 * round]);
        __m256i k1 = _mm256_set1_epi32((int)key[2 * round + 1]);
        c[0] = _mm256_xor_si256(_mm256_xor_si256(high1, c[1]), k0);
        c[1] = low1;
        c[2] = _mm256_xor_si256(_mm256_xor_si256(high0, c[3]), k1);
        c[3] = low0;
    }
}

void attn_dropout_tile_avx2(const attn_dropout *d, int64_t column, int32_t keys, int32_t lanes,
                            const float *from, float *to)
{
    const __m256i threshold = _mm256_set1_epi32((int)d->threshold);
    const __m256 scale = _mm256_set1_ps(d->scale);
    uint32_t key[2 * ROUNDS];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        key[2 * round] = (uint32_t)d->seed + round * 0x9E3779B9u;
        key[2 * round + 1] = (uint32_t)(d->seed >> 32) + round * 0xBB67AE85u;
    }
    lanes = (lanes + 15) / 16 * 16;
    /* j: the column of word 0, which lies before the tile where that starts amid four */
    for (int32_t j = -(int32_t)(column % 4); j < keys; j += 4) {
        const __m256i block = _mm256_set1_epi32((int)(uint32_t)((column + j) / 4));
        for (int32_t r = 0; r < lanes; r += 8) {
            __m256i c[4] = {block, _mm256_load_si256((const __m256i *)(const void *)(d->row + r)),
                            _mm256_load_si256((const __m256i *)(const void *)(d->head + r)),
                            _mm256_set1_epi32((int)d->batch)};
            philox(key, c);
            for (int32_t w = j < 0 ? -j : 0; w < 4 && j + w < keys; w++) {
                /* unsigned ≥ is max == */
                __m256i kept = _mm256_cmpeq_epi32(_mm256_max_epu32(c[w], threshold), c[w]);
                float *at = to + (j + w) * LANES + r;
                __m256 factor = _mm256_and_ps(_mm256_castsi256_ps(kept), scale);
                if (from) {
                    factor = _mm256_mul_ps(_mm256_load_ps(from + (j + w) * LANES + r), factor);
                }
                _mm256_store_ps(at, factor);
            }
        }
    }
}
