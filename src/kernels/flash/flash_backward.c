/* kernels/flash: which level's kernels backward uses. */
#include "kernels/flash/flash_backward.h"

const attn_flash_backward_kernels *attn_flash_backward_table(attn_isa isa)
{
    const attn_flash_backward_kernels *kernels = &attn_flash_backward_c;
#if defined(ATTN_HAVE_AVX2)
    if (isa >= ATTN_ISA_AVX2 && isa < ATTN_ISA_NEON) {
        kernels = &attn_flash_backward_avx2;
    }
#endif
#if defined(ATTN_HAVE_AVX512)
    if (isa >= ATTN_ISA_AVX512 && isa < ATTN_ISA_NEON) {
        kernels = &attn_flash_backward_avx512;
    }
#endif
    (void)isa;
    return kernels;
}
