/* kernels/activation/activation_avx2.c: eight at a time; the text is activation_lanes.h. */
#include "kernels/common/lanes_avx2.h"

#include "kernels/activation/activation_lanes.h"

const attn_activation_table attn_activation_avx2 = ATTN_ACTIVATION_LANES_TABLE;
