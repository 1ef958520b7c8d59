/**
 * bench.c: random arrays and statistics of timings.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE ((int64_t)1 << 32)

/* A size, then one of the separators or the end; moves on. */
static bool take_size(const char **text, int64_t *size)
{
    char *end = NULL;
    *size = strtoll(*text, &end, 10);
    bool ok = end != *text && **text != '-' && **text != '+' && *size >= 1 && *size <= MAX_SIZE;
    *text = end;
    return ok;
}

static bool take_char(const char **text, char c)
{
    if (**text != c) {
        return false;
    }
    (*text)++;
    return true;
}

bool bench_parse_shape(const char *text, bench_shape *shape)
{
    if (!take_size(&text, &shape->batch) || !take_char(&text, 'x') ||
        !take_size(&text, &shape->heads_q)) {
        return false;
    }
    shape->heads_kv = shape->heads_q;
    if (take_char(&text, '/') && !take_size(&text, &shape->heads_kv)) {
        return false;
    }
    if (!take_char(&text, 'x') || !take_size(&text, &shape->len_q)) {
        return false;
    }
    shape->len_k = shape->len_q;
    if (take_char(&text, ',') && !take_size(&text, &shape->len_k)) {
        return false;
    }
    return take_char(&text, 'x') && take_size(&text, &shape->dim) && *text == '\0' &&
           shape->heads_q % shape->heads_kv == 0;
}

static bool product(int64_t a, int64_t b, int64_t c, int64_t d, int64_t *out)
{
    return !__builtin_mul_overflow(a, b, out) && !__builtin_mul_overflow(*out, c, out) &&
           !__builtin_mul_overflow(*out, d, out) && *out <= INT64_MAX / 32;
}

/* Nearly normal numbers, the same everywhere: sums of four uniform ones, at unit variance. */
static void fill(float *values, int64_t count, uint64_t seed)
{
    uint64_t state = seed * 2 + 1;
    for (int64_t i = 0; i < count; i++) {
        double sum = -2;
        for (int n = 0; n < 4; n++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(state >> 40) * 0x1p-24;
        }
        values[i] = (float)(sum * 1.7320508075688772);
    }
}

typedef struct filling {
    attn_context *context;
    float *numbers;
} filling;

static attn_status make_view(const filling *f, char **at, attn_dtype dtype, const int64_t shape[4],
                             uint64_t seed, attn_view *view)
{
    int64_t count = shape[0] * shape[1] * shape[2] * shape[3];
    *view = attn_view_dense(*at, dtype, 4, shape);
    *at += ((size_t)count * attn_dtype_size(dtype) + 4095) & ~(size_t)4095;
    if (seed == 0) {
        memset(view->data, 0, (size_t)count * attn_dtype_size(dtype));
        return ATTN_OK;
    }
    fill(f->numbers, count, seed);
    attn_view numbers = attn_view_dense(f->numbers, ATTN_F32, 4, shape);
    return attn_convert(f->context, &numbers, view);
}

attn_status bench_make(attn_context *context, const bench_shape *s, attn_dtype dtype,
                       bench_arrays *arrays)
{
    *arrays = (bench_arrays){0};
    int64_t q_count, k_count;
    if (!product(s->batch, s->heads_q, s->len_q, s->dim, &q_count) ||
        !product(s->batch, s->heads_kv, s->len_k, s->dim, &k_count)) {
        return attn_fail(ATTN_ERR_SHAPE, "the shape's sizes overflow; use smaller ones");
    }
    int64_t most = q_count > k_count ? q_count : k_count;
    size_t bytes = (size_t)(2 * q_count + 2 * k_count) * attn_dtype_size(dtype) + 4 * 4096;
    filling f = {.context = context, .numbers = malloc((size_t)most * sizeof(float))};
    if (!f.numbers || posix_memalign(&arrays->memory, 4096, bytes) != 0) {
        free(f.numbers);
        arrays->memory = NULL;
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for %zu bytes of arrays", bytes);
    }
    char *at = arrays->memory;
    const int64_t q[4] = {s->batch, s->heads_q, s->len_q, s->dim};
    const int64_t k[4] = {s->batch, s->heads_kv, s->len_k, s->dim};
    attn_status status = make_view(&f, &at, dtype, q, 1, &arrays->q);
    status = status ? status : make_view(&f, &at, dtype, k, 2, &arrays->k);
    status = status ? status : make_view(&f, &at, dtype, k, 3, &arrays->v);
    status = status ? status : make_view(&f, &at, dtype, q, 0, &arrays->out);
    free(f.numbers);
    if (status != ATTN_OK) {
        bench_free(arrays);
    }
    return status;
}

void bench_free(bench_arrays *arrays)
{
    free(arrays->memory);
    *arrays = (bench_arrays){0};
}

double bench_element(attn_context *context, const attn_view *view, int64_t index)
{
    double value = 0;
    attn_view one =
        attn_view_dense((const char *)view->data + (size_t)index * attn_dtype_size(view->dtype),
                        view->dtype, 1, (int64_t[]){1});
    attn_view out = attn_view_dense(&value, ATTN_F64, 1, (int64_t[]){1});
    return attn_convert(context, &one, &out) == ATTN_OK ? value : (double)NAN;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_stats bench_statistics(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    double middle = values[count / 2];
    if (count % 2 == 0) {
        middle = (values[count / 2 - 1] + middle) / 2;
    }
    return (bench_stats){.median = middle, .min = values[0], .max = values[count - 1]};
}
