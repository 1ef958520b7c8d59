/**
 * cmd_sdpa.c: `attn sdpa`: attention on anyone's arrays: .npy files in, .npy files out, every option of
 * attn_sdpa as a flag.
 */
#define _GNU_SOURCE
#include "cli.h"
#include "npy.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_K = 0x2000,
    KEY_V,
    KEY_OUT,
    KEY_CAUSAL,
    KEY_WINDOW,
    KEY_MASK,
    KEY_BIAS,
    KEY_LENGTHS,
    KEY_LENGTHS_Q,
    KEY_SCALE,
    KEY_SOFTCAP,
    KEY_SINKS,
    KEY_ALIBI,
    KEY_Q_OFFSET,
    KEY_LSE,
    KEY_WEIGHTS,
    KEY_THREADS,
    KEY_EXPLAIN,
    KEY_Q
};

/* What the command line said; texts are read as arrays later, once the types are known. */
typedef struct request {
    const char *q, *k, *v, *out, *lse, *weights, *mask, *bias;
    const char *lengths, *lengths_q, *sinks, *alibi, *q_offset;
    attn_sdpa_options options;
    int64_t threads;
    bool explain;
} request;

/* Everything that is held while the call runs. */
typedef struct job {
    attn_context *context;
    npy_array q, k, v, mask, bias;
    attn_view q_view, k_view, v_view, out_view, mask_view, bias_view, lse_view, weights_view;
    attn_view sinks_view, alibi_view;
    int64_t *lengths, *lengths_q, *q_offset;
    void *sinks, *alibi, *out, *lse, *weights;
    bool f64;
} job;

static const struct argp_option option_list[] = {
    {0, 0, 0, 0, "Arrays (.npy, 2 to 4 dimensions: [batch, heads, len, dim] from the right):", 1},
    {"q", KEY_Q, "FILE", 0, "queries, f32, f64 or f16", 1},
    {"k", KEY_K, "FILE", 0, "keys", 1},
    {"v", KEY_V, "FILE", 0, "values, of the keys' type", 1},
    {"out", KEY_OUT, "FILE", 0, "where the result goes, in q's shape and type", 1},
    {"lse", KEY_LSE, "FILE", 0, "also write the natural log of each row's sum", 1},
    {"weights", KEY_WEIGHTS, "FILE", 0, "also write the weights (len_q × len_k a head)", 1},
    {0, 0, 0, 0, "What each query may see:", 2},
    {"causal", KEY_CAUSAL, "WORD", 0, "none (default), top-left or bottom-right", 2},
    {"window", KEY_WINDOW, "L,R", 0, "L keys before and R after its own position; -1: unlimited",
     2},
    {"mask", KEY_MASK, "FILE", 0, "bool, 1 = attend, broadcast from the right", 2},
    {"lengths", KEY_LENGTHS, "N,...", 0, "valid keys of each sequence, or a .npy", 2},
    {"lengths-q", KEY_LENGTHS_Q, "N,...", 0, "valid queries of each sequence, or a .npy", 2},
    {"q-offset", KEY_Q_OFFSET, "N,...", 0,
     "position of query 0: one number, one a sequence, or a "
     ".npy",
     2},
    {0, 0, 0, 0, "Scores:", 3},
    {"scale", KEY_SCALE, "X", 0, "default 1/sqrt(dim)", 3},
    {"softcap", KEY_SOFTCAP, "X", 0, "X·tanh(s/X), X > 0", 3},
    {"bias", KEY_BIAS, "FILE", 0, "added to the scores; -inf masks", 3},
    {"sinks", KEY_SINKS, "X,...", 0, "a logit a head in the denominator, or a .npy", 3},
    {"alibi", KEY_ALIBI, "X,...", 0, "a slope a head, or a .npy", 3},
    {0, 0, 0, 0, "Running:", 4},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 4},
    {"explain", KEY_EXPLAIN, 0, 0, "say which kernel runs and why", 4},
    {0},
};

static error_t parse_window(struct argp_state *state, const char *text, attn_sdpa_options *options)
{
    char *comma = strchr(text, ',');
    if (comma == NULL) {
        return cli_usage_error(state, "--window: '%s' must be two numbers, L,R (as in 128,0)",
                               text);
    }
    char left[32];
    size_t size = (size_t)(comma - text);
    if (size >= sizeof left) {
        return cli_usage_error(state, "--window: '%s' must be two numbers, L,R", text);
    }
    memcpy(left, text, size);
    left[size] = '\0';
    error_t error = cli_int(state, "--window", left, -1, INT64_MAX, &options->window_left);
    options->has_window = true;
    return error ? error
                 : cli_int(state, "--window", comma + 1, -1, INT64_MAX, &options->window_right);
}

static error_t parse_score(int key, const char *text, struct argp_state *state, request *r)
{
    static const char *const words[] = {"none", "top-left", "bottom-right", NULL};
    int word = 0;
    error_t error = 0;
    switch (key) {
    case KEY_CAUSAL:
        error = cli_word(state, "--causal", text, words, &word);
        r->options.causal = (attn_causal)word;
        return error;
    case KEY_WINDOW: return parse_window(state, text, &r->options);
    case KEY_SCALE:
        r->options.has_scale = true;
        return cli_double(state, "--scale", text, -HUGE_VAL, HUGE_VAL, &r->options.scale);
    case KEY_SOFTCAP:
        error = cli_double(state, "--softcap", text, 0, HUGE_VAL, &r->options.softcap);
        return error == 0 && r->options.softcap <= 0
                   ? cli_usage_error(state, "--softcap: must be > 0; leave it out for none")
                   : error;
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &r->threads);
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    request *r = state->input;
    switch (key) {
    case KEY_Q: r->q = text; return 0;
    case KEY_K: r->k = text; return 0;
    case KEY_V: r->v = text; return 0;
    case KEY_OUT: r->out = text; return 0;
    case KEY_LSE: r->lse = text; return 0;
    case KEY_WEIGHTS: r->weights = text; return 0;
    case KEY_MASK: r->mask = text; return 0;
    case KEY_BIAS: r->bias = text; return 0;
    case KEY_LENGTHS: r->lengths = text; return 0;
    case KEY_LENGTHS_Q: r->lengths_q = text; return 0;
    case KEY_SINKS: r->sinks = text; return 0;
    case KEY_ALIBI: r->alibi = text; return 0;
    case KEY_Q_OFFSET: r->q_offset = text; return 0;
    case KEY_EXPLAIN: r->explain = true; return 0;
    case ARGP_KEY_END:
        if (!r->q || !r->k || !r->v || !r->out) {
            return cli_usage_error(state,
                                   "--%s FILE is missing; --q, --k, --v and --out are needed",
                                   !r->q   ? "q"
                                   : !r->k ? "k"
                                   : !r->v ? "v"
                                           : "out");
        }
        return 0;
    default: return parse_score(key, text, state, r);
    }
}

/* [batch, heads, len, dim] of an array of 2 to 4 dimensions. */
static attn_status tensor_view(const char *path, const npy_array *array, attn_view *view)
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

static attn_status read_tensor(const char *path, npy_array *array, attn_view *view)
{
    attn_status status = npy_read(path, array);
    return status != ATTN_OK ? status : tensor_view(path, array, view);
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
    attn_status status = read_tensor(path, array, &four);
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
                                 void **values, attn_view *view)
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
    npy_free(&numbers);
    *view = attn_view_dense(*values, f64 ? ATTN_F64 : ATTN_F32, 1, &heads);
    return status;
}

static attn_status read_inputs(request *r, job *j)
{
    attn_status status = read_tensor(r->q, &j->q, &j->q_view);
    status = status ? status : read_tensor(r->k, &j->k, &j->k_view);
    status = status ? status : read_tensor(r->v, &j->v, &j->v_view);
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
        status = read_per_head("--sinks", r->sinks, heads, j->f64, &j->sinks, &j->sinks_view);
        o->sinks = &j->sinks_view;
    }
    if (!status && r->alibi) {
        status = read_per_head("--alibi", r->alibi, heads, j->f64, &j->alibi, &j->alibi_view);
        o->alibi = &j->alibi_view;
    }
    return status;
}

/* Memory for a result of q's dimensions with another last size (or sizes). */
static attn_status make_output(const char *path, attn_dtype dtype, int ndim, const int64_t *shape,
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

static attn_status make_outputs(request *r, job *j)
{
    const int64_t *q = j->q_view.shape;
    const int64_t out[4] = {q[0], q[1], q[2], j->v_view.shape[3]};
    const int64_t weights[4] = {q[0], q[1], q[2], j->k_view.shape[2]};
    attn_dtype sums = j->f64 ? ATTN_F64 : ATTN_F32;
    attn_status status = make_output(r->out, j->q_view.dtype, 4, out, &j->out, &j->out_view);
    if (!status && r->lse) {
        status = make_output(r->lse, sums, 3, q, &j->lse, &j->lse_view);
        r->options.lse = &j->lse_view;
    }
    if (!status && r->weights) {
        status = make_output(r->weights, sums, 4, weights, &j->weights, &j->weights_view);
        r->options.weights = &j->weights_view;
    }
    return status;
}

/* Writes the last `ndim` sizes of a result: those that q has too. */
static attn_status write_result(const char *path, const attn_view *view, int ndim)
{
    npy_type type = view->dtype == ATTN_F64 ? NPY_F64 : view->dtype == ATTN_F16 ? NPY_F16 : NPY_F32;
    return npy_write(path, type, ndim, view->shape + (view->ndim - ndim), view->data);
}

static attn_status write_results(const request *r, const job *j)
{
    attn_status status = write_result(r->out, &j->out_view, j->q.ndim);
    if (!status && r->lse) {
        status = write_result(r->lse, &j->lse_view, j->q.ndim - 1);
    }
    if (!status && r->weights) {
        status = write_result(r->weights, &j->weights_view, j->q.ndim);
    }
    return status;
}

static attn_status compute(request *r, job *j)
{
    attn_status status = read_inputs(r, j);
    status = status ? status : make_outputs(r, j);
    if (status != ATTN_OK) {
        return status;
    }
    if (r->explain) {
        char text[2048];
        attn_kv_view kv = attn_kv_view_init(j->k_view, j->v_view);
        status = attn_sdpa_explain(j->context, &r->options, &j->q_view, &kv, &j->out_view, text,
                                   sizeof text);
        if (status == ATTN_OK) {
            cli_note("%s", text);
        }
    }
    status = status ? status
                    : attn_sdpa(j->context, &r->options, &j->q_view, &j->k_view, &j->v_view,
                                &j->out_view);
    return status ? status : write_results(r, j);
}

static void release(job *j)
{
    npy_array *arrays[] = {&j->q, &j->k, &j->v, &j->mask, &j->bias};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        npy_free(arrays[i]);
    }
    void *blocks[] = {j->lengths, j->lengths_q, j->q_offset, j->sinks,
                      j->alibi,   j->out,       j->lse,      j->weights};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        free(blocks[i]);
    }
    attn_context_destroy(j->context);
}

int cmd_sdpa(int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .doc = "Scaled dot-product attention on NumPy arrays: softmax(scale·Q·Kᵀ + bias)·V.",
    };
    request r = {.options = attn_sdpa_options_init()};
    int code = cli_parse(&argp, argc, argv, &r);
    if (code >= 0) {
        return code;
    }
    job j = {.context = cli_context(r.threads)};
    if (!j.context) {
        return CLI_FAILED;
    }
    attn_status status = compute(&r, &j);
    release(&j);
    return status == ATTN_OK ? CLI_OK : cli_fail_attn(NULL);
}
