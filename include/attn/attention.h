/**
 * attn/attention.h: scaled dot-product attention, forward and backward.
 *
 * Levels: attn_sdpa is the simple call, attn_sdpa_backward its gradients; attn_sdpa_kv reads a cache; attn_sdpa_plan with caller's
 * scratch, attn_sdpa_explain and attn_merge are the advanced level.
 */
#ifndef ATTN_ATTENTION_H
#define ATTN_ATTENTION_H

#include <attn/context.h>
#include <attn/view.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Which keys row i may see by its position p(i): none is hidden, or only j ≤ p(i). */
typedef enum attn_causal {
    ATTN_CAUSAL_NONE = 0,
    ATTN_CAUSAL_TOP_LEFT = 1,    /**< p(i) = i: PyTorch's is_causal */
    ATTN_CAUSAL_BOTTOM_RIGHT = 2 /**< p(i) = i + n − n_q: the last query sees the last key */
} attn_causal;

/**
 * Everything attention can be asked for. Start from attn_sdpa_options_init(); a zeroed rest means
 * defaults. Views and arrays are read during the call only. The order of operations is
 *   s = scale·q·k → softcap·tanh(s/softcap) → + bias, + ALiBi → mask → softmax → dropout → ·V.
 */
typedef struct attn_sdpa_options {
    size_t struct_size;
    bool has_scale; /**< false: 1/√dim_qk */
    double scale;   /**< any finite number, 0 and negative ones too */
    attn_causal causal;
    bool has_window; /**< row i sees keys p(i)−left … p(i)+right; −1: unlimited on that side */
    int64_t window_left, window_right;
    double softcap; /**< > 0, or 0 for none */
    const attn_view
        *mask; /**< BOOL, 2-4 dims, broadcasts to [batch, heads_q, len_q, len_k]; 1 attends */
    const attn_view *bias;    /**< q's type or f32 (f64 with f64), as mask; −inf masks */
    const attn_view *sinks;   /**< [heads_q], f32 (f64 with f64): a logit in the denominator only */
    const attn_view *alibi;   /**< [heads_q] slopes, f32 (f64 with f64) */
    const int64_t *lengths_q; /**< [batch] valid query rows, 0 … len_q */
    const int64_t *lengths_k; /**< [batch] valid keys, 0 … len_k */
    const int64_t *q_offset;  /**< position of query row 0: one number, or one per sequence */
    int64_t q_offset_count;   /**< 0 (none), 1 or batch */
    attn_view *lse;           /**< out: [batch, heads_q, len_q] f32 (f64 with f64), natural log */
    attn_view
        *weights;   /**< out: [batch, heads_q, len_q, len_k] f32 (f64 with f64): costs N² memory */
    double dropout; /**< 0 ≤ p < 1: weights are dropped with p, the kept ones count 1/(1−p) times;
                         lse and weights out are without it */
    uint64_t dropout_seed; /**< the key of Philox4x32-10 with counter (column/4, row, query head,
                                batch): word column mod 4 keeps when it is ≥ ⌊p·2³²⌋. The same
                                whatever the tiling, threads or ISA; a fresh one for every step */
    const int64_t *cu_seqlens_q, *cu_seqlens_k; /**< packed sequences: not supported yet */
    int64_t num_sequences;
    bool invariant;      /**< batch invariance: not supported yet */
    void *scratch;       /**< caller's scratch, 64-byte aligned, or NULL for the context's own */
    size_t scratch_size; /**< bytes; at least what attn_sdpa_plan (attn_sdpa_backward_plan) tells */
} attn_sdpa_options;

ATTN_API attn_sdpa_options attn_sdpa_options_init(void);

/**
 * out[b,h,i,:] = Σ_j softmax_j( cap(scale·q[b,h,i,:]·k[b,g,j,:]) + bias[b,h,i,j] )·v[b,g,j,:],  g = h / (heads_q/heads_kv)
 *
 * q    [batch, heads_q,  len_q, dim_qk]  read
 * k    [batch, heads_kv, len_k, dim_qk]  read
 * v    [batch, heads_kv, len_k, dim_v ]  read; k and v share a type
 * out  [batch, heads_q,  len_q, dim_v ]  written; must not overlap an input or itself
 *
 * q and out are each f32, bf16 or f16, independently of k and v; f64 goes with f64 only. Sums are kept in f32
 * (f64 for f64). Any strides with unit stride in the last dimension.
 *
 * A row with no key it may attend to gives out = 0 and lse = −INFINITY, never NaN. Slots that are masked never reach the
 * result: a NaN in one does not spread; a NaN in an attended slot reaches the rows that attend to it, and no other.
 * options may be NULL. Bits do not depend on the number of threads.
 * Errors: SHAPE, DTYPE, ARGUMENT, UNSUPPORTED, CAPACITY (scratch too small), NO_MEMORY; nothing is written on failure; attn_last_error() says which
 * argument and why. Memory: O(len) scratch from the context, kept there.
 * Source: Vaswani et al. 2017, eq. 1; online softmax: Milakov & Gimelshein 2018; tiling: Dao 2023.
 */
ATTN_API attn_status attn_sdpa(attn_context *context, const attn_sdpa_options *options,
                               const attn_view *q, const attn_view *k, const attn_view *v,
                               const attn_view *out);

/**
 * The same, reading keys and values from a cache with absolute positions: p(i) is bottom-right for NONE and
 * BOTTOM_RIGHT unless q_offset (absolute) is given; TOP_LEFT is an error. lengths_k must be NULL (the
 * view has them). Columns of mask, bias and weights count from the oldest key held; their len_k is the largest length held.
 */
ATTN_API attn_status attn_sdpa_kv(attn_context *context, const attn_sdpa_options *options,
                                  const attn_view *q, const attn_kv_view *kv, const attn_view *out);

/**
 * Which gradients attn_sdpa_backward computes, and what flows in through lse. Start from
 * attn_sdpa_gradients_init(); a zeroed view (dtype NONE) is not wanted, or not there. Outputs are
 * written, not added to, have any strides with unit stride in the last dimension, and overlap
 * neither an input nor each other.
 */
typedef struct attn_sdpa_gradients {
    size_t struct_size;
    attn_view dlse;   /**< in: [batch, heads_q, len_q] f32 (f64 with f64): gradient with respect to
                           lse, needed to differentiate through attn_merge; rows whose lse is −inf
                           are not read */
    attn_view dq;     /**< out: q's shape; f32 or q's type (f64 with f64) */
    attn_view dk, dv; /**< out: k's and v's shapes, summed over a GQA group; f32 or k's type */
    attn_view dbias; /**< out: the bias's own shape, summed over what it repeats; f32 or its type */
    attn_view dsinks; /**< out: [heads_q] f32 (f64 with f64) */
    attn_view dalibi; /**< out: [heads_q] f32 (f64 with f64): with respect to the slopes */
} attn_sdpa_gradients;

ATTN_API attn_sdpa_gradients attn_sdpa_gradients_init(void);

/**
 * Gradients of attn_sdpa. With S the scores, Z the kept weights' factor of dropout (0 or 1/(1−p), else 1) and
 * cap' = 1 − tanh²(scale·q·k/softcap) (1 without softcap):
 *   P = exp(S − lse),  dP = Z∘(dout·vᵀ),  delta_i = Σ_d dout∘out − dlse,  dS_ij = P_ij·(dP_ij − delta_i)
 *   dv = (P∘Z)ᵀ·dout   dq = scale·(cap'∘dS)·k   dk = scale·(cap'∘dS)ᵀ·q   dbias = dS
 *   dsinks[h] = Σ_rows −exp(sink − lse)·delta   dalibi[h] = Σ_rows,j dS·(−distance)
 *
 * options  those of the forward call, the dropout seed too; lse and weights must be NULL; scratch, where it is
 *          given, is at least what attn_sdpa_backward_plan tells: backward needs more than forward. NULL: defaults
 * q, k, v  as attn_sdpa took them
 * out      [batch, heads_q, len_q, dim_v] what it wrote; f32 is accepted (and better) beside 16-bit q; read
 * lse      [batch, heads_q, len_q] f32 (f64 with f64) what it wrote; must be given; read
 * dout     [batch, heads_q, len_q, dim_v] f32, bf16 or f16 (f64 with f64): gradient with respect to out; read
 *
 * Sums are kept in f32 (f64 for f64) and rounded once to the types of the gradients. A row with no key it may attend to
 * has and causes gradient 0, never NaN, and neither its dout nor its dlse is read into a result; nor is what lies in
 * masked slots of q, k, v. Rows and keys beyond lengths get gradient 0.
 * A context serves one call at a time. Bits do not depend on the number of threads. Memory: O(len) scratch, options' or
 * the context's. Errors: SHAPE, DTYPE, ARGUMENT, UNSUPPORTED, CAPACITY (scratch too small), NO_MEMORY; nothing is written on failure.
 * Source: Vaswani et al. 2017; backward from the saved LSE: Dao et al. 2022, appendix B.
 */
ATTN_API attn_status attn_sdpa_backward(attn_context *context, const attn_sdpa_options *options,
                                        const attn_view *q, const attn_view *k, const attn_view *v,
                                        const attn_view *out, const attn_view *lse,
                                        const attn_view *dout,
                                        const attn_sdpa_gradients *gradients);

/** What a call would do and need. */
typedef struct attn_sdpa_plan_info {
    size_t struct_size;
    size_t scratch_bytes;      /**< in all, for this context's threads */
    size_t scratch_per_thread; /**< the part each thread has for itself, < 1 MiB */
    char kernel[64];           /**< e.g. "flash_f32_avx512", "decode_f16_avx2" */
    int64_t tasks;             /**< independent pieces of work */
    int64_t split;             /**< keys per piece on the decode path, 0 on the others */
} attn_sdpa_plan_info;

ATTN_API attn_sdpa_plan_info attn_sdpa_plan_info_init(void);

/** Validates and plans without computing. `kv` as in attn_sdpa_kv (attn_kv_view_init(k, v) for plain arrays). */
ATTN_API attn_status attn_sdpa_plan(attn_context *context, const attn_sdpa_options *options,
                                    const attn_view *q, const attn_kv_view *kv,
                                    const attn_view *out, attn_sdpa_plan_info *info);

/** The same of attn_sdpa_backward; no element is read. Kernels: e.g. "flash_backward_f32_avx512", "backward_f64_c". */
ATTN_API attn_status attn_sdpa_backward_plan(
    attn_context *context, const attn_sdpa_options *options, const attn_view *q, const attn_view *k,
    const attn_view *v, const attn_view *out, const attn_view *lse, const attn_view *dout,
    const attn_sdpa_gradients *gradients, attn_sdpa_plan_info *info);

/**
 * Writes in words which kernel would run and why, fallbacks included, always NUL-terminated into `text` of `size` bytes
 * (cut off where too small).
 */
ATTN_API attn_status attn_sdpa_explain(attn_context *context, const attn_sdpa_options *options,
                                       const attn_view *q, const attn_kv_view *kv,
                                       const attn_view *out, char *text, size_t size);

/**
 * Merges partial results over disjoint sets of keys:
 *   lse = ln(Σ_p e^lse_p + e^sink),  out = Σ_p e^(lse_p − lse)·out_p
 *
 * outs[parts]  each [batch, heads_q, len_q, dim_v] f32 (f64), computed without sinks
 * lses[parts]  each [batch, heads_q, len_q] f32 (f64)
 * sinks        [heads_q] f32 (f64) or NULL: added once, here
 * out          [batch, heads_q, len_q, dim_v] f32, bf16, f16 (f64 with f64); may be one of outs exactly
 * lse          [batch, heads_q, len_q] f32 (f64) or NULL; may be one of lses exactly
 *
 * All parts −inf: out 0, lse −inf. Order of summation is that of the parts. Errors: SHAPE, DTYPE, ARGUMENT.
 */
ATTN_API attn_status attn_merge(attn_context *context, int64_t parts, const attn_view *outs,
                                const attn_view *lses, const attn_view *sinks, const attn_view *out,
                                const attn_view *lse);

#ifdef __cplusplus
}
#endif
#endif
