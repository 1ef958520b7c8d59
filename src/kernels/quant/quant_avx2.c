/*
 * kernels/quant/quant_avx2.c: vpmaddubsw with a lane per output, eight outputs (half a panel) to a vector.
 *
 * Its int16 sums cannot saturate: in Q4 eight pair sums of at most 2·15·127 make 30480, so one block is
 * added up in int16; in Q8 a pair makes at most 2·128·127 = 32512 and is widened at once.
 */
#include <assert.h>
#include <immintrin.h>
#include <string.h>

#include "kernels/quant/quant.h"

/* Unrolled bodies that check every index again take clang many minutes under -fsanitize=undefined. */
#define PLAIN  __attribute__((no_sanitize("undefined")))
#define INLINE static inline PLAIN __attribute__((always_inline))

/* How far ahead of a stream to ask for lines: the hardware's prefetcher stops at 4 KiB pages. */
enum { AHEAD = 2048 };

INLINE __m256i load(const uint8_t *p)
{
    return _mm256_load_si256((const __m256i *)(const void *)p);
}

INLINE __m256 halves(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)p));
}

INLINE __m256i four(const uint8_t *p)
{
    int32_t value;
    memcpy(&value, p, 4);
    return _mm256_set1_epi32(value);
}

INLINE __m256 number(const uint8_t *p)
{
    float value;
    memcpy(&value, p, 4);
    return _mm256_set1_ps(value);
}

INLINE void ask(const uint8_t *w, int lines)
{
#pragma GCC unroll 9
    for (int i = 0; i < lines; i++) {
        _mm_prefetch((const char *)w + AHEAD + 64 * i, _MM_HINT_T0);
    }
}

INLINE uint32_t largest_magnitude(const __m256 x[4])
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
    }
    __m128i h = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    h = _mm_max_epu32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_max_epu32(h, _mm_shuffle_epi32(h, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(h);
}

/* Rounds x·factor to int8 at q and returns the sum. */
INLINE int32_t quantise(const __m256 x[4], float factor, uint8_t *q)
{
    const __m256 f = _mm256_set1_ps(factor);
    __m256i i[4];
    for (int j = 0; j < 4; j++) {
        i[j] = _mm256_cvtps_epi32(_mm256_mul_ps(x[j], f));
    }
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(i[0], i[1]), _mm256_add_epi32(i[2], i[3]));
    __m128i h = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1));
    /* The packs work in halves of 128 bits; the permutation puts the groups of four in order. */
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)q, bytes);
    return _mm_cvtsi128_si32(h);
}

PLAIN void attn_quant_tile_avx2(const float *x, int64_t ldx, int rows, int64_t blocks,
                                uint8_t *tile)
{
    assert(rows >= 1 && rows <= ATTN_QUANT_ROWS && blocks >= 1);
    for (int r = 0; r < rows; r++) {
        uint8_t *q = tile + r * ATTN_QUANT_BLOCK;
        uint8_t *numbers = tile + rows * ATTN_QUANT_BLOCK + 4 * r;
        for (int64_t b = 0; b < blocks; b++) {
            __m256 v[4];
            for (int i = 0; i < 4; i++) {
                v[i] = _mm256_loadu_ps(x + r * ldx + b * ATTN_QUANT_BLOCK + 8 * i);
            }
            uint32_t largest = largest_magnitude(v);
            float max, scale = 0.0f, factor = 0.0f;
            memcpy(&max, &largest, 4);
            if (largest >= 0x7f800000u) {
                scale = __builtin_nanf("");
                v[0] = v[1] = v[2] = v[3] = _mm256_setzero_ps();
            } else if (max >= ATTN_QUANT_TINY) {
                scale = max / 127.0f;
                factor = 127.0f / max;
            }
            int32_t sum = quantise(v, factor, q);
            float scaled = scale * (float)sum;
            int32_t shift = -128 * sum;
            memcpy(numbers, &scale, 4);
            memcpy(numbers + 4 * rows, &scaled, 4);
            memcpy(numbers + 8 * rows, &shift, 4);
            q += rows * ATTN_QUANT_RECORD;
            numbers += rows * ATTN_QUANT_RECORD;
        }
    }
}

/* Σ q_w·q_x of half a block for `count` rows, from row `first` of a tile; w points at the half's lanes. */
INLINE void dots_q4(const uint8_t *w, const uint8_t *x, const int count, __m256i *dot)
{
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int r = 0; r < count; r++) {
        dot[r] = _mm256_setzero_si256();
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m256i pair = load(w + 64 * j);
        __m256i n0 = _mm256_and_si256(pair, low);
        __m256i n1 = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low);
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
            const uint8_t *q = x + r * ATTN_QUANT_BLOCK + 4 * j;
            dot[r] = _mm256_add_epi16(dot[r], _mm256_maddubs_epi16(n0, four(q)));
            dot[r] = _mm256_add_epi16(dot[r], _mm256_maddubs_epi16(n1, four(q + 16)));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < count; r++) {
        dot[r] = _mm256_madd_epi16(dot[r], _mm256_set1_epi16(1));
    }
}

INLINE void dots_q8(const uint8_t *w, const uint8_t *x, const int count, __m256i *dot)
{
    const __m256i sign = _mm256_set1_epi8(-128), one = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int r = 0; r < count; r++) {
        dot[r] = _mm256_setzero_si256();
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        __m256i n = _mm256_xor_si256(load(w + 64 * j), sign);
        __m256i size = _mm256_abs_epi8(n);
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
            __m256i q = _mm256_sign_epi8(four(x + r * ATTN_QUANT_BLOCK + 4 * j), n);
            dot[r] =
                _mm256_add_epi32(dot[r], _mm256_madd_epi16(_mm256_maddubs_epi16(size, q), one));
        }
    }
}

/*
 * Rows first … first + count − 1 of a tile of `rows` with halves `begin` … `end` − 1 of the panels
 * (half h is lanes 8·(h mod 2) … of panel h/2).
 */
INLINE void product(const attn_quant_job *job, const bool q8, const int rows, const int first,
                    const int count, const int begin, const int end)
{
    const uint8_t *x = job->x + first * ATTN_QUANT_BLOCK;
    const uint8_t *numbers = job->x + rows * ATTN_QUANT_BLOCK + 4 * first;
    __m256 acc[8];
#pragma GCC unroll 8
    for (int i = 0; i < (end - begin) * count; i++) {
        int h = begin + i / count;
        acc[i] = _mm256_loadu_ps(job->bias + h / 2 * job->step + 8 * (h & 1));
    }
    for (int64_t b = 0; b < job->blocks; b++) {
        size_t vectors = q8 ? attn_quant_q8_vectors(b) : (size_t)b * ATTN_QUANT_Q4_BLOCK;
        size_t scales = q8 ? attn_quant_q8_scales(b) : vectors + 256;
#pragma GCC unroll 8
        for (int h = begin; h < end; h++) {
            const uint8_t *w = job->w + (size_t)(h / 2) * job->stream;
            __m256i dot[4];
            if ((h & 1) == 0 && (end > 2 || job->prefetch)) {
                ask(w + vectors, q8 ? 9 : 5);
            }
            if (q8) {
                dots_q8(w + vectors + 32 * (h & 1), x, count, dot);
            } else {
                dots_q4(w + vectors + 32 * (h & 1), x, count, dot);
            }
            __m256 d = halves(w + scales + 16 * (h & 1));
#pragma GCC unroll 4
            for (int r = 0; r < count; r++) {
                __m256 *a = &acc[(h - begin) * count + r];
                *a = _mm256_fmadd_ps(_mm256_mul_ps(d, number(numbers + 4 * r)),
                                     _mm256_cvtepi32_ps(dot[r]), *a);
            }
            if (!q8) {
                __m256 m = halves(w + scales + 32 + 16 * (h & 1));
#pragma GCC unroll 4
                for (int r = 0; r < count; r++) {
                    __m256 *a = &acc[(h - begin) * count + r];
                    *a = _mm256_fmadd_ps(m, number(numbers + 4 * (rows + r)), *a);
                }
            }
        }
        x += rows * ATTN_QUANT_RECORD;
        numbers += rows * ATTN_QUANT_RECORD;
    }
#pragma GCC unroll 8
    for (int i = 0; i < (end - begin) * count; i++) {
        int h = begin + i / count;
        _mm256_storeu_ps(job->y + (first + i % count) * job->ldy + h / 2 * job->step + 8 * (h & 1),
                         acc[i]);
    }
}

/* Few rows keep both halves of one or several panels in registers; four rows one half. */
INLINE void few(const attn_quant_job *job, const bool q8, const int rows, const int panels)
{
    product(job, q8, rows, 0, rows, 0, 2 * panels);
}

INLINE void many(const attn_quant_job *job, const bool q8, int rows)
{
    for (int first = 0; first < rows;) {
        int left = rows - first;
        if (left >= 4) {
            product(job, q8, rows, first, 4, 0, 1);
            product(job, q8, rows, first, 4, 1, 2);
            first += 4;
        } else if (left >= 2) {
            product(job, q8, rows, first, 2, 0, 2);
            first += 2;
        } else {
            product(job, q8, rows, first, 1, 0, 2);
            first += 1;
        }
    }
}

INLINE void split(const attn_quant_job *job, const bool q8, int rows, int panels)
{
    attn_quant_job part = *job;
    assert(rows >= 1 && rows <= ATTN_QUANT_ROWS && panels >= 1);
    while (panels > 0) {
        int taken = 1;
        if (rows == 1 && panels >= 4) {
            few(&part, q8, 1, taken = 4);
        } else if (rows == 1) {
            few(&part, q8, 1, 1);
        } else if (rows == 2 && panels >= 2) {
            few(&part, q8, 2, taken = 2);
        } else {
            many(&part, q8, rows);
        }
        part.w += part.stream * (size_t)taken;
        part.y += part.step * taken;
        part.bias += part.step * taken;
        panels -= taken;
    }
}

PLAIN void attn_quant_q4_avx2(const attn_quant_job *job, int rows, int panels)
{
    split(job, false, rows, panels);
}

PLAIN void attn_quant_q8_avx2(const attn_quant_job *job, int rows, int panels)
{
    split(job, true, rows, panels);
}
