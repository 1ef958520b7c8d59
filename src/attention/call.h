/**
 * attention/call.h: one attention call, checked and normalised: what validate gives and plan, tile
 * loops and finish read. Nothing below this line checks user arguments again.
 */
#ifndef ATTN_ATTENTION_CALL_H
#define ATTN_ATTENTION_CALL_H

#include "kernels/dropout/dropout.h"

#include <attn/attention.h>

/** How positions p(i) of query rows are found; see semantics.md. */
typedef struct sdpa_call {
    attn_context *context;
    int64_t batch, heads_q, heads_kv, group; /* group = heads_q / heads_kv */
    int64_t len_q, len_k;                    /* len_k: columns of mask, bias, weights */
    int64_t dim_qk, dim_v;
    attn_view q, out; /* 4-D */
    attn_kv_view kv;  /* k, v 4-D [batch, heads_kv, slots, dim] */
    bool cached;      /* came through attn_sdpa_kv: absolute positions, bottom-right by default */
    double scale;
    double softcap; /* 0: none */
    attn_causal causal;
    int64_t left, right;    /* window; −1: unlimited */
    attn_view mask, bias;   /* 4-D with broadcast dimensions at stride 0; dtype NONE: absent */
    attn_view sinks, alibi; /* 1-D [heads_q] or absent */
    const int64_t *lengths_q, *lengths_k; /* lengths_k: options' or the kv view's; NULL: all */
    const int64_t *q_offset;
    int64_t q_offset_step;  /* 0: one number for all (or none), 1: per sequence */
    attn_view lse, weights; /* 3-D, 4-D, or absent */
    double dropout;         /* 0 … < 1; 0: none */
    uint64_t dropout_seed;
    void *scratch; /* caller's, or NULL */
    size_t scratch_size;
} sdpa_call;

/** Half-open interval of key columns, counted from the oldest key held. */
typedef struct sdpa_range {
    int64_t begin, end;
} sdpa_range;

/**
 * Fills `call` from the public arguments, or fails with a sentence. `cached`: attn_sdpa_kv's rules.
 */
attn_status sdpa_validate(attn_context *context, const attn_sdpa_options *options,
                          const attn_view *q, const attn_kv_view *kv, const attn_view *out,
                          bool cached, sdpa_call *call);

/** Query rows n_q and keys n of sequence b. */
int64_t sdpa_rows(const sdpa_call *call, int64_t b);
int64_t sdpa_keys(const sdpa_call *call, int64_t b);

/**
 * p(i) − (absolute position of column 0): a position in columns, so that p(i) − j is a distance.
 */
int64_t sdpa_position(const sdpa_call *call, int64_t b, int64_t i);

/**
 * Columns that causal, window and lengths leave row i; empty ranges have begin == end. Both ends
 * never fall as i grows.
 */
sdpa_range sdpa_row_range(const sdpa_call *call, int64_t b, int64_t i);

/** Whether mask, bias or ALiBi are there: whether rows need addends. */
bool sdpa_has_addend(const sdpa_call *call);

/**
 * addend[c] for columns begin … begin+count−1 of row i: bias + ALiBi, or −INFINITY where mask or
 * bias hide the column. A slot with −INFINITY is masked whatever its score (select, don't add).
 * Causal, window and lengths are sdpa_row_range's.
 */
void sdpa_addend(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t begin,
                 int64_t count, float *addend);
void sdpa_addend_f64(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t begin,
                     int64_t count, double *addend);

/** What ALiBi multiplies −slope with: p(i) − j, its absolute value where causal is NONE. */
double sdpa_distance(const sdpa_call *call, int64_t b, int64_t i, int64_t j);

/**
 * Whether row i attends to column j: inside sdpa_row_range, mask 1, bias not −inf. One slot at a
 * time: rare cases.
 */
bool sdpa_attends(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t j);

/**
 * Whether row i attends to any column at all (mask, bias −inf, ranges; not scores). For finish,
 * rare.
 */
bool sdpa_row_attends(const sdpa_call *call, int64_t b, int64_t h, int64_t i);

/**
 * A run of columns from `begin` that lie in consecutive slots: pointers to the first one's K and V,
 * strides between slots in elements, and how many (≤ wanted). Rings wrap at most once per sequence.
 */
typedef struct sdpa_kv_run {
    const void *k, *v;
    int64_t k_stride, v_stride, count;
} sdpa_kv_run;
sdpa_kv_run sdpa_kv_at(const sdpa_call *call, int64_t b, int64_t kv_head, int64_t begin,
                       int64_t wanted);

/** The kernels' view of dropout in sequence b; rows and heads of the lanes are the caller's to set. */
attn_dropout_key sdpa_dropout(const sdpa_call *call, int64_t b);

/**
 * What dropout multiplies the weights of columns begin … begin+count−1 of row i with: 0, or
 * 1/(1−p) for those that are kept. Any interval of a row gives the same numbers at any ISA level.
 * In f64 read it as kept or not (≠ 0): the factor itself is rounded to f32.
 */
void sdpa_keep(const sdpa_call *call, int64_t b, int64_t h, int64_t i, int64_t begin, int64_t count,
               float *factor);

/** The sink logit of a head; only where call->sinks is there. */
double sdpa_sink(const sdpa_call *call, int64_t h);

/*
 * The paths. Each says how much scratch it needs (shared part and part per worker; every call's
 * needs are O(len)), and computes out, lse and weights.
 */
typedef struct sdpa_needs {
    size_t shared, per_worker;
    int64_t tasks, split;
    const char *kernel;
} sdpa_needs;

/** Many query rows, f32 arithmetic: flash tiles. */
sdpa_needs sdpa_flash_needs(const sdpa_call *call);
void sdpa_flash_run(const sdpa_call *call, void *scratch);

/**
 * 1 … 16 query rows per KV head (len_q × group), f32 arithmetic: keys split in fixed pieces,
 * merged.
 */
bool sdpa_decode_fits(const sdpa_call *call);
sdpa_needs sdpa_decode_needs(const sdpa_call *call);
void sdpa_decode_run(const sdpa_call *call, void *scratch);

/** f64: exact, row by row. */
sdpa_needs sdpa_f64_needs(const sdpa_call *call);
void sdpa_f64_run(const sdpa_call *call, void *scratch);

#endif
