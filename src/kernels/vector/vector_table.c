/* kernels/vector/vector_table.c: which kernels a level gets. */
#include "kernels/vector/vector.h"

const attn_vector_table *attn_vector_table_for(attn_isa isa)
{
    (void)isa;
    return &attn_vector_c;
}
