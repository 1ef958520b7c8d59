/**
 * kernels/rope/rope.h: rotary embedding (Su et al. 2021), in two steps, so that angles are computed once for
 * all heads of a position.
 *
 * angles        cosine[i] = cos(position·frequency[i]), sine[i] likewise; computed in double
 * interleaved   (x[2i], x[2i+1])     ← (x[2i]·c − x[2i+1]·s, x[2i+1]·c + x[2i]·s)
 * halves        (low[i], high[i])    ← (low[i]·c − high[i]·s, high[i]·c + low[i]·s)
 *
 * The vector versions of `angles` need |position·frequency[i]| ≤ ATTN_ROPE_FAR; attn_rope_angles_c any.
 */
#ifndef ATTN_KERNELS_ROPE_ROPE_H
#define ATTN_KERNELS_ROPE_ROPE_H

#include <attn/context.h>

#define ATTN_ROPE_FAR 0x1p30

typedef void attn_rope_angles_fn(const double *frequency, double position, int64_t pairs,
                                 float *cosine, float *sine);
typedef void attn_rope_interleaved_fn(float *x, const float *cosine, const float *sine,
                                      int64_t pairs);
typedef void attn_rope_halves_fn(float *low, float *high, const float *cosine, const float *sine,
                                 int64_t pairs);

typedef struct attn_rope_table {
    attn_isa isa;
    attn_rope_angles_fn *angles;
    attn_rope_interleaved_fn *interleaved;
    attn_rope_halves_fn *halves;
} attn_rope_table;

/** The best table for a level; its C table for levels it does not know. Never NULL. */
const attn_rope_table *attn_rope_table_for(attn_isa isa);

attn_rope_angles_fn attn_rope_angles_c, attn_rope_angles_avx2, attn_rope_angles_avx512;
attn_rope_interleaved_fn attn_rope_interleaved_c, attn_rope_interleaved_avx2,
    attn_rope_interleaved_avx512;
attn_rope_halves_fn attn_rope_halves_c, attn_rope_halves_avx2, attn_rope_halves_avx512;

#endif
