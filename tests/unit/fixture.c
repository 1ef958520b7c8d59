#include "fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const fixture_size fixture_sizes[FIXTURE_SIZES] = {
    {ATTN_F32, 2, 2, 2, 3, 9, 8, 8},         /* decode: few rows */
    {ATTN_F32, 1, 8, 2, 2, 300, 64, 64},     /* decode: a group, several pieces */
    {ATTN_F32, 2, 4, 2, 70, 131, 64, 64},    /* flash: two row blocks, partial tiles */
    {ATTN_F32, 1, 2, 1, 33, 40, 17, 24},     /* flash: odd dims, dim_v ≠ dim_qk */
    {ATTN_F32, 1, 1, 1, 200, 500, 128, 128}, /* flash: several key blocks */
    {ATTN_BF16, 2, 4, 2, 21, 35, 64, 32},    /* 16 bits */
    {ATTN_F16, 1, 4, 1, 3, 67, 40, 40},      /* 16 bits, few rows */
    {ATTN_F64, 2, 2, 1, 19, 23, 12, 10},     /* float64 */
};

fixture fixture_make(const fixture_size *size)
{
    fixture f = {.size = *size, .context = test_context(2), .random = rng_seed(test_seed(), 7)};
    attn_dtype exact = size->type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    int64_t q[4] = {size->batch, size->heads_q, size->len_q, size->dim_qk};
    int64_t k[4] = {size->batch, size->heads_kv, size->len_k, size->dim_qk};
    int64_t v[4] = {size->batch, size->heads_kv, size->len_k, size->dim_v};
    int64_t out[4] = {size->batch, size->heads_q, size->len_q, size->dim_v};
    int64_t weights[4] = {size->batch, size->heads_q, size->len_q, size->len_k};
    f.o = attn_sdpa_options_init();
    f.q = array_dense(size->type, 4, q);
    f.k = array_dense(size->type, 4, k);
    f.v = array_dense(size->type, 4, v);
    f.out = array_dense(size->type, 4, out);
    f.lse = array_dense(exact, 3, weights);
    f.weights = array_dense(exact, 4, weights);
    array_normal(&f.q, &f.random, 1);
    array_normal(&f.k, &f.random, 1);
    array_normal(&f.v, &f.random, 1);
    return f;
}

void fixture_free(fixture *f)
{
    array_free(&f->q);
    array_free(&f->k);
    array_free(&f->v);
    array_free(&f->out);
    array_free(&f->lse);
    array_free(&f->weights);
    attn_context_destroy(f->context);
    f->context = NULL;
}

void fixture_run(fixture *f)
{
    array_wipe(&f->out);
    array_wipe(&f->lse);
    array_wipe(&f->weights);
    f->o.lse = &f->lse.view;
    f->o.weights = &f->weights.view;
    attn_status status =
        attn_sdpa(f->context, &f->o, &f->q.view, &f->k.view, &f->v.view, &f->out.view);
    if (status != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
}

void fixture_check(fixture *f)
{
    char text[400];
    fixture_run(f);
    attn_kv_view kv = oracle_kv(&f->k.view, &f->v.view);
    oracle_result want = oracle_sdpa(&f->o, &f->q.view, &kv, false);
    bool ok = oracle_compare(&want, &f->out.view, f->o.lse, f->o.weights, 1, text, sizeof text);
    oracle_free(&want);
    if (!ok) {
        fail_msg("%s heads %lld/%lld len %lld,%lld: %s", attn_dtype_name(f->size.type),
                 (long long)f->size.heads_q, (long long)f->size.heads_kv, (long long)f->size.len_q,
                 (long long)f->size.len_k, text);
    }
}

static bool untouched(const array *a)
{
    for (size_t n = 0; n < a->memory.bytes; n++) {
        if (a->memory.data[n] != 0xff) {
            return false;
        }
    }
    return true;
}

void fixture_fails(fixture *f, attn_status status, const char *word)
{
    array_wipe(&f->out);
    array_wipe(&f->lse);
    array_wipe(&f->weights);
    attn_status got =
        attn_sdpa(f->context, &f->o, &f->q.view, &f->k.view, &f->v.view, &f->out.view);
    if (got != status) {
        fail_msg("status %s (%s), must be %s", attn_status_string(got), attn_last_error(),
                 attn_status_string(status));
    }
    assert_true(error_has(word));
    assert_true(untouched(&f->out) && untouched(&f->lse) && untouched(&f->weights));
}

uint64_t fixture_row_bits(const fixture *f, int64_t b, int64_t h, int64_t i)
{
    const attn_view *out = &f->out.view;
    const attn_view *lse = &f->lse.view;
    size_t size = attn_dtype_size(out->dtype);
    const unsigned char *row =
        (const unsigned char *)out->data + (size_t)oracle_at(out, b, h, i, 0) * size;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t n = 0; n < (size_t)f->size.dim_v * size; n++) {
        hash = (hash ^ row[n]) * 0x100000001b3u;
    }
    double value = view_get(lse, b, h, i, 0);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return isnan(value) ? hash : hash ^ bits;
}

array array_from(attn_dtype type, int ndim, const int64_t *shape, const double *values)
{
    array a = array_dense(type, ndim, shape);
    for (int64_t n = 0; n < a.elements; n++) {
        oracle_store(&a.view, n, values[n]);
    }
    return a;
}

void weights_of_scores(const float *scores, int count, const attn_sdpa_options *o, float *weights,
                       float *lse)
{
    attn_context *context = test_context(1);
    attn_sdpa_options options = o ? *o : attn_sdpa_options_init();
    float one = 1;
    float out = NAN;
    float zeros[64] = {0};
    assert_in_range(count, 1, 64);
    if (!options.has_scale) {
        options.has_scale = true;
        options.scale = 1;
    }
    attn_view q = attn_view_bhld(&one, ATTN_F32, 1, 1, 1, 1);
    attn_view k = attn_view_bhld(scores, ATTN_F32, 1, 1, count, 1);
    attn_view v = attn_view_bhld(zeros, ATTN_F32, 1, 1, count, 1);
    attn_view y = attn_view_bhld(&out, ATTN_F32, 1, 1, 1, 1);
    attn_view w = attn_view_bhld(weights, ATTN_F32, 1, 1, 1, count);
    attn_view l = attn_view_dense(lse, ATTN_F32, 3, (const int64_t[]){1, 1, 1});
    options.weights = &w;
    options.lse = &l;
    attn_status status = attn_sdpa(context, &options, &q, &k, &v, &y);
    attn_context_destroy(context);
    if (status != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
}
