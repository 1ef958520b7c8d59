/* kernels/rope/rope_table.c: which rotations a level gets. */
#include "kernels/rope/rope.h"

static const attn_rope_table table_c = {ATTN_ISA_C, attn_rope_angles_c, attn_rope_interleaved_c,
                                        attn_rope_halves_c};
#ifdef ATTN_HAVE_AVX2
static const attn_rope_table table_avx2 = {ATTN_ISA_AVX2, attn_rope_angles_avx2,
                                           attn_rope_interleaved_avx2, attn_rope_halves_avx2};
#endif
#ifdef ATTN_HAVE_AVX512
static const attn_rope_table table_avx512 = {ATTN_ISA_AVX512, attn_rope_angles_avx512,
                                             attn_rope_interleaved_avx512, attn_rope_halves_avx512};
#endif

const attn_rope_table *attn_rope_table_for(attn_isa isa)
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
