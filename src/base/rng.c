/**
 * rng.c: Philox4x32-10.
 */
#include "base/rng.h"

attn_philox_block attn_philox(uint64_t key, const uint32_t counter[4])
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0;
        c1 = (uint32_t)p1;
        c2 = n2;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; /* the Weyl steps of the golden ratio and √3 − 1 */
        k1 += 0xBB67AE85u;
    }
    return (attn_philox_block){{c0, c1, c2, c3}};
}

double attn_uniform(uint64_t key, uint64_t stream, uint64_t index)
{
    uint64_t block = index / 2;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                           (uint32_t)(stream >> 32)};
    attn_philox_block words = attn_philox(key, counter);
    uint32_t high = words.word[(index & 1) * 2], low = words.word[(index & 1) * 2 + 1];
    return (double)(((uint64_t)high << 21) | (low >> 11)) * 0x1p-53;
}
