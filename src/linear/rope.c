/**
 * rope.c: rotary embedding of [batch, heads, len, dim] in place, and back.
 */
#include "kernels/rope/rope.h"
#include "linear/check.h"
#include "par/context.h"

#include <attn/ops.h>
#include <math.h>

enum {
    PAIRS = 128,  /* whose angles are held at a time */
    PIECE = 16384 /* floats: below it waking a thread costs more than it saves */
};

typedef struct rope_call {
    const attn_view *x;
    const int64_t *positions;
    double theta;
    int64_t pairs;
    attn_rope_pairing pairing;
    bool inverse;
    const attn_rope_table *table;
    int64_t rows_per_piece; /* a row is one position of one sequence, all heads */
} rope_call;

/* frequency[i] = theta^(−2(first + i)/dims): one power, then products (each rounds by 1e-16). */
static void frequencies(const rope_call *c, int64_t first, int64_t count, double *frequency)
{
    double dims = 2.0 * (double)c->pairs;
    double step = pow(c->theta, -2.0 / dims);
    frequency[0] = first == 0 ? 1.0 : pow(c->theta, -2.0 * (double)first / dims);
    for (int64_t i = 1; i < count; i++) {
        frequency[i] = frequency[i - 1] * step;
    }
}

/* Pairs first … first + count − 1 of every head of one row. */
static void rotate_row(const rope_call *c, int64_t row, int64_t first, int64_t count,
                       const double *frequency)
{
    const attn_view *x = c->x;
    float cosine[PAIRS], sine[PAIRS];
    int64_t b = row / x->shape[2], l = row % x->shape[2];
    double position = (double)c->positions[row];
    /* The largest frequency is the first for theta ≥ 1 and the last below it. */
    double widest = fabs(position) * fmax(frequency[0], frequency[count - 1]);
    if (widest <= ATTN_ROPE_FAR) {
        c->table->angles(frequency, position, count, cosine, sine);
    } else {
        attn_rope_angles_c(frequency, position, count, cosine, sine);
    }
    for (int64_t i = 0; c->inverse && i < count; i++) {
        sine[i] = -sine[i];
    }
    float *head = (float *)x->data + b * x->stride[0] + l * x->stride[2];
    for (int64_t h = 0; h < x->shape[1]; h++) {
        if (c->pairing == ATTN_ROPE_INTERLEAVED) {
            c->table->interleaved(head + 2 * first, cosine, sine, count);
        } else {
            c->table->halves(head + first, head + first + c->pairs, cosine, sine, count);
        }
        head += x->stride[1];
    }
}

/* The same in double, for tests. */
static void rotate_row_f64(const rope_call *c, int64_t row, int64_t first, int64_t count,
                           const double *frequency)
{
    const attn_view *x = c->x;
    int64_t b = row / x->shape[2], l = row % x->shape[2];
    bool pairs_adjoin = c->pairing == ATTN_ROPE_INTERLEAVED;
    for (int64_t i = 0; i < count; i++) {
        double angle = (double)c->positions[row] * frequency[i];
        double cosine = cos(angle), sine = c->inverse ? -sin(angle) : sin(angle);
        int64_t pair = first + i;
        double *low = (double *)x->data + b * x->stride[0] + l * x->stride[2] +
                      (pairs_adjoin ? 2 * pair : pair);
        for (int64_t h = 0; h < x->shape[1]; h++) {
            double *high = low + (pairs_adjoin ? 1 : c->pairs), p = *low, q = *high;
            *low = p * cosine - q * sine;
            *high = q * cosine + p * sine;
            low += x->stride[1];
        }
    }
}

static void rope_task(void *argument, int64_t index, int worker)
{
    const rope_call *c = argument;
    int64_t rows = c->x->shape[0] * c->x->shape[2];
    int64_t begin = index * c->rows_per_piece, end = begin + c->rows_per_piece;
    double frequency[PAIRS];
    (void)worker;
    end = end < rows ? end : rows;
    for (int64_t first = 0; first < c->pairs; first += PAIRS) {
        int64_t count = c->pairs - first < PAIRS ? c->pairs - first : PAIRS;
        frequencies(c, first, count, frequency);
        for (int64_t row = begin; row < end; row++) {
            if (c->x->dtype == ATTN_F64) {
                rotate_row_f64(c, row, first, count, frequency);
            } else {
                rotate_row(c, row, first, count, frequency);
            }
        }
    }
}

static attn_status check(const attn_context *context, const attn_view *x, const int64_t *positions,
                         double theta, int64_t dims, attn_rope_pairing pairing)
{
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_status status = attn_check_float("x", x, 4, "[batch, heads, len, dim]");
    if (status != ATTN_OK) {
        return status;
    }
    if (dims < 0 || dims > x->shape[3] || dims % 2 != 0) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "dims: %lld must be even and at most dim = %lld; 0 rotates all of dim, "
                         "which must be even then",
                         (long long)dims, (long long)x->shape[3]);
    }
    if (dims == 0 && x->shape[3] % 2 != 0) {
        return attn_fail(ATTN_ERR_SHAPE, "x: dim %lld is odd; give an even dims below it",
                         (long long)x->shape[3]);
    }
    if (!(theta > 0.0) || isinf(theta)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "theta: %g must be positive and finite; 10000 is usual",
                         theta);
    }
    if (pairing != ATTN_ROPE_INTERLEAVED && pairing != ATTN_ROPE_HALVES) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "pairing: %d is neither ATTN_ROPE_INTERLEAVED nor ATTN_ROPE_HALVES",
                         (int)pairing);
    }
    for (int d = 0; d < 3; d++) {
        if (x->shape[d] > 1 && x->stride[d] == 0) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "x: stride of dimension %d is 0; what is rotated in place must not "
                             "overlap itself",
                             d);
        }
    }
    int64_t rows;
    if (__builtin_mul_overflow(x->shape[0], x->shape[2], &rows)) {
        return attn_fail(ATTN_ERR_SHAPE, "x: batch %lld × len %lld overflows",
                         (long long)x->shape[0], (long long)x->shape[2]);
    }
    if (!positions && rows > 0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "positions: must not be NULL; give the absolute position of every token");
    }
    return ATTN_OK;
}

static attn_status rotate(attn_context *context, const attn_view *x, const int64_t *positions,
                          double theta, int64_t dims, attn_rope_pairing pairing, bool inverse)
{
    attn_status status = check(context, x, positions, theta, dims, pairing);
    if (status != ATTN_OK) {
        return status;
    }
    rope_call c = {
        .x = x,
        .positions = positions,
        .theta = theta,
        .pairs = (dims ? dims : x->shape[3]) / 2,
        .pairing = pairing,
        .inverse = inverse,
        .table = attn_rope_table_for(attn_context_isa(context)),
    };
    int64_t rows = x->shape[0] * x->shape[2];
    if (rows == 0 || x->shape[1] == 0 || c.pairs == 0) {
        return ATTN_OK;
    }
    double floats = 2.0 * (double)c.pairs * (double)x->shape[1];
    c.rows_per_piece = floats >= PIECE ? 1 : (int64_t)(PIECE / floats);
    attn_context_run(context, (rows - 1) / c.rows_per_piece + 1, x->dtype == ATTN_F32, rope_task,
                     &c);
    return ATTN_OK;
}

attn_status attn_rope(attn_context *context, const attn_view *x, const int64_t *positions,
                      double theta, int64_t dims, attn_rope_pairing pairing)
{
    return rotate(context, x, positions, theta, dims, pairing, false);
}

attn_status attn_rope_inverse(attn_context *context, const attn_view *x, const int64_t *positions,
                              double theta, int64_t dims, attn_rope_pairing pairing)
{
    return rotate(context, x, positions, theta, dims, pairing, true);
}
