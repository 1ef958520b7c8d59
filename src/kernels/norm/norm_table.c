/* kernels/norm/norm_table.c: which norms a level gets. */
#include "kernels/norm/norm.h"

static const attn_norm_table table_c = {ATTN_ISA_C, attn_norm_rms_c, attn_norm_layer_c,
                                        attn_norm_backward_c};
#ifdef ATTN_HAVE_AVX2
static const attn_norm_table table_avx2 = {ATTN_ISA_AVX2, attn_norm_rms_avx2, attn_norm_layer_avx2,
                                           attn_norm_backward_avx2};
#endif
#ifdef ATTN_HAVE_AVX512
static const attn_norm_table table_avx512 = {ATTN_ISA_AVX512, attn_norm_rms_avx512,
                                             attn_norm_layer_avx512, attn_norm_backward_avx512};
#endif

const attn_norm_table *attn_norm_table_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return &table_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return &table_avx2;
    }
#endif
    (void)isa;
    return &table_c;
}
