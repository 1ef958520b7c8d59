/**
 * profile.h: how time and memory of attention grow with the length: what `attn profile` measures and reports.
 */
#ifndef ATTN_CLI_PROFILE_H
#define ATTN_CLI_PROFILE_H

#include "cli.h"

enum { PROFILE_MAX_POINTS = 24, PROFILE_SERIES = 5 };

/** One length: milliseconds of the median run, and bytes taken beyond inputs and outputs. */
typedef struct profile_point {
    int64_t len;
    double ms, bytes;
} profile_point;

/** y = c·len^exponent, least squares on logarithms; ± the half-width of the 95 % confidence interval. */
typedef struct profile_fit {
    double exponent, half_width;
    int points;
} profile_fit;

typedef struct profile_series {
    const char *name, *title;
    profile_point points[PROFILE_MAX_POINTS];
    int count;
    profile_fit time, memory;
} profile_series;

/** GPT-3's attention: 96 layers of 96 heads of 128, 2048 tokens, f32 (Brown et al. 2020, table 2.1). */
typedef struct profile_gpt3 {
    double formula_layer_bytes, formula_bytes; /* weights of a layer, of all layers: computed */
    double tiled_layer_bytes;                  /* counted at the allocator */
    double formula_layer_ms, tiled_layer_ms;   /* NaN where not measured */
    double formula_layer_measured_bytes;
} profile_gpt3;

typedef struct profile {
    int64_t heads, dim, max_len;
    int threads;
    char isa[16];
    profile_series series[PROFILE_SERIES];
    profile_gpt3 gpt3;
} profile;

/** Measures everything; heads, dim and max_len are set by the caller. `quick` leaves GPT-3's layer by the formula out. */
attn_status profile_measure(int64_t threads, bool quick, profile *p);

/** A self-contained page with charts and tables. ATTN_ERR_UNSUPPORTED in builds without Chart.js. */
attn_status profile_write_html(const profile *p, const char *path);

/** Everything as JSON; NULL on failure. */
json_t *profile_json(const profile *p);

#endif
