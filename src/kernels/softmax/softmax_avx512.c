/* kernels/softmax/softmax_avx512.c: sixteen at a time; the text is softmax_lanes.h. */
#include "kernels/common/lanes_avx512.h"

#include "kernels/softmax/softmax_lanes.h"

const attn_softmax_table attn_softmax_avx512 = {forward, backward, cross_entropy};
