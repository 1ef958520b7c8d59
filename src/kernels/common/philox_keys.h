/**
 * kernels/common/philox_keys.h: the keys of Philox4x32-10's rounds, for all that run it in lanes.
 */
#ifndef ATTN_KERNELS_COMMON_PHILOX_KEYS_H
#define ATTN_KERNELS_COMMON_PHILOX_KEYS_H

#include <stdint.h>

enum { ATTN_PHILOX_KEYS = 20 };

/** Two words a round: the seed's, moved on by the Weyl steps of base/rng.c. */
static inline void attn_philox_keys(uint64_t seed, uint32_t key[ATTN_PHILOX_KEYS])
{
    for (uint32_t round = 0; round < ATTN_PHILOX_KEYS / 2; round++) {
        key[2 * round] = (uint32_t)seed + round * 0x9E3779B9u;
        key[2 * round + 1] = (uint32_t)(seed >> 32) + round * 0xBB67AE85u;
    }
}

#endif
