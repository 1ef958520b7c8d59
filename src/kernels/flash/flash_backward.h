/**
 * kernels/flash: the gradients of a block of up to 64 query rows and a block of keys, f32.
 *
 * Backward keeps scores as forward does, Sᵀ[key][64], computes them again, and knows the softmax
 * from forward's LSE. With forward's kernels (flash.h) around them, one block of keys goes through
 *
 *   scores    S = scale·Q·Kᵀ   and   dP = dO·Vᵀ
 *   gradient  P = exp(S − lse),  dS = P∘(dP − delta),  delta = Σ_d dO∘O − dlse, a number per row
 *   product   dV += Pᵀ·dO,  dK += dSᵀ·Q
 *   values    dQ += dS·K
 *
 * Alignment and sizes are as in flash.h: tiles to 64 bytes, Sᵀ with room for a multiple of
 * ATTN_FLASH_KEYS keys.
 */
#ifndef ATTN_KERNELS_FLASH_FLASH_BACKWARD_H
#define ATTN_KERNELS_FLASH_FLASH_BACKWARD_H

#include "kernels/flash/flash.h"

typedef struct attn_flash_backward_kernels {
    const char *name;   /* "flash_backward_f32_<isa>" */
    int32_t block_keys; /* keys of a block that work best, a multiple of ATTN_FLASH_KEYS */

    /**
     * For the slots that are attended, with f = keep[j·64 + r], or 1 where keep is NULL,
     *   p = exp(s − lse[r]),   s = f·p,   dp = p·(f·dp − delta[r])
     * and s = dp = 0 for all others of the tile's lanes in use: outside lo … hi, whatever is there,
     * and, where `hidden`, slots of −inf. On a partial tile s is −inf outside lo … hi, as modify
     * leaves it. A NaN stays in its slot.
     */
    void (*gradient)(const attn_flash_tile *tile, const float *lse, const float *delta,
                     const float *keep, bool hidden, float *s, float *dp);

    /**
     * The softcap's slope: ds ·= 1 − (capped/cap)², where capped = cap·tanh(…) are the scores. A ds
     * of 0 stays 0, whatever capped holds.
     */
    void (*slope)(const attn_flash_tile *tile, float cap, const float *capped, float *ds);

    /**
     * c[j·stride + d] += Σ_r s[j·64 + r]·x[r·ldx + d], j < keys, d < dim, over the lanes in use;
     * `first`: c is 0 so far, whatever it holds. x is aligned to 64 bytes and ldx a multiple of 16, ≥ dim;
     * c is anywhere. Lanes that attend to none of 6 neighbouring keys may be left out, so s is 0 outside
     * lo … hi.
     */
    void (*product)(const attn_flash_tile *tile, const float *s, const float *x, int64_t ldx,
                    int64_t dim, bool first, float *c, int64_t stride);

    /** Σ_d a[d]·b[d], d < dim. */
    float (*dot)(const float *a, const float *b, int64_t dim);

    /** out[d] += factor·x[d], d < dim. */
    void (*add)(float factor, const float *x, int64_t dim, float *out);
} attn_flash_backward_kernels;

/** The kernels of a level, or of the best one below it that there are any of. */
const attn_flash_backward_kernels *attn_flash_backward_table(attn_isa isa);

extern const attn_flash_backward_kernels attn_flash_backward_c;
extern const attn_flash_backward_kernels attn_flash_backward_avx2;
extern const attn_flash_backward_kernels attn_flash_backward_avx512;

#endif
