/*
 * kernels/dropout, AVX-512: sixteen query rows in the lanes, four columns from each counter.
 */
#include "kernels/common/philox_avx512.h"
#include "kernels/dropout/dropout.h"

enum { LANES = ATTN_DROPOUT_LANES };

void attn_dropout_tile_avx512(const attn_dropout_key *d, int64_t column, int32_t keys,
                              int32_t lanes, const float *from, float *to)
{
    const __m512i threshold = _mm512_set1_epi32((int)d->threshold);
    const __m512 scale = _mm512_set1_ps(d->scale);
    uint32_t key[ATTN_PHILOX_KEYS];
    attn_philox_keys(d->seed, key);
    /* j: the column of word 0, which lies before the tile where that starts amid four */
    for (int32_t j = -(int32_t)(column % 4); j < keys; j += 4) {
        const __m512i block = _mm512_set1_epi32((int)(uint32_t)((column + j) / 4));
        for (int32_t r = 0; r < lanes; r += 16) {
            __m512i c[4] = {block, _mm512_load_si512(d->row + r), _mm512_load_si512(d->head + r),
                            _mm512_set1_epi32((int)d->batch)};
            attn_philox_avx512(key, c);
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
