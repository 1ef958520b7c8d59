/*
 * kernels/gemm/gemm_avx2.c: 6 rows × 16 outputs: 12 sums, two vectors of W and one broadcast of the 16
 * registers.
 */
#include "kernels/common/lanes_avx2.h"

enum { TILE_ROWS = 6 };

#include "kernels/gemm/gemm_lanes.h"

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

void attn_gemm_f32_6x16_avx2(const attn_gemm_job *job, int rows)
{
    static void (*const kernels[2][TILE_ROWS + 1])(const attn_gemm_job *) = {
        {NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6},
        {NULL, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6},
    };
    assert(rows >= 1 && rows <= TILE_ROWS);
    kernels[job->x_step == 1][rows](job);
}

FEW(1, 1)
FEW(1, 2)
FEW(1, 4)
FEW(2, 1)
FEW(2, 2)
FEW(3, 1)
FEW(4, 1)

void attn_gemm_f32_few_avx2(const attn_gemm_job *job, int rows, int panels)
{
    static few_fn *const kernels[ATTN_GEMM_FEW + 1][3] = {
        {NULL}, {few_1_1, few_1_2, few_1_4}, {few_2_1, few_2_2}, {few_3_1}, {few_4_1},
    };
    few_panels(kernels, job, rows, panels);
}
