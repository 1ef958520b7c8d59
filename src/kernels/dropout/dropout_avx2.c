/*
 * kernels/dropout, AVX2: eight query rows in the lanes, four columns from each counter.
 */
#include "kernels/common/philox_avx2.h"
#include "kernels/dropout/dropout.h"

enum { LANES = ATTN_DROPOUT_LANES };

void attn_dropout_tile_avx2(const attn_dropout_key *d, int64_t column, int32_t keys, int32_t lanes,
                            const float *from, float *to)
{
    const __m256i threshold = _mm256_set1_epi32((int)d->threshold);
    const __m256 scale = _mm256_set1_ps(d->scale);
    uint32_t key[ATTN_PHILOX_KEYS];
    attn_philox_keys(d->seed, key);
    lanes = (lanes + 15) / 16 * 16;
    /* j: the column of word 0, which lies before the tile where that starts amid four */
    for (int32_t j = -(int32_t)(column % 4); j < keys; j += 4) {
        const __m256i block = _mm256_set1_epi32((int)(uint32_t)((column + j) / 4));
        for (int32_t r = 0; r < lanes; r += 8) {
            __m256i c[4] = {block, _mm256_load_si256((const __m256i *)(const void *)(d->row + r)),
                            _mm256_load_si256((const __m256i *)(const void *)(d->head + r)),
                            _mm256_set1_epi32((int)d->batch)};
            attn_philox_avx2(key, c);
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
