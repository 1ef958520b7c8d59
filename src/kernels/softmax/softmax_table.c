/* kernels/softmax/softmax_table.c: which kernels a level gets. */
#include "kernels/softmax/softmax.h"

const attn_softmax_table *attn_softmax_table_for(attn_isa isa)
{
    (void)isa;
    return &attn_softmax_c;
}
