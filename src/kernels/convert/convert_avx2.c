/* kernels/convert for AVX2 with F16C: eight elements at a time, the rest as in C. */
#include "kernels/convert/convert.h"

#include <assert.h>
#include <immintrin.h>

#include "base/half.h"

static void bf16_to_f32(const uint16_t *src, float *dst, int64_t count)
{
    assert(count >= 0);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(src + i)));
        _mm256_storeu_ps(dst + i, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
    }
    for (; i < count; i++) {
        dst[i] = attn_bf16_to_float(src[i]);
    }
}

static void f16_to_f32(const uint16_t *src, float *dst, int64_t count)
{
    assert(count >= 0);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) { /* vcvtph2ps does not look at DAZ */
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + i))));
    }
    for (; i < count; i++) {
        dst[i] = attn_f16_to_float(src[i]);
    }
}

/* bf16 in the lower halves of 32-bit lanes: half an ulp minus one and the kept bit added, then cut. */
static inline __m256i round_bf16(__m256 value)
{
    __m256i bits = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(sum, quiet, nan), 16);
}

static void f32_to_bf16(const float *src, uint16_t *dst, int64_t count)
{
    assert(count >= 0);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i wide = round_bf16(_mm256_loadu_ps(src + i));
        __m128i narrow =
            _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
        _mm_storeu_si128((__m128i *)(dst + i), narrow);
    }
    for (; i < count; i++) {
        dst[i] = attn_float_to_bf16(src[i]);
    }
}

static void f32_to_f16(const float *src, uint16_t *dst, int64_t count)
{
    assert(count >= 0);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) { /* rounding from the instruction, and FTZ does not touch it */
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(dst + i), half);
    }
    for (; i < count; i++) {
        dst[i] = attn_float_to_f16(src[i]);
    }
}

const attn_convert_kernels attn_convert_avx2 = {bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
