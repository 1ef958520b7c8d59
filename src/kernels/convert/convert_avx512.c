/* kernels/convert for AVX-512: sixteen elements at a time, the last ones under a mask. */
#include "kernels/convert/convert.h"

#include <assert.h>
#include <immintrin.h>

/* Lanes of elements i … count−1, at most 16. */
static inline __mmask16 lanes(int64_t i, int64_t count)
{
    int64_t left = count - i;
    return (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1u);
}

static void bf16_to_f32(const uint16_t *src, float *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 mask = lanes(i, count);
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, src + i));
        _mm512_mask_storeu_epi32(dst + i, mask, _mm512_slli_epi32(wide, 16));
    }
}

static void f16_to_f32(const uint16_t *src, float *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i += 16) { /* vcvtph2ps does not look at DAZ */
        __mmask16 mask = lanes(i, count);
        __m512 wide = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, src + i));
        _mm512_mask_storeu_ps(dst + i, mask, wide);
    }
}

/* Integer rounding: vcvtneps2bf16 would flush subnormals, and is not in this level. */
static void f32_to_bf16(const float *src, uint16_t *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 mask = lanes(i, count);
        __m512 value = _mm512_maskz_loadu_ps(mask, src + i);
        __m512i bits = _mm512_castps_si512(value);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        sum = _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x400000));
        __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(sum, 16));
        _mm256_mask_storeu_epi16(dst + i, mask, half);
    }
}

static void f32_to_f16(const float *src, uint16_t *dst, int64_t count)
{
    assert(count >= 0);
    for (int64_t i = 0; i < count; i += 16) { /* FTZ does not touch vcvtps2ph */
        __mmask16 mask = lanes(i, count);
        __m512 value = _mm512_maskz_loadu_ps(mask, src + i);
        __m256i half = _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(dst + i, mask, half);
    }
}

const attn_convert_kernels attn_convert_avx512 = {bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
