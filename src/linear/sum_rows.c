/**
 * sum_rows.c: column sums. Rows are summed in blocks of a fixed size, then the blocks in order: the bits do not depend
 * on threads, and long columns are summed more exactly than in one chain.
 */
#include "linear/sum_rows.h"
#include "base/alloc.h"
#include "linear/check.h"
#include "par/context.h"

#include <attn/linear.h>

enum {
    ROWS = 64,     /* of a block */
    COLUMNS = 1024 /* of a task */
};

typedef struct sums {
    const attn_view *x, *dst;
    bool accumulate;
    int64_t blocks, strips;
    int64_t stride; /* elements from one block's sums to the next */
    void *partial;
} sums;

/* One block of rows × one strip of columns, for either type. */
#define SUM_BLOCK(name, type)                                                                  \
    static void name(const type *x, int64_t stride, int64_t rows, int64_t columns, type sum[]) \
    {                                                                                          \
        for (int64_t i = 0; i < columns; i++) {                                                \
            sum[i] = x[i];                                                                     \
        }                                                                                      \
        for (int64_t r = 1; r < rows; r++) {                                                   \
            const type *row = x + r * stride;                                                  \
            for (int64_t i = 0; i < columns; i++) {                                            \
                sum[i] += row[i];                                                              \
            }                                                                                  \
        }                                                                                      \
    }
SUM_BLOCK(sum_block_f32, float)
SUM_BLOCK(sum_block_f64, double)

static void block_task(void *argument, int64_t index, int worker)
{
    const sums *s = argument;
    int64_t n = s->x->shape[1], stride = s->x->stride[0];
    int64_t block = index / s->strips, column = index % s->strips * COLUMNS;
    int64_t rows = s->x->shape[0] - block * ROWS, columns = n - column;
    rows = rows < ROWS ? rows : ROWS;
    columns = columns < COLUMNS ? columns : COLUMNS;
    (void)worker;
    int64_t from = block * ROWS * stride + column, to = block * n + column;
    if (s->x->dtype == ATTN_F32) {
        sum_block_f32((const float *)s->x->data + from, stride, rows, columns,
                      (float *)s->partial + to);
    } else {
        sum_block_f64((const double *)s->x->data + from, stride, rows, columns,
                      (double *)s->partial + to);
    }
}

/* The blocks' sums of one column; in double, since there may be many. */
static void strip_task(void *argument, int64_t index, int worker)
{
    const sums *s = argument;
    int64_t n = s->dst->shape[0], end = (index + 1) * COLUMNS < n ? (index + 1) * COLUMNS : n;
    bool f32 = s->dst->dtype == ATTN_F32;
    (void)worker;
    for (int64_t i = index * COLUMNS; i < end; i++) {
        float *to = f32 ? (float *)s->dst->data + i : NULL;
        double *to64 = f32 ? NULL : (double *)s->dst->data + i;
        double sum = !s->accumulate ? 0.0 : f32 ? (double)*to : *to64;
        for (int64_t b = 0; b < s->blocks; b++) {
            sum += f32 ? (double)((const float *)s->partial)[b * s->stride + i]
                       : ((const double *)s->partial)[b * s->stride + i];
        }
        if (f32) {
            *to = (float)sum;
        } else {
            *to64 = sum;
        }
    }
}

void attn_sum_blocks(attn_context *context, void *partial, int64_t blocks, int64_t stride,
                     bool accumulate, const attn_view *dst)
{
    sums s = {.dst = dst, .accumulate = accumulate, .blocks = blocks, .stride = stride};
    s.partial = partial;
    attn_context_run(context, (dst->shape[0] - 1) / COLUMNS + 1, dst->dtype == ATTN_F32, strip_task,
                     &s);
}

static attn_status check(const attn_context *context, const attn_view *x, const attn_view *dst)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status = attn_check_float("x", x, 2, "[rows, n]");
    status = status == ATTN_OK ? attn_check_float("dst", dst, 1, "[n]") : status;
    if (status != ATTN_OK) {
        return status;
    }
    if (x->dtype != dst->dtype) {
        return attn_fail(ATTN_ERR_DTYPE, "dst: is %s, x is %s; both must be one type",
                         attn_dtype_name(dst->dtype), attn_dtype_name(x->dtype));
    }
    if (dst->shape[0] != x->shape[1]) {
        return attn_fail(ATTN_ERR_SHAPE, "dst: [%lld] does not match x's %lld columns",
                         (long long)dst->shape[0], (long long)x->shape[1]);
    }
    return ATTN_OK;
}

attn_status attn_sum_rows(attn_context *context, const attn_view *x, bool accumulate,
                          const attn_view *dst)
{
    attn_status status = check(context, x, dst);
    if (status != ATTN_OK || x->shape[1] == 0) {
        return status;
    }
    int64_t rows = x->shape[0], n = x->shape[1];
    attn_view dense = *x;
    dense.stride[0] = rows > 1 ? x->stride[0] : 0;
    sums s = {.x = &dense, .dst = dst, .accumulate = accumulate};
    s.blocks = rows / ROWS + (rows % ROWS != 0);
    s.strips = (n - 1) / COLUMNS + 1;
    size_t size;
    if (!attn_mul_size((size_t)s.blocks, (size_t)n, &size) ||
        !attn_mul_size(size, attn_dtype_size(x->dtype), &size)) {
        return attn_fail(ATTN_ERR_SHAPE, "x: [%lld, %lld] is larger than memory can be",
                         (long long)rows, (long long)n);
    }
    void *scratch;
    status = attn_context_scratch(context, size, &scratch);
    if (status == ATTN_OK) {
        s.partial = scratch;
        attn_context_run(context, s.blocks * s.strips, x->dtype == ATTN_F32, block_task, &s);
        attn_sum_blocks(context, scratch, s.blocks, n, accumulate, dst);
    }
    return status;
}
