/**
 * peak.c: which ceiling a level has.
 */
#include "kernels/peak/peak.h"

const attn_peak_kernels *attn_peak_table(attn_isa isa)
{
    (void)isa;
#if defined(ATTN_HAVE_AVX512)
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return &attn_peak_avx512;
    }
#endif
#if defined(ATTN_HAVE_AVX2)
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return &attn_peak_avx2;
    }
#endif
    return &attn_peak_c;
}
