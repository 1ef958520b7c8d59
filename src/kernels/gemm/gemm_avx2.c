/*
 * kernels/gemm/gemm_avx2.c: 6 rows × 16 outputs: 12 sums, two vectors of W and one broadcast of the 16
 * registers.
 */
#include <assert.h>
#include <immintrin.h>
#include <stddef.h>

#include "kernels/gemm/gemm.h"

#define INLINE static inline __attribute__((always_inline))

enum { NR = 16 };

INLINE void tile(const attn_gemm_job *job, const int rows)
{
    const float *x = job->x, *w = job->w;
    __m256 acc[6][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        acc[r][0] = _mm256_loadu_ps(job->init + r * job->ld_init);
        acc[r][1] = _mm256_loadu_ps(job->init + r * job->ld_init + 8);
    }
    for (int64_t k = job->k; k > 0; k--) {
        __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256 a = _mm256_broadcast_ss(x + r);
            acc[r][0] = _mm256_fmadd_ps(a, w0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(a, w1, acc[r][1]);
        }
        x += rows;
        w += NR;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm256_storeu_ps(job->y + r * job->ldy, acc[r][0]);
        _mm256_storeu_ps(job->y + r * job->ldy + 8, acc[r][1]);
    }
}

#define TILE(rows)                                                              \
    static __attribute__((noinline)) void tile_##rows(const attn_gemm_job *job) \
    {                                                                           \
        tile(job, rows);                                                        \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

void attn_gemm_f32_6x16_avx2(const attn_gemm_job *job, int rows)
{
    static void (*const tiles[])(const attn_gemm_job *) = {
        NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6,
    };
    assert(rows >= 1 && rows <= 6);
    tiles[rows](job);
}

/* How far ahead of a stream to ask for lines: the hardware's prefetcher stops at 4 KiB pages. */
enum { AHEAD = 2048 };

INLINE void few(const attn_gemm_job *job, const int rows, const int panels)
{
    const float *x = job->x, *w = job->w;
    const int64_t stream = job->stream, ldx = job->ldx;
    __m256 acc[8];
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels * 2; i++) {
        acc[i] = _mm256_loadu_ps(job->init + i / 2 % rows * job->ld_init +
                                 i / 2 / rows * job->step + i % 2 * 8);
    }
    for (int64_t k = 0; k < job->k; k++) {
#pragma GCC unroll 4
        for (int p = 0; p < panels; p++) {
            const float *panel = w + p * stream;
            _mm_prefetch((const char *)panel + AHEAD, _MM_HINT_T0);
            __m256 w0 = _mm256_load_ps(panel), w1 = _mm256_load_ps(panel + 8);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                __m256 a = _mm256_broadcast_ss(x + r * ldx + k);
                __m256 *sum = &acc[(p * rows + r) * 2];
                sum[0] = _mm256_fmadd_ps(a, w0, sum[0]);
                sum[1] = _mm256_fmadd_ps(a, w1, sum[1]);
            }
        }
        w += NR;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels * 2; i++) {
        _mm256_storeu_ps(job->y + i / 2 % rows * job->ldy + i / 2 / rows * job->step + i % 2 * 8,
                         acc[i]);
    }
}

#define FEW(rows, panels)                                                                 \
    static __attribute__((noinline)) void few_##rows##_##panels(const attn_gemm_job *job) \
    {                                                                                     \
        few(job, rows, panels);                                                           \
    }
FEW(1, 1)
FEW(1, 2)
FEW(1, 4)
FEW(2, 1)
FEW(2, 2)
FEW(3, 1)
FEW(4, 1)

void attn_gemm_f32_few_avx2(const attn_gemm_job *job, int rows, int panels)
{
    static void (*const tiles[ATTN_GEMM_FEW + 1][3])(const attn_gemm_job *) = {
        {NULL}, {few_1_1, few_1_2, few_1_4}, {few_2_1, few_2_2}, {few_3_1}, {few_4_1},
    };
    attn_gemm_job part = *job;
    assert(rows >= 1 && rows <= ATTN_GEMM_FEW && panels >= 1);
    while (panels > 0) {
        int log = 2;
        while ((1 << log) > panels || !tiles[rows][log]) {
            log--;
        }
        tiles[rows][log](&part);
        part.w += part.stream << log;
        part.y += part.step << log;
        part.init += part.step << log;
        panels -= 1 << log;
    }
}
