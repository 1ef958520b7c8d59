/* kernels/swiglu/swiglu_table.c: which kernel a level gets. */
#include "kernels/swiglu/swiglu.h"

attn_swiglu_fn *attn_swiglu_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return attn_swiglu_f32_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return attn_swiglu_f32_avx2;
    }
#endif
    (void)isa;
    return attn_swiglu_f32_c;
}

attn_swiglu_backward_fn *attn_swiglu_backward_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return attn_swiglu_backward_f32_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return attn_swiglu_backward_f32_avx2;
    }
#endif
    (void)isa;
    return attn_swiglu_backward_f32_c;
}
