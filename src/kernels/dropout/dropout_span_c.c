/* kernels/dropout/dropout_span_c.c: the readable reference, and f64. */
#include "kernels/dropout/dropout_span.h"

#include "base/rng.h"

/* The words that decide about elements 4·block … 4·block + 3. */
static attn_philox_block words_of(uint64_t seed, int64_t block)
{
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)((uint64_t)block >> 32), 0, 0};
    return attn_philox(seed, counter);
}

void attn_dropout_span_c(uint64_t seed, uint32_t threshold, float scale, int64_t at, const float *x,
                         int64_t n, float *y)
{
    attn_philox_block words = words_of(seed, at / 4);
    for (int64_t k = 0; k < n; k++) {
        if ((at + k) % 4 == 0) {
            words = words_of(seed, (at + k) / 4);
        }
        y[k] = words.word[(at + k) % 4] >= threshold ? x[k] * scale : 0.0f;
    }
}

void attn_dropout_span_f64_c(uint64_t seed, uint32_t threshold, double scale, int64_t at,
                             const double *x, int64_t n, double *y)
{
    attn_philox_block words = words_of(seed, at / 4);
    for (int64_t k = 0; k < n; k++) {
        if ((at + k) % 4 == 0) {
            words = words_of(seed, (at + k) / 4);
        }
        y[k] = words.word[(at + k) % 4] >= threshold ? x[k] * scale : 0.0;
    }
}
