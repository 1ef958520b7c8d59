/* kernels/quant/quant_table.c: which quantised kernels a level gets. */
#include "kernels/quant/quant.h"

static const attn_quant_table table_c = {
    ATTN_ISA_C, attn_quant_tile_c, attn_quant_q4_c, attn_quant_q8_c, {0, 1, 1, 1, 1, 1, 1, 1, 1},
};

#ifdef ATTN_HAVE_AVX2
static const attn_quant_table table_avx2 = {
    ATTN_ISA_AVX2,      attn_quant_tile_avx2,        attn_quant_q4_avx2,
    attn_quant_q8_avx2, {0, 4, 2, 1, 1, 1, 1, 1, 1},
};
#endif

#ifdef ATTN_HAVE_AVX512VNNI
static const attn_quant_table table_avx512vnni = {
    ATTN_ISA_AVX512VNNI,      attn_quant_tile_avx512vnni,  attn_quant_q4_avx512vnni,
    attn_quant_q8_avx512vnni, {0, 8, 4, 2, 2, 1, 1, 1, 1},
};
#endif

const attn_quant_table *attn_quant_table_for(attn_isa isa)
{
    /* AVX-512 without VNNI has neither vpdpbusd nor vpsignb on 512 bits: the AVX2 kernels serve it. */
#ifdef ATTN_HAVE_AVX512VNNI
    if (isa >= ATTN_ISA_AVX512VNNI && isa <= ATTN_ISA_AMX) {
        return &table_avx512vnni;
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
