/* kernels/activation/activation_table.c: which kernels a level gets. */
#include "kernels/activation/activation.h"

const attn_activation_table *attn_activation_table_for(attn_isa isa)
{
    (void)isa;
    return &attn_activation_c;
}
