#include "oracle.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- elements --------------------------------------------------------------------------------- */

static double half_to_double(uint16_t bits)
{
    int exponent = (bits >> 10) & 31;
    double mantissa = bits & 1023;
    double value;
    if (exponent == 31) {
        value = mantissa != 0 ? NAN : INFINITY;
    } else if (exponent == 0) {
        value = ldexp(mantissa, -24);
    } else {
        value = ldexp(1024 + mantissa, exponent - 25);
    }
    return bits & 0x8000 ? -value : value;
}

/* `value` rounded to a multiple of a power of two, so that `digits` significant bits remain; no
 * grid is finer than 2^least. The default rounding mode makes nearbyint round half to even. */
static double round_to_digits(double value, int digits, int least)
{
    int exponent;
    if (value == 0 || !isfinite(value)) {
        return value;
    }
    frexp(value, &exponent);
    int grid = exponent - digits > least ? exponent - digits : least;
    return ldexp(nearbyint(ldexp(value, -grid)), grid);
}

static uint16_t double_to_half(double value)
{
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs(round_to_digits(value, 11, -24));
    int exponent;
    if (isnan(value)) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (magnitude > 65504) {
        return (uint16_t)(sign | 0x7c00);
    }
    if (magnitude < 0x1p-14) {
        return (uint16_t)(sign | (uint16_t)ldexp(magnitude, 24));
    }
    frexp(magnitude, &exponent);
    int mantissa = (int)ldexp(magnitude, 11 - exponent) - 1024;
    return (uint16_t)(sign | (uint16_t)((exponent + 14) << 10) | (uint16_t)mantissa);
}

double oracle_load(const attn_view *view, int64_t index)
{
    float f;
    uint32_t bits;
    switch (view->dtype) {
    case ATTN_F64: return ((const double *)view->data)[index];
    case ATTN_F32:
        f = ((const float *)view->data)[index];
        return fpclassify(f) == FP_SUBNORMAL ? 0 : (double)f;
    case ATTN_BF16:
        bits = (uint32_t)((const uint16_t *)view->data)[index] << 16;
        memcpy(&f, &bits, sizeof f);
        return fpclassify(f) == FP_SUBNORMAL ? 0 : (double)f;
    case ATTN_F16: return half_to_double(((const uint16_t *)view->data)[index]);
    default: return ((const uint8_t *)view->data)[index] != 0 ? 1 : 0;
    }
}

void oracle_store(const attn_view *view, int64_t index, double value)
{
    float f;
    uint32_t bits;
    switch (view->dtype) {
    case ATTN_F64: ((double *)view->data)[index] = value; break;
    case ATTN_F32: ((float *)view->data)[index] = (float)value; break;
    case ATTN_BF16:
        f = (float)round_to_digits(value, 8, -133);
        memcpy(&bits, &f, sizeof bits);
        ((uint16_t *)view->data)[index] = (uint16_t)((bits >> 16) | (isnan(f) ? 0x40 : 0));
        break;
    case ATTN_F16: ((uint16_t *)view->data)[index] = double_to_half(value); break;
    default: ((uint8_t *)view->data)[index] = value != 0; break;
    }
}

int64_t oracle_at(const attn_view *view, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    int64_t index[4] = {i0, i1, i2, i3};
    int64_t at = 0;
    for (int d = 0; d < view->ndim; d++) {
        at += index[d] * view->stride[d];
    }
    return at;
}

/* A mask or bias of 2 to 4 dimensions, broadcast from the right to [b, h, i, j]. */
static double load_broadcast(const attn_view *view, int64_t b, int64_t h, int64_t i, int64_t j)
{
    int64_t index[4] = {b, h, i, j};
    int64_t at = 0;
    for (int d = 0; d < view->ndim; d++) {
        int64_t position = index[4 - view->ndim + d];
        at += (view->shape[d] == 1 ? 0 : position) * view->stride[d];
    }
    return oracle_load(view, at);
}

/* ---- who sees whom ---------------------------------------------------------------------------- */

static const attn_sdpa_options none = {.struct_size = sizeof(attn_sdpa_options)};

attn_kv_view oracle_kv(const attn_view *k, const attn_view *v)
{
    return (attn_kv_view){.struct_size = sizeof(attn_kv_view), .k = *k, .v = *v};
}

static int64_t rows_of(const attn_sdpa_options *o, const attn_view *q, int64_t b)
{
    return o->lengths_q ? o->lengths_q[b] : q->shape[2];
}

static int64_t keys_of(const attn_sdpa_options *o, const attn_kv_view *kv, int64_t b)
{
    if (kv->length) {
        return kv->length[b];
    }
    return o->lengths_k ? o->lengths_k[b] : kv->k.shape[2];
}

/* Columns of mask, bias and weights: all of k, or on a cache the largest length held. */
static int64_t columns_of(const attn_kv_view *kv, bool cached)
{
    int64_t columns = 0;
    if (!cached || !kv->length) {
        return kv->k.shape[2];
    }
    for (int64_t b = 0; b < kv->k.shape[0]; b++) {
        columns = kv->length[b] > columns ? kv->length[b] : columns;
    }
    return columns;
}

int64_t oracle_slot(const attn_kv_view *kv, int64_t b, int64_t j)
{
    return kv->ring > 0 ? ((kv->first ? kv->first[b] : 0) + j) % kv->ring : j;
}

static int64_t key_position(const attn_kv_view *kv, int64_t b, int64_t j)
{
    return (kv->first ? kv->first[b] : 0) + j;
}

static int64_t query_position(const attn_sdpa_options *o, const attn_view *q,
                              const attn_kv_view *kv, bool cached, int64_t b, int64_t i)
{
    if (o->q_offset_count > 0) {
        return i + o->q_offset[o->q_offset_count > 1 ? b : 0];
    }
    if (cached || o->causal == ATTN_CAUSAL_BOTTOM_RIGHT) {
        return key_position(kv, b, i + keys_of(o, kv, b) - rows_of(o, q, b));
    }
    return i;
}

bool oracle_attends(const attn_sdpa_options *options, const attn_view *q, const attn_kv_view *kv,
                    bool cached, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const attn_sdpa_options *o = options ? options : &none;
    if (i >= rows_of(o, q, b) || j >= keys_of(o, kv, b)) {
        return false;
    }
    int64_t p = query_position(o, q, kv, cached, b, i);
    int64_t at = key_position(kv, b, j);
    if (o->causal != ATTN_CAUSAL_NONE && at > p) {
        return false;
    }
    if (o->has_window && o->window_left >= 0 && p - at > o->window_left) {
        return false;
    }
    if (o->has_window && o->window_right >= 0 && at - p > o->window_right) {
        return false;
    }
    if (o->mask && load_broadcast(o->mask, b, h, i, j) == 0) {
        return false;
    }
    return !(o->bias && load_broadcast(o->bias, b, h, i, j) == -INFINITY);
}

int64_t oracle_distance(const attn_sdpa_options *options, const attn_view *q,
                        const attn_kv_view *kv, bool cached, int64_t b, int64_t i, int64_t j)
{
    int64_t distance = query_position(options, q, kv, cached, b, i) - key_position(kv, b, j);
    return options->causal == ATTN_CAUSAL_NONE && distance < 0 ? -distance : distance;
}

/* ---- dropout ---------------------------------------------------------------------------------- */

/* Philox4x32-10: ten rounds of two 32×32→64-bit products; the key steps between rounds. */
static void philox(uint32_t counter[4], uint32_t key[2])
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xD2511F53ull * counter[0];
        uint64_t b = 0xCD9E8D57ull * counter[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ counter[1] ^ key[0], (uint32_t)b,
                            (uint32_t)(a >> 32) ^ counter[3] ^ key[1], (uint32_t)a};
        memcpy(counter, next, sizeof next);
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
}

double oracle_keep(const attn_sdpa_options *options, int64_t b, int64_t h, int64_t i, int64_t j)
{
    if (!options || options->dropout == 0) {
        return 1;
    }
    uint32_t counter[4] = {(uint32_t)(j / 4), (uint32_t)i, (uint32_t)h, (uint32_t)b};
    uint32_t key[2] = {(uint32_t)options->dropout_seed, (uint32_t)(options->dropout_seed >> 32)};
    philox(counter, key);
    bool kept = counter[j % 4] >= floor(options->dropout * 4294967296.0);
    return kept ? 1 / (1 - options->dropout) : 0;
}

/* ---- one row ---------------------------------------------------------------------------------- */

/* What float32 arithmetic makes of a score beyond its range. */
static double overflowed(double x, bool f64)
{
    return !f64 && fabs(x) >= 0x1.ffffffp127 ? copysign(INFINITY, x) : x;
}

typedef struct row {
    const attn_sdpa_options *o;
    const attn_view *q;
    const attn_kv_view *kv;
    bool cached, f64;
    int64_t b, h, i;
    const double *qs, *ks, *vs; /* the elements of q and of the cache, dense */
} row;

/* Slot `slot` of the row's key/value head in a dense copy of k or v. */
static const double *slot_of(const row *r, const double *elements, const attn_view *view,
                             int64_t slot)
{
    int64_t head = r->h / (r->q->shape[1] / view->shape[1]);
    return elements + ((r->b * view->shape[1] + head) * view->shape[2] + slot) * view->shape[3];
}

/* A float64 result is compared with bounds of its own size: there the sum itself must be better. */
static double dot_product(const double *q, const double *k, int64_t dim, bool f64,
                          double *magnitude)
{
    long double exact = 0;
    double sum = 0;
    for (int64_t d = 0; d < dim; d++) {
        *magnitude += fabs(q[d] * k[d]);
        if (f64) {
            exact += (long double)q[d] * (long double)k[d];
        } else {
            sum += q[d] * k[d];
        }
    }
    return f64 ? (double)exact : sum;
}

/* Scaled, capped, biased score of column j; *size: the sum of the magnitudes that went into it. */
static double score(const row *r, int64_t j, double *size)
{
    const attn_sdpa_options *o = r->o;
    const double *q =
        r->qs + ((r->b * r->q->shape[1] + r->h) * r->q->shape[2] + r->i) * r->q->shape[3];
    const double *k = slot_of(r, r->ks, &r->kv->k, oracle_slot(r->kv, r->b, j));
    double scale = o->has_scale ? o->scale : 1 / sqrt((double)r->q->shape[3]);
    double magnitude = 0;
    double dot = dot_product(q, k, r->q->shape[3], r->f64, &magnitude);
    double s = overflowed(scale * dot, r->f64);
    *size = fabs(scale) * magnitude;
    if (o->softcap > 0) {
        s = o->softcap * tanh(s / o->softcap);
    }
    if (o->bias) {
        double bias = load_broadcast(o->bias, r->b, r->h, r->i, j);
        s += bias;
        *size += fabs(bias);
    }
    if (o->alibi) {
        double slope = oracle_load(o->alibi, r->h * o->alibi->stride[0]);
        double alibi = -slope * (double)oracle_distance(o, r->q, r->kv, r->cached, r->b, r->i, j);
        s += alibi;
        *size += fabs(alibi);
    }
    return overflowed(s, r->f64);
}

/* Largest attended score and the row's bound; the kind as far as the scores tell it. */
static oracle_kind row_scores(const row *r, const oracle_result *result, int64_t at, double *scores,
                              double *maximum)
{
    bool any = false;
    bool bad = false;
    double largest = 0;
    *maximum = -INFINITY;
    for (int64_t j = 0; j < result->len_k; j++) {
        double size = 0;
        result->attends[at * result->len_k + j] =
            oracle_attends(r->o, r->q, r->kv, r->cached, r->b, r->h, r->i, j);
        if (!result->attends[at * result->len_k + j]) {
            continue;
        }
        scores[j] = score(r, j, &size);
        any = true;
        bad = bad || isnan(scores[j]) || scores[j] == INFINITY;
        *maximum = fmax(*maximum, scores[j]);
        largest = fmax(largest, size);
    }
    if (r->o->sinks) { /* the sink is one more score of the row: it rounds like one */
        largest = fmax(largest, fabs(oracle_load(r->o->sinks, r->h * r->o->sinks->stride[0])));
    }
    result->bound[at] = 4 * (r->f64 ? 0x1p-52 : 0x1p-24) * (8 + largest);
    if (!any) {
        return ORACLE_EMPTY;
    }
    return bad || *maximum == -INFINITY ? ORACLE_NAN : ORACLE_ORDINARY;
}

static void row_values(const row *r, const oracle_result *result, int64_t at)
{
    const double *weights = result->weights + at * result->len_k;
    const bool *attends = result->attends + at * result->len_k;
    double *out = result->out + at * result->dim_v;
    double largest = 1 / (1 - r->o->dropout); /* of what dropout multiplies with */
    for (int64_t j = 0; j < result->len_k; j++) {
        const double *v = slot_of(r, r->vs, &r->kv->v, oracle_slot(r->kv, r->b, j));
        double keep = oracle_keep(r->o, r->b, r->h, r->i, j);
        for (int64_t d = 0; attends[j] && d < result->dim_v; d++) {
            /* inf·0 is NaN, here as in the contract: an attended non-finite V never vanishes */
            out[d] += weights[j] * keep * v[d];
            result->v_max[at] = fmax(result->v_max[at], isfinite(v[d]) ? fabs(v[d]) * largest : 0);
        }
    }
}

static void row_compute(const row *r, const oracle_result *result, int64_t at, double *scores)
{
    double maximum;
    double sink = r->o->sinks ? oracle_load(r->o->sinks, r->h * r->o->sinks->stride[0]) : -INFINITY;
    oracle_kind kind = row_scores(r, result, at, scores, &maximum);
    double *weights = result->weights + at * result->len_k;
    result->kind[at] = kind;
    result->lse[at] = kind == ORACLE_NAN ? NAN : -INFINITY;
    if (kind != ORACLE_ORDINARY) {
        for (int64_t d = 0; kind == ORACLE_NAN && d < result->dim_v; d++) {
            result->out[at * result->dim_v + d] = NAN;
        }
        return;
    }
    maximum = fmax(maximum, sink);
    double sum = isinf(sink) ? 0 : exp(sink - maximum);
    for (int64_t j = 0; j < result->len_k; j++) {
        weights[j] = result->attends[at * result->len_k + j] ? exp(scores[j] - maximum) : 0;
        sum += weights[j];
    }
    for (int64_t j = 0; j < result->len_k; j++) {
        weights[j] /= sum;
    }
    result->lse[at] = maximum + log(sum);
    row_values(r, result, at);
}

/* ---- all rows --------------------------------------------------------------------------------- */

static void *zeros(int64_t count, size_t size)
{
    void *memory = calloc((size_t)count + 1, size);
    if (!memory) {
        fprintf(stderr, "oracle: out of memory\n");
        abort();
    }
    return memory;
}

/* All elements of a 4-D view, row-major. */
static double *elements_of(const attn_view *view)
{
    const int64_t *n = view->shape;
    double *all = zeros(n[0] * n[1] * n[2] * n[3], sizeof *all);
    for (int64_t e = 0; e < n[0] * n[1] * n[2] * n[3]; e++) {
        int64_t l = e / n[3];
        all[e] = oracle_load(view,
                             oracle_at(view, l / n[2] / n[1], l / n[2] % n[1], l % n[2], e % n[3]));
    }
    return all;
}

oracle_result oracle_sdpa(const attn_sdpa_options *options, const attn_view *q,
                          const attn_kv_view *kv, bool cached)
{
    oracle_result result = {.batch = q->shape[0],
                            .heads_q = q->shape[1],
                            .len_q = q->shape[2],
                            .len_k = columns_of(kv, cached),
                            .dim_v = kv->v.shape[3],
                            .f64 = q->dtype == ATTN_F64};
    int64_t rows = result.batch * result.heads_q * result.len_q;
    result.out = zeros(rows * result.dim_v, sizeof *result.out);
    result.lse = zeros(rows, sizeof *result.lse);
    result.weights = zeros(rows * result.len_k, sizeof *result.weights);
    result.bound = zeros(rows, sizeof *result.bound);
    result.v_max = zeros(rows, sizeof *result.v_max);
    result.kind = zeros(rows, sizeof *result.kind);
    result.attends = zeros(rows * result.len_k, sizeof *result.attends);
    double *scores = zeros(result.len_k, sizeof *scores);
    double *elements[3] = {elements_of(q), elements_of(&kv->k), elements_of(&kv->v)};
    for (int64_t at = 0; at < rows; at++) {
        row r = {.o = options ? options : &none,
                 .q = q,
                 .kv = kv,
                 .cached = cached,
                 .f64 = result.f64,
                 .b = at / (result.heads_q * result.len_q),
                 .h = at / result.len_q % result.heads_q,
                 .i = at % result.len_q,
                 .qs = elements[0],
                 .ks = elements[1],
                 .vs = elements[2]};
        row_compute(&r, &result, at, scores);
    }
    for (int n = 0; n < 3; n++) {
        free(elements[n]);
    }
    free(scores);
    return result;
}

void oracle_free(oracle_result *result)
{
    free(result->out);
    free(result->lse);
    free(result->weights);
    free(result->bound);
    free(result->v_max);
    free(result->kind);
    free(result->attends);
    *result = (oracle_result){0};
}
