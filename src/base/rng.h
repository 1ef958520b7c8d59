/**
 * base/rng.h: Philox4x32-10, a counter-based generator: the same key and counter give the same four words anywhere, so results
 * do not depend on order, tiles or threads. Source: Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
#ifndef ATTN_BASE_RNG_H
#define ATTN_BASE_RNG_H

#include <stdint.h>

typedef struct attn_philox_block {
    uint32_t word[4];
} attn_philox_block;

/** Ten rounds over counter[4] with the 64-bit key (low word first). */
attn_philox_block attn_philox(uint64_t key, const uint32_t counter[4]);

/** A double in [0, 1) with 53 random bits: element `index` of the stream (key, stream). */
double attn_uniform(uint64_t key, uint64_t stream, uint64_t index);

#endif
