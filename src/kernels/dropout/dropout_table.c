/* kernels/dropout/dropout_table.c: which kernel a level gets. */
#include "kernels/dropout/dropout.h"

attn_dropout_tile_fn *attn_dropout_tile_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return attn_dropout_tile_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return attn_dropout_tile_avx2;
    }
#endif
    (void)isa;
    return attn_dropout_tile_c;
}
