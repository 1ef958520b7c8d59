/* kernels/decode for AVX2 with FMA and F16C: four query rows at a time fill its sixteen registers. The text is decode_lanes.h. */
#include "kernels/decode/decode.h"

#include <string.h>

#include "kernels/common/lanes_avx2.h"

#define INLINE static inline __attribute__((always_inline))

#define EACH_ROWS(X, ...) \
    X(__VA_ARGS__, 1)     \
    X(__VA_ARGS__, 2)     \
    X(__VA_ARGS__, 3)     \
    X(__VA_ARGS__, 4)

enum { GROUP = 4 };

/* How many of a vector's lanes a row has. */
typedef int64_t share;
#define WHOLE     LANES
#define REST(dim) ((dim) % LANES)

/* Elements 8·i … 8·i+left−1 of a row (left ≤ WHOLE), zeros after them; nothing else is read. */
INLINE lanes load(int type, const char *row, int64_t i, share left)
{
    if (type == ATTN_DECODE_F32) {
        const float *at = (const float *)(const void *)row + 8 * i;
        if (left == WHOLE) {
            return _mm256_loadu_ps(at);
        }
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_maskload_ps(at, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)left), lane));
    }
    __m128i half;
    if (left == WHOLE) {
        half = _mm_loadu_si128((const __m128i *)(const void *)(row + 16 * i));
    } else {
        uint16_t part[WHOLE] = {0};
        memcpy(part, row + 16 * i, (size_t)left * sizeof *part);
        half = _mm_loadu_si128((const __m128i *)part);
    }
    if (type == ATTN_DECODE_F16) {
        return _mm256_cvtph_ps(half);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* Lane i: the sum of x[i]'s lanes. */
INLINE lanes reduce(const lanes *x)
{
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                         _mm256_permute2f128_ps(low, high, 0x31));
}

INLINE int width_of(int rows)
{
    return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

#include "kernels/decode/decode_lanes.h"

const attn_decode_kernels attn_decode_avx2 = {
    .name = {"decode_f32_avx2", "decode_bf16_avx2", "decode_f16_avx2"},
    .scores = {scores_f32, scores_bf16, scores_f16},
    .values = {values_f32, values_bf16, values_f16},
    .softmax = softmax,
};
