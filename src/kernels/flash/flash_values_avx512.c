/*
 * kernels/flash for AVX-512: O = O·alpha + Pᵀ·V, and what happens to O afterwards.
 *
 * 6 query rows × 64 columns of V in registers; weights are broadcast, V is read in place. The
 * block's sum starts from 0 and O joins last: a sum over all keys in one chain would lose bits with
 * every block.
 */
#include "kernels/flash/flash_avx512.h"

#include <assert.h>

enum { ROWS = ATTN_FLASH_ROWS, MR = 6, NR = 4 };

/* mr rows × n vectors of columns, constants both; `last` masks the last vector's columns. */
static inline __attribute__((always_inline)) void values_tile(const float *s, const float *v,
                                                              int64_t stride, int32_t keys,
                                                              __mmask16 last, const float *alpha,
                                                              float *o, int64_t ldo, int mr, int n)
{
    __m512 sum[MR][NR];
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            sum[r][c] = _mm512_setzero_ps();
        }
    }
#pragma GCC unroll 2
    for (int32_t j = 0; j < keys; j++) {
        __m512 x[NR];
#pragma GCC unroll 4
        for (int c = 0; c < n - 1; c++) {
            x[c] = _mm512_loadu_ps(v + j * stride + c * 16);
        }
        x[n - 1] = _mm512_maskz_loadu_ps(last, v + j * stride + (n - 1) * 16);
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            __m512 p = _mm512_set1_ps(s[j * ROWS + r]);
#pragma GCC unroll 4
            for (int c = 0; c < n; c++) {
                sum[r][c] = _mm512_fmadd_ps(x[c], p, sum[r][c]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
        __m512 shrink = _mm512_set1_ps(alpha[r]);
#pragma GCC unroll 4
        for (int c = 0; c < n; c++) {
            float *at = o + r * ldo + c * 16;
            _mm512_store_ps(at, _mm512_fmadd_ps(_mm512_load_ps(at), shrink, sum[r][c]));
        }
    }
}

typedef void values_kernel(const float *s, const float *v, int64_t stride, int32_t keys,
                           __mmask16 last, const float *alpha, float *o, int64_t ldo);

#define VALUES_KERNEL(mr, n)                                                                    \
    static void values_##mr##x##n(const float *s, const float *v, int64_t stride, int32_t keys, \
                                  __mmask16 last, const float *alpha, float *o, int64_t ldo)    \
    {                                                                                           \
        values_tile(s, v, stride, keys, last, alpha, o, ldo, mr, n);                            \
    }
VALUES_KERNEL(6, 4)
VALUES_KERNEL(6, 3)
VALUES_KERNEL(6, 2)
VALUES_KERNEL(6, 1)
VALUES_KERNEL(4, 4)
VALUES_KERNEL(4, 3)
VALUES_KERNEL(4, 2)
VALUES_KERNEL(4, 1)

void attn_flash_values_avx512(const attn_flash_tile *tile, const float *s, const float *v,
                              int64_t stride, int64_t dim, const float *alpha, float *o,
                              int64_t ldo)
{
    static values_kernel *const kernels[2][NR] = {
        {values_4x1, values_4x2, values_4x3, values_4x4},
        {values_6x1, values_6x2, values_6x3, values_6x4},
    };
    assert(dim >= 1 && ldo >= dim && ldo % 16 == 0);
    for (int64_t d = 0; d < dim; d += NR * 16) {
        int64_t columns = dim - d < NR * 16 ? dim - d : NR * 16;
        int64_t n = (columns + 15) / 16;
        __mmask16 last = (__mmask16)((1u << (columns - (n - 1) * 16)) - 1u);
        for (int32_t r = 0; r < tile->rows;) {
            int32_t left = tile->rows - r; /* 64 rows are 10 times 6 and once 4 */
            int32_t mr = left > 4 ? MR : 4;
            int32_t stop = r + mr < ROWS ? r + mr : ROWS, begin, end;
            attn_flash_keys(tile, r, stop, &begin, &end);
            values_kernel *kernel = kernels[mr == MR][n - 1];
            kernel(s + begin * ROWS + r, v + begin * stride + d, stride, end - begin, last,
                   alpha + r, o + r * ldo + d, ldo);
            r += mr;
        }
    }
}

void attn_flash_fold_avx512(int32_t rows, int64_t ldo, const float *beta, float *o, float *total)
{
    for (int32_t r = 0; r < rows; r++) {
        __m512 shrink = _mm512_set1_ps(beta[r]);
        for (int64_t d = r * ldo; d < (r + 1) * ldo; d += 16) {
            __m512 sum = _mm512_fmadd_ps(_mm512_load_ps(total + d), shrink, _mm512_load_ps(o + d));
            _mm512_store_ps(total + d, sum);
            _mm512_store_ps(o + d, _mm512_setzero_ps());
        }
    }
}

bool attn_flash_finish_avx512(const float *o, float factor, int64_t dim, float *out)
{
    __m512 f = _mm512_set1_ps(factor);
    __mmask16 bad = 0;
    for (int64_t d = 0; d < dim; d += 16) {
        int64_t left = dim - d < 16 ? dim - d : 16;
        __mmask16 mask = (__mmask16)((1u << left) - 1u);
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, o + d), f);
        _mm512_mask_storeu_ps(out + d, mask, x);
        /* quiet and signalling NaN, ±inf */
        bad |= _mm512_mask_fpclass_ps_mask(mask, x, 0x01 | 0x80 | 0x08 | 0x10);
    }
    return bad == 0;
}
