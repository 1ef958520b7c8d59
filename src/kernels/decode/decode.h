/**
 * kernels/decode: a few query rows against a chunk of keys, row-major: what reading a cache token by token costs.
 *
 * The stages of a chunk of at most ATTN_DECODE_CHUNK keys, for 1 … ATTN_DECODE_ROWS query rows that share one KV head:
 *   scores   s[r][j] = q_r · k_j                            (raw: no scale)
 *   softmax  online: m, l of each row move on, s becomes e^(scale·s − m), alpha[r] = e^(m_old − m_new)
 *   values   o_r = alpha[r]·o_r + Σ_j s[r][j]·v_j
 * Rows of s are ATTN_DECODE_CHUNK floats apart, all of which may be written. Rows of q and o are `stride` floats apart, a multiple of
 * 16 not below the row's length, 64-byte aligned; q is zero from its length to there; o may be written there. K and V rows
 * are read at strides of any sign, and never outside their `dim` elements. Each element of o is one chain over the chunk's keys in order, whatever `rows` is.
 * Expected: FTZ|DAZ.
 */
#ifndef ATTN_KERNELS_DECODE_DECODE_H
#define ATTN_KERNELS_DECODE_DECODE_H

#include <attn/context.h>

enum { ATTN_DECODE_CHUNK = 64, ATTN_DECODE_ROWS = 16 };

/** Types of K and V storage, by index into the tables. */
enum { ATTN_DECODE_F32 = 0, ATTN_DECODE_BF16 = 1, ATTN_DECODE_F16 = 2, ATTN_DECODE_TYPES = 3 };

/** Rows of memory to bring near while the kernel works: the next stage's. bytes 0: none. */
typedef struct attn_decode_ahead {
    const char *base;
    int64_t stride; /* bytes from row to row */
    int64_t bytes;  /* of one row */
    int64_t rows;
} attn_decode_ahead;

/** A chunk of K or V: `count` rows of `dim` elements, `stride` elements apart. */
typedef struct attn_decode_block {
    const void *data;
    int64_t stride, count, dim;
} attn_decode_block;

typedef void (*attn_decode_scores)(const float *q, int64_t q_stride, int64_t rows,
                                   const attn_decode_block *k, float *s,
                                   const attn_decode_ahead *ahead);

/**
 * m starts at −inf, l at 0. A row that has met only −inf keeps m = −inf, l = 0. NaN scores make l NaN and leave m
 * alone; a +inf score makes l NaN. s beyond count becomes 0.
 */
typedef void (*attn_decode_softmax)(float *s, int64_t rows, int64_t count, float scale, float *m,
                                    float *l, float *alpha);

typedef void (*attn_decode_values)(const float *s, int64_t rows, const float *alpha,
                                   const attn_decode_block *v, float *o, int64_t o_stride,
                                   const attn_decode_ahead *ahead);

typedef struct attn_decode_kernels {
    const char *name[ATTN_DECODE_TYPES]; /* "decode_f32_avx2", … */
    attn_decode_scores scores[ATTN_DECODE_TYPES];
    attn_decode_values values[ATTN_DECODE_TYPES];
    attn_decode_softmax softmax;
} attn_decode_kernels;

/** The kernels of a level, or of the best one below it that there are any of. */
const attn_decode_kernels *attn_decode_table(attn_isa isa);

extern const attn_decode_kernels attn_decode_c;
extern const attn_decode_kernels attn_decode_avx2;
extern const attn_decode_kernels attn_decode_avx512;

#endif
