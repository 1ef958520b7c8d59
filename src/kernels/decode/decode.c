/* kernels/decode: which level's kernels to use. */
#include "kernels/decode/decode.h"

const attn_decode_kernels *attn_decode_table(attn_isa isa)
{
#if defined(ATTN_HAVE_AVX512)
    if (isa >= ATTN_ISA_AVX512 && isa < ATTN_ISA_NEON) {
        return &attn_decode_avx512;
    }
#endif
#if defined(ATTN_HAVE_AVX2)
    if (isa >= ATTN_ISA_AVX2 && isa < ATTN_ISA_NEON) {
        return &attn_decode_avx2;
    }
#endif
    (void)isa;
    return &attn_decode_c;
}
