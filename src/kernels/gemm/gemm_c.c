/* kernels/gemm/gemm_c.c: the readable reference. */
#include <assert.h>

#include "kernels/gemm/gemm.h"

enum { MR = 4, NR = 16 };

void attn_gemm_pack_c(const float *x, int64_t ldx, int rows, int64_t k, float *tile)
{
    for (int r = 0; r < rows; r++) {
        for (int64_t i = 0; i < k; i++) {
            tile[i * rows + r] = x[r * ldx + i];
        }
    }
}

void attn_gemm_pack_any_c(const float *x, int64_t row_stride, int64_t k_stride, int rows, int64_t k,
                          int width, float *out)
{
    assert(rows <= width);
    for (int64_t i = 0; i < k; i++) {
        for (int r = 0; r < width; r++) {
            out[i * width + r] = r < rows ? x[r * row_stride + i * k_stride] : 0.0f;
        }
    }
}

/* sum[i] += x·w[i] for one row and one column. */
static void column(float sum[NR], float x, const float *w)
{
    for (int i = 0; i < NR; i++) {
        sum[i] += x * w[i];
    }
}

void attn_gemm_f32_4x16_c(const attn_gemm_job *job, int rows)
{
    assert(rows >= 1 && rows <= MR && job->columns >= 1 && job->columns <= NR);
    assert(job->ldx == 1 || job->x_step == 1);
    for (int r = 0; r < rows; r++) {
        float sum[NR] = {0};
        for (int i = 0; i < job->columns; i++) {
            sum[i] = job->init[r * job->ld_init + i];
        }
        for (int64_t k = 0; k < job->k; k++) {
            column(sum, job->x[r * job->ldx + k * job->x_step], job->w + k * job->ldw);
        }
        for (int i = 0; i < job->columns; i++) {
            job->y[r * job->ldy + i] = sum[i];
        }
    }
}

void attn_gemm_f32_few_c(const attn_gemm_job *job, int rows, int panels)
{
    assert(rows >= 1 && rows <= ATTN_GEMM_FEW && panels >= 1);
    for (int p = 0; p < panels; p++) {
        for (int r = 0; r < rows; r++) {
            float sum[NR];
            for (int i = 0; i < NR; i++) {
                sum[i] = job->init[r * job->ld_init + p * job->step + i];
            }
            for (int64_t k = 0; k < job->k; k++) {
                column(sum, job->x[r * job->ldx + k], job->w + p * job->stream + k * NR);
            }
            for (int i = 0; i < NR; i++) {
                job->y[r * job->ldy + p * job->step + i] = sum[i];
            }
        }
    }
}
