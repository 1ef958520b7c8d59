/* kernels/decode for AVX-512: eight query rows at a time. The text is decode_lanes.h. */
#include "kernels/decode/decode.h"

#include "kernels/common/lanes_avx512.h"

#define INLINE static inline __attribute__((always_inline))

#define EACH_ROWS(X, ...) \
    X(__VA_ARGS__, 1)     \
    X(__VA_ARGS__, 2)     \
    X(__VA_ARGS__, 3)     \
    X(__VA_ARGS__, 4)     \
    X(__VA_ARGS__, 5)     \
    X(__VA_ARGS__, 6)     \
    X(__VA_ARGS__, 7)     \
    X(__VA_ARGS__, 8)

enum { GROUP = 8 };

/* Which of a vector's lanes a row has. */
typedef __mmask16 share;
#define WHOLE     ((share)0xffff)
#define REST(dim) lanes_first((dim) % LANES)

/* Elements 16·i … 16·i+15 of a row, those outside `mask` zero and not read. */
INLINE lanes load(int type, const char *row, int64_t i, share mask)
{
    if (type == ATTN_DECODE_F32) {
        return _mm512_maskz_loadu_ps(mask, row + 64 * i);
    }
    __m256i half = _mm256_maskz_loadu_epi16(mask, row + 32 * i);
    if (type == ATTN_DECODE_F16) {
        return _mm512_cvtph_ps(half);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Lane i: the sum of x[i]'s lanes. */
INLINE lanes reduce(const lanes *x)
{
    __m512 two[8], four[4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        two[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]),
                               _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512d even = _mm512_castps_pd(two[2 * i]), odd = _mm512_castps_pd(two[2 * i + 1]);
        four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(even, odd)),
                                _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd)));
    }
    __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x88),
                               _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
    __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x88),
                                _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88),
                         _mm512_shuffle_f32x4(low, high, 0xdd));
}

INLINE int width_of(int rows)
{
    return rows <= 3 ? 8 : rows == 4 ? 4 : 2;
}

#include "kernels/decode/decode_lanes.h"

const attn_decode_kernels attn_decode_avx512 = {
    .name = {"decode_f32_avx512", "decode_bf16_avx512", "decode_f16_avx512"},
    .scores = {scores_f32, scores_bf16, scores_f16},
    .values = {values_f32, values_bf16, values_f16},
    .softmax = softmax,
};
