/*
 * kernels/dropout/dropout_span_avx512.c: sixteen counters make 64 words. The counters' order in the lanes is such that the words, interleaved
 * four by four, come out in the order of the elements: lane 4q + j holds counter 4j + q.
 */
#include "kernels/dropout/dropout_span.h"

#include "kernels/common/philox_avx512.h"

enum { GROUP = 64 };

/* The words of elements 4·block … 4·block + 63; the low half of block does not wrap among them. */
static inline void words_of(const uint32_t key[ATTN_PHILOX_KEYS], int64_t block, __m512i words[4])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i c[4] = {_mm512_add_epi32(_mm512_set1_epi32((int)(uint32_t)block), order),
                    _mm512_set1_epi32((int)(uint32_t)((uint64_t)block >> 32)),
                    _mm512_setzero_si512(), _mm512_setzero_si512()};
    attn_philox_avx512(key, c);
    __m512i low01 = _mm512_unpacklo_epi32(c[0], c[1]), high01 = _mm512_unpackhi_epi32(c[0], c[1]);
    __m512i low23 = _mm512_unpacklo_epi32(c[2], c[3]), high23 = _mm512_unpackhi_epi32(c[2], c[3]);
    words[0] = _mm512_unpacklo_epi64(low01, low23);
    words[1] = _mm512_unpackhi_epi64(low01, low23);
    words[2] = _mm512_unpacklo_epi64(high01, high23);
    words[3] = _mm512_unpackhi_epi64(high01, high23);
}

void attn_dropout_span_avx512(uint64_t seed, uint32_t threshold, float scale, int64_t at,
                              const float *x, int64_t n, float *y)
{
    const __m512i least = _mm512_set1_epi32((int)threshold);
    const __m512 factor = _mm512_set1_ps(scale);
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
        __m512i words[4];
        words_of(key, block, words);
        for (int64_t i = 0; i < 4 && k + 16 * i < n; i++) {
            int64_t from = k + 16 * i, left = n - from;
            __mmask16 lanes = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1u);
            __mmask16 kept = _mm512_mask_cmpge_epu32_mask(lanes, words[i], least);
            __m512 scaled =
                _mm512_maskz_mul_ps(kept, _mm512_maskz_loadu_ps(lanes, x + from), factor);
            _mm512_mask_storeu_ps(y + from, lanes, scaled);
        }
    }
}
