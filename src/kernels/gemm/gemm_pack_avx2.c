/*
 * kernels/gemm/gemm_pack_avx2.c: rows of a matrix side by side: transposed by shuffles where a row is
 * contiguous, copied where a column is.
 */
#include <assert.h>
#include <immintrin.h>
#include <string.h>

#include "kernels/gemm/gemm.h"

#define INLINE static inline __attribute__((always_inline))

/* Eight rows × eight columns, transposed: columns become runs of eight floats, `stride` apart. */
INLINE void transpose8(const float *x, int64_t ldx, float *out, int stride)
{
    __m256 a[8], b[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++) {
        a[r] = _mm256_loadu_ps(x + r * ldx);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 8; r += 2) {
        b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
        b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
    }
#pragma GCC unroll 2
    for (int r = 0; r < 8; r += 4) {
        a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44);
        a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xee);
        a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44);
        a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * stride, _mm256_permute2f128_ps(a[i], a[4 + i], 0x20));
        _mm256_storeu_ps(out + (4 + i) * stride, _mm256_permute2f128_ps(a[i], a[4 + i], 0x31));
    }
}

/* Four rows × four columns. */
INLINE void transpose4(const float *x, int64_t ldx, float *out, int stride)
{
    __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(x + ldx);
    __m128 c = _mm_loadu_ps(x + 2 * ldx), d = _mm_loadu_ps(x + 3 * ldx);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(out, a);
    _mm_storeu_ps(out + stride, b);
    _mm_storeu_ps(out + 2 * stride, c);
    _mm_storeu_ps(out + 3 * stride, d);
}

/* Contiguous rows, ldx apart, to columns that are `width` apart. */
INLINE void transpose(const float *x, int64_t ldx, int rows, int64_t k, int width, float *tile)
{
    int64_t whole = k / 8 * 8;
    int r = 0;
    for (; r + 8 <= rows; r += 8) {
        for (int64_t i = 0; i < whole; i += 8) {
            transpose8(x + r * ldx + i, ldx, tile + i * width + r, width);
        }
    }
    for (; r + 4 <= rows; r += 4) {
        for (int64_t i = 0; i < whole; i += 4) {
            transpose4(x + r * ldx + i, ldx, tile + i * width + r, width);
        }
    }
    for (int s = r; s < rows; s++) {
        for (int64_t i = 0; i < whole; i++) {
            tile[i * width + s] = x[s * ldx + i];
        }
    }
    for (int64_t i = whole; i < k; i++) {
        for (int s = 0; s < rows; s++) {
            tile[i * width + s] = x[s * ldx + i];
        }
    }
}

void attn_gemm_pack_avx2(const float *x, int64_t ldx, int rows, int64_t k, float *tile)
{
    transpose(x, ldx, rows, k, rows, tile);
}

/* Contiguous columns, `stride` apart. */
INLINE void copy(const float *x, int64_t stride, int rows, int64_t k, int width, float *out)
{
    for (int64_t i = 0; i < k; i++) {
        int r = 0;
        for (; r + 8 <= rows; r += 8) {
            _mm256_storeu_ps(out + r, _mm256_loadu_ps(x + r));
        }
        for (; r + 4 <= rows; r += 4) {
            _mm_storeu_ps(out + r, _mm_loadu_ps(x + r));
        }
        for (; r < rows; r++) {
            out[r] = x[r];
        }
        x += stride;
        out += width;
    }
}

void attn_gemm_pack_any_avx2(const float *x, int64_t row_stride, int64_t k_stride, int rows,
                             int64_t k, int width, float *out)
{
    assert(rows <= width);
    if (k_stride == 1) {
        transpose(x, row_stride, rows, k, width, out);
    } else if (row_stride == 1) {
        copy(x, k_stride, rows, k, width, out);
    } else {
        attn_gemm_pack_any_c(x, row_stride, k_stride, rows, k, width, out);
        return;
    }
    if (rows < width) {
        for (int64_t i = 0; i < k; i++) {
            memset(out + i * width + rows, 0, (size_t)(width - rows) * sizeof *out);
        }
    }
}
