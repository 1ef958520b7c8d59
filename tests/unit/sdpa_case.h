/**
 * sdpa_case.h: one random attention call: options, arrays, what they hold. Used wherever a property
 * must hold for every combination of options.
 */
#ifndef TESTS_SDPA_CASE_H
#define TESTS_SDPA_CASE_H

#include "support.h"

/** Options that a case may have; bits of sdpa_case.have. */
enum {
    CASE_SCALE = 1 << 0,
    CASE_SOFTCAP = 1 << 1,
    CASE_CAUSAL = 1 << 2,
    CASE_OFFSET = 1 << 3,
    CASE_WINDOW = 1 << 4,
    CASE_MASK = 1 << 5,
    CASE_BIAS = 1 << 6,
    CASE_ALIBI = 1 << 7,
    CASE_SINKS = 1 << 8,
    CASE_LENGTHS_Q = 1 << 9,
    CASE_LENGTHS_K = 1 << 10,
    CASE_LSE = 1 << 11,
    CASE_WEIGHTS = 1 << 12,
    CASE_CACHED = 1 << 13,
    CASE_RING = 1 << 14,  /* only with CACHED */
    CASE_FIRST = 1 << 15, /* only with CACHED */
    CASE_DROPOUT = 1 << 16
};
#define CASE_OPTIONS 17

/** What calls a case is for. */
typedef enum sdpa_case_kind {
    CASE_FORWARD,
    CASE_GRADIENT, /* what attn_sdpa_backward takes: no cache, no weights, LSE always */
    CASE_SMOOTH    /* besides, f64, a few rows and keys, normal values: for finite differences */
} sdpa_case_kind;

typedef struct sdpa_case {
    rng random;
    sdpa_case_kind kind;
    int have;
    int64_t batch, heads_q, heads_kv, len_q, len_k, slots, dim_qk, dim_v;
    attn_dtype q_type, kv_type, out_type;
    attn_sdpa_options options; /* points into this struct: do not copy a case */
    attn_kv_view kv;
    array q, k, v, out, lse, weights, mask, bias, sinks, alibi;
    int64_t lengths_q[8], lengths_k[8], offsets[8], first[8];
} sdpa_case;

/** Makes case number `index` of a seed. `have` < 0: a random choice of options. */
void sdpa_case_make(sdpa_case *c, sdpa_case_kind kind, uint64_t seed, int64_t index, int have);
void sdpa_case_free(sdpa_case *c);

/** Runs attn_sdpa or attn_sdpa_kv. */
attn_status sdpa_case_run(sdpa_case *c, attn_context *context);

/** One line that tells what the case is. */
void sdpa_case_describe(const sdpa_case *c, char *text, size_t size);

/** Compares all outputs with the oracle, and their gaps with what was there. */
bool sdpa_case_check(const sdpa_case *c, char *text, size_t size);

/** What is wrong with case `index`, what the case is, and the line that repeats it. */
void sdpa_case_report(const sdpa_case *c, int64_t index, const char *text);

#endif
