/**
 * oracle.h: attention once more, as plainly as it can be said, in float64: what unit tests compare
 * attn_sdpa with. It is written from the contract alone and shares no code with the library, and
 * it takes every option at once. Slow on purpose: one key at a time, nothing skipped or merged.
 */
#ifndef TESTS_ORACLE_H
#define TESTS_ORACLE_H

#include <attn/attention.h>

/** What a row of the result must be. */
typedef enum oracle_kind {
    ORACLE_ORDINARY = 0, /**< finite scores: compare within the bound */
    ORACLE_EMPTY = 1,    /**< attends to nothing: out 0, weights 0, lse −inf, exactly */
    ORACLE_NAN = 2       /**< a NaN or +inf score, or only −inf ones: out and lse are NaN */
} oracle_kind;

/** Everything attention gives, dense and row-major, in float64. */
typedef struct oracle_result {
    int64_t batch, heads_q, len_q, len_k, dim_v;
    bool f64;        /* arithmetic the bounds are for */
    double *out;     /* [batch, heads_q, len_q, dim_v] */
    double *lse;     /* [batch, heads_q, len_q] */
    double *weights; /* [batch, heads_q, len_q, len_k] */
    double *bound;   /* [batch, heads_q, len_q]: the error lse and weights may have */
    double *
        v_max; /* [batch, heads_q, len_q]: max abs of attended v, /(1−p) with dropout; out: bound·v_max */
    oracle_kind *kind; /* [batch, heads_q, len_q] */
    bool *attends;     /* [batch, heads_q, len_q, len_k] */
} oracle_result;

/** Plain arrays as attention reads them: every slot held, positions from 0. */
attn_kv_view oracle_kv(const attn_view *k, const attn_view *v);

/**
 * Computes. `cached`: with attn_sdpa_kv's rules. The arguments must be valid; options may be NULL.
 * Aborts the test program when memory runs out. Free with oracle_free.
 */
oracle_result oracle_sdpa(const attn_sdpa_options *options, const attn_view *q,
                          const attn_kv_view *kv, bool cached);
void oracle_free(oracle_result *result);

/** Whether query row i of head h of sequence b attends to key column j, by the rules alone. */
bool oracle_attends(const attn_sdpa_options *options, const attn_view *q, const attn_kv_view *kv,
                    bool cached, int64_t b, int64_t h, int64_t i, int64_t j);

/** What ALiBi multiplies −slope with: p(i) − j, its absolute value where causal is NONE. */
int64_t oracle_distance(const attn_sdpa_options *options, const attn_view *q,
                        const attn_kv_view *kv, bool cached, int64_t b, int64_t i, int64_t j);

/**
 * What dropout multiplies the weight of a slot with: 1 without dropout, else 0 or 1/(1−p). Philox
 * written once more, from the paper.
 */
double oracle_keep(const attn_sdpa_options *options, int64_t b, int64_t h, int64_t i, int64_t j);

/** The slot of key column j of sequence b. */
int64_t oracle_slot(const attn_kv_view *kv, int64_t b, int64_t j);

/** Element `index` (in elements from data) of a view's memory as a double; subnormal floats are 0. */
double oracle_load(const attn_view *view, int64_t index);

/** Stores `value`, rounded to nearest even, at element `index` of a view's memory. */
void oracle_store(const attn_view *view, int64_t index, double value);

/** Where an element of a 1- to 4-dimensional view lies; trailing indices of fewer dimensions are ignored. */
int64_t oracle_at(const attn_view *view, int64_t i0, int64_t i1, int64_t i2, int64_t i3);

/**
 * Compares what the library wrote with the oracle. lse and weights may be NULL. True when everything
 * is as it must be; else `text` names the worst element. `tolerance` scales the bounds (1: as
 * docs/numerics.md).
 */
bool oracle_compare(const oracle_result *want, const attn_view *out, const attn_view *lse,
                    const attn_view *weights, double tolerance, char *text, size_t size);

/** The largest error of this program's comparisons so far as a share of its bound; 16-bit outputs left out. */
double oracle_largest_share(void);

#endif
