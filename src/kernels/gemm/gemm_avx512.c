/*
 * kernels/gemm/gemm_avx512.c: 14 rows × 32 outputs: 28 sums, two vectors of W and one broadcast fill the 32
 * registers, and 28 multiply-adds go with 16 loads.
 */
#include "kernels/common/lanes_avx512.h"

enum { TILE_ROWS = 14 };

#include "kernels/gemm/gemm_lanes.h"

TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
TILE(13)
TILE(14)

void attn_gemm_f32_14x32_avx512(const attn_gemm_job *job, int rows)
{
    static void (*const kernels[2][TILE_ROWS + 1])(const attn_gemm_job *) = {
        {NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10,
         tile_11, tile_12, tile_13, tile_14},
        {NULL, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6, rows_7, rows_8, rows_9, rows_10,
         rows_11, rows_12, rows_13, rows_14},
    };
    assert(rows >= 1 && rows <= TILE_ROWS);
    kernels[job->x_step == 1][rows](job);
}

FEW(1, 1)
FEW(1, 2)
FEW(1, 4)
FEW(2, 1)
FEW(2, 2)
FEW(2, 4)
FEW(3, 1)
FEW(3, 2)
FEW(4, 1)
FEW(4, 2)

void attn_gemm_f32_few_avx512(const attn_gemm_job *job, int rows, int panels)
{
    static few_fn *const kernels[ATTN_GEMM_FEW + 1][3] = {
        {NULL},
        {few_1_1, few_1_2, few_1_4},
        {few_2_1, few_2_2, few_2_4},
        {few_3_1, few_3_2},
        {few_4_1, few_4_2},
    };
    few_panels(kernels, job, rows, panels);
}
