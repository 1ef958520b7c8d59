/**
 * loop.c: one function over the elements of several strided tensors. Dimensions are put in the order that the result has in memory and
 * joined where all operands allow it, so that most calls end as one long row.
 */
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

/* Elements of a piece: some µs of one core, and small enough for the first caches. */
enum { PIECE = 16384 };

typedef struct loop {
    int count, ndim;
    int64_t shape[4], stride[ATTN_LOOP_OPERANDS][4];
    char *data[ATTN_LOOP_OPERANDS];
    int64_t size; /* of an element of operand 0 */
    int64_t sizes[ATTN_LOOP_OPERANDS];
    int64_t rows, row_pieces, piece, rows_per_task;
    attn_loop_body *body;
    const void *user;
} loop;

/* Dimensions by falling stride of what is written. */
static void order_dims(loop *l)
{
    for (int i = 1; i < l->ndim; i++) {
        for (int j = i; j > 0 && llabs(l->stride[0][j - 1]) < llabs(l->stride[0][j]); j--) {
            int64_t swap = l->shape[j];
            l->shape[j] = l->shape[j - 1];
            l->shape[j - 1] = swap;
            for (int k = 0; k < l->count; k++) {
                swap = l->stride[k][j];
                l->stride[k][j] = l->stride[k][j - 1];
                l->stride[k][j - 1] = swap;
            }
        }
    }
}

static bool joins(const loop *l, int outer, int inner)
{
    for (int k = 0; k < l->count; k++) {
        if (l->stride[k][outer] != l->stride[k][inner] * l->shape[inner]) {
            return false;
        }
    }
    return true;
}

/* Drops sizes of 1 and joins neighbours. */
static void join_dims(loop *l)
{
    int kept = 0;
    for (int i = 0; i < l->ndim; i++) {
        if (l->shape[i] == 1) {
            continue;
        }
        l->shape[kept] = l->shape[i];
        for (int k = 0; k < l->count; k++) {
            l->stride[k][kept] = l->stride[k][i];
        }
        if (kept > 0 && joins(l, kept - 1, kept)) {
            l->shape[kept - 1] *= l->shape[kept];
            for (int k = 0; k < l->count; k++) {
                l->stride[k][kept - 1] = l->stride[k][kept];
            }
        } else {
            kept++;
        }
    }
    l->ndim = kept;
    if (kept == 0) {
        l->ndim = 1;
        l->shape[0] = 1;
        for (int k = 0; k < l->count; k++) {
            l->stride[k][0] = 1;
        }
    }
}

static void run_row(const loop *l, int64_t row, int64_t from, int64_t to)
{
    int last = l->ndim - 1;
    void *p[ATTN_LOOP_OPERANDS];
    int64_t s[ATTN_LOOP_OPERANDS];
    for (int k = 0; k < l->count; k++) {
        int64_t rest = row, at = from * l->stride[k][last];
        for (int i = last - 1; i >= 0; i--) {
            at += rest % l->shape[i] * l->stride[k][i];
            rest /= l->shape[i];
        }
        p[k] = l->data[k] + at * l->sizes[k];
        s[k] = l->stride[k][last];
    }
    l->body(l->user, to - from, p, s);
}

static void loop_task(void *argument, int64_t index, int worker)
{
    const loop *l = argument;
    int64_t n = l->shape[l->ndim - 1];
    (void)worker;
    if (l->row_pieces > 1) {
        int64_t from = index % l->row_pieces * l->piece;
        run_row(l, index / l->row_pieces, from, from + l->piece < n ? from + l->piece : n);
        return;
    }
    int64_t end = (index + 1) * l->rows_per_task;
    for (int64_t row = index * l->rows_per_task; row < end && row < l->rows; row++) {
        run_row(l, row, 0, n);
    }
}

attn_status attn_loop(attn_context *context, int count, const attn_view *v, attn_loop_body *body,
                      const void *user)
{
    loop l = {.count = count, .ndim = v[0].ndim, .body = body, .user = user};
    if (attn_view_count(&v[0]) == 0) {
        return ATTN_OK;
    }
    memcpy(l.shape, v[0].shape, sizeof l.shape);
    for (int k = 0; k < count; k++) {
        attn_view wide = k == 0 ? v[0] : attn_view_broadcast(&v[k], v[0].ndim, v[0].shape);
        l.data[k] = wide.data;
        l.sizes[k] = (int64_t)attn_dtype_size(wide.dtype);
        memcpy(l.stride[k], wide.stride, sizeof l.stride[k]);
    }
    order_dims(&l);
    join_dims(&l);
    int64_t n = l.shape[l.ndim - 1];
    l.rows = attn_view_count(&v[0]) / n;
    l.piece = PIECE;
    l.row_pieces = (n + PIECE - 1) / PIECE;
    l.rows_per_task = n < PIECE ? PIECE / n : 1;
    int64_t tasks = l.row_pieces > 1 ? l.rows * l.row_pieces : (l.rows - 1) / l.rows_per_task + 1;
    if (tasks == 1) {
        loop_task(&l, 0, 0);
        return ATTN_OK;
    }
    return attn_parallel_for(context, tasks, loop_task, &l);
}

/* ---- copies ---- */

typedef struct copy_call {
    double factor;
    bool accumulate;
} copy_call;

#define COPY_BODY(S)                                                                    \
    static void copy_##S(const void *user, int64_t n, void *const *p, const int64_t *s) \
    {                                                                                   \
        const copy_call *c = user;                                                      \
        number_##S *restrict y = p[0];                                                  \
        const number_##S *restrict x = p[1];                                            \
        number_##S factor = (number_##S)c->factor;                                      \
        bool unit = s[0] == 1 && s[1] == 1;                                             \
        if (unit && !c->accumulate && c->factor == 1.0) {                               \
            memcpy(y, x, (size_t)n * sizeof *y);                                        \
        } else if (unit && !c->accumulate) {                                            \
            for (int64_t i = 0; i < n; i++) {                                           \
                y[i] = factor * x[i];                                                   \
            }                                                                           \
        } else if (unit && c->factor == 1.0) {                                          \
            for (int64_t i = 0; i < n; i++) {                                           \
                y[i] += x[i];                                                           \
            }                                                                           \
        } else {                                                                        \
            for (int64_t i = 0; i < n; i++) {                                           \
                number_##S old = c->accumulate ? y[i * s[0]] : (number_##S)0;           \
                number_##S add = c->factor == 1.0 ? x[i * s[1]] : factor * x[i * s[1]]; \
                y[i * s[0]] = c->accumulate ? old + add : add;                          \
            }                                                                           \
        }                                                                               \
    }
COPY_BODY(f32)
COPY_BODY(f64)

attn_status attn_loop_copy(attn_context *context, const attn_view *src, const attn_view *dst,
                           double factor, bool accumulate)
{
    copy_call c = {.factor = factor, .accumulate = accumulate};
    attn_view v[2] = {*dst, *src};
    return attn_loop(context, 2, v, dst->dtype == ATTN_F32 ? copy_f32 : copy_f64, &c);
}

static void fill_f32(const void *user, int64_t n, void *const *p, const int64_t *s)
{
    float *y = p[0], value = (float)*(const double *)user;
    for (int64_t i = 0; i < n; i++) {
        y[i * s[0]] = value;
    }
}

static void fill_f64(const void *user, int64_t n, void *const *p, const int64_t *s)
{
    double *y = p[0], value = *(const double *)user;
    for (int64_t i = 0; i < n; i++) {
        y[i * s[0]] = value;
    }
}

attn_status attn_loop_fill(attn_context *context, const attn_view *dst, double value)
{
    return attn_loop(context, 1, dst, dst->dtype == ATTN_F32 ? fill_f32 : fill_f64, &value);
}
