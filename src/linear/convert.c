/**
 * convert.c: arrays from one element type to another, row by row.
 */
#include "kernels/convert/convert.h"

#include "base/half.h"
#include "linear/check.h"
#include "par/context.h"

#include <attn/ops.h>

enum {
    CHUNK = 512,  /* floats between two conversions */
    PIECE = 16384 /* elements: below it waking a thread costs more than it saves */
};

typedef struct convert_call {
    const attn_view *src, *dst;
    const attn_convert_kernels *kernels;
    int64_t rows, columns, rows_per_piece;
} convert_call;

/* Rounds to odd: with the 13 bits or more that f32 has over a half, rounding once more is rounding once. */
static float narrow_to_odd(double value)
{
    float nearest = (float)value;
    if ((double)nearest == value || value != value) {
        return nearest;
    }
    uint32_t bits = attn_float_bits(nearest);
    double size = value < 0.0 ? -value : value;
    double rounded = attn_bits_float(bits & 0x7fffffffu);
    bits -= rounded > size ? 1u : 0u; /* towards zero */
    return attn_bits_float(bits | 1u);
}

/* `count` ≤ CHUNK elements of src as floats. */
static void to_floats(const convert_call *c, const uint8_t *src, int64_t count, float *out)
{
    switch (c->src->dtype) {
    case ATTN_F32: memcpy(out, src, (size_t)count * sizeof *out); return;
    case ATTN_BF16:
        c->kernels->bf16_to_f32((const uint16_t *)(const void *)src, out, count);
        return;
    case ATTN_F16: c->kernels->f16_to_f32((const uint16_t *)(const void *)src, out, count); return;
    default:
        for (int64_t i = 0; i < count; i++) {
            double value = ((const double *)(const void *)src)[i];
            out[i] = c->dst->dtype == ATTN_F32 ? (float)value : narrow_to_odd(value);
        }
    }
}

static void from_floats(const convert_call *c, const float *in, int64_t count, uint8_t *dst)
{
    switch (c->dst->dtype) {
    case ATTN_F32: memcpy(dst, in, (size_t)count * sizeof *in); return;
    case ATTN_BF16: c->kernels->f32_to_bf16(in, (uint16_t *)(void *)dst, count); return;
    case ATTN_F16: c->kernels->f32_to_f16(in, (uint16_t *)(void *)dst, count); return;
    default:
        for (int64_t i = 0; i < count; i++) {
            ((double *)(void *)dst)[i] = (double)in[i];
        }
    }
}

static void convert_row(const convert_call *c, const uint8_t *src, uint8_t *dst)
{
    size_t from = attn_dtype_size(c->src->dtype), to = attn_dtype_size(c->dst->dtype);
    if (c->src->dtype == c->dst->dtype) {
        memcpy(dst, src, (size_t)c->columns * from);
        return;
    }
    float floats[CHUNK];
    for (int64_t i = 0; i < c->columns; i += CHUNK) {
        int64_t count = c->columns - i < CHUNK ? c->columns - i : CHUNK;
        to_floats(c, src + (size_t)i * from, count, floats);
        from_floats(c, floats, count, dst + (size_t)i * to);
    }
}

/* Where row `row` of a view starts: rows count through all dimensions but the last. */
static uint8_t *row_at(const attn_view *view, int64_t row)
{
    int64_t offset = 0;
    for (int d = view->ndim - 2; d >= 0; d--) {
        offset += row % view->shape[d] * view->stride[d];
        row /= view->shape[d];
    }
    return (uint8_t *)view->data + offset * (int64_t)attn_dtype_size(view->dtype);
}

static void convert_task(void *argument, int64_t index, int worker)
{
    const convert_call *c = argument;
    int64_t end = (index + 1) * c->rows_per_piece;
    (void)worker;
    for (int64_t r = index * c->rows_per_piece; r < end && r < c->rows; r++) {
        convert_row(c, row_at(c->src, r), row_at(c->dst, r));
    }
}

static attn_status check_number(const char *name, const attn_view *view)
{
    attn_status status = attn_check_view(name, view);
    if (status != ATTN_OK) {
        return status;
    }
    if (view->dtype == ATTN_BOOL) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: is bool, must be f32, f64, bf16 or f16", name);
    }
    int last = view->ndim - 1;
    if (view->shape[last] > 1 && view->stride[last] != 1) {
        return attn_fail(ATTN_ERR_SHAPE, "%s: stride of the last dimension is %lld, must be 1",
                         name, (long long)view->stride[last]);
    }
    return ATTN_OK;
}

static attn_status check(const attn_context *context, const attn_view *src, const attn_view *dst)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status = check_number("src", src);
    if (status == ATTN_OK) {
        status = check_number("dst", dst);
    }
    if (status == ATTN_OK) {
        status = attn_check_same_shape("src", src, "dst", dst);
    }
    if (status != ATTN_OK) {
        return status;
    }
    for (int d = 0; d + 1 < dst->ndim; d++) {
        if (dst->shape[d] > 1 && dst->stride[d] == 0) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "dst: stride of dimension %d is 0; what is written must not overlap "
                             "itself",
                             d);
        }
    }
    return ATTN_OK;
}

attn_status attn_convert(attn_context *context, const attn_view *src, const attn_view *dst)
{
    attn_status status = check(context, src, dst);
    if (status != ATTN_OK) {
        return status;
    }
    convert_call c = {.src = src, .dst = dst, .rows = 1, .columns = src->shape[src->ndim - 1]};
    c.kernels = attn_convert_table(attn_context_isa(context));
    for (int d = 0; d + 1 < src->ndim; d++) {
        if (__builtin_mul_overflow(c.rows, src->shape[d], &c.rows)) {
            return attn_fail(ATTN_ERR_SHAPE, "src: its sizes overflow");
        }
    }
    if (c.rows == 0 || c.columns == 0) {
        return ATTN_OK;
    }
    c.rows_per_piece = c.columns >= PIECE ? 1 : PIECE / c.columns;
    /* Subnormals are values like any other here: nothing is flushed. */
    attn_context_run(context, (c.rows - 1) / c.rows_per_piece + 1, false, convert_task, &c);
    return ATTN_OK;
}
