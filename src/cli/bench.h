/**
 * bench.h: what `attn bench` and `attn profile` share: random arrays, timings and their statistics.
 */
#ifndef ATTN_CLI_BENCH_H
#define ATTN_CLI_BENCH_H

#include "cli.h"

int bench_sdpa(int argc, char **argv);
int bench_lm(int argc, char **argv);
int bench_train(int argc, char **argv);

/** An attention problem: [batch, heads, len, dim] in memory, filled with normal numbers of a fixed seed. */
typedef struct bench_shape {
    int64_t batch, heads_q, heads_kv, len_q, len_k, dim;
} bench_shape;

typedef struct bench_arrays {
    attn_view q, k, v, out;
    void *memory;
} bench_arrays;

/** "1x16x2048x64", "1x16/4x2048x128" (heads_q/heads_kv), "1x32/8x1,4096x128" (len_q,len_k). False: not such a shape. */
bool bench_parse_shape(const char *text, bench_shape *shape);

/** Memory for q, k, v and out; attn_last_error() on failure. Free with bench_free. */
attn_status bench_make(attn_context *context, const bench_shape *shape, attn_dtype dtype,
                       bench_arrays *arrays);
void bench_free(bench_arrays *arrays);

/** Element `index` of a dense view of f32, f64, bf16 or f16, as the number it stands for. */
double bench_element(attn_context *context, const attn_view *view, int64_t index);

/** What the backward of an attention problem has besides. */
typedef struct bench_gradients {
    attn_view dout, dq, dk, dv, lse;
    bench_arrays memory;
    void *rows;
} bench_gradients;

/** Runs forward for out and lse. Free with bench_gradients_free. */
attn_status bench_gradients_make(attn_context *context, const bench_shape *shape, bool causal,
                                 bench_arrays *arrays, bench_gradients *gradients);
void bench_gradients_free(bench_gradients *gradients);

/** One call of attn_sdpa_backward. */
attn_status bench_backward(attn_context *context, bool causal, const bench_arrays *arrays,
                           const bench_gradients *gradients);

/** What that call would do and need. */
attn_status bench_backward_plan(attn_context *context, bool causal, const bench_arrays *arrays,
                                const bench_gradients *gradients, attn_sdpa_plan_info *info);

/** Fails when a row of dq, dk or dv is not what the formulas give in float64. */
attn_status bench_backward_check(attn_context *context, const bench_shape *shape, bool causal,
                                 const bench_arrays *arrays, const bench_gradients *gradients);

/** Of a set of timings. Sorts them. */
typedef struct bench_stats {
    double median, min, max;
} bench_stats;
bench_stats bench_statistics(double *values, int count);

#endif
