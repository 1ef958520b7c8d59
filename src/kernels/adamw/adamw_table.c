/* kernels/adamw/adamw_table.c: which kernels a level gets. */
#include "kernels/adamw/adamw.h"

const attn_adamw_table *attn_adamw_table_for(attn_isa isa)
{
    (void)isa;
    return &attn_adamw_c;
}
