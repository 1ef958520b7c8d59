/* kernels/vector/vector_avx512.c: sixteen at a time; the text is vector_lanes.h. */
#include "kernels/common/lanes_avx512.h"

#include "kernels/vector/vector_lanes.h"

const attn_vector_table attn_vector_avx512 = {axpby, sum_squares};
