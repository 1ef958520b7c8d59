/*
 * What every path asks of a checked call: positions, ranges, addends, where keys lie. Positions may
 * be anything an int64 can hold (q_offset is the caller's), so they are added up in 128 bits.
 */
#include "attention/call.h"
#include "base/half.h"

#include <math.h>
#include <string.h>

__extension__ typedef __int128 wide;

int64_t sdpa_rows(const sdpa_call *call, int64_t b)
{
    return call->lengths_q ? call->lengths_q[b] : call->len_q;
}

int64_t sdpa_keys(const sdpa_call *call, int64_t b)
{
    return call->lengths_k ? call->lengths_k[b] : call->len_k;
}

static wide position(const sdpa_call *call, int64_t b, int64_t i)
{
    if (call->q_offset) {
        int64_t first = call->cached && call->kv.first ? call->kv.first[b] : 0;
        return (wide)call->q_offset[b * call->q_offset_step] + i - first;
    }
    if (call->cached || call->causal == ATTN_CAUSAL_BOTTOM_RIGHT) {
        return (wide)i + sdpa_keys(call, b) - sdpa_rows(call, b);
    }
    return i;
}

static int64_t clamp(wide value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : (int64_t)value;
}

int64_t sdpa_position(const sdpa_call *call, int64_t b, int64_t i)
{
    return clamp(position(call, b, i), INT64_MIN, INT64_MAX);
}

sdpa_range sdpa_row_range(const sdpa_call *call, int64_t b, int64_t i)
{
    int64_t keys = sdpa_keys(call, b);
    wide p = position(call, b, i);
    sdpa_range range = {0, keys};
    if (call->left >= 0) {
        range.begin = clamp(p - call->left, 0, keys);
    }
    if (call->right >= 0) {
        range.end = clamp(p + call->right + 1, 0, range.end);
    }
    if (call->causal != ATTN_CAUSAL_NONE) {
        range.end = clamp(p + 1, 0, range.end);
    }
    if (range.end < range.begin) { /* the window lies beyond the last key */
        range.end = range.begin;
    }
    return range;
}

bool sdpa_has_addend(const sdpa_call *call)
{
    return call->mask.dtype != ATTN_DTYPE_NONE || call->bias.dtype != ATTN_DTYPE_NONE ||
           call->alibi.dtype != ATTN_DTYPE_NONE;
}

/* The first element of row (b, h, i) of a broadcast view, from column `begin`. */
static const void *row_of(const attn_view *view, int64_t b, int64_t h, int64_t i, int64_t begin)
{
    int64_t at =
        b * view->stride[0] + h * view->stride[1] + i * view->stride[2] + begin * view->stride[3];
    return (const char *)view->data + at * (int64_t)attn_dtype_size(view->dtype);
}

/* addend = bias; a column stride of 0 repeats one number. */
static void load_bias(const attn_view *bias, const void *row, int64_t count, float *addend)
{
    int64_t step = bias->stride[3];
    if (bias->dtype == ATTN_F32 && step == 1) {
        memcpy(addend, row, (size_t)count * sizeof *addend);
        return;
    }
    for (int64_t c = 0; c < count; c++) {
        if (bias->dtype == ATTN_F32) {
            addend[c] = ((const float *)row)[c * step];
        } else if (bias->dtype == ATTN_BF16) {
            addend[c] = attn_bf16_to_float(((const uint16_t *)row)[c * step]);
        } else {
            addend[c] = attn_f16_to_float(((const uint16_t *)row)[c * step]);
        }
    }
}

/*
 * ALiBi's distance p(i) − j, absolute without causality. p is kept within ±2^62, where a float
 * cannot tell the difference and subtracting a column cannot overflow.
 */
static int64_t alibi_position(const sdpa_call *call, int64_t b, int64_t i)
{
    return clamp(position(call, b, i), -((int64_t)1 << 62), (int64_t)1 << 62);
}

static int64_t distance(const sdpa_call *call, int64_t p, int64_t j)
{
    int64_t d = p - j;
    return call->causal == ATTN_CAUSAL_NONE && d < 0 ? -d : d;
}

double sdpa_distance(const sdpa_call *call, int64_t b, int64_t i, int64_t j)
{
    return (double)distance(call, alibi_position(call, b, i), j);
}

/* The bits of −inf; selecting by bits is what compilers turn into vector code for any x86-64. */
#define MINUS_INFINITY 0xff800000u

static inline float select_bits(bool yes, float a, uint32_t b)
{
    uint32_t keep = yes ? 0xffffffffu : 0u;
    return attn_bits_float((attn_float_bits(a) & keep) | (b & ~keep));
}

/* add_alibi where distances first − c are exact in a float. */
static void alibi_near(float *addend, int64_t count, float slope, float first, bool both)
{
    const uint32_t sign = both ? 0x80000000u : 0u; /* what |d| clears */
    for (int32_t c = 0; c < (int32_t)count; c++) {
        float d = attn_bits_float(attn_float_bits(first - (float)c) & ~sign);
        bool there = attn_float_bits(addend[c]) != MINUS_INFINITY;
        addend[c] = select_bits(there, addend[c] - slope * d, MINUS_INFINITY);
    }
}

/*
 * addend −= slope·distance, except where a bias of −inf hides the slot: a slope of inf must not
 * make that a NaN.
 */
static void add_alibi(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t begin,
                      int64_t count, float *addend)
{
    const int64_t exact = (int64_t)1 << 23; /* floats hold such distances and their steps exactly */
    float slope = ((const float *)call->alibi.data)[h];
    int64_t p = alibi_position(call, b, i), first = p - begin;
    if (first > -exact && first < exact && count < exact) {
        alibi_near(addend, count, slope, (float)first, call->causal == ATTN_CAUSAL_NONE);
        return;
    }
    for (int64_t c = 0; c < count; c++) {
        float sum = addend[c] - slope * (float)distance(call, p, begin + c);
        addend[c] = addend[c] == -INFINITY ? -INFINITY : sum;
    }
}

/* addend = −inf where the mask is 0. */
static void hide(const attn_view *mask, const unsigned char *row, int64_t count, float *addend)
{
    if (mask->stride[3] == 0) {
        for (int64_t c = 0; c < count && !row[0]; c++) {
            addend[c] = -INFINITY;
        }
        return;
    }
    for (int64_t c = 0; c < count; c++) {
        addend[c] = select_bits(row[c] != 0, addend[c], MINUS_INFINITY);
    }
}

void sdpa_addend(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t begin,
                 int64_t count, float *addend)
{
    if (count <= 0) {
        return;
    }
    if (call->bias.dtype != ATTN_DTYPE_NONE) {
        load_bias(&call->bias, row_of(&call->bias, b, h, i, begin), count, addend);
    } else {
        memset(addend, 0, (size_t)count * sizeof *addend);
    }
    if (call->alibi.dtype != ATTN_DTYPE_NONE) {
        add_alibi(call, b, h, i, begin, count, addend);
    }
    if (call->mask.dtype != ATTN_DTYPE_NONE) {
        hide(&call->mask, row_of(&call->mask, b, h, i, begin), count, addend);
    }
}

void sdpa_addend_f64(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t begin,
                     int64_t count, double *addend)
{
    if (count <= 0) {
        return;
    }
    bool has_bias = call->bias.dtype != ATTN_DTYPE_NONE;
    bool has_mask = call->mask.dtype != ATTN_DTYPE_NONE;
    bool has_alibi = call->alibi.dtype != ATTN_DTYPE_NONE;
    const double *bias = has_bias ? row_of(&call->bias, b, h, i, begin) : NULL;
    const unsigned char *mask = has_mask ? row_of(&call->mask, b, h, i, begin) : NULL;
    double slope = has_alibi ? ((const double *)call->alibi.data)[h] : 0.0;
    int64_t p = has_alibi ? alibi_position(call, b, i) : 0;
    for (int64_t c = 0; c < count; c++) {
        double sum = has_bias ? bias[c * call->bias.stride[3]] : 0.0;
        bool hidden = sum == -(double)INFINITY || (has_mask && !mask[c * call->mask.stride[3]]);
        if (has_alibi) {
            sum -= slope * (double)distance(call, p, begin + c);
        }
        addend[c] = hidden ? -(double)INFINITY : sum;
    }
}

/* Mask and bias only: whether they leave column j of row i. */
static bool unhidden(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t j)
{
    if (call->mask.dtype != ATTN_DTYPE_NONE &&
        !*(const unsigned char *)row_of(&call->mask, b, h, i, j)) {
        return false;
    }
    if (call->bias.dtype == ATTN_F64) {
        return *(const double *)row_of(&call->bias, b, h, i, j) != -(double)INFINITY;
    }
    if (call->bias.dtype != ATTN_DTYPE_NONE) {
        float bias;
        load_bias(&call->bias, row_of(&call->bias, b, h, i, j), 1, &bias);
        return bias != -INFINITY;
    }
    return true;
}

bool sdpa_attends(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t j)
{
    sdpa_range range = sdpa_row_range(call, b, i);
    return i < sdpa_rows(call, b) && j >= range.begin && j < range.end &&
           unhidden(call, b, h, i, j);
}

bool sdpa_row_attends(const sdpa_call *call, int64_t b, int64_t h, int64_t i)
{
    sdpa_range range = sdpa_row_range(call, b, i);
    if (i >= sdpa_rows(call, b)) {
        return false;
    }
    for (int64_t j = range.begin; j < range.end; j++) {
        if (unhidden(call, b, h, i, j)) {
            return true;
        }
    }
    return false;
}

sdpa_kv_run sdpa_kv_at(const sdpa_call *call, int64_t b, int64_t kv_head, int64_t begin,
                       int64_t wanted)
{
    const attn_view *k = &call->kv.k, *v = &call->kv.v;
    int64_t slot = begin, count = wanted;
    if (call->cached && call->kv.ring > 0) {
        int64_t first = call->kv.first ? call->kv.first[b] : 0;
        slot = (first % call->kv.ring + begin) % call->kv.ring;
        count = wanted < call->kv.ring - slot ? wanted : call->kv.ring - slot;
    }
    int64_t size = (int64_t)attn_dtype_size(k->dtype);
    int64_t k_at = b * k->stride[0] + kv_head * k->stride[1] + slot * k->stride[2];
    int64_t v_at = b * v->stride[0] + kv_head * v->stride[1] + slot * v->stride[2];
    return (sdpa_kv_run){
        .k = (const char *)k->data + k_at * size,
        .v = (const char *)v->data + v_at * size,
        .k_stride = k->stride[2],
        .v_stride = v->stride[2],
        .count = count,
    };
}

double sdpa_sink(const sdpa_call *call, int64_t h)
{
    return call->sinks.dtype == ATTN_F64 ? ((const double *)call->sinks.data)[h]
                                         : (double)((const float *)call->sinks.data)[h];
}
