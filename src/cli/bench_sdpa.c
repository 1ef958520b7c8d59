/**
 * bench_sdpa.c: `attn bench sdpa`: how fast attention is on given shapes, beside a ceiling measured in the same run and the
 * four-line formula. A result is checked before it is timed; a wrong one is not reported.
 */
#define _GNU_SOURCE
#include "bench.h"
#include "naive.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_SECONDS  2e-3 /* a sample repeats the call until it takes this long */
#define NAIVE_MAX_BYTES ((int64_t)1 << 30)
#define NAIVE_MAX_FLOPS 2e10 /* per head: some seconds */

enum {
    KEY_SHAPES = 0x2100,
    KEY_CAUSAL,
    KEY_DTYPE,
    KEY_THREADS,
    KEY_JSON,
    KEY_REPEAT,
    KEY_NO_NAIVE,
    KEY_BACKWARD
};

typedef struct request {
    const char **shapes;
    size_t count;
    const char *file;
    bool causal, backward, json, no_naive;
    attn_dtype dtype;
    int64_t threads, repeat;
} request;

typedef struct result {
    char kernel[64];
    bool decode;
    bench_stats ms;
    double gflops, gbytes, ceiling, percent, naive_ms;
} result;

static const struct argp_option option_list[] = {
    {"shapes", KEY_SHAPES, "FILE", 0, "more shapes, one a line; # begins a comment", 0},
    {"causal", KEY_CAUSAL, 0, 0, "bottom-right causal; counts half the flops", 0},
    {"backward", KEY_BACKWARD, 0, 0, "the gradients of q, k and v: 2.5 times the flops", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0, "f32 (default), f64, bf16 or f16", 0},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 0},
    {"repeat", KEY_REPEAT, "N", 0, "samples, each beside one of the ceiling (default 9)", 0},
    {"no-naive", KEY_NO_NAIVE, 0, 0, "leave the four-line formula out", 0},
    {"json", KEY_JSON, 0, 0, "a JSON object a line", 0},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    static const char *const words[] = {"f32", "f64", "bf16", "f16", NULL};
    request *r = state->input;
    int word = 0;
    error_t error = 0;
    switch (key) {
    case KEY_SHAPES: r->file = text; return 0;
    case KEY_CAUSAL: r->causal = true; return 0;
    case KEY_BACKWARD: r->backward = true; return 0;
    case KEY_JSON: r->json = true; return 0;
    case KEY_NO_NAIVE: r->no_naive = true; return 0;
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &r->threads);
    case KEY_REPEAT: return cli_int(state, "--repeat", text, 1, 1000, &r->repeat);
    case KEY_DTYPE:
        error = cli_word(state, "--dtype", text, words, &word);
        r->dtype = (attn_dtype)(ATTN_F32 + word);
        return error;
    case ARGP_KEY_ARG: {
        bench_shape shape;
        if (!bench_parse_shape(text, &shape)) {
            return cli_usage_error(state,
                                   "'%s' is no shape; write batch x heads x len x dim, as in "
                                   "1x16x2048x64, 1x16/4x2048x128 or 1x32/8x1,4096x128",
                                   text);
        }
        r->shapes[r->count++] = text; /* as many places as there are arguments */
        return 0;
    }
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Row i of head h of the first sequence in float64: the largest error of the first and last output element. */
static double row_error(attn_context *context, const bench_arrays *a, const bench_shape *s,
                        bool causal, int64_t h, int64_t i)
{
    int64_t g = h / (s->heads_q / s->heads_kv), dims[2] = {0, s->dim - 1};
    int64_t end = causal ? i + s->len_k - s->len_q + 1 : s->len_k;
    double sum = 0, largest = -HUGE_VAL, total[2] = {0, 0}, worst = 0;
    double *scores = calloc((size_t)(end > 0 ? end : 1), sizeof *scores);
    for (int64_t j = 0; scores && j < end; j++) {
        for (int64_t d = 0; d < s->dim; d++) {
            scores[j] += bench_element(context, &a->q, (h * s->len_q + i) * s->dim + d) *
                         bench_element(context, &a->k, (g * s->len_k + j) * s->dim + d);
        }
        scores[j] /= sqrt((double)s->dim);
        largest = fmax(largest, scores[j]);
    }
    for (int64_t j = 0; scores && j < end; j++) {
        double weight = exp(scores[j] - largest);
        sum += weight;
        for (int n = 0; n < 2; n++) {
            total[n] +=
                weight * bench_element(context, &a->v, (g * s->len_k + j) * s->dim + dims[n]);
        }
    }
    for (int n = 0; n < 2; n++) {
        double want = end > 0 ? total[n] / sum : 0;
        double got = bench_element(context, &a->out, (h * s->len_q + i) * s->dim + dims[n]);
        double error = fabs(got - want);
        worst = error <= worst ? worst : error; /* NaN counts as the worst */
    }
    free(scores);
    return scores ? worst : HUGE_VAL;
}

/* Three rows against float64. Bounds: rounding of the output type, with room for the sums. */
static attn_status check(attn_context *context, const request *r, const bench_shape *s,
                         const bench_arrays *a)
{
    double bound = r->dtype == ATTN_F64   ? 1e-12
                   : r->dtype == ATTN_F32 ? 5e-6
                   : r->dtype == ATTN_F16 ? 4e-3
                                          : 3e-2;
    for (int n = 0; n < 3; n++) {
        int64_t h = (s->heads_q - 1) * n / 2, i = (s->len_q - 1) * (2 - n) / 2;
        double error = row_error(context, a, s, r->causal, h, i);
        if (!(error <= bound)) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "the result is wrong: head %lld, row %lld is off by %.2g (allowed "
                             "%.2g); nothing is reported",
                             (long long)h, (long long)i, error, bound);
        }
    }
    return ATTN_OK;
}

typedef struct naive_job {
    const bench_arrays *arrays;
    const bench_shape *shape;
    bool causal;
    float *work, *out;
} naive_job;

static void naive_task(void *argument, int64_t index, int worker)
{
    (void)worker;
    naive_job *job = argument;
    const bench_shape *s = job->shape;
    int64_t g = index / (s->heads_q / s->heads_kv);
    naive_sdpa((const float *)job->arrays->q.data + index * s->len_q * s->dim,
               (const float *)job->arrays->k.data + g * s->len_k * s->dim,
               (const float *)job->arrays->v.data + g * s->len_k * s->dim, s->len_q, s->len_k,
               s->dim, job->causal, job->work + index * naive_floats(s->len_q, s->len_k, s->dim),
               job->out + index * s->len_q * s->dim);
}

/* Milliseconds of the formula: one head a thread, taken times the heads. NaN where it would take too long or too much. */
static double naive_time(attn_context *context, const request *r, const bench_shape *s,
                         const bench_arrays *a)
{
    int64_t heads = attn_context_threads(context), most = s->heads_q;
    heads = heads < most ? heads : most;
    double flops = 4.0 * (double)s->len_q * (double)s->len_k * (double)s->dim;
    double floats = (double)s->len_q * (double)s->len_k + (double)s->dim * (double)s->len_k;
    if (r->no_naive || r->backward || r->dtype != ATTN_F32 || flops > NAIVE_MAX_FLOPS ||
        floats * 4 * (double)heads > (double)NAIVE_MAX_BYTES) {
        return (double)NAN;
    }
    size_t work = (size_t)(naive_floats(s->len_q, s->len_k, s->dim) * heads);
    naive_job job = {.arrays = a, .shape = s, .causal = r->causal};
    job.work = malloc(sizeof(float) * (work + (size_t)(heads * s->len_q * s->dim)));
    if (!job.work) {
        return (double)NAN;
    }
    job.out = job.work + work;
    double best = HUGE_VAL;
    for (int repeat = 0; repeat < 3; repeat++) {
        double start = cli_now();
        if (attn_parallel_for(context, heads, naive_task, &job) != ATTN_OK) {
            break;
        }
        best = fmin(best, cli_now() - start);
        if (best > 0.5) {
            break;
        }
    }
    free(job.work);
    return best * 1e3 * (double)(s->batch * s->heads_q) / (double)heads;
}

static attn_status call(attn_context *context, const request *r, const bench_arrays *a,
                        const bench_gradients *g)
{
    if (r->backward) {
        return bench_backward(context, r->causal, a, g);
    }
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = r->causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;
    return attn_sdpa(context, &options, &a->q, &a->k, &a->v, &a->out);
}

static attn_status plan(attn_context *context, const request *r, const bench_arrays *a,
                        const bench_gradients *g, result *res)
{
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = r->causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE;
    attn_sdpa_plan_info info = attn_sdpa_plan_info_init();
    attn_kv_view kv = attn_kv_view_init(a->k, a->v);
    attn_status status = r->backward
                             ? bench_backward_plan(context, r->causal, a, g, &info)
                             : attn_sdpa_plan(context, &options, &a->q, &kv, &a->out, &info);
    snprintf(res->kernel, sizeof res->kernel, "%s", info.kernel);
    res->decode = strncmp(res->kernel, "decode", 6) == 0;
    return status;
}

/* 4·B·H·Lq·Lk·D, backward 10·…; a causal call does what its triangle (or trapezium) leaves. */
static double flops_of(const bench_shape *s, bool causal, bool backward)
{
    double pairs = (double)s->len_q * (double)s->len_k;
    if (causal) {
        int64_t rows = s->len_q < s->len_k ? s->len_q : s->len_k;
        pairs = (double)rows * (double)s->len_k - (double)rows * (double)rows / 2;
    }
    return (backward ? 10.0 : 4.0) * (double)s->batch * (double)s->heads_q * (double)s->dim * pairs;
}

static attn_status measure(attn_context *context, const request *r, const bench_shape *s,
                           const bench_arrays *a, const bench_gradients *g, result *res)
{
    double *times = malloc(sizeof(double) * 2 * (size_t)r->repeat);
    if (!times) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for %lld samples", (long long)r->repeat);
    }
    double *ratios = times + r->repeat;
    int64_t kv_count = s->batch * s->heads_kv * s->len_k * s->dim;
    size_t kv_bytes = (size_t)kv_count * attn_dtype_size(r->dtype);
    const void *buffers[2] = {a->k.data, a->v.data};
    const size_t bytes[2] = {kv_bytes, kv_bytes};
    double flops = flops_of(s, r->causal, r->backward), start = cli_now();
    attn_status status = call(context, r, a, g);
    double once = cli_now() - start;
    int64_t inner = once < SAMPLE_SECONDS ? (int64_t)(SAMPLE_SECONDS / (once + 1e-9)) + 1 : 1;
    for (int64_t n = 0; n < r->repeat && status == ATTN_OK; n++) {
        start = cli_now();
        for (int64_t i = 0; i < inner && status == ATTN_OK; i++) {
            status = call(context, r, a, g);
        }
        times[n] = (cli_now() - start) / (double)inner;
        double ceiling;
        if (res->decode) {
            double seconds = HUGE_VAL; /* as many reads as calls, so that both are as warm */
            start = cli_now();
            for (int64_t i = 0; i < inner; i++) {
                (void)attn_measure_read(context, buffers, bytes, 2);
            }
            seconds = (cli_now() - start) / (double)inner;
            ceiling = 2 * (double)kv_bytes / seconds * 1e-9;
            ratios[n] = seconds / times[n];
        } else {
            ceiling = attn_measure_fma(context);
            ratios[n] = flops / times[n] * 1e-9 / ceiling;
        }
        res->ceiling = ceiling > res->ceiling ? ceiling : res->ceiling;
    }
    if (status == ATTN_OK) {
        bench_stats t = bench_statistics(times, (int)r->repeat);
        res->ms = (bench_stats){t.median * 1e3, t.min * 1e3, t.max * 1e3};
        res->gflops = flops / t.median * 1e-9;
        res->gbytes = 2 * (double)kv_bytes / t.median * 1e-9;
        res->percent = 100 * bench_statistics(ratios, (int)r->repeat).median;
    }
    free(times);
    return status;
}

static int print(const request *r, const char *shape, int threads, const result *res)
{
    if (r->json) {
        return cli_print_json(json_pack(
            "{s:s, s:b, s:s, s:i, s:s, s:{s:f, s:f, s:f}, s:f, s:f, s:f, s:s, s:f, s:o}", "shape",
            shape, "causal", r->causal, "dtype", attn_dtype_name(r->dtype), "threads", threads,
            "kernel", res->kernel, "ms", "median", res->ms.median, "min", res->ms.min, "max",
            res->ms.max, "gflops", res->gflops, "gbytes_per_s", res->gbytes, "ceiling",
            res->ceiling, "ceiling_unit", res->decode ? "GB/s" : "GF/s", "percent_of_ceiling",
            res->percent, "naive_ms", cli_json_number(res->naive_ms)));
    }
    char naive[32] = "-", line[256];
    if (isfinite(res->naive_ms)) {
        snprintf(naive, sizeof naive, "%.2f", res->naive_ms);
    }
    int size = snprintf(line, sizeof line,
                        "%-22s %-5s %-6s %9.3f %9.3f %9.3f %8.1f %7.2f %8.1f %5.1f %10s  %s\n",
                        shape, attn_dtype_name(r->dtype), r->causal ? "causal" : "full",
                        res->ms.median, res->ms.min, res->ms.max, res->gflops, res->gbytes,
                        res->ceiling, res->percent, naive, res->kernel);
    return cli_write(line, (size_t)size) ? CLI_OK : CLI_FAILED;
}

static int run_shape(attn_context *context, const request *r, const char *text)
{
    bench_shape shape;
    bench_arrays arrays = {0};
    bench_gradients gradients = {0};
    result res = {.naive_ms = (double)NAN};
    if (!bench_parse_shape(text, &shape)) {
        return cli_fail("'%s' is no shape; write batch x heads x len x dim, as in 1x16x2048x64",
                        text);
    }
    attn_status status = bench_make(context, &shape, r->dtype, &arrays);
    if (r->backward) {
        status =
            status ? status : bench_gradients_make(context, &shape, r->causal, &arrays, &gradients);
    }
    status = status ? status : plan(context, r, &arrays, &gradients, &res);
    status = status ? status : call(context, r, &arrays, &gradients);
    status = status ? status : check(context, r, &shape, &arrays);
    if (r->backward) {
        status =
            status ? status : bench_backward_check(context, &shape, r->causal, &arrays, &gradients);
    }
    status = status ? status : measure(context, r, &shape, &arrays, &gradients, &res);
    if (status == ATTN_OK) {
        res.naive_ms = naive_time(context, r, &shape, &arrays);
    }
    bench_gradients_free(&gradients);
    bench_free(&arrays);
    return status == ATTN_OK ? print(r, text, attn_context_threads(context), &res)
                             : cli_fail_attn(text);
}

static int run_file(attn_context *context, const request *r)
{
    FILE *file = fopen(r->file, "re");
    if (!file) {
        return cli_fail("%s: cannot open: %s", r->file, strerror(errno));
    }
    char line[256];
    int code = CLI_OK;
    while (code == CLI_OK && fgets(line, sizeof line, file)) {
        line[strcspn(line, "#\n")] = '\0';
        char *shape = strtok(line, " \t\r");
        if (shape) {
            code = run_shape(context, r, shape);
        }
    }
    fclose(file);
    return code;
}

int bench_sdpa(int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "[SHAPE...]",
        .doc = "Times attn_sdpa (or attn_sdpa_backward), each sample beside one of a ceiling: "
               "multiply-adds, or for decode a "
               "plain read of the same keys and values. % of ceiling is the median of those "
               "ratios; naive is the four-line formula in plain C on as many threads.",
    };
    static const char *defaults[] = {"1x16x512x64", "1x16x2048x64", "1x16/4x2048x128",
                                     "1x8x1,32768x128"};
    request r = {.dtype = ATTN_F32, .repeat = 9};
    r.shapes = calloc((size_t)argc + 1, sizeof *r.shapes);
    if (!r.shapes) {
        return cli_fail("not enough memory");
    }
    int code = cli_parse(&argp, argc, argv, &r);
    attn_context *context = code < 0 ? cli_context(r.threads) : NULL;
    if (code < 0 && !context) {
        code = CLI_FAILED;
    }
    if (context) {
        bool given = r.count > 0 || r.file;
        code = CLI_OK;
        if (!r.json) {
            printf("%-22s %-5s %-6s %9s %9s %9s %8s %7s %8s %5s %10s  kernel\n", "shape", "dtype",
                   "", "ms", "min", "max", "GF/s", "GB/s", "ceiling", "%", "naive ms");
        }
        size_t count = given ? r.count : sizeof defaults / sizeof defaults[0];
        for (size_t i = 0; i < count && code == CLI_OK; i++) {
            code = run_shape(context, &r, given ? r.shapes[i] : defaults[i]);
        }
        if (code == CLI_OK && r.file) {
            code = run_file(context, &r);
        }
        attn_context_destroy(context);
    }
    free(r.shapes);
    return code;
}
