/* `attn sdpa`: arrays in and out. */
#include "sdpa.h"

#include <stdlib.h>
#include <string.h>

/* [batch, heads, len, dim] of an array of 2 to 4 dimensions. */
attn_status sdpa_tensor_view(const char *path, const npy_array *array, attn_view *view)
{
    if (array->ndim < 2) {
        return attn_fail(
            ATTN_ERR_SHAPE,
            "%s: has %d dimensions, must have 2 to 4: [len, dim], [heads, len, dim] or "
            "[batch, heads, len, dim]",
            path, array->ndim);
    }
    attn_dtype dtype = array->type == NPY_F32   ? ATTN_F32
                       : array->type == NPY_F64 ? ATTN_F64
                       : array->type == NPY_F16 ? ATTN_F16
                                                : ATTN_DTYPE_NONE;
    if (dtype == ATTN_DTYPE_NONE) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "%s: holds %s, must hold f32, f64 or f16; save "
                         "a.astype('float32')",
                         path, npy_type_name(array->type));
    }
    int64_t shape[4] = {1, 1, 1, 1};
    for (int i = 0; i < array->ndim; i++) {
        shape[4 - array->ndim + i] = array->shape[i];
    }
    *view = attn_view_dense(array->data, dtype, 4, shape);
    return ATTN_OK;
}

attn_status sdpa_read_tensor(const char *path, npy_array *array, attn_view *view)
{
    attn_status status = npy_read(path, array);
    return status != ATTN_OK ? status : sdpa_tensor_view(path, array, view);
}

static attn_status read_mask(const char *path, npy_array *array, attn_view *view)
{
    attn_status status = npy_read(path, array);
    if (status != ATTN_OK) {
        return status;
    }
    if ((array->type != NPY_BOOL && array->type != NPY_U8) || array->ndim < 2) {
        return attn_fail(ATTN_ERR_DTYPE,
                         "%s: a mask is bool (1 = attend) with 2 to 4 dimensions, this is %s with "
                         "%d; additive masks go to --bias",
                         path, npy_type_name(array->type), array->ndim);
    }
    *view = attn_view_dense(array->data, ATTN_BOOL, array->ndim, array->shape);
    return ATTN_OK;
}

static attn_status read_bias(const char *path, npy_array *array, attn_view *view)
{
    attn_view four;
    attn_status status = sdpa_read_tensor(path, array, &four);
    if (status == ATTN_OK) {
        *view = attn_view_dense(array->data, four.dtype, array->ndim, array->shape);
    }
    return status;
}

/* Numbers written out ("3,5") or a .npy of them. Doubles hold every length and offset that memory can. */
static attn_status read_numbers(const char *option, const char *text, bool integers,
                                npy_array *numbers)
{
    size_t size = strlen(text);
    if (size > 4 && strcmp(text + size - 4, ".npy") == 0) {
        attn_status status = npy_read(text, numbers);
        if (status == ATTN_OK && (numbers->ndim > 1 || numbers->count < 1)) {
            return attn_fail(ATTN_ERR_SHAPE, "%s: %s must hold a row of numbers", option, text);
        }
        int64_t ignored;
        if (status == ATTN_OK && integers && !npy_integer(numbers, 0, &ignored)) {
            return attn_fail(ATTN_ERR_DTYPE, "%s: %s must hold integers; save a.astype('int64')",
                             option, text);
        }
        return status;
    }
    int64_t count = 1;
    for (const char *c = text; *c; c++) {
        count += *c == ',';
    }
    void *values = calloc((size_t)count, sizeof(int64_t)); /* or doubles, of the same size */
    if (!values) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for %lld numbers", option,
                         (long long)count);
    }
    *numbers = (npy_array){.type = integers ? NPY_I64 : NPY_F64,
                           .ndim = 1,
                           .count = count,
                           .shape = {count},
                           .data = values};
    const char *at = text;
    for (int64_t i = 0; i < count; i++) {
        char *end = NULL;
        if (integers) {
            ((int64_t *)values)[i] = strtoll(at, &end, 10);
        } else {
            ((double *)values)[i] = strtod(at, &end);
        }
        if (end == at || (*end != ',' && *end != '\0')) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "%s: '%s' must be %s separated by commas, or a .npy file", option,
                             text, integers ? "whole numbers" : "numbers");
        }
        at = end + 1;
    }
    return ATTN_OK;
}

static attn_status read_integers(const char *option, const char *text, int64_t want, bool one_fits,
                                 int64_t **values, int64_t *count)
{
    npy_array numbers = {0};
    attn_status status = read_numbers(option, text, true, &numbers);
    if (status == ATTN_OK && numbers.count != want && !(one_fits && numbers.count == 1)) {
        status = attn_fail(ATTN_ERR_SHAPE,
                           "%s: has %lld numbers, must have one for each of %lld "
                           "sequences",
                           option, (long long)numbers.count, (long long)want);
    }
    if (status == ATTN_OK && !(*values = malloc(sizeof(int64_t) * (size_t)numbers.count))) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory", option);
    }
    for (int64_t i = 0; status == ATTN_OK && i < numbers.count; i++) {
        (void)npy_integer(&numbers, i, &(*values)[i]);
    }
    if (count) {
        *count = numbers.count;
    }
    npy_free(&numbers);
    return status;
}

/* One number a head, f32 or, beside f64 arrays, f64. */
static attn_status read_per_head(const char *option, const char *text, int64_t heads, bool f64,
                                 void **values, int64_t *count, attn_view *view)
{
    npy_array numbers = {0};
    attn_status status = read_numbers(option, text, false, &numbers);
    if (status == ATTN_OK && numbers.count != heads && numbers.count != 1) {
        status = attn_fail(ATTN_ERR_SHAPE,
                           "%s: has %lld numbers, must have one for each of %lld "
                           "heads",
                           option, (long long)numbers.count, (long long)heads);
    }
    if (status == ATTN_OK && !(*values = malloc((f64 ? 8 : 4) * (size_t)(heads > 0 ? heads : 1)))) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory", option);
    }
    for (int64_t h = 0; status == ATTN_OK && h < heads; h++) {
        double value = npy_number(&numbers, numbers.count == 1 ? 0 : h);
        if (f64) {
            ((double *)*values)[h] = value;
        } else {
            ((float *)*values)[h] = (float)value;
        }
    }
    *count = numbers.count;
    npy_free(&numbers);
    *view = attn_view_dense(*values, f64 ? ATTN_F64 : ATTN_F32, 1, &heads);
    return status;
}

attn_status sdpa_read_inputs(sdpa_request *r, sdpa_job *j)
{
    attn_status status = sdpa_read_tensor(r->q, &j->q, &j->q_view);
    status = status ? status : sdpa_read_tensor(r->k, &j->k, &j->k_view);
    status = status ? status : sdpa_read_tensor(r->v, &j->v, &j->v_view);
    if (status != ATTN_OK) {
        return status;
    }
    int64_t batch = j->q_view.shape[0], heads = j->q_view.shape[1];
    attn_sdpa_options *o = &r->options;
    j->f64 = j->q_view.dtype == ATTN_F64;
    if (r->mask) {
        status = read_mask(r->mask, &j->mask, &j->mask_view);
        o->mask = &j->mask_view;
    }
    if (!status && r->bias) {
        status = read_bias(r->bias, &j->bias, &j->bias_view);
        o->bias = &j->bias_view;
    }
    if (!status && r->lengths) {
        status = read_integers("--lengths", r->lengths, batch, false, &j->lengths, NULL);
        o->lengths_k = j->lengths;
    }
    if (!status && r->lengths_q) {
        status = read_integers("--lengths-q", r->lengths_q, batch, false, &j->lengths_q, NULL);
        o->lengths_q = j->lengths_q;
    }
    if (!status && r->q_offset) {
        status =
            read_integers("--q-offset", r->q_offset, batch, true, &j->q_offset, &o->q_offset_count);
        o->q_offset = j->q_offset;
    }
    if (!status && r->sinks) {
        status = read_per_head("--sinks", r->sinks, heads, j->f64, &j->sinks, &j->n_sinks,
                               &j->sinks_view);
        o->sinks = &j->sinks_view;
    }
    if (!status && r->alibi) {
        status = read_per_head("--alibi", r->alibi, heads, j->f64, &j->alibi, &j->n_alibi,
                               &j->alibi_view);
        o->alibi = &j->alibi_view;
    }
    return status;
}

/* Memory for a result of q's dimensions with another last size (or sizes). */
attn_status sdpa_make_output(const char *path, attn_dtype dtype, int ndim, const int64_t *shape,
                             void **data, attn_view *view)
{
    size_t bytes = attn_dtype_size(dtype);
    for (int i = 0; i < ndim; i++) {
        if (__builtin_mul_overflow(bytes, (size_t)shape[i], &bytes)) {
            return attn_fail(ATTN_ERR_SHAPE, "%s: its size overflows", path);
        }
    }
    *data = malloc(bytes ? bytes : 1);
    if (!*data) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for its %zu bytes", path, bytes);
    }
    *view = attn_view_dense(*data, dtype, ndim, shape);
    return ATTN_OK;
}

/* Writes the last `ndim` sizes of a result: those that q has too. */
attn_status sdpa_write_result(const char *path, const attn_view *view, int ndim)
{
    npy_type type = view->dtype == ATTN_F64 ? NPY_F64 : view->dtype == ATTN_F16 ? NPY_F16 : NPY_F32;
    return npy_write(path, type, ndim, view->shape + (view->ndim - ndim), view->data);
}
