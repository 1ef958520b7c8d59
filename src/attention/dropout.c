/* Dropout as a call has it: seed, threshold and factor for the kernels. */
#include "attention/call.h"

attn_dropout_key sdpa_dropout(const sdpa_call *call, int64_t b)
{
    return (attn_dropout_key){
        .seed = call->dropout_seed,
        .threshold = (uint32_t)(call->dropout * 0x1p32), /* p < 1: below 2³² */
        .scale = (float)(1.0 / (1.0 - call->dropout)),
        .batch = (uint32_t)b,
    };
}

void sdpa_keep(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t begin, int64_t count,
               float *factor)
{
    attn_dropout_key d = sdpa_dropout(call, b);
    d.row[0] = (uint32_t)i;
    d.head[0] = (uint32_t)h;
    attn_dropout_row(&d, begin, count, factor);
}
