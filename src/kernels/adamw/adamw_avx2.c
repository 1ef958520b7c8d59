/* kernels/adamw/adamw_avx2.c: eight at a time; the text is adamw_lanes.h. */
#include "kernels/common/lanes_avx2.h"

#include "kernels/adamw/adamw_lanes.h"

const attn_adamw_table attn_adamw_avx2 = {step};
