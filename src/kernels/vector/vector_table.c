/* kernels/vector/vector_table.c: which kernels a level gets. */
#include "kernels/vector/vector.h"

const attn_vector_table *attn_vector_table_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return &attn_vector_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return &attn_vector_avx2;
    }
#endif
    (void)isa;
    return &attn_vector_c;
}
