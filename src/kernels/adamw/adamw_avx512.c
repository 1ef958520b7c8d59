/* kernels/adamw/adamw_avx512.c: sixteen at a time; the text is adamw_lanes.h. */
#include "kernels/common/lanes_avx512.h"

#include "kernels/adamw/adamw_lanes.h"

const attn_adamw_table attn_adamw_avx512 = {step};
