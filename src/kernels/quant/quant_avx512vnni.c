/*
 * kernels/quant/quant_avx512vnni.c: vpdpbusd with a lane per output. The 32 bytes of a row's block are eight
 * broadcasts, memory operands of the multiply itself.
 */
#include <assert.h>
#include <immintrin.h>
#include <string.h>

#include "kernels/quant/quant.h"

/* Unrolled bodies that check every index again take clang many minutes under -fsanitize=undefined. */
#define PLAIN  __attribute__((no_sanitize("undefined")))
#define INLINE static inline PLAIN __attribute__((always_inline))

typedef int32_t __attribute__((may_alias)) word; /* four int8 of a tile */
typedef float __attribute__((may_alias)) number;

/* gcc 12 turns set1 into a broadcast of its own and copies a zero register into every accumulator: with
   both spelt out the many-row kernel is a fifth faster. */
#define DOT(acc, w, x) __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(x))

INLINE __m512i zero(void)
{
    __m512i z;
    __asm__ volatile("vpxord %0, %0, %0" : "=v"(z));
    return z;
}

/* How far ahead of a stream to ask for lines: the hardware's prefetcher stops at 4 KiB pages. */
enum { AHEAD = 2048 };

INLINE __m512 halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)p));
}

INLINE void ask(const uint8_t *w, int lines)
{
#pragma GCC unroll 9
    for (int i = 0; i < lines; i++) {
        _mm_prefetch((const char *)w + AHEAD + 64 * i, _MM_HINT_T0);
    }
}

PLAIN void attn_quant_tile_avx512vnni(const float *x, int64_t ldx, int rows, int64_t blocks,
                                      uint8_t *tile)
{
    assert(rows >= 1 && rows <= ATTN_QUANT_ROWS && blocks >= 1);
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int r = 0; r < rows; r++) {
        uint8_t *q = tile + r * ATTN_QUANT_BLOCK;
        uint8_t *numbers = tile + rows * ATTN_QUANT_BLOCK + 4 * r;
        for (int64_t b = 0; b < blocks; b++) {
            __m512 x0 = _mm512_loadu_ps(x + r * ldx + b * ATTN_QUANT_BLOCK);
            __m512 x1 = _mm512_loadu_ps(x + r * ldx + b * ATTN_QUANT_BLOCK + 16);
            __m512i m0 = _mm512_and_si512(_mm512_castps_si512(x0), magnitude);
            __m512i m1 = _mm512_and_si512(_mm512_castps_si512(x1), magnitude);
            uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(m0, m1));
            float max, scale = 0.0f, factor = 0.0f;
            memcpy(&max, &largest, 4);
            if (largest >= 0x7f800000u) {
                scale = __builtin_nanf("");
                x0 = x1 = _mm512_setzero_ps();
            } else if (max >= ATTN_QUANT_TINY) {
                scale = max / 127.0f;
                factor = 127.0f / max;
            }
            __m512 f = _mm512_set1_ps(factor);
            __m512i i0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, f));
            __m512i i1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, f));
            int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(i0, i1));
            float scaled = scale * (float)sum;
            int32_t shift = -128 * sum;
            _mm_storeu_si128((__m128i *)(void *)q, _mm512_cvtepi32_epi8(i0));
            _mm_storeu_si128((__m128i *)(void *)(q + 16), _mm512_cvtepi32_epi8(i1));
            memcpy(numbers, &scale, 4);
            memcpy(numbers + 4 * rows, &scaled, 4);
            memcpy(numbers + 8 * rows, &shift, 4);
            q += rows * ATTN_QUANT_RECORD;
            numbers += rows * ATTN_QUANT_RECORD;
        }
    }
}

INLINE void q4(const attn_quant_job *job, const int rows, const int panels)
{
    const __m512i low = _mm512_set1_epi8(15);
    const uint8_t *x = job->x, *w = job->w;
    const size_t stream = job->stream;
    /* Several panels are streams from memory, always; a branch per block costs them a tenth. */
    const bool prefetch = panels > 1 || job->prefetch;
    __m512 acc[ATTN_QUANT_ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels; i++) {
        acc[i] = _mm512_loadu_ps(job->bias + i / rows * job->step);
    }
    for (int64_t b = job->blocks; b > 0; b--) {
        const word *q = (const word *)(const void *)x;
        const number *scale = (const number *)(const void *)(x + rows * ATTN_QUANT_BLOCK);
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++) {
            const uint8_t *block = w + (size_t)p * stream;
            __m512i n[8];
            if (prefetch) {
                ask(block, 5);
            }
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                __m512i pair = _mm512_load_si512(block + 64 * j);
                n[j] = _mm512_and_si512(pair, low);
                n[4 + j] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
            }
            __m512 d = halves(block + 256), m = halves(block + 288);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                __m512i dot = zero();
                __m512 *a = &acc[p * rows + r];
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++) {
                    DOT(dot, n[j], q[8 * r + j]);
                }
                *a = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(scale[r])),
                                     _mm512_cvtepi32_ps(dot), *a);
                *a = _mm512_fmadd_ps(m, _mm512_set1_ps(scale[rows + r]), *a);
            }
        }
        x += rows * ATTN_QUANT_RECORD;
        w += ATTN_QUANT_Q4_BLOCK;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels; i++) {
        _mm512_storeu_ps(job->y + i % rows * job->ldy + i / rows * job->step, acc[i]);
    }
}

INLINE void q8(const attn_quant_job *job, const int rows, const int panels)
{
    const uint8_t *x = job->x, *w = job->w;
    const size_t stream = job->stream;
    /* Several panels are streams from memory, always; a branch per block costs them a tenth. */
    const bool prefetch = panels > 1 || job->prefetch;
    __m512 acc[ATTN_QUANT_ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels; i++) {
        acc[i] = _mm512_loadu_ps(job->bias + i / rows * job->step);
    }
    for (int64_t b = 0; b < job->blocks; b++) {
        const word *q = (const word *)(const void *)x;
        const number *scale = (const number *)(const void *)(x + rows * ATTN_QUANT_BLOCK);
        const word *shift = (const word *)(const void *)(x + rows * (ATTN_QUANT_BLOCK + 8));
        size_t scales = attn_quant_q8_scales(b) - attn_quant_q8_vectors(b);
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++) {
            const uint8_t *block = w + attn_quant_q8_vectors(b) + (size_t)p * stream;
            __m512i n[8];
            if (prefetch) {
                ask(block, 9);
            }
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                n[j] = _mm512_load_si512(block + 64 * j);
            }
            __m512 d = halves(block + scales);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                /* Σ (q_w + 128)·q_x − 128·Σ q_x */
                __m512i dot = _mm512_set1_epi32(shift[r]);
                __m512 *a = &acc[p * rows + r];
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++) {
                    DOT(dot, n[j], q[8 * r + j]);
                }
                *a = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(scale[r])),
                                     _mm512_cvtepi32_ps(dot), *a);
            }
        }
        x += rows * ATTN_QUANT_RECORD;
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows * panels; i++) {
        _mm512_storeu_ps(job->y + i % rows * job->ldy + i / rows * job->step, acc[i]);
    }
}

/* One function per tile. */
#define TILE(kind, rows, panels)                                          \
    static PLAIN void kind##_##rows##_##panels(const attn_quant_job *job) \
    {                                                                     \
        kind(job, rows, panels);                                          \
    }
#define TILES(kind)                                                     \
    TILE(kind, 1, 1)                                                    \
    TILE(kind, 1, 2)                                                    \
    TILE(kind, 1, 4)                                                    \
    TILE(kind, 1, 8)                                                    \
    TILE(kind, 2, 1)                                                    \
    TILE(kind, 2, 2)                                                    \
    TILE(kind, 2, 4)                                                    \
    TILE(kind, 3, 1)                                                    \
    TILE(kind, 3, 2)                                                    \
    TILE(kind, 4, 1)                                                    \
    TILE(kind, 4, 2)                                                    \
    TILE(kind, 5, 1)                                                    \
    TILE(kind, 6, 1)                                                    \
    TILE(kind, 7, 1)                                                    \
    TILE(kind, 8, 1)                                                    \
    static void (*const kind##_tiles[9][4])(const attn_quant_job *) = { \
        {NULL},                                                         \
        {kind##_1_1, kind##_1_2, kind##_1_4, kind##_1_8},               \
        {kind##_2_1, kind##_2_2, kind##_2_4},                           \
        {kind##_3_1, kind##_3_2},                                       \
        {kind##_4_1, kind##_4_2},                                       \
        {kind##_5_1},                                                   \
        {kind##_6_1},                                                   \
        {kind##_7_1},                                                   \
        {kind##_8_1},                                                   \
    };

TILES(q4)
TILES(q8)

/* Takes panels 8, 4, 2, 1 at a time, as many as the rows leave registers for. */
INLINE void split(const attn_quant_job *job, int rows, int panels,
                  void (*const tiles[4])(const attn_quant_job *))
{
    attn_quant_job part = *job;
    assert(rows >= 1 && rows <= ATTN_QUANT_ROWS && panels >= 1);
    while (panels > 0) {
        int log = 3;
        while ((1 << log) > panels || !tiles[log]) {
            log--;
        }
        tiles[log](&part);
        part.w += part.stream << log;
        part.y += part.step << log;
        part.bias += part.step << log;
        panels -= 1 << log;
    }
    (void)rows;
}

PLAIN void attn_quant_q4_avx512vnni(const attn_quant_job *job, int rows, int panels)
{
    split(job, rows, panels, q4_tiles[rows]);
}

PLAIN void attn_quant_q8_avx512vnni(const attn_quant_job *job, int rows, int panels)
{
    split(job, rows, panels, q8_tiles[rows]);
}
