/**
 * bench.h: what `attn bench` and `attn profile` share: random arrays, timings and their statistics.
 */
#ifndef ATTN_CLI_BENCH_H
#define ATTN_CLI_BENCH_H

#include "cli.h"

int bench_sdpa(int argc, char **argv);
int bench_lm(int argc, char **argv);

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

/** Of a set of timings. Sorts them. */
typedef struct bench_stats {
    double median, min, max;
} bench_stats;
bench_stats bench_statistics(double *values, int count);

#endif
