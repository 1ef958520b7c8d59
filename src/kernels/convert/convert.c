/* kernels/convert: which level's kernels to use. */
#include "kernels/convert/convert.h"

const attn_convert_kernels *attn_convert_table(attn_isa isa)
{
#if defined(ATTN_HAVE_AVX512)
    if (isa >= ATTN_ISA_AVX512 && isa < ATTN_ISA_NEON) {
        return &attn_convert_avx512;
    }
#endif
#if defined(ATTN_HAVE_AVX2)
    if (isa >= ATTN_ISA_AVX2 && isa < ATTN_ISA_NEON) {
        return &attn_convert_avx2;
    }
#endif
    (void)isa;
    return &attn_convert_c;
}
