/**
 * fill.c: arrays of random numbers: element i of a stream is the same number whatever fills it, in whatever pieces.
 */
#include "base/rng.h"
#include "linear/check.h"
#include "par/context.h"

#include <attn/ops.h>

#include <math.h>

typedef struct fill {
    uint64_t seed, stream;
    bool normal;
    double a, b; /* low and high, or mean and std */
} fill;

/* Box and Muller 1958: elements 2i and 2i+1 are the cosine and the sine of one pair of uniforms. */
static double normal_at(const fill *f, uint64_t index, double *next)
{
    double radius = sqrt(-2.0 * log(1.0 - attn_uniform(f->seed, f->stream, index)));
    double angle = 6.283185307179586476925 * attn_uniform(f->seed, f->stream, index + 1);
    *next = f->a + f->b * radius * sin(angle);
    return f->a + f->b * radius * cos(angle);
}

/* low + (high − low)·u rounds to high now and then, most of all in f32: what is below it instead. */
static double below(double value, double high, bool f64)
{
    if (f64) {
        return value < high ? value : nextafter(high, -(double)INFINITY);
    }
    float to = (float)high;
    to = (double)to < high ? to : nextafterf(to, -INFINITY); /* the largest below high */
    return (float)value < high ? value : (double)to;
}

static void put(const attn_view *x, int64_t offset, double value)
{
    if (x->dtype == ATTN_F64) {
        ((double *)x->data)[offset] = value;
    } else {
        ((float *)x->data)[offset] = (float)value;
    }
}

static int64_t row_offset(const attn_view *x, int64_t row)
{
    int64_t offset = 0;
    for (int d = x->ndim - 2; d >= 0; d--) {
        offset += row % x->shape[d] * x->stride[d];
        row /= x->shape[d];
    }
    return offset;
}

typedef struct fill_call {
    const fill *f;
    const attn_view *x;
    int64_t count;
} fill_call;

/* Elements of a task: an even number, so that pairs stay together. */
enum { PIECE = 8192 };

static void fill_task(void *argument, int64_t task, int worker)
{
    const fill_call *call = argument;
    const fill *f = call->f;
    const attn_view *x = call->x;
    int64_t columns = x->shape[x->ndim - 1], at = task * PIECE;
    int64_t end = call->count - at > PIECE ? at + PIECE : call->count;
    double next = 0.0;
    (void)worker;
    while (at < end) {
        int64_t c = at % columns, n = columns - c < end - at ? columns - c : end - at;
        int64_t offset = row_offset(x, at / columns) + c;
        for (int64_t i = 0; i < n; i++, at++) {
            uint64_t index = (uint64_t)at;
            double value = next;
            if (!f->normal) {
                value = f->a + (f->b - f->a) * attn_uniform(f->seed, f->stream, index);
                value = f->a < f->b ? below(value, f->b, x->dtype == ATTN_F64) : f->a;
            } else if (index % 2 == 0) {
                value = normal_at(f, index, &next);
            }
            put(x, offset + i, value);
        }
    }
}

static attn_status run(attn_context *context, const fill *f, const attn_view *x)
{
    attn_status status = attn_check_view("x", x);
    if (status != ATTN_OK) {
        return status;
    }
    if (x->dtype != ATTN_F32 && x->dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "x: is %s, must be f32 or f64; fill an f32 array and "
                         "convert it with attn_convert",
                         attn_dtype_name(x->dtype));
    }
    if (x->shape[x->ndim - 1] > 1 && x->stride[x->ndim - 1] != 1) {
        return attn_fail(ATTN_ERR_SHAPE, "x: stride of the last dimension is %lld, must be 1",
                         (long long)x->stride[x->ndim - 1]);
    }
    fill_call call = {.f = f, .x = x, .count = 1};
    for (int d = 0; d < x->ndim; d++) {
        if (__builtin_mul_overflow(call.count, x->shape[d], &call.count)) {
            return attn_fail(ATTN_ERR_SHAPE, "x: its sizes overflow");
        }
    }
    int64_t tasks = call.count / PIECE + (call.count % PIECE != 0);
    if (context) {
        attn_context_run(context, tasks, false, fill_task, &call);
    }
    for (int64_t i = 0; !context && i < tasks; i++) {
        fill_task(&call, i, 0);
    }
    return ATTN_OK;
}

attn_status attn_fill_uniform(attn_context *context, uint64_t seed, uint64_t stream, double low,
                              double high, const attn_view *x)
{
    if (!isfinite(low) || !isfinite(high) || low > high) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "low, high: are %g, %g; both must be finite and low ≤ "
                         "high, for example −1, 1",
                         low, high);
    }
    fill f = {.seed = seed, .stream = stream, .a = low, .b = high};
    return run(context, &f, x);
}

attn_status attn_fill_normal(attn_context *context, uint64_t seed, uint64_t stream, double mean,
                             double std, const attn_view *x)
{
    if (!isfinite(mean) || !isfinite(std) || std < 0.0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "mean, std: are %g, %g; both must be finite and std ≥ 0", mean, std);
    }
    fill f = {.seed = seed, .stream = stream, .normal = true, .a = mean, .b = std};
    return run(context, &f, x);
}
