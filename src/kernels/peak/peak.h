/**
 * peak.h: what a core can do at most: independent multiply-adds on registers, and plain reads.
 */
#ifndef ATTN_KERNELS_PEAK_PEAK_H
#define ATTN_KERNELS_PEAK_PEAK_H

#include <attn/context.h>

typedef struct attn_peak_kernels {
    /** rounds × `flops_per_round` f32 operations (a multiply-add is two) on independent registers. */
    float (*fma)(int64_t rounds);
    int64_t flops_per_round;
    /** Reads bytes (a multiple of 512 is best) from data and gives something that depends on all of them. */
    uint64_t (*read)(const void *data, size_t bytes);
} attn_peak_kernels;

/** The kernels of a level, or of the best level below it that this build has. */
const attn_peak_kernels *attn_peak_table(attn_isa isa);

extern const attn_peak_kernels attn_peak_c, attn_peak_avx2, attn_peak_avx512;

#endif
