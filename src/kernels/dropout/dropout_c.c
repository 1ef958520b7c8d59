/* kernels/dropout: the definition, slot by slot. */
#include "base/rng.h"
#include "kernels/dropout/dropout.h"

#include <assert.h>

enum { LANES = ATTN_DROPOUT_LANES };

/* The four words that decide about columns 4·block … 4·block+3 of a lane. */
static attn_philox_block words(const attn_dropout_key *d, int64_t block, int32_t lane)
{
    const uint32_t counter[4] = {(uint32_t)block, d->row[lane], d->head[lane], d->batch};
    return attn_philox(d->seed, counter);
}

void attn_dropout_row(const attn_dropout_key *d, int64_t column, int64_t count, float *factor)
{
    attn_philox_block four = {{0}};
    for (int64_t c = 0; c < count; c++) {
        int64_t at = column + c;
        if (c == 0 || at % 4 == 0) {
            four = words(d, at / 4, 0);
        }
        factor[c] = four.word[at % 4] >= d->threshold ? d->scale : 0.0f;
    }
}

void attn_dropout_tile_c(const attn_dropout_key *d, int64_t column, int32_t keys, int32_t lanes,
                         const float *from, float *to)
{
    assert(column >= 0 && keys >= 0 && lanes >= 0 && lanes <= LANES);
    int32_t rows = (lanes + 15) / 16 * 16;
    for (int32_t r = 0; r < rows; r++) {
        attn_philox_block four = {{0}};
        for (int32_t j = 0; j < keys; j++) {
            int64_t at = column + j;
            if (j == 0 || at % 4 == 0) {
                four = words(d, at / 4, r);
            }
            float factor = four.word[at % 4] >= d->threshold ? d->scale : 0.0f;
            to[j * LANES + r] = from ? from[j * LANES + r] * factor : factor;
        }
    }
}
