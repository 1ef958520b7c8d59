/* kernels/softmax/softmax_avx2.c: eight at a time; the text is softmax_lanes.h. */
#include "kernels/common/lanes_avx2.h"

#include "kernels/softmax/softmax_lanes.h"

const attn_softmax_table attn_softmax_avx2 = {forward, backward, cross_entropy};
