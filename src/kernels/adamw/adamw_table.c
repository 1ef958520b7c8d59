/* kernels/adamw/adamw_table.c: which kernels a level gets. */
#include "kernels/adamw/adamw.h"

const attn_adamw_table *attn_adamw_table_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return &attn_adamw_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return &attn_adamw_avx2;
    }
#endif
    (void)isa;
    return &attn_adamw_c;
}
