/* kernels/vector/vector_avx2.c: eight at a time; the text is vector_lanes.h. */
#include "kernels/common/lanes_avx2.h"

#include "kernels/vector/vector_lanes.h"

const attn_vector_table attn_vector_avx2 = {axpby, sum_squares};
