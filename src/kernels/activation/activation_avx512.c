/* kernels/activation/activation_avx512.c: sixteen at a time; the text is activation_lanes.h. */
#include "kernels/common/lanes_avx512.h"

#include "kernels/activation/activation_lanes.h"

const attn_activation_table attn_activation_avx512 = ATTN_ACTIVATION_LANES_TABLE;
