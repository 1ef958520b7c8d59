/*
 * kernels/gemm/gemm_pack_avx512.c: rows of a matrix side by side, sixteen at a time.
 *
 * Transposing: four columns of rows j, 4 + j, 8 + j, 12 + j are loaded as the four lanes of one vector
 * (masked broadcasts leave the shuffle port alone); four such vectors, transposed within their lanes,
 * are four whole columns: 8 shuffles for 64 elements.
 */
#include <assert.h>
#include <immintrin.h>

#include "kernels/gemm/gemm.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 lanes(int count)
{
    unsigned mask = count >= 16 ? 0xffffu : (1u << count) - 1u;
    return (__mmask16)mask;
}

/* Rows j, 4 + j, 8 + j, 12 + j of those there are, four columns each. */
INLINE __m512 quarter(const float *x, int64_t ldx, int j, int rows)
{
    __m512 v = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (4 * i + j < rows) {
            v = _mm512_mask_broadcast_f32x4(v, (__mmask16)(0xfu << 4 * i),
                                            _mm_loadu_ps(x + (4 * i + j) * ldx));
        }
    }
    return v;
}

/* 1 … 16 contiguous rows to columns of `stored` lanes, `width` apart; lanes without a row are zeros. */
INLINE void transpose(const float *x, int64_t ldx, const int rows, int64_t k, int stored, int width,
                      float *out)
{
    const __mmask16 store = lanes(stored);
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) {
        __m512 a = quarter(x + i, ldx, 0, rows), b = quarter(x + i, ldx, 1, rows);
        __m512 c = quarter(x + i, ldx, 2, rows), d = quarter(x + i, ldx, 3, rows);
        __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
        __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
        __m512d ab2 = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
        __m512d cd2 = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
        float *to = out + i * width;
        _mm512_mask_storeu_ps(to, store, _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)));
        _mm512_mask_storeu_ps(to + width, store, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
        _mm512_mask_storeu_ps(to + 2 * width, store,
                              _mm512_castpd_ps(_mm512_unpacklo_pd(ab2, cd2)));
        _mm512_mask_storeu_ps(to + 3 * width, store,
                              _mm512_castpd_ps(_mm512_unpackhi_pd(ab2, cd2)));
    }
    for (; i < k; i++) {
        for (int r = 0; r < stored; r++) {
            out[i * width + r] = r < rows ? x[r * ldx + i] : 0.0f;
        }
    }
}

/* Contiguous columns, `stride` apart. */
INLINE void copy(const float *x, int64_t stride, int rows, int64_t k, int width, float *out)
{
    const __mmask16 load0 = lanes(rows), store0 = lanes(width);
    if (width <= 16) {
        for (int64_t i = 0; i < k; i++) {
            _mm512_mask_storeu_ps(out + i * width, store0,
                                  _mm512_maskz_loadu_ps(load0, x + i * stride));
        }
        return;
    }
    const __mmask16 load1 = lanes(rows > 16 ? rows - 16 : 0), store1 = lanes(width - 16);
    for (int64_t i = 0; i < k; i++) {
        __m512 low = _mm512_maskz_loadu_ps(load0, x + i * stride);
        __m512 high = _mm512_maskz_loadu_ps(load1, x + i * stride + 16);
        _mm512_mask_storeu_ps(out + i * width, store0, low);
        _mm512_mask_storeu_ps(out + i * width + 16, store1, high);
    }
}

void attn_gemm_pack_any_avx512(const float *x, int64_t row_stride, int64_t k_stride, int rows,
                               int64_t k, int width, float *out)
{
    assert(rows <= width && width <= 32);
    if (k_stride != 1 && row_stride == 1) {
        copy(x, k_stride, rows, k, width, out);
        return;
    }
    if (k_stride != 1) {
        attn_gemm_pack_any_c(x, row_stride, k_stride, rows, k, width, out);
        return;
    }
    for (int r = 0; r < width; r += 16) {
        int there = rows - r < 16 ? (rows > r ? rows - r : 0) : 16;
        int stored = width - r < 16 ? width - r : 16;
        const float *from = there > 0 ? x + r * row_stride : x;
        if (there == 16) {
            transpose(from, row_stride, 16, k, 16, width, out + r);
        } else if (there == 14 && stored == 14) {
            transpose(from, row_stride, 14, k, 14, width, out + r);
        } else {
            transpose(from, row_stride, there, k, stored, width, out + r);
        }
    }
}
