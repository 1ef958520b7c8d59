/*
 * kernels/dropout/dropout_span_avx2.c: eight counters make 32 words; lane 4q + j holds counter 2j + q, so that the words, interleaved four by
 * four, come out in the order of the elements.
 */
#include "kernels/dropout/dropout_span.h"

#include "kernels/common/philox_avx2.h"

enum { GROUP = 32 };

/* The words of elements 4·block … 4·block + 31; the low half of block does not wrap among them. */
static inline void words_of(const uint32_t key[ATTN_PHILOX_KEYS], int64_t block, __m256i words[4])
{
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    __m256i c[4] = {_mm256_add_epi32(_mm256_set1_epi32((int)(uint32_t)block), order),
                    _mm256_set1_epi32((int)(uint32_t)((uint64_t)block >> 32)),
                    _mm256_setzero_si256(), _mm256_setzero_si256()};
    attn_philox_avx2(key, c);
    __m256i low01 = _mm256_unpacklo_epi32(c[0], c[1]), high01 = _mm256_unpackhi_epi32(c[0], c[1]);
    __m256i low23 = _mm256_unpacklo_epi32(c[2], c[3]), high23 = _mm256_unpackhi_epi32(c[2], c[3]);
    words[0] = _mm256_unpacklo_epi64(low01, low23);
    words[1] = _mm256_unpackhi_epi64(low01, low23);
    words[2] = _mm256_unpacklo_epi64(high01, high23);
    words[3] = _mm256_unpackhi_epi64(high01, high23);
}

void attn_dropout_span_avx2(uint64_t seed, uint32_t threshold, float scale, int64_t at,
                            const float *x, int64_t n, float *y)
{
    const __m256i least = _mm256_set1_epi32((int)threshold);
    const __m256 factor = _mm256_set1_ps(scale);
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    uint32_t key[ATTN_PHILOX_KEYS];
    attn_philox_keys(seed, key);
    int64_t head = (4 - at % 4) % 4, k = head < n ? head : n;
    attn_dropout_span_c(seed, threshold, scale, at, x, k, y);
    for (; k < n; k += GROUP) {
        int64_t block = (at + k) / 4;
        if ((uint32_t)block > UINT32_MAX - GROUP / 4) {
            int64_t count = n - k < GROUP ? n - k : GROUP;
            attn_dropout_span_c(seed, threshold, scale, at + k, x + k, count, y + k);
            continue;
        }
        __m256i words[4];
        words_of(key, block, words);
        for (int64_t i = 0; i < 4 && k + 8 * i < n; i++) {
            int64_t from = k + 8 * i, left = n - from < 8 ? n - from : 8;
            __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)left), index);
            /* unsigned ≥ is max == */
            __m256i kept = _mm256_cmpeq_epi32(_mm256_max_epu32(words[i], least), words[i]);
            __m256 scaled = _mm256_mul_ps(_mm256_maskload_ps(x + from, lanes), factor);
            _mm256_maskstore_ps(y + from, lanes, _mm256_and_ps(_mm256_castsi256_ps(kept), scaled));
        }
    }
}
