/* kernels/activation/activation_table.c: which kernels a level gets. */
#include "kernels/activation/activation.h"

const attn_activation_table *attn_activation_table_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return &attn_activation_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return &attn_activation_avx2;
    }
#endif
    (void)isa;
    return &attn_activation_c;
}
