/* kernels/gemm/gemm_table.c: which f32 matrix kernels a level gets. */
#include "kernels/gemm/gemm.h"

static const attn_gemm_table table_c = {
    ATTN_ISA_C,           4, 16, attn_gemm_pack_c, attn_gemm_f32_4x16_c, attn_gemm_f32_few_c, 1,
    attn_gemm_pack_any_c,
};

#ifdef ATTN_HAVE_AVX2
static const attn_gemm_table table_avx2 = {
    ATTN_ISA_AVX2,
    6,
    16,
    attn_gemm_pack_avx2,
    attn_gemm_f32_6x16_avx2,
    attn_gemm_f32_few_avx2,
    4,
    attn_gemm_pack_any_avx2,
};
#endif

#ifdef ATTN_HAVE_AVX512
static const attn_gemm_table table_avx512 = {
    ATTN_ISA_AVX512,
    14,
    32,
    attn_gemm_pack_avx2,
    attn_gemm_f32_14x32_avx512,
    attn_gemm_f32_few_avx512,
    4,
    attn_gemm_pack_any_avx512,
};
#endif

const attn_gemm_table *attn_gemm_table_for(attn_isa isa)
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
