/**
 * attn/train_ops.h (advanced level): what training needs beside attention and products: element-wise functions, softmax,
 * cross-entropy, dropout, AdamW, and their gradients.
 *
 * All take f32 or f64 views (of one type in a call), unit last stride. f32 runs on vectorised kernels with subnormals flushed to 0, f64 on plain
 * loops that flush nothing, for checks. Work is cut into fixed pieces on the context's threads, so that results have the same bits for any number of
 * threads; small calls stay on the calling thread. Nothing is allocated. NULL is an error unless said otherwise.
 * Errors of all: ARGUMENT (NULL, values out of range), DTYPE, SHAPE; attn_last_error() names the argument. Nothing is written on failure.
 */
#ifndef ATTN_TRAIN_OPS_H
#define ATTN_TRAIN_OPS_H

#include <attn/context.h>
#include <attn/view.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Element-wise functions. */
typedef enum attn_activation {
    ATTN_ACT_RELU = 0, /**< max(x, 0); slope 0 at 0 */
    ATTN_ACT_GELU = 1, /**< x·Φ(x) = x/2·(1 + erf(x/√2))               (Hendrycks & Gimpel 2016) */
    ATTN_ACT_GELU_TANH = 2, /**< x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))): GPT-2's */
    ATTN_ACT_SILU = 3,      /**< x/(1 + e^−x) */
    ATTN_ACT_TANH = 4,
    ATTN_ACT_SIGMOID = 5, /**< 1/(1 + e^−x) */
    ATTN_ACT_EXP = 6,
    ATTN_ACT_LOG = 7 /**< −∞ at 0 (f32: also at subnormals), NaN below */
} attn_activation;

/**
 * y = f(x), element by element. x, y: 1 to 4 dimensions of the same sizes; y may be x and must not overlap it otherwise.
 * f32: within 4e-7·|f(x)| + 2⁻¹¹⁹; the two GELUs within 2e-7·|x| (their tails to the left are small beside x).
 * Where x is infinite the result is f's limit (GELU and SiLU are 0 at −∞); NaN gives NaN; nothing overflows that the result does not.
 */
ATTN_API attn_status attn_activate(attn_context *context, attn_activation kind, const attn_view *x,
                                   const attn_view *y);

/**
 * dx = f'(x)·dy, or dx + f'(x)·dy where `accumulate`. All of one shape; dx may be dy (not where accumulating) and must not overlap otherwise.
 * f32: f' within 4e-7·max(|f'|, 1) for the two GELUs and SiLU, 4e-7·|f'| + 2⁻¹¹⁹ for the others.
 */
ATTN_API attn_status attn_activate_backward(attn_context *context, attn_activation kind,
                                            const attn_view *x, const attn_view *dy,
                                            bool accumulate, const attn_view *dx);

/**
 * y = e^(x − max x)/Σ e^(x − max x) over the last dimension, or with `log` its logarithm, x − max x − ln Σ e^(x − max x).
 * x, y: 1 to 4 dimensions of the same sizes; y may be x. −∞ weighs 0 (log: −∞); a row that has +∞ or NaN, or nothing but −∞, is NaN.
 * f32: within (6e-7 + 2⁻²⁴·(max x − x))·y, log: 4e-7 + 2⁻²³·(max x − x + ln Σ). A row is one thread's.
 */
ATTN_API attn_status attn_softmax(attn_context *context, bool log, const attn_view *x,
                                  const attn_view *y);

/**
 * dx (+)= y∘(dy − Σ y∘dy), or with `log` dx (+)= dy − e^y·Σ dy; sums over the last dimension. y is what attn_softmax gave
 * with the same `log`. All of one shape; dx may be dy or y (not where `accumulate`).
 */
ATTN_API attn_status attn_softmax_backward(attn_context *context, bool log, const attn_view *y,
                                           const attn_view *dy, bool accumulate,
                                           const attn_view *dx);

/**
 * losses[r] = −ln softmax(logits[r,:])[targets[r]],   dlogits[r,:] = scale·(softmax(logits[r,:]) − onehot(targets[r]))
 *
 * logits  [rows, vocab]  read
 * targets [rows]         read; 0 … vocab−1, or −1: the row is ignored (not read; loss 0, gradient 0)
 * scale                  what the loss is multiplied with further on: 1/(rows not ignored) for a mean
 * losses  [rows] or NULL written, not scaled
 * dlogits [rows, vocab] or NULL, written; may be logits itself
 * One of losses and dlogits at least. A view with dtype NONE counts as NULL. Errors besides: ARGUMENT names the first target out of range.
 */
ATTN_API attn_status attn_cross_entropy(attn_context *context, const attn_view *logits,
                                        const int64_t *targets, double scale,
                                        const attn_view *losses, const attn_view *dlogits);

/** Settings of one AdamW step; see attn_adamw. */
typedef struct attn_adamw_options {
    size_t struct_size;
    double lr;           /**< step size; 1e-3 */
    double beta1, beta2; /**< in [0, 1); 0.9, 0.999 */
    double eps;          /**< > 0; 1e-8 */
    double weight_decay; /**< ≥ 0; 0.01 */
    double grad_scale;   /**< g is read times this (clipping, accumulation); 1 */
    int64_t step;        /**< t ≥ 1, counts from 1 */
} attn_adamw_options;

/** The defaults above, step 1. */
ATTN_API attn_adamw_options attn_adamw_options_init(void);

/**
 * One step of AdamW, in place   (Loshchilov & Hutter 2019; Kingma & Ba 2015):
 *   m ← β₁·m + (1 − β₁)·g,   v ← β₂·v + (1 − β₂)·g²,   p ← p − lr·( m/(1 − β₁^t) / (√(v/(1 − β₂^t)) + eps) + weight_decay·p )
 * p, m, v written, g read; 1 to 4 dimensions of the same sizes, none may overlap another. m and v start as zeros.
 */
ATTN_API attn_status attn_adamw(attn_context *context, const attn_adamw_options *options,
                                const attn_view *p, const attn_view *g, const attn_view *m,
                                const attn_view *v);

/** *sum = Σ x² over all elements (1 to 4 dimensions), added up in float64: a gradient's norm for clipping. 0 for no elements. */
ATTN_API attn_status attn_sum_squares(attn_context *context, const attn_view *x, double *sum);

/**
 * y = a·x + b·y, element by element; 1 to 4 dimensions of the same sizes; x may be y. With b = 0, y is not read and may hold anything;
 * a and b are rounded to f32 for f32.
 */
ATTN_API attn_status attn_axpby(attn_context *context, double a, const attn_view *x, double b,
                                const attn_view *y);

/**
 * y = x/(1 − p) where an element is kept, 0 where it is dropped, with probability p each   (Srivastava et al. 2014). The gradient is the same
 * call on dy with the same seed.
 *
 * Element i in row-major order is kept when word i mod 4 of Philox4x32-10 with key = seed and counter = (i/4 low, i/4 high, 0, 0) is at
 * least ⌊p·2³²⌋: the same elements on every machine, ISA level and number of threads, for f32 and f64. A call that is to drop others takes another seed.
 * x, y: 1 to 4 dimensions of the same sizes; y may be x. 0 ≤ p < 1. What a dropped element held does not matter.
 */
ATTN_API attn_status attn_dropout(attn_context *context, double p, uint64_t seed,
                                  const attn_view *x, const attn_view *y);

#ifdef __cplusplus
}
#endif
#endif
