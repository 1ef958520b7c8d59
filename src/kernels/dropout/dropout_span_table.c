/* kernels/dropout/dropout_span_table.c: which kernel a level gets. */
#include "kernels/dropout/dropout_span.h"

attn_dropout_span_fn *attn_dropout_span_for(attn_isa isa)
{
#ifdef ATTN_HAVE_AVX512
    if (isa >= ATTN_ISA_AVX512 && isa <= ATTN_ISA_AMX) {
        return attn_dropout_span_avx512;
    }
#endif
#ifdef ATTN_HAVE_AVX2
    if (isa >= ATTN_ISA_AVX2 && isa <= ATTN_ISA_AMX) {
        return attn_dropout_span_avx2;
    }
#endif
    (void)isa;
    return attn_dropout_span_c;
}
